//! Faults in pairs, failed and not applied, failed but applied: whatever breaks, a code set is
//! redeemed once, an answered bundle stays, and the service comes back by itself.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use fob::domain::{Hold, IdentityId, RulesText, Status};
use fob::engine::registry::Entry;
use fob_verify::key::SignedKey;
use serde_json::json;

use crate::support::inside::{Fault, Inside, sibling};
use crate::support::{Answer, Phone, authorization, redemption};

const TWO: [&str; 2] = ["doors.unlock", "engine.start"];

/// One redemption, to be sent as often as needed.
struct Redemption {
    code_set: String,
    phone: Phone,
}

impl Redemption {
    fn new(inside: &Inside) -> Self {
        let code_set = inside.server.authorize(&inside.owner, "DEMO-0001", &TWO);
        Self {
            code_set,
            phone: Phone::new(),
        }
    }

    fn send(&self, inside: &Inside) -> Answer {
        inside
            .server
            .redeem(&self.code_set, "renter-1", &self.phone)
    }

    /// After whatever happened: one complete bundle, the same to everybody who may have it, and
    /// none to anybody else.
    fn check(&self, inside: &Inside) -> Answer {
        let answer = self.send(inside);
        assert_eq!(answer.status, 201, "{}", answer.text());
        assert_eq!(answer.value()["keys"].as_array().unwrap().len(), TWO.len());
        assert_eq!(self.send(inside).body, answer.body);
        let rival = inside
            .server
            .redeem(&self.code_set, "renter-2", &Phone::new());
        rival.refused(409, "code_set_redeemed");
        assert_eq!(inside.flaws(), []);
        assert!(
            inside.engine.readiness().ready(),
            "{:?}",
            inside.engine.readiness()
        );
        answer
    }
}

#[track_caller]
fn unavailable(answer: &Answer, code: &str) {
    answer.refused(503, code);
    let after: u32 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=5).contains(&after));
    assert_eq!(answer.value()["retry_after_s"], after);
}

#[test]
fn an_hsm_that_fails_costs_a_503_and_nothing_else() {
    let inside = Inside::start("faults-hsm-fails", |_| {});
    let redemption = Redemption::new(&inside);
    inside.signer.fail(u64::MAX);
    unavailable(&redemption.send(&inside), "hsm_unavailable");
    let ready = inside.server.get("/readyz", &[]);
    assert_eq!((ready.status, &ready.value()["hsm"]), (503, &json!(false)));
    // The door refuses; nothing of it gets as far as the HSM.
    unavailable(&redemption.send(&inside), "hsm_unavailable");
    assert_eq!(
        (inside.engine.in_flight(), inside.engine.queue_len()),
        (0, 0)
    );
    // Without any request it comes back by being asked.
    inside.signer.fail(0);
    until(|| inside.engine.readiness().ready());
    assert_eq!(inside.server.get("/readyz", &[]).status, 200);
    redemption.check(&inside);
}

#[test]
fn an_hsm_that_fails_for_a_moment_costs_nothing() {
    let inside = Inside::start("faults-hsm-falters", |_| {});
    for failures in 1..4 {
        let redemption = Redemption::new(&inside);
        inside.signer.fail(failures);
        let answer = redemption.send(&inside);
        assert_eq!(answer.status, 201, "{failures}: {}", answer.text());
        assert_eq!(redemption.check(&inside).body, answer.body);
    }
}

#[test]
fn what_is_signed_beside_the_batches_is_asked_of_another_token_once() {
    let (token, epoch) = sibling("faults-beside-other");
    let other = epoch.id;
    let inside = Inside::with_siblings("faults-beside", vec![(token, epoch)], |_| {});
    let made = inside.server.command(
        &inside
            .owner
            .command(&inside.server.url, &authorization("DEMO-0001", &TWO)),
    );
    let made = made.value();
    let (code_set, phone) = (made["code_set"].as_str().unwrap(), Phone::new());
    let redeem = || inside.server.redeem(code_set, "renter-1", &phone);
    assert_eq!(redeem().status, 201);
    // Nobody has asked the other one yet, so the first one is the less busy.
    inside.signer.fail(1);
    let path = format!(
        "/v1/authorizations/{}",
        made["authorization"].as_str().unwrap()
    );
    let patch = json!({ "version": 1, "max_uses": { "doors.unlock": 3 } });
    let change = inside
        .owner
        .command_to(&inside.server.url, "PATCH", &path, &patch);
    let headers = [("content-type", "application/jose")];
    let changed = inside
        .server
        .send("PATCH", &path, &headers, change.as_bytes());
    assert_eq!(changed.status, 200, "{}", changed.text());
    let again = redeem().value();
    for key in again["keys"].as_array().unwrap() {
        let bytes = BASE64_URL_SAFE_NO_PAD
            .decode(key["key"].as_str().unwrap())
            .unwrap();
        assert_eq!(SignedKey::decode(&bytes).unwrap().kid(), &other.0);
    }
}

#[test]
fn signatures_that_do_not_verify_are_never_given_out() {
    let inside = Inside::start("faults-hsm-lies", |settings| settings.verify_one_in = 1);
    let redemption = Redemption::new(&inside);
    inside.signer.lie(true);
    for _ in 0..3 {
        unavailable(&redemption.send(&inside), "hsm_unavailable");
    }
    inside.signer.lie(false);
    until(|| inside.engine.readiness().ready());
    redemption.check(&inside);
}

#[test]
fn a_failed_commit_is_tried_again_and_the_caller_notices_nothing() {
    for (name, fault) in [
        ("faults-failed", Fault::Failed),
        ("faults-not-applied", Fault::UnknownNotApplied),
        ("faults-applied", Fault::UnknownApplied),
    ] {
        let inside = Inside::start(name, |_| {});
        let redemption = Redemption::new(&inside);
        inside.store.fail(&[fault]);
        let first = redemption.send(&inside);
        assert_eq!(first.status, 201, "{fault:?}: {}", first.text());
        assert!(inside.store.faults_are_over());
        assert_eq!(redemption.check(&inside).body, first.body, "{fault:?}");
    }
}

#[test]
fn pairs_of_faults_in_every_order_end_in_one_bundle() {
    let inside = Inside::start("faults-pairs", |_| {});
    let all = [
        Fault::Failed,
        Fault::UnknownNotApplied,
        Fault::UnknownApplied,
    ];
    for one in all {
        for other in all {
            let redemption = Redemption::new(&inside);
            inside.store.fail(&[one, other]);
            let first = redemption.send(&inside);
            assert_eq!(first.status, 201, "{one:?}, {other:?}: {}", first.text());
            // A transaction that happened and was read back leaves the second fault to the next.
            while !inside.store.faults_are_over() {
                until(|| inside.engine.readiness().ready());
                inside.server.command(
                    &inside
                        .owner
                        .command(&inside.server.url, &authorization("DEMO-0002", &TWO)),
                );
            }
            until(|| inside.engine.readiness().ready());
            assert_eq!(
                redemption.check(&inside).body,
                first.body,
                "{one:?}, {other:?}"
            );
        }
    }
}

#[test]
fn a_store_that_never_commits_says_so_and_lets_go() {
    let inside = Inside::start("faults-never-commits", |_| {});
    let redemption = Redemption::new(&inside);
    inside.store.fail(&[Fault::Failed; 3]);
    unavailable(&redemption.send(&inside), "store_unavailable");
    redemption.check(&inside);
}

#[test]
fn while_the_store_is_down_the_door_says_so_and_it_comes_back_by_itself() {
    let inside = Inside::start("faults-store-down", |settings| {
        settings.answer_within = Duration::from_millis(150);
    });
    let redemption = Redemption::new(&inside);
    inside.store.fail(&[Fault::UnknownApplied]);
    inside.store.fail_to_reopen(5);
    unavailable(&redemption.send(&inside), "store_unavailable");
    let ready = inside.server.get("/readyz", &[]);
    assert_eq!(
        (ready.status, &ready.value()["store"]),
        (503, &json!(false))
    );
    let command = inside
        .owner
        .command(&inside.server.url, &authorization("DEMO-0002", &TWO));
    unavailable(&inside.server.command(&command), "store_unavailable");
    until(|| inside.engine.readiness().ready());
    redemption.check(&inside);
    assert_eq!(inside.server.command(&command).status, 201);
}

#[test]
fn an_authorization_whose_commit_is_unknown_is_made_once() {
    for (name, fault) in [
        ("faults-auth-not", Fault::UnknownNotApplied),
        ("faults-auth-applied", Fault::UnknownApplied),
    ] {
        let inside = Inside::start(name, |_| {});
        let command = inside
            .owner
            .command(&inside.server.url, &authorization("DEMO-0001", &TWO));
        inside.store.fail(&[fault]);
        unavailable(&inside.server.command(&command), "store_unavailable");
        until(|| inside.engine.readiness().ready());
        let first = inside.server.command(&command);
        assert_eq!(first.status, 201, "{fault:?}: {}", first.text());
        assert_eq!(
            inside.server.command(&command).body,
            first.body,
            "{fault:?}"
        );
        assert_eq!(inside.engine.book().authorizations_len(), 1, "{fault:?}");
    }
}

#[test]
fn a_full_queue_refuses_at_the_door_and_the_same_request_succeeds_later() {
    let inside = Inside::start("faults-full-queue", |settings| {
        settings.queue_len_max = 1;
        settings.batch_bundles_max = 1;
    });
    let redemptions: Vec<_> = (0..12).map(|_| Redemption::new(&inside)).collect();
    inside.signer.hold();
    let answers: Vec<_> = thread::scope(|scope| {
        let sent: Vec<_> = redemptions
            .iter()
            .map(|one| scope.spawn(|| one.send(&inside)))
            .collect();
        // One is being signed, one is prepared, one waits to be handed on, one waits in the queue;
        // the rest are refused at once.
        until(|| sent.iter().filter(|one| one.is_finished()).count() >= redemptions.len() - 4);
        inside.signer.release();
        sent.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let busy = answers.iter().filter(|answer| answer.status == 503);
    let count = busy.inspect(|answer| unavailable(answer, "busy")).count();
    assert!(
        (1..redemptions.len()).contains(&count),
        "{count} of {} were busy",
        answers.len()
    );
    for redemption in &redemptions {
        redemption.check(&inside);
    }
}

#[test]
fn while_those_let_in_wait_too_long_no_more_are_let_in() {
    let inside = Inside::start("faults-slow-queue", |settings| {
        settings.queue_wait_max = Duration::from_millis(1);
        settings.batch_bundles_max = 1;
    });
    let redemptions: Vec<_> = (0..80).map(|_| Redemption::new(&inside)).collect();
    inside.signer.hold();
    let answers: Vec<_> = thread::scope(|scope| {
        let sent: Vec<_> = redemptions
            .iter()
            .map(|one| scope.spawn(|| one.send(&inside)))
            .collect();
        // Three are with the stages, 65 may wait, and the others are told at once.
        until(|| sent.iter().filter(|one| one.is_finished()).count() >= 8);
        inside.signer.release();
        sent.into_iter().map(|one| one.join().unwrap()).collect()
    });
    for (redemption, answer) in redemptions.iter().zip(&answers) {
        if answer.status != 201 {
            unavailable(answer, "busy");
            assert!(
                answer.text().contains("others wait longer"),
                "{}",
                answer.text()
            );
        }
        redemption.check(&inside);
    }
    let busy = answers.iter().filter(|answer| answer.status != 201).count();
    assert!((1..=15).contains(&busy), "{busy} were told to come back");
}

#[test]
fn a_late_answer_is_a_503_and_the_work_is_not_lost() {
    let inside = Inside::start("faults-late", |settings| {
        settings.answer_within = Duration::from_millis(100);
    });
    let redemption = Redemption::new(&inside);
    inside.signer.hold();
    unavailable(&redemption.send(&inside), "busy");
    inside.signer.release();
    until(|| redemption.send(&inside).status == 201);
    redemption.check(&inside);
}

#[test]
fn what_is_withdrawn_while_it_is_signed_is_not_committed() {
    let inside = Inside::start("faults-withdrawn", |_| {});
    for (status, hold, code) in [
        (None, Some(Some(Hold::Payment)), "identity_held"),
        (Some(Status::Suspended), Some(None), "identity_suspended"),
    ] {
        let redemption = Redemption::new(&inside);
        inside.signer.hold();
        let answer = thread::scope(|scope| {
            let sent = scope.spawn(|| redemption.send(&inside));
            until(|| inside.engine.in_flight() == 1);
            // Beside the pipeline, the way a second node would.
            put(&inside, "renter-1", status, hold);
            inside.signer.release();
            sent.join().unwrap()
        });
        answer.refused(403, code);
        let other = inside
            .server
            .redeem(&redemption.code_set, "renter-2", &redemption.phone);
        assert_eq!(
            other.status,
            201,
            "the code set was released: {}",
            other.text()
        );
        put(&inside, "renter-1", Some(Status::Active), Some(None));
    }
}

/// Suspends or holds a renter while redemptions are held up.
fn put(inside: &Inside, renter: &str, status: Option<Status>, hold: Option<Option<Hold>>) {
    let entry = Entry::Identity {
        id: IdentityId::parse(renter).unwrap(),
        status,
        hold,
        proved: None,
        licences: Vec::new(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let caller = inside.back_end();
    runtime.block_on(inside.engine.put(&caller, entry)).unwrap();
}

#[test]
fn what_is_let_in_under_rules_before_the_newest_is_let_in_anew() {
    let inside = Inside::start("faults-rules", |_| {});
    let redemption = Redemption::new(&inside);
    inside.signer.hold();
    let answer = thread::scope(|scope| {
        let sent = scope.spawn(|| redemption.send(&inside));
        until(|| inside.engine.in_flight() == 1);
        let asked = r#"{"licences":[{"functions":["engine.start"],"classes":["D"]}]}"#;
        rule(&inside, 0, asked);
        inside.signer.release();
        sent.join().unwrap()
    });
    answer.refused(403, "licence_missing");
    rule(&inside, 1, "{}");
    redemption.check(&inside);
}

/// Sets the demo fleet's rules, beside the pipeline.
fn rule(inside: &Inside, version: u32, text: &str) {
    let text = RulesText::read(text).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (engine, caller) = (&inside.engine, inside.back_end());
    let set = runtime.block_on(engine.set_rules(&caller, version, &text, None));
    assert_eq!(set.unwrap(), version + 1);
}

#[test]
fn draining_refuses_what_is_new_and_finishes_what_is_under_way() {
    let inside = Inside::start("faults-draining", |_| {});
    let (first, second) = (Redemption::new(&inside), Redemption::new(&inside));
    inside.signer.hold();
    let answer = thread::scope(|scope| {
        let sent = scope.spawn(|| first.send(&inside));
        until(|| inside.engine.in_flight() == 1);
        inside.engine.drain();
        unavailable(&second.send(&inside), "shutting_down");
        let command = inside
            .owner
            .command(&inside.server.url, &authorization("DEMO-0001", &TWO));
        unavailable(&inside.server.command(&command), "shutting_down");
        inside.signer.release();
        sent.join().unwrap()
    });
    assert_eq!(answer.status, 201, "{}", answer.text());
}

#[test]
fn one_code_set_takes_a_bounded_number_of_waiters() {
    let inside = Inside::start("faults-waiters", |settings| settings.waiters_max = 4);
    let wanted = Redemption::new(&inside);
    inside.signer.hold();
    let body = redemption(
        &inside.server.url,
        &wanted.code_set,
        "renter-1",
        &wanted.phone,
    );
    let answers: Vec<_> = thread::scope(|scope| {
        let send = || {
            inside
                .server
                .client()
                .json("POST", "/v1/redemptions", &[], &body)
                .unwrap()
        };
        let sent: Vec<_> = (0..10).map(|_| scope.spawn(send)).collect();
        until(|| sent.iter().filter(|one| one.is_finished()).count() == 6);
        inside.signer.release();
        sent.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(
        answers.iter().filter(|answer| answer.status == 201).count(),
        4
    );
    answers
        .iter()
        .filter(|answer| answer.status != 201)
        .for_each(|answer| unavailable(answer, "busy"));
    wanted.check(&inside);
}

/// Waits for something that must happen soon.
#[track_caller]
fn until(happened: impl Fn() -> bool) {
    for _ in 0..1000 {
        if happened() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("it did not happen within ten seconds");
}

#[test]
fn the_right_pin_sent_again_while_the_hsm_is_away_locks_nothing() {
    let inside = Inside::start("faults-pin", |_| {});
    let mut command = authorization("DEMO-0001", &TWO);
    command["pin"] = json!(true);
    let made = inside
        .server
        .command(&inside.owner.command(&inside.server.url, &command));
    let (made, phone) = (made.value(), Phone::new());
    let code_set = made["code_set"].as_str().unwrap();
    let send = |pin: &str| {
        let mut body = redemption(&inside.server.url, code_set, "renter-1", &phone);
        body["pin"] = json!(pin);
        inside.server.json("POST", "/v1/redemptions", &body)
    };
    let right = made["pin"].as_str().unwrap();
    let wrong = if right == "000000" {
        "000001"
    } else {
        "000000"
    };
    // More often than a PIN may be wrong.
    for _ in 0..6 {
        send(wrong).refused(403, "pin_wrong");
        inside.signer.fail(u64::MAX);
        unavailable(&send(right), "hsm_unavailable");
        inside.signer.fail(0);
        until(|| inside.engine.readiness().ready());
    }
    assert_eq!(send(right).status, 201);
}

#[test]
fn shutting_down_answers_everything_that_was_let_in() {
    for round in 0..6 {
        let inside = Inside::start(&format!("faults-shutdown-{round}"), |settings| {
            settings.batch_bundles_max = 1;
        });
        let redemptions: Vec<_> = (0..6).map(|_| Redemption::new(&inside)).collect();
        inside.signer.hold();
        thread::scope(|scope| {
            let sent: Vec<_> = redemptions
                .iter()
                .map(|one| scope.spawn(|| one.send(&inside)))
                .collect();
            until(|| inside.engine.in_flight() == redemptions.len());
            inside.signer.release();
            inside.engine.shutdown();
            for one in sent {
                let answer = one.join().unwrap();
                assert_eq!(answer.status, 201, "round {round}: {}", answer.text());
            }
        });
    }
}
