//! The part of a tree above a run of neighbouring leaves.

use super::{Hash, SIZE_MAX, parents, path_len};
use crate::Refusal;
use alloc::vec::Vec;

/// The part of a tree above a run of neighbouring leaves: all that the paths
/// of these leaves need.
///
/// It is made from the leaves, which can be hashed again from the keys, and
/// from what [`Tree::outside`](super::Tree::outside) gave when the tree was
/// whole: a bundle's receipts can be made again without its batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    leaves: Run,
    /// Level by level from the leaves: the run with its outer siblings, so
    /// that each level begins at an even place. The last hash is the root.
    nodes: Vec<Hash>,
}

impl Section {
    /// The section above the leaves `first, first + 1, …` of a tree of `size`.
    ///
    /// # Errors
    /// [`Refusal::TreeSize`] for no leaves in the tree or more than
    /// [`SIZE_MAX`]; [`Refusal::LeafIndex`] when the run is empty or not
    /// inside the tree; [`Refusal::PathLength`] when `outside` is not exactly
    /// what the run needs.
    pub fn new(
        size: u64,
        first: u64,
        leaves: Vec<Hash>,
        outside: &[Hash],
    ) -> Result<Self, Refusal> {
        if size == 0 || size > SIZE_MAX {
            return Err(Refusal::TreeSize);
        }
        let run = Run::new(size, first, leaves.len() as u64).ok_or(Refusal::LeafIndex)?;
        let mut rest = outside.iter();
        let mut nodes = Vec::with_capacity(leaves.len().saturating_mul(2).saturating_add(64));
        let mut level = leaves;
        let mut at = run;
        while at.size > 1 {
            let start = nodes.len();
            if at.left().is_some() {
                nodes.push(*rest.next().ok_or(Refusal::PathLength)?);
            }
            nodes.extend_from_slice(&level);
            if at.right().is_some() {
                nodes.push(*rest.next().ok_or(Refusal::PathLength)?);
            }
            level.clear();
            parents(nodes.get(start..).unwrap_or(&[]), &mut level);
            at = at.above();
        }
        nodes.extend_from_slice(&level);
        if rest.next().is_some() {
            return Err(Refusal::PathLength);
        }
        Ok(Self { leaves: run, nodes })
    }

    /// The root that leaves and outside lead to.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.nodes.last().copied().unwrap_or_default()
    }

    /// The siblings of a leaf of the run, counted from the run's first, from
    /// the leaf up, as in a receipt: a level where the node is carried up has
    /// none. Empty for a leaf that is not in the run.
    #[must_use]
    pub fn path(&self, index_in_run: usize) -> Path<'_> {
        let offset = index_in_run as u64;
        let mut path = Path {
            level: self.leaves,
            index: self.leaves.first.saturating_add(offset),
            nodes: &self.nodes,
            left: 0,
        };
        if offset < self.leaves.end.saturating_sub(self.leaves.first) {
            path.left = path_len(self.leaves.size, path.index);
        }
        path
    }
}

/// The siblings of one leaf, from the leaf up; made by [`Section::path`].
#[derive(Clone, Debug)]
pub struct Path<'a> {
    level: Run,
    /// The place of the leaf's ancestor on this level.
    index: u64,
    /// This level and those above it.
    nodes: &'a [Hash],
    left: usize,
}

impl<'a> Iterator for Path<'a> {
    type Item = &'a Hash;

    fn next(&mut self) -> Option<&'a Hash> {
        while self.left > 0 {
            let (start, len) = self.level.stored();
            let (level, above) = self.nodes.split_at_checked(len)?;
            let sibling = self.index ^ 1;
            let has_sibling = sibling < self.level.size;
            self.nodes = above;
            self.level = self.level.above();
            self.index >>= 1;
            if has_sibling {
                self.left = self.left.saturating_sub(1);
                return level.get(usize::try_from(sibling.checked_sub(start)?).ok()?);
            }
        }
        None
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Path<'_> {}

/// A run of neighbours on one level of a tree, never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// The nodes of the whole level.
    size: u64,
    first: u64,
    /// After the last.
    end: u64,
}

impl Run {
    /// `None` when the run is empty or not inside the level.
    pub(super) fn new(size: u64, first: u64, count: u64) -> Option<Self> {
        let end = first.checked_add(count)?;
        (count > 0 && end <= size).then_some(Self { size, first, end })
    }

    /// The left neighbour, where the run's first node is paired with it.
    pub(super) fn left(self) -> Option<u64> {
        (self.first & 1 == 1).then(|| self.first.saturating_sub(1))
    }

    /// The right neighbour, where the run's last node is paired with it.
    pub(super) fn right(self) -> Option<u64> {
        (self.end & 1 == 1 && self.end < self.size).then_some(self.end)
    }

    /// The parents of the run.
    pub(super) const fn above(self) -> Self {
        Self {
            size: self.size.div_ceil(2),
            first: self.first >> 1,
            end: self.end.div_ceil(2),
        }
    }

    /// The place of the first node that a section stores of this level, and
    /// the number of them.
    fn stored(self) -> (u64, usize) {
        let start = self.left().unwrap_or(self.first);
        let end = self.right().map_or(self.end, |at| at.saturating_add(1));
        let len = usize::try_from(end.saturating_sub(start)).unwrap_or(usize::MAX);
        (start, len)
    }
}
