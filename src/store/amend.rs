//! Writes that amend what was authorized and issued: changes, suspensions, ends, resets; what they
//! follow, suspended and active again; and what cars are told of it.

use std::sync::Arc;

use super::{ReliedOn, Request, SignedBundle};
use crate::domain::change::{Followed, Registered};
use crate::domain::{
    Authorization, AuthorizationState, Bundle, FleetId, KeyChange, Mark, Reason, Reasons, ShardId,
    Status, TerminalId, UnixTime, Vehicle, VehicleId,
};

/// An authorization as it becomes, with all that follows from it, in one piece.
///
/// Conditions, all of them or [`super::Applied::Stale`]: the authorization is at version, state and
/// revision `from`; the terminal `by` and its identity, where one is named, are active; with
/// `reissue` those of a redemption, apart from the authorization's own, and but for this: identity
/// and vehicle may be suspended, if `marks` suspend every key of the new bundle for that reason, and
/// for neither reason where it does not hold; where its keys grant no more than before, the
/// identity may be held, and vehicle or fleet frozen; and what [`Reissue::relies_on`] is so. An
/// order's authorization has no row until its first amendment
/// makes one; its revision is 0.
///
/// Where `request` was answered before, nothing is written: [`super::Applied::Repeated`] for the
/// same digest, [`super::Applied::Conflict`] for another. Done, it is answered
/// [`super::Applied::Amended`].
#[derive(Clone, Debug)]
pub struct Amendment {
    /// As it becomes. Its [`Authorization::revision`] is what the store counts, not what is given.
    pub authorization: Arc<Authorization>,
    /// Version, state and revision it must have.
    pub from: (u32, AuthorizationState, u64),
    /// Its bundle at the new version, where it is issued again.
    pub reissue: Option<Reissue>,
    /// Changes of keys.
    pub marks: Vec<Mark>,
    /// The owner terminal that commanded it, where it was one.
    pub by: Option<TerminalId>,
    /// What makes it one that may be sent again, and is kept of it.
    pub request: Option<AmendRequest>,
}

/// An identity, a vehicle or a terminal, suspended or active again. Keys follow the first two
/// ([`Following`]).
///
/// Conditions: it is there; the terminal `by` and its identity, where one is named, are active;
/// otherwise [`super::Applied::Stale`]. Where `request` was answered before, as an [`Amendment`].
#[derive(Clone, Debug)]
pub struct Suspension {
    /// The fleet.
    pub fleet: FleetId,
    /// Which.
    pub of: Registered,
    /// How it is to stand.
    pub status: Status,
    /// The owner terminal that commanded it, where it was one.
    pub by: Option<TerminalId>,
    /// What makes it one that may be sent again, and is kept of it.
    pub request: Option<AmendRequest>,
}

/// Keys that follow an identity or a vehicle.
///
/// Conditions: it stands so, and what was relied on is so; otherwise [`super::Applied::Stale`]. Done, it is answered
/// [`super::Applied::Amended`].
#[derive(Clone, Debug)]
pub struct Following {
    /// The fleet.
    pub fleet: FleetId,
    /// What they follow.
    pub of: Followed,
    /// How it must stand.
    pub status: Status,
    /// Changes of keys.
    pub marks: Vec<Mark>,
    /// What was believed when these were decided.
    pub relies_on: ReliedOn,
}

/// A bundle issued again.
#[derive(Clone, Debug, PartialEq)]
pub struct Reissue {
    /// The bundle, signed.
    pub signed: SignedBundle,
    /// The registered terminal it is bound to, where it is one that must be active.
    pub terminal: Option<TerminalId>,
    /// The fleet's counter of status indexes after this bundle.
    pub status_next: u64,
    /// Whether its keys may grant something else than those before, and not just less: then nothing
    /// may be frozen, and its identity not held.
    pub changed: bool,
    /// What was believed when it was decided.
    pub relies_on: ReliedOn,
}

/// A request to amend that may be sent again.
#[derive(Clone, Debug)]
pub struct AmendRequest {
    /// Who asked what.
    pub request: Request,
    /// The signed command, kept as evidence.
    pub command: Option<String>,
    /// When it was made.
    pub made_at: UnixTime,
    /// What it is answered with; the same request again is answered so too.
    pub outcome: Vec<u8>,
}

/// The reset of a vehicle: its epoch raised by one, and amendments that go with it, all or none.
///
/// Conditions: the vehicle is at epoch `from`, and those of each amendment at the raised epoch.
/// Answered like an [`Amendment`].
#[derive(Clone, Debug)]
pub struct Reset {
    /// The fleet.
    pub fleet: FleetId,
    /// The vehicle.
    pub vehicle: VehicleId,
    /// The epoch it must be at.
    pub from: u32,
    /// What goes with it.
    pub amendments: Vec<Arc<Amendment>>,
    /// What the vehicle is from then on, where it gets another owner. Epoch and status are not
    /// taken from it.
    pub becomes: Option<Vehicle>,
    /// The owner terminal that commanded it, where it was one.
    pub by: Option<TerminalId>,
    /// What makes it one that may be sent again, and is kept of it.
    pub request: Option<AmendRequest>,
}

/// When a status list was signed and how long it lives, to be written before it is given out: the
/// next must be later, whatever the clock says, and a car may believe this one to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Which list.
    pub shard: ShardId,
    /// Its `iat`; loaded, the latest of all.
    pub issued_at: UnixTime,
    /// Its `exp`; loaded, the latest of all.
    pub expires: UnixTime,
}

/// What a car was sent last, and what it has acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contact {
    /// When it says it was heard last, by its own clock.
    pub heard_at: UnixTime,
    /// What it was sent.
    pub sent: Sent,
    /// What it has acknowledged, where it has.
    pub acked: Option<Sent>,
}

/// One sync that was sent to a car.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Its SHA-256.
    pub digest: [u8; 32],
    /// The store's count of amendments that it and the status lists beside it include.
    pub revision: u64,
    /// When it was made.
    pub at: UnixTime,
}

/// Whether every key of a bundle is suspended together with identity and vehicle, and only then.
pub(super) fn comes_suspended(bundle: &Bundle, marks: &[Mark], suspended: Reasons) -> bool {
    let agrees = |index: u32, uri: &str, reason| {
        let marked = marks.iter().any(|mark| {
            mark.index == index
                && mark.change == KeyChange::Suspend(reason)
                && Some(mark.shard) == ShardId::at(uri)
        });
        marked == suspended.has(reason)
    };
    bundle.each_key().all(|(subject, key)| {
        let agrees = |reason| agrees(key.status_index, &subject.status_uri, reason);
        agrees(Reason::Identity) && agrees(Reason::Vehicle)
    })
}
