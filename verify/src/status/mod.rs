//! The status list: which keys are revoked or suspended.
//!
//! A Token Status List (draft-ietf-oauth-status-list) in its CWT form, signed
//! by an issuer key: `18([<<{1: alg, 4: kid, 16:
//! "application/statuslist+cwt"}>>, {}, <<{2: uri, 4: exp, 6: iat, 65533:
//! {"lst": zlib, "bits": 2}, 65534: ttl}>>, signature])`. Deterministic
//! encoding puts `lst` before `bits`.
//!
//! A key names the list by its address and its own entry by an index, see
//! [`StatusRef`](crate::key::StatusRef). Entries are of two bits; a list
//! holds at most [`ENTRIES_MAX`], which are [`LIST_LEN_MAX`] octets before
//! compression. So a whole list fits the window of DEFLATE, and a reader
//! needs a [`Room`] of that size and no more. What would inflate to more is
//! refused.
//!
//! Server and car both see lists compressed: the encoder takes a zlib stream
//! (RFC 1950), and the reader inflates when it is asked for an entry.

mod bits;
mod decode;
#[cfg(feature = "alloc")]
mod encode;
mod room;

pub use bits::{Bits, Status, set};
pub use decode::{StatusList, verify};
#[cfg(feature = "alloc")]
pub use encode::{Draft, to_be_signed};
pub use room::Room;

/// The most entries of one list.
pub const ENTRIES_MAX: usize = 1 << 17;

/// The octets of a list of [`ENTRIES_MAX`] entries before compression.
pub const LIST_LEN_MAX: usize = ENTRIES_MAX / 4;

/// The largest compressed list, in octets: what cannot be compressed grows a
/// little.
pub const COMPRESSED_LEN_MAX: usize = LIST_LEN_MAX + 1024;

/// The largest status list token, in octets.
pub const STATUS_LEN_MAX: usize = COMPRESSED_LEN_MAX + 1024;

/// The `typ` of a status list's header (RFC 9596).
pub const TYP: &str = "application/statuslist+cwt";

/// Claim labels (RFC 8392 §3, Token Status List).
pub(crate) mod label {
    pub(crate) const SUB: i64 = 2;
    pub(crate) const EXP: i64 = 4;
    pub(crate) const IAT: i64 = 6;
    pub(crate) const STATUS_LIST: i64 = 65_533;
    pub(crate) const TTL: i64 = 65_534;

    pub(crate) const LST: &str = "lst";
    pub(crate) const BITS: &str = "bits";
}
