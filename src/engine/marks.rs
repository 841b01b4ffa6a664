//! Which keys a plan changes, and what that comes to: floor 3.
//!
//! Keys of every version are looked at, since all of them may be about.

use std::collections::HashMap;

use super::Engine;
use super::book::FleetBook;
use super::certain::certain_by;
use super::outcome::Outcome;
use crate::domain::{
    Bundle, FunctionCode, Held, KeyChange, KeyId, KeyRecord, KeyStatus, Mark, Reason, ShardId,
    Subject, VehicleId,
};
use crate::store::SignedBundle;

impl Engine {
    /// The functions whose keys are suspended by themselves.
    pub(super) fn suspended_functions(&self, newest: &Bundle) -> Vec<FunctionCode> {
        let held = |(subject, key): &(&Subject, &KeyRecord)| {
            let shard = ShardId::at(&subject.status_uri);
            shard.is_some_and(|shard| {
                let held = self.book().statuses.held(shard, key.status_index);
                held.has(Reason::Function)
            })
        };
        let keys = newest.each_key().filter(held);
        keys.map(|(subject, _)| subject.function).collect()
    }

    /// Marks for the keys that `which` picks, of every version, unless they have expired or it is
    /// done to them already. What is done to a function is noted at its newest key even where that
    /// has expired: one issued later stands as that does.
    pub(super) fn marks(
        &self,
        versions: &[SignedBundle],
        change: KeyChange,
        which: impl Fn(&Bundle, &Subject, &KeyRecord) -> bool,
    ) -> Vec<(KeyId, Mark)> {
        let now = self.clock().unix();
        let noted = matches!(
            change,
            KeyChange::Suspend(Reason::Function) | KeyChange::Resume(Reason::Function)
        );
        let mut marks = Vec::new();
        for (at, SignedBundle { bundle, .. }) in versions.iter().enumerate() {
            let newest = at + 1 == versions.len();
            if bundle.window.not_after <= now && !(noted && newest) {
                continue;
            }
            for (subject, key) in bundle.each_key() {
                let Some(mark) = mark(bundle, subject, key, change) else {
                    continue;
                };
                let before = self.book().statuses.held(mark.shard, mark.index);
                if before != before.after(change) && which(bundle, subject, key) {
                    marks.push((bundle.key_id(subject), mark));
                }
            }
        }
        marks
    }

    /// What marks come to, none of which is made yet.
    pub(super) fn outcome_of_marks(
        &self,
        fleet: &FleetBook,
        vehicle: &VehicleId,
        marks: &[(KeyId, Mark)],
    ) -> Outcome {
        let mut outcome = Outcome::nothing();
        let mut refused = Vec::new();
        // A key may be marked for several reasons at once: what counts is what they come to.
        let mut come_to: HashMap<(ShardId, u32), Held> = HashMap::with_capacity(marks.len());
        for (_, mark) in marks {
            let held = come_to
                .entry((mark.shard, mark.index))
                .or_insert_with(|| self.book().statuses.held(mark.shard, mark.index));
            *held = held.after(mark.change);
        }
        let acked = fleet.contact(vehicle.as_str()).and_then(|it| it.acked);
        let knows = acked.is_some_and(|it| it.revision >= self.book().statuses.latest());
        for (id, mark) in marks {
            let Some(after) = come_to.remove(&(mark.shard, mark.index)) else {
                continue;
            };
            let before = self.book().statuses.held(mark.shard, mark.index);
            let (before, after) = (before.status(), after.status());
            if mark.change == KeyChange::Revoke {
                outcome.revoked.push(*id);
            }
            match (before, after) {
                (KeyStatus::Valid, KeyStatus::Suspended) => outcome.suspended.push(*id),
                (KeyStatus::Suspended, KeyStatus::Valid) => outcome.resumed.push(*id),
                _ => {}
            }
            // What is refused already the car may not know of yet.
            if after != KeyStatus::Valid && !(after == before && knows) {
                refused.push((*id, *mark));
            }
        }
        outcome.certain_by = certain_by(&self.shared, fleet, vehicle, &refused);
        outcome
    }
}

/// A change of one key of a bundle.
pub(super) fn mark(
    bundle: &Bundle,
    subject: &Subject,
    key: &KeyRecord,
    change: KeyChange,
) -> Option<Mark> {
    Some(Mark {
        shard: ShardId::at(&subject.status_uri)?,
        index: key.status_index,
        change,
        ends: bundle.window.not_after,
    })
}
