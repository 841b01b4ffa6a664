//! When each token was used last. Noted with every call, in memory; written down now and then, with
//! what is committed anyway: a call costs no write.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Map;
use crate::domain::{TokenId, UnixTime};

/// How often what was noted is written down at most, in seconds.
const WRITTEN_EVERY_S: u64 = 60;

/// When tokens were used.
#[derive(Default)]
pub struct Uses {
    of: Map<TokenId, Use>,
    written_at: AtomicU64,
}

#[derive(Default)]
struct Use {
    last: AtomicU64,
    /// As far as it was written down.
    written: AtomicU64,
}

impl Uses {
    /// Notes that a token is used.
    pub fn note(&self, id: TokenId, now: UnixTime) {
        let pinned = self.of.pin();
        let of = pinned.get_or_insert_with(id, Use::default);
        // Most calls come in the second of the one before.
        if of.last.load(Ordering::Relaxed) < now {
            of.last.fetch_max(now, Ordering::Relaxed);
        }
    }

    /// When a token was used last, as far as it is known.
    pub fn last(&self, id: TokenId) -> Option<UnixTime> {
        let pinned = self.of.pin();
        let last = pinned.get(&id)?.last.load(Ordering::Relaxed);
        (last > 0).then_some(last)
    }

    /// Takes in what was written down.
    pub(super) fn learn(&self, id: TokenId, at: UnixTime) {
        let pinned = self.of.pin();
        let of = pinned.get_or_insert_with(id, Use::default);
        of.last.fetch_max(at, Ordering::Relaxed);
        of.written.fetch_max(at, Ordering::Relaxed);
    }

    /// What is to be written down with a transaction at `now`; nothing if that was done lately, or
    /// there is nothing new. One thread asks.
    pub fn due(&self, now: UnixTime) -> Option<Arc<[(TokenId, UnixTime)]>> {
        let written_at = self.written_at.load(Ordering::Relaxed);
        if now < written_at.saturating_add(WRITTEN_EVERY_S) {
            return None;
        }
        self.written_at.store(now, Ordering::Relaxed);
        let pinned = self.of.pin();
        let mut due: Vec<_> = pinned
            .iter()
            .filter_map(|(id, of)| {
                let last = of.last.load(Ordering::Relaxed);
                (last > of.written.swap(last, Ordering::Relaxed)).then_some((*id, last))
            })
            .collect();
        due.sort_unstable();
        (!due.is_empty()).then(|| due.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_is_due_once_and_now_and_then() {
        let uses = Uses::default();
        let (one, other) = (TokenId([1; 16]), TokenId([2; 16]));
        assert_eq!((uses.last(one), uses.due(1_000)), (None, None));
        uses.learn(other, 900);
        uses.note(one, 1_010);
        assert_eq!(uses.due(1_059), None, "not so soon");
        let due = uses.due(1_060);
        assert_eq!(
            due.as_deref(),
            Some(&[(one, 1_010)][..]),
            "nothing else is new"
        );
        assert_eq!(uses.due(1_120), None, "it was written");
        uses.note(one, 1_005);
        uses.note(other, 1_130);
        assert_eq!(
            (uses.last(one), uses.last(other)),
            (Some(1_010), Some(1_130))
        );
        assert_eq!(uses.due(1_180).as_deref(), Some(&[(other, 1_130)][..]));
    }
}
