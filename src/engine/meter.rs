//! How fast somebody asks, counted by the generic cell rate algorithm (GCRA): one number for each
//! key that asks. Floor 3.
//!
//! Memory is bounded: a shard that is full forgets whoever has been quiet for as long as makes no
//! difference, and newcomers for whom there is no room then share one number.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use governor::clock::Clock as Ticks;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::{Quota, RateLimiter};

use crate::clock::Clock;
use crate::domain::rules::Rate;
use crate::domain::{Refusal, RefusalCode};

/// Maps of one meter, each with a lock of its own.
const SHARDS: usize = 64;

/// Keys of one shard, at most: a million in all.
const SHARD_KEYS_MAX: usize = 16_384;

/// How often a shard that is full is looked through, at most: many strangers must not cost a look
/// each.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Counts how fast each of many keys asks.
pub struct Meter<K: Eq + Hash + Clone> {
    limiter: RateLimiter<K, Cells<K>, Monotonic, NoOpMiddleware<Duration>>,
    clock: Monotonic,
    what: &'static str,
}

impl<K: Eq + Hash + Clone> Meter<K> {
    /// A meter of `what`, which refusals name. `None` for a rate of nothing or in no time.
    pub(crate) fn new(what: &'static str, rate: Rate, clock: &Arc<dyn Clock>) -> Option<Self> {
        let count = NonZeroU32::new(rate.count)?;
        let each = Duration::from_secs(rate.seconds.into()) / rate.count;
        let quota = Quota::with_period(each)?.allow_burst(count);
        let clock = Monotonic(Arc::clone(clock));
        Some(Self {
            limiter: RateLimiter::new(quota, Cells::new(each), clock.clone()),
            clock,
            what,
        })
    }

    /// Lets `key` ask once more.
    ///
    /// # Errors
    /// `rate_limited`, saying when it may.
    pub fn take(&self, key: &K) -> Result<(), Refusal> {
        let Err(until) = self.limiter.check_key(key) else {
            return Ok(());
        };
        let wait = until.wait_time_from(self.clock.now());
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        let seconds = u32::try_from(seconds.max(1)).unwrap_or(u32::MAX);
        Err(Refusal::new(RefusalCode::RateLimited)
            .detail(format!(
                "this {} asks faster than it may: ask again in {seconds} s",
                self.what
            ))
            .retry_after(seconds))
    }

    /// How many keys are counted.
    #[cfg(test)]
    fn len(self) -> usize {
        let shards = self.limiter.into_state_store().shards;
        let len = |shard: &Mutex<Shard<K>>| shard.lock().map_or(0, |it| it.known.len());
        shards.iter().map(len).sum()
    }
}

/// Monotonic time, as the algorithm asks for it.
#[derive(Clone)]
struct Monotonic(Arc<dyn Clock>);

impl Ticks for Monotonic {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.monotonic()
    }
}

/// What is counted of each key: when it will have been quiet for long enough.
struct Cells<K> {
    shards: Box<[Mutex<Shard<K>>]>,
    hasher: RandomState,
    /// What one more adds.
    each: u64,
}

struct Shard<K> {
    known: HashMap<K, Nanos>,
    /// Of all for whom there is no room.
    others: Option<Nanos>,
    /// When it may be looked through again.
    sweep_at: u64,
}

impl<K> Shard<K> {
    /// Forgets whoever has been quiet for so long that it makes no difference: what is counted of
    /// them lies before `now`.
    fn sweep(&mut self, now: u64) {
        if now < self.sweep_at {
            return;
        }
        self.known.retain(|_, cell| cell.as_u64() > now);
        let pause = u64::try_from(SWEEP_EVERY.as_nanos()).unwrap_or(u64::MAX);
        self.sweep_at = now.saturating_add(pause);
    }
}

impl<K: Eq + Hash + Clone> Cells<K> {
    fn new(each: Duration) -> Self {
        let shard = |_| {
            Mutex::new(Shard {
                known: HashMap::new(),
                others: None,
                sweep_at: 0,
            })
        };
        Self {
            shards: (0..SHARDS).map(shard).collect(),
            hasher: RandomState::new(),
            each: u64::try_from(each.as_nanos()).unwrap_or(u64::MAX),
        }
    }
}

impl<K: Eq + Hash + Clone> StateStore for Cells<K> {
    type Key = K;

    fn measure_and_replace<T, F, E>(&self, key: &K, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let at = self.hasher.hash_one(key) as usize % self.shards.len();
        let mut shard = self.shards[at]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(cell) = shard.known.get_mut(key) {
            let (told, next) = measure(Some(*cell))?;
            *cell = next;
            return Ok(told);
        }
        let (told, next) = measure(None)?;
        if shard.known.len() >= SHARD_KEYS_MAX {
            // A key that is new has the present and one more.
            shard.sweep(next.as_u64().saturating_sub(self.each));
        }
        if shard.known.len() < SHARD_KEYS_MAX {
            shard.known.insert(key.clone(), next);
            return Ok(told);
        }
        let (told, next) = measure(shard.others)?;
        shard.others = Some(next);
        Ok(told)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// A clock that is set, in milliseconds.
    #[derive(Default)]
    struct Set(AtomicU64);

    impl Clock for Set {
        fn unix_ms(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }

        fn monotonic(&self) -> Duration {
            Duration::from_millis(self.unix_ms())
        }
    }

    fn meter(count: u32, seconds: u32) -> (Meter<u32>, Arc<Set>) {
        let clock = Arc::new(Set::default());
        let shared: Arc<dyn Clock> = Arc::clone(&clock) as Arc<dyn Clock>;
        let meter = Meter::new("caller", Rate { count, seconds }, &shared);
        (meter.expect("a meter"), clock)
    }

    #[test]
    fn as_many_as_may_be_and_not_one_more() {
        let (meter, clock) = meter(3, 60);
        assert!((0..3).all(|_| meter.take(&1).is_ok()));
        let refusal = meter.take(&1).expect_err("a fourth");
        assert_eq!(refusal.code, RefusalCode::RateLimited);
        assert_eq!(refusal.retry_after_s, Some(20));
        assert!(
            refusal.to_string().contains("ask again in 20 s"),
            "{refusal}"
        );
        assert!(meter.take(&2).is_ok(), "another is not concerned");
        // One becomes free after a third of the time: not a moment sooner.
        clock.0.store(19_999, Ordering::Relaxed);
        assert_eq!(meter.take(&1).map_err(|it| it.retry_after_s), Err(Some(1)));
        clock.0.store(20_000, Ordering::Relaxed);
        assert!(meter.take(&1).is_ok() && meter.take(&1).is_err());
        clock.0.store(200_000, Ordering::Relaxed);
        assert!((0..3).all(|_| meter.take(&1).is_ok()));
        assert!(meter.take(&1).is_err());
    }

    #[test]
    fn the_quiet_are_forgotten_and_no_more_are_kept_than_there_is_room_for() {
        let (meter, clock) = meter(1, 1);
        let most = (SHARDS * SHARD_KEYS_MAX) as u32;
        let all = most + most / 2;
        let passed = (0..all).filter(|key| meter.take(key).is_ok()).count();
        // Those for whom there was no room have shared one number in each shard.
        assert_eq!(passed, most as usize + SHARDS);
        assert!(meter.take(&0).is_err(), "who is known stays known");
        clock.0.store(1_000, Ordering::Relaxed);
        assert!(meter.take(&all).is_ok(), "its shard has forgotten");
        let left = meter.len();
        assert!(left < most as usize && left > most as usize / 2, "{left}");
    }
}
