//! Refusing before the work: a worker that has more to do than it gets round to says `busy`.
//!
//! A worker turns to each of its connections in rounds. When more requests come than it can serve,
//! they wait where nobody sees them, in sockets and in the worker's own list of ready connections,
//! and each of them longer than the one before. A worker therefore notes when a round began; what it
//! turns to much later than that is refused at once, its body and proof not looked at, which costs
//! a fraction of serving it. So the round ends soon, and whoever is served has waited for about
//! one round.
//!
//! One long round is no sign of too many requests: a process may not have been given a processor
//! for a while. Four times as long as a round should take is served at first. After each that was
//! too long it is half as much, until rounds are short again, and then more by and by.
//!
//! A burst out of the blue, with thousands of connections to be opened, makes rounds of many requests
//! that take much longer than that. While there are such, and late in a round that becomes one,
//! what has waited in its socket for longer than is ever served (`socket.rs`) is refused, wherever
//! in the round it comes.
//!
//! Deliberately not here: the queues behind the workers, which have bounds of their own.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use super::idle;
use crate::engine::Engine;

/// How often a worker with nothing to do begins a round.
const TICK: Duration = Duration::from_millis(5);

/// Requests a worker serves in each round, however long it takes: few requests that take long are
/// no sign of too many, and neither is a process that was not given a processor.
const SERVED_MIN: u32 = 64;

/// Requests in a round from which on its length tells how many there are, and nothing else.
const MANY: u32 = 1024;

thread_local! {
    static ROUND: Round = const { Round::new() };
}

/// The round a worker is in. Each worker has its own, and nobody else looks at it.
struct Round {
    began: Cell<Duration>,
    seen: Cell<u32>,
    served: Cell<u32>,
    /// For how long of this round requests are served, in 256ths of what a round should take.
    share: Cell<u32>,
    /// Whether rounds have been too long for nothing but the number of requests.
    crowded: Cell<bool>,
}

/// As long as a round should take.
const WHOLE: u32 = 256;

/// The most: one long round alone is no sign of too many requests.
const MOST: u32 = 4 * WHOLE;

impl Round {
    const fn new() -> Self {
        Self {
            began: Cell::new(Duration::ZERO),
            seen: Cell::new(0),
            served: Cell::new(0),
            share: Cell::new(MOST),
            crowded: Cell::new(false),
        }
    }

    /// Ends a round, which should not have taken longer than `longest`, and begins the next.
    fn begin(&self, now: Duration, longest: Duration) {
        let took = now.saturating_sub(self.began.get());
        let share = self.share.get();
        self.share.set(if took > longest {
            (share / 2).max(1)
        } else {
            (share + share / 8 + 1).min(MOST)
        });
        if took <= longest {
            self.crowded.set(false);
        } else if self.seen.get() >= MANY {
            self.crowded.set(true);
        }
        self.began.set(now);
        self.seen.set(0);
        self.served.set(0);
    }

    /// Whether one more request is served in this round. `waited` is how long it was in its socket,
    /// where that is known; it is asked only if it counts.
    fn serves(
        &self,
        now: Duration,
        longest: Duration,
        waited: impl FnOnce() -> Option<Duration>,
    ) -> bool {
        self.seen.set(self.seen.get().saturating_add(1));
        let served = self.served.get();
        let until = longest * self.share.get() / WHOLE;
        let in_time = now.saturating_sub(self.began.get()) <= until;
        let fresh = || waited().is_none_or(|waited| waited <= longest * MOST / WHOLE);
        let crowded = self.crowded.get() || self.seen.get() > MANY / 4;
        let serves = (in_time || served < SERVED_MIN) && (!crowded || fresh());
        self.served.set(served.saturating_add(u32::from(serves)));
        serves
    }
}

/// Has the worker of this thread note its rounds, for as long as it runs, and in each of them end
/// connections that idle.
///
/// `longest` is how much of a round is served at most.
pub(super) fn watch(engine: Arc<Engine>, longest: Duration) {
    actix_web::rt::spawn(async move {
        loop {
            let now = engine.clock().monotonic();
            ROUND.with(|round| round.begin(now, longest));
            idle::look(now);
            actix_web::rt::time::sleep(TICK).await;
        }
    });
}

/// Whether the worker of this thread still serves requests in this round, one that has waited so
/// long among them.
pub(super) fn serves(
    now: Duration,
    longest: Duration,
    waited: impl FnOnce() -> Option<Duration>,
) -> bool {
    ROUND.with(|round| round.serves(now, longest, waited))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_late_in_a_round_is_refused_until_the_next() {
        let longest = Duration::from_millis(25);
        let at = Duration::from_millis;
        let no = || None;
        let round = Round::new();
        round.begin(at(1_000), longest);
        round.share.set(WHOLE);
        assert!((0..1_000).all(|_| round.serves(at(1_025), longest, no)));
        assert!(!round.serves(at(1_026), longest, no));
        round.begin(at(1_040), longest);
        assert!(round.serves(at(1_041), longest, no));
        // Few requests in a long round: the machine was busy, not the worker.
        round.begin(at(2_000), longest);
        let served = (0..100).filter(|_| round.serves(at(9_000), longest, no));
        assert_eq!(served.count(), SERVED_MIN as usize);
    }

    #[test]
    fn after_a_long_round_of_many_what_has_waited_too_long_is_refused() {
        let longest = Duration::from_millis(25);
        let round = Round::new();
        let mut now = Duration::from_secs(1);
        round.begin(now, longest);
        let mut after = |seen: u32, ms: u64, waited: Option<u64>| {
            round.seen.set(seen);
            now += Duration::from_millis(ms);
            round.begin(now, longest);
            round.serves(now, longest, || waited.map(Duration::from_millis))
        };
        assert!(after(MANY, 25, Some(9_000)), "not long");
        assert!(
            after(MANY - 1, 5_000, Some(5_000)),
            "the machine stood still"
        );
        assert!(!after(MANY, 26, Some(101)));
        assert!(after(MANY, 500, Some(100)));
        assert!(after(MANY, 500, None), "nobody knows");
        assert!(!after(1, 26, Some(101)), "still too long");
        assert!(after(1, 25, Some(101)), "short again");
    }

    #[test]
    fn while_rounds_stay_long_less_of_each_is_served() {
        let longest = Duration::from_millis(40);
        let round = Round::new();
        let mut now = Duration::from_secs(1);
        let mut served_for = || {
            now += Duration::from_millis(100);
            round.begin(now, longest);
            round.served.set(SERVED_MIN);
            let served =
                |ms: &u64| round.serves(now + Duration::from_millis(*ms), longest, || None);
            (0..=200).take_while(served).count() as u64
        };
        let long: Vec<_> = (0..5).map(|_| served_for()).collect();
        assert_eq!(long, [81, 41, 21, 11, 6]);
        for _ in 0..50 {
            now += Duration::from_millis(5);
            round.begin(now, longest);
        }
        assert_eq!(round.share.get(), MOST);
    }
}
