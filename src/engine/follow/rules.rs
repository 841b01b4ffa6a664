//! Keys that follow their fleet's rules: set anew, they are asked of every key that is out. And those
//! of a vehicle whose model is another. Floor 3.
//!
//! Every bundle that is live is looked at, a page at a time, and its keys are marked where they stand
//! otherwise by now. Each mark is made under the condition that rules, identity and model still are
//! those it was decided on, and nothing is issued under rules that are not the newest: so what a
//! look has passed stays right, and what comes behind it comes right. By which rules the keys of a
//! fleet stand is durable once all of them were looked at; whoever keeps the store begins anew
//! where that was cut off, and does nothing twice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::super::amend::lists_of;
use super::super::book::FleetBook;
use super::super::revoke::CHUNK;
use super::super::{Engine, Failure};
use super::Conditions;
use crate::domain::change::Followed;
use crate::domain::{
    AuthorizationState, Epoch, EpochId, EpochState, FleetId, Mark, Rules, ShardId, UnixTime,
    VehicleId,
};
use crate::store::{
    Applied, Cursor, Following, Ruling, Rulings, SignedBundle, Store, StoreError, Task, Write,
};

/// How long one slice goes on looking.
const SLICE: Duration = Duration::from_secs(1);

/// Bundles read together.
const PAGE: u32 = 256;

/// Times marks are decided anew after their conditions did not hold, before others go first.
const ATTEMPTS_MAX: usize = 8;

/// A look at every bundle of fleets whose rules were set anew, as far as it has come.
#[derive(Debug, Default)]
pub struct Sweep {
    /// Fleets, and the rules that their keys are to follow.
    owed: BTreeMap<FleetId, u32>,
    through: Through,
    /// Keys that were marked.
    marked: u64,
}

/// What looks came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Live bundles that were looked at.
    pub bundles: u64,
    /// Keys in them that would be suspended.
    pub suspended: u64,
    /// Keys in them that would be valid again.
    pub resumed: u64,
    /// Whether there are no others.
    pub all: bool,
}

/// A way through all bundles, by who signed them. They may be signed again by an epoch that is active
/// while they stand under one that was revoked: these come first, and those last.
#[derive(Debug, Default)]
struct Through {
    epochs: Vec<(EpochId, EpochState)>,
    at: usize,
    after: Option<Cursor>,
}

impl Through {
    fn new(epochs: &[Arc<Epoch>]) -> Self {
        let mut epochs: Vec<_> = epochs.iter().map(|it| (it.id, it.state)).collect();
        epochs.sort_by_key(|(_, state)| match state {
            EpochState::Revoked => 0,
            EpochState::Active => 2,
            _ => 1,
        });
        Self {
            epochs,
            ..Self::default()
        }
    }

    /// Whether the epochs are those it began with.
    fn stands(&self, epochs: &[Arc<Epoch>]) -> bool {
        Self::new(epochs).epochs == self.epochs
    }
}

impl Engine {
    /// Has keys follow the rules of their fleets for a while; among several nodes, where this one
    /// keeps the store. Returns whether there is more to do.
    ///
    /// # Errors
    /// As [`Engine::write`]; calling it again goes on.
    pub async fn follow_rules(&self, sweep: &mut Sweep) -> Result<bool, Failure> {
        if self.shared.lease(Task::Keeping).is_err() {
            *sweep = Sweep::default();
            return Ok(false);
        }
        let owed = self.owed();
        // Rules that were set again meanwhile are asked of every key anew.
        sweep
            .owed
            .retain(|id, version| owed.get(id) == Some(version));
        if sweep.owed.is_empty() {
            if owed.is_empty() {
                return Ok(false);
            }
            *sweep = Sweep {
                owed,
                through: Through::new(&self.book().epochs()),
                marked: 0,
            };
        }
        let began = self.clock().monotonic();
        let mut lists = Vec::new();
        let mut done = false;
        while !done && self.clock().monotonic().saturating_sub(began) < SLICE {
            let fleets: Vec<_> = sweep.owed.keys().copied().collect();
            let Some(page) = self.next_page(&mut sweep.through, fleets).await? else {
                done = true;
                continue;
            };
            let marks = self.follow_all(&page).await?;
            sweep.marked += marks.len() as u64;
            lists.extend(lists_of(&marks));
        }
        self.say(lists).await?;
        if !done {
            return Ok(true);
        }
        if !sweep.through.stands(&self.book().epochs()) {
            sweep.through = Through::new(&self.book().epochs());
            return Ok(true);
        }
        self.settle(std::mem::take(sweep)).await?;
        Ok(!self.owed().is_empty())
    }

    /// What rules would come to for the keys that are out, as far as a short look says.
    pub(in crate::engine) async fn try_on_keys(
        &self,
        fleet: &FleetBook,
        rules: &Arc<Rules>,
    ) -> Result<Swept, Failure> {
        let began = self.clock().monotonic();
        let mut through = Through::new(&self.book().epochs());
        let mut swept = Swept::default();
        while self.clock().monotonic().saturating_sub(began) < SLICE {
            let Some(page) = self.next_page(&mut through, vec![fleet.fleet.id]).await? else {
                swept.all = true;
                break;
            };
            for versions in &page {
                swept.bundles += 1;
                let Some(newest) = versions.last().map(|it| &it.bundle) else {
                    continue;
                };
                let identity = fleet.identity(newest.identity.as_str());
                let conditions = identity.and_then(|identity| {
                    Conditions::under(fleet, Arc::clone(rules), identity, &newest.vehicle)
                });
                let Some(conditions) = conditions else {
                    continue;
                };
                let marks = self.condition_marks(versions, &conditions);
                let outcome = self.outcome_of_marks(fleet, &newest.vehicle, &marks);
                swept.suspended += outcome.suspended.len() as u64;
                swept.resumed += outcome.resumed.len() as u64;
            }
        }
        Ok(swept)
    }

    /// Has the keys on a vehicle follow its model, where the rules ask for that.
    ///
    /// # Errors
    /// As [`Engine::carry_out`].
    pub(in crate::engine) async fn follow_model(
        &self,
        fleet: &FleetBook,
        vehicle: &VehicleId,
    ) -> Result<(), Failure> {
        if !fleet.ruled.rules().asks_by_model() {
            return Ok(());
        }
        let now = self.clock().unix();
        let mut all = self.all_of_vehicle(fleet, vehicle).await?;
        all.retain(|it| {
            it.redeemed && it.state != AuthorizationState::Cancelled && it.window.not_after > now
        });
        for chunk in all.chunks(CHUNK) {
            let mut page = Vec::with_capacity(chunk.len());
            for authorization in chunk {
                page.push(self.versions_of(authorization).await?);
            }
            self.abreast().await?;
            let marks = self.follow_all(&page).await?;
            self.say(lists_of(&marks)).await?;
        }
        Ok(())
    }

    /// Fleets whose keys do not stand by their newest rules yet, and which those are.
    fn owed(&self) -> BTreeMap<FleetId, u32> {
        let owes = |fleet: Arc<FleetBook>| {
            let rules = fleet.ruled.rules();
            let owes = fleet.ruled.followed() < rules.version && !rules.unreadable;
            owes.then_some((fleet.fleet.id, rules.version))
        };
        self.book().fleets().into_iter().filter_map(owes).collect()
    }

    /// The next bundles of these fleets, all versions of each; `None` at the end. The book is abreast
    /// of what was read.
    async fn next_page(
        &self,
        through: &mut Through,
        fleets: Vec<FleetId>,
    ) -> Result<Option<Vec<Vec<SignedBundle>>>, Failure> {
        let Some((epoch, _)) = through.epochs.get(through.at).copied() else {
            return Ok(None);
        };
        let (after, now) = (through.after.clone(), self.clock().unix());
        let read = move |store: &dyn Store| read_page(store, epoch, now, after.as_ref(), &fleets);
        let (page, next) = self.read(read).await?;
        self.abreast().await?;
        if next.is_none() {
            through.at += 1;
        }
        through.after = next;
        Ok(Some(page))
    }

    /// Marks keys of bundles that stand otherwise by now; returns what was marked.
    async fn follow_all(&self, page: &[Vec<SignedBundle>]) -> Result<Vec<Mark>, Failure> {
        let mut marked = Vec::new();
        for chunk in page.chunks(CHUNK) {
            let mut left: Vec<_> = chunk.iter().collect();
            for attempt in 0..=ATTEMPTS_MAX {
                let decided = left
                    .iter()
                    .filter_map(|it| Some((*it, self.decide_on(it)?)));
                let decided: Vec<_> = decided.collect();
                if decided.is_empty() {
                    break;
                }
                if attempt == ATTEMPTS_MAX {
                    return Err(self.shared.busy("what keys rest on keeps changing").into());
                }
                let writes = decided.iter().map(|(_, it)| Write::Follow(Arc::clone(it)));
                let applied = self.write(writes.collect()).await?;
                left.clear();
                for ((of, following), applied) in decided.into_iter().zip(applied) {
                    match applied {
                        Applied::Amended(_) => marked.extend_from_slice(&following.marks),
                        _ => left.push(of),
                    }
                }
                self.abreast().await?;
            }
        }
        Ok(marked)
    }

    /// What is to be done to the keys of one bundle; `None` where they stand as they should.
    fn decide_on(&self, versions: &[SignedBundle]) -> Option<Arc<Following>> {
        let newest = &versions.last()?.bundle;
        let fleet = self.book().fleet(newest.fleet)?;
        let identity = fleet.identity(newest.identity.as_str())?;
        let conditions = Conditions::of(&fleet, identity, &newest.vehicle)?;
        let marks = self.condition_marks(versions, &conditions);
        (!marks.is_empty()).then(|| {
            Arc::new(Following {
                fleet: newest.fleet,
                of: Followed::Identity(newest.identity.clone()),
                status: conditions.identity.status,
                marks: marks.into_iter().map(|(_, mark)| mark).collect(),
                relies_on: conditions.relied_on(),
            })
        })
    }

    /// Waits until these lists say what is durable.
    async fn say(&self, mut lists: Vec<ShardId>) -> Result<(), Failure> {
        lists.sort_unstable();
        lists.dedup();
        Ok(self.lists_fresh(lists).await?)
    }

    /// Says that every key of these fleets stands by those rules.
    async fn settle(&self, sweep: Sweep) -> Result<(), Failure> {
        let at = self.clock().unix();
        let mut writes = Vec::with_capacity(sweep.owed.len());
        for (id, version) in sweep.owed {
            let Some(fleet) = self.book().fleet(id) else {
                continue;
            };
            let from = fleet.ruled.followed();
            writes.push(followed(id, at, from, version));
            tracing::info!(fleet = %id, version, marked = sweep.marked, "keys follow the rules");
        }
        self.write(writes).await?;
        Ok(())
    }
}

/// Says that every key of a fleet stands by its rules of a version.
pub(in crate::engine) fn followed(fleet: FleetId, at: UnixTime, from: u32, to: u32) -> Write {
    Write::Rule(Box::new(Rulings {
        fleet,
        at,
        by: String::new(),
        why: None,
        what: Ruling::Followed(from, to),
    }))
}

/// Bundles of these fleets, all versions of each, and where to go on.
fn read_page(
    store: &dyn Store,
    epoch: EpochId,
    now: UnixTime,
    after: Option<&Cursor>,
    fleets: &[FleetId],
) -> Result<(Vec<Vec<SignedBundle>>, Option<Cursor>), StoreError> {
    let found = store.signed_by(epoch, now, after, PAGE)?;
    let mut page = Vec::with_capacity(found.bundles.len());
    for signed in found.bundles {
        if !fleets.contains(&signed.bundle.fleet) {
            continue;
        }
        page.push(match signed.bundle.version {
            1 => vec![signed],
            _ => store.versions(signed.bundle.id)?,
        });
    }
    Ok((page, found.next))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::rotation::tests::on;

    #[test]
    fn bundles_are_looked_for_where_they_come_from_before_where_they_go() {
        let states = [
            EpochState::Active,
            EpochState::Retired,
            EpochState::Revoked,
            EpochState::Prepared,
            EpochState::Active,
        ];
        let epoch = |(id, state)| Arc::new(on("one", id, (0, 100), state));
        let epochs: Vec<_> = (1..).zip(states).map(epoch).collect();
        let through = Through::new(&epochs);
        let ids: Vec<_> = through.epochs.iter().map(|(id, _)| id.0[0]).collect();
        assert_eq!(ids, [3, 2, 4, 1, 5]);
        assert!(through.stands(&epochs));
        // One that is revoked, or new, meanwhile: some may have gone by.
        let mut after = epochs.clone();
        after[1] = epoch((2, EpochState::Revoked));
        assert!(!through.stands(&after));
        assert!(!through.stands(&epochs[1..]));
    }
}
