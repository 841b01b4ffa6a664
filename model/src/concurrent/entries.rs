//! A map whose entries are locked: as `dashmap`, with a single shard, so that every two entries
//! share a lock.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::PoisonError;

use shuttle::sync::{Mutex, MutexGuard};

type Locked<'a, K, V> = MutexGuard<'a, HashMap<K, V>>;

/// The map.
pub(crate) struct DashMap<K, V>(Mutex<HashMap<K, V>>);

/// An entry, locked for as long as this lives.
pub(crate) enum Entry<'a, K, V> {
    /// It is there.
    Occupied(Occupied<'a, K, V>),
    /// It is not.
    Vacant(Vacant<'a, K, V>),
}

pub(crate) struct Occupied<'a, K, V> {
    map: Locked<'a, K, V>,
    key: K,
}

pub(crate) struct Vacant<'a, K, V> {
    map: Locked<'a, K, V>,
    key: K,
}

impl<K: Eq + Hash, V> DashMap<K, V> {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(HashMap::new()))
    }

    pub(crate) fn entry(&self, key: K) -> Entry<'_, K, V> {
        let map = self.lock();
        if map.contains_key(&key) {
            Entry::Occupied(Occupied { map, key })
        } else {
            Entry::Vacant(Vacant { map, key })
        }
    }

    pub(crate) fn remove(&self, key: &K) -> Option<(K, V)> {
        self.lock().remove_entry(key)
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> Locked<'_, K, V> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash, V> Occupied<'_, K, V> {
    pub(crate) fn get_mut(&mut self) -> &mut V {
        self.map.get_mut(&self.key).expect("it is there")
    }
}

impl<K: Eq + Hash, V> Vacant<'_, K, V> {
    pub(crate) fn insert(mut self, value: V) {
        self.map.insert(self.key, value);
    }
}
