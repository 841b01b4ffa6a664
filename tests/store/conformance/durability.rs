//! What survives, and what a transaction is.

use fob::domain::Authorization;
use fob::store::{Applied, BundleKey, Store, Write};

use super::Place;
use super::authorize::one_of_each;
use crate::store::sample::*;

/// Fills a store with some of everything; the answer is what was redeemed.
fn fill(store: &impl Store) -> Vec<Authorization> {
    done(store, &world());
    done(
        store,
        &[
            Write::Setting("issuer".into(), "fob".into()),
            Write::Function(FLEET, 300, "crane.lift".into()),
            Write::NewToken(token(1)),
            Write::TrustList(1, [1, 2].into()),
        ],
    );
    let all = one_of_each();
    done(
        store,
        &all.iter().cloned().map(authorize).collect::<Vec<_>>(),
    );
    let redeemed = all[..5].to_vec();
    done(store, &redeemed.iter().map(redeem).collect::<Vec<_>>());
    redeemed
}

fn check(store: &impl Store, rows_before: &[String], redeemed: &[Authorization]) {
    assert_eq!(rows(store), rows_before);
    for authorization in redeemed {
        let found = store
            .bundle(BundleKey::Authorization(authorization.id))
            .unwrap();
        assert_eq!(found, Some(signed_bundle(authorization)));
    }
}

pub(crate) fn everything_is_there_after_opening_again<P: Place>() {
    let place = P::new();
    let store = place.open();
    let redeemed = fill(&store);
    let before = rows(&store);
    drop(store);
    let store = place.open();
    check(&store, &before, &redeemed);
    // And it goes on where it was.
    let next = authorization(200);
    done(&store, &[authorize(next.clone()), redeem(&next)]);
    assert_eq!(commit(&store, &[redeem(&redeemed[0])]), [Applied::Stale]);
}

pub(crate) fn reopening_loses_nothing<P: Place>() {
    let place = P::new();
    let store = place.open();
    let redeemed = fill(&store);
    let before = rows(&store);
    store.reopen().unwrap();
    check(&store, &before, &redeemed);
    let next = authorization(200);
    done(&store, &[authorize(next.clone()), redeem(&next)]);
}

pub(crate) fn a_refused_write_leaves_nothing_and_spares_the_others<P: Place>() {
    let place = P::new();
    let store = place.open();
    done(&store, &world());
    let (good, unknown) = (authorization(1), authorization(2));
    let writes = [
        Write::Setting("a".into(), "1".into()),
        Write::Setting("a".into(), "2".into()),
        redeem(&unknown),
        authorize(good.clone()),
        redeem(&unknown),
        redeem(&good),
    ];
    use Applied::{Conflict, Done, Stale};
    assert_eq!(
        commit(&store, &writes),
        [Done, Conflict, Stale, Done, Stale, Done]
    );
    let found = store.bundle(BundleKey::Authorization(good.id)).unwrap();
    assert_eq!(found, Some(signed_bundle(&good)));
    assert_eq!(store.bundle(BundleKey::Authorization(unknown.id)), Ok(None));
}

pub(crate) fn an_empty_transaction<P: Place>() {
    let place = P::new();
    let store = place.open();
    assert_eq!(store.commit(&[]), Ok(vec![]));
}
