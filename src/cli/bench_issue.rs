//! `fob bench issue`: the real batch path in this process, in slices alternating with the ceiling.
//!
//! What `POST /v1/batches` does once a line is decoded: admission of orders against ten thousand
//! vehicles, identities and terminals, queue, prepare, HSM, durable store in a scratch folder under
//! D, each order with its durable (`Idempotency-Key`, `ref`). Afterwards a sample is read back from
//! the store and verified.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use clap::{Args, ValueEnum};
use fob_verify::key::SignedKey;
use fob_verify::{HolderKey, IssuerKey, RustCrypto, trust};
use futures_util::StreamExt as _;
use serde::Serialize;

use super::bench_hsm::active_key;
use super::{Common, jwk, place, print};
use crate::clock::{Clock, SystemClock};
use crate::domain::function::{BUILT_IN, FunctionRef, OWN_FUNCTION_MIN};
use crate::domain::{
    Authorization, BundleId, Epoch, Fleet, FleetSettings, FunctionCode, Identity, IdentityId,
    Refusal, Scope, Signing, Status, Terminal, TerminalId, Vehicle, VehicleId,
};
use crate::engine::authenticate::BackEnd;
use crate::engine::ids::Ids;
use crate::engine::orders::{Order, OrderCall, OrderSpec};
use crate::engine::{Book, Engine, EngineSettings, Parts, operate, rebuild};
use crate::hsm::{Ceiling, Signer, Token};
use crate::store::sqlite::{Sqlite, SqliteConfig};
use crate::store::{AnsweredOrder, BundleKey, Store, Write};

/// Vehicles, identities and terminals of the scratch fleet, so many of each.
const REGISTERED: usize = 10_000;

/// Rows written in one transaction while the scratch store is filled.
const SEED_CHUNK: usize = 5_000;

/// Orders under way at once, in batches.
const BATCHES_IN_FLIGHT: usize = 4;

/// Orders that come together.
const CHUNK_LEN: usize = 256;

/// Bundles read back and verified afterwards.
const SAMPLE_LEN: usize = 64;

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
    /// One signature for each batch: a tree over its keys
    Tree,
    /// A signature for each key while the HSM keeps up, trees when it does not
    Auto,
}

impl SigningArg {
    fn signing(self) -> Signing {
        match self {
            Self::Each => Signing::Each,
            Self::Tree => Signing::Tree,
            Self::Auto => Signing::Auto,
        }
    }
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

/// What a car is given: the root, and a list it signed.
struct Trusted {
    list: Vec<u8>,
    root: IssuerKey,
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
    let mut ceilings = [1, 2, 4]
        .map(|sessions| Ceiling::prepare(&token, &key, sessions))
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
    let store = Arc::new(Counted::new(Sqlite::create(
        &scratch.0.join("fob.db"),
        SqliteConfig::default(),
    )?));
    let phone = jwk::public(&jwk::generate()?)?;
    let bearer = seed(&store.store, &issuer, &epoch, phone, &args)?;
    let signer: Arc<dyn Signer> = Arc::clone(&token) as Arc<dyn Signer>;
    let engine = Engine::start(Parts {
        signer,
        store: Arc::clone(&store) as Arc<dyn Store>,
        clock: Arc::new(SystemClock),
        code_set_key: place::code_set_key(&config)?,
        settings: settings(&config.engine),
    })?;
    let report = measure(
        &args,
        &engine,
        &token,
        &store,
        &mut ceilings,
        &bearer,
        &trusted,
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

/// The configured bounds, at an address of the usual length.
fn settings(configured: &EngineSettings) -> EngineSettings {
    let address = EngineSettings::new("http://127.0.0.1:8650");
    EngineSettings {
        public_url: address.public_url,
        status_url: address.status_url,
        ..configured.clone()
    }
}

fn measure(
    args: &IssueArgs,
    engine: &Engine,
    token: &Token,
    store: &Counted,
    ceilings: &mut [Ceiling],
    bearer: &str,
    trusted: &Trusted,
) -> anyhow::Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let call = runtime.block_on(open(engine, bearer))?;
    let (signatures, commits) = (token.signatures(), store.commits());
    let mut latencies = Vec::with_capacity(args.bundles);
    let mut sample = Vec::with_capacity(args.bundles / SAMPLE_LEN + 1);
    let mut slices = Vec::new();
    let bar = progress(args.bundles);
    let (mut made, mut ordered) = (0, 0);
    while ordered < args.bundles {
        let before = token.signatures();
        let ceiling_per_s = ceiling(ceilings, args.ceiling_seconds)?;
        made += token.signatures() - before;
        // What callers hold is made before the clock starts: it is not part of issuing.
        let count = args
            .bundles
            .div_ceil(args.slices)
            .min(args.bundles - ordered);
        let orders = orders(args, ordered..ordered + count)?;
        let started = SystemClock.monotonic();
        runtime.block_on(issue(engine, &call, orders, &mut latencies, &mut sample))?;
        let took = (SystemClock.monotonic() - started).as_secs_f64();
        let keys_per_s = (count * usize::from(args.functions)) as f64 / took;
        slices.push(Slice {
            keys_per_s,
            ceiling_per_s,
        });
        ordered += count;
        bar.inc(count as u64);
    }
    bar.finish_and_clear();
    let (hsm_signatures, commits) = (
        token.signatures() - signatures - made,
        store.commits() - commits,
    );
    check(trusted, store, &sample)?;
    latencies.sort_unstable();
    let at = |part: f64| {
        let index =
            ((latencies.len() as f64 * part) as usize).min(latencies.len().saturating_sub(1));
        latencies
            .get(index)
            .map_or(0.0, |took: &Duration| took.as_secs_f64() * 1e3)
    };
    Ok(Report {
        signing: args.signing.signing().name(),
        bundles: args.bundles,
        functions: args.functions,
        keys_per_s: median(slices.iter().map(|slice| slice.keys_per_s)),
        ceiling_per_s: median(slices.iter().map(|slice| slice.ceiling_per_s)),
        ratio: median(
            slices
                .iter()
                .map(|slice| slice.keys_per_s / slice.ceiling_per_s),
        ),
        hsm_signatures,
        commits,
        p50_ms: at(0.5),
        p99_ms: at(0.99),
        verify_one_in: engine.settings().verify_one_in,
        session_key_copies: token.status().session_key_copies,
        slices,
    })
}

async fn open(engine: &Engine, bearer: &str) -> anyhow::Result<OrderCall> {
    let caller: BackEnd = engine
        .back_end(bearer, Scope::Issue)
        .map_err(|refusal| anyhow!("{refusal}"))?;
    Ok(engine.open_orders(caller, Some("bench")).await?)
}

/// Orders as a batch call has them once its lines are decoded.
fn orders(args: &IssueArgs, numbers: std::ops::Range<usize>) -> anyhow::Result<Vec<Vec<Order>>> {
    let now = SystemClock.unix();
    let functions: Vec<_> = functions(args.functions)
        .into_iter()
        .map(FunctionRef::Code)
        .collect();
    let order = |n: usize| {
        let registered = n % REGISTERED;
        Ok(Order {
            reference: format!("order-{n:09}"),
            digest: [0; 32],
            spec: OrderSpec {
                vehicle: VehicleId::parse(&format!("BENCH-{registered:08}"))?,
                functions: functions.clone(),
                not_before: now,
                not_after: now + 86_400,
                region: None,
                max_uses: Vec::new(),
                identity: IdentityId::parse(&format!("renter-{registered}"))?,
                terminal: TerminalId::parse(&format!("phone-{registered}"))?,
                signing: Some(args.signing.signing()),
            },
        })
    };
    let all = numbers
        .map(order)
        .collect::<Result<Vec<_>, Refusal>>()
        .map_err(|refusal| anyhow!("{refusal}"))?;
    let mut all = all.into_iter().peekable();
    let mut chunks = Vec::new();
    while all.peek().is_some() {
        chunks.push(all.by_ref().take(CHUNK_LEN).collect());
    }
    Ok(chunks)
}

/// Issues a slice: as many at once as keeps the pipeline full, as a burst would.
async fn issue(
    engine: &Engine,
    call: &OrderCall,
    chunks: Vec<Vec<Order>>,
    latencies: &mut Vec<Duration>,
    sample: &mut Vec<BundleId>,
) -> anyhow::Result<()> {
    let in_flight = engine.settings().batch_bundles_max * BATCHES_IN_FLIGHT;
    let issued = chunks.into_iter().map(|chunk| async move {
        let started = SystemClock.monotonic();
        let answers = engine.issue(call, chunk).await;
        (SystemClock.monotonic() - started, answers)
    });
    let mut issued =
        futures_util::stream::iter(issued).buffer_unordered(in_flight.div_ceil(CHUNK_LEN));
    while let Some((took, answers)) = issued.next().await {
        for (at, answer) in answers.into_iter().enumerate() {
            let redemption = answer?;
            latencies.push(took);
            if at % SAMPLE_LEN == 0 {
                sample.push(redemption.signed.bundle.id);
            }
        }
    }
    Ok(())
}

/// Reads some of what was issued back from the store, and believes it as a car does.
fn check(trusted: &Trusted, store: &Counted, sample: &[BundleId]) -> anyhow::Result<()> {
    let now = SystemClock.unix();
    let list = trust::verify(&trusted.list, &[trusted.root], now, &RustCrypto)
        .map_err(|why| anyhow!("the trust list: {why}"))?;
    let step = sample.len().div_ceil(SAMPLE_LEN).max(1);
    for id in sample.iter().step_by(step) {
        let signed = store
            .bundle(BundleKey::Id(*id))?
            .with_context(|| format!("bundle {id} is not in the store"))?;
        for key in rebuild::keys(&signed)? {
            SignedKey::decode(&key)
                .and_then(|key| key.verify(&list, &RustCrypto))
                .map_err(|why| anyhow!("a key of bundle {id}: {why}"))?;
        }
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

/// Fills the scratch store: epoch, fleet, registry. Returns a token for it.
fn seed(
    store: &Sqlite,
    issuer: &str,
    epoch: &Epoch,
    phone: HolderKey,
    args: &IssueArgs,
) -> anyhow::Result<String> {
    let refused = |refusal: Refusal| anyhow!("{refusal}");
    let (ids, unix_ms) = (Ids::new(), SystemClock.unix_ms());
    let settings = FleetSettings::default();
    let book = Book::default();
    let fleet = operate::new_fleet(&book, &ids, unix_ms, "bench", settings).map_err(refused)?;
    book.take(crate::store::Row::Fleet(fleet.clone()));
    let in_book = operate::fleet(&book, "bench").map_err(refused)?;
    let scopes = [Scope::Issue].into_iter().collect();
    let (token, bearer) =
        operate::new_token(&ids, unix_ms, &in_book, scopes, None).map_err(refused)?;
    let functions = functions(args.functions);
    let mut writes = vec![
        Write::Setting("issuer".into(), issuer.into()),
        Write::Epoch(epoch.clone()),
        Write::NewFleet(fleet.clone()),
        Write::NewToken(token),
    ];
    for &code in functions.iter().filter(|code| **code >= OWN_FUNCTION_MIN) {
        writes.push(Write::Function(
            fleet.id,
            code,
            format!("bench.f{code}").into(),
        ));
    }
    for n in 0..REGISTERED {
        writes.extend(registered(&fleet, n, &functions, phone).map_err(refused)?);
    }
    for chunk in writes.chunks(SEED_CHUNK) {
        store.commit(chunk)?;
    }
    Ok(bearer)
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
    phone: HolderKey,
) -> Result<[Write; 3], Refusal> {
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
    let terminal = Terminal {
        fleet: fleet.id,
        id: TerminalId::parse(&format!("phone-{n}"))?,
        identity: identity.id.clone(),
        key: phone,
        status: Status::Active,
    };
    Ok([
        Write::Vehicle(vehicle),
        Write::Identity(identity),
        Write::Terminal(terminal),
    ])
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
        by: BundleKey,
    ) -> Result<Option<crate::store::SignedBundle>, crate::store::StoreError> {
        self.store.bundle(by)
    }

    fn answered(&self, call: &[u8; 32]) -> Result<Vec<AnsweredOrder>, crate::store::StoreError> {
        self.store.answered(call)
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
