//! What one revocation costs, with a thousand keys issued and with a million: the call of the
//! engine, from asking to the freshly signed list. Prints JSON; asserts nothing.
//!
//! `cargo bench --bench revoke`; `FOB_KEYS` is the larger number of keys and `FOB_REVOKES` how many
//! revocations of each. Both engines take turns, so whatever slows the machine slows both. Between
//! two turns it waits a second: a list that changes again and again waits for the clock.
#![allow(
    missing_docs,
    unreachable_pub,
    reason = "a benchmark is read by its figures"
)]
#![allow(
    clippy::unwrap_used,
    reason = "a benchmark that cannot go on should stop"
)]
#![allow(dead_code, reason = "the setup serves other benchmarks too")]

#[path = "setup/mod.rs"]
mod setup;

use std::sync::Arc;
use std::time::Duration;

use fob::clock::{Clock as _, SystemClock};
use fob::domain::change::Action;
use fob::domain::{ShardId, Token, TokenId};
use fob::engine::Engine;
use fob::engine::amend::Caller;
use fob::engine::authenticate::BackEnd;
use serde_json::json;

use setup::Issuer;

/// Keys of one bundle.
const KEYS: u64 = 8;

/// Bundles issued at once.
const CHUNK: u64 = 2_000;

const SMALL: u64 = 1_000;

fn main() {
    let asked = |name, or: u64| std::env::var(name).map_or(or, |text| text.parse().unwrap());
    let (large, revokes) = (asked("FOB_KEYS", 1_000_000), asked("FOB_REVOKES", 20));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let issuer = Issuer::new();
    let engines = [SMALL, large].map(|keys| {
        let engine = issuer.engine();
        let bundles = keys / KEYS;
        for from in (0..bundles).step_by(CHUNK as usize) {
            let code_sets = issuer.authorize(&engine, from..bundles.min(from + CHUNK));
            runtime.block_on(issuer.redeem(&engine, &code_sets));
        }
        (engine, bundles)
    });
    let mut took = [Vec::new(), Vec::new()];
    // The first of each pays for what is made once.
    for n in 0..=revokes {
        for (at, (engine, bundles)) in engines.iter().enumerate() {
            // Spread over all that was issued.
            let bundle = n * bundles / (revokes + 1);
            let time = runtime.block_on(revoke(engine, bundle));
            if n > 0 {
                took[at].push(time);
            }
        }
        std::thread::sleep(Duration::from_millis(1_100));
    }
    let figures = took.map(|mut took| {
        took.sort_unstable();
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        (ms(took[took.len() / 2]), ms(took[took.len() - 1]))
    });
    let first = ShardId { tag: 1, number: 0 };
    let list = |at: usize| runtime.block_on(engines[at].0.status_list(first)).unwrap();
    println!(
        "{:#}",
        json!({
            "keys": [SMALL, large],
            "revocations": revokes,
            "p50_ms": figures.map(|it| it.0),
            "worst_ms": figures.map(|it| it.1),
            "ratio": figures[1].0 / figures[0].0,
            "first_list_bytes": [list(0).unwrap().bytes.len(), list(1).unwrap().bytes.len()],
        })
    );
}

async fn revoke(engine: &Engine, bundle: u64) -> Duration {
    let caller = BackEnd {
        fleet: engine.book().fleet_named("bench").unwrap(),
        token: Arc::new(Token {
            id: TokenId([1; 16]),
            fleet: setup::FLEET,
            hash: [0; 32],
            scopes: std::iter::empty().collect(),
            created_at: 0,
            expires_at: None,
            revoked_at: None,
            used_at: None,
        }),
        why: None,
    };
    let id = setup::authorization_id(bundle);
    let began = SystemClock.monotonic();
    let done = engine.act(Caller::BackEnd(&caller, None), id, Action::Cancel);
    let done = done.await.unwrap();
    let took = SystemClock.monotonic().saturating_sub(began);
    assert_eq!(done.outcome.revoked.len() as u64, KEYS);
    took
}
