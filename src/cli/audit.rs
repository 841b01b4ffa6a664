//! `fob audit`: whether what the store holds fits together.

use std::path::PathBuf;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use fob_verify::IssuerKey;

use super::store::Bar;
use super::{Common, place, print, table};
use crate::clock::{Clock as _, SystemClock};
use crate::config::{Config, StoreConfig};
use crate::domain::EpochId;
use crate::engine::audit::{FINDINGS_MAX, Known, Report, audit};
use crate::store::postgres::{Postgres, PostgresConfig};
use crate::store::whole::Whole;

/// How long a statement may take that reads a whole table.
const STATEMENT_TIMEOUT_MS: u32 = 600_000;

pub(super) const HELP: &str = "\
Reads everything the store of D holds and checks it against everything else in it: every signature \
under its epoch's key, every epoch that counts against the trust list and the records, every key's \
place on its status list against the fleet's counter and against all other keys, what was cancelled \
or narrowed against what is revoked, code sets against bundles, answers against what they name, status lists as they were given out \
against marks, and what was signed, as it was counted when it was, against what was recorded and \
what is there. Nothing is written.

Stop the server first: what it commits meanwhile would not fit what was read before. Or check a \
backup of its file:

  sqlite3 D/fob.db '.backup copy.db' && fob audit --file copy.db

Where the HSM says how often a key has signed, put that beside what was counted:

  fob audit --hsm-signed 1f2e3d4c5b6a7988=104217

Exit code: 0 where everything fits, 1 where something does not; each finding says what to do.";

#[derive(Args)]
pub(super) struct AuditArgs {
    /// Check this copy of a store's file instead of the store
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// How often the HSM says it has signed with the key of this epoch, to be compared with what was
    /// counted; once for each epoch
    #[arg(long, value_name = "EPOCH=COUNT", value_parser = hsm_count)]
    hsm_signed: Vec<(EpochId, u64)>,
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
    let known = Known {
        root,
        now: SystemClock.unix(),
        hsm_signed: args.hsm_signed.iter().copied().collect(),
    };
    let audited = audit(&*store, &known, &mut |progress| bar.tell(progress));
    bar.end();
    drop(lock);
    let report = audited.context("the store cannot be read to its end")?;
    for id in known.hsm_signed.keys() {
        let there = report.epochs.get(&id.to_string());
        if there.is_none_or(|of| of.state.is_empty()) {
            bail!("--hsm-signed: there is no epoch {id}");
        }
    }
    print(common, &report, text)?;
    if report.sound {
        return Ok(());
    }
    let count: u64 = report.flaws.values().sum();
    bail!("{count} things do not fit")
}

fn hsm_count(text: &str) -> Result<(EpochId, u64), String> {
    let (epoch, count) = text.split_once('=').ok_or("not EPOCH=COUNT")?;
    let epoch = EpochId::parse(epoch).ok_or("the part before = is no epoch's id")?;
    let count = count.parse();
    Ok((epoch, count.map_err(|_| "the part after = is no number")?))
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
    parts.push(signed_text(report));
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

/// What was signed, as it was counted; and what the HSM says, where it was asked.
fn signed_text(report: &Report) -> String {
    let rows = report.epochs.iter().map(|(id, of)| {
        let made = &of.made;
        let numbers = [
            made.signed,
            made.recorded,
            made.synced,
            made.given_up,
            made.unsettled,
            made.failed,
            made.killed,
        ];
        let mut row: Vec<_> = [id.clone()].into();
        row.extend(numbers.iter().map(ToString::to_string));
        row.push(
            made.hsm
                .map_or_else(String::new, |hsm| hsm.says.to_string()),
        );
        row
    });
    let header = [
        "epoch",
        "signed",
        "recorded",
        "syncs",
        "given up",
        "unsettled",
        "failed",
        "not ended",
        "HSM says",
    ];
    let mut text = table(&header, &rows.collect::<Vec<_>>());
    for (id, of) in &report.epochs {
        if !of.made.complete {
            text.push_str(&format!(
                "\nepoch {id} has signed before signatures were counted"
            ));
        }
        if let Some(hsm) = of.made.hsm {
            let explained = match hsm.explained_max {
                Some(most) => format!("up to {most} are explained"),
                None => "how many are explained is not known".into(),
            };
            let beyond = hsm.beyond;
            text.push_str(&format!(
                "\nepoch {id}: the HSM says {beyond} more than were counted; {explained}"
            ));
        }
    }
    text
}
