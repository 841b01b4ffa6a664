//! Changes and ends of what was authorized and issued: floor 2, `store/postgres`.

use std::sync::Arc;

use super::ground::{AuthorizationRow, FirstIssue, Ground, NewBundle, Signed, Whole, Written};
use super::issue::{check_form, may_command, may_have_keys, meets, repeated, with_suspended};
use crate::domain::change::{Followed, Registered};
use crate::domain::{BundleId, VehicleId};
use crate::store::amend::comes_suspended;
use crate::store::encoding::words;
use crate::store::{
    AmendRequest, Amendment, Applied, Following, Reissue, Reset, StoreError, Suspension,
};

/// What an amendment is written on.
struct Basis {
    /// An order that has no row yet: its vehicle.
    order: Option<VehicleId>,
    /// The bundle that is issued again, as it was first.
    again: Option<FirstIssue>,
}

pub(super) fn amend(ground: &mut Ground, amendment: &Amendment) -> Result<Applied, StoreError> {
    if let Some(answer) = answer_again(ground, amendment.request.as_ref()) {
        return Ok(answer);
    }
    let Some(basis) = check(ground, amendment)? else {
        return Ok(Applied::Stale);
    };
    let revision = count(ground);
    write(ground, amendment, basis, revision);
    let id = amendment.authorization.id;
    ground.keep(Some(id), amendment.request.as_ref());
    Ok(Applied::Amended(revision))
}

pub(super) fn reset(ground: &mut Ground, reset: &Reset) -> Result<Applied, StoreError> {
    if let Some(answer) = answer_again(ground, reset.request.as_ref()) {
        return Ok(answer);
    }
    let name = (reset.fleet, reset.vehicle.clone());
    let at = ground.vehicles.get(&name).map(|row| row.epoch);
    if !may_command(ground, reset.fleet, reset.by.as_ref()) || at != Some(reset.from) {
        return Ok(Applied::Stale);
    }
    // Its amendments are asked at the raised epoch.
    set_epoch(ground, reset, reset.from.saturating_add(1));
    let mut bases = Vec::with_capacity(reset.amendments.len());
    for amendment in &reset.amendments {
        bases.extend(check(ground, amendment)?);
    }
    if bases.len() < reset.amendments.len() {
        set_epoch(ground, reset, reset.from);
        return Ok(Applied::Stale);
    }
    if let Some(vehicle) = &reset.becomes {
        if let Some(row) = ground.vehicles.get_mut(&name) {
            row.owner = vehicle.owner.clone();
        }
        ground
            .changes
            .vehicles
            .insert(name.clone(), vehicle.clone());
    }
    ground.changes.vehicles_stand.insert(name);
    ground.changes.standings.insert(reset.fleet);
    let revision = count(ground);
    for (amendment, basis) in reset.amendments.iter().zip(bases) {
        write(ground, amendment, basis, revision);
    }
    ground.keep(None, reset.request.as_ref());
    Ok(Applied::Amended(revision))
}

fn set_epoch(ground: &mut Ground, reset: &Reset, to: u32) {
    let name = (reset.fleet, reset.vehicle.clone());
    if let Some(row) = ground.vehicles.get_mut(&name) {
        row.epoch = to;
    }
}

fn answer_again(ground: &Ground, request: Option<&AmendRequest>) -> Option<Applied> {
    repeated(ground, &request?.request)
}

/// Asks every condition; `None` where one does not hold.
fn check(ground: &Ground, amendment: &Amendment) -> Result<Option<Basis>, StoreError> {
    let authorization = &*amendment.authorization;
    let fleet = authorization.fleet;
    if !may_command(ground, fleet, amendment.by.as_ref()) || !ground.fleets.contains_key(&fleet) {
        return Ok(None);
    }
    let (version, state, revision) = amendment.from;
    let from = (version, words::state(state), revision);
    let (order, bundle) = match ground.authorizations.get(&authorization.id) {
        Some(row) if row.fleet == fleet && (row.version, row.state, row.revision) == from => {
            (None, row.bundle)
        }
        Some(_) => return Ok(None),
        None => {
            let id = BundleId(authorization.id.0);
            match ground.bundles.get(&id) {
                Some(first)
                    if first.author.is_some()
                        && first.fleet == fleet
                        && (first.version, words::REDEEMED, 0) == from =>
                {
                    (Some(first.vehicle.clone()), Some(id))
                }
                _ => return Ok(None),
            }
        }
    };
    let Some(again) = &amendment.reissue else {
        return Ok(Some(Basis { order, again: None }));
    };
    let first = bundle
        .filter(|id| *id == again.signed.bundle.id)
        .and_then(|id| ground.bundles.get(&id));
    match first {
        Some(first) if comes_as_it_should(ground, amendment, again) => {
            check_form(&again.signed)?;
            let again = Some(first.clone());
            Ok(Some(Basis { order, again }))
        }
        _ => Ok(None),
    }
}

/// Whether what a bundle rests on stands, apart from identity and vehicle, and its keys are
/// suspended together with these; and where they are changed, whether there may be new ones.
fn comes_as_it_should(ground: &Ground, amendment: &Amendment, again: &Reissue) -> bool {
    let bundle = &again.signed.bundle;
    let suspended = with_suspended(ground, bundle, again.terminal.as_ref());
    (!again.changed || may_have_keys(ground, bundle))
        && suspended.is_some_and(|suspended| comes_suspended(bundle, &amendment.marks, suspended))
        && meets(ground, bundle.fleet, &again.relies_on)
}

/// Suspends an identity, a vehicle or a terminal, or makes it active again.
pub(super) fn suspend(ground: &mut Ground, suspension: &Suspension) -> Applied {
    if let Some(answer) = answer_again(ground, suspension.request.as_ref()) {
        return answer;
    }
    let fleet = suspension.fleet;
    if !ground.fleets.contains_key(&fleet) || !may_command(ground, fleet, suspension.by.as_ref()) {
        return Applied::Stale;
    }
    let status = words::status(suspension.status);
    match &suspension.of {
        Registered::Followed(Followed::Identity(id)) => {
            let name = (fleet, id.clone());
            let Some(row) = ground.identities.get_mut(&name) else {
                return Applied::Stale;
            };
            row.active = status == words::ACTIVE;
            ground.changes.identities_stand.insert(name);
        }
        Registered::Followed(Followed::Vehicle(id)) => {
            let name = (fleet, id.clone());
            let Some(row) = ground.vehicles.get_mut(&name) else {
                return Applied::Stale;
            };
            row.status = status;
            ground.changes.vehicles_stand.insert(name);
        }
        Registered::Terminal(id) => {
            let name = (fleet, id.clone());
            let Some(row) = ground.terminals.get_mut(&name) else {
                return Applied::Stale;
            };
            row.status = status;
            ground.changes.terminals_stand.insert(name);
        }
    }
    ground.changes.standings.insert(fleet);
    ground.keep(None, suspension.request.as_ref());
    Applied::Done
}

/// Marks keys that follow an identity or a vehicle, if that stands so.
pub(super) fn follow(ground: &mut Ground, following: &Following) -> Applied {
    let fleet = following.fleet;
    let active = match &following.of {
        Followed::Identity(id) => ground.identity(fleet, id).map(|row| row.active),
        Followed::Vehicle(id) => ground
            .vehicle(fleet, id)
            .map(|row| row.status == words::ACTIVE),
    };
    let wanted = words::status(following.status) == words::ACTIVE;
    if active != Some(wanted) || !meets(ground, fleet, &following.relies_on) {
        return Applied::Stale;
    }
    let revision = count(ground);
    ground.mark(&following.marks);
    Applied::Amended(revision)
}

fn count(ground: &mut Ground) -> u64 {
    ground.amendments += 1;
    ground.changes.amended = true;
    ground.amendments
}

fn write(ground: &mut Ground, amendment: &Amendment, basis: Basis, revision: u64) {
    let authorization = &amendment.authorization;
    let whole = Whole {
        authorization: Arc::clone(authorization),
        revision: Some(revision),
    };
    let (version, state) = (authorization.version, words::state(authorization.state));
    match (
        ground.authorizations.get_mut(&authorization.id),
        basis.order,
    ) {
        (Some(row), _) => {
            // Another version has another PIN, of which nobody has tried any.
            if row.version != version {
                row.pin_attempts = 0;
            }
            (row.version, row.state, row.revision) = (version, state, revision);
            row.written = match row.written {
                Written::New(_) => Written::New(whole),
                _ => Written::Whole(whole),
            };
        }
        (None, vehicle) => {
            let row = AuthorizationRow {
                fleet: authorization.fleet,
                vehicle: vehicle.unwrap_or_else(|| authorization.vehicle.clone()),
                version,
                state,
                pin_attempts: 0,
                revision,
                bundle: Some(BundleId(authorization.id.0)),
                written: Written::New(whole),
            };
            ground.authorizations.insert(authorization.id, row);
        }
    }
    if let (Some(again), Some(first)) = (&amendment.reissue, basis.again) {
        let bundle = &again.signed.bundle;
        ground
            .standing
            .insert(bundle.id, (bundle.version, bundle.epoch));
        ground.changes.bundles.push(NewBundle {
            signed: Signed::Again(Box::new(again.signed.clone())),
            author: first.author,
            terminal: first.terminal,
        });
        ground.raise_status_next(authorization.fleet, again.status_next);
    }
    ground.mark(&amendment.marks);
}
