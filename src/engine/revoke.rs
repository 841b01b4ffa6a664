//! Many suspended, resumed or ended in one call: what somebody has, what a vehicle has, what a
//! terminal commanded, or a list of targets. Floor 3.
//!
//! An identity or a vehicle is suspended first, or made active again; what it has is looked up after
//! that, so nothing is missed that was issued meanwhile. Its keys then follow, under the condition
//! that it still stands so: of two calls that contradict each other the later one holds, for it and
//! for its keys. What ends is amended, each under its own conditions. Those of a chunk are committed
//! together as they come, and the lists are signed once for all of them.

use std::sync::Arc;

use futures_util::future::join_all;

use super::amend::{Caller, Done, replayed};
use super::book::FleetBook;
use super::caller::{Doing, word};
use super::outcome::Outcome;
use super::{Engine, Failure};
use crate::concurrent;
use crate::domain::change::{Action, Followed, Registered};
use crate::domain::{
    Author, Authorization, AuthorizationId, AuthorizationState, BundleId, IdentityId, KeyId,
    Refusal, RefusalCode, Status, TerminalId, VehicleId,
};
use crate::store::{Applied, AuthorizationFilter, Suspension, Write};

/// Parts carried out side by side, whose lists are signed together.
pub const CHUNK: usize = 64;

/// What is to be suspended, resumed or revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// One key: every key of its function on its authorization. Revoked, the function is taken off.
    Key(KeyId),
    /// A bundle: the same as its authorization.
    Bundle(BundleId),
    /// An authorization.
    Authorization(AuthorizationId),
    /// Everything an identity has. While it is suspended it redeems nothing more; revoked, it is
    /// suspended.
    Identity(IdentityId),
    /// Everything on a vehicle. While it is suspended nothing more is redeemed for it.
    Vehicle(VehicleId),
    /// A terminal. While it is suspended it commands and redeems nothing more; revoked, it is
    /// suspended, and everything it authorized ends.
    Terminal(TerminalId),
}

/// One thing of all that a target stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// A key, and why, as whoever named it put it.
    Key(KeyId, Option<Arc<str>>),
    /// An authorization, and why.
    Authorization(AuthorizationId, Option<Arc<str>>),
    /// One of several authorizations that end.
    Member(AuthorizationId),
    /// An authorization whose keys follow an identity or a vehicle.
    Follower(AuthorizationId, Followed),
}

impl Engine {
    /// What `target` stands for, having seen to it that it does not become more.
    ///
    /// # Errors
    /// `not_found`; `forbidden` where an owner terminal asks for what it may not; `command_replayed`
    /// where its command's identifier was used for something else.
    pub async fn parts_of(
        &self,
        caller: Caller<'_>,
        action: Action,
        target: &Target,
    ) -> Result<Vec<Part>, Failure> {
        let why = || caller.why().map(Arc::from);
        match target {
            Target::Key(id) => Ok(vec![Part::Key(*id, why())]),
            Target::Authorization(id) => Ok(vec![Part::Authorization(*id, why())]),
            Target::Bundle(id) => {
                let found = self.bundle(*id).await?;
                let found = found.filter(|it| it.bundle.fleet == caller.fleet().fleet.id);
                let found =
                    found.ok_or_else(|| Refusal::new(RefusalCode::NotFound).field("bundle"))?;
                let id = found.bundle.authorization;
                Ok(vec![Part::Authorization(id, why())])
            }
            Target::Vehicle(id) => self.parts_of_vehicle(caller, action, id).await,
            Target::Identity(id) => self.parts_of_identity(caller, action, id).await,
            Target::Terminal(id) => self.parts_of_terminal(caller, action, id).await,
        }
    }

    /// Carries out a chunk: one answer for each part, in their order. When it returns, what was done
    /// is durable and on the lists.
    ///
    /// # Errors
    /// Of each those of [`Engine::act`], and `version_conflict` where identity or vehicle have
    /// changed meanwhile; of all that the lists could not be signed.
    pub async fn carry_out(
        &self,
        caller: Caller<'_>,
        action: Action,
        chunk: &[Part],
    ) -> Result<Vec<Result<Outcome, Failure>>, Failure> {
        let one = async |part: &Part| -> Result<Done, Failure> {
            match part {
                Part::Key(id, why) => {
                    let doing = Doing {
                        act: word(action),
                        object: format!("key {id}"),
                        why: why.as_deref(),
                    };
                    self.act_on_key_unlisted(caller, *id, action, &doing).await
                }
                Part::Authorization(id, why) => {
                    let doing = Doing {
                        act: word(action),
                        object: format!("authorization {id}"),
                        why: why.as_deref(),
                    };
                    self.act_unlisted(caller, *id, action, Some(&doing)).await
                }
                Part::Member(id) => {
                    let caller = caller.in_part(*id);
                    self.act_unlisted(caller, *id, action, None).await
                }
                Part::Follower(id, of) => {
                    self.follow_unlisted(caller.fleet(), *id, of, action).await
                }
            }
        };
        let done = join_all(chunk.iter().map(one)).await;
        self.lists_of_all(&done).await?;
        let outcome = |done: Result<Done, Failure>| done.map(|done| done.outcome);
        Ok(done.into_iter().map(outcome).collect())
    }

    pub(super) async fn lists_of_all(&self, done: &[Result<Done, Failure>]) -> Result<(), Refusal> {
        let lists = done.iter().flatten().flat_map(|it| it.lists.clone());
        let mut lists: Vec<_> = lists.collect();
        lists.sort_unstable();
        lists.dedup();
        self.lists_fresh(lists).await
    }

    async fn parts_of_vehicle(
        &self,
        caller: Caller<'_>,
        action: Action,
        id: &VehicleId,
    ) -> Result<Vec<Part>, Failure> {
        let known = || {
            let known = caller.fleet().vehicle(id.as_str());
            known.ok_or_else(|| Refusal::new(RefusalCode::NotFound).field("vehicle"))?;
            caller.check_owns(id)
        };
        self.look(known).await?;
        let of = Followed::Vehicle(id.clone());
        match action {
            Action::Suspend | Action::Resume => {
                self.stand(caller, &of.clone().into(), action).await?;
            }
            // A vehicle itself is not revoked: what is done is kept before it begins.
            Action::Cancel => {
                self.keep_ordered(caller, &of.clone().into(), action)
                    .await?;
            }
        }
        let live = self.live_of_vehicle(caller, id).await?;
        let part = |it: &Arc<Authorization>| match action {
            Action::Cancel => Some(Part::Member(it.id)),
            Action::Suspend | Action::Resume => {
                it.redeemed.then(|| Part::Follower(it.id, of.clone()))
            }
        };
        Ok(live.iter().filter_map(part).collect())
    }

    async fn parts_of_identity(
        &self,
        caller: Caller<'_>,
        action: Action,
        id: &IdentityId,
    ) -> Result<Vec<Part>, Failure> {
        if !matches!(caller, Caller::BackEnd(..)) {
            return Err(Refusal::new(RefusalCode::Forbidden)
                .detail("identities are the fleet's to suspend, resume and revoke")
                .into());
        }
        let fleet = caller.fleet();
        let known = || {
            let known = fleet.identity(id.as_str());
            known.ok_or_else(|| Refusal::new(RefusalCode::NotFound).field("identity"))
        };
        self.look(known).await?;
        let of = Followed::Identity(id.clone());
        self.stand(caller, &of.clone().into(), action).await?;
        // Those that are for it are looked up in the book.
        self.abreast().await?;
        let mut all = self.held_by(fleet, id).await?;
        if action != Action::Cancel {
            let follower = |id| Part::Follower(id, of.clone());
            return Ok(all.into_iter().map(follower).collect());
        }
        all.extend(self.meant_for(fleet, id).await?);
        all.sort_unstable();
        all.dedup();
        Ok(all.into_iter().map(Part::Member).collect())
    }

    /// What it commanded is looked up after it was suspended: it becomes no more.
    async fn parts_of_terminal(
        &self,
        caller: Caller<'_>,
        action: Action,
        id: &TerminalId,
    ) -> Result<Vec<Part>, Failure> {
        let known = caller.fleet().terminal(id.as_str());
        let known = known.ok_or_else(|| Refusal::new(RefusalCode::NotFound).field("terminal"))?;
        if let Caller::Owner(owner) | Caller::OwnerInPart(owner, _) = caller
            && (owner.terminal.identity != known.identity || owner.terminal.id == *id)
        {
            return Err(Refusal::new(RefusalCode::Forbidden)
                .detail("another terminal of its identity does this, or the fleet")
                .into());
        }
        let of = Registered::Terminal(id.clone());
        self.stand(caller, &of, action).await?;
        if action != Action::Cancel {
            return Ok(Vec::new());
        }
        let (fleet, author) = (caller.fleet().fleet.id, Author::Terminal(id.clone()));
        let authorized = self.pick(move |it| {
            it.fleet == fleet && it.author == author && it.state != AuthorizationState::Cancelled
        });
        Ok(authorized.await?.into_iter().map(Part::Member).collect())
    }

    /// Suspends an identity, a vehicle or a terminal, or makes it active again. The same request again goes on
    /// with what it began, unless that was undone meanwhile.
    async fn stand(
        &self,
        caller: Caller<'_>,
        of: &Registered,
        action: Action,
    ) -> Result<(), Failure> {
        let (fleet, status) = (caller.fleet(), action.leaves());
        let suspension = Suspension {
            fleet: fleet.fleet.id,
            of: of.clone(),
            status,
            by: caller.by(),
            request: caller.keep(self.clock().unix(), Outcome::nothing().encode()),
        };
        let doing = doing(caller, of, action);
        let write = Write::Suspend(Arc::new(suspension));
        let write = caller.acting(self.clock().unix(), &doing, write);
        let applied = self.write(vec![write]).await?;
        match applied.first() {
            Some(Applied::Done) => Ok(()),
            Some(Applied::Repeated(_)) => {
                self.abreast().await?;
                if stands(fleet, of) == Some(status) {
                    return Ok(());
                }
                Err(Refusal::new(RefusalCode::CommandReplayed)
                    .detail("it was carried out, and has been undone since")
                    .into())
            }
            Some(Applied::Conflict) => Err(replayed().into()),
            _ => Err(changed_meanwhile().into()),
        }
    }

    /// Keeps what a back end has ordered, where no write says so by itself.
    async fn keep_ordered(
        &self,
        caller: Caller<'_>,
        of: &Registered,
        action: Action,
    ) -> Result<(), Failure> {
        if let Some(act) = caller.act(self.clock().unix(), &doing(caller, of, action)) {
            self.write(vec![Write::Act(Box::new(act), None)]).await?;
        }
        Ok(())
    }

    /// The authorizations that are for an identity alone and have not ended.
    pub(super) async fn meant_for(
        &self,
        fleet: &FleetBook,
        id: &IdentityId,
    ) -> Result<Vec<AuthorizationId>, Failure> {
        let (fleet, id) = (fleet.fleet.id, id.clone());
        self.pick(move |it| {
            it.fleet == fleet
                && it.recipient().identity.as_ref() == Some(&id)
                && it.state != AuthorizationState::Cancelled
        })
        .await
    }

    /// The authorizations that a terminal commanded and a filter lets through, ascending by id.
    ///
    /// # Errors
    /// A fault.
    pub async fn authorized_by(
        &self,
        terminal: TerminalId,
        filter: AuthorizationFilter,
    ) -> Result<Vec<Authorization>, Failure> {
        let (author, limit) = (Author::Terminal(terminal), filter.limit as usize);
        let picked = self.pick(move |it| it.author == author && filter.lets_through(it));
        let mut ids = picked.await?;
        ids.sort_unstable();
        ids.truncate(limit);
        let kept = |id: &AuthorizationId| self.book().look_up(*id, Authorization::clone);
        Ok(ids.iter().filter_map(kept).collect())
    }

    /// The authorizations of the book that `which` picks.
    async fn pick(
        &self,
        which: impl Fn(&Authorization) -> bool + Send + 'static,
    ) -> Result<Vec<AuthorizationId>, Failure> {
        let engine = Arc::clone(&self.shared);
        // Every authorization is looked at: that may take a while.
        concurrent::spawn_blocking(move || engine.book.authorizations_where(which))
            .await
            .map_err(|error| Failure::Fault(format!("a look through the book: {error}")))
    }
}

/// What is done to an identity, a vehicle or a terminal.
fn doing<'a>(caller: Caller<'a>, of: &Registered, action: Action) -> Doing<'a> {
    let object = match of {
        Registered::Followed(Followed::Identity(id)) => format!("identity {}", id.as_str()),
        Registered::Followed(Followed::Vehicle(id)) => format!("vehicle {}", id.as_str()),
        Registered::Terminal(id) => format!("terminal {}", id.as_str()),
    };
    Doing {
        act: word(action),
        object,
        why: caller.why(),
    }
}

/// How an identity, a vehicle or a terminal stands.
fn stands(fleet: &FleetBook, of: &Registered) -> Option<Status> {
    match of {
        Registered::Followed(Followed::Identity(id)) => {
            fleet.identity(id.as_str()).map(|it| it.status)
        }
        Registered::Followed(Followed::Vehicle(id)) => {
            fleet.vehicle(id.as_str()).map(|it| it.status)
        }
        Registered::Terminal(id) => fleet.terminal(id.as_str()).map(|it| it.status),
    }
}

pub(super) fn changed_meanwhile() -> Refusal {
    Refusal::new(RefusalCode::VersionConflict)
        .detail("another call has suspended or resumed it at the same moment; look and ask again")
}
