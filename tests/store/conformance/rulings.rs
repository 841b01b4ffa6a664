//! What fleets rule.

use std::sync::Arc;

use fob::domain::{Hold, Identity};
use fob::store::{Amendment, Applied, Frozen, QuotaDay, Row, Ruled, Ruling, Rulings, Store, Write};

use super::Place;
use super::amend::{amend, changing};
use crate::store::sample::*;

pub(super) fn rule(fleet: fob::domain::FleetId, what: Ruling) -> Write {
    Write::Rule(Box::new(Rulings {
        fleet,
        at: 1_790_000_000,
        by: "anna".into(),
        why: Some("because".into()),
        what,
    }))
}

/// Freezes a vehicle, or the fleet.
pub(crate) fn freeze(vehicle: Option<&str>) -> Write {
    rule(FLEET, Ruling::Freeze(vehicle.map(vehicle_id)))
}

pub(crate) fn release(vehicle: Option<&str>) -> Write {
    rule(FLEET, Ruling::Release(vehicle.map(vehicle_id)))
}

fn rules(version: u32, text: &str) -> Ruling {
    Ruling::Rules(version, text.into())
}

/// What fleets rule, as the store hands it on.
fn ruled(store: &impl Store) -> Vec<(fob::domain::FleetId, Ruled)> {
    let ruled = |row| match row {
        Row::Ruled(fleet, ruled) => Some((fleet, ruled)),
        _ => None,
    };
    loaded(store).into_iter().filter_map(ruled).collect()
}

pub(crate) fn rules_follow_each_other<P: Place>() {
    let place = P::new();
    let store = place.open();
    done(
        &store,
        &[
            Write::NewFleet(fleet(FLEET, "first", 1)),
            Write::NewFleet(fleet(OTHER_FLEET, "other", 2)),
        ],
    );
    let answers = commit(
        &store,
        &[
            rule(FLEET, rules(2, "{}")),
            rule(FLEET, rules(1, "{}")),
            rule(FLEET, rules(1, "{}")),
            rule(FLEET, rules(2, "{\"keys_per_day\":5}")),
            rule(OTHER_FLEET, rules(1, "{\"keys_per_day\":6}")),
            rule(fob::domain::FleetId([0xf3; 16]), rules(1, "{}")),
        ],
    );
    let expected = [
        Applied::Stale,
        Applied::Done,
        Applied::Stale,
        Applied::Done,
        Applied::Done,
        Applied::Stale,
    ];
    assert_eq!(answers, expected);
    drop(store);
    let newest = |version, text: &str| Ruled::Rules(version, text.into());
    assert_eq!(
        ruled(&place.open()),
        [
            (FLEET, newest(2, "{\"keys_per_day\":5}")),
            (OTHER_FLEET, newest(1, "{\"keys_per_day\":6}")),
        ]
    );
}

pub(crate) fn keys_follow_rules_in_their_order<P: Place>() {
    let place = P::new();
    let store = place.open();
    let fleets = [(FLEET, "first", 1), (OTHER_FLEET, "other", 2)];
    done(
        &store,
        &fleets.map(|(id, name, tag)| Write::NewFleet(fleet(id, name, tag))),
    );
    let followed = |from, to| rule(FLEET, Ruling::Followed(from, to));
    let set = |version| rule(FLEET, rules(version, "{}"));
    let (done, stale) = (Applied::Done, Applied::Stale);
    // Not before there are such rules, and each from where it stands.
    let writes = [
        followed(0, 1),
        set(1),
        followed(1, 1),
        followed(0, 2),
        followed(0, 1),
        followed(0, 1),
        set(2),
        set(3),
        followed(1, 2),
    ];
    let expected = [stale, done, stale, stale, done, stale, done, done, done];
    assert_eq!(commit(&store, &writes), expected);
    let writes = [followed(1, 3), followed(2, 4), followed(2, 3)];
    assert_eq!(commit(&store, &writes), [stale, stale, done]);
    let acts = |store: &P::Store| super::acts::all(store).len();
    assert_eq!(acts(&store), 3, "nobody decides it");
    drop(store);
    let stands = [
        (FLEET, Ruled::Rules(3, "{}".into())),
        (FLEET, Ruled::Followed(3)),
    ];
    assert_eq!(ruled(&place.open()), stands);
}

pub(crate) fn what_is_frozen_stays_so_until_it_is_released<P: Place>() {
    let place = P::new();
    let store = place.open();
    done(&store, &[Write::NewFleet(fleet(FLEET, "first", 1))]);
    let car = || Some(vehicle_id("CAR"));
    let answers = commit(
        &store,
        &[
            rule(FLEET, Ruling::Release(None)),
            rule(FLEET, Ruling::Freeze(car())),
            rule(FLEET, Ruling::Freeze(car())),
            rule(FLEET, Ruling::Freeze(None)),
            rule(FLEET, Ruling::Release(car())),
            rule(FLEET, Ruling::Release(car())),
        ],
    );
    let expected = [
        Applied::Stale,
        Applied::Done,
        Applied::Stale,
        Applied::Done,
        Applied::Done,
        Applied::Stale,
    ];
    assert_eq!(answers, expected);
    drop(store);
    let frozen = Frozen {
        since: 1_790_000_000,
        by: "anna".into(),
        why: Some("because".into()),
    };
    assert_eq!(ruled(&place.open()), [(FLEET, Ruled::Frozen(None, frozen))]);
}

/// Whatever the transaction, and whatever the store remembers of the one before.
pub(crate) fn what_is_frozen_is_asked_at_the_commit<P: Place>() {
    let store = P::new().open();
    done(&store, &world());
    done(
        &store,
        &[
            Write::NewFleet(fleet(OTHER_FLEET, "other", 2)),
            rule(OTHER_FLEET, Ruling::Freeze(None)),
            freeze(Some("V-2")),
        ],
    );
    let write = |number| Write::Redeem(Arc::new(order(number, None)));
    let (done, stale) = (Applied::Done, Applied::Stale);
    // Others are frozen.
    assert_eq!(commit(&store, &[write(1)]), [done]);
    for (number, what) in [(10, Some("V-1")), (20, None)] {
        // What comes before it in its transaction stands.
        let writes = [write(number), freeze(what), write(number + 1)];
        assert_eq!(commit(&store, &writes), [done, done, stale], "{what:?}");
        assert_eq!(commit(&store, &[write(number + 1)]), [stale], "{what:?}");
        let writes = [write(number + 1), release(what), write(number + 2)];
        assert_eq!(commit(&store, &writes), [stale, done, done], "{what:?}");
        assert_eq!(commit(&store, &[write(number + 1)]), [done], "{what:?}");
    }
}

/// Frozen or held, whoever has keys gets the same ones again, and no others.
pub(crate) fn withheld_keys_may_be_the_same_ones_again<P: Place>() {
    let held = Write::Identity(Identity {
        hold: Some(Hold::Payment),
        ..identity("ben")
    });
    for withheld in [freeze(Some("V-1")), freeze(None), held] {
        let store = P::new().open();
        let (_, change) = changing(&store);
        done(&store, std::slice::from_ref(&withheld));
        let with = |changed| {
            let mut reissue = change.reissue.clone().unwrap();
            reissue.changed = changed;
            amend(Amendment {
                reissue: Some(reissue),
                ..change.clone()
            })
        };
        let before = rows(&store);
        assert_eq!(commit(&store, &[with(true)]), [Applied::Stale]);
        assert_eq!(rows(&store), before, "{withheld:?}");
        assert_eq!(commit(&store, &[with(false)]), [Applied::Amended(1)]);
    }
}

pub(crate) fn days_of_a_quota_begin_once_and_in_order<P: Place>() {
    let place = P::new();
    let store = place.open();
    done(&store, &[Write::NewFleet(fleet(FLEET, "first", 1))]);
    let at = |store: &P::Store, day, base, approved| {
        let day = QuotaDay {
            day,
            base,
            approved,
        };
        assert_eq!(ruled(store), [(FLEET, Ruled::Day(day))]);
    };
    for (ruling, answer, (day, base, approved)) in [
        (Ruling::Day(7, 100), Applied::Done, (7, 100, 0)),
        (Ruling::Day(7, 200), Applied::Stale, (7, 100, 0)),
        (Ruling::Approve(7, 300, 5), Applied::Done, (7, 100, 5)),
        (Ruling::Approve(7, 300, 4), Applied::Done, (7, 100, 4)),
        (Ruling::Approve(6, 300, 9), Applied::Stale, (7, 100, 4)),
        (Ruling::Day(6, 50), Applied::Stale, (7, 100, 4)),
        (Ruling::Day(8, 400), Applied::Done, (8, 400, 0)),
        // Approved before anything was issued on that day.
        (Ruling::Approve(9, 500, 6), Applied::Done, (9, 500, 6)),
        (Ruling::Day(9, 600), Applied::Stale, (9, 500, 6)),
    ] {
        assert_eq!(commit(&store, &[rule(FLEET, ruling)]), [answer]);
        at(&store, day, base, approved);
    }
    drop(store);
    at(&place.open(), 9, 500, 6);
}
