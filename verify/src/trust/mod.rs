//! The trust list: which issuer keys a car believes, and for which times.
//!
//! Signed by the root key: `18([<<{1: alg, 4: root kid, 16:
//! "application/fob-trust+cwt"}>>, {}, <<{1: iss, 4: exp, 6: iat, -70002: {1:
//! version, 2: [{1: COSE_Key, 2: not_before, 3: not_after}, …], 3: next root?
//! }}>>, signature])`.
//!
//! A key is believed when its issuer key is listed and its `iat` lies in the
//! window of that entry. What is not on the list is not believed, so an issuer
//! key is revoked by a list without it. A car takes only a list of a higher
//! version than the one it holds, see [`TrustList::check_newer_than`].

mod decode;
#[cfg(feature = "alloc")]
mod encode;

pub use decode::{TrustList, verify};
#[cfg(feature = "alloc")]
pub use encode::{Draft, to_be_signed};

use crate::IssuerKey;

/// The largest trust list, in octets.
pub const TRUST_LEN_MAX: usize = 8192;

/// The most issuer keys on one list.
pub const ENTRIES_MAX: usize = 64;

/// The `typ` of a trust list's header (RFC 9596).
pub const TYP: &str = "application/fob-trust+cwt";

/// An issuer key and the times for which it is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The issuer key.
    pub key: IssuerKey,
    /// The first second at which a key it signed may be issued.
    pub not_before: u64,
    /// The first second at which none may be any more; after `not_before`.
    pub not_after: u64,
}

impl Entry {
    /// Whether a key issued at this time is believed:
    /// `not_before ≤ issued_at < not_after`.
    #[must_use]
    pub const fn covers(&self, issued_at: u64) -> bool {
        self.not_before <= issued_at && issued_at < self.not_after
    }
}

/// Labels of the claims, the private map and its entries.
pub(crate) mod label {
    pub(crate) const ISS: i64 = 1;
    pub(crate) const EXP: i64 = 4;
    pub(crate) const IAT: i64 = 6;
    pub(crate) const TRUST: i64 = -70_002;
    pub(crate) const VERSION: i64 = 1;
    pub(crate) const ENTRIES: i64 = 2;
    pub(crate) const NEXT_ROOT: i64 = 3;
    pub(crate) const ENTRY_KEY: i64 = 1;
    pub(crate) const ENTRY_NOT_BEFORE: i64 = 2;
    pub(crate) const ENTRY_NOT_AFTER: i64 = 3;
}
