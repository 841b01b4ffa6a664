//! Commits whose answer is lost: read back before anything is answered, in pairs of *it took
//! place* and *it did not*.

use std::thread;
use std::time::Duration;

use fob::domain::Authorization;
use fob::store::postgres::{Postgres, PostgresConfig};
use fob::store::{Applied, BundleKey, Store, StoreError, Write};

use super::sample::*;
use crate::support::cut::{Next, Wire};
use crate::support::database::{Schema, Server};

/// A store over a wire, with the world and open authorizations 1 to 9 in it.
fn wired() -> (Schema, Wire, Postgres) {
    wired_to(Schema::new())
}

fn wired_to(schema: Schema) -> (Schema, Wire, Postgres) {
    let straight = Postgres::create(PostgresConfig::new(&schema.url())).unwrap();
    done(&straight, &world());
    done(
        &straight,
        &(1..10)
            .map(|n| authorize(authorization(n)))
            .collect::<Vec<_>>(),
    );
    let wire = Wire::new(schema.folder());
    let store = Postgres::open(PostgresConfig::new(&schema.url_over(&wire.folder()))).unwrap();
    // Statements are prepared; nothing but rounds goes over the wire now.
    done(&store, &[redeem(&authorization(9))]);
    (schema, wire, store)
}

fn number(schema: &Schema, sql: &str) -> String {
    schema.execute(sql).unwrap()
}

fn is_redeemed(store: &impl Store, authorization: &Authorization) -> bool {
    let found = store.bundle(BundleKey::Authorization(authorization.id));
    found.unwrap() == Some(signed_bundle(authorization))
}

/// The same writes twice over give other answers, so an answer shows how often they took place.
fn counted(number: u8) -> Vec<Write> {
    let id = authorization(number).id;
    vec![Write::PinAttempt(id, 1), redeem(&authorization(number))]
}

#[test]
fn a_lost_answer_is_read_back() {
    let (schema, wire, store) = wired();
    for (n, next) in [(1, Next::LoseAnswer), (2, Next::LoseQuestion)] {
        wire.next(next);
        let answers = commit(&store, &counted(n));
        assert_eq!(
            answers,
            [Applied::PinAttempts(1), Applied::Done],
            "{next:?}"
        );
        assert!(is_redeemed(&store, &authorization(n)), "{next:?}");
        let attempts = format!(
            "SELECT pin_attempts FROM authorizations WHERE id = '{}'",
            authorization(n).id
        );
        assert_eq!(number(&schema, &attempts), "1", "{next:?}: once");
        let stale = commit(&store, &[redeem(&authorization(n))]);
        assert_eq!(stale, [Applied::Stale], "{next:?}");
    }
}

#[test]
fn what_cannot_be_read_back_is_unknown_until_it_can() {
    for (next, took_place) in [(Next::LoseAnswer, true), (Next::LoseQuestion, false)] {
        let (_schema, wire, store) = wired();
        wire.next(next);
        wire.open(false);
        let error = store.commit(&counted(1)).unwrap_err();
        assert!(error.may_have_happened() && error.retryable(), "{error}");
        let refused = |result: Result<(), StoreError>| {
            assert!(matches!(result, Err(StoreError::Failed(_))), "{result:?}");
        };
        let by = BundleKey::Authorization(authorization(1).id);
        refused(store.reopen());
        wire.open(true);
        // Nothing is believed before it has been read back.
        refused(store.bundle(by).map(drop));
        refused(store.commit(&counted(1)).map(drop));
        store.reopen().unwrap();
        assert_eq!(store.bundle(by).unwrap().is_some(), took_place, "{next:?}");
        let expected = match took_place {
            true => [Applied::PinAttempts(2), Applied::Stale],
            false => [Applied::PinAttempts(1), Applied::Done],
        };
        assert_eq!(commit(&store, &counted(1)), expected);
    }
}

#[test]
fn a_transaction_that_is_still_under_way_is_ended_before_it_is_tried_again() {
    // Its own server: nobody else waits there.
    let server = Server::start();
    let (schema, wire, store) = wired_to(server.schema());
    // Whoever writes a bundle waits for this, with everything else it has locked.
    let held = schema.hold("LOCK TABLE bundles IN SHARE MODE");
    wire.next(Next::Leave);
    let answers = thread::scope(|scope| {
        let committing = scope.spawn(|| commit(&store, &counted(1)));
        // Two of this process wait: the one that was left, and the one that waits for it.
        let waiting = "SELECT count(*) FROM pg_stat_activity
                       WHERE wait_event_type = 'Lock' AND application_name = 'fob'
                       AND query NOT LIKE '%pg_stat_activity%'";
        while number(&schema, waiting).parse::<u32>().unwrap() < 2 {
            assert!(!committing.is_finished());
            thread::sleep(Duration::from_millis(5));
        }
        drop(held);
        committing.join().unwrap()
    });
    assert_eq!(answers, [Applied::PinAttempts(1), Applied::Done]);
    assert!(is_redeemed(&store, &authorization(1)));
    let copies = format!(
        "SELECT count(*) FROM bundles WHERE authorization_id = '{}'",
        authorization(1).id
    );
    assert_eq!(number(&schema, &copies), "1");
}

#[test]
fn idle_connections_that_were_cut_cost_no_answer() {
    // Its own server: nobody else is cut off.
    let server = Server::start();
    let (schema, _wire, store) = wired_to(server.schema());
    let by = BundleKey::Authorization(authorization(9).id);
    assert!(store.bundle(by).unwrap().is_some());
    for n in 1..4 {
        schema.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
             WHERE application_name = 'fob' AND pid <> pg_backend_pid()",
        );
        assert!(store.bundle(by).unwrap().is_some());
        done(&store, &[redeem(&authorization(n))]);
    }
}
