//! What another store has given out, taken in: floor 2, `store/sqlite`.
//!
//! Nothing is asked of it but that it fits: it was checked when it was written there.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, params};

use super::bundle_body::Basis;
use super::error::{column, corrupt};
use super::standings::Numbers;
use super::writer::Transaction;
use super::{
    acts, authorization_body, authorize, bundle_body, fences, redeem, registry, signatures,
    statuses, words,
};
use crate::domain::{Authorization, EpochId, Held, Reasons};
use crate::store::encoding::{answered, rulings};
use crate::store::whole::{Entry, OrderOf};
use crate::store::{AnsweredOrder, Applied, SignedBundle, StoreError};

/// Answers to orders, by their call and the span in which they are over.
pub(super) type Answers = BTreeMap<([u8; 32], u64), Vec<u8>>;

/// Takes one entry in; answers to orders are gathered.
#[expect(
    clippy::too_many_lines,
    reason = "one short arm for each kind of entry"
)]
pub(super) fn take(
    transaction: &mut Transaction<'_>,
    entry: &Entry,
    answers: &mut Answers,
) -> Result<(), StoreError> {
    let connection = transaction.connection;
    match entry {
        Entry::Setting(name, value) => new(registry::setting(connection, name, value)),
        Entry::Fleet(fleet) => new(registry::new_fleet(connection, fleet)),
        Entry::Function(fleet, code, name) => {
            new(registry::function(connection, fleet, *code, name))
        }
        Entry::Vehicle(vehicle) => new(registry::vehicle(connection, vehicle)),
        Entry::Identity(identity) => new(registry::identity(connection, identity)),
        Entry::Terminal(terminal) => new(registry::terminal(connection, terminal)),
        Entry::Token(token) => new(registry::new_token(connection, token)),
        Entry::Epoch(_, epoch) => new(registry::epoch(connection, epoch)),
        Entry::Signatures(count) => signatures::put(connection, &[*count]),
        Entry::TrustList(version, body) => new(registry::trust_list(connection, *version, body)),
        Entry::Record(number, jws) => insert(
            connection,
            "INSERT INTO records (number, jws) VALUES (?1, ?2)",
            params![column(*number)?, jws],
        ),
        Entry::Revision(count) => insert(
            connection,
            "UPDATE revisions SET value = ?1",
            params![column(*count)?],
        ),
        Entry::Authorization(authorization, attempts, _) => {
            take_authorization(transaction, authorization, *attempts)
        }
        Entry::Request(request, authorization, _) => {
            insert(
                connection,
                "UPDATE authorizations SET request = ?2 WHERE id = ?1",
                params![
                    authorization.bytes(),
                    [request.scope, request.digest].concat()
                ],
            )?;
            insert(
                connection,
                "INSERT INTO requests (scope, authorization) VALUES (?1, ?2)",
                params![
                    authorize::scope_column(&request.scope),
                    authorization.bytes()
                ],
            )
        }
        Entry::Command(authorization, version, command) => insert(
            connection,
            "INSERT INTO commands (authorization, version, command) VALUES (?1, ?2, ?3)",
            params![authorization.bytes(), version, command],
        ),
        Entry::Amendment {
            request,
            authorization,
            made_at,
            command,
            outcome,
        } => insert(
            connection,
            "INSERT INTO amendments VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                request.scope,
                request.digest,
                authorization.as_ref().map(|id| id.bytes()),
                column(*made_at)?,
                command,
                outcome,
            ],
        ),
        Entry::Bundle(signed, order) => take_bundle(transaction, signed, order.as_ref()),
        Entry::Order {
            call,
            reference,
            digest,
            bundle,
            span,
        } => {
            let row = answers.entry((*call, *span)).or_default();
            let order = AnsweredOrder {
                reference: *reference,
                digest: *digest,
                bundle: *bundle,
            };
            answered::put(row, &order);
            Ok(())
        }
        Entry::Status {
            shard,
            index,
            held,
            span,
        } => {
            let (status, reasons) = match held {
                Held::ForGood => (words::KEY_REVOKED, Reasons::NONE),
                Held::By(reasons) => (words::KEY_SUSPENDED, *reasons),
            };
            insert(
                connection,
                "INSERT INTO statuses (tag, shard, position, status, ends, reasons)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    shard.tag,
                    column(shard.number)?,
                    index,
                    status,
                    column(*span)?,
                    reasons.bits()
                ],
            )
        }
        Entry::Listed(listed) => new(statuses::note_times(connection, &[*listed])),
        Entry::Rules(fleet, version, text) => insert(
            connection,
            "INSERT INTO rules (fleet, version, body)
             SELECT number, ?2, ?3 FROM fleets WHERE id = ?1",
            params![fleet.0, version, text],
        ),
        Entry::Act(_, act) => acts::keep(connection, act)?
            .then_some(())
            .ok_or_else(misfit),
        Entry::Brake(fleet, vehicle, frozen) => insert(
            connection,
            "INSERT INTO brakes (fleet, vehicle, since, by, why)
             SELECT number, ?2, ?3, ?4, ?5 FROM fleets WHERE id = ?1",
            params![
                fleet.0,
                rulings::name(vehicle.as_ref()),
                column(frozen.since)?,
                frozen.by,
                frozen.why
            ],
        ),
        Entry::Quota(fleet, day) => insert(
            connection,
            "INSERT INTO quotas (fleet, day, base, approved)
             SELECT number, ?2, ?3, ?4 FROM fleets WHERE id = ?1",
            params![
                fleet.0,
                column(day.day)?,
                column(day.base)?,
                column(day.approved)?
            ],
        ),
        Entry::Restore(restore) => fences::put_restore(connection, restore),
        Entry::Contact(fleet, vehicle, contact) => {
            new(statuses::contact(connection, fleet, vehicle, contact))
        }
    }
}

fn new(applied: Result<Applied, StoreError>) -> Result<(), StoreError> {
    match applied? {
        Applied::Done => Ok(()),
        _ => Err(misfit()),
    }
}

fn misfit() -> StoreError {
    corrupt("something that does not fit what was taken in before it")
}

fn insert(
    connection: &Connection,
    sql: &str,
    values: impl rusqlite::Params,
) -> Result<(), StoreError> {
    match connection.prepare_cached(sql)?.execute(values)? {
        1 => Ok(()),
        _ => Err(misfit()),
    }
}

fn take_authorization(
    transaction: &mut Transaction<'_>,
    authorization: &Authorization,
    attempts: u32,
) -> Result<(), StoreError> {
    let connection = transaction.connection;
    let fleet = registry::fleet_number(connection, &authorization.fleet)?;
    let fleet = fleet.ok_or_else(misfit)?;
    let sql = "SELECT number FROM vehicles WHERE fleet = ?1 AND id = ?2";
    let vehicle = number_of(connection, sql, fleet, authorization.vehicle.as_str())?;
    let segment = transaction.segments.place(connection, authorization.id)?;
    let amended = authorization.amended();
    // Its bundle comes later, and says where it is then.
    insert(
        connection,
        "INSERT INTO authorizations (id, fleet, segment, vehicle, version, state, pin_attempts,
         bundle, not_after, redeem_by, request, format, body, revision, code_set)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, NULL, ?8, ?9, NULL, ?10, ?11, ?12, ?13)",
        params![
            authorization.id.bytes(),
            fleet,
            segment,
            vehicle,
            authorization.version,
            words::state(authorization.state),
            attempts,
            column(authorization.window.not_after)?,
            column(authorization.redeem_by)?,
            authorization_body::FORMAT,
            authorization_body::encode(authorization)?,
            amended
                .map(|amended| column(amended.revision))
                .transpose()?,
            authorization_body::code_set(authorization)?,
        ],
    )
}

/// The first version goes into a pack, as it did when it was issued, each later one beside it.
fn take_bundle(
    transaction: &mut Transaction<'_>,
    signed: &SignedBundle,
    order: Option<&OrderOf>,
) -> Result<(), StoreError> {
    let connection = transaction.connection;
    let bundle = &signed.bundle;
    let fleet = registry::fleet_number(connection, &bundle.fleet)?.ok_or_else(misfit)?;
    let vehicle = "SELECT number FROM vehicles WHERE fleet = ?1 AND id = ?2";
    let identity = "SELECT number FROM identities WHERE fleet = ?1 AND id = ?2";
    let numbers = Numbers {
        fleet,
        vehicle: number_of(connection, vehicle, fleet, bundle.vehicle.as_str())?,
        identity: number_of(connection, identity, fleet, bundle.identity.as_str())?,
        epoch: epoch_number(connection, &bundle.epoch)?,
    };
    let basis = match order {
        None => Basis::Authorization(bundle.authorization),
        Some(OrderOf { author, terminal }) => Basis::Order {
            vehicle: numbers.vehicle,
            terminal: terminal.clone(),
            author: *author,
        },
    };
    if transaction
        .packs
        .taken(connection, &transaction.pending, &bundle.id)?
    {
        redeem::encode(transaction, signed, &numbers, &basis)?;
        return insert(
            connection,
            "INSERT INTO reissues VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                bundle.authorization.bytes(),
                bundle.version,
                numbers.fleet,
                numbers.epoch,
                bundle_body::FORMAT,
                *transaction.scratch,
            ],
        );
    }
    let place = transaction.packs.place(
        &mut transaction.pending,
        numbers.fleet,
        numbers.epoch,
        &bundle.id,
    );
    redeem::note(transaction, signed, &numbers, &basis)?;
    let changed = connection
        .prepare_cached("UPDATE authorizations SET bundle = ?2 WHERE id = ?1")?
        .execute(params![bundle.authorization.bytes(), place])?;
    // An order that was never amended has no row.
    (changed == 1 || order.is_some())
        .then_some(())
        .ok_or_else(misfit)
}

fn number_of(connection: &Connection, sql: &str, fleet: i64, id: &str) -> Result<i64, StoreError> {
    let number = connection
        .prepare_cached(sql)?
        .query_row(params![fleet, id], |row| row.get(0))
        .optional()?;
    number.ok_or_else(misfit)
}

fn epoch_number(connection: &Connection, epoch: &EpochId) -> Result<i64, StoreError> {
    let number = connection
        .prepare_cached("SELECT number FROM epochs WHERE id = ?1")?
        .query_row(params![epoch.0], |row| row.get(0))
        .optional()?;
    number.ok_or_else(misfit)
}
