//! Status indexes: where a key's bits stand in its fleet's status lists.
//!
//! A fleet counts the keys it issues, durably. The counter's upper part is the shard, its lower
//! 17 bits go through a keyed permutation, so that an index says nothing about when its key was
//! issued and none is used twice.

use std::fmt;

use aws_lc_rs::hmac;

use super::time::UnixTime;

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

/// How a key stands (Token Status List, status types).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyStatus {
    /// Nobody has said otherwise.
    #[default]
    Valid,
    /// It may not be used for now.
    Suspended,
    /// It may not be used any more.
    Revoked,
}

impl KeyStatus {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Suspended => "suspended",
            Self::Revoked => "revoked",
        }
    }

    /// Its two bits in a status list.
    pub const fn bits(self) -> u8 {
        match self {
            Self::Valid => 0,
            Self::Revoked => 1,
            Self::Suspended => 2,
        }
    }

    /// What becomes of a key that stands so when it is to stand as `to`: what was revoked stays
    /// revoked.
    #[must_use]
    pub fn then(self, to: Self) -> Self {
        if self == Self::Revoked { self } else { to }
    }
}

/// One status list of one fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId {
    /// The fleet's tag.
    pub tag: u32,
    /// Which of the fleet's lists, from 0.
    pub number: u64,
}

impl ShardId {
    /// Reads what [`fmt::Display`] writes, and nothing else.
    pub fn parse(text: &str) -> Option<Self> {
        let (tag, number) = text.split_once('-')?;
        let id = Self {
            tag: u32::from_str_radix(tag, 16).ok()?,
            number: number.parse().ok()?,
        };
        (id.to_string() == text).then_some(id)
    }

    /// The shard whose list is at the address `uri`.
    pub fn at(uri: &str) -> Option<Self> {
        Self::parse(uri.rsplit('/').next()?)
    }

    /// The address of its list under `base` (the server's status address).
    pub fn uri(self, base: &str) -> String {
        format!("{base}/{self}")
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{}", self.tag, self.number)
    }
}

/// What one key is to stand as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The status list it is on.
    pub shard: ShardId,
    /// Its index there.
    pub index: u32,
    /// How it is to stand. [`KeyStatus::then`] says what comes of it.
    pub to: KeyStatus,
    /// When the key expires: then nobody needs the mark any more.
    pub ends: UnixTime,
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

    #[test]
    fn a_shard_has_one_name() {
        let id = ShardId {
            tag: 0xab,
            number: 12,
        };
        assert_eq!(id.to_string(), "000000ab-12");
        assert_eq!(
            ShardId::at(&id.uri("https://fob.example/v1/status")),
            Some(id)
        );
        for other in [
            "ab-12",
            "000000AB-12",
            "000000ab-012",
            "000000ab-+1",
            "000000ab",
            "",
        ] {
            assert_eq!(ShardId::parse(other), None, "{other}");
        }
    }

    #[test]
    fn what_is_revoked_stays_revoked() {
        use KeyStatus::{Revoked, Suspended, Valid};
        assert_eq!(Valid.then(Suspended), Suspended);
        assert_eq!(Suspended.then(Valid), Valid);
        assert_eq!(Suspended.then(Revoked), Revoked);
        for to in [Valid, Suspended, Revoked] {
            assert_eq!(Revoked.then(to), Revoked);
        }
    }
}
