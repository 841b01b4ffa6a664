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

/// The epochs that a trust list names: all that are not revoked and whose last key has not
/// expired, where keys reach `key_lifetime_max_s` beyond their issue.
pub fn listed(
    epochs: &[Epoch],
    now: UnixTime,
    key_lifetime_max_s: u64,
) -> impl Iterator<Item = Entry> {
    let mut listed: Vec<_> = epochs
        .iter()
        .filter(|epoch| epoch.state != EpochState::Revoked)
        .filter(|epoch| now < epoch.over_at(key_lifetime_max_s))
        .collect();
    listed.sort_by_key(|epoch| (epoch.window.not_before, epoch.created_at, epoch.id));
    listed.into_iter().map(|epoch| Entry {
        key: epoch.key,
        not_before: epoch.window.not_before,
        not_after: epoch.window.not_after,
    })
}

/// Signs a trust list.
///
/// # Errors
/// What the format or the root refuses.
pub fn sign_draft(
    root: (&dyn Signer, &KeyRef, &IssuerKey),
    draft: &Draft<'_>,
) -> Result<Vec<u8>, TrustError> {
    let (signer, key, public) = root;
    let message = to_be_signed(draft, public).map_err(TrustError::Format)?;
    let signatures = signer.sign_all(key, &[message.message()])?;
    Ok(message.assemble(&signatures[0]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::rotation::tests::on;

    #[test]
    fn an_epoch_is_listed_until_its_last_key_has_expired_unless_it_is_revoked() {
        let lifetime_s = 50;
        for (state, at, is_listed) in [
            (EpochState::Prepared, 0, true),
            (EpochState::Active, 99, true),
            (EpochState::Retired, 149, true),
            (EpochState::Retired, 150, false),
            (EpochState::Active, 150, false),
            (EpochState::Revoked, 20, false),
        ] {
            let epochs = [on("t", 1, (10, 100), state)];
            let entries: Vec<_> = listed(&epochs, at, lifetime_s).collect();
            assert_eq!(entries.len(), usize::from(is_listed), "{state:?} at {at}");
            for entry in entries {
                assert_eq!((entry.not_before, entry.not_after), (10, 100));
            }
        }
    }
}
