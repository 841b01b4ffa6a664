//! A map that is read without a lock: as `papaya`. Every look and every change is one step.

use std::borrow::Borrow;
use std::cell::OnceCell;
use std::collections::HashMap;
use std::collections::hash_map::{DefaultHasher, Iter, Keys, Values};
use std::hash::{BuildHasherDefault, Hash};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::point;

/// In the same order in every run.
type Entries<K, V> = HashMap<K, V, BuildHasherDefault<DefaultHasher>>;

/// The map.
pub(crate) struct Map<K, V>(Mutex<Arc<Entries<K, V>>>);

/// A view of it. What is looked at first stays as it was then; the engine looks once, or at what
/// its own thread alone changes.
pub(crate) struct Pinned<'a, K, V> {
    map: &'a Map<K, V>,
    seen: OnceCell<Arc<Entries<K, V>>>,
}

impl<K, V> Default for Map<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K, V> Map<K, V> {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) const fn pin(&self) -> Pinned<'_, K, V> {
        Pinned {
            map: self,
            seen: OnceCell::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        point();
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Entries<K, V>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K, V> Pinned<'_, K, V> {
    fn seen(&self) -> &Entries<K, V> {
        if self.seen.get().is_none() {
            point();
        }
        self.seen.get_or_init(|| Arc::clone(&self.map.lock()))
    }

    pub(crate) fn iter(&self) -> Iter<'_, K, V> {
        self.seen().iter()
    }

    pub(crate) fn keys(&self) -> Keys<'_, K, V> {
        self.seen().keys()
    }

    pub(crate) fn values(&self) -> Values<'_, K, V> {
        self.seen().values()
    }
}

impl<K: Clone + Eq + Hash, V: Clone> Pinned<'_, K, V> {
    pub(crate) fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.seen().get(key)
    }

    pub(crate) fn contains_key<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.seen().contains_key(key)
    }

    /// The value before.
    pub(crate) fn insert(&self, key: K, value: V) -> Option<&V> {
        point();
        let mut now = self.map.lock();
        let before = now.contains_key(&key).then(|| key.clone());
        if before.is_some() {
            self.seen.get_or_init(|| Arc::clone(&now));
        }
        Arc::make_mut(&mut now).insert(key, value);
        self.seen.get()?.get(&before?)
    }

    pub(crate) fn get_or_insert_with(&self, key: K, make: impl FnOnce() -> V) -> &V {
        point();
        let mut now = self.map.lock();
        if !now.contains_key(&key) {
            Arc::make_mut(&mut now).insert(key.clone(), make());
        }
        let seen = self.seen.get_or_init(|| Arc::clone(&now));
        seen.get(&key).expect("a view that is new")
    }

    /// The value before.
    pub(crate) fn remove(&self, key: &K) -> Option<&V> {
        point();
        let mut now = self.map.lock();
        if now.contains_key(key) {
            self.seen.get_or_init(|| Arc::clone(&now));
        }
        Arc::make_mut(&mut now).remove(key)?;
        self.seen.get()?.get(key)
    }

    pub(crate) fn update(&self, key: K, change: impl FnOnce(&V) -> V) {
        point();
        let mut now = self.map.lock();
        if let Some(value) = Arc::make_mut(&mut now).get_mut(&key) {
            *value = change(value);
        }
    }

    pub(crate) fn retain(&self, mut keep: impl FnMut(&K, &V) -> bool) {
        point();
        Arc::make_mut(&mut self.map.lock()).retain(|key, value| keep(key, value));
    }
}

impl<'a, K, V> IntoIterator for &'a Pinned<'_, K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
