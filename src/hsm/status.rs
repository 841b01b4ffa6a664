//! What a token tells about itself, floor 2, for `fob hsm status`.

use std::path::PathBuf;

use cryptoki::mechanism::MechanismType;
use cryptoki::slot::Limit;
use fob_verify::Algorithm;
use serde::Serialize;

use super::session::Link;
use super::token::plain;
use super::{TokenKey, keys};

/// How a token is, at the moment it was asked. Holds nothing secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TokenStatus {
    /// The token answers and the login holds.
    pub up: bool,
    /// Why it is not up, in words.
    pub problem: Option<String>,
    /// The PKCS#11 library.
    pub module: PathBuf,
    /// The library's maker, description and version, as it gives them.
    pub library: String,
    /// What is particular about the token, by the name of its profile.
    pub profile: String,
    /// The version of PKCS#11 it speaks.
    pub cryptoki_version: String,
    /// The token's label.
    pub label: String,
    /// The token's serial number.
    pub serial: String,
    /// The token's maker.
    pub manufacturer: String,
    /// The token's model.
    pub model: String,
    /// The version of its hardware.
    pub hardware: String,
    /// The version of its firmware.
    pub firmware: String,
    /// Sessions that sign in parallel.
    pub sessions: usize,
    /// Those of them that sign at this moment.
    pub sessions_signing: usize,
    /// Sessions this process has open, as the token counts; absent where it does not say.
    pub sessions_open: Option<u64>,
    /// Sessions a process may open; absent where the token sets or names no limit.
    pub sessions_allowed: Option<u64>,
    /// Whether each of them signs with a copy of the key of its own.
    pub session_key_copies: bool,
    /// Whether signatures take the bare calls or the binding's.
    pub bare_calls: bool,
    /// Whether the token generates P-256 keys and signs with them.
    pub p256: bool,
    /// Whether the token generates Ed25519 keys and signs with them.
    pub ed25519: bool,
    /// Every mechanism it offers, by its name in PKCS#11 where that is known.
    pub mechanisms: Vec<String>,
    /// Every private key in it, foreign ones included.
    pub keys: Vec<TokenKey>,
    /// Threads inside a call that is overdue.
    pub parked_threads: usize,
    /// Signatures given out since this process opened the token.
    pub signatures: u64,
    /// Times sessions and login were renewed since then.
    pub reconnects: u64,
}

impl TokenStatus {
    /// What link and token say. Counters are the caller's.
    pub(super) fn of(link: &Link, offered: &[MechanismType]) -> Self {
        let now = link.instance.pkcs11.get_token_info(link.slot);
        let info = now.as_ref().unwrap_or(&link.info);
        let library = link.module.info.as_ref();
        let offers = |algorithm| {
            keys::mechanisms(algorithm)
                .iter()
                .all(|(mechanism, _)| offered.contains(mechanism))
        };
        Self {
            up: true,
            profile: link.profile.name.to_owned(),
            library: library.map_or_else(String::new, |info| {
                let said = [info.manufacturer_id(), info.library_description()];
                format!("{} {}", said.map(plain).join(" "), info.library_version())
            }),
            cryptoki_version: library
                .map_or_else(String::new, |info| info.cryptoki_version().to_string()),
            serial: plain(info.serial_number()),
            manufacturer: plain(info.manufacturer_id()),
            model: plain(info.model()),
            hardware: info.hardware_version().to_string(),
            firmware: info.firmware_version().to_string(),
            sessions: link.lanes,
            sessions_signing: link.lanes.saturating_sub(link.idle_lanes()),
            sessions_open: info.session_count(),
            sessions_allowed: allowed(info.max_session_count()),
            session_key_copies: link.copies.on(),
            bare_calls: link.bare.is_some(),
            p256: offers(Algorithm::Es256),
            ed25519: offers(Algorithm::Ed25519),
            mechanisms: offered.iter().map(ToString::to_string).collect(),
            ..Self::default()
        }
    }
}

fn allowed(limit: Limit) -> Option<u64> {
    match limit {
        Limit::Max(count) => Some(count),
        Limit::Infinite | Limit::Unavailable => None,
    }
}
