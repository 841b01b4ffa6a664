//! When it is certain that a car refuses what was revoked: floor 3.

use fob_verify::vehicle::{Patience, Policy};

use super::Shared;
use super::book::FleetBook;
use crate::domain::{KeyId, Mark, UnixTime, VehicleId};

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

/// When the car refuses every key in `refused`.
///
/// Without contact a key ends with its own expiry. A car that has acknowledged a sync holds status
/// lists and asks them, each for as long as its policy says; and none of them is newer than the
/// last one that was signed before now.
pub(super) fn certain_by(
    shared: &Shared,
    fleet: &FleetBook,
    vehicle: &VehicleId,
    refused: &[(KeyId, Mark)],
) -> CertainBy {
    let acked = fleet.contact(vehicle.as_str()).and_then(|it| it.acked);
    let now = shared.clock.unix();
    let of_key = |(key, mark): &(KeyId, Mark)| {
        let signed = match shared.book.statuses.shard(mark.shard).issued_at() {
            0 => now,
            at => at,
        };
        let ends = signed.saturating_add(shared.settings.list_lifetime_s);
        let listed = match Policy::STANDARD.patience(key.function()) {
            Patience::Fresh | Patience::Valid => ends,
            Patience::Expired(grace_s) => ends.saturating_add(grace_s.into()),
            Patience::Offline => UnixTime::MAX,
        };
        match acked {
            Some(_) => mark.ends.min(listed.max(now)),
            None => mark.ends,
        }
    };
    let lasting = refused.iter().filter(|(_, mark)| mark.ends > now);
    match lasting.map(of_key).max() {
        None => CertainBy::Now,
        Some(latest) => CertainBy::Contact(latest),
    }
}
