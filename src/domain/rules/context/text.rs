//! Rules about context as they are written, and what is wrong with them.

use serde::{Deserialize, Serialize};

use super::super::range;
use super::super::rate::Rate;
use super::super::weekly::{WeeklyText, recurring};
use super::{Context, When};
use crate::domain::json::{objects, optional_object};
use crate::domain::refusal::Refusal;

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

impl ContextText {
    pub(in crate::domain::rules) fn check(&self) -> Result<Context, Refusal> {
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
