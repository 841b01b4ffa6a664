//! The command line: what was typed, and the one match over the modes.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::{Args, Parser, Subcommand};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;

use crate::drive::Settings;
use crate::overload::{OverloadArgs, overload};
use crate::prepare::Wanted;
use crate::redeem::{RedeemArgs, redeem};
use crate::schedule::{Schedule, Spacing};
use crate::search::{SearchArgs, search};
use crate::target::Target;

/// The longest run, in seconds: a proof is good for 300, and is signed before.
const SECONDS_MAX: f64 = 240.0;

/// The most redemptions of one run: each is held in memory, finished.
const ARRIVALS_MAX: usize = 500_000;

/// An open-loop load client for Fob: arrivals by the clock, latencies from when each was due.
#[derive(Parser)]
#[command(
    name = "fob-load",
    version,
    max_term_width = 100,
    after_help = "The report is JSON on standard output. Exit code 99: the run was made but is \
not valid, and the report says why. The server's fleet must be the demo fleet."
)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    mode: Mode,
}

/// What every mode takes.
#[derive(Args)]
pub(crate) struct Common {
    /// The server's address
    #[arg(
        long,
        global = true,
        env = "URL",
        default_value = "http://127.0.0.1:8650"
    )]
    url: String,
    /// Its address as it calls itself, where it is another
    #[arg(long, global = true)]
    audience: Option<String>,
    /// The fleet's token, scope authorize
    #[arg(
        long,
        global = true,
        env = "FOB_TOKEN",
        hide_env_values = true,
        hide = true
    )]
    token: Option<String>,
    /// A file with the fleet's token, scope authorize; FOB_TOKEN where absent
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The server's process, to read its memory and CPU
    #[arg(long, global = true)]
    pid: Option<u32>,
    /// Keys of each bundle
    #[arg(long, global = true, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=8))]
    pub(crate) functions: u16,
    /// How keys are signed: each, tree or auto; the server's way where absent
    #[arg(long, global = true)]
    signing: Option<String>,
    /// Connections, at most; who finds none free is dropped
    #[arg(long, global = true, default_value_t = 4096)]
    connections: usize,
    /// How long an answer may take, in milliseconds
    #[arg(long, global = true, default_value_t = 15_000)]
    timeout_ms: u64,
    /// Check one bundle of so many; 0 checks none
    #[arg(long, global = true, default_value_t = 64)]
    check_one_in: usize,
    /// Borrowers' key pairs
    #[arg(long, global = true, default_value_t = 1024)]
    holders: usize,
    /// Arrivals as if by independent callers instead of at equal intervals
    #[arg(long, global = true)]
    poisson: bool,
    /// What Poisson arrivals are drawn from
    #[arg(long, global = true, default_value_t = 1)]
    seed: u64,
}

#[derive(Subcommand)]
enum Mode {
    /// One rate for a while
    Redeem(RedeemArgs),
    /// The highest rate that is sustained
    Search(SearchArgs),
    /// Calm, a burst far above what is sustained, calm again
    Overload(OverloadArgs),
}

impl Common {
    /// How arrivals lie.
    pub(crate) fn spacing(&self) -> Spacing {
        if self.poisson {
            Spacing::Poisson { seed: self.seed }
        } else {
            Spacing::Even
        }
    }

    /// What is prepared.
    pub(crate) fn wanted(&self) -> Wanted {
        Wanted {
            functions: self.functions,
            signing: self.signing.clone(),
            holders: self.holders,
        }
    }

    /// How a run is driven.
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            timeout: Duration::from_millis(self.timeout_ms),
            check_one_in: self.check_one_in,
            functions: self.functions.into(),
        }
    }

    /// Checks that a run fits into the proofs' time and into memory.
    ///
    /// # Errors
    /// Where it does not.
    pub(crate) fn check(&self, schedule: &Schedule) -> anyhow::Result<()> {
        let (seconds, arrivals) = (schedule.seconds(), schedule.arrivals.len());
        ensure!(
            seconds <= SECONDS_MAX,
            "a run lasts at most {SECONDS_MAX} s: its proofs are good for 300 s"
        );
        ensure!(
            (1..=ARRIVALS_MAX).contains(&arrivals),
            "a run has 1 to {ARRIVALS_MAX} arrivals, not {arrivals}"
        );
        Ok(())
    }

    fn target(&self) -> anyhow::Result<Target> {
        let token = match &self.token_file {
            Some(file) => {
                std::fs::read_to_string(file).with_context(|| file.display().to_string())?
            }
            None => self
                .token
                .clone()
                .context("FOB_TOKEN or --token-file must hold a token with the scope authorize")?,
        };
        Target::new(
            &self.url,
            self.audience.clone(),
            token.trim().into(),
            self.pid,
            self.connections,
        )
    }
}

/// Runs the mode the process was started with. Returns whether its run is valid.
///
/// # Errors
/// Where it cannot be made.
pub(crate) fn run() -> anyhow::Result<bool> {
    let Cli { common, mode } = Cli::parse();
    open_files(common.connections)?;
    let target = Rc::new(common.target()?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        match mode {
            Mode::Redeem(args) => {
                let report = redeem(&target, &common, &args).await?;
                print(&report)?;
                Ok(report.run.valid)
            }
            Mode::Search(args) => {
                let report = search(&target, &common, &args).await?;
                print(&report)?;
                Ok(report.sustained_per_s > 0.0)
            }
            Mode::Overload(args) => {
                let report = overload(&target, &common, &args).await?;
                print(&report)?;
                Ok(report.run.valid)
            }
        }
    })
}

fn print<T: Serialize>(report: &T) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(report)?);
    Ok(())
}

/// A connection is an open file: as many as the system lets this process have.
fn open_files(connections: usize) -> anyhow::Result<()> {
    let limits = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limits.maximum,
        ..limits
    };
    setrlimit(Resource::Nofile, raised)?;
    let needed = connections as u64 + 64;
    ensure!(
        limits.maximum.is_none_or(|most| most >= needed),
        "{connections} connections are more open files than this process may have"
    );
    Ok(())
}
