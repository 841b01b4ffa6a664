//! A store as a whole: given out, taken in, and fenced.

use fob::domain::{AuthorizationState, KeyChange, Reason, Restore};
use fob::store::whole::{Entry, Fence, Fenced, Kind, Position, Tally, Whole, compare, copy};
use fob::store::{Contact, Ruling, Sent, Store, StoreError, Write};

use super::Place;
use super::acts::{self, act};
use super::amend::{amend, amendment, asked, changing, mark};
use super::rulings::rule;
use crate::store::sample::*;

/// A store with something of every kind.
fn full(store: &impl Store) {
    let (_, mut change) = changing(store);
    done(
        store,
        &[
            Write::Setting("issuer".into(), "fob".into()),
            Write::Function(FLEET, 300, "tailgate.lift".into()),
            Write::NewToken(token(1)),
            Write::TrustList(1, [1, 2, 3][..].into()),
            Write::TrustList(2, [4][..].into()),
        ],
    );
    let vouched = fob::domain::Terminal {
        attested: Some(Box::new(fob::domain::Attested {
            by: terminal_id("phone"),
            at: 77,
        })),
        ..terminal("tablet", "ben")
    };
    let mut bound = authorization(42);
    bound.restrictions = fob::domain::Restrictions {
        recipient: fob::domain::Recipient {
            key: Some(holder(6)),
            ..fob::domain::Recipient::default()
        },
        ..fob::domain::Restrictions::default()
    }
    .boxed();
    done(store, &[Write::Terminal(vouched), authorize(bound)]);
    change.marks = vec![
        mark(9, KeyChange::Suspend(Reason::Condition)),
        mark(7, KeyChange::Revoke),
        mark(8, KeyChange::Suspend(Reason::Identity)),
        mark(8, KeyChange::Suspend(Reason::Function)),
    ];
    change.request = asked(1, 1);
    assert_eq!(commit(store, &[amend(change)]).len(), 1);
    let request = fob::store::Request {
        scope: [9; 32],
        digest: [8; 32],
    };
    done(
        store,
        &[
            authorize_as(authorization(40), Some(request)),
            authorize(authorization(41)),
            Write::Redeem(order(50, order_request(1, 2, 3)).into()),
            Write::Redeem(order(51, order_request(1, 3, 3)).into()),
            Write::Redeem(order(52, None).into()),
            Write::Lists([given_out(mark(0, KeyChange::Revoke).shard, 5, 50)].into()),
            so_far(7, 9),
        ],
    );
    let sent = Sent {
        digest: [3; 32],
        revision: 1,
        at: 40,
    };
    let contact = Contact {
        heard_at: 41,
        sent,
        acked: Some(sent),
    };
    done(store, &[Write::Contact(FLEET, vehicle_id("V-2"), contact)]);
    let attempts = commit(store, &[Write::PinAttempt(authorization_id(41), 1)]);
    assert_eq!(attempts, [fob::store::Applied::PinAttempts(1)]);
    let mut approved = authorization(41);
    approved.approve(99);
    let approved = amendment((1, AuthorizationState::Open), approved);
    assert_eq!(commit(store, &[amend(approved)]).len(), 1);
}

fn entries(store: &impl Whole) -> Vec<(Kind, Vec<Entry>)> {
    let of = |kind| {
        let mut entries = Vec::new();
        store
            .export(kind, &mut |entry| {
                assert_eq!(entry.kind(), kind);
                entries.push(entry);
                Ok(())
            })
            .unwrap();
        (kind, entries)
    };
    Kind::ALL.into_iter().map(of).collect()
}

#[expect(clippy::too_many_lines, reason = "one write of each kind")]
pub(crate) fn what_is_given_out_is_taken_in<P: Place>() {
    let (from, to) = (P::new(), P::new());
    let (from, to) = (from.open(), to.open());
    assert!(from.is_empty().unwrap());
    full(&from);
    from.restore(Restore::after(Restore::default(), 1, 77, 2), &[])
        .unwrap();
    done(
        &from,
        &[
            rule(FLEET, Ruling::Rules(1, "{}".into())),
            rule(FLEET, Ruling::Freeze(None)),
            rule(FLEET, Ruling::Freeze(Some(vehicle_id("V-1")))),
            rule(FLEET, Ruling::Release(None)),
            rule(FLEET, Ruling::Day(20_000, 3)),
            Write::NewToken(token(2)).as_act(act(FLEET, 5, "token.create", "2")),
        ],
    );
    assert_eq!((from.unspoken(), from.is_empty()), (Ok(vec![]), Ok(false)));
    let given = entries(&from);
    // Records are the steps', which are not written by hand.
    for (kind, entries) in &given {
        let none = matches!(kind, Kind::Records);
        assert_eq!(entries.is_empty(), none, "{}", kind.name());
        let about = from.about(*kind).unwrap();
        assert!(about >= entries.len() as u64, "{}: {about}", kind.name());
    }
    let copied = copy(&from, &to, "first", &mut |_| {}).unwrap();
    let all: usize = given.iter().map(|(_, entries)| entries.len()).sum();
    assert_eq!((copied.before, copied.written), (0, all as u64));
    assert!(compare(&from, &to, &mut |_| {}).unwrap().is_ok());
    let kept = acts::all(&from);
    assert_eq!(kept.len(), 5);
    assert_eq!(acts::all(&to), kept);
    // Whatever comes after it follows what was there.
    let next = act(FLEET, kept[4].at, "token.revoke", "2");
    done(&to, &[Write::Act(Box::new(next.clone()), None)]);
    assert_eq!(acts::all(&to).pop(), Some(next));
    let sorted = |mut rows: Vec<String>| {
        // When a mark is no longer needed is kept in spans; the entries have those.
        rows.retain(|row| !row.starts_with("Status("));
        rows.sort();
        rows
    };
    assert_eq!(sorted(rows(&from)), sorted(rows(&to)));
    for (_, entries) in &given {
        for entry in entries {
            if let Entry::Bundle(signed, _) = entry {
                let id = signed.bundle.id;
                assert_eq!(from.versions(id), to.versions(id));
            }
        }
    }
    for scope in [[1; 32], [9; 32]] {
        assert_eq!(from.outcome(&scope), to.outcome(&scope));
    }
    assert_eq!(from.answered(&[1; 32]), to.answered(&[1; 32]));

    // The same goes on where it was, and another begins anew.
    let again = copy(&from, &to, "first", &mut |_| {}).unwrap();
    assert_eq!((again.before, again.written), (all as u64, 0));
    let other = copy(&from, &to, "second", &mut |_| {}).unwrap();
    assert_eq!((other.before, other.written), (0, all as u64));
    to.set_fence(Fence::Unfinished, None).unwrap();
    assert!(matches!(
        copy(&from, &to, "second", &mut |_| {}),
        Err(StoreError::Failed(_))
    ));
    // A difference is seen, whatever it is.
    done(&to, &[suspend_vehicle("V-2")]);
    let differ = compare(&from, &to, &mut |_| {}).unwrap().unwrap_err();
    assert_eq!(differ.len(), 1, "{differ:?}");
    assert_eq!(differ[0].kind, Kind::Vehicles);
    to.clear().unwrap();
    assert!(to.is_empty().unwrap());
    let left = entries(&to)
        .into_iter()
        .map(|(kind, left)| (kind, left.len()));
    let left: Vec<_> = left.filter(|(_, count)| *count > 0).collect();
    assert_eq!(left, [(Kind::Revisions, 1)], "which counts nothing");
    done(&to, &world());
}

pub(crate) fn an_error_ends_it<P: Place>() {
    let place = P::new();
    let store = place.open();
    full(&store);
    let stop = || StoreError::Failed("enough".into());
    let mut seen = 0;
    let ended = store.export(Kind::Vehicles, &mut |_| {
        seen += 1;
        Err(stop())
    });
    assert_eq!((ended, seen), (Err(stop()), 1));
    let mut tally = Tally::default();
    let counted = store.export(Kind::Vehicles, &mut |entry| {
        tally.add(&entry, &mut Vec::new())
    });
    assert_eq!((counted, tally.count), (Ok(()), 2));
}

pub(crate) fn it_is_known_how_far_it_has_come<P: Place>() {
    let place = P::new();
    let store = place.open();
    assert_eq!(store.reaches(Position::default()), Ok(true));
    let mut before = store.position();
    assert_eq!(before, None);
    for write in world() {
        done(&store, &[write]);
        let now = store.position().unwrap();
        assert_ne!(Some(now), before);
        assert_eq!(store.reaches(now), Ok(true));
        let next = Position {
            number: now.number + 1,
            ..now
        };
        assert_eq!(store.reaches(next), Ok(false));
        before = Some(now);
    }
    assert!(store.last_written().unwrap().is_some());
    // What writes nothing goes no further.
    let request = fob::store::Request {
        scope: [1; 32],
        digest: [1; 32],
    };
    done(&store, &[Write::Recall(request)]);
    assert_eq!(store.position(), before);
    store.reopen().unwrap();
    assert_eq!(store.reaches(before.unwrap()), Ok(true));
    drop(store);
    let store = place.open();
    assert_eq!(store.reaches(before.unwrap()), Ok(true));
    done(&store, &[suspend_vehicle("V-1")]);
    assert_ne!(store.position().unwrap().process, before.unwrap().process);
}

pub(crate) fn fences_stand_until_they_are_taken_down<P: Place>() {
    let place = P::new();
    let store = place.open();
    for fence in [Fence::Unfinished, Fence::Moved, Fence::Witnessed] {
        assert_eq!(store.fence(fence), Ok(None));
        store.set_fence(fence, Some("one")).unwrap();
        store.set_fence(fence, Some("two")).unwrap();
        assert_eq!(place.open().fence(fence), Ok(Some("two".into())));
        store.set_fence(fence, None).unwrap();
        assert_eq!(store.fence(fence), Ok(None));
    }
}

pub(crate) fn a_restore_fences_off_what_was_before<P: Place>() {
    let place = P::new();
    let store = place.open();
    done(&store, &world());
    let redeemed = authorization(1);
    let mut suspended = authorization(2);
    suspended.state = AuthorizationState::Suspended;
    done(
        &store,
        &[
            authorize(redeemed.clone()),
            redeem(&redeemed),
            authorize(suspended),
            authorize(authorization(3)),
        ],
    );
    let first = Restore::after(Restore::default(), 1, 90, 4);
    assert_eq!(store.restored(), Ok(Restore::default()));
    let kept = act(FLEET, 90, "restore", "1");
    let off = store.restore(first, std::slice::from_ref(&kept)).unwrap();
    assert_eq!((off.code_sets, off.vehicles, off.fleets), (2, 2, 1));
    assert_eq!(acts::all(&store), [kept]);
    assert_eq!(store.restored(), Ok(first));
    let states: Vec<_> = store
        .authorizations(&everything())
        .unwrap()
        .iter()
        .map(|it| it.state)
        .collect();
    let (redeemed_state, cancelled) = (AuthorizationState::Redeemed, AuthorizationState::Cancelled);
    assert_eq!(states, [redeemed_state, cancelled, cancelled]);
    // The writer knows of it, and no key is issued at an epoch of before.
    let mut late = order(9, None);
    assert_eq!(
        commit(&store, &[Write::Redeem(late.clone().into())]),
        [fob::store::Applied::Stale]
    );
    late.signed.bundle.vehicle_epoch = first.vehicle_epoch();
    done(&store, &[Write::Redeem(late.into())]);
    let loaded = rows(&store);
    for there in [
        format!("epoch: {}", first.vehicle_epoch()),
        format!("status_next: {}", first.status_next() + 2),
        "trust_next: 260".into(),
    ] {
        assert!(loaded.iter().any(|row| row.contains(&there)), "{there}");
    }
    // The next one goes on above it, and a vehicle that is above it already stays.
    let second = Restore::after(first, 2, 95, first.trust_next);
    let off = store.restore(second, &[]).unwrap();
    assert_eq!(off.code_sets, 0);
    assert_eq!(store.restored(), Ok(second));
}
