//! Epochs: the term of one issuing key pair in one token. How they follow each other is in
//! [`super::rotation`].

use fob_verify::IssuerKey;

use super::id::EpochId;
use super::time::{UnixTime, Window};

/// Where an epoch stands: `prepared → active → retired`, or `revoked` from any of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EpochState {
    /// In the trust list, not yet signing.
    Prepared,
    /// Signs new keys.
    Active,
    /// Signs no more; what it signed still verifies.
    Retired,
    /// Compromised: no trust list names it any more.
    Revoked,
}

impl EpochState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Prepared, Self::Active, Self::Retired, Self::Revoked];

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Prepared => "prepared",
            Self::Active => "active",
            Self::Retired => "retired",
            Self::Revoked => "revoked",
        }
    }

    /// The state of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// One issuing key pair and its term.
#[derive(Clone, Debug, PartialEq)]
pub struct Epoch {
    /// Its id, the key's `kid`.
    pub id: EpochId,
    /// The public key, with its algorithm.
    pub key: IssuerKey,
    /// `CKA_ID` of the key pair in its token.
    pub cka_id: [u8; 16],
    /// Serial number of that token.
    pub token_serial: String,
    /// In which it may sign, as the trust list says.
    pub window: Window,
    /// Where it stands.
    pub state: EpochState,
    /// When the epoch was prepared.
    pub created_at: UnixTime,
    /// When it became active, once it has.
    pub activated_at: Option<UnixTime>,
}

impl Epoch {
    /// When the last key it may have signed has expired, where keys reach `key_lifetime_max_s`
    /// beyond their issue: until then trust lists name it.
    pub const fn over_at(&self, key_lifetime_max_s: u64) -> UnixTime {
        self.window.not_after.saturating_add(key_lifetime_max_s)
    }
}
