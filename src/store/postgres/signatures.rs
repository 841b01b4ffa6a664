//! Signatures counted: floor 2, `store/postgres`. Every process has rows of its own, so nobody waits
//! for another because of them.

use super::export;
use super::import::all;
use super::rows::{bytes, get, id, number};
use super::session::Ask;
use super::write::{Writing, each, try_each, uuid};
use crate::domain::EpochId;
use crate::store::encoding::column;
use crate::store::whole::Entry;
use crate::store::{Made, Recorded, SignatureCount, StoreError};

/// What gives out every count.
pub(super) const ALL: (&str, export::Read) = (
    "SELECT epoch, process, signed, synced, tried, given_up, failed, in_flight_max, keys, trees,
     lists, versions, gone, ended FROM signatures ORDER BY epoch, process",
    |row| {
        Ok(Entry::Signatures(SignatureCount {
            epoch: EpochId(bytes(row, 0)?),
            process: id(row, 1)?,
            made: Made {
                signed: number(row, 2)?,
                synced: number(row, 3)?,
                tried: number(row, 4)?,
                given_up: number(row, 5)?,
                failed: number(row, 6)?,
                in_flight_max: number(row, 7)?,
            },
            recorded: Recorded {
                keys: number(row, 8)?,
                trees: number(row, 9)?,
                lists: number(row, 10)?,
                versions: number(row, 11)?,
                gone: number(row, 12)?,
            },
            ended: get(row, 13)?,
        }))
    },
);

/// What adds what a transaction brings to the counts.
pub(super) fn put<'a>(rows: &[SignatureCount]) -> Result<Ask<'a>, StoreError> {
    Ok(Ask::Query(
        "INSERT INTO signatures AS s (epoch, process, signed, synced, tried, given_up, failed,
         in_flight_max, keys, trees, lists, versions, gone, ended)
         SELECT * FROM unnest($1::bytea[], $2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[],
         $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[],
         $12::bigint[], $13::bigint[], $14::boolean[])
         ON CONFLICT (epoch, process) DO UPDATE SET signed = excluded.signed,
         synced = excluded.synced, tried = excluded.tried, given_up = excluded.given_up,
         failed = excluded.failed, in_flight_max = excluded.in_flight_max,
         keys = s.keys + excluded.keys, trees = s.trees + excluded.trees,
         lists = s.lists + excluded.lists, versions = s.versions + excluded.versions,
         gone = s.gone + excluded.gone, ended = excluded.ended",
        vec![
            each(rows, |it| it.epoch.0.to_vec()),
            each(rows, |it| uuid(&it.process)),
            try_each(rows, |it| column(it.made.signed))?,
            try_each(rows, |it| column(it.made.synced))?,
            try_each(rows, |it| column(it.made.tried))?,
            try_each(rows, |it| column(it.made.given_up))?,
            try_each(rows, |it| column(it.made.failed))?,
            try_each(rows, |it| column(it.made.in_flight_max))?,
            try_each(rows, |it| column(it.recorded.keys))?,
            try_each(rows, |it| column(it.recorded.trees))?,
            try_each(rows, |it| column(it.recorded.lists))?,
            try_each(rows, |it| column(it.recorded.versions))?,
            try_each(rows, |it| column(it.recorded.gone))?,
            each(rows, |it| it.ended),
        ],
    ))
}

impl Writing<'_> {
    /// Takes in what another store has counted.
    pub(super) fn take_signatures(&mut self, entries: &[Entry]) -> Result<(), StoreError> {
        let rows = all!(entries, Entry::Signatures(count) => *count);
        if !rows.is_empty() {
            self.0.push(put(&rows)?);
        }
        Ok(())
    }
}
