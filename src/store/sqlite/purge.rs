//! The end of what has long been over: floor 2, `store/sqlite`.
//!
//! The file does not shrink: what is freed is written to again. Contexts stay; there are few.

use std::collections::{BTreeMap, HashSet};

use rusqlite::{Connection, params};

use super::authorize::scope_column;
use super::bundle_body::{Basis, Body};
use super::error::column;
use super::load::{blob, rows};
use super::packs::{self, Place, span};
use super::writer::Transaction;
use super::{calls, reissues, statuses};
use crate::domain::UnixTime;
use crate::store::{Applied, StoreError};

/// An authorization to purge: its id, its bundle, its request (scope and digest).
type Over = (Vec<u8>, Option<Place>, Option<[u8; 64]>);

/// Bundles to take out of their packs, and versions that were issued again and are gone already.
#[derive(Default)]
struct Gone {
    places: Vec<Place>,
    /// By the number of the epoch that signed them.
    versions: BTreeMap<i64, u64>,
    /// First issues that were signed again: what stands in their packs was gone before.
    again: HashSet<Place>,
}

impl Gone {
    /// Deletes what was issued again on an authorization.
    fn reissues(
        &mut self,
        connection: &Connection,
        authorization: &[u8],
        first: Option<Place>,
    ) -> Result<(), StoreError> {
        let mut versions = Vec::new();
        let sql = "DELETE FROM reissues WHERE authorization = ?1 RETURNING epoch, version";
        rows(connection, sql, params![authorization], |row| {
            versions.push(row.get::<_, u32>(1)?);
            *self.versions.entry(row.get(0)?).or_default() += 1;
            Ok(())
        })?;
        let Some(place) = first.filter(|_| !versions.is_empty()) else {
            return Ok(());
        };
        if let Some(found) = packs::at(connection, place)?
            && versions.contains(&Body::decode(&found.body)?.version)
        {
            self.again.insert(place);
        }
        Ok(())
    }

    /// Takes the bundles out of their packs, and counts all that is gone.
    fn end(self, connection: &Connection, all: &mut BTreeMap<i64, u64>) -> Result<(), StoreError> {
        for (epoch, count) in self.versions {
            *all.entry(epoch).or_default() += count;
        }
        packs::remove(connection, &self.places, &mut |place, epoch| {
            *all.entry(epoch).or_default() += u64::from(!self.again.contains(&place));
        })
    }
}

/// Whatever was over before `before`, which itself is not before it.
pub(super) fn purge(
    transaction: &mut Transaction<'_>,
    before: UnixTime,
    at_most: u32,
) -> Result<Applied, StoreError> {
    transaction.flush()?;
    let connection = transaction.connection;
    connection
        .prepare_cached("DELETE FROM tokens WHERE expires_at < ?1 OR revoked_at < ?1")?
        .execute(params![column(before)?])?;
    let mut gone = Gone::default();
    let authorizations = purge_authorizations(connection, before, at_most, &mut gone)?;
    let orders = over_orders(connection, before, at_most - authorizations, &mut gone)?;
    gone.end(connection, &mut transaction.gone)?;
    if authorizations > 0 {
        transaction.segments.forget_empty(connection)?;
    }
    statuses::purge(connection, before)?;
    calls::purge(connection, before)?;
    transaction.calls.forget();
    Ok(Applied::Purged(authorizations + orders))
}

/// Deletes authorizations, and adds where their bundles are.
fn purge_authorizations(
    connection: &Connection,
    before: UnixTime,
    at_most: u32,
    gone: &mut Gone,
) -> Result<u32, StoreError> {
    let mut over = connection.prepare_cached(
        "SELECT id, bundle, request FROM authorizations
         WHERE max(not_after, redeem_by) >> 16 <= ?1 >> 16 AND max(not_after, redeem_by) < ?1
         LIMIT ?2",
    )?;
    let mut over = over
        .query_map(params![column(before)?, at_most], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?
        .collect::<Result<Vec<Over>, _>>()?;
    // Neighbours lie in the same pages.
    over.sort_unstable();
    let mut purged = 0;
    for (id, bundle, request) in over {
        gone.places.extend(bundle);
        gone.reissues(connection, &id, bundle)?;
        if let Some((scope, _)) = request
            .as_ref()
            .and_then(|request| request.split_first_chunk::<32>())
        {
            connection
                .prepare_cached("DELETE FROM requests WHERE scope = ?1 AND authorization = ?2")?
                .execute(params![scope_column(scope), id])?;
        }
        connection
            .prepare_cached("DELETE FROM commands WHERE authorization = ?1")?
            .execute(params![id])?;
        for sql in [
            "DELETE FROM amendments WHERE authorization = ?1",
            "DELETE FROM authorizations WHERE id = ?1",
        ] {
            connection.prepare_cached(sql)?.execute(params![id])?;
        }
        purged += 1;
    }
    Ok(purged)
}

/// Orders looked for in one pack of the index, at least: most packs of a span end together.
const ORDERS_PER_PACK: u32 = 16;

/// Adds where orders are that are over, and counts them.
fn over_orders(
    connection: &Connection,
    before: UnixTime,
    at_most: u32,
    over: &mut Gone,
) -> Result<u32, StoreError> {
    let mut found = 0;
    let mut amended = Vec::new();
    // Orders whose rows have just gone.
    let gone: HashSet<Place> = over.places.iter().copied().collect();
    // Each pack has an order that is over, but for those of the last span.
    let sql = "SELECT number, format, body FROM packs INDEXED BY packs_by_end
               WHERE ends IS NOT NULL AND ends <= ?1 ORDER BY ends LIMIT ?2";
    let packs_max = at_most.div_ceil(ORDERS_PER_PACK);
    rows(connection, sql, params![span(before), packs_max], |row| {
        packs::check_format(row.get(1)?)?;
        for (position, body) in packs::bodies(blob(row, 2)?)?.into_iter().enumerate() {
            let Some(body) = body.map(Body::decode).transpose()? else {
                continue;
            };
            let order = matches!(body.basis, Basis::Order { .. });
            if !order || body.window.not_after >= before || found >= at_most {
                continue;
            }
            let place = packs::place(row.get(0)?, position);
            if gone.contains(&place) {
                continue;
            }
            // Once amended, its authorization has a row, and goes with that.
            if reissues::has_row(connection, &body.id)? {
                amended.push(place);
            } else {
                over.places.push(place);
                over.reissues(connection, body.id.bytes(), Some(place))?;
                found += 1;
            }
        }
        Ok(())
    })?;
    packs::settle_ends(connection, &amended)?;
    Ok(found)
}
