//! A vehicle's reset, at the end of a rental or a change of owner: floor 3.
//!
//! Its epoch is raised by one, so that no key issued before is taken once the car knows; what is
//! named ends with it, and every other bundle is issued again at the new epoch. One transaction has
//! all of that. A bundle that was committed at the epoch before between looking and writing is
//! found by looking once more: none can be committed at it after.

use std::sync::Arc;

use super::amend::{Caller, lists_of, replayed};
use super::authenticate::BackEnd;
use super::book::FleetBook;
use super::outcome::Outcome;
use super::plan::{Anew, Plan, again};
use super::put::kept;
use super::{Engine, Failure};
use crate::domain::change::Action;
use crate::domain::{
    Authorization, AuthorizationId, AuthorizationState, Mark, Refusal, RefusalCode, ShardId,
    Vehicle, VehicleId,
};
use crate::store::{Amendment, Applied, AuthorizationFilter, Reset, SignedBundle, Write};

/// Times a reset is decided anew after its conditions did not hold.
const ATTEMPTS_MAX: usize = 8;

/// Authorizations read at once.
const PAGE: u32 = 500;

/// Which authorizations a reset ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ends {
    /// All of the vehicle's.
    All,
    /// These.
    These(Vec<AuthorizationId>),
}

/// What a reset came to.
#[derive(Clone, Debug)]
pub struct ResetDone {
    /// The vehicle's epoch.
    pub epoch: u32,
    /// What was revoked and issued, and when that is certain.
    pub outcome: Outcome,
}

/// What is decided about one authorization.
struct Decided {
    now: Arc<Authorization>,
    plan: Plan,
}

impl Engine {
    /// Resets a vehicle: raises its epoch by one, ends the authorizations that are named and issues
    /// the bundles of its others again.
    ///
    /// # Errors
    /// `not_found` for a vehicle, or an authorization of it, that is not there; `hsm_unavailable`;
    /// `busy` where what it rests on keeps changing.
    pub async fn reset(
        &self,
        caller: Caller<'_>,
        vehicle: &VehicleId,
        ends: &Ends,
    ) -> Result<ResetDone, Failure> {
        let fleet = Arc::clone(caller.fleet());
        for _ in 0..ATTEMPTS_MAX {
            self.abreast().await?;
            let known = fleet.vehicle(vehicle.as_str());
            let known = known.ok_or_else(|| Refusal::new(RefusalCode::NotFound))?;
            caller.check_owns(vehicle)?;
            if let Some(request) = caller.request()
                && let Some(outcome) = self.outcome_of(request).await?
            {
                let epoch = known.epoch;
                return self
                    .answer_again(request, ResetDone { epoch, outcome })
                    .await;
            }
            let from = known.epoch;
            let (amendments, outcome) = self.decide_reset(caller, vehicle, ends, from + 1).await?;
            let marks: Vec<Mark> = amendments.iter().flat_map(|it| it.marks.clone()).collect();
            let reset = Reset {
                fleet: fleet.fleet.id,
                vehicle: vehicle.clone(),
                from,
                amendments,
                becomes: None,
                by: caller.by(),
                request: caller.keep(self.clock().unix(), outcome.encode()),
            };
            let mut write = Write::Reset(Arc::new(reset));
            if let Caller::BackEnd(caller, _) = caller {
                let object = format!("vehicle {}", vehicle.as_str());
                write = write.as_act(caller.act(self.clock().unix(), "reset", object));
            }
            let applied = self.write(vec![write]).await?;
            match applied.first() {
                Some(Applied::Amended(_)) => {
                    let outcome = self.catch_up(caller, vehicle, from + 1, outcome).await?;
                    self.lists_fresh(lists_of(&marks)).await?;
                    let epoch = from + 1;
                    return Ok(ResetDone { epoch, outcome });
                }
                Some(Applied::Conflict) => return Err(replayed().into()),
                _ => {}
            }
        }
        Err(self
            .shared
            .busy("what this vehicle has keeps changing")
            .into())
    }

    /// Gives a vehicle another owner: what it was authorized for ends, open code sets and keys, and
    /// it is reset, all with the new owner or not at all. What was asked for before that and comes
    /// to be after it is found by looking once more.
    ///
    /// # Errors
    /// As [`Engine::reset`].
    pub(super) async fn give_to_owner(
        &self,
        back_end: &BackEnd,
        becomes: &Vehicle,
    ) -> Result<(), Failure> {
        let fleet = &back_end.fleet;
        let caller = Caller::Registry(fleet);
        let vehicle = &becomes.id;
        for _ in 0..ATTEMPTS_MAX {
            let Some(known) = fleet.vehicle(vehicle.as_str()) else {
                return Err(Refusal::new(RefusalCode::NotFound).into());
            };
            if known.owner == becomes.owner {
                // Somebody else was quicker.
                let write = Write::Vehicle(becomes.clone());
                if let Some(write) = kept(back_end, self.clock().unix(), write) {
                    let applied = self.write(vec![write]).await?;
                    super::registry::outcome(&applied)?;
                }
                return Ok(());
            }
            let from = known.epoch;
            let (amendments, _) = self
                .decide_reset(caller, vehicle, &Ends::All, from + 1)
                .await?;
            let mut lists: Vec<_> = amendments
                .iter()
                .flat_map(|it| lists_of(&it.marks))
                .collect();
            let reset = Reset {
                fleet: fleet.fleet.id,
                vehicle: vehicle.clone(),
                from,
                amendments,
                becomes: Some(becomes.clone()),
                by: None,
                request: None,
            };
            let object = format!("vehicle {}", vehicle.as_str());
            let act = back_end.act(self.clock().unix(), "hand_over", object);
            let write = Write::Reset(Arc::new(reset)).as_act(act);
            let applied = self.write(vec![write]).await?;
            if let Some(Applied::Amended(_)) = applied.first() {
                lists.extend(self.end_what_came_before(caller, vehicle).await?);
                lists.sort_unstable();
                lists.dedup();
                return Ok(self.lists_fresh(lists).await?);
            }
        }
        Err(self
            .shared
            .busy("what this vehicle has keeps changing")
            .into())
    }

    /// Ends what was asked for before now and was committed after a handover had looked. Ids tell:
    /// they ascend as they are asked for.
    async fn end_what_came_before(
        &self,
        caller: Caller<'_>,
        vehicle: &VehicleId,
    ) -> Result<Vec<ShardId>, Failure> {
        let now = self.shared.ids.authorization(self.clock().unix_ms());
        let mut lists = Vec::new();
        for before in self.live_of_vehicle(caller, vehicle).await? {
            if before.id < now {
                let done = self
                    .act_unlisted(caller, before.id, Action::Cancel, None)
                    .await?;
                lists.extend(done.lists);
            }
        }
        Ok(lists)
    }

    async fn answer_again(
        &self,
        request: crate::store::Request,
        done: ResetDone,
    ) -> Result<ResetDone, Failure> {
        let applied = self.write(vec![Write::Recall(request)]).await?;
        match applied.first() {
            Some(Applied::Repeated(_)) => Ok(done),
            _ => Err(replayed().into()),
        }
    }

    /// What a reset does to each authorization of the vehicle, new keys signed.
    async fn decide_reset(
        &self,
        caller: Caller<'_>,
        vehicle: &VehicleId,
        ends: &Ends,
        epoch: u32,
    ) -> Result<(Vec<Arc<Amendment>>, Outcome), Failure> {
        let live = self.live_of_vehicle(caller, vehicle).await?;
        if let Ends::These(named) = ends {
            let known = |id: &AuthorizationId| live.iter().any(|it| it.id == *id);
            if let Some(unknown) = named.iter().find(|id| !known(id)) {
                let refusal = Refusal::new(RefusalCode::NotFound).field("ends");
                return Err(refusal
                    .detail(format!("the vehicle has no authorization {unknown} to end"))
                    .into());
            }
        }
        let mut decided = Vec::new();
        for now in live {
            let versions = self.versions_of(&now).await?;
            let ended = match ends {
                Ends::All => true,
                Ends::These(named) => named.contains(&now.id),
            };
            let plan = if ended {
                self.plan_action(&now, &versions, Action::Cancel)?
            } else {
                self.plan_again(caller, &now, &versions, epoch)?
            };
            decided.extend(plan.map(|plan| Decided { now, plan }));
        }
        self.spell_out_all(caller, decided, epoch).await
    }

    /// The same keys again, at the next version; nothing for what was not redeemed, whose keys will
    /// be of the new epoch, and for whoever may have none any more.
    fn plan_again(
        &self,
        caller: Caller<'_>,
        now: &Authorization,
        versions: &[SignedBundle],
        epoch: u32,
    ) -> Result<Option<Plan>, Refusal> {
        if versions.is_empty() {
            return Ok(None);
        }
        let mut plan = Plan::stay(now);
        plan.raise_version(versions, epoch)?;
        match self.issue_again(caller.fleet(), plan, versions, Anew::Same) {
            Ok(plan) => Ok(Some(plan)),
            Err(refusal) => {
                tracing::info!(authorization = %now.id, %refusal, "a reset leaves it without keys");
                Ok(None)
            }
        }
    }

    async fn spell_out_all(
        &self,
        caller: Caller<'_>,
        decided: Vec<Decided>,
        epoch: u32,
    ) -> Result<(Vec<Arc<Amendment>>, Outcome), Failure> {
        let fleet = caller.fleet();
        let all = decided.iter().filter_map(|it| again(&it.plan, epoch));
        let mut signed = self.sign_again(fleet, all.collect()).await?.into_iter();
        let mut whole = Outcome::nothing();
        let mut amendments = Vec::with_capacity(decided.len());
        for Decided { now, plan } in decided {
            let own = plan.again.is_some().then(|| signed.next()).flatten();
            let (amendment, outcome) = self.amendment(fleet, &now, plan, own);
            whole = whole.with(outcome);
            amendments.push(Arc::new(amendment));
        }
        Ok((amendments, whole))
    }

    /// Issues again what was committed at an earlier epoch after the reset had looked.
    async fn catch_up(
        &self,
        caller: Caller<'_>,
        vehicle: &VehicleId,
        epoch: u32,
        mut whole: Outcome,
    ) -> Result<Outcome, Failure> {
        for _ in 0..ATTEMPTS_MAX {
            let mut decided = Vec::new();
            for now in self.live_of_vehicle(caller, vehicle).await? {
                let versions = self.versions_of(&now).await?;
                let newest = versions.last().map(|it| it.bundle.vehicle_epoch);
                if newest.is_some_and(|newest| newest < epoch)
                    && let Some(plan) = self.plan_again(caller, &now, &versions, epoch)?
                {
                    decided.push(Decided { now, plan });
                }
            }
            if decided.is_empty() {
                return Ok(whole);
            }
            let (amendments, outcome) = self.spell_out_all(caller, decided, epoch).await?;
            let writes = amendments.into_iter().map(Write::Amend).collect();
            self.write(writes).await?;
            whole = whole.with(outcome);
        }
        Ok(whole)
    }

    /// The authorizations of a vehicle that are not over.
    pub(super) async fn live_of_vehicle(
        &self,
        caller: Caller<'_>,
        vehicle: &VehicleId,
    ) -> Result<Vec<Arc<Authorization>>, Failure> {
        let now = self.clock().unix();
        let mut all = self.all_of_vehicle(caller.fleet(), vehicle).await?;
        // Their keys are looked at next, and must not be older than they are.
        self.abreast().await?;
        all.retain(|it| it.state != AuthorizationState::Cancelled && it.window.not_after > now);
        Ok(all)
    }

    /// Every authorization of a vehicle.
    pub(super) async fn all_of_vehicle(
        &self,
        fleet: &FleetBook,
        vehicle: &VehicleId,
    ) -> Result<Vec<Arc<Authorization>>, Failure> {
        let mut filter = AuthorizationFilter {
            fleet: fleet.fleet.id,
            id: None,
            vehicle: Some(vehicle.clone()),
            state: None,
            expired: None,
            now: 0,
            after: None,
            limit: PAGE,
        };
        let mut all = Vec::new();
        loop {
            let page = self.authorizations(filter.clone()).await?;
            filter.after = page.last().map(|last| last.id);
            let full = page.len() == PAGE as usize;
            all.extend(page.into_iter().map(Arc::new));
            if !full {
                return Ok(all);
            }
        }
    }
}
