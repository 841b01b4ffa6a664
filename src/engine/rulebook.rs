//! What a fleet rules, in memory, read without a lock: a part of the book. Floor 3.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, Guard};

use super::book::Book;
use crate::domain::{FleetId, Refusal, RefusalCode, Rules, RulesText, VehicleId};
use crate::store::{Frozen, QuotaDay, Ruled, Ruling, Rulings};

/// Vehicles that are frozen, and the fleet, which is no vehicle.
pub type FrozenThings = BTreeMap<Option<VehicleId>, Frozen>;

/// What one fleet rules. The committer alone writes it, apart from what is counted.
#[derive(Default)]
pub struct Rulebook {
    rules: ArcSwap<Rules>,
    text: ArcSwap<RulesText>,
    frozen: ArcSwap<FrozenThings>,
    day: ArcSwap<QuotaDay>,
    /// The last day whose beginning somebody has asked for.
    begun: AtomicU64,
    /// Keys let in on this day. Whoever lets keys in counts them.
    admitted: AtomicU64,
}

impl Rulebook {
    /// The rules in force.
    pub fn rules(&self) -> Guard<Arc<Rules>> {
        self.rules.load()
    }

    /// The same as the fleet has written them.
    pub fn text(&self) -> Arc<RulesText> {
        self.text.load_full()
    }

    /// What is frozen.
    pub fn frozen(&self) -> Arc<FrozenThings> {
        self.frozen.load_full()
    }

    /// The day of the quota.
    pub fn day(&self) -> QuotaDay {
        **self.day.load()
    }

    /// Keys let in on this day so far.
    pub fn admitted(&self) -> u64 {
        self.admitted.load(Ordering::Relaxed)
    }

    /// Whether keys may be issued for this vehicle, as far as the brake is concerned.
    ///
    /// # Errors
    /// `issuing_frozen`, saying since when and why.
    pub(super) fn check_frozen(&self, vehicle: &VehicleId) -> Result<(), Refusal> {
        let frozen = self.frozen.load();
        if frozen.is_empty() {
            return Ok(());
        }
        let found = frozen.get(&None).map(|it| ("fleet", it));
        let found = found.or_else(|| Some(("vehicle", frozen.get(&Some(vehicle.clone()))?)));
        let Some((of, frozen)) = found else {
            return Ok(());
        };
        let why = frozen.why.as_deref().unwrap_or("by hand");
        let since = crate::domain::time::Time(frozen.since);
        Err(Refusal::new(RefusalCode::IssuingFrozen).detail(format!(
            "the {of} is frozen since {since} ({why}): somebody with the scope approve has to \
             release it"
        )))
    }

    /// Whether nobody has asked yet for this day to begin. Who is told so asks.
    pub(super) fn begins(&self, today: u64) -> bool {
        self.day().day < today && self.begun.swap(today, Ordering::Relaxed) < today
    }

    /// Lets `keys` more in, of `most` and what was approved, if there is room. `issued` is the
    /// fleet's counter of keys.
    pub(super) fn admit_keys(&self, most: u64, issued: u64, keys: u64, today: u64) -> bool {
        let admit = |admitted| self.with_more(admitted, (most, issued), keys, today);
        self.admitted
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, admit)
            .is_ok()
    }

    /// Whether `keys` more would be let in now.
    pub(super) fn has_room(&self, most: u64, issued: u64, keys: u64, today: u64) -> bool {
        self.with_more(self.admitted(), (most, issued), keys, today)
            .is_some()
    }

    /// What is let in with `keys` more than `admitted`, if that is not too much.
    fn with_more(
        &self,
        admitted: u64,
        (most, issued): (u64, u64),
        keys: u64,
        today: u64,
    ) -> Option<u64> {
        let day = self.day();
        let (used, most) = if day.day == today {
            let used = issued.saturating_sub(day.base);
            (used, most.saturating_add(day.approved))
        } else {
            // The day has not begun, as far as is durable: nothing of it is used.
            (0, most)
        };
        let next = admitted.max(used).saturating_add(keys);
        (next <= most).then_some(next)
    }

    fn put_day(&self, day: QuotaDay) {
        if self.day().day < day.day {
            self.admitted.store(0, Ordering::Relaxed);
        }
        self.begun.fetch_max(day.day, Ordering::Relaxed);
        self.day.store(Arc::new(day));
    }

    fn change_frozen(&self, change: impl FnOnce(&mut FrozenThings)) {
        let mut frozen = FrozenThings::clone(&self.frozen.load());
        change(&mut frozen);
        self.frozen.store(Arc::new(frozen));
    }
}

impl Book {
    /// Takes in a ruling that is durable.
    pub(super) fn rule(&self, ruled: Rulings) {
        let Rulings {
            fleet,
            at,
            by,
            why,
            what,
        } = ruled;
        let day_of = |it: &Rulebook, day, base| {
            let before = it.day();
            let same = Some(before).filter(|it| it.day == day);
            same.unwrap_or(QuotaDay {
                day,
                base,
                approved: 0,
            })
        };
        let Some(book) = self.fleet(fleet) else {
            return;
        };
        match what {
            Ruling::Rules(version, text) => self.put_ruled(fleet, Ruled::Rules(version, text)),
            Ruling::Freeze(vehicle) => {
                let since = at;
                self.put_ruled(fleet, Ruled::Frozen(vehicle, Frozen { since, by, why }));
            }
            Ruling::Release(vehicle) => {
                book.ruled.change_frozen(|all| drop(all.remove(&vehicle)));
            }
            Ruling::Day(day, base) => book.ruled.put_day(day_of(&book.ruled, day, base)),
            Ruling::Approve(day, base, approved) => book.ruled.put_day(QuotaDay {
                approved,
                ..day_of(&book.ruled, day, base)
            }),
        }
    }

    /// Takes in what stands.
    pub(super) fn put_ruled(&self, fleet: FleetId, ruled: Ruled) {
        let Some(book) = self.fleet(fleet) else {
            return;
        };
        let ruled_by = &book.ruled;
        match ruled {
            Ruled::Rules(version, text) => {
                let read = RulesText::read(&text);
                let checked = read.and_then(|text| {
                    let rules = text.check(&book.catalogue(), version);
                    rules
                        .map(|rules| (text, rules))
                        .map_err(|it| it.to_string())
                });
                match checked {
                    Ok((text, rules)) => {
                        ruled_by.rules.store(Arc::new(rules));
                        ruled_by.text.store(Arc::new(text));
                    }
                    Err(why) => {
                        tracing::error!(%fleet, why, "the store holds rules that cannot be read");
                    }
                }
            }
            Ruled::Frozen(what, frozen) => {
                ruled_by.change_frozen(|all| drop(all.insert(what, frozen)));
            }
            Ruled::Day(day) => ruled_by.put_day(day),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quota_is_met_to_the_key_and_counts_what_is_on_its_way() {
        let book = Rulebook::default();
        let day = |day, base, approved| QuotaDay {
            day,
            base,
            approved,
        };
        assert!(book.begins(5) && !book.begins(5), "one asks for it");
        book.put_day(day(5, 1_000, 0));
        assert!(book.admit_keys(10, 1_000, 8, 5));
        // Nothing of it has been issued yet.
        assert!(!book.admit_keys(10, 1_000, 3, 5));
        assert!(book.admit_keys(10, 1_000, 2, 5));
        assert!(!book.admit_keys(10, 1_000, 1, 5));
        book.put_day(day(5, 1_000, 1));
        assert!(book.admit_keys(10, 1_010, 1, 5), "one more is approved");
        assert!(!book.admit_keys(10, 1_011, 1, 5));
        assert!(book.begins(6));
        book.put_day(day(6, 1_011, 0));
        assert!(book.admit_keys(10, 1_011, 10, 6) && !book.admit_keys(10, 1_011, 1, 6));
        // After a restart what was issued counts.
        let again = Rulebook::default();
        again.put_day(day(6, 1_011, 0));
        assert!(!again.begins(6));
        assert!(again.admit_keys(10, 1_020, 1, 6) && !again.admit_keys(10, 1_021, 1, 6));
    }
}
