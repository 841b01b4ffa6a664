//! `fob import`: a file of vehicles, identities and terminals into a fleet's registry, over
//! `POST /v1/import`.
//!
//! | room | what it does |
//! |---|---|
//! | `table` | entries as CSV |
//! | `feed` | the file into the body of a call |
//! | `send` | calls, and calls again for what has no answer yet |
//! | `record` | what going on after a kill rests on |
//!
//! It works on the public API alone, apart from the token it may have made for itself.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::bail;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::link::encoded;
use super::reach::ReachArgs;
use super::refusals::beside;
use super::retry::until_signalled;
use super::{Common, print};
use crate::clock::{Clock as _, SystemClock};

mod feed;
mod record;
mod send;
mod table;

use feed::Source;
use record::Progress;
use send::{Run, Shared};

/// The exit code where some lines were refused.
const SOME_REFUSED: u8 = 3;

#[derive(Args)]
#[command(after_help = "\
Example: a fleet's people and cars, into the server that holds D, for its only fleet

  {\"kind\": \"identity\", \"id\": \"anna\", \"licences\": [{\"class\": \"B\", \"expires\": \"2031-06-30T00:00:00Z\"}]}
  {\"kind\": \"vehicle\", \"id\": \"VAN-7\", \"model\": \"Transporter\", \"owner\": \"anna\"}
  {\"kind\": \"terminal\", \"id\": \"anna-phone\", \"identity\": \"anna\", \"jwk\": {\"kty\": \"EC\", …}}

  fob import fleet.ndjson

A file that does not begin with a brace is a table, with columns of these names:

  kind,id,model,functions,owner,status,hold,licences,identity,jwk

  fob import people.csv --kind identity

Only id is needed, and kind or --kind. An empty cell says nothing. functions are names, codes, or \
code=name for functions of the fleet's own (doors.unlock;3;300=ramp.lower), licences are class=time \
(B=2031-06-30T00:00:00Z), jwk is the JSON of the key. A row is one line.

What is not there is registered. What is there as described is left as it is, so the same file may \
be sent twice. What is there otherwise is refused (registered_otherwise): an import replaces \
nothing, PUT does. A line may name what a line before it makes. What is made is kept with who, how \
many and, with --why, why: fob acts.

What is refused goes to FILE.refused, with line, code, field and detail. After a kill of either \
side, the same command with --resume goes on where it was: it is written down in FILE.import, which \
is gone once all is done.

Exit code: 0 all there, 3 some refused, 1 anything else.")]
pub(super) struct ImportArgs {
    /// The entries: CSV or NDJSON
    file: PathBuf,
    #[command(flatten)]
    server: ReachArgs,
    /// What all rows of a table are
    #[arg(long, value_enum)]
    kind: Option<KindArg>,
    /// Why, kept beside who and when and how many; up to 200 characters
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
    /// Where refusals go; FILE.refused where absent
    #[arg(long, value_name = "FILE")]
    refused: Option<PathBuf>,
    /// Go on with a run that was broken off
    #[arg(long)]
    resume: bool,
    /// How often to call again in a row without getting any further
    #[arg(long, value_name = "N", default_value_t = 8)]
    retries: u32,
    /// No progress bar and no summary
    #[arg(long)]
    quiet: bool,
}

/// A kind of entry.
#[derive(Clone, Copy, ValueEnum)]
enum KindArg {
    Vehicle,
    Identity,
    Terminal,
}

impl KindArg {
    const fn name(self) -> &'static str {
        match self {
            Self::Vehicle => "vehicle",
            Self::Identity => "identity",
            Self::Terminal => "terminal",
        }
    }
}

/// What a run has come to.
#[derive(Serialize)]
struct Summary {
    lines: u64,
    registered: u64,
    unchanged: u64,
    refused: u64,
    seconds: f64,
    lines_per_s: f64,
}

pub(super) fn run(common: &Common, args: &ImportArgs) -> anyhow::Result<ExitCode> {
    let way = args.server.reach(common, "admin")?;
    let source = Source::new(args.file.clone(), args.kind.map(KindArg::name))?;
    let note = beside(&args.file, ".import");
    let (progress, lines) = begin(args, &source, &note)?;
    let refused = args.refused.clone();
    let refused = refused.unwrap_or_else(|| beside(&args.file, ".refused"));
    let before = match args.resume {
        true => progress.refusals(&refused)?,
        false => Vec::new(),
    };
    let began = SystemClock.monotonic();
    let shared = Shared::new(progress, lines, refused.clone(), &before)?;
    let mut run = Run {
        way,
        path: path(args.why.as_deref()),
        retries: args.retries,
        bar: bar(args, lines.saturating_sub(1 + u64::from(source.table))),
        source,
        shared: Arc::new(shared),
        note,
        began: (began, 0),
        noted: began,
    };
    run.began.1 = run.done();
    let ended = until_signalled(run.complete());
    // Whatever happened, what was refused is kept.
    run.shared.finish()?;
    run.bar.finish_and_clear();
    ended.map_err(|error| {
        let (done, file) = (run.done(), args.file.display());
        error.context(format!(
            "{done} lines of {file} have their answer; --resume goes on with it"
        ))
    })?;
    std::fs::remove_file(&run.note)?;
    summarize(common, args, &run, &refused)
}

/// What is called.
fn path(why: Option<&str>) -> String {
    let query = why.map(|why| format!("?why={}", encoded(why)));
    format!("/v1/import{}", query.unwrap_or_default())
}

/// How far this run is: at the beginning, or where the one before it was; and how many lines the
/// file has.
fn begin(args: &ImportArgs, source: &Source, note: &Path) -> anyhow::Result<(Progress, u64)> {
    let survey = source.survey()?;
    let kind = args.kind.map(|kind| kind.name().to_owned());
    let fresh = Progress {
        sha256: survey.sha256,
        kind,
        ..Progress::default()
    };
    let progress = if args.resume {
        let before = Progress::read(note)?;
        if (&before.sha256, &before.kind) != (&fresh.sha256, &fresh.kind)
            || before.line > survey.lines
        {
            bail!(
                "{}, or --kind, is not what it was when {} was written: go on as then, or leave \
                 out --resume",
                source.shown(),
                note.display()
            );
        }
        before
    } else {
        fresh
    };
    progress.write(note)?;
    Ok((progress, survey.lines))
}

fn summarize(
    common: &Common,
    args: &ImportArgs,
    run: &Run,
    refused: &Path,
) -> anyhow::Result<ExitCode> {
    let progress = run.shared.progress();
    let summary = Summary {
        lines: run.done(),
        registered: progress.registered,
        unchanged: progress.unchanged,
        refused: progress.refused,
        seconds: (SystemClock.monotonic() - run.began.0).as_secs_f64(),
        lines_per_s: run.per_s(),
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
        lines,
        registered,
        unchanged,
        seconds,
        lines_per_s,
        ..
    } = summary;
    let refused = match summary.refused {
        0 => "none refused".into(),
        count => format!("{count} refused (see {})", refused.display()),
    };
    format!(
        "{lines} lines: {registered} registered, {unchanged} there already, {refused}; {seconds:.1} s, \
         {lines_per_s:.0} lines/s"
    )
}

/// Entries are about as many as lines end.
fn bar(args: &ImportArgs, about: u64) -> ProgressBar {
    // On standard error, and only where that is a terminal.
    let target = if args.quiet {
        ProgressDrawTarget::hidden()
    } else {
        ProgressDrawTarget::stderr()
    };
    let bar = ProgressBar::with_draw_target(Some(about), target);
    match ProgressStyle::with_template("{bar:40} {pos}/{len} lines, {msg}, {eta} left") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
