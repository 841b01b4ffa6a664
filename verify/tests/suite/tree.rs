//! Trees, sections and paths against the definitions of RFC 9162, written down
//! as they stand there: recursive, and split at the largest power of two.

use fob_verify::Refusal;
use fob_verify::tree::{Hash, SIZE_MAX, Section, Tree, node, parents, path_len};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

/// `MTH(D[n])` of RFC 9162 §2.1.1, over leaf hashes.
pub(crate) fn mth(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => Sha256::digest([]).into(),
        [one] => *one,
        more => {
            let (left, right) = more.split_at(split(more.len()));
            let prefixed = [&[1][..], &mth(left), &mth(right)].concat();
            Sha256::digest(prefixed).into()
        }
    }
}

/// `PATH(m, D[n])` of RFC 9162 §2.1.3.1.
pub(crate) fn path(at: usize, leaves: &[Hash]) -> Vec<Hash> {
    if leaves.len() <= 1 {
        return vec![];
    }
    let k = split(leaves.len());
    let (left, right) = leaves.split_at(k);
    let (mut path, sibling) = if at < k {
        (path(at, left), mth(right))
    } else {
        (path(at - k, right), mth(left))
    };
    path.push(sibling);
    path
}

/// The sides of the siblings from the leaf up, `L` or `R`, from the same
/// recursion: what a path says beside its hashes.
pub(crate) fn shape(at: u64, size: u64) -> String {
    if size <= 1 {
        return String::new();
    }
    let k = size.next_power_of_two() / 2;
    if at < k {
        shape(at, k) + "R"
    } else {
        shape(at - k, size - k) + "L"
    }
}

/// The largest power of two below `n`.
fn split(n: usize) -> usize {
    n.next_power_of_two() / 2
}

pub(crate) fn leaves(count: usize) -> Vec<Hash> {
    (0..count)
        .map(|at| Sha256::digest(at.to_be_bytes()).into())
        .collect()
}

fn outside(tree: &Tree, first: usize, count: usize) -> Vec<Hash> {
    tree.outside(first as u64, count as u64)
}

#[test]
fn roots_are_those_of_the_definition() {
    for size in 0..=70 {
        let leaves = leaves(size);
        let tree = Tree::new(leaves.clone());
        assert_eq!(*tree.root(), mth(&leaves), "{size}");
        assert_eq!(tree.size(), size as u64);
    }
}

#[test]
fn every_run_of_every_tree_has_the_paths_of_the_definition() {
    for size in 1..=70 {
        let leaves = leaves(size);
        let tree = Tree::new(leaves.clone());
        let paths: Vec<Vec<Hash>> = (0..size).map(|at| path(at, &leaves)).collect();
        for first in 0..size {
            for count in 1..=size - first {
                let run = leaves[first..first + count].to_vec();
                let outside = outside(&tree, first, count);
                let section = Section::new(size as u64, first as u64, run, &outside).unwrap();
                assert_eq!(section.root(), *tree.root());
                for offset in 0..count {
                    let mut ours = section.path(offset);
                    assert_eq!(ours.len(), paths[first + offset].len());
                    assert!(ours.by_ref().eq(&paths[first + offset]));
                    assert_eq!((ours.len(), ours.next()), (0, None));
                }
                assert_eq!(section.path(count).len(), 0);
                assert_eq!(section.path(usize::MAX).next(), None);
            }
        }
    }
}

#[test]
fn a_run_needs_exactly_what_is_outside_of_it() {
    for size in 1..=20 {
        let leaves = leaves(size);
        let tree = Tree::new(leaves.clone());
        for first in 0..size {
            for count in 1..=size - first {
                let new = |outside: &[Hash]| {
                    let run = leaves[first..first + count].to_vec();
                    Section::new(size as u64, first as u64, run, outside).err()
                };
                let mut needed = outside(&tree, first, count);
                assert_eq!(new(&needed), None);
                needed.push([0; 32]);
                assert_eq!(new(&needed), Some(Refusal::PathLength));
                needed.pop();
                if needed.pop().is_some() {
                    assert_eq!(new(&needed), Some(Refusal::PathLength));
                }
            }
        }
    }
}

#[test]
fn runs_that_are_not_in_the_tree_are_refused() {
    let tree = Tree::new(leaves(5));
    for (first, count) in [(0, 0), (0, 6), (5, 1), (4, 2), (u64::MAX, 1), (1, u64::MAX)] {
        assert_eq!(tree.outside(first, count), Vec::<Hash>::new());
    }
    for (size, first, count, refusal) in [
        (5, 0, 0, Refusal::LeafIndex),
        (5, 0, 6, Refusal::LeafIndex),
        (5, 5, 1, Refusal::LeafIndex),
        (5, u64::MAX, 1, Refusal::LeafIndex),
        (0, 0, 1, Refusal::TreeSize),
        (SIZE_MAX + 1, 0, 1, Refusal::TreeSize),
    ] {
        assert_eq!(
            Section::new(size, first, leaves(count), &[]).err(),
            Some(refusal)
        );
    }
}

#[test]
fn the_callers_pairing_is_taken_where_it_is_one() {
    let all = leaves(37);
    let cut = |level: &[Hash]| {
        let mut out = vec![];
        for piece in level.chunks(6) {
            parents(piece, &mut out);
        }
        out
    };
    assert_eq!(Tree::with(all.clone(), cut), Tree::new(all.clone()));
    for wrong in [vec![], leaves(37), leaves(36)] {
        let tree = Tree::with(all.clone(), |_| wrong.clone());
        assert_eq!(tree, Tree::new(all.clone()));
    }
}

#[test]
fn the_longest_path_is_24_hashes() {
    assert_eq!(path_len(SIZE_MAX, 0), 24);
    assert_eq!(path_len(SIZE_MAX, SIZE_MAX - 1), 24);
    assert_eq!(path_len(SIZE_MAX / 2 + 1, SIZE_MAX / 2), 1);
    let outside = vec![[7; 32]; 24];
    let section = Section::new(SIZE_MAX, SIZE_MAX - 1, leaves(1), &outside).unwrap();
    let expected = outside
        .iter()
        .fold(leaves(1)[0], |hash, left| node(left, &hash));
    assert_eq!(section.root(), expected);
}

proptest! {
    #[test]
    fn paths_are_as_long_as_the_definition_has_them(size in 1..=SIZE_MAX, at in any::<prop::sample::Index>()) {
        let at = at.index(size.try_into().unwrap()) as u64;
        prop_assert_eq!(path_len(size, at), shape(at, size).len());
    }

    #[test]
    fn larger_trees_too(size in 71..2000usize, ends in any::<[prop::sample::Index; 3]>()) {
        let leaves = leaves(size);
        let tree = Tree::new(leaves.clone());
        prop_assert_eq!(*tree.root(), mth(&leaves));
        let first = ends[0].index(size);
        let count = ends[1].index(size - first) + 1;
        let offset = ends[2].index(count);
        let run = leaves[first..first + count].to_vec();
        let outside = outside(&tree, first, count);
        let section = Section::new(size as u64, first as u64, run, &outside).unwrap();
        prop_assert_eq!(section.root(), *tree.root());
        let ours: Vec<Hash> = section.path(offset).copied().collect();
        prop_assert_eq!(ours, path(first + offset, &leaves));
    }
}
