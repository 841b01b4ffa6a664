//! When status lists are signed: by themselves before they are stale, and as soon as an HSM signs
//! again that did not when something was revoked.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::thread;
use std::time::Duration;

use fob::domain::change::Action;
use fob::domain::{AuthorizationId, AuthorizationState, RefusalCode, ShardId};
use fob::engine::Failure;
use fob::engine::amend::Caller;
use fob::store::{BundleKey, Row, Store as _};
use fob_verify::status::{self, Room, Status};
use fob_verify::{RustCrypto, trust};

use crate::support::Phone;
use crate::support::inside::Inside;

/// The first list of the demo fleet.
fn shard(inside: &Inside) -> ShardId {
    ShardId {
        tag: inside.back_end().fleet.fleet.tag,
        number: 0,
    }
}

/// When its list was signed last, as the store has it: nobody asks for a list by that.
fn signed_at(inside: &Inside) -> u64 {
    let (shard, mut at) = (shard(inside), 0);
    let mut look = |row| match row {
        Row::Listed(listed) if listed.shard == shard => at = listed.issued_at,
        _ => {}
    };
    inside.store.load(&mut look).unwrap();
    at
}

/// Waits until the list was signed after `before`; when. What takes longer than a minute will not
/// happen.
#[track_caller]
fn signed_after(inside: &Inside, before: u64) -> u64 {
    for _ in 0..3_000 {
        match signed_at(inside) {
            at if at > before => return at,
            _ => thread::sleep(Duration::from_millis(20)),
        }
    }
    panic!("never signed after {before}");
}

/// One key, issued.
fn issue(inside: &Inside) -> AuthorizationId {
    let (server, phone) = (&inside.server, Phone::new());
    let code_set = server.authorize(&inside.owner, "DEMO-0001", &["doors.unlock"]);
    let bundle = server.redeem(&code_set, "renter-1", &phone);
    assert_eq!(bundle.status, 201, "{}", bundle.text());
    let bundle = bundle.value();
    AuthorizationId::parse(bundle["authorization"].as_str().unwrap()).unwrap()
}

async fn cancel(inside: &Inside, id: AuthorizationId) -> Result<(), RefusalCode> {
    let back_end = inside.back_end();
    let done = inside
        .engine
        .act(Caller::BackEnd(&back_end, None), id, Action::Cancel);
    match done.await {
        Ok(_) => Ok(()),
        Err(Failure::Refused(refusal)) => Err(refusal.code),
        Err(Failure::Fault(fault)) => panic!("{fault}"),
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

#[test]
fn a_list_is_signed_anew_before_it_is_stale_though_nobody_asks() {
    let inside = Inside::start("lists-schedule", |settings| settings.list_ttl_s = 2);
    let id = issue(&inside);
    runtime().block_on(cancel(&inside, id)).unwrap();
    let first = signed_at(&inside);
    assert!(first > 0);
    let second = signed_after(&inside, first);
    signed_after(&inside, second);
}

#[test]
fn a_revocation_that_no_list_says_yet_is_durable_and_the_list_follows_by_itself() {
    let inside = Inside::start("lists-follow", |_| {});
    let id = issue(&inside);
    let before = signed_at(&inside);
    inside.signer.fail(u64::MAX);
    let refused = runtime().block_on(cancel(&inside, id));
    assert_eq!(refused, Err(RefusalCode::HsmUnavailable));
    let stands = inside.engine.book().authorization(id).unwrap();
    assert_eq!(stands.state, AuthorizationState::Cancelled);
    assert_eq!(signed_at(&inside), before);
    inside.signer.fail(0);
    signed_after(&inside, before);
    // The same call again finds it done.
    runtime().block_on(cancel(&inside, id)).unwrap();
    let list = runtime().block_on(inside.engine.status_list(shard(&inside)));
    let list = list.unwrap().unwrap();
    let held = inside.engine.book().trust().unwrap();
    let root = inside.engine.book().standing().root.clone().unwrap();
    let trust = trust::verify(&held.bytes, &[root.key.0], 0, &RustCrypto).unwrap();
    let list = status::verify(&list.bytes, &trust, &RustCrypto).unwrap();
    let issued = inside.store.bundle(BundleKey::Authorization(id)).unwrap();
    let index = issued.unwrap().bundle.keys[0].status_index;
    let status = list.status(index, &mut Box::new(Room::new()));
    assert_eq!(status, Ok(Status::Revoked));
}
