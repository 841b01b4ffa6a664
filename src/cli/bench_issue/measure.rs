//! How `fob bench issue` measures: in turns with the ceiling, because machines change their speed
//! from one moment to the next.

use std::time::Duration;

use anyhow::{Context, anyhow};
use fob_verify::key::SignedKey;
use fob_verify::{IssuerKey, RustCrypto, trust};
use futures_util::StreamExt as _;
use tokio::runtime::Runtime;

use super::world::{self, CHUNK_LEN, Counted};
use super::{IssueArgs, Report, Slice};
use crate::clock::{Clock, SystemClock};
use crate::domain::{BundleId, Scope};
use crate::engine::authenticate::BackEnd;
use crate::engine::orders::{Order, OrderCall};
use crate::engine::{Engine, rebuild};
use crate::hsm::{Ceiling, Signer, Token};
use crate::store::postgres::Postgres;
use crate::store::{BundleKey, Store};

/// Turns of a slice: the ceiling for a while, then issuing for a while, and again.
const TURNS: usize = 4;

/// Orders under way at once, in batches.
const BATCHES_IN_FLIGHT: usize = 8;

/// Bundles read back and verified afterwards.
const SAMPLE_LEN: usize = 64;

/// What a car is given: the root, and a list it signed.
pub(super) struct Trusted {
    pub(super) list: Vec<u8>,
    pub(super) root: IssuerKey,
}

/// What is measured with.
pub(super) struct Bench<'a> {
    pub(super) args: &'a IssueArgs,
    pub(super) engine: &'a Engine,
    pub(super) token: &'a Token,
    pub(super) store: &'a Counted,
    pub(super) database: Option<&'a Postgres>,
    pub(super) trusted: &'a Trusted,
    pub(super) ceilings: Vec<Ceiling>,
}

/// What issuing has left to look at.
#[derive(Default)]
struct Issued {
    latencies: Vec<Duration>,
    sample: Vec<BundleId>,
    count: usize,
}

impl Bench<'_> {
    /// Issues everything, slice by slice.
    pub(super) fn measure(mut self, bearer: &str) -> anyhow::Result<Report> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let call = runtime.block_on(open(self.engine, bearer))?;
        let commits = self.store.commits();
        let rounds = self.database.map(Postgres::commit_round_trips);
        let bar = progress(self.args.bundles);
        let mut issued = Issued::default();
        let (mut slices, mut hsm_signatures) = (Vec::new(), 0);
        for number in 1..=self.args.slices {
            let until = self.args.bundles * number / self.args.slices;
            slices.push(self.slice(&runtime, &call, until, &mut issued, &mut hsm_signatures)?);
            bar.set_position(issued.count as u64);
        }
        bar.finish_and_clear();
        let commits = self.store.commits() - commits;
        let rounds = rounds.zip(self.database.map(Postgres::commit_round_trips));
        check(self.trusted, self.store, &issued.sample)?;
        issued.latencies.sort_unstable();
        let at = |part: f64| quantile_ms(&issued.latencies, part);
        Ok(Report {
            signing: self.args.signing.signing().name(),
            bundles: self.args.bundles,
            functions: self.args.functions,
            keys_per_s: median(slices.iter().map(|slice| slice.keys_per_s)),
            ceiling_per_s: median(slices.iter().map(|slice| slice.ceiling_per_s)),
            ratio: median(
                slices
                    .iter()
                    .map(|slice| slice.keys_per_s / slice.ceiling_per_s),
            ),
            hsm_signatures,
            commits,
            round_trips_per_commit: rounds
                .map(|(before, after)| (after - before) as f64 / commits.max(1) as f64),
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            verify_one_in: self.engine.settings().verify_one_in,
            session_key_copies: self.token.status().session_key_copies,
            slices,
        })
    }

    /// Issues up to `until` bundles in all, in turns with the ceiling.
    fn slice(
        &mut self,
        runtime: &Runtime,
        call: &OrderCall,
        until: usize,
        issued: &mut Issued,
        hsm_signatures: &mut u64,
    ) -> anyhow::Result<Slice> {
        let first = issued.count;
        let mut rates = vec![0.0; self.ceilings.len()];
        let mut took = 0.0;
        for turn in 1..=TURNS {
            self.ceiling(&mut rates)?;
            // What callers hold is made before the clock starts: it is not part of issuing.
            let last = first + (until - first) * turn / TURNS;
            let orders = world::orders(self.args, issued.count..last)?;
            let before = self.token.signatures();
            let started = SystemClock.monotonic();
            runtime.block_on(issue(self.engine, call, orders, issued))?;
            took += (SystemClock.monotonic() - started).as_secs_f64();
            *hsm_signatures += self.token.signatures() - before;
        }
        let keys = (issued.count - first) * usize::from(self.args.functions);
        Ok(Slice {
            keys_per_s: keys as f64 / took,
            ceiling_per_s: rates.into_iter().fold(0.0, f64::max) / TURNS as f64,
        })
    }

    /// Adds what each number of sessions signs in a second.
    fn ceiling(&mut self, rates: &mut [f64]) -> anyhow::Result<()> {
        let duration = Duration::from_secs_f64(self.args.ceiling_seconds / TURNS as f64);
        for (ceiling, rate) in self.ceilings.iter_mut().zip(rates) {
            *rate += ceiling.run(duration, &|| SystemClock.monotonic())?.per_s();
        }
        Ok(())
    }
}

async fn open(engine: &Engine, bearer: &str) -> anyhow::Result<OrderCall> {
    let caller: BackEnd = engine
        .back_end(bearer, Scope::Issue)
        .map_err(|refusal| anyhow!("{refusal}"))?;
    Ok(engine.open_orders(caller, Some("bench")).await?)
}

/// Issues orders: as many at once as keeps the pipeline full, as a burst would.
async fn issue(
    engine: &Engine,
    call: &OrderCall,
    chunks: Vec<Vec<Order>>,
    into: &mut Issued,
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
            into.count += 1;
            into.latencies.push(took);
            if at % SAMPLE_LEN == 0 {
                into.sample.push(redemption.signed.bundle.id);
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

fn quantile_ms(sorted: &[Duration], part: f64) -> f64 {
    let index = ((sorted.len() as f64 * part) as usize).min(sorted.len().saturating_sub(1));
    sorted
        .get(index)
        .map_or(0.0, |took| took.as_secs_f64() * 1e3)
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
