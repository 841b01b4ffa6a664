//! What was redeemed lately, for rules about context: a part of a fleet's book. Floor 3.
//!
//! Only a fleet that has such rules has anything here. It is in memory, of this node alone, and
//! begins anew with the process, as rates do. Memory is bounded: of each identity as many times are
//! remembered as a rule may count, and who has no room is not remembered.

use core::net::IpAddr;
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::domain::rules::{Context, Decision, Facts, REDEMPTIONS_MAX};
use crate::domain::{AuthorizationId, IdentityId, UnixTime};

/// For how long redemptions are remembered, in seconds: as long as a rule may look back.
const REMEMBER_S: u64 = 86_400;

/// Identities remembered at most.
const IDENTITIES_MAX: usize = 131_072;

/// Redemptions of which everything is remembered, to try new rules on.
const SEEN_MAX: usize = 1_024;

/// What one fleet has redeemed lately.
#[derive(Default)]
pub struct Recent(Mutex<Log>);

#[derive(Default)]
struct Log {
    of: HashMap<IdentityId, VecDeque<(UnixTime, AuthorizationId)>>,
    seen: VecDeque<Seen>,
}

/// A redemption, as rules about context see it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) at: UnixTime,
    pub(super) authorization: AuthorizationId,
    pub(super) identity: IdentityId,
    pub(super) terminal_since: Option<UnixTime>,
    pub(super) proved: Option<UnixTime>,
    pub(super) address: Option<IpAddr>,
}

/// What rules would have decided about what was redeemed lately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replay {
    /// Redemptions that were looked at.
    pub looked_at: usize,
    /// Keys would have been issued.
    pub issue: usize,
    /// The PIN or an approval would have been asked for.
    pub step_up: usize,
    /// It would have been refused.
    pub refuse: usize,
}

impl Recent {
    /// Remembers a redemption that was let in. The same one let in again is the same.
    pub(super) fn note(&self, seen: Seen) {
        let mut log = self.lock();
        let log = &mut *log;
        let over = seen.at.saturating_sub(REMEMBER_S);
        if log.of.len() >= IDENTITIES_MAX && !log.of.contains_key(&seen.identity) {
            log.of
                .retain(|_, times| times.back().is_some_and(|(at, _)| *at > over));
        }
        if log.of.len() < IDENTITIES_MAX || log.of.contains_key(&seen.identity) {
            let times = log.of.entry(seen.identity.clone()).or_default();
            if times.iter().any(|(_, id)| *id == seen.authorization) {
                return;
            }
            while times.front().is_some_and(|(at, _)| *at <= over)
                || times.len() >= REDEMPTIONS_MAX as usize
            {
                times.pop_front();
            }
            times.push_back((seen.at, seen.authorization));
        }
        if log.seen.len() >= SEEN_MAX {
            log.seen.pop_front();
        }
        log.seen.push_back(seen);
    }

    /// How often `identity` has redeemed in the `seconds` before `now`, apart from this
    /// authorization.
    pub(super) fn count(
        &self,
        identity: &IdentityId,
        this: AuthorizationId,
        (seconds, now): (u32, UnixTime),
    ) -> u32 {
        self.lock().count(identity, this, (seconds, now))
    }

    /// What `context` would have decided about each.
    pub(super) fn replay(&self, context: &Context) -> Replay {
        let log = self.lock();
        let mut replay = Replay::default();
        for seen in &log.seen {
            let count = |seconds| log.count_before(seen, seconds);
            let facts = Facts {
                now: seen.at,
                terminal_since: seen.terminal_since,
                proved: seen.proved,
                address: seen.address,
                redemptions: &count,
            };
            replay.looked_at += 1;
            match context.decide(context.score(&facts)) {
                Decision::Issue => replay.issue += 1,
                Decision::StepUp => replay.step_up += 1,
                Decision::Refuse => replay.refuse += 1,
            }
        }
        replay
    }

    /// Held for a few lines, and never while anything is waited for.
    fn lock(&self) -> MutexGuard<'_, Log> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    /// How often the identity of a redemption had redeemed in the `seconds` before that.
    fn count_before(&self, seen: &Seen, seconds: u32) -> u32 {
        let times = self.of.get(&seen.identity).into_iter().flatten();
        let before = times.take_while(|(_, id)| *id != seen.authorization);
        let counts = before.filter(|(at, _)| seen.at.saturating_sub(*at) < seconds.into());
        u32::try_from(counts.count()).unwrap_or(u32::MAX)
    }

    fn count(
        &self,
        identity: &IdentityId,
        this: AuthorizationId,
        (seconds, now): (u32, UnixTime),
    ) -> u32 {
        let Some(times) = self.of.get(identity) else {
            return 0;
        };
        let counts = |(at, id): &&(UnixTime, AuthorizationId)| {
            *at <= now && now - at < seconds.into() && *id != this
        };
        u32::try_from(times.iter().filter(counts).count()).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::RulesText;
    use crate::domain::function::Catalogue;

    fn seen(who: &str, at: UnixTime, id: u8) -> Seen {
        Seen {
            at,
            authorization: AuthorizationId([id; 16]),
            identity: IdentityId::parse(who).expect("an id"),
            terminal_since: None,
            proved: None,
            address: None,
        }
    }

    #[test]
    fn redemptions_count_for_as_long_as_is_asked_and_once_each() {
        let recent = Recent::default();
        let anna = IdentityId::parse("anna").expect("an id");
        for (at, id) in [(1_000, 1), (1_005, 2), (1_005, 2), (1_010, 3)] {
            recent.note(seen("anna", at, id));
        }
        recent.note(seen("ben", 1_010, 9));
        let other = AuthorizationId([7; 16]);
        for (seconds, now, expected) in [
            (10, 1_010, 2),
            (11, 1_010, 3),
            (5, 1_010, 1),
            (1, 1_010, 1),
            (1, 1_011, 0),
            (100, 1_004, 1),
        ] {
            let found = recent.count(&anna, other, (seconds, now));
            assert_eq!(found, expected, "{seconds} s before {now}");
        }
        let own = AuthorizationId([3; 16]);
        assert_eq!(recent.count(&anna, own, (11, 1_010)), 2, "this one");
    }

    #[test]
    fn no_more_is_remembered_than_a_rule_may_ask_for() {
        let recent = Recent::default();
        let anna = IdentityId::parse("anna").expect("an id");
        for n in 0..2_000_u64 {
            let mut one = seen("anna", 1_000 + n / 10, 0);
            one.authorization.0[..8].copy_from_slice(&n.to_be_bytes());
            recent.note(one);
        }
        let log = recent.lock();
        assert_eq!(log.of[&anna].len(), 100);
        assert_eq!(log.seen.len(), SEEN_MAX);
        drop(log);
        // A day later nothing counts, and a new one takes the place of all.
        recent.note(seen("anna", 1_200 + REMEMBER_S, 255));
        assert_eq!(recent.lock().of[&anna].len(), 1);
    }

    #[test]
    fn new_rules_are_tried_on_what_was_redeemed() {
        let recent = Recent::default();
        for n in 1..=4 {
            recent.note(seen("anna", 1_000 + u64::from(n), n));
        }
        let text = RulesText::read(
            r#"{"context":{"rules":[{"points":5,"redemptions":{"count":2,"seconds":60}},
                {"points":5,"redemptions":{"count":3,"seconds":60}}],
                "step_up_from":5,"refuse_from":10}}"#,
        );
        let rules = text.expect("rules").check(&Catalogue::default(), 1);
        let context = rules.expect("rules").context.expect("a context");
        let expected = Replay {
            looked_at: 4,
            issue: 2,
            step_up: 1,
            refuse: 1,
        };
        assert_eq!(recent.replay(&context), expected);
    }
}
