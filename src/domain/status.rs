//! Status indexes: where a key's bits stand in its fleet's status lists.
//!
//! A fleet counts the keys it issues, durably. The counter's upper part is the shard, its lower
//! 17 bits go through a keyed permutation, so that an index says nothing about when its key was
//! issued and none is used twice.

use aws_lc_rs::hmac;

/// Bits of an index within its shard.
const INDEX_BITS: u32 = 17;

/// Entries of one shard.
pub const SHARD_LEN: u64 = 1 << INDEX_BITS;

const ROUNDS: usize = 6;
const HIGH_BITS: u32 = 8;
const LOW_BITS: u32 = 9;

/// The keyed permutation of one shard's indexes: an unbalanced Feistel network whose round
/// functions are tables drawn from the fleet's key.
pub struct Permutation {
    rounds: [[u16; 1 << LOW_BITS]; ROUNDS],
}

impl Permutation {
    /// The permutation of `shard` under `key`.
    pub fn new(key: &[u8; 32], shard: u64) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        let mut rounds = [[0; 1 << LOW_BITS]; ROUNDS];
        let blocks = rounds
            .iter_mut()
            .flat_map(|round| round.chunks_exact_mut(16));
        for (block, entries) in (0_u64..).zip(blocks) {
            let mut input = [0; 16];
            input[..8].copy_from_slice(&shard.to_be_bytes());
            input[8..].copy_from_slice(&block.to_be_bytes());
            let tag = hmac::sign(&key, &input);
            for (entry, bytes) in entries.iter_mut().zip(tag.as_ref().chunks_exact(2)) {
                *entry = u16::from_be_bytes([bytes[0], bytes[1]]);
            }
        }
        Self { rounds }
    }

    /// The index of the key that was counted as `counter`; only the low 17 bits count.
    pub fn index(&self, counter: u64) -> u32 {
        let counter = (counter % SHARD_LEN) as u32;
        let (mut high, mut low) = (counter >> LOW_BITS, counter & ((1 << LOW_BITS) - 1));
        for pair in self.rounds.chunks_exact(2) {
            high ^= u32::from(pair[0][low as usize]) & ((1 << HIGH_BITS) - 1);
            low ^= u32::from(pair[1][high as usize]) & ((1 << LOW_BITS) - 1);
        }
        high << LOW_BITS | low
    }
}

/// The address of a shard's status list under `base` (the server's status address).
pub fn shard_uri(base: &str, tag: u32, shard: u64) -> String {
    format!("{base}/{tag:08x}-{shard}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_index_is_used_once() {
        let permutation = Permutation::new(&[5; 32], 3);
        let mut seen = vec![false; SHARD_LEN as usize];
        for counter in 3 * SHARD_LEN..4 * SHARD_LEN {
            let index = permutation.index(counter) as usize;
            assert!(
                !std::mem::replace(&mut seen[index], true),
                "index {index} twice"
            );
        }
        assert!(seen.into_iter().all(|used| used));
    }

    #[test]
    fn shards_and_keys_differ() {
        let first: Vec<_> = (0..64)
            .map(|n| Permutation::new(&[5; 32], 0).index(n))
            .collect();
        let neighbours = first
            .windows(2)
            .filter(|pair| pair[0].abs_diff(pair[1]) == 1)
            .count();
        assert!(neighbours < 4, "consecutive counters lie apart");
        assert_ne!(first[0], Permutation::new(&[5; 32], 1).index(0));
        assert_ne!(first[0], Permutation::new(&[6; 32], 0).index(0));
    }
}
