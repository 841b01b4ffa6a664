//! What other processes have changed, read as it is by now: floor 2, `store/postgres`.
//!
//! Every process numbers its transactions and commits one after the other: before one begins it is
//! known what became of the one before. So whoever sees a number of a process sees every lower one
//! that took place, and one number for each process says what has been heard. Numbers of different
//! processes are never compared.
//!
//! What is new is read together with the rows it names, in one snapshot: whatever that snapshot
//! has of others is either told now or was told before.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio_postgres::Row as SqlRow;
use uuid::Uuid;

use super::error::Trouble;
use super::load;
use super::rows::{get, names, small, uuids};
use super::rulings;
use super::session::{Ask, Session, Value, values};
use super::surveyed::held;
use super::touched::Touched;
use crate::domain::{Held, IdentityId, ShardId, TerminalId, VehicleId};
use crate::store::{News, Row, StoreError};

/// How long changes are kept: 30 minutes are counted on, of the 60 after which `purge` deletes
/// them.
const KEPT_MS: i64 = 30 * 60 * 1000;

/// Transactions that are followed one by one; where there are more, all is loaded anew.
const FOLLOWED_MAX: i64 = 10_000;

/// What has been heard so far.
#[derive(Clone, Default)]
pub(super) struct Heard {
    /// The last number of each process.
    numbers: HashMap<Uuid, i64>,
    /// When, by the database's clock, in milliseconds.
    at_ms: i64,
}

/// See [`Heard`]; held to copy or to replace it.
#[derive(Default)]
pub(super) struct Ear(Mutex<Heard>);

impl Ear {
    fn heard(&self) -> Heard {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn set(&self, heard: Heard) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = heard;
    }
}

/// The last number of each process, and the time.
const NUMBERS: &str = "SELECT process, number,
    (extract(epoch from clock_timestamp()) * 1000)::bigint FROM writers
    UNION ALL SELECT NULL, NULL, (extract(epoch from clock_timestamp()) * 1000)::bigint";

/// Whatever is there is heard of as it is loaded; within the transaction that loads.
pub(super) async fn heard(session: &Session) -> Result<Heard, Trouble> {
    let mut heard = Heard::default();
    for row in session.query(NUMBERS, vec![]).await? {
        heard.take(&row)?;
    }
    Ok(heard)
}

impl Heard {
    fn take(&mut self, row: &SqlRow) -> Result<(), StoreError> {
        let (process, number) = (get::<Option<Uuid>>(row, 0)?, get::<Option<i64>>(row, 1)?);
        self.at_ms = self.at_ms.max(get(row, 2)?);
        if let (Some(process), Some(number)) = (process, number) {
            self.numbers.insert(process, number);
        }
        Ok(())
    }

    /// How many transactions of others `then` has beyond this.
    fn behind(&self, then: &Self, own: Uuid) -> i64 {
        let others = then.numbers.iter().filter(|(process, _)| **process != own);
        let more = others.map(|(process, number)| {
            let known = self.numbers.get(process).copied().unwrap_or(0);
            number.saturating_sub(known).max(0)
        });
        more.fold(0, i64::saturating_add)
    }
}

/// Hands over what others than `own` have changed since it was heard last.
pub(super) async fn news(
    session: &Session,
    ear: &Ear,
    own: Uuid,
    each: &mut dyn FnMut(Row),
) -> Result<News, Trouble> {
    let before = ear.heard();
    let now = heard(session).await?;
    let behind = before.behind(&now, own);
    if now.at_ms.saturating_sub(before.at_ms) > KEPT_MS || behind > FOLLOWED_MAX {
        return Ok(News::TooMuch);
    }
    if behind == 0 {
        ear.set(now);
        return Ok(News::Told);
    }
    let (heard, rows) = tell(session, &before, own).await?;
    rows.into_iter().for_each(each);
    ear.set(heard);
    Ok(News::Told)
}

/// What is new as of one snapshot, and what is heard by it. On an error the connection is not used
/// again, and with it ends the transaction.
async fn tell(session: &Session, before: &Heard, own: Uuid) -> Result<(Heard, Vec<Row>), Trouble> {
    let (processes, numbers): (Vec<Uuid>, Vec<i64>) =
        before.numbers.iter().map(|(id, n)| (*id, *n)).unzip();
    let asks = [
        Ask::Plain("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"),
        Ask::Query(NUMBERS, vec![]),
        Ask::Query(
            "SELECT c.body FROM writers w
             LEFT JOIN unnest($1::uuid[], $2::bigint[]) k (process, number)
             ON k.process = w.process
             CROSS JOIN LATERAL (SELECT body FROM changes n WHERE n.process = w.process
                                 AND n.number > coalesce(k.number, 0)
                                 ORDER BY n.number) c
             WHERE w.process <> $3 AND w.number > coalesce(k.number, 0)",
            values![processes, numbers, own],
        ),
    ];
    let answers = session.round(&asks).await.map_err(|it| it.trouble())?;
    let mut heard = Heard::default();
    for row in answers.get(1).into_iter().flatten() {
        heard.take(row)?;
    }
    let mut touched = Touched::default();
    for row in answers.get(2).into_iter().flatten() {
        touched.read(get(row, 0)?)?;
    }
    Ok((heard, read(session, &touched).await?))
}

/// Makes rows of the book of one of the database's.
type Take = Box<dyn Fn(&SqlRow, &mut Vec<Row>) -> Result<(), StoreError> + Send>;

/// Statements, and what becomes of the rows of each.
#[derive(Default)]
struct Reading<'a> {
    asks: Vec<Ask<'a>>,
    takes: Vec<Take>,
}

impl<'a> Reading<'a> {
    fn ask(&mut self, wanted: bool, sql: &'static str, values: Vec<Value<'a>>, take: Take) {
        if wanted {
            self.asks.push(Ask::Query(sql, values));
            self.takes.push(take);
        }
    }

    /// One row of the book for each.
    fn each(
        &mut self,
        wanted: bool,
        sql: &'static str,
        values: Vec<Value<'a>>,
        make: fn(&SqlRow, &mut load::Names) -> Result<Row, StoreError>,
    ) {
        let take = move |row: &SqlRow, rows: &mut Vec<Row>| {
            rows.push(make(row, &mut load::Names::default())?);
            Ok(())
        };
        self.ask(wanted, sql, values, Box::new(take));
    }

    fn registry(&mut self, touched: &'a Touched) {
        let (settings, _) = load::SETTINGS;
        self.each(touched.settings, settings, vec![], load::SETTINGS.1);
        let fleets = &touched.fleets;
        self.each(
            !fleets.is_empty(),
            load::fleets!("WHERE f.id = ANY($1)"),
            values![uuids(fleets.iter().map(|id| &id.0))],
            load::fleet,
        );
        let functions = &touched.functions;
        self.each(
            !functions.is_empty(),
            "SELECT fleet, code, name FROM functions WHERE fleet = ANY($1) ORDER BY fleet, code",
            values![uuids(functions.iter().map(|id| &id.0))],
            load::function,
        );
        let (fleets, vehicles) = names(&touched.vehicles, VehicleId::as_str);
        self.each(
            !fleets.is_empty(),
            "SELECT v.fleet, v.id, v.status, v.epoch, v.model, v.functions, v.owner, v.key
             FROM unnest($1::uuid[], $2::text[]) k (fleet, id)
             JOIN vehicles v ON v.fleet = k.fleet AND v.id = k.id",
            values![fleets, vehicles],
            load::vehicle,
        );
        let (fleets, identities) = names(&touched.identities, IdentityId::as_str);
        self.each(
            !fleets.is_empty(),
            "SELECT i.fleet, i.id, i.status, i.licences, i.hold, i.proved
             FROM unnest($1::uuid[], $2::text[]) k (fleet, id)
             JOIN identities i ON i.fleet = k.fleet AND i.id = k.id",
            values![fleets, identities],
            load::identity,
        );
        let (fleets, terminals) = names(&touched.terminals, TerminalId::as_str);
        self.each(
            !fleets.is_empty(),
            "SELECT t.fleet, t.id, t.status, t.identity, t.key, t.since, t.attested_by, t.attested_at
             FROM unnest($1::uuid[], $2::text[]) k (fleet, id)
             JOIN terminals t ON t.fleet = k.fleet AND t.id = k.id",
            values![fleets, terminals],
            load::terminal,
        );
        let tokens = &touched.tokens;
        self.each(
            !tokens.is_empty(),
            "SELECT id, fleet, hash, scopes, created_at, expires_at, revoked_at, used_at FROM tokens
             WHERE id = ANY($1)",
            values![uuids(tokens.iter().map(|id| &id.0))],
            load::token,
        );
        // The list first: nothing is signed by an epoch that it does not name.
        for (sql, make) in [load::TRUST, load::EPOCHS, load::RECORDS] {
            self.each(touched.steps, sql, vec![], make);
        }
    }

    /// What fleets rule. What is frozen comes whole: what is not among it is not frozen any more.
    fn rulings(&mut self, touched: &'a Touched) {
        let wanted = !touched.ruled.is_empty();
        let fleets = || values![uuids(touched.ruled.iter().map(|id| &id.0))];
        self.each(
            wanted,
            "SELECT DISTINCT ON (fleet) fleet, version, body FROM rules WHERE fleet = ANY($1)
             ORDER BY fleet, version DESC",
            fleets(),
            rulings::rules,
        );
        self.each(
            wanted,
            "SELECT fleet, version FROM followed WHERE fleet = ANY($1)",
            fleets(),
            rulings::followed,
        );
        self.ask(
            wanted,
            "SELECT f.id, b.vehicle, b.since, b.by, b.why FROM unnest($1::uuid[]) f (id)
             LEFT JOIN brakes b ON b.fleet = f.id ORDER BY f.id",
            fleets(),
            Box::new(rulings::all_frozen),
        );
        self.each(
            wanted,
            "SELECT fleet, day, base, approved FROM quotas WHERE fleet = ANY($1)",
            fleets(),
            rulings::of_day,
        );
    }

    /// How keys stand. One without a row is valid.
    fn keys(&mut self, touched: &'a Touched) {
        let keys = &touched.keys;
        let shards = keys.iter().map(|(_, shard, _)| *shard as i64);
        self.ask(
            !keys.is_empty(),
            "SELECT k.tag, k.shard, k.place, s.status, coalesce(s.reasons, 0)
             FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) k (tag, shard, place)
             LEFT JOIN statuses s ON s.tag = k.tag AND s.shard = k.shard AND s.place = k.place",
            values![
                keys.iter()
                    .map(|(tag, ..)| i64::from(*tag))
                    .collect::<Vec<_>>(),
                shards.collect::<Vec<_>>(),
                keys.iter()
                    .map(|(.., at)| i64::from(*at))
                    .collect::<Vec<_>>(),
            ],
            Box::new(|row, rows| {
                let held = match get::<Option<i64>>(row, 3)? {
                    None => Held::default(),
                    Some(_) => held(row, 3)?,
                };
                rows.push(Row::Held(load::shard(row)?, small(row, 2)?, held));
                Ok(())
            }),
        );
    }

    fn issued(&mut self, touched: &'a Touched) {
        let authorizations = &touched.authorizations;
        self.each(
            !authorizations.is_empty(),
            super::read::THESE_AUTHORIZATIONS,
            values![uuids(authorizations.iter().map(|id| &id.0))],
            |row, _| Ok(Row::Authorization(super::read::authorization(row)?)),
        );
        let lists = &touched.lists;
        let shards = lists.iter().map(|(_, shard)| *shard as i64);
        self.ask(
            !lists.is_empty(),
            load::lists!(
                "JOIN unnest($1::bigint[], $2::bigint[]) k (tag, shard)
                 ON k.tag = l.tag AND k.shard = l.shard"
            ),
            values![
                lists
                    .iter()
                    .map(|(tag, _)| i64::from(*tag))
                    .collect::<Vec<_>>(),
                shards.collect::<Vec<_>>(),
            ],
            Box::new(|row, rows| {
                rows.push(load::listed(row, &mut load::Names::default())?);
                rows.extend(load::signed_list(row)?);
                Ok(())
            }),
        );
        let (fleets, vehicles) = names(&touched.contacts, VehicleId::as_str);
        self.each(
            !fleets.is_empty(),
            "SELECT c.fleet, c.vehicle, c.heard_at, c.sent, c.sent_revision, c.sent_at, c.acked,
             c.acked_revision, c.acked_at FROM unnest($1::uuid[], $2::text[]) k (fleet, vehicle)
             JOIN contacts c ON c.fleet = k.fleet AND c.vehicle = k.vehicle",
            values![fleets, vehicles],
            load::contact,
        );
        let (revision, make) = load::REVISION;
        self.each(touched.amended, revision, vec![], make);
    }
}

/// The rows that are named, in the round that ends the transaction; keys' standing before what rests on it, and the count of
/// amendments after everything they have marked.
async fn read(session: &Session, touched: &Touched) -> Result<Vec<Row>, Trouble> {
    let mut reading = Reading::default();
    reading.registry(touched);
    reading.rulings(touched);
    reading.keys(touched);
    reading.issued(touched);
    reading.asks.push(Ask::Plain("COMMIT"));
    let answers = session.round(&reading.asks).await;
    let answers = answers.map_err(|it| it.trouble())?;
    // First: what has come in their place since is read as it is now.
    let erased = touched.erased.iter();
    let mut rows: Vec<_> = erased
        .map(|(fleet, id)| Row::Erased(*fleet, id.clone()))
        .collect();
    for (take, found) in reading.takes.iter().zip(&answers) {
        for row in found {
            take(row, &mut rows)?;
        }
    }
    let asked = touched.asked.iter();
    rows.extend(asked.map(|(tag, number)| {
        let (tag, number) = (*tag, *number);
        Row::Asked(ShardId { tag, number })
    }));
    rows.extend(touched.purged.map(Row::Purged));
    Ok(rows)
}
