//! The threads that sign, floor 2: one for each session of a link.
//!
//! Whoever wants a batch signed hands it to them and waits, so that it is never
//! the caller who is inside a call that does not return. They end with their
//! link. One that is parked then stays until its call returns, if it ever does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::Builder;
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};

use super::batch::Batch;
use super::park::{At, Parking, stuck};
use super::session::Link;
use super::{HsmError, KeyRef, Signature};

/// How often it is looked, while a batch is waited for, whether anything was signed. What is stuck is
/// found at most one look late.
const LOOKS: u32 = 8;

/// The threads of one link.
pub(super) struct Crew {
    /// Some until dropped. A batch is put in as often as there are threads to
    /// work at it, so what waits here is bounded by the callers.
    jobs: Option<Sender<Arc<Job>>>,
    threads: Vec<Arc<At>>,
    /// Disconnected once every thread has ended.
    ended: Receiver<()>,
    /// The number of the next job, from one on.
    next: AtomicU64,
    parking: Parking,
    label: String,
    patience: Duration,
}

/// A batch and the link to sign it with.
struct Job {
    number: u64,
    link: Arc<Link>,
    batch: Batch,
}

impl Crew {
    /// Starts `count` threads. A call is waited for as long as `patience`.
    pub(super) fn start(
        count: usize,
        parking: &Parking,
        label: &str,
        patience: Duration,
    ) -> Result<Self, HsmError> {
        let (jobs, orders) = unbounded::<Arc<Job>>();
        let (alive, ended) = bounded(0);
        let mut threads = Vec::with_capacity(count);
        for index in 0..count {
            let (at, orders, alive) = (Arc::new(At::default()), orders.clone(), alive.clone());
            threads.push(Arc::clone(&at));
            let parking = parking.clone();
            let work = move || {
                for job in orders {
                    job.work(&at, &parking);
                }
                drop(alive);
            };
            Builder::new()
                .name(format!("hsm-{index}"))
                .spawn(work)
                .map_err(|_| HsmError::System {
                    what: "threads for the HSM's sessions",
                })?;
        }
        Ok(Self {
            jobs: Some(jobs),
            threads,
            ended,
            next: AtomicU64::new(1),
            parking: parking.clone(),
            label: label.to_owned(),
            patience,
        })
    }

    /// Threads of this link that are inside an overdue call.
    pub(super) fn parked(&self) -> usize {
        self.threads.iter().filter(|at| at.is_parked()).count()
    }

    /// Whether none is left to sign.
    pub(super) fn all_parked(&self) -> bool {
        self.threads.iter().all(|at| at.is_parked())
    }

    /// Signs every message, all or nothing.
    ///
    /// # Errors
    ///
    /// The first of any session; [`HsmError::Stuck`] where nothing was signed for
    /// as long as a call may take. Threads that are still at it are then parked.
    pub(super) fn sign(
        &self,
        link: &Arc<Link>,
        key: &KeyRef,
        messages: &[&[u8]],
    ) -> Result<Vec<Signature>, HsmError> {
        if self.all_parked() {
            return Err(stuck(&self.label, self.patience));
        }
        let (ended, end) = bounded(1);
        let job = Arc::new(Job {
            number: self.next.fetch_add(1, Ordering::Relaxed),
            link: Arc::clone(link),
            batch: Batch::new(*key, messages, link.lanes, ended),
        });
        let runs = job.batch.runs();
        if runs == 0 {
            return Ok(Vec::new());
        }
        self.hand_out(&job, runs);
        let (mut signed, mut looks) = (0, 0);
        while looks < LOOKS {
            match end.recv_timeout(self.patience / LOOKS) {
                Ok(outcome) => return outcome.map(|()| job.batch.signatures()),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
            let now = job.batch.signed();
            looks = if now > signed { 0 } else { looks + 1 };
            signed = now;
        }
        Err(self.give_up(&job))
    }

    fn hand_out(&self, job: &Arc<Job>, runs: usize) {
        for _ in 0..runs.min(self.threads.len()) {
            if let Some(jobs) = &self.jobs {
                // The threads live as long as this, so somebody takes it.
                drop(jobs.send(Arc::clone(job)));
            }
        }
    }

    /// Stops waiting for a job, and parks the threads that are still at it.
    fn give_up(&self, job: &Job) -> HsmError {
        job.batch.stop();
        for at in &self.threads {
            at.park(job.number, &self.parking);
        }
        stuck(&self.label, self.patience)
    }
}

impl Drop for Crew {
    /// Waits for the threads: one that still winds up while the process exits runs
    /// into what the module has taken down. Not for those that are parked.
    fn drop(&mut self) {
        drop(self.jobs.take());
        if self.parked() == 0 {
            // Disconnected, or not in time: then there is nothing more to wait for.
            let _ = self.ended.recv_timeout(self.patience);
        }
    }
}

impl Job {
    fn work(&self, at: &At, parking: &Parking) {
        at.begin(self.number);
        self.batch.work(&self.link);
        at.end(parking);
    }
}
