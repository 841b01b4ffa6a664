//! At most once, and never lost: races, retries and crashes over HTTP.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Issuer, Phone, Server, redemption};

fn all_functions() -> Vec<&'static str> {
    vec![
        "doors.unlock",
        "doors.lock",
        "engine.start",
        "trunk.open",
        "windows.control",
        "climate.control",
        "locate.signal",
        "charge_port.open",
    ]
}

#[test]
fn a_thousand_identical_redemptions_from_fifty_connections_yield_one_bundle() {
    let issuer = Issuer::demo();
    let server = issuer.serve();
    let code_set = server.authorize(&issuer.owner(), "DEMO-0001", &all_functions());
    let phone = Phone::new();
    let body = redemption(&server.url, &code_set, "renter-1", &phone);
    let start = Barrier::new(50);
    let bodies = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|| {
                let client = server.client();
                start.wait();
                for _ in 0..20 {
                    let send = || client.json("POST", "/v1/redemptions", &[], &body).unwrap();
                    // Where the machine has much else to do some are told to come again.
                    let mut answers = std::iter::repeat_with(send).take(10_000);
                    let answer = answers.find(|one| one.status != 503);
                    let answer = answer.unwrap();
                    assert_eq!(answer.status, 201, "{}", answer.text());
                    bodies.lock().unwrap().push(answer.body);
                }
            });
        }
    });
    let bodies = bodies.into_inner().unwrap();
    assert_eq!(bodies.len(), 1000);
    assert!(
        bodies.iter().all(|body| *body == bodies[0]),
        "all answers are the same bytes"
    );
    let bundle: Value = serde_json::from_slice(&bodies[0]).unwrap();
    assert_eq!(
        bundle["keys"].as_array().unwrap().len(),
        all_functions().len()
    );
}

#[test]
fn two_borrowers_racing_yield_one_bundle_and_one_refusal() {
    let issuer = Issuer::demo();
    let server = issuer.serve();
    let owner = issuer.owner();
    for round in 0..25 {
        let code_set = server.authorize(&owner, "DEMO-0002", &["doors.unlock", "engine.start"]);
        let start = Barrier::new(2);
        let race = |renter: &str| {
            let body = redemption(&server.url, &code_set, renter, &Phone::new());
            let client = server.client();
            start.wait();
            client.json("POST", "/v1/redemptions", &[], &body).unwrap()
        };
        let (one, other) = thread::scope(|scope| {
            let one = scope.spawn(|| race("renter-1"));
            let other = scope.spawn(|| race("renter-2"));
            (one.join().unwrap(), other.join().unwrap())
        });
        let (won, lost) = if one.status == 201 {
            (one, other)
        } else {
            (other, one)
        };
        assert_eq!(won.status, 201, "round {round}: {}", won.text());
        lost.refused(409, "code_set_redeemed");
    }
}

#[test]
fn the_same_borrower_with_another_phone_is_a_rival() {
    let issuer = Issuer::demo();
    let server = issuer.serve();
    let code_set = server.authorize(&issuer.owner(), "DEMO-0003", &["doors.unlock"]);
    assert_eq!(
        server.redeem(&code_set, "renter-1", &Phone::new()).status,
        201
    );
    server
        .redeem(&code_set, "renter-1", &Phone::new())
        .refused(409, "code_set_redeemed");
}

/// What was sent, and what was answered before the crash.
struct Attempt {
    code_set: String,
    phone: Phone,
    renter: String,
    answered: Option<Vec<u8>>,
}

/// Redeems many code sets at once until the server is gone.
fn load_until_killed(server: Server, attempts: Vec<Attempt>, kill_after: Duration) -> Vec<Attempt> {
    let next = AtomicUsize::new(0);
    let gone = AtomicBool::new(false);
    let attempts: Vec<_> = attempts.into_iter().map(Mutex::new).collect();
    thread::scope(|scope| {
        for _ in 0..8 {
            let client = server.client();
            let (next, gone, attempts) = (&next, &gone, &attempts);
            scope.spawn(move || {
                while !gone.load(Ordering::Relaxed) {
                    let Some(attempt) = attempts.get(next.fetch_add(1, Ordering::Relaxed)) else {
                        return;
                    };
                    let mut attempt = attempt.lock().unwrap();
                    let body = redemption(
                        &client.url,
                        &attempt.code_set,
                        &attempt.renter,
                        &attempt.phone,
                    );
                    match client.json("POST", "/v1/redemptions", &[], &body) {
                        Some(answer) if answer.status == 201 => {
                            attempt.answered = Some(answer.body)
                        }
                        Some(answer) => panic!("{}", answer.text()),
                        None => return,
                    }
                }
            });
        }
        thread::sleep(kill_after);
        server.kill();
        gone.store(true, Ordering::Relaxed);
    });
    attempts
        .into_iter()
        .map(|attempt| attempt.into_inner().unwrap())
        .collect()
}

/// After a crash: every answered bundle is there byte for byte, and every other code set is either
/// open or redeemed with a complete bundle. Returns how many had been answered.
fn check(server: &Server, attempts: &[Attempt]) -> usize {
    for attempt in attempts {
        // A code set that was redeemed without an answer is answered now; one that is open is
        // redeemed now. Nothing else may come back.
        let answer = server.redeem(&attempt.code_set, &attempt.renter, &attempt.phone);
        assert_eq!(answer.status, 201, "{}", answer.text());
        if let Some(before) = &attempt.answered {
            assert_eq!(&answer.body, before, "an answered bundle has changed");
        }
        let bundle = answer.value();
        assert_eq!(
            bundle["keys"].as_array().unwrap().len(),
            2,
            "a bundle is complete"
        );
        // Once only: a rival is refused.
        server
            .redeem(&attempt.code_set, &attempt.renter, &Phone::new())
            .refused(409, "code_set_redeemed");
    }
    attempts
        .iter()
        .filter(|attempt| attempt.answered.is_some())
        .count()
}

/// How often the server is killed: at least twenty times, more where `FOB_CRASHES` says so.
fn crashes() -> u64 {
    std::env::var("FOB_CRASHES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(20)
}

#[test]
fn kill_nine_during_load_loses_nothing_and_issues_nothing_twice() {
    let issuer = Issuer::demo();
    let owner = issuer.owner();
    // Addresses change with every start; keys are signed with the one of their issue.
    let mut answered = 0;
    let mut seen = BTreeMap::new();
    for crash in 0..crashes() {
        let server = issuer.serve();
        let attempts: Vec<_> = (0..60)
            .map(|n| Attempt {
                code_set: server.authorize(&owner, "DEMO-0004", &["doors.unlock", "trunk.open"]),
                phone: Phone::new(),
                renter: format!("renter-{}", n % 100 + 1),
                answered: None,
            })
            .collect();
        // Sooner and later within the load, so that crashes meet every stage.
        let kill_after = Duration::from_millis(2 + crash * 3);
        let attempts = load_until_killed(server, attempts, kill_after);
        // As the crash has left it.
        crate::audit::sound(&issuer);
        let server = issuer.serve();
        answered += check(&server, &attempts);
        for attempt in &attempts {
            let bundle = server
                .redeem(&attempt.code_set, &attempt.renter, &attempt.phone)
                .value();
            for key in bundle["keys"].as_array().unwrap() {
                let id = key["id"].as_str().unwrap().to_owned();
                assert!(seen.insert(id, crash).is_none(), "a key id was used twice");
            }
        }
        assert!(server.stop(), "an orderly end");
    }
    let report = crate::audit::sound(&issuer);
    let made = &report["epochs"]
        .as_object()
        .unwrap()
        .values()
        .next()
        .unwrap()["made"];
    assert_eq!(made["killed"], crashes(), "{made}");
    let number = |name: &str| made[name].as_u64().unwrap();
    assert_eq!(number("recorded"), report["signatures"].as_u64().unwrap());
    // What was signed and not committed when it was killed is what was on its way then.
    assert!(number("unsettled") <= crashes() * 60 * 2, "{made}");
    assert!(
        answered > 0,
        "some redemptions were answered before their crash"
    );
}

#[test]
fn an_orderly_end_finishes_what_was_let_in() {
    let issuer = Issuer::demo();
    let server = issuer.serve();
    let owner = issuer.owner();
    let attempts: Vec<_> = (0..40)
        .map(|_| {
            (
                server.authorize(&owner, "DEMO-0005", &["doors.unlock"]),
                Phone::new(),
            )
        })
        .collect();
    let outcomes = Arc::new(Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for chunk in attempts.chunks(10) {
            let (client, outcomes) = (server.client(), Arc::clone(&outcomes));
            scope.spawn(move || {
                for (code_set, phone) in chunk {
                    let body = redemption(&client.url, code_set, "renter-1", phone);
                    let answer = client.json("POST", "/v1/redemptions", &[], &body);
                    outcomes.lock().unwrap().push((code_set.clone(), answer));
                }
            });
        }
        thread::sleep(Duration::from_millis(5));
        assert!(server.stop(), "an orderly end");
    });
    let server = issuer.serve();
    for (code_set, answer) in outcomes.lock().unwrap().iter() {
        let phone = &attempts
            .iter()
            .find(|(known, _)| known == code_set)
            .unwrap()
            .1;
        match answer {
            Some(answer) if answer.status == 201 => {
                assert_eq!(server.redeem(code_set, "renter-1", phone).body, answer.body);
            }
            // Refused or not heard at all: it is redeemed now.
            Some(answer) => answer.refused(503, "shutting_down"),
            None => assert_eq!(server.redeem(code_set, "renter-1", phone).status, 201),
        }
    }
}
