//! Identities, vehicles and terminals suspended and active again, and the keys that follow: floor
//! 2, `store/sqlite`.

use rusqlite::{Connection, params};

use super::amend::{answer_again, count, keep, may_command};
use super::registry::fleet_number;
use super::writer::Transaction;
use super::{statuses, words};
use crate::domain::change::{Followed, Registered};
use crate::domain::{FleetId, Vehicle};
use crate::store::{Applied, Following, ReliedOn, StoreError, Suspension, encoding};

/// Suspends an identity, a vehicle or a terminal, or makes it active again.
pub(super) fn suspend(
    transaction: &mut Transaction<'_>,
    suspension: &Suspension,
) -> Result<Applied, StoreError> {
    let connection = transaction.connection;
    if let Some(answer) = answer_again(connection, suspension.request.as_ref())? {
        return Ok(answer);
    }
    let Some(fleet) = fleet_number(connection, &suspension.fleet)? else {
        return Ok(Applied::Stale);
    };
    if !may_command(connection, &suspension.fleet, suspension.by.as_ref())? {
        return Ok(Applied::Stale);
    }
    let standings = &mut transaction.standings;
    let (sql, id) = match &suspension.of {
        Registered::Followed(Followed::Identity(id)) => {
            standings.forget_identity(&suspension.fleet, id);
            let sql = "UPDATE identities SET status = ?3 WHERE fleet = ?1 AND id = ?2";
            (sql, id.as_str())
        }
        Registered::Followed(Followed::Vehicle(id)) => {
            standings.forget_vehicle(&suspension.fleet, id);
            let sql = "UPDATE vehicles SET status = ?3 WHERE fleet = ?1 AND id = ?2";
            (sql, id.as_str())
        }
        Registered::Terminal(id) => {
            standings.forget_terminal(&suspension.fleet, id);
            let sql = "UPDATE terminals SET status = ?3 WHERE fleet = ?1 AND id = ?2";
            (sql, id.as_str())
        }
    };
    let status = words::status(suspension.status);
    let changed = connection
        .prepare_cached(sql)?
        .execute(params![fleet, id, status])?;
    if changed != 1 {
        return Ok(Applied::Stale);
    }
    keep(connection, None, suspension.request.as_ref())?;
    Ok(Applied::Done)
}

/// Whether what something was decided on is so.
pub(super) fn meets(
    transaction: &mut Transaction<'_>,
    fleet: &FleetId,
    relies_on: &ReliedOn,
) -> Result<bool, StoreError> {
    let connection = transaction.connection;
    if let Some(version) = relies_on.rules
        && transaction.standings.rules(connection, fleet)? != version
    {
        return Ok(false);
    }
    if let Some(vehicle) = &relies_on.vehicle
        && !is_of_its_model(connection, vehicle)?
    {
        return Ok(false);
    }
    let Some(identity) = relies_on.identity.as_deref() else {
        return Ok(true);
    };
    Ok(connection
        .prepare_cached(
            "SELECT 1 FROM fleets f CROSS JOIN identities i ON i.fleet = f.number
             WHERE f.id = ?1 AND i.id = ?2 AND i.hold IS ?3 AND i.licences = ?4",
        )?
        .exists(params![
            identity.fleet.bytes(),
            identity.id.as_str(),
            identity.hold.map(words::hold),
            encoding::registry::licences(&identity.licences)?,
        ])?)
}

/// Whether a vehicle's model is what it is said to be.
fn is_of_its_model(connection: &Connection, vehicle: &Vehicle) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM fleets f CROSS JOIN vehicles v ON v.fleet = f.number
               WHERE f.id = ?1 AND v.id = ?2 AND v.model = ?3";
    let values = params![vehicle.fleet.bytes(), vehicle.id.as_str(), vehicle.model];
    Ok(connection.prepare_cached(sql)?.exists(values)?)
}

/// Marks keys that follow an identity or a vehicle, if that stands so.
pub(super) fn follow(
    transaction: &mut Transaction<'_>,
    following: &Following,
) -> Result<Applied, StoreError> {
    let connection = transaction.connection;
    let Some(fleet) = fleet_number(connection, &following.fleet)? else {
        return Ok(Applied::Stale);
    };
    let (sql, id) = match &following.of {
        Followed::Identity(id) => {
            let sql = "SELECT 1 FROM identities WHERE fleet = ?1 AND id = ?2 AND status = ?3";
            (sql, id.as_str())
        }
        Followed::Vehicle(id) => {
            let sql = "SELECT 1 FROM vehicles WHERE fleet = ?1 AND id = ?2 AND status = ?3";
            (sql, id.as_str())
        }
    };
    let status = words::status(following.status);
    let stands = connection
        .prepare_cached(sql)?
        .exists(params![fleet, id, status])?;
    if !stands {
        return Ok(Applied::Stale);
    }
    if !meets(transaction, &following.fleet, &following.relies_on)? {
        return Ok(Applied::Stale);
    }
    let revision = count(connection)?;
    statuses::mark(connection, &following.marks)?;
    Ok(Applied::Amended(revision))
}
