//! Lists of operations on one vehicle, two at a time, as proptest thinks them up.
//!
//! A failure is any of these, looked for after each step over everything that was ever issued:
//! - a key that is valid on its list, not expired and of the vehicle's epoch, that its
//!   authorization does not grant;
//! - a key that is suspended for a reason that does not hold, or is not for one that does: its
//!   function (which a model keeps), its authorization, its identity, its vehicle;
//! - a function that a redeemed authorization grants, for which the bundle as it stands has no
//!   key of the vehicle's epoch, valid unless one of these suspends it;
//! - a book that, loaded from the store, says something else than the one in memory;
//! - a fault where there should be a refusal.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use fob::domain::change::{Action, grants};
use fob::domain::function::FunctionRef;
use fob::domain::{
    Authorization, AuthorizationId, AuthorizationState, Held, IdentityId, KeyId, KeyStatus, Reason,
    Recipient, ShardId, Status, Token, TokenId, VehicleId,
};
use fob::engine::amend::Caller;
use fob::engine::authenticate::BackEnd;
use fob::engine::authorize::AuthorizationSpec;
use fob::engine::reset::Ends;
use fob::engine::revoke::{Part, Target};
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
    /// To every key of a function.
    OnKey(usize, u16, Action),
    OnVehicle(Action),
    OnIdentity(Action),
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
        5 => (one.clone(), 1..6_u16, action()).prop_map(|(at, function, action)| {
            Op::OnKey(at, function, action)
        }),
        4 => action().prop_map(Op::OnVehicle),
        4 => action().prop_map(Op::OnIdentity),
        2 => proptest::option::of(one.clone()).prop_map(Op::Reset),
        2 => one.prop_map(Op::Rebind),
    ]
}

/// Ends are rarer, or nothing would be left.
fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => Just(Action::Suspend),
        5 => Just(Action::Resume),
        1 => Just(Action::Cancel),
    ]
}

struct World<'a> {
    inside: &'a Inside,
    back_end: BackEnd,
    vehicle: VehicleId,
    identity: IdentityId,
    phone: HolderKey,
    /// The functions that are suspended by themselves.
    held: Mutex<BTreeSet<(AuthorizationId, u16)>>,
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
            Op::Redeem(at) | Op::Change(at, ..) | Op::Act(at, _) => *at,
            Op::OnKey(at, ..) | Op::Reset(Some(at)) | Op::Rebind(at) => *at,
            Op::Authorize(_) | Op::OnVehicle(_) | Op::OnIdentity(_) | Op::Reset(None) => 0,
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
            (Op::OnVehicle(action), _) => {
                let target = Target::Vehicle(self.vehicle.clone());
                self.on_all(*action, &target).await?;
            }
            (Op::OnIdentity(action), _) => {
                let target = Target::Identity(self.identity.clone());
                self.on_all(*action, &target).await?;
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
                let renter = self.identity.clone();
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
            (Op::OnKey(_, function, action), Some((id, _))) => {
                if let Some(newest) = self.newest(id) {
                    let bundle = &newest.bundle;
                    let key: KeyId = bundle.id.key(bundle.version, *function);
                    self.on_all(*action, &Target::Key(key)).await?;
                    let mut held = self.held.lock().unwrap();
                    match action {
                        Action::Suspend => drop(held.insert((id, *function))),
                        _ => drop(held.remove(&(id, *function))),
                    }
                }
            }
            (Op::Rebind(_), Some((id, _))) => {
                engine.rebind(caller, id, Phone::new().key()).await?;
            }
        }
        Ok(())
    }

    async fn on_all(&self, action: Action, target: &Target) -> Result<(), Failure> {
        let (engine, caller) = (self.engine(), self.caller());
        let parts: Vec<Part> = engine.parts_of(caller, action, target).await?;
        for outcome in engine.carry_out(caller, action, &parts).await? {
            outcome?;
        }
        Ok(())
    }

    /// Of two that contradict each other, which came last is not known: the model learns it.
    fn learn(&self, one: &Op, other: &Op) {
        let (Op::OnKey(_, one, _), Op::OnKey(_, other, _)) = (one, other) else {
            return;
        };
        if one != other {
            return;
        }
        for (id, _) in self.made.lock().unwrap().iter() {
            if self.held_by_itself(*id, *one) {
                self.held.lock().unwrap().insert((*id, *one));
            } else {
                self.held.lock().unwrap().remove(&(*id, *one));
            }
        }
    }

    fn held_by_itself(&self, id: AuthorizationId, function: u16) -> bool {
        let newest = self.newest(id).map(|newest| newest.bundle);
        newest.is_some_and(|bundle| {
            let mut keys = bundle.each_key();
            let key = keys.find(|(subject, _)| subject.function == function);
            key.is_some_and(|(subject, key)| {
                let shard = ShardId::at(&subject.status_uri).unwrap();
                let statuses = &self.engine().book().statuses;
                statuses.held(shard, key.status_index).has(Reason::Function)
            })
        })
    }

    /// Why a key of this function must be suspended.
    fn reasons(&self, stands: &Authorization, function: u16) -> Held {
        use fob::domain::Reasons;
        let fleet = &self.back_end.fleet;
        let vehicle = fleet.vehicle(self.vehicle.as_str()).unwrap();
        let identity = fleet.identity(self.identity.as_str()).unwrap();
        let by_itself = self.held.lock().unwrap().contains(&(stands.id, function));
        let all = [
            (Reason::Function, by_itself),
            (
                Reason::Authorization,
                stands.state == AuthorizationState::Suspended,
            ),
            (Reason::Identity, identity.status == Status::Suspended),
            (Reason::Vehicle, vehicle.status == Status::Suspended),
        ];
        let hold = all.into_iter().filter(|(_, holds)| *holds);
        Held::By(hold.fold(Reasons::NONE, |all, (reason, _)| all.with(reason)))
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
            // A function that was taken off, and comes back, comes back valid.
            let mut model = self.held.lock().unwrap();
            model.retain(|(of, function)| of != id || stands.functions.contains(function));
            drop(model);
            for SignedBundle { bundle, .. } in self.inside.store.versions(newest.id).unwrap() {
                for (subject, key) in bundle.each_key() {
                    let shard = ShardId::at(&subject.status_uri).unwrap();
                    let held = book.statuses.held(shard, key.status_index);
                    let live =
                        held.status() == KeyStatus::Valid && bundle.vehicle_epoch == vehicle.epoch;
                    let holder = bundle.holder == newest.holder;
                    let granted = stands.state != AuthorizationState::Cancelled
                        && grants(&stands, &bundle, subject, key, holder);
                    assert!(
                        !live || granted,
                        "{subject:?} of {bundle:?}, but {stands:?}"
                    );
                    let reasons = self.reasons(&stands, subject.function);
                    assert!(
                        held == Held::ForGood || held == reasons,
                        "{held:?}, not {reasons:?}: {subject:?} of {bundle:?}, {stands:?}"
                    );
                }
            }
            if stands.state == AuthorizationState::Cancelled {
                continue;
            }
            assert_eq!(newest.vehicle_epoch, vehicle.epoch, "{newest:?}");
            let standing = book.statuses.of_bundle(&newest);
            let keys = newest.subjects.iter().zip(standing);
            let there: Vec<_> = keys
                .filter(|(_, status)| *status != KeyStatus::Revoked)
                .map(|(subject, _)| subject.function)
                .collect();
            for function in stands.functions.iter() {
                assert!(
                    there.contains(function),
                    "{function} of {stands:?}: {newest:?}"
                );
            }
        }
    }

    fn check_loaded(&self) {
        let (book, loaded) = (self.engine().book(), Book::default());
        loaded.load(&*self.inside.store).unwrap();
        assert_eq!(loaded.statuses.revision(), book.statuses.revision());
        let again = loaded.fleet(self.back_end.fleet.fleet.id).unwrap();
        let fleet = &self.back_end.fleet;
        let (vehicle, identity) = (self.vehicle.as_str(), self.identity.as_str());
        assert_eq!(again.vehicle(vehicle), fleet.vehicle(vehicle));
        assert_eq!(again.identity(identity), fleet.identity(identity));
        for (id, _) in self.made.lock().unwrap().iter() {
            assert_eq!(loaded.authorization(*id), book.authorization(*id));
            let Some(newest) = self.newest(*id) else {
                continue;
            };
            for SignedBundle { bundle, .. } in self.inside.store.versions(newest.bundle.id).unwrap()
            {
                for (subject, key) in bundle.each_key() {
                    let shard = ShardId::at(&subject.status_uri).unwrap();
                    let of = |book: &Book| book.statuses.held(shard, key.status_index);
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
            identity: IdentityId::parse(&format!("renter-{}", 1 + case.get() % 100)).unwrap(),
            held: Mutex::default(),
            phone: Phone::new().key(),
            made: Mutex::default(),
        };
        // A case before may have left them suspended.
        for op in [
            Op::OnVehicle(Action::Resume),
            Op::OnIdentity(Action::Resume),
        ] {
            runtime.block_on(world.run(&op));
        }
        for (one, other) in &steps {
            runtime.block_on(join(world.run(one), world.run(other)));
            world.learn(one, other);
            world.check();
        }
        world.check_loaded();
        Ok(())
    });
    run.unwrap();
}
