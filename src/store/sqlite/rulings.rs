//! What fleets rule: floor 2, `store/sqlite`.

use rusqlite::{Connection, Params, params};

use super::acts;
use super::error::{column, number};
use super::export::Each;
use super::load::{Names, rows, text};
use super::registry::fleet_number;
use crate::store::encoding::rulings::{act, name, read_name};
use crate::store::whole::Entry;
use crate::store::{Act, Applied, Frozen, QuotaDay, Row, Ruled, Ruling, Rulings, StoreError};

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
    acts::keep(
        connection,
        &Act {
            fleet: ruled.fleet,
            at: ruled.at,
            by: ruled.by.clone(),
            act: act.into(),
            object,
            why: ruled.why.clone(),
        },
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
        Ruling::Followed(from, to) => {
            let sql = "INSERT INTO followed (fleet, version) SELECT ?1, ?3
                       WHERE ?2 = coalesce((SELECT version FROM followed WHERE fleet = ?1), 0)
                       AND ?3 <= (SELECT max(version) FROM rules WHERE fleet = ?1)
                       ON CONFLICT DO UPDATE SET version = ?3";
            changed(connection, sql, params![fleet, from, to])
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
    let followed = "SELECT fleet, version FROM followed ORDER BY fleet";
    rows(connection, followed, [], |row| {
        let ruled = Ruled::Followed(row.get(1)?);
        each(Row::Ruled(names.fleet(row.get(0)?)?, ruled));
        Ok(())
    })?;
    let mut put = |entry| {
        let (fleet, ruled) = match entry {
            Entry::Brake(fleet, vehicle, frozen) => (fleet, Ruled::Frozen(vehicle, frozen)),
            Entry::Quota(fleet, day) => (fleet, Ruled::Day(day)),
            _ => return Ok(()),
        };
        each(Row::Ruled(fleet, ruled));
        Ok(())
    };
    brakes(connection, names, &mut put)?;
    days(connection, names, &mut put)
}

/// Every version of every fleet's rules.
pub(super) fn all_rules(
    connection: &Connection,
    names: &Names,
    each: Each<'_>,
) -> Result<(), StoreError> {
    let all = "SELECT fleet, version, body FROM rules ORDER BY fleet, version";
    rows(connection, all, [], |row| {
        let fleet = names.fleet(row.get(0)?)?;
        each(Entry::Rules(fleet, row.get(1)?, text(row, 2)?.into()))
    })
}

/// What is frozen.
pub(super) fn brakes(
    connection: &Connection,
    names: &Names,
    each: Each<'_>,
) -> Result<(), StoreError> {
    let all = "SELECT fleet, vehicle, since, by, why FROM brakes ORDER BY fleet, vehicle";
    rows(connection, all, [], |row| {
        let frozen = Frozen {
            since: number(row.get(2)?)?,
            by: row.get(3)?,
            why: row.get(4)?,
        };
        let vehicle = read_name(text(row, 1)?)?;
        each(Entry::Brake(names.fleet(row.get(0)?)?, vehicle, frozen))
    })
}

/// Days of quotas.
pub(super) fn days(
    connection: &Connection,
    names: &Names,
    each: Each<'_>,
) -> Result<(), StoreError> {
    let all = "SELECT fleet, day, base, approved FROM quotas ORDER BY fleet";
    rows(connection, all, [], |row| {
        let day = QuotaDay {
            day: number(row.get(1)?)?,
            base: number(row.get(2)?)?,
            approved: number(row.get(3)?)?,
        };
        each(Entry::Quota(names.fleet(row.get(0)?)?, day))
    })
}
