//! What fleets rule.

use fob::store::{Applied, Frozen, QuotaDay, Row, Ruled, Ruling, Rulings, Store, Write};

use super::Place;
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
