//! Context: what the server itself can tell of a redemption, in points, and what their sum decides.
//!
//! Each rule gives its points or does not; they are whole numbers and are added up. Below
//! `step_up_from` keys are issued, from it on the borrower is asked for the PIN or the owner for a
//! fresh approval, and from `refuse_from` on nothing helps.

use core::fmt;
use core::net::IpAddr;

use fob_verify::window::Recurring;

use super::range::Range;
use super::rate::Rate;
use crate::domain::time::UnixTime;

#[cfg(test)]
mod tests;
mod text;

pub use text::{ContextText, REDEMPTIONS_MAX};

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
