//! The ack: what a car tells the server, which sync it has applied last.
//!
//! Signed by the vehicle's own key: `18([<<{1: alg, 4: kid, 16:
//! "application/fob-ack+cwt"}>>, {}, <<{3: vehicle, 6: iat, -70004: SHA-256
//! of the sync applied last, or h''}>>, signature])`. `kid` is the start of
//! the thumbprint of the vehicle's key.

mod decode;
#[cfg(feature = "alloc")]
mod encode;

pub use decode::SignedAck;
#[cfg(feature = "alloc")]
pub use encode::to_be_signed;

use crate::DIGEST_LEN;

/// The largest ack, in octets.
pub const ACK_LEN_MAX: usize = 256;

/// The `typ` of an ack's header (RFC 9596).
pub const TYP: &str = "application/fob-ack+cwt";

/// What a car says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack<'a> {
    /// `aud`: the vehicle that speaks.
    pub vehicle: &'a str,
    /// `iat`: when it says so, by its own clock. A server takes only an ack
    /// later than the last one of this vehicle, so that an old one cannot be
    /// sent again.
    pub issued_at: u64,
    /// The [`digest`](crate::sync::digest) of the sync it applied last; `None`
    /// if it has applied none yet.
    pub applied: Option<[u8; DIGEST_LEN]>,
}

/// Labels of the claims.
pub(crate) mod label {
    pub(crate) const AUD: i64 = 3;
    pub(crate) const IAT: i64 = 6;
    pub(crate) const ACK: i64 = -70_004;
}
