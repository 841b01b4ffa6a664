//! Questions about bundles and authorizations: floor 2, `store/sqlite`.

use rusqlite::{Connection, OptionalExtension, Row as SqlRow, named_params, params};

use super::bundle_body::{self, Body};
use super::error::{column, corrupt, number};
use super::load::{Names, blob, named, rows, text};
use super::{authorization_body, contexts, registry, words};
use crate::domain::{
    Authorization, AuthorizationId, Bundle, BundleId, EpochId, FleetId, IdentityId, KeyRecord,
    VehicleId, Window,
};
use crate::store::{AuthorizationFilter, BundleKey, SignedBundle, StoreError};

/// The columns [`authorization`] reads, in its order.
macro_rules! columns {
    () => {
        "SELECT a.id, a.fleet, a.vehicle, a.version, a.state, a.not_after, a.redeem_by, a.format, a.body "
    };
}

/// The conditions of a filter beside the one its index answers.
macro_rules! conditions {
    () => {
        " AND (:state IS NULL OR a.state = :state)
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

/// A vehicle's authorizations, segment by segment and by id in each, which is by id.
const OF_VEHICLE: &str = concat!(
    columns!(),
    "FROM segments s CROSS JOIN authorizations a INDEXED BY authorizations_by_vehicle
     ON a.segment = s.number AND a.vehicle = :of AND a.id > :after
     WHERE s.number >= (SELECT coalesce(max(number), 0) FROM segments WHERE first <= :after)",
    conditions!(),
    "ORDER BY s.number, a.id LIMIT :limit"
);

/// What a bundle's row leaves to others.
macro_rules! bundle_rows {
    ($found:literal) => {
        concat!(
            "SELECT b.id, b.authorization, f.id, v.id, i.id, e.id, b.format, b.body FROM ",
            $found,
            " CROSS JOIN fleets f ON f.number = a.fleet
              CROSS JOIN vehicles v ON v.number = a.vehicle
              CROSS JOIN identities i ON i.number = b.identity
              CROSS JOIN epochs e ON e.number = b.epoch"
        )
    };
}

const BUNDLE_BY_ID: &str = bundle_rows!(
    "(SELECT * FROM bundles WHERE id = ?1) b CROSS JOIN authorizations a ON a.id = b.authorization"
);

const BUNDLE_BY_AUTHORIZATION: &str = bundle_rows!(
    "(SELECT * FROM authorizations WHERE id = ?1) a CROSS JOIN bundles b ON b.number = a.bundle"
);

/// The bundle of that name.
pub(super) fn bundle(
    connection: &Connection,
    by: BundleKey,
) -> Result<Option<SignedBundle>, StoreError> {
    let (sql, id) = match &by {
        BundleKey::Id(id) => (BUNDLE_BY_ID, id.bytes()),
        BundleKey::Authorization(id) => (BUNDLE_BY_AUTHORIZATION, id.bytes()),
    };
    // One snapshot for the bundle and its contexts.
    let snapshot = connection.unchecked_transaction()?;
    let mut statement = snapshot.prepare_cached(sql)?;
    let mut rows = statement.query(params![id])?;
    rows.next()?
        .map(|row| signed_bundle(&snapshot, row))
        .transpose()
}

fn signed_bundle(connection: &Connection, row: &SqlRow<'_>) -> Result<SignedBundle, StoreError> {
    check_format(row.get(6)?, bundle_body::FORMAT)?;
    let body = Body::decode(blob(row, 7)?)?;
    let mut keys = Vec::with_capacity(body.keys.len());
    for key in &body.keys {
        let subject = contexts::subject(connection, key.subject)?;
        keys.push(KeyRecord {
            function: subject.function,
            name: subject.name,
            max_uses: key.max_uses,
            status_uri: subject.status_uri,
            status_index: key.status_index,
        });
    }
    let bundle = Bundle {
        id: BundleId(row.get(0)?),
        authorization: AuthorizationId(row.get(1)?),
        version: body.version,
        fleet: FleetId(row.get(2)?),
        vehicle: named(VehicleId::parse(text(row, 3)?))?,
        vehicle_epoch: body.vehicle_epoch,
        identity: named(IdentityId::parse(text(row, 4)?))?,
        holder: body.holder,
        thumbprint: body.holder.thumbprint(),
        epoch: EpochId(row.get(5)?),
        algorithm: body.algorithm,
        issuer: contexts::issuer(connection, body.issuer)?,
        issued_at: body.issued_at,
        window: body.window,
        region: body.region,
        recurring: body.recurring,
        keys,
    };
    Ok(SignedBundle {
        bundle,
        signatures: body.signatures,
    })
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
    let (sql, of) = match &filter.vehicle {
        None => (OF_FLEET, fleet),
        Some(vehicle) => {
            let Some(number) = vehicle_number(&snapshot, fleet, vehicle)? else {
                return Ok(Vec::new());
            };
            names.vehicles.insert(number, vehicle.clone());
            (OF_VEHICLE, number)
        }
    };
    let values = named_params! {
        ":of": of,
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
    Ok(found)
}

/// The authorization of a row with [`columns`].
pub(super) fn authorization(row: &SqlRow<'_>, names: &Names) -> Result<Authorization, StoreError> {
    check_format(row.get(7)?, authorization_body::FORMAT)?;
    let bytes = blob(row, 8)?;
    let body = authorization_body::decode(bytes)?;
    let authorization = Authorization {
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
        created_at: body.created_at,
        author: body.author,
    };
    authorization_body::check(&authorization, bytes)?;
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

fn check_format(found: i64, known: i64) -> Result<(), StoreError> {
    (found == known)
        .then_some(())
        .ok_or_else(|| corrupt(format!("a row of format {found}")))
}
