//! Nodes beside each other: who is there, and who does what only one may do; floor 2,
//! `store/postgres`. Times are the database's: clocks of nodes do not count.

use std::time::Duration;

use uuid::Uuid;

use super::error::Trouble;
use super::rows::number;
use super::session::{Session, values};
use super::{Postgres, news};
use crate::store::{Lease, News, Nodes, Row, StoreError, Task};

/// Attempts at a number that no other node takes at the same moment.
const REGISTER_ATTEMPTS: usize = 16;

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
            let sql = "UPDATE nodes SET seen = clock_timestamp() WHERE id = $1";
            session.query(sql, values![self.process]).await?;
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
