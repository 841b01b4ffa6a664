//! `overload`: calm, a burst far above what the server can do, calm again. What is admitted must
//! stay quick, the rest be refused at once with a time to come back, and afterwards everything be
//! as it was.

use std::rc::Rc;

use anyhow::ensure;
use clap::Args;
use serde::Serialize;

use crate::command_line::Common;
use crate::drive::drive;
use crate::prepare::{Preparation, prepare};
use crate::redeem::say;
use crate::report::{RunReport, Second};
use crate::schedule::{Phase, Schedule};
use crate::target::Target;
use crate::watch::Watch;

/// The phases' places in the schedule. The first is warming up.
const CALM: usize = 1;
const BURST: usize = 2;
const AFTER: usize = 3;

/// Seconds in a row that must be as quick as before the burst.
const CALM_SECONDS: usize = 2;

#[derive(Args)]
pub(crate) struct OverloadArgs {
    /// The rate that is sustained, in redemptions a second; before and after the burst it is half
    #[arg(long, default_value_t = 1000.0)]
    base: f64,
    /// How many times that rate the burst is
    #[arg(long, default_value_t = 5.0)]
    factor: f64,
    /// Seconds before the burst
    #[arg(long, default_value_t = 5.0)]
    calm: f64,
    /// Seconds of the burst
    #[arg(long, default_value_t = 5.0)]
    burst: f64,
    /// Seconds after it
    #[arg(long, default_value_t = 15.0)]
    after: f64,
}

/// What an overload did.
#[derive(Serialize)]
pub(crate) struct Overloaded {
    mode: &'static str,
    base_per_s: f64,
    factor: f64,
    prepared: Preparation,
    /// The 99th percentile of what was admitted in the burst.
    burst_admitted_p99_ms: f64,
    /// Bundles a second in the burst's own seconds.
    burst_bundles_per_s: f64,
    /// Refusals in the burst.
    burst_refused: usize,
    /// Whether each of them was a 503 with `Retry-After`.
    all_refusals_say_when: bool,
    /// The highest p99 of a second before the burst: what "as it was" means.
    calm_p99_ms: f64,
    /// Seconds from the burst's end until arrivals are as quick as that, and none is refused.
    recovered_after_s: Option<usize>,
    rss_before_mib: Option<f64>,
    rss_after_mib: Option<f64>,
    #[serde(flatten)]
    pub(crate) run: RunReport,
}

/// Prepares and drives it.
///
/// # Errors
/// Where it cannot be made.
pub(crate) async fn overload(
    target: &Rc<Target>,
    common: &Common,
    args: &OverloadArgs,
) -> anyhow::Result<Overloaded> {
    let whole = [args.calm, args.burst, args.after];
    ensure!(
        whole
            .iter()
            .all(|length| length.fract() == 0.0 && *length >= 1.0),
        "--calm, --burst and --after are whole seconds, one at least"
    );
    let phase = |name, rate_per_s, seconds| Phase {
        name,
        rate_per_s,
        seconds,
    };
    let half = args.base / 2.0;
    let phases = vec![
        phase("warm-up", half, 1.0),
        phase("calm", half, args.calm),
        phase("burst", args.base * args.factor, args.burst),
        phase("after", half, args.after),
    ];
    let schedule = Schedule::new(phases, common.spacing());
    common.check(&schedule)?;
    Watch::new(target).settle().await;
    let (requests, prepared) = prepare(target, schedule.arrivals.len(), &common.wanted()).await?;
    let driven = drive(target, &schedule, requests, common.settings()).await?;
    let run = RunReport::new(&schedule, &driven, CALM);
    say(&run);
    let seconds = |phase| {
        let begin = schedule.begin_of(phase) as usize;
        begin..begin + schedule.phases[phase].seconds as usize
    };
    let calm_p99_ms = worst_p99(&run.timeline[seconds(CALM)]);
    let recovered_after_s = recovered_after(&run.timeline[seconds(AFTER)], calm_p99_ms);
    let burst = &run.phases[BURST - CALM];
    let bundles = run.timeline[seconds(BURST)].iter().map(|row| row.bundles);
    Ok(Overloaded {
        mode: "overload",
        base_per_s: args.base,
        factor: args.factor,
        prepared,
        burst_admitted_p99_ms: burst.admitted.p99_ms,
        burst_bundles_per_s: bundles.sum::<usize>() as f64 / burst.seconds,
        burst_refused: burst.refused.count,
        all_refusals_say_when: run.phases.iter().all(|phase| phase.refused_otherwise == 0),
        calm_p99_ms,
        recovered_after_s,
        rss_before_mib: run.server.rss_before_mib,
        rss_after_mib: run.server.rss_after_mib,
        run,
    })
}

fn worst_p99(rows: &[Second]) -> f64 {
    rows.iter().map(|row| row.p99_ms).fold(0.0, f64::max)
}

/// The first of `rows` from which on some seconds in a row are as quick as `limit` and refuse
/// nothing. None where they never are.
fn recovered_after(rows: &[Second], limit_ms: f64) -> Option<usize> {
    let calm = |row: &Second| row.admitted == row.arrivals && row.p99_ms <= limit_ms;
    let mut windows = rows.windows(CALM_SECONDS);
    windows.position(|window| window.iter().all(calm))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(p99s: &[f64]) -> Vec<Second> {
        let row = |p99_ms: &f64| Second {
            p99_ms: *p99_ms,
            arrivals: 10,
            admitted: 10,
            ..Second::default()
        };
        p99s.iter().map(row).collect()
    }

    #[test]
    fn recovered_means_quick_and_staying_so() {
        let limit = worst_p99(&rows(&[3.0, 5.0, 4.0]));
        assert_eq!(limit, 5.0);
        assert_eq!(recovered_after(&rows(&[1.0, 1.0]), limit), Some(0));
        assert_eq!(
            recovered_after(&rows(&[900.0, 4.0, 80.0, 5.0, 2.0]), limit),
            Some(3)
        );
        assert_eq!(recovered_after(&rows(&[900.0, 800.0, 4.0]), limit), None);
    }

    #[test]
    fn a_second_that_refuses_is_not_recovered_however_quick() {
        let mut after = rows(&[1.0, 1.0, 1.0]);
        after[0].admitted = 9;
        assert_eq!(recovered_after(&after, 5.0), Some(1));
    }
}
