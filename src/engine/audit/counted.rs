//! Status indexes: which were counted out, and which of them are used.

use std::collections::HashMap;

use crate::domain::status::{Permutation, SHARD_LEN};
use crate::domain::{Fleet, Restore, ShardId};

/// Words of one list, a bit for each index.
const WORDS: usize = SHARD_LEN as usize / 64;

type Bits = Box<[u64]>;

/// The lists of one fleet that were begun.
pub(super) struct Counted {
    tag: u32,
    /// The list that is being filled.
    newest: u64,
    /// The indexes of it that were counted out.
    filled: Bits,
    used: HashMap<u64, Bits>,
    /// Keys that use an index of the range counted in since the last restore.
    pub(super) recorded: u64,
}

/// What is wrong with a place on a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Misplaced {
    /// Another key has it.
    Twice,
    /// It was not counted out.
    Ahead,
    /// The list is not this fleet's.
    Elsewhere,
}

fn bit(index: u32) -> (usize, u64) {
    ((index / 64) as usize, 1 << (index % 64))
}

fn nothing() -> Bits {
    vec![0; WORDS].into()
}

impl Counted {
    pub(super) fn of(fleet: &Fleet) -> Self {
        let (newest, filled) = (fleet.status_next / SHARD_LEN, fleet.status_next % SHARD_LEN);
        let permutation = Permutation::new(&fleet.status_key, newest);
        let mut bits = nothing();
        for counter in 0..filled {
            let (word, bit) = bit(permutation.index(counter));
            bits[word] |= bit;
        }
        Self {
            tag: fleet.tag,
            newest,
            filled: bits,
            used: HashMap::new(),
            recorded: 0,
        }
    }

    /// How many indexes were counted out since a restore.
    pub(super) fn since(fleet: &Fleet, restore: Restore) -> u64 {
        fleet.status_next.saturating_sub(restore.status_next())
    }

    /// Whether a place was counted out.
    pub(super) fn has(&self, list: ShardId, index: u32) -> bool {
        if u64::from(index) >= SHARD_LEN {
            return false;
        }
        match list.number.cmp(&self.newest) {
            std::cmp::Ordering::Less => true,
            std::cmp::Ordering::Equal => {
                let (word, bit) = bit(index);
                self.filled[word] & bit != 0
            }
            std::cmp::Ordering::Greater => false,
        }
    }

    /// Notes that a key has this place.
    pub(super) fn take(
        &mut self,
        list: ShardId,
        index: u32,
        restore: Restore,
    ) -> Result<(), Misplaced> {
        if list.tag != self.tag {
            return Err(Misplaced::Elsewhere);
        }
        if !self.has(list, index) {
            return Err(Misplaced::Ahead);
        }
        let (word, bit) = bit(index);
        let used = self.used.entry(list.number).or_insert_with(nothing);
        if used[word] & bit != 0 {
            return Err(Misplaced::Twice);
        }
        used[word] |= bit;
        self.recorded += u64::from(!restore.voids(list.number));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{FleetId, FleetName, FleetSettings, Status};

    #[test]
    fn a_place_is_counted_out_before_it_is_used_and_used_once() {
        let fleet = Fleet {
            id: FleetId([1; 16]),
            name: FleetName::parse("north").expect("a name"),
            tag: 7,
            status: Status::Active,
            status_key: [3; 32],
            status_next: SHARD_LEN + 2,
            settings: FleetSettings::default(),
        };
        let mut counted = Counted::of(&fleet);
        let none = Restore::default();
        let list = |number| ShardId { tag: 7, number };
        let permutation = Permutation::new(&fleet.status_key, 1);
        let index = |counter| permutation.index(counter);
        assert_eq!(counted.take(list(0), 5, none), Ok(()));
        assert_eq!(counted.take(list(0), 5, none), Err(Misplaced::Twice));
        assert_eq!(counted.take(list(1), index(1), none), Ok(()));
        assert_eq!(counted.take(list(1), index(2), none), Err(Misplaced::Ahead));
        assert_eq!(counted.take(list(2), 0, none), Err(Misplaced::Ahead));
        let beyond = SHARD_LEN as u32;
        assert_eq!(counted.take(list(0), beyond, none), Err(Misplaced::Ahead));
        let other = ShardId { tag: 8, number: 0 };
        assert_eq!(counted.take(other, 0, none), Err(Misplaced::Elsewhere));
        assert_eq!(counted.recorded, 2);
        assert_eq!(Counted::since(&fleet, none), SHARD_LEN + 2);
    }
}
