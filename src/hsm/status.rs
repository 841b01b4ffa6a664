//! What a token tells about itself, floor 2, for `/readyz` and `fob hsm status`.

use std::path::PathBuf;

use serde::Serialize;

/// How a token is, at the moment it was asked. Holds nothing secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TokenStatus {
    /// The token answers and the login holds.
    pub up: bool,
    /// Why it is not up, in words.
    pub problem: Option<String>,
    /// The PKCS#11 library.
    pub module: PathBuf,
    /// The library's maker, description and version, as it gives them.
    pub library: String,
    /// The token's label.
    pub label: String,
    /// The token's serial number.
    pub serial: String,
    /// The token's maker.
    pub manufacturer: String,
    /// The token's model.
    pub model: String,
    /// Sessions that sign in parallel.
    pub sessions: usize,
    /// Whether each of them signs with a copy of the key of its own.
    pub session_key_copies: bool,
    /// Whether signatures take the bare calls or the binding's.
    pub bare_calls: bool,
    /// Whether the token generates P-256 keys and signs with them.
    pub p256: bool,
    /// Whether the token generates Ed25519 keys and signs with them.
    pub ed25519: bool,
    /// Signatures given out since this process opened the token.
    pub signatures: u64,
    /// Times sessions and login were renewed since then.
    pub reconnects: u64,
}
