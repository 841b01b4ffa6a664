//! Listing and looking up.

use fob::domain::{Authorization, AuthorizationId, AuthorizationState, BundleId, Vehicle, Window};
use fob::store::{AuthorizationFilter, BundleKey, Store, Write};

use super::Place;
use crate::store::sample::*;

fn ids(store: &impl Store, filter: &AuthorizationFilter) -> Vec<u8> {
    store
        .authorizations(filter)
        .unwrap()
        .iter()
        .map(|found| found.id.0[15])
        .collect()
}

pub(crate) fn pages_follow_each_other<P: Place>() {
    let place = P::new();
    let store = place.open();
    done(&store, &world());
    // Neither in the order of their ids nor all at once.
    let numbers: Vec<u8> = (0..=255).map(|n: u8| n.wrapping_mul(91)).collect();
    for some in numbers.chunks(100) {
        let writes = some.iter().map(|number| {
            let id = if number % 2 == 0 { "V-2" } else { "V-1" };
            authorize(Authorization {
                vehicle: vehicle_id(id),
                ..authorization(*number)
            })
        });
        done(&store, &writes.collect::<Vec<_>>());
    }
    for vehicle in [None, Some(vehicle_id("V-2"))] {
        let step = if vehicle.is_some() { 2 } else { 1 };
        let mut filter = AuthorizationFilter {
            vehicle,
            limit: 7,
            ..everything()
        };
        let mut found = Vec::new();
        loop {
            let page = store.authorizations(&filter).unwrap();
            assert!(page.len() <= 7 && found.len() <= 256);
            found.extend(page.iter().map(|one| one.id.0[15]));
            match page.last() {
                Some(last) => filter.after = Some(last.id),
                None => break,
            }
        }
        assert_eq!(found, (0..=255).step_by(step).collect::<Vec<u8>>());
        assert!(ids(&store, &AuthorizationFilter { limit: 0, ..filter }).is_empty());
    }
}

pub(crate) fn filters<P: Place>() {
    let place = P::new();
    let store = place.open();
    done(&store, &world());
    let window = |not_after| Window {
        not_before: 0,
        not_after,
    };
    let with = |number, state, redeem_by, not_after| {
        authorize(Authorization {
            state,
            redeem_by,
            window: window(not_after),
            ..authorization(number)
        })
    };
    use AuthorizationState::{Cancelled, Open, Redeemed, Suspended};
    done(
        &store,
        &[
            with(1, Open, 150, 200),
            with(2, Open, 250, 200),
            with(3, Redeemed, 150, 200),
            with(4, Suspended, 150, 200),
            with(5, Cancelled, 150, 200),
            with(6, Open, 900, 900),
        ],
    );
    let listed = |state, expired, now| {
        ids(
            &store,
            &AuthorizationFilter {
                state,
                expired,
                now,
                ..everything()
            },
        )
    };
    assert_eq!(listed(None, None, 500), [1, 2, 3, 4, 5, 6]);
    assert_eq!(listed(Some(Open), None, 500), [1, 2, 6]);
    assert_eq!(listed(Some(Redeemed), None, 500), [3]);
    assert_eq!(listed(Some(Suspended), None, 500), [4]);
    assert_eq!(listed(Some(Cancelled), Some(true), 500), [5]);
    assert_eq!(listed(Some(Open), Some(true), 149), [0; 0]);
    assert_eq!(listed(Some(Open), Some(true), 150), [1]);
    assert_eq!(listed(Some(Open), Some(false), 150), [2, 6]);
    assert_eq!(listed(Some(Open), Some(false), 199), [2, 6]);
    assert_eq!(listed(Some(Open), Some(false), 200), [6]);
    assert_eq!(
        listed(None, Some(true), 200),
        [1, 2, 3, 4, 5],
        "other states pass either way"
    );
    assert_eq!(listed(None, Some(false), 200), [3, 4, 5, 6]);
    let of_vehicle = AuthorizationFilter {
        vehicle: Some(vehicle_id("V-1")),
        state: Some(Open),
        expired: Some(true),
        now: 200,
        after: Some(authorization_id(1)),
        ..everything()
    };
    assert_eq!(ids(&store, &of_vehicle), [2]);
}

pub(crate) fn fleets_do_not_see_each_other<P: Place>() {
    let place = P::new();
    let store = place.open();
    done(&store, &world());
    done(
        &store,
        &[
            Write::NewFleet(fleet(OTHER_FLEET, "other", 2)),
            Write::Vehicle(Vehicle {
                fleet: OTHER_FLEET,
                ..vehicle("V-1")
            }),
            authorize(authorization(1)),
            authorize(Authorization {
                fleet: OTHER_FLEET,
                ..authorization(2)
            }),
            authorize(authorization(3)),
        ],
    );
    for vehicle in [None, Some(vehicle_id("V-1"))] {
        let own = AuthorizationFilter {
            vehicle,
            ..everything()
        };
        assert_eq!(ids(&store, &own), [1, 3]);
        assert_eq!(
            ids(
                &store,
                &AuthorizationFilter {
                    fleet: OTHER_FLEET,
                    ..own
                }
            ),
            [2]
        );
    }
}

pub(crate) fn what_is_not_there<P: Place>() {
    let place = P::new();
    let store = place.open();
    assert!(ids(&store, &everything()).is_empty());
    done(&store, &world());
    let nowhere = AuthorizationFilter {
        vehicle: Some(vehicle_id("V-9")),
        ..everything()
    };
    assert!(ids(&store, &nowhere).is_empty());
    assert!(ids(&store, &everything()).is_empty());
    assert_eq!(store.bundle(BundleKey::Id(BundleId([1; 16]))), Ok(None));
    assert_eq!(
        store.bundle(BundleKey::Authorization(AuthorizationId([1; 16]))),
        Ok(None)
    );
    done(&store, &[authorize(authorization(1))]);
    assert_eq!(
        store.bundle(BundleKey::Authorization(authorization_id(1))),
        Ok(None)
    );
}
