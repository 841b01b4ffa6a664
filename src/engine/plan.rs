//! What an amendment comes to: how an authorization becomes, which keys go and which come. Floor 3.
//!
//! Decided on what was read, and on nothing else; whether that still holds is asked at the commit.

use std::sync::Arc;

use fob_verify::HolderKey;

use super::Engine;
use super::book::FleetBook;
use super::case::Case;
use super::marks::mark;
use super::outcome::Outcome;
use super::reissue::Again;
use crate::domain::change::{Action, cancelled, grants};
use crate::domain::id::VERSION_MAX;
use crate::domain::restore::next_version;
use crate::domain::rules::keeps;
use crate::domain::{
    Amended, Authorization, AuthorizationState, Bundle, FunctionCode, KeyChange, KeyId, KeyRecord,
    Mark, Reason, Reasons, Refusal, RefusalCode, Status, Subject, TerminalId, Window,
};
use crate::store::{Amendment, Reissue, ReliedOn, SignedBundle};

/// What is to become of an authorization.
pub(super) struct Plan {
    pub(super) next: Authorization,
    /// Which keys are to stand otherwise.
    pub(super) marks: Vec<(KeyId, Mark)>,
    /// Its bundle, where it is issued again, and for whom.
    pub(super) again: Option<(Bundle, HolderKey)>,
    /// Whether its keys may grant something else then, and not just less.
    pub(super) changed: bool,
    /// The registered terminal that must be active for it.
    pub(super) terminal: Option<TerminalId>,
    /// When its keys may be used, where it is issued again.
    pub(super) window: Window,
    /// What suspends its new keys from the beginning, beside the authorization's own state.
    pub(super) suspended: Suspended,
    /// What that was decided on.
    pub(super) relies_on: ReliedOn,
}

/// What suspends the keys of a bundle that is issued again.
#[derive(Clone, Debug, Default)]
pub(super) struct Suspended {
    /// All of them: identity and vehicle.
    all: Reasons,
    /// Those of these functions.
    functions: Vec<FunctionCode>,
    /// Those of these functions, whose conditions their identity does not meet.
    conditions: Vec<FunctionCode>,
}

/// How a bundle is issued again.
#[derive(Clone, Copy)]
pub(super) enum Anew {
    /// With the same keys.
    Same,
    /// As its authorization says now, which only takes away.
    Narrowed,
    /// As its authorization says now.
    Changed,
    /// For another terminal, as its authorization says now.
    To(HolderKey),
}

impl Plan {
    /// A plan by which nothing changes yet.
    pub(super) fn stay(now: &Authorization) -> Self {
        Self {
            next: now.clone(),
            marks: Vec::new(),
            again: None,
            changed: false,
            terminal: None,
            window: now.window,
            suspended: Suspended::default(),
            relies_on: ReliedOn::default(),
        }
    }

    /// The next version, of what is issued again at that vehicle epoch. Where it was redeemed, its
    /// code set stays what it was.
    pub(super) fn raise_version(
        &mut self,
        versions: &[SignedBundle],
        vehicle_epoch: u32,
    ) -> Result<(), Refusal> {
        let next = &mut self.next;
        let newest = versions.last().map(|it| it.bundle.vehicle_epoch);
        let version = next_version(next.version, newest.unwrap_or(vehicle_epoch), vehicle_epoch);
        if version > VERSION_MAX {
            return Err(Refusal::new(RefusalCode::VersionConflict)
                .detail("this authorization has been changed as often as may be"));
        }
        if next.redeemed {
            let (version, functions) = next.code_set();
            let code_set = Some((version, functions.clone()));
            let revision = next.revision();
            next.set_amended(Some(Amended { revision, code_set }));
        }
        next.version = version;
        Ok(())
    }
}

impl Engine {
    /// The epoch of an authorization's vehicle.
    pub(super) fn vehicle_epoch(&self, of: &Authorization) -> u32 {
        let fleet = self.book().fleet(of.fleet);
        let vehicle = fleet.and_then(|fleet| fleet.vehicle(of.vehicle.as_str()));
        vehicle.map_or(0, |vehicle| vehicle.epoch)
    }

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
        let change = action.on_keys(Reason::Authorization);
        plan.marks = self.marks(versions, change, |_, _, _| true);
        Ok(Some(plan))
    }

    /// What is done to every key that was issued for one function of an authorization; `None`
    /// where it stands so already.
    pub(super) fn plan_function(
        &self,
        now: &Authorization,
        versions: &[SignedBundle],
        function: FunctionCode,
        action: Action,
    ) -> Result<Option<Plan>, Refusal> {
        if action == Action::Cancel {
            return self.plan_function_off(now, versions, function);
        }
        let granted = now.functions.binary_search(&function).is_ok();
        if now.state == AuthorizationState::Cancelled || !granted {
            return Err(cancelled());
        }
        let mut plan = Plan::stay(now);
        let own = |_: &Bundle, subject: &Subject, _: &KeyRecord| subject.function == function;
        plan.marks = self.marks(versions, action.on_keys(Reason::Function), own);
        Ok((!plan.marks.is_empty()).then_some(plan))
    }

    /// Takes a function off an authorization. Without its last one it is cancelled.
    fn plan_function_off(
        &self,
        now: &Authorization,
        versions: &[SignedBundle],
        function: FunctionCode,
    ) -> Result<Option<Plan>, Refusal> {
        if now.state == AuthorizationState::Cancelled {
            return Ok(None);
        }
        let left = now.functions.iter().filter(|one| **one != function);
        let left: Vec<_> = left.copied().collect();
        if left.is_empty() {
            return self.plan_action(now, versions, Action::Cancel);
        }
        let mut plan = Plan::stay(now);
        let own = |_: &Bundle, subject: &Subject, _: &KeyRecord| subject.function == function;
        plan.marks = self.marks(versions, KeyChange::Revoke, own);
        if plan.marks.is_empty() && left.len() == now.functions.len() {
            return Ok(None);
        }
        plan.raise_version(versions, self.vehicle_epoch(now))?;
        plan.next.functions = left.as_slice().into();
        plan.next.drop_limit(function);
        Ok(Some(plan))
    }

    /// Completes a plan by which a bundle, where there is one, is issued again: which keys go, what
    /// comes, and whether it may. What suspends the keys there are suspends the new ones.
    pub(super) fn issue_again(
        &self,
        fleet: &FleetBook,
        mut plan: Plan,
        versions: &[SignedBundle],
        anew: Anew,
    ) -> Result<Plan, Refusal> {
        let Some(newest) = versions.last() else {
            return Ok(plan);
        };
        let before = &newest.bundle;
        let identity = fleet.identity(before.identity.as_str());
        let identity = identity.ok_or_else(|| Refusal::new(RefusalCode::UnknownIdentity))?;
        let now = self.clock().unix();
        let mut case = Case::new(fleet, &plan.next, now);
        let (vehicle, window) = match anew {
            Anew::Same => (case.check_same()?, before.window),
            Anew::Narrowed => match case.check_again(Arc::clone(&identity)) {
                // Neither brake nor hold keeps keys from being taken away. Nor do those that stay
                // last longer for it.
                Err(refusal) if holds_back(&refusal) => {
                    let vehicle = case.check_narrowed()?;
                    let window = case.window(plan.next.id.0 == before.id.0);
                    (vehicle, within(window, before.window))
                }
                checked => (checked?, case.window(plan.next.id.0 == before.id.0)),
            },
            Anew::Changed | Anew::To(_) => {
                let vehicle = case.check_again(Arc::clone(&identity))?;
                // An order has its bundle's id.
                (vehicle, case.window(plan.next.id.0 == before.id.0))
            }
        };
        let had = |one: &&FunctionCode| before.subjects.iter().any(|it| it.function == **one);
        let more = plan.next.functions.iter().filter(|one| !had(one)).count();
        if more > 0 {
            self.count_issue(fleet, &vehicle.id, more, now)?;
        }
        plan.window = window;
        let holder = match anew {
            Anew::To(holder) => Some(holder),
            Anew::Same | Anew::Narrowed | Anew::Changed => None,
        };
        if vehicle.status != Status::Active {
            plan.suspended.all = plan.suspended.all.with(Reason::Vehicle);
        }
        if identity.status != Status::Active {
            plan.suspended.all = plan.suspended.all.with(Reason::Identity);
        }
        plan.suspended.functions = self.suspended_functions(before);
        let rules = fleet.ruled.rules();
        let lost = |one: &&FunctionCode| !keeps(&rules, &identity, &vehicle, **one, window, now);
        let lost = plan.next.functions.iter().filter(lost);
        plan.suspended.conditions = lost.copied().collect();
        plan.relies_on = case.relies_on();
        plan.relies_on.identity = Some(identity);
        let to = holder.unwrap_or(before.holder);
        plan.terminal = check_holder(fleet, before, &to, holder.is_some())?;
        if let (Some(_), Some(restrictions)) = (&holder, plan.next.restrictions.as_mut())
            && restrictions.recipient.terminal.is_some()
        {
            restrictions.recipient.terminal = plan.terminal.clone();
        }
        if let Some(restrictions) = plan.next.restrictions.as_mut()
            && restrictions.recipient.key.is_some()
        {
            restrictions.recipient.key = Some(to);
        }
        let mut next = plan.next.clone();
        // What it grants begins as early as its keys do.
        next.window.not_before = window.not_before;
        let next = &next;
        let stays = |bundle: &Bundle| bundle.holder == to;
        let gone = |bundle: &Bundle, subject: &Subject, key: &KeyRecord| {
            !grants(next, bundle, subject, key, stays(bundle))
        };
        plan.marks = self.marks(versions, KeyChange::Revoke, gone);
        plan.again = Some((before.clone(), to));
        plan.changed = matches!(anew, Anew::Changed | Anew::To(_));
        Ok(plan)
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
            suspended,
            changed,
            relies_on,
            ..
        } = plan;
        let mut outcome = self.outcome_of_marks(fleet, &next.vehicle, &marks);
        let mut marks: Vec<Mark> = marks.into_iter().map(|(_, mark)| mark).collect();
        let reissue = signed.map(|(signed, status_next)| {
            let bundle = &signed.bundle;
            for (subject, key) in bundle.each_key() {
                outcome.issued.push(bundle.key_id(subject));
                // What is suspended stays so, in its new keys too.
                let reasons = suspended.reasons(&next, subject.function);
                let suspend = |reason| mark(bundle, subject, key, KeyChange::Suspend(reason));
                marks.extend(reasons.each().filter_map(suspend));
            }
            Reissue {
                signed,
                terminal,
                status_next,
                changed,
                relies_on,
            }
        });
        let amendment = Amendment {
            authorization: Arc::new(next),
            from: (now.version, now.state, now.revision()),
            reissue,
            marks,
            by: None,
            request: None,
        };
        (amendment, outcome)
    }
}

impl Suspended {
    /// Why the new key of a function is suspended.
    fn reasons(&self, next: &Authorization, function: FunctionCode) -> Reasons {
        let mut reasons = self.all;
        if next.state == AuthorizationState::Suspended {
            reasons = reasons.with(Reason::Authorization);
        }
        if self.functions.contains(&function) {
            reasons = reasons.with(Reason::Function);
        }
        if self.conditions.contains(&function) {
            reasons = reasons.with(Reason::Condition);
        }
        reasons
    }
}

/// Whether a refusal keeps back what is new, and nothing else.
fn holds_back(refusal: &Refusal) -> bool {
    matches!(
        refusal.code,
        RefusalCode::IssuingFrozen | RefusalCode::IdentityHeld
    )
}

/// As much of a window as lies within another.
fn within(window: Window, other: Window) -> Window {
    Window {
        not_before: window.not_before.max(other.not_before),
        not_after: window.not_after.min(other.not_after),
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
