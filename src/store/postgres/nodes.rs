//! Nodes beside each other: who is there, and who does what only one may do; floor 2,
//! `store/postgres`. Times are the database's: clocks of nodes do not count.

use std::time::Duration;

use uuid::Uuid;

use super::error::Trouble;
use super::rows::{get, number};
use super::session::{Session, values};
use super::{Postgres, news};
use crate::store::{Lease, News, Nodes, Row, StoreError, Task};

/// A node that serves from the database, as its tables say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThereNode {
    /// Its number, which no other node has.
    pub number: u64,
    /// How long ago it said so, in milliseconds, by the database's clock.
    pub ago_ms: u64,
    /// The words for the tasks whose leases it holds.
    pub holds: Option<String>,
}

/// Attempts at a number that no other node takes at the same moment.
const REGISTER_ATTEMPTS: usize = 16;

impl Postgres {
    /// The database's clock: microseconds since 1970-01-01T00:00:00Z.
    ///
    /// # Errors
    /// The database is not reached.
    pub fn clock_us(&self) -> Result<u64, StoreError> {
        self.read(async |session: &Session| {
            let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
            let rows = session.query(sql, vec![]).await?;
            Ok(rows.first().map_or(Ok(0), |row| number(row, 0))?)
        })
    }

    /// The nodes that have said since `since_us`, by the database's clock, that they are there.
    ///
    /// # Errors
    /// The database is not reached.
    pub fn there_since(&self, since_us: u64) -> Result<Vec<ThereNode>, StoreError> {
        let since = since_us as f64 / 1e6;
        self.read(async |session: &Session| {
            let rows = session
                .query(
                    "SELECT n.number, (extract(epoch FROM clock_timestamp() - n.seen) * 1000)::bigint,
                     (SELECT string_agg(l.name, ', ' ORDER BY l.name) FROM leases l
                      WHERE l.holder = n.id AND l.ends > clock_timestamp())
                     FROM nodes n WHERE n.seen > to_timestamp($1::float8) ORDER BY n.number",
                    values![since],
                )
                .await?;
            let there = rows.iter().map(|row| {
                Ok(ThereNode {
                    number: number(row, 0)?,
                    ago_ms: number(row, 1)?,
                    holds: get(row, 2)?,
                })
            });
            Ok(there.collect::<Result<_, StoreError>>()?)
        })
    }
}

impl Nodes for Postgres {
    fn register(&self) -> Result<u64, StoreError> {
        let mut attempts = 1..=REGISTER_ATTEMPTS;
        loop {
            let last = attempts.next().is_none();
            let asked =
                self.read(
                    async |session: &Session| match register(session, self.process).await {
                        Err(Trouble::Again(_)) if !last => Ok(None),
                        answer => answer.map(Some),
                    },
                );
            match asked? {
                Some(number) => return Ok(number),
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    fn beat(&self, within: Duration) -> Result<u64, StoreError> {
        let within_ms = millis(within);
        self.beside(async |session: &Session| {
            let sql = "UPDATE nodes SET seen = clock_timestamp() WHERE id = $1 RETURNING number";
            // Its row is not there where it could not be made, or the database was put back.
            if session.query(sql, values![self.process]).await?.is_empty() {
                register(session, self.process).await?;
            }
            let there = session
                .query(
                    "SELECT count(*) FROM nodes
                     WHERE seen > clock_timestamp() - $1::float8 * interval '1 millisecond'",
                    values![within_ms],
                )
                .await?;
            Ok(there.first().map_or(Ok(0), |row| number(row, 0))?)
        })
    }

    fn hold(&self, task: Task, term: Duration) -> Result<Option<Lease>, StoreError> {
        let term_ms = millis(term);
        self.beside(async |session: &Session| {
            let taken = session
                .query(
                    "UPDATE leases SET
                     number = CASE WHEN holder = $2 AND ends > clock_timestamp() THEN number
                                   ELSE number + 1 END,
                     holder = $2,
                     ends = clock_timestamp() + $3::float8 * interval '1 millisecond'
                     WHERE name = $1 AND (holder = $2 OR holder IS NULL
                                          OR ends <= clock_timestamp())
                     RETURNING number",
                    values![task.name(), self.process, term_ms],
                )
                .await?;
            let number = taken.first().map(|row| number(row, 0)).transpose()?;
            Ok(number.map(|number| Lease { task, number }))
        })
    }

    fn news(&self, each: &mut dyn FnMut(Row)) -> Result<News, StoreError> {
        self.beside(async |session: &Session| {
            news::news(session, &self.ear, self.process, each).await
        })
    }
}

async fn register(session: &Session, process: Uuid) -> Result<u64, Trouble> {
    let made = session
        .query(
            "INSERT INTO nodes (id, number, began, seen)
             SELECT $1, coalesce(max(number), 0) + 1, clock_timestamp(), clock_timestamp()
             FROM nodes RETURNING number",
            values![process],
        )
        .await?;
    Ok(made.first().map_or(Ok(0), |row| number(row, 0))?)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
