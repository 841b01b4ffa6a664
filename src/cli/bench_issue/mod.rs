//! `fob bench issue`: the real batch path in this process, in slices alternating with the ceiling.
//!
//! What `POST /v1/batches` does once a line is decoded: admission of orders against ten thousand
//! vehicles, identities and terminals, queue, prepare, HSM, durable store in a scratch folder under
//! D, each order with its durable (`Idempotency-Key`, `ref`). Afterwards a sample is read back from
//! the store and verified.

mod measure;
mod world;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, anyhow, ensure};
use clap::Args;
use fob_verify::IssuerKey;
use serde::Serialize;

use super::bench_hsm::active_key;
use super::signing::SigningArg;
use super::{Common, jwk, place, print};
use crate::clock::SystemClock;
use crate::engine::{Engine, EngineSettings, Issuing, Parts};
use crate::hsm::{Ceiling, Signer};
use crate::store::Store;
use crate::store::postgres::{Postgres, PostgresConfig};
use crate::store::sqlite::{Sqlite, SqliteConfig};

use measure::{Bench, Trusted};
use world::{Counted, Scratch, seed};

#[derive(Args)]
pub(super) struct IssueArgs {
    /// Bundles to issue
    #[arg(long, default_value_t = 100_000)]
    bundles: usize,
    /// Keys in each
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
    functions: u16,
    /// How keys are signed
    #[arg(long, value_enum, default_value_t = SigningArg::Each)]
    signing: SigningArg,
    /// Slices, of which the medians are reported; in each, issuing takes turns with the ceiling
    #[arg(long, default_value_t = 5)]
    slices: usize,
    /// Seconds for which the ceiling is measured in each slice, for each number of sessions
    #[arg(long, default_value_t = 0.5)]
    ceiling_seconds: f64,
    /// What the fleet rules meanwhile, as `PUT /v1/rules` takes it; renters have a licence of class B
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// Issue into this PostgreSQL database, which has to be empty, instead of a file; what is
    /// written there stays
    #[arg(long, value_name = "URL")]
    store: Option<String>,
}

#[derive(Serialize)]
struct Report {
    signing: &'static str,
    bundles: usize,
    functions: u16,
    keys_per_s: f64,
    ceiling_per_s: f64,
    ratio: f64,
    hsm_signatures: u64,
    commits: u64,
    /// To a database and back to commit, for each commit.
    #[serde(skip_serializing_if = "Option::is_none")]
    round_trips_per_commit: Option<f64>,
    p50_ms: f64,
    p99_ms: f64,
    verify_one_in: u64,
    session_key_copies: bool,
    slices: Vec<Slice>,
}

#[derive(Serialize)]
struct Slice {
    keys_per_s: f64,
    ceiling_per_s: f64,
}

pub(super) fn run(common: &Common, args: IssueArgs) -> anyhow::Result<()> {
    ensure!((1..=1000).contains(&args.slices), "--slices is 1 to 1000");
    ensure!(
        args.bundles >= args.slices,
        "--bundles is at least --slices"
    );
    ensure!(
        (0.01..=60.0).contains(&args.ceiling_seconds),
        "--ceiling-seconds is 0.01 to 60"
    );
    let config = place::configuration(common)?;
    let _lock = place::lock(&config.dir)?;
    let book = place::book(&*place::store(&config)?)?;
    let issuer = book
        .setting("issuer")
        .context("the store names no issuer")?;
    let (token, key, epoch) = active_key(&config, &book)?;
    let trusted = Trusted {
        list: book
            .trust()
            .context("there is no trust list")?
            .bytes
            .to_vec(),
        root: IssuerKey::decode(&place::read(&config.dir.join("root.cbor"))?)
            .map_err(|why| anyhow!("root.cbor: {why}"))?,
    };
    let scratch = Scratch::new(&config.dir)?;
    let token = Arc::new(token);
    let ceilings = [1, 2, 4]
        .map(|sessions| Ceiling::prepare(&token, &key, sessions))
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
    let (store, database) = scratch_store(&args, &scratch)?;
    let phone = jwk::public(&jwk::generate()?)?;
    let bearer = seed(&*store.store, &issuer, &epoch, phone, &args)?;
    let signer: Arc<dyn Signer> = Arc::clone(&token) as Arc<dyn Signer>;
    let engine = Engine::start(Parts {
        tokens: vec![Issuing::alone(token.label(), signer)],
        store: Arc::clone(&store) as Arc<dyn Store>,
        clock: Arc::new(SystemClock),
        code_set_key: place::code_set_key(&config)?,
        settings: settings(&config.engine),
    })?;
    let bench = Bench {
        args: &args,
        engine: &engine,
        token: &token,
        store: &store,
        database: database.as_deref(),
        trusted: &trusted,
        ceilings,
    };
    let report = bench.measure(&bearer)?;
    print(common, &report, text)
}

fn text(report: &Report) -> String {
    let rounds = report
        .round_trips_per_commit
        .map_or_else(String::new, |rounds| {
            format!(", {rounds:.2} round trips to the database for each")
        });
    format!(
        "{} keys a second with {} keys a bundle, {:.2} of the ceiling of {:.0} signatures a second\n\
         {} signatures, {} commits{rounds}, p50 {:.2} ms, p99 {:.2} ms",
        report.keys_per_s.round(),
        report.functions,
        report.ratio,
        report.ceiling_per_s,
        report.hsm_signatures,
        report.commits,
        report.p50_ms,
        report.p99_ms
    )
}

/// What to issue into: a file, or a database, which has to be empty.
fn scratch_store(
    args: &IssueArgs,
    scratch: &Scratch,
) -> anyhow::Result<(Arc<Counted>, Option<Arc<Postgres>>)> {
    let Some(url) = &args.store else {
        let store = Sqlite::create(&scratch.0.join("fob.db"), SqliteConfig::default())?;
        return Ok((Arc::new(Counted::new(Arc::new(store))), None));
    };
    let database = Postgres::create(PostgresConfig::new(url)).context("--store")?;
    let database = Arc::new(database);
    let store = Arc::clone(&database) as Arc<dyn Store>;
    Ok((Arc::new(Counted::new(store)), Some(database)))
}

/// The configured bounds, at an address of the usual length.
fn settings(configured: &EngineSettings) -> EngineSettings {
    let address = EngineSettings::new("http://127.0.0.1:8650");
    EngineSettings {
        public_url: address.public_url,
        status_url: address.status_url,
        ..configured.clone()
    }
}
