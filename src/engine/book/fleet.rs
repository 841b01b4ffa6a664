//! One fleet's part of the book: its registry, its rules, and the status lists its keys are counted onto.
//!
//! The book writes it, as it does the rest; what stands here reads, and counts out status indexes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};

use crate::concurrent::{Map, Mutex};
use crate::domain::restore::{first_vehicle_epoch, is_list};
use crate::domain::status::{Permutation, SHARD_LEN, ShardId};
use crate::domain::{
    Catalogue, Fleet, FunctionCode, Identity, IdentityId, Subject, Terminal, TerminalId, Vehicle,
    VehicleId,
};
use crate::engine::nodes::Blocks;
use crate::store::Contact;

use super::super::recent::Recent;
use super::super::rulebook::Rulebook;

/// One fleet's part of the book.
pub struct FleetBook {
    /// The fleet, as created.
    pub fleet: Fleet,
    pub(super) catalogue: ArcSwap<Catalogue>,
    pub(super) vehicles: Map<VehicleId, Arc<Vehicle>>,
    pub(super) identities: Map<IdentityId, Arc<Identity>>,
    pub(super) terminals: Map<TerminalId, Arc<Terminal>>,
    pub(super) terminals_of: Map<IdentityId, Arc<[Arc<Terminal>]>>,
    pub(super) contacts: Map<VehicleId, Contact>,
    /// What it rules.
    pub ruled: Rulebook,
    /// What it has redeemed lately, where its rules ask for that.
    pub recent: Recent,
    /// The counter of status indexes, as far as is known: this node's own, or among several nodes
    /// the end of the last block that was heard of.
    pub(super) status_next: AtomicU64,
    /// What this node counts out, among several.
    pub(in crate::engine) blocks: Mutex<Blocks>,
    shard: ArcSwapOption<Shard>,
    /// What keys of the functions in use stand for, by a hash of them: the bundles of a batch
    /// share it.
    subjects: [ArcSwapOption<Subjects>; SUBJECTS_LEN],
}

/// Lists of functions whose subjects are kept at hand.
const SUBJECTS_LEN: usize = 64;

/// What keys of these functions stand for while this shard is filled.
struct Subjects {
    shard: u64,
    functions: Box<[FunctionCode]>,
    subjects: Arc<[Subject]>,
}

/// The status shard a fleet is filling.
struct Shard {
    number: u64,
    permutation: Permutation,
    uri: Arc<str>,
}

impl FleetBook {
    pub(super) fn new(fleet: Fleet) -> Self {
        Self {
            status_next: AtomicU64::new(fleet.status_next),
            fleet,
            blocks: Mutex::default(),
            catalogue: ArcSwap::default(),
            vehicles: Map::new(),
            identities: Map::new(),
            terminals: Map::new(),
            terminals_of: Map::new(),
            contacts: Map::new(),
            ruled: Rulebook::default(),
            recent: Recent::default(),
            shard: ArcSwapOption::empty(),
            subjects: std::array::from_fn(|_| ArcSwapOption::empty()),
        }
    }

    /// What the fleet's function codes mean.
    pub fn catalogue(&self) -> Arc<Catalogue> {
        self.catalogue.load_full()
    }

    /// A vehicle.
    pub fn vehicle(&self, id: &str) -> Option<Arc<Vehicle>> {
        self.vehicles.pin().get(id).cloned()
    }

    /// How many vehicles there are.
    pub fn vehicles_len(&self) -> usize {
        self.vehicles.len()
    }

    /// An identity.
    pub fn identity(&self, id: &str) -> Option<Arc<Identity>> {
        self.identities.pin().get(id).cloned()
    }

    /// A vehicle that an identity owns, where it owns any. Looks at every one.
    pub(in crate::engine) fn owned_by(&self, owner: &IdentityId) -> Option<VehicleId> {
        let pinned = self.vehicles.pin();
        let mut all = pinned.values();
        let owned = all.find(|vehicle| vehicle.owner.as_ref() == Some(owner));
        owned.map(|vehicle| vehicle.id.clone())
    }

    /// How many identities there are.
    pub fn identities_len(&self) -> usize {
        self.identities.len()
    }

    /// A terminal.
    pub fn terminal(&self, id: &str) -> Option<Arc<Terminal>> {
        self.terminals.pin().get(id).cloned()
    }

    /// The terminals registered for an identity.
    pub fn terminals_of(&self, identity: &str) -> Arc<[Arc<Terminal>]> {
        self.terminals_of
            .pin()
            .get(identity)
            .cloned()
            .unwrap_or_default()
    }

    /// The terminals of the fleet that `which` picks, ascending by id.
    pub fn terminals_where(&self, which: impl Fn(&Terminal) -> bool) -> Vec<Arc<Terminal>> {
        let pinned = self.terminals.pin();
        let mut picked: Vec<_> = pinned.values().filter(|it| which(it)).cloned().collect();
        picked.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        picked
    }

    /// What a car was sent last and has acknowledged.
    pub fn contact(&self, vehicle: &str) -> Option<Contact> {
        self.contacts.pin().get(vehicle).copied()
    }

    /// Whether `number` is one of its status lists.
    pub fn has_list(&self, number: u64) -> bool {
        is_list(number, self.status_next.load(Ordering::Relaxed) / SHARD_LEN)
    }

    /// The epoch of a vehicle that is new to the fleet.
    pub(in crate::engine) fn first_vehicle_epoch(&self) -> u32 {
        first_vehicle_epoch(self.status_next.load(Ordering::Relaxed))
    }

    /// How many keys were counted out so far.
    pub fn status_count(&self) -> u64 {
        self.status_next.load(Ordering::Relaxed)
    }

    /// Takes in that indexes up to `next` are counted out, whoever has them.
    pub(in crate::engine) fn counted_to(&self, next: u64) {
        self.status_next.fetch_max(next, Ordering::Relaxed);
    }

    /// Counts out `count` status indexes and returns the counter before them.
    pub fn next_status(&self, count: u64) -> u64 {
        self.status_next.fetch_add(count, Ordering::Relaxed)
    }

    /// What keys of `functions` stand for, the first of them counted as `first`; status lists are
    /// under the address `base`.
    pub fn subjects(&self, base: &str, functions: &[FunctionCode], first: u64) -> Arc<[Subject]> {
        let last = first + functions.len().saturating_sub(1) as u64;
        let number = first / SHARD_LEN;
        if last / SHARD_LEN != number {
            // The few that reach into the next shard.
            return self.spell_out(functions, |at| self.shard(base, first + at));
        }
        let hash = functions.iter().fold(0_usize, |hash, code| {
            hash.wrapping_mul(31).wrapping_add(usize::from(*code))
        });
        let place = &self.subjects[hash % SUBJECTS_LEN];
        if let Some(known) = &*place.load()
            && known.shard == number
            && *known.functions == *functions
        {
            return Arc::clone(&known.subjects);
        }
        let shard = self.shard(base, first);
        let subjects = self.spell_out(functions, |_| Arc::clone(&shard));
        place.store(Some(Arc::new(Subjects {
            shard: number,
            functions: functions.into(),
            subjects: Arc::clone(&subjects),
        })));
        subjects
    }

    /// The indexes, in their status lists, of the keys counted from `first` on.
    pub fn status_indexes(&self, base: &str, first: u64, count: u64) -> impl Iterator<Item = u32> {
        let mut shard = self.shard(base, first);
        (first..first + count).map(move |counter| {
            if shard.number != counter / SHARD_LEN {
                shard = self.shard(base, counter);
            }
            shard.permutation.index(counter)
        })
    }

    fn spell_out(
        &self,
        functions: &[FunctionCode],
        shard: impl Fn(u64) -> Arc<Shard>,
    ) -> Arc<[Subject]> {
        let catalogue = self.catalogue.load();
        (0..)
            .zip(functions)
            .map(|(at, &function)| Subject {
                function,
                // A vehicle has only functions its catalogue knows, and the catalogue only grows.
                name: catalogue.name(function).cloned().unwrap_or_default(),
                status_uri: Arc::clone(&shard(at).uri),
            })
            .collect()
    }

    /// The shard in which `counter` is counted.
    fn shard(&self, base: &str, counter: u64) -> Arc<Shard> {
        let number = counter / SHARD_LEN;
        if let Some(shard) = &*self.shard.load()
            && shard.number == number
        {
            return Arc::clone(shard);
        }
        let shard = Arc::new(Shard {
            number,
            permutation: Permutation::new(&self.fleet.status_key, number),
            uri: ShardId {
                tag: self.fleet.tag,
                number,
            }
            .uri(base)
            .into(),
        });
        self.shard.store(Some(Arc::clone(&shard)));
        shard
    }

    pub(super) fn set_terminals_of(
        &self,
        identity: &IdentityId,
        change: impl FnOnce(&mut Vec<Arc<Terminal>>),
    ) {
        let mut all = self.terminals_of(identity.as_str()).to_vec();
        change(&mut all);
        self.terminals_of.pin().insert(identity.clone(), all.into());
    }
}
