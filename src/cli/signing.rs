//! How keys are signed, as commands take it.

use clap::ValueEnum;

use crate::domain::Signing;

/// `each`, `tree` or `auto`.
#[derive(Clone, Copy, ValueEnum)]
pub(super) enum SigningArg {
    /// One signature for each key
    Each,
    /// One signature for a tree over many keys, and a receipt for each
    Tree,
    /// A signature for each key while the HSM keeps up, trees when it does not
    Auto,
}

impl SigningArg {
    /// The rules' word for it.
    pub(super) const fn signing(self) -> Signing {
        match self {
            Self::Each => Signing::Each,
            Self::Tree => Signing::Tree,
            Self::Auto => Signing::Auto,
        }
    }
}
