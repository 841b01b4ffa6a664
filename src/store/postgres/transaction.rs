//! Transactions: floor 2, `store/postgres`. The one place that begins, commits and takes back.
//!
//! A transaction is two rounds: one begins it, locks and reads what its writes rest on, the other
//! writes what was decided and commits. (A purge has rounds of its own, and what comes after it
//! begins anew.)
//!
//! Each leaves a row under the number that this process gave it. Where the answer to `COMMIT` is
//! lost, the same row is inserted once more: either it is there, and the transaction took place, or
//! it can be inserted, and the transaction never can be any more, wherever it was under way. Only
//! then is anything answered.

use std::time::Duration;

use uuid::Uuid;

use super::contexts::Contexts;
use super::decide::decide;
use super::error::{Trouble, refused_at_commit};
use super::fences;
use super::ground::Ground;
use super::needs::Needs;
use super::purge;
use super::session::{Address, Ask, Session, Unanswered, values};
use super::survey::Survey;
use super::write::Writing;
use crate::store::whole::Position;
use crate::store::{Applied, StoreError, Write};

/// The first wait before a transaction is tried again, doubling up to the last; each is jittered.
const WAIT_MIN_MS: u64 = 2;
const WAIT_MAX_MS: u64 = 200;

/// The connection that writes, and what its process knows.
pub(super) struct Writer {
    session: Option<Session>,
    process: Uuid,
    /// Of the last transaction.
    number: i64,
    /// Of the last one that was committed and has left a row; 0 before the first.
    committed: i64,
    /// Whether nobody knows what became of it.
    in_doubt: bool,
    /// Under which number it serves, where it does.
    lease: Option<i64>,
    contexts: Contexts,
}

/// Why a transaction did not end well.
enum Ended {
    /// Taken back; it may be tried again.
    Again(StoreError),
    /// Taken back.
    Failed(StoreError),
    /// The connection was lost before anything could be committed.
    Lost(StoreError),
    /// The connection was lost after `COMMIT` was sent; these would be the answers.
    InDoubt(Vec<Applied>, String),
}

impl From<Trouble> for Ended {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Again(why) => Self::Again(why),
            Trouble::Failed(why) => Self::Failed(why),
            Trouble::Lost(why) => Self::Lost(why),
        }
    }
}

impl From<StoreError> for Ended {
    fn from(why: StoreError) -> Self {
        Self::Failed(why)
    }
}

/// A transaction's writes in parts that are decided together.
enum Part<'a> {
    Writes(&'a [Write]),
    Purge(u64, u32),
}

impl Writer {
    pub(super) fn new(session: Session) -> Self {
        let mut process = [0; 16];
        // A generator that fails here fails everywhere; two processes of one id would still be
        // told apart by their rows.
        let _ = aws_lc_rs::rand::fill(&mut process);
        Self {
            session: Some(session),
            process: Uuid::from_bytes(process),
            number: 0,
            committed: 0,
            in_doubt: false,
            lease: None,
            contexts: Contexts::default(),
        }
    }

    /// The last transaction that was committed.
    pub(super) fn position(&self) -> Option<Position> {
        let number = u64::try_from(self.committed).unwrap_or_default();
        let process = self.process.into_bytes();
        (number > 0).then_some(Position { process, number })
    }

    /// Refuses a database that lacks what this process has committed: it was put back from a
    /// backup beneath a server that runs.
    async fn check_reached(&self, session: &Session) -> Result<(), StoreError> {
        match self.position() {
            Some(position) if !fences::reaches(session, position).await? => {
                Err(StoreError::Failed(
                    "the database was put back from a backup: stop every server and run \
                     `fob restore`"
                        .into(),
                ))
            }
            _ => Ok(()),
        }
    }

    /// Takes over: from now on nobody who took over before commits anything.
    pub(super) async fn take_over(&mut self) -> Result<(), StoreError> {
        let session = self.session.as_ref().ok_or_else(no_session)?;
        let taken = session
            .query(
                "UPDATE leases SET number = number + 1, holder = $1 WHERE name = 'serving'
                 RETURNING number",
                values![self.process],
            )
            .await?;
        let number = taken.first().map(|row| super::rows::get(row, 0));
        self.lease = number.transpose()?;
        Ok(())
    }

    /// Goes on over another connection, once it is known what became of the last transaction.
    pub(super) async fn resume(&mut self, session: Session) -> Result<(), StoreError> {
        if self.lease.is_some() {
            let sql = "SELECT number FROM leases WHERE name = 'serving'";
            check_lease(self.lease, session.query(sql, vec![]).await?.first())?;
        }
        self.check_reached(&session).await?;
        self.session = Some(session);
        if self.in_doubt {
            self.read_back().await?;
        }
        Ok(())
    }

    /// Commits, trying again where others were in the way.
    pub(super) async fn commit(
        &mut self,
        address: &Address,
        attempts_max: u32,
        writes: &[Write],
    ) -> Result<Vec<Applied>, StoreError> {
        let mut connected_anew = false;
        let mut attempt = 0;
        loop {
            attempt += 1;
            let why = match self.attempt(address, writes).await {
                Ok(applied) => return Ok(applied),
                Err(Ended::Failed(why)) => return Err(why),
                Err(Ended::Again(why)) => why,
                // An idle connection may have been cut long ago.
                Err(Ended::Lost(why)) if connected_anew => return Err(why),
                Err(Ended::Lost(why)) => {
                    connected_anew = true;
                    why
                }
                Err(Ended::InDoubt(applied, why)) => {
                    self.in_doubt = true;
                    match self.look(address).await {
                        Ok(true) => {
                            self.committed = self.number;
                            self.contexts.committed();
                            return Ok(applied);
                        }
                        Ok(false) => StoreError::Failed(why),
                        Err(_) => return Err(StoreError::Unknown(why)),
                    }
                }
            };
            self.contexts.forget();
            if attempt >= attempts_max {
                return Err(why);
            }
            tokio::time::sleep(wait(attempt)).await;
        }
    }

    async fn attempt(
        &mut self,
        address: &Address,
        writes: &[Write],
    ) -> Result<Vec<Applied>, Ended> {
        if self.session.as_ref().is_none_or(Session::is_closed) {
            let session = Session::open(address).await.map_err(Ended::Lost)?;
            self.check_reached(&session).await?;
            self.session = Some(session);
        }
        self.number += 1;
        let ended = self.run(writes).await;
        match &ended {
            Ok(_) => self.contexts.committed(),
            Err(Ended::Lost(_) | Ended::InDoubt(..)) => self.session = None,
            Err(Ended::Again(_) | Ended::Failed(_)) => self.take_back().await,
        }
        ended
    }

    async fn run(&mut self, writes: &[Write]) -> Result<Vec<Applied>, Ended> {
        let session = self.session.as_ref().ok_or_else(no_session)?;
        let end = |asks: &mut Vec<Ask<'_>>| {
            asks.push(Ask::Query(
                "INSERT INTO transactions (process, number) VALUES ($1, $2)",
                values![self.process, self.number],
            ));
            asks.push(Ask::Plain("COMMIT"));
        };
        let mut applied = Vec::with_capacity(writes.len());
        let mut parts = parts(writes).into_iter().peekable();
        let mut begun = false;
        while let Some(part) = parts.next() {
            let last = parts.peek().is_none();
            match part {
                Part::Writes(writes) => {
                    let needs = Needs::of(writes);
                    let held = self.lease.filter(|_| !begun);
                    let survey = Survey::of(&needs, !begun, held.is_some());
                    let answers = session.round(&survey.asks).await;
                    let answers = answers.map_err(|unanswered| unanswered.trouble())?;
                    if held.is_some() {
                        check_lease(held, answers.get(1).and_then(|rows| rows.first()))?;
                    }
                    let mut ground = Ground::default();
                    survey.take(&mut ground, &answers)?;
                    for write in writes {
                        applied.push(decide(&mut ground, write)?);
                    }
                    let mut asks = Writing::of(&ground, &mut self.contexts)?.0;
                    if last && !begun && !ground.is_changed() {
                        asks = vec![Ask::Plain("COMMIT")];
                        let looked = session.round(&asks).await;
                        looked.map_err(|unanswered| unanswered.trouble())?;
                        return Ok(applied);
                    }
                    if last {
                        end(&mut asks);
                        finish(session, &asks, &applied).await?;
                        self.committed = self.number;
                    } else {
                        let written = session.round(&asks).await;
                        written.map_err(|unanswered| unanswered.trouble())?;
                    }
                }
                Part::Purge(before, at_most) => {
                    if !begun {
                        self.begin(session).await?;
                    }
                    let purged = purge::purge(session, before, at_most).await?;
                    applied.push(Applied::Purged(purged));
                    if last {
                        let mut asks = Vec::new();
                        end(&mut asks);
                        finish(session, &asks, &applied).await?;
                        self.committed = self.number;
                    }
                }
            }
            begun = true;
        }
        Ok(applied)
    }

    /// Begins a transaction that asks for nothing yet.
    async fn begin(&self, session: &Session) -> Result<(), Ended> {
        let needs = Needs::default();
        let survey = Survey::of(&needs, true, self.lease.is_some());
        let begun = session.round(&survey.asks).await;
        let begun = begun.map_err(|unanswered| unanswered.trouble())?;
        if self.lease.is_some() {
            check_lease(self.lease, begun.get(1).and_then(|rows| rows.first()))?;
        }
        Ok(())
    }

    /// Ends what may be open, so that the next transaction can begin.
    async fn take_back(&mut self) {
        if let Some(session) = &self.session
            && session.round(&[Ask::Plain("ROLLBACK")]).await.is_err()
        {
            self.session = None;
        }
    }

    /// Connects anew and finds out what became of the last transaction.
    async fn look(&mut self, address: &Address) -> Result<bool, StoreError> {
        self.session = Some(Session::open(address).await?);
        self.read_back().await
    }

    /// Whether the last transaction took place. If not, it never will.
    async fn read_back(&mut self) -> Result<bool, StoreError> {
        let session = self.session.as_ref().ok_or_else(no_session)?;
        let again = session
            .query(
                "INSERT INTO transactions (process, number) VALUES ($1, $2)",
                values![self.process, self.number],
            )
            .await;
        let took_place = match again {
            Ok(_) => false,
            Err(Trouble::Again(_)) => self.is_there().await?,
            Err(trouble) => {
                self.session = None;
                return Err(trouble.into_error());
            }
        };
        self.in_doubt = false;
        if took_place {
            self.committed = self.number;
        }
        tracing::warn!(
            took_place,
            "the last transaction was in doubt and was read back"
        );
        Ok(took_place)
    }

    async fn is_there(&self) -> Result<bool, StoreError> {
        let session = self.session.as_ref().ok_or_else(no_session)?;
        let found = session
            .query(
                "SELECT 1 FROM transactions WHERE process = $1 AND number = $2",
                values![self.process, self.number],
            )
            .await?;
        match found.is_empty() {
            false => Ok(true),
            // Another attempt to read it back was in the way.
            true => Err(StoreError::Failed("what was in doubt still is".into())),
        }
    }
}

/// The commit point: what was decided is sent together with `COMMIT`. Before that the database
/// holds nothing that counts, and a crash leaves the store as it was. After it, the transaction is
/// there whole or not at all, and its own row says which.
async fn finish(session: &Session, asks: &[Ask<'_>], applied: &[Applied]) -> Result<(), Ended> {
    let Err(Unanswered { at, error }) = session.round(asks).await else {
        return Ok(());
    };
    let Some(error) = error else {
        let why = Trouble::late().into_error().to_string();
        return Err(Ended::InDoubt(applied.to_vec(), why));
    };
    let trouble = Trouble::of(&error);
    let before_commit = at + 1 < asks.len();
    let unknown = error.code().is_none_or(|code| code.code() == "40003");
    if !unknown && before_commit {
        // What a statement was refused for has ended the transaction.
        return Err(trouble.into());
    }
    if !unknown && refused_at_commit(&error) {
        return Err(Ended::Again(trouble.into_error()));
    }
    let why = trouble.into_error().to_string();
    Err(Ended::InDoubt(applied.to_vec(), why))
}

/// Whether nobody else has taken over.
fn check_lease(held: Option<i64>, row: Option<&tokio_postgres::Row>) -> Result<(), StoreError> {
    let number: Option<i64> = row.map(|row| super::rows::get(row, 0)).transpose()?;
    if number == held {
        return Ok(());
    }
    Err(StoreError::Failed(
        "another server has taken over this store".into(),
    ))
}

fn no_session() -> StoreError {
    StoreError::Failed("there is no connection to the database".into())
}

fn parts(writes: &[Write]) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let purge = |write: &Write| matches!(write, Write::Purge(..));
    for some in writes.chunk_by(|a, b| !purge(a) && !purge(b)) {
        parts.push(match some {
            [Write::Purge(before, at_most)] => Part::Purge(*before, *at_most),
            some => Part::Writes(some),
        });
    }
    parts
}

/// How long to wait before the next attempt: up to a bound that doubles.
fn wait(attempt: u32) -> Duration {
    let bound = (WAIT_MIN_MS << attempt.min(16)).min(WAIT_MAX_MS);
    let mut random = [0; 8];
    // Without a random number it waits for as long as it may.
    let fraction = match aws_lc_rs::rand::fill(&mut random) {
        Ok(()) => u64::from_be_bytes(random) % 1000,
        Err(_) => 1000,
    };
    Duration::from_micros(bound * fraction)
}
