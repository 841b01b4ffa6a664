//! `fob issue`: a file of orders in, a file of bundles out, over `POST /v1/batches`.
//!
//! | room | what it does |
//! |---|---|
//! | `table` | orders as CSV |
//! | `feed` | the orders' file into the body of a call |
//! | `send` | calls, and calls again for what has no answer yet |
//! | `answer` | lines of the server's answer, known by their beginning |
//! | `record` | the output, and what going on after a kill rests on |
//!
//! It works on the public API alone, apart from the token it may have made for itself.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{anyhow, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::line_set::LineSet;
use super::reach::ReachArgs;
use super::refusals::{Refusals, beside};
use super::retry::until_signalled;
use super::signing::SigningArg;
use super::{Common, print};
use crate::clock::{Clock as _, SystemClock};

mod answer;
mod feed;
mod record;
mod send;
mod table;

use feed::Source;
use record::{Output, RunFile};
use send::{Run, Shared};

/// The exit code where some orders were refused.
const SOME_REFUSED: u8 = 3;

#[derive(Args)]
#[command(after_help = "\
Example: keys for every line of orders.csv, from the server that holds D, for its only fleet

  ref,vehicle,functions,not_before,not_after,identity,terminal
  b-1,VAN-7,doors.unlock;engine.start,2026-11-23T08:00:00Z,2026-11-25T18:00:00Z,anna,anna-phone

  fob issue orders.csv -o bundles.ndjson
  fob verify bundles.ndjson --root D/root.cbor --trust trust.cbor

A table's columns may also be lat, lon, radius_m (a circle), signing, and max_uses \
(engine.start=10;3=5). A row is one line. A file that does not begin with such a header is read as \
NDJSON, a line as POST /v1/batches takes it.

Bundles are written as they become durable, in any order: {\"line\", \"ref\", \"status\", \
\"bundle\"}, the line being that of ORDERS. What is refused goes to BUNDLES.refused, with line, ref, \
code, field and detail. After a kill of either side, the same command with --resume goes on: no \
order is issued twice, and BUNDLES ends with one line for each that was issued.

Exit code: 0 all issued, 3 some refused, 1 anything else.")]
pub(super) struct IssueArgs {
    /// The orders: CSV or NDJSON; - is standard input
    orders: PathBuf,
    /// Where the bundles go
    #[arg(short, long, value_name = "BUNDLES")]
    output: PathBuf,
    #[command(flatten)]
    server: ReachArgs,
    /// The Idempotency-Key; one made up where absent
    #[arg(long, conflicts_with = "resume")]
    key: Option<String>,
    /// Where refusals go; BUNDLES.refused where absent
    #[arg(long, value_name = "FILE")]
    refused: Option<PathBuf>,
    /// Go on with a run that was broken off, or ask again for what it had refused
    #[arg(long)]
    resume: bool,
    /// How keys are signed, for orders that do not say it themselves
    #[arg(long, value_enum)]
    signing: Option<SigningArg>,
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
    orders: u64,
    issued: u64,
    refused: u64,
    keys: u64,
    seconds: f64,
    keys_per_s: f64,
    key: String,
}

pub(super) fn run(common: &Common, args: &IssueArgs) -> anyhow::Result<ExitCode> {
    if !args.resume && args.output.exists() {
        bail!(
            "{} is there already: --resume goes on with it; or name another",
            args.output.display()
        );
    }
    let way = args.server.reach(common, "issue")?;
    let source = source(args)?;
    let (run_file, lines) = begin(args, &source)?;
    let mut answered = LineSet::new(lines);
    let output = Output::open(&args.output, args.resume, &mut answered)?;
    let refused = args.refused.clone();
    let refused = refused.unwrap_or_else(|| beside(&args.output, ".refused"));
    let shared = Arc::new(Shared::new(answered, Refusals::new(refused.clone())?));
    let (began, table) = ((SystemClock.monotonic(), output.keys), source.table);
    let mut run = Run {
        way,
        source,
        key: run_file.key,
        retries: args.retries,
        shared,
        output,
        bar: bar(args, lines.saturating_sub(1 + u64::from(table))),
        began,
    };
    let ended = until_signalled(run.complete());
    // Whatever happened, what came is kept.
    run.output.finish()?;
    run.shared.finish()?;
    run.bar.finish_and_clear();
    ended.map_err(|error| {
        let (issued, path) = (run.output.bundles, args.output.display());
        error.context(format!(
            "{issued} bundles are in {path}; --resume goes on with it"
        ))
    })?;
    let copy = beside(&args.output, ".orders");
    if run.source.path == copy {
        std::fs::remove_file(&copy)?;
    }
    summarize(common, args, &run, &refused)
}

fn summarize(
    common: &Common,
    args: &IssueArgs,
    run: &Run,
    refused: &Path,
) -> anyhow::Result<ExitCode> {
    let summary = Summary {
        orders: run.output.bundles + run.shared.refused(),
        issued: run.output.bundles,
        refused: run.shared.refused(),
        keys: run.output.keys,
        seconds: (SystemClock.monotonic() - run.began.0).as_secs_f64(),
        keys_per_s: run.keys_per_s(),
        key: run.key.clone(),
    };
    if common.json || !args.quiet {
        print(common, &summary, |summary| text(summary, refused))?;
    }
    Ok(match summary.refused {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::from(SOME_REFUSED),
    })
}

fn text(summary: &Summary, refused: &Path) -> String {
    let Summary {
        orders,
        issued,
        keys,
        seconds,
        keys_per_s,
        ..
    } = summary;
    let refused = match summary.refused {
        0 => "none refused".into(),
        count => format!("{count} refused (see {})", refused.display()),
    };
    format!(
        "{orders} orders: {issued} issued, {refused}; {keys} keys, {seconds:.1} s, {keys_per_s:.0} keys/s"
    )
}

/// The orders, from their file or from a copy of standard input, and what form they have.
fn source(args: &IssueArgs) -> anyhow::Result<Source> {
    let standard_input = args.orders == Path::new("-");
    let path = if standard_input {
        let copy = beside(&args.output, ".orders");
        if !args.resume {
            feed::keep_standard_input(&copy)?;
        }
        copy
    } else {
        args.orders.clone()
    };
    let shown = if standard_input {
        "standard input".into()
    } else {
        path.display().to_string()
    };
    let mut source = Source {
        path,
        shown,
        table: false,
        signing: args.signing.map(|way| way.signing().name()),
    };
    source.table = source.is_table()?;
    source.check()?;
    Ok(source)
}

/// What this run goes by: written down before the first byte is sent, or taken up again.
fn begin(args: &IssueArgs, source: &Source) -> anyhow::Result<(RunFile, u64)> {
    let path = beside(&args.output, ".run");
    if args.resume {
        let before = RunFile::read(&path)?;
        let (now, lines) = source.survey(before.key.clone())?;
        if now != before {
            bail!(
                "{}, or --signing, is not what it was when {} began: go on as then, or begin anew \
                 with another output",
                source.shown,
                args.output.display()
            );
        }
        return Ok((before, lines));
    }
    let (run_file, lines) = source.survey(match &args.key {
        Some(key) => key.clone(),
        None => new_key()?,
    })?;
    // Of a run that has left nothing but this, there is nothing to go on with.
    if path.exists() {
        std::fs::remove_file(&path)?;
    }
    run_file.write(&path)?;
    Ok((run_file, lines))
}

fn new_key() -> anyhow::Result<String> {
    let mut random = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| anyhow!("no randomness"))?;
    let hex = random.iter().map(|byte| format!("{byte:02x}"));
    Ok(format!("fob-issue-{}", hex.collect::<String>()))
}

/// Orders are about as many as lines end.
fn bar(args: &IssueArgs, about: u64) -> ProgressBar {
    // On standard error, and only where that is a terminal.
    let target = if args.quiet {
        ProgressDrawTarget::hidden()
    } else {
        ProgressDrawTarget::stderr()
    };
    let bar = ProgressBar::with_draw_target(Some(about), target);
    match ProgressStyle::with_template("{bar:40} {pos}/{len} orders, {msg}, {eta} left") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
