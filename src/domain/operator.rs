//! Operators: people who run the issuer, with the public keys they sign proposals and approvals
//! with.

use serde::{Deserialize, Serialize};

use super::refusal::Refusal;

/// The most characters of an operator's name.
pub const OPERATOR_LEN_MAX: usize = 64;

/// A registered operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operator {
    /// The name, unique.
    pub name: String,
    /// The public key, a JWK (RFC 7517) of `kty`, `crv`, `x` and, on P-256, `y`.
    pub jwk: serde_json::Value,
}

/// Checks a name as records carry it.
///
/// # Errors
/// `malformed` for anything but 1 to 64 printable characters without blanks.
pub fn check_name(name: &str) -> Result<(), Refusal> {
    let printable = |c: char| !c.is_whitespace() && !c.is_control();
    if (1..=OPERATOR_LEN_MAX).contains(&name.len()) && name.chars().all(printable) {
        return Ok(());
    }
    let why = "an operator's name is 1 to 64 characters without blanks";
    Err(Refusal::malformed("operator", why))
}
