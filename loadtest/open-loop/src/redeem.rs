//! `redeem`: one rate for a while.

use std::rc::Rc;

use clap::Args;
use serde::Serialize;

use crate::command_line::Common;
use crate::drive::drive;
use crate::prepare::{Preparation, prepare};
use crate::report::RunReport;
use crate::schedule::{Phase, Schedule};
use crate::target::Target;
use crate::watch::Watch;

#[derive(Args)]
pub(crate) struct RedeemArgs {
    /// Redemptions that are due every second
    #[arg(long, default_value_t = 500.0)]
    pub(crate) rate: f64,
    /// For how many seconds
    #[arg(long, default_value_t = 10.0)]
    pub(crate) duration: f64,
    /// Seconds at that rate before, which are not counted
    #[arg(long, default_value_t = 1.0)]
    pub(crate) warm_up: f64,
}

/// The report of one run.
#[derive(Serialize)]
pub(crate) struct Redeemed {
    mode: &'static str,
    prepared: Preparation,
    #[serde(flatten)]
    pub(crate) run: RunReport,
}

/// Prepares and drives one run.
///
/// # Errors
/// Where it cannot be made.
pub(crate) async fn redeem(
    target: &Rc<Target>,
    common: &Common,
    args: &RedeemArgs,
) -> anyhow::Result<Redeemed> {
    let phase = |name, seconds| Phase {
        name,
        rate_per_s: args.rate,
        seconds,
    };
    let phases = vec![phase("warm-up", args.warm_up), phase("run", args.duration)];
    let schedule = Schedule::new(phases, common.spacing());
    common.check(&schedule)?;
    Watch::new(target).settle().await;
    let (requests, prepared) = prepare(target, schedule.arrivals.len(), &common.wanted()).await?;
    let driven = drive(target, &schedule, requests, common.settings()).await?;
    let run = RunReport::new(&schedule, &driven, 1);
    say(&run);
    Ok(Redeemed {
        mode: "redeem",
        prepared,
        run,
    })
}

/// One line a phase on standard error.
pub(crate) fn say(run: &RunReport) {
    for phase in &run.phases {
        let (yes, no) = (&phase.admitted, &phase.refused);
        eprintln!(
            "{:8} {:6.0}/s offered, {:6.0}/s sustained; {} bundles p50 {:.1} p99 {:.1} max {:.1} ms; \
             {} refused p99 {:.1} ms; {} dropped, {} unanswered",
            phase.name,
            phase.offered_per_s,
            phase.sustained_per_s,
            yes.count,
            yes.p50_ms,
            yes.p99_ms,
            yes.max_ms,
            no.count,
            no.p99_ms,
            phase.dropped,
            phase.unanswered(),
        );
    }
    for why in &run.invalid_because {
        eprintln!("         NOT VALID: {why}");
    }
    for remark in &run.remarks {
        eprintln!("         {remark}");
    }
}
