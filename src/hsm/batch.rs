//! One batch of messages, floor 2: cut into short runs that whoever is free
//! signs next, each into its own place.

use std::iter::Zip;
use std::slice::{Chunks, ChunksMut};
use std::sync::{Mutex, PoisonError};

use super::session::Link;
use super::{HsmError, KeyRef, Signature};

/// Runs for each session, at least: the last of them ends soon after the others.
const RUNS_PER_SESSION: usize = 16;
/// Longest run. Between two runs a session may go to another batch.
const RUN_LEN_MAX: usize = 8;

/// The runs of a batch that nobody has taken yet.
pub(super) struct Batch<'a> {
    key: &'a KeyRef,
    runs: usize,
    /// Held only to take a run or to note an error, never while signing.
    left: Mutex<Left<'a>>,
}

struct Left<'a> {
    runs: Zip<Chunks<'a, &'a [u8]>, ChunksMut<'a, Signature>>,
    /// Once there is one, no more runs are given out.
    error: Option<HsmError>,
}

impl<'a> Batch<'a> {
    /// As many `signatures` as `messages`, each the place of its number.
    pub(super) fn new(
        key: &'a KeyRef,
        messages: &'a [&'a [u8]],
        signatures: &'a mut [Signature],
        sessions: usize,
    ) -> Self {
        let len = run_len(messages.len(), sessions);
        let left = Left {
            runs: messages.chunks(len).zip(signatures.chunks_mut(len)),
            error: None,
        };
        Self {
            key,
            runs: messages.len().div_ceil(len),
            left: Mutex::new(left),
        }
    }

    /// How many could work at it at once.
    pub(super) fn runs(&self) -> usize {
        self.runs
    }

    /// Signs runs until there are none, beside others that do the same.
    pub(super) fn work(&self, link: &Link) {
        while let Some((messages, places)) = self.next_run() {
            if let Err(error) =
                link.with_lane(|lane| lane.sign_each(link, self.key, messages, places))
            {
                self.lock().error.get_or_insert(error);
            }
        }
    }

    /// Whether every message has its signature, once nobody works at it any more.
    pub(super) fn outcome(self) -> Result<(), HsmError> {
        let left = self
            .left
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        left.error.map_or(Ok(()), Err)
    }

    fn next_run(&self) -> Option<(&'a [&'a [u8]], &'a mut [Signature])> {
        let mut left = self.lock();
        if left.error.is_some() {
            None
        } else {
            left.runs.next()
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Left<'a>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
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
    fn runs_cover_every_message_once_and_end_with_an_error() {
        let messages: Vec<&[u8]> = vec![b"message"; 101];
        let mut signatures = vec![[0; 64]; 101];
        let batch = Batch::new(&KEY, &messages, &mut signatures, 2);
        let (mut runs, mut covered) = (0, 0);
        while let Some((messages, places)) = batch.next_run() {
            assert_eq!(messages.len(), places.len());
            runs += 1;
            covered += places.len();
        }
        assert_eq!((covered, runs), (101, batch.runs()));
        assert_eq!(batch.outcome(), Ok(()));

        let batch = Batch::new(&KEY, &messages, &mut signatures, 2);
        assert!(batch.next_run().is_some());
        batch.lock().error = Some(HsmError::NoFreeSlot);
        assert!(batch.next_run().is_none());
        assert_eq!(batch.outcome(), Err(HsmError::NoFreeSlot));
    }
}
