//! Everything the store holds, on its way to another: floor 2, `store/postgres`.

use std::pin::pin;

use futures_util::StreamExt as _;
use tokio_postgres::Row as SqlRow;
use uuid::Uuid;

use super::error::Trouble;
use super::load::{self, Names, shard};
use super::read;
use super::rows::{bytes, get, id, named, number, small, text};
use super::session::Session;
use super::{acts, rulings, signatures};
use crate::domain::{AuthorizationId, BundleId, Held, Reasons, TerminalId, TokenId};
use crate::store::encoding::{corrupt, words};
use crate::store::whole::{Entry, Kind, OrderOf};
use crate::store::{Request, Row, StoreError};

/// Makes an entry of a row.
pub(super) type Read = fn(&SqlRow) -> Result<Entry, StoreError>;

/// What gives out status lists.
pub(super) const LISTS: &str = load::lists!("ORDER BY l.tag, l.shard");

/// Hands everything of a kind to `each`, in the order of its key.
pub(super) async fn export(
    session: &Session,
    kind: Kind,
    each: &mut dyn FnMut(Entry) -> Result<(), StoreError>,
) -> Result<(), Trouble> {
    let (sql, read) = query(kind);
    // However long it takes to take them in elsewhere.
    session.execute("SET statement_timeout = 0").await?;
    let mut rows = pin!(session.stream(sql).await?);
    while let Some(row) = rows.next().await {
        let row = row.map_err(|error| Trouble::of(&error))?;
        each(read(&row)?)?;
    }
    Ok(())
}

/// How many there are of a kind.
pub(super) async fn about(session: &Session, kind: Kind) -> Result<u64, Trouble> {
    let sql = match kind {
        Kind::Settings => "SELECT count(*) FROM settings",
        Kind::Fleets => "SELECT count(*) FROM fleets",
        Kind::Functions => "SELECT count(*) FROM functions",
        Kind::Vehicles => "SELECT count(*) FROM vehicles",
        Kind::Identities => "SELECT count(*) FROM identities",
        Kind::Terminals => "SELECT count(*) FROM terminals",
        Kind::Tokens => "SELECT count(*) FROM tokens",
        Kind::Epochs => "SELECT count(*) FROM epochs",
        Kind::Signatures => "SELECT count(*) FROM signatures",
        Kind::TrustLists => "SELECT count(*) FROM trust_lists",
        Kind::Records => "SELECT count(*) FROM records",
        Kind::Revisions => "SELECT 1::bigint",
        Kind::Authorizations => "SELECT count(*) FROM authorizations",
        Kind::Requests => "SELECT count(*) FROM requests WHERE outcome IS NULL",
        Kind::Commands => "SELECT count(*) FROM commands",
        Kind::Amendments => "SELECT count(*) FROM requests WHERE outcome IS NOT NULL",
        Kind::Bundles => "SELECT count(*) FROM bundles",
        Kind::Orders => "SELECT coalesce(sum(length(orders)), 0)::bigint / 48 FROM answered",
        Kind::Statuses => "SELECT count(*) FROM statuses",
        Kind::StatusLists => "SELECT count(*) FROM status_lists",
        Kind::Contacts => "SELECT count(*) FROM contacts",
        Kind::Rules => "SELECT count(*) FROM rules",
        Kind::Acts => "SELECT count(*) FROM acts",
        Kind::Brakes => "SELECT count(*) FROM brakes",
        Kind::Quotas => "SELECT count(*) FROM quotas",
        Kind::Restores => "SELECT count(*) FROM restores",
    };
    let rows = session.query(sql, vec![]).await?;
    Ok(rows.first().map_or(Ok(0), |row| number(row, 0))?)
}

fn query(kind: Kind) -> (&'static str, Read) {
    match kind {
        Kind::Settings => ("SELECT name, value FROM settings ORDER BY name", |row| {
            Ok(Entry::Setting(text(row, 0)?.into(), text(row, 1)?.into()))
        }),
        Kind::Fleets => (load::fleets!(""), |row| of_the_book(row, load::fleet)),
        Kind::Functions => (load::FUNCTIONS, |row| of_the_book(row, load::function)),
        Kind::Vehicles => (
            "SELECT fleet, id, status, epoch, model, functions, owner, key FROM vehicles
             ORDER BY fleet, id",
            |row| of_the_book(row, load::vehicle),
        ),
        Kind::Identities => (
            "SELECT fleet, id, status, licences, hold, proved FROM identities
             ORDER BY fleet, id",
            |row| of_the_book(row, load::identity),
        ),
        Kind::Terminals => (
            "SELECT fleet, id, status, identity, key, since, attested_by, attested_at FROM terminals ORDER BY fleet, id",
            |row| of_the_book(row, load::terminal),
        ),
        Kind::Tokens => (load::TOKENS, |row| of_the_book(row, load::token)),
        Kind::Epochs => (
            "SELECT id, state, key, cka_id, token_serial, not_before, not_after, created_at,
             activated_at, row_number() OVER (ORDER BY place) FROM epochs ORDER BY place",
            |row| match load::epoch(row, &mut Names::default())? {
                Row::Epoch(epoch) => Ok(Entry::Epoch(number(row, 9)?, epoch)),
                _ => Err(corrupt("an epoch that is none")),
            },
        ),
        Kind::TrustLists => (
            "SELECT version, body FROM trust_lists ORDER BY version",
            |row| {
                Ok(Entry::TrustList(
                    small(row, 0)?,
                    get::<&[u8]>(row, 1)?.into(),
                ))
            },
        ),
        Kind::Records => ("SELECT number, jws FROM records ORDER BY number", |row| {
            Ok(Entry::Record(number(row, 0)?, text(row, 1)?.into()))
        }),
        Kind::Revisions => (
            "SELECT value FROM counters WHERE name = 'amendments'",
            |row| Ok(Entry::Revision(number(row, 0)?)),
        ),
        Kind::Authorizations => (read::ALL_AUTHORIZATIONS, |row| {
            let bundle: Option<Uuid> = get(row, 9)?;
            Ok(Entry::Authorization(
                Box::new(read::authorization(row)?),
                small(row, 12)?,
                bundle.map(|id| BundleId(id.into_bytes())),
            ))
        }),
        Kind::Signatures => signatures::ALL,
        Kind::Acts => acts::ALL,
        Kind::Rules | Kind::Brakes | Kind::Quotas => rulings::query(kind),
        _ => query_issued(kind),
    }
}

/// The kinds of what was issued, and what came of it.
fn query_issued(kind: Kind) -> (&'static str, Read) {
    match kind {
        Kind::Requests => (
            "SELECT scope, digest, authorization_id, made_at FROM requests
             WHERE outcome IS NULL ORDER BY scope",
            |row| {
                let authorization = AuthorizationId(id(row, 2)?);
                Ok(Entry::Request(
                    request(row)?,
                    authorization,
                    number(row, 3)?,
                ))
            },
        ),
        Kind::Commands => (
            "SELECT authorization_id, version, command FROM commands
             ORDER BY authorization_id, version",
            |row| {
                let authorization = AuthorizationId(id(row, 0)?);
                Ok(Entry::Command(
                    authorization,
                    small(row, 1)?,
                    text(row, 2)?.into(),
                ))
            },
        ),
        Kind::Amendments => (
            "SELECT scope, digest, authorization_id, made_at, command, outcome FROM requests
             WHERE outcome IS NOT NULL ORDER BY scope",
            |row| {
                let authorization: Option<Uuid> = get(row, 2)?;
                Ok(Entry::Amendment {
                    request: request(row)?,
                    authorization: authorization.map(|id| AuthorizationId(id.into_bytes())),
                    made_at: number(row, 3)?,
                    command: get(row, 4)?,
                    outcome: get(row, 5)?,
                })
            },
        ),
        Kind::Bundles => (read::ALL_BUNDLES, bundle),
        Kind::Orders => (
            "SELECT call, substr(orders, n + 1, 16), substr(orders, n + 17, 16),
             substr(orders, n + 33, 16), ends
             FROM (SELECT *, generate_series(0, length(orders) - 1, 48) AS n FROM answered) each
             ORDER BY call, number, n",
            |row| {
                Ok(Entry::Order {
                    call: bytes(row, 0)?,
                    reference: bytes(row, 1)?,
                    digest: bytes(row, 2)?,
                    bundle: BundleId(bytes(row, 3)?),
                    span: number(row, 4)? >> 16,
                })
            },
        ),
        _ => query_standing(kind),
    }
}

/// The kinds of how keys stand, and what cars know of it.
fn query_standing(kind: Kind) -> (&'static str, Read) {
    match kind {
        Kind::Statuses => (
            "SELECT tag, shard, place, status, reasons, ends FROM statuses
             ORDER BY tag, shard, place",
            |row| {
                let held = match (get::<i64>(row, 3)?, Reasons::from_bits(small(row, 4)?)) {
                    (words::KEY_REVOKED, _) => Held::ForGood,
                    (words::KEY_SUSPENDED, Some(reasons)) => Held::By(reasons),
                    _ => return Err(corrupt("an unknown status of a key")),
                };
                Ok(Entry::Status {
                    shard: shard(row)?,
                    index: small(row, 2)?,
                    held,
                    span: number(row, 5)? >> 16,
                })
            },
        ),
        Kind::StatusLists => (
            "SELECT tag, shard, issued_at, expires FROM status_lists ORDER BY tag, shard",
            |row| of_the_book(row, load::listed),
        ),
        Kind::Restores => (load::RESTORES, |row| of_the_book(row, load::restore)),
        _ => (
            "SELECT fleet, vehicle, heard_at, sent, sent_revision, sent_at, acked,
             acked_revision, acked_at FROM contacts ORDER BY fleet, vehicle",
            |row| of_the_book(row, load::contact),
        ),
    }
}

/// A row that the book is loaded with, as an entry.
fn of_the_book(
    row: &SqlRow,
    read: fn(&SqlRow, &mut Names) -> Result<Row, StoreError>,
) -> Result<Entry, StoreError> {
    let row = read(row, &mut Names::default())?;
    Entry::of(row).ok_or_else(|| corrupt("a row that is no entry"))
}

fn request(row: &SqlRow) -> Result<Request, StoreError> {
    Ok(Request {
        scope: bytes(row, 0)?,
        digest: bytes(row, 1)?,
    })
}

fn bundle(row: &SqlRow) -> Result<Entry, StoreError> {
    let author: Option<Uuid> = get(row, 12)?;
    let terminal: Option<&str> = get(row, 13)?;
    let terminal = terminal
        .map(|it| named(TerminalId::parse(it)))
        .transpose()?;
    let order = author.map(|author| OrderOf {
        author: TokenId(author.into_bytes()),
        terminal,
    });
    Ok(Entry::Bundle(Box::new(read::signed_bundle(row)?), order))
}
