//! One batch of messages, floor 2: cut into short runs, of which whoever is free
//! signs the next.
//!
//! It owns what it signs: should a session never come back, its thread keeps the
//! batch, and nobody else has to.

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
}

/// What became of one run.
pub(super) struct Signed {
    pub(super) run: usize,
    pub(super) outcome: Result<Vec<Signature>, HsmError>,
}

impl Batch {
    pub(super) fn new(key: KeyRef, messages: &[&[u8]], sessions: usize) -> Self {
        let mut bytes = Vec::with_capacity(messages.iter().map(|one| one.len()).sum());
        let mut ends = Vec::with_capacity(messages.len());
        for message in messages {
            bytes.extend_from_slice(message);
            ends.push(bytes.len());
        }
        Self {
            key,
            bytes,
            ends,
            run_len: run_len(messages.len(), sessions),
            next: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
        }
    }

    /// How many runs there are.
    pub(super) fn runs(&self) -> usize {
        self.ends.len().div_ceil(self.run_len)
    }

    /// How many messages are in each, but for the last.
    pub(super) fn run_len(&self) -> usize {
        self.run_len
    }

    /// Gives out no more runs.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Signs runs until there are none, beside others that do the same.
    pub(super) fn work(&self, link: &Link, signed: &Sender<Signed>) {
        while let Some(run) = self.next_run() {
            let outcome =
                link.with_lane(|lane| lane.sign_each(link, &self.key, self.messages(run)));
            if outcome.is_err() {
                self.stop();
            }
            // Who asked for it may have gone.
            drop(signed.send(Signed { run, outcome }));
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
        let batch = Batch::new(KEY, &messages, 2);
        let mut covered = Vec::new();
        let mut runs = 0;
        while let Some(run) = batch.next_run() {
            covered.extend(batch.messages(run));
            runs += 1;
        }
        assert_eq!((covered, runs), (messages.clone(), batch.runs()));

        let batch = Batch::new(KEY, &messages, 2);
        assert!(batch.next_run().is_some());
        batch.stop();
        assert!(batch.next_run().is_none());
    }
}
