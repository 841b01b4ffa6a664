//! Signatures counted: floor 2, `store/sqlite`.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};

use super::error::{column, number};
use super::export::Each;
use super::load::rows;
use crate::domain::EpochId;
use crate::store::whole::Entry;
use crate::store::{Made, Recorded, SignatureCount, StoreError};

/// Adds what a transaction brings to the counts.
pub(super) fn put(connection: &Connection, counts: &[SignatureCount]) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO signatures (epoch, process, signed, synced, tried, given_up, failed,
         in_flight_max, keys, trees, lists, versions, gone, ended)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)
         ON CONFLICT DO UPDATE SET signed = excluded.signed, synced = excluded.synced,
         tried = excluded.tried, given_up = excluded.given_up, failed = excluded.failed,
         in_flight_max = excluded.in_flight_max, keys = keys + excluded.keys,
         trees = trees + excluded.trees, lists = lists + excluded.lists,
         versions = versions + excluded.versions, gone = gone + excluded.gone,
         ended = excluded.ended",
    )?;
    for count in counts {
        let SignatureCount {
            epoch,
            process,
            made,
            recorded,
            ended,
        } = count;
        statement.execute(params![
            epoch.0,
            process,
            column(made.signed)?,
            column(made.synced)?,
            column(made.tried)?,
            column(made.given_up)?,
            column(made.failed)?,
            column(made.in_flight_max)?,
            column(recorded.keys)?,
            column(recorded.trees)?,
            column(recorded.lists)?,
            column(recorded.versions)?,
            column(recorded.gone)?,
            ended,
        ])?;
    }
    Ok(())
}

/// What went, by the numbers of epochs, by their names.
pub(super) fn named(
    connection: &Connection,
    gone: &BTreeMap<i64, u64>,
) -> Result<BTreeMap<EpochId, u64>, StoreError> {
    let mut named = BTreeMap::new();
    let mut statement = connection.prepare_cached("SELECT id FROM epochs WHERE number = ?1")?;
    for (epoch, count) in gone {
        let id = statement.query_row(params![epoch], |row| row.get(0))?;
        named.insert(EpochId(id), *count);
    }
    Ok(named)
}

/// Gives all counts out.
pub(super) fn all(connection: &Connection, each: Each<'_>) -> Result<(), StoreError> {
    let sql = "SELECT epoch, process, signed, synced, tried, given_up, failed, in_flight_max, keys,
               trees, lists, versions, gone, ended FROM signatures ORDER BY epoch, process";
    rows(connection, sql, [], |row| {
        let value = |at| number(row.get(at)?);
        each(Entry::Signatures(SignatureCount {
            epoch: EpochId(row.get(0)?),
            process: row.get(1)?,
            made: Made {
                signed: value(2)?,
                synced: value(3)?,
                tried: value(4)?,
                given_up: value(5)?,
                failed: value(6)?,
                in_flight_max: value(7)?,
            },
            recorded: Recorded {
                keys: value(8)?,
                trees: value(9)?,
                lists: value(10)?,
                versions: value(11)?,
                gone: value(12)?,
            },
            ended: row.get(13)?,
        }))
    })
}
