//! Checks that live elsewhere: of which functions a fleet has another server asked, and what becomes
//! of them where that does not answer.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::domain::function::{Catalogue, FunctionCode, FunctionRef};
use crate::domain::json::entries;
use crate::domain::refusal::Refusal;

/// How long an answer may be remembered, in seconds. The least is so much that what was asked can be
/// acted on.
const VALID_S: core::ops::RangeInclusive<u32> = 5..=86_400;

const DEFAULT_VALID_S: u32 = 60;

/// The most characters of an address.
const URL_LEN_MAX: usize = 512;

/// A fleet's checks that live elsewhere, as written.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct HookText {
    /// Whom to ask.
    pub url: String,
    /// Of which functions, by name or code, and what becomes of them without an answer: `closed` or
    /// `open`.
    #[serde(deserialize_with = "modes")]
    pub functions: BTreeMap<String, String>,
    /// How long an answer is remembered at most, in seconds.
    #[serde(default = "valid_s")]
    pub valid_s: u32,
}

fn valid_s() -> u32 {
    DEFAULT_VALID_S
}

fn modes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    entries(deserializer).map(|all: Vec<_>| all.into_iter().collect())
}

/// A fleet's checks that live elsewhere, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Whom to ask.
    pub url: Box<str>,
    /// How long an answer is remembered at most, in seconds.
    pub valid_s: u32,
    /// Ascending by code.
    functions: Box<[(FunctionCode, Fails)]>,
}

/// What becomes of keys where nobody answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fails {
    /// They are issued.
    Open,
    /// They are refused.
    Closed,
}

impl HookText {
    pub(super) fn check(&self, catalogue: &Catalogue) -> Result<Hook, Refusal> {
        let wrong =
            |field: &str, why: &'static str| Refusal::malformed(format!("hook.{field}"), why);
        if !(1..=URL_LEN_MAX).contains(&self.url.len()) {
            return Err(wrong("url", "an address has 1 to 512 characters"));
        }
        if !VALID_S.contains(&self.valid_s) {
            return Err(wrong("valid_s", "5 to 86400 seconds"));
        }
        if self.functions.is_empty() {
            return Err(wrong("functions", "name one function at least"));
        }
        let mut functions = Vec::with_capacity(self.functions.len());
        for (name, fails) in &self.functions {
            let at = || format!("hook.functions.{name}");
            let function = match name.parse() {
                Ok(code) => FunctionRef::Code(code),
                Err(_) => FunctionRef::Name(name.clone()),
            };
            let code = catalogue.resolve(&[function]);
            let code = code.map_err(|refusal| refusal.field(at()))?[0];
            let fails = match fails.as_str() {
                "open" => Fails::Open,
                "closed" => Fails::Closed,
                _ => return Err(Refusal::malformed(at(), "it fails open or closed")),
            };
            functions.push((code, fails));
        }
        functions.sort_unstable();
        if functions.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(wrong("functions", "a function is named twice"));
        }
        Ok(Hook {
            url: self.url.as_str().into(),
            valid_s: self.valid_s,
            functions: functions.into(),
        })
    }
}

impl Hook {
    /// Whether anybody has to be asked about keys of `functions`, and what becomes of them without
    /// an answer: one that fails closed is enough, since keys of one bundle go together.
    pub fn concerns(&self, functions: &[FunctionCode]) -> Option<Fails> {
        let fails = |code: &FunctionCode| {
            let at = self.functions.binary_search_by_key(code, |it| it.0).ok()?;
            Some(self.functions[at].1)
        };
        functions.iter().filter_map(fails).max()
    }
}

#[cfg(test)]
mod tests {
    use super::super::RulesText;
    use super::*;
    use crate::domain::Rules;

    fn check(hook: &str) -> Result<Rules, Refusal> {
        let text = RulesText::read(&format!(r#"{{"hook":{hook}}}"#)).expect("well-formed");
        text.check(&Catalogue::default(), 1)
    }

    #[test]
    fn one_function_that_fails_closed_is_enough() {
        let rules =
            check(r#"{"url":"https://h/","functions":{"engine.start":"closed","1":"open"}}"#);
        let hook = rules.expect("rules").hook.expect("a hook");
        assert_eq!(hook.valid_s, 60);
        for (functions, expected) in [
            (&[][..], None),
            (&[2], None),
            (&[1], Some(Fails::Open)),
            (&[1, 2], Some(Fails::Open)),
            (&[3], Some(Fails::Closed)),
            (&[1, 3], Some(Fails::Closed)),
        ] {
            assert_eq!(hook.concerns(functions), expected, "{functions:?}");
        }
    }

    #[test]
    fn what_cannot_be_a_hook_is_named() {
        let one = |url: &str, functions: &str, valid_s: u32| {
            check(&format!(
                r#"{{"url":"{url}","functions":{functions},"valid_s":{valid_s}}}"#
            ))
        };
        let good = r#"{"1":"open"}"#;
        let long = "h".repeat(513);
        assert!(one("https://h", good, 5).is_ok() && one("https://h", good, 86_400).is_ok());
        for (url, functions, valid_s, field) in [
            ("", good, 60, "hook.url"),
            (&*long, good, 60, "hook.url"),
            ("https://h", good, 4, "hook.valid_s"),
            ("https://h", good, 86_401, "hook.valid_s"),
            ("https://h", "{}", 60, "hook.functions"),
            ("https://h", r#"{"99":"open"}"#, 60, "hook.functions.99"),
            ("https://h", r#"{"1":"ajar"}"#, 60, "hook.functions.1"),
            (
                "https://h",
                r#"{"1":"open","doors.unlock":"open"}"#,
                60,
                "hook.functions",
            ),
        ] {
            let refusal = one(url, functions, valid_s).expect_err(functions);
            assert_eq!(refusal.field.as_deref(), Some(field), "{refusal}");
        }
    }
}
