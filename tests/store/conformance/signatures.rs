//! Signatures counted, beside what is committed.

use std::collections::BTreeMap;
use std::sync::Arc;

use fob::domain::{EpochId, EpochState, KeyChange};
use fob::store::whole::{Entry, Kind, Whole};
use fob::store::{
    Applied, Proof, Recorded, Redemption, Renewal, SignatureCount, SignedBundle, Write,
};

use super::Place;
use super::acts::act;
use super::amend::{amend, changing, mark};
use crate::store::sample::*;

fn id(scalar: u8) -> EpochId {
    epoch(scalar, EpochState::Active).id
}

fn counts(store: &impl Whole) -> BTreeMap<(EpochId, u8), SignatureCount> {
    let mut counts = BTreeMap::new();
    let mut each = |entry| {
        if let Entry::Signatures(count) = entry {
            counts.insert((count.epoch, count.process[0]), count);
        }
        Ok(())
    };
    store.export(Kind::Signatures, &mut each).unwrap();
    counts
}

fn recorded(store: &impl Whole, scalar: u8, process: u8) -> Recorded {
    let counts = counts(store);
    counts
        .get(&(id(scalar), process))
        .map(|count| count.recorded)
        .unwrap_or_default()
}

/// Versions that stand as each epoch signed them.
fn standing(store: &impl Whole) -> BTreeMap<EpochId, u64> {
    let mut versions = BTreeMap::new();
    let mut each = |entry| {
        if let Entry::Bundle(signed, _) = entry {
            *versions.entry(signed.bundle.epoch).or_default() += 1;
        }
        Ok(())
    };
    store.export(Kind::Bundles, &mut each).unwrap();
    versions
}

fn place(order: Redemption) -> Write {
    Write::Redeem(Arc::new(order))
}

fn renew(stands: &SignedBundle, scalar: u8) -> Write {
    let mut signed = stands.clone();
    signed.bundle.epoch = id(scalar);
    signed.proof = Proof::Each(vec![[0xaa; 64]; signed.bundle.keys.len()]);
    let from = stands.bundle.epoch;
    Write::Renew(Arc::new(Renewal { signed, from }))
}

pub(crate) fn what_is_recorded_is_counted<P: Place>() {
    let place_of = P::new();
    let store = place_of.open();
    let (_, change) = changing(&store);
    let mut sister = order(3, None);
    // Of the same tree as the other.
    let (Proof::Tree(one), Proof::Tree(other)) =
        (&order(2, None).signed.proof, &mut sister.signed.proof)
    else {
        panic!("both are in trees");
    };
    other.signature = one.signature;
    let redeemed = authorization(40);
    let shard = mark(0, KeyChange::Revoke).shard;
    let writes = [
        authorize(redeemed.clone()),
        redeem(&redeemed),
        // Its conditions hold no more.
        redeem(&redeemed),
        place(order(2, None)),
        place(sister),
        place(order(4, None)),
        Write::Lists([given_out(shard, 5, 50)].into()),
        so_far(1, 10),
    ];
    let answers = commit(&store, &writes);
    assert_eq!(answers[2], Applied::Stale);
    let mut expected = Recorded {
        keys: 2,
        trees: 2,
        lists: 1,
        versions: 4,
        gone: 0,
    };
    assert_eq!(recorded(&store, 9, 1), expected);
    // What is said replaces what was said, and what is recorded is added.
    commit(&store, &[amend(change), so_far(1, 20)]);
    expected.keys += 1;
    expected.versions += 1;
    assert_eq!(recorded(&store, 9, 1), expected);
    let Write::Signed(said) = so_far(1, 20) else {
        panic!("it says so");
    };
    assert_eq!(counts(&store)[&(id(9), 1)].made, said.made[0].1);
    // Another process has a row of its own.
    let refused = redeem(&redeemed).as_act(act(FLEET, 1, "x", "y"));
    commit(&store, &[refused, place(order(5, None)), so_far(2, 1)]);
    assert_eq!(recorded(&store, 9, 1), expected);
    assert_eq!(recorded(&store, 9, 2).trees, 1);
    assert_eq!(recorded(&store, 9, 2).versions, 1);
    drop(store);
    let store = place_of.open();
    assert_eq!(recorded(&store, 9, 1), expected);
    assert_eq!(counts(&store).len(), 2);
    let mut lists = Vec::new();
    let mut each = |list| {
        lists.push(list);
        Ok(())
    };
    store.lists_given_out(&mut each).unwrap();
    assert_eq!(lists, [given_out(shard, 5, 50)]);
}

pub(crate) fn what_goes_is_counted<P: Place>() {
    let place_of = P::new();
    let store = place_of.open();
    // One bundle is there that nobody has counted.
    let (first, change) = changing(&store);
    let second = change.reissue.clone().unwrap().signed;
    let ordered: Vec<_> = (2..5).map(|number| order(number, None)).collect();
    let mut writes: Vec<_> = ordered.iter().cloned().map(place).collect();
    writes.extend([amend(change), so_far(1, 1)]);
    commit(&store, &writes);
    let holds = |store: &P::Store| {
        let standing = standing(store);
        for scalar in [9, 10] {
            let rows = counts(store);
            let of = rows.values().filter(|it| it.epoch == id(scalar));
            let left: i64 = of
                .map(|it| it.recorded.versions as i64 - it.recorded.gone as i64)
                .sum();
            let stands = standing.get(&id(scalar)).copied().unwrap_or(0);
            let uncounted = i64::from(scalar == 9);
            assert_eq!(stands as i64, left + uncounted, "epoch {scalar}");
        }
    };
    assert_eq!(standing(&store)[&id(9)], 5);
    holds(&store);
    done(
        &store,
        &[
            Write::Epoch(epoch(9, EpochState::Revoked)),
            Write::Epoch(epoch(10, EpochState::Active)),
        ],
    );
    // The first issue of one, a later version of another; the same renewal is done once.
    let again = renew(&ordered[0].signed, 10);
    let renewals = [again.clone(), again, renew(&second, 10), so_far(1, 2)];
    let answers = commit(&store, &renewals);
    assert_eq!(answers[1], Applied::Stale);
    assert_eq!(recorded(&store, 9, 1).gone, 2);
    assert_eq!(recorded(&store, 10, 1).versions, 2);
    assert_eq!(standing(&store)[&id(10)], 2);
    holds(&store);
    drop(store);
    // Everything but one order is over, in two goes.
    let store = place_of.open();
    let mut lives = order(7, None);
    lives.signed.bundle.window.not_after = 1 << 20;
    lives.signed.bundle.epoch = id(10);
    done(&store, &[place(lives), so_far(1, 3)]);
    let purged = commit(&store, &[Write::Purge(1 << 19, 2), so_far(2, 0)]);
    assert_eq!(purged[0], Applied::Purged(2));
    let purged = commit(&store, &[so_far(2, 0), Write::Purge(1 << 19, 9)]);
    assert_eq!(purged[1], Applied::Purged(2));
    let standing = standing(&store);
    assert_eq!(standing.get(&first.bundle.epoch), None, "nothing is left");
    assert_eq!(standing.get(&id(10)), Some(&1));
    let gone: u64 = counts(&store).values().map(|it| it.recorded.gone).sum();
    assert_eq!(gone, 2 + 5, "that nobody has counted is among them");
}

pub(crate) fn a_transaction_without_it_is_not_counted<P: Place>() {
    let place_of = P::new();
    let store = place_of.open();
    changing(&store);
    done(&store, &[place(order(2, None))]);
    assert!(counts(&store).is_empty());
    // With nothing beside it, it is kept all the same.
    done(&store, &[so_far(3, 8)]);
    assert_eq!(counts(&store)[&(id(9), 3)].made.signed, 8);
    let frozen = Write::PinRight(authorization_id(99), 1);
    assert_eq!(
        commit(&store, &[frozen, so_far(3, 9)]),
        [Applied::Stale, Applied::Done]
    );
    assert_eq!(counts(&store)[&(id(9), 3)].made.signed, 9);
}
