//! Many ended in one call: what somebody has, what a vehicle has, or a list of targets. Floor 3.
//!
//! An identity is suspended first, so that nothing more is redeemed by it; what it has is looked up
//! after that. Each authorization is amended under its own conditions. Those of a chunk are
//! committed together as they come, and the lists are signed once for all of them.

use futures_util::future::join_all;

use super::amend::{Caller, Done};
use super::outcome::Outcome;
use super::{Engine, Failure};
use crate::concurrent;
use crate::domain::change::Action;
use crate::domain::{
    AuthorizationId, AuthorizationState, BundleId, Identity, IdentityId, KeyId, Refusal,
    RefusalCode, Status, VehicleId,
};
use crate::store::Write;

/// Ends carried out side by side, whose lists are signed together.
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

/// One thing to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// A key.
    Key(KeyId),
    /// An authorization.
    Authorization(AuthorizationId),
}

impl Engine {
    /// What `target` stands for, having seen to it that it does not become more.
    ///
    /// # Errors
    /// `not_found`; `forbidden` where an owner terminal asks for what it may not.
    pub async fn ends_of(&self, caller: Caller<'_>, target: &Target) -> Result<Vec<End>, Failure> {
        let not_found = |field| Refusal::new(RefusalCode::NotFound).field(field);
        Ok(match target {
            Target::Key(id) => vec![End::Key(*id)],
            Target::Authorization(id) => vec![End::Authorization(*id)],
            Target::Bundle(id) => {
                let found = self.bundle(*id).await?;
                let found = found.filter(|it| it.bundle.fleet == caller.fleet().fleet.id);
                let bundle = found.ok_or_else(|| not_found("bundle"))?.bundle;
                vec![End::Authorization(bundle.authorization)]
            }
            Target::Vehicle(id) => {
                let known = caller.fleet().vehicle(id.as_str());
                known.ok_or_else(|| not_found("vehicle"))?;
                caller.check_owns(id)?;
                let live = self.live_of_vehicle(caller, id).await?;
                live.iter().map(|it| End::Authorization(it.id)).collect()
            }
            Target::Identity(id) => self.suspend_identity(caller, id).await?,
        })
    }

    /// Ends a chunk: one answer for each, in their order. When it returns, what was ended is
    /// durable and on the lists.
    ///
    /// # Errors
    /// Of each those of [`Engine::act`]; of all that the lists could not be signed.
    pub async fn end(
        &self,
        caller: Caller<'_>,
        chunk: &[End],
    ) -> Result<Vec<Result<Outcome, Failure>>, Failure> {
        let one = async |end: &End| -> Result<Done, Failure> {
            match end {
                End::Key(id) => self.revoke_key_unlisted(caller, *id).await,
                End::Authorization(id) => self.act_unlisted(caller, *id, Action::Cancel).await,
            }
        };
        let done = join_all(chunk.iter().map(one)).await;
        let mut lists: Vec<_> = done
            .iter()
            .flatten()
            .flat_map(|it| it.lists.clone())
            .collect();
        lists.sort_unstable();
        lists.dedup();
        self.lists_fresh(lists).await?;
        let outcome = |done: Result<Done, Failure>| done.map(|done| done.outcome);
        Ok(done.into_iter().map(outcome).collect())
    }

    /// Suspends an identity, and names what it has.
    async fn suspend_identity(
        &self,
        caller: Caller<'_>,
        id: &IdentityId,
    ) -> Result<Vec<End>, Failure> {
        if let Caller::Owner(_) = caller {
            return Err(Refusal::new(RefusalCode::Forbidden)
                .detail("identities are the fleet's to revoke")
                .into());
        }
        let fleet = caller.fleet();
        let known = fleet.identity(id.as_str());
        let known = known.ok_or_else(|| Refusal::new(RefusalCode::NotFound).field("identity"))?;
        self.write(vec![Write::Identity(Identity {
            status: Status::Suspended,
            ..Identity::clone(&known)
        })])
        .await?;
        let (fleet, identity) = (fleet.fleet.id, id.clone());
        let held = self
            .read(move |store| store.held_by(fleet, &identity))
            .await?;
        let (engine, identity) = (std::sync::Arc::clone(&self.shared), id.clone());
        // Every authorization is looked at: that may take a while.
        let meant = concurrent::spawn_blocking(move || {
            engine.book.authorizations_where(|it| {
                it.fleet == fleet
                    && it.recipient().identity.as_ref() == Some(&identity)
                    && it.state != AuthorizationState::Cancelled
            })
        });
        let meant = meant
            .await
            .map_err(|error| Failure::Fault(format!("a look through the book: {error}")))?;
        let mut all: Vec<_> = held.into_iter().chain(meant).collect();
        all.sort_unstable();
        all.dedup();
        Ok(all.into_iter().map(End::Authorization).collect())
    }
}
