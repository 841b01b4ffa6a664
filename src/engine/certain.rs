//! When it is certain that a car refuses what was revoked: floor 3.

use fob_verify::vehicle::{Patience, Policy};

use super::book::FleetBook;
use super::marks::mark;
use super::{Engine, Shared};
use crate::domain::{FunctionCode, KeyChange, KeyId, KeyStatus, Mark, UnixTime, VehicleId};
use crate::store::SignedBundle;

/// From when on an amendment holds at the car, whatever anybody does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertainBy {
    /// Nothing that was given out has to be refused.
    Now,
    /// From the car's next contact on: a sync, a stapled status list, or any key of the new
    /// version; and without any contact from this time on.
    Contact(UnixTime),
}

impl CertainBy {
    /// When both hold.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Now, certain) | (certain, Self::Now) => certain,
            (Self::Contact(mine), Self::Contact(theirs)) => Self::Contact(mine.max(theirs)),
        }
    }
}

/// When the car refuses every key in `refused`, which are about to be marked.
///
/// Without contact a key ends with its own expiry. A car that has acknowledged a sync holds status
/// lists and asks them, each for as long as its policy says. Until the marks are committed a list
/// without them may still be signed, and reach the car: it counts as if it were. So does one that
/// was signed when lists were given a longer life.
pub(super) fn certain_by(
    shared: &Shared,
    fleet: &FleetBook,
    vehicle: &VehicleId,
    refused: &[(KeyId, Mark)],
) -> CertainBy {
    let settings = &shared.settings;
    let acked = fleet.contact(vehicle.as_str()).and_then(|it| it.acked);
    let now = shared.clock.unix();
    // A commit that takes longer than a caller waits is not answered; a list may be ahead of the
    // clock.
    let mut within = settings.answer_within;
    if shared.nodes.is_some() {
        // Where another node signs lists, it hears of the commit within what the caller waits for
        // the lists.
        within *= 2;
    }
    let last_signed = now + within.as_secs();
    let last_signed = last_signed.saturating_add(settings.list_ahead_max_s);
    let last_ends = last_signed.saturating_add(settings.list_lifetime_s);
    let of_key = |(key, mark): &(KeyId, Mark)| {
        let before_ends = shared.book.statuses.shard(mark.shard).expires();
        let list_ends = acked.map(|_| last_ends.max(before_ends));
        refused_from(key.function(), mark.ends, list_ends)
    };
    let lasting = refused.iter().filter(|(_, mark)| mark.ends > now);
    match lasting.map(of_key).max() {
        None => CertainBy::Now,
        Some(latest) => CertainBy::Contact(latest),
    }
}

/// From when on a car refuses a key of this function that expires at `ends`, where it asks a status
/// list that ends at `list_ends`.
fn refused_from(function: FunctionCode, ends: UnixTime, list_ends: Option<UnixTime>) -> UnixTime {
    let Some(list_ends) = list_ends else {
        return ends;
    };
    match Policy::STANDARD.patience(function) {
        Patience::Fresh | Patience::Valid => ends.min(list_ends),
        Patience::Expired(grace_s) => ends.min(list_ends.saturating_add(grace_s.into())),
        Patience::Offline => ends,
    }
}

impl Engine {
    /// When the car refuses what was revoked or suspended of these versions before, with that
    /// revision. It may have acknowledged that it does.
    pub(super) fn outstanding(
        &self,
        fleet: &FleetBook,
        vehicle: &VehicleId,
        revision: u64,
        versions: &[SignedBundle],
    ) -> CertainBy {
        let acked = fleet.contact(vehicle.as_str()).and_then(|it| it.acked);
        if acked.is_some_and(|acked| acked.revision >= revision) {
            return CertainBy::Now;
        }
        let mut refused = Vec::new();
        for SignedBundle { bundle, .. } in versions {
            let standing = self.book().statuses.of_bundle(bundle);
            let keys = bundle.each_key().zip(standing);
            for ((subject, key), _) in keys.filter(|(_, status)| *status != KeyStatus::Valid) {
                let mark = mark(bundle, subject, key, KeyChange::Revoke);
                refused.extend(mark.map(|mark| (bundle.key_id(subject), mark)));
            }
        }
        certain_by(&self.shared, fleet, vehicle, &refused)
    }
}
