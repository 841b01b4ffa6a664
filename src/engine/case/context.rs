//! What the rules about context make of a redemption, and what more is asked for then. Floor 3.

use core::net::IpAddr;

use super::super::recent::Seen;
use super::{Case, is_active};
use crate::domain::rules::{Decision, Facts};
use crate::domain::{Refusal, RefusalCode};

/// What the rules about context make of a redemption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) struct Judged {
    pub(in crate::engine) score: u32,
    pub(in crate::engine) decision: Decision,
    /// A registered terminal is asked for a PIN only where more is asked for.
    pub(in crate::engine) pin_on_step_up: bool,
}

impl Case<'_> {
    /// The same, from an address. Costs nothing where the fleet has no rules about context.
    pub(in crate::engine) fn seen_from(mut self, address: Option<IpAddr>) -> Self {
        let rules = self.fleet.ruled.rules();
        if let (Some(context), Some(seen)) = (&rules.context, self.seen(address)) {
            let score = self.with_facts(&seen, |facts| context.score(facts));
            self.judged = Some(Judged {
                score,
                decision: context.decide(score),
                pin_on_step_up: context.pin_on_step_up,
            });
        }
        self
    }

    /// What the rules about context have made of it, where there are any.
    pub(in crate::engine) fn judged(&self) -> Option<Judged> {
        self.judged
    }

    /// What of it rules about context look at; `None` where nobody redeems.
    pub(in crate::engine) fn seen(&self, address: Option<IpAddr>) -> Option<Seen> {
        let borrower = self.borrower.as_ref()?;
        let known = self.fleet.terminals_of(borrower.id.as_str());
        let this = known.iter().find(|one| is_active(one, borrower.holder));
        Some(Seen {
            at: self.now,
            authorization: self.authorization.id,
            identity: borrower.id.clone(),
            terminal_since: this.map(|one| one.since),
            proved: self.identity.as_ref().and_then(|it| it.proved),
            address,
        })
    }

    /// Asks something of it as rules about context see it.
    pub(in crate::engine) fn with_facts<T>(
        &self,
        seen: &Seen,
        ask: impl FnOnce(&Facts<'_>) -> T,
    ) -> T {
        let recent = &self.fleet.recent;
        let count = |seconds| recent.count(&seen.identity, seen.authorization, (seconds, seen.at));
        ask(&Facts {
            now: seen.at,
            terminal_since: seen.terminal_since,
            proved: seen.proved,
            address: seen.address,
            redemptions: &count,
        })
    }

    /// Whether more is asked for than was given: the right PIN, or a fresh approval.
    ///
    /// # Errors
    /// `step_up_required`, saying what would be enough.
    pub(in crate::engine) fn check_step_up(&self, pin_is_given: bool) -> Result<(), Refusal> {
        let asked = self
            .judged
            .is_some_and(|it| it.decision == Decision::StepUp);
        if !asked || pin_is_given || self.authorization.is_approved(self.now) {
            return Ok(());
        }
        Err(step_up_required(self.authorization.pin))
    }

    /// Whether the PIN, where there is one, is asked for. Where the rules leave it to the context,
    /// a registered terminal is asked where more is asked for, unless the owner has approved.
    pub(in crate::engine) fn asks_pin(&self, registered: bool) -> bool {
        match self.judged {
            Some(judged) if judged.pin_on_step_up && registered => {
                judged.decision == Decision::StepUp && !self.authorization.is_approved(self.now)
            }
            _ => true,
        }
    }
}

/// What no PIN and no approval lifts.
pub(super) fn context_is_not_refused(case: &Case<'_>) -> Result<(), Refusal> {
    match case.judged {
        Some(judged) if judged.decision == Decision::Refuse => {
            Err(Refusal::new(RefusalCode::ContextRefused).detail(
                "neither a PIN nor an approval helps: redeem with a terminal the fleet knows, from \
                 where and when it expects you, or ask the fleet",
            ))
        }
        _ => Ok(()),
    }
}

/// `step_up_required`. Why is for the fleet alone, which may ask for an explanation: whoever found a
/// code set is not told how to look like its owner.
fn step_up_required(has_pin: bool) -> Refusal {
    let refusal = Refusal::new(RefusalCode::StepUpRequired);
    if has_pin {
        return refusal.ways(&["pin", "approval"]).detail(
            "send it again with the PIN, or once the owner has approved of it (POST \
             /v1/authorizations/{id}/approve)",
        );
    }
    refusal.ways(&["approval"]).detail(
        "have the owner approve of it (POST /v1/authorizations/{id}/approve), and send it again: \
         this code set has no PIN",
    )
}
