//! The end of what has long been over.

use fob::domain::{Authorization, Token, Window};
use fob::store::{Applied, BundleKey, Request, Row, Store, Write};

use super::Place;
use crate::store::sample::*;

fn ends(number: u8, redeem_by: u64, not_after: u64) -> Authorization {
    let window = Window {
        not_before: 0,
        not_after,
    };
    Authorization {
        redeem_by,
        window,
        ..authorization(number)
    }
}

fn left(store: &impl Store) -> Vec<u8> {
    let found = store.authorizations(&everything()).unwrap();
    found.iter().map(|one| one.id.0[15]).collect()
}

pub(crate) fn only_what_was_over_before<P: Place>() {
    // Around an edge of every width a store may sort times by.
    for edge in [1_000_u64, 1 << 16, 1 << 17, 1_790_000_000] {
        let place = P::new();
        let store = place.open();
        done(&store, &world());
        let both = [
            ends(1, edge - 1, edge - 1),
            ends(2, edge, edge - 1),
            ends(3, edge - 1, edge),
            ends(4, edge, edge),
            ends(5, 1, edge + 1),
            ends(6, edge + 1, 1),
            ends(7, 0, edge - 2),
        ];
        done(&store, &both.map(authorize));
        assert_eq!(
            commit(&store, &[Write::Purge(edge - 2, 9)]),
            [Applied::Purged(0)]
        );
        assert_eq!(
            commit(&store, &[Write::Purge(edge, 9)]),
            [Applied::Purged(2)],
            "{edge}"
        );
        assert_eq!(left(&store), [2, 3, 4, 5, 6]);
        assert_eq!(
            commit(&store, &[Write::Purge(edge + 1, 9)]),
            [Applied::Purged(3)]
        );
        assert_eq!(left(&store), [5, 6]);
    }
}

pub(crate) fn at_most_so_many<P: Place>() {
    let place = P::new();
    let store = place.open();
    done(&store, &world());
    done(
        &store,
        &(0..10)
            .map(|n| authorize(ends(n, 10, 10)))
            .collect::<Vec<_>>(),
    );
    let purge = |at_most| Write::Purge(11, at_most);
    let answers = commit(&store, &[purge(0), purge(4), purge(4), purge(4), purge(4)]);
    assert_eq!(answers, [0, 4, 4, 2, 0].map(Applied::Purged));
    assert!(left(&store).is_empty());
}

pub(crate) fn nothing_is_left_of_it<P: Place>() {
    let place = P::new();
    let store = place.open();
    done(&store, &world());
    let (over, stays) = (ends(1, 10, 10), ends(2, 100, 100));
    let (used, kept) = ([7; 32], [6; 32]);
    let ask = |scope| {
        Some(Request {
            scope,
            digest: [8; 32],
        })
    };
    done(
        &store,
        &[
            authorize_as(over.clone(), ask(used)),
            authorize_as(stays.clone(), ask(kept)),
            redeem(&over),
            redeem(&stays),
        ],
    );
    assert_eq!(commit(&store, &[Write::Purge(50, 9)]), [Applied::Purged(1)]);
    drop(store);
    let store = place.open();
    let bundle = signed_bundle(&over).bundle.id;
    assert_eq!(store.bundle(BundleKey::Id(bundle)), Ok(None));
    assert_eq!(store.bundle(BundleKey::Authorization(over.id)), Ok(None));
    let answers = commit(&store, &[redeem(&over), Write::PinAttempt(over.id, 1)]);
    assert_eq!(answers, [Applied::Stale, Applied::Stale]);
    let answers = commit(
        &store,
        &[
            authorize_as(stays.clone(), ask(kept)),
            authorize_as(over.clone(), ask(used)),
        ],
    );
    assert_eq!(
        answers,
        [Applied::Repeated(stays.id), Applied::Done],
        "its request may come again"
    );
    done(&store, &[redeem(&over)]);
    for authorization in [over, stays] {
        let found = store
            .bundle(BundleKey::Authorization(authorization.id))
            .unwrap();
        assert_eq!(found, Some(signed_bundle(&authorization)));
    }
}

pub(crate) fn tokens<P: Place>() {
    let place = P::new();
    let store = place.open();
    done(&store, &[Write::NewFleet(fleet(FLEET, "first", 1))]);
    let ended = |id, expires_at, revoked_at| {
        Write::NewToken(Token {
            expires_at,
            revoked_at,
            ..token(id)
        })
    };
    done(
        &store,
        &[
            ended(1, None, None),
            ended(2, Some(99), None),
            ended(3, Some(100), None),
            ended(4, None, Some(99)),
            ended(5, Some(900), Some(100)),
            ended(6, Some(900), Some(99)),
        ],
    );
    assert_eq!(
        commit(&store, &[Write::Purge(100, 9)]),
        [Applied::Purged(0)]
    );
    let left: Vec<_> = loaded(&store)
        .into_iter()
        .filter_map(|row| match row {
            Row::Token(token) => Some(token.id.0[0]),
            _ => None,
        })
        .collect();
    assert_eq!(left, [1, 3, 5]);
}
