//! `[hsm]`, `[[hsm.token]]` and `[root]`: which tokens, and how they are used.

use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;
use serde::Deserialize;

use super::{Wrong, within};
use crate::hsm::{
    CALL_TIMEOUT, HsmError, Profile, SessionCount, SessionKeyCopy, TokenConfig, read_pin_file,
};

/// The most issuing tokens.
const TOKENS_MAX: usize = 16;

/// Where PINs that a token has refused are remembered, within the directory.
const REFUSED_PINS: &str = "refused-pins.json";

/// The issuing tokens, checked.
#[derive(Clone, Debug)]
pub struct HsmConfig {
    /// At least one, the first is where keys are made if nothing else is said.
    pub tokens: Vec<IssuingToken>,
    /// How long every thread may be inside overdue calls before the process leaves.
    pub stuck_exit: Duration,
}

/// One issuing token.
#[derive(Clone, Debug)]
pub struct IssuingToken {
    /// Which, and how it is opened.
    pub config: TokenConfig,
    /// The file with its user PIN.
    pub pin_file: PathBuf,
    /// The serial number of the token whose keys it holds copies of.
    pub replica_of: Option<String>,
}

impl IssuingToken {
    /// Its user PIN.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn pin(&self) -> Result<SecretString, HsmError> {
        read_pin_file(&self.pin_file)
    }

    /// The serial number that the epochs it signs under name.
    pub fn epochs_of(&self) -> Option<&str> {
        self.replica_of.as_deref().or(self.config.serial.as_deref())
    }
}

/// `[hsm]` as typed: one token in the section itself, or several in a list.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct HsmSection {
    module: Option<PathBuf>,
    init_args: Option<String>,
    profile: Option<String>,
    label: Option<String>,
    serial: Option<String>,
    pin_file: Option<PathBuf>,
    sessions: SessionCount,
    session_key_copy: SessionKeyCopy,
    call_timeout_ms: Option<u64>,
    stuck_exit_s: Option<u64>,
    token: Vec<TokenSection>,
}

/// One token as typed: `[[hsm.token]]`, `[root]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct TokenSection {
    module: Option<PathBuf>,
    init_args: Option<String>,
    profile: Option<String>,
    label: Option<String>,
    serial: Option<String>,
    pin_file: Option<PathBuf>,
    sessions: SessionCount,
    session_key_copy: SessionKeyCopy,
    replica_of: Option<String>,
}

/// The keys of a token that may be wrong, as the section at hand has them.
pub(super) struct TokenNames {
    module: &'static str,
    label: &'static str,
    pin_file: &'static str,
    profile: &'static str,
}

impl HsmSection {
    pub(super) fn check(self, dir: &Path) -> Result<HsmConfig, Wrong> {
        let call_timeout_ms = within(
            "hsm.call_timeout_ms",
            self.call_timeout_ms,
            u64::try_from(CALL_TIMEOUT.as_millis()).unwrap_or(u64::MAX),
            100..=600_000,
        )?;
        let stuck_exit_s = within("hsm.stuck_exit_s", self.stuck_exit_s, 60, 1..=86_400)?;
        let call_timeout = Duration::from_millis(call_timeout_ms);
        let alone = TokenSection {
            module: self.module,
            init_args: self.init_args,
            profile: self.profile,
            label: self.label,
            serial: self.serial,
            pin_file: self.pin_file,
            sessions: self.sessions,
            session_key_copy: self.session_key_copy,
            replica_of: None,
        };
        let sections = if self.token.is_empty() {
            vec![alone]
        } else if alone.is_empty() {
            self.token
        } else {
            let why = "name the one token in [hsm], or all of them in [[hsm.token]]";
            return Err(("hsm.token", why.into()));
        };
        let several = sections.len() > 1;
        let names = if several {
            TokenNames {
                module: "hsm.token.module",
                label: "hsm.token.label",
                pin_file: "hsm.token.pin_file",
                profile: "hsm.token.profile",
            }
        } else {
            TokenNames {
                module: "hsm.module",
                label: "hsm.label",
                pin_file: "hsm.pin_file",
                profile: "hsm.profile",
            }
        };
        let token = |section: TokenSection| section.check(dir, &names, call_timeout);
        let tokens = sections
            .into_iter()
            .map(token)
            .collect::<Result<Vec<_>, _>>()?;
        check_serials(&tokens)?;
        Ok(HsmConfig {
            tokens,
            stuck_exit: Duration::from_secs(stuck_exit_s),
        })
    }
}

/// Epochs name their token by serial number, so several tokens are told apart by it.
fn check_serials(tokens: &[IssuingToken]) -> Result<(), Wrong> {
    if tokens.len() > TOKENS_MAX {
        return Err(("hsm.token", format!("there are {TOKENS_MAX} at most")));
    }
    if tokens.len() == 1 {
        return Ok(());
    }
    for (at, token) in tokens.iter().enumerate() {
        let Some(serial) = &token.config.serial else {
            return Err((
                "hsm.token.serial",
                "it must be set where there are several".into(),
            ));
        };
        let same = |other: &IssuingToken| other.config.serial.as_ref() == Some(serial);
        if tokens[..at].iter().any(same) {
            return Err(("hsm.token.serial", format!("{serial} is there twice")));
        }
        let known = |of: &String| {
            let mut all = tokens.iter();
            of != serial && all.any(|other| other.config.serial.as_ref() == Some(of))
        };
        if token.replica_of.as_ref().is_some_and(|of| !known(of)) {
            let why = "it is the serial number of another [[hsm.token]]";
            return Err(("hsm.token.replica_of", why.into()));
        }
    }
    Ok(())
}

impl TokenSection {
    fn is_empty(&self) -> bool {
        self.module.is_none()
            && self.label.is_none()
            && self.serial.is_none()
            && self.pin_file.is_none()
    }

    pub(super) fn check(
        self,
        dir: &Path,
        names: &TokenNames,
        call_timeout: Duration,
    ) -> Result<IssuingToken, Wrong> {
        let missing = |name| (name, "it must be set".to_owned());
        let pin_file = dir.join(self.pin_file.ok_or_else(|| missing(names.pin_file))?);
        let (module, label) = (
            self.module.ok_or_else(|| missing(names.module))?,
            self.label.ok_or_else(|| missing(names.label))?,
        );
        let config = TokenConfig {
            init_args: self.init_args,
            profile: profile(self.profile.as_deref()).map_err(|why| (names.profile, why))?,
            serial: self.serial,
            sessions: self.sessions,
            session_key_copy: self.session_key_copy,
            call_timeout,
            refused_pins: Some(dir.join(REFUSED_PINS)),
            ..TokenConfig::new(module, label)
        };
        Ok(IssuingToken {
            config,
            pin_file,
            replica_of: self.replica_of,
        })
    }

    /// `[root]`, which is one token and no issuing one.
    pub(super) fn check_root(self, dir: &Path) -> Result<(TokenConfig, PathBuf), Wrong> {
        if self.replica_of.is_some() {
            return Err(("root.replica_of", "the root's token has none".into()));
        }
        let names = TokenNames {
            module: "root.module",
            label: "root.label",
            pin_file: "root.pin_file",
            profile: "root.profile",
        };
        let root = self.check(dir, &names, CALL_TIMEOUT)?;
        Ok((root.config, root.pin_file))
    }
}

/// The profile of that name; none for `auto`, by which the module says itself what it is.
fn profile(name: Option<&str>) -> Result<Option<&'static Profile>, String> {
    match name {
        None | Some("auto") => Ok(None),
        Some(name) => Profile::named(name).map(Some).ok_or_else(|| {
            let names: Vec<_> = Profile::names().collect();
            format!("{name:?} is not \"auto\" or one of {}", names.join(", "))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<HsmConfig, Wrong> {
        let section: HsmSection = toml::from_str(text).expect("well formed");
        section.check(Path::new("/d"))
    }

    const ONE: &str = "module = '/m.so'\nlabel = 'one'\npin_file = 'one.pin'\nserial = '1'\n";

    #[test]
    fn one_token_or_a_list() {
        let one = check(ONE).expect("a token");
        assert_eq!(one.tokens.len(), 1);
        assert_eq!(one.tokens[0].pin_file, Path::new("/d/one.pin"));
        assert_eq!(one.tokens[0].config.profile, None);
        let told = check(&format!("{ONE}profile = 'nss'\ninit_args = 'a=b'")).expect("a token");
        let told = &told.tokens[0].config;
        assert_eq!(told.profile.map(|profile| profile.name), Some("nss"));
        assert_eq!(told.init_args.as_deref(), Some("a=b"));
        let two = check(&format!(
            "call_timeout_ms = 500\n[[token]]\n{ONE}\n[[token]]\nmodule = '/n.so'\nlabel = 'two'\n\
             pin_file = 'two.pin'\nserial = '2'\nreplica_of = '1'"
        ));
        let two = two.expect("two tokens").tokens;
        assert_eq!(two[1].config.call_timeout, Duration::from_millis(500));
        assert_eq!(
            [two[0].epochs_of(), two[1].epochs_of()],
            [Some("1"), Some("1")]
        );
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let wrong = |text: &str| check(text).expect_err("an error").0;
        assert_eq!(wrong("label = 'one'"), "hsm.pin_file");
        assert_eq!(wrong(&format!("{ONE}[[token]]\n{ONE}")), "hsm.token");
        assert_eq!(wrong(&format!("{ONE}profile = 'acme'")), "hsm.profile");
        let twice = format!("[[token]]\n{ONE}[[token]]\n{ONE}");
        assert_eq!(wrong(&twice), "hsm.token.serial");
        let unknown = twice.replacen("serial = '1'", "serial = '3'\nreplica_of = '9'", 1);
        assert_eq!(wrong(&unknown), "hsm.token.replica_of");
        let without = twice.replacen("serial = '1'\n", "", 1);
        assert_eq!(wrong(&without), "hsm.token.serial");
        assert_eq!(
            wrong(&format!("call_timeout_ms = 1\n{ONE}")),
            "hsm.call_timeout_ms"
        );
    }
}
