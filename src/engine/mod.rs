//! Floor 3, the engine: admit → batch → prepare → sign → commit.
//!
//! | room | what it does |
//! |---|---|
//! | [`admit`] | checks every rule in the caller's thread, reserves the code set, hands over once |
//! | [`batch`] | closes a batch when it is full or old enough, and drives it through the stages |
//! | [`prepare`] | ids, status indexes, claims, the bytes to sign |
//! | [`sign`] | one call into the HSM for the whole batch; samples are verified |
//! | [`stations`] | which token signs a batch; what is done with one that does not |
//! | [`commit`] | **the** commit point; then the waiters are answered |
//! | [`recover`] | after a failed commit: reopen, read back, go on |
//! | [`book`], [`reserve`] | what is durable, in memory; what is in flight |
//! | `ticket`, `pace` | who waits for an item; how fast the HSM signs |
//! | `pin`, `turns` | the PIN, counted and compared; one attempt after the other |
//! | [`rebuild`] | a bundle's keys again, from what is stored |
//! | [`authenticate`] | who calls |
//! | [`amend`], `change`, `plan`, `reissue`, [`certain`] | changes and ends, keys issued again, when that is certain |
//! | [`revoke`], [`reset`], [`follow`] | the same for many at once, for a whole vehicle; keys that follow |
//! | [`erase`] | an identity's data go |
//! | [`statuses`], [`lists`], [`sync`] | how keys stand; the lists that say so; what cars are told |
//! | [`orders`] | authorization and redemption in one, many at once |
//! | [`renew`] | bundles of a revoked epoch, signed again as they are |
//! | [`authorize`], `asked`, [`registry`], `put`, [`import`], [`operate`] | the other writes: owners', back ends', many at once, operators' |
//! | [`attest`] | a terminal that another of its identity vouches for |
//! | [`requests`] | what a borrower's terminal asks for, until somebody answers it |
//! | [`rulebook`], [`ruling`] | what fleets rule; how that comes about |
//! | `case`, [`explain`] | the rules about who gets which keys, in one list; the same, explained |
//! | [`meter`], `limits`, [`brake`] | how fast somebody asks; what is limited, frozen and approved |
//! | `hooks` | checks that live elsewhere: what is asked before admission, and remembered |
//! | [`recent`] | what was redeemed lately, for rules about context |
//! | [`rotate`], `generate`, [`ceremony`] | the life of epochs; their keys; what the root signs |
//! | [`records`], [`consent`] | the signed record of every step; the approval it may need |
//! | [`audit`] | whether what the store holds fits together |
//! | `nodes` | this node among others over one store: what they have committed, leases, blocks |
//! | [`keep`] | what has to happen with time: epochs, purging |
//! | [`found`], [`trust`] | a new issuer: keys, first epoch, first trust list |
//!
//! A value of a stage's type is made by that stage alone and moved into the next, so signing
//! twice or answering before the commit does not type-check.
//!
//! Deliberately not here: HTTP, JSON shapes, status codes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::clock::Clock;
use crate::concurrent::channel::{Sender, TrySendError, bounded};
use crate::concurrent::thread::{self, JoinHandle};
use crate::concurrent::{self, oneshot};
use crate::domain::code_set::CodeSetKey;
use crate::domain::{Epoch, EpochState, Refusal, RefusalCode, UnixTime};
use crate::hsm::{Signer, TokenStatus};
use crate::store::{Applied, Store, StoreError, Write};

pub mod admit;
pub mod amend;
mod asked;
pub mod attest;
pub mod audit;
pub mod authenticate;
pub mod authorize;
pub mod batch;
pub mod book;
pub mod brake;
mod caller;
mod case;
pub mod ceremony;
pub mod certain;
mod change;
pub mod commit;
pub mod consent;
pub mod erase;
pub mod explain;
pub mod follow;
pub mod found;
mod generate;
mod hooks;
pub mod ids;
pub mod import;
pub mod jws;
pub mod keep;
mod limits;
pub mod lists;
mod marks;
pub mod meter;
mod nodes;
pub mod operate;
pub mod orders;
pub mod outcome;
mod pace;
mod pin;
mod plan;
pub mod prepare;
mod put;
pub mod read;
pub mod rebuild;
pub mod recent;
pub mod records;
pub mod recover;
pub mod registry;
mod reissue;
pub mod renew;
pub mod requests;
pub mod reserve;
pub mod reset;
pub mod revoke;
pub mod rotate;
pub mod rulebook;
pub mod ruling;
pub mod settings;
pub mod sign;
pub mod stations;
pub mod statuses;
pub mod sync;
mod tally;
mod ticket;
pub mod trust;
mod turns;

pub use book::Book;
pub use settings::EngineSettings;
use stations::Stations;
pub use stations::{Issuing, StationStatus};

/// What an engine is made of.
pub struct Parts {
    /// Who signs: at least one token.
    pub tokens: Vec<Issuing>,
    /// Where it is durable.
    pub store: Arc<dyn Store>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// What code sets and PINs are derived from.
    pub code_set_key: CodeSetKey,
    /// Bounds and addresses.
    pub settings: EngineSettings,
}

/// Why a call was not answered with what it asked for.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A decision.
    #[error("{0}")]
    Refused(Refusal),
    /// A fault nobody listed; its text is for the log alone.
    #[error("{0}")]
    Fault(String),
}

impl Failure {
    /// The word for it in an answer that has many: a refusal's code, or `fault`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.code.code(),
            Self::Fault(_) => "fault",
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<RefusalCode> for Failure {
    fn from(code: RefusalCode) -> Self {
        Self::Refused(code.into())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Failed(_) | StoreError::Unknown(_) => {
                tracing::warn!(%error, "the store did not answer");
                Self::Refused(Refusal::new(RefusalCode::StoreUnavailable).retry_after(1))
            }
            StoreError::Corrupt(_) | StoreError::Schema { .. } => Self::Fault(error.to_string()),
        }
    }
}

/// What the stages share.
pub(crate) struct Shared {
    stations: Stations,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) code_set_key: CodeSetKey,
    pub(crate) settings: EngineSettings,
    pub(crate) book: Book,
    pub(crate) reservations: Arc<reserve::Reservations>,
    pub(crate) turns: turns::Turns,
    pub(crate) ids: ids::Ids,
    pub(crate) pace: pace::Pace,
    pub(crate) queue: pace::Queue,
    pub(crate) health: Health,
    pub(crate) tally: tally::Tally,
    pub(crate) limits: limits::Limits,
    pub(crate) hooks: hooks::Hooks,
    /// Where others serve from the same store.
    nodes: Option<nodes::Node>,
}

/// What the pipeline says of itself, beside its stations. `store_down` is written by the committer
/// alone. `draining` is raised by whoever shuts down. `epochs_low` is the keeper's, so that it says
/// so once. Relaxed is enough: a request let in a moment too late is answered by the stage that
/// fails.
#[derive(Debug, Default)]
pub(crate) struct Health {
    pub(crate) draining: AtomicBool,
    pub(crate) store_down: AtomicBool,
    pub(crate) epochs_low: AtomicBool,
}

/// The engine: the shared state and its threads.
pub struct Engine {
    pub(crate) shared: Arc<Shared>,
    walk_ins: Sender<batch::Item>,
    orders: Sender<Vec<admit::Admitted>>,
    /// Room for orders: a permit for each that is let in and has no outcome yet.
    order_room: Arc<Semaphore>,
    writes: Sender<commit::WriteJob>,
    lists: lists::Desk,
    /// Callers that may have bundles issued again at once.
    reissues: Semaphore,
    threads: parking::Threads,
}

/// How ready the engine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// The store commits.
    pub store: bool,
    /// A token signs, as far as the last batches tell.
    pub hsm: bool,
    /// An epoch is active and inside its window.
    pub epoch: bool,
    /// New requests are let in.
    pub accepting: bool,
    /// So few epochs are prepared that the root is needed soon. It does not make it less ready.
    pub epochs_low: bool,
}

impl Readiness {
    /// Whether everything is.
    pub fn ready(&self) -> bool {
        self.store && self.hsm && self.epoch && self.accepting
    }
}

impl Engine {
    /// Loads the book and starts the threads.
    ///
    /// # Errors
    /// The store's, where the book cannot be loaded; the operating system's, where it gives no
    /// threads.
    pub fn start(parts: Parts) -> Result<Self, Failure> {
        let Parts {
            tokens,
            store,
            clock,
            code_set_key,
            settings,
        } = parts;
        let book = Book::default();
        book.load(&*store)?;
        let reservations = reserve::Reservations::new(settings.waiters_max);
        let (writes, jobs) = bounded(settings.queue_len_max);
        let (node, asks) = nodes::Node::new(&*store, &writes, clock.monotonic());
        let (stations, desks) = Stations::new(tokens);
        let ids = ids::Ids::new();
        let limits = limits::Limits::new(Arc::clone(&clock));
        let shared = Arc::new(Shared {
            stations,
            store,
            clock,
            code_set_key,
            settings,
            book,
            reservations,
            turns: turns::Turns::default(),
            pace: pace::Pace::default(),
            queue: pace::Queue::default(),
            health: Health::default(),
            tally: tally::Tally::new(ids.random(), desks.len()),
            ids,
            limits,
            hooks: hooks::Hooks::default(),
            nodes: node,
        });
        let room = shared.settings.queue_len_max;
        let (walk_ins, items) = bounded(room);
        // Permits bound the orders, so there is room for every chunk.
        let (orders, chunks) = bounded(room);
        // One batch may wait while another is worked at: enough to overlap, and back-pressure for
        // free.
        let (signed, batches) = bounded(1);
        // Two batches of each station at most are on their way.
        let (back, again) = bounded(2 * desks.len() + 1);
        let to_sign = desks.iter().map(|desk| desk.to_sign.clone()).collect();
        let sources = batch::Sources {
            walk_ins: items,
            orders: chunks,
            again,
        };
        let batcher = batch::Batcher::new(Arc::clone(&shared), sources, to_sign)?;
        let committer = commit::Committer::new(Arc::clone(&shared), batches, jobs, asks);
        let (lists, lister) = lists::desk(Arc::clone(&shared), writes.clone());
        let mut signing = Vec::with_capacity(desks.len());
        for (at, desk) in desks.into_iter().enumerate() {
            let (back, signed) = (back.clone(), signed.clone());
            let thread = sign::SigningThread::new(Arc::clone(&shared), at, desk, back, signed);
            signing.push(spawn("fob-sign", move || thread.run())?);
        }
        let threads = parking::Threads::new(parking::All {
            batcher: spawn("fob-prepare", move || batcher.run())?,
            signing,
            committer: spawn("fob-commit", move || committer.run())?,
            lister: spawn("fob-lists", move || lister.run())?,
            keeper: nodes::keeper(&shared)?,
        });
        Ok(Self {
            order_room: Arc::new(Semaphore::new(room)),
            shared,
            walk_ins,
            orders,
            writes,
            lists,
            reissues: Semaphore::new(REISSUES_MAX),
            threads,
        })
    }

    /// The book, to read.
    pub fn book(&self) -> &Book {
        &self.shared.book
    }

    /// Bounds and addresses.
    pub fn settings(&self) -> &EngineSettings {
        &self.shared.settings
    }

    /// The clock everything here goes by.
    pub fn clock(&self) -> &dyn Clock {
        &*self.shared.clock
    }

    /// Every token, and how it is as the engine sees it. Asks none of them.
    pub fn tokens(&self) -> Vec<StationStatus> {
        self.shared.stations.standing()
    }

    /// Every token, and what it says of itself, asked now. Blocks for as long as they take.
    pub fn ask_tokens(&self) -> Vec<(StationStatus, TokenStatus)> {
        self.shared.stations.ask()
    }

    /// Who holds the key of an epoch. `None` where none of the tokens does.
    pub fn signer_of(&self, epoch: &Epoch) -> Option<Arc<dyn Signer>> {
        self.shared.stations.signer_of(epoch).cloned()
    }

    /// Has every token sign something under its active epoch, and verifies it: better no server
    /// than keys no car believes. A token that does not sign is down, and is tried again.
    ///
    /// # Errors
    /// What the last of them said, where none signs.
    pub fn try_tokens(&self) -> Result<(), String> {
        self.shared.stations.try_all(&self.shared)
    }

    /// Whether every thread that could sign, or open new sessions, is inside a call that is
    /// overdue. Then nothing but the HSM itself, or a new process, can help.
    pub fn hsm_stuck(&self) -> bool {
        self.shared.stations.all_parked()
    }

    /// How ready it is.
    pub fn readiness(&self) -> Readiness {
        let health = &self.shared.health;
        let now = self.shared.clock.unix();
        Readiness {
            store: !health.store_down.load(Ordering::Relaxed),
            hsm: !self.shared.stations.all_down(),
            epoch: self
                .book()
                .epochs()
                .iter()
                .any(|epoch| epoch.state == EpochState::Active && epoch.window.contains(now)),
            accepting: !health.draining.load(Ordering::Relaxed),
            epochs_low: self.runway() < now.saturating_add(self.settings().schedule.warn_before_s),
        }
    }

    /// `busy`, for whoever turns a caller away before the engine is asked.
    pub fn busy(&self, why: &'static str) -> Refusal {
        self.shared.busy(why)
    }

    /// How many code sets are being redeemed at this moment.
    pub fn in_flight(&self) -> usize {
        self.shared.reservations.len()
    }

    /// How many redemptions wait to be batched.
    pub fn queue_len(&self) -> usize {
        self.walk_ins.len()
    }

    /// How many keys wait to be signed, those of orders included.
    pub fn keys_waiting(&self) -> usize {
        self.shared.pace.waiting()
    }

    /// Commits `writes` in one transaction with whatever else waits, and returns their answers.
    ///
    /// # Errors
    /// `busy`, `shutting_down` or `store_unavailable`. In the last case the writes may have been
    /// applied; each of them may be sent again.
    pub async fn write(&self, writes: Vec<Write>) -> Result<Vec<Applied>, Refusal> {
        self.shared.check_door()?;
        let (reply, answer) = oneshot::channel();
        match self
            .writes
            .try_send(commit::WriteJob::Commit { writes, reply })
        {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Err(self.shared.busy("the store is behind")),
            Err(TrySendError::Disconnected(_)) => return Err(shutting_down()),
        }
        match concurrent::timeout(self.shared.settings.answer_within, answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(shutting_down()),
            Err(_) => Err(store_unavailable()),
        }
    }

    /// Lets nothing new in. What is under way goes on.
    pub fn drain(&self) {
        self.shared.health.draining.store(true, Ordering::Relaxed);
    }

    /// Drains, finishes what was let in, ends the threads and lets go of the tokens. Blocks until
    /// they have ended.
    pub fn shutdown(&self) {
        self.drain();
        let Some(threads) = self.threads.take() else {
            return;
        };
        let join = |thread: JoinHandle<()>| {
            if thread.join().is_err() {
                tracing::error!("a thread of the engine has panicked");
            }
        };
        // Both have the committer write, so they end before that does.
        self.lists.stop();
        join(threads.lister);
        if let Some((stop, keeper)) = threads.keeper {
            drop(stop);
            join(keeper);
        }
        // In the order in which batches go: what one has finished must still find the next. Each
        // ends when the one before it has.
        drop(self.walk_ins.send(batch::Item::Stop));
        join(threads.batcher);
        threads.signing.into_iter().for_each(join);
        drop(self.writes.send(commit::WriteJob::Stop));
        join(threads.committer);
        self.shared.stations.close();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shutdown();
    }
}

impl Shared {
    /// Refuses at the door what could not be finished.
    pub(crate) fn check_door(&self) -> Result<(), Refusal> {
        if self.health.draining.load(Ordering::Relaxed) {
            return Err(shutting_down());
        }
        if self.health.store_down.load(Ordering::Relaxed) {
            return Err(store_unavailable());
        }
        match &self.nodes {
            Some(node) => node.check(self.clock.monotonic()),
            None => Ok(()),
        }
    }

    /// Refuses redemptions while those let in wait longer than they should to be batched.
    pub(crate) fn check_queue(&self) -> Result<(), Refusal> {
        let longest = self.settings.queue_wait_max;
        if self.queue.is_slow(self.clock.monotonic(), longest) {
            return Err(self.busy("others wait longer than they should already"));
        }
        Ok(())
    }

    /// Refuses while the HSM is down, or no epoch may sign at `now`.
    pub(crate) fn check_signing(&self, now: UnixTime) -> Result<(), Refusal> {
        if self.stations.all_down() {
            return Err(hsm_unavailable());
        }
        if !self.stations.any_open(&self.book, now) {
            return Err(hsm_unavailable().detail("no issuing key is active"));
        }
        Ok(())
    }

    /// Whether HSM and store do their work, as far as is known.
    pub(crate) fn well(&self) -> bool {
        !self.health.store_down.load(Ordering::Relaxed) && !self.stations.all_down()
    }

    /// `busy`, with a `Retry-After` of 1 to 3 seconds that differs from caller to caller, so that
    /// they do not all come back at once.
    pub(crate) fn busy(&self, why: &'static str) -> Refusal {
        let jitter = u32::from(self.ids.random::<1>()[0] % 3);
        Refusal::new(RefusalCode::Busy)
            .detail(why)
            .retry_after(1 + jitter)
    }

    /// What a caller is told whose answer did not come in time. The work goes on.
    pub(crate) fn too_late(&self) -> Refusal {
        if self.health.store_down.load(Ordering::Relaxed) {
            store_unavailable()
        } else if self.stations.all_down() {
            hsm_unavailable()
        } else {
            self.busy("the answer is late; send the same request again")
        }
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Failure> {
    thread::Builder::new()
        .name(name.into())
        .spawn(run)
        .map_err(|error| Failure::Fault(format!("no thread for {name}: {error}")))
}

/// `hsm_unavailable`, with when to try again.
pub(crate) fn hsm_unavailable() -> Refusal {
    Refusal::new(RefusalCode::HsmUnavailable).retry_after(1)
}

/// `store_unavailable`, with when to try again.
pub(crate) fn store_unavailable() -> Refusal {
    Refusal::new(RefusalCode::StoreUnavailable)
        .detail("it may have happened; the same request may be sent again")
        .retry_after(1)
}

/// `shutting_down`, with when to try again.
pub(crate) fn shutting_down() -> Refusal {
    Refusal::new(RefusalCode::ShuttingDown).retry_after(5)
}

/// Callers that may have bundles issued again at once: what they have signed is little, and the
/// stages are not to wait for it.
const REISSUES_MAX: usize = 4;

/// The default time after which a caller is told to ask again.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(10);

mod parking {
    //! The engine's threads, taken once.

    use std::sync::{Mutex, PoisonError};

    use super::JoinHandle;
    use super::nodes::KeeperThread;

    /// The pipeline's threads, in the order in which a batch goes through them, and those beside
    /// it.
    pub(super) struct All {
        pub(super) batcher: JoinHandle<()>,
        /// One for each token.
        pub(super) signing: Vec<JoinHandle<()>>,
        pub(super) committer: JoinHandle<()>,
        pub(super) lister: JoinHandle<()>,
        /// The one that minds leases; among several nodes.
        pub(super) keeper: Option<KeeperThread>,
    }

    pub(super) struct Threads(Mutex<Option<All>>);

    impl Threads {
        pub(super) fn new(all: All) -> Self {
            Self(Mutex::new(Some(all)))
        }

        pub(super) fn take(&self) -> Option<All> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
        }
    }
}
