//! `search`: the highest rate that is sustained. A rate holds if nothing is dropped or refused and
//! p99 stays under the bound. Doubles until one does not hold, then halves the gap.

use std::rc::Rc;

use anyhow::ensure;
use clap::Args;
use serde::Serialize;

use crate::command_line::Common;
use crate::redeem::{RedeemArgs, redeem};
use crate::report::RunReport;
use crate::target::Target;

/// Runs in one search, at most.
const RUNS_MAX: usize = 40;

#[derive(Args)]
pub(crate) struct SearchArgs {
    /// Where to begin, in redemptions a second
    #[arg(long, default_value_t = 500.0)]
    from: f64,
    /// The highest rate to try
    #[arg(long, default_value_t = 20_000.0)]
    to: f64,
    /// Seconds of each run
    #[arg(long, default_value_t = 5.0)]
    duration: f64,
    /// The bound of p99, in milliseconds
    #[arg(long, default_value_t = 100.0)]
    p99_ms: f64,
    /// How close to come, as a share of the rate
    #[arg(long, default_value_t = 0.05)]
    precision: f64,
    /// Times a rate must fail before it counts as too high
    #[arg(long, default_value_t = 2)]
    tries: usize,
}

/// What was found.
#[derive(Serialize)]
pub(crate) struct Found {
    mode: &'static str,
    /// The highest rate that held, in redemptions a second; zero where none did.
    pub(crate) sustained_per_s: f64,
    keys_per_s: f64,
    p99_ms_max: f64,
    precision: f64,
    runs: Vec<Tried>,
}

/// One run of a search.
#[derive(Serialize)]
struct Tried {
    rate_per_s: f64,
    holds: bool,
    #[serde(flatten)]
    run: RunReport,
}

/// Brackets the highest rate for which something holds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Bracket {
    holds: f64,
    fails: Option<f64>,
    next: f64,
}

impl Bracket {
    fn from(rate: f64) -> Self {
        Self {
            holds: 0.0,
            fails: None,
            next: rate,
        }
    }

    /// Takes in whether the next rate held. None once the bracket is narrow enough.
    fn tried(self, held: bool, to: f64, precision: f64) -> (Self, bool) {
        let mut after = self;
        if held {
            after.holds = self.next;
        } else {
            after.fails = Some(self.next);
        }
        let done = match after.fails {
            None => {
                after.next = (after.holds * 2.0).min(to);
                after.holds >= to
            }
            Some(fails) => {
                after.next = ((after.holds + fails) / 2.0).round();
                fails - after.holds <= (precision * fails).max(1.0)
            }
        };
        (after, done)
    }
}

/// Searches.
///
/// # Errors
/// Where a run cannot be made.
pub(crate) async fn search(
    target: &Rc<Target>,
    common: &Common,
    args: &SearchArgs,
) -> anyhow::Result<Found> {
    ensure!(
        args.from > 0.0 && args.to >= args.from && args.precision > 0.0,
        "--from is above zero and not above --to, --precision above zero"
    );
    let mut runs = Vec::new();
    let mut bracket = Bracket::from(args.from);
    for _ in 0..RUNS_MAX {
        let held = holds(target, common, args, bracket.next, &mut runs).await?;
        let done;
        (bracket, done) = bracket.tried(held, args.to, args.precision);
        if done {
            break;
        }
    }
    eprintln!("sustained: {:.0}/s", bracket.holds);
    Ok(Found {
        mode: "search",
        sustained_per_s: bracket.holds,
        keys_per_s: bracket.holds * f64::from(common.functions),
        p99_ms_max: args.p99_ms,
        precision: args.precision,
        runs,
    })
}

async fn holds(
    target: &Rc<Target>,
    common: &Common,
    args: &SearchArgs,
    rate: f64,
    runs: &mut Vec<Tried>,
) -> anyhow::Result<bool> {
    for _ in 0..args.tries.max(1) {
        let asked = RedeemArgs {
            rate,
            duration: args.duration,
            warm_up: 1.0,
        };
        let run = redeem(target, common, &asked).await?.run;
        let quick = |run: &RunReport| {
            let mut phases = run.phases.iter();
            phases.all(|phase| {
                let all = phase.admitted.count == phase.arrivals;
                all && phase.admitted.p99_ms <= args.p99_ms
            })
        };
        let holds = run.valid && quick(&run);
        runs.push(Tried {
            rate_per_s: rate,
            holds,
            run,
        });
        if holds {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(limit: f64, from: f64, to: f64) -> (f64, usize) {
        let mut bracket = Bracket::from(from);
        for runs in 1..=RUNS_MAX {
            let done;
            (bracket, done) = bracket.tried(bracket.next <= limit, to, 0.02);
            if done {
                return (bracket.holds, runs);
            }
        }
        panic!("never narrow enough: {bracket:?}");
    }

    #[test]
    fn the_limit_is_found_from_below_and_from_above() {
        for (limit, from) in [
            (1234.0, 100.0),
            (1234.0, 1000.0),
            (1234.0, 9000.0),
            (3.0, 500.0),
        ] {
            let (found, runs) = find(limit, from, 20_000.0);
            assert!(found <= limit, "{limit} {from}: {found}");
            assert!(found >= limit * 0.97 - 1.0, "{limit} {from}: {found}");
            assert!(runs < 20, "{limit} {from}: {runs} runs");
        }
    }

    #[test]
    fn a_server_without_a_limit_is_searched_up_to_the_highest_rate() {
        assert_eq!(find(f64::INFINITY, 500.0, 3000.0).0, 3000.0);
        assert_eq!(find(0.0, 500.0, 3000.0).0, 0.0);
    }
}
