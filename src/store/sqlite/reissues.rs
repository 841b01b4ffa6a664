//! Bundles that were issued again, and the rows of orders that were amended: floor 2,
//! `store/sqlite`.
//!
//! The first issue of a bundle stays in its pack. Each later version has a row; the newest is the
//! bundle as it stands, and all of them are kept, because keys of every version may still be
//! about. A version that was signed again under another epoch (`renew.rs`) has its row replaced,
//! and the first issue gets one: what the epoch before it signed is believed by nobody.

use rusqlite::{Connection, OptionalExtension, Row as SqlRow, params};

use super::authorization_body;
use super::bundle_body::Body;
use super::error::number;
use super::load::rows;
use super::packs::{self, Found};
use super::read::signed_bundle;
use crate::domain::authorization::Amended;
use crate::domain::{BundleId, UnixTime};
use crate::store::{SignedBundle, StoreError};

/// Every version of a bundle, oldest first.
pub(super) fn versions(
    connection: &Connection,
    id: &BundleId,
) -> Result<Vec<SignedBundle>, StoreError> {
    let snapshot = connection.unchecked_transaction()?;
    let Some(first) = packs::find(&snapshot, id)? else {
        return Ok(Vec::new());
    };
    let body = Body::decode(&first.body)?;
    let versions = versions_of(&snapshot, first, &body)?;
    versions
        .iter()
        .map(|version| signed_bundle(&snapshot, version))
        .collect()
}

/// Every version of the bundle that was found in its pack, oldest first.
pub(super) fn versions_of(
    connection: &Connection,
    first: Found,
    body: &Body,
) -> Result<Vec<Found>, StoreError> {
    let place = first.place;
    let mut versions = vec![first];
    let sql = "SELECT fleet, epoch, format, body, version FROM reissues
               WHERE authorization = ?1 ORDER BY version";
    let authorization = body.authorization();
    rows(connection, sql, params![authorization.bytes()], |row| {
        // The first issue, signed again, stands for what is in the pack.
        if row.get::<_, u32>(4)? == body.version {
            versions.clear();
        }
        versions.push(found(row, place)?);
        Ok(())
    })?;
    Ok(versions)
}

/// The newest version of a bundle that was found in its pack.
pub(super) fn newest(connection: &Connection, first: Found) -> Result<Found, StoreError> {
    let authorization = Body::decode(&first.body)?.authorization();
    let mut statement = connection.prepare_cached(
        "SELECT fleet, epoch, format, body FROM reissues WHERE authorization = ?1
         ORDER BY version DESC LIMIT 1",
    )?;
    let mut rows = statement.query(params![authorization.bytes()])?;
    match rows.next()? {
        Some(row) => found(row, first.place),
        None => Ok(first),
    }
}

pub(super) fn found(row: &SqlRow<'_>, place: packs::Place) -> Result<Found, StoreError> {
    packs::check_format(row.get(2)?)?;
    Ok(Found {
        place,
        fleet: row.get(0)?,
        epoch: row.get(1)?,
        body: row.get(3)?,
    })
}

/// Whether an order's authorization has a row of its own: it was amended.
pub(super) fn has_row(connection: &Connection, id: &BundleId) -> Result<bool, StoreError> {
    Ok(connection
        .prepare_cached("SELECT 1 FROM authorizations WHERE id = ?1")?
        .exists(params![id.bytes()])?)
}

/// When an order is over: as its row says, where it has one.
pub(super) fn order_ends(connection: &Connection, body: &Body) -> Result<UnixTime, StoreError> {
    let amended: Option<i64> = connection
        .prepare_cached("SELECT not_after FROM authorizations WHERE id = ?1")?
        .query_row(params![body.id.bytes()], |row| row.get(0))
        .optional()?;
    amended.map_or(Ok(body.window.not_after), number)
}

/// What amendments have left on an authorization, from two columns of its row.
pub(super) fn amended(
    row: &SqlRow<'_>,
    revision: usize,
    code_set: usize,
) -> Result<Option<Amended>, StoreError> {
    let Some(revision) = row.get::<_, Option<i64>>(revision)? else {
        return Ok(None);
    };
    let code_set = match row.get::<_, Option<Vec<u8>>>(code_set)? {
        Some(bytes) => Some(authorization_body::read_code_set(&bytes)?),
        None => None,
    };
    Ok(Some(Amended {
        revision: number(revision)?,
        code_set,
    }))
}
