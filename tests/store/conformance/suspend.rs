//! Identities and vehicles suspended and active again, and the keys that follow them.

use std::sync::Arc;

use fob::domain::change::{Followed, Registered};
use fob::domain::{
    Author, AuthorizationId, AuthorizationState, Hold, Identity, KeyChange, Mark, Reason, ShardId,
    Status, Vehicle,
};
use fob::store::{
    Amendment, Applied, Following, Redemption, Reissue, ReliedOn, Row, Ruling, Store, Suspension,
    Write,
};

use super::Place;
use super::amend::{amend, amendment, asked, changing, mark, marked};
use super::rulings::rule;
use crate::store::sample::*;

fn ben() -> Followed {
    Followed::Identity(identity_id("ben"))
}

fn car() -> Followed {
    Followed::Vehicle(vehicle_id("V-1"))
}

fn suspension(of: impl Into<Registered>, status: Status) -> Suspension {
    Suspension {
        fleet: FLEET,
        of: of.into(),
        status,
        by: None,
        request: None,
    }
}

fn stand(of: impl Into<Registered>, status: Status) -> Write {
    Write::Suspend(Arc::new(suspension(of, status)))
}

fn follow(of: Followed, status: Status, marks: Vec<Mark>) -> Write {
    Write::Follow(Arc::new(Following {
        fleet: FLEET,
        of,
        status,
        marks,
        relies_on: ReliedOn::default(),
    }))
}

/// How identity and vehicle stand, as loaded.
fn standing(store: &impl Store) -> (Status, Status) {
    let (mut of_identity, mut of_vehicle) = (None, None);
    for row in loaded(store) {
        match row {
            Row::Identity(it) if it.id == identity_id("ben") => of_identity = Some(it.status),
            Row::Vehicle(it) if it.id == vehicle_id("V-1") => of_vehicle = Some(it.status),
            _ => {}
        }
    }
    (of_identity.unwrap(), of_vehicle.unwrap())
}

pub(crate) fn who_is_suspended_gets_nothing_until_it_is_resumed<P: Place>() {
    use Status::{Active, Suspended};
    let place = P::new();
    let store = place.open();
    done(&store, &world());
    done(
        &store,
        &[authorize(authorization(1)), authorize(authorization(2))],
    );
    let late = |number| Write::Redeem(Arc::new(redemption(&authorization(number))));
    let new = |number| authorize(authorization(number));
    for (of, number) in [(ben(), 1), (car(), 2)] {
        let there = |status| stand(of.clone(), status);
        // Within one transaction: the writer must not remember how it was.
        let applied = commit(&store, &[there(Suspended), late(number), there(Suspended)]);
        assert_eq!(applied, [Applied::Done, Applied::Stale, Applied::Done]);
        let applied = commit(&store, &[there(Active), late(number)]);
        assert_eq!(applied, [Applied::Done, Applied::Done]);
    }
    let applied = commit(&store, &[stand(car(), Suspended), new(3)]);
    assert_eq!(applied, [Applied::Done, Applied::Stale]);
    assert_eq!(standing(&store), (Active, Suspended));
    drop(store);
    assert_eq!(standing(&place.open()), (Active, Suspended));
}

pub(crate) fn a_terminal_that_is_suspended_commands_and_redeems_no_more<P: Place>() {
    use Status::{Active, Suspended};
    let place = P::new();
    let store = place.open();
    done(&store, &world());
    let phone = |status| stand(Registered::Terminal(terminal_id("phone")), status);
    let commanded = |number| {
        let mut authorization = authorization(number);
        authorization.author = Author::Terminal(terminal_id("phone"));
        authorize(authorization)
    };
    let late = || Write::Redeem(Arc::new(redemption(&authorization(1))));
    let writes = [commanded(1), phone(Suspended), commanded(2), late()];
    let applied = commit(&store, &writes);
    let (done_, stale) = (Applied::Done, Applied::Stale);
    assert_eq!(applied, [done_, done_, stale, stale]);
    let stands = |store: &P::Store| {
        let found = loaded(store).into_iter().find_map(|row| match row {
            Row::Terminal(it) if it.id == terminal_id("phone") => Some(it.status),
            _ => None,
        });
        found.unwrap()
    };
    // Another description does not lift it.
    done(&store, &[Write::Terminal(terminal("phone", "ben"))]);
    drop(store);
    let store = place.open();
    assert_eq!(stands(&store), Suspended);
    assert_eq!(commit(&store, &[late()]), [Applied::Stale]);
    done(&store, &[phone(Active), commanded(2), late()]);
    assert_eq!(stands(&store), Active);
}

pub(crate) fn each_condition_of_a_suspension_counts<P: Place>() {
    let store = P::new().open();
    done(&store, &world());
    let before = rows(&store);
    let by = |terminal: &str| {
        Write::Suspend(Arc::new(Suspension {
            by: Some(terminal_id(terminal)),
            ..suspension(car(), Status::Suspended)
        }))
    };
    let elsewhere = Write::Suspend(Arc::new(Suspension {
        fleet: OTHER_FLEET,
        ..suspension(car(), Status::Suspended)
    }));
    let nobody = stand(Followed::Identity(identity_id("nobody")), Status::Active);
    let nothing = stand(Followed::Vehicle(vehicle_id("V-9")), Status::Active);
    let lost = Registered::Terminal(terminal_id("none"));
    let lost = stand(lost, Status::Suspended);
    for stale in [by("none"), elsewhere, nobody, nothing, lost] {
        assert_eq!(commit(&store, &[stale]), [Applied::Stale]);
        assert_eq!(rows(&store), before);
    }
    done(&store, &[Write::Terminal(terminal("annas", "anna"))]);
    assert_eq!(commit(&store, &[by("annas")]), [Applied::Done]);
    let with = |digest| {
        Write::Suspend(Arc::new(Suspension {
            request: asked(3, digest),
            ..suspension(car(), Status::Active)
        }))
    };
    let applied = commit(&store, &[with(4), with(4), with(5)]);
    let repeated = Applied::Repeated(AuthorizationId([0; 16]));
    assert_eq!(applied, [Applied::Done, repeated, Applied::Conflict]);
}

pub(crate) fn keys_follow_what_stands_so<P: Place>() {
    use KeyChange::{Resume, Suspend};
    use Status::{Active, Suspended};
    let store = P::new().open();
    done(&store, &world());
    let marks = |change| vec![mark(7, change)];
    for (of, other) in [(ben(), car()), (car(), ben())] {
        let reason = of.reason();
        let early = follow(of.clone(), Suspended, marks(Suspend(reason)));
        let writes = [
            early.clone(),
            stand(of.clone(), Suspended),
            early,
            follow(other, Suspended, marks(Suspend(Reason::Function))),
            follow(of.clone(), Active, marks(Resume(reason))),
        ];
        let applied = commit(&store, &writes);
        assert!(matches!(
            applied[..],
            [
                Applied::Stale,
                Applied::Done,
                Applied::Amended(_),
                Applied::Stale,
                Applied::Stale
            ]
        ));
        assert_eq!(marked(&store), marks(Suspend(reason)));
        let writes = [
            stand(of.clone(), Active),
            follow(of.clone(), Active, marks(Resume(reason))),
        ];
        assert!(matches!(
            commit(&store, &writes)[..],
            [Applied::Done, Applied::Amended(_)]
        ));
        assert_eq!(marked(&store), []);
    }
}

fn redeem_on(number: u8, relies_on: ReliedOn) -> Write {
    Write::Redeem(Arc::new(Redemption {
        relies_on,
        ..redemption(&authorization(number))
    }))
}

fn follow_on(relies_on: ReliedOn) -> Write {
    Write::Follow(Arc::new(Following {
        fleet: FLEET,
        of: ben(),
        status: Status::Active,
        marks: vec![mark(7, KeyChange::Suspend(Reason::Condition))],
        relies_on,
    }))
}

pub(crate) fn what_relies_on_conditions_counts_while_they_are_so<P: Place>() {
    let believed = [
        identity("ben"),
        Identity {
            hold: Some(Hold::Insurance),
            ..identity("ben")
        },
        Identity {
            licences: Vec::new(),
            ..identity("ben")
        },
    ];
    // Each is so in one store, and is believed in all.
    for (at, is) in believed.iter().enumerate() {
        for (as_, said) in believed.iter().enumerate() {
            let relies_on = ReliedOn {
                identity: Some(Arc::new(said.clone())),
                ..ReliedOn::default()
            };
            let store = P::new().open();
            let (_, change) = changing(&store);
            let again = change.reissue.clone().map(|again| Reissue {
                relies_on: relies_on.clone(),
                // Where they grant more, a hold refuses them whatever was believed.
                changed: false,
                ..again
            });
            let (redeem, follow) = (redeem_on(2, relies_on.clone()), follow_on(relies_on));
            let amended = amend(Amendment {
                reissue: again,
                ..change
            });
            done(&store, &[authorize(authorization(2))]);
            // Written in the same transaction, and before it.
            let mut writes = vec![Write::Identity(is.clone()), redeem, follow, amended];
            if at == 1 {
                let before = writes.remove(0);
                done(&store, &[before]);
            } else {
                assert_eq!(commit(&store, &writes[..1]), [Applied::Done]);
                writes.remove(0);
            }
            let applied = commit(&store, &writes);
            let held = is.hold.is_some();
            let right = at == as_;
            assert_eq!(applied[0] == Applied::Done, right && !held, "{at} {as_}");
            for applied in &applied[1..] {
                let amended = matches!(applied, Applied::Amended(_));
                assert_eq!(amended, right, "{at} {as_}: {applied:?}");
            }
            assert_eq!(marked(&store).len(), usize::from(right), "{at} {as_}");
        }
    }
    let store = P::new().open();
    done(&store, &world());
    done(&store, &[authorize(authorization(1))]);
    let relies_on = ReliedOn {
        identity: Some(Arc::new(identity("ben"))),
        ..ReliedOn::default()
    };
    let redeem = redeem_on(1, relies_on);
    let lost = Write::Identity(believed[2].clone());
    let applied = commit(&store, &[lost, redeem]);
    assert_eq!(applied, [Applied::Done, Applied::Stale], "in one go");
}

/// Of the rules, each version but the newest; of a vehicle, each model but its own.
pub(crate) fn what_relies_on_rules_and_models_counts_while_they_are_so<P: Place>() {
    let set = |version: u32| rule(FLEET, Ruling::Rules(version, "{}".into()));
    let remodelled = || Vehicle {
        model: "Model Z".into(),
        ..vehicle("V-1")
    };
    let relied = |rules, vehicle: Option<Vehicle>| ReliedOn {
        rules,
        vehicle: vehicle.map(Arc::new),
        ..ReliedOn::default()
    };
    // What comes before, in a transaction of its own or in the same; what is believed; whether so.
    let cases = [
        (vec![], relied(Some(0), None), true),
        (vec![], relied(Some(1), None), false),
        (vec![set(1)], relied(Some(0), None), false),
        (vec![set(1)], relied(Some(1), None), true),
        (vec![set(1), set(2)], relied(Some(1), None), false),
        (vec![set(1), set(2)], relied(Some(2), None), true),
        (vec![], relied(None, Some(vehicle("V-1"))), true),
        (vec![], relied(None, Some(remodelled())), false),
        (
            vec![Write::Vehicle(remodelled())],
            relied(None, Some(vehicle("V-1"))),
            false,
        ),
        (
            vec![Write::Vehicle(remodelled())],
            relied(None, Some(remodelled())),
            true,
        ),
    ];
    for (at, (before, relies_on, right)) in cases.into_iter().enumerate() {
        for together in [false, true] {
            let store = P::new().open();
            let (_, change) = changing(&store);
            let again = change.reissue.clone().map(|again| Reissue {
                relies_on: relies_on.clone(),
                ..again
            });
            // What the store remembers of the fleet is from before.
            let early = redeem_on(3, relied(Some(0), None));
            done(&store, &[authorize(authorization(3)), early]);
            done(&store, &[authorize(authorization(2))]);
            let writes = [
                redeem_on(2, relies_on.clone()),
                follow_on(relies_on.clone()),
                amend(Amendment {
                    reissue: again,
                    ..change
                }),
            ];
            let applied = if together {
                let all: Vec<_> = before.iter().chain(&writes).cloned().collect();
                commit(&store, &all).split_off(before.len())
            } else {
                done(&store, &before);
                commit(&store, &writes)
            };
            for applied in applied {
                let stands = applied != Applied::Stale;
                assert_eq!(stands, right, "{at} {together}: {applied:?}");
            }
        }
    }
}

pub(crate) fn what_is_issued_again_is_suspended_with_what_it_hangs_on<P: Place>() {
    let all = [
        vec![],
        vec![Reason::Identity],
        vec![Reason::Vehicle],
        vec![Reason::Identity, Reason::Vehicle],
    ];
    for suspended in &all {
        for said in &all {
            let place = P::new();
            let store = place.open();
            let (_, change) = changing(&store);
            for reason in suspended {
                let of = match reason {
                    Reason::Identity => ben(),
                    _ => car(),
                };
                done(&store, &[stand(of, Status::Suspended)]);
            }
            let before = rows(&store);
            let bundle = change.reissue.clone().unwrap().signed.bundle;
            let mut marks = change.marks.clone();
            for (subject, key) in bundle.each_key() {
                marks.extend(said.iter().map(|reason| Mark {
                    shard: ShardId::at(&subject.status_uri).unwrap(),
                    index: key.status_index,
                    change: KeyChange::Suspend(*reason),
                    ends: bundle.window.not_after,
                }));
            }
            let applied = commit(&store, &[amend(Amendment { marks, ..change })]);
            if said == suspended {
                assert_eq!(applied, [Applied::Amended(1)], "{suspended:?}");
            } else {
                assert_eq!(applied, [Applied::Stale], "{suspended:?}, not {said:?}");
                assert_eq!(rows(&store), before);
            }
        }
    }
    // An order is redemption too.
    let store = P::new().open();
    done(&store, &world());
    done(&store, &[stand(ben(), Status::Suspended)]);
    let order: Redemption = order(1, None);
    let applied = commit(&store, &[Write::Redeem(Arc::new(order))]);
    assert_eq!(applied, [Applied::Stale]);
}

pub(crate) fn a_key_suspended_by_itself_makes_a_change_look_again<P: Place>() {
    let store = P::new().open();
    let (_, change) = changing(&store);
    let stays = fob::domain::Authorization {
        state: AuthorizationState::Redeemed,
        redeemed: true,
        ..authorization(1)
    };
    let suspend = Amendment {
        marks: vec![mark(7, KeyChange::Suspend(Reason::Function))],
        ..amendment((1, AuthorizationState::Redeemed), stays)
    };
    let applied = commit(&store, &[amend(suspend), amend(change)]);
    assert_eq!(applied, [Applied::Amended(1), Applied::Stale]);
}
