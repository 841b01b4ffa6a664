//! Turns: what is done about one thing, a code set mostly, one after the other.
//!
//! Guarantee: of all who hold a [`Turn`] of the same thing, one at a time has taken it. A turn
//! is remembered only while somebody holds it.

use std::hash::Hash;
use std::sync::Arc;

use dashmap::DashMap;
use tokio::sync::{Mutex, MutexGuard};

use crate::domain::AuthorizationId;

type Turnstiles<K> = DashMap<K, Arc<Mutex<()>>>;

/// All turns. No guard of the map leaves this file.
pub(crate) struct Turns<K: Eq + Hash = AuthorizationId>(Arc<Turnstiles<K>>);

impl<K: Eq + Hash> Default for Turns<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Eq + Hash + Copy> Turns<K> {
    /// A place in the row for this thing.
    pub(crate) fn of(&self, id: K) -> Turn<K> {
        let turnstile = Arc::clone(&self.0.entry(id).or_default());
        Turn {
            id,
            turnstile,
            all: Arc::clone(&self.0),
        }
    }
}

/// A place in the row.
pub(crate) struct Turn<K: Eq + Hash = AuthorizationId> {
    id: K,
    turnstile: Arc<Mutex<()>>,
    all: Arc<Turnstiles<K>>,
}

impl<K: Eq + Hash> Turn<K> {
    /// Waits for everybody before.
    pub(crate) async fn take(&self) -> MutexGuard<'_, ()> {
        self.turnstile.lock().await
    }
}

impl<K: Eq + Hash> Drop for Turn<K> {
    fn drop(&mut self) {
        drop(std::mem::take(&mut self.turnstile));
        // Only the map's is left: nobody is in the row, and nobody enters it meanwhile.
        self.all
            .remove_if(&self.id, |_, turnstile| Arc::strong_count(turnstile) == 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_and_nothing_is_left_behind() {
        let turns = Turns::default();
        let id = AuthorizationId([1; 16]);
        let (first, second) = (turns.of(id), turns.of(id));
        let taken = first.turnstile.try_lock();
        assert!(taken.is_ok() && second.turnstile.try_lock().is_err());
        drop(taken);
        drop(first);
        assert_eq!(turns.0.len(), 1);
        drop(second);
        assert!(turns.0.is_empty());
    }
}
