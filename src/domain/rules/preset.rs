//! Presets: named sets of functions and limits, accepted wherever functions are.

use std::borrow::Cow;
use std::collections::BTreeMap;

use fob_verify::window::Recurring;
use serde::{Deserialize, Deserializer, Serialize};

use super::Rules;
use super::weekly::{WeeklyText, recurring};
use crate::domain::function::{Catalogue, FunctionCode, FunctionRef};
use crate::domain::json::{Object, entries, objects};
use crate::domain::refusal::{Refusal, RefusalCode};

/// What comes before a preset's name where functions are named.
const PREFIX: &str = "preset:";

/// The most presets a fleet may have.
const PRESETS_MAX: usize = 64;

/// The most characters of a preset's name.
const NAME_LEN_MAX: usize = 32;

/// A preset, as written.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PresetText {
    /// Its functions, by name or code.
    pub functions: Vec<FunctionRef>,
    /// How often each may be used, by its name or code.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "limits"
    )]
    pub max_uses: BTreeMap<String, u32>,
    /// The longest its keys may work, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lasts_s: Option<u64>,
    /// At which hours of the week they work.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "objects"
    )]
    pub recurring: Vec<WeeklyText>,
}

/// A preset, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Preset {
    /// Its functions, ascending.
    pub functions: Vec<FunctionCode>,
    /// How often each may be used, ascending by code.
    pub max_uses: Vec<(FunctionCode, u32)>,
    /// The longest its keys may work, in seconds.
    pub lasts_s: Option<u64>,
    /// At which hours of the week they work.
    pub recurring: Option<Recurring>,
}

fn limits<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, u32>, D::Error> {
    entries(deserializer).map(|all: Vec<_>| all.into_iter().collect())
}

/// For `deserialize_with`: presets by their names.
pub(super) fn by_name<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, PresetText>, D::Error> {
    let all: Vec<(String, Object<PresetText>)> = entries(deserializer)?;
    Ok(all.into_iter().map(|(name, it)| (name, it.0)).collect())
}

/// Checks presets.
pub(super) fn check(
    all: &BTreeMap<String, PresetText>,
    catalogue: &Catalogue,
) -> Result<BTreeMap<String, Preset>, Refusal> {
    if all.len() > PRESETS_MAX {
        return Err(Refusal::malformed("presets", "at most 64 presets"));
    }
    let clean = |name: &str| {
        (1..=NAME_LEN_MAX).contains(&name.len())
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    let mut checked = BTreeMap::new();
    for (name, text) in all {
        if !clean(name) {
            return Err(Refusal::malformed(
                "presets",
                "a preset's name is 1 to 32 characters of a-z 0-9 _",
            ));
        }
        let preset = text.check(catalogue).map_err(|refusal| {
            let field = refusal.field.as_deref().unwrap_or_default();
            let field = format!("presets.{name}.{field}");
            refusal.field(field)
        })?;
        checked.insert(name.clone(), preset);
    }
    Ok(checked)
}

impl PresetText {
    fn check(&self, catalogue: &Catalogue) -> Result<Preset, Refusal> {
        let functions = catalogue.resolve(&self.functions)?;
        let mut max_uses = Vec::with_capacity(self.max_uses.len());
        for (function, uses) in &self.max_uses {
            let function = match function.parse() {
                Ok(code) => FunctionRef::Code(code),
                Err(_) => FunctionRef::Name(function.clone()),
            };
            let code = catalogue.resolve(&[function]);
            let code = code.map_err(|refusal| refusal.field("max_uses"))?[0];
            if *uses == 0 || functions.binary_search(&code).is_err() {
                return Err(Refusal::malformed(
                    "max_uses",
                    "it limits a function of the preset, to one use at least",
                ));
            }
            max_uses.push((code, *uses));
        }
        max_uses.sort_unstable();
        if max_uses.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(Refusal::malformed(
                "max_uses",
                "a function is limited twice",
            ));
        }
        if self.lasts_s == Some(0) {
            return Err(Refusal::malformed("lasts_s", "a second at least"));
        }
        Ok(Preset {
            functions,
            max_uses,
            lasts_s: self.lasts_s,
            recurring: recurring(&self.recurring)?,
        })
    }
}

impl Rules {
    /// What is named among `functions`: the preset, where there is one, and the others.
    ///
    /// # Errors
    /// `unknown_function` for a preset the fleet does not have, `malformed` for two of them.
    pub fn preset_of<'a, 'b>(
        &'a self,
        functions: &'b [FunctionRef],
    ) -> Result<(Option<&'a Preset>, Cow<'b, [FunctionRef]>), Refusal> {
        let name = |function: &'b FunctionRef| match function {
            FunctionRef::Name(name) => name.strip_prefix(PREFIX),
            FunctionRef::Code(_) => None,
        };
        let mut named = functions.iter().enumerate();
        let Some((at, preset)) = named.find_map(|(at, one)| Some((at, name(one)?))) else {
            return Ok((None, functions.into()));
        };
        if named.any(|(_, one)| name(one).is_some()) {
            return Err(Refusal::malformed("functions", "name one preset at most"));
        }
        let preset = self.presets.get(preset).ok_or_else(|| {
            Refusal::new(RefusalCode::UnknownFunction)
                .field(format!("functions[{at}]"))
                .detail("the fleet's rules have no such preset")
        })?;
        let others = functions.iter().filter(|one| name(one).is_none());
        Ok((Some(preset), others.cloned().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::RulesText;
    use super::*;

    fn rules(text: &str) -> Result<Rules, Refusal> {
        let text = RulesText::read(text).expect("well-formed");
        text.check(&Catalogue::default(), 1)
    }

    #[test]
    fn presets_are_found_among_functions() {
        let rules =
            rules(r#"{"presets":{"valet":{"functions":[3,1],"max_uses":{"3":2},"lasts_s":60}}}"#);
        let rules = rules.expect("rules");
        let name = |name: &str| FunctionRef::Name(name.into());
        let code = FunctionRef::Code;
        let asked = [code(4), name("preset:valet")];
        let (preset, others) = rules.preset_of(&asked).expect("one");
        let preset = preset.expect("a preset");
        assert_eq!(
            (&preset.functions[..], &preset.max_uses[..]),
            (&[1, 3][..], &[(3, 2)][..])
        );
        assert_eq!((preset.lasts_s, &others[..]), (Some(60), &[code(4)][..]));
        assert_eq!(
            rules.preset_of(&[code(4)]),
            Ok((None, vec![code(4)].into()))
        );
        let refused = |all: &[FunctionRef]| rules.preset_of(all).err().map(|it| it.code);
        assert_eq!(
            refused(&[name("preset:no")]),
            Some(RefusalCode::UnknownFunction)
        );
        let two = [name("preset:valet"), name("preset:valet")];
        assert_eq!(refused(&two), Some(RefusalCode::Malformed));
    }

    #[test]
    fn what_cannot_be_a_preset_is_named() {
        let one = |preset: &str| rules(&format!(r#"{{"presets":{{"valet":{preset}}}}}"#));
        assert!(one(r#"{"functions":[1],"max_uses":{"1":1},"lasts_s":1}"#).is_ok());
        for (preset, field) in [
            (r#"{"functions":[]}"#, "presets.valet.functions"),
            (r#"{"functions":[99]}"#, "presets.valet.functions[0]"),
            (
                r#"{"functions":[1],"max_uses":{"1":0}}"#,
                "presets.valet.max_uses",
            ),
            (
                r#"{"functions":[1],"max_uses":{"3":1}}"#,
                "presets.valet.max_uses",
            ),
            (
                r#"{"functions":[1],"max_uses":{"1":1,"doors.unlock":1}}"#,
                "presets.valet.max_uses",
            ),
            (r#"{"functions":[1],"lasts_s":0}"#, "presets.valet.lasts_s"),
            (
                r#"{"functions":[1],"recurring":[{"days":[],"from":"08:00","until":"18:00"}]}"#,
                "presets.valet.recurring",
            ),
        ] {
            let refusal = one(preset).expect_err(preset);
            assert_eq!(refusal.field.as_deref(), Some(field), "{preset}");
        }
        let named = |names: &[String]| {
            let one = |name: &String| format!(r#""{name}":{{"functions":[1]}}"#);
            let all: Vec<_> = names.iter().map(one).collect();
            rules(&format!(r#"{{"presets":{{{}}}}}"#, all.join(",")))
        };
        let many = |count: usize| (0..count).map(|n| format!("p{n}")).collect::<Vec<_>>();
        assert!(named(&many(64)).is_ok() && named(&["v".repeat(32)]).is_ok());
        for bad in [
            many(65),
            vec!["v".repeat(33)],
            vec!["Valet".into()],
            vec![String::new()],
        ] {
            let refusal = named(&bad).expect_err("names");
            assert_eq!(refusal.field.as_deref(), Some("presets"), "{bad:?}");
        }
    }
}
