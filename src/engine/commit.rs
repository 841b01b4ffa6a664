//! Stage 5, commit: one thread owns the store's writer and the book.
//!
//! Each round takes the signed batches and the other writes that wait, commits them in one
//! durable transaction, brings the book up to date, and answers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::nodes::{HEAR_EVERY, HEAR_SOON, Told};
use super::reserve::Outcome;
use super::sign::{self, Signed, SignedBatch, What};
use super::ticket::Ticket;
use super::{Shared, limits, recover, store_unavailable};
use crate::concurrent::channel::{Receiver, after, never, select};
use crate::concurrent::oneshot;
use crate::domain::{BundleId, Refusal, RefusalCode};
use crate::store::{Applied, News, Redemption, Renewal, Write};

/// The most batches of one transaction.
const BATCHES_MAX: usize = 2;

/// The most callers whose other writes one transaction takes beside its batches and the write that
/// began it.
const WRITES_MAX: usize = 1024;

/// Transactions tried for one group before its callers are told that the store does not answer.
const ATTEMPTS_MAX: usize = 3;

/// What is said of an order whose `ref` was used for another.
pub(super) const REPLAYED: &str = "this ref was used with other content under this Idempotency-Key";

type Reply = oneshot::Sender<Result<Vec<Applied>, Refusal>>;

/// What the committer is asked to write, apart from batches.
pub(super) enum WriteJob {
    /// Write these, in this order, and say what became of them.
    Commit { writes: Vec<Write>, reply: Reply },
    /// Nothing more will come.
    Stop,
}

/// Who waits for a part of a transaction.
pub(super) enum Waiter {
    /// A redemption or an order: one write.
    Redemption(Ticket, Arc<Redemption>),
    /// A renewal: one write.
    Renewal(Ticket),
    /// A caller with so many writes.
    Writes(usize, Reply),
}

/// One transaction's writes, and who waits for them, in the same order; what nobody waits for is
/// last.
#[derive(Default)]
pub(super) struct Group {
    pub(super) writes: Vec<Write>,
    pub(super) waiters: Vec<Waiter>,
    /// Whether some of it may be on disk already.
    pub(super) in_doubt: bool,
}

impl Group {
    pub(super) fn push_redemption(&mut self, ticket: Ticket, redemption: Arc<Redemption>) {
        self.writes.push(Write::Redeem(Arc::clone(&redemption)));
        self.waiters.push(Waiter::Redemption(ticket, redemption));
    }

    fn push_renewal(&mut self, ticket: Ticket, renewal: Arc<Renewal>) {
        self.writes.push(Write::Renew(renewal));
        self.waiters.push(Waiter::Renewal(ticket));
    }

    fn push_writes(&mut self, writes: Vec<Write>, reply: Reply) {
        self.waiters.push(Waiter::Writes(writes.len(), reply));
        self.writes.extend(writes);
    }
}

/// Batches that are made ready for the next transaction.
#[derive(Default)]
struct Next {
    group: Group,
    batches: usize,
}

/// The thread that commits.
pub(super) struct Committer {
    shared: Arc<Shared>,
    batches: Receiver<SignedBatch>,
    jobs: Receiver<WriteJob>,
    /// Who wants the book to be abreast of other nodes.
    asks: Receiver<Told>,
    waiting: Vec<Told>,
    /// What was made ready while the store worked.
    next: Next,
    /// When it was looked last what others have committed, and whether in vain.
    heard_at: Duration,
    deaf: bool,
}

impl Committer {
    pub(super) fn new(
        shared: Arc<Shared>,
        batches: Receiver<SignedBatch>,
        jobs: Receiver<WriteJob>,
        asks: Receiver<Told>,
    ) -> Self {
        Self {
            heard_at: shared.clock.monotonic(),
            shared,
            batches,
            jobs,
            asks,
            waiting: Vec::new(),
            next: Next::default(),
            deaf: false,
        }
    }

    pub(super) fn run(mut self) {
        let mut open = true;
        while open {
            let mut next = std::mem::take(&mut self.next);
            if next.group.writes.is_empty() {
                open = self.wait(&mut next);
            }
            open = open && self.gather(&mut next);
            self.commit(next.group);
            if self.hear_in() == Some(Duration::ZERO) {
                self.hear();
            }
        }
        // The issuer has ended before anybody says stop: what it signed last may still wait here.
        loop {
            let mut next = std::mem::take(&mut self.next);
            self.add_batches(&mut next);
            if next.batches == 0 {
                break;
            }
            self.commit(next.group);
        }
        self.write_tally();
    }

    /// Writes down at the end what was signed. Where that fails, it is as if the process had been
    /// killed.
    fn write_tally(&self) {
        let Some(so_far) = self.shared.tally.at_the_end() else {
            return;
        };
        if let Err(error) = self.shared.store.commit(&[so_far]) {
            tracing::warn!(%error, "what was signed last is not counted");
        }
    }

    /// Waits for something to be written. Returns whether more may come.
    fn wait(&mut self, next: &mut Next) -> bool {
        let due = self.hear_in().map_or_else(never, after);
        let mut more = true;
        select! {
            recv(self.asks) -> told => match told {
                Ok(told) => self.waiting.push(told),
                Err(_) => self.asks = never(),
            },
            recv(due) -> _ => self.hear(),
            recv(self.batches) -> batch => match batch {
                Ok(batch) => self.add_batch(next, batch),
                // The issuer has ended; jobs may still come.
                Err(_) => self.batches = never(),
            },
            recv(self.jobs) -> job => {
                more = add_job(&mut next.group, job.unwrap_or(WriteJob::Stop));
            },
        }
        more
    }

    /// In how long it is to be heard what other nodes have committed; never on one node.
    fn hear_in(&self) -> Option<Duration> {
        self.shared.nodes.as_ref()?;
        let pause = match self.waiting.is_empty() {
            true => HEAR_EVERY,
            false => HEAR_SOON,
        };
        let passed = self.shared.clock.monotonic().saturating_sub(self.heard_at);
        Some(pause.saturating_sub(passed))
    }

    /// Takes in what other nodes have committed, between two commits of this one: so what is read
    /// is never older than what is in the book. Whoever asked before is told.
    fn hear(&mut self) {
        let (Some(node), Some(store)) = (&self.shared.nodes, self.shared.store.nodes()) else {
            return;
        };
        self.waiting.extend(self.asks.try_iter());
        let began = self.shared.clock.monotonic();
        let mut news = Vec::new();
        let book = &self.shared.book;
        let heard = store.news(&mut |row| news.push(row));
        let heard = heard.and_then(|what| match what {
            News::Told => {
                book.hear(news);
                Ok(())
            }
            News::TooMuch => book.load(&*self.shared.store),
        });
        self.heard_at = self.shared.clock.monotonic();
        match heard {
            Ok(()) => {
                self.deaf = false;
                node.heard(began);
                for told in self.waiting.drain(..) {
                    // Whoever does not wait any more has gone on without it.
                    let _ = told.send(());
                }
            }
            Err(error) => {
                tracing::warn!(%error, "what other nodes have committed is not heard");
                // Whoever waits is told so as it is dropped.
                self.waiting.clear();
                if std::mem::replace(&mut self.deaf, true) {
                    self.shared.health.store_down.store(true, Ordering::Relaxed);
                    self.deaf = !recover::reopen(&self.shared);
                }
            }
        }
    }

    /// Adds a signed batch, once its sample has been verified.
    fn add_batch(&self, next: &mut Next, batch: SignedBatch) {
        let group = &mut next.group;
        next.batches += 1;
        let signed = sign::finish(&self.shared, batch);
        group.writes.reserve(signed.len());
        group.waiters.reserve(signed.len());
        for Signed { ticket, what } in signed {
            match what {
                What::Redemption(redemption) => group.push_redemption(ticket, redemption),
                What::Renewal(renewal) => group.push_renewal(ticket, renewal),
            }
        }
    }

    /// Adds signed batches that wait already.
    fn add_batches(&self, next: &mut Next) {
        while next.batches < BATCHES_MAX
            && let Ok(batch) = self.batches.try_recv()
        {
            self.add_batch(next, batch);
        }
    }

    /// Adds what else waits already. Returns whether more may come.
    fn gather(&mut self, next: &mut Next) -> bool {
        self.waiting.extend(self.asks.try_iter());
        self.add_batches(next);
        // Whatever the batches take: others must not wait for as long as orders come.
        self.jobs
            .try_iter()
            .take(WRITES_MAX)
            .all(|job| add_job(&mut next.group, job))
    }

    fn commit(&mut self, mut group: Group) {
        // Nobody waits for it, and it comes with what is committed anyway.
        if !group.writes.is_empty()
            && let Some(used) = self.shared.book.uses.due(self.shared.clock.unix())
        {
            group.writes.push(Write::TokensUsed(used));
        }
        self.shared.tally.take_on(&group.writes);
        for _ in 0..ATTEMPTS_MAX {
            if group.writes.is_empty() {
                return;
            }
            self.shared.tally.come_along(&mut group.writes);
            // THE COMMIT POINT. A crash before this line returns leaves every code set of the
            // group open, and nothing has been given out; the status indexes counted out for it
            // are counted out again, for no key that left the server has them. A crash after it
            // leaves every bundle of the group complete on disk, answered or not, and the same
            // request is answered with it.
            let mut next = std::mem::take(&mut self.next);
            let committed = self
                .shared
                .store
                .commit_beside(&group.writes, &mut || self.add_batches(&mut next));
            self.next = next;
            match committed {
                Ok(applied) if applied.len() == group.writes.len() => {
                    return self.answer(group, &applied);
                }
                Ok(_) => {
                    tracing::error!("the store's answer does not fit the question");
                    return refuse(group);
                }
                Err(error) => {
                    self.shared.health.store_down.store(true, Ordering::Relaxed);
                    self.shared.tally.not_written();
                    metrics::counter!("fob_commit_failures_total").increment(1);
                    tracing::error!(%error, "a commit failed; reopening the store");
                    if !recover::reopen(&self.shared) {
                        return refuse(group);
                    }
                    group = recover::settle(&self.shared, group, error.may_have_happened());
                }
            }
        }
        // The store opens and reads but does not commit. Let go of this group, so that one
        // write it cannot take does not stop all others.
        if !group.in_doubt {
            self.shared.tally.let_go(&group.writes, &[]);
        }
        refuse(group);
    }

    /// Brings the book up to date, then answers: who has been answered finds the book so.
    fn answer(&self, group: Group, applied: &[Applied]) {
        for (write, applied) in group.writes.iter().zip(applied) {
            self.shared.book.apply(write, *applied);
        }
        if !group.in_doubt {
            self.shared.tally.settle(&group.writes, applied);
        }
        // Before anybody is told: who has an answer finds it counted.
        count(&group.writes, applied);
        let mut rest = applied;
        for waiter in group.waiters {
            let count = match &waiter {
                Waiter::Redemption(..) | Waiter::Renewal(_) => 1,
                Waiter::Writes(count, _) => *count,
            };
            let (own, others) = rest.split_at(count);
            rest = others;
            match waiter {
                Waiter::Redemption(ticket, redemption) => {
                    let outcome = outcome(redemption, own.first().copied());
                    ticket.resolve(outcome);
                }
                // What stands otherwise by now is looked at again, or was done.
                Waiter::Renewal(ticket) => ticket.resolve(match own {
                    [Applied::Done] => Outcome::Renewed,
                    _ => Outcome::Released,
                }),
                Waiter::Writes(_, reply) => drop(reply.send(Ok(own.to_vec()))),
            }
        }
    }
}

/// Counts a transaction, and the keys whose signatures it has made durable.
fn count(writes: &[Write], applied: &[Applied]) {
    let (mut issued, mut renewed) = (0_u64, 0_u64);
    for (write, applied) in writes.iter().zip(applied) {
        match write {
            Write::Redeem(redemption) if *applied == Applied::Done => {
                issued += redemption.signed.bundle.keys.len() as u64;
            }
            Write::Renew(renewal) if *applied == Applied::Done => {
                issued += renewal.signed.bundle.keys.len() as u64;
                renewed += 1;
            }
            Write::Rule(ruled) if *applied == Applied::Done => limits::note_frozen(ruled),
            _ => {}
        }
    }
    metrics::counter!("fob_commits_total").increment(1);
    metrics::counter!("fob_keys_issued_total").increment(issued);
    if renewed > 0 {
        metrics::counter!("fob_bundles_renewed_total").increment(renewed);
    }
}

/// What whoever waits for a redemption or an order is told.
fn outcome(redemption: Arc<Redemption>, applied: Option<Applied>) -> Outcome {
    let is_order = redemption.order.is_some();
    match applied {
        Some(Applied::Done) => Outcome::Issued(redemption),
        Some(Applied::Repeated(authorization)) => Outcome::Answered(BundleId(authorization.0)),
        Some(Applied::Conflict) if is_order => {
            let refusal = Refusal::new(RefusalCode::CommandReplayed);
            Outcome::Refused(refusal.field("ref").detail(REPLAYED))
        }
        // What no longer holds goes back to admit, which knows why.
        _ => Outcome::Released,
    }
}

fn add_job(group: &mut Group, job: WriteJob) -> bool {
    match job {
        WriteJob::Commit { writes, reply } => {
            group.push_writes(writes, reply);
            true
        }
        WriteJob::Stop => false,
    }
}

/// Tells everybody in the group that the store does not answer.
pub(super) fn refuse(group: Group) {
    for waiter in group.waiters {
        match waiter {
            Waiter::Redemption(ticket, _) | Waiter::Renewal(ticket) => {
                ticket.resolve(Outcome::Refused(store_unavailable()));
            }
            Waiter::Writes(_, reply) => drop(reply.send(Err(store_unavailable()))),
        }
    }
}
