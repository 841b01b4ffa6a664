//! How fast the HSM signs, and how much waits for it and for how long: what `auto` and the door
//! decide by.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Signatures in one call from which its time says something about the rate.
const TELLING_MIN: usize = 16;

/// Weight of the newest measurement.
const NEWEST: f64 = 0.25;

/// Keys taken for what the HSM signs in a moment, before anything was measured.
const UNMEASURED: usize = 64;

/// How long ago keys came that no longer count for how many come.
const REMEMBERED: Duration = Duration::from_millis(200);

/// How long arrivals are counted before they are a rate.
const COUNTED_MIN: Duration = Duration::from_millis(20);

/// The HSM's measured rate, and the keys that wait. All of it is advice: a number read a moment too
/// late makes a batch a little too large or too small, so relaxed orderings are enough.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Signatures a second, as the bits of an `f64`; zero while nothing was measured. Written by
    /// the signing thread alone.
    rate: AtomicU64,
    /// Keys let in and not yet taken into a batch.
    waiting: AtomicUsize,
    /// Keys let in since the start.
    arrived: AtomicUsize,
}

/// Redemptions that may wait however long they do: few that wait long have a slow HSM or a slow
/// disk before them, not too many others.
const WAITING_MIN: usize = 64;

/// How long the redemption at the head of the queue has waited. Whoever lets one in and the batching
/// thread, which takes them in the same order, keep it up to date.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    len: AtomicUsize,
    /// When the head was let in, or the one before it, in microseconds of the monotonic clock.
    since_us: AtomicU64,
}

impl Queue {
    /// One more was let in.
    pub(crate) fn join(&self, now: Duration) {
        if self.len.fetch_add(1, Ordering::Relaxed) == 0 {
            self.set(now);
        }
    }

    /// The head, let in at `joined`, was taken.
    pub(crate) fn leave(&self, joined: Duration) {
        self.set(joined);
        self.len.fetch_sub(1, Ordering::Relaxed);
    }

    /// The last one let in was not taken: it is turned away.
    pub(crate) fn turn_away(&self) {
        self.len.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether more wait than a few, and the first of them longer than `longest`.
    pub(crate) fn is_slow(&self, now: Duration, longest: Duration) -> bool {
        let since = Duration::from_micros(self.since_us.load(Ordering::Relaxed));
        self.len.load(Ordering::Relaxed) > WAITING_MIN && now.saturating_sub(since) > longest
    }

    fn set(&self, since: Duration) {
        let since_us = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
        self.since_us.store(since_us, Ordering::Relaxed);
    }
}

/// How many keys come in a second, whatever becomes of them. The batching thread's own.
#[derive(Debug, Default)]
pub(super) struct Demand {
    counted: usize,
    at: Duration,
    per_s: f64,
}

impl Demand {
    /// Whether so many come that an HSM that signs each of them is more busy than idle: then they
    /// would soon wait, and, where it signs in this machine's own processors, so would all else.
    pub(super) fn is_high(&mut self, pace: &Pace, now: Duration) -> bool {
        let passed = now.saturating_sub(self.at);
        if passed >= COUNTED_MIN {
            let arrived = pace.arrived.load(Ordering::Relaxed);
            let came = arrived.wrapping_sub(self.counted) as f64 / passed.as_secs_f64();
            let weight = (passed.as_secs_f64() / REMEMBERED.as_secs_f64()).min(1.0);
            self.per_s += weight * (came - self.per_s);
            (self.counted, self.at) = (arrived, now);
        }
        self.per_s > pace.rate() / 2.0 && pace.rate() > 0.0
    }
}

impl Pace {
    /// Learns from one call that made `signatures` in `took`.
    pub(crate) fn learn(&self, signatures: usize, took: Duration) {
        let known = self.rate();
        if signatures < TELLING_MIN && known > 0.0 {
            return;
        }
        let measured = signatures as f64 / took.as_secs_f64().max(1e-9);
        let rate = if known > 0.0 {
            known + NEWEST * (measured - known)
        } else {
            measured
        };
        self.rate.store(rate.to_bits(), Ordering::Relaxed);
    }

    /// Signatures a second; zero while nothing was measured.
    pub(crate) fn rate(&self) -> f64 {
        f64::from_bits(self.rate.load(Ordering::Relaxed))
    }

    /// How many keys the HSM signs, one by one, within `goal`.
    pub(crate) fn within(&self, goal: Duration) -> usize {
        let rate = self.rate();
        if rate > 0.0 {
            ((rate * goal.as_secs_f64()) as usize).max(1)
        } else {
            UNMEASURED
        }
    }

    /// More keys wait.
    pub(crate) fn arrive(&self, keys: usize) {
        self.waiting.fetch_add(keys, Ordering::Relaxed);
        self.arrived.fetch_add(keys, Ordering::Relaxed);
    }

    /// Fewer keys wait.
    pub(crate) fn leave(&self, keys: usize) {
        self.waiting.fetch_sub(keys, Ordering::Relaxed);
    }

    /// Keys that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_slow_while_its_head_waits_too_long_and_is_not_one_of_few() {
        let (queue, longest) = (Queue::default(), Duration::from_millis(50));
        let at = |ms| Duration::from_millis(1_000 + ms);
        for ms in 0..WAITING_MIN as u64 {
            queue.join(at(ms));
        }
        assert!(!queue.is_slow(at(60_000), longest), "few");
        queue.join(at(64));
        assert!(!queue.is_slow(at(50), longest));
        assert!(queue.is_slow(at(51), longest));
        // Two more come, the first two leave: now the one that came at 2 ms is the head.
        queue.join(at(70));
        queue.join(at(71));
        queue.leave(at(0));
        queue.leave(at(1));
        assert!(!queue.is_slow(at(51), longest));
        assert!(queue.is_slow(at(53), longest));
        queue.turn_away();
        assert!(!queue.is_slow(at(53), longest));
        // An empty queue forgets how long ago anybody waited.
        for ms in 2..=65 {
            queue.leave(at(ms));
        }
        for _ in 0..=WAITING_MIN {
            queue.join(at(90_000));
        }
        assert!(!queue.is_slow(at(90_001), longest));
    }

    #[test]
    fn demand_is_high_where_the_hsm_would_be_more_busy_than_idle() {
        let (pace, mut demand) = (Pace::default(), Demand::default());
        let mut now = Duration::from_secs(5);
        let mut second_of = |pace: &Pace, keys_per_s: usize| {
            let mut high = false;
            for _ in 0..50 {
                now += Duration::from_millis(20);
                pace.arrive(keys_per_s / 50);
                high = demand.is_high(pace, now);
            }
            high
        };
        assert!(!second_of(&pace, 5_000), "nothing was measured yet");
        pace.learn(1_000, Duration::from_millis(100));
        assert!(!second_of(&pace, 4_000));
        assert!(second_of(&pace, 6_000));
        assert!(!second_of(&pace, 100));
    }

    #[test]
    fn the_measured_rate_decides() {
        let pace = Pace::default();
        let goal = Duration::from_millis(100);
        assert_eq!(pace.within(goal), UNMEASURED);
        // A first measurement is better than none, however small.
        pace.learn(1, Duration::from_millis(5));
        assert_eq!(pace.within(goal), 20);
        pace.learn(1, Duration::from_millis(500));
        assert_eq!(pace.within(goal), 20, "one signature tells little");
        for _ in 0..50 {
            pace.learn(1_000, Duration::from_millis(20));
        }
        assert!(pace.within(goal) > 4_900, "{}", pace.within(goal));
    }
}
