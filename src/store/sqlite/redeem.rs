//! Redemptions and orders: floor 2, `store/sqlite`. The write everything else here is measured by.

use rusqlite::params;

use super::bundle_body::{Basis, Fields};
use super::error::column;
use super::packs::{Item, span};
use super::standings::Numbers;
use super::writer::Transaction;
use super::{suspend, words};
use crate::store::{Applied, Order, Proof, Redemption, SignedBundle, StoreError};

/// Asks the conditions, then notes the bundle: it is written with the others of its transaction.
/// An authorization that is redeemed is changed here and now.
pub(super) fn redeem(
    transaction: &mut Transaction<'_>,
    redemption: &Redemption,
) -> Result<Applied, StoreError> {
    let connection = transaction.connection;
    let bundle = &redemption.signed.bundle;
    let request = redemption.order.as_ref().and_then(|it| it.request.as_ref());
    if let Some(request) = request
        && let Some(answer) = transaction.calls.repeated(connection, request)?
    {
        return Ok(answer);
    }
    let Some(numbers) =
        transaction
            .standings
            .of(connection, bundle, redemption.terminal.as_ref())?
    else {
        return Ok(Applied::Stale);
    };
    if !suspend::meets(transaction, &bundle.fleet, &redemption.relies_on)? {
        return Ok(Applied::Stale);
    }
    let pending = &mut transaction.pending;
    if transaction.packs.taken(connection, pending, &bundle.id)? {
        let stands = redemption.order.is_some() || is_open(connection, redemption)?;
        return Ok(if stands {
            Applied::Conflict
        } else {
            Applied::Stale
        });
    }
    let place = transaction
        .packs
        .place(pending, numbers.fleet, numbers.epoch, &bundle.id);
    let basis = match &redemption.order {
        Some(order) => ordered(redemption, order, &numbers),
        None if mark_redeemed(connection, redemption, &numbers, place)? => {
            Basis::Authorization(bundle.authorization)
        }
        None => return Ok(Applied::Stale),
    };
    note(transaction, &redemption.signed, &numbers, &basis)?;
    if let Some(request) = request {
        let end = bundle.window.not_after;
        let answers = &mut transaction.answers;
        transaction
            .calls
            .answer(connection, answers, request, bundle.id, end)?;
    }
    raise_status_next(transaction, numbers.fleet, redemption.status_next)?;
    Ok(Applied::Done)
}

/// Notes that a fleet has counted out status indexes up to `next`.
pub(super) fn raise_status_next(
    transaction: &mut Transaction<'_>,
    fleet: i64,
    next: u64,
) -> Result<(), StoreError> {
    let next = column(next)?;
    transaction
        .status_next
        .entry(fleet)
        .and_modify(|known| *known = next.max(*known))
        .or_insert(next);
    Ok(())
}

fn ordered(redemption: &Redemption, order: &Order, numbers: &Numbers) -> Basis {
    Basis::Order {
        vehicle: numbers.vehicle,
        terminal: redemption.terminal.clone(),
        author: order.author,
    }
}

/// Whether the authorization is open and at the bundle's version.
fn is_open(connection: &rusqlite::Connection, redemption: &Redemption) -> Result<bool, StoreError> {
    let bundle = &redemption.signed.bundle;
    let found = connection
        .prepare_cached(
            "SELECT 1 FROM authorizations WHERE id = ?1 AND state = ?2 AND version = ?3",
        )?
        .exists(params![
            bundle.authorization.bytes(),
            words::OPEN,
            bundle.version
        ])?;
    Ok(found)
}

/// Whether the authorization was open, at the bundle's version, and for the bundle's vehicle; then
/// it is redeemed.
fn mark_redeemed(
    connection: &rusqlite::Connection,
    redemption: &Redemption,
    numbers: &Numbers,
    place: i64,
) -> Result<bool, StoreError> {
    let bundle = &redemption.signed.bundle;
    let changed = connection
        .prepare_cached(
            "UPDATE authorizations SET state = ?2, bundle = ?3
             WHERE id = ?1 AND state = ?4 AND version = ?5 AND fleet = ?6 AND vehicle = ?7",
        )?
        .execute(params![
            bundle.authorization.bytes(),
            words::REDEEMED,
            place,
            words::OPEN,
            bundle.version,
            numbers.fleet,
            numbers.vehicle,
        ])?;
    Ok(changed == 1)
}

/// Encodes the bundle and puts it into its pack.
pub(super) fn note(
    transaction: &mut Transaction<'_>,
    signed: &SignedBundle,
    numbers: &Numbers,
    basis: &Basis,
) -> Result<(), StoreError> {
    encode(transaction, signed, numbers, basis)?;
    let order = match basis {
        Basis::Order { vehicle, .. } => Some((*vehicle, span(signed.bundle.window.not_after))),
        Basis::Authorization(_) => None,
    };
    transaction.packs.push(
        &mut transaction.pending,
        &Item {
            id: signed.bundle.id,
            identity: numbers.identity,
            order,
            body: transaction.scratch,
        },
    );
    Ok(())
}

/// Encodes the bundle as bodies are kept, into the transaction's scratch.
pub(super) fn encode(
    transaction: &mut Transaction<'_>,
    signed: &SignedBundle,
    numbers: &Numbers,
    basis: &Basis,
) -> Result<(), StoreError> {
    let connection = transaction.connection;
    let bundle = &signed.bundle;
    let keys = bundle.keys.len();
    let signed_each = match &signed.proof {
        Proof::Each(signatures) => signatures.len() == keys,
        Proof::Tree(_) => true,
    };
    if !signed_each || bundle.subjects.len() != keys {
        return Err(StoreError::Failed(
            "a bundle without one signature for each key".into(),
        ));
    }
    let fields = Fields {
        id: &bundle.id,
        basis,
        identity: numbers.identity,
        version: bundle.version,
        vehicle_epoch: bundle.vehicle_epoch,
        algorithm: bundle.algorithm,
        issuer: transaction.contexts.issuer(connection, &bundle.issuer)?,
        subjects: transaction
            .contexts
            .subjects(connection, &bundle.subjects)?,
        holder: &bundle.holder,
        issued_at: bundle.issued_at,
        window: bundle.window,
        region: bundle.region.as_deref(),
        recurring: bundle.recurring.as_deref(),
        keys: &bundle.keys,
        proof: &signed.proof,
    };
    transaction.scratch.clear();
    fields.write(transaction.scratch)
}
