//! Everything the store holds, on its way to another: floor 2, `store/sqlite`.

use rusqlite::{Connection, params};

use super::bundle_body::{Basis, Body, id_of};
use super::error::{corrupt, number};
use super::load::{Names, blob, rows, text};
use super::packs::{self, Found, Place};
use super::read::signed_bundle;
use super::{
    acts, authorization_body, calls, fences, read, registry_rows, reissues, rulings, signatures,
    statuses,
};
use crate::domain::{AuthorizationId, BundleId, Held, Reasons, ShardId};
use crate::store::encoding::words;
use crate::store::whole::{Entry, Kind, OrderOf};
use crate::store::{Request, Row, StoreError};

/// Takes an entry.
pub(super) type Each<'a> = &'a mut dyn FnMut(Entry) -> Result<(), StoreError>;

/// Hands everything of a kind to `each`.
pub(super) fn export(
    connection: &Connection,
    kind: Kind,
    each: Each<'_>,
) -> Result<(), StoreError> {
    let snapshot = connection.unchecked_transaction()?;
    let mut names = Names::default();
    // What later rows refer to by number.
    registry_rows::fleets(&snapshot, &mut names, &mut |_| {})?;
    match kind {
        Kind::Settings => rows(
            &snapshot,
            "SELECT name, value FROM settings ORDER BY name",
            [],
            |row| each(Entry::Setting(row.get(0)?, row.get(1)?)),
        ),
        Kind::Fleets => of_the_book(each, |each| {
            registry_rows::fleets(&snapshot, &mut names, each)
        }),
        Kind::Functions => of_the_book(each, |each| {
            registry_rows::functions(&snapshot, &names, each)
        }),
        Kind::Vehicles => of_the_book(each, |each| {
            registry_rows::vehicles(&snapshot, &mut names, each)
        }),
        Kind::Identities => of_the_book(each, |each| {
            registry_rows::identities(&snapshot, &mut names, each)
        }),
        Kind::Terminals => of_the_book(each, |each| {
            registry_rows::terminals(&snapshot, &mut names, each)
        }),
        Kind::Tokens => of_the_book(each, |each| registry_rows::tokens(&snapshot, &names, each)),
        Kind::Epochs => {
            let mut place = 0;
            let mut placed = |entry| match entry {
                Entry::Epoch(_, epoch) => {
                    place += 1;
                    each(Entry::Epoch(place, epoch))
                }
                other => each(other),
            };
            of_the_book(&mut placed, |each| registry_rows::epochs(&snapshot, each))
        }
        Kind::Signatures => signatures::all(&snapshot, each),
        Kind::TrustLists => rows(
            &snapshot,
            "SELECT version, body FROM trust_lists ORDER BY version",
            [],
            |row| each(Entry::TrustList(row.get(0)?, blob(row, 1)?.into())),
        ),
        Kind::Records => of_the_book(each, |each| registry_rows::records(&snapshot, each)),
        Kind::Revisions => rows(&snapshot, "SELECT value FROM revisions", [], |row| {
            each(Entry::Revision(number(row.get(0)?)?))
        }),
        Kind::Authorizations => authorizations(&snapshot, names, each),
        Kind::Requests => requests(&snapshot, each),
        Kind::Commands => commands(&snapshot, each),
        Kind::Amendments => amendments(&snapshot, each),
        Kind::Bundles => bundles(&snapshot, each),
        Kind::Orders => calls::export(&snapshot, each),
        Kind::Statuses => marks(&snapshot, each),
        Kind::StatusLists => of_the_book(each, |each| statuses::load_lists(&snapshot, each)),
        Kind::Rules => rulings::all_rules(&snapshot, &names, each),
        Kind::Acts => acts::all(&snapshot, &names, each),
        Kind::Brakes => rulings::brakes(&snapshot, &names, each),
        Kind::Quotas => rulings::days(&snapshot, &names, each),
        Kind::Restores => of_the_book(each, |each| fences::restores(&snapshot, each)),
        Kind::Contacts => {
            registry_rows::vehicles(&snapshot, &mut names, &mut |_| {})?;
            of_the_book(each, |each| {
                statuses::load_contacts(&snapshot, &names, each)
            })
        }
    }
}

/// How many there are of a kind, about.
pub(super) fn about(connection: &Connection, kind: Kind) -> Result<u64, StoreError> {
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
        Kind::Revisions => "SELECT count(*) FROM revisions",
        Kind::Authorizations => "SELECT count(*) FROM authorizations",
        Kind::Requests => "SELECT count(*) FROM requests",
        Kind::Commands => "SELECT count(*) FROM commands",
        Kind::Amendments => "SELECT count(*) FROM amendments",
        Kind::Bundles => {
            "SELECT (SELECT count(*) FROM bundles_by_identity) + (SELECT count(*) FROM reissues)"
        }
        Kind::Orders => "SELECT coalesce(sum(length(orders)), 0) / 48 FROM answered",
        Kind::Statuses => "SELECT count(*) FROM statuses",
        Kind::StatusLists => "SELECT count(*) FROM status_lists",
        Kind::Contacts => "SELECT count(*) FROM contacts",
        Kind::Rules => "SELECT count(*) FROM rules",
        Kind::Acts => "SELECT count(*) FROM acts",
        Kind::Brakes => "SELECT count(*) FROM brakes",
        Kind::Quotas => "SELECT count(*) FROM quotas",
        Kind::Restores => "SELECT count(*) FROM restores",
    };
    number(connection.query_row(sql, [], |row| row.get(0))?)
}

/// Rows that the book is loaded with, as entries.
fn of_the_book(
    each: Each<'_>,
    load: impl FnOnce(&mut dyn FnMut(Row)) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut taken = Ok(());
    load(&mut |row| {
        if taken.is_ok() {
            taken = Entry::of(row).map_or(Ok(()), &mut *each);
        }
    })?;
    taken
}

fn authorizations(
    connection: &Connection,
    mut names: Names,
    each: Each<'_>,
) -> Result<(), StoreError> {
    registry_rows::vehicles(connection, &mut names, &mut |_| {})?;
    rows(connection, read::ALL_AUTHORIZATIONS, [], |row| {
        let authorization = read::authorization(row, &names)?;
        let place: Option<Place> = row.get(9)?;
        let bundle = place.map(|place| id_at(connection, place)).transpose()?;
        let attempts = connection
            .prepare_cached("SELECT pin_attempts FROM authorizations WHERE id = ?1")?
            .query_row(params![authorization.id.bytes()], |row| row.get(0))?;
        each(Entry::Authorization(
            Box::new(authorization),
            attempts,
            bundle,
        ))
    })
}

fn id_at(connection: &Connection, place: Place) -> Result<BundleId, StoreError> {
    let found = packs::at(connection, place)?;
    let found = found.ok_or_else(|| corrupt("an authorization whose bundle is missing"))?;
    id_of(&found.body)
}

fn requests(connection: &Connection, each: Each<'_>) -> Result<(), StoreError> {
    let sql = "SELECT id, request, body FROM authorizations WHERE request IS NOT NULL ORDER BY id";
    rows(connection, sql, [], |row| {
        let (scope, digest) = blob(row, 1)?
            .split_first_chunk::<32>()
            .ok_or_else(|| corrupt("part of a request"))?;
        let digest = digest
            .try_into()
            .map_err(|_| corrupt("part of a request"))?;
        let made_at = authorization_body::decode(blob(row, 2)?)?.created_at;
        let request = Request {
            scope: *scope,
            digest,
        };
        each(Entry::Request(
            request,
            AuthorizationId(row.get(0)?),
            made_at,
        ))
    })
}

fn commands(connection: &Connection, each: Each<'_>) -> Result<(), StoreError> {
    let sql = "SELECT authorization, version, command FROM commands
               ORDER BY authorization, version";
    rows(connection, sql, [], |row| {
        each(Entry::Command(
            AuthorizationId(row.get(0)?),
            row.get(1)?,
            text(row, 2)?.into(),
        ))
    })
}

fn amendments(connection: &Connection, each: Each<'_>) -> Result<(), StoreError> {
    let sql = "SELECT scope, digest, authorization, made_at, command, outcome FROM amendments
               ORDER BY scope";
    rows(connection, sql, [], |row| {
        each(Entry::Amendment {
            request: Request {
                scope: row.get(0)?,
                digest: row.get(1)?,
            },
            authorization: row.get::<_, Option<[u8; 16]>>(2)?.map(AuthorizationId),
            made_at: number(row.get(3)?)?,
            command: row.get(4)?,
            outcome: row.get(5)?,
        })
    })
}

fn bundles(connection: &Connection, each: Each<'_>) -> Result<(), StoreError> {
    let sql = "SELECT number, fleet, epoch, format, body FROM packs ORDER BY number";
    rows(connection, sql, [], |row| {
        packs::check_format(row.get(3)?)?;
        for (position, body) in packs::bodies(blob(row, 4)?)?.into_iter().enumerate() {
            let Some(bytes) = body else { continue };
            let first = Found {
                place: packs::place(row.get(0)?, position),
                fleet: row.get(1)?,
                epoch: row.get(2)?,
                body: bytes.to_vec(),
            };
            let body = Body::decode(bytes)?;
            let order = match &body.basis {
                Basis::Authorization(_) => None,
                Basis::Order {
                    terminal, author, ..
                } => Some(OrderOf {
                    author: *author,
                    terminal: terminal.clone(),
                }),
            };
            for version in reissues::versions_of(connection, first, &body)? {
                let signed = signed_bundle(connection, &version)?;
                each(Entry::Bundle(Box::new(signed), order.clone()))?;
            }
        }
        Ok(())
    })
}

fn marks(connection: &Connection, each: Each<'_>) -> Result<(), StoreError> {
    let sql = "SELECT tag, shard, position, status, reasons, ends FROM statuses
               ORDER BY tag, shard, position";
    rows(connection, sql, [], |row| {
        let held = match (row.get(3)?, Reasons::from_bits(row.get(4)?)) {
            (words::KEY_REVOKED, _) => Held::ForGood,
            (words::KEY_SUSPENDED, Some(reasons)) => Held::By(reasons),
            _ => return Err(corrupt("an unknown status of a key")),
        };
        each(Entry::Status {
            shard: ShardId {
                tag: row.get(0)?,
                number: number(row.get(1)?)?,
            },
            index: row.get(2)?,
            held,
            span: number(row.get(5)?)?,
        })
    })
}
