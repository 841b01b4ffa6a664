//! Functions: numbered capabilities of a vehicle, the built-in ones and those a fleet adds.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::{Serialize, Serializer};

use super::refusal::{Refusal, RefusalCode};

/// A function's number, part of what is signed.
pub type FunctionCode = u16;

/// The most functions one vehicle, code set or bundle may have.
pub const FUNCTIONS_MAX: usize = 64;

/// The first code a fleet may give out itself.
pub const OWN_FUNCTION_MIN: FunctionCode = 256;

/// The most characters a function's name may have.
pub const FUNCTION_NAME_LEN_MAX: usize = 40;

/// The functions every fleet knows.
pub const BUILT_IN: [(FunctionCode, &str); 8] = [
    (1, "doors.unlock"),
    (2, "doors.lock"),
    (3, "engine.start"),
    (4, "trunk.open"),
    (5, "windows.control"),
    (6, "climate.control"),
    (7, "locate.signal"),
    (8, "charge_port.open"),
];

/// A function as a caller names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FunctionRef {
    /// By number.
    Code(FunctionCode),
    /// By name.
    Name(String),
}

impl Serialize for FunctionRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Code(code) => serializer.serialize_u16(*code),
            Self::Name(name) => serializer.serialize_str(name),
        }
    }
}

impl<'de> Deserialize<'de> for FunctionRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CodeOrName;

        impl Visitor<'_> for CodeOrName {
            type Value = FunctionRef;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a function's code or name")
            }

            fn visit_u64<E: Error>(self, code: u64) -> Result<FunctionRef, E> {
                let code = u16::try_from(code);
                code.map(FunctionRef::Code)
                    .map_err(|_| E::custom("a function's code is 65535 at most"))
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<FunctionRef, E> {
                Ok(FunctionRef::Name(name.into()))
            }
        }

        deserializer.deserialize_any(CodeOrName)
    }
}

/// What a fleet's function codes mean: the built-in ones and its own.
#[derive(Clone, Debug)]
pub struct Catalogue {
    names: BTreeMap<FunctionCode, Arc<str>>,
}

impl Default for Catalogue {
    fn default() -> Self {
        Self {
            names: BUILT_IN
                .iter()
                .map(|&(code, name)| (code, name.into()))
                .collect(),
        }
    }
}

impl Catalogue {
    /// Adds a function of the fleet's own, or confirms one it has.
    ///
    /// # Errors
    /// `malformed` where the code is below [`OWN_FUNCTION_MIN`], the name is not 1 to
    /// [`FUNCTION_NAME_LEN_MAX`] characters of `a-z 0-9 _ .`, or code or name already mean
    /// something else: what a signed key says must never change its meaning.
    pub fn define(&mut self, code: FunctionCode, name: &str) -> Result<(), Refusal> {
        if self.names.get(&code).is_some_and(|known| &**known == name) {
            return Ok(());
        }
        let refuse = |why| Err(Refusal::malformed("functions", why));
        if code < OWN_FUNCTION_MIN {
            return refuse("a fleet's own functions begin at code 256");
        }
        if self.names.contains_key(&code) || self.code(name).is_some() {
            return refuse("this code or name already stands for another function");
        }
        let clean = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'.';
        if !(1..=FUNCTION_NAME_LEN_MAX).contains(&name.len()) || !name.bytes().all(clean) {
            return refuse("a function's name is 1 to 40 characters of a-z 0-9 _ .");
        }
        self.names.insert(code, name.into());
        Ok(())
    }

    /// The name of `code`.
    pub fn name(&self, code: FunctionCode) -> Option<&Arc<str>> {
        self.names.get(&code)
    }

    /// The code of `name`.
    pub fn code(&self, name: &str) -> Option<FunctionCode> {
        self.names
            .iter()
            .find(|(_, known)| &***known == name)
            .map(|(code, _)| *code)
    }

    /// The codes meant by `refs`, ascending and without repetition.
    ///
    /// # Errors
    /// `unknown_function` for one the fleet does not know; `malformed` for none at all, one
    /// named twice, or more than [`FUNCTIONS_MAX`].
    pub fn resolve(&self, refs: &[FunctionRef]) -> Result<Vec<FunctionCode>, Refusal> {
        if refs.is_empty() || refs.len() > FUNCTIONS_MAX {
            return Err(Refusal::malformed("functions", "name 1 to 64 functions"));
        }
        // What the caller wrote does not go back to it: only where it stands.
        let resolve = |(at, function): (usize, &FunctionRef)| {
            let code = match function {
                FunctionRef::Code(code) => self.names.contains_key(code).then_some(*code),
                FunctionRef::Name(name) => self.code(name),
            };
            code.ok_or_else(|| {
                Refusal::new(RefusalCode::UnknownFunction)
                    .field(format!("functions[{at}]"))
                    .detail("the fleet has no such function")
            })
        };
        let mut codes = refs
            .iter()
            .enumerate()
            .map(resolve)
            .collect::<Result<Vec<_>, _>>()?;
        codes.sort_unstable();
        if codes.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(Refusal::malformed("functions", "a function is named twice"));
        }
        Ok(codes)
    }

    /// The fleet's own functions.
    pub fn own(&self) -> impl Iterator<Item = (FunctionCode, &Arc<str>)> {
        self.names
            .range(OWN_FUNCTION_MIN..)
            .map(|(code, name)| (*code, name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolves_names_and_codes_into_ascending_codes() {
        let catalogue = Catalogue::default();
        let refs = [FunctionRef::Name("trunk.open".into()), FunctionRef::Code(1)];
        assert_eq!(catalogue.resolve(&refs), Ok(vec![1, 4]));
        let twice = [FunctionRef::Name("trunk.open".into()), FunctionRef::Code(4)];
        assert_eq!(
            catalogue.resolve(&twice).map_err(|r| r.code),
            Err(RefusalCode::Malformed)
        );
        let unknown = [FunctionRef::Code(99)];
        assert_eq!(
            catalogue.resolve(&unknown).map_err(|r| r.code),
            Err(RefusalCode::UnknownFunction)
        );
        assert!(catalogue.resolve(&[]).is_err());
    }

    #[test]
    fn a_meaning_once_given_stays() {
        let mut catalogue = Catalogue::default();
        assert!(catalogue.define(255, "crane.lift").is_err());
        assert!(catalogue.define(256, "Crane").is_err());
        assert!(catalogue.define(256, "crane.lift").is_ok());
        assert!(catalogue.define(256, "crane.lift").is_ok());
        assert!(catalogue.define(256, "crane.drop").is_err());
        assert!(catalogue.define(257, "crane.lift").is_err());
        assert!(catalogue.define(258, "doors.unlock").is_err());
        assert_eq!(catalogue.own().count(), 1);
    }
}
