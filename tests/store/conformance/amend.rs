//! Changes and ends of what was authorized and issued.

use std::sync::Arc;

use fob::domain::{
    Amended, Author, Authorization, AuthorizationId, AuthorizationState, BundleId, IdentityId,
    KeyChange, Mark, Reason, ShardId, Status, Terminal, VehicleId, Window,
};
use fob::store::{
    AmendRequest, Amendment, Applied, BundleKey, Contact, Listed, Redemption, Reissue, ReliedOn,
    Request, Reset, Row, Sent, SignedBundle, Store, Write,
};

use super::Place;
use crate::store::sample::*;

const SHARD: ShardId = ShardId { tag: 1, number: 0 };

pub(super) fn mark(index: u32, change: KeyChange) -> Mark {
    Mark {
        shard: SHARD,
        index,
        change,
        ends: 1 << 20,
    }
}

/// A change of an authorization, redeemed, at version 1: function 3 goes, and it ends sooner.
fn changed(before: &Authorization) -> Authorization {
    Authorization {
        version: 2,
        functions: [1].into(),
        window: Window {
            not_before: 100,
            not_after: 180,
        },
        ..before.clone()
    }
}

/// Redeemed with the code set of version 1.
fn redeemed(before: &Authorization) -> Authorization {
    let mut after = Authorization {
        state: AuthorizationState::Redeemed,
        redeemed: true,
        ..before.clone()
    };
    after.set_amended(Some(Amended {
        revision: 1,
        code_set: Some((1, [1, 3].into())),
    }));
    after
}

/// The bundle of `first` at the version of `authorization`.
fn again(first: &SignedBundle, authorization: &Authorization) -> Reissue {
    let mut signed = signed_bundle(authorization);
    signed.bundle.id = first.bundle.id;
    signed.bundle.authorization = first.bundle.authorization;
    signed.bundle.issued_at = 70;
    Reissue {
        signed,
        terminal: None,
        status_next: 9,
        changed: true,
        relies_on: ReliedOn::default(),
    }
}

/// Of one that has not been amended before.
pub(super) fn amendment(
    (version, state): (u32, AuthorizationState),
    to: Authorization,
) -> Amendment {
    Amendment {
        authorization: Arc::new(to),
        from: (version, state, 0),
        reissue: None,
        marks: Vec::new(),
        by: None,
        request: None,
    }
}

pub(super) fn amend(amendment: Amendment) -> Write {
    Write::Amend(Arc::new(amendment))
}

pub(super) fn asked(scope: u8, digest: u8) -> Option<AmendRequest> {
    Some(AmendRequest {
        request: Request {
            scope: [scope; 32],
            digest: [digest; 32],
        },
        command: Some("header.command.signature".into()),
        made_at: 80,
        outcome: vec![scope, digest],
    })
}

/// A world with authorization 1, redeemed, and the change of it.
pub(super) fn changing(store: &impl Store) -> (SignedBundle, Amendment) {
    done(store, &world());
    let before = authorization(1);
    done(store, &[authorize(before.clone()), redeem(&before)]);
    let first = signed_bundle(&before);
    let after = redeemed(&changed(&before));
    let mut change = amendment((1, AuthorizationState::Redeemed), after.clone());
    change.reissue = Some(again(&first, &after));
    change.marks = vec![mark(7, KeyChange::Revoke)];
    (first, change)
}

pub(crate) fn an_amendment_comes_back_whole<P: Place>() {
    let place = P::new();
    let store = place.open();
    let (first, mut change) = changing(&store);
    change.request = asked(3, 4);
    let after = Authorization::clone(&change.authorization);
    let second = change.reissue.clone().unwrap().signed;
    assert_eq!(commit(&store, &[amend(change)]), [Applied::Amended(1)]);
    let look = |store: &P::Store| {
        assert_eq!(
            store.authorizations(&everything()).unwrap(),
            std::slice::from_ref(&after)
        );
        for by in [
            BundleKey::Id(first.bundle.id),
            BundleKey::Authorization(after.id),
        ] {
            assert_eq!(store.bundle(by).unwrap().as_ref(), Some(&second), "{by:?}");
        }
        let versions = store.versions(first.bundle.id).unwrap();
        assert_eq!(versions, [first.clone(), second.clone()]);
        assert_eq!(store.outcome(&[3; 32]).unwrap(), Some(vec![3, 4]));
        assert_eq!(store.outcome(&[4; 32]).unwrap(), None);
        let rows = loaded(store);
        let next = rows.iter().find_map(|row| match row {
            Row::Fleet(fleet) if fleet.id == FLEET => Some(fleet.status_next),
            _ => None,
        });
        assert_eq!(next, Some(9));
        assert!(
            rows.iter()
                .any(|row| matches!(row, Row::Authorization(it) if *it == after))
        );
        assert!(rows.iter().any(|row| matches!(row, Row::Revision(1))));
        let marked = rows.iter().find_map(|row| match row {
            Row::Status(mark) => Some(*mark),
            _ => None,
        });
        assert_eq!(marked, Some(mark(7, KeyChange::Revoke)));
    };
    look(&store);
    drop(store);
    look(&place.open());
}

pub(crate) fn each_condition_of_an_amendment_counts<P: Place>() {
    let place = P::new();
    let store = place.open();
    let (_, change) = changing(&store);
    let by = |terminal: &str| Amendment {
        by: Some(terminal_id(terminal)),
        ..change.clone()
    };
    let with = |alter: &dyn Fn(&mut Reissue)| {
        let mut reissue = change.reissue.clone().unwrap();
        alter(&mut reissue);
        Amendment {
            reissue: Some(reissue),
            ..change.clone()
        }
    };
    let of = |alter: &dyn Fn(&mut Authorization)| {
        let mut authorization = Authorization::clone(&change.authorization);
        alter(&mut authorization);
        Amendment {
            authorization: Arc::new(authorization),
            ..change.clone()
        }
    };
    let from = |version, state, revision| Amendment {
        from: (version, state, revision),
        ..change.clone()
    };
    let before = rows(&store);
    for (why, stale) in [
        ("version", from(2, AuthorizationState::Redeemed, 0)),
        ("state", from(1, AuthorizationState::Open, 0)),
        ("revision", from(1, AuthorizationState::Redeemed, 1)),
        ("fleet", of(&|it| it.fleet = OTHER_FLEET)),
        ("id", of(&|it| it.id.0[5] = 9)),
        ("terminal that commands", by("none")),
        (
            "vehicle epoch",
            with(&|it| it.signed.bundle.vehicle_epoch = 5),
        ),
        ("epoch", with(&|it| it.signed.bundle.epoch.0[0] ^= 1)),
        (
            "terminal",
            with(&|it| it.terminal = Some(terminal_id("none"))),
        ),
        ("bundle", with(&|it| it.signed.bundle.id.0[5] ^= 1)),
    ] {
        assert_eq!(commit(&store, &[amend(stale)]), [Applied::Stale], "{why}");
        assert_eq!(rows(&store), before, "{why} leaves nothing");
    }
    // An end issues nothing, and needs nobody's leave.
    let end = Authorization {
        state: AuthorizationState::Cancelled,
        redeemed: true,
        ..authorization(1)
    };
    let end = amendment((1, AuthorizationState::Redeemed), end);
    done(&store, &[suspend_vehicle("V-1")]);
    assert_eq!(commit(&store, &[amend(end)]), [Applied::Amended(1)]);
}

pub(crate) fn redemption_and_change_exclude_each_other<P: Place>() {
    let store = P::new().open();
    done(&store, &world());
    for number in [1, 2] {
        done(&store, &[authorize(authorization(number))]);
    }
    let change = |number| {
        let to = changed(&authorization(number));
        amend(amendment((1, AuthorizationState::Open), to))
    };
    let redeem = |number| redeem(&authorization(number));
    let applied = commit(&store, &[change(1), redeem(1)]);
    assert_eq!(applied, [Applied::Amended(1), Applied::Stale]);
    assert_eq!(
        commit(&store, &[redeem(2), change(2)]),
        [Applied::Done, Applied::Stale]
    );
    let versions: Vec<_> = store
        .authorizations(&everything())
        .unwrap()
        .into_iter()
        .map(|it| (it.version, it.state))
        .collect();
    assert_eq!(
        versions,
        [
            (2, AuthorizationState::Open),
            (1, AuthorizationState::Redeemed)
        ]
    );
}

pub(crate) fn the_same_amendment_is_answered_once<P: Place>() {
    let store = P::new().open();
    let (_, mut change) = changing(&store);
    change.request = asked(3, 4);
    let id = change.authorization.id;
    let writes = [amend(change.clone()), amend(change.clone())];
    assert_eq!(
        commit(&store, &writes),
        [Applied::Amended(1), Applied::Repeated(id)]
    );
    change.request = asked(3, 5);
    assert_eq!(commit(&store, &[amend(change)]), [Applied::Conflict]);
    let request = |digest| Request {
        scope: [3; 32],
        digest: [digest; 32],
    };
    let other = |digest| authorize_as(authorization(2), Some(request(digest)));
    assert_eq!(commit(&store, &[other(9)]), [Applied::Conflict]);
    assert_eq!(
        commit(&store, &[Write::Recall(request(4))]),
        [Applied::Repeated(id)]
    );
}

pub(crate) fn an_order_gets_a_row_when_it_is_amended<P: Place>() {
    let place = P::new();
    let store = place.open();
    done(&store, &world());
    let order = order(1, None);
    done(&store, &[Write::Redeem(Arc::new(order.clone()))]);
    let before = ordered(&order);
    let mut after = changed(&before);
    after.redeem_by = after.window.not_after;
    let mut change = amendment((1, AuthorizationState::Redeemed), after.clone());
    change.reissue = Some(again(&order.signed, &after));
    let second = change.reissue.clone().unwrap().signed;
    let stale = Amendment {
        from: (1, AuthorizationState::Open, 0),
        ..change.clone()
    };
    assert_eq!(commit(&store, &[amend(stale)]), [Applied::Stale]);
    assert_eq!(commit(&store, &[amend(change)]), [Applied::Amended(1)]);
    after.set_amended(Some(Amended {
        revision: 1,
        code_set: None,
    }));
    let mut of_vehicle = everything();
    of_vehicle.vehicle = Some(vehicle_id("V-1"));
    let mut of_id = everything();
    of_id.id = Some(after.id);
    let mut of_state = everything();
    of_state.state = Some(AuthorizationState::Redeemed);
    for filter in [everything(), of_vehicle, of_id, of_state] {
        assert_eq!(
            store.authorizations(&filter).unwrap(),
            [after.clone()],
            "{filter:?}"
        );
    }
    let id = order.signed.bundle.id;
    assert_eq!(
        store.bundle(BundleKey::Id(id)).unwrap(),
        Some(second.clone())
    );
    let by = BundleKey::Authorization(AuthorizationId(id.0));
    assert_eq!(store.bundle(by).unwrap(), Some(second));
    let held = store.held_by(FLEET, &identity_id("ben")).unwrap();
    assert_eq!(held, [after.id]);
    assert!(
        store
            .held_by(OTHER_FLEET, &identity_id("ben"))
            .unwrap()
            .is_empty()
    );
}

pub(crate) fn a_reset_is_done_whole_or_not_at_all<P: Place>() {
    let store = P::new().open();
    let (_, change) = changing(&store);
    let at = |epoch| {
        let mut change = change.clone();
        let reissue = change.reissue.as_mut().unwrap();
        reissue.signed.bundle.vehicle_epoch = epoch;
        Arc::new(change)
    };
    let mut handed_over = vehicle("V-1");
    (handed_over.model, handed_over.owner) = ("other".into(), Some(identity_id("anna")));
    (handed_over.epoch, handed_over.status) = (9, Status::Suspended);
    let reset = |from, amendments: Vec<_>| {
        Write::Reset(Arc::new(Reset {
            fleet: FLEET,
            vehicle: vehicle_id("V-1"),
            from,
            amendments,
            becomes: Some(handed_over.clone()),
            by: None,
            request: asked(6, 6),
        }))
    };
    let mut stale = Amendment::clone(&at(5));
    stale.from.0 = 7;
    let before = rows(&store);
    for writes in [
        reset(3, vec![]),
        reset(4, vec![at(4)]),
        reset(4, vec![at(5), Arc::new(stale)]),
    ] {
        assert_eq!(
            commit(&store, std::slice::from_ref(&writes)),
            [Applied::Stale]
        );
        assert_eq!(rows(&store), before);
    }
    let late = Write::Redeem(Arc::new(redemption(&authorization(2))));
    let by_ben = |number| {
        let mut authorization = authorization(number);
        authorization.author = Author::Terminal(terminal_id("phone"));
        authorize(authorization)
    };
    let writes = [by_ben(2), reset(4, vec![at(5)]), late, by_ben(3)];
    let applied = commit(&store, &writes);
    let (done, stale) = (Applied::Done, Applied::Stale);
    assert_eq!(
        applied,
        [done, Applied::Amended(1), stale, stale],
        "it is anna's by then"
    );
    let found = loaded(&store).into_iter().find_map(|row| match row {
        Row::Vehicle(vehicle) if vehicle.id == vehicle_id("V-1") => Some(vehicle),
        _ => None,
    });
    let mut expected = handed_over.clone();
    (expected.epoch, expected.status) = (5, Status::Active);
    assert_eq!(found, Some(expected));
    let repeated = Applied::Repeated(AuthorizationId([0; 16]));
    assert_eq!(commit(&store, &[reset(5, vec![])]), [repeated]);
}

pub(crate) fn what_is_revoked_stays_so<P: Place>() {
    use KeyChange::{Resume, Revoke, Suspend};
    use Reason::{Authorization as Whole, Function, Vehicle};
    let place = P::new();
    let store = place.open();
    changing(&store);
    let steps = [
        (
            AuthorizationState::Suspended,
            vec![mark(1, Suspend(Whole)), mark(2, Suspend(Whole))],
        ),
        (
            AuthorizationState::Redeemed,
            vec![
                mark(2, Revoke),
                mark(3, Resume(Whole)),
                mark(4, Suspend(Function)),
                mark(4, Suspend(Vehicle)),
            ],
        ),
        (
            AuthorizationState::Suspended,
            vec![
                mark(1, Resume(Whole)),
                mark(2, Resume(Whole)),
                mark(2, Suspend(Whole)),
                mark(4, Resume(Whole)),
                mark(4, Resume(Function)),
            ],
        ),
    ];
    let mut from = (1, AuthorizationState::Redeemed, 0);
    for (state, marks) in steps {
        let to = Authorization {
            state,
            redeemed: true,
            ..authorization(1)
        };
        let step = Amendment {
            marks,
            from,
            ..amendment((1, state), to)
        };
        let revision = from.2 + 1;
        assert_eq!(commit(&store, &[amend(step)]), [Applied::Amended(revision)]);
        from = (1, state, revision);
    }
    drop(store);
    let expected = [mark(2, Revoke), mark(4, Suspend(Vehicle))];
    assert_eq!(marked(&place.open()), expected);
}

/// What was done to keys that are not valid.
pub(super) fn marked(store: &impl Store) -> Vec<Mark> {
    let rows = loaded(store).into_iter();
    let marked = rows.filter_map(|row| match row {
        Row::Status(mark) => Some(mark),
        _ => None,
    });
    marked.collect()
}

pub(crate) fn lists_and_contacts_are_kept<P: Place>() {
    let place = P::new();
    let store = place.open();
    done(&store, &world());
    let listed = |issued_at, expires| Write::Lists([given_out(SHARD, issued_at, expires)].into());
    let sent = |n: u8| Sent {
        digest: [n; 32],
        revision: n.into(),
        at: 100,
    };
    let contact = |acked| Contact {
        heard_at: 99,
        sent: sent(2),
        acked,
    };
    let tell =
        |vehicle: &str, contact| Write::Contact(FLEET, VehicleId::parse(vehicle).unwrap(), contact);
    done(
        &store,
        &[listed(50, 70), listed(40, 90), tell("V-1", contact(None))],
    );
    done(&store, &[tell("V-1", contact(Some(sent(1))))]);
    assert_eq!(
        commit(&store, &[tell("none", contact(None))]),
        [Applied::Stale]
    );
    drop(store);
    let rows = loaded(&place.open());
    let lists: Vec<_> = rows
        .iter()
        .filter(|row| matches!(row, Row::Listed(_)))
        .collect();
    let latest = Listed {
        shard: SHARD,
        issued_at: 50,
        expires: 90,
    };
    assert!(
        matches!(lists[..], [Row::Listed(list)] if *list == latest),
        "{lists:?}"
    );
    let expected = contact(Some(sent(1)));
    assert!(
        rows.iter()
            .any(|row| matches!(row, Row::Contact(FLEET, id, it)
        if id.as_str() == "V-1" && *it == expected))
    );
}

pub(crate) fn amended_orders_are_purged_when_they_are_over<P: Place>() {
    let store = P::new().open();
    done(&store, &world());
    let order = |number: u8| -> Redemption { order(number, None) };
    let (kept, gone) = (order(1), order(2));
    let redeem = |it: &Redemption| Write::Redeem(Arc::new(it.clone()));
    done(&store, &[redeem(&kept), redeem(&gone)]);
    let extend = |order: &Redemption, not_after, scope| {
        let mut after = ordered(order);
        after.version = 2;
        after.window.not_after = not_after;
        after.redeem_by = not_after;
        let mut change = amendment((1, AuthorizationState::Redeemed), after.clone());
        change.reissue = Some(again(&order.signed, &after));
        change.request = asked(scope, 1);
        change.marks = vec![Mark {
            ends: 200,
            ..mark(scope.into(), KeyChange::Revoke)
        }];
        amend(change)
    };
    let writes = [extend(&kept, 9 << 20, 1), extend(&gone, 150, 2)];
    assert_eq!(
        commit(&store, &writes),
        [Applied::Amended(1), Applied::Amended(2)]
    );
    // Long after both were over as they were ordered.
    let purge = |before| commit(&store, &[Write::Purge(before, 100)]);
    assert_eq!(purge(2 << 20), [Applied::Purged(1)]);
    let there = |order: &Redemption| {
        let id: BundleId = order.signed.bundle.id;
        (
            store.bundle(BundleKey::Id(id)).unwrap().is_some(),
            store.versions(id).unwrap().len(),
        )
    };
    assert_eq!((there(&kept), there(&gone)), ((true, 2), (false, 0)));
    assert_eq!(store.outcome(&[2; 32]).unwrap(), None);
    let marked = |row: &Row| matches!(row, Row::Status(_));
    assert!(
        !loaded(&store).iter().any(marked),
        "nobody needs them any more"
    );
    assert_eq!(purge(2 << 20), [Applied::Purged(0)]);
    assert_eq!(purge(10 << 20), [Applied::Purged(1)]);
    assert_eq!(there(&kept), (false, 0));
}

pub(crate) fn a_command_of_a_suspended_terminal_does_not_count<P: Place>() {
    let store = P::new().open();
    let (_, change) = changing(&store);
    let anna = Terminal {
        identity: IdentityId::parse("ben").unwrap(),
        ..terminal("phone", "ben")
    };
    done(&store, &[Write::Terminal(anna)]);
    let suspended = fob::domain::Identity {
        status: Status::Suspended,
        ..identity("ben")
    };
    let end = Amendment {
        reissue: None,
        by: Some(terminal_id("phone")),
        ..change
    };
    done(&store, &[Write::Identity(suspended)]);
    assert_eq!(commit(&store, &[amend(end.clone())]), [Applied::Stale]);
    done(&store, &[Write::Identity(identity("ben"))]);
    assert_eq!(commit(&store, &[amend(end)]), [Applied::Amended(1)]);
}

pub(crate) fn an_approval_is_kept_and_the_code_set_with_it<P: Place>() {
    let place = P::new();
    let store = place.open();
    done(&store, &world());
    let open = authorization(1);
    done(&store, &[authorize(open.clone())]);
    assert_eq!(
        commit(&store, &[Write::PinAttempt(open.id, 1)]),
        [Applied::PinAttempts(1)]
    );
    let mut approved = open.clone();
    approved.approve(1_000);
    let approve = amendment((1, AuthorizationState::Open), approved);
    assert_eq!(commit(&store, &[amend(approve)]), [Applied::Amended(1)]);
    drop(store);
    let store = place.open();
    let found = loaded(&store).into_iter().find_map(|row| match row {
        Row::Authorization(one) if one.id == open.id => Some(one),
        _ => None,
    });
    let found = found.unwrap();
    assert_eq!((found.version, found.approved_until()), (1, Some(1_000)));
    assert!(found.is_approved(999) && !found.is_approved(1_000));
    // Attempts at its PIN are still counted, and it is redeemed at the version it was handed on at.
    assert_eq!(
        commit(&store, &[Write::PinAttempt(open.id, 1)]),
        [Applied::PinAttempts(2)]
    );
    done(&store, &[redeem(&open)]);
}
