//! Prepare, activate, retire, revoke, rotate.

use std::thread;

use fob::domain::record::Who;
use fob::domain::{EpochId, EpochState, Operator, Step};
use fob::engine::ceremony::Draft;
use fob::engine::rotate::{Decided, Desk};
use fob::hsm::{KeyRef, Signer};
use fob::store::{Applied, Write};

use super::*;
use crate::support::inside::Inside;
use crate::support::{Phone, Server};

const TWO: [&str; 2] = ["doors.unlock", "engine.start"];

fn bundle(issuer: &Issuer, server: &Server) -> Vec<Vec<u8>> {
    let code_set = server.authorize(&issuer.owner(), "DEMO-0001", &TWO);
    keys(&server.redeem(&code_set, "renter-1", &Phone::new()))
}

fn list(server: &Server) -> Vec<u8> {
    server.get("/v1/trust", &[]).body
}

#[test]
fn prepared_epochs_go_on_without_the_root() {
    let issuer = Issuer::demo();
    let server = issuer.serve();
    let first = bundle(&issuer, &server);
    let old_list = list(&server);
    issuer.fob(&["epoch", "prepare", "--window", WIDE, "--window", WIDE]);
    let prepared = epochs(&issuer, "prepared");
    assert_eq!(prepared.len(), 2);
    assert_eq!(
        signers(&bundle(&issuer, &server)),
        signers(&first),
        "not yet active"
    );
    // The root goes into its vault.
    std::fs::rename(issuer.file("root.pin"), issuer.file("vault.pin")).unwrap();
    let refused = issuer.fob_fails(&["epoch", "prepare"]);
    assert!(refused.contains("root"), "{refused}");
    issuer.fob(&["epoch", "activate", &prepared[1]]);
    assert_eq!(active(&issuer), prepared[1]);
    let second = bundle(&issuer, &server);
    assert_eq!(signers(&second), [prepared[1].clone()].into());
    issuer.fob(&["epoch", "retire", &prepared[1]]);
    assert_eq!(active(&issuer), prepared[0]);
    let third = bundle(&issuer, &server);
    assert_eq!(signers(&third), [prepared[0].clone()].into());
    // Nobody could follow this one.
    let refused = issuer.fob_fails(&["epoch", "retire", &prepared[0]]);
    assert!(refused.contains("none is ready"), "{refused}");
    let refused = issuer.fob_fails(&["epoch", "rotate", "--now"]);
    assert!(refused.contains("root"), "{refused}");
    assert_eq!(active(&issuer), prepared[0]);
    // One list serves all three; the one before it knows only the first.
    let roots = [root(&issuer)];
    for keys in [&first, &second, &third] {
        assert_eq!(believed(&list(&server), &roots, keys), Ok(()));
    }
    assert_eq!(
        believed(&old_list, &roots, &second),
        Err(Refusal::UnknownIssuer)
    );
    let ready = server.get("/readyz", &[]).value();
    assert_eq!(
        (&ready["ready"], &ready["epochs_low"]),
        (&true.into(), &false.into())
    );
    // A restart finds it so.
    server.stop();
    assert_eq!(active(&issuer), prepared[0]);
    let server = issuer.serve();
    assert_eq!(
        signers(&bundle(&issuer, &server)),
        [prepared[0].clone()].into()
    );
}

#[test]
fn an_epoch_activates_within_its_window_only() {
    let issuer = Issuer::demo();
    let before = active(&issuer);
    let later = "2098-01-01T00:00:00Z/2099-01-01T00:00:00Z";
    issuer.fob(&["epoch", "prepare", "--window", later]);
    let prepared = epochs(&issuer, "prepared");
    let refused = issuer.fob_fails(&["epoch", "activate", &prepared[0]]);
    assert!(refused.contains("not open"), "{refused}");
    let refused = issuer.fob_fails(&["epoch", "activate", &before]);
    assert!(refused.contains("only a prepared one"), "{refused}");
    let refused = issuer.fob_fails(&["epoch", "rotate"]);
    assert!(refused.contains("--now"), "{refused}");
    assert_eq!(active(&issuer), before);
    // With the root at hand the whole plan is one command.
    issuer.fob(&["epoch", "rotate", "--now"]);
    assert_ne!(active(&issuer), before);
    assert_eq!(epochs(&issuer, "retired"), [before]);
    assert_eq!(epochs(&issuer, "prepared"), prepared, "it still waits");
}

#[test]
fn a_revoked_epoch_is_believed_no_more_and_another_signs() {
    for served in [true, false] {
        let issuer = Issuer::demo();
        let server = issuer.serve();
        let before = bundle(&issuer, &server);
        let revoked = active(&issuer);
        let server = if served {
            issuer.fob(&["epoch", "revoke", &revoked]);
            server
        } else {
            server.stop();
            issuer.fob(&["epoch", "revoke", &revoked]);
            issuer.serve()
        };
        let roots = [root(&issuer)];
        let after = bundle(&issuer, &server);
        assert_eq!(believed(&list(&server), &roots, &after), Ok(()));
        let refused = believed(&list(&server), &roots, &before);
        assert_eq!(refused, Err(Refusal::UnknownIssuer));
        assert_ne!(active(&issuer), revoked);
        assert_eq!(epochs(&issuer, "revoked"), std::slice::from_ref(&revoked));
        let refused = issuer.fob_fails(&["epoch", "revoke", &revoked]);
        assert!(refused.contains("already"), "{refused}");
        let known = server.get("/.well-known/jwks.json", &[]).text();
        assert!(!known.contains(&revoked), "{known}");
    }
}

fn desk(inside: &Inside) -> Desk<'_> {
    Desk {
        book: inside.engine.book(),
        custody: inside.signer.token(),
        settings: inside.engine.settings(),
        now: now(),
        root_at_hand: true,
    }
}

fn who() -> Who {
    Who {
        operator: "test".into(),
        approval: None,
    }
}

pub(super) fn revoke(epoch: EpochId) -> Step {
    let reissue = false;
    Step::Revoke { epoch, reissue }
}

/// So many epochs whose windows are open.
fn prepare(count: usize) -> Step {
    Step::Prepare {
        count: 1,
        every_s: 1,
        overlap_s: 1,
        from: None,
        windows: vec![(now(), now() + 3_600); count],
    }
}

/// What the root has signed is written, as an operator's ceremony would have it.
pub(super) fn take(inside: &Inside, step: Step) -> Applied {
    let token = inside.signer.token();
    let desk = desk(inside);
    let step = match desk.decide(step, who(), None).unwrap() {
        Decided::Write(step) => step,
        Decided::Draft(draft) => {
            let root = draft.root().unwrap().clone();
            let key = KeyRef {
                id: root.cka_id.0,
                algorithm: root.key.0.algorithm(),
            };
            let signed = draft.sign(token, &key, &root.key.0).unwrap();
            Box::new(desk.conclude(&signed).unwrap())
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    let written = inside.engine.write(vec![Write::Step(step)]);
    runtime.unwrap().block_on(written).unwrap()[0]
}

#[test]
fn a_batch_that_drains_under_a_revoked_epoch_is_not_committed() {
    let inside = Inside::start("epochs-drain", |_| {});
    let code_set = inside.server.authorize(&inside.owner, "DEMO-0001", &TWO);
    let revoked = inside.engine.book().active_epoch().unwrap().id;
    inside.signer.hold();
    let phone = Phone::new();
    let answer = thread::scope(|scope| {
        let redeem = scope.spawn(|| inside.server.redeem(&code_set, "renter-1", &phone));
        wait_until("the batch is being signed", || inside.signer.waiting() == 1);
        assert_eq!(take(&inside, revoke(revoked)), Applied::Done);
        inside.signer.release();
        redeem.join().unwrap()
    });
    // What was signed under the revoked epoch was thrown away, and signed again under the next.
    let next = inside.engine.book().active_epoch().unwrap().id;
    assert_ne!(next, revoked);
    assert_eq!(signers(&keys(&answer)), [next.to_string()].into());
    let again = inside.server.redeem(&code_set, "renter-1", &phone);
    assert_eq!(again.body, answer.body);
}

#[test]
fn what_comes_back_from_the_ceremony_is_checked_as_if_it_came_from_anywhere() {
    let inside = Inside::start("epochs-ceremony", |_| {});
    let token = inside.signer.token();
    let desk = desk(&inside);
    let Decided::Draft(draft) = desk.decide(prepare(2), who(), None).unwrap() else {
        panic!("the root has to sign it");
    };
    let root = draft.root().unwrap().clone();
    let key = KeyRef {
        id: root.cka_id.0,
        algorithm: root.key.0.algorithm(),
    };
    let operator = Operator {
        name: "mallory".into(),
        jwk: Phone::new().jwk(),
    };
    type Bend<'a> = &'a dyn Fn(&mut Draft);
    let bends: [(&str, Bend<'_>); 9] = [
        ("another step", &|draft| draft.record.step = Step::Schedule),
        ("another step that fits less", &|draft| {
            draft.record.step = Step::Rotate { now: true }
        }),
        ("an operator", &|draft| {
            draft.record.after.operators.push(operator.clone())
        }),
        ("an epoch that is active", &|draft| {
            draft.record.after.epochs[0].state = "active".into()
        }),
        ("another number", &|draft| draft.record.number += 1),
        ("another past", &|draft| {
            draft.record.before.trust_version += 1
        }),
        ("a list without one", &|draft| draft.entries.truncate(1)),
        ("a list of a later version", &|draft| {
            draft.record.after.trust_version += 1
        }),
        ("a key that is not the token's", &|draft| {
            draft.record.after.epochs[0].cka_id = draft.record.after.epochs[1].cka_id;
        }),
    ];
    for (what, bend) in bends {
        let mut bent = draft.clone();
        bend(&mut bent);
        let signed = bent.sign(token, &key, &root.key.0).unwrap();
        assert!(desk.conclude(&signed).is_err(), "{what}");
    }
    // Signed by a key that is not the root's.
    let other = token
        .generate_key_pair(root.key.0.algorithm(), "other")
        .unwrap();
    let signed = draft.sign(token, &other.key, &other.public).unwrap();
    assert!(desk.conclude(&signed).is_err());
    let signed = draft.sign(token, &key, &root.key.0).unwrap();
    assert!(desk.conclude(&signed).is_ok());
}

#[test]
fn of_two_steps_decided_at_once_one_is_void() {
    let inside = Inside::start("epochs-race", |_| {});
    let epoch = inside.engine.book().active_epoch().unwrap();
    assert_eq!(take(&inside, prepare(2)), Applied::Done);
    let desk = desk(&inside);
    let prepared = inside.engine.book().epochs();
    let prepared: Vec<_> = prepared
        .iter()
        .filter(|one| one.state == EpochState::Prepared)
        .collect();
    let decide = |id| match desk
        .decide(Step::Activate { epoch: id }, who(), None)
        .unwrap()
    {
        Decided::Write(step) => Write::Step(step),
        Decided::Draft(_) => panic!("no root is needed"),
    };
    let both = vec![decide(prepared[0].id), decide(prepared[1].id)];
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    let applied = runtime
        .unwrap()
        .block_on(inside.engine.write(both))
        .unwrap();
    assert_eq!(applied, [Applied::Done, Applied::Stale]);
    let all = inside.engine.book().epochs();
    let state = |id| all.iter().find(|one| one.id == id).unwrap().state;
    assert_eq!(state(epoch.id), EpochState::Retired);
    assert_eq!(state(prepared[0].id), EpochState::Active);
    assert_eq!(state(prepared[1].id), EpochState::Prepared);
}

#[test]
fn a_key_that_does_not_sign_does_not_become_active() {
    let inside = Inside::start("epochs-trial", |_| {});
    assert_eq!(take(&inside, prepare(1)), Applied::Done);
    let prepared = inside.engine.book().epochs();
    let prepared = prepared
        .iter()
        .find(|one| one.state == EpochState::Prepared)
        .unwrap();
    let key = KeyRef {
        id: prepared.cka_id,
        algorithm: prepared.key.algorithm(),
    };
    let token: &fob::hsm::Token = inside.signer.token();
    assert!(token.sign_all(&key, &[b"it signs"]).is_ok());
    token.destroy_key(&key).unwrap();
    let desk = desk(&inside);
    assert!(
        desk.decide(Step::Activate { epoch: prepared.id }, who(), None)
            .is_err()
    );
    let still = inside.engine.book().epochs();
    assert!(
        still
            .iter()
            .any(|one| one.id == prepared.id && one.state == EpochState::Prepared)
    );
}
