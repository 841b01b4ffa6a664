//! New authorizations, and attempts at their PINs.

use std::sync::Arc;

use fob::domain::{Author, Authorization, AuthorizationState, Recipient, Restrictions, Signing};
use fob::store::{AmendRequest, Applied, NewAuthorization, Request, Row, Store, Write};
use fob_verify::region::{Circle, Polygon, Position, Region};
use fob_verify::window::{Recurring, Window as Weekly};

use super::Place;
use crate::store::sample::*;

/// One authorization for each thing that may be present or absent.
pub(super) fn one_of_each() -> Vec<Authorization> {
    let position = |lat, lon| Position::new(lat, lon).unwrap();
    let circle = Circle::new(position(-900_000_000, 1_800_000_000), 1).unwrap();
    let corners: Vec<_> = (0..16)
        .map(|n| position(n * n * 1000, n * 100_000))
        .collect();
    let polygon = Polygon::new(&corners).unwrap();
    let weekly = |offset| Weekly::new(0x7f, 1439, 0, offset).unwrap();
    let some = |number, change: &dyn Fn(&mut Authorization)| {
        let mut authorization = authorization(number);
        change(&mut authorization);
        authorization
    };
    let restricted = |number, change: &dyn Fn(&mut Restrictions)| {
        let mut restrictions = Restrictions::default();
        change(&mut restrictions);
        Authorization {
            restrictions: restrictions.boxed(),
            ..authorization(number)
        }
    };
    vec![
        some(1, &|_| ()),
        restricted(2, &|r| r.region = Some(Box::new(Region::Circle(circle)))),
        restricted(3, &|r| r.region = Some(Box::new(Region::Polygon(polygon)))),
        restricted(4, &|r| {
            r.recurring = Some(Box::new(
                Recurring::new(&[weekly(-720), weekly(840)]).unwrap(),
            ))
        }),
        restricted(5, &|r| r.max_uses = [(1, u32::MAX), (3, 1)].into()),
        restricted(6, &|r| {
            r.recipient.identity = Some(identity_id("+49:a~b@c"))
        }),
        restricted(7, &|r| r.recipient.terminal = Some(terminal_id("phone"))),
        some(8, &|a| a.pin = true),
        some(9, &|a| a.signing = Some(Signing::Each)),
        some(10, &|a| a.signing = Some(Signing::Auto)),
        some(11, &|a| a.author = Author::Terminal(terminal_id("phone"))),
        some(12, &|a| a.functions = (1..=64).collect()),
        some(13, &|a| a.version = 0xfff),
        some(14, &|a| {
            (a.redeem_by, a.window.not_after) = (253_402_300_799, 253_402_300_799)
        }),
        restricted(15, &|r| {
            r.recipient = Recipient {
                identity: Some(identity_id("ben")),
                key: Some(holder(9)),
                ..Recipient::default()
            }
        }),
    ]
}

pub(crate) fn every_field_comes_back<P: Place>() {
    let place = P::new();
    let store = place.open();
    done(&store, &world());
    let mut expected = one_of_each();
    for (number, state) in (20..).zip(AuthorizationState::ALL) {
        expected.push(Authorization {
            state,
            ..authorization(number)
        });
    }
    done(
        &store,
        &expected.iter().cloned().map(authorize).collect::<Vec<_>>(),
    );
    assert_eq!(store.authorizations(&everything()).unwrap(), expected);
    let loaded: Vec<_> = loaded(&store)
        .into_iter()
        .filter_map(|row| match row {
            Row::Authorization(authorization) => Some(authorization),
            _ => None,
        })
        .collect();
    assert_eq!(loaded, expected);
}

pub(crate) fn an_id_is_taken_once<P: Place>() {
    let place = P::new();
    let store = place.open();
    done(&store, &world());
    let other = Authorization {
        vehicle: vehicle_id("V-2"),
        ..authorization(1)
    };
    let answers = commit(&store, &[authorize(authorization(1)), authorize(other)]);
    assert_eq!(answers, [Applied::Done, Applied::Conflict]);
    assert_eq!(
        store.authorizations(&everything()).unwrap(),
        [authorization(1)]
    );
}

pub(crate) fn the_same_request_gets_the_same_answer<P: Place>() {
    let place = P::new();
    let store = place.open();
    done(&store, &world());
    // Scopes that begin alike are still two.
    let request = Request {
        scope: [7; 32],
        digest: [8; 32],
    };
    let mut neighbour = request;
    neighbour.scope[31] = 0;
    let first = Applied::Repeated(authorization_id(1));
    let other_digest = Request {
        digest: [9; 32],
        ..request
    };
    let ask = |number, request| authorize_as(authorization(number), Some(request));
    let answers = commit(
        &store,
        &[
            ask(1, request),
            ask(2, request),
            ask(3, other_digest),
            ask(4, neighbour),
            ask(5, neighbour),
        ],
    );
    let second = Applied::Repeated(authorization_id(4));
    let unused = Request {
        scope: [6; 32],
        ..request
    };
    let recalled = commit(
        &store,
        &[request, other_digest, neighbour, unused].map(Write::Recall),
    );
    assert_eq!(recalled, [first, Applied::Conflict, second, Applied::Done]);
    assert_eq!(
        answers,
        [
            Applied::Done,
            first,
            Applied::Conflict,
            Applied::Done,
            second
        ]
    );
    place.suspend_fleet(FLEET);
    drop(store);
    let store = place.open();
    let answers = commit(&store, &[ask(6, request), ask(7, other_digest)]);
    assert_eq!(
        answers,
        [first, Applied::Conflict],
        "whatever has happened since"
    );
    let expected = [authorization(1), authorization(4)];
    assert_eq!(store.authorizations(&everything()).unwrap(), expected);
}

pub(crate) fn a_refused_request_is_not_used_up<P: Place>() {
    let place = P::new();
    let store = place.open();
    done(&store, &world());
    let request = Some(Request {
        scope: [7; 32],
        digest: [8; 32],
    });
    let unknown = Authorization {
        vehicle: vehicle_id("V-3"),
        ..authorization(1)
    };
    let answers = commit(
        &store,
        &[
            authorize_as(unknown.clone(), request),
            Write::Vehicle(vehicle("V-3")),
            authorize_as(unknown, request),
        ],
    );
    assert_eq!(answers, [Applied::Stale, Applied::Done, Applied::Done]);
}

/// An authorization by a request of its own, that answers a borrower's.
fn answering(number: u8, digest: u8) -> NewAuthorization {
    let request = |scope: u8, digest: u8| Request {
        scope: [scope; 32],
        digest: [digest; 32],
    };
    let own = request(100 + number, 1);
    let Write::Authorize(new) = authorize_as(authorization(number), Some(own)) else {
        unreachable!("it authorizes");
    };
    NewAuthorization {
        answers: Some(AmendRequest {
            request: request(7, digest),
            command: Some("header.request.signature".into()),
            made_at: 50,
            outcome: vec![1],
        }),
        ..*new
    }
}

pub(crate) fn a_borrowers_request_is_answered_once<P: Place>() {
    let place = P::new();
    let store = place.open();
    done(&store, &world());
    let ask = |number, digest| Write::Authorize(Box::new(answering(number, digest)));
    let unknown = NewAuthorization {
        authorization: Arc::new(Authorization {
            vehicle: vehicle_id("V-3"),
            ..authorization(9)
        }),
        ..answering(9, 8)
    };
    let answers = commit(
        &store,
        &[
            Write::Authorize(Box::new(unknown)),
            ask(1, 8),
            ask(2, 8),
            ask(3, 9),
            ask(1, 8),
        ],
    );
    let expected = [
        Applied::Stale,
        Applied::Done,
        Applied::Spent,
        Applied::Spent,
        Applied::Repeated(authorization_id(1)),
    ];
    assert_eq!(answers, expected);
    drop(store);
    let store = place.open();
    assert_eq!(commit(&store, &[ask(4, 8)]), [Applied::Spent]);
    let kept = store.authorizations(&everything()).unwrap();
    assert_eq!(kept, [authorization(1)]);
    // It goes with the authorization that answered it.
    let over = authorization(1).window.not_after + 1;
    assert_eq!(
        commit(&store, &[Write::Purge(over, 10)]),
        [Applied::Purged(1)]
    );
    assert_eq!(commit(&store, &[ask(4, 8)]), [Applied::Done]);
}

pub(crate) fn attempts_are_counted_up_to_the_limit<P: Place>() {
    let place = P::new();
    let store = place.open();
    done(&store, &world());
    done(
        &store,
        &[authorize(authorization(1)), authorize(authorization(2))],
    );
    let attempt = |number, version| Write::PinAttempt(authorization_id(number), version);
    for expected in [1, 2, 3] {
        assert_eq!(
            commit(&store, &[attempt(1, 1)]),
            [Applied::PinAttempts(expected)]
        );
    }
    drop(store);
    let store = place.open();
    let answers = commit(
        &store,
        &[attempt(1, 1), attempt(1, 1), attempt(1, 1), attempt(1, 1)],
    );
    assert_eq!(answers, [4, 5, 6, 6].map(Applied::PinAttempts));
    let answers = commit(&store, &[attempt(2, 1), attempt(1, 2), attempt(3, 1)]);
    assert_eq!(
        answers,
        [Applied::PinAttempts(1), Applied::Stale, Applied::Stale]
    );
    let right = |number, version| Write::PinRight(authorization_id(number), version);
    let answers = commit(
        &store,
        &[right(1, 2), right(3, 1), right(1, 1), attempt(1, 1)],
    );
    assert_eq!(
        answers,
        [
            Applied::Stale,
            Applied::Stale,
            Applied::Done,
            Applied::PinAttempts(1)
        ]
    );
}
