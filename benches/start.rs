//! How long `fob serve` takes from its call to its address, with so many open code sets in a store
//! on disk. Prints JSON; asserts nothing.
//!
//! `cargo bench --bench start`; `FOB_OPEN` is how many code sets (a million where it is not said)
//! and `FOB_STARTS` how many starts (5). The store is filled through its own writes, the server is
//! the binary itself, and its files are as warm in the system's cache as writing them left them.
#![allow(
    missing_docs,
    unreachable_pub,
    reason = "a benchmark is read by its figures"
)]
#![allow(
    clippy::unwrap_used,
    reason = "a benchmark that cannot go on should stop"
)]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use fob::clock::{Clock as _, SystemClock};
use fob::domain::function::BUILT_IN;
use fob::domain::{Author, Authorization, AuthorizationState, Fleet, TokenId, VehicleId, Window};
use fob::engine::Book;
use fob::engine::ids::Ids;
use fob::store::sqlite::{Sqlite, SqliteConfig};
use fob::store::{Applied, NewAuthorization, Store as _, Write};
use serde_json::json;

const FOB: &str = env!("CARGO_BIN_EXE_fob");
/// Authorizations in one transaction.
const CHUNK: u64 = 20_000;

fn main() {
    let asked = |name, or: u64| std::env::var(name).map_or(or, |text| text.parse().unwrap());
    let (open, starts) = (asked("FOB_OPEN", 1_000_000), asked("FOB_STARTS", 5));
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("issuer");
    let made = Command::new(FOB)
        .args(["init", "--demo", "--json", "--dir"])
        .arg(&dir)
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(made.success(), "fob init");
    fill(&dir, open);
    let started: Vec<_> = (0..starts).map(|_| start(&dir)).collect();
    let figures = json!({
        "open_code_sets": open,
        "store_bytes": std::fs::metadata(dir.join("fob.db")).unwrap().len(),
        "seconds_to_address": started.iter().map(|(seconds, _)| seconds).collect::<Vec<_>>(),
        "resident_bytes": started.iter().map(|(_, bytes)| bytes).collect::<Vec<_>>(),
    });
    println!("{figures:#}");
}

/// Fills the store of the demo issuer, its fleet's vehicles by turns.
fn fill(dir: &Path, open: u64) {
    let store = Sqlite::open(&dir.join("fob.db"), SqliteConfig::default()).unwrap();
    let book = Book::default();
    book.load(&store).unwrap();
    let fleet = &book.fleet_named("demo").unwrap().fleet;
    let ids = Ids::new();
    for from in (0..open).step_by(CHUNK as usize) {
        let writes: Vec<_> = (from..open.min(from + CHUNK))
            .map(|n| authorize(&ids, fleet, n))
            .collect();
        let applied = store.commit(&writes).unwrap();
        assert!(applied.iter().all(|one| *one == Applied::Done));
    }
}

fn authorize(ids: &Ids, fleet: &Fleet, n: u64) -> Write {
    let unix_ms = SystemClock.unix_ms();
    let now = unix_ms / 1000;
    let authorization = Arc::new(Authorization {
        id: ids.authorization(unix_ms),
        fleet: fleet.id,
        version: 1,
        vehicle: VehicleId::parse(&format!("DEMO-{:04}", 1 + n % 100)).unwrap(),
        functions: BUILT_IN.iter().map(|(code, _)| *code).collect(),
        window: Window {
            not_before: now,
            not_after: now + 86_400,
        },
        redeem_by: now + 86_400,
        restrictions: None,
        pin: false,
        signing: None,
        state: AuthorizationState::Open,
        redeemed: false,
        created_at: now,
        author: Author::Token(TokenId([9; 16])),
    });
    Write::Authorize(Box::new(NewAuthorization {
        authorization,
        request: None,
        command: None,
        answers: None,
    }))
}

/// Starts the server, waits for its address, and ends it. Seconds, and bytes of it in memory.
fn start(dir: &Path) -> (f64, u64) {
    let began = SystemClock.monotonic();
    let mut server = Command::new(FOB)
        .args(["serve", "--json", "--listen", "127.0.0.1:0", "--dir"])
        .arg(dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut out = BufReader::new(server.stdout.take().unwrap());
    out.read_line(&mut line).unwrap();
    let seconds = (SystemClock.monotonic() - began).as_secs_f64();
    assert!(line.contains("listening"), "fob serve: {line}");
    let statm = std::fs::read_to_string(format!("/proc/{}/statm", server.id())).unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    let ended = Command::new("kill").arg(server.id().to_string()).status();
    assert!(ended.unwrap().success(), "SIGTERM");
    server.wait().unwrap();
    (seconds, pages * 4096)
}
