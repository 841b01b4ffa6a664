//! Building a whole tree, level by level.

use super::section::Run;
use super::{Hash, node};
use alloc::vec;
use alloc::vec::Vec;
use sha2::{Digest, Sha256};

/// Appends the level above `level` to `out`: neighbours hashed in pairs, an
/// odd last node carried up unchanged, `⌈n / 2⌉` hashes in all.
///
/// A level may be cut at even places and its pieces paired apart, in order.
pub fn parents(level: &[Hash], out: &mut Vec<Hash>) {
    let (pairs, odd) = level.as_chunks::<2>();
    out.reserve(level.len().div_ceil(2));
    out.extend(pairs.iter().map(|[left, right]| node(left, right)));
    out.extend_from_slice(odd);
}

/// A tree with all its levels, leaves first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// Never empty; each level has half the nodes of the one before it,
    /// rounded up, and the last has one, or none where there are no leaves.
    levels: Vec<Vec<Hash>>,
    root: Hash,
}

impl Tree {
    /// The tree over these leaves, hashed one pair after the other.
    ///
    /// Without leaves the root is the SHA-256 of nothing (RFC 9162 §2.1.1).
    #[must_use]
    pub fn new(leaves: Vec<Hash>) -> Self {
        Self::with(leaves, sequential)
    }

    /// The tree over these leaves, each level paired by the caller: given a
    /// level it returns what [`parents`] would append.
    ///
    /// A level of any other length than `⌈n / 2⌉` is not taken but made anew
    /// here: what is built is always a tree over these leaves.
    #[must_use]
    pub fn with(leaves: Vec<Hash>, mut parents: impl FnMut(&[Hash]) -> Vec<Hash>) -> Self {
        let mut root = Sha256::digest([]).into();
        let mut levels = vec![];
        let mut level = leaves;
        while level.len() > 1 {
            let mut next = parents(&level);
            if next.len() != level.len().div_ceil(2) {
                next = sequential(&level);
            }
            levels.push(core::mem::replace(&mut level, next));
        }
        if let Some(top) = level.first() {
            root = *top;
        }
        levels.push(level);
        Self { levels, root }
    }

    /// The number of leaves.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.levels.first().map_or(0, |leaves| leaves.len() as u64)
    }

    /// The root: what is signed.
    #[must_use]
    pub const fn root(&self) -> &Hash {
        &self.root
    }

    /// What the leaves from `first` on need from the rest of the tree, to be
    /// kept with them for [`Section::new`](super::Section::new): level by
    /// level from the leaves, the left neighbour before the right one. At most
    /// two hashes for each level; none when the range is empty or not inside
    /// the tree.
    #[must_use]
    pub fn outside(&self, first: u64, count: u64) -> Vec<Hash> {
        let mut out = vec![];
        let Some(mut run) = Run::new(self.size(), first, count) else {
            return out;
        };
        for level in &self.levels {
            out.extend(run.left().and_then(|at| hash_at(level, at)));
            out.extend(run.right().and_then(|at| hash_at(level, at)));
            run = run.above();
        }
        out
    }
}

fn sequential(level: &[Hash]) -> Vec<Hash> {
    let mut out = vec![];
    parents(level, &mut out);
    out
}

fn hash_at(level: &[Hash], at: u64) -> Option<&Hash> {
    level.get(usize::try_from(at).ok()?)
}
