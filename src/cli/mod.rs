//! Floor 4, the command line: one binary, an enum of subcommands, one match.
//!
//! Commands that act on an issuer go through the socket of a running server, or open the
//! directory themselves when no server holds it. Secrets come from files.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::parser::ValueSource;
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use serde::Serialize;

use crate::domain::change::Action;
use crate::hsm::{leave, parked_threads};

mod act;
mod acts;
mod answers;
mod audit;
mod bench_hsm;
mod bench_issue;
mod ceremony;
mod csv;
mod demo;
mod desk;
mod epoch;
mod erase;
mod hook;
mod hsm;
mod import;
mod init;
mod issue;
mod jwk;
mod line_set;
mod lines;
mod link;
mod migrate;
mod operate;
mod operator;
mod pass;
mod place;
mod reach;
mod refusals;
mod reissue;
mod restore;
mod retry;
mod serve;
mod sign;
mod sign_request;
mod sign_use;
mod signing;
mod socket;
mod steps;
mod store;
mod vehicle;
mod verify;

/// Issues virtual car keys: one HSM-signed key for each function of a vehicle.
#[derive(Parser)]
#[command(
    name = "fob",
    version,
    max_term_width = 100,
    after_help = "\
See it all with `fob demo`. Begin with `fob init --demo`, then `fob serve`. Every command has \
--json, and takes the issuer's directory as --dir or its file as --config."
)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Args, Clone)]
pub(crate) struct Common {
    /// The issuer's directory
    #[arg(
        long,
        global = true,
        value_name = "D",
        env = "FOB_DIR",
        default_value = "var"
    )]
    dir: PathBuf,
    /// Whether the command line names it.
    #[arg(skip)]
    dir_given: bool,
    /// The configuration file, where it is not D/fob.toml
    #[arg(long, global = true, value_name = "FILE", env = "FOB_CONFIG")]
    config: Option<PathBuf>,
    /// Print JSON instead of text
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Tell the whole story on a terminal: owner, borrower, car, change, revocation, rotation
    #[command(after_help = demo::HELP)]
    Demo(demo::DemoArgs),
    /// Create an issuer: tokens, root key, first epoch, trust list, store
    Init(init::InitArgs),
    /// Bring the store to the schema version of this program
    #[command(after_help = migrate::HELP)]
    Migrate,
    /// Move the issuer to another store
    #[command(subcommand)]
    Store(store::StoreCommand),
    /// Fence a store that was put back from a backup
    #[command(after_help = restore::HELP)]
    Restore(restore::RestoreArgs),
    /// Check that what the store holds fits together: signatures, counters, status lists
    #[command(after_help = audit::HELP)]
    Audit(audit::AuditArgs),
    /// Serve the API
    Serve(serve::ServeArgs),
    /// Create and list fleets
    #[command(subcommand)]
    Fleet(operate::FleetCommand),
    /// Create, list, rotate and revoke bearer tokens
    #[command(subcommand)]
    Token(operate::TokenCommand),
    /// List what was done to fleets, by whom and why
    #[command(after_help = acts::HELP)]
    Acts(acts::ActsArgs),
    /// Prepare, rotate, revoke and list issuing epochs; read the records; follow the root
    #[command(subcommand, after_help = epoch::HELP)]
    Epoch(epoch::EpochCommand),
    /// Register the operators whose approval dual control asks for
    #[command(subcommand)]
    Operator(operator::OperatorCommand),
    /// The key that signs what others are asked before keys are issued
    #[command(subcommand, after_help = hook::HELP)]
    Hook(hook::HookCommand),
    /// Ask how the HSM is
    #[command(subcommand)]
    Hsm(hsm::HsmCommand),
    /// Issue a file of orders: one bundle for each, over a running server
    Issue(issue::IssueArgs),
    /// Import a file of vehicles, identities and terminals, over a running server
    Import(import::ImportArgs),
    /// Revoke a key, a bundle, an authorization, or all of an identity or a vehicle; or a file of them
    Revoke(act::ActArgs),
    /// Suspend the same, until it is resumed
    Suspend(act::ActArgs),
    /// End a suspension of the same
    Resume(act::ActArgs),
    /// Erase what is kept of an identity
    #[command(after_help = erase::HELP)]
    Erase(erase::EraseArgs),
    /// Check a key, or all keys of a bundle, as a car would
    Verify(verify::VerifyArgs),
    /// Sign what a phone signs, to try the API with curl
    #[command(subcommand)]
    Sign(sign::SignCommand),
    /// A car to try keys with: its file, challenges, uses, and syncs
    #[command(subcommand)]
    Vehicle(vehicle::VehicleCommand),
    /// Measure: the HSM's ceiling, and issuing against it
    #[command(subcommand)]
    Bench(BenchCommand),
}

#[derive(Subcommand)]
enum BenchCommand {
    /// Bare signatures a second: the ceiling of everything
    Hsm(bench_hsm::HsmArgs),
    /// Keys a second through the real batch path, in slices alternating with the ceiling
    Issue(bench_issue::IssueArgs),
}

/// The exit code where a token refused its PIN, or had refused it before: `EX_NOPERM` of
/// sysexits.h. Starting again does not help.
const EXIT_PIN_REFUSED: u8 = 77;

/// The exit code of a server whose HSM does not let go of its threads: `EX_TEMPFAIL` of sysexits.h.
/// Starting again is what helps.
const EXIT_HSM_STUCK: u8 = 75;

/// Runs the command the process was started with.
pub fn run() -> ExitCode {
    let matches = Cli::command().get_matches();
    let Cli {
        mut common,
        command,
    } = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    common.dir_given = matches.value_source("dir") == Some(ValueSource::CommandLine);
    let done = match command {
        Command::Demo(args) => demo::run(&common, &args),
        Command::Init(args) => init::run(&common, args),
        Command::Migrate => migrate::run(&common),
        Command::Store(store::StoreCommand::Copy(args)) => store::copy(&common, &args),
        Command::Restore(args) => restore::run(&common, args),
        Command::Audit(args) => audit::run(&common, &args),
        Command::Serve(args) => serve::run(&common, args),
        Command::Fleet(command) => operate::fleet(&common, command),
        Command::Token(command) => operate::token(&common, command),
        Command::Acts(args) => acts::run(&common, args),
        Command::Epoch(command) => epoch::run(&common, command),
        Command::Operator(command) => operator::run(&common, command),
        Command::Hook(command) => hook::run(&common, &command),
        Command::Hsm(command) => hsm::run(&common, command),
        Command::Issue(args) => match issue::run(&common, &args) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        Command::Import(args) => match import::run(&common, &args) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        Command::Revoke(args) => match act::run(&common, &args, Action::Cancel) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        Command::Suspend(args) => match act::run(&common, &args, Action::Suspend) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        Command::Resume(args) => match act::run(&common, &args, Action::Resume) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        Command::Erase(args) => erase::run(&common, &args),
        Command::Verify(args) => verify::run(&common, args),
        Command::Sign(command) => sign::run(&common, command),
        Command::Vehicle(command) => vehicle::run(&common, command),
        Command::Bench(BenchCommand::Hsm(args)) => bench_hsm::run(&common, args),
        Command::Bench(BenchCommand::Issue(args)) => bench_issue::run(&common, args),
    };
    let code = match done {
        Ok(()) => 0,
        Err(error) => {
            complain(&common, &error);
            if place::pin_refused(&error) {
                EXIT_PIN_REFUSED
            } else {
                1
            }
        }
    };
    if parked_threads() > 0 {
        // The module's own exit handlers could wait for a call that never returns.
        leave(code);
    }
    ExitCode::from(code)
}

fn complain(common: &Common, error: &anyhow::Error) {
    let text = format!("{error:#}");
    if common.json {
        eprintln!("{}", serde_json::json!({ "error": text }));
    } else {
        eprintln!("fob: {text}");
    }
}

/// Prints an answer: as JSON, or as text made from it.
fn print<T: Serialize>(
    common: &Common,
    answer: &T,
    text: impl FnOnce(&T) -> String,
) -> anyhow::Result<()> {
    use std::io::Write as _;
    let line = if common.json {
        serde_json::to_string(answer)?
    } else {
        text(answer).trim_end().to_owned()
    };
    // A closed pipe is the reader's choice, not a fault.
    match writeln!(std::io::stdout(), "{line}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// A table: columns as wide as their widest cell.
fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = (0..header.len())
        .map(|at| {
            let cells = rows
                .iter()
                .filter_map(|row| row.get(at))
                .map(|cell| cell.chars().count());
            cells.chain([header[at].len()]).max().unwrap_or_default()
        })
        .collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(&mut header.iter().copied())];
    lines.extend(
        rows.iter()
            .map(|row| line(&mut row.iter().map(String::as_str))),
    );
    lines.join("\n")
}
