//! Redemptions: their conditions, and that there is at most one.

use std::sync::{Arc, Barrier};
use std::thread;

use fob::domain::{Authorization, AuthorizationState, BundleId, Identity, Status, Subject};
use fob::store::{Applied, BundleKey, Redemption, Row, Store, Write};
use fob_verify::{Algorithm, HolderKey};

use super::Place;
use super::authorize::one_of_each;
use crate::store::sample::*;

pub(crate) fn a_redemption_is_found_by_all_its_names<P: Place>() {
    let place = P::new();
    let store = place.open();
    done(&store, &world());
    let authorization = authorization(1);
    done(
        &store,
        &[authorize(authorization.clone()), redeem(&authorization)],
    );
    let signed = signed_bundle(&authorization);
    for key in [
        BundleKey::Id(signed.bundle.id),
        BundleKey::Authorization(authorization.id),
    ] {
        assert_eq!(
            store.bundle(key).unwrap().as_ref(),
            Some(&signed),
            "{key:?}"
        );
    }
    let redeemed = Authorization {
        state: AuthorizationState::Redeemed,
        redeemed: true,
        ..authorization
    };
    assert_eq!(store.authorizations(&everything()).unwrap(), [redeemed]);
}

pub(crate) fn at_most_one<P: Place>() {
    let place = P::new();
    let store = place.open();
    done(&store, &world());
    let authorization = authorization(1);
    let mut second = redemption(&authorization);
    second.signed.bundle.id = BundleId([0x22; 16]);
    let second = Write::Redeem(Arc::new(second));
    let first = redeem(&authorization);
    let answers = commit(
        &store,
        &[
            authorize(authorization.clone()),
            first.clone(),
            second.clone(),
            first,
        ],
    );
    assert_eq!(
        answers,
        [Applied::Done, Applied::Done, Applied::Stale, Applied::Stale]
    );
    assert_eq!(commit(&store, &[second]), [Applied::Stale]);
    let found = store
        .bundle(BundleKey::Authorization(authorization.id))
        .unwrap();
    assert_eq!(found, Some(signed_bundle(&authorization)));
    assert_eq!(store.bundle(BundleKey::Id(BundleId([0x22; 16]))), Ok(None));
}

pub(crate) fn a_bundle_id_is_taken_once<P: Place>() {
    let place = P::new();
    let store = place.open();
    done(&store, &world());
    let (first, second) = (authorization(1), authorization(2));
    done(
        &store,
        &[
            authorize(first.clone()),
            authorize(second.clone()),
            redeem(&first),
        ],
    );
    let before = rows(&store);
    let mut taken = redemption(&second);
    taken.signed.bundle.id = signed_bundle(&first).bundle.id;
    assert_eq!(
        commit(&store, &[Write::Redeem(Arc::new(taken))]),
        [Applied::Conflict]
    );
    assert_eq!(rows(&store), before);
    done(&store, &[redeem(&second)]);
}

pub(crate) fn every_field_comes_back<P: Place>() {
    let place = P::new();
    let store = place.open();
    done(&store, &world());
    let mut expected = Vec::new();
    for authorization in one_of_each() {
        let mut redemption = redemption(&authorization);
        let bundle = &mut redemption.signed.bundle;
        match authorization.id.0[15] {
            1 => bundle.holder = HolderKey::new(ed25519()),
            2 => bundle.algorithm = Algorithm::Ed25519,
            3 => bundle.algorithm = Algorithm::Es256,
            4 => bundle.issuer = "".into(),
            5 => bundle.issued_at = 253_402_300_799,
            6 => {
                let renamed = bundle.subjects.iter().map(|subject| Subject {
                    status_uri: "uri:ä".into(),
                    ..subject.clone()
                });
                bundle.subjects = renamed.collect();
            }
            7 => bundle.keys[1].max_uses = Some(0),
            8 => redemption.terminal = None,
            _ => (),
        }
        expected.push(redemption.signed.clone());
        done(
            &store,
            &[
                authorize(authorization),
                Write::Redeem(Arc::new(redemption)),
            ],
        );
    }
    for signed in expected {
        let found = store
            .bundle(BundleKey::Authorization(signed.bundle.authorization))
            .unwrap();
        assert_eq!(found, Some(signed));
    }
}

pub(crate) fn the_counter_never_goes_down<P: Place>() {
    let place = P::new();
    let store = place.open();
    done(&store, &world());
    let counter = |store: &P::Store| {
        loaded(store).iter().find_map(|row| match row {
            Row::Fleet(fleet) => Some(fleet.status_next),
            _ => None,
        })
    };
    let mut writes = Vec::new();
    for (number, status_next) in [(1, 16), (2, 24), (3, 20)] {
        let authorization = authorization(number);
        let redemption = Redemption {
            status_next,
            ..redemption(&authorization)
        };
        writes.extend([
            authorize(authorization),
            Write::Redeem(Arc::new(redemption)),
        ]);
    }
    done(&store, &writes);
    assert_eq!(counter(&store), Some(24));
    let late = Redemption {
        status_next: 8,
        ..redemption(&authorization(4))
    };
    done(
        &store,
        &[authorize(authorization(4)), Write::Redeem(Arc::new(late))],
    );
    assert_eq!(counter(&store), Some(24));
}

pub(crate) fn indexes_are_taken_once<P: Place>() {
    let place = P::new();
    let store = place.open();
    done(&store, &world());
    let take = |count| Write::TakeIndexes(FLEET, count);
    let mut taken = Vec::new();
    // Together with a redemption that has counted by itself, which counts too.
    let writes = [authorize(authorization(1)), redeem(&authorization(1))];
    for writes in [
        vec![take(8)],
        vec![take(4), take(4)],
        [&writes[..], &[take(16)]].concat(),
    ] {
        for (applied, write) in commit(&store, &writes).into_iter().zip(&writes) {
            if let (Applied::Indexes(first), Write::TakeIndexes(_, count)) = (applied, write) {
                taken.extend(first..first + count);
            }
        }
    }
    assert_eq!(taken, (0..32).collect::<Vec<_>>());
    let reopened = place.open();
    assert_eq!(commit(&reopened, &[take(1)]), [Applied::Indexes(32)]);
    let nobody = Write::TakeIndexes(OTHER_FLEET, 1);
    assert_eq!(commit(&store, &[nobody]), [Applied::Stale]);
}

pub(crate) fn later_writes_see_earlier_ones<P: Place>() {
    let place = P::new();
    let store = place.open();
    let (first, second) = (authorization(1), authorization(2));
    let mut writes = world();
    let suspended = Identity {
        status: Status::Suspended,
        ..identity("ben")
    };
    let before = writes.len();
    writes.extend([
        redeem(&first),
        authorize(first.clone()),
        redeem(&first),
        authorize(second.clone()),
        Write::Identity(suspended),
        redeem(&second),
        Write::Identity(identity("ben")),
        redeem(&second),
    ]);
    use Applied::{Done, Stale};
    let answers = commit(&store, &writes);
    assert_eq!(
        answers[before..],
        [Stale, Done, Done, Done, Done, Stale, Done, Done]
    );
}

pub(crate) fn rivals_from_threads_get_one_bundle<P: Place>() {
    const RIVALS: u8 = 4;
    const ROUNDS: u8 = 20;
    let place = P::new();
    let store = place.open();
    done(&store, &world());
    let barrier = Barrier::new(RIVALS.into());
    for round in 0..ROUNDS {
        let authorization = authorization(round);
        done(&store, &[authorize(authorization.clone())]);
        let bundle_id = |rival| BundleId([rival, round, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
        let won: Vec<_> = thread::scope(|scope| {
            let rivals: Vec<_> = (0..RIVALS)
                .map(|rival| {
                    let mut redemption = redemption(&authorization);
                    redemption.signed.bundle.id = bundle_id(rival);
                    let write = [Write::Redeem(Arc::new(redemption))];
                    let (store, barrier) = (&store, &barrier);
                    scope.spawn(move || {
                        barrier.wait();
                        commit(store, &write)[0]
                    })
                })
                .collect();
            rivals
                .into_iter()
                .map(|rival| rival.join().unwrap())
                .collect()
        });
        let winners: Vec<_> = (0..RIVALS)
            .filter(|n| won[usize::from(*n)] == Applied::Done)
            .collect();
        assert_eq!(winners.len(), 1, "{won:?}");
        let found = store
            .bundle(BundleKey::Authorization(authorization.id))
            .unwrap()
            .unwrap();
        assert_eq!(found.bundle.id, bundle_id(winners[0]));
    }
}
