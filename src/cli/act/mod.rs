//! `fob revoke`, `fob suspend` and `fob resume`: one target, or a file of them, over
//! `POST /v1/revocations`, `/v1/suspensions` and `/v1/resumptions`.
//!
//! | room | what it does |
//! |---|---|
//! | `targets` | what is named, on the command line or in a file, into bodies |
//! | `call` | calls, and calls again for what has no answer yet |
//!
//! It works on the public API alone, apart from the token it may have made for itself. All of it
//! may be done twice: a run that was broken off is run again.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use serde_json::Value;

use super::reach::ReachArgs;
use super::refusals::{Refusals, beside};
use super::retry::until_signalled;
use super::{Common, print};
use crate::clock::{Clock as _, SystemClock};
use crate::domain::change::Action;

mod call;
mod targets;

use call::Run;
use targets::{TargetArgs, Targets, WhyArgs};

/// The exit code where some targets were refused.
const SOME_REFUSED: u8 = 3;

#[derive(Args)]
#[command(after_help = "\
Examples: everything a borrower has, from the server that holds D; and a list of targets

  fob suspend --identity anna
  fob resume --identity anna
  fob revoke --from targets.csv

  kind,id
  key,01a20539-0043-7001-996d-6d71e4260001
  vehicle,VAN-7

Kinds are key, bundle, authorization, identity, vehicle and terminal. A file that does not begin with \
such a header is read as NDJSON, a line as POST /v1/revocations takes it: {\"vehicle\": \"VAN-7\"}.

A key is suspended while anything suspends it: its function, its authorization, its identity or its \
vehicle. To resume one of these leaves keys suspended that another holds. What is revoked stays so.

What is refused of a file goes to FILE.refused, with line, code, field and detail. To run the same \
again does no harm: what stands so already is passed over.

Exit code: 0 all done, 3 some refused, 1 anything else.")]
pub(super) struct ActArgs {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    why: WhyArgs,
    #[command(flatten)]
    server: ReachArgs,
    /// Where refusals of a file go; FILE.refused where absent
    #[arg(long, value_name = "FILE")]
    refused: Option<PathBuf>,
    /// How often to call again in a row without getting any further
    #[arg(long, value_name = "N", default_value_t = 8)]
    retries: u32,
    /// No progress bar and no summary
    #[arg(long)]
    quiet: bool,
}

/// What a run has come to.
#[derive(Serialize)]
struct Summary {
    /// `revoked`, `suspended` or `resumed`.
    action: &'static str,
    targets: u64,
    done: u64,
    refused: u64,
    keys: u64,
    /// Terminals that a terminal which was suspended or revoked has registered.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    registered: Vec<String>,
    /// As the server says it, the latest of all.
    certain_by: Value,
    seconds: f64,
}

pub(super) fn run(common: &Common, args: &ActArgs, action: Action) -> anyhow::Result<ExitCode> {
    let way = args.server.reach(common, "revoke")?;
    let side = match &args.target.from {
        None if args.refused.is_some() => bail!("--refused goes with --from"),
        None => None,
        Some(from) => {
            let beside = || beside(from, ".refused");
            Some(args.refused.clone().unwrap_or_else(beside))
        }
    };
    let targets = args.target.read()?.because(&args.why);
    let began = SystemClock.monotonic();
    let mut run = Run {
        way,
        action,
        retries: args.retries,
        bar: bar(args.quiet, &targets),
        refusals: side.clone().map(Refusals::new).transpose()?,
        came_to: call::CameTo::default(),
    };
    let ended = until_signalled(run.complete(targets));
    run.bar.finish_and_clear();
    if let Some(refusals) = &mut run.refusals {
        refusals.finish()?;
    }
    let took = SystemClock.monotonic() - began;
    ended.map_err(|error| {
        let (done, word) = (run.came_to.done, participle(action));
        error.context(format!("{done} {word}; the same command again goes on"))
    })?;
    let summary = summary(&run, took);
    if common.json || !args.quiet {
        print(common, &summary, |summary| text(summary, side.as_deref()))?;
    }
    Ok(match summary.refused {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::from(SOME_REFUSED),
    })
}

fn summary(run: &Run, took: Duration) -> Summary {
    let came_to = &run.came_to;
    Summary {
        action: participle(run.action),
        targets: came_to.done + came_to.refused,
        done: came_to.done,
        refused: came_to.refused,
        keys: came_to.keys,
        registered: came_to.registered.clone(),
        certain_by: came_to.certain_by(),
        seconds: took.as_secs_f64(),
    }
}

fn text(summary: &Summary, side: Option<&std::path::Path>) -> String {
    let Summary {
        action,
        targets,
        done,
        keys,
        ..
    } = summary;
    let refused = match (summary.refused, side) {
        (0, _) => String::new(),
        (count, None) => format!(", {count} refused"),
        (count, Some(side)) => format!(", {count} refused (see {})", side.display()),
    };
    let certain = match (&summary.certain_by["latest"], *action) {
        (Value::String(latest), "revoked" | "suspended") => {
            format!("; certain at each car's next contact, and at the latest at {latest}")
        }
        _ => String::new(),
    };
    let registered = match &summary.registered[..] {
        [] => String::new(),
        names => format!(
            "\nit has registered {}: suspend what its owner does not know",
            names.join(", ")
        ),
    };
    format!("{targets} named: {done} {action}{refused}; {keys} keys{certain}{registered}")
}

/// The word for what was done.
fn participle(action: Action) -> &'static str {
    match action {
        Action::Suspend => "suspended",
        Action::Resume => "resumed",
        Action::Cancel => "revoked",
    }
}

fn bar(quiet: bool, targets: &Targets) -> ProgressBar {
    // On standard error, and only where that is a terminal.
    let target = if quiet {
        ProgressDrawTarget::hidden()
    } else {
        ProgressDrawTarget::stderr()
    };
    let bar = ProgressBar::with_draw_target(Some(targets.len()), target);
    match ProgressStyle::with_template("{bar:40} {pos}/{len}, {msg}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
