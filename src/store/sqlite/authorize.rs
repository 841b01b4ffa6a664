//! New authorizations and attempts at their PINs: floor 2, `store/sqlite`.

use rusqlite::{Connection, OptionalExtension, params};

use super::error::column;
use super::writer::Transaction;
use super::{amend, authorization_body, words};
use crate::domain::authorization::PIN_ATTEMPTS_MAX;
use crate::domain::{Author, Authorization, AuthorizationId};
use crate::store::{Applied, NewAuthorization, Request, StoreError};

pub(super) fn authorize(
    transaction: &mut Transaction<'_>,
    new: &NewAuthorization,
) -> Result<Applied, StoreError> {
    let connection = transaction.connection;
    let id = new.authorization.id;
    if let Some(request) = &new.request
        && let Some(answer) = repeated(connection, request)?
    {
        return Ok(answer);
    }
    if let Some(answers) = &new.answers
        && repeated(connection, &answers.request)?.is_some()
    {
        return Ok(Applied::Spent);
    }
    let Some((fleet, vehicle)) = standing(connection, &new.authorization)? else {
        return Ok(Applied::Stale);
    };
    let segment = transaction.segments.place(connection, id)?;
    if !insert(connection, new, fleet, segment, vehicle)? {
        return Ok(Applied::Conflict);
    }
    if let Some(request) = &new.request {
        connection
            .prepare_cached("INSERT INTO requests (scope, authorization) VALUES (?1, ?2)")?
            .execute(params![scope_column(&request.scope), id.bytes()])?;
    }
    amend::keep(connection, Some(&id), new.answers.as_ref())?;
    if let Some(command) = &new.command {
        connection
            .prepare_cached(
                "INSERT INTO commands (authorization, version, command) VALUES (?1, ?2, ?3)",
            )?
            .execute(params![id.bytes(), new.authorization.version, command])?;
    }
    Ok(Applied::Done)
}

/// Counts the attempt unless there have been too many.
pub(super) fn pin_attempt(
    connection: &Connection,
    id: &AuthorizationId,
    version: u32,
) -> Result<Applied, StoreError> {
    let attempts: Option<u32> = connection
        .prepare_cached("SELECT pin_attempts FROM authorizations WHERE id = ?1 AND version = ?2")?
        .query_row(params![id.bytes(), version], |row| row.get(0))
        .optional()?;
    let Some(attempts) = attempts else {
        return Ok(Applied::Stale);
    };
    if attempts < PIN_ATTEMPTS_MAX {
        connection
            .prepare_cached("UPDATE authorizations SET pin_attempts = ?2 WHERE id = ?1")?
            .execute(params![id.bytes(), attempts + 1])?;
    }
    Ok(Applied::PinAttempts(attempts + 1))
}

/// Takes back what was counted.
pub(super) fn pin_right(
    connection: &Connection,
    id: &AuthorizationId,
    version: u32,
) -> Result<Applied, StoreError> {
    let changed = connection
        .prepare_cached(
            "UPDATE authorizations SET pin_attempts = 0 WHERE id = ?1 AND version = ?2",
        )?
        .execute(params![id.bytes(), version])?;
    Ok(if changed == 1 {
        Applied::Done
    } else {
        Applied::Stale
    })
}

/// The first bytes of a request's scope, by which its authorization is found.
pub(super) fn scope_column(scope: &[u8; 32]) -> i64 {
    let mut first = [0; 8];
    first.copy_from_slice(&scope[..8]);
    i64::from_be_bytes(first)
}

/// What became of a request.
pub(super) fn recall(connection: &Connection, request: &Request) -> Result<Applied, StoreError> {
    Ok(repeated(connection, request)?.unwrap_or(Applied::Done))
}

/// The answer to a request whose scope has been used.
pub(super) fn repeated(
    connection: &Connection,
    request: &Request,
) -> Result<Option<Applied>, StoreError> {
    let found: Option<([u8; 16], [u8; 32])> = connection
        .prepare_cached(
            "SELECT a.id, substr(a.request, 33) FROM requests r
             CROSS JOIN authorizations a ON a.id = r.authorization
             WHERE r.scope = ?1 AND substr(a.request, 1, 32) = ?2",
        )?
        .query_row(
            params![scope_column(&request.scope), request.scope],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    let found = match found {
        Some(found) => Some(found),
        None => amend::answered(connection, &request.scope)?,
    };
    Ok(found.map(|(id, digest)| match digest == request.digest {
        true => Applied::Repeated(AuthorizationId(id)),
        false => Applied::Conflict,
    }))
}

/// Numbers of the authorization's fleet and vehicle, if these and its author stand.
fn standing(
    connection: &Connection,
    authorization: &Authorization,
) -> Result<Option<(i64, i64)>, StoreError> {
    let terminal = match &authorization.author {
        Author::Token(_) => None,
        Author::Terminal(id) => Some(id.as_str()),
    };
    let numbers = connection
        .prepare_cached(
            "SELECT f.number, v.number FROM fleets f
             CROSS JOIN vehicles v ON v.fleet = f.number AND v.id = ?2
             WHERE f.id = ?1 AND f.status = ?4 AND v.status = ?4
             AND (?3 IS NULL OR EXISTS (
                SELECT 1 FROM terminals t
                CROSS JOIN identities i ON i.fleet = t.fleet AND i.id = t.identity
                WHERE t.fleet = f.number AND t.id = ?3 AND t.status = ?4 AND i.status = ?4
                AND t.identity = v.owner))",
        )?
        .query_row(
            params![
                authorization.fleet.bytes(),
                authorization.vehicle.as_str(),
                terminal,
                words::ACTIVE
            ],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    Ok(numbers)
}

fn insert(
    connection: &Connection,
    new: &NewAuthorization,
    fleet: i64,
    segment: i64,
    vehicle: i64,
) -> Result<bool, StoreError> {
    let authorization = &*new.authorization;
    let request = new
        .request
        .map(|request| [request.scope, request.digest].concat());
    let inserted = connection
        .prepare_cached(
            "INSERT INTO authorizations (id, fleet, segment, vehicle, version, state, pin_attempts,
             bundle, not_after, redeem_by, request, format, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, NULL, ?7, ?8, ?9, ?10, ?11)
             ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            authorization.id.bytes(),
            fleet,
            segment,
            vehicle,
            authorization.version,
            words::state(authorization.state),
            column(authorization.window.not_after)?,
            column(authorization.redeem_by)?,
            request,
            authorization_body::FORMAT,
            authorization_body::encode(authorization)?,
        ])?;
    Ok(inserted > 0)
}
