//! What those who administer fleets have done, and who and why.

use std::sync::Arc;

use fob::domain::change::{Followed, Registered};
use fob::domain::{FleetId, Status};
use fob::store::{
    Act, ActFilter, Applied, Erasure, Member, Rotation, Ruling, Store, Suspension, Write,
};

use super::Place;
use super::amend::{amend, asked, changing};
use super::rulings::rule;
use crate::store::sample::*;

/// An act of anna's, at a time.
pub(super) fn act(fleet: FleetId, at: u64, act: &str, object: &str) -> Act {
    Act {
        fleet,
        at,
        by: "anna".into(),
        act: act.into(),
        object: object.into(),
        why: Some(format!("why {object}")),
    }
}

fn filter() -> ActFilter {
    ActFilter {
        fleet: None,
        since: 0,
        after: None,
        limit: 100,
    }
}

pub(super) fn all(store: &impl Store) -> Vec<Act> {
    let page = store.acts(&filter()).unwrap();
    assert_eq!(page.next, None);
    page.acts
}

fn suspend(id: &str) -> Write {
    Write::Suspend(Arc::new(Suspension {
        fleet: FLEET,
        of: Registered::Followed(Followed::Identity(identity_id(id))),
        status: Status::Suspended,
        by: None,
        request: asked(7, 7),
    }))
}

pub(crate) fn an_act_is_kept_with_what_it_tells_of<P: Place>() {
    let place = P::new();
    let store = place.open();
    let silent = Act {
        why: None,
        ..act(FLEET, 10, "token.create", "1")
    };
    let rotation = Write::RotateToken(Box::new(Rotation {
        before: token(1).id,
        ends: 40,
        token: token(2),
    }));
    // Those of one second follow each other as they came, in one transaction or in several.
    let acts = [
        act(FLEET, 10, "fleet.create", "first"),
        silent,
        act(FLEET, 10, "token.rotate", "2"),
        act(FLEET, 11, "token.revoke", "1"),
        act(FLEET, 11, "suspend", "identity ben"),
        act(FLEET, 12, "revoke", "vehicle V-1"),
    ];
    let [founded, made, rotated, ended, suspended, ordered] = acts.clone();
    let mut new_fleet = world();
    let first = new_fleet.remove(0);
    assert!(matches!(first, Write::NewFleet(_)));
    done(
        &store,
        &[
            first.as_act(founded),
            Write::NewToken(token(1)).as_act(made),
        ],
    );
    done(&store, &new_fleet);
    done(&store, &[rotation.as_act(rotated)]);
    done(
        &store,
        &[
            Write::RevokeToken(FLEET, token(1).id, 60).as_act(ended),
            suspend("ben").as_act(suspended),
            Write::Act(Box::new(ordered), None),
        ],
    );
    assert_eq!(all(&store), acts);
    let tokens = |store: &P::Store| {
        let all = loaded(store).into_iter();
        all.filter(|row| matches!(row, fob::store::Row::Token(_)))
            .count()
    };
    assert_eq!(tokens(&store), 2, "and what they tell of is there");
    drop(store);
    let store = place.open();
    assert_eq!((all(&store), tokens(&store)), (acts.to_vec(), 2));
    // A ruling is an act like the others.
    done(&store, &[rule(FLEET, Ruling::Freeze(None))]);
    let last = all(&store).pop().unwrap();
    let told = (last.by, last.act, last.object, last.why);
    let expected = (
        "anna".into(),
        "freeze".into(),
        String::new(),
        Some("because".into()),
    );
    assert_eq!(told, expected);
}

pub(crate) fn what_does_not_take_place_leaves_no_act<P: Place>() {
    let store = P::new().open();
    let (_, change) = changing(&store);
    let change = fob::store::Amendment {
        request: asked(1, 1),
        ..change
    };
    let revoke = |change| amend(change).as_act(act(FLEET, 9, "revoke", "authorization"));
    let amended = commit(&store, &[revoke(change.clone())]);
    assert_eq!(amended, [Applied::Amended(1)]);
    let kept = all(&store);
    assert_eq!(kept, [act(FLEET, 9, "revoke", "authorization")]);
    let nobody = FleetId([0xf3; 16]);
    let other = Write::NewToken(token(5)).as_act(act(FLEET, 10, "token.create", "5"));
    let answers = commit(
        &store,
        &[
            // Its name is taken.
            Write::NewFleet(fleet(OTHER_FLEET, "first", 9)).as_act(act(
                OTHER_FLEET,
                10,
                "fleet.create",
                "first",
            )),
            Write::RevokeToken(FLEET, token(9).id, 60).as_act(act(FLEET, 10, "token.revoke", "9")),
            suspend("nobody").as_act(act(FLEET, 10, "suspend", "identity nobody")),
            other.clone(),
            other,
            Write::Act(Box::new(act(nobody, 10, "revoke", "vehicle V-1")), None),
        ],
    );
    let (conflict, stale) = (Applied::Conflict, Applied::Stale);
    assert_eq!(
        answers,
        [conflict, stale, stale, Applied::Done, conflict, stale]
    );
    // The same request again is answered, and is not done again.
    let again = commit(&store, &[revoke(change)]);
    assert!(matches!(again[..], [Applied::Repeated(_)]), "{again:?}");
    let made = act(FLEET, 10, "token.create", "5");
    assert_eq!(all(&store), [kept, vec![made]].concat());
}

pub(crate) fn what_a_list_registers_is_one_act<P: Place>() {
    let store = P::new().open();
    done(&store, &world());
    let told = |at, count| Write::Registered(Box::new(act(FLEET, at, "import", "x")), count);
    let person = |id: &str| Write::New(Member::Identity(identity(id)));
    let car = |id: &str| Write::New(Member::Vehicle(vehicle(id)));
    let phone = |id: &str| Write::New(Member::Terminal(terminal(id, "ben")));
    let (done, taken) = (Applied::Done, Applied::Conflict);
    // Only what was made counts, and only what is of the list.
    let answers = commit(
        &store,
        &[
            person("before"),
            Write::Function(FLEET, 700, "ramp.lower".into()),
            car("V-1"),
            car("V-7"),
            person("carl"),
            person("anna"),
            person("dora"),
            phone("pad"),
            told(20, 7),
            car("V-1"),
            person("carl"),
            told(21, 2),
            phone("tab"),
            told(22, 1),
        ],
    );
    assert_eq!(
        answers,
        [
            done, done, taken, done, done, taken, done, done, done, taken, taken, done, done, done
        ]
    );
    let kept: Vec<_> = all(&store)
        .into_iter()
        .map(|it| (it.at, it.object))
        .collect();
    let expected = [
        (20, "1 vehicle, 2 identities, 1 terminal, 1 function".into()),
        (22, "1 terminal".into()),
    ];
    assert_eq!(kept, expected);
    // A list that is refused as a whole leaves nothing.
    let refused = store.commit(&[person("emil"), told(23, 1).as_act(act(FLEET, 23, "y", "y"))]);
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!(all(&store).len(), 2);
}

pub(crate) fn acts_are_read_in_pages<P: Place>() {
    let store = P::new().open();
    done(
        &store,
        &[
            Write::NewFleet(fleet(FLEET, "first", 1)),
            Write::NewFleet(fleet(OTHER_FLEET, "other", 2)),
        ],
    );
    let of = |n: u64| {
        if n.is_multiple_of(3) {
            OTHER_FLEET
        } else {
            FLEET
        }
    };
    // Three a second; the clock goes back once.
    let acts: Vec<_> = (0..30)
        .map(|n| act(of(n), 100 + (n + 15) % 30 / 3, "revoke", &format!("{n}")))
        .collect();
    for act in &acts {
        done(&store, &[Write::Act(Box::new(act.clone()), None)]);
    }
    let read = |filter: ActFilter| {
        let (mut read, mut after, mut pages) = (Vec::new(), None, 0);
        loop {
            let page = store
                .acts(&ActFilter {
                    after,
                    ..filter.clone()
                })
                .unwrap();
            assert!(page.acts.len() <= filter.limit as usize);
            read.extend(page.acts);
            (after, pages) = (page.next, pages + 1);
            if after.is_none() {
                return (read, pages);
            }
        }
    };
    let (whole, one) = read(filter());
    assert_eq!((whole.len(), one), (30, 1));
    assert!(whole.is_sorted_by_key(|act| act.at));
    for fleet in [FLEET, OTHER_FLEET] {
        let mut own: Vec<_> = acts.iter().filter(|it| it.fleet == fleet).collect();
        own.sort_by_key(|act| act.at);
        let read: Vec<_> = whole.iter().filter(|it| it.fleet == fleet).collect();
        assert_eq!(read, own, "as they came within a second");
    }
    for limit in [1, 7, 10] {
        let (read, pages) = read(ActFilter { limit, ..filter() });
        assert_eq!(read, whole);
        assert!(pages >= 30 / limit, "{pages}");
    }
    let (read, _) = read(ActFilter {
        fleet: Some(OTHER_FLEET),
        since: 104,
        limit: 2,
        ..filter()
    });
    let wanted = |it: &&Act| it.fleet == OTHER_FLEET && it.at >= 104;
    let wanted: Vec<_> = whole.iter().filter(wanted).cloned().collect();
    assert!(!wanted.is_empty());
    assert_eq!(read, wanted);
}

pub(crate) fn an_erasure_takes_names_out_of_acts<P: Place>() {
    let store = P::new().open();
    done(&store, &world());
    done(
        &store,
        &[
            Write::NewFleet(fleet(OTHER_FLEET, "other", 2)),
            Write::Terminal(terminal("pad", "ben")),
        ],
    );
    let of = |fleet, object: &str| Write::Act(Box::new(act(fleet, 10, "suspend", object)), None);
    let others = ["identity benny", "terminal padding", "vehicle ben", "ben"];
    done(
        &store,
        &[of(FLEET, "identity ben"), of(FLEET, "terminal pad")],
    );
    done(&store, &others.map(|object| of(FLEET, object)));
    done(&store, &[of(OTHER_FLEET, "identity ben")]);
    let erase = Write::Erase(Erasure {
        fleet: FLEET,
        id: identity_id("ben"),
        becomes: identity_id("erased-1"),
    });
    let erased = act(FLEET, 11, "erase", "identity erased-1");
    done(&store, &[erase.as_act(erased.clone())]);
    let renamed = |object: &str| Act {
        why: None,
        ..act(FLEET, 10, "suspend", object)
    };
    let mut expected = vec![renamed("identity erased-1"), renamed("terminal erased-1")];
    expected.extend(others.map(|object| act(FLEET, 10, "suspend", object)));
    let (own, other): (Vec<_>, Vec<_>) = all(&store).into_iter().partition(|it| it.fleet == FLEET);
    expected.push(erased);
    assert_eq!(own, expected);
    assert_eq!(other, [act(OTHER_FLEET, 10, "suspend", "identity ben")]);
}
