//! What a car takes from whoever brings it: trust lists, status lists, syncs.
//!
//! All three are signed, so it does not matter who brings them: the server, or
//! a phone that carries them beside its keys to a car without a connection.

use super::{Car, Clock, Lists, Memory, News};
use crate::status::{self, StatusList};
use crate::sync::{self, Sync};
use crate::trust::{self, TrustList};
use crate::{IssuerKey, Refusal, Verified, Verifier};

/// What a car believes trust lists by.
#[derive(Clone, Copy, Debug)]
pub enum Anchor<'a> {
    /// It holds no list yet: the root it was provisioned with.
    Root(IssuerKey),
    /// The list it holds: that list's root, and the next root if it names
    /// one.
    List(&'a Verified<TrustList<'a>>),
}

/// Takes a trust list if it is newer than the one held, and signed by a root
/// the car believes.
///
/// # Errors
/// See [`trust::verify`]; [`Refusal::TrustListNotNewer`],
/// [`Refusal::MemoryFailed`].
pub fn take_trust<'b>(
    bytes: &'b [u8],
    anchor: &Anchor<'_>,
    clock: Clock,
    verifier: &impl Verifier,
    memory: &mut impl Memory,
) -> Result<Verified<TrustList<'b>>, Refusal> {
    let (roots, held) = match anchor {
        Anchor::Root(root) => ([*root; 2], None),
        Anchor::List(list) => {
            let root = *list.root();
            let next = list.next_root().copied().unwrap_or(root);
            ([root, next], Some(list))
        }
    };
    let known = held.map_or(0, |list| list.issued_at()).max(memory.time());
    let list = trust::verify(bytes, &roots, clock.moment(known).latest, verifier)?;
    if let Some(held) = held {
        list.check_newer_than(held.version())?;
    }
    memory.remember(&News::Trust { bytes, list: &list })?;
    Ok(list)
}

/// Takes the status list of this address if it is newer than the one held.
///
/// The address is that of a key at hand or one that a sync names: a car does
/// not keep lists that nobody needs. A list that has expired is taken as well,
/// since it may know of more revocations than the one held; whether it may
/// serve is asked in [`check`](super::check).
///
/// # Errors
/// See [`status::verify`]; [`Refusal::WrongStatusList`],
/// [`Refusal::StatusListNotNewer`], [`Refusal::MemoryFailed`].
pub fn take_status<'b, L: Lists + ?Sized, V: Verifier>(
    bytes: &'b [u8],
    uri: &str,
    car: &Car<'_, L, V>,
    memory: &mut impl Memory,
) -> Result<Verified<StatusList<'b>>, Refusal> {
    let list = status::verify(bytes, car.trust, &car.verifier)?;
    if list.uri() != uri {
        return Err(Refusal::WrongStatusList);
    }
    let held = car.lists.list(uri);
    // A list whose signer is no longer trusted is as good as none.
    let held = held.filter(|held| held.check_issuer(car.trust).is_ok());
    if let Some(held) = held {
        list.check_newer_than(held.issued_at())?;
    }
    memory.remember(&News::Status { bytes, list: &list })?;
    Ok(list)
}

/// Takes a sync if it is for this car, newer than the last, and the car holds
/// everything it names: a trust list of that version, and status lists that
/// were fresh when it was made. So the next ack is true.
///
/// # Errors
/// See [`sync::verify`]; then, in this order, [`Refusal::WrongVehicle`],
/// [`Refusal::WrongFleet`], [`Refusal::SyncExpired`],
/// [`Refusal::SyncNotNewer`], [`Refusal::TrustListBehind`],
/// [`Refusal::StatusMissing`], [`Refusal::StatusListStale`],
/// [`Refusal::MemoryFailed`].
pub fn take_sync<'b, L: Lists + ?Sized, V: Verifier>(
    bytes: &'b [u8],
    car: &Car<'_, L, V>,
    memory: &mut impl Memory,
) -> Result<Verified<Sync<'b>>, Refusal> {
    let sync = sync::verify(bytes, car.trust, &car.verifier)?;
    sync.check_vehicle(car.vehicle, &car.fleet)?;
    sync.check_time(car.moment(memory).latest)?;
    sync.check_newer_than(memory.synced_at())?;
    if car.trust.version() < sync.trust_version {
        return Err(Refusal::TrustListBehind);
    }
    for uri in sync.status_uris.iter() {
        let held = car.lists.list(uri).ok_or(Refusal::StatusMissing)?;
        held.check_issuer(car.trust)
            .map_err(|_| Refusal::StatusMissing)?;
        if sync.issued_at >= held.fresh_until() {
            return Err(Refusal::StatusListStale);
        }
    }
    memory.remember(&News::Sync {
        vehicle_epoch: sync.vehicle_epoch,
        issued_at: sync.issued_at,
        digest: sync.digest,
    })?;
    Ok(sync)
}
