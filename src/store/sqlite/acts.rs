//! What those who administer fleets have done: floor 2, `store/sqlite`.

use rusqlite::{Connection, named_params, params};

use super::error::{column, corrupt, number};
use super::export::Each;
use super::load::{Names, rows};
use super::registry::changed;
use crate::domain::FleetId;
use crate::store::encoding::acts::{IDENTITY, TERMINAL};
use crate::store::whole::Entry;
use crate::store::{Act, ActFilter, Acts, Cursor, Erasure, StoreError};

/// Adds an act; `false` where there is no such fleet.
pub(super) fn keep(connection: &Connection, act: &Act) -> Result<bool, StoreError> {
    let Act {
        fleet,
        at,
        by,
        act,
        object,
        why,
    } = act;
    let sql = "INSERT INTO acts (fleet, at, by, act, object, why)
               SELECT number, ?2, ?3, ?4, ?5, ?6 FROM fleets WHERE id = ?1";
    let values = params![fleet.0, column(*at)?, by, act, object, why];
    changed(connection, sql, values)
}

/// Gives the acts about an identity, and about its terminals, to the name that stands for it. Its
/// terminals are still there.
pub(super) fn rename_erased(
    connection: &Connection,
    fleet: i64,
    erasure: &Erasure,
) -> Result<(), StoreError> {
    let sql = "UPDATE acts SET why = NULL, object = iif(object = ?4 || ?2, ?4, ?5) || ?3
               WHERE fleet = ?1 AND (object = ?4 || ?2 OR object IN
               (SELECT ?5 || id FROM terminals WHERE fleet = ?1 AND identity = ?2))";
    let (id, becomes) = (erasure.id.as_str(), erasure.becomes.as_str());
    connection
        .prepare_cached(sql)?
        .execute(params![fleet, id, becomes, IDENTITY, TERMINAL])?;
    Ok(())
}

/// Every act.
pub(super) fn all(
    connection: &Connection,
    names: &Names,
    each: Each<'_>,
) -> Result<(), StoreError> {
    let all = "SELECT fleet, at, by, act, object, why,
               row_number() OVER (PARTITION BY fleet ORDER BY number) FROM acts ORDER BY number";
    rows(connection, all, [], |row| {
        let fleet = names.fleet(row.get(0)?)?;
        each(Entry::Act(number(row.get(6)?)?, act(row, fleet)?))
    })
}

/// The acts that `filter` lets through, in the order of their times.
pub(super) fn read(connection: &Connection, filter: &ActFilter) -> Result<Acts, StoreError> {
    // Nothing has the number 0.
    let since = (column(filter.since)?, 0);
    let (at, after) = filter.after.as_ref().map_or(Ok(since), place)?;
    let mut statement = connection.prepare_cached(
        "SELECT f.id, a.at, a.by, a.act, a.object, a.why, a.number
         FROM acts a INDEXED BY acts_by_time JOIN fleets f ON f.number = a.fleet
         WHERE (a.at, a.number) > (:at, :after) AND (:fleet IS NULL OR f.id = :fleet)
         ORDER BY a.at, a.number LIMIT :limit",
    )?;
    let (fleet, limit) = (filter.fleet.map(|fleet| fleet.0), filter.limit);
    let mut found = statement
        .query(named_params! { ":at": at, ":after": after, ":fleet": fleet, ":limit": limit })?;
    let (mut acts, mut last) = (Vec::new(), None);
    while let Some(row) = found.next()? {
        acts.push(act(row, FleetId(row.get(0)?))?);
        last = Some((row.get::<_, i64>(1)?, row.get::<_, i64>(6)?));
    }
    let next = last.filter(|_| acts.len() >= limit as usize);
    let cursor = |(at, number): (i64, i64)| {
        let bytes = [at.to_be_bytes(), number.to_be_bytes()].concat();
        Cursor(bytes.into())
    };
    Ok(Acts {
        acts,
        next: next.map(cursor),
    })
}

/// Time and number of the act that a cursor stands at.
fn place(cursor: &Cursor) -> Result<(i64, i64), StoreError> {
    let half = |half: &[u8]| half.try_into().map(i64::from_be_bytes);
    let (at, number) = cursor.0.split_at_checked(8).unwrap_or_default();
    match (half(at), half(number)) {
        (Ok(at), Ok(number)) => Ok((at, number)),
        _ => Err(corrupt("a place among acts that is none")),
    }
}

fn act(row: &rusqlite::Row<'_>, fleet: FleetId) -> Result<Act, StoreError> {
    Ok(Act {
        fleet,
        at: number(row.get(1)?)?,
        by: row.get(2)?,
        act: row.get(3)?,
        object: row.get(4)?,
        why: row.get(5)?,
    })
}
