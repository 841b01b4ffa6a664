//! One batch of messages, floor 2: cut into short runs, of which whoever is free
//! signs the next.
//!
//! It owns what it signs: should a session never come back, its thread keeps the
//! batch, and nobody else has to.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crossbeam::channel::Sender;

use super::session::Link;
use super::{HsmError, KeyRef, Signature};

/// Runs for each session, at least: the last of them ends soon after the others.
const RUNS_PER_SESSION: usize = 16;
/// Longest run. Between two runs a session may go to another batch.
const RUN_LEN_MAX: usize = 8;

/// Messages to be signed with one key.
pub(super) struct Batch {
    key: KeyRef,
    bytes: Vec<u8>,
    /// Where each message ends in `bytes`.
    ends: Vec<usize>,
    run_len: usize,
    /// The next run that nobody has taken. Only counted, orders nothing.
    next: AtomicUsize,
    /// Once it is set, no more runs are given out.
    stopped: AtomicBool,
    /// What was made of each run.
    made: Vec<OnceLock<Vec<Signature>>>,
    /// Runs that are signed.
    signed: AtomicUsize,
    /// Told once: when all is signed, or when a run was not. Who waits is not woken for every run:
    /// waking costs as much as a tenth of a signature, twice.
    ended: Sender<Result<(), HsmError>>,
}

impl Batch {
    /// Messages to sign in that many sessions. `ended`, which holds one, is told of the end.
    pub(super) fn new(
        key: KeyRef,
        messages: &[&[u8]],
        sessions: usize,
        ended: Sender<Result<(), HsmError>>,
    ) -> Self {
        let mut bytes = Vec::with_capacity(messages.iter().map(|one| one.len()).sum());
        let mut ends = Vec::with_capacity(messages.len());
        for message in messages {
            bytes.extend_from_slice(message);
            ends.push(bytes.len());
        }
        let run_len = run_len(messages.len(), sessions);
        let runs = messages.len().div_ceil(run_len);
        Self {
            key,
            bytes,
            ends,
            run_len,
            next: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
            made: (0..runs).map(|_| OnceLock::new()).collect(),
            signed: AtomicUsize::new(0),
            ended,
        }
    }

    /// How many runs there are.
    pub(super) fn runs(&self) -> usize {
        self.made.len()
    }

    /// How many of them are signed.
    pub(super) fn signed(&self) -> usize {
        self.signed.load(Ordering::Acquire)
    }

    /// A signature for each message, once every run is signed.
    pub(super) fn signatures(&self) -> Vec<Signature> {
        let mut signatures = Vec::with_capacity(self.ends.len());
        for made in &self.made {
            signatures.extend_from_slice(made.get().map_or(&[], Vec::as_slice));
        }
        signatures
    }

    /// Gives out no more runs.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Signs runs until there are none, beside others that do the same.
    pub(super) fn work(&self, link: &Link) {
        while let Some(run) = self.next_run() {
            let outcome =
                link.with_lane(|lane| lane.sign_each(link, &self.key, self.messages(run)));
            match outcome {
                Ok(made) => self.keep(run, made),
                Err(error) => {
                    self.stop();
                    // Only the first is told; and who asked may have gone.
                    let _ = self.ended.try_send(Err(error));
                }
            }
        }
    }

    fn keep(&self, run: usize, made: Vec<Signature>) {
        // Each run is given out once.
        let _ = self.made[run].set(made);
        if self.signed.fetch_add(1, Ordering::AcqRel) + 1 == self.runs() {
            let _ = self.ended.try_send(Ok(()));
        }
    }

    fn next_run(&self) -> Option<usize> {
        if self.stopped.load(Ordering::Relaxed) {
            return None;
        }
        let run = self.next.fetch_add(1, Ordering::Relaxed);
        (run < self.runs()).then_some(run)
    }

    /// The messages of a run.
    fn messages(&self, run: usize) -> impl ExactSizeIterator<Item = &[u8]> {
        let from = run * self.run_len;
        let to = (from + self.run_len).min(self.ends.len());
        (from..to).map(|at| {
            let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
            &self.bytes[start..self.ends[at]]
        })
    }
}

/// How many messages are signed in a row by one session.
fn run_len(messages: usize, sessions: usize) -> usize {
    (messages / (sessions * RUNS_PER_SESSION)).clamp(1, RUN_LEN_MAX)
}

#[cfg(test)]
mod tests {
    use fob_verify::Algorithm;

    use super::*;

    const KEY: KeyRef = KeyRef {
        id: [0; 16],
        algorithm: Algorithm::Esp256,
    };

    #[test]
    fn a_batch_of_eight_keeps_every_session_busy() {
        assert_eq!(run_len(8, 2), 1);
        assert_eq!(run_len(64, 2), 2);
        assert_eq!(run_len(4096, 2), RUN_LEN_MAX);
        assert_eq!(run_len(4096, 64), 4);
    }

    #[test]
    fn runs_cover_every_message_once_and_end_when_told() {
        let owned: Vec<Vec<u8>> = (0..101).map(|len| vec![len as u8; len]).collect();
        let messages: Vec<&[u8]> = owned.iter().map(Vec::as_slice).collect();
        let new = || {
            let (ended, end) = crossbeam::channel::bounded(1);
            (Batch::new(KEY, &messages, 2, ended), end)
        };
        let (batch, end) = new();
        let mut covered = Vec::new();
        let mut runs = 0;
        while let Some(run) = batch.next_run() {
            assert!(end.is_empty() && batch.signed() == runs);
            covered.extend(batch.messages(run));
            // As many as there are messages, each telling its run.
            batch.keep(run, vec![[run as u8; 64]; batch.messages(run).len()]);
            runs += 1;
        }
        assert_eq!((&covered, runs), (&messages, batch.runs()));
        assert_eq!(end.try_recv().map_err(|_| ()), Ok(Ok(())));
        let signatures = batch.signatures();
        assert_eq!(signatures.len(), messages.len());
        assert!(signatures.is_sorted());

        let (batch, _end) = new();
        assert!(batch.next_run().is_some());
        batch.stop();
        assert!(batch.next_run().is_none());
    }
}
