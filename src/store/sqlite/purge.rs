//! The end of what has long been over: floor 2, `store/sqlite`.
//!
//! The file does not shrink: what is freed is written to again. Contexts stay; there are few.

use rusqlite::params;

use super::authorize::scope_column;
use super::error::column;
use super::writer::Transaction;
use crate::domain::UnixTime;
use crate::store::{Applied, StoreError};

/// An authorization to purge: its id, its bundle, its request (scope and digest).
type Over = (Vec<u8>, Option<i64>, Option<[u8; 64]>);

/// Whatever was over before `before`, which itself is not before it.
pub(super) fn purge(
    transaction: &mut Transaction<'_>,
    before: UnixTime,
    at_most: u32,
) -> Result<Applied, StoreError> {
    let connection = transaction.connection;
    let before = column(before)?;
    connection
        .prepare_cached("DELETE FROM tokens WHERE expires_at < ?1 OR revoked_at < ?1")?
        .execute(params![before])?;
    let mut over = connection.prepare_cached(
        "SELECT id, bundle, request FROM authorizations
         WHERE max(not_after, redeem_by) >> 16 <= ?1 >> 16 AND max(not_after, redeem_by) < ?1
         LIMIT ?2",
    )?;
    let mut over = over
        .query_map(params![before, at_most], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?
        .collect::<Result<Vec<Over>, _>>()?;
    // Neighbours lie in the same pages.
    over.sort_unstable();
    let mut purged = 0;
    for (id, bundle, request) in over {
        if let Some(bundle) = bundle {
            connection
                .prepare_cached("DELETE FROM bundles WHERE number = ?1")?
                .execute(params![bundle])?;
        }
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
        connection
            .prepare_cached("DELETE FROM authorizations WHERE id = ?1")?
            .execute(params![id])?;
        purged += 1;
    }
    if purged > 0 {
        transaction.segments.forget_empty(connection)?;
    }
    Ok(Applied::Purged(purged))
}
