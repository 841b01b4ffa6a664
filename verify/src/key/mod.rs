//! A virtual key: one function of one vehicle for one holder.
//!
//! Signed by itself it is `18([protected, {}, claims, signature])`, see
//! [`crate::sign1`]; signed in a tree, with a whole batch, it is
//! `[protected, claims, receipt]`, see [`crate::receipt`]. The first octet
//! tells them apart. `protected` and `claims` are the same in both: the claims
//! are a CWT claims map (RFC 8392) in the one order and shape that [`Claims`]
//! has. What depends on the signature stands in [`SignedKey`] alone.

mod claims;
mod decode;
#[cfg(feature = "alloc")]
mod encode;
mod leaf;

pub(crate) use claims::is_vehicle_id;
pub use claims::{Claims, StatusRef};
pub use decode::SignedKey;
#[cfg(feature = "alloc")]
pub use encode::{encode, encode_claims, protected_header, to_be_signed};
pub use leaf::leaf;

/// The largest key of either form, in octets: 2048 for header, claims and a
/// signature, and 1024 for a receipt, of which the longest, in a tree of 2^24
/// leaves, takes [`RECEIPT_LEN_MAX`](crate::receipt::RECEIPT_LEN_MAX).
pub const KEY_LEN_MAX: usize = 3072;

/// The `typ` of a key's header (RFC 9596).
pub const TYP: &str = "application/fob-key+cwt";

/// Octets of a key's protected header: every algorithm on the allow list
/// takes one.
pub const PROTECTED_LEN: usize = 38;

/// The most octets of an issuer's name.
pub const ISSUER_LEN_MAX: usize = 128;

/// The most octets of a vehicle's id.
pub const VEHICLE_LEN_MAX: usize = 32;

/// The most octets of a function's name.
pub const FUNCTION_NAME_LEN_MAX: usize = 64;

/// The most octets of a status list's address.
pub const STATUS_URI_LEN_MAX: usize = 256;

/// Claim labels (RFC 8392 §3, RFC 8747, RFC 9068, Token Status List, and two
/// private ones).
pub(crate) mod label {
    pub(crate) const ISS: i64 = 1;
    pub(crate) const AUD: i64 = 3;
    pub(crate) const EXP: i64 = 4;
    pub(crate) const NBF: i64 = 5;
    pub(crate) const IAT: i64 = 6;
    pub(crate) const CTI: i64 = 7;
    pub(crate) const CNF: i64 = 8;
    pub(crate) const SCOPE: i64 = 9;
    pub(crate) const STATUS: i64 = 65_535;
    pub(crate) const FOB: i64 = -70_001;

    /// The one member of `cnf`: a COSE_Key (RFC 8747 §3.2).
    pub(crate) const CNF_COSE_KEY: i64 = 1;

    pub(crate) const STATUS_LIST: &str = "status_list";
    pub(crate) const STATUS_IDX: &str = "idx";
    pub(crate) const STATUS_URI: &str = "uri";

    /// Labels inside the map `fob`.
    pub(crate) mod fob {
        pub(crate) const FUNCTION: i64 = 1;
        pub(crate) const BUNDLE: i64 = 2;
        pub(crate) const VERSION: i64 = 3;
        pub(crate) const VEHICLE_EPOCH: i64 = 4;
        pub(crate) const REGION: i64 = 5;
        pub(crate) const MAX_USES: i64 = 6;
        pub(crate) const FLEET: i64 = 7;
        pub(crate) const RECURRING: i64 = 8;
    }
}
