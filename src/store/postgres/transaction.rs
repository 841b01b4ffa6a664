//! Transactions: floor 2, `store/postgres`. The one place that begins, commits and takes back.
//!
//! A transaction is two rounds: one begins it, locks and reads what its writes rest on, the other
//! writes what was decided and commits. What is decided of new bundles is sent while the rest is
//! decided, and the caller has time for something else once all is sent: the database is what takes
//! longest. (A purge has rounds of its own, and what comes after it begins anew.)
//!
//! Each leaves a row under the number that this process gave it, and what others have to hear of it
//! under the same number. Where the answer to `COMMIT` is
//! lost, the same row is inserted once more: either it is there, and the transaction took place, or
//! it can be inserted, and the transaction never can be any more, wherever it was under way. Only
//! then is anything answered.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::calls::Calls;
use super::contexts::Contexts;
use super::ended::{Ended, finish};
use super::error::Trouble;
use super::fences;
use super::ground::Ground;
use super::needs::Needs;
use super::parts::{Part, decide_next, parts};
use super::purge;
use super::session::{Address, Ask, Session, values};
use super::signatures;
use super::standings::Standings;
use super::survey::Survey;
use super::touched::Touched;
use super::turn::{self, STEP_BACK, STEPS_BACK_MAX, wait};
use super::write::Writing;
use super::write_bundles::{SENT_AT_ONCE, bundles};
use crate::store::whole::Position;
use crate::store::{Applied, Lease, StoreError, Write, signed};

/// The connection that writes, and what its process knows.
pub(super) struct Writer {
    pub(super) session: Option<Session>,
    pub(super) process: Uuid,
    /// Of the last transaction.
    pub(super) number: i64,
    /// Of the last one that was committed and has left a row; 0 before the first.
    pub(super) committed: i64,
    /// Whether nobody knows what became of it.
    pub(super) in_doubt: bool,
    /// Fleets at which a turn was asked for.
    turn: Vec<Uuid>,
    /// How often this transaction has stepped back for others.
    stepped_back: u32,
    /// Whether something stood in its way: then what is to be new is looked for.
    in_the_way: bool,
    standings: Standings,
    calls: Calls,
    contexts: Contexts,
}

impl Writer {
    pub(super) fn new(session: Session, process: Uuid) -> Self {
        Self {
            session: Some(session),
            process,
            number: 0,
            committed: 0,
            in_doubt: false,
            turn: Vec::new(),
            stepped_back: 0,
            in_the_way: false,
            standings: Standings::default(),
            calls: Calls::default(),
            contexts: Contexts::default(),
        }
    }

    /// Forgets what it knows of the database, which was emptied or filled by other means.
    pub(super) fn forget(&mut self) {
        self.standings = Standings::default();
        self.calls = Calls::default();
        self.contexts = Contexts::default();
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

    /// Goes on over another connection, once it is known what became of the last transaction.
    pub(super) async fn resume(&mut self, session: Session) -> Result<(), StoreError> {
        self.check_reached(&session).await?;
        self.session = Some(session);
        if self.in_doubt {
            self.read_back().await?;
        }
        Ok(())
    }

    /// Commits, trying again where others were in the way. Calls `beside` while it waits
    /// for what was sent last.
    pub(super) async fn commit(
        &mut self,
        address: &Address,
        attempts_max: u32,
        writes: &[Write],
        beside: &mut dyn FnMut(),
    ) -> Result<Vec<Applied>, StoreError> {
        let mut connected_anew = false;
        let mut attempt = 0;
        (self.turn, self.stepped_back, self.in_the_way) = (Vec::new(), 0, false);
        loop {
            attempt += 1;
            let why = match self.attempt(address, writes, beside).await {
                Ok(applied) => return Ok(applied),
                Err(Ended::Failed(why)) => return Err(why),
                Err(Ended::SteppedBack) => {
                    attempt -= 1;
                    self.stepped_back += 1;
                    tokio::time::sleep(STEP_BACK).await;
                    continue;
                }
                Err(Ended::Again(why)) => {
                    self.in_the_way = true;
                    self.ask_for_turn(writes).await;
                    why
                }
                // An idle connection may have been cut long ago.
                Err(Ended::Lost(why)) if connected_anew => return Err(why),
                Err(Ended::Lost(why)) => {
                    connected_anew = true;
                    why
                }
                Err(Ended::InDoubt(applied, why)) => {
                    self.in_doubt = true;
                    let found = self.look(address).await;
                    if let Ok(true) = found {
                        self.committed = self.number;
                        self.contexts.committed();
                        return Ok(applied);
                    }
                    self.contexts.forget();
                    match found {
                        Ok(_) => StoreError::Failed(why),
                        Err(_) => return Err(StoreError::Unknown(why)),
                    }
                }
            };
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
        beside: &mut dyn FnMut(),
    ) -> Result<Vec<Applied>, Ended> {
        if self.session.as_ref().is_none_or(Session::is_closed) {
            let session = Session::open(address).await.map_err(Ended::Lost)?;
            let session = session.committing(address);
            self.check_reached(&session).await?;
            self.session = Some(session);
            self.standings = Standings::default();
            self.calls = Calls::default();
        }
        self.number += 1;
        let ended = self.run(writes, beside).await;
        if ended.is_err() {
            // Some of it may have been read of what was taken back.
            self.standings = Standings::default();
            self.calls = Calls::default();
        }
        match &ended {
            Ok(_) => self.contexts.committed(),
            // It will be known.
            Err(Ended::InDoubt(..)) => {}
            Err(_) => self.contexts.forget(),
        }
        match &ended {
            Ok(_) => {}
            Err(Ended::Lost(_) | Ended::InDoubt(..)) => self.session = None,
            Err(Ended::Again(_) | Ended::SteppedBack | Ended::Failed(_)) => self.take_back().await,
        }
        ended
    }

    /// Asks for a turn, where fleets are to be held alone.
    async fn ask_for_turn(&mut self, writes: &[Write]) {
        let fleets = turn::alone(writes);
        if let Some(session) = &self.session
            && !fleets.is_empty()
            // Not asked for now, it is after the next attempt.
            && turn::ask(session, &fleets).await.is_ok()
        {
            self.turn = fleets;
        }
    }

    #[expect(clippy::too_many_lines, reason = "one part after the other")]
    async fn run(
        &mut self,
        all: &[Write],
        beside: &mut dyn FnMut(),
    ) -> Result<Vec<Applied>, Ended> {
        let session = self.session.as_ref().ok_or_else(no_session)?;
        let mut applied = Vec::with_capacity(all.len());
        let mut touched = Touched::default();
        let mut parts = parts(all).into_iter().peekable();
        let mut begun = false;
        let counting = all.iter().any(|it| matches!(it, Write::Signed(_)));
        let mut purged_versions = BTreeMap::new();
        // What was purged is purged again: nobody misses that.
        let mut missed = false;
        while let Some(part) = parts.next() {
            let last = parts.peek().is_none();
            // What was decided lives as long as what is written of it.
            let mut ground = Ground::default();
            // What is decided is sent as it comes, as far as it can be.
            let mut line = session.line();
            let mut asks = Vec::new();
            match part {
                Part::Writes(writes) => {
                    let mut needs = self.needs(writes);
                    let begin = (!begun).then_some(self.begin(&needs));
                    let heed = self.stepped_back < STEPS_BACK_MAX;
                    let relied = self.standings.recall(&mut needs, &mut ground);
                    self.calls.recall(&mut needs, &mut ground.calls);
                    survey(session, &needs, begin, heed, &mut ground).await?;
                    if ground.turn_of_another {
                        return Err(Ended::SteppedBack);
                    }
                    if !Standings::stand(&relied, &ground) {
                        (needs, ground) = survey_anew(session, writes, ground).await?;
                    }
                    Calls::check(&mut ground.calls)?;
                    Standings::learn(&needs, &mut ground);
                    let answered = applied.len();
                    for _ in writes {
                        applied.push(decide_next(&mut ground, writes, &applied[answered..])?);
                        if ground.changes.bundles.len() >= SENT_AT_ONCE {
                            let new = std::mem::take(&mut ground.changes.bundles);
                            let sent = line.send(bundles(new, &mut self.contexts)?).await;
                            sent.map_err(|unanswered| unanswered.trouble())?;
                        }
                    }
                    let is_changed = line.len() > 0 || ground.is_changed();
                    if last && !begun && !counting && !is_changed {
                        let looked = session.round(&[Ask::Plain("COMMIT")]).await;
                        looked.map_err(|unanswered| unanswered.trouble())?;
                        self.standings.keep(&mut ground);
                        self.calls.keep(&mut ground.calls);
                        return Ok(applied);
                    }
                    missed |= is_changed;
                    touched.add(&ground);
                    let new = std::mem::take(&mut ground.changes.bundles);
                    asks = bundles(new, &mut self.contexts)?;
                    asks.extend(Writing::of(&ground)?.0);
                }
                Part::Purge(before, at_most, lease) => {
                    let begin = (!begun).then_some(turn::BEGIN);
                    if is_held(session, lease, begin).await? {
                        let purged = purge::purge(session, before, at_most).await?;
                        self.calls = Calls::default();
                        if purged.of_books {
                            touched.purged = touched.purged.max(Some(before));
                        }
                        for (epoch, count) in purged.versions {
                            *purged_versions.entry(epoch).or_default() += count;
                        }
                        applied.push(Applied::Purged(purged.authorizations));
                    } else {
                        applied.push(Applied::Stale);
                    }
                }
            }
            if last {
                let counts = signed::counts(all, &applied, &purged_versions);
                if !counts.is_empty() {
                    asks.push(signatures::put(&counts)?);
                }
                self.end(&mut asks, &touched)?;
                finish(line, asks, &applied, beside).await?;
                if missed {
                    self.committed = self.number;
                }
            } else {
                let sent = line.send(asks).await;
                sent.map_err(|unanswered| unanswered.trouble())?;
                let written = line.answers().await;
                written.map_err(|unanswered| unanswered.trouble())?;
            }
            self.standings.keep(&mut ground);
            self.calls.keep(&mut ground.calls);
            begun = true;
        }
        Ok(applied)
    }

    fn needs(&self, writes: &[Write]) -> Needs {
        match self.in_the_way {
            false => Needs::trusting(writes, &self.standings),
            true => Needs::of(writes),
        }
    }

    /// What begins a transaction that needs this.
    fn begin(&self, needs: &Needs) -> &'static str {
        match self.turn.is_empty() && !needs.fleets_alone.is_empty() {
            true => turn::BEGIN_IMPATIENT,
            false => turn::BEGIN,
        }
    }

    /// What every transaction ends with: its own row, what others have to hear of it, and `COMMIT`.
    /// Where the last one of this process is gone, the database was put back beneath it, and there
    /// is no row without a number.
    fn end(&self, asks: &mut Vec<Ask<'_>>, touched: &Touched) -> Result<(), StoreError> {
        asks.push(Ask::Query(
            "INSERT INTO transactions (process, number) VALUES ($1, CASE WHEN $3::bigint = 0 OR EXISTS (
                 SELECT 1 FROM transactions WHERE process = $1 AND number >= $3) THEN $2::bigint END)",
            values![self.process, self.number, self.committed],
        ));
        if !touched.is_empty() {
            asks.push(Ask::Query(
                "INSERT INTO changes (process, number, body) VALUES ($1, $2, $3)",
                values![self.process, self.number, touched.encode()?],
            ));
            asks.push(Ask::Query(
                "INSERT INTO writers (process, number, at) VALUES ($1, $2, now())
                 ON CONFLICT (process) DO UPDATE SET number = excluded.number, at = excluded.at",
                values![self.process, self.number],
            ));
        }
        if !self.turn.is_empty() {
            asks.push(turn::end(&self.turn));
        }
        asks.push(Ask::Plain("COMMIT"));
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
}

/// Whether a lease is held, where there is one to be held; nobody else takes it until the end.
async fn is_held(
    session: &Session,
    lease: Option<Lease>,
    begin: Option<&'static str>,
) -> Result<bool, Ended> {
    let (mut needs, mut ground) = (Needs::default(), Ground::default());
    needs.leases.extend(lease.map(|lease| lease.task));
    survey(session, &needs, begin, false, &mut ground).await?;
    Ok(lease.is_none_or(|lease| ground.holds(lease)))
}

/// Locks and reads what `needs` says.
async fn survey(
    session: &Session,
    needs: &Needs,
    begin: Option<&'static str>,
    heed: bool,
    ground: &mut Ground,
) -> Result<(), Ended> {
    let survey = Survey::of(needs, begin, heed);
    let answers = match session.round(&survey.asks).await {
        Ok(answers) => answers,
        Err(unanswered) => {
            let trouble = unanswered.trouble();
            return Err(match trouble {
                // It has waited for fleets as long as it would without its turn.
                Trouble::Failed(why) if begin == Some(turn::BEGIN_IMPATIENT) => Ended::Again(why),
                trouble => trouble.into(),
            });
        }
    };
    survey.take(ground, &answers)?;
    Ok(())
}

/// Reads everything again, without relying on how it stood; of calls everything was asked for.
async fn survey_anew(
    session: &Session,
    writes: &[Write],
    before: Ground,
) -> Result<(Needs, Ground), Ended> {
    let (mut needs, mut ground) = (Needs::of(writes), Ground::with_calls(before.calls));
    needs.calls.clear();
    survey(session, &needs, None, false, &mut ground).await?;
    Ok((needs, ground))
}

pub(super) fn no_session() -> StoreError {
    StoreError::Failed("there is no connection to the database".into())
}
