//! The writes of the registry and of the operators: floor 2, `store/sqlite`.

use fob_verify::HolderKey;
use rusqlite::{Connection, OptionalExtension, Params, ToSql, params};

use super::error::column;
use super::{amend, words};
use crate::domain::{
    Epoch, Fleet, FleetId, FunctionCode, Identity, Terminal, Token, TokenId, UnixTime, Vehicle,
};
use crate::store::{Applied, Attestation, Member, Rotation, StoreError, encoding};

pub(super) fn setting(
    connection: &Connection,
    name: &str,
    value: &str,
) -> Result<Applied, StoreError> {
    let sql = "INSERT INTO settings (name, value) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
    if changed(connection, sql, params![name, value])? {
        return Ok(Applied::Done);
    }
    let sql = "SELECT 1 FROM settings WHERE name = ?1 AND value = ?2";
    Ok(done_or(
        Applied::Conflict,
        exists(connection, sql, params![name, value])?,
    ))
}

pub(super) fn new_fleet(connection: &Connection, fleet: &Fleet) -> Result<Applied, StoreError> {
    let sql = "INSERT INTO fleets (id, name, tag, status, status_key, status_next, open_redemption,
               signing) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO NOTHING";
    let done = changed(
        connection,
        sql,
        params![
            fleet.id.bytes(),
            fleet.name.as_str(),
            fleet.tag,
            words::status(fleet.status),
            fleet.status_key,
            column(fleet.status_next)?,
            fleet.settings.open_redemption,
            fleet.settings.signing.map(words::signing),
        ],
    )?;
    Ok(done_or(Applied::Conflict, done))
}

/// Counts out status indexes.
pub(super) fn take_indexes(
    connection: &Connection,
    fleet: &FleetId,
    count: u64,
) -> Result<Applied, StoreError> {
    let sql = "UPDATE fleets SET status_next = status_next + ?2 WHERE id = ?1
               RETURNING status_next - ?2";
    let first: Option<i64> = connection
        .prepare_cached(sql)?
        .query_row(params![fleet.bytes(), column(count)?], |row| row.get(0))
        .optional()?;
    Ok(match first {
        Some(first) => Applied::Indexes(encoding::number(first)?),
        None => Applied::Stale,
    })
}

pub(super) fn function(
    connection: &Connection,
    fleet: &FleetId,
    code: FunctionCode,
    name: &str,
) -> Result<Applied, StoreError> {
    let Some(fleet) = fleet_number(connection, fleet)? else {
        return Ok(Applied::Stale);
    };
    let sql =
        "INSERT INTO functions (fleet, code, name) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
    if changed(connection, sql, params![fleet, code, name])? {
        return Ok(Applied::Done);
    }
    let sql = "SELECT 1 FROM functions WHERE fleet = ?1 AND code = ?2 AND name = ?3";
    Ok(done_or(
        Applied::Conflict,
        exists(connection, sql, params![fleet, code, name])?,
    ))
}

/// Whether its fleet has one of that id.
pub(super) fn is_there(connection: &Connection, member: &Member) -> Result<bool, StoreError> {
    let (sql, fleet, id) = match member {
        Member::Vehicle(it) => (
            "SELECT 1 FROM vehicles WHERE fleet = ?1 AND id = ?2",
            &it.fleet,
            it.id.as_str(),
        ),
        Member::Identity(it) => (
            "SELECT 1 FROM identities WHERE fleet = ?1 AND id = ?2",
            &it.fleet,
            it.id.as_str(),
        ),
        Member::Terminal(it) => (
            "SELECT 1 FROM terminals WHERE fleet = ?1 AND id = ?2",
            &it.fleet,
            it.id.as_str(),
        ),
    };
    match fleet_number(connection, fleet)? {
        Some(fleet) => exists(connection, sql, params![fleet, id]),
        None => Ok(false),
    }
}

pub(super) fn vehicle(connection: &Connection, vehicle: &Vehicle) -> Result<Applied, StoreError> {
    let Some(fleet) = fleet_number(connection, &vehicle.fleet)? else {
        return Ok(Applied::Stale);
    };
    let functions = encoding::registry::functions(&vehicle.functions)?;
    let sql = "INSERT INTO vehicles (fleet, id, status, epoch, model, functions, owner, key)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
               ON CONFLICT (fleet, id) DO UPDATE SET model = excluded.model,
               functions = excluded.functions, key = excluded.key
               WHERE vehicles.owner IS excluded.owner";
    let done = changed(
        connection,
        sql,
        params![
            fleet,
            vehicle.id.as_str(),
            words::status(vehicle.status),
            vehicle.epoch,
            vehicle.model,
            functions,
            vehicle.owner.as_ref().map(|owner| owner.as_str()),
            vehicle.key.as_ref().map(key_column),
        ],
    )?;
    Ok(done_or(Applied::Conflict, done))
}

/// Describes a vehicle that is there anew, its owner with it.
pub(super) fn hand_over(connection: &Connection, vehicle: &Vehicle) -> Result<(), StoreError> {
    let functions = encoding::registry::functions(&vehicle.functions)?;
    let sql = "UPDATE vehicles SET model = ?3, functions = ?4, owner = ?5, key = ?6
               WHERE fleet = (SELECT number FROM fleets WHERE id = ?1) AND id = ?2";
    changed(
        connection,
        sql,
        params![
            vehicle.fleet.bytes(),
            vehicle.id.as_str(),
            vehicle.model,
            functions,
            vehicle.owner.as_ref().map(|owner| owner.as_str()),
            vehicle.key.as_ref().map(key_column),
        ],
    )?;
    Ok(())
}

pub(super) fn identity(
    connection: &Connection,
    identity: &Identity,
) -> Result<Applied, StoreError> {
    let Some(fleet) = fleet_number(connection, &identity.fleet)? else {
        return Ok(Applied::Stale);
    };
    let licences = encoding::registry::licences(&identity.licences)?;
    let sql = "INSERT INTO identities (fleet, id, status, licences, hold, proved)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6)
               ON CONFLICT (fleet, id) DO UPDATE SET status = excluded.status,
               licences = excluded.licences, hold = excluded.hold, proved = excluded.proved";
    let status = words::status(identity.status);
    let hold = identity.hold.map(words::hold);
    let proved = identity.proved.map(column).transpose()?;
    changed(
        connection,
        sql,
        params![fleet, identity.id.as_str(), status, licences, hold, proved],
    )?;
    Ok(Applied::Done)
}

pub(super) fn terminal(
    connection: &Connection,
    terminal: &Terminal,
) -> Result<Applied, StoreError> {
    let Some(fleet) = fleet_number(connection, &terminal.fleet)? else {
        return Ok(Applied::Stale);
    };
    let sql = "INSERT INTO terminals (fleet, id, status, identity, key, since, attested_by,
               attested_at)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
               ON CONFLICT (fleet, id) DO UPDATE SET identity = excluded.identity,
               key = excluded.key, since = excluded.since, attested_by = excluded.attested_by,
               attested_at = excluded.attested_at";
    let attested = terminal.attested.as_deref();
    changed(
        connection,
        sql,
        params![
            fleet,
            terminal.id.as_str(),
            words::status(terminal.status),
            terminal.identity.as_str(),
            key_column(&terminal.key),
            column(terminal.since)?,
            attested.map(|it| it.by.as_str()),
            attested.map(|it| column(it.at)).transpose()?,
        ],
    )?;
    Ok(Applied::Done)
}

/// A terminal that another vouches for.
pub(super) fn attest(
    connection: &Connection,
    attestation: &Attestation,
) -> Result<Applied, StoreError> {
    let Attestation { terminal, request } = attestation;
    if let Some(answer) = amend::answer_again(connection, Some(request))? {
        return Ok(answer);
    }
    let Some(attested) = terminal.attested.as_deref() else {
        return Ok(Applied::Stale);
    };
    let sql = "INSERT INTO terminals (fleet, id, status, identity, key, attested_by, attested_at)
               SELECT f.number, ?2, ?3, ?4, ?5, ?6, ?7 FROM fleets f
               CROSS JOIN terminals t ON t.fleet = f.number AND t.id = ?6
               CROSS JOIN identities i ON i.fleet = t.fleet AND i.id = t.identity
               WHERE f.id = ?1 AND t.status = ?8 AND i.status = ?8 AND t.identity = ?4
               ON CONFLICT DO NOTHING";
    let done = changed(
        connection,
        sql,
        params![
            terminal.fleet.bytes(),
            terminal.id.as_str(),
            words::status(terminal.status),
            terminal.identity.as_str(),
            key_column(&terminal.key),
            attested.by.as_str(),
            column(attested.at)?,
            words::ACTIVE,
        ],
    )?;
    if done {
        amend::keep(connection, None, Some(request))?;
    }
    Ok(done_or(Applied::Stale, done))
}

pub(super) fn new_token(connection: &Connection, token: &Token) -> Result<Applied, StoreError> {
    let Some(fleet) = fleet_number(connection, &token.fleet)? else {
        return Ok(Applied::Stale);
    };
    let sql = "INSERT INTO tokens
               (id, fleet, hash, scopes, created_at, expires_at, revoked_at, used_at)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO NOTHING";
    let done = changed(
        connection,
        sql,
        params![
            token.id.bytes(),
            fleet,
            token.hash,
            token.scopes.bits(),
            column(token.created_at)?,
            token.expires_at.map(column).transpose()?,
            token.revoked_at.map(column).transpose()?,
            token.used_at.map(column).transpose()?,
        ],
    )?;
    Ok(done_or(Applied::Conflict, done))
}

/// A token in the place of another.
pub(super) fn rotate_token(
    connection: &Connection,
    rotation: &Rotation,
) -> Result<Applied, StoreError> {
    let Rotation {
        before,
        ends,
        token,
    } = rotation;
    let stands = "SELECT 1 FROM tokens t CROSS JOIN fleets f ON f.number = t.fleet
                  WHERE t.id = ?1 AND f.id = ?2 AND t.revoked_at IS NULL";
    let found = params![before.bytes(), token.fleet.bytes()];
    if !exists(connection, stands, found)? {
        return Ok(Applied::Stale);
    }
    let made = new_token(connection, token)?;
    if made == Applied::Done {
        let sql = "UPDATE tokens SET expires_at = min(coalesce(expires_at, ?2), ?2) WHERE id = ?1";
        changed(connection, sql, params![before.bytes(), column(*ends)?])?;
    }
    Ok(made)
}

/// When tokens were used last.
pub(super) fn tokens_used(
    connection: &Connection,
    used: &[(TokenId, UnixTime)],
) -> Result<Applied, StoreError> {
    let sql = "UPDATE tokens SET used_at = max(coalesce(used_at, 0), ?2) WHERE id = ?1";
    for (id, at) in used {
        changed(connection, sql, params![id.bytes(), column(*at)?])?;
    }
    Ok(Applied::Done)
}

/// A token that has ended keeps the time of its first end.
pub(super) fn revoke_token(
    connection: &Connection,
    fleet: &FleetId,
    token: &TokenId,
    at: UnixTime,
) -> Result<Applied, StoreError> {
    let sql = "UPDATE tokens SET revoked_at = coalesce(revoked_at, ?3)
               WHERE id = ?2 AND fleet = (SELECT number FROM fleets WHERE id = ?1)";
    let done = changed(
        connection,
        sql,
        params![fleet.bytes(), token.bytes(), column(at)?],
    )?;
    Ok(done_or(Applied::Stale, done))
}

pub(super) fn epoch(connection: &Connection, epoch: &Epoch) -> Result<Applied, StoreError> {
    let mut key = Vec::new();
    epoch.key.encode(&mut key);
    let sql = "INSERT INTO epochs
               (id, state, key, cka_id, token_serial, not_before, not_after, created_at, activated_at)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
               ON CONFLICT (id) DO UPDATE SET state = excluded.state, key = excluded.key,
               cka_id = excluded.cka_id, token_serial = excluded.token_serial,
               not_before = excluded.not_before, not_after = excluded.not_after,
               created_at = excluded.created_at, activated_at = excluded.activated_at";
    changed(
        connection,
        sql,
        params![
            epoch.id.0,
            words::epoch_state(epoch.state),
            key,
            epoch.cka_id,
            epoch.token_serial,
            column(epoch.window.not_before)?,
            column(epoch.window.not_after)?,
            column(epoch.created_at)?,
            epoch.activated_at.map(column).transpose()?,
        ],
    )?;
    Ok(Applied::Done)
}

pub(super) fn trust_list(
    connection: &Connection,
    version: u32,
    body: &[u8],
) -> Result<Applied, StoreError> {
    let sql = "INSERT INTO trust_lists (version, body) SELECT ?1, ?2
               WHERE NOT EXISTS (SELECT 1 FROM trust_lists WHERE version >= ?1)";
    let done = changed(connection, sql, params![version, body])?;
    Ok(done_or(Applied::Conflict, done))
}

/// A public key as its column keeps it: whole, so that reading a million costs no square roots.
fn key_column(key: &HolderKey) -> impl ToSql + '_ {
    key.public().as_bytes()
}

pub(super) fn fleet_number(
    connection: &Connection,
    fleet: &FleetId,
) -> Result<Option<i64>, StoreError> {
    let number = connection
        .prepare_cached("SELECT number FROM fleets WHERE id = ?1")?
        .query_row(params![fleet.bytes()], |row| row.get(0))
        .optional()?;
    Ok(number)
}

pub(super) fn changed(
    connection: &Connection,
    sql: &str,
    values: impl Params,
) -> Result<bool, StoreError> {
    Ok(connection.prepare_cached(sql)?.execute(values)? > 0)
}

fn exists(connection: &Connection, sql: &str, values: impl Params) -> Result<bool, StoreError> {
    Ok(connection.prepare_cached(sql)?.exists(values)?)
}

fn done_or(otherwise: Applied, done: bool) -> Applied {
    if done { Applied::Done } else { otherwise }
}
