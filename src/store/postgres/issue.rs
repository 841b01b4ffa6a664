//! Authorizations, attempts at their PINs, redemptions and orders: floor 2, `store/postgres`.

use std::sync::Arc;

use super::ground::{
    AuthorizationRow, FirstIssue, Ground, NewBundle, NewRequest, Signed, VehicleRow, Whole, Written,
};
use crate::domain::authorization::PIN_ATTEMPTS_MAX;
use crate::domain::{
    Author, Authorization, AuthorizationId, Bundle, FleetId, Reason, Reasons, TerminalId,
};
use crate::store::encoding::words;
use crate::store::{
    Applied, NewAuthorization, OrderRequest, Proof, Redemption, ReliedOn, Renewal, Request,
    SignedBundle, StoreError,
};

pub(super) fn authorize(
    ground: &mut Ground,
    new: &NewAuthorization,
) -> Result<Applied, StoreError> {
    let authorization = &*new.authorization;
    let id = authorization.id;
    if let Some(answer) = new.request.as_ref().and_then(|it| repeated(ground, it)) {
        return Ok(answer);
    }
    let answers = new.answers.as_ref();
    if answers.is_some_and(|it| repeated(ground, &it.request).is_some()) {
        return Ok(Applied::Spent);
    }
    if !may_be_authorized(ground, authorization) {
        return Ok(Applied::Stale);
    }
    if ground.authorizations.contains_key(&id) {
        return Ok(Applied::Conflict);
    }
    let row = AuthorizationRow {
        fleet: authorization.fleet,
        vehicle: authorization.vehicle.clone(),
        version: authorization.version,
        state: words::state(authorization.state),
        pin_attempts: 0,
        revision: 0,
        bundle: None,
        written: Written::New(Whole {
            authorization: Arc::clone(&new.authorization),
            revision: None,
        }),
    };
    ground.authorizations.insert(id, row);
    if let Some(request) = new.request {
        ground
            .requests
            .insert(request.scope, (Some(id), request.digest));
        ground.changes.requests.push(NewRequest {
            request,
            authorization: Some(id),
            made_at: authorization.created_at,
            command: None,
            outcome: None,
        });
    }
    ground.keep(Some(id), answers);
    if let Some(command) = &new.command {
        let command = (id, authorization.version, command.clone());
        ground.changes.commands.push(command);
    }
    Ok(Applied::Done)
}

/// Whether fleet and vehicle stand, and its author where a terminal gave the command.
fn may_be_authorized(ground: &Ground, authorization: &Authorization) -> bool {
    let fleet = authorization.fleet;
    let vehicle = ground.vehicle(fleet, &authorization.vehicle);
    let by = match &authorization.author {
        Author::Token(_) => None,
        Author::Terminal(id) => Some(id),
    };
    let owns = |row: &VehicleRow, by: &TerminalId| {
        let terminal = ground.terminal(fleet, by);
        terminal.is_some_and(|terminal| row.owner.as_ref() == Some(&terminal.identity))
    };
    ground.fleets.get(&fleet) == Some(&true)
        && vehicle
            .is_some_and(|row| row.status == words::ACTIVE && by.is_none_or(|by| owns(row, by)))
        && may_command(ground, fleet, by)
}

/// Whether the owner terminal that commands, where it is one, and its identity are active.
pub(super) fn may_command(ground: &Ground, fleet: FleetId, by: Option<&TerminalId>) -> bool {
    let Some(by) = by else { return true };
    let Some(terminal) = ground.terminal(fleet, by) else {
        return false;
    };
    let identity = ground.identity(fleet, &terminal.identity);
    terminal.status == words::ACTIVE && identity.is_some_and(|row| row.active)
}

/// The answer to a request whose scope has been used.
pub(super) fn repeated(ground: &Ground, request: &Request) -> Option<Applied> {
    let (authorization, digest) = ground.requests.get(&request.scope)?;
    Some(match *digest == request.digest {
        // A reset is of no authorization.
        true => Applied::Repeated(authorization.unwrap_or(AuthorizationId([0; 16]))),
        false => Applied::Conflict,
    })
}

/// Counts the attempt unless there have been too many.
pub(super) fn pin_attempt(ground: &mut Ground, id: &AuthorizationId, version: u32) -> Applied {
    match ground.authorizations.get_mut(id) {
        Some(row) if row.version == version => {
            let attempts = row.pin_attempts + 1;
            if row.pin_attempts < PIN_ATTEMPTS_MAX {
                row.pin_attempts = attempts;
                row.touch();
            }
            Applied::PinAttempts(attempts)
        }
        _ => Applied::Stale,
    }
}

/// Takes back what was counted.
pub(super) fn pin_right(ground: &mut Ground, id: &AuthorizationId, version: u32) -> Applied {
    match ground.authorizations.get_mut(id) {
        Some(row) if row.version == version => {
            row.pin_attempts = 0;
            row.touch();
            Applied::Done
        }
        _ => Applied::Stale,
    }
}

pub(super) fn redeem(
    ground: &mut Ground,
    redemption: &Arc<Redemption>,
) -> Result<Applied, StoreError> {
    let bundle = &redemption.signed.bundle;
    let order = redemption.order.as_ref();
    let request = order.and_then(|order| order.request.as_ref());
    if let Some(answer) = request.and_then(|request| answered(ground, request)) {
        return Ok(answer);
    }
    if !stands(ground, bundle, redemption.terminal.as_ref())
        || (order.is_none() && !is_open(ground, bundle))
    {
        return Ok(Applied::Stale);
    }
    if !meets(ground, bundle.fleet, &redemption.relies_on) {
        return Ok(Applied::Stale);
    }
    if ground.bundles.contains_key(&bundle.id) {
        return Ok(Applied::Conflict);
    }
    check_form(&redemption.signed)?;
    if order.is_none()
        && let Some(row) = ground.authorizations.get_mut(&bundle.authorization)
    {
        row.state = words::REDEEMED;
        row.bundle = Some(bundle.id);
        row.touch();
    }
    let author = order.map(|order| order.author);
    let first = FirstIssue {
        version: bundle.version,
        fleet: bundle.fleet,
        vehicle: bundle.vehicle.clone(),
        author,
        terminal: redemption.terminal.clone(),
    };
    ground.bundles.insert(bundle.id, first);
    ground
        .standing
        .insert(bundle.id, (bundle.version, bundle.epoch));
    ground.changes.bundles.push(NewBundle {
        signed: Signed::Redeemed(Arc::clone(redemption)),
        author,
        terminal: redemption.terminal.clone(),
    });
    if let Some(request) = request {
        let call = ground.calls.entry(*request.call).or_default();
        call.answer(request, bundle.id, bundle.window.not_after);
    }
    ground.raise_status_next(bundle.fleet, redemption.status_next);
    Ok(Applied::Done)
}

fn answered(ground: &Ground, request: &OrderRequest) -> Option<Applied> {
    let (digest, bundle) = ground.calls.get(&*request.call)?.find(request)?;
    Some(match *digest == request.digest {
        true => Applied::Repeated(AuthorizationId(bundle.0)),
        false => Applied::Conflict,
    })
}

/// Whether the authorization is open, at the bundle's version, and for the bundle's vehicle.
fn is_open(ground: &Ground, bundle: &Bundle) -> bool {
    let row = ground.authorizations.get(&bundle.authorization);
    row.is_some_and(|row| {
        row.state == words::OPEN
            && row.version == bundle.version
            && row.fleet == bundle.fleet
            && row.vehicle == bundle.vehicle
    })
}

/// Whether what a bundle rests on stands: the conditions that [`Redemption`] documents, apart from
/// those on its authorization.
fn stands(ground: &Ground, bundle: &Bundle, terminal: Option<&TerminalId>) -> bool {
    may_have_keys(ground, bundle) && with_suspended(ground, bundle, terminal) == Some(Reasons::NONE)
}

/// Whether new keys may be issued at all: the identity is not held, and nothing is frozen.
pub(super) fn may_have_keys(ground: &Ground, bundle: &Bundle) -> bool {
    let identity = ground.identity(bundle.fleet, &bundle.identity);
    identity.is_some_and(|row| !row.held) && !ground.is_frozen(bundle.fleet, &bundle.vehicle)
}

/// Whether what something was decided on is so.
pub(super) fn meets(ground: &Ground, fleet: FleetId, relies_on: &ReliedOn) -> bool {
    let ReliedOn {
        rules,
        identity,
        vehicle,
    } = relies_on;
    rules.is_none_or(|version| ground.rules(fleet) == version)
        && vehicle.as_ref().is_none_or(|it| {
            let model = ground.models.get(&(it.fleet, it.id.clone()));
            model.is_some_and(|model| *model == it.model)
        })
        && identity.as_ref().is_none_or(|it| {
            let found = ground.conditions.get(&(it.fleet, it.id.clone()));
            found.is_some_and(|(hold, licences)| *hold == it.hold && *licences == it.licences)
        })
}

/// The same where vehicle or identity may be suspended, and new keys withheld; and which of them are
/// suspended.
pub(super) fn with_suspended(
    ground: &Ground,
    bundle: &Bundle,
    terminal: Option<&TerminalId>,
) -> Option<Reasons> {
    let fleet = bundle.fleet;
    let epoch = ground.epochs.get(&bundle.epoch);
    let vehicle = ground.vehicle(fleet, &bundle.vehicle);
    let identity = ground.identity(fleet, &bundle.identity);
    let terminal_stands = terminal.is_none_or(|id| {
        let row = ground.terminal(fleet, id);
        row.is_some_and(|row| row.status == words::ACTIVE)
    });
    let vehicle = vehicle.filter(|row| row.epoch == bundle.vehicle_epoch)?;
    let identity = identity?;
    let stands = epoch.is_some_and(|row| row.state != words::EPOCH_REVOKED)
        && ground.fleets.get(&fleet) == Some(&true)
        && terminal_stands;
    let mut suspended = Reasons::NONE;
    if vehicle.status != words::ACTIVE {
        suspended = suspended.with(Reason::Vehicle);
    }
    if !identity.active {
        suspended = suspended.with(Reason::Identity);
    }
    stands.then_some(suspended)
}

/// Puts a bundle under the signature of another epoch, where it still stands as it was read.
pub(super) fn renew(ground: &mut Ground, renewal: &Arc<Renewal>) -> Result<Applied, StoreError> {
    let bundle = &renewal.signed.bundle;
    let signs = ground.epochs.get(&bundle.epoch);
    let stands = ground.standing.get(&bundle.id);
    if signs.is_none_or(|row| row.state == words::EPOCH_REVOKED)
        || stands != Some(&(bundle.version, renewal.from))
    {
        return Ok(Applied::Stale);
    }
    check_form(&renewal.signed)?;
    ground
        .standing
        .insert(bundle.id, (bundle.version, bundle.epoch));
    ground.changes.renewals.push(Arc::clone(renewal));
    Ok(Applied::Done)
}

/// What no bundle is without.
pub(super) fn check_form(signed: &SignedBundle) -> Result<(), StoreError> {
    let keys = signed.bundle.keys.len();
    let signed_each = match &signed.proof {
        Proof::Each(signatures) => signatures.len() == keys,
        Proof::Tree(_) => true,
    };
    if signed_each && signed.bundle.subjects.len() == keys {
        return Ok(());
    }
    Err(StoreError::Failed(
        "a bundle without one signature for each key".into(),
    ))
}
