//! Orders: authorization and redemption in one, answered once for each reference of a call.

use std::sync::Arc;

use fob::domain::{
    AuthorizationId, AuthorizationState, BundleId, Epoch, EpochState, Hold, Identity, Status,
};
use fob::store::{
    AnsweredOrder, Applied, AuthorizationFilter, BundleKey, Redemption, Row, Store, Write,
};

use super::Place;
use super::rulings::freeze;
use crate::store::sample::*;

fn write(order: &Redemption) -> Write {
    Write::Redeem(Arc::new(order.clone()))
}

fn all(store: &impl Store, filter: AuthorizationFilter) -> Vec<AuthorizationId> {
    let found = store.authorizations(&filter).unwrap();
    found.into_iter().map(|one| one.id).collect()
}

pub(crate) fn an_order_is_found_by_all_its_names<P: Place>() {
    let place = P::new();
    let store = place.open();
    done(&store, &world());
    let order = order(1, None);
    done(&store, &[write(&order)]);
    drop(store);
    let store = place.open();
    let bundle = &order.signed.bundle;
    for key in [
        BundleKey::Id(bundle.id),
        BundleKey::Authorization(bundle.authorization),
    ] {
        assert_eq!(
            store.bundle(key).unwrap().as_ref(),
            Some(&order.signed),
            "{key:?}"
        );
    }
    let expected = ordered(&order);
    let by_id = AuthorizationFilter {
        id: Some(expected.id),
        ..everything()
    };
    let by_vehicle = AuthorizationFilter {
        vehicle: Some(vehicle_id("V-1")),
        ..everything()
    };
    for filter in [by_id, by_vehicle, everything()] {
        assert_eq!(
            store.authorizations(&filter).unwrap(),
            std::slice::from_ref(&expected)
        );
    }
    let elsewhere = AuthorizationFilter {
        vehicle: Some(vehicle_id("V-2")),
        ..everything()
    };
    assert!(all(&store, elsewhere).is_empty());
    let open = AuthorizationFilter {
        state: Some(AuthorizationState::Open),
        ..everything()
    };
    assert!(all(&store, open).is_empty());
    let in_book = |row: &Row| matches!(row, Row::Authorization(_));
    assert!(
        !loaded(&store).iter().any(in_book),
        "the book has no orders"
    );
}

pub(crate) fn orders_and_authorizations_share_their_pages<P: Place>() {
    let place = P::new();
    let store = place.open();
    done(&store, &world());
    // More than any row holds, in transactions of various sizes, with others between them.
    let mut expected = Vec::new();
    for n in 0..150_u8 {
        let ordered = order(n, None);
        expected.push(ordered.signed.bundle.authorization);
        done(&store, &[write(&ordered)]);
    }
    let many: Vec<_> = (150..=255).map(|n| order(n, None)).collect();
    expected.extend(many.iter().map(|one| one.signed.bundle.authorization));
    done(&store, &many.iter().map(write).collect::<Vec<_>>());
    for n in 0..20 {
        expected.push(authorization(n).id);
        done(&store, &[authorize(authorization(n))]);
        if n % 2 == 0 {
            done(&store, &[redeem(&authorization(n))]);
        }
    }
    expected.sort_unstable();
    for vehicle in [None, Some(vehicle_id("V-1"))] {
        let mut found = Vec::new();
        loop {
            let page = all(
                &store,
                AuthorizationFilter {
                    vehicle: vehicle.clone(),
                    after: found.last().copied(),
                    limit: 7,
                    ..everything()
                },
            );
            if page.is_empty() {
                break;
            }
            assert!(page.len() <= 7);
            found.extend(page);
        }
        assert_eq!(found, expected);
    }
    for one in &many {
        let key = BundleKey::Id(one.signed.bundle.id);
        assert_eq!(store.bundle(key).unwrap().as_ref(), Some(&one.signed));
    }
}

pub(crate) fn the_same_order_is_issued_once<P: Place>() {
    let place = P::new();
    let store = place.open();
    done(&store, &world());
    let first = order(1, order_request(1, 1, 1));
    let same = order(2, order_request(1, 1, 1));
    let other = order(3, order_request(1, 1, 2));
    let elsewhere = order(4, order_request(2, 1, 1));
    let next = order(5, order_request(1, 2, 1));
    let id = first.signed.bundle.authorization;
    // Within one transaction, in the next, and after opening again.
    assert_eq!(
        commit(&store, &[write(&first), write(&same), write(&other)]),
        [Applied::Done, Applied::Repeated(id), Applied::Conflict]
    );
    assert_eq!(
        commit(&store, &[write(&same), write(&other), write(&elsewhere)]),
        [Applied::Repeated(id), Applied::Conflict, Applied::Done]
    );
    drop(store);
    let store = place.open();
    assert_eq!(
        commit(&store, &[write(&same), write(&next), write(&other)]),
        [Applied::Repeated(id), Applied::Done, Applied::Conflict]
    );
    assert_eq!(store.bundle(BundleKey::Id(same.signed.bundle.id)), Ok(None));
    let answered = |order: &Redemption, reference| AnsweredOrder {
        reference: [reference; 16],
        digest: [1; 16],
        bundle: order.signed.bundle.id,
    };
    assert_eq!(
        store.answered(&[1; 32]),
        Ok(vec![answered(&first, 1), answered(&next, 2)])
    );
    assert_eq!(store.answered(&[2; 32]), Ok(vec![answered(&elsewhere, 1)]));
    assert_eq!(store.answered(&[3; 32]), Ok(vec![]));
}

pub(crate) fn many_calls_in_one_transaction<P: Place>() {
    let place = P::new();
    let store = place.open();
    done(&store, &world());
    let orders: Vec<_> = (0..60)
        .map(|n| write(&order(n, order_request(n % 30, n / 30, 1))))
        .collect();
    let again: Vec<_> = (0..60)
        .map(|n| write(&order(100 + n, order_request(n % 30, n / 30, 1))))
        .collect();
    let answers = commit(&store, &[orders, again].concat());
    assert_eq!(answers[..60], vec![Applied::Done; 60]);
    assert!(
        answers[60..]
            .iter()
            .all(|answer| matches!(answer, Applied::Repeated(_)))
    );
}

/// A broken condition: its name, what is written before, and what it does to the order.
type Broken = (&'static str, Option<Write>, fn(&mut Redemption));

pub(crate) fn each_condition_counts<P: Place>() {
    let suspended = Write::Identity(Identity {
        status: Status::Suspended,
        ..identity("ben")
    });
    let held = Write::Identity(Identity {
        hold: Some(Hold::Insurance),
        ..identity("ben")
    });
    let revoked = Write::Epoch(Epoch {
        state: EpochState::Revoked,
        ..epoch(9, EpochState::Active)
    });
    let broken: [Broken; 8] = [
        ("vehicle not frozen", Some(freeze(Some("V-1"))), |_| ()),
        ("fleet not frozen", Some(freeze(None)), |_| ()),
        ("identity", Some(suspended), |_| ()),
        ("identity not held", Some(held), |_| ()),
        ("epoch", Some(revoked), |_| ()),
        ("vehicle epoch", None, |order| {
            order.signed.bundle.vehicle_epoch = 3;
        }),
        ("vehicle", None, |order| {
            order.signed.bundle.vehicle = vehicle_id("V-9");
        }),
        ("terminal", None, |order| {
            order.terminal = Some(terminal_id("lost"));
        }),
    ];
    for (name, before, breaks) in broken {
        let place = P::new();
        let store = place.open();
        done(&store, &world());
        // What the store may remember from an earlier order.
        done(&store, &[write(&order(1, None))]);
        if let Some(before) = before {
            done(&store, &[before]);
        }
        let mut order = order(2, order_request(1, 1, 1));
        breaks(&mut order);
        assert_eq!(commit(&store, &[write(&order)]), [Applied::Stale], "{name}");
        let key = BundleKey::Id(order.signed.bundle.id);
        assert_eq!(store.bundle(key), Ok(None), "{name}");
        assert_eq!(store.answered(&[1; 32]), Ok(vec![]), "{name}");
    }
    let place = P::new();
    let store = place.open();
    done(&store, &world());
    done(&store, &[write(&order(1, None))]);
    done(&store, &[suspend_vehicle("V-1")]);
    let late = order(2, None);
    assert_eq!(commit(&store, &[write(&late)]), [Applied::Stale]);
}

pub(crate) fn a_bundle_id_is_taken_once<P: Place>() {
    let place = P::new();
    let store = place.open();
    done(&store, &world());
    let (first, second) = (order(5, None), order(4, None));
    let taken = order(5, None);
    assert_eq!(
        commit(&store, &[write(&first), write(&taken), write(&second)]),
        [Applied::Done, Applied::Conflict, Applied::Done]
    );
    drop(store);
    let store = place.open();
    assert_eq!(
        commit(&store, &[write(&taken), write(&second)]),
        [Applied::Conflict; 2]
    );
}

pub(crate) fn orders_are_purged<P: Place>() {
    let place = P::new();
    let store = place.open();
    done(&store, &world());
    let ends = |n: u8, at: u64| {
        let mut order = order(n, order_request(1, n, 1));
        order.signed.bundle.window.not_after = at;
        order
    };
    let edge = 5 << 16;
    let orders = [
        ends(1, edge - 2),
        ends(2, edge),
        ends(3, edge - 1),
        ends(4, edge + 70_000),
    ];
    done(&store, &orders.each_ref().map(write));
    // One redemption lies among them, and stays as long as its authorization.
    let stays = authorization(9);
    done(&store, &[authorize(stays.clone()), redeem(&stays)]);
    let left = |store: &P::Store| -> Vec<u8> {
        let found = |order: &&Redemption| {
            let key = BundleKey::Id(order.signed.bundle.id);
            store.bundle(key).unwrap().is_some()
        };
        let left = orders.iter().filter(found);
        left.map(|order| order.signed.bundle.id.0[15]).collect()
    };
    let purge = |before, at_most| {
        let answers = commit(&store, &[Write::Purge(before, at_most)]);
        let listed = all(&store, everything());
        let ids = orders.iter().map(|order| order.signed.bundle.authorization);
        let kept: Vec<_> = ids.filter(|id| listed.contains(id)).collect();
        assert_eq!(kept.len(), left(&store).len());
        answers[0]
    };
    assert_eq!(purge(100, 9), Applied::Purged(0));
    assert_eq!(purge(edge - 2, 9), Applied::Purged(1), "the authorization");
    let gone = BundleKey::Authorization(stays.id);
    assert_eq!(store.bundle(gone), Ok(None));
    assert_eq!(purge(edge, 1), Applied::Purged(1));
    assert_eq!(purge(edge, 9), Applied::Purged(1));
    assert_eq!(left(&store), [2, 4]);
    assert_eq!(purge(edge + 1, 9), Applied::Purged(1));
    assert_eq!(left(&store), [4]);
    assert_eq!(
        commit(&store, &[write(&ends(4, edge + 70_000))]),
        [Applied::Repeated(AuthorizationId(
            orders[3].signed.bundle.id.0
        ))]
    );
    assert_eq!(purge(edge + (9 << 16), 9), Applied::Purged(1));
    assert_eq!(store.answered(&[1; 32]), Ok(vec![]));
    assert!(left(&store).is_empty());
    drop(store);
    let store = place.open();
    assert!(all(&store, everything()).is_empty());
    done(&store, &[write(&ends(4, edge))]);
    assert_eq!(
        BundleId(orders[3].signed.bundle.id.0),
        ends(4, 0).signed.bundle.id
    );
}
