//! Stage 2, batch: one thread takes what was admitted, closes a batch when it is full or old
//! enough, and drives it through prepare and sign to the committer.
//!
//! Idle, a batch is one redemption and leaves at once; under load batches grow by themselves,
//! because the next one gathers while this one is signed. The hand-off to the committer holds one
//! batch: when the store is behind, this thread waits, the queue fills, and the door says `busy`.

use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, TryRecvError};

use super::admit::Admitted;
use super::prepare::Preparer;
use super::sign::{self, Signed};
use super::{Failure, Shared};

/// What the queue carries.
pub enum Item {
    /// A redemption.
    Redeem(Box<Admitted>),
    /// Nothing more will come.
    Stop,
}

/// The thread that issues.
pub(super) struct Issuer {
    shared: Arc<Shared>,
    queue: Receiver<Item>,
    signed: Sender<Vec<Signed>>,
    preparer: Preparer,
    sampler: sign::Sampler,
}

impl Issuer {
    pub(super) fn new(
        shared: Arc<Shared>,
        queue: Receiver<Item>,
        signed: Sender<Vec<Signed>>,
    ) -> Result<Self, Failure> {
        let preparer = Preparer::new(shared.settings.prepare_threads)?;
        let sampler = sign::Sampler::new(shared.settings.verify_one_in);
        Ok(Self {
            shared,
            queue,
            signed,
            preparer,
            sampler,
        })
    }

    pub(super) fn run(mut self) {
        let mut open = true;
        while open {
            let batch;
            (batch, open) = self.next_batch();
            self.issue(batch);
        }
        // Whatever slipped in after the last look is released as the queue is dropped, and its
        // callers are told that the server is shutting down.
    }

    /// The next batch, and whether more may come.
    fn next_batch(&self) -> (Vec<Admitted>, bool) {
        let Ok(first) = self.queue.recv() else {
            return (Vec::new(), false);
        };
        let Item::Redeem(first) = first else {
            return (self.rest(), false);
        };
        let settings = &self.shared.settings;
        let opened = self.shared.clock.monotonic();
        let mut batch = vec![*first];
        while batch.len() < settings.batch_bundles_max {
            let age = self.shared.clock.monotonic().saturating_sub(opened);
            match self.take_within(settings.batch_age.saturating_sub(age)) {
                Some(Item::Redeem(admitted)) => batch.push(*admitted),
                Some(Item::Stop) => return (batch, false),
                None => break,
            }
        }
        (batch, true)
    }

    fn take_within(&self, wait: Duration) -> Option<Item> {
        match self.queue.try_recv() {
            Ok(item) => Some(item),
            Err(TryRecvError::Disconnected) => None,
            Err(TryRecvError::Empty) if wait.is_zero() => None,
            Err(TryRecvError::Empty) => self.queue.recv_timeout(wait).ok(),
        }
    }

    fn rest(&self) -> Vec<Admitted> {
        self.queue
            .try_iter()
            .filter_map(|item| match item {
                Item::Redeem(admitted) => Some(*admitted),
                Item::Stop => None,
            })
            .collect()
    }

    fn issue(&mut self, batch: Vec<Admitted>) {
        if batch.is_empty() {
            return;
        }
        metrics::histogram!("fob_batch_bundles").record(batch.len() as f64);
        let Some(prepared) = self.preparer.prepare(&self.shared, batch) else {
            return;
        };
        let Some(signed) = sign::sign(&self.shared, &mut self.sampler, prepared) else {
            return;
        };
        // Only a committer that is gone refuses; then the reservations are released as they drop.
        if self.signed.send(signed).is_err() {
            tracing::error!("the committer is gone; a signed batch was not committed");
        }
    }
}
