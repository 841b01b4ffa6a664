//! One node among others over one store: floor 3. Over a store of one node there is nothing of it.
//!
//! *Abreast.* The committer hears between two commits what others have committed, every 50 ms, or
//! sooner where somebody waits for it ([`Engine::abreast`]). What the book refuses is looked at
//! once more after that, so whatever was answered on one node counts on every other at once; many
//! who wait are told by one look, so those who ask for what is not there cost no more than that.
//! What the book allows is asked again by the commit's conditions.
//!
//! *Leases.* What one node does at a time is done by the one that holds the lease, and committed
//! only while it does. Whoever takes one is abreast before it acts: what the holder before it has
//! committed under the lease is in its book.
//!
//! *Blocks.* Status indexes are counted out in blocks, each of which is this node's alone. What of
//! a block is left when the node ends is never used.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::book::FleetBook;
use super::commit::WriteJob;
use super::{Engine, Failure, Shared, shutting_down, store_unavailable};
use crate::concurrent::channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use crate::concurrent::{self, Mutex, oneshot};
use crate::domain::{Refusal, RefusalCode};
use crate::store::{Applied, Lease, Nodes, Store, Task, Write};

/// How often it is heard what others have committed.
pub(super) const HEAR_EVERY: Duration = Duration::from_millis(50);

/// How often at most, where somebody waits for it.
pub(super) const HEAR_SOON: Duration = Duration::from_millis(5);

/// How often this node says at least that it is there, however long leases are.
const BEAT_EVERY_MAX: Duration = Duration::from_secs(10);

/// A node that has not heard of the others for so long lets nothing in.
const DEAF: Duration = Duration::from_secs(5);

/// Callers that may wait to be abreast at once.
const WAITING_MAX: usize = 4096;

/// Status indexes of a fleet's first block, and of its largest; each is twice the one before.
const BLOCK_MIN: u64 = 4096;
const BLOCK_MAX: u64 = 131_072;

/// Who is told, once what was committed before the question is in the book.
pub(super) type Told = oneshot::Sender<()>;

/// This node.
pub(crate) struct Node {
    asks: Sender<Told>,
    writes: Sender<WriteJob>,
    leases: Mutex<Vec<Held>>,
    /// When it was heard last what others have committed: milliseconds of the monotonic clock.
    heard_ms: AtomicU64,
}

/// A lease, and until when it is held at least, by the monotonic clock.
#[derive(Clone, Copy)]
struct Held {
    lease: Lease,
    until: Duration,
}

/// A fleet's block of status indexes, and the one that comes after it.
#[derive(Default)]
pub(super) struct Blocks {
    left: Range<u64>,
    /// Of the next block.
    len: u64,
    next: Option<oneshot::Receiver<Result<Vec<Applied>, Refusal>>>,
}

impl Node {
    /// This node, where `store` is one that nodes share; and what the committer is asked by.
    pub(super) fn new(
        store: &dyn Store,
        writes: &Sender<WriteJob>,
        now: Duration,
    ) -> (Option<Self>, Receiver<Told>) {
        let (asks, asked) = bounded(WAITING_MAX);
        let node = store.nodes().map(|_| Self {
            asks,
            writes: writes.clone(),
            leases: Mutex::new(Vec::new()),
            heard_ms: AtomicU64::new(millis(now)),
        });
        (node, asked)
    }

    /// Notes that everything committed before `began` is in the book.
    pub(super) fn heard(&self, began: Duration) {
        self.heard_ms.store(millis(began), Ordering::Relaxed);
    }

    /// Refuses while it is not known what others do.
    pub(super) fn check(&self, now: Duration) -> Result<(), Refusal> {
        let heard = Duration::from_millis(self.heard_ms.load(Ordering::Relaxed));
        if now.saturating_sub(heard) > DEAF {
            return Err(Refusal::new(RefusalCode::StoreUnavailable)
                .detail("this node does not hear of the others")
                .retry_after(1));
        }
        Ok(())
    }

    /// The lease of a task, where it is held at `now`.
    pub(super) fn lease(&self, task: Task, now: Duration) -> Option<Lease> {
        let held = lock(&self.leases);
        let mut own = held.iter().filter(|it| it.lease.task == task);
        own.find(|it| now < it.until).map(|it| it.lease)
    }

    /// Asks to be told when the book is abreast.
    fn ask(&self) -> Result<oneshot::Receiver<()>, TrySendError<Told>> {
        let (told, answer) = oneshot::channel();
        self.asks.try_send(told).map(|()| answer)
    }

    /// Asks for a fleet's next block.
    fn ask_for_block(&self, fleet: &FleetBook, blocks: &mut Blocks) -> Result<(), Refusal> {
        let (reply, answer) = oneshot::channel();
        blocks.len = (2 * blocks.len).clamp(BLOCK_MIN, BLOCK_MAX);
        let writes = vec![Write::TakeIndexes(fleet.fleet.id, blocks.len)];
        let asked = self.writes.try_send(WriteJob::Commit { writes, reply });
        asked.map_err(|_| store_unavailable())?;
        blocks.next = Some(answer);
        Ok(())
    }
}

impl Shared {
    /// Counts out `count` status indexes of a fleet: the first of them, and the fleet's counter
    /// after them, to be committed with what is issued; 0 where they are counted out for good
    /// already. May wait for a commit.
    ///
    /// # Errors
    /// `store_unavailable`, `shutting_down`.
    pub(super) fn count_out(&self, fleet: &FleetBook, count: u64) -> Result<(u64, u64), Refusal> {
        let Some(node) = &self.nodes else {
            let first = fleet.next_status(count);
            return Ok((first, first + count));
        };
        let mut blocks = lock(&fleet.blocks);
        loop {
            let left = blocks.left.end - blocks.left.start;
            if left >= count {
                let first = blocks.left.start;
                blocks.left.start += count;
                // In time, so that nobody waits for it.
                if blocks.next.is_none() && left - count < blocks.len / 2 {
                    // If it cannot be asked for now, whoever needs it asks again.
                    let _ = node.ask_for_block(fleet, &mut blocks);
                }
                return Ok((first, 0));
            }
            if blocks.next.is_none() {
                node.ask_for_block(fleet, &mut blocks)?;
            }
            let Some(next) = blocks.next.take() else {
                continue;
            };
            let len = blocks.len;
            match concurrent::wait(next)
                .map_err(|_| shutting_down())??
                .first()
            {
                Some(Applied::Indexes(first)) => {
                    blocks.left = *first..*first + len;
                    fleet.counted_to(*first + len);
                }
                _ => return Err(RefusalCode::NotFound.into()),
            }
        }
    }

    /// The lease of a task, where this node holds it; nothing to be held on one node.
    ///
    /// # Errors
    /// Another node has it, or none.
    pub(super) fn lease(&self, task: Task) -> Result<Option<Lease>, NotHeld> {
        match &self.nodes {
            None => Ok(None),
            Some(node) => match node.lease(task, self.clock.monotonic()) {
                Some(lease) => Ok(Some(lease)),
                None => Err(NotHeld),
            },
        }
    }
}

/// A task is not this node's.
pub(super) struct NotHeld;

/// A write that is done under a lease, where there is one.
pub(super) fn under(lease: Option<Lease>, write: Write) -> Write {
    match lease {
        Some(lease) => Write::Under(lease, Box::new(write)),
        None => write,
    }
}

impl Engine {
    /// Waits until everything is in the book that any node has committed before this call. At once
    /// on one node.
    ///
    /// # Errors
    /// `busy` where too many wait; `store_unavailable`, `shutting_down`.
    pub async fn abreast(&self) -> Result<(), Refusal> {
        let Some(node) = &self.shared.nodes else {
            return Ok(());
        };
        let answer = match node.ask() {
            Ok(answer) => answer,
            Err(TrySendError::Full(_)) => {
                return Err(self.shared.busy("too many ask for what is not known here"));
            }
            Err(TrySendError::Disconnected(_)) => return Err(shutting_down()),
        };
        match concurrent::timeout(self.shared.settings.answer_within, answer).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(store_unavailable()),
        }
    }

    /// What `look` finds in the book. What it refuses it is asked once more, abreast of the other
    /// nodes: the first look may have been too early.
    ///
    /// # Errors
    /// What `look` refuses; as [`Engine::abreast`].
    pub async fn look<T>(&self, look: impl Fn() -> Result<T, Refusal>) -> Result<T, Refusal> {
        let first = look();
        match &first {
            Err(refusal) if self.is_early(refusal) => {
                self.abreast().await?;
                look()
            }
            _ => first,
        }
    }

    /// Whether a refusal by the book may be too early.
    pub(super) fn is_early(&self, refusal: &Refusal) -> bool {
        self.shared.nodes.is_some() && may_be_early(refusal.code)
    }
}

/// Whether a refusal may be about something that is known elsewhere already. What a request says by
/// itself is wrong on every node.
fn may_be_early(code: RefusalCode) -> bool {
    !matches!(
        code,
        RefusalCode::Malformed
            | RefusalCode::CodeSetMalformed
            | RefusalCode::ProofInvalid
            | RefusalCode::PinRequired
            | RefusalCode::PinWrong
            | RefusalCode::Busy
            | RefusalCode::HsmUnavailable
            | RefusalCode::StoreUnavailable
            | RefusalCode::ShuttingDown
    )
}

/// The thread that says that this node is there, and takes and keeps leases.
pub(super) struct Keeper {
    shared: Arc<Shared>,
    stop: Receiver<()>,
}

impl Keeper {
    pub(super) fn new(shared: Arc<Shared>) -> (Self, Sender<()>) {
        let (end, stop) = bounded(1);
        (Self { shared, stop }, end)
    }

    /// Until it is told to stop; then it gives back what it holds.
    pub(super) fn run(self) {
        let (Some(node), Some(store)) = (&self.shared.nodes, self.shared.store.nodes()) else {
            return;
        };
        let term = self.shared.settings.lease;
        match store.register() {
            Ok(number) => tracing::info!(number, "this node serves beside others"),
            Err(error) => tracing::warn!(%error, "this node is not known to others"),
        }
        loop {
            self.keep(node, store, term);
            match self.stop.recv_timeout((term / 3).min(BEAT_EVERY_MAX)) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        for task in Task::ALL {
            if node.lease(task, self.shared.clock.monotonic()).is_some() {
                // Not given back, it ends by itself.
                let _ = store.hold(task, Duration::ZERO);
            }
        }
        lock(&node.leases).clear();
    }

    fn keep(&self, node: &Node, store: &dyn Nodes, term: Duration) {
        match store.beat(3 * term.min(3 * BEAT_EVERY_MAX)) {
            Ok(nodes) => metrics::gauge!("fob_nodes").set(nodes as f64),
            Err(error) => tracing::debug!(%error, "the store does not hear of this node"),
        }
        for task in Task::ALL {
            // Whoever cannot do it leaves it to others.
            if !self.shared.well() {
                continue;
            }
            let asked = self.shared.clock.monotonic();
            let Ok(lease) = store.hold(task, term) else {
                continue;
            };
            let known = lock(&node.leases)
                .iter()
                .find(|it| it.lease.task == task)
                .map(|it| it.lease);
            if lease.is_some() && lease != known {
                let heard = node.ask().is_ok_and(|told| concurrent::wait(told).is_ok());
                if !heard {
                    continue;
                }
            }
            match (known, lease) {
                (None, Some(_)) => tracing::info!(task = task.name(), "this node does it now"),
                (Some(_), None) => tracing::info!(task = task.name(), "another node does it now"),
                _ => {}
            }
            let mut held = lock(&node.leases);
            held.retain(|it| it.lease.task != task);
            held.extend(lease.map(|lease| Held {
                lease,
                until: asked + term,
            }));
        }
    }
}

/// What ends the keeper, and its thread.
pub(super) type KeeperThread = (Sender<()>, concurrent::thread::JoinHandle<()>);

/// The keeper's thread, where the store is one that nodes share.
pub(super) fn keeper(shared: &Arc<Shared>) -> Result<Option<KeeperThread>, Failure> {
    if shared.nodes.is_none() {
        return Ok(None);
    }
    let (keeper, stop) = Keeper::new(Arc::clone(shared));
    let thread = super::spawn("fob-nodes", move || keeper.run())?;
    Ok(Some((stop, thread)))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> concurrent::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
