//! When each token was used last. Noted with every call, in memory; written down now and then, with
//! what is committed anyway: a call costs no write.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::Map;
use crate::domain::{TokenId, UnixTime};

/// How often what was noted is written down at most, in seconds.
const WRITTEN_EVERY_S: u64 = 60;

/// When tokens were used.
#[derive(Default)]
pub struct Uses {
    of: Map<TokenId, Arc<Use>>,
    /// Whether anything was noted that is not written down.
    fresh: AtomicBool,
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
        let of = pinned.get_or_insert_with(id, Arc::default);
        // Most calls come in the second of the one before.
        if of.last.load(Ordering::Relaxed) < now {
            of.last.fetch_max(now, Ordering::Relaxed);
            self.fresh.store(true, Ordering::Release);
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
        let of = pinned.get_or_insert_with(id, Arc::default);
        of.last.fetch_max(at, Ordering::Relaxed);
        of.written.fetch_max(at, Ordering::Relaxed);
    }

    /// What is to be written down with a transaction at `now`; nothing if that was done lately, or
    /// there is nothing new. One thread asks.
    pub fn due(&self, now: UnixTime) -> Option<Arc<[(TokenId, UnixTime)]>> {
        let written_at = self.written_at.load(Ordering::Relaxed);
        if now < written_at.saturating_add(WRITTEN_EVERY_S)
            || !self.fresh.swap(false, Ordering::Acquire)
        {
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
        uses.learn(other, 900);
        assert_eq!((uses.last(one), uses.due(1_000)), (None, None));
        uses.note(one, 1_010);
        let due = uses.due(1_020);
        assert_eq!(due.as_deref(), Some(&[(one, 1_010)][..]), "that alone");
        assert_eq!(uses.due(1_100), None, "it was written");
        uses.note(one, 1_030);
        assert_eq!(uses.due(1_079), None, "not so soon");
        uses.note(one, 1_005);
        uses.note(other, 1_050);
        let last = (uses.last(one), uses.last(other));
        assert_eq!(last, (Some(1_030), Some(1_050)));
        let due = uses.due(1_080);
        assert_eq!(due.as_deref(), Some(&[(one, 1_030), (other, 1_050)][..]));
    }
}
