//! Stage 2, batch: one thread takes what was admitted, closes a batch when it is full or old
//! enough, and has it prepared (Stage 3) for the station that signs it.
//!
//! Idle, a batch is one redemption and leaves at once; under load batches grow by themselves,
//! because the next one gathers while this one is signed. The hand-off to a station holds one
//! batch: when signing or the store is behind, this thread waits, the queues fill, and the door
//! says `busy`. A batch that a station did not sign comes back and is prepared once more, for the
//! station that is up then.
//!
//! There are two lanes. Orders come many at once and would keep single redemptions, the walk-ins,
//! waiting: so walk-ins go first, up to half of a batch where orders wait too.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::admit::Admitted;
use super::pace::Demand;
use super::prepare::{PreparedBatch, Preparer};
use super::reserve::Outcome;
use super::{Failure, Shared, hsm_unavailable};
use crate::concurrent::channel::{Receiver, Sender, TryRecvError, never, select};
use crate::domain::Signing;

/// What the walk-ins' lane carries.
pub enum Item {
    /// A redemption, and when it was let in.
    Redeem(Box<Admitted>, Duration),
    /// Nothing more will come.
    Stop,
}

/// The thread that batches and prepares.
pub(super) struct Batcher {
    shared: Arc<Shared>,
    lanes: Lanes,
    /// The stations' channels, in their order.
    to_sign: Vec<Sender<PreparedBatch>>,
    preparer: Preparer,
    demand: Demand,
}

/// Where admitted items come from.
pub(super) struct Sources {
    pub(super) walk_ins: Receiver<Item>,
    pub(super) orders: Receiver<Vec<Admitted>>,
    /// Batches that a station did not sign.
    pub(super) again: Receiver<Batch>,
}

/// The sources, and what was taken from them and has no batch yet.
struct Lanes {
    shared: Arc<Shared>,
    walk_ins: Receiver<Item>,
    orders: Receiver<Vec<Admitted>>,
    again: Receiver<Batch>,
    /// Orders of a chunk of which a batch took the first ones.
    rest: VecDeque<Admitted>,
    open: bool,
}

/// A batch that is being gathered.
pub(super) struct Batch {
    pub(super) items: Vec<(Admitted, Signing)>,
    /// Keys that may yet be signed each.
    each_left: usize,
    /// What `auto` means in this batch.
    auto: Signing,
    /// How often it was signed in vain.
    pub(super) failures: u32,
}

/// What a batch begins with.
enum First {
    /// An item of a new batch.
    Item(Box<Admitted>),
    /// A whole batch that comes back.
    Again(Batch),
}

impl Batcher {
    pub(super) fn new(
        shared: Arc<Shared>,
        sources: Sources,
        to_sign: Vec<Sender<PreparedBatch>>,
    ) -> Result<Self, Failure> {
        Ok(Self {
            preparer: Preparer::new(shared.settings.prepare_threads)?,
            lanes: Lanes {
                shared: Arc::clone(&shared),
                walk_ins: sources.walk_ins,
                orders: sources.orders,
                again: sources.again,
                rest: VecDeque::new(),
                open: true,
            },
            shared,
            to_sign,
            demand: Demand::default(),
        })
    }

    pub(super) fn run(mut self) {
        while self.lanes.open || !self.lanes.is_empty() {
            let batch = match self.lanes.wait() {
                Some(First::Item(first)) => {
                    let batch = self.gather(*first);
                    metrics::histogram!("fob_batch_bundles").record(batch.items.len() as f64);
                    batch
                }
                Some(First::Again(batch)) => batch,
                None => continue,
            };
            self.prepare(batch);
        }
        // Whatever slipped in after the last look is released as the lanes are dropped, and its
        // callers are told that the server is shutting down.
    }

    /// Has a batch prepared for the station it goes to, and hands it over.
    fn prepare(&self, batch: Batch) {
        let Shared {
            stations,
            book,
            clock,
            ..
        } = &*self.shared;
        let Some(chosen) = stations.choose(&self.to_sign, book, &**clock) else {
            return batch.refuse();
        };
        let at = chosen.at;
        let Some(prepared) = self.preparer.prepare(&self.shared, chosen, batch) else {
            return;
        };
        stations.hand_over(at, prepared.messages_len());
        // Only a station that is gone refuses; the tickets are released as they drop.
        if self.to_sign[at].send(prepared).is_err() {
            tracing::error!("a signing thread is gone; a batch was not signed");
        }
    }

    /// A batch that begins with `first`, closed when it is full, or old enough and nothing waits.
    fn gather(&mut self, first: Admitted) -> Batch {
        let (shared, lanes) = (&*self.shared, &mut self.lanes);
        let settings = &shared.settings;
        let opened = shared.clock.monotonic();
        let mut batch = Batch::new(shared, self.demand.is_high(&shared.pace, opened));
        let walk_ins_max = if lanes.orders_wait() {
            settings.batch_bundles_max.div_ceil(2)
        } else {
            settings.batch_bundles_max
        };
        batch.take(shared, first);
        while batch.has_room(walk_ins_max)
            && let Some(admitted) = lanes.walk_in()
        {
            batch.take(shared, admitted);
        }
        loop {
            while batch.has_room(settings.batch_bundles_max)
                && let Some(admitted) = lanes.any()
            {
                batch.take(shared, admitted);
            }
            let age = shared.clock.monotonic().saturating_sub(opened);
            let wait = settings.batch_age.saturating_sub(age);
            if wait.is_zero() || !lanes.open || !batch.has_room(settings.batch_bundles_max) {
                return batch;
            }
            match lanes.wait_within(wait) {
                Some(admitted) => batch.take(shared, admitted),
                None => return batch,
            }
        }
    }
}

impl Batch {
    /// One that comes back whole.
    pub(super) fn again(items: Vec<(Admitted, Signing)>, failures: u32) -> Self {
        Self {
            items,
            each_left: 0,
            auto: Signing::Each,
            failures,
        }
    }

    /// Tells every waiter that the HSM does not sign.
    pub(super) fn refuse(self) {
        for (admitted, _) in self.items {
            let refusal = Outcome::Refused(hsm_unavailable());
            admitted.ticket.resolve(refusal);
        }
    }
}

impl Batch {
    /// An empty one. When demand is high, or more waits than the HSM signs within the goal, `auto`
    /// is trees.
    fn new(shared: &Shared, demand_is_high: bool) -> Self {
        let (settings, pace) = (&shared.settings, &shared.pace);
        let behind = demand_is_high || pace.waiting() > pace.within(settings.latency_goal);
        Self {
            items: Vec::new(),
            each_left: pace.within(settings.batch_signing_max),
            auto: if behind { Signing::Tree } else { Signing::Each },
            failures: 0,
        }
    }

    /// Whether one more may be taken. One is always taken, whatever it costs.
    fn has_room(&self, bundles_max: usize) -> bool {
        self.items.len() < bundles_max && self.each_left > 0
    }

    /// Whether what is to be signed in a tree is a single key.
    pub(super) fn sole_leaf(&self) -> bool {
        let in_tree = self.items.iter().filter(|(_, it)| *it == Signing::Tree);
        let keys = in_tree.map(|(admitted, _)| admitted.keys());
        keys.sum::<usize>() == 1
    }

    fn take(&mut self, shared: &Shared, admitted: Admitted) {
        let keys = admitted.keys();
        shared.pace.leave(keys);
        let asked = admitted.authorization.signing;
        let signing = asked
            .or(admitted.fleet.fleet.settings.signing)
            .unwrap_or(shared.settings.signing);
        let signing = match signing {
            Signing::Auto => self.auto,
            decided => decided,
        };
        if signing == Signing::Each {
            self.each_left = self.each_left.saturating_sub(keys);
        }
        self.items.push((admitted, signing));
    }
}

impl Lanes {
    fn is_empty(&self) -> bool {
        self.walk_ins.is_empty() && !self.orders_wait() && self.again.is_empty()
    }

    fn orders_wait(&self) -> bool {
        !self.rest.is_empty() || !self.orders.is_empty()
    }

    /// What the next batch begins with, waiting for it; `None` where there may be nothing. What
    /// comes back has waited longest.
    fn wait(&mut self) -> Option<First> {
        if let Ok(batch) = self.again.try_recv() {
            return Some(First::Again(batch));
        }
        let item = |admitted| First::Item(Box::new(admitted));
        if let Some(admitted) = self.any() {
            return Some(item(admitted));
        }
        if !self.open {
            return None;
        }
        select! {
            recv(self.again) -> batch => batch.ok().map(First::Again),
            recv(self.walk_ins) -> found => self.unwrap(found.unwrap_or(Item::Stop)).map(item),
            recv(self.orders) -> chunk => self.begin(chunk.ok()).map(item),
        }
    }

    fn wait_within(&mut self, wait: Duration) -> Option<Admitted> {
        select! {
            recv(self.walk_ins) -> item => self.unwrap(item.unwrap_or(Item::Stop)),
            recv(self.orders) -> chunk => self.begin(chunk.ok()),
            default(wait) => None,
        }
    }

    /// What waits already, walk-ins first.
    fn any(&mut self) -> Option<Admitted> {
        self.walk_in().or_else(|| self.order())
    }

    fn walk_in(&mut self) -> Option<Admitted> {
        match self.walk_ins.try_recv() {
            Ok(item) => self.unwrap(item),
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => None,
        }
    }

    fn order(&mut self) -> Option<Admitted> {
        if let Some(admitted) = self.rest.pop_front() {
            return Some(admitted);
        }
        let chunk = self.orders.try_recv().ok()?;
        self.begin(Some(chunk))
    }

    fn begin(&mut self, chunk: Option<Vec<Admitted>>) -> Option<Admitted> {
        match chunk {
            Some(chunk) => self.rest.extend(chunk),
            None => self.orders = never(),
        }
        self.rest.pop_front()
    }

    fn unwrap(&mut self, item: Item) -> Option<Admitted> {
        match item {
            Item::Redeem(admitted, joined) => {
                self.shared.queue.leave(joined);
                Some(*admitted)
            }
            Item::Stop => {
                self.open = false;
                None
            }
        }
    }
}
