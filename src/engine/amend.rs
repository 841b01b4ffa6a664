//! Changes, suspensions and ends of one authorization and of every key issued on it: floor 3.
//!
//! What follows from an amendment is decided on what is read, under the condition that the
//! authorization still stands so when it is committed; where it does not, it is decided anew. One
//! transaction has all of it: the authorization, the bundle at its new version, and the marks of
//! keys that are to be refused. The lists that say so are signed before the caller is answered.
//!
//! How keys stand is read from the book, and an authorization says by its revision which changes of
//! its keys it has seen. So among several nodes the book is brought abreast after an authorization
//! was read and before its keys are looked at.

use std::sync::Arc;

use fob_verify::HolderKey;

use super::book::FleetBook;
pub use super::caller::Caller;
use super::caller::{Doing, word};
use super::outcome::Outcome;
use super::plan::{Anew, Plan, again};
use super::reissue::{Again, reissue};
use super::{Engine, Failure};
use crate::concurrent;
use crate::domain::change::{Action, check_changeable};
use crate::domain::{Authorization, AuthorizationId, KeyId, Mark, Refusal, RefusalCode, ShardId};
use crate::store::{Amendment, Applied, Request, SignedBundle, Write};

/// Times an amendment is decided anew after its conditions did not hold.
const ATTEMPTS_MAX: usize = 8;

/// What became of an authorization.
#[derive(Clone, Debug)]
pub struct Done {
    /// As it stands.
    pub authorization: Arc<Authorization>,
    /// What was revoked and issued, and when that is certain.
    pub outcome: Outcome,
    /// Status lists that have to say so.
    pub(super) lists: Vec<ShardId>,
}

impl Engine {
    /// Suspends, resumes or cancels an authorization, and with it every key issued on it, as far as
    /// nothing else suspends that. Where it stands so already, nothing happens.
    ///
    /// # Errors
    /// `not_found`; `code_set_cancelled` where it is cancelled and that is not what is asked for.
    pub async fn act(
        &self,
        caller: Caller<'_>,
        id: AuthorizationId,
        action: Action,
    ) -> Result<Done, Failure> {
        let doing = Doing {
            act: word(action),
            object: format!("authorization {id}"),
            why: caller.why(),
        };
        let done = self.act_unlisted(caller, id, action, Some(&doing)).await?;
        self.lists_fresh(done.lists.clone()).await?;
        Ok(done)
    }

    /// The same, without waiting for the lists. What is part of something else that is done is no
    /// act of its own (`None`).
    pub(super) async fn act_unlisted(
        &self,
        caller: Caller<'_>,
        id: AuthorizationId,
        action: Action,
        doing: Option<&Doing<'_>>,
    ) -> Result<Done, Failure> {
        self.amend_unlisted(caller, id, doing, |now, versions| {
            self.plan_action(now, versions, action)
        })
        .await
    }

    /// Approves of the redemption of an authorization, for as long as the fleet's rules say: where
    /// its context asks for more than the code set, that is enough.
    ///
    /// # Errors
    /// `not_found`, also where the fleet has no rules about context; `code_set_redeemed`,
    /// `code_set_cancelled`, `code_set_expired`, `authorization_suspended`.
    pub async fn approve(&self, caller: Caller<'_>, id: AuthorizationId) -> Result<Done, Failure> {
        let doing = Doing {
            act: "approve",
            object: format!("authorization {id}"),
            why: caller.why(),
        };
        self.amend_unlisted(caller, id, Some(&doing), |now, _| {
            let at = self.clock().unix();
            now.check_open(at)?;
            let rules = caller.fleet().ruled.rules();
            let context = rules.context.as_ref().ok_or_else(|| {
                Refusal::new(RefusalCode::NotFound)
                    .detail("the fleet's rules ask for no approval: they have no context")
            })?;
            let mut plan = Plan::stay(now);
            plan.next
                .approve(at.saturating_add(context.approval_s.into()));
            Ok(Some(plan))
        })
        .await
    }

    /// Binds the keys of a bundle to another terminal of the same identity: every function is
    /// issued again for it, and every key bound to the one before is revoked.
    ///
    /// # Errors
    /// `not_found`; `terminal_mismatch` where the identity redeems with registered terminals and
    /// this is none of them; `code_set_cancelled`, and as [`Engine::change`].
    pub async fn rebind(
        &self,
        caller: Caller<'_>,
        id: AuthorizationId,
        holder: HolderKey,
    ) -> Result<Done, Failure> {
        let doing = Doing {
            act: "rebind",
            object: format!("authorization {id}"),
            why: caller.why(),
        };
        self.amend(caller, id, &doing, |now, versions| {
            check_changeable(now)?;
            let mut plan = Plan::stay(now);
            plan.raise_version(versions, self.vehicle_epoch(now))?;
            if !now.redeemed {
                return Err(
                    Refusal::new(RefusalCode::NotFound).detail("nothing has been issued on it yet")
                );
            }
            self.issue_again(caller.fleet(), plan, versions, Anew::To(holder))
                .map(Some)
        })
        .await
    }

    /// Suspends or resumes every key issued for the function of one; or takes that function off the
    /// authorization and revokes them, which without its last one is cancelled.
    ///
    /// # Errors
    /// `not_found`, as where there is no such key; `code_set_cancelled` where it is revoked and that
    /// is not what is asked for.
    pub(super) async fn act_on_key_unlisted(
        &self,
        caller: Caller<'_>,
        key: KeyId,
        action: Action,
        doing: &Doing<'_>,
    ) -> Result<Done, Failure> {
        let signed = self.bundle(key.bundle()).await?;
        // Another fleet's key is refused in the words for one that is not there.
        let own = signed.filter(|it| it.bundle.fleet == caller.fleet().fleet.id);
        let id = own.map(|signed| signed.bundle.authorization);
        let id = id.ok_or_else(|| Refusal::new(RefusalCode::NotFound).field("key"))?;
        self.amend_unlisted(caller, id, Some(doing), |now, versions| {
            let mut subjects = versions.iter().flat_map(|it| {
                let bundle = &it.bundle;
                bundle.subjects.iter().map(|one| (one, bundle.key_id(one)))
            });
            match subjects.find(|(_, id)| *id == key) {
                Some((subject, _)) => self.plan_function(now, versions, subject.function, action),
                None => Err(Refusal::new(RefusalCode::NotFound).field("key")),
            }
        })
        .await
    }

    /// Amends as `plan` says, on what it is given to read, until that is what is committed; and
    /// waits for the lists.
    pub(super) async fn amend(
        &self,
        caller: Caller<'_>,
        id: AuthorizationId,
        doing: &Doing<'_>,
        plan: impl Fn(&Authorization, &[SignedBundle]) -> Result<Option<Plan>, Refusal>,
    ) -> Result<Done, Failure> {
        let done = self.amend_unlisted(caller, id, Some(doing), plan).await?;
        self.lists_fresh(done.lists.clone()).await?;
        Ok(done)
    }

    /// The same, without waiting for the lists.
    async fn amend_unlisted(
        &self,
        caller: Caller<'_>,
        id: AuthorizationId,
        doing: Option<&Doing<'_>>,
        plan: impl Fn(&Authorization, &[SignedBundle]) -> Result<Option<Plan>, Refusal>,
    ) -> Result<Done, Failure> {
        let fleet = caller.fleet().fleet.id;
        for _ in 0..ATTEMPTS_MAX {
            self.abreast().await?;
            let now = self.authorization(fleet, id).await?;
            let now = now.ok_or_else(|| Refusal::new(RefusalCode::NotFound))?;
            caller.check_owns(&now.vehicle)?;
            let versions = self.versions_of(&now).await?;
            // What was read from the store may be newer than the book's keys, which are looked at
            // now.
            self.abreast().await?;
            let plan = match plan(&now, &versions) {
                Ok(Some(plan)) => plan,
                Ok(None) => return self.unchanged(caller, now).await,
                Err(refusal) => return self.answered_so(caller, id, refusal).await,
            };
            let (amendment, outcome) = self.spell_out(caller, &now, plan).await?;
            let amendment = Arc::new(amendment);
            let lists = lists_of(&amendment.marks);
            let mut write = Write::Amend(Arc::clone(&amendment));
            if let Some(doing) = doing {
                write = caller.acting(self.clock().unix(), doing, write);
            }
            let applied = self.write(vec![write]).await?;
            match applied.first() {
                Some(Applied::Amended(_)) => {
                    let authorization = Arc::clone(&amendment.authorization);
                    let authorization = self.book().authorization(id).unwrap_or(authorization);
                    return Ok(Done {
                        authorization,
                        outcome,
                        lists,
                    });
                }
                Some(Applied::Repeated(_)) => {
                    let refusal = RefusalCode::VersionConflict.into();
                    return self.answered_so(caller, id, refusal).await;
                }
                Some(Applied::Conflict) => return Err(replayed().into()),
                _ => {}
            }
        }
        Err(self.shared.busy("what this rests on keeps changing").into())
    }

    /// Every version of the bundle issued on an authorization, oldest first; none before it is
    /// redeemed.
    pub(super) async fn versions_of(
        &self,
        authorization: &Authorization,
    ) -> Result<Vec<SignedBundle>, Failure> {
        if !authorization.redeemed {
            return Ok(Vec::new());
        }
        let id = authorization.id;
        self.read(
            move |store| match store.bundle(crate::store::BundleKey::Authorization(id))? {
                Some(newest) => store.versions(newest.bundle.id),
                None => Ok(Vec::new()),
            },
        )
        .await
    }

    /// The write that carries a plan out, its new keys signed, and what it is answered with.
    async fn spell_out(
        &self,
        caller: Caller<'_>,
        now: &Authorization,
        plan: Plan,
    ) -> Result<(Amendment, Outcome), Failure> {
        let fleet = caller.fleet();
        let vehicle_epoch = fleet.vehicle(now.vehicle.as_str()).map_or(0, |it| it.epoch);
        let all = again(&plan, vehicle_epoch).into_iter().collect();
        let signed = self.sign_again(fleet, all).await?.into_iter().next();
        let (mut amendment, outcome) = self.amendment(fleet, now, plan, signed);
        amendment.by = caller.by();
        amendment.request = caller.keep(self.clock().unix(), outcome.encode());
        Ok((amendment, outcome))
    }

    /// Has bundles issued again, off this thread, a few callers at a time.
    pub(super) async fn sign_again(
        &self,
        fleet: &Arc<FleetBook>,
        all: Vec<Again>,
    ) -> Result<Vec<(SignedBundle, u64)>, Failure> {
        if all.is_empty() {
            return Ok(Vec::new());
        }
        self.shared.check_door()?;
        let turn = self.reissues.acquire().await;
        let _turn = turn.map_err(|_| super::shutting_down())?;
        let (shared, fleet) = (Arc::clone(&self.shared), Arc::clone(fleet));
        let signed = concurrent::spawn_blocking(move || reissue(&shared, &fleet, &all));
        let signed = signed
            .await
            .map_err(|error| Failure::Fault(format!("keys that were not signed: {error}")))?;
        Ok(signed?)
    }

    /// An amendment after which all is as it was.
    async fn unchanged(
        &self,
        caller: Caller<'_>,
        now: Arc<Authorization>,
    ) -> Result<Done, Failure> {
        // The same request again, most likely: then it is answered as before.
        if let Some(outcome) = self.recalled(caller, now.id).await? {
            return Ok(Done {
                authorization: now,
                outcome,
                lists: Vec::new(),
            });
        }
        let versions = self.versions_of(&now).await?;
        let revision = now.revision();
        Ok(self.nothing_done(caller.fleet(), now, revision, &versions))
    }

    /// Nothing, to an authorization whose keys were last changed with that revision. A list may be
    /// older than what it is to say, if its signing failed then.
    pub(super) fn nothing_done(
        &self,
        fleet: &FleetBook,
        now: Arc<Authorization>,
        revision: u64,
        versions: &[SignedBundle],
    ) -> Done {
        let uris = versions.iter().flat_map(|it| it.bundle.subjects.iter());
        let lists = uris.filter_map(|subject| ShardId::at(&subject.status_uri));
        let outcome = Outcome {
            certain_by: self.outstanding(fleet, &now.vehicle, revision, versions),
            ..Outcome::nothing()
        };
        Done {
            authorization: now,
            outcome,
            lists: lists.collect(),
        }
    }

    /// What the rules refuse by now may have been answered before.
    async fn answered_so(
        &self,
        caller: Caller<'_>,
        id: AuthorizationId,
        refusal: Refusal,
    ) -> Result<Done, Failure> {
        let Some(outcome) = self.recalled(caller, id).await? else {
            return Err(refusal.into());
        };
        let now = self.authorization(caller.fleet().fleet.id, id).await?;
        Ok(Done {
            authorization: now.ok_or(refusal)?,
            outcome,
            lists: Vec::new(),
        })
    }

    /// What this request to amend that authorization was answered with, if it was.
    async fn recalled(
        &self,
        caller: Caller<'_>,
        id: AuthorizationId,
    ) -> Result<Option<Outcome>, Failure> {
        let Some(request) = caller.request() else {
            return Ok(None);
        };
        let applied = self.write(vec![Write::Recall(request)]).await?;
        match applied.first() {
            Some(Applied::Repeated(answered)) if *answered == id => self.outcome_of(request).await,
            Some(Applied::Repeated(_) | Applied::Conflict) => Err(replayed().into()),
            _ => Ok(None),
        }
    }

    pub(super) async fn outcome_of(&self, request: Request) -> Result<Option<Outcome>, Failure> {
        let found = self
            .read(move |store| store.outcome(&request.scope))
            .await?;
        found.map(|bytes| Outcome::decode(&bytes)).transpose()
    }
}

/// The lists on which the marks are.
pub(super) fn lists_of(marks: &[Mark]) -> Vec<ShardId> {
    let mut lists: Vec<_> = marks.iter().map(|mark| mark.shard).collect();
    lists.sort_unstable();
    lists.dedup();
    lists
}

/// `command_replayed`, for a request whose identifier was used for something else.
pub(super) fn replayed() -> Refusal {
    Refusal::new(RefusalCode::CommandReplayed)
        .detail("its jti or Idempotency-Key was used with other content")
}
