//! What a fleet rules, beyond what holds everywhere: data that it sets itself, checked when it is
//! set, and versioned. What it does not rule refuses nothing.
//!
//! [`RulesText`] is what a fleet writes, [`Rules`] what is made of it: names resolved, bounds
//! checked. The rules of a redemption are asked in `licence.rs`, rates are numbers only: how fast
//! somebody asks is counted in the engine.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::function::Catalogue;
use super::refusal::Refusal;
use super::time::UnixTime;

mod context;
mod hook;
mod licence;
mod preset;
mod range;
mod rate;
mod weekly;

pub use context::{Context, ContextText, Decision, Facts, REDEMPTIONS_MAX};
pub use hook::{Fails, Hook, HookText};
pub use licence::{
    LicenceRule, LicenceText, check_hold, check_status, eligible, keeps, licensed_until,
};
pub use preset::{Preset, PresetText};
pub use range::Range;
pub use rate::{Bands, Rate, Rates};
pub use weekly::{WeeklyText, recurring};

/// The most rules about licences a fleet may have.
pub const LICENCE_RULES_MAX: usize = 64;

/// The most keys in a day that a fleet may set.
pub const KEYS_PER_DAY_MAX: u64 = 1_000_000_000_000;

/// The earliest a fleet may let keys work before their window begins, in seconds.
pub const EARLY_GRACE_S_MAX: u32 = 86_400;

/// What a fleet rules, as written: the JSON that is set, kept and shown.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RulesText {
    /// Which functions need which licences.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "super::json::objects"
    )]
    pub licences: Vec<LicenceText>,
    /// Named sets of functions and limits.
    #[serde(
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "preset::by_name"
    )]
    pub presets: BTreeMap<String, PresetText>,
    /// How fast each caller, borrower, device and vehicle may ask.
    #[serde(deserialize_with = "super::json::object")]
    pub limits: Rates,
    /// The most keys in a day (UTC); more need approval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys_per_day: Option<u64>,
    /// By how many seconds keys work before their window begins.
    #[serde(skip_serializing_if = "is_zero")]
    pub early_grace_s: u32,
    /// The normal band of issuing: beyond it issuing freezes.
    #[serde(deserialize_with = "super::json::object")]
    pub brake: Bands,
    /// What the surroundings of a redemption are worth.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "super::json::optional_object"
    )]
    pub context: Option<ContextText>,
    /// Checks that live elsewhere.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "super::json::optional_object"
    )]
    pub hook: Option<HookText>,
}

/// What a fleet rules, checked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules {
    /// How often they were set; 0 where they never were.
    pub version: u32,
    /// Which functions need which licences.
    pub licences: Box<[LicenceRule]>,
    /// Named sets of functions and limits.
    pub presets: BTreeMap<String, Preset>,
    /// How fast each caller, borrower, device and vehicle may ask.
    pub limits: Rates,
    /// The most keys in a day (UTC); more need approval.
    pub keys_per_day: Option<u64>,
    /// By how many seconds keys work before their window begins.
    pub early_grace_s: u32,
    /// The normal band of issuing.
    pub brake: Bands,
    /// What the surroundings of a redemption are worth.
    pub context: Option<Context>,
    /// Checks that live elsewhere.
    pub hook: Option<Hook>,
    /// They stand, and nobody here can read them: whatever they ask for, it is not met.
    pub unreadable: bool,
}

impl Rules {
    /// Rules that cannot be read.
    pub fn unreadable(version: u32) -> Self {
        Self {
            version,
            unreadable: true,
            ..Self::default()
        }
    }

    /// Whether a licence is asked for by the vehicle's model.
    pub fn asks_by_model(&self) -> bool {
        self.licences.iter().any(LicenceRule::asks_by_model)
    }

    /// Whether who may keep a key is asked as these others ask it: then no key stands otherwise.
    pub fn keep_as(&self, others: &Self) -> bool {
        !(self.unreadable || others.unreadable) && self.licences == others.licences
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde asks")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl RulesText {
    /// Reads what was kept.
    ///
    /// # Errors
    /// What the decoder says.
    pub fn read(text: &str) -> Result<Self, String> {
        let read: Result<super::json::Object<Self>, _> = serde_json::from_str(text);
        read.map(|it| it.0).map_err(|error| error.to_string())
    }

    /// Checks it: every function is one of the fleet's, every number within its bounds.
    ///
    /// # Errors
    /// `malformed` or `unknown_function`, naming the member at fault.
    pub fn check(&self, catalogue: &Catalogue, version: u32) -> Result<Rules, Refusal> {
        if self.licences.len() > LICENCE_RULES_MAX {
            return Err(Refusal::malformed("licences", "at most 64 rules"));
        }
        let licence = |(at, text): (usize, &LicenceText)| {
            text.check(catalogue).map_err(|refusal| {
                let field = refusal.field.as_deref().unwrap_or_default();
                let field = format!("licences[{at}].{field}");
                refusal.field(field)
            })
        };
        let licences = self.licences.iter().enumerate().map(licence);
        self.limits.check("limits")?;
        self.brake.check("brake")?;
        if self.early_grace_s > EARLY_GRACE_S_MAX {
            return Err(Refusal::malformed("early_grace_s", "at most 86400 seconds"));
        }
        if self
            .keys_per_day
            .is_some_and(|keys| keys > KEYS_PER_DAY_MAX)
        {
            return Err(Refusal::malformed(
                "keys_per_day",
                "at most 1000000000000 keys",
            ));
        }
        Ok(Rules {
            version,
            licences: licences.collect::<Result<_, _>>()?,
            presets: preset::check(&self.presets, catalogue)?,
            limits: self.limits,
            keys_per_day: self.keys_per_day,
            early_grace_s: self.early_grace_s,
            brake: self.brake,
            context: self.context.as_ref().map(ContextText::check).transpose()?,
            hook: match &self.hook {
                Some(hook) => Some(hook.check(catalogue)?),
                None => None,
            },
            unreadable: false,
        })
    }
}

/// The number of the day (UTC) of a time, and the first second of the next.
pub const fn day(now: UnixTime) -> (u64, UnixTime) {
    let number = now / 86_400;
    (number, (number + 1) * 86_400)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::RefusalCode;

    fn check(text: &str) -> Result<Rules, Refusal> {
        let text = RulesText::read(text).expect("well-formed");
        text.check(&Catalogue::default(), 7)
    }

    #[test]
    fn nothing_is_ruled_where_nothing_is_said() {
        let rules = check("{}").expect("rules");
        assert_eq!(
            rules,
            Rules {
                version: 7,
                ..Rules::default()
            }
        );
        let text = RulesText::default();
        let kept = serde_json::to_string(&text).expect("text");
        assert_eq!(RulesText::read(&kept), Ok(text));
    }

    #[test]
    fn what_cannot_be_ruled_is_named() {
        let rate = |count: u32, seconds: u32| {
            format!(r#"{{"limits":{{"vehicle":{{"count":{count},"seconds":{seconds}}}}}}}"#)
        };
        let classes =
            |classes: &str| format!(r#"{{"licences":[{{"functions":[3],"classes":{classes}}}]}}"#);
        let many = vec![r#"{"functions":[3],"classes":["B"]}"#; 65].join(",");
        let one_less = vec![r#"{"functions":[3],"classes":["B"]}"#; 64].join(",");
        assert!(check(&format!(r#"{{"licences":[{one_less}]}}"#)).is_ok());
        let models = |count: usize| {
            let models = vec!["Car"; count];
            format!(r#"{{"licences":[{{"functions":[3],"models":{models:?},"classes":["B"]}}]}}"#)
        };
        let of = |count: usize| classes(&format!("{:?}", vec!["B"; count]));
        assert!(check(&models(256)).is_ok() && check(&of(32)).is_ok());
        assert!(check(r#"{"early_grace_s":86400}"#).is_ok());
        assert!(check(r#"{"keys_per_day":1000000000000}"#).is_ok());
        assert!(check(&rate(1, 1)).is_ok() && check(&rate(1_000_000, 86_400)).is_ok());
        for (text, code, field) in [
            (
                format!(r#"{{"licences":[{many}]}}"#),
                RefusalCode::Malformed,
                "licences",
            ),
            (
                r#"{"licences":[{"functions":["sunroof.open"],"classes":["B"]}]}"#.into(),
                RefusalCode::UnknownFunction,
                "licences[0].functions[0]",
            ),
            (
                r#"{"licences":[{"functions":[],"classes":["B"]}]}"#.into(),
                RefusalCode::Malformed,
                "licences[0].functions",
            ),
            (models(257), RefusalCode::Malformed, "licences[0].models"),
            (of(33), RefusalCode::Malformed, "licences[0].classes"),
            (classes("[]"), RefusalCode::Malformed, "licences[0].classes"),
            (
                classes(r#"["B E"]"#),
                RefusalCode::Malformed,
                "licences[0].classes",
            ),
            (
                r#"{"early_grace_s":86401}"#.into(),
                RefusalCode::Malformed,
                "early_grace_s",
            ),
            (
                r#"{"keys_per_day":1000000000001}"#.into(),
                RefusalCode::Malformed,
                "keys_per_day",
            ),
            (rate(0, 1), RefusalCode::Malformed, "limits.vehicle"),
            (rate(1, 0), RefusalCode::Malformed, "limits.vehicle"),
            (rate(1_000_001, 1), RefusalCode::Malformed, "limits.vehicle"),
            (rate(1, 86_401), RefusalCode::Malformed, "limits.vehicle"),
            (
                r#"{"brake":{"fleet":{"count":0,"seconds":1}}}"#.into(),
                RefusalCode::Malformed,
                "brake.fleet",
            ),
        ] {
            let refusal = check(&text).expect_err(&text);
            assert_eq!(
                (refusal.code, refusal.field.as_deref()),
                (code, Some(field)),
                "{text}"
            );
        }
    }

    #[test]
    fn unknown_members_and_lists_for_objects_are_no_rules() {
        for bad in [
            r#"{"licence":[]}"#,
            r#"{"limits":[]}"#,
            r#"{"licences":[["B"]]}"#,
            r#"{"keys_per_day":-1}"#,
            "[]",
        ] {
            assert!(RulesText::read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn days_begin_at_midnight_utc() {
        assert_eq!(day(86_399), (0, 86_400));
        assert_eq!(day(86_400), (1, 172_800));
    }
}
