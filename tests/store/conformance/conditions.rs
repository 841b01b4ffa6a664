//! The conditions of authorizations and redemptions, each broken on its own.

use std::sync::Arc;

use fob::domain::{
    Author, Authorization, AuthorizationState, EpochState, Fleet, Hold, Identity, Status, Terminal,
    Vehicle,
};
use fob::store::{Applied, BundleKey, Redemption, Store, Write};

use super::Place;
use super::rulings::freeze;
use crate::store::sample::{self, *};

/// A broken condition: its name, what is written before, and the authorization it breaks.
type BrokenCommand = (&'static str, Vec<Write>, Authorization);

fn broken_places() -> Vec<BrokenCommand> {
    let suspended_fleet = Fleet {
        status: Status::Suspended,
        ..fleet(OTHER_FLEET, "other", 2)
    };
    let suspended_vehicle = Vehicle {
        status: Status::Suspended,
        ..vehicle("V-3")
    };
    let there = vec![
        Write::NewFleet(suspended_fleet),
        Write::Vehicle(Vehicle {
            fleet: OTHER_FLEET,
            ..vehicle("V-1")
        }),
    ];
    let of = |id| Authorization {
        vehicle: vehicle_id(id),
        ..authorization(1)
    };
    vec![
        (
            "fleet",
            there,
            Authorization {
                fleet: OTHER_FLEET,
                ..authorization(1)
            },
        ),
        ("vehicle", vec![], of("V-9")),
        (
            "vehicle's status",
            vec![Write::Vehicle(suspended_vehicle)],
            of("V-3"),
        ),
    ]
}

fn broken_authors() -> Vec<BrokenCommand> {
    let by = |id| Authorization {
        author: Author::Terminal(terminal_id(id)),
        ..authorization(1)
    };
    let off = Terminal {
        status: Status::Suspended,
        ..terminal("off", "ben")
    };
    let annas = vec![
        Write::Identity(Identity {
            status: Status::Suspended,
            ..identity("anna")
        }),
        Write::Terminal(terminal("annas", "anna")),
    ];
    vec![
        ("terminal", vec![], by("none")),
        ("terminal's status", vec![Write::Terminal(off)], by("off")),
        ("identity's status", annas, by("annas")),
        (
            "identity",
            vec![Write::Terminal(terminal("lost", "nobody"))],
            by("lost"),
        ),
    ]
}

pub(crate) fn each_condition_of_an_authorization_counts<P: Place>() {
    for (what, before, authorization) in broken_places().into_iter().chain(broken_authors()) {
        let place = P::new();
        let store = place.open();
        done(&store, &world());
        done(&store, &before);
        let rows_before = rows(&store);
        assert_eq!(
            commit(&store, &[authorize(authorization)]),
            [Applied::Stale],
            "{what}"
        );
        assert_eq!(rows(&store), rows_before, "{what}");
        let author = Author::Terminal(terminal_id("phone"));
        done(
            &store,
            &[authorize(Authorization {
                author,
                ..sample::authorization(1)
            })],
        );
    }
}

/// How a redemption is changed.
type Change = fn(&mut Redemption);

/// A broken condition: its name, what is written before, and how the redemption is changed.
type Broken = (&'static str, Vec<Write>, Change);

/// Conditions that a write can break.
fn broken_by_writes() -> Vec<Broken> {
    let in_state = |state| {
        vec![authorize(Authorization {
            state,
            ..authorization(1)
        })]
    };
    let with = |write| vec![authorize(authorization(1)), write];
    let ben = Identity {
        status: Status::Suspended,
        ..identity("ben")
    };
    let held = Identity {
        hold: Some(Hold::Payment),
        ..identity("ben")
    };
    let phone = Terminal {
        status: Status::Suspended,
        ..terminal("off", "ben")
    };
    vec![
        ("there is one", vec![], |_| ()),
        (
            "not redeemed",
            in_state(AuthorizationState::Redeemed),
            |_| (),
        ),
        (
            "not suspended",
            in_state(AuthorizationState::Suspended),
            |_| (),
        ),
        (
            "not cancelled",
            in_state(AuthorizationState::Cancelled),
            |_| (),
        ),
        (
            "epoch not revoked",
            with(Write::Epoch(epoch(9, EpochState::Revoked))),
            |_| (),
        ),
        ("identity active", with(Write::Identity(ben)), |_| ()),
        ("identity not held", with(Write::Identity(held)), |_| ()),
        ("vehicle active", with(suspend_vehicle("V-1")), |_| ()),
        ("vehicle not frozen", with(freeze(Some("V-1"))), |_| ()),
        ("fleet not frozen", with(freeze(None)), |_| ()),
        (
            "terminal active",
            with(Write::Terminal(phone)),
            |redemption| {
                redemption.terminal = Some(terminal_id("off"));
            },
        ),
        (
            "same fleet",
            with(Write::NewFleet(fleet(OTHER_FLEET, "other", 2))),
            |redemption| {
                redemption.signed.bundle.fleet = OTHER_FLEET;
            },
        ),
    ]
}

/// Conditions that a redemption breaks by what it says.
fn broken_by_itself() -> Vec<Broken> {
    let changes: [(&str, Change); 6] = [
        ("at this version", |r| r.signed.bundle.version = 2),
        ("epoch known", |r| {
            r.signed.bundle.epoch = epoch(8, EpochState::Active).id
        }),
        ("vehicle's epoch", |r| r.signed.bundle.vehicle_epoch = 5),
        ("identity known", |r| {
            r.signed.bundle.identity = identity_id("carl")
        }),
        ("terminal known", |r| r.terminal = Some(terminal_id("none"))),
        ("same vehicle", |r| {
            r.signed.bundle.vehicle = vehicle_id("V-2")
        }),
    ];
    let open = || vec![authorize(authorization(1))];
    changes
        .into_iter()
        .map(|(what, change)| (what, open(), change))
        .collect()
}

pub(crate) fn each_condition_of_a_redemption_counts<P: Place>() {
    for (what, before, change) in broken_by_writes().into_iter().chain(broken_by_itself()) {
        let place = P::new();
        let store = place.open();
        done(&store, &world());
        done(&store, &before);
        refused(&store, what, change);
    }
    let place = P::new();
    let store = place.open();
    done(&store, &world());
    done(&store, &[authorize(authorization(1))]);
    place.suspend_fleet(FLEET);
    refused(&store, "fleet active", |_| ());
}

/// The changed redemption is refused and leaves nothing behind.
fn refused(store: &impl Store, what: &str, change: Change) {
    let before = rows(store);
    let mut redemption = redemption(&authorization(1));
    change(&mut redemption);
    let answers = commit(store, &[Write::Redeem(Arc::new(redemption.clone()))]);
    assert_eq!(answers, [Applied::Stale], "{what}");
    assert_eq!(rows(store), before, "{what}");
    assert_eq!(
        store.bundle(BundleKey::Id(redemption.signed.bundle.id)),
        Ok(None),
        "{what}"
    );
    assert_eq!(
        store.bundle(BundleKey::Authorization(authorization_id(1))),
        Ok(None),
        "{what}"
    );
}
