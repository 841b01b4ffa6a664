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
}

/// What suspends a key. Each comes and goes by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Its function, within its authorization.
    Function,
    /// Its authorization.
    Authorization,
    /// The identity it was issued to.
    Identity,
    /// Its vehicle.
    Vehicle,
    /// A condition on whoever has it, which no longer holds: a licence, or not to be held.
    Condition,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Function,
        Self::Authorization,
        Self::Identity,
        Self::Vehicle,
        Self::Condition,
    ];

    const fn bit(self) -> u8 {
        match self {
            Self::Function => 1,
            Self::Authorization => 2,
            Self::Identity => 4,
            Self::Vehicle => 8,
            Self::Condition => 16,
        }
    }
}

/// All that suspends a key at one time. It is suspended while there is any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reasons(u8);

impl Reasons {
    /// No reason.
    pub const NONE: Self = Self(0);

    /// As a number that rows keep.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Reads what [`Reasons::bits`] gave.
    pub fn from_bits(bits: u8) -> Option<Self> {
        let known = Reason::ALL.iter().fold(0, |all, one| all | one.bit());
        (bits & !known == 0).then_some(Self(bits))
    }

    /// These and `reason`.
    #[must_use]
    pub const fn with(self, reason: Reason) -> Self {
        Self(self.0 | reason.bit())
    }

    /// These without `reason`.
    #[must_use]
    pub const fn without(self, reason: Reason) -> Self {
        Self(self.0 & !reason.bit())
    }

    /// Whether `reason` is one of them.
    pub const fn has(self, reason: Reason) -> bool {
        self.0 & reason.bit() != 0
    }

    /// Each of them.
    pub fn each(self) -> impl Iterator<Item = Reason> {
        Reason::ALL
            .into_iter()
            .filter(move |reason| self.has(*reason))
    }
}

/// What is done to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyChange {
    /// It is suspended for one more reason.
    Suspend(Reason),
    /// That reason is gone.
    Resume(Reason),
    /// It ends, whatever is done to it later.
    Revoke,
}

/// What all that was done to a key has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// Suspended for these reasons, or valid where there is none.
    By(Reasons),
    /// Revoked.
    ForGood,
}

impl Default for Held {
    fn default() -> Self {
        Self::By(Reasons::NONE)
    }
}

impl Held {
    /// How the key stands.
    pub fn status(self) -> KeyStatus {
        match self {
            Self::By(Reasons::NONE) => KeyStatus::Valid,
            Self::By(_) => KeyStatus::Suspended,
            Self::ForGood => KeyStatus::Revoked,
        }
    }

    /// What becomes of it with one more change: what was revoked stays revoked, and what is
    /// resumed stays suspended while another reason holds.
    #[must_use]
    pub fn after(self, change: KeyChange) -> Self {
        match (self, change) {
            (Self::ForGood, _) | (_, KeyChange::Revoke) => Self::ForGood,
            (Self::By(reasons), KeyChange::Suspend(reason)) => Self::By(reasons.with(reason)),
            (Self::By(reasons), KeyChange::Resume(reason)) => Self::By(reasons.without(reason)),
        }
    }

    /// Whether `reason` suspends it.
    pub const fn has(self, reason: Reason) -> bool {
        match self {
            Self::By(reasons) => reasons.has(reason),
            Self::ForGood => false,
        }
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

/// A change of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The status list it is on.
    pub shard: ShardId,
    /// Its index there.
    pub index: u32,
    /// What is done to it. [`Held::after`] says what comes of it.
    pub change: KeyChange,
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
    fn a_key_is_suspended_while_anything_suspends_it_and_revoked_for_good() {
        use KeyChange::{Resume, Revoke, Suspend};
        use KeyStatus::{Revoked, Suspended, Valid};
        for one in Reason::ALL {
            for other in Reason::ALL {
                let steps = [
                    (Suspend(one), Suspended),
                    (Suspend(other), Suspended),
                    (Suspend(one), Suspended),
                    (Resume(one), if one == other { Valid } else { Suspended }),
                    (Resume(other), Valid),
                    (Resume(one), Valid),
                    (Suspend(other), Suspended),
                    (Revoke, Revoked),
                    (Resume(other), Revoked),
                    (Suspend(one), Revoked),
                ];
                let mut held = Held::default();
                assert_eq!(held.status(), Valid);
                for (step, (change, expected)) in steps.into_iter().enumerate() {
                    held = held.after(change);
                    assert_eq!(held.status(), expected, "{one:?}, {other:?}, step {step}");
                }
            }
        }
    }

    #[test]
    fn reasons_are_kept_as_a_number() {
        let all = Reason::ALL.into_iter().fold(Reasons::NONE, Reasons::with);
        assert_eq!(all.bits(), 31);
        for bits in 0..32 {
            let reasons = Reasons::from_bits(bits).expect("reasons");
            let again = reasons.each().fold(Reasons::NONE, Reasons::with);
            assert_eq!((again, again.bits()), (reasons, bits));
        }
        assert_eq!(Reasons::from_bits(32), None);
    }
}
