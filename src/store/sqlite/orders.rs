//! The authorizations of orders, from their bundles: floor 2, `store/sqlite`.
//!
//! An order is authorization and redemption in one, so everything its authorization says is in its
//! bundle, or follows from its being redeemed from the beginning.

use rusqlite::{Connection, params};

use super::bundle_body::{Basis, Body};
use super::contexts;
use super::error::corrupt;
use super::load::{Names, blob, named, rows, text};
use super::packs::{self, Found, Place};
use super::reissues;
use crate::domain::{
    Author, Authorization, AuthorizationId, AuthorizationState, BundleId, IdentityId, Recipient,
    Restrictions,
};
use crate::store::{AuthorizationFilter, StoreError};

/// Those that pass `filter`, in no order: of one id, of the vehicle or the fleet with the number
/// `of`. At least as many as the filter's limit, if there are so many, and none left out that
/// comes before one that is there.
pub(super) fn authorizations(
    connection: &Connection,
    filter: &AuthorizationFilter,
    of: i64,
    names: &mut Names,
) -> Result<Vec<Authorization>, StoreError> {
    let mut found = Vec::new();
    let mut take = |one: &Found| -> Result<bool, StoreError> {
        let body = Body::decode(&one.body)?;
        if filter.after.is_some_and(|after| body.id.0 <= after.0) {
            return Ok(false);
        }
        // Once amended, an order's authorization has a row.
        if reissues::has_row(connection, &body.id)? {
            return Ok(false);
        }
        let authorization = authorization(connection, one, body, names)?;
        let is_one = authorization.is_some();
        found.extend(authorization);
        Ok(is_one)
    };
    match (&filter.id, &filter.vehicle) {
        (Some(id), _) => {
            if let Some(one) = packs::find(connection, &BundleId(id.0))?
                && one.fleet == of
            {
                take(&one)?;
            }
        }
        (None, Some(_)) => {
            for place in of_vehicle(connection, of)? {
                if let Some(one) = packs::at(connection, place)? {
                    take(&one)?;
                }
            }
        }
        (None, None) => of_fleet(connection, filter, of, &mut take)?,
    }
    Ok(found)
}

/// Where a vehicle's orders are.
fn of_vehicle(connection: &Connection, vehicle: i64) -> Result<Vec<Place>, StoreError> {
    let mut places = Vec::new();
    let sql = "WITH RECURSIVE segments (number) AS (
                   SELECT min(segment) FROM orders_by_vehicle
                   UNION ALL
                   SELECT (SELECT min(segment) FROM orders_by_vehicle WHERE segment > number)
                   FROM segments WHERE number IS NOT NULL)
               SELECT o.bundle FROM segments s
               CROSS JOIN orders_by_vehicle o ON o.segment = s.number AND o.vehicle = ?1";
    rows(connection, sql, params![vehicle], |row| {
        places.push(row.get(0)?);
        Ok(())
    })?;
    Ok(places)
}

/// Takes a bundle, and says whether it is an order that passes.
type Take<'a> = dyn FnMut(&Found) -> Result<bool, StoreError> + 'a;

/// A fleet's orders, pack by pack, until there are enough.
fn of_fleet(
    connection: &Connection,
    filter: &AuthorizationFilter,
    fleet: i64,
    take: &mut Take<'_>,
) -> Result<(), StoreError> {
    // Packs begin in ascending order, but two of the same millisecond may overlap.
    let from = filter.after.as_ref().map_or(&[][..], |after| &after.0[..6]);
    let sql = "SELECT epoch, first, format, body, number FROM packs INDEXED BY packs_by_fleet
               WHERE fleet = ?1 AND first >= ?2 ORDER BY first";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params![fleet, from])?;
    let (mut orders, mut last) = (0, None);
    while let Some(row) = rows.next()? {
        packs::check_format(row.get(2)?)?;
        let moment = blob(row, 1)?.get(..6).map(<[u8]>::to_vec);
        if orders >= filter.limit && moment != last {
            break;
        }
        last = moment;
        for (position, body) in packs::bodies(blob(row, 3)?)?.into_iter().enumerate() {
            let Some(body) = body else { continue };
            let one = Found {
                place: packs::place(row.get(4)?, position),
                fleet,
                epoch: row.get(0)?,
                body: body.to_vec(),
            };
            orders += u32::from(take(&one)?);
        }
    }
    Ok(())
}

/// The authorization of an order; `None` for the bundle of another authorization.
fn authorization(
    connection: &Connection,
    found: &Found,
    body: Body,
    names: &mut Names,
) -> Result<Option<Authorization>, StoreError> {
    let Basis::Order {
        vehicle,
        terminal,
        author,
    } = body.basis
    else {
        return Ok(None);
    };
    names.learn_vehicle(connection, vehicle)?;
    let subjects = contexts::subjects(connection, body.subjects)?;
    if subjects.len() != body.keys.len() {
        return Err(corrupt("a bundle that does not fit its functions"));
    }
    let mut identity = None;
    let sql = "SELECT id FROM identities WHERE number = ?1";
    rows(connection, sql, params![body.identity], |row| {
        identity = Some(named(IdentityId::parse(text(row, 0)?))?);
        Ok(())
    })?;
    let uses = subjects.iter().zip(&body.keys);
    Ok(Some(Authorization {
        id: AuthorizationId(body.id.0),
        fleet: names.fleet(found.fleet)?,
        version: body.version,
        vehicle: names.vehicle(vehicle)?,
        functions: subjects.iter().map(|subject| subject.function).collect(),
        window: body.window,
        redeem_by: body.window.not_after,
        restrictions: Restrictions {
            region: body.region,
            recurring: body.recurring,
            max_uses: uses
                .filter_map(|(subject, key)| Some((subject.function, key.max_uses?)))
                .collect(),
            recipient: Recipient {
                identity,
                terminal,
                key: None,
            },
            amended: None,
            approved_until: None,
        }
        .boxed(),
        pin: false,
        signing: None,
        state: AuthorizationState::Redeemed,
        redeemed: true,
        created_at: body.issued_at,
        author: Author::Token(author),
    }))
}
