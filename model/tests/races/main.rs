//! What may happen at the same moment, and what must hold however the threads are switched:
//! redemptions of one code set, changes against redemptions and each other, ends and suspensions
//! against keys that are issued or issued again, resets against a batch in flight, renewals under
//! another epoch. After each run every key that was ever issued is looked at.
//!
//! `FOB_SCHEDULES` says how many schedules each is tried with. A schedule that fails is printed;
//! `shuttle::replay` runs it again.
#![allow(
    missing_docs,
    unreachable_pub,
    reason = "tests are read by their names"
)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod world;

use std::sync::Arc;

use fob::domain::change::Action;
use fob::domain::{AuthorizationState, RefusalCode};
use fob_verify::status::Status;
use shuttle::thread::{self, JoinHandle};

use fob_model::engine::revoke::Target;
use world::{World, borrower, explore};

const UNLOCK: u16 = 1;
const START: u16 = 3;
const TRUNK: u16 = 4;

/// Something done by a thread of its own.
fn thread<T: Send + 'static>(
    world: &Arc<World>,
    what: impl FnOnce(&World) -> T + Send + 'static,
) -> JoinHandle<T> {
    let world = Arc::clone(world);
    thread::spawn(move || what(&world))
}

#[test]
fn a_code_set_is_redeemed_once() {
    explore(|world| {
        let (id, code_set) = world.authorize(&[UNLOCK]);
        let redeem = |by: u8| {
            let code_set = code_set.clone();
            thread(world, move |world| world.redeem(&code_set, by))
        };
        let (one, same, rival) = (redeem(0), redeem(0), redeem(1));
        let told = [one, same, rival].map(|thread| thread.join().unwrap());
        let done: Vec<_> = told.iter().flatten().map(|it| &it.signed).collect();
        // The phone that was first, as often as it asked.
        assert!(matches!(done.len(), 1 | 2), "{told:?}");
        assert!(done.iter().all(|it| *it == done[0]));
        let refused = told.iter().filter_map(|it| it.as_ref().err());
        assert!(refused.eq(vec![&RefusalCode::CodeSetRedeemed; 3 - done.len()]));
        assert_eq!(world.versions(id).len(), 1);
        // The reservation alone sees to it that nobody else got as far as the store.
        assert_eq!(world.redemptions(), 1);
    });
}

#[test]
fn a_change_against_a_redemption() {
    explore(|world| {
        let (id, code_set) = world.authorize(&[UNLOCK, START]);
        let redeemed = thread(world, move |world| world.redeem(&code_set, 0));
        let changed = thread(world, move |world| world.change(id, &[UNLOCK, TRUNK]));
        let (redeemed, changed) = (redeemed.join().unwrap(), changed.join().unwrap());
        let changed = changed.expect("there is one change");
        match redeemed {
            // The keys went out first, and those that are too many were taken back.
            Ok(_) => assert_eq!(
                (changed.outcome.issued.len(), world.versions(id).len()),
                (2, 2)
            ),
            Err(code) => assert_eq!(
                (code, world.versions(id).len()),
                (RefusalCode::CodeSetUnknown, 0)
            ),
        }
        assert_eq!(world.stands(id).version, 2);
    });
}

#[test]
fn of_two_changes_one_is_told_of_the_other() {
    explore(|world| {
        let id = world.issue(&[UNLOCK, START]);
        let one = thread(world, move |world| world.change(id, &[UNLOCK]));
        let other = thread(world, move |world| world.change(id, &[START]));
        let told = [one, other].map(|thread| thread.join().unwrap().err());
        let conflict = Some(RefusalCode::VersionConflict);
        assert!(
            told == [None, conflict] || told == [conflict, None],
            "{told:?}"
        );
        assert_eq!(world.versions(id).len(), 2);
    });
}

#[test]
fn an_end_against_keys_that_are_issued_again() {
    explore(|world| {
        let id = world.issue(&[UNLOCK, START]);
        let ended = thread(world, move |world| world.act(id, Action::Cancel));
        let changed = thread(world, move |world| world.change(id, &[UNLOCK, TRUNK]));
        ended.join().unwrap().expect("an end");
        if let Err(code) = changed.join().unwrap() {
            assert_eq!(code, RefusalCode::CodeSetCancelled);
        }
        assert_eq!(world.stands(id).state, AuthorizationState::Cancelled);
        assert!(world.listed(id).iter().all(|it| *it == Status::Revoked));
    });
}

#[test]
fn a_suspension_against_keys_that_are_issued_again() {
    explore(|world| {
        let id = world.issue(&[UNLOCK, START]);
        let suspended = thread(world, move |world| world.act(id, Action::Suspend));
        let changed = thread(world, move |world| world.change(id, &[UNLOCK]));
        suspended.join().unwrap().expect("a suspension");
        changed.join().unwrap().expect("a change");
        assert_eq!(world.stands(id).state, AuthorizationState::Suspended);
        assert!(world.listed(id).iter().all(|it| *it != Status::Valid));
    });
}

#[test]
fn a_vehicles_suspension_against_keys_that_are_issued_again() {
    explore(|world| {
        let id = world.issue(&[UNLOCK, START]);
        let suspended = thread(world, |world| {
            world.act_on(&world.vehicle(), Action::Suspend)
        });
        let changed = thread(world, move |world| world.change(id, &[UNLOCK, TRUNK]));
        suspended.join().unwrap().expect("a suspension");
        changed.join().unwrap().expect("a change");
        assert!(world.listed(id).iter().all(|it| *it != Status::Valid));
    });
}

#[test]
fn a_vehicles_suspension_against_a_redemption() {
    explore(|world| {
        let (id, code_set) = world.authorize(&[UNLOCK]);
        let redeemed = thread(world, move |world| world.redeem(&code_set, 0));
        let suspended = thread(world, |world| {
            world.act_on(&world.vehicle(), Action::Suspend)
        });
        suspended.join().unwrap().expect("a suspension");
        if let Err(code) = redeemed.join().unwrap() {
            assert_eq!(code, RefusalCode::AuthorizationSuspended);
        }
        assert!(world.listed(id).iter().all(|it| *it == Status::Suspended));
        let whole = world.act_on(&world.vehicle(), Action::Resume);
        whole.expect("a resumption");
        assert!(world.listed(id).iter().all(|it| *it == Status::Valid));
    });
}

#[test]
fn a_borrower_suspended_and_resumed_at_once_stands_as_its_keys_do() {
    explore(|world| {
        world.issue(&[UNLOCK]);
        let act = |action| {
            let target = Target::Identity(borrower());
            thread(world, move |world| world.act_on(&target, action))
        };
        let told = [Action::Suspend, Action::Resume].map(act);
        let told = told.map(|thread| thread.join().unwrap());
        // The later one is not overtaken.
        assert!(told.iter().any(Result::is_ok), "{told:?}");
        let overtaken = told.iter().filter_map(|it| it.as_ref().err());
        assert!(
            overtaken
                .into_iter()
                .all(|code| *code == RefusalCode::VersionConflict)
        );
    });
}

#[test]
fn whoever_ends_something_finds_it_on_the_list() {
    explore(|world| {
        let ids = [world.issue(&[UNLOCK]), world.issue(&[START])];
        let ended = ids.map(|id| {
            thread(world, move |world| {
                world.act(id, Action::Cancel).expect("an end");
                assert_eq!(world.listed(id), [Status::Revoked]);
            })
        });
        ended.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn a_reset_against_a_redemption_in_flight() {
    explore(|world| {
        let kept = world.issue(&[UNLOCK]);
        let (_, code_set) = world.authorize(&[START]);
        let redeemed = thread(world, move |world| world.redeem(&code_set, 1));
        let reset = thread(world, World::reset);
        redeemed.join().unwrap().expect("a bundle");
        assert_eq!(reset.join().unwrap().epoch, 1);
        assert_eq!(world.versions(kept).len(), 2);
    });
}

#[test]
fn a_renewal_against_a_change_and_another_renewal() {
    explore(|world| {
        let (id, other) = (world.issue(&[UNLOCK, START]), world.issue(&[UNLOCK]));
        let before = world.versions(other);
        let (revoked, next) = world.revoke();
        let renew = || thread(world, move |world| world.renew(revoked));
        let renewed = [renew(), renew()];
        let changed = thread(world, move |world| world.change(id, &[UNLOCK, TRUNK]));
        let count: u64 = renewed.into_iter().map(|it| it.join().unwrap()).sum();
        changed.join().unwrap().expect("there is one change");
        // One for certain, and the other unless the change was there first; none of them twice.
        assert!(matches!(count, 1 | 2), "{count}");
        assert_eq!((world.live(revoked), world.renew(revoked)), (0, 0));
        for id in [id, other] {
            let versions = world.versions(id);
            assert_eq!(versions.last().unwrap().bundle.epoch, next);
        }
        assert_eq!(world.versions(id).len(), 2);
        let after = world.versions(other);
        assert_eq!(after.len(), 1);
        assert_eq!(after[0].bundle.keys, before[0].bundle.keys);
    });
}
