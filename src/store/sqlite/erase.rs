//! The end of what is kept of an identity: floor 2, `store/sqlite`.
//!
//! Bundles name their identity by the number of its row, so the row stays, under another name.

use rusqlite::params;

use super::registry::{changed, fleet_number};
use super::writer::Transaction;
use super::{acts, words};
use crate::domain::Status;
use crate::store::{Applied, Erasure, StoreError, encoding};

pub(super) fn erase(
    transaction: &mut Transaction<'_>,
    erasure: &Erasure,
) -> Result<Applied, StoreError> {
    let connection = transaction.connection;
    let Some(fleet) = fleet_number(connection, &erasure.fleet)? else {
        return Ok(Applied::Stale);
    };
    let sql = "UPDATE identities SET id = ?3, status = ?4, licences = ?5, hold = NULL
               WHERE fleet = ?1 AND id = ?2";
    let values = params![
        fleet,
        erasure.id.as_str(),
        erasure.becomes.as_str(),
        words::status(Status::Suspended),
        encoding::registry::licences(&[])?,
    ];
    if !changed(connection, sql, values)? {
        return Ok(Applied::Stale);
    }
    acts::rename_erased(connection, fleet, erasure)?;
    connection
        .prepare_cached("DELETE FROM terminals WHERE fleet = ?1 AND identity = ?2")?
        .execute(params![fleet, erasure.id.as_str()])?;
    transaction.standings.forget_members(&erasure.fleet);
    Ok(Applied::Done)
}
