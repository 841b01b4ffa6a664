//! Trust lists: what the root signs, so that cars know whom to believe.

use fob_verify::trust::{Draft, Entry, to_be_signed};
use fob_verify::{IssuerKey, Refusal};

use crate::domain::{Epoch, EpochState, UnixTime};
use crate::hsm::{HsmError, KeyRef, Signer};

/// Why there is no trust list.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The format cannot hold it.
    #[error("the trust list cannot be written: {0}")]
    Format(Refusal),
    /// The root does not sign.
    #[error("the root does not sign: {0}")]
    Hsm(#[from] HsmError),
}

/// Signs a trust list of every epoch that is not revoked.
///
/// It ends when the last key that any of its epochs may sign has expired: `key_lifetime_max_s`
/// after the last of their windows.
///
/// # Errors
/// What the format or the root refuses.
pub fn sign(
    root: (&dyn Signer, &KeyRef, &IssuerKey),
    issuer: &str,
    version: u32,
    epochs: &[Epoch],
    now: UnixTime,
    key_lifetime_max_s: u64,
) -> Result<Vec<u8>, TrustError> {
    let (signer, key, public) = root;
    let trusted = epochs
        .iter()
        .filter(|epoch| epoch.state != EpochState::Revoked);
    let entries: Vec<_> = trusted
        .map(|epoch| Entry {
            key: epoch.key,
            not_before: epoch.window.not_before,
            not_after: epoch.window.not_after,
        })
        .collect();
    let last = entries
        .iter()
        .map(|entry| entry.not_after)
        .max()
        .unwrap_or(now);
    let draft = Draft {
        issuer,
        expires: last.saturating_add(key_lifetime_max_s),
        issued_at: now,
        version,
        entries: &entries,
        next_root: None,
    };
    let message = to_be_signed(&draft, public).map_err(TrustError::Format)?;
    let signatures = signer.sign_all(key, &[message.message()])?;
    Ok(message.assemble(&signatures[0]))
}
