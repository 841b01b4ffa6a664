//! Changes and ends of what was authorized and issued: floor 2, `store/sqlite`.
//!
//! Every condition is asked before anything is written. A reset raises the vehicle's epoch first,
//! because its amendments are asked at the raised one, and takes that back where one does not hold.

use rusqlite::{Connection, OptionalExtension, params};

use super::bundle_body::{self, Basis, Body};
use super::error::column;
use super::packs::{self, Place};
use super::redeem::{encode, raise_status_next};
use super::registry::fleet_number;
use super::standings::Numbers;
use super::writer::Transaction;
use super::{authorization_body, authorize, registry, statuses, suspend, words};
use crate::domain::{Authorization, AuthorizationId, BundleId, FleetId, TerminalId};
use crate::store::amend::comes_suspended;
use crate::store::{AmendRequest, Amendment, Applied, Reset, StoreError};

/// The authorization a request was about, and the digest of it.
type Answered = ([u8; 16], [u8; 32]);

/// Version, state and revision of a row.
type From = (u32, i64, i64);

/// What an amendment is written on.
struct Ground {
    fleet: i64,
    /// Of an authorization that has no row yet: its vehicle, and where its bundle is.
    order: Option<(i64, Place)>,
    /// What a bundle that is issued again rests on.
    reissue: Option<(Numbers, Basis)>,
}

pub(super) fn amend(
    transaction: &mut Transaction<'_>,
    amendment: &Amendment,
) -> Result<Applied, StoreError> {
    let connection = transaction.connection;
    if let Some(answer) = answer_again(connection, amendment.request.as_ref())? {
        return Ok(answer);
    }
    let Some(ground) = check(transaction, amendment)? else {
        return Ok(Applied::Stale);
    };
    let revision = count(connection)?;
    write(transaction, amendment, &ground, revision)?;
    let id = amendment.authorization.id;
    keep(connection, Some(&id), amendment.request.as_ref())?;
    Ok(Applied::Amended(revision))
}

pub(super) fn reset(
    transaction: &mut Transaction<'_>,
    reset: &Reset,
) -> Result<Applied, StoreError> {
    let connection = transaction.connection;
    if let Some(answer) = answer_again(connection, reset.request.as_ref())? {
        return Ok(answer);
    }
    let Some(fleet) = fleet_number(connection, &reset.fleet)? else {
        return Ok(Applied::Stale);
    };
    let mut set = |from: u32, to: u32| -> Result<bool, StoreError> {
        transaction
            .standings
            .forget_vehicle(&reset.fleet, &reset.vehicle);
        let changed = connection
            .prepare_cached(
                "UPDATE vehicles SET epoch = ?4 WHERE fleet = ?1 AND id = ?2 AND epoch = ?3",
            )?
            .execute(params![fleet, reset.vehicle.as_str(), from, to])?;
        Ok(changed == 1)
    };
    let next = reset.from.saturating_add(1);
    if !may_command(connection, &reset.fleet, reset.by.as_ref())? || !set(reset.from, next)? {
        return Ok(Applied::Stale);
    }
    let mut grounds = Vec::with_capacity(reset.amendments.len());
    for amendment in &reset.amendments {
        grounds.extend(check(transaction, amendment)?);
    }
    if grounds.len() < reset.amendments.len() {
        transaction
            .standings
            .forget_vehicle(&reset.fleet, &reset.vehicle);
        connection
            .prepare_cached("UPDATE vehicles SET epoch = ?3 WHERE fleet = ?1 AND id = ?2")?
            .execute(params![fleet, reset.vehicle.as_str(), reset.from])?;
        return Ok(Applied::Stale);
    }
    let revision = count(connection)?;
    for (amendment, ground) in reset.amendments.iter().zip(&grounds) {
        write(transaction, amendment, ground, revision)?;
    }
    if let Some(vehicle) = &reset.becomes {
        registry::hand_over(connection, vehicle)?;
    }
    keep(connection, None, reset.request.as_ref())?;
    Ok(Applied::Amended(revision))
}

/// What a request to amend was answered with.
pub(super) fn outcome(
    connection: &Connection,
    scope: &[u8; 32],
) -> Result<Option<Vec<u8>>, StoreError> {
    Ok(connection
        .prepare_cached("SELECT outcome FROM amendments WHERE scope = ?1")?
        .query_row(params![scope], |row| row.get(0))
        .optional()?)
}

/// The authorization, and the digest, of a request that has amended; no id where it was a reset.
pub(super) fn answered(
    connection: &Connection,
    scope: &[u8; 32],
) -> Result<Option<Answered>, StoreError> {
    Ok(connection
        .prepare_cached(
            "SELECT coalesce(authorization, zeroblob(16)), digest FROM amendments
             WHERE scope = ?1",
        )?
        .query_row(params![scope], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?)
}

pub(super) fn answer_again(
    connection: &Connection,
    request: Option<&AmendRequest>,
) -> Result<Option<Applied>, StoreError> {
    match request {
        Some(asked) => authorize::repeated(connection, &asked.request),
        None => Ok(None),
    }
}

/// Asks every condition; `None` where one does not hold.
fn check(
    transaction: &mut Transaction<'_>,
    amendment: &Amendment,
) -> Result<Option<Ground>, StoreError> {
    let connection = transaction.connection;
    let authorization = &*amendment.authorization;
    if !may_command(connection, &authorization.fleet, amendment.by.as_ref())? {
        return Ok(None);
    }
    let Some(fleet) = fleet_number(connection, &authorization.fleet)? else {
        return Ok(None);
    };
    let row: Option<(i64, From, Option<Place>)> = connection
        .prepare_cached(
            "SELECT fleet, version, state, coalesce(revision, 0), bundle FROM authorizations
             WHERE id = ?1",
        )?
        .query_row(params![authorization.id.bytes()], |row| {
            let from = (row.get(1)?, row.get(2)?, row.get(3)?);
            Ok((row.get(0)?, from, row.get(4)?))
        })
        .optional()?;
    let (version, state, revision) = amendment.from;
    let from = (version, words::state(state), column(revision)?);
    let (order, bundle) = match row {
        Some((of, stands, bundle)) if of == fleet && stands == from => {
            let first = bundle
                .map(|place| packs::at(connection, place))
                .transpose()?;
            (None, first.flatten())
        }
        Some(_) => return Ok(None),
        None => {
            let Some(found) = packs::find(connection, &BundleId(authorization.id.0))? else {
                return Ok(None);
            };
            let body = Body::decode(&found.body)?;
            let Basis::Order { vehicle, .. } = body.basis else {
                return Ok(None);
            };
            if found.fleet != fleet || (body.version, words::REDEEMED, 0) != from {
                return Ok(None);
            }
            (Some((vehicle, found.place)), Some(found))
        }
    };
    let reissue = match (&amendment.reissue, bundle) {
        (None, _) => None,
        (Some(_), None) => return Ok(None),
        (Some(again), Some(first)) => {
            let first = Body::decode(&first.body)?;
            let new = &again.signed.bundle;
            match transaction.standings.with_suspended(connection, again)? {
                Some((numbers, suspended))
                    if first.id == new.id
                        && comes_suspended(new, &amendment.marks, suspended)
                        && suspend::meets(transaction, &new.fleet, &again.relies_on)? =>
                {
                    Some((numbers, first.basis))
                }
                _ => return Ok(None),
            }
        }
    };
    Ok(Some(Ground {
        fleet,
        order,
        reissue,
    }))
}

/// Whether the owner terminal that commands, where it is one, and its identity are active.
pub(super) fn may_command(
    connection: &Connection,
    fleet: &FleetId,
    by: Option<&TerminalId>,
) -> Result<bool, StoreError> {
    let Some(by) = by else {
        return Ok(true);
    };
    Ok(connection
        .prepare_cached(
            "SELECT 1 FROM fleets f CROSS JOIN terminals t ON t.fleet = f.number
             CROSS JOIN identities i ON i.fleet = t.fleet AND i.id = t.identity
             WHERE f.id = ?1 AND t.id = ?2 AND t.status = ?3 AND i.status = ?3",
        )?
        .exists(params![fleet.bytes(), by.as_str(), words::ACTIVE])?)
}

pub(super) fn count(connection: &Connection) -> Result<u64, StoreError> {
    let revision: i64 = connection
        .prepare_cached("UPDATE revisions SET value = value + 1 RETURNING value")?
        .query_row([], |row| row.get(0))?;
    super::error::number(revision)
}

fn write(
    transaction: &mut Transaction<'_>,
    amendment: &Amendment,
    ground: &Ground,
    revision: u64,
) -> Result<(), StoreError> {
    let connection = transaction.connection;
    let authorization = &*amendment.authorization;
    match ground.order {
        None => update(connection, authorization, revision)?,
        Some((vehicle, place)) => {
            let segment = transaction.segments.place(connection, authorization.id)?;
            let numbers = (ground.fleet, segment, vehicle, place);
            insert(connection, authorization, numbers, revision)?;
        }
    }
    if let (Some(again), Some((numbers, basis))) = (&amendment.reissue, &ground.reissue) {
        encode(transaction, &again.signed, numbers, basis)?;
        connection
            .prepare_cached("INSERT INTO reissues VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
            .execute(params![
                authorization.id.bytes(),
                again.signed.bundle.version,
                numbers.fleet,
                numbers.epoch,
                bundle_body::FORMAT,
                *transaction.scratch,
            ])?;
        raise_status_next(transaction, numbers.fleet, again.status_next)?;
    }
    statuses::mark(connection, &amendment.marks)
}

fn update(
    connection: &Connection,
    authorization: &Authorization,
    revision: u64,
) -> Result<(), StoreError> {
    // Another version has another PIN, of which nobody has tried any.
    connection
        .prepare_cached(
            "UPDATE authorizations SET
             pin_attempts = CASE version WHEN ?2 THEN pin_attempts ELSE 0 END,
             version = ?2, state = ?3, not_after = ?4, redeem_by = ?5, revision = ?6,
             code_set = ?7, format = ?8, body = ?9 WHERE id = ?1",
        )?
        .execute(params![
            authorization.id.bytes(),
            authorization.version,
            words::state(authorization.state),
            column(authorization.window.not_after)?,
            column(authorization.redeem_by)?,
            column(revision)?,
            authorization_body::code_set(authorization)?,
            authorization_body::FORMAT,
            authorization_body::encode(authorization)?,
        ])?;
    Ok(())
}

fn insert(
    connection: &Connection,
    authorization: &Authorization,
    (fleet, segment, vehicle, place): (i64, i64, i64, Place),
    revision: u64,
) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "INSERT INTO authorizations (id, fleet, segment, vehicle, version, state,
             pin_attempts, bundle, not_after, redeem_by, request, format, body, revision, code_set)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, ?7, ?8, ?9, NULL, ?10, ?11, ?12, ?13)",
        )?
        .execute(params![
            authorization.id.bytes(),
            fleet,
            segment,
            vehicle,
            authorization.version,
            words::state(authorization.state),
            place,
            column(authorization.window.not_after)?,
            column(authorization.redeem_by)?,
            authorization_body::FORMAT,
            authorization_body::encode(authorization)?,
            column(revision)?,
            authorization_body::code_set(authorization)?,
        ])?;
    Ok(())
}

/// Keeps a request, so that it is known again.
pub(super) fn keep(
    connection: &Connection,
    authorization: Option<&AuthorizationId>,
    request: Option<&AmendRequest>,
) -> Result<(), StoreError> {
    let Some(asked) = request else {
        return Ok(());
    };
    connection
        .prepare_cached("INSERT INTO amendments VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
        .execute(params![
            asked.request.scope,
            asked.request.digest,
            authorization.map(AuthorizationId::bytes),
            column(asked.made_at)?,
            asked.command,
            asked.outcome,
        ])?;
    Ok(())
}
