//! How each arrival ended. Every outcome is kept as it was, so percentiles are exact and may be
//! asked of any stretch of the run afterwards.

use std::time::Duration;

use serde::Serialize;

/// How one arrival ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// With an answer.
    Answered {
        /// Its status code.
        status: u16,
        /// The refusal's code, in [`Ledger::code`].
        code: Option<usize>,
        /// Whether it said when to come back.
        retry_after: bool,
    },
    /// No connection was free.
    Dropped,
    /// No answer came in time.
    TimedOut,
    /// The connection failed.
    Broken,
}

impl Ending {
    /// Whether it got its bundle.
    pub(crate) fn admitted(self) -> bool {
        matches!(
            self,
            Self::Answered {
                status: 200 | 201,
                ..
            }
        )
    }

    /// Whether it was told no.
    pub(crate) fn refused(self) -> bool {
        matches!(self, Self::Answered { .. }) && !self.admitted()
    }

    /// Whether the server said no with a 503 and when to come back.
    pub(crate) fn shed(self) -> bool {
        matches!(
            self,
            Self::Answered {
                status: 503,
                retry_after: true,
                ..
            }
        )
    }
}

/// One arrival, over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    /// The index of its phase.
    pub(crate) phase: usize,
    /// When it was due, after the run's beginning.
    pub(crate) due: Duration,
    /// How late the client itself began with it.
    pub(crate) late: Duration,
    /// From when it was *due* to its end.
    pub(crate) took: Duration,
    /// How it ended.
    pub(crate) ending: Ending,
}

/// All arrivals that are over.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// In the order in which they ended.
    pub(crate) outcomes: Vec<Outcome>,
    /// Answers looked at closely.
    pub(crate) checked: u64,
    /// Those of them that were not as they must be.
    pub(crate) misshapen: u64,
    /// What was wrong first, of an answer or a connection.
    pub(crate) first_trouble: Option<String>,
    codes: Vec<String>,
}

impl Ledger {
    /// The number of a refusal code.
    pub(crate) fn number(&mut self, code: String) -> usize {
        match self.codes.iter().position(|known| *known == code) {
            Some(number) => number,
            None => {
                self.codes.push(code);
                self.codes.len() - 1
            }
        }
    }

    /// The refusal code of a number.
    pub(crate) fn code(&self, number: usize) -> &str {
        &self.codes[number]
    }

    /// Remembers what went wrong, if it is the first.
    pub(crate) fn trouble(&mut self, what: impl FnOnce() -> String) {
        if self.first_trouble.is_none() {
            self.first_trouble = Some(what());
        }
    }
}

/// Latencies in milliseconds; percentiles are the smallest value that so many do not exceed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Latency {
    /// How many there were.
    pub(crate) count: usize,
    /// Half.
    pub(crate) p50_ms: f64,
    /// Nine of ten.
    pub(crate) p90_ms: f64,
    /// All but one in a hundred.
    pub(crate) p99_ms: f64,
    /// All but one in a thousand.
    pub(crate) p99_9_ms: f64,
    /// The worst.
    pub(crate) max_ms: f64,
}

impl Latency {
    /// Of these durations, in any order.
    pub(crate) fn of(durations: impl Iterator<Item = Duration>) -> Self {
        let mut all: Vec<_> = durations.collect();
        all.sort_unstable();
        let at = |per_mille: usize| {
            let rank = (all.len() * per_mille).div_ceil(1000).max(1);
            let found = all.get(rank - 1).copied().unwrap_or_default();
            milliseconds(found)
        };
        Self {
            count: all.len(),
            p50_ms: at(500),
            p90_ms: at(900),
            p99_ms: at(990),
            p99_9_ms: at(999),
            max_ms: at(1000),
        }
    }
}

/// A duration in milliseconds, to a microsecond.
pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_exact_whatever_the_order() {
        let latency = Latency::of((1..=1000).rev().map(Duration::from_millis));
        assert_eq!(latency.count, 1000);
        assert_eq!(latency.p50_ms, 500.0);
        assert_eq!(latency.p90_ms, 900.0);
        assert_eq!(latency.p99_ms, 990.0);
        assert_eq!(latency.p99_9_ms, 999.0);
        assert_eq!(latency.max_ms, 1000.0);
    }

    #[test]
    fn few_latencies_round_up_to_the_worst_and_none_are_zero() {
        let latency = Latency::of([1, 2, 30].map(Duration::from_millis).into_iter());
        assert_eq!((latency.p50_ms, latency.p99_ms), (2.0, 30.0));
        assert_eq!(Latency::of(std::iter::empty()), Latency::default());
    }

    #[test]
    fn endings_are_admitted_refused_or_neither() {
        let answered = |status, retry_after| Ending::Answered {
            status,
            code: None,
            retry_after,
        };
        assert!(answered(201, false).admitted() && !answered(201, false).refused());
        assert!(answered(503, true).shed() && answered(503, true).refused());
        assert!(!answered(503, false).shed() && !answered(429, true).shed());
        for other in [Ending::Dropped, Ending::TimedOut, Ending::Broken] {
            assert!(!other.admitted() && !other.refused() && !other.shed());
        }
    }

    #[test]
    fn a_code_keeps_its_number() {
        let mut ledger = Ledger::default();
        let numbers = ["busy", "proof_invalid", "busy"].map(|code| ledger.number(code.into()));
        assert_eq!(numbers, [0, 1, 0]);
        assert_eq!(ledger.code(1), "proof_invalid");
    }
}
