//! Whether lists are as small as they can be.

use super::*;
use crate::domain::status::{Permutation, SHARD_LEN};

/// draft-ietf-oauth-status-list-17, appendix "Size Comparison": entries of one bit, those that
/// are revoked in ten thousand, and the size of the compressed list in KB of 1024 octets (half
/// of a hundred thousand entries revoked are 12.2 there, and cannot be compressed).
const TABLE: [(usize, usize, f64); 6] = [
    (100_000, 100, 1.4),
    (100_000, 500, 4.5),
    (1_000_000, 10, 2.2),
    (1_000_000, 100, 13.7),
    (1_000_000, 200, 23.0),
    (1_000_000, 500, 43.9),
];

/// Whether `len` is no more than 10 % above `kilobytes`.
fn small(len: usize, kilobytes: f64) -> bool {
    len as f64 / 1024.0 <= kilobytes * 1.1
}

/// `count` of so many entries, as a car's indexes are: without any order.
fn any(entries: usize, count: usize) -> BTreeSet<usize> {
    let mut state = 7_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005);
        state = state.wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % entries
    };
    let mut chosen = BTreeSet::new();
    while chosen.len() < count {
        chosen.insert(next());
    }
    chosen
}

#[test]
fn the_drafts_own_lists_come_out_as_small_as_in_its_table() {
    for (entries, in_10_000, kilobytes) in TABLE {
        let mut octets = vec![0; entries / 8];
        for at in any(entries, entries / 10_000 * in_10_000) {
            octets[at / 8] |= 1 << (at % 8);
        }
        let len = compress(&octets).len();
        assert!(small(len, kilobytes), "{entries}, {in_10_000}: {len}");
    }
}

/// Ours has two bits for an entry and not one, and fewer entries: it is held to the table's size
/// for a million entries, in proportion.
#[test]
fn a_list_is_as_small_as_in_the_drafts_table() {
    let permutation = Permutation::new(&[3; 32], 0);
    for (entries, in_10_000, kilobytes) in &TABLE[3..] {
        let mut octets = vec![0; fob_verify::status::LIST_LEN_MAX];
        let revoked = fob_verify::status::Status::Revoked;
        for counter in 0..SHARD_LEN * *in_10_000 as u64 / 10_000 {
            let index = permutation.index(counter);
            assert!(fob_verify::status::set(&mut octets, index, revoked));
        }
        let len = compress(&octets).len();
        let share = SHARD_LEN as f64 / *entries as f64;
        assert!(small(len, kilobytes * share), "{in_10_000}: {len}");
    }
    assert!(compress(&vec![0; fob_verify::status::LIST_LEN_MAX]).len() < 100);
}
