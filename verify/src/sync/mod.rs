//! The sync: what a server tells a car of its standing.
//!
//! Signed by an issuer key: `18([<<{1: alg, 4: kid, 16:
//! "application/fob-sync+cwt"}>>, {}, <<{3: vehicle, 4: exp, 6: iat, -70003:
//! {1: fleet id, 2: vehicle epoch, 3: trust version, 4: [status uris]}}>>,
//! signature])`.
//!
//! A car takes a sync only with everything it names: a trust list of that
//! version or a later one, and a status list of each address that was fresh
//! when the sync was made. Then its [`ack`](crate::ack) says truthfully that
//! the car knows all of it.

mod decode;
#[cfg(feature = "alloc")]
mod encode;

pub use decode::{Sync, Uris, verify};
#[cfg(feature = "alloc")]
pub use encode::{Draft, to_be_signed};

use crate::DIGEST_LEN;
use sha2::{Digest, Sha256};

/// The most status lists one sync names.
pub const STATUS_URIS_MAX: usize = 64;

/// The largest sync, in octets.
pub const SYNC_LEN_MAX: usize = 17_408;

/// The `typ` of a sync's header (RFC 9596).
pub const TYP: &str = "application/fob-sync+cwt";

/// The name by which an [`ack`](crate::ack) refers to a sync: the SHA-256 of
/// its octets, signature included.
#[must_use]
pub fn digest(bytes: &[u8]) -> [u8; DIGEST_LEN] {
    Sha256::digest(bytes).into()
}

/// Labels of the claims and the private map.
pub(crate) mod label {
    pub(crate) const AUD: i64 = 3;
    pub(crate) const EXP: i64 = 4;
    pub(crate) const IAT: i64 = 6;
    pub(crate) const SYNC: i64 = -70_003;
    pub(crate) const FLEET: i64 = 1;
    pub(crate) const VEHICLE_EPOCH: i64 = 2;
    pub(crate) const TRUST_VERSION: i64 = 3;
    pub(crate) const STATUS_URIS: i64 = 4;
}
