//! What fleets rule: floor 2, `store/sqlite`.

use rusqlite::{Connection, Params, params};

use super::error::{column, number};
use super::load::{Names, rows, text};
use super::registry::fleet_number;
use crate::store::encoding::rulings::{act, name, read_name};
use crate::store::{Applied, Frozen, QuotaDay, Row, Ruled, Ruling, Rulings, StoreError};

/// Writes a ruling, if what it needs stands, and what is kept of the decision.
pub(super) fn rule(connection: &Connection, ruled: &Rulings) -> Result<Applied, StoreError> {
    let Some(fleet) = fleet_number(connection, &ruled.fleet)? else {
        return Ok(Applied::Stale);
    };
    if !write(connection, fleet, ruled)? {
        return Ok(Applied::Stale);
    }
    let Some((act, object)) = act(&ruled.what) else {
        return Ok(Applied::Done);
    };
    let sql = "INSERT INTO acts (fleet, at, by, act, object, why) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let at = column(ruled.at)?;
    changed(
        connection,
        sql,
        params![fleet, at, ruled.by, act, object, ruled.why],
    )?;
    Ok(Applied::Done)
}

fn write(connection: &Connection, fleet: i64, ruled: &Rulings) -> Result<bool, StoreError> {
    match &ruled.what {
        Ruling::Rules(version, body) => {
            let sql = "INSERT INTO rules (fleet, version, body) SELECT ?1, ?2, ?3 WHERE ?2 = 1 +
                       (SELECT coalesce(max(version), 0) FROM rules WHERE fleet = ?1)";
            changed(connection, sql, params![fleet, version, body])
        }
        Ruling::Freeze(vehicle) => {
            let sql = "INSERT INTO brakes (fleet, vehicle, since, by, why)
                       VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING";
            let (vehicle, since) = (name(vehicle.as_ref()), column(ruled.at)?);
            let values = params![fleet, vehicle, since, ruled.by, ruled.why];
            changed(connection, sql, values)
        }
        Ruling::Release(vehicle) => {
            let sql = "DELETE FROM brakes WHERE fleet = ?1 AND vehicle = ?2";
            changed(connection, sql, params![fleet, name(vehicle.as_ref())])
        }
        Ruling::Day(day, base) => {
            let sql = "INSERT INTO quotas (fleet, day, base, approved) VALUES (?1, ?2, ?3, 0)
                       ON CONFLICT DO UPDATE SET day = ?2, base = ?3, approved = 0 WHERE day < ?2";
            changed(
                connection,
                sql,
                params![fleet, column(*day)?, column(*base)?],
            )
        }
        Ruling::Approve(day, base, keys) => {
            let sql = "INSERT INTO quotas (fleet, day, base, approved) VALUES (?1, ?2, ?3, ?4)
                       ON CONFLICT DO UPDATE SET base = iif(day = ?2, base, ?3), day = ?2,
                       approved = ?4 WHERE day <= ?2";
            let (day, base, keys) = (column(*day)?, column(*base)?, column(*keys)?);
            changed(connection, sql, params![fleet, day, base, keys])
        }
    }
}

fn changed(connection: &Connection, sql: &str, values: impl Params) -> Result<bool, StoreError> {
    Ok(connection.prepare_cached(sql)?.execute(values)? > 0)
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
    })?;
    let frozen = "SELECT fleet, vehicle, since, by, why FROM brakes ORDER BY fleet, vehicle";
    rows(connection, frozen, [], |row| {
        let vehicle = read_name(text(row, 1)?)?;
        let frozen = Frozen {
            since: number(row.get(2)?)?,
            by: row.get(3)?,
            why: row.get(4)?,
        };
        let ruled = Ruled::Frozen(vehicle, frozen);
        each(Row::Ruled(names.fleet(row.get(0)?)?, ruled));
        Ok(())
    })?;
    let days = "SELECT fleet, day, base, approved FROM quotas ORDER BY fleet";
    rows(connection, days, [], |row| {
        let day = QuotaDay {
            day: number(row.get(1)?)?,
            base: number(row.get(2)?)?,
            approved: number(row.get(3)?)?,
        };
        each(Row::Ruled(names.fleet(row.get(0)?)?, Ruled::Day(day)));
        Ok(())
    })
}
