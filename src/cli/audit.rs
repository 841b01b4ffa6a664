//! `fob audit`: whether what the store holds fits together.

use std::path::PathBuf;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use fob_verify::IssuerKey;

use super::store::Bar;
use super::{Common, place, print, table};
use crate::clock::{Clock as _, SystemClock};
use crate::config::{Config, StoreConfig};
use crate::engine::audit::{FINDINGS_MAX, Report, audit};
use crate::store::postgres::{Postgres, PostgresConfig};
use crate::store::whole::Whole;

/// How long a statement may take that reads a whole table.
const STATEMENT_TIMEOUT_MS: u32 = 600_000;

pub(super) const HELP: &str = "\
Reads everything the store of D holds and checks it against everything else in it: every signature \
under its epoch's key, every epoch that counts against the trust list and the records, every key's \
place on its status list against the fleet's counter and against all other keys, what was cancelled \
or narrowed against what is revoked, code sets against bundles, answers against what they name. \
Nothing is written.

Stop the server first: what it commits meanwhile would not fit what was read before. Or check a \
backup of its file:

  sqlite3 D/fob.db '.backup copy.db' && fob audit --file copy.db

Exit code: 0 where everything fits, 1 where something does not; each finding says what to do.";

#[derive(Args)]
pub(super) struct AuditArgs {
    /// Check this copy of a store's file instead of the store
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// No progress bar
    #[arg(long)]
    quiet: bool,
}

pub(super) fn run(common: &Common, args: &AuditArgs) -> anyhow::Result<()> {
    let config = place::configuration(common)?;
    let root = config.dir.join(place::ROOT_FILE);
    let root = IssuerKey::decode(&place::read(&root)?)
        .map_err(|why| anyhow!("{}: {why}", root.display()))?;
    let lock = match &args.file {
        Some(_) => None,
        None => Some(lock(&config)?),
    };
    let store = open(&config, args)?;
    let mut bar = Bar::new(args.quiet, "auditing");
    let audited = audit(&*store, root, SystemClock.unix(), &mut |progress| {
        bar.tell(progress);
    });
    bar.end();
    drop(lock);
    let report = audited.context("the store cannot be read to its end")?;
    print(common, &report, text)?;
    if report.sound {
        return Ok(());
    }
    let count: u64 = report.flaws.values().sum();
    bail!("{count} things do not fit")
}

fn lock(config: &Config) -> anyhow::Result<place::Lock> {
    let lock = place::try_lock(&config.dir)?;
    lock.ok_or_else(|| {
        anyhow!(
            "a server holds {}: stop it first, or audit a backup of its store with --file",
            config.dir.display()
        )
    })
}

fn open(config: &Config, args: &AuditArgs) -> anyhow::Result<Box<dyn Whole>> {
    if let Some(file) = &args.file {
        if !file.exists() {
            bail!("{} is not there", file.display());
        }
        return Ok(Box::new(place::file(file)?));
    }
    let store: Box<dyn Whole> = match &config.store {
        StoreConfig::Sqlite(path) => Box::new(place::file(path)?),
        StoreConfig::Postgres { at, password_file } => {
            let at = PostgresConfig {
                statement_timeout_ms: STATEMENT_TIMEOUT_MS,
                ..place::with_password(at, password_file.as_deref())?
            };
            let store = Postgres::open(at).context("the database ([store] url)")?;
            place::check_quiet(&store)?;
            Box::new(store)
        }
    };
    place::check_fences(config, &*store)?;
    Ok(store)
}

fn text(report: &Report) -> String {
    let Report {
        authorizations,
        bundles,
        versions,
        keys,
        signatures,
        marks,
        ..
    } = report;
    let mut parts = vec![format!(
        "{authorizations} authorizations; {bundles} bundles in {versions} versions, {keys} keys, \
         {signatures} signatures; {marks} keys revoked or suspended"
    )];
    let epochs = report.epochs.iter().map(|(id, of)| {
        let numbers = [of.versions, of.keys, of.signatures, of.to_renew];
        let numbers = numbers.iter().map(ToString::to_string);
        [id.clone(), of.state.into()]
            .into_iter()
            .chain(numbers)
            .collect()
    });
    let header = [
        "epoch",
        "state",
        "versions",
        "keys",
        "signatures",
        "to renew",
    ];
    parts.push(table(&header, &epochs.collect::<Vec<_>>()));
    let fleets = report.fleets.values().map(|of| {
        let numbers = [of.counted, of.recorded, of.unrecorded];
        let numbers = numbers.iter().map(ToString::to_string);
        [of.name.clone()].into_iter().chain(numbers).collect()
    });
    let header = ["fleet", "indexes counted", "recorded", "unrecorded"];
    parts.push(table(&header, &fleets.collect::<Vec<_>>()));
    if report.sound {
        parts.push("everything fits".into());
    }
    for finding in &report.findings {
        let (what, of, detail) = (finding.flaw.what(), &finding.of, &finding.detail);
        parts.push(format!("{of}: {what}: {detail}\n  {}", finding.advice));
    }
    let more = report.flaws.values().sum::<u64>() - report.findings.len() as u64;
    if more > 0 {
        parts.push(format!(
            "{FINDINGS_MAX} findings are shown, {more} more are counted"
        ));
    }
    parts.join("\n\n")
}
