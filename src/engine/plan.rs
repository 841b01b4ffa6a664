//! What an amendment comes to: how an authorization becomes, which keys go and which come. Floor 3.
//!
//! Decided on what was read, and on nothing else; whether that still holds is asked at the commit.

use std::sync::Arc;

use fob_verify::HolderKey;

use super::Engine;
use super::book::FleetBook;
use super::case::Case;
use super::certain::certain_by;
use super::outcome::Outcome;
use super::reissue::Again;
use crate::domain::change::{Action, grants};
use crate::domain::id::VERSION_MAX;
use crate::domain::{
    Amended, Authorization, AuthorizationState, Bundle, KeyId, KeyRecord, KeyStatus, Mark, Refusal,
    RefusalCode, ShardId, Status, Subject, TerminalId, Window,
};
use crate::store::{Amendment, Reissue, SignedBundle};

/// What is to become of an authorization.
pub(super) struct Plan {
    pub(super) next: Authorization,
    /// Which keys are to stand otherwise.
    pub(super) marks: Vec<(KeyId, Mark)>,
    /// Its bundle, where it is issued again, and for whom.
    pub(super) again: Option<(Bundle, HolderKey)>,
    /// The registered terminal that must be active for it.
    pub(super) terminal: Option<TerminalId>,
    /// When its keys may be used, where it is issued again.
    pub(super) window: Window,
}

impl Plan {
    /// A plan by which nothing changes yet.
    pub(super) fn stay(now: &Authorization) -> Self {
        Self {
            next: now.clone(),
            marks: Vec::new(),
            again: None,
            terminal: None,
            window: now.window,
        }
    }

    /// The next version. Where it was redeemed, its code set stays what it was.
    pub(super) fn raise_version(&mut self) -> Result<(), Refusal> {
        let next = &mut self.next;
        if next.version >= VERSION_MAX {
            return Err(Refusal::new(RefusalCode::VersionConflict)
                .detail("this authorization has been changed as often as may be"));
        }
        if next.redeemed {
            let (version, functions) = next.code_set();
            let code_set = Some((version, functions.clone()));
            let revision = next.revision();
            next.set_amended(Some(Amended { revision, code_set }));
        }
        next.version += 1;
        Ok(())
    }
}

impl Engine {
    /// What an action leads to; `None` where it stands so already.
    pub(super) fn plan_action(
        &self,
        now: &Authorization,
        versions: &[SignedBundle],
        action: Action,
    ) -> Result<Option<Plan>, Refusal> {
        let Some(state) = action.leads_to(now)? else {
            return Ok(None);
        };
        let mut plan = Plan::stay(now);
        plan.next.state = state;
        plan.marks = self.marks(versions, action.keys(), |_, _, _| true);
        Ok(Some(plan))
    }

    /// Completes a plan by which a bundle, where there is one, is issued again: which keys go, what
    /// comes, and whether it may. With `holder` it goes to another terminal.
    pub(super) fn issue_again(
        &self,
        fleet: &FleetBook,
        mut plan: Plan,
        versions: &[SignedBundle],
        holder: Option<HolderKey>,
    ) -> Result<Plan, Refusal> {
        let Some(newest) = versions.last() else {
            return Ok(plan);
        };
        let before = &newest.bundle;
        let mut case = Case::new(fleet, &plan.next, self.clock().unix());
        case.check_vehicle()?;
        let identity = fleet.identity(before.identity.as_str());
        case.check_identity(identity.ok_or(RefusalCode::IdentitySuspended)?)?;
        // An order has its bundle's id.
        let window = case.window(plan.next.id.0 == before.id.0);
        plan.window = window;
        let to = holder.unwrap_or(before.holder);
        plan.terminal = check_holder(fleet, before, &to, holder.is_some())?;
        if let (Some(_), Some(restrictions)) = (&holder, plan.next.restrictions.as_mut())
            && restrictions.recipient.terminal.is_some()
        {
            restrictions.recipient.terminal = plan.terminal.clone();
        }
        let mut next = plan.next.clone();
        // What it grants begins as early as its keys do.
        next.window.not_before = window.not_before;
        let next = &next;
        let stays = |bundle: &Bundle| bundle.holder == to;
        let gone = |bundle: &Bundle, subject: &Subject, key: &KeyRecord| {
            !grants(next, bundle, subject, key, stays(bundle))
        };
        plan.marks = self.marks(versions, KeyStatus::Revoked, gone);
        plan.again = Some((before.clone(), to));
        Ok(plan)
    }

    /// Marks for the keys that `which` picks, of every version, unless they have expired or stand
    /// so already.
    pub(super) fn marks(
        &self,
        versions: &[SignedBundle],
        to: KeyStatus,
        which: impl Fn(&Bundle, &Subject, &KeyRecord) -> bool,
    ) -> Vec<(KeyId, Mark)> {
        let now = self.clock().unix();
        let mut marks = Vec::new();
        for SignedBundle { bundle, .. } in versions {
            if bundle.window.not_after <= now {
                continue;
            }
            for (subject, key) in bundle.each_key() {
                let Some(mark) = mark(bundle, subject, key, to) else {
                    continue;
                };
                let before = self.book().statuses.of(mark.shard, mark.index);
                if before != before.then(to) && which(bundle, subject, key) {
                    marks.push((bundle.key_id(subject), mark));
                }
            }
        }
        marks
    }

    /// The write that carries a plan out, and what it comes to; who asked is yet to be said.
    pub(super) fn amendment(
        &self,
        fleet: &FleetBook,
        now: &Authorization,
        plan: Plan,
        signed: Option<(SignedBundle, u64)>,
    ) -> (Amendment, Outcome) {
        let Plan {
            next,
            marks,
            terminal,
            ..
        } = plan;
        let revoked = marks
            .iter()
            .filter(|(_, mark)| mark.to == KeyStatus::Revoked);
        let revoked = revoked.map(|(id, _)| *id).collect();
        let refused = marks.iter().filter(|(_, mark)| mark.to != KeyStatus::Valid);
        let refused: Vec<_> = refused.copied().collect();
        let mut marks: Vec<Mark> = marks.into_iter().map(|(_, mark)| mark).collect();
        let mut issued = Vec::new();
        let reissue = signed.map(|(signed, status_next)| {
            let bundle = &signed.bundle;
            for (subject, key) in bundle.each_key() {
                issued.push(bundle.key_id(subject));
                // What is suspended stays so, in its new keys too.
                if next.state == AuthorizationState::Suspended {
                    marks.extend(mark(bundle, subject, key, KeyStatus::Suspended));
                }
            }
            Reissue {
                signed,
                terminal,
                status_next,
            }
        });
        let outcome = Outcome {
            certain_by: certain_by(&self.shared, fleet, &next.vehicle, &refused),
            revoked,
            issued,
        };
        let amendment = Amendment {
            authorization: Arc::new(next),
            from: (now.version, now.state),
            reissue,
            marks,
            by: None,
            request: None,
        };
        (amendment, outcome)
    }
}

/// The bundle of a plan that is to be issued again.
pub(super) fn again(plan: &Plan, vehicle_epoch: u32) -> Option<Again> {
    let (before, holder) = plan.again.clone()?;
    Some(Again {
        authorization: plan.next.clone(),
        before,
        holder,
        vehicle_epoch,
        window: plan.window,
    })
}

/// A key is to stand so; `None` where no list has it.
pub(super) fn mark(
    bundle: &Bundle,
    subject: &Subject,
    key: &KeyRecord,
    to: KeyStatus,
) -> Option<Mark> {
    Some(Mark {
        shard: ShardId::at(&subject.status_uri)?,
        index: key.status_index,
        to,
        ends: bundle.window.not_after,
    })
}

/// The registered terminal of that key, where it is one; whether keys may be bound to it.
fn check_holder(
    fleet: &FleetBook,
    bundle: &Bundle,
    holder: &HolderKey,
    replaced: bool,
) -> Result<Option<TerminalId>, Refusal> {
    let mismatch = |why| Err(Refusal::new(RefusalCode::TerminalMismatch).detail(why));
    let known = fleet.terminals_of(bundle.identity.as_str());
    match known.iter().find(|terminal| terminal.key == *holder) {
        Some(terminal) if terminal.status == Status::Active => Ok(Some(terminal.id.clone())),
        Some(_) => mismatch("this terminal is suspended"),
        None if replaced && !known.is_empty() => {
            mismatch("this identity redeems with its registered terminals only")
        }
        None => Ok(None),
    }
}
