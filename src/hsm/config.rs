//! Settings of a token as checked, floor 2.
//!
//! The sections `[hsm]` and `[root]` of `fob.toml` become [`TokenConfig`]s
//! where the configuration is read; the value types deserialise themselves.
//! The PIN is deliberately not part of it: it comes from its file, on its own.

use std::fmt;
use std::path::PathBuf;
use std::thread::available_parallelism;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{HsmError, Profile};

/// The most sessions a token is opened with.
pub const SESSIONS_MAX: u16 = 64;

/// The fewest and the most sessions `sessions = "auto"` opens.
const AUTO_SESSIONS: std::ops::RangeInclusive<usize> = 2..=8;

/// How long a call may take where nothing else is said.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// Which token, through which module, with how many sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenConfig {
    /// Path of the PKCS#11 library.
    pub module: PathBuf,
    /// What the library is told when it is initialised, where it has to be.
    pub init_args: Option<String>,
    /// What is particular about the library; by what it calls itself if absent.
    pub profile: Option<&'static Profile>,
    /// `CKA_LABEL` of the token, without trailing blanks.
    pub label: String,
    /// Serial number of the token, where the label alone does not name it.
    pub serial: Option<String>,
    /// How many sessions sign in parallel.
    pub sessions: SessionCount,
    /// Whether every session signs with a copy of the key of its own.
    pub session_key_copy: SessionKeyCopy,
    /// How long a call may take before its thread is parked.
    pub call_timeout: Duration,
    /// Where PINs that were refused are remembered; nowhere if absent.
    pub refused_pins: Option<PathBuf>,
}

impl TokenConfig {
    /// The token labelled `label` in `module`, everything else by default.
    pub fn new(module: impl Into<PathBuf>, label: impl Into<String>) -> Self {
        Self {
            module: module.into(),
            init_args: None,
            profile: None,
            label: label.into(),
            serial: None,
            sessions: SessionCount::Auto,
            session_key_copy: SessionKeyCopy::Auto,
            call_timeout: CALL_TIMEOUT,
            refused_pins: None,
        }
    }
}

/// How many sessions sign in parallel: `"auto"` or 1 to 64.
///
/// `auto` is one for every core this process may use, at least 2 and at most 8,
/// no more than are of use by the module's profile, and fewer where the token
/// gives no more. It is a count, not a trial:
/// a trial on a busy machine picks by chance, and the same machine should open
/// the same sessions at every start. An HSM that works outside this machine may
/// serve best with more than it has cores; `fob bench hsm --sessions` tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SessionCount {
    /// By the number of cores.
    #[default]
    Auto,
    /// Exactly this many.
    Exactly(u16),
}

impl SessionCount {
    /// The number of sessions to ask the token for.
    pub(super) fn wanted(self, profile: &Profile) -> Result<usize, HsmError> {
        match self {
            Self::Auto => {
                let cores = available_parallelism().map_or(1, usize::from);
                let count = cores.clamp(*AUTO_SESSIONS.start(), *AUTO_SESSIONS.end());
                Ok(count.min(profile.sessions_of_use))
            }
            Self::Exactly(count) if (1..=SESSIONS_MAX).contains(&count) => Ok(usize::from(count)),
            Self::Exactly(count) => Err(HsmError::Setting {
                key: "sessions",
                reason: format!("{count} is not \"auto\" or a number from 1 to {SESSIONS_MAX}"),
            }),
        }
    }
}

impl Serialize for SessionCount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Exactly(count) => serializer.serialize_u16(*count),
        }
    }
}

impl<'de> Deserialize<'de> for SessionCount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SessionCountVisitor)
    }
}

struct SessionCountVisitor;

impl de::Visitor<'_> for SessionCountVisitor {
    type Value = SessionCount;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"auto\" or a number from 1 to {SESSIONS_MAX}")
    }

    fn visit_u64<E: de::Error>(self, count: u64) -> Result<SessionCount, E> {
        match u16::try_from(count) {
            Ok(count) if (1..=SESSIONS_MAX).contains(&count) => Ok(SessionCount::Exactly(count)),
            _ => Err(E::invalid_value(de::Unexpected::Unsigned(count), &self)),
        }
    }

    fn visit_i64<E: de::Error>(self, count: i64) -> Result<SessionCount, E> {
        match u64::try_from(count) {
            Ok(count) => self.visit_u64(count),
            Err(_) => Err(E::invalid_value(de::Unexpected::Signed(count), &self)),
        }
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<SessionCount, E> {
        match text {
            "auto" => Ok(SessionCount::Auto),
            // Environment variables arrive as text.
            other => match other.parse() {
                Ok(count) => self.visit_u64(count),
                Err(_) => Err(E::invalid_value(de::Unexpected::Str(other), &self)),
            },
        }
    }
}

/// Whether every session signs with a copy of the key of its own
/// (`C_CopyObject` with `CKA_TOKEN` false), which dies with the session.
///
/// Some modules read a key of the token anew for every signature, and none of a
/// session copy: their profile says so. On other HSMs a copy gains nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionKeyCopy {
    /// On where it pays by the module's profile, and works; off for everything else.
    #[default]
    Auto,
    /// Always; a token that does not copy is an error.
    On,
    /// Never.
    Off,
}

#[cfg(test)]
mod tests {
    use super::*;

    use serde::de::IntoDeserializer;
    use serde::de::value::{Error, StrDeserializer, U64Deserializer};

    fn text(value: &str) -> Result<SessionCount, Error> {
        let source: StrDeserializer<'_, Error> = value.into_deserializer();
        SessionCount::deserialize(source)
    }

    fn number(value: u64) -> Result<SessionCount, Error> {
        let source: U64Deserializer<Error> = value.into_deserializer();
        SessionCount::deserialize(source)
    }

    #[test]
    fn session_counts_parse_within_their_bounds() {
        assert_eq!(text("auto"), Ok(SessionCount::Auto));
        assert_eq!(text("4"), Ok(SessionCount::Exactly(4)));
        assert_eq!(number(64), Ok(SessionCount::Exactly(64)));
        for wrong in [0, 65, u64::MAX] {
            assert!(number(wrong).is_err(), "{wrong}");
        }
        assert!(text("many").is_err());
    }

    #[test]
    fn auto_is_within_its_bounds() {
        let any = Profile::unknown();
        assert!(AUTO_SESSIONS.contains(&SessionCount::Auto.wanted(any).unwrap()));
        assert!(SessionCount::Exactly(0).wanted(any).is_err());
        assert!(SessionCount::Exactly(65).wanted(any).is_err());
        // What is of no use is not opened, unless it is asked for.
        let narrow = Profile::named("tpm2-pkcs11").unwrap();
        assert!(SessionCount::Auto.wanted(narrow).unwrap() <= 2);
        assert_eq!(SessionCount::Exactly(9).wanted(narrow), Ok(9));
    }
}
