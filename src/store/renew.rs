//! Bundles signed again as they are, because the epoch that signed them is no longer believed.

use super::SignedBundle;
use crate::domain::EpochId;

/// A bundle under another epoch's signature. What its keys say stays as it is, apart from who
/// signed them and when.
///
/// Conditions, all of them or [`super::Applied::Stale`]: the bundle stands at the version of
/// `signed`, the epoch `from` signed that, and the epoch that signs it now is not revoked. So the
/// same renewal twice is done once.
#[derive(Clone, Debug, PartialEq)]
pub struct Renewal {
    /// The bundle. Of it the store takes the epoch with its algorithm, when it was issued, and the
    /// proof.
    pub signed: SignedBundle,
    /// The epoch that signed it before.
    pub from: EpochId,
}

/// Bundles that stand as one epoch signed them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SignedBy {
    /// Some of them. Where there is a `next` it may be none, and there may be more all the same.
    pub bundles: Vec<SignedBundle>,
    /// Where to go on; `None` at the end.
    pub next: Option<Cursor>,
}

/// A place in the order in which a store goes through bundles; what it says is the store's alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor(pub Box<[u8]>);
