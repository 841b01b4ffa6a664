//! Context: what the server itself can tell of a redemption, in points, and what their sum decides.
//!
//! Each rule gives its points or does not; they are whole numbers and are added up. Below
//! `step_up_from` keys are issued, from it on the borrower is asked for the PIN or the owner for a
//! fresh approval, and from `refuse_from` on nothing helps.

use core::fmt;
use core::net::IpAddr;

use fob_verify::window::Recurring;
use serde::{Deserialize, Serialize};

use super::range::{self, Range};
use super::rate::Rate;
use super::weekly::{WeeklyText, recurring};
use crate::domain::json::{objects, optional_object};
use crate::domain::refusal::Refusal;
use crate::domain::time::UnixTime;

/// The most rules a context may have.
const CONTEXT_RULES_MAX: usize = 32;

/// The most points one rule gives, and the highest limit.
const POINTS_MAX: u32 = 1_000_000;

/// The most redemptions a rule may count to: as many are remembered of each identity.
pub const REDEMPTIONS_MAX: u32 = 100;

/// How long an owner's approval may hold, in seconds.
const APPROVAL_S_MAX: u32 = 86_400;

const APPROVAL_S: u32 = 900;
const DAYS_MAX: u32 = 36_500;
const DAY_S: u64 = 86_400;

/// A fleet's rules about context, as written.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ContextText {
    /// What gives points.
    #[serde(deserialize_with = "objects")]
    pub rules: Vec<ContextRuleText>,
    /// From how many points on more is asked for.
    pub step_up_from: u32,
    /// From how many points on it is refused; never, where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refuse_from: Option<u32>,
    /// How long an owner's approval holds, in seconds.
    #[serde(default = "approval_s")]
    pub approval_s: u32,
    /// A registered terminal is asked for a PIN from `step_up_from` on only.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub pin_on_step_up: bool,
}

fn approval_s() -> u32 {
    APPROVAL_S
}

/// One rule, as written: its points, and one condition.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ContextRuleText {
    /// What it gives where its condition holds.
    pub points: u32,
    /// The terminal was first seen less than so many days ago, or is not registered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminal_newer_than_days: Option<u32>,
    /// The identity was proved more than so many days ago, or never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proved_longer_ago_than_days: Option<u32>,
    /// It lies within these hours of the week.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "objects")]
    pub hours: Vec<WeeklyText>,
    /// The identity has redeemed so many times or more in the last so many seconds.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "optional_object"
    )]
    pub redemptions: Option<Rate>,
    /// It comes from one of these ranges of addresses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inside: Vec<String>,
    /// It comes from none of these ranges of addresses, or nobody knows from where.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub outside: Vec<String>,
}

/// A fleet's rules about context, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Context {
    rules: Box<[(u32, When)]>,
    step_up_from: u32,
    refuse_from: Option<u32>,
    /// How long an owner's approval holds, in seconds.
    pub approval_s: u32,
    /// A registered terminal is asked for a PIN from `step_up_from` on only.
    pub pin_on_step_up: bool,
}

/// When a rule gives its points.
#[derive(Clone, Debug, PartialEq)]
enum When {
    /// In seconds.
    NewerThan(u64),
    /// In seconds.
    ProvedLongerAgoThan(u64),
    Hours(Recurring),
    Redemptions(Rate),
    Inside(Box<[Range]>),
    Outside(Box<[Range]>),
}

/// What the server can tell of a redemption.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// When it is.
    pub now: UnixTime,
    /// When the registered terminal was first seen; `None` for one that is not registered.
    pub terminal_since: Option<UnixTime>,
    /// When the identity was last proved.
    pub proved: Option<UnixTime>,
    /// From where it comes, where that is known.
    pub address: Option<IpAddr>,
    /// How often the identity has redeemed in the last so many seconds, this time not counted.
    pub redemptions: &'a dyn Fn(u32) -> u32,
}

/// What a score decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Keys are issued.
    Issue,
    /// The PIN, or a fresh approval of the owner's, is asked for.
    StepUp,
    /// Nothing helps.
    Refuse,
}

impl Decision {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Issue => "issue",
            Self::StepUp => "step_up",
            Self::Refuse => "refuse",
        }
    }
}

impl ContextText {
    pub(super) fn check(&self) -> Result<Context, Refusal> {
        let at = |name: &str| format!("context.{name}");
        if self.rules.len() > CONTEXT_RULES_MAX {
            return Err(Refusal::malformed(at("rules"), "at most 32 rules"));
        }
        let limit = |name: &str, points: u32, least: u32| {
            if (least..=POINTS_MAX).contains(&points) {
                return Ok(());
            }
            Err(Refusal::malformed(
                at(name),
                format!("{least} to {POINTS_MAX} points"),
            ))
        };
        limit("step_up_from", self.step_up_from, 1)?;
        if let Some(points) = self.refuse_from {
            limit("refuse_from", points, self.step_up_from)?;
        }
        if !(1..=APPROVAL_S_MAX).contains(&self.approval_s) {
            return Err(Refusal::malformed(at("approval_s"), "1 to 86400 seconds"));
        }
        let rule = |(at, text): (usize, &ContextRuleText)| {
            let when = text.check();
            when.map(|when| (text.points, when)).map_err(|refusal| {
                let field = refusal.field.as_deref().unwrap_or_default();
                let dot = if field.is_empty() { "" } else { "." };
                let field = format!("context.rules[{at}]{dot}{field}");
                refusal.field(field)
            })
        };
        Ok(Context {
            rules: self
                .rules
                .iter()
                .enumerate()
                .map(rule)
                .collect::<Result<_, _>>()?,
            step_up_from: self.step_up_from,
            refuse_from: self.refuse_from,
            approval_s: self.approval_s,
            pin_on_step_up: self.pin_on_step_up,
        })
    }
}

impl ContextRuleText {
    fn check(&self) -> Result<When, Refusal> {
        let Self {
            points,
            terminal_newer_than_days,
            proved_longer_ago_than_days,
            hours,
            redemptions,
            inside,
            outside,
        } = self;
        if !(1..=POINTS_MAX).contains(points) {
            return Err(Refusal::malformed("points", "1 to 1000000 points"));
        }
        let days = |field: &'static str, days: u32| {
            if (1..=DAYS_MAX).contains(&days) {
                return Ok(u64::from(days) * DAY_S);
            }
            Err(Refusal::malformed(field, "1 to 36500 days"))
        };
        let mut conditions = Vec::with_capacity(1);
        if let Some(number) = *terminal_newer_than_days {
            let seconds = days("terminal_newer_than_days", number)?;
            conditions.push(When::NewerThan(seconds));
        }
        if let Some(number) = *proved_longer_ago_than_days {
            let seconds = days("proved_longer_ago_than_days", number)?;
            conditions.push(When::ProvedLongerAgoThan(seconds));
        }
        let hours = recurring(hours).map_err(|refusal| refusal.field("hours"))?;
        conditions.extend(hours.map(When::Hours));
        if let Some(rate) = *redemptions {
            let fits = (1..=REDEMPTIONS_MAX).contains(&rate.count)
                && (1..=u32::try_from(DAY_S).unwrap_or(u32::MAX)).contains(&rate.seconds);
            if !fits {
                return Err(Refusal::malformed(
                    "redemptions",
                    "1 to 100 in 1 to 86400 seconds",
                ));
            }
            conditions.push(When::Redemptions(rate));
        }
        if !inside.is_empty() {
            conditions.push(When::Inside(range::check("inside", inside)?));
        }
        if !outside.is_empty() {
            conditions.push(When::Outside(range::check("outside", outside)?));
        }
        match (conditions.pop(), conditions.pop()) {
            (Some(when), None) => Ok(when),
            _ => Err(Refusal::malformed(
                "",
                "a rule has points and one of terminal_newer_than_days, \
                 proved_longer_ago_than_days, hours, redemptions, inside, outside",
            )),
        }
    }
}

impl When {
    fn holds(&self, facts: &Facts<'_>) -> bool {
        let now = facts.now;
        match self {
            Self::NewerThan(seconds) => facts
                .terminal_since
                .is_none_or(|since| now.saturating_sub(since) < *seconds),
            Self::ProvedLongerAgoThan(seconds) => facts
                .proved
                .is_none_or(|at| now.saturating_sub(at) > *seconds),
            Self::Hours(hours) => hours.is_open(now),
            Self::Redemptions(Rate { count, seconds }) => (facts.redemptions)(*seconds) >= *count,
            Self::Inside(ranges) => facts
                .address
                .is_some_and(|from| ranges.iter().any(|one| one.contains(from))),
            Self::Outside(ranges) => facts
                .address
                .is_none_or(|from| !ranges.iter().any(|one| one.contains(from))),
        }
    }

    /// The member it is written as.
    const fn name(&self) -> &'static str {
        match self {
            Self::NewerThan(_) => "terminal_newer_than_days",
            Self::ProvedLongerAgoThan(_) => "proved_longer_ago_than_days",
            Self::Hours(_) => "hours",
            Self::Redemptions(_) => "redemptions",
            Self::Inside(_) => "inside",
            Self::Outside(_) => "outside",
        }
    }
}

impl Context {
    /// The points of every rule that gives some, by its number and the member it is written as.
    pub fn points<'a>(
        &'a self,
        facts: &'a Facts<'a>,
    ) -> impl Iterator<Item = (usize, &'static str, u32)> + 'a {
        let rules = self.rules.iter().enumerate();
        rules
            .filter(|(_, (_, when))| when.holds(facts))
            .map(|(at, (points, when))| (at, when.name(), *points))
    }

    /// All points together.
    pub fn score(&self, facts: &Facts<'_>) -> u32 {
        // 32 rules of a million points each do not reach the end of it.
        self.points(facts)
            .fold(0, |sum: u32, (_, _, points)| sum.saturating_add(points))
    }

    /// What a score decides.
    pub fn decide(&self, score: u32) -> Decision {
        if self.refuse_from.is_some_and(|limit| score >= limit) {
            Decision::Refuse
        } else if score >= self.step_up_from {
            Decision::StepUp
        } else {
            Decision::Issue
        }
    }
}

impl fmt::Debug for Facts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Facts")
            .field("now", &self.now)
            .field("terminal_since", &self.terminal_since)
            .field("proved", &self.proved)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::RulesText;
    use super::*;
    use crate::domain::function::Catalogue;

    /// A Monday, at noon UTC.
    const NOON: UnixTime = 4 * 86_400 + 43_200;

    fn check(context: &str) -> Result<Context, Refusal> {
        let text = RulesText::read(&format!(r#"{{"context":{context}}}"#)).expect("well-formed");
        let rules = text.check(&Catalogue::default(), 1)?;
        Ok(rules.context.expect("a context"))
    }

    fn one(condition: &str) -> Context {
        let rule = format!(r#"{{"points":5,{condition}}}"#);
        check(&format!(r#"{{"rules":[{rule}],"step_up_from":5}}"#)).expect("rules")
    }

    fn decision(context: &Context, change: impl FnOnce(&mut Facts<'_>)) -> Decision {
        let none = |_| 0;
        let mut facts = Facts {
            now: NOON,
            terminal_since: Some(0),
            proved: Some(NOON),
            address: None,
            redemptions: &none,
        };
        change(&mut facts);
        context.decide(context.score(&facts))
    }

    #[test]
    fn a_terminal_is_new_for_as_many_days() {
        let context = one(r#""terminal_newer_than_days":2"#);
        let seen = |since| decision(&context, |facts| facts.terminal_since = since);
        for (since, expected) in [
            (Some(NOON - 3 * DAY_S), Decision::Issue),
            (Some(NOON - 2 * DAY_S), Decision::Issue),
            (Some(NOON - 2 * DAY_S + 1), Decision::StepUp),
            (Some(NOON), Decision::StepUp),
            // A clock that was set back, and one nobody registered.
            (Some(NOON + 9), Decision::StepUp),
            (None, Decision::StepUp),
        ] {
            assert_eq!(seen(since), expected, "{since:?}");
        }
    }

    #[test]
    fn a_proof_of_identity_grows_old() {
        let context = one(r#""proved_longer_ago_than_days":3"#);
        let proved = |at| decision(&context, |facts| facts.proved = at);
        for (at, expected) in [
            (Some(NOON), Decision::Issue),
            (Some(NOON - 3 * DAY_S), Decision::Issue),
            (Some(NOON - 3 * DAY_S - 1), Decision::StepUp),
            (Some(0), Decision::StepUp),
            (None, Decision::StepUp),
        ] {
            assert_eq!(proved(at), expected, "{at:?}");
        }
    }

    #[test]
    fn hours_begin_and_end_to_the_second() {
        let context = one(r#""hours":[{"days":["mon"],"from":"12:00","until":"13:00"}]"#);
        let at = |now| decision(&context, |facts| facts.now = now);
        for (now, expected) in [
            (NOON - 1, Decision::Issue),
            (NOON, Decision::StepUp),
            (NOON + 3_599, Decision::StepUp),
            (NOON + 3_600, Decision::Issue),
            (NOON + DAY_S, Decision::Issue),
            (NOON + 7 * DAY_S, Decision::StepUp),
        ] {
            assert_eq!(at(now), expected, "{now}");
        }
    }

    #[test]
    fn redemptions_are_counted_in_their_time() {
        let context = one(r#""redemptions":{"count":3,"seconds":60}"#);
        for (so_far, expected) in [
            (0, Decision::Issue),
            (2, Decision::Issue),
            (3, Decision::StepUp),
            (4, Decision::StepUp),
        ] {
            let asked = core::cell::Cell::new(0);
            let count = |seconds| {
                asked.set(seconds);
                so_far
            };
            let none = |_| 0;
            let mut facts = Facts {
                now: NOON,
                terminal_since: None,
                proved: None,
                address: None,
                redemptions: &none,
            };
            facts.redemptions = &count;
            assert_eq!(context.decide(context.score(&facts)), expected, "{so_far}");
            assert_eq!(asked.get(), 60);
        }
    }

    #[test]
    fn addresses_lie_inside_or_outside() {
        let ranges = r#"["10.1.0.0/16","2001:db8::/32"]"#;
        for (condition, of_the_ranges, of_others) in [
            ("inside", Decision::StepUp, Decision::Issue),
            ("outside", Decision::Issue, Decision::StepUp),
        ] {
            let context = one(&format!(r#""{condition}":{ranges}"#));
            let from = |text: Option<&str>| {
                let address = text.map(|it| it.parse().expect("an address"));
                decision(&context, |facts| facts.address = address)
            };
            for edge in [
                "10.1.0.0",
                "10.1.255.255",
                "2001:db8:ffff::",
                "::ffff:10.1.2.3",
            ] {
                assert_eq!(from(Some(edge)), of_the_ranges, "{edge} {condition}");
            }
            for beyond in ["10.0.255.255", "10.2.0.0", "2001:db7:ffff::", "2001:db9::"] {
                assert_eq!(from(Some(beyond)), of_others, "{beyond} {condition}");
            }
            assert_eq!(from(None), of_others, "from nobody knows where");
        }
    }

    #[test]
    fn points_add_up_and_limits_are_met_to_the_point() {
        let rule = |points: u32| format!(r#"{{"points":{points},"terminal_newer_than_days":1}}"#);
        let with = |points: &[u32]| {
            let rules: Vec<_> = points.iter().copied().map(rule).collect();
            let rules = rules.join(",");
            let text = format!(r#"{{"rules":[{rules}],"step_up_from":50,"refuse_from":100}}"#);
            decision(&check(&text).expect("rules"), |facts| {
                facts.terminal_since = None
            })
        };
        for (points, expected) in [
            (&[][..], Decision::Issue),
            (&[20, 29], Decision::Issue),
            (&[20, 30], Decision::StepUp),
            (&[50], Decision::StepUp),
            (&[50, 49], Decision::StepUp),
            (&[50, 50], Decision::Refuse),
            (&[101], Decision::Refuse),
            (&[1_000_000; 32], Decision::Refuse),
        ] {
            assert_eq!(with(points), expected, "{points:?}");
        }
        // Where the limits are one there is nothing in between, and without the second no end.
        let text = |limits: &str| format!(r#"{{"rules":[{}],{limits}}}"#, rule(1_000_000));
        let new = |facts: &mut Facts<'_>| facts.terminal_since = None;
        let both = check(&text(r#""step_up_from":1000000,"refuse_from":1000000"#));
        assert_eq!(decision(&both.expect("rules"), new), Decision::Refuse);
        let open = check(&text(r#""step_up_from":1000000"#));
        assert_eq!(decision(&open.expect("rules"), new), Decision::StepUp);
    }

    #[test]
    fn what_cannot_be_a_context_is_named() {
        let whole = |rule: &str| format!(r#"{{"rules":[{rule}],"step_up_from":1}}"#);
        let good = r#"{"points":1,"terminal_newer_than_days":1}"#;
        assert!(check(&whole(&vec![good; 32].join(","))).is_ok());
        assert!(check(r#"{"rules":[],"step_up_from":1,"approval_s":86400}"#).is_ok());
        for (text, field) in [
            (whole(&vec![good; 33].join(",")), "context.rules"),
            (whole(r#"{"points":1}"#), "context.rules[0]"),
            (
                whole(&format!(
                    r#"{good},{{"points":1,"terminal_newer_than_days":1,"inside":["::/0"]}}"#
                )),
                "context.rules[1]",
            ),
            (
                whole(r#"{"points":0,"terminal_newer_than_days":1}"#),
                "context.rules[0].points",
            ),
            (
                whole(r#"{"points":1000001,"terminal_newer_than_days":1}"#),
                "context.rules[0].points",
            ),
            (
                whole(r#"{"points":1,"terminal_newer_than_days":0}"#),
                "context.rules[0].terminal_newer_than_days",
            ),
            (
                whole(r#"{"points":1,"proved_longer_ago_than_days":36501}"#),
                "context.rules[0].proved_longer_ago_than_days",
            ),
            (
                whole(r#"{"points":1,"hours":[{"days":["may"],"from":"08:00","until":"09:00"}]}"#),
                "context.rules[0].hours",
            ),
            (
                whole(r#"{"points":1,"redemptions":{"count":101,"seconds":1}}"#),
                "context.rules[0].redemptions",
            ),
            (
                whole(r#"{"points":1,"redemptions":{"count":1,"seconds":86401}}"#),
                "context.rules[0].redemptions",
            ),
            (
                whole(r#"{"points":1,"inside":["10.0.0.0/8","10.0.0.1/8"]}"#),
                "context.rules[0].inside[1]",
            ),
            (
                whole(r#"{"points":1,"outside":["everywhere"]}"#),
                "context.rules[0].outside[0]",
            ),
            (
                r#"{"rules":[],"step_up_from":0}"#.into(),
                "context.step_up_from",
            ),
            (
                r#"{"rules":[],"step_up_from":5,"refuse_from":4}"#.into(),
                "context.refuse_from",
            ),
            (
                r#"{"rules":[],"step_up_from":5,"approval_s":86401}"#.into(),
                "context.approval_s",
            ),
        ] {
            let refusal = check(&text).expect_err(&text);
            assert_eq!(refusal.field.as_deref(), Some(field), "{text}: {refusal}");
        }
        for bad in [
            r#"{"context":[]}"#,
            r#"{"context":{"rules":[]}}"#,
            r#"{"context":{"rules":[{"points":1.5,"terminal_newer_than_days":1}],"step_up_from":1}}"#,
            r#"{"context":{"rules":[{"points":1,"moon":1}],"step_up_from":1}}"#,
        ] {
            assert!(RulesText::read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn it_is_kept_as_it_was_written() {
        let written = r#"{"context":{"rules":[{"points":1,"hours":[{"days":["mon"],"from":"22:00","until":"06:00"}]}],"step_up_from":1,"pin_on_step_up":true}}"#;
        let text = RulesText::read(written).expect("rules");
        let kept = serde_json::to_string(&text).expect("text");
        assert_eq!(RulesText::read(&kept), Ok(text));
        assert!(kept.contains(r#""approval_s":900"#), "{kept}");
    }
}
