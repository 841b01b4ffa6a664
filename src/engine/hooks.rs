//! Checks that live elsewhere: which question has to be answered before keys are issued, what is
//! remembered of the answers, and what becomes of keys without one. Floor 3.
//!
//! Nobody is called from within the pipeline. A redemption, an order or a change is asked about in
//! its caller's task before it is admitted; admission looks at what has been answered. Orders are
//! asked about before their chunk is let in, a few at a time: so a batch of orders is as slow as the
//! other server, and is refused for nothing that waiting would have brought.
//!
//! Many who have the same question ask it once: the first does, the others wait for what it heard.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use futures_util::StreamExt as _;
use serde_json::{Value, json};

use super::Engine;
use super::book::FleetBook;
use super::turns::Turns;
use crate::domain::rules::Fails;
use crate::domain::{FunctionCode, IdentityId, Refusal, RefusalCode, Vehicle};
use crate::hook::Hook;

/// For how long nobody who did not answer is asked the same again.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Calls in a row without an answer after which one address is left alone for that long.
const FAILURES_MAX: u32 = 3;

/// The least time an answer is remembered, so that what was asked can be acted on.
const VALID_S_MIN: u32 = 5;

/// Questions about orders that are asked at one time.
const AT_ONCE: usize = 16;

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Allowed,
    /// Why, as they put it.
    Denied(Option<Arc<str>>),
    /// Nothing.
    Unanswered,
}

/// What has to be answered: whether this identity may have keys of these functions of this vehicle.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) digest: [u8; 32],
    url: Box<str>,
    valid_s: u32,
    fails: Fails,
    asks: Value,
}

impl Question {
    /// `None` where nobody has to be asked.
    pub(super) fn new(
        fleet: &FleetBook,
        vehicle: &Vehicle,
        identity: &IdentityId,
        functions: &[FunctionCode],
    ) -> Option<Self> {
        let rules = fleet.ruled.rules();
        let hook = rules.hook.as_ref()?;
        let fails = hook.concerns(functions)?;
        let catalogue = fleet.catalogue();
        let names = functions.iter().map(|code| match catalogue.name(*code) {
            Some(name) => Value::from(&**name),
            None => Value::from(*code),
        });
        let asks = json!({
            "fleet": fleet.fleet.name.as_str(),
            "identity": identity.as_str(),
            "vehicle": vehicle.id.as_str(),
            "model": vehicle.model,
            "functions": names.collect::<Vec<_>>(),
        });
        // Whom it is put to is part of it: another's answer does not stand for theirs.
        let whole = format!("{}\n{asks}", hook.url);
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(digest(&SHA256, whole.as_bytes()).as_ref());
        Some(Self {
            digest: sha256,
            url: hook.url.clone(),
            valid_s: hook.valid_s,
            fails,
            asks,
        })
    }

    /// Whether keys may be issued on that.
    ///
    /// # Errors
    /// `hook_refused`, with what they said; `hook_unavailable`.
    pub(super) fn judge(&self, verdict: &Verdict) -> Result<(), Refusal> {
        match (verdict, self.fails) {
            (Verdict::Allowed, _) | (Verdict::Unanswered, Fails::Open) => Ok(()),
            (Verdict::Denied(why), _) => {
                let refusal = Refusal::new(RefusalCode::HookRefused);
                Err(match why {
                    Some(why) => refusal.detail(format!("they say: {why}")),
                    None => refusal.detail("settle it with the fleet"),
                })
            }
            (Verdict::Unanswered, Fails::Closed) => Err(unanswered()),
        }
    }
}

/// `hook_unavailable`.
pub(super) fn unanswered() -> Refusal {
    let seconds = u32::try_from(RETRY_AFTER.as_secs()).unwrap_or(u32::MAX);
    Refusal::new(RefusalCode::HookUnavailable)
        .detail("whom the fleet has asked before it issues does not answer: ask again")
        .retry_after(seconds)
}

/// Who is asked, and what was answered.
#[derive(Default)]
pub(crate) struct Hooks {
    hook: OnceLock<Hook>,
    known: Mutex<Known>,
    turns: Turns<[u8; 32]>,
    failing: Mutex<HashMap<Box<str>, Failing>>,
}

/// What was answered, by question, and until when it holds. Bounded: once `fresh` has half of what
/// may be remembered it becomes what is old, and what was old is forgotten.
#[derive(Default)]
struct Known {
    fresh: HashMap<[u8; 32], (Verdict, Duration)>,
    old: HashMap<[u8; 32], (Verdict, Duration)>,
}

/// Calls to one address that brought nothing, one after the other, and until when it is left alone.
#[derive(Clone, Copy, Default)]
struct Failing {
    times: u32,
    until: Duration,
}

impl Known {
    fn find(&self, question: &[u8; 32], now: Duration) -> Option<Verdict> {
        let found = self.fresh.get(question).or_else(|| self.old.get(question));
        let (verdict, until) = found?;
        (now < *until).then(|| verdict.clone())
    }

    fn put(&mut self, question: [u8; 32], verdict: Verdict, until: Duration, len_max: usize) {
        if self.fresh.len() >= (len_max / 2).max(1) {
            self.old = std::mem::take(&mut self.fresh);
        }
        self.fresh.insert(question, (verdict, until));
    }
}

impl Hooks {
    /// What is remembered of an answer.
    pub(super) fn known(&self, question: &Question, now: Duration) -> Option<Verdict> {
        lock(&self.known).find(&question.digest, now)
    }

    fn is_left_alone(&self, url: &str, now: Duration) -> bool {
        let failing = lock(&self.failing);
        failing
            .get(url)
            .is_some_and(|it| it.times >= FAILURES_MAX && now < it.until)
    }

    fn note(&self, url: &str, answered: bool, now: Duration) {
        let mut failing = lock(&self.failing);
        if answered {
            failing.remove(url);
            return;
        }
        let it = failing.entry(url.into()).or_default();
        it.times = it.times.saturating_add(1);
        it.until = now + RETRY_AFTER;
    }
}

/// How long an answer is remembered: as long as it says, within what the fleet's rules say.
fn remembered_for(said: Option<u32>, most: u32) -> Duration {
    let valid_s = said.unwrap_or(most).min(most).max(VALID_S_MIN);
    Duration::from_secs(valid_s.into())
}

/// Held for a few lines, and never while anything is waited for.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Engine {
    /// Has others asked from now on, by whom the configuration names. Once.
    pub fn set_hook(&self, hook: Hook) {
        drop(self.shared.hooks.hook.set(hook));
    }

    /// Whether this server may ask whoever is at `url`.
    ///
    /// # Errors
    /// `malformed`, saying why not.
    pub(super) fn check_hook(&self, url: &str) -> Result<(), Refusal> {
        let wrong = |why: String| Refusal::malformed("hook.url", why);
        let Some(hook) = self.shared.hooks.hook.get() else {
            let why = "this server asks nobody: [hook] of its configuration says whom it may";
            return Err(wrong(why.into()));
        };
        hook.check(url)
            .map(drop)
            .map_err(|why| wrong(why.to_string()))
    }

    /// The answer to a question: what is remembered, or what is said when it is asked.
    pub(super) async fn verdict(&self, question: &Question) -> Verdict {
        let hooks = &self.shared.hooks;
        let now = || self.shared.clock.monotonic();
        let turn = hooks.turns.of(question.digest);
        let _turn = turn.take().await;
        if let Some(known) = hooks.known(question, now()) {
            return known;
        }
        let Some(hook) = hooks.hook.get() else {
            return Verdict::Unanswered;
        };
        if hooks.is_left_alone(&question.url, now()) {
            return Verdict::Unanswered;
        }
        let (issuer, at) = (&self.shared.settings.public_url, self.shared.clock.unix());
        let answer = hook.ask(&question.url, issuer, &question.asks, at).await;
        hooks.note(&question.url, answer.is_ok(), now());
        let (verdict, valid, word) = match answer {
            Ok(answer) => {
                let valid = remembered_for(answer.valid_s, question.valid_s);
                if answer.allowed {
                    (Verdict::Allowed, valid, "allow")
                } else {
                    (Verdict::Denied(answer.why.map(Into::into)), valid, "deny")
                }
            }
            Err(why) => {
                let fails = question.fails;
                tracing::warn!(url = &*question.url, %why, ?fails, "a hook has not answered");
                (Verdict::Unanswered, RETRY_AFTER, "none")
            }
        };
        metrics::counter!("fob_hook_calls_total", "answer" => word).increment(1);
        let until = now() + valid;
        lock(&hooks.known).put(question.digest, verdict.clone(), until, hook.answers_max());
        verdict
    }

    /// The answers to many questions, a few asked at a time.
    pub(super) async fn verdicts(&self, questions: Vec<Question>) -> Answers {
        let ask = |question: Question| async move {
            let verdict = self.verdict(&question).await;
            (question.digest, verdict)
        };
        let asked = futures_util::stream::iter(questions.into_iter().map(ask));
        asked.buffer_unordered(AT_ONCE).collect().await
    }
}

/// What was answered to questions of these digests.
pub(super) type Answers = HashMap<[u8; 32], Verdict>;

#[cfg(test)]
mod tests {
    use super::*;

    fn question(fails: Fails) -> Question {
        Question {
            digest: [1; 32],
            url: "https://h".into(),
            valid_s: 60,
            fails,
            asks: Value::Null,
        }
    }

    #[test]
    fn an_answer_is_remembered_as_long_as_it_says_and_no_longer_than_the_rules() {
        for (said, seconds) in [
            (None, 60),
            (Some(0), 5),
            (Some(4), 5),
            (Some(6), 6),
            (Some(60), 60),
            (Some(61), 60),
        ] {
            assert_eq!(remembered_for(said, 60).as_secs(), seconds, "{said:?}");
        }
    }

    #[test]
    fn without_an_answer_the_function_says_what_becomes_of_it() {
        use RefusalCode::{HookRefused, HookUnavailable};
        let denied = Verdict::Denied(Some("unpaid".into()));
        for (fails, verdict, expected) in [
            (Fails::Open, Verdict::Allowed, None),
            (Fails::Closed, Verdict::Allowed, None),
            (Fails::Open, Verdict::Unanswered, None),
            (Fails::Closed, Verdict::Unanswered, Some(HookUnavailable)),
            (Fails::Open, denied.clone(), Some(HookRefused)),
            (Fails::Closed, denied.clone(), Some(HookRefused)),
            (Fails::Open, Verdict::Denied(None), Some(HookRefused)),
        ] {
            let judged = question(fails).judge(&verdict);
            let code = judged.err().map(|it| it.code);
            assert_eq!(code, expected, "{fails:?} {verdict:?}");
        }
        let said = question(Fails::Open).judge(&denied).expect_err("a refusal");
        assert!(said.to_string().contains("unpaid"), "{said}");
    }

    #[test]
    fn answers_hold_for_their_time_and_their_number_is_bounded() {
        let mut known = Known::default();
        let at = Duration::from_secs;
        known.put([1; 32], Verdict::Allowed, at(10), 4);
        assert_eq!(known.find(&[1; 32], at(9)), Some(Verdict::Allowed));
        assert_eq!(known.find(&[1; 32], at(10)), None, "its time is over");
        for n in 2..=20 {
            known.put([n; 32], Verdict::Unanswered, at(100), 4);
            assert!(known.fresh.len() + known.old.len() <= 4);
            assert_eq!(known.find(&[n; 32], at(0)), Some(Verdict::Unanswered));
        }
        assert_eq!(known.find(&[1; 32], at(0)), None, "forgotten");
    }

    #[test]
    fn who_never_answers_is_left_alone_for_a_while() {
        let hooks = Hooks::default();
        let at = Duration::from_secs;
        for second in 0..3 {
            assert!(!hooks.is_left_alone("u", at(second)));
            hooks.note("u", false, at(second));
        }
        assert!(hooks.is_left_alone("u", at(3)) && !hooks.is_left_alone("v", at(3)));
        assert!(!hooks.is_left_alone("u", at(4)), "it is tried again");
        hooks.note("u", false, at(4));
        assert!(hooks.is_left_alone("u", at(5)));
        hooks.note("u", true, at(5));
        assert!(!hooks.is_left_alone("u", at(5)));
    }
}
