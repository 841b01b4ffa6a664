//! Everything that somebody has, or that a vehicle has, ended or suspended in one call: floor 3.
//!
//! An identity is suspended first, so that nothing more is redeemed by it; what it has is looked up
//! after that. Each authorization is amended under its own conditions, and the lists are signed
//! once for all of them.

use std::sync::Arc;

use super::amend::{Caller, Done, lists_of};
use super::outcome::Outcome;
use super::{Engine, Failure};
use crate::domain::change::Action;
use crate::domain::{
    Authorization, AuthorizationId, AuthorizationState, BundleId, Identity, IdentityId, KeyId,
    Refusal, RefusalCode, Status, VehicleId,
};
use crate::store::{Applied, Write};

/// Authorizations amended in one transaction.
pub const CHUNK: usize = 64;

/// What is to be revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// One key: its function is taken off the authorization.
    Key(KeyId),
    /// A bundle: the same as its authorization.
    Bundle(BundleId),
    /// An authorization.
    Authorization(AuthorizationId),
    /// Everything an identity has; it redeems nothing more until it is made active again.
    Identity(IdentityId),
    /// Everything on a vehicle.
    Vehicle(VehicleId),
}

/// Authorizations that one target stands for, and which are yet to be ended.
pub struct Sweep {
    left: Vec<AuthorizationId>,
    /// How many there were.
    pub total: usize,
    /// How many have been ended.
    pub done: usize,
    /// What that came to.
    pub outcome: Outcome,
}

impl Sweep {
    /// Whether nothing is left.
    pub fn is_done(&self) -> bool {
        self.left.is_empty()
    }
}

impl Engine {
    /// Looks up what `target` stands for, and sees to it that it does not become more.
    ///
    /// # Errors
    /// `not_found`; `forbidden` where an owner terminal asks for an identity.
    pub async fn begin_sweep(
        &self,
        caller: Caller<'_>,
        target: &Target,
    ) -> Result<Sweep, Failure> {
        let not_found = |field| Refusal::new(RefusalCode::NotFound).field(field);
        let mut outcome = Outcome::nothing();
        let left = match target {
            Target::Key(id) => {
                outcome = self.revoke_key(caller, *id).await?.outcome;
                Vec::new()
            }
            Target::Bundle(id) => {
                let found = self.bundle(*id).await?;
                let found = found.filter(|it| it.bundle.fleet == caller.fleet().fleet.id);
                vec![found.ok_or_else(|| not_found("bundle"))?.bundle.authorization]
            }
            Target::Authorization(id) => vec![*id],
            Target::Vehicle(id) => {
                let known = caller.fleet().vehicle(id.as_str());
                known.ok_or_else(|| not_found("vehicle"))?;
                caller.check_owns(id)?;
                let live = self.live_of_vehicle(caller, id).await?;
                live.iter().map(|it| it.id).collect()
            }
            Target::Identity(id) => self.suspend_identity(caller, id).await?,
        };
        Ok(Sweep {
            total: left.len(),
            left,
            done: 0,
            outcome,
        })
    }

    /// Ends the next few of a sweep. When it returns, they are durable and on the lists.
    ///
    /// # Errors
    /// As [`Engine::act`]; what was ended before stays so.
    pub async fn go_on(&self, caller: Caller<'_>, sweep: &mut Sweep) -> Result<(), Failure> {
        let some = sweep.left.split_off(sweep.left.len().saturating_sub(CHUNK));
        // One is a call like any other, and may be sent again as such.
        if let ([only], 1) = (&some[..], sweep.total) {
            let done = self.act(caller, *only, Action::Cancel).await?;
            sweep.outcome = done.outcome;
            sweep.done = 1;
            return Ok(());
        }
        let count = some.len();
        let outcome = self.cancel_all(caller, some).await?;
        sweep.outcome = std::mem::replace(&mut sweep.outcome, Outcome::nothing()).with(outcome);
        sweep.done += count;
        Ok(())
    }

    /// Cancels authorizations in one transaction; those that have changed meanwhile, one by one.
    async fn cancel_all(
        &self,
        caller: Caller<'_>,
        ids: Vec<AuthorizationId>,
    ) -> Result<Outcome, Failure> {
        let fleet = caller.fleet();
        let mut whole = Outcome::nothing();
        let (mut writes, mut asked) = (Vec::new(), Vec::new());
        let mut marks = Vec::new();
        for id in ids {
            let Some(now) = self.authorization(fleet.fleet.id, id).await? else {
                continue;
            };
            caller.check_owns(&now.vehicle)?;
            let versions = self.versions_of(&now).await?;
            if let Some(plan) = self.plan_action(&now, &versions, Action::Cancel)? {
                let (mut amendment, outcome) = self.amendment(fleet, &now, plan, None);
                amendment.by = caller.by();
                marks.extend_from_slice(&amendment.marks);
                writes.push(Write::Amend(Arc::new(amendment)));
                asked.push((id, outcome));
            }
        }
        if writes.is_empty() {
            return Ok(whole);
        }
        let applied = self.write(writes).await?;
        for ((id, outcome), applied) in asked.into_iter().zip(applied) {
            whole = match applied {
                Applied::Amended(_) => whole.with(outcome),
                _ => whole.with(self.cancel_anew(caller, id).await?.outcome),
            };
        }
        self.lists_fresh(lists_of(&marks)).await?;
        Ok(whole)
    }

    async fn cancel_anew(
        &self,
        caller: Caller<'_>,
        id: AuthorizationId,
    ) -> Result<Done, Failure> {
        let unnamed = match caller {
            Caller::BackEnd(caller, _) => Caller::BackEnd(caller, None),
            owner @ Caller::Owner(_) => owner,
        };
        self.act(unnamed, id, Action::Cancel).await
    }

    /// Suspends an identity, and names what it has.
    async fn suspend_identity(
        &self,
        caller: Caller<'_>,
        id: &IdentityId,
    ) -> Result<Vec<AuthorizationId>, Failure> {
        if let Caller::Owner(_) = caller {
            return Err(Refusal::new(RefusalCode::Forbidden)
                .detail("identities are the fleet's to revoke")
                .into());
        }
        let fleet = caller.fleet();
        let known = fleet.identity(id.as_str());
        let known =
            known.ok_or_else(|| Refusal::new(RefusalCode::NotFound).field("identity"))?;
        self.write(vec![Write::Identity(Identity {
            status: Status::Suspended,
            ..Identity::clone(&known)
        })])
        .await?;
        let (fleet_id, identity) = (fleet.fleet.id, id.clone());
        let held = self
            .read(move |store| store.held_by(fleet_id, &identity))
            .await?;
        let shared = Arc::clone(&self.shared);
        let identity = id.clone();
        // Every authorization is looked at: that may take a while.
        let meant = tokio::task::spawn_blocking(move || {
            shared.book.authorizations_where(|it| {
                it.fleet == fleet_id
                    && it.recipient().identity.as_ref() == Some(&identity)
                    && matters(it)
            })
        });
        let meant = meant
            .await
            .map_err(|error| Failure::Fault(format!("a look through the book: {error}")))?;
        let mut all: Vec<_> = held.into_iter().chain(meant).collect();
        all.sort_unstable();
        all.dedup();
        Ok(all)
    }
}

/// Whether there is anything to end.
fn matters(authorization: &Authorization) -> bool {
    authorization.state != AuthorizationState::Cancelled
}
