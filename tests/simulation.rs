//! Lists of operations on one vehicle, two at a time, as proptest thinks them up.
//!
//! A failure is any of these, looked for after each step over everything that was ever issued:
//! - a key that is valid on its list, not expired and of the vehicle's epoch, that its
//!   authorization does not grant;
//! - a function that a redeemed authorization grants, for which the bundle as it stands has no
//!   valid key of the vehicle's epoch;
//! - a book that, loaded from the store, says something else than the one in memory;
//! - a fault where there should be a refusal.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::sync::{Arc, Mutex};

use fob::domain::change::{Action, grants};
use fob::domain::function::FunctionRef;
use fob::domain::{
    Authorization, AuthorizationId, AuthorizationState, IdentityId, KeyId, KeyStatus, Recipient,
    ShardId, Token, TokenId, VehicleId,
};
use fob::engine::amend::Caller;
use fob::engine::authenticate::BackEnd;
use fob::engine::authorize::AuthorizationSpec;
use fob::engine::reset::Ends;
use fob::engine::revoke::{End, Target};
use fob::engine::{Book, Engine, Failure};
use fob::store::{BundleKey, SignedBundle, Store};
use fob_verify::HolderKey;
use futures_util::future::join;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::support::inside::Inside;
use crate::support::{Phone, now};

/// What is done to one of the authorizations there are, by its number.
#[derive(Clone, Debug)]
enum Op {
    Authorize(u8),
    Redeem(usize),
    Change(usize, u8, u64),
    Act(usize, Action),
    RevokeKey(usize, u16),
    RevokeVehicle,
    Reset(Option<usize>),
    Rebind(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let one = 0..8_usize;
    let functions = 1..32_u8;
    prop_oneof![
        3 => functions.clone().prop_map(Op::Authorize),
        5 => one.clone().prop_map(Op::Redeem),
        5 => (one.clone(), functions, 1..4_u64).prop_map(|(at, mask, hours)| Op::Change(at, mask, hours)),
        2 => one.clone().prop_map(|at| Op::Act(at, Action::Suspend)),
        3 => one.clone().prop_map(|at| Op::Act(at, Action::Resume)),
        1 => one.clone().prop_map(|at| Op::Act(at, Action::Cancel)),
        2 => (one.clone(), 1..6_u16).prop_map(|(at, function)| Op::RevokeKey(at, function)),
        1 => Just(Op::RevokeVehicle),
        2 => proptest::option::of(one.clone()).prop_map(Op::Reset),
        2 => one.prop_map(Op::Rebind),
    ]
}

struct World<'a> {
    inside: &'a Inside,
    back_end: BackEnd,
    vehicle: VehicleId,
    phone: HolderKey,
    /// Everything authorized, with its first code set.
    made: Mutex<Vec<(AuthorizationId, String)>>,
}

impl World<'_> {
    fn engine(&self) -> &Engine {
        &self.inside.engine
    }

    fn caller(&self) -> Caller<'_> {
        Caller::BackEnd(&self.back_end, None)
    }

    fn spec(&self, mask: u8, hours: u64) -> AuthorizationSpec {
        let functions = (0..5_u16).filter(|bit| mask >> bit & 1 == 1);
        AuthorizationSpec {
            vehicle: self.vehicle.clone(),
            functions: functions.map(|bit| FunctionRef::Code(bit + 1)).collect(),
            not_before: now() - 60,
            not_after: now() + hours * 3600,
            region: None,
            recurring: None,
            max_uses: Vec::new(),
            recipient: Recipient::default(),
            pin: false,
            redeem_by: None,
            signing: None,
        }
    }

    fn pick(&self, at: usize) -> Option<(AuthorizationId, String)> {
        let made = self.made.lock().unwrap();
        (!made.is_empty()).then(|| made[at % made.len()].clone())
    }

    fn newest(&self, id: AuthorizationId) -> Option<SignedBundle> {
        self.inside
            .store
            .bundle(BundleKey::Authorization(id))
            .unwrap()
    }

    /// Does it. Refusals are fine, faults are not.
    async fn run(&self, op: &Op) {
        if let Err(Failure::Fault(fault)) = self.carry_out(op).await {
            panic!("{op:?}: {fault}");
        }
    }

    async fn carry_out(&self, op: &Op) -> Result<(), Failure> {
        let (engine, caller) = (self.engine(), self.caller());
        let at = match op {
            Op::Authorize(_) | Op::RevokeVehicle | Op::Reset(None) => 0,
            Op::Redeem(at) | Op::Change(at, ..) | Op::Act(at, _) => *at,
            Op::RevokeKey(at, _) | Op::Reset(Some(at)) | Op::Rebind(at) => *at,
        };
        let picked = self.pick(at);
        match (op, picked) {
            (Op::Authorize(mask), _) => {
                let spec = self.spec(*mask, 2);
                let made = engine
                    .authorize_for_fleet(&self.back_end, spec, None)
                    .await?;
                let code_set = engine.code_set(&made)?;
                self.made.lock().unwrap().push((made.id, code_set));
            }
            (Op::RevokeVehicle, _) => {
                let target = Target::Vehicle(self.vehicle.clone());
                let ends = engine.ends_of(caller, &target).await?;
                engine.end(caller, &ends).await?;
            }
            (Op::Reset(named), picked) => {
                let ends = named.and(picked).map(|(id, _)| id);
                let ends = Ends::These(ends.into_iter().collect());
                engine.reset(caller, &self.vehicle, &ends).await?;
            }
            (_, None) => {}
            (Op::Redeem(_), Some((id, first))) => {
                let stands = engine.book().authorization(id).unwrap();
                let code_set = engine.code_set(&stands).unwrap_or(first);
                let renter = IdentityId::parse("renter-1").unwrap();
                engine.redeem_for(&code_set, renter, self.phone).await?;
            }
            (Op::Change(_, mask, hours), Some((id, _))) => {
                let version = engine.book().authorization(id).unwrap().version;
                let spec = |_: &Authorization| Ok(self.spec(*mask, *hours));
                engine.change(caller, id, version, spec).await?;
            }
            (Op::Act(_, action), Some((id, _))) => {
                engine.act(caller, id, *action).await?;
            }
            (Op::RevokeKey(_, function), Some((id, _))) => {
                if let Some(newest) = self.newest(id) {
                    let bundle = &newest.bundle;
                    let key: KeyId = bundle.id.key(bundle.version, *function);
                    for outcome in engine.end(caller, &[End::Key(key)]).await? {
                        outcome?;
                    }
                }
            }
            (Op::Rebind(_), Some((id, _))) => {
                engine.rebind(caller, id, Phone::new().key()).await?;
            }
        }
        Ok(())
    }

    fn check(&self) {
        let book = self.engine().book();
        let vehicle = self.back_end.fleet.vehicle(self.vehicle.as_str()).unwrap();
        for (id, _) in self.made.lock().unwrap().iter() {
            let stands = book.authorization(*id).unwrap();
            let Some(newest) = self.newest(*id) else {
                assert!(!stands.redeemed, "{stands:?}");
                continue;
            };
            assert!(stands.redeemed, "{stands:?}");
            let newest = newest.bundle;
            for SignedBundle { bundle, .. } in self.inside.store.versions(newest.id).unwrap() {
                let standing = book.statuses.of_bundle(&bundle);
                for ((subject, key), status) in bundle.each_key().zip(standing) {
                    let live = status == KeyStatus::Valid && bundle.vehicle_epoch == vehicle.epoch;
                    let holder = bundle.holder == newest.holder;
                    let granted = stands.state == AuthorizationState::Redeemed
                        && grants(&stands, &bundle, subject, key, holder);
                    assert!(
                        !live || granted,
                        "{subject:?} of {bundle:?}, but {stands:?}"
                    );
                }
            }
            if stands.state != AuthorizationState::Redeemed {
                continue;
            }
            assert_eq!(newest.vehicle_epoch, vehicle.epoch, "{newest:?}");
            let standing = book.statuses.of_bundle(&newest);
            let keys = newest.subjects.iter().zip(standing);
            let valid: Vec<_> = keys
                .filter(|(_, status)| *status == KeyStatus::Valid)
                .map(|(subject, _)| subject.function)
                .collect();
            for function in stands.functions.iter() {
                assert!(
                    valid.contains(function),
                    "{function} of {stands:?}: {newest:?}"
                );
            }
        }
    }

    fn check_loaded(&self) {
        let (book, loaded) = (self.engine().book(), Book::default());
        loaded.load(&*self.inside.store).unwrap();
        assert_eq!(loaded.statuses.revision(), book.statuses.revision());
        for (id, _) in self.made.lock().unwrap().iter() {
            assert_eq!(loaded.authorization(*id), book.authorization(*id));
            let Some(newest) = self.newest(*id) else {
                continue;
            };
            for SignedBundle { bundle, .. } in self.inside.store.versions(newest.bundle.id).unwrap()
            {
                for (subject, key) in bundle.each_key() {
                    let shard = ShardId::at(&subject.status_uri).unwrap();
                    let of = |book: &Book| book.statuses.of(shard, key.status_index);
                    assert_eq!(of(&loaded), of(book));
                }
            }
        }
    }
}

#[test]
fn whatever_is_done_no_key_is_left_that_is_not_granted() {
    let inside = Inside::start("simulation", |settings| {
        // Lists change far more often here than anywhere.
        settings.list_ahead_max_s = 1_000_000;
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let fleet = inside.engine.book().fleet_named("demo").unwrap();
    let token = Arc::new(Token {
        id: TokenId([1; 16]),
        fleet: fleet.fleet.id,
        hash: [0; 32],
        scopes: std::iter::empty().collect(),
        created_at: 0,
        expires_at: None,
        revoked_at: None,
    });
    let mut runner = TestRunner::new(Config {
        cases: 48,
        failure_persistence: None,
        ..Config::default()
    });
    let steps = proptest::collection::vec((op(), op()), 1..24);
    let case = std::cell::Cell::new(0_u32);
    let run = runner.run(&steps, |steps| {
        case.set(case.get() + 1);
        let world = World {
            inside: &inside,
            back_end: BackEnd {
                fleet: Arc::clone(&fleet),
                token: Arc::clone(&token),
            },
            vehicle: VehicleId::parse(&format!("DEMO-{:04}", 1 + case.get() % 100)).unwrap(),
            phone: Phone::new().key(),
            made: Mutex::default(),
        };
        for (one, other) in &steps {
            runtime.block_on(join(world.run(one), world.run(other)));
            world.check();
        }
        world.check_loaded();
        Ok(())
    });
    run.unwrap();
}
