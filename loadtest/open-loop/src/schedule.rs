//! When each arrival is due: decided before the run, by rates alone. Nothing the server does moves
//! an arrival.

use std::time::Duration;

/// A stretch of one rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Phase {
    /// Its name in the report.
    pub(crate) name: &'static str,
    /// Arrivals a second.
    pub(crate) rate_per_s: f64,
    /// How long, in seconds.
    pub(crate) seconds: f64,
}

/// How arrivals of one rate lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spacing {
    /// At equal intervals.
    Even,
    /// As if by independent callers: exponential gaps, drawn from this seed.
    Poisson {
        /// The same seed gives the same arrivals.
        seed: u64,
    },
}

/// One arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// When it is due, after the run's beginning.
    pub(crate) due: Duration,
    /// The index of its phase.
    pub(crate) phase: usize,
}

/// All arrivals of a run, in the order in which they are due.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    /// The phases, one after the other.
    pub(crate) phases: Vec<Phase>,
    /// The arrivals.
    pub(crate) arrivals: Vec<Arrival>,
}

impl Schedule {
    /// The arrivals of `phases`.
    pub(crate) fn new(phases: Vec<Phase>, spacing: Spacing) -> Self {
        let mut arrivals = Vec::new();
        let mut begin = 0.0;
        let mut gaps = Gaps::new(spacing);
        for (index, phase) in phases.iter().enumerate() {
            let mut at = 0.0;
            let mut nth = 0u32;
            while at < phase.seconds && phase.rate_per_s > 0.0 {
                arrivals.push(Arrival {
                    due: Duration::from_secs_f64(begin + at),
                    phase: index,
                });
                nth += 1;
                at = match gaps.next() {
                    // From the count, not from the last one: nothing adds up.
                    None => f64::from(nth) / phase.rate_per_s,
                    Some(gap) => at + gap / phase.rate_per_s,
                };
            }
            begin += phase.seconds;
        }
        Self { phases, arrivals }
    }

    /// How long it is, from its beginning to the end of its last phase, in seconds.
    pub(crate) fn seconds(&self) -> f64 {
        self.phases.iter().map(|phase| phase.seconds).sum()
    }

    /// When a phase begins, in seconds.
    pub(crate) fn begin_of(&self, phase: usize) -> f64 {
        self.phases[..phase].iter().map(|phase| phase.seconds).sum()
    }
}

/// Gaps of mean one, or none where the spacing is even. The generator is SplitMix64: arrivals need
/// to look independent, not to be unguessable.
struct Gaps {
    state: Option<u64>,
}

impl Gaps {
    fn new(spacing: Spacing) -> Self {
        let state = match spacing {
            Spacing::Even => None,
            Spacing::Poisson { seed } => Some(seed),
        };
        Self { state }
    }

    fn next(&mut self) -> Option<f64> {
        let state = self.state.as_mut()?;
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = *state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        // In (0, 1], so that the logarithm is finite.
        let uniform = ((mixed >> 11) + 1) as f64 / (1u64 << 53) as f64;
        Some(-uniform.ln())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phase(rate_per_s: f64, seconds: f64) -> Phase {
        Phase {
            name: "test",
            rate_per_s,
            seconds,
        }
    }

    #[test]
    fn even_arrivals_are_exact_and_do_not_drift() {
        let schedule = Schedule::new(vec![phase(3.0, 1000.0)], Spacing::Even);
        assert_eq!(schedule.arrivals.len(), 3000);
        assert_eq!(schedule.arrivals[0].due, Duration::ZERO);
        let due = schedule.arrivals[2997].due;
        assert_eq!(due, Duration::from_secs(999));
    }

    #[test]
    fn phases_follow_one_another_at_their_own_rates() {
        let phases = vec![phase(10.0, 2.0), phase(100.0, 1.0), phase(10.0, 1.0)];
        let schedule = Schedule::new(phases, Spacing::Even);
        let of = |index| {
            let mine = schedule.arrivals.iter().filter(|one| one.phase == index);
            mine.count()
        };
        assert_eq!([of(0), of(1), of(2)], [20, 100, 10]);
        assert_eq!(schedule.arrivals[20].due, Duration::from_secs(2));
        assert_eq!(schedule.arrivals[120].due, Duration::from_secs(3));
        assert!(schedule.arrivals.is_sorted_by_key(|one| one.due));
        assert!((schedule.seconds() - 4.0).abs() < 1e-9);
        assert!((schedule.begin_of(2) - 3.0).abs() < 1e-9);
    }

    #[test]
    fn poisson_arrivals_keep_the_rate_vary_and_repeat_with_their_seed() {
        let make = |seed| Schedule::new(vec![phase(1000.0, 100.0)], Spacing::Poisson { seed });
        let one = make(1);
        // 100,000 expected, standard deviation 316.
        assert!((98_000..102_000).contains(&one.arrivals.len()));
        assert!(one.arrivals.is_sorted_by_key(|one| one.due));
        let gaps: Vec<_> = one
            .arrivals
            .windows(2)
            .map(|pair| (pair[1].due - pair[0].due).as_secs_f64())
            .collect();
        // Of exponential gaps 1 − 1/e are shorter than their mean.
        let short = gaps.iter().filter(|gap| **gap < 0.001).count() as f64;
        let share = short / gaps.len() as f64;
        assert!((share - 0.632).abs() < 0.01, "{share}");
        assert_eq!(one.arrivals, make(1).arrivals);
        assert_ne!(one.arrivals, make(2).arrivals);
    }

    #[test]
    fn a_rate_of_zero_is_a_pause() {
        let schedule = Schedule::new(vec![phase(0.0, 1.0), phase(1.0, 1.0)], Spacing::Even);
        assert_eq!(schedule.arrivals.len(), 1);
        assert_eq!(schedule.arrivals[0].due, Duration::from_secs(1));
    }
}
