//! What a fleet rules, in memory, read without a lock: a part of the book. Floor 3.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use arc_swap::{ArcSwap, Guard};

use super::book::Book;
use crate::domain::rules::day;
use crate::domain::{FleetId, Refusal, RefusalCode, Rules, RulesText, UnixTime, VehicleId};
use crate::store::{Frozen, QuotaDay, Ruled, Ruling, Rulings};

/// Vehicles that are frozen, and the fleet, which is no vehicle.
pub type FrozenThings = BTreeMap<Option<VehicleId>, Frozen>;

/// What one fleet rules. The committer alone writes it, apart from what is counted.
#[derive(Default)]
pub struct Rulebook {
    rules: ArcSwap<Rules>,
    text: ArcSwap<RulesText>,
    /// The rules by which every key stands, by their version.
    followed: AtomicU32,
    frozen: ArcSwap<FrozenThings>,
    day: ArcSwap<QuotaDay>,
    /// The second in which somebody last asked for a day to begin.
    asked_at: AtomicU64,
    /// Keys let in, and on which day: [`Tally`]. Whoever lets keys in counts them.
    admitted: AtomicU64,
}

/// Keys let in on a day, in one number, so that a day and its count change at once.
#[derive(Clone, Copy)]
struct Tally {
    day: u64,
    keys: u64,
}

impl Tally {
    /// Enough for the quota of a day and what may be approved beyond it.
    const KEYS_BITS: u32 = 41;
    const KEYS_MAX: u64 = (1 << Self::KEYS_BITS) - 1;
    const DAY_MAX: u64 = u64::MAX >> Self::KEYS_BITS;

    const fn read(packed: u64) -> Self {
        Self {
            day: packed >> Self::KEYS_BITS,
            keys: packed & Self::KEYS_MAX,
        }
    }

    fn packed(self) -> u64 {
        self.day.min(Self::DAY_MAX) << Self::KEYS_BITS | self.keys.min(Self::KEYS_MAX)
    }
}

/// How many keys a fleet has had today.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// The day: never one before the day that has begun, whatever the clock says.
    pub day: u64,
    /// Keys let in on it.
    pub keys: u64,
    /// Keys approved for it beyond the quota.
    pub approved: u64,
}

impl Used {
    /// What is let in with `keys` more, of `most` and what was approved, if that is not too much.
    fn with_more(self, keys: u64, most: u64) -> Option<Tally> {
        let keys = self.keys.saturating_add(keys);
        let day = self.day;
        (keys <= most.saturating_add(self.approved)).then_some(Tally { day, keys })
    }
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

    /// The version of the rules by which every key stands; those after it have not been asked of
    /// the keys that were out when they were set.
    pub fn followed(&self) -> u32 {
        self.followed.load(Ordering::Relaxed)
    }

    /// What is frozen.
    pub fn frozen(&self) -> Arc<FrozenThings> {
        self.frozen.load_full()
    }

    /// How much of its keys the fleet has had by now. `issued` is its counter of keys.
    pub fn used(&self, issued: u64, now: UnixTime) -> Used {
        self.used_with(
            Tally::read(self.admitted.load(Ordering::Relaxed)),
            issued,
            now,
        )
    }

    /// What was issued on a day counts, and what was let in and is on its way: whichever is more.
    fn used_with(&self, admitted: Tally, issued: u64, now: UnixTime) -> Used {
        let durable = **self.day.load();
        let (today, _) = day(now);
        let today = today.max(durable.day).max(admitted.day);
        // Until the day has begun durably, nothing is known of it but what was let in.
        let (issued, approved) = if durable.day == today {
            (issued.saturating_sub(durable.base), durable.approved)
        } else {
            (0, 0)
        };
        let admitted = if admitted.day == today {
            admitted.keys
        } else {
            0
        };
        Used {
            day: today,
            keys: admitted.max(issued),
            approved,
        }
    }

    /// Whether keys may be issued for this vehicle, as far as the brake is concerned.
    ///
    /// # Errors
    /// `issuing_frozen`, saying since when and why.
    pub(super) fn check_frozen(&self, vehicle: &VehicleId) -> Result<(), Refusal> {
        if self.rules.load().unreadable {
            return Err(Refusal::new(RefusalCode::IssuingFrozen).detail(
                "this server cannot read the fleet's rules, and issues nothing against them: \
                 set them again (PUT /v1/rules)",
            ));
        }
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

    /// Whether whoever asks should have this day begin: it has not, and nobody has asked for it in
    /// this second. It is asked for again for as long as it has not begun durably.
    pub(super) fn begins(&self, now: UnixTime) -> Option<u64> {
        let (today, _) = day(now);
        let asked = || self.asked_at.swap(now, Ordering::Relaxed);
        (self.day.load().day < today && asked() != now).then_some(today)
    }

    /// Lets `keys` more in, of `most` and what was approved, if there is room. `issued` is the
    /// fleet's counter of keys.
    pub(super) fn admit_keys(&self, most: u64, issued: u64, keys: u64, now: UnixTime) -> bool {
        let admit = |admitted| {
            let used = self.used_with(Tally::read(admitted), issued, now);
            let next = used.with_more(keys, most)?;
            Some(next.packed())
        };
        self.admitted
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, admit)
            .is_ok()
    }

    /// Whether `keys` more would be let in now.
    pub(super) fn has_room(&self, most: u64, issued: u64, keys: u64, now: UnixTime) -> bool {
        self.used(issued, now).with_more(keys, most).is_some()
    }

    /// Takes in what is frozen, all of it, in place of what was known.
    pub(super) fn become_frozen(&self, frozen: FrozenThings) {
        self.frozen.store(Arc::new(frozen));
    }

    fn put_day(&self, day: QuotaDay) {
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
            let same = Some(**it.day.load()).filter(|it| it.day == day);
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
            Ruling::Followed(_, to) => self.put_ruled(fleet, Ruled::Followed(to)),
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
                        ruled_by.rules.store(Arc::new(Rules::unreadable(version)));
                    }
                }
            }
            Ruled::Followed(version) => ruled_by.followed.store(version, Ordering::Relaxed),
            Ruled::Frozen(what, frozen) => {
                ruled_by.change_frozen(|all| drop(all.insert(what, frozen)));
            }
            Ruled::AllFrozen(all) => ruled_by.become_frozen(all.into_iter().collect()),
            Ruled::Day(day) => ruled_by.put_day(day),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::brake::APPROVED_MAX;
    use super::*;
    use crate::domain::rules::KEYS_PER_DAY_MAX;
    use crate::domain::{Fleet, FleetName, FleetSettings, Status};
    use crate::store::Row;

    #[test]
    fn the_quota_is_met_to_the_key_and_counts_what_is_on_its_way() {
        let book = Rulebook::default();
        let on = |day: u64| day * 86_400 + 7;
        let begin = |book: &Rulebook, day, base, approved| {
            book.put_day(QuotaDay {
                day,
                base,
                approved,
            });
        };
        assert_eq!(book.begins(on(5)), Some(5));
        assert_eq!(book.begins(on(5)), None, "one in a second asks for it");
        assert_eq!(book.begins(on(5) + 1), Some(5), "nothing came of it");
        // Let in before the day has begun durably, and not forgotten when it has.
        assert!(book.admit_keys(10, 1_000, 2, on(5)));
        begin(&book, 5, 1_000, 0);
        assert_eq!(book.begins(on(5) + 2), None);
        assert!(book.admit_keys(10, 1_000, 6, on(5)));
        // Nothing of it has been issued yet.
        assert!(!book.admit_keys(10, 1_000, 3, on(5)));
        assert!(book.has_room(10, 1_000, 2, on(5)) && !book.has_room(10, 1_000, 3, on(5)));
        assert!(book.admit_keys(10, 1_000, 2, on(5)));
        assert!(!book.admit_keys(10, 1_000, 1, on(5)));
        begin(&book, 5, 1_000, 1);
        assert!(book.admit_keys(10, 1_010, 1, on(5)), "one more is approved");
        assert!(!book.admit_keys(10, 1_011, 1, on(5)));
        let used = Used {
            day: 5,
            keys: 11,
            approved: 1,
        };
        assert_eq!(book.used(1_011, on(5)), used);
        // The next day begins with the first who asks, durably or not.
        assert_eq!(book.begins(on(6)), Some(6));
        assert!(book.admit_keys(10, 1_011, 9, on(6)));
        assert!(!book.admit_keys(10, 1_011, 2, on(6)));
        begin(&book, 6, 1_011, 0);
        assert!(book.admit_keys(10, 1_011, 1, on(6)) && !book.admit_keys(10, 1_011, 1, on(6)));
        // A clock that steps back does not bring the day before again.
        assert!(!book.admit_keys(10, 1_011, 1, on(5)));
        assert_eq!(book.used(1_011, on(5)).day, 6);
        // After a restart what was issued counts.
        let again = Rulebook::default();
        begin(&again, 6, 1_011, 0);
        assert_eq!(again.begins(on(6)), None);
        assert!(again.admit_keys(10, 1_020, 1, on(6)) && !again.admit_keys(10, 1_021, 1, on(6)));
    }

    #[test]
    fn a_tally_has_room_for_every_quota() {
        let most = Tally {
            day: 20_000,
            keys: KEYS_PER_DAY_MAX + APPROVED_MAX,
        };
        let read = Tally::read(most.packed());
        assert_eq!((read.day, read.keys), (most.day, most.keys));
        let beyond = Tally::read(
            Tally {
                day: u64::MAX,
                keys: u64::MAX,
            }
            .packed(),
        );
        assert_eq!((beyond.day, beyond.keys), (Tally::DAY_MAX, Tally::KEYS_MAX));
    }

    #[test]
    fn rules_that_cannot_be_read_stop_issuing_until_they_are_set_again() {
        let book = Book::default();
        let fleet = Fleet {
            id: FleetId([1; 16]),
            name: FleetName::parse("first").expect("a name"),
            status: Status::Active,
            tag: 1,
            status_key: [0; 32],
            status_next: 0,
            settings: FleetSettings::default(),
        };
        let id = fleet.id;
        book.take(Row::Fleet(fleet));
        let vehicle = VehicleId::parse("CAR").expect("an id");
        let set = |version, text: &str| {
            book.take(Row::Ruled(id, Ruled::Rules(version, text.into())));
            let ruled = &book.fleet(id).expect("the fleet").ruled;
            assert_eq!(ruled.rules().version, version);
            ruled.check_frozen(&vehicle).map_err(|it| it.code)
        };
        assert_eq!(set(1, r#"{"keys_per_day":5}"#), Ok(()));
        assert_eq!(set(2, r#"{"speed":5}"#), Err(RefusalCode::IssuingFrozen));
        assert_eq!(set(3, r#"{"keys_per_day":5}"#), Ok(()));
    }
}
