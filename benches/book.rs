//! The book at scale: what a code set weighs in memory, and what a look-up costs at that size,
//! beside a bare papaya map and beside a writer. Prints JSON; asserts nothing.
//!
//! `FOB_BOOK=10000000 cargo bench --bench book`. Without `FOB_BOOK` it is a million, so that a plain
//! `cargo bench` stays bearable. `FOB_BOOK_RECIPIENT=1` binds every code set to an identity of the
//! registry, which is what an authorization with restrictions weighs.
//!
//! Rates wander; therefore all kinds of look-up take turns within one run, in slices, and ratios
//! are medians over the slices. A look-up's time is the time its thread was on a core: what others
//! take of a shared machine is not counted, what they do to its caches is.
#![allow(
    missing_docs,
    unreachable_pub,
    reason = "a benchmark is read by its figures"
)]
#![allow(
    clippy::unwrap_used,
    reason = "a benchmark that cannot go on should stop"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fob::clock::{Clock as _, SystemClock};
use fob::domain::function::BUILT_IN;
use fob::domain::id::uuid_v7;
use fob::domain::{
    Author, Authorization, AuthorizationId, AuthorizationState, FleetId, FunctionCode, IdentityId,
    Recipient, Restrictions, TokenId, VehicleId, Window,
};
use fob::engine::Book;
use fob::store::{Applied, NewAuthorization, Row, Write};
use serde_json::json;

#[path = "setup/redemption.rs"]
mod redemption;

/// The server's allocator, or the figures would be another program's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const VEHICLES: u64 = 10_000;
/// Look-ups in one slice, and slices of each kind.
const LOOKUPS: usize = 500_000;
const SLICES: usize = 11;
/// What a writer does in a second where it keeps a pace: several times what a store commits.
const PACE_PER_S: u64 = 50_000;

/// Makes authorizations that share their names with a registry, as those the store loads do.
struct Maker {
    vehicles: Vec<VehicleId>,
    identities: Vec<IdentityId>,
    functions: Vec<FunctionCode>,
    now: u64,
}

impl Maker {
    fn new(recipients: bool) -> Self {
        let vehicle = |n| VehicleId::parse(&format!("WVWZZZ1JZ{n:08}")).unwrap();
        let identity = |n| IdentityId::parse(&format!("renter-{n}")).unwrap();
        Self {
            vehicles: (0..VEHICLES).map(vehicle).collect(),
            identities: (0..if recipients { VEHICLES } else { 0 })
                .map(identity)
                .collect(),
            functions: BUILT_IN.iter().map(|(code, _)| *code).collect(),
            now: 1_790_000_000,
        }
    }

    fn make(&self, n: u64) -> Authorization {
        let at = (n % VEHICLES) as usize;
        let restrictions = Restrictions {
            recipient: Recipient {
                identity: self.identities.get(at).cloned(),
                terminal: None,
                key: None,
            },
            ..Restrictions::default()
        };
        Authorization {
            id: id(n),
            fleet: FleetId([1; 16]),
            version: 1,
            vehicle: self.vehicles[at].clone(),
            functions: self.functions.as_slice().into(),
            window: Window {
                not_before: self.now,
                not_after: self.now + 86_400,
            },
            redeem_by: self.now + 80_000,
            restrictions: restrictions.boxed(),
            pin: false,
            signing: None,
            state: AuthorizationState::Open,
            redeemed: false,
            created_at: self.now,
            author: Author::Token(TokenId([9; 16])),
        }
    }
}

/// Ids as the server makes them: a time, and bits without a pattern.
fn id(n: u64) -> AuthorizationId {
    let mut random = [0; 10];
    random[..8].copy_from_slice(&scattered(n).to_be_bytes());
    random[8..].copy_from_slice(&n.to_be_bytes()[6..]);
    AuthorizationId(uuid_v7(1_790_000_000_000 + n / 64, random))
}

/// SplitMix64's last step: the same number for the same `n`, and no pattern.
fn scattered(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

/// Bytes of this process in memory, after whatever can be given back had time to be.
fn resident() -> u64 {
    std::thread::sleep(Duration::from_secs(1));
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// A thread that writes while it is told to: one insertion and one redemption by turns.
struct Writer<'a> {
    book: &'a Book,
    maker: &'a Maker,
    size: u64,
    /// Writes a second; 0 is none, `u64::MAX` as fast as it goes.
    pace: AtomicU64,
    done: AtomicU64,
}

const STOP: u64 = u64::MAX - 1;

impl Writer<'_> {
    fn run(&self) {
        let mut written = 0_u64;
        loop {
            let (pace, began, before) = (
                self.pace.load(Ordering::Relaxed),
                SystemClock.monotonic(),
                written,
            );
            match pace {
                STOP => return,
                0 => std::thread::sleep(Duration::from_millis(1)),
                _ => {
                    while written - before < 50 {
                        self.write(written);
                        written += 1;
                    }
                    let due = match pace {
                        u64::MAX => Duration::ZERO,
                        pace => Duration::from_nanos(50_000_000_000 / pace),
                    };
                    std::thread::sleep(due.saturating_sub(SystemClock.monotonic() - began));
                }
            }
            self.done.store(written, Ordering::Relaxed);
        }
    }

    fn write(&self, n: u64) {
        let write = if n.is_multiple_of(2) {
            let authorization = Arc::new(self.maker.make(self.size + n / 2));
            Write::Authorize(Box::new(NewAuthorization {
                authorization,
                request: None,
                command: None,
                answers: None,
            }))
        } else {
            redemption::redeem(id(scattered(n) % self.size))
        };
        self.book.apply(&write, Applied::Done);
    }
}

/// Nanoseconds this thread has been on a core (the first number of its `schedstat`).
fn on_core_ns() -> u64 {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    schedstat.split(' ').next().unwrap().parse().unwrap()
}

/// Nanoseconds of one look-up.
fn time<T>(ids: &[AuthorizationId], look_up: impl Fn(&AuthorizationId) -> T) -> f64 {
    let began = on_core_ns();
    for id in ids {
        black_box(look_up(id));
    }
    (on_core_ns() - began) as f64 / ids.len() as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// One slice of each kind, in nanoseconds.
struct Slice {
    bare: f64,
    bare_arc: f64,
    kept: f64,
    quiet: f64,
    paced: f64,
    busy: f64,
}

fn slices(
    writer: &Writer<'_>,
    bare: &papaya::HashMap<AuthorizationId, u64>,
    bare_arc: &papaya::HashMap<AuthorizationId, Arc<u64>>,
) -> Vec<Slice> {
    let now = writer.maker.now;
    let look_up = |ids: &[AuthorizationId], pace| {
        writer.pace.store(pace, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(20));
        let took = time(ids, |id| {
            writer.book.look_up(*id, |held| held.check_open(now))
        });
        writer.pace.store(0, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(20));
        took
    };
    let one = |n| {
        let ids: Vec<_> = (0..LOOKUPS)
            .map(|at| id(scattered((n * LOOKUPS + at) as u64) % writer.size))
            .collect();
        Slice {
            bare: time(&ids, |id| bare.pin().get(id).copied()),
            bare_arc: time(&ids, |id| bare_arc.pin().get(id).cloned()),
            kept: time(&ids, |id| writer.book.authorization(*id)),
            quiet: look_up(&ids, 0),
            paced: look_up(&ids, PACE_PER_S),
            busy: look_up(&ids, u64::MAX),
        }
    };
    (0..SLICES).map(one).collect()
}

fn fill<V>(size: u64, value: impl Fn(u64) -> V) -> papaya::HashMap<AuthorizationId, V> {
    let map = papaya::HashMap::new();
    for n in 0..size {
        map.pin().insert(id(n), value(n));
    }
    map
}

fn main() {
    let asked = |name| std::env::var(name).ok();
    let size: u64 = asked("FOB_BOOK").map_or(1_000_000, |size| size.parse().unwrap());
    let maker = Maker::new(asked("FOB_BOOK_RECIPIENT").is_some());
    let book = Book::default();
    let before = resident();
    for n in 0..size {
        book.take(Row::Authorization(maker.make(n)));
    }
    let each = |now: u64| (now.saturating_sub(before)) as f64 / size as f64;
    let open = each(resident());
    for n in 0..size {
        book.apply(&redemption::redeem(id(n)), Applied::Done);
    }
    let redeemed = each(resident());
    let began = SystemClock.monotonic();
    book.apply(&Write::Purge(1, 1), Applied::Purged(1));
    let forget = SystemClock.monotonic() - began;
    let (bare, bare_arc) = (fill(size, |n| n), fill(size, Arc::new));
    let writer = Writer {
        book: &book,
        maker: &maker,
        size,
        pace: AtomicU64::new(0),
        done: AtomicU64::new(0),
    };
    let slices = std::thread::scope(|scope| {
        scope.spawn(|| writer.run());
        let slices = slices(&writer, &bare, &bare_arc);
        writer.pace.store(STOP, Ordering::Relaxed);
        slices
    });
    let ns = |of: fn(&Slice) -> f64| median(slices.iter().map(of).collect());
    let figures = json!({
        "code_sets": size,
        "restricted": !maker.identities.is_empty(),
        "bytes_each": { "open": open, "redeemed": redeemed },
        "ns": {
            "look_up": ns(|s| s.quiet),
            "kept_copy": ns(|s| s.kept),
            "bare_get": ns(|s| s.bare),
            "bare_get_arc_cloned": ns(|s| s.bare_arc),
            "look_up_beside_paced_writer": ns(|s| s.paced),
            "look_up_beside_full_speed_writer": ns(|s| s.busy),
        },
        "ratios": {
            "look_up_to_bare_get": ns(|s| s.quiet / s.bare),
            "look_up_to_bare_get_arc_cloned": ns(|s| s.quiet / s.bare_arc),
            "kept_copy_to_bare_get": ns(|s| s.kept / s.bare),
            "beside_paced_writer": ns(|s| s.paced / s.quiet),
            "beside_full_speed_writer": ns(|s| s.busy / s.quiet),
        },
        "paced_writes_per_s": PACE_PER_S,
        "seconds_to_look_for_what_was_purged": forget.as_secs_f64(),
        "writes": writer.done.load(Ordering::Relaxed),
    });
    println!("{figures:#}");
}
