//! Whether an authorization or a redemption would pass, rule by rule, without doing it: the same
//! list of rules that is gone through when it is done. Floor 3.
//!
//! Not explained is what passes by itself: rates, and a server that is busy.

use core::net::IpAddr;
use std::sync::Arc;

use fob_verify::HolderKey;

use super::Engine;
use super::authorize::AuthorizationSpec;
use super::book::FleetBook;
use super::case::{Borrower, Case, OF_BORROWER, OF_VEHICLE};
use super::hooks::Question;
use crate::domain::rules::Decision;
use crate::domain::time::Time;
use crate::domain::{
    Author, Authorization, AuthorizationId, IdentityId, Refusal, RefusalCode, Status, Terminal,
    TokenId, UnixTime, Window,
};

/// One rule, and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The rule's name.
    pub rule: &'static str,
    /// Why not, where it does not pass.
    pub refusal: Option<Refusal>,
}

/// Whether something would pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Every rule, in the order in which they are asked.
    pub findings: Vec<Finding>,
    /// When its keys could be used.
    pub keys: Option<Window>,
    /// The same in words, as of now.
    pub words: Option<String>,
    /// Whether the PIN is asked for.
    pub pin_required: bool,
    /// What the rules about context make of a redemption, where there are any.
    pub context: Option<InContext>,
}

/// What the rules about context make of a redemption.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InContext {
    /// All points together.
    pub score: u32,
    /// What they decide.
    pub decision: Decision,
    /// The rules that give some: their number, the member they are written as, and the points.
    pub points: Vec<(usize, &'static str, u32)>,
}

impl Explanation {
    /// Whether every rule passes.
    pub fn passes(&self) -> bool {
        self.findings.iter().all(|one| one.refusal.is_none())
    }
}

impl Engine {
    /// Whether `spec` would be authorized, and what whoever it is for could do with it.
    pub fn explain_authorization(&self, fleet: &FleetBook, spec: AuthorizationSpec) -> Explanation {
        let now = self.clock().unix();
        let nobody = Author::Token(TokenId([0; 16]));
        let draft = self.draft_as(AuthorizationId([0; 16]), fleet, spec, nobody, now);
        match draft {
            Ok(draft) => {
                let to = draft.recipient().identity.clone();
                let terminal = draft.recipient().terminal.as_ref();
                let terminal = terminal.and_then(|id| fleet.terminal(id.as_str()));
                let holder = terminal.map(|it| it.key).or(draft.recipient().key);
                let mut explained = self.explain((fleet, &draft, now), to.as_ref(), holder, None);
                explained
                    .findings
                    .insert(0, finding("authorization", Ok(())));
                explained
            }
            Err(refusal) => Explanation {
                findings: vec![finding("authorization", Err(refusal))],
                keys: None,
                words: None,
                pin_required: false,
                context: None,
            },
        }
    }

    /// Whether `identity` could redeem an authorization now, with one of its registered terminals
    /// (this one, where one is named), from `address`.
    ///
    /// # Errors
    /// `not_found` where the identity has no such terminal.
    pub fn explain_redemption(
        &self,
        fleet: &FleetBook,
        authorization: &Authorization,
        identity: &IdentityId,
        terminal: Option<&str>,
        address: Option<IpAddr>,
    ) -> Result<Explanation, Refusal> {
        let known = fleet.terminals_of(identity.as_str());
        let holder = match terminal {
            None => {
                let bound = authorization.recipient();
                let fits = |one: &&Arc<Terminal>| {
                    one.status == Status::Active
                        && bound.terminal.as_ref().is_none_or(|id| *id == one.id)
                };
                let own = || known.iter().find(fits).map(|one| one.key);
                bound.key.or_else(own)
            }
            Some(id) => {
                let found = known.iter().find(|one| one.id.as_str() == id);
                let missing = || {
                    Refusal::new(RefusalCode::NotFound)
                        .field("redemption.terminal")
                        .detail("the identity has no such terminal")
                };
                Some(found.ok_or_else(missing)?.key)
            }
        };
        let now = self.clock().unix();
        let mut explained = {
            let of = (fleet, authorization, now);
            self.explain(of, Some(identity), holder, Some(address))
        };
        let open = finding("open", authorization.check_open(now));
        explained.findings.insert(0, open);
        Ok(explained)
    }

    fn explain(
        &self,
        (fleet, authorization, now): (&FleetBook, &Authorization, UnixTime),
        identity: Option<&IdentityId>,
        holder: Option<HolderKey>,
        // `None` where nobody redeems yet.
        from: Option<Option<IpAddr>>,
    ) -> Explanation {
        let mut case = Case::new(fleet, authorization, now);
        let mut rules = OF_VEHICLE.to_vec();
        if let Some(id) = identity {
            case = case.redeemed_by(Borrower {
                id,
                holder: holder.as_ref(),
            });
            rules.extend(OF_BORROWER);
        }
        if let Some(address) = from {
            case = case.seen_from(address);
        }
        let asked = rules
            .into_iter()
            .map(|(name, rule)| finding(name, rule(&case)));
        let mut findings: Vec<_> = asked.collect();
        findings.push(finding("step_up", case.check_step_up(false)));
        let known = self.known_elsewhere(fleet, authorization, identity);
        findings.push(finding("hook", known));
        let issued = self.counted(fleet);
        findings.push(finding("quota", quota(fleet, issued, authorization, now)));
        let keys = case.window(false);
        Explanation {
            findings,
            keys: Some(keys),
            words: Some(words(authorization.window, keys, now)),
            pin_required: authorization.pin && case.asks_pin(holder.is_some()),
            context: from.and_then(|address| in_context(fleet, &case, address)),
        }
    }
}

impl Engine {
    /// What is remembered of an answer: nobody is asked to explain.
    fn known_elsewhere(
        &self,
        fleet: &FleetBook,
        authorization: &Authorization,
        identity: Option<&IdentityId>,
    ) -> Result<(), Refusal> {
        let vehicle = fleet.vehicle(authorization.vehicle.as_str());
        let (Some(vehicle), Some(identity)) = (vehicle, identity) else {
            return Ok(());
        };
        let question = Question::new(fleet, &vehicle, identity, &authorization.functions);
        let now = self.shared.clock.monotonic();
        let known = question.and_then(|it| Some((self.shared.hooks.known(&it, now)?, it)));
        known.map_or(Ok(()), |(verdict, question)| question.judge(&verdict))
    }
}

fn in_context(fleet: &FleetBook, case: &Case<'_>, address: Option<IpAddr>) -> Option<InContext> {
    let (judged, seen) = (case.judged()?, case.seen(address)?);
    let rules = fleet.ruled.rules();
    let context = rules.context.as_ref()?;
    Some(InContext {
        score: judged.score,
        decision: judged.decision,
        points: case.with_facts(&seen, |facts| context.points(facts).collect()),
    })
}

fn finding(rule: &'static str, asked: Result<(), Refusal>) -> Finding {
    Finding {
        rule,
        refusal: asked.err(),
    }
}

fn quota(
    fleet: &FleetBook,
    issued: u64,
    authorization: &Authorization,
    now: UnixTime,
) -> Result<(), Refusal> {
    let keys = authorization.functions.len() as u64;
    let Some(most) = fleet.ruled.rules().keys_per_day else {
        return Ok(());
    };
    if fleet.ruled.has_room(most, issued, keys, now) {
        return Ok(());
    }
    Err(super::limits::over_quota(now))
}

/// When keys may be used, as of now, in words.
fn words(authorized: Window, keys: Window, now: UnixTime) -> String {
    let (from, until, at) = (Time(authorized.not_before), Time(keys.not_after), Time(now));
    if now >= keys.not_after {
        return format!("ended at {until}; it is {at}");
    }
    if now >= authorized.not_before {
        return format!("valid until {until}; it is {at}");
    }
    let early = Time(keys.not_before);
    if keys.not_before == authorized.not_before {
        format!("valid from {from}; it is {at}")
    } else if now < keys.not_before {
        format!("valid from {from}; it is {at}; early start from {early}")
    } else {
        format!("valid from {from}; it is {at}; early start since {early}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_said_in_words() {
        let authorized = Window {
            not_before: 50_400,
            not_after: 60_000,
        };
        let early = Window {
            not_before: 49_500,
            ..authorized
        };
        let at = |minute| format!("1970-01-01T{minute}:00Z");
        for (keys, now, expected) in [
            (
                early,
                49_440,
                format!(
                    "valid from {}; it is {}; early start from {}",
                    at("14:00"),
                    at("13:44"),
                    at("13:45")
                ),
            ),
            (
                early,
                49_500,
                format!(
                    "valid from {}; it is {}; early start since {}",
                    at("14:00"),
                    at("13:45"),
                    at("13:45")
                ),
            ),
            (
                authorized,
                49_500,
                format!("valid from {}; it is {}", at("14:00"), at("13:45")),
            ),
            (
                early,
                50_400,
                format!("valid until {}; it is {}", at("16:40"), at("14:00")),
            ),
            (
                early,
                60_000,
                format!("ended at {}; it is {}", at("16:40"), at("16:40")),
            ),
        ] {
            assert_eq!(words(authorized, keys, now), expected);
        }
    }
}
