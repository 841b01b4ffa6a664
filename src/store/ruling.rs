//! What a fleet rules, as it is written and read: floor 2.

use std::sync::Arc;

use super::{Applied, Cursor, Member, Write};
use crate::domain::{FleetId, UnixTime, VehicleId};

/// A decision of those who administer a fleet. It is kept with who took it and why, whatever
/// becomes of what was decided.
///
/// [`crate::store::Applied::Stale`] where the fleet is not there, or what the ruling says must
/// stand does not.
#[derive(Clone, Debug)]
pub struct Rulings {
    /// The fleet.
    pub fleet: FleetId,
    /// When.
    pub at: UnixTime,
    /// Who: a token's id, or an operator's name.
    pub by: String,
    /// Why, as they put it.
    pub why: Option<String>,
    /// What is ruled.
    pub what: Ruling,
}

/// An act of those who administer fleets, as it is kept: who, when, what and why. Rulings leave one
/// too. Acts stay for ever; what names a person in them goes with an [`super::Erasure`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Act {
    /// The fleet.
    pub fleet: FleetId,
    /// When.
    pub at: UnixTime,
    /// Who: a token's id, or an operator's name.
    pub by: String,
    /// What it was, in a stable word.
    pub act: String,
    /// Of what.
    pub object: String,
    /// Why, as they put it.
    pub why: Option<String>,
}

impl Act {
    /// The act that tells what the last `count` of these writes have registered: how many of each
    /// kind. `None` where they have registered nothing.
    pub(in crate::store) fn of_registered(
        &self,
        count: usize,
        writes: &[Write],
        applied: &[Applied],
    ) -> Option<Self> {
        let mut counts = [0_usize; 4];
        let last = writes.iter().zip(applied).rev().take(count);
        for (write, applied) in last {
            let kind = match write {
                Write::New(Member::Vehicle(_)) => 0,
                Write::New(Member::Identity(_)) => 1,
                Write::New(Member::Terminal(_)) => 2,
                Write::Function(..) => 3,
                _ => continue,
            };
            counts[kind] += usize::from(applied.took_place());
        }
        let names = [
            ("vehicle", "vehicles"),
            ("identity", "identities"),
            ("terminal", "terminals"),
            ("function", "functions"),
        ];
        let told = counts
            .into_iter()
            .zip(names)
            .filter(|(count, _)| *count > 0);
        let told = told.map(|(count, (one, many))| match count {
            1 => format!("1 {one}"),
            count => format!("{count} {many}"),
        });
        let object = told.collect::<Vec<_>>().join(", ");
        (!object.is_empty()).then(|| Self {
            object,
            ..self.clone()
        })
    }
}

/// Which acts to read.
#[derive(Clone, Debug)]
pub struct ActFilter {
    /// Of this fleet only.
    pub fleet: Option<FleetId>,
    /// Not before this time.
    pub since: UnixTime,
    /// After this place.
    pub after: Option<Cursor>,
    /// At most so many.
    pub limit: u32,
}

/// Some of the acts that were asked for, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acts {
    /// The acts.
    pub acts: Vec<Act>,
    /// Where to go on; `None` at the end.
    pub next: Option<Cursor>,
}

/// What is ruled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// The fleet's rules at this version, as JSON. The newest must be of the version before.
    Rules(u32, Arc<str>),
    /// Issuing freezes, for one vehicle or the whole fleet; it must not be frozen.
    Freeze(Option<VehicleId>),
    /// Issuing goes on; it must be frozen.
    Release(Option<VehicleId>),
    /// A day of the quota begins, with the fleet's counter of keys as it stands. The day before
    /// must be an earlier one. Nobody decides that, and it is not kept as a decision.
    Day(u64, u64),
    /// So many keys (last) are approved for this day beyond the quota, in place of what was
    /// approved for it before. Where the day has not begun, it begins, as with `Day`.
    Approve(u64, u64, u64),
    /// Every key stands as the rules of the second version say; so far that was true of the first,
    /// or of 0 where it never was said. The newest rules must be of the second or a later one.
    /// Nobody decides that, and it is not kept as a decision.
    Followed(u32, u32),
}

/// What stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ruled {
    /// The fleet's newest rules: version and JSON.
    Rules(u32, Arc<str>),
    /// The rules by which every key stands, by their version.
    Followed(u32),
    /// Issuing is frozen, for one vehicle or the whole fleet.
    Frozen(Option<VehicleId>, Frozen),
    /// All that is frozen; anything else is not, or not any more.
    AllFrozen(Vec<(Option<VehicleId>, Frozen)>),
    /// The day of the quota.
    Day(QuotaDay),
}

/// Since when something is frozen, by whom and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frozen {
    /// Since when.
    pub since: UnixTime,
    /// Who: a token's id, or `brake`.
    pub by: String,
    /// Why, as they put it.
    pub why: Option<String>,
}

/// A day (UTC) of a fleet's quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuotaDay {
    /// Days since 1970-01-01.
    pub day: u64,
    /// The fleet's counter of keys when it began.
    pub base: u64,
    /// Keys approved for it beyond the quota.
    pub approved: u64,
}
