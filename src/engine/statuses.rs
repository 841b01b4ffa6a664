//! How every key stands, in memory: floor 3. Part of the book, so the committer alone writes it, and
//! only what is durable; everybody reads it without a lock.
//!
//! A list takes memory once one of its keys has been revoked or suspended. Nothing here grows with
//! the number of keys issued.
//!
//! Deliberately not here: signing lists (`lists.rs`).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::concurrent::{Counter, Map};
use crate::domain::status::SHARD_LEN;
use crate::domain::{
    Bundle, Held, KeyChange, KeyStatus, Mark, Reasons, Restore, ShardId, UnixTime,
};
use crate::store::{Listed, SignedList};

/// Entries of two bits in one word.
const PER_WORD: u32 = 32;

/// Words of one list.
const WORDS: usize = SHARD_LEN as usize / PER_WORD as usize;

/// Four entries that are revoked.
const ALL_REVOKED: u8 = 0b01_01_01_01;

/// How every key stands.
#[derive(Default)]
pub struct Statuses {
    shards: Map<ShardId, Arc<Shard>>,
    /// The number of the last restore: whatever is on lists of before is revoked.
    restores: Counter,
    /// Up to which amendment everything is here. Raised (release) after what they mark is written
    /// above, so whoever reads it (acquire) sees all of that.
    revision: Counter,
    /// The last amendment that has marked anything here.
    latest: Counter,
    /// Lists as they are given out, by whichever node signs them; none on one node.
    given_out: Map<ShardId, Arc<SignedList>>,
    /// Lists that other nodes ask for.
    asked: Map<ShardId, ()>,
}

/// One list.
#[derive(Default)]
pub(super) struct Shard {
    /// Written before `changes` is raised, so nobody need look at a word in between.
    words: OnceLock<Box<[AtomicU64]>>,
    /// Why those are suspended that are.
    reasons: Map<u32, Reasons>,
    /// Counts changes. Raised (release) after each, read (acquire) before a copy is taken.
    changes: Counter,
    /// When it was signed last, as far as is durable.
    issued_at: AtomicU64,
    /// When the last of those that were signed ends.
    expires: AtomicU64,
}

impl Statuses {
    /// How the key at `index` of a list stands.
    pub fn of(&self, shard: ShardId, index: u32) -> KeyStatus {
        if self.is_void(shard) {
            return KeyStatus::Revoked;
        }
        self.shards
            .pin()
            .get(&shard)
            .map_or(KeyStatus::Valid, |shard| shard.get(index))
    }

    /// How the key at `index` of a list stands, and why. What suspends a key is known even where a
    /// restore has ended it: one issued in its place is suspended too.
    pub fn held(&self, shard: ShardId, index: u32) -> Held {
        let pinned = self.shards.pin();
        let held = pinned
            .get(&shard)
            .map_or_else(Held::default, |shard| shard.held(index));
        match held.status() {
            KeyStatus::Valid if self.is_void(shard) => Held::ForGood,
            _ => held,
        }
    }

    /// Takes in that the store was put back from a backup: no key of before counts.
    pub(super) fn restored(&self, restore: Restore) {
        self.restores
            .fetch_max(u64::from(restore.number), Ordering::Release);
    }

    /// Whether every key of a list was issued before the last restore.
    pub(super) fn is_void(&self, id: ShardId) -> bool {
        let number = self.restores.load(Ordering::Acquire);
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        let restore = Restore {
            number,
            ..Restore::default()
        };
        restore.voids(id.number)
    }

    /// The whole list, as it is signed.
    pub(super) fn octets(&self, id: ShardId, shard: &Shard) -> Vec<u8> {
        if self.is_void(id) {
            return vec![ALL_REVOKED; WORDS * size_of::<u64>()];
        }
        shard.octets()
    }

    /// How each key of a bundle stands, in their order.
    pub fn of_bundle(&self, bundle: &Bundle) -> Vec<KeyStatus> {
        let pinned = self.shards.pin();
        // They nearly always share one list.
        let (mut last, mut list) = (None::<&Arc<str>>, (false, None));
        let mut standing = Vec::with_capacity(bundle.keys.len());
        for (subject, key) in bundle.each_key() {
            let uri = &subject.status_uri;
            if !last.is_some_and(|last| Arc::ptr_eq(last, uri)) {
                list = match ShardId::at(uri) {
                    Some(id) => (self.is_void(id), pinned.get(&id)),
                    None => (false, None),
                };
                last = Some(uri);
            }
            standing.push(match list {
                (true, _) => KeyStatus::Revoked,
                (false, None) => KeyStatus::Valid,
                (false, Some(list)) => list.get(key.status_index),
            });
        }
        standing
    }

    /// The count of amendments up to which what they have marked can be read here.
    pub fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    /// The last amendment of which something can be read here. Others before it may be missing
    /// where other nodes have made them; on one node it is the same.
    pub fn latest(&self) -> u64 {
        self.latest.load(Ordering::Acquire)
    }

    /// Lists that are given out by whichever node.
    pub(super) fn all_given_out(&self) -> Vec<ShardId> {
        self.given_out.pin().keys().copied().collect()
    }

    /// A list as it was given out last, where other nodes give it out too.
    pub(super) fn signed(&self, id: ShardId) -> Option<Arc<SignedList>> {
        self.given_out.pin().get(&id).cloned()
    }

    /// The lists that other nodes ask for, each told once.
    pub(super) fn take_asked(&self) -> Vec<ShardId> {
        let asked: Vec<_> = self.asked.pin().keys().copied().collect();
        for id in &asked {
            self.asked.pin().remove(id);
        }
        asked
    }

    /// Takes in that another node asks for a list.
    pub(super) fn ask(&self, id: ShardId) {
        self.asked.pin().insert(id, ());
    }

    /// Takes in how a key stands.
    pub(super) fn put(&self, shard: ShardId, index: u32, held: Held) {
        self.shard(shard).put(index, held);
    }

    /// Takes in what is given out of a list.
    pub(super) fn given_out(&self, list: Arc<SignedList>) {
        self.given_out.pin().insert(list.listed.shard, list);
    }

    /// Lists in which something has been marked since this process began, or was before.
    pub(super) fn marked(&self) -> Vec<ShardId> {
        let pinned = self.shards.pin();
        let marked = pinned.iter().filter(|(_, shard)| shard.changes() > 0);
        marked.map(|(id, _)| *id).collect()
    }

    /// One list, which may be empty.
    pub(super) fn shard(&self, id: ShardId) -> Arc<Shard> {
        Arc::clone(self.shards.pin().get_or_insert_with(id, Arc::default))
    }

    /// Takes in what has become durable.
    pub(super) fn mark(&self, marks: &[Mark]) {
        for mark in marks {
            self.shard(mark.shard).set(mark.index, mark.change);
        }
    }

    /// Takes in that lists are about to be given out.
    pub(super) fn listed(&self, lists: &[Listed]) {
        for list in lists {
            let shard = self.shard(list.shard);
            shard.issued_at.fetch_max(list.issued_at, Ordering::Relaxed);
            shard.expires.fetch_max(list.expires, Ordering::Relaxed);
        }
    }

    /// Becomes what was loaded, list by list; what has changed counts as a change.
    pub(super) fn become_as(&self, loaded: &Self) {
        let pinned = loaded.shards.pin();
        for (id, shard) in &pinned {
            self.shard(*id).become_as(shard);
        }
        for (id, shard) in &self.shards.pin() {
            if !pinned.contains_key(id) {
                shard.become_as(&Shard::default());
            }
        }
    }

    /// Takes in that the amendment of this number was made. Where one before it is missing, it is
    /// another node's, and will be heard of.
    pub(super) fn amended(&self, revision: u64) {
        self.latest.fetch_max(revision, Ordering::Release);
        // One thread writes.
        if revision <= self.revision.load(Ordering::Relaxed) + 1 {
            self.revision.fetch_max(revision, Ordering::Release);
        }
    }

    /// Takes in that everything up to this amendment is here.
    pub(super) fn complete(&self, revision: u64) {
        self.latest.fetch_max(revision, Ordering::Release);
        self.revision.fetch_max(revision, Ordering::Release);
    }
}

impl Shard {
    /// How often it has changed.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// When it was signed last; 0 where it never was.
    pub(super) fn issued_at(&self) -> UnixTime {
        self.issued_at.load(Ordering::Relaxed)
    }

    /// When every list of it that was ever given out has ended; 0 where none was.
    pub(super) fn expires(&self) -> UnixTime {
        self.expires.load(Ordering::Relaxed)
    }

    /// The whole list, four entries to an octet, the first in its lowest bits
    /// (draft-ietf-oauth-status-list §4.1).
    fn octets(&self) -> Vec<u8> {
        match self.words.get() {
            None => vec![0; WORDS * size_of::<u64>()],
            Some(words) => {
                let octets = words
                    .iter()
                    .flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes());
                octets.collect()
            }
        }
    }

    fn become_as(&self, loaded: &Self) {
        let loaded_reasons = loaded.reasons.pin();
        self.reasons
            .pin()
            .retain(|index, _| loaded_reasons.contains_key(index));
        for (index, reasons) in &loaded_reasons {
            self.reasons.pin().insert(*index, *reasons);
        }
        if self.words.get().is_none() && loaded.words.get().is_none() {
            return;
        }
        let mut changed = false;
        for (at, word) in self.words().iter().enumerate() {
            let to = loaded.words.get().map(|words| &words[at]);
            let to = to.map_or(0, |word| word.load(Ordering::Relaxed));
            changed |= word.swap(to, Ordering::Relaxed) != to;
        }
        if changed {
            self.changes.fetch_add(1, Ordering::Release);
        }
    }

    fn words(&self) -> &[AtomicU64] {
        self.words
            .get_or_init(|| (0..WORDS).map(|_| AtomicU64::new(0)).collect())
    }

    fn get(&self, index: u32) -> KeyStatus {
        let Some(words) = self.words.get() else {
            return KeyStatus::Valid;
        };
        let word = words.get((index / PER_WORD) as usize);
        let word = word.map_or(0, |word| word.load(Ordering::Relaxed));
        match word >> (2 * (index % PER_WORD)) & 3 {
            0 => KeyStatus::Valid,
            2 => KeyStatus::Suspended,
            _ => KeyStatus::Revoked,
        }
    }

    fn held(&self, index: u32) -> Held {
        match self.get(index) {
            KeyStatus::Valid => Held::default(),
            KeyStatus::Suspended => {
                Held::By(self.reasons.pin().get(&index).copied().unwrap_or_default())
            }
            KeyStatus::Revoked => Held::ForGood,
        }
    }

    /// One thread writes, so reading and writing need not be one step.
    fn set(&self, index: u32, change: KeyChange) {
        self.put(index, self.held(index).after(change));
    }

    fn put(&self, index: u32, after: Held) {
        let before = self.held(index);
        if after == before {
            return;
        }
        match after {
            Held::By(reasons) if reasons != Reasons::NONE => {
                self.reasons.pin().insert(index, reasons);
            }
            _ => drop(self.reasons.pin().remove(&index)),
        }
        let to = after.status();
        if to == before.status() {
            return;
        }
        let Some(word) = self.words().get((index / PER_WORD) as usize) else {
            return;
        };
        let shift = 2 * (index % PER_WORD);
        let others = word.load(Ordering::Relaxed) & !(3 << shift);
        word.store(others | u64::from(to.bits()) << shift, Ordering::Relaxed);
        self.changes.fetch_add(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Reason;

    const SHARD: ShardId = ShardId { tag: 1, number: 0 };

    fn change(index: u32, change: KeyChange) -> Mark {
        Mark {
            shard: SHARD,
            index,
            change,
            ends: 0,
        }
    }

    fn mark(index: u32, to: KeyStatus) -> Mark {
        let to = match to {
            KeyStatus::Valid => KeyChange::Resume(Reason::Authorization),
            KeyStatus::Suspended => KeyChange::Suspend(Reason::Authorization),
            KeyStatus::Revoked => KeyChange::Revoke,
        };
        change(index, to)
    }

    #[test]
    fn a_list_is_the_sum_of_its_marks() {
        use KeyStatus::{Revoked, Suspended, Valid};
        let statuses = Statuses::default();
        assert_eq!(statuses.of(SHARD, 5), Valid);
        let last = SHARD_LEN as u32 - 1;
        let marks = [
            (0, Revoked),
            (5, Suspended),
            (31, Suspended),
            (32, Revoked),
            (last, Suspended),
        ];
        statuses.mark(&marks.map(|(index, to)| mark(index, to)));
        for (index, to) in marks {
            assert_eq!(statuses.of(SHARD, index), to, "{index}");
        }
        let octets = statuses.shard(SHARD).octets();
        assert_eq!(octets.len(), 32 * 1024);
        let mut expected = vec![0; octets.len()];
        for (index, to) in marks {
            let to = match to {
                Revoked => fob_verify::status::Status::Revoked,
                _ => fob_verify::status::Status::Suspended,
            };
            assert!(fob_verify::status::set(&mut expected, index, to));
        }
        assert_eq!(octets, expected, "as the format's own writer has it");
        statuses.mark(&[
            mark(0, Valid),
            mark(5, Valid),
            mark(31, Revoked),
            mark(last + 1, Revoked),
        ]);
        assert_eq!(statuses.of(SHARD, 0), Revoked, "for good");
        assert_eq!(statuses.of(SHARD, 5), Valid);
        assert_eq!(statuses.of(SHARD, 31), Revoked);
        assert_eq!(statuses.of(SHARD, last + 1), Valid, "no such key");
    }

    #[test]
    fn loaded_again_it_is_what_was_loaded() {
        let (statuses, loaded) = (Statuses::default(), Statuses::default());
        statuses.mark(&[mark(1, KeyStatus::Suspended), mark(2, KeyStatus::Revoked)]);
        loaded.mark(&[mark(2, KeyStatus::Revoked), mark(3, KeyStatus::Revoked)]);
        let changes = statuses.shard(SHARD).changes();
        statuses.become_as(&loaded);
        assert_eq!(statuses.shard(SHARD).octets(), loaded.shard(SHARD).octets());
        assert!(statuses.shard(SHARD).changes() > changes);
        statuses.become_as(&Statuses::default());
        assert!(
            statuses
                .shard(SHARD)
                .octets()
                .iter()
                .all(|octet| *octet == 0)
        );
    }

    #[test]
    fn one_reason_less_wakes_nobody_whom_another_holds() {
        use KeyChange::{Resume, Suspend};
        let statuses = Statuses::default();
        let steps = [
            (Suspend(Reason::Function), KeyStatus::Suspended, 1),
            (Suspend(Reason::Vehicle), KeyStatus::Suspended, 1),
            (Resume(Reason::Function), KeyStatus::Suspended, 1),
            (Resume(Reason::Vehicle), KeyStatus::Valid, 2),
        ];
        for (step, status, changes) in steps {
            statuses.mark(&[change(7, step)]);
            assert_eq!(statuses.of(SHARD, 7), status, "{step:?}");
            // What the list does not say needs no new list.
            assert_eq!(statuses.shard(SHARD).changes(), changes, "{step:?}");
        }
        // Why is loaded too.
        let loaded = Statuses::default();
        loaded.mark(&[change(7, Suspend(Reason::Identity))]);
        statuses.mark(&[change(8, Suspend(Reason::Vehicle))]);
        statuses.become_as(&loaded);
        assert_eq!(statuses.held(SHARD, 7), loaded.held(SHARD, 7));
        assert_eq!(statuses.held(SHARD, 8), Held::default());
    }

    #[test]
    fn what_another_node_has_amended_is_not_claimed_before_it_is_here() {
        let statuses = Statuses::default();
        let counts = || (statuses.revision(), statuses.latest());
        statuses.amended(1);
        assert_eq!(counts(), (1, 1));
        // The second and the third are somebody else's.
        statuses.amended(4);
        statuses.amended(5);
        assert_eq!(counts(), (1, 5));
        statuses.complete(4);
        assert_eq!(counts(), (4, 5));
        statuses.complete(5);
        statuses.amended(6);
        assert_eq!(counts(), (6, 6));
    }

    #[test]
    fn only_what_changes_counts() {
        let statuses = Statuses::default();
        statuses.mark(&[mark(1, KeyStatus::Valid)]);
        assert!(statuses.marked().is_empty());
        statuses.mark(&[mark(1, KeyStatus::Revoked), mark(1, KeyStatus::Suspended)]);
        assert_eq!(statuses.shard(SHARD).changes(), 1);
        assert_eq!(statuses.marked(), [SHARD]);
    }
}
