//! What fleets rule: floor 2, `store/sqlite`.

use rusqlite::{Connection, params};

use super::error::column;
use super::load::{Names, rows, text};
use super::registry::fleet_number;
use crate::store::{Applied, Row, Ruled, Ruling, Rulings, StoreError};

/// Writes a ruling, if what it needs stands.
pub(super) fn rule(connection: &Connection, ruled: &Rulings) -> Result<Applied, StoreError> {
    let Some(fleet) = fleet_number(connection, &ruled.fleet)? else {
        return Ok(Applied::Stale);
    };
    let (act, object, done) = match &ruled.what {
        Ruling::Rules(version, body) => {
            let sql = "INSERT INTO rules (fleet, version, body) SELECT ?1, ?2, ?3 WHERE ?2 = 1 +
                       (SELECT coalesce(max(version), 0) FROM rules WHERE fleet = ?1)";
            let done = connection
                .prepare_cached(sql)?
                .execute(params![fleet, version, body])?;
            ("rules", version.to_string(), done)
        }
    };
    if done == 0 {
        return Ok(Applied::Stale);
    }
    connection
        .prepare_cached(
            "INSERT INTO acts (fleet, at, by, act, object, why) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            fleet,
            column(ruled.at)?,
            ruled.by,
            act,
            object,
            ruled.why
        ])?;
    Ok(Applied::Done)
}

/// Hands on what stands.
pub(super) fn load(
    connection: &Connection,
    names: &Names,
    each: &mut dyn FnMut(Row),
) -> Result<(), StoreError> {
    let newest = "SELECT fleet, version, body FROM rules r WHERE version =
                  (SELECT max(version) FROM rules WHERE fleet = r.fleet) ORDER BY fleet";
    rows(connection, newest, [], |row| {
        let ruled = Ruled::Rules(row.get(1)?, text(row, 2)?.into());
        each(Row::Ruled(names.fleet(row.get(0)?)?, ruled));
        Ok(())
    })
}
