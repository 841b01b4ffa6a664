//! What those who administer fleets have done: floor 2, `store/postgres`.
//!
//! An act's number is its time and a random number, so that many can be written at once without
//! waiting for each other; where its fleet is held alone it is above every one before.

use tokio_postgres::Row as SqlRow;
use uuid::Uuid;

use super::error::Trouble;
use super::export;
use super::ground::Ground;
use super::import::all;
use super::rows::{get, id, number, text};
use super::session::{Session, values};
use super::write::{Writing, each, try_each, uuid};
use crate::domain::FleetId;
use crate::store::encoding::{column, corrupt};
use crate::store::whole::Entry;
use crate::store::{Act, ActFilter, Acts, Cursor, StoreError};

/// Bits of a number below the seconds.
const RANDOM_BITS: u32 = 30;

/// What gives out every act.
pub(super) const ALL: (&str, export::Read) = (
    "SELECT fleet, at, by, act, object, why,
     row_number() OVER (PARTITION BY fleet ORDER BY number) FROM acts ORDER BY fleet, number",
    |row| Ok(Entry::Act(number(row, 6)?, act(row)?)),
);

/// Notes an act that is to be kept.
pub(super) fn keep(ground: &mut Ground, act: &Act) -> Result<(), StoreError> {
    let mut random = [0; 8];
    aws_lc_rs::rand::fill(&mut random)
        .map_err(|_| StoreError::Failed("no random number".into()))?;
    let random = u64::from_be_bytes(random) >> (u64::BITS - RANDOM_BITS);
    let by_time = act
        .at
        .saturating_mul(1 << RANDOM_BITS)
        .saturating_add(random);
    let last = ground.acts.entry(act.fleet).or_default();
    *last = by_time.max(*last + 1);
    ground.changes.acts.push((*last, act.clone()));
    Ok(())
}

/// The acts that `filter` lets through, in the order of their times.
pub(super) async fn read(session: &Session, filter: &ActFilter) -> Result<Acts, Trouble> {
    // Nothing has the number 0.
    let since = (column(filter.since)?, Uuid::nil(), 0);
    let (at, fleet, after) = filter.after.as_ref().map_or(Ok(since), place)?;
    let of = filter.fleet.map(|fleet| Uuid::from_bytes(fleet.0));
    let rows = session
        .query(
            "SELECT fleet, at, by, act, object, why, number FROM acts
             WHERE (at, fleet, number) > ($1, $2, $3) AND ($4::uuid IS NULL OR fleet = $4)
             ORDER BY at, fleet, number LIMIT $5",
            values![at, fleet, after, of, i64::from(filter.limit)],
        )
        .await?;
    let acts: Result<Vec<_>, StoreError> = rows.iter().map(act).collect();
    let last = rows.last().filter(|_| rows.len() >= filter.limit as usize);
    Ok(Acts {
        acts: acts?,
        next: last.map(cursor).transpose()?,
    })
}

fn cursor(row: &SqlRow) -> Result<Cursor, StoreError> {
    let (at, number) = (get::<i64>(row, 1)?, get::<i64>(row, 6)?);
    let bytes = [&at.to_be_bytes()[..], &id(row, 0)?, &number.to_be_bytes()].concat();
    Ok(Cursor(bytes.into()))
}

/// Time, fleet and number of the act that a cursor stands at.
fn place(cursor: &Cursor) -> Result<(i64, Uuid, i64), StoreError> {
    let read = || {
        let (at, rest) = cursor.0.split_first_chunk()?;
        let (fleet, rest) = rest.split_first_chunk()?;
        let number = rest.try_into().ok()?;
        let (at, number) = (i64::from_be_bytes(*at), i64::from_be_bytes(number));
        Some((at, Uuid::from_bytes(*fleet), number))
    };
    read().ok_or_else(|| corrupt("a place among acts that is none"))
}

fn act(row: &SqlRow) -> Result<Act, StoreError> {
    Ok(Act {
        fleet: FleetId(id(row, 0)?),
        at: number(row, 1)?,
        by: text(row, 2)?.into(),
        act: text(row, 3)?.into(),
        object: text(row, 4)?.into(),
        why: get(row, 5)?,
    })
}

impl<'a> Writing<'a> {
    /// Acts.
    pub(super) fn acts(&mut self, ground: &'a Ground) -> Result<(), StoreError> {
        let acts = ground.changes.acts.iter();
        self.put_acts(acts.map(|(number, act)| (*number, act)).collect())
    }

    /// Those that another store has given out.
    pub(super) fn take_acts(&mut self, entries: &'a [Entry]) -> Result<(), StoreError> {
        self.put_acts(all!(entries, Entry::Act(number, act) => (*number, act)))
    }

    fn put_acts(&mut self, acts: Vec<(u64, &'a Act)>) -> Result<(), StoreError> {
        if acts.is_empty() {
            return Ok(());
        }
        self.put(
            "INSERT INTO acts (fleet, number, at, by, act, object, why)
             SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::text[], $5::text[],
             $6::text[], $7::text[])",
            vec![
                each(&acts, |(_, it)| uuid(&it.fleet.0)),
                try_each(&acts, |(number, _)| column(*number))?,
                try_each(&acts, |(_, it)| column(it.at))?,
                each(&acts, |(_, it)| it.by.as_str()),
                each(&acts, |(_, it)| it.act.as_str()),
                each(&acts, |(_, it)| it.object.as_str()),
                each(&acts, |(_, it)| it.why.as_deref()),
            ],
        );
        Ok(())
    }
}
