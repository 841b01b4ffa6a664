//! Everything the book is made of, row by row: floor 2, `store/sqlite`. The registry's rows are in
//! `registry_rows`.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use rusqlite::{Connection, Params, Row as SqlRow};

use super::error::corrupt;
use super::{fences, read, registry_rows, rulings, statuses};
use crate::domain::{Author, Authorization, FleetId, IdentityId, Refusal, TerminalId, VehicleId};
use crate::store::{Row, StoreError};

/// Ids by their numbers, as far as later rows refer to them, and names that later rows repeat.
#[derive(Default)]
pub(super) struct Names {
    pub(super) fleets: HashMap<i64, FleetId>,
    pub(super) vehicles: HashMap<i64, VehicleId>,
    pub(super) identities: HashSet<IdentityId>,
    pub(super) terminals: HashSet<TerminalId>,
}

/// Hands every row to `each`, all of them as of one commit.
pub(super) fn load(connection: &Connection, each: &mut dyn FnMut(Row)) -> Result<(), StoreError> {
    let snapshot = connection.unchecked_transaction()?;
    let mut names = Names::default();
    settings(&snapshot, each)?;
    registry_rows::fleets(&snapshot, &mut names, each)?;
    registry_rows::functions(&snapshot, &names, each)?;
    registry_rows::vehicles(&snapshot, &mut names, each)?;
    registry_rows::identities(&snapshot, &mut names, each)?;
    registry_rows::terminals(&snapshot, &mut names, each)?;
    registry_rows::tokens(&snapshot, &names, each)?;
    registry_rows::epochs(&snapshot, each)?;
    let newest = "SELECT version, body FROM trust_lists ORDER BY version DESC LIMIT 1";
    rows(&snapshot, newest, [], |row| {
        each(Row::TrustList(
            row.get(0)?,
            row.get::<_, Vec<u8>>(1)?.into(),
        ));
        Ok(())
    })?;
    registry_rows::records(&snapshot, each)?;
    rows(&snapshot, read::ALL_AUTHORIZATIONS, [], |row| {
        let mut authorization = read::authorization(row, &names)?;
        names.share(&mut authorization);
        each(Row::Authorization(authorization));
        Ok(())
    })?;
    statuses::load(&snapshot, &names, each)?;
    rulings::load(&snapshot, &names, each)?;
    fences::restores(&snapshot, each)
}

impl Names {
    pub(super) fn fleet(&self, number: i64) -> Result<FleetId, StoreError> {
        self.fleets
            .get(&number)
            .copied()
            .ok_or_else(|| corrupt("a row of no fleet"))
    }

    pub(super) fn vehicle(&self, number: i64) -> Result<VehicleId, StoreError> {
        self.vehicles
            .get(&number)
            .cloned()
            .ok_or_else(|| corrupt("an authorization of no vehicle"))
    }

    /// Puts the registry's copies of names in place of the authorization's own: there may be
    /// millions of them, held for long.
    fn share(&self, authorization: &mut Authorization) {
        if let Author::Terminal(id) = &mut authorization.author {
            share(&self.terminals, id);
        }
        if let Some(restrictions) = &mut authorization.restrictions {
            let recipient = &mut restrictions.recipient;
            recipient
                .identity
                .iter_mut()
                .for_each(|id| share(&self.identities, id));
            recipient
                .terminal
                .iter_mut()
                .for_each(|id| share(&self.terminals, id));
        }
    }

    /// Looks the vehicle up, where it is not known yet.
    pub(super) fn learn_vehicle(
        &mut self,
        connection: &Connection,
        number: i64,
    ) -> Result<(), StoreError> {
        if self.vehicles.contains_key(&number) {
            return Ok(());
        }
        rows(
            connection,
            "SELECT id FROM vehicles WHERE number = ?1",
            [number],
            |row| {
                self.vehicles
                    .insert(number, named(VehicleId::parse(text(row, 0)?))?);
                Ok(())
            },
        )
    }
}

fn share<T: Clone + Eq + Hash>(known: &HashSet<T>, name: &mut T) {
    if let Some(known) = known.get(name) {
        name.clone_from(known);
    }
}

/// Calls `each` for each row `sql` finds.
pub(super) fn rows(
    connection: &Connection,
    sql: &str,
    values: impl Params,
    mut each: impl FnMut(&SqlRow<'_>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(values)?;
    while let Some(row) = rows.next()? {
        each(row)?;
    }
    Ok(())
}

/// A column's text.
pub(super) fn text<'a>(row: &'a SqlRow<'_>, column: usize) -> Result<&'a str, StoreError> {
    row.get_ref(column)?
        .as_str()
        .map_err(|_| corrupt("a name that is not text"))
}

/// A column's bytes.
pub(super) fn blob<'a>(row: &'a SqlRow<'_>, column: usize) -> Result<&'a [u8], StoreError> {
    row.get_ref(column)?
        .as_blob()
        .map_err(|_| corrupt("a column that is not bytes"))
}

/// A column's text as a name; what the alphabet forbids was never written.
pub(super) fn named<T>(name: Result<T, Refusal>) -> Result<T, StoreError> {
    name.map_err(|_| corrupt("a name outside its alphabet"))
}

fn settings(connection: &Connection, each: &mut dyn FnMut(Row)) -> Result<(), StoreError> {
    rows(
        connection,
        "SELECT name, value FROM settings ORDER BY name",
        [],
        |row| {
            each(Row::Setting(row.get(0)?, row.get(1)?));
            Ok(())
        },
    )
}
