//! `[hook]`: whom this server may ask before it issues, and with which key.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::{Wrong, within};
use crate::domain::rules::Range;
use crate::hook::{Allowed, HookConfig};

/// The file with the key that signs questions, where nothing else is said.
pub const HOOK_KEY_FILE: &str = "hook.jwk";

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct HookSection {
    allow: Vec<String>,
    allow_addresses: Vec<String>,
    key_file: Option<PathBuf>,
    tls_ca: Option<PathBuf>,
    plain_loopback: bool,
    deadline_ms: Option<u64>,
    calls_max: Option<usize>,
    answers_max: Option<usize>,
}

impl HookSection {
    /// The file with the key.
    pub(super) fn key_file(&self, dir: &Path) -> PathBuf {
        dir.join(self.key_file.as_deref().unwrap_or(Path::new(HOOK_KEY_FILE)))
    }

    /// `None` where nobody may be asked.
    pub(super) fn check(&self, dir: &Path) -> Result<Option<HookConfig>, Wrong> {
        let host = |text: &String| {
            let why = || {
                let why = "is no host:port, as in checks.example.com:443";
                ("hook.allow", format!("{text:?} {why}"))
            };
            Allowed::parse(text).ok_or_else(why)
        };
        let range = |text: &String| {
            let why = || {
                let why = "is no range, as in 10.0.0.0/8";
                ("hook.allow_addresses", format!("{text:?} {why}"))
            };
            Range::parse(text).ok_or_else(why)
        };
        let deadline_ms = within("hook.deadline_ms", self.deadline_ms, 1_000, 10..=10_000)?;
        let config = HookConfig {
            allow: self.allow.iter().map(host).collect::<Result<_, _>>()?,
            allow_addresses: self
                .allow_addresses
                .iter()
                .map(range)
                .collect::<Result<_, _>>()?,
            plain_loopback: self.plain_loopback,
            ca: self.tls_ca.as_ref().map(|file| dir.join(file)),
            deadline: Duration::from_millis(deadline_ms),
            calls_max: within("hook.calls_max", self.calls_max, 64, 1..=4_096)?,
            answers_max: within(
                "hook.answers_max",
                self.answers_max,
                100_000,
                2..=10_000_000,
            )?,
        };
        Ok((!config.allow.is_empty()).then_some(config))
    }
}
