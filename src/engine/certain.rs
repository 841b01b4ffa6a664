//! When it is certain that a car refuses what was revoked: floor 3.

use super::Shared;
use super::book::FleetBook;
use crate::domain::{Mark, UnixTime, VehicleId};

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

/// When the car refuses every key in `revoked`.
///
/// Without contact a key ends with its own expiry. A car that has acknowledged a sync holds status
/// lists and asks them, and no list lives longer than the last one that was signed before now.
pub(super) fn certain_by(
    shared: &Shared,
    fleet: &FleetBook,
    vehicle: &VehicleId,
    revoked: &[Mark],
) -> CertainBy {
    let Some(expiry) = revoked.iter().map(|mark| mark.ends).max() else {
        return CertainBy::Now;
    };
    let acked = fleet.contact(vehicle.as_str()).and_then(|it| it.acked);
    if acked.is_none() {
        return CertainBy::Contact(expiry);
    }
    let settings = &shared.settings;
    let now = shared.clock.unix();
    let of_list = |mark: &Mark| {
        let signed = match shared.book.statuses.shard(mark.shard).issued_at() {
            0 => now,
            at => at,
        };
        signed + settings.list_lifetime_s + settings.list_grace_s
    };
    let lists = revoked.iter().map(of_list).max().unwrap_or(now);
    CertainBy::Contact(expiry.min(lists.max(now)))
}
