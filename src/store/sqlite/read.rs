//! Questions about bundles and authorizations: floor 2, `store/sqlite`.

use rusqlite::{Connection, OptionalExtension, Row as SqlRow, named_params, params};

use super::bundle_body::{Basis, Body};
use super::error::{column, corrupt, number};
use super::load::{Names, blob, named, rows, text};
use super::packs::{self, Found, Place};
use super::{authorization_body, contexts, orders, registry, reissues, words};
use crate::domain::{
    Authorization, AuthorizationId, AuthorizationState, Bundle, BundleId, EpochId, FleetId,
    IdentityId, VehicleId, Window,
};
use crate::store::{AuthorizationFilter, BundleKey, SignedBundle, StoreError};

/// The columns [`authorization`] reads, in its order.
macro_rules! columns {
    () => {
        "SELECT a.id, a.fleet, a.vehicle, a.version, a.state, a.not_after, a.redeem_by, a.format, a.body, a.bundle, a.revision, a.code_set "
    };
}

/// The conditions of a filter beside the one its index answers.
macro_rules! conditions {
    () => {
        " AND (:id IS NULL OR a.id = :id)
          AND (:state IS NULL OR a.state = :state)
          AND (:expired IS NULL OR a.state <> 0 OR :expired = (min(a.not_after, a.redeem_by) <= :now)) "
    };
}

/// Every authorization, by id.
pub(super) const ALL_AUTHORIZATIONS: &str =
    concat!(columns!(), "FROM authorizations a ORDER BY a.id");

/// A fleet's authorizations, by id.
const OF_FLEET: &str = concat!(
    columns!(),
    "FROM authorizations a INDEXED BY authorizations_by_fleet
     WHERE a.fleet = :of AND a.id > :after",
    conditions!(),
    "ORDER BY a.id LIMIT :limit"
);

/// One authorization of a fleet.
const OF_ID: &str = concat!(
    columns!(),
    "FROM authorizations a WHERE a.id = :id AND a.fleet = :of AND a.id > :after",
    conditions!(),
    "LIMIT :limit"
);

/// A vehicle's authorizations, segment by segment and by id in each, which is by id.
const OF_VEHICLE: &str = concat!(
    columns!(),
    "FROM segments s CROSS JOIN authorizations a INDEXED BY authorizations_by_vehicle
     ON a.segment = s.number AND a.vehicle = :of AND a.id > :after
     WHERE s.number >= (SELECT coalesce(max(number), 0) FROM segments WHERE first <= :after)",
    conditions!(),
    "ORDER BY s.number, a.id LIMIT :limit"
);

/// The bundle of that name.
pub(super) fn bundle(
    connection: &Connection,
    by: BundleKey,
) -> Result<Option<SignedBundle>, StoreError> {
    // One snapshot for the bundle and what it refers to.
    let snapshot = connection.unchecked_transaction()?;
    let found = match by {
        BundleKey::Id(id) => packs::find(&snapshot, &id)?,
        BundleKey::Authorization(id) => by_authorization(&snapshot, &id)?,
    };
    let Some(found) = found else {
        return Ok(None);
    };
    let newest = reissues::newest(&snapshot, found)?;
    signed_bundle(&snapshot, &newest).map(Some)
}

/// An order's authorization has its bundle's id and no row of its own.
fn by_authorization(
    connection: &Connection,
    id: &AuthorizationId,
) -> Result<Option<Found>, StoreError> {
    let place: Option<Option<Place>> = connection
        .prepare_cached("SELECT bundle FROM authorizations WHERE id = ?1")?
        .query_row(params![id.bytes()], |row| row.get(0))
        .optional()?;
    match place {
        Some(Some(place)) => packs::at(connection, place),
        Some(None) => Ok(None),
        None => {
            let found = packs::find(connection, &BundleId(id.0))?;
            let is_order = |found: &Found| match Body::decode(&found.body) {
                Ok(body) => matches!(body.basis, Basis::Order { .. }),
                // Whoever reads it says what is wrong with it.
                Err(_) => true,
            };
            Ok(found.filter(is_order))
        }
    }
}

pub(super) fn signed_bundle(
    connection: &Connection,
    found: &Found,
) -> Result<SignedBundle, StoreError> {
    let body = Body::decode(&found.body)?;
    let subjects = contexts::subjects(connection, body.subjects)?;
    if subjects.len() != body.keys.len() {
        return Err(corrupt("a bundle that does not fit its functions"));
    }
    let (authorization, vehicle) = match &body.basis {
        Basis::Authorization(id) => (*id, redeemed_vehicle(connection, id)?),
        Basis::Order { vehicle, .. } => (AuthorizationId(body.id.0), *vehicle),
    };
    let sql = "SELECT id FROM vehicles WHERE number = ?1";
    let vehicle = by_number(connection, sql, vehicle, |row| {
        named(VehicleId::parse(text(row, 0)?))
    })?;
    let sql = "SELECT id FROM identities WHERE number = ?1";
    let identity = by_number(connection, sql, body.identity, |row| {
        named(IdentityId::parse(text(row, 0)?))
    })?;
    let sql = "SELECT id FROM fleets WHERE number = ?1";
    let fleet = by_number(connection, sql, found.fleet, |row| Ok(FleetId(row.get(0)?)))?;
    let sql = "SELECT id FROM epochs WHERE number = ?1";
    let epoch = by_number(connection, sql, found.epoch, |row| Ok(EpochId(row.get(0)?)))?;
    let bundle = Bundle {
        id: body.id,
        authorization,
        version: body.version,
        fleet,
        vehicle,
        vehicle_epoch: body.vehicle_epoch,
        identity,
        holder: body.holder,
        epoch,
        algorithm: body.algorithm,
        issuer: contexts::issuer(connection, body.issuer)?,
        issued_at: body.issued_at,
        window: body.window,
        region: body.region,
        recurring: body.recurring,
        subjects,
        keys: body.keys,
    };
    Ok(SignedBundle {
        bundle,
        proof: body.proof,
    })
}

/// The authorizations of an identity's bundles.
pub(super) fn held_by(
    connection: &Connection,
    fleet: &FleetId,
    identity: &IdentityId,
) -> Result<Vec<AuthorizationId>, StoreError> {
    let snapshot = connection.unchecked_transaction()?;
    let mut places: Vec<Place> = Vec::new();
    let sql = "WITH RECURSIVE segments (number) AS (
                   SELECT min(segment) FROM bundles_by_identity
                   UNION ALL
                   SELECT (SELECT min(segment) FROM bundles_by_identity WHERE segment > number)
                   FROM segments WHERE number IS NOT NULL)
               SELECT b.bundle FROM segments s
               CROSS JOIN bundles_by_identity b ON b.segment = s.number AND b.identity =
                   (SELECT i.number FROM identities i CROSS JOIN fleets f ON f.number = i.fleet
                    WHERE f.id = ?1 AND i.id = ?2)";
    rows(
        &snapshot,
        sql,
        params![fleet.bytes(), identity.as_str()],
        |row| {
            places.push(row.get(0)?);
            Ok(())
        },
    )?;
    let mut held = Vec::with_capacity(places.len());
    for place in places {
        if let Some(found) = packs::at(&snapshot, place)? {
            held.push(Body::decode(&found.body)?.authorization());
        }
    }
    Ok(held)
}

fn redeemed_vehicle(connection: &Connection, id: &AuthorizationId) -> Result<i64, StoreError> {
    let vehicle = connection
        .prepare_cached("SELECT vehicle FROM authorizations WHERE id = ?1")?
        .query_row(params![id.bytes()], |row| row.get(0))
        .optional()?;
    vehicle.ok_or_else(|| corrupt("a bundle of no authorization"))
}

/// What `sql` finds by a row's number.
fn by_number<T>(
    connection: &Connection,
    sql: &str,
    number: i64,
    read: impl FnOnce(&SqlRow<'_>) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params![number])?;
    let row = rows.next()?;
    read(row.ok_or_else(|| corrupt("a row that refers to none"))?)
}

/// The authorizations that pass `filter`, ascending by id.
pub(super) fn authorizations(
    connection: &Connection,
    filter: &AuthorizationFilter,
) -> Result<Vec<Authorization>, StoreError> {
    let snapshot = connection.unchecked_transaction()?;
    let Some(fleet) = registry::fleet_number(&snapshot, &filter.fleet)? else {
        return Ok(Vec::new());
    };
    let mut names = Names {
        fleets: [(fleet, filter.fleet)].into(),
        ..Names::default()
    };
    let (sql, of) = match (&filter.id, &filter.vehicle) {
        (Some(_), _) => (OF_ID, fleet),
        (None, None) => (OF_FLEET, fleet),
        (None, Some(vehicle)) => {
            let Some(number) = vehicle_number(&snapshot, fleet, vehicle)? else {
                return Ok(Vec::new());
            };
            names.vehicles.insert(number, vehicle.clone());
            (OF_VEHICLE, number)
        }
    };
    let values = named_params! {
        ":of": of,
        ":id": filter.id.as_ref().map(AuthorizationId::bytes),
        ":after": filter.after.as_ref().map_or(&[][..], |id| id.bytes()),
        ":state": filter.state.map(words::state),
        ":expired": filter.expired,
        ":now": column(filter.now)?,
        ":limit": filter.limit,
    };
    let mut found = Vec::new();
    rows(&snapshot, sql, values, |row| {
        names.learn_vehicle(&snapshot, row.get(2)?)?;
        found.push(authorization(row, &names)?);
        Ok(())
    })?;
    // Orders have no rows of their own: their authorizations are what their bundles say.
    if filter
        .state
        .is_none_or(|state| state == AuthorizationState::Redeemed)
    {
        found.extend(orders::authorizations(&snapshot, filter, of, &mut names)?);
        found.sort_by_key(|one| one.id);
        found.truncate(filter.limit as usize);
    }
    Ok(found)
}

/// The authorization of a row with [`columns`].
pub(super) fn authorization(row: &SqlRow<'_>, names: &Names) -> Result<Authorization, StoreError> {
    if row.get::<_, i64>(7)? != authorization_body::FORMAT {
        return Err(corrupt("an authorization of another format"));
    }
    let bytes = blob(row, 8)?;
    let body = authorization_body::decode(bytes)?;
    let mut authorization = Authorization {
        id: AuthorizationId(row.get(0)?),
        fleet: names.fleet(row.get(1)?)?,
        version: row.get(3)?,
        vehicle: names.vehicle(row.get(2)?)?,
        functions: body.functions,
        window: Window {
            not_before: body.not_before,
            not_after: number(row.get(5)?)?,
        },
        redeem_by: number(row.get(6)?)?,
        restrictions: body.restrictions,
        pin: body.pin,
        signing: body.signing,
        state: words::read_state(row.get(4)?)?,
        redeemed: row.get::<_, Option<Place>>(9)?.is_some(),
        created_at: body.created_at,
        author: body.author,
    };
    authorization_body::check(&authorization, bytes)?;
    if let Some(amended) = reissues::amended(row, 10, 11)? {
        authorization.set_amended(Some(amended));
    }
    Ok(authorization)
}

fn vehicle_number(
    connection: &Connection,
    fleet: i64,
    id: &VehicleId,
) -> Result<Option<i64>, StoreError> {
    let number = connection
        .prepare_cached("SELECT number FROM vehicles WHERE fleet = ?1 AND id = ?2")?
        .query_row(params![fleet, id.as_str()], |row| row.get(0))
        .optional()?;
    Ok(number)
}
