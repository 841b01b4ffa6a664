//! What is carried out, and what must hold afterwards.

use std::collections::BTreeSet;
use std::sync::Mutex;

use fob::domain::change::{Action, grants};
use fob::domain::function::FunctionRef;
use fob::domain::{
    Authorization, AuthorizationId, AuthorizationState, Held, IdentityId, KeyId, KeyStatus, Reason,
    Reasons, Recipient, ShardId, Status, VehicleId,
};
use fob::engine::amend::Caller;
use fob::engine::authenticate::BackEnd;
use fob::engine::authorize::AuthorizationSpec;
use fob::engine::reset::Ends;
use fob::engine::revoke::{Part, Target};
use fob::engine::{Book, Engine, Failure};
use fob::store::{BundleKey, SignedBundle, Store};
use fob_verify::HolderKey;

use super::Op;
use crate::support::inside::Inside;
use crate::support::{Phone, now};

/// One vehicle, one identity, and what was done.
pub(super) struct World<'a> {
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

impl<'a> World<'a> {
    pub(super) fn new(
        inside: &'a Inside,
        back_end: BackEnd,
        vehicle: VehicleId,
        identity: IdentityId,
    ) -> Self {
        Self {
            inside,
            back_end,
            vehicle,
            identity,
            phone: Phone::new().key(),
            held: Mutex::default(),
            made: Mutex::default(),
        }
    }

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
            answers: None,
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
    pub(super) async fn run(&self, op: &Op) {
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
    pub(super) fn learn(&self, one: &Op, other: &Op) {
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

    pub(super) fn check(&self) {
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

    pub(super) fn check_loaded(&self) {
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
