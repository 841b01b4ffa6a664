//! `fob restore`: fences a store that was put back from a backup, so that nothing of what happened
//! after the backup was made, and is not known any more, can happen again.

use std::path::PathBuf;

use anyhow::{Context, anyhow, bail, ensure};
use clap::Args;
use serde::Serialize;

use super::operate::ByArgs;
use super::{Common, place, print};
use crate::clock::{Clock as _, SystemClock};
use crate::config::{Config, StoreConfig};
use crate::domain::Restore;
use crate::domain::restore::RESTORES_MAX;
use crate::domain::time::Time;
use crate::engine::Book;
use crate::engine::operate::By;
use crate::store::Act;
use crate::store::postgres::{Postgres, PostgresConfig};
use crate::store::whole::{Fence, Fenced, FencedOff, Testimony, Witness};

mod alone;
mod lost;

use lost::Lost;

/// How long a statement may take that touches every authorization.
const STATEMENT_TIMEOUT_MS: u32 = 600_000;

/// Restores that there may have been since the backup, where nobody knows any more.
const UNKNOWN_RESTORES: u32 = 7;

pub(super) const HELP: &str = "\
Stop every server, put the backup in place, and run this before anything else. Over a database it \
listens for a moment first, and refuses while a node serves. What was authorized, \
redeemed, changed and revoked after the backup was made is not known any more, so nothing of before \
counts: code sets that are open are cancelled, every key that was ever issued is revoked on its \
status list, and vehicle epochs, status indexes, versions and trust lists go on above whatever was \
given out. Back ends and owners authorize again; a change of an authorization issues its keys anew.

What was revoked since and is not a key has to be said again. A list of it:

  kind,id,fleet
  token,01a20538-76ac-79f8-8691-2738390c4361,
  authorization,01a20538-ffa1-7dce-b6a4-143e3e77a7ec,
  identity,anna,rental
  vehicle,VAN-7,rental

Tokens are revoked, authorizations (or those of a bundle or a key) cancelled, identities and \
vehicles suspended. It is kept with who and why: fob acts. Epochs that were revoked since are revoked again by `fob epoch revoke`, which \
needs the root.";

#[derive(Args)]
pub(super) struct RestoreArgs {
    /// What was revoked since the backup: CSV of kind, id and fleet; - is standard input
    #[arg(long, value_name = "FILE")]
    revocations: Option<PathBuf>,
    /// Revoke every bearer token, because some may have been revoked since
    #[arg(long)]
    end_tokens: bool,
    /// Fence a store that nobody says was put back: every key that was issued ends
    #[arg(long)]
    even_so: bool,
    /// Fence nothing, where the witness was lost and the store was not put back: on your word
    #[arg(long, conflicts_with_all = ["revocations", "end_tokens", "even_so"])]
    nothing_lost: bool,
    #[command(flatten)]
    by: ByArgs,
}

/// The act of a fence, of each fleet: its object is the restore's number.
const RESTORE: &str = "restore";

/// What was taken on the operator's word.
#[derive(Serialize)]
struct Taken {
    nothing_lost: bool,
}

/// What a restore has come to.
#[derive(Serialize)]
struct Summary {
    /// Its number.
    restore: u32,
    /// When anybody wrote into the backup last.
    backup_of: Option<Time>,
    /// Transactions that were answered after that and are lost, where that can be counted.
    transactions_lost: Option<u64>,
    code_sets_cancelled: u64,
    vehicles_raised: u64,
    vehicle_epoch: u32,
    fleets_raised: u64,
    trust_version_next: u32,
    /// Revoked, cancelled and suspended by the list.
    revocations: u64,
    /// Lines of the list that name what the backup does not know.
    unknown: Vec<u64>,
    tokens_ended: u64,
}

pub(super) fn run(common: &Common, args: RestoreArgs) -> anyhow::Result<()> {
    let by = By::from(args.by);
    by.check().map_err(|why| anyhow!("{why}"))?;
    let config = place::configuration(common)?;
    let _lock = place::lock(&config.dir)?;
    // Whatever is wrong with the list is said before anything is touched.
    let lost = args.revocations.as_deref().map(Lost::read).transpose()?;
    let store = open(&config)?;
    let witness = &config.witness;
    let last = store.restored()?;
    let testimony = Witness::ask(witness, &*store)?;
    if args.nothing_lost {
        ensure!(
            testimony == Testimony::Missing,
            "{} is there, and knows better than anybody's word",
            witness.display()
        );
        Witness::restored(witness, last.number)?;
        return print(common, &Taken { nothing_lost: true }, |_| {
            format!("{} is made anew; nothing is fenced", witness.display())
        });
    }
    let (before, known) = match testimony {
        Testimony::Behind(witness) => (witness.restores, Some(witness)),
        // How often it was restored since the backup was made went with the file.
        Testimony::Missing => (last.number + UNKNOWN_RESTORES, None),
        Testimony::Reached => {
            ensure!(
                args.even_so,
                "this store has everything that was answered, as far as {} knows: there is nothing \
                 to fence (--even-so fences all the same, and ends every key)",
                witness.display()
            );
            (0, Witness::read(witness)?)
        }
    };
    alone::check(&config)?;
    let number = before.max(last.number) + 1;
    ensure!(number <= RESTORES_MAX, "it was restored too often");
    let backup_of = store.last_written()?;
    let transactions_lost = known.map_or(Ok(None), |it| lost_since(&*store, it))?;
    let book = place::book(&*store)?;
    let trust = book.trust().map_or(0, |list| list.version);
    // The fence last: until it stands, the store is refused, and all of this may be done again.
    let now = SystemClock.unix();
    let unknown = match &lost {
        Some(lost) => lost.revoke(&*store, &book, (&by, now))?,
        None => Vec::new(),
    };
    let tokens_ended = match args.end_tokens {
        true => lost::end_tokens(&*store, &book, (&by, now))?,
        false => 0,
    };
    let restore = Restore::after(last, number, SystemClock.unix(), trust);
    let FencedOff {
        code_sets,
        vehicles,
        fleets,
    } = store.restore(restore, &acts(&book, &by, restore)?)?;
    Witness::restored(witness, number)?;
    let summary = Summary {
        restore: number,
        backup_of: backup_of.map(Time),
        transactions_lost,
        code_sets_cancelled: code_sets,
        vehicles_raised: vehicles,
        vehicle_epoch: restore.vehicle_epoch(),
        fleets_raised: fleets,
        trust_version_next: restore.trust_after(trust),
        revocations: lost.as_ref().map_or(0, Lost::len) - unknown.len() as u64,
        unknown,
        tokens_ended,
    };
    print(common, &summary, text)
}

/// A restore, as it is kept of each fleet.
fn acts(book: &Book, by: &By, restore: Restore) -> anyhow::Result<Vec<Act>> {
    let number = restore.number.to_string();
    let of = |fleet| by.does((fleet, restore.at), RESTORE, number.clone());
    let acts = book.fleets().into_iter().map(|it| of(it.fleet.id));
    let acts: Result<Vec<_>, _> = acts.collect();
    acts.map_err(|why| anyhow!("{why}"))
}

fn open(config: &Config) -> anyhow::Result<Box<dyn Fenced>> {
    let store: Box<dyn Fenced> = match &config.store {
        StoreConfig::Sqlite(path) => Box::new(place::file(path)?),
        StoreConfig::Postgres { at, password_file } => {
            let at = PostgresConfig {
                statement_timeout_ms: STATEMENT_TIMEOUT_MS,
                ..place::with_password(at, password_file.as_deref())?
            };
            Box::new(Postgres::open(at).context("the database ([store] url)")?)
        }
    };
    if let Some(says) = store.fence(Fence::Moved)? {
        bail!("this store was moved {says}");
    }
    if store.fence(Fence::Unfinished)?.is_some() {
        bail!("this store is an unfinished copy");
    }
    Ok(store)
}

/// How many transactions of the process that wrote last are missing, where the backup is of its
/// time.
fn lost_since(store: &dyn Fenced, witness: Witness) -> anyhow::Result<Option<u64>> {
    let at = |number| crate::store::whole::Position {
        number,
        ..witness.position
    };
    if witness.position.number == 0 || !store.reaches(at(1))? {
        return Ok(None);
    }
    // The last one that is there.
    let (mut there, mut missing) = (1, witness.position.number);
    if store.reaches(at(missing))? {
        return Ok(Some(0));
    }
    while missing - there > 1 {
        let middle = there.midpoint(missing);
        if store.reaches(at(middle))? {
            there = middle;
        } else {
            missing = middle;
        }
    }
    Ok(Some(witness.position.number - there))
}

fn text(summary: &Summary) -> String {
    let of = match &summary.backup_of {
        Some(at) => format!("of {at}"),
        None => "of a time that is not known".into(),
    };
    let lost = match summary.transactions_lost {
        Some(count) => format!("; {count} transactions that were answered since are lost"),
        None => String::new(),
    };
    format!(
        "restore {}: the backup is {of}{lost}\n\
         lost is whatever was done since: authorizations, redemptions, changes, revocations, \
         suspensions, tokens, entries of the registry, steps of epochs\n\
         fenced: {} open code sets cancelled; every key issued before is revoked; {} vehicles from \
         epoch {} on; {} fleets with fresh status lists; the next trust list has version {}\n\
         said again: {} revocations, {} tokens ended{}\n\
         to do: {}import what was registered since; `fob epoch list` and revoke again what was \
         revoked since; authorize again, or change what is to go on",
        summary.restore,
        summary.code_sets_cancelled,
        summary.vehicles_raised,
        summary.vehicle_epoch,
        summary.fleets_raised,
        summary.trust_version_next,
        summary.revocations,
        summary.tokens_ended,
        match &summary.unknown[..] {
            [] => String::new(),
            lines => format!("; the backup does not know what these lines name: {lines:?}"),
        },
        match summary.tokens_ended {
            0 => "`fob token list` and revoke again what was revoked since; ",
            _ => "make tokens for the back ends; ",
        },
    )
}
