//! The hash tree that lets a batch of keys share one signature.
//!
//! SHA-256 Merkle trees of RFC 9162 §2.1, of any number of leaves. The root of
//! more than one leaf is `node(left, right)` of the two halves, split after
//! the largest power of two below their number. Built from the leaves up this
//! is: pair neighbours, and carry an odd last node up unchanged.
//!
//! This file is what a car needs, the way from a leaf to the root; [`Tree`]
//! and [`Section`] are for whoever signs, and keep every leaf hash they were
//! given. What a leaf is stands in [`crate::key::leaf`], how a path is written
//! in [`crate::receipt`].

use crate::Refusal;
use sha2::{Digest, Sha256};

#[cfg(feature = "alloc")]
mod build;
#[cfg(feature = "alloc")]
mod section;
#[cfg(feature = "alloc")]
pub use build::{Tree, parents};
#[cfg(feature = "alloc")]
pub use section::{Path, Section};

/// Octets of a hash: SHA-256.
pub const HASH_LEN: usize = 32;

/// A leaf, a node or a root.
pub type Hash = [u8; HASH_LEN];

/// The most leaves of a tree that a verifier accepts: 2^24.
pub const SIZE_MAX: u64 = 1 << PATH_LEN_MAX;

/// The most hashes on the way from a leaf to the root.
pub const PATH_LEN_MAX: usize = 24;

/// What a node's hash begins with (RFC 9162 §2.1.1); a leaf's is 0.
const NODE: u8 = 1;

/// The hash of a node: SHA-256(0x01 ‖ left ‖ right), RFC 9162 §2.1.1.
#[must_use]
pub fn node(left: &Hash, right: &Hash) -> Hash {
    let mut hash = Sha256::new();
    hash.update([NODE]);
    hash.update(left);
    hash.update(right);
    hash.finalize().into()
}

/// Whether a tree of this size has a leaf of this index, and is one that a
/// receipt can be for: of 2 to [`SIZE_MAX`] leaves.
///
/// # Errors
/// [`Refusal::TreeSize`] or [`Refusal::LeafIndex`].
pub const fn check_leaf(size: u64, index: u64) -> Result<(), Refusal> {
    if size < 2 || size > SIZE_MAX {
        Err(Refusal::TreeSize)
    } else if index >= size {
        Err(Refusal::LeafIndex)
    } else {
        Ok(())
    }
}

/// The number of hashes on the way from a leaf to the root: one for each
/// level but those where the node has no sibling and is carried up.
#[must_use]
pub fn path_len(size: u64, index: u64) -> usize {
    sides(size, index).count()
}

/// The root that a leaf and its path lead to; `None` when the path is not
/// exactly as long as size and index demand.
///
/// It takes one step for each halving of `size`, whatever the path's length.
pub(crate) fn root_of<'a>(
    leaf: Hash,
    size: u64,
    index: u64,
    path: impl IntoIterator<Item = &'a Hash>,
) -> Option<Hash> {
    let mut path = path.into_iter();
    let mut hash = leaf;
    for side in sides(size, index) {
        let sibling = path.next()?;
        hash = match side {
            Side::Left => node(sibling, &hash),
            Side::Right => node(&hash, sibling),
        };
    }
    path.next().is_none().then_some(hash)
}

/// Where a sibling stands.
enum Side {
    Left,
    Right,
}

/// The sides of the siblings on the way from a leaf to the root.
fn sides(mut size: u64, mut index: u64) -> impl Iterator<Item = Side> {
    core::iter::from_fn(move || {
        while size > 1 {
            let side = if index & 1 == 1 {
                Some(Side::Left)
            } else if index < size.saturating_sub(1) {
                Some(Side::Right)
            } else {
                None
            };
            index >>= 1;
            size = size.div_ceil(2);
            if side.is_some() {
                return side;
            }
        }
        None
    })
}
