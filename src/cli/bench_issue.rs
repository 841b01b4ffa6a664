//! `fob bench issue`: the real batch path in this process, in slices alternating with the ceiling.
//!
//! Admission against ten thousand vehicles and identities, queue, prepare, HSM, durable store in a
//! scratch folder under D. Terminals' proofs are checked beforehand: that is the callers' work, and
//! a fleet's batch has none.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use clap::{Args, ValueEnum};
use fob_verify::HolderKey;
use futures_util::StreamExt as _;
use serde::Serialize;

use super::bench_hsm::active_key;
use super::{Common, jwk, place, print};
use crate::clock::{Clock, SystemClock};
use crate::domain::function::{BUILT_IN, OWN_FUNCTION_MIN};
use crate::domain::{
    Author, Authorization, AuthorizationState, Epoch, Fleet, FleetSettings, FunctionCode, Identity,
    IdentityId, Status, TokenId, Vehicle, VehicleId, Window,
};
use crate::engine::ids::Ids;
use crate::engine::{Book, Engine, EngineSettings, Parts, operate};
use crate::hsm::{Ceiling, Signer, Token};
use crate::store::sqlite::{Sqlite, SqliteConfig};
use crate::store::{NewAuthorization, Store, Write};

/// Vehicles, and identities, of the scratch fleet.
const REGISTERED: usize = 10_000;

/// Rows written in one transaction while the scratch store is filled.
const SEED_CHUNK: usize = 5_000;

/// Redemptions under way at once, in batches.
const BATCHES_IN_FLIGHT: usize = 4;

#[derive(Args)]
pub(super) struct IssueArgs {
    /// Bundles to issue
    #[arg(long, default_value_t = 20_000)]
    bundles: usize,
    /// Keys in each
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
    functions: u16,
    /// How keys are signed
    #[arg(long, value_enum, default_value_t = SigningArg::Each)]
    signing: SigningArg,
    /// Slices, each followed by a slice of the ceiling
    #[arg(long, default_value_t = 5)]
    slices: usize,
    /// Seconds of each measurement of the ceiling
    #[arg(long, default_value_t = 0.5)]
    ceiling_seconds: f64,
}

#[derive(Clone, Copy, ValueEnum)]
enum SigningArg {
    /// One signature for each key
    Each,
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
    let scratch = Scratch::new(&config.dir)?;
    let settings = EngineSettings {
        queue_len_max: config.engine.queue_len_max,
        batch_bundles_max: config.engine.batch_bundles_max,
        batch_age: config.engine.batch_age,
        verify_one_in: config.engine.verify_one_in,
        ..EngineSettings::new("http://127.0.0.1:8650")
    };
    let token = Arc::new(token);
    let mut ceilings = [1, 2, 4]
        .map(|sessions| Ceiling::prepare(&token, &key, sessions))
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
    let store = Arc::new(Counted::new(Sqlite::create(
        &scratch.0.join("fob.db"),
        SqliteConfig::default(),
    )?));
    let authorizations = seed(&store.store, &issuer, &epoch, &args)?;
    let code_set_key = place::code_set_key(&config)?;
    let signer: Arc<dyn Signer> = Arc::clone(&token) as Arc<dyn Signer>;
    let engine = Engine::start(Parts {
        signer,
        store: Arc::clone(&store) as Arc<dyn Store>,
        clock: Arc::new(SystemClock),
        code_set_key,
        settings,
    })?;
    let report = measure(
        &args,
        &engine,
        &token,
        &store,
        &mut ceilings,
        &authorizations,
    )?;
    print(common, &report, |report| {
        format!(
            "{} keys a second with {} keys a bundle, {:.2} of the ceiling of {:.0} signatures a second\n\
             {} signatures, {} commits, p50 {:.2} ms, p99 {:.2} ms",
            report.keys_per_s.round(),
            report.functions,
            report.ratio,
            report.ceiling_per_s,
            report.hsm_signatures,
            report.commits,
            report.p50_ms,
            report.p99_ms
        )
    })
}

fn measure(
    args: &IssueArgs,
    engine: &Engine,
    token: &Token,
    store: &Counted,
    ceilings: &mut [Ceiling],
    authorizations: &[Arc<Authorization>],
) -> anyhow::Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (signatures, commits) = (token.signatures(), store.commits());
    let mut latencies = Vec::with_capacity(authorizations.len());
    let mut slices = Vec::new();
    let phone = jwk::public(&jwk::generate()?)?;
    let bar = progress(authorizations.len());
    let mut made = 0;
    for slice in authorizations.chunks(args.bundles.div_ceil(args.slices)) {
        let before = token.signatures();
        let ceiling_per_s = ceiling(ceilings, args.ceiling_seconds)?;
        made += token.signatures() - before;
        // What owners hold is made before the clock starts: it is not part of issuing.
        let code_sets = slice
            .iter()
            .map(|authorization| engine.code_set(authorization))
            .collect::<Result<Vec<_>, _>>()?;
        let started = SystemClock.monotonic();
        runtime.block_on(issue(engine, &code_sets, phone, &mut latencies))?;
        let took = (SystemClock.monotonic() - started).as_secs_f64();
        let keys_per_s = (slice.len() * usize::from(args.functions)) as f64 / took;
        slices.push(Slice {
            keys_per_s,
            ceiling_per_s,
        });
        bar.inc(slice.len() as u64);
    }
    bar.finish_and_clear();
    latencies.sort_unstable();
    let at = |part: f64| {
        let index =
            ((latencies.len() as f64 * part) as usize).min(latencies.len().saturating_sub(1));
        latencies
            .get(index)
            .map_or(0.0, |took: &Duration| took.as_secs_f64() * 1e3)
    };
    let keys_per_s = median(slices.iter().map(|slice| slice.keys_per_s));
    let ceiling_per_s = median(slices.iter().map(|slice| slice.ceiling_per_s));
    Ok(Report {
        signing: "each",
        bundles: authorizations.len(),
        functions: args.functions,
        keys_per_s,
        ceiling_per_s,
        ratio: median(
            slices
                .iter()
                .map(|slice| slice.keys_per_s / slice.ceiling_per_s),
        ),
        hsm_signatures: token.signatures() - signatures - made,
        commits: store.commits() - commits,
        p50_ms: at(0.5),
        p99_ms: at(0.99),
        verify_one_in: engine.settings().verify_one_in,
        session_key_copies: token.status().session_key_copies,
        slices,
    })
}

/// Issues a slice: as many at once as keeps the pipeline full, as a burst would.
async fn issue(
    engine: &Engine,
    code_sets: &[String],
    phone: HolderKey,
    latencies: &mut Vec<Duration>,
) -> anyhow::Result<()> {
    let in_flight = engine.settings().batch_bundles_max * BATCHES_IN_FLIGHT;
    let redemptions = code_sets
        .iter()
        .enumerate()
        .map(|(at, code_set)| async move {
            let started = SystemClock.monotonic();
            let identity = IdentityId::parse(&format!("renter-{}", at % REGISTERED))
                .map_err(|refusal| anyhow!("{refusal}"))?;
            engine.redeem_for(code_set, identity, phone).await?;
            Ok::<_, anyhow::Error>(SystemClock.monotonic() - started)
        });
    let mut answers = futures_util::stream::iter(redemptions).buffer_unordered(in_flight);
    while let Some(took) = answers.next().await {
        latencies.push(took?);
    }
    Ok(())
}

fn ceiling(ceilings: &mut [Ceiling], seconds: f64) -> anyhow::Result<f64> {
    let duration = Duration::from_secs_f64(seconds);
    let mut best = 0.0_f64;
    for ceiling in ceilings {
        best = best.max(ceiling.run(duration, &|| SystemClock.monotonic())?.per_s());
    }
    Ok(best)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => values[middle],
        _ => (values[middle - 1] + values[middle]) / 2.0,
    }
}

fn progress(bundles: usize) -> indicatif::ProgressBar {
    let style = indicatif::ProgressStyle::with_template(
        "{bar:40} {pos}/{len} bundles, {per_sec}, {eta} left",
    );
    let bar = indicatif::ProgressBar::new(bundles as u64);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Fills the scratch store: epoch, fleet, registry, and one open authorization for each bundle.
fn seed(
    store: &Sqlite,
    issuer: &str,
    epoch: &Epoch,
    args: &IssueArgs,
) -> anyhow::Result<Vec<Arc<Authorization>>> {
    let (ids, unix_ms) = (Ids::new(), SystemClock.unix_ms());
    let settings = FleetSettings {
        open_redemption: true,
    };
    let fleet = operate::new_fleet(&Book::default(), &ids, unix_ms, "bench", settings)
        .map_err(|refusal| anyhow!("{refusal}"))?;
    let functions = functions(args.functions);
    let mut writes = vec![
        Write::Setting("issuer".into(), issuer.into()),
        Write::Epoch(epoch.clone()),
        Write::NewFleet(fleet.clone()),
    ];
    for &code in functions.iter().filter(|code| **code >= OWN_FUNCTION_MIN) {
        writes.push(Write::Function(
            fleet.id,
            code,
            format!("bench.f{code}").into(),
        ));
    }
    for n in 0..REGISTERED {
        writes.extend(registered(&fleet, n, &functions).map_err(|refusal| anyhow!("{refusal}"))?);
    }
    let authorizations = (0..args.bundles)
        .map(|n| open_authorization(&ids, unix_ms, &fleet, n, &functions).map(Arc::new))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|refusal| anyhow!("{refusal}"))?;
    writes.extend(authorizations.iter().map(|authorization| {
        let authorization = Arc::clone(authorization);
        Write::Authorize(Box::new(NewAuthorization {
            authorization,
            request: None,
            command: None,
        }))
    }));
    for chunk in writes.chunks(SEED_CHUNK) {
        store.commit(chunk)?;
    }
    Ok(authorizations)
}

/// The built-in functions first, then as many of the fleet's own as are asked for.
fn functions(count: u16) -> Vec<FunctionCode> {
    let built_in = BUILT_IN.iter().map(|(code, _)| *code);
    built_in
        .chain(OWN_FUNCTION_MIN..)
        .take(count.into())
        .collect()
}

fn registered(
    fleet: &Fleet,
    n: usize,
    functions: &[FunctionCode],
) -> Result<[Write; 2], crate::domain::Refusal> {
    let vehicle = Vehicle {
        fleet: fleet.id,
        id: VehicleId::parse(&format!("BENCH-{n:08}"))?,
        model: "Bench".into(),
        functions: functions.into(),
        owner: None,
        key: None,
        epoch: 0,
        status: Status::Active,
    };
    let identity = Identity {
        fleet: fleet.id,
        id: IdentityId::parse(&format!("renter-{n}"))?,
        status: Status::Active,
        licences: Vec::new(),
    };
    Ok([Write::Vehicle(vehicle), Write::Identity(identity)])
}

fn open_authorization(
    ids: &Ids,
    unix_ms: u64,
    fleet: &Fleet,
    n: usize,
    functions: &[FunctionCode],
) -> Result<Authorization, crate::domain::Refusal> {
    let now = unix_ms / 1000;
    let window = Window {
        not_before: now,
        not_after: now + 86_400,
    };
    Ok(Authorization {
        id: ids.authorization(unix_ms),
        fleet: fleet.id,
        version: 1,
        vehicle: VehicleId::parse(&format!("BENCH-{:08}", n % REGISTERED))?,
        functions: functions.into(),
        window,
        redeem_by: window.not_after,
        restrictions: None,
        pin: false,
        signing: None,
        state: AuthorizationState::Open,
        created_at: now,
        author: Author::Token(TokenId([0; 16])),
    })
}

/// A folder under D, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(dir: &std::path::Path) -> anyhow::Result<Self> {
        let path = dir.join(format!("bench-{}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("fob: {} is left behind: {error}", self.0.display());
        }
    }
}

/// A store that counts its transactions.
struct Counted {
    store: Sqlite,
    commits: std::sync::atomic::AtomicU64,
}

impl Counted {
    fn new(store: Sqlite) -> Self {
        Self {
            store,
            commits: std::sync::atomic::AtomicU64::new(0),
        }
    }

    fn commits(&self) -> u64 {
        self.commits.load(std::sync::atomic::Ordering::Relaxed)
    }
}

impl Store for Counted {
    fn commit(
        &self,
        writes: &[Write],
    ) -> Result<Vec<crate::store::Applied>, crate::store::StoreError> {
        self.commits
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.store.commit(writes)
    }

    fn load(
        &self,
        each: &mut dyn FnMut(crate::store::Row),
    ) -> Result<(), crate::store::StoreError> {
        self.store.load(each)
    }

    fn bundle(
        &self,
        by: crate::store::BundleKey,
    ) -> Result<Option<crate::store::SignedBundle>, crate::store::StoreError> {
        self.store.bundle(by)
    }

    fn authorizations(
        &self,
        filter: &crate::store::AuthorizationFilter,
    ) -> Result<Vec<Authorization>, crate::store::StoreError> {
        self.store.authorizations(filter)
    }

    fn reopen(&self) -> Result<(), crate::store::StoreError> {
        self.store.reopen()
    }
}
