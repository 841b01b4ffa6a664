//! Guessing and stealing: a wrong guess says nothing, and a code set alone opens nothing.

use std::sync::Arc;
use std::time::Duration;

use fob::clock::{Clock, SystemClock};
use fob::domain::{
    Author, Authorization, AuthorizationId, AuthorizationState, TokenId, VehicleId, Window,
};
use fob::store::{Applied, NewAuthorization, Write};
use fob_verify::code_set::CodeSet;
use serde_json::{Value, json};

use super::rental::{Rental, text};
use crate::support::inside::Inside;
use crate::support::{Phone, now, redemption, time};

/// Guesses in all, where nothing else is said: enough to compare what is answered. With
/// `FOB_GUESSES=10000000` they are enough to compare how long it takes, too.
const GUESSES: u64 = 30_000;

/// How far from a coin's toss a single guess' time may tell two kinds apart. Compared from this many
/// guesses on: of three million of each kind, chance tells 0.0005 once in a hundred runs. Where a
/// guess takes no longer than its look-up, it is 0.28 and more.
const TELLS_MAX: f64 = 0.004;
const COMPARED_FROM: u64 = 1_000_000;

/// Times are kept by steps of so many nanoseconds, up to so many steps.
const STEP_NS: u128 = 10;
const STEPS: usize = 10_000;

/// Ids of each kind: many, or where a single one lies in memory would be what is measured.
const IDS: u64 = 4096;

/// Authorizations that are written at once.
const WRITTEN: usize = 512;

/// The same number for the same `n`, and no pattern (SplitMix64's last step).
fn scattered(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

/// An id as the server makes them, the same for the same `n`.
fn id(n: u64) -> [u8; 16] {
    let halves = u128::from(scattered(2 * n)) << 64 | u128::from(scattered(2 * n + 1));
    let mut id = halves.to_be_bytes();
    (id[6], id[8]) = (id[6] & 0x0f | 0x70, id[8] & 0x3f | 0x80);
    id
}

/// An authorization of the demo fleet, open until `until`.
fn authorization(inside: &Inside, id: [u8; 16], until: u64) -> Arc<Authorization> {
    let fleet = inside.engine.book().fleet_named("demo").unwrap();
    Arc::new(Authorization {
        id: AuthorizationId(id),
        fleet: fleet.fleet.id,
        version: 1,
        vehicle: VehicleId::parse("DEMO-0001").unwrap(),
        functions: [1, 3].into(),
        window: Window {
            not_before: until - 7200,
            not_after: until,
        },
        redeem_by: until,
        restrictions: None,
        pin: false,
        signing: None,
        state: AuthorizationState::Open,
        redeemed: false,
        created_at: until - 7200,
        author: Author::Token(TokenId([0; 16])),
    })
}

/// A code set of this id with a secret that changes with `n`, and never is the right one.
fn guess(id: [u8; 16], n: u64) -> String {
    let mut secret = [0xa5; 16];
    secret[..8].copy_from_slice(&n.to_be_bytes());
    CodeSet::new(id, secret, &[1, 3]).unwrap().encode()
}

/// How often a value of `a` is above one of `b`, equal ones counted half.
fn above(a: &[u64], b: &[u64]) -> f64 {
    let (mut below, mut wins) = (0.0, 0.0);
    for (a, b) in a.iter().zip(b) {
        let (a, b) = (*a as f64, *b as f64);
        wins += a * (below + b / 2.0);
        below += b;
    }
    let all = |counts: &[u64]| counts.iter().sum::<u64>() as f64;
    wins / (all(a) * all(b))
}

/// Nanoseconds that half of them take less than.
fn median(counts: &[u64]) -> u128 {
    let half = counts.iter().sum::<u64>() / 2;
    let mut below = 0;
    let at = counts.iter().position(|count| {
        below += count;
        below > half
    });
    at.unwrap() as u128 * STEP_NS
}

/// The average of nanoseconds, without the slowest hundredth: those were interrupted.
fn mean(counts: &[u64]) -> f64 {
    let mut left = counts.iter().sum::<u64>() / 100 * 99;
    let (all, mut sum) = (left, 0.0);
    for (at, count) in counts.iter().enumerate() {
        let taken = left.min(*count);
        sum += taken as f64 * at as f64 * STEP_NS as f64;
        left -= taken;
    }
    sum / all as f64
}

#[test]
fn wrong_guesses_are_told_apart_neither_by_text_nor_by_time() {
    let inside = Inside::start("guessing", |_| {});
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let make = |kind: u64, until: u64| -> Vec<_> {
        let ids = (0..IDS).map(|n| id(kind * IDS + n));
        ids.map(|id| authorization(&inside, id, until)).collect()
    };
    let (open, expired) = (make(1, now() + 3600), make(2, now() - 60));
    for some in open.chunks(WRITTEN).chain(expired.chunks(WRITTEN)) {
        let new = |authorization: &Arc<Authorization>| {
            Write::Authorize(Box::new(NewAuthorization {
                authorization: Arc::clone(authorization),
                request: None,
                command: None,
                answers: None,
            }))
        };
        let applied = runtime.block_on(inside.engine.write(some.iter().map(new).collect()));
        assert!(applied.unwrap().iter().all(|one| *one == Applied::Done));
    }
    let preview = |text: &str| runtime.block_on(inside.engine.preview(text));
    // The right ones are known: one would pass, and one is expired to whoever holds it.
    let right = |authorization| inside.engine.code_set(authorization).unwrap();
    assert!(preview(&right(&open[0])).is_ok());
    let told = preview(&right(&expired[0])).unwrap_err();
    assert_eq!(told.code.code(), "code_set_expired");
    let guesses = std::env::var("FOB_GUESSES").map_or(GUESSES, |it| it.parse().unwrap());
    let clock = SystemClock;
    let mut times = vec![vec![0_u64; STEPS]; 3];
    let expected = preview(&guess(id(0), 0)).unwrap_err();
    assert_eq!(expected.code.code(), "code_set_unknown");
    for n in 0..guesses {
        // Kinds and ids come without a pattern that a processor could learn.
        let (drawn, which) = (scattered(n) % 3, scattered(!n) % IDS);
        let text = guess(id(drawn * IDS + which), n);
        let began = clock.monotonic();
        let told = preview(&text);
        let took: Duration = clock.monotonic() - began;
        assert_eq!(told.unwrap_err(), expected);
        let step = (took.as_nanos() / STEP_NS) as usize;
        times[drawn as usize][step.min(STEPS - 1)] += 1;
    }
    let pairs = [(0, 1), (0, 2), (1, 2)];
    let tells = pairs.map(|(a, b)| (above(&times[a], &times[b]) - 0.5).abs());
    let medians: Vec<_> = times.iter().map(|it| median(it)).collect();
    let means: Vec<_> = times.iter().map(|it| mean(it)).collect();
    println!(
        "{guesses} guesses; unknown, wrong, wrong of an expired one: {medians:?} ns at the median"
    );
    println!("without the slowest hundredth {means:.1?} ns on average");
    println!("a single one tells apart, beyond chance: {tells:.4?}");
    if guesses >= COMPARED_FROM {
        assert!(tells.iter().all(|tell| *tell < TELLS_MAX), "{tells:.4?}");
    }
}

#[test]
fn a_redemption_says_the_same_of_every_wrong_guess() {
    let rental = Rental::new();
    let made = rental.authorize("CAR", &["doors.unlock"]);
    let whole = CodeSet::decode(text(&made["code_set"])).unwrap();
    let asked = json!({ "vehicle": "CAR", "functions": ["doors.unlock"],
        "not_before": time(now() - 10), "not_after": time(now() + 1) });
    let brief = rental.send("POST", "/v1/authorizations", &asked).value();
    let brief = CodeSet::decode(text(&brief["code_set"])).unwrap();
    std::thread::sleep(Duration::from_millis(2100));
    let secret = |of: &CodeSet, secret: [u8; 16]| {
        let guess = CodeSet::new(*of.id(), secret, of.codes()).unwrap();
        guess.encode()
    };
    let unknown = CodeSet::new([0x3c; 16], *whole.secret(), whole.codes()).unwrap();
    let other_codes = CodeSet::new(*whole.id(), *whole.secret(), &[1, 2]).unwrap();
    let answers = [
        unknown.encode(),
        secret(&whole, [7; 16]),
        secret(&brief, [7; 16]),
        other_codes.encode(),
    ]
    .map(|guess| {
        let body = redemption(&rental.server.url, &guess, "anna", &rental.phone);
        rental.server.json("POST", "/v1/redemptions", &body)
    });
    for answer in &answers {
        answer.refused(404, "code_set_unknown");
        assert_eq!(answer.body, answers[0].body);
    }
}

#[test]
fn a_stolen_code_set_alone_yields_nothing() {
    let rental = Rental::new();
    rental.put("/v1/identities/ben", &json!({}));
    let thief = Phone::new();
    let make = |extra: Value| {
        let mut asked = json!({ "vehicle": "CAR", "functions": ["doors.unlock"],
            "not_before": time(now()), "not_after": time(now() + 3600) });
        for (name, value) in extra.as_object().unwrap() {
            asked[name] = value.clone();
        }
        let made = rental.send("POST", "/v1/authorizations", &asked);
        assert_eq!(made.status, 201, "{}", made.text());
        made.value()
    };
    let steal = |made: &Value, identity: &str, pin: Option<&str>| {
        let code_set = text(&made["code_set"]);
        let mut body = redemption(&rental.server.url, code_set, identity, &thief);
        if let Some(pin) = pin {
            body["pin"] = json!(pin);
        }
        rental.server.json("POST", "/v1/redemptions", &body)
    };
    // Anna has a terminal, Ben has none.
    let open = make(json!({}));
    steal(&open, "anna", None).refused(403, "terminal_mismatch");
    steal(&open, "ben", None).refused(403, "terminal_mismatch");
    steal(&open, "thief", None).refused(404, "unknown_identity");
    let bound = make(json!({ "recipient": { "terminal": "annas" } }));
    steal(&bound, "anna", None).refused(403, "terminal_mismatch");
    steal(&bound, "ben", None).refused(403, "terminal_mismatch");
    let meant = make(json!({ "recipient": { "identity": "anna" } }));
    steal(&meant, "ben", None).refused(403, "recipient_mismatch");
    let with_pin = make(json!({ "pin": true }));
    steal(&with_pin, "anna", Some("000000")).refused(403, "terminal_mismatch");
    steal(&with_pin, "ben", None).refused(403, "pin_required");
    let right = text(&with_pin["pin"]);
    let wrong = |n: u32| format!("{:06}", (right.parse::<u32>().unwrap() + n) % 1_000_000);
    for n in 1..=5 {
        steal(&with_pin, "ben", Some(&wrong(n))).refused(403, "pin_wrong");
    }
    steal(&with_pin, "ben", Some(right)).refused(403, "pin_locked");
    // And whoever they are for still gets what nobody has locked.
    for made in [&open, &bound, &meant] {
        let code_set = text(&made["code_set"]);
        let redeemed = rental.server.redeem(code_set, "anna", &rental.phone);
        assert_eq!(redeemed.status, 201, "{}", redeemed.text());
    }
}
