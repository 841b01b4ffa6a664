//! Several processes over one database: whatever they race for, one of them gets it.

use std::sync::{Arc, Barrier};
use std::thread;

use fob::domain::change::{Followed, Registered};
use fob::domain::{AuthorizationId, BundleId, Hold, Identity, Status};
use fob::store::postgres::Postgres;
use fob::store::{Applied, BundleKey, Redemption, Store, Suspension, Write};

use super::conformance::Place;
use super::conformance::rulings::{freeze, release};
use super::sample::*;
use crate::support::database::Schema;

const ROUNDS: u8 = 200;

/// What each of the two stores answers when both are asked at once.
fn at_once(stores: &[Postgres; 2], writes: [Vec<Write>; 2]) -> [Vec<Applied>; 2] {
    let barrier = Barrier::new(2);
    thread::scope(|scope| {
        let asked = [0, 1].map(|n| {
            let (store, writes, barrier) = (&stores[n], &writes[n], &barrier);
            scope.spawn(move || {
                barrier.wait();
                commit(store, writes)
            })
        });
        asked.map(|one| one.join().unwrap())
    })
}

/// The same from each node, but for the bundle's id.
fn from_each(redemption: &Redemption) -> [(BundleId, Vec<Write>); 2] {
    [0xa0, 0xb0].map(|node| {
        let mut own = redemption.clone();
        own.signed.bundle.id.0[2] = node;
        if own.order.is_some() {
            own.signed.bundle.authorization = AuthorizationId(own.signed.bundle.id.0);
        }
        (own.signed.bundle.id, vec![Write::Redeem(Arc::new(own))])
    })
}

fn two() -> (Schema, [Postgres; 2]) {
    let schema = <Schema as Place>::new();
    let stores = [schema.open(), schema.open()];
    done(&stores[0], &world());
    (schema, stores)
}

#[test]
fn a_code_set_is_redeemed_by_one_of_two_nodes() {
    let (_schema, stores) = two();
    let mut won = [0, 0];
    for n in 0..ROUNDS {
        let authorization = authorization(n);
        done(&stores[0], &[authorize(authorization.clone())]);
        let [first, second] = from_each(&redemption(&authorization));
        let ids = [first.0, second.0];
        let answers = at_once(&stores, [first.1, second.1]);
        let winner = match [answers[0][0], answers[1][0]] {
            [Applied::Done, Applied::Stale] => 0,
            [Applied::Stale, Applied::Done] => 1,
            other => panic!("{other:?}"),
        };
        won[winner] += 1;
        for store in &stores {
            let found = store.bundle(BundleKey::Authorization(authorization.id));
            assert_eq!(found.unwrap().unwrap().bundle.id, ids[winner]);
            let lost = store.bundle(BundleKey::Id(ids[1 - winner]));
            assert_eq!(lost.unwrap(), None);
        }
    }
    assert!(won.iter().all(|won| *won > 0), "there was a race: {won:?}");
}

#[test]
fn an_order_is_issued_by_one_of_two_nodes_and_the_other_says_which() {
    let (_schema, stores) = two();
    for n in 0..ROUNDS {
        let [first, second] = from_each(&order(n, order_request(1, n, 1)));
        let ids = [first.0, second.0].map(|id| AuthorizationId(id.0));
        let answers = at_once(&stores, [first.1, second.1]);
        match [answers[0][0], answers[1][0]] {
            [Applied::Done, Applied::Repeated(id)] => assert_eq!(id, ids[0]),
            [Applied::Repeated(id), Applied::Done] => assert_eq!(id, ids[1]),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(
        stores[0].answered(&[1; 32]).unwrap().len(),
        usize::from(ROUNDS)
    );
}

#[test]
fn a_large_call_is_known_on_every_node() {
    let (_schema, stores) = two();
    let orders = |of: usize, numbers: &mut dyn Iterator<Item = u8>| -> Vec<Write> {
        let order = |n| from_each(&order(n, order_request(1, n, 1)))[of].1.clone();
        numbers.flat_map(order).collect()
    };
    let first = commit(&stores[0], &orders(0, &mut (0..150)));
    assert_eq!(first, [Applied::Done; 150]);
    // What it has not seen, and what came since.
    for (node, new) in [(1, 150..170), (0, 170..200)] {
        let known = usize::from(new.start);
        let answers = commit(&stores[node], &orders(node, &mut (0..new.end)));
        let repeated = |answer: &Applied| matches!(answer, Applied::Repeated(_));
        assert!(answers[..known].iter().all(repeated), "{answers:?}");
        assert!(answers[known..].iter().all(|it| *it == Applied::Done));
    }
    let answered = stores[1].answered(&[1; 32]).unwrap();
    let references: Vec<u8> = answered.iter().map(|order| order.reference[0]).collect();
    assert_eq!(references, (0..200).collect::<Vec<_>>());
}

#[test]
fn what_one_node_has_purged_another_does_not_rely_on() {
    let (_schema, stores) = two();
    let order_of = |node: usize, n: u8| from_each(&order(n, order_request(1, n, 1)))[node].clone();
    for n in [1, 2] {
        done(&stores[0], &order_of(0, n).1);
    }
    let over = order(1, None).signed.bundle.window.not_after + 1;
    commit(&stores[1], &[Write::Purge(over, 99)]);
    assert_eq!(stores[1].answered(&[1; 32]), Ok(vec![]));
    for n in [3, 4, 5] {
        done(&stores[1], &order_of(1, n).1);
    }
    // As many rows as the first node remembers, but others.
    let repeated = Applied::Repeated(AuthorizationId(order_of(1, 3).0.0));
    assert_eq!(commit(&stores[0], &order_of(0, 3).1), [repeated]);
    assert_eq!(stores[0].answered(&[1; 32]).unwrap().len(), 3);
    // Some that are gone altogether.
    commit(&stores[1], &[Write::Purge(over, 99)]);
    done(&stores[0], &order_of(0, 3).1);
    assert_eq!(stores[1].answered(&[1; 32]).unwrap().len(), 1);
}

#[test]
fn who_is_suspended_on_one_node_gets_nothing_from_another() {
    let (_schema, stores) = two();
    let ben = |status| {
        vec![Write::Identity(Identity {
            status,
            ..identity("ben")
        })]
    };
    for n in 0..ROUNDS {
        done(&stores[0], &[authorize(authorization(n))]);
        let redeem = vec![redeem(&authorization(n))];
        let answers = at_once(&stores, [ben(Status::Suspended), redeem.clone()]);
        assert_eq!(answers[0], [Applied::Done]);
        // Whichever came first: from now on there is nothing to be had.
        assert_eq!(commit(&stores[1], &redeem), [Applied::Stale]);
        let by = BundleKey::Authorization(authorization(n).id);
        let found = stores[0].bundle(by).unwrap().is_some();
        assert_eq!(answers[1] == [Applied::Done], found);
        done(&stores[0], &ben(Status::Active));
    }
}

#[test]
fn transactions_that_lock_each_other_out_are_tried_again() {
    let (_schema, stores) = two();
    let all: Vec<_> = (0..ROUNDS).map(|n| authorize(authorization(n))).collect();
    done(&stores[0], &all);
    // The same rows in opposite orders, and registry writes that hold a fleet alone.
    let writes = |numbers: &mut dyn Iterator<Item = u8>| {
        let mut writes = vec![Write::Vehicle(vehicle("V-2"))];
        writes.extend(numbers.map(|n| Write::PinAttempt(authorization_id(n), 1)));
        writes
    };
    for _ in 0..2 {
        at_once(
            &stores,
            [writes(&mut (0..ROUNDS)), writes(&mut (0..ROUNDS).rev())],
        );
    }
    let next = commit(&stores[1], &[Write::PinAttempt(authorization_id(7), 1)]);
    assert_eq!(next, [Applied::PinAttempts(5)], "each was counted");
}

#[test]
fn what_one_node_freezes_no_other_issues_from_then_on() {
    let (_schema, stores) = two();
    for n in 0..ROUNDS {
        let [(_, on_time), (_, late)] = from_each(&order(n, None));
        let frozen = [freeze(Some("V-1"))];
        let answers = at_once(&stores, [frozen.to_vec(), on_time]);
        assert_eq!(answers[0], [Applied::Done]);
        assert!([Applied::Done, Applied::Stale].contains(&answers[1][0]));
        for store in &stores {
            assert_eq!(commit(store, &late), [Applied::Stale], "{n}");
        }
        done(&stores[usize::from(n % 2)], &[release(Some("V-1"))]);
    }
}

/// How somebody stands from now on.
fn stand(of: impl Into<Registered>, status: Status) -> Write {
    Write::Suspend(Arc::new(Suspension {
        fleet: FLEET,
        of: of.into(),
        status,
        by: None,
        request: None,
    }))
}

#[test]
fn what_is_remembered_counts_for_nothing_once_another_node_has_changed_it() {
    let (_schema, stores) = two();
    let vehicle = |status| stand(Followed::Vehicle(vehicle_id("V-1")), status);
    let ben = |status| stand(Followed::Identity(identity_id("ben")), status);
    let phone = |status| stand(Registered::Terminal(terminal_id("phone")), status);
    let hold = |hold| {
        Write::Identity(Identity {
            hold,
            ..identity("ben")
        })
    };
    let mut number = 0;
    let mut write = || {
        number += 1;
        [Write::Redeem(Arc::new(order(number, None)))]
    };
    for (change, undo) in [
        (vehicle(Status::Suspended), vehicle(Status::Active)),
        (ben(Status::Suspended), ben(Status::Active)),
        (phone(Status::Suspended), phone(Status::Active)),
        (hold(Some(Hold::Payment)), hold(None)),
        (freeze(Some("V-1")), release(Some("V-1"))),
        (freeze(None), release(None)),
    ] {
        done(&stores[0], &write());
        let before = stores[0].round_trips();
        done(&stores[0], &write());
        assert_eq!(stores[0].round_trips() - before, 2, "it is remembered");
        done(&stores[1], std::slice::from_ref(&change));
        let late = write();
        for _ in 0..2 {
            let answers = commit(&stores[0], &late);
            assert_eq!(answers, [Applied::Stale], "{change:?}");
        }
        done(&stores[1], &[undo]);
        done(&stores[0], &late);
    }
}
