//! `fob store copy`: an issuer's store into another one, which takes its place.
//!
//! Both are read once more at the end and compared. Then, and not before, the old one says that it
//! was moved, and after that the new one that it is whole: at no moment can both be served.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::{Common, place, print, table};
use crate::clock::{Clock as _, SystemClock};
use crate::config::StoreConfig;
use crate::domain::time::Time;
use crate::store::postgres::{Postgres, PostgresConfig};
use crate::store::sqlite::{Sqlite, SqliteConfig};
use crate::store::whole::{self, Compared, Copied, Fence, Kind, Progress, Tally, Whole};

/// How long a statement may take that removes a broken copy.
const STATEMENT_TIMEOUT_MS: u32 = 600_000;

/// Entries between two looks at the progress bar.
const LOOK_EVERY: u64 = 256;

#[derive(Subcommand)]
pub(super) enum StoreCommand {
    /// Copy everything the store holds into another, which takes its place
    #[command(after_help = COPY_HELP)]
    Copy(CopyArgs),
}

const COPY_HELP: &str = "\
Stop every server first. From a file into a database, and back:

  createuser fob && createdb --owner fob fob
  fob store copy --to 'postgresql://fob@db.example.com/fob' --password-file /etc/fob/db.password
  fob store copy --to /var/lib/fob/again.db

The other store must be empty. At the end both are read once more and compared, kind by kind, by \
counts and hashes, which are printed. What was broken off is gone on with by the same command. The \
old store stays where it is, and nothing serves from it any more; what [store] in fob.toml is to \
say from now on is printed.";

#[derive(Args)]
pub(super) struct CopyArgs {
    /// The other store: postgresql://… without a password, or the path of a file
    #[arg(long, value_name = "URL|FILE")]
    to: String,
    /// The file with the password of the database's user
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// What signed the database's certificate: PEM; the system's certificates where absent
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// Begin anew where a copy was broken off
    #[arg(long)]
    anew: bool,
    /// No progress bar
    #[arg(long)]
    quiet: bool,
}

/// What a copy has come to.
#[derive(Serialize)]
struct Summary {
    from: String,
    to: String,
    /// Entries that an earlier run had copied.
    before: u64,
    /// Entries that this one has.
    written: u64,
    /// What both stores hold.
    kinds: Vec<KindRow>,
    seconds: f64,
    /// What `[store]` is to say.
    store: String,
}

#[derive(Serialize)]
struct KindRow {
    kind: &'static str,
    count: u64,
    sha256_sum: String,
}

pub(super) fn copy(common: &Common, args: &CopyArgs) -> anyhow::Result<()> {
    let config = place::configuration(common)?;
    let _lock = place::lock(&config.dir)?;
    let began = SystemClock.monotonic();
    let (from, from_name) = open_source(&config.store)?;
    if from.fence(Fence::Moved)?.is_none() {
        place::check_witness(&config, &*from)?;
    }
    let to_config = args.target()?;
    let to_name = name(&to_config);
    let moved = from.fence(Fence::Moved)?;
    let (from, to) = (&*from, open_target(&to_config, &to_name)?);
    if let Some(says) = &moved {
        let here = says.starts_with(&format!("to {to_name} "));
        let goes_on = here && to.fence(Fence::Unfinished)?.is_some();
        ensure!(goes_on, "the store was moved {says}");
    }
    if args.anew && moved.is_none() && to.fence(Fence::Unfinished)?.is_some() {
        to.clear()?;
        to.set_fence(Fence::Unfinished, Some("anew"))?;
    }
    let copied = fill(from, &*to, &from_name, args)?;
    let compared = verify(from, &*to, args)?;
    // A crash between the two leaves two stores that both refuse; the same command goes on.
    if moved.is_none() {
        let at = Time(SystemClock.unix());
        from.set_fence(Fence::Moved, Some(&format!("to {to_name} at {at}")))?;
    }
    // What it says is of the old store; the new one has nothing yet that could be lost.
    match std::fs::remove_file(&config.witness) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).context(config.witness.display().to_string());
        }
        _ => {}
    }
    to.set_fence(Fence::Unfinished, None)?;
    let summary = Summary {
        from: from_name,
        to: to_name,
        before: copied.before,
        written: copied.written,
        kinds: compared.iter().map(KindRow::of).collect(),
        seconds: (SystemClock.monotonic() - began).as_secs_f64(),
        store: section(&to_config),
    };
    print(common, &summary, text)
}

impl CopyArgs {
    fn target(&self) -> anyhow::Result<StoreConfig> {
        if !self.to.starts_with("postgresql://") && !self.to.starts_with("postgres://") {
            ensure!(
                self.password_file.is_none() && self.tls_ca.is_none(),
                "--password-file and --tls-ca belong to a database"
            );
            let path = std::path::absolute(&self.to).with_context(|| self.to.clone())?;
            return Ok(StoreConfig::Sqlite(path));
        }
        let whole = |file: &PathBuf| {
            let whole = file.canonicalize();
            whole.with_context(|| file.display().to_string())
        };
        let at = PostgresConfig {
            tls_ca: self.tls_ca.as_ref().map(whole).transpose()?,
            ..PostgresConfig::new(&self.to)
        };
        at.check().map_err(anyhow::Error::msg).context("--to")?;
        Ok(StoreConfig::Postgres {
            at: Box::new(at),
            password_file: self.password_file.as_ref().map(whole).transpose()?,
        })
    }
}

/// The store of this directory. Its lock is held, which is all there is to say of a file.
fn open_source(config: &StoreConfig) -> anyhow::Result<(Box<dyn Whole>, String)> {
    let name = name(config);
    let store: Box<dyn Whole> = match config {
        StoreConfig::Sqlite(path) => Box::new(place::file(path)?),
        StoreConfig::Postgres { at, password_file } => {
            let store = place::database(at, password_file.as_deref())?;
            place::check_quiet(&store)?;
            Box::new(store)
        }
    };
    if store.fence(Fence::Unfinished)?.is_some() {
        bail!("{name} is itself an unfinished copy");
    }
    Ok((store, name))
}

/// The store to copy into: made where there is none.
fn open_target(config: &StoreConfig, name: &str) -> anyhow::Result<Box<dyn Whole>> {
    let store: Box<dyn Whole> = match config {
        StoreConfig::Sqlite(path) => {
            let settings = SqliteConfig::default();
            let store = if path.exists() {
                Sqlite::open(path, settings)
            } else {
                Sqlite::create(path, settings)
            };
            Box::new(store.with_context(|| name.to_owned())?)
        }
        StoreConfig::Postgres { at, password_file } => {
            let at = PostgresConfig {
                statement_timeout_ms: STATEMENT_TIMEOUT_MS,
                ..place::with_password(at, password_file.as_deref())?
            };
            Postgres::migrate(at.clone()).with_context(|| name.to_owned())?;
            Box::new(Postgres::open(at).with_context(|| name.to_owned())?)
        }
    };
    Ok(store)
}

/// What a store is called, to people and in what it says of itself.
fn name(config: &StoreConfig) -> String {
    match config {
        StoreConfig::Sqlite(path) => path.display().to_string(),
        StoreConfig::Postgres { at, .. } => at.url.clone(),
    }
}

/// Copies. What was begun when the other store held something else is begun anew.
fn fill(
    from: &dyn Whole,
    to: &dyn Whole,
    from_name: &str,
    args: &CopyArgs,
) -> anyhow::Result<Copied> {
    let counts = Kind::ALL.iter().map(|kind| from.about(*kind));
    let counts = counts.sum::<Result<u64, _>>()?;
    let mut bar = Bar::new(args.quiet, "copying");
    let name = format!("{from_name} {counts}");
    let copied = whole::copy(from, to, &name, &mut |progress| bar.tell(progress));
    bar.end();
    copied.context("the copy was broken off; the same command goes on (--anew begins anew)")
}

fn verify(from: &dyn Whole, to: &dyn Whole, args: &CopyArgs) -> anyhow::Result<Compared> {
    let mut bar = Bar::new(args.quiet, "comparing");
    let compared = whole::compare(from, to, &mut |progress| bar.tell(progress));
    bar.end();
    match compared? {
        Ok(same) => Ok(same),
        Err(differences) => {
            let mut said = String::from("the copy is not what was copied:");
            for it in differences {
                let _ = write!(
                    said,
                    "\n{}: {} here, {} there",
                    it.kind.name(),
                    it.from,
                    it.to
                );
            }
            bail!("{said}\n--anew begins anew");
        }
    }
}

impl KindRow {
    fn of((kind, tally): &(Kind, Tally)) -> Self {
        Self {
            kind: kind.name(),
            count: tally.count,
            sha256_sum: tally.hash(),
        }
    }
}

fn text(summary: &Summary) -> String {
    let rows: Vec<Vec<String>> = summary
        .kinds
        .iter()
        .map(|it| vec![it.kind.into(), it.count.to_string(), it.sha256_sum.clone()])
        .collect();
    format!(
        "{}\n\nboth stores hold this; {} is the issuer's store from now on, and nothing serves from \
         {} any more\nput this into fob.toml, in place of what [store] says there:\n\n{}",
        table(&["KIND", "COUNT", "SUM OF SHA-256"], &rows),
        summary.to,
        summary.from,
        summary.store
    )
}

/// What `[store]` says of a store.
fn section(config: &StoreConfig) -> String {
    let line = |key: &str, value: &Path| {
        let value = toml::Value::from(value.display().to_string());
        format!("{key} = {value}\n")
    };
    match config {
        StoreConfig::Sqlite(path) => format!("[store]\n{}", line("path", path)),
        StoreConfig::Postgres { at, password_file } => {
            let url = toml::Value::from(at.url.clone());
            let password = password_file.as_ref().map(|it| line("password_file", it));
            let ca = at.tls_ca.as_ref().map(|it| line("tls_ca", it));
            format!(
                "[store]\nurl = {url}\n{}{}",
                password.unwrap_or_default(),
                ca.unwrap_or_default()
            )
        }
    }
}

/// A progress bar, on standard error where that is a terminal.
pub(super) struct Bar {
    bar: ProgressBar,
    passed: u64,
}

impl Bar {
    pub(super) fn new(quiet: bool, what: &'static str) -> Self {
        let target = if quiet {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        };
        let bar = ProgressBar::with_draw_target(Some(0), target).with_message(what);
        bar.enable_steady_tick(Duration::from_millis(200));
        let style = "{msg} {bar:30} {pos}/{len} {prefix} {per_sec}, {eta} left";
        let bar = match ProgressStyle::with_template(style) {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        };
        Self { bar, passed: 0 }
    }

    pub(super) fn tell(&mut self, progress: Progress) {
        match progress {
            Progress::Begun(about) => self.bar.set_length(about),
            Progress::Passed(kind) => {
                self.passed += 1;
                if self.passed.is_multiple_of(LOOK_EVERY) {
                    self.bar.set_prefix(kind.name());
                    self.bar.inc(LOOK_EVERY);
                }
            }
        }
    }

    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}
