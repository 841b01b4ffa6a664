//! The receipt of a key signed in a tree: a COSE Receipt (RFC 9942) that
//! carries a signed root and the way of one leaf to it.
//!
//! `18([<<{1: alg, 4: kid, 16: "application/fob-receipt+cose", 395: 1}>>,
//! {396: {-1: [<<[tree_size, leaf_index, [+ bstr32]]>>]}}, null, signature])`,
//! signed over `["Signature1", protected, h'', root]`. The payload is
//! detached: a verifier computes the root from the leaf and the path and never
//! reads one.
//!
//! `tree_size` and `leaf_index` stand outside of what is signed. They say at
//! which side of the path's hashes the leaf's branch stands, and nothing else;
//! another pair that says the same is another encoding of the same receipt.

use crate::tree::{HASH_LEN, PATH_LEN_MAX};

mod decode;
#[cfg(feature = "alloc")]
mod encode;

pub use decode::Receipt;
#[cfg(feature = "alloc")]
pub use encode::{assemble, protected_header, to_be_signed};

/// The `typ` of a receipt's header (RFC 9596).
pub const TYP: &str = "application/fob-receipt+cose";

/// Octets of a receipt's protected header: every algorithm on the allow list
/// takes one.
pub const PROTECTED_LEN: usize = 48;

/// The largest receipt, in octets: 132, two integers of up to 5, and the
/// longest path, of [`PATH_LEN_MAX`] hashes with a head of 2 octets each.
pub const RECEIPT_LEN_MAX: usize = 132 + 2 * 5 + PATH_LEN_MAX * (2 + HASH_LEN);

/// Header parameters (RFC 9942 §4).
mod label {
    /// Protected: which kind of tree this is.
    pub(super) const VDS: i64 = 395;
    /// Unprotected: the proofs.
    pub(super) const VDP: i64 = 396;
    /// In the proofs: those of inclusion.
    pub(super) const INCLUSION: i64 = -1;
}

/// The kind of tree: `RFC9162_SHA256`.
const RFC9162_SHA256: u64 = 1;
