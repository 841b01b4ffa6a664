//! Redemptions: floor 2, `store/sqlite`. The write everything else here is measured by.

use rusqlite::{Connection, OptionalExtension, params};

use super::bundle_body::{self, Body, Key};
use super::contexts::Contexts;
use super::error::column;
use super::words;
use super::writer::Transaction;
use crate::domain::TerminalId;
use crate::store::{Applied, Redemption, SignedBundle, StoreError};

/// Numbers of what a bundle rests on.
struct Standing {
    fleet: i64,
    identity: i64,
    epoch: i64,
}

/// Three statements: the conditions, the bundle, the authorization's new state.
pub(super) fn redeem(
    transaction: &mut Transaction<'_>,
    redemption: &Redemption,
) -> Result<Applied, StoreError> {
    let connection = transaction.connection;
    let bundle = &redemption.signed.bundle;
    let Some(standing) = standing(connection, redemption)? else {
        return Ok(Applied::Stale);
    };
    let body = body(connection, transaction.contexts, &redemption.signed)?.encode()?;
    let inserted = connection
        .prepare_cached(
            "INSERT INTO bundles (id, authorization, identity, epoch, format, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            bundle.id.bytes(),
            bundle.authorization.bytes(),
            standing.identity,
            standing.epoch,
            bundle_body::FORMAT,
            body,
        ])?;
    if inserted == 0 {
        return Ok(Applied::Conflict);
    }
    connection
        .prepare_cached("UPDATE authorizations SET state = ?2, bundle = ?3 WHERE id = ?1")?
        .execute(params![
            bundle.authorization.bytes(),
            words::REDEEMED,
            connection.last_insert_rowid()
        ])?;
    let next = column(redemption.status_next)?;
    transaction
        .status_next
        .entry(standing.fleet)
        .and_modify(|known| *known = next.max(*known))
        .or_insert(next);
    Ok(Applied::Done)
}

/// The conditions, each a line below the joins. A bundle for another fleet or vehicle than its
/// authorization's does not stand either.
fn standing(
    connection: &Connection,
    redemption: &Redemption,
) -> Result<Option<Standing>, StoreError> {
    let bundle = &redemption.signed.bundle;
    let standing = connection
        .prepare_cached(
            "SELECT f.number, i.number, e.number FROM authorizations a
             CROSS JOIN vehicles v ON v.number = a.vehicle
             CROSS JOIN fleets f ON f.number = a.fleet
             CROSS JOIN identities i ON i.fleet = a.fleet AND i.id = ?7
             CROSS JOIN epochs e ON e.id = ?8
             WHERE a.id = ?1 AND a.state = ?10 AND a.version = ?2
             AND f.id = ?3 AND f.status = ?11
             AND v.id = ?4 AND v.status = ?11 AND v.epoch = ?5
             AND i.status = ?11
             AND e.state <> ?9
             AND (?6 IS NULL OR EXISTS (SELECT 1 FROM terminals t
                WHERE t.fleet = a.fleet AND t.id = ?6 AND t.status = ?11))",
        )?
        .query_row(
            params![
                bundle.authorization.bytes(),
                bundle.version,
                bundle.fleet.bytes(),
                bundle.vehicle.as_str(),
                bundle.vehicle_epoch,
                redemption.terminal.as_ref().map(TerminalId::as_str),
                bundle.identity.as_str(),
                bundle.epoch.0,
                words::EPOCH_REVOKED,
                words::OPEN,
                words::ACTIVE,
            ],
            |row| {
                Ok(Standing {
                    fleet: row.get(0)?,
                    identity: row.get(1)?,
                    epoch: row.get(2)?,
                })
            },
        )
        .optional()?;
    Ok(standing)
}

fn body(
    connection: &Connection,
    contexts: &mut Contexts,
    signed: &SignedBundle,
) -> Result<Body, StoreError> {
    let bundle = &signed.bundle;
    if bundle.keys.len() != signed.signatures.len() {
        return Err(StoreError::Failed(
            "a bundle without one signature for each key".into(),
        ));
    }
    let mut keys = Vec::with_capacity(bundle.keys.len());
    for key in &bundle.keys {
        let subject = contexts.subject(connection, key)?;
        keys.push(Key {
            subject,
            status_index: key.status_index,
            max_uses: key.max_uses,
        });
    }
    Ok(Body {
        version: bundle.version,
        vehicle_epoch: bundle.vehicle_epoch,
        algorithm: bundle.algorithm,
        issuer: contexts.issuer(connection, &bundle.issuer)?,
        holder: bundle.holder,
        issued_at: bundle.issued_at,
        window: bundle.window,
        region: bundle.region.clone(),
        recurring: bundle.recurring.clone(),
        keys,
        signatures: signed.signatures.clone(),
    })
}
