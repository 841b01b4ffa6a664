//! `fob fleet`, `fob token`; and how every command of operators finds its way.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{anyhow, bail};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clap::{Args, Subcommand};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::desk::{Answer, Command, Context, FleetRow, TokenRow, check, decide};
use super::hsm::Report;
use super::signing::SigningArg;
use super::{Common, hsm, place, print, sign, socket, table};
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::domain::time::Time;
use crate::engine::operate::By;

#[derive(Subcommand)]
pub(super) enum FleetCommand {
    /// Create a fleet
    Create {
        /// Its name, unique on this server
        name: String,
        /// Let whoever holds a code set redeem it, without registered terminal or PIN
        #[arg(long)]
        open_redemption: bool,
        /// How its keys are signed where an authorization does not say; as the configuration has it
        /// where absent
        #[arg(long, value_enum)]
        signing: Option<SigningArg>,
        #[command(flatten)]
        by: ByArgs,
    },
    /// List all fleets
    List,
}

#[derive(Subcommand)]
pub(super) enum TokenCommand {
    /// Create a bearer token for a fleet's back end and print it, this once
    Create {
        /// The fleet, by name or id
        #[arg(long)]
        fleet: String,
        /// What it may do: authorize, issue, revoke, read, admin; or approve, which goes with
        /// neither authorize nor issue
        #[arg(long, value_delimiter = ',', required = true)]
        scopes: Vec<String>,
        /// When it ends: 12h, 30d; never where absent
        #[arg(long, value_name = "TIME", value_parser = sign::seconds)]
        expires: Option<u64>,
        /// The client certificate that stands for it, PEM: it has no text of its own then
        #[arg(long, value_name = "FILE")]
        certificate: Option<PathBuf>,
        #[command(flatten)]
        by: ByArgs,
    },
    /// List tokens; the tokens themselves are not kept
    List {
        /// Of one fleet only
        #[arg(long)]
        fleet: Option<String>,
    },
    /// Make a new token in the place of one, which ends after an overlap; prints it, this once
    Rotate {
        /// The id of the one before, as listed
        id: String,
        /// For how long both hold: 1h, 2d; 0s ends the one before at once
        #[arg(long, value_name = "TIME", default_value = "1h", value_parser = overlap)]
        overlap: u64,
        /// When the new one ends: 12h, 30d; it lasts as long as the one before where absent
        #[arg(long, value_name = "TIME", value_parser = sign::seconds)]
        expires: Option<u64>,
        /// The client certificate that stands for the new one, PEM
        #[arg(long, value_name = "FILE")]
        certificate: Option<PathBuf>,
        #[command(flatten)]
        by: ByArgs,
    },
    /// End a token at once
    Revoke {
        /// Its id, as listed
        id: String,
        #[command(flatten)]
        by: ByArgs,
    },
}

/// Who gives a command, and why.
#[derive(Args)]
pub(super) struct ByArgs {
    /// Who does this, as `fob acts` will show it [default: the user of this process]
    #[arg(long, value_name = "NAME")]
    operator: Option<String>,
    /// Why, kept beside who and when; up to 200 characters
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
}

impl From<ByArgs> for By {
    fn from(args: ByArgs) -> Self {
        Self {
            operator: args.operator.unwrap_or_else(place::os_user),
            why: args.why,
        }
    }
}

pub(super) fn fleet(common: &Common, command: FleetCommand) -> anyhow::Result<()> {
    run(
        common,
        match command {
            FleetCommand::Create {
                name,
                open_redemption,
                signing,
                by,
            } => Command::FleetCreate {
                name,
                open_redemption,
                signing: signing.map(|way| way.signing().name().into()),
                by: by.into(),
            },
            FleetCommand::List => Command::FleetList,
        },
    )
}

pub(super) fn token(common: &Common, command: TokenCommand) -> anyhow::Result<()> {
    run(
        common,
        match command {
            TokenCommand::Create {
                fleet,
                scopes,
                expires,
                certificate,
                by,
            } => Command::TokenCreate {
                fleet,
                scopes,
                expires_in_s: expires,
                certificate: certificate.as_deref().map(leaf).transpose()?,
                by: by.into(),
            },
            TokenCommand::List { fleet } => Command::TokenList { fleet },
            TokenCommand::Rotate {
                id,
                overlap,
                expires,
                certificate,
                by,
            } => Command::TokenRotate {
                id,
                overlap_s: overlap,
                expires_in_s: expires,
                certificate: certificate.as_deref().map(leaf).transpose()?,
                by: by.into(),
            },
            TokenCommand::Revoke { id, by } => Command::TokenRevoke { id, by: by.into() },
        },
    )
}

/// How long two tokens overlap, which may be not at all.
fn overlap(text: &str) -> Result<u64, String> {
    match text {
        "0" | "0s" => Ok(0),
        text => sign::seconds(text),
    }
}

/// The first certificate of a PEM file: its DER, in base64url.
fn leaf(file: &Path) -> anyhow::Result<String> {
    let certificate =
        CertificateDer::from_pem_file(file).map_err(|why| anyhow!("{}: {why}", file.display()))?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(certificate))
}

/// Prints what was asked of the server that holds the directory, or of the directory itself.
pub(super) fn run(common: &Common, command: Command) -> anyhow::Result<()> {
    let config = place::configuration(common)?;
    print_answer(common, &ask(&config, command)?)
}

/// Asks the server that holds the directory, or acts on the directory itself.
pub(super) fn ask(config: &Config, command: Command) -> anyhow::Result<Answer> {
    match place::try_lock(&config.dir)? {
        None => socket::ask(&config.dir, &command),
        Some(_lock) => straight(config, command),
    }
}

fn straight(config: &Config, command: Command) -> anyhow::Result<Answer> {
    let store = place::store(config)?;
    let book = place::book(&*store)?;
    place::adopt_root(config, &book)?;
    // An exit code tells a refused PIN apart, so the error is kept beside its text.
    let problem = RefCell::new(None);
    let text = |error: anyhow::Error| {
        let text = format!("{error:#}");
        problem.replace(Some(error));
        text
    };
    let context = Context {
        book: &book,
        settings: &config.engine,
        unix_ms: SystemClock.unix_ms(),
        custody: &|| {
            let tokens = place::issuing_tokens(config).map_err(text)?;
            Ok(Arc::new(place::custody(config, &tokens)))
        },
        hsm: &|| Report::straight(config, &book).map_err(text),
    };
    let decision = decide(&context, command);
    let decision = decision.map_err(|why| problem.take().unwrap_or_else(|| anyhow!("{why}")))?;
    if !decision.writes.is_empty() {
        check(&store.commit(&decision.writes)?).map_err(|why| anyhow!("{why}"))?;
    }
    Ok(decision.answer)
}

fn print_answer(common: &Common, answer: &Answer) -> anyhow::Result<()> {
    match answer {
        Answer::Fleet(row) => print(common, row, |row| format!("fleet {} {}", row.name, row.id)),
        Answer::Fleets(rows) => print(common, rows, |rows| fleets(rows)),
        // The token alone, so that a shell can take it.
        Answer::Token(token) => print(common, token, |token| {
            token.token.clone().unwrap_or_else(|| token.id.clone())
        }),
        Answer::Tokens(rows) => print(common, rows, |rows| tokens(rows)),
        Answer::Revoked(id) => print(common, &serde_json::json!({ "revoked": id }), |_| {
            format!("token {id} has ended")
        }),
        Answer::Acts(_) | Answer::Epoch(_) | Answer::Renewed(_) => {
            bail!("the server answers another question")
        }
        Answer::Hsm(report) => hsm::print_report(common, report),
    }
}

fn fleets(rows: &[FleetRow]) -> String {
    let cells = rows.iter().map(|row| {
        let redemption = if row.open_redemption {
            "open"
        } else {
            "terminal or PIN"
        };
        vec![
            row.name.clone(),
            row.id.clone(),
            row.status.clone(),
            redemption.into(),
            row.signing.clone().unwrap_or_else(|| "default".into()),
            row.vehicles.to_string(),
            row.identities.to_string(),
        ]
    });
    let header = [
        "NAME",
        "ID",
        "STATUS",
        "REDEMPTION",
        "SIGNING",
        "VEHICLES",
        "IDENTITIES",
    ];
    table(&header, &cells.collect::<Vec<_>>())
}

fn tokens(rows: &[TokenRow]) -> String {
    let cells = rows.iter().map(|row| {
        let time =
            |time: Option<Time>| time.map_or_else(|| "never".to_owned(), |at| at.to_string());
        vec![
            row.id.clone(),
            row.fleet.clone(),
            row.scopes.join(","),
            time(row.expires),
            time(row.last_used),
            row.state.clone(),
        ]
    });
    table(
        &["ID", "FLEET", "SCOPES", "EXPIRES", "LAST USED", "STATE"],
        &cells.collect::<Vec<_>>(),
    )
}

/// A line for each member of an object.
pub(super) fn lines(object: &serde_json::Value) -> String {
    let line = |(name, value): (&String, &serde_json::Value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), Into::into);
        format!("{name:<20} {value}")
    };
    let lines: Vec<_> = object.as_object().into_iter().flatten().map(line).collect();
    lines.join("\n")
}
