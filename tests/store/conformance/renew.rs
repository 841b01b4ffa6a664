//! Bundles signed again as they are, under another epoch.

use std::sync::Arc;

use fob::domain::{BundleId, EpochId, EpochState};
use fob::store::{Applied, BundleKey, Proof, Redemption, Renewal, SignedBundle, Store, Write};

use super::Place;
use super::amend::{amend, changing};
use crate::store::sample::*;

/// A moment at which everything here is live, and one at which nothing is.
const LIVE: u64 = 199;
const OVER: u64 = 200;

fn id(scalar: u8) -> EpochId {
    epoch(scalar, EpochState::Active).id
}

/// The epoch of scalar 9 is revoked, the one of scalar 10 follows.
fn revoked() -> [Write; 2] {
    [
        Write::Epoch(epoch(9, EpochState::Revoked)),
        Write::Epoch(epoch(10, EpochState::Active)),
    ]
}

/// A bundle as the epoch of scalar 10 signs it.
fn renewed(stands: &SignedBundle) -> SignedBundle {
    let mut signed = stands.clone();
    signed.bundle.epoch = id(10);
    signed.bundle.issued_at = 90;
    signed.proof = Proof::Each(vec![[0xaa; 64]; signed.bundle.keys.len()]);
    signed
}

fn renewal(stands: &SignedBundle) -> Renewal {
    Renewal {
        signed: renewed(stands),
        from: stands.bundle.epoch,
    }
}

fn renew(renewal: Renewal) -> Write {
    Write::Renew(Arc::new(renewal))
}

fn place(order: Redemption) -> Write {
    Write::Redeem(Arc::new(order))
}

/// What stands as an epoch signed it, in so small steps.
fn signed_by(store: &impl Store, scalar: u8, now: u64, at_most: u32) -> Vec<BundleId> {
    let (mut ids, mut after) = (Vec::new(), None);
    loop {
        let found = store.signed_by(id(scalar), now, after.as_ref(), at_most);
        let found = found.unwrap();
        ids.extend(found.bundles.iter().map(|it| it.bundle.id));
        for one in &found.bundles {
            let stands = store.bundle(BundleKey::Id(one.bundle.id)).unwrap();
            assert_eq!(stands.as_ref(), Some(one));
        }
        after = found.next;
        if after.is_none() {
            ids.sort_unstable();
            return ids;
        }
    }
}

pub(crate) fn a_renewal_comes_back_whole<P: Place>() {
    let place_of = P::new();
    let store = place_of.open();
    let (first, change) = changing(&store);
    let second = change.reissue.clone().unwrap().signed;
    done(&store, &[place(order(2, None))]);
    assert_eq!(commit(&store, &[amend(change)]), [Applied::Amended(1)]);
    done(&store, &revoked());
    let ordered = order(2, None).signed;
    let stand = [second, ordered];
    let new = stand.each_ref().map(renewed);
    let before = rows(&store);
    done(&store, &stand.each_ref().map(|it| renew(renewal(it))));
    assert_eq!(rows(&store), before, "nothing else is another");
    drop(store);
    let store = place_of.open();
    for one in &new {
        for by in [
            BundleKey::Id(one.bundle.id),
            BundleKey::Authorization(one.bundle.authorization),
        ] {
            assert_eq!(store.bundle(by).unwrap().as_ref(), Some(one));
        }
    }
    // What went before the version that stands is as it was.
    let versions = |at: usize| store.versions(new[at].bundle.id).unwrap();
    assert_eq!(versions(0), [first, new[0].clone()]);
    assert_eq!(versions(1), [new[1].clone()]);
}

pub(crate) fn each_condition_of_a_renewal_counts<P: Place>() {
    let place_of = P::new();
    let store = place_of.open();
    let (first, change) = changing(&store);
    let renewal = renewal(&first);
    let by_revoked = renew(renewal.clone());
    // Nobody knows the epoch that signs.
    assert_eq!(commit(&store, &[by_revoked]), [Applied::Stale]);
    done(&store, &revoked());
    let other = |with: &dyn Fn(&mut Renewal)| {
        let mut other = renewal.clone();
        with(&mut other);
        renew(other)
    };
    let stale = [
        other(&|it| it.from = id(10)),
        other(&|it| it.from = id(11)),
        other(&|it| it.signed.bundle.epoch = id(9)),
        other(&|it| it.signed.bundle.epoch = id(11)),
        other(&|it| it.signed.bundle.version = 2),
        other(&|it| it.signed.bundle.id = BundleId([0x77; 16])),
    ];
    assert_eq!(commit(&store, &stale), vec![Applied::Stale; stale.len()]);
    assert_eq!(signed_by(&store, 9, LIVE, 10), [first.bundle.id]);
    // Twice is once.
    let twice = [renew(renewal.clone()), renew(renewal.clone())];
    assert_eq!(commit(&store, &twice), [Applied::Done, Applied::Stale]);
    assert_eq!(
        commit(&store, &[renew(renewal.clone())]),
        [Applied::Stale],
        "or later"
    );
    // A change goes on from it, and then there is another version to be signed.
    let mut change = change;
    change.reissue.as_mut().unwrap().signed.bundle.epoch = id(10);
    assert_eq!(commit(&store, &[amend(change)]), [Applied::Amended(1)]);
    done(&store, &[Write::Epoch(epoch(10, EpochState::Revoked))]);
    done(&store, &[Write::Epoch(epoch(11, EpochState::Active))]);
    let mut late = renewal;
    (late.from, late.signed.bundle.epoch) = (id(10), id(11));
    assert_eq!(commit(&store, &[renew(late)]), [Applied::Stale]);
}

pub(crate) fn what_an_epoch_has_signed_is_found<P: Place>() {
    let place_of = P::new();
    let store = place_of.open();
    let (first, change) = changing(&store);
    let orders: Vec<_> = (10..14).map(|number| order(number, None)).collect();
    let all: Vec<_> = orders.iter().map(|it| it.signed.clone()).collect();
    for one in orders {
        done(&store, &[place(one)]);
    }
    let ids = |of: &[SignedBundle]| {
        let mut ids: Vec<_> = of.iter().map(|it| it.bundle.id).collect();
        ids.push(first.bundle.id);
        ids.sort_unstable();
        ids
    };
    let found = |scalar, expected: &[BundleId]| {
        for at_most in [1, 2, 100] {
            assert_eq!(signed_by(&store, scalar, LIVE, at_most), expected);
            assert_eq!(signed_by(&store, scalar, OVER, at_most), []);
        }
    };
    found(9, &ids(&all));
    found(10, &[]);
    // A version that was issued again stands for those before it.
    assert_eq!(commit(&store, &[amend(change)]), [Applied::Amended(1)]);
    assert_eq!(signed_by(&store, 9, 179, 1), ids(&all));
    done(&store, &revoked());
    done(
        &store,
        &all[..2]
            .iter()
            .map(|it| renew(renewal(it)))
            .collect::<Vec<_>>(),
    );
    assert_eq!(signed_by(&store, 9, 179, 1), ids(&all[2..]));
    let mut two: Vec<_> = all[..2].iter().map(|it| it.bundle.id).collect();
    two.sort_unstable();
    found(10, &two);
}

pub(crate) fn renewed_bundles_are_purged_when_they_are_over<P: Place>() {
    let place_of = P::new();
    let store = place_of.open();
    done(&store, &world());
    let redeemed = authorization(1);
    done(&store, &[authorize(redeemed.clone()), redeem(&redeemed)]);
    done(&store, &[place(order(2, None))]);
    done(&store, &revoked());
    let stand = [signed_bundle(&redeemed), order(2, None).signed];
    done(&store, &stand.each_ref().map(|it| renew(renewal(it))));
    assert_eq!(
        commit(&store, &[Write::Purge(OVER + 1, 9)]),
        [Applied::Purged(2)]
    );
    assert_eq!(signed_by(&store, 10, 0, 9), []);
    for one in &stand {
        let id = one.bundle.id;
        assert_eq!(store.bundle(BundleKey::Id(id)).unwrap(), None);
        assert_eq!(store.versions(id).unwrap(), []);
    }
}
