//! Authorizations that stand in for one that is not there, so that a look-up in vain reads as much,
//! and from memory as cold, as one that finds something.
//!
//! They are drawn from the whole book, each with the same chance, and picked by a hash that nobody
//! outside can foresee: of two guesses, none can tell that they were met by the same one.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::domain::AuthorizationId;

/// How many there are at most. What they lead to is many times what a core's own cache holds.
const PLACES: u64 = 1 << 16;

/// The draw. The book's writer alone changes it.
pub(super) struct Decoys {
    places: Box<[Place]>,
    /// Authorizations that were drawn from.
    seen: AtomicU64,
    hasher: RandomState,
}

/// An id in two halves. Whoever reads them while they are written gets an id that nothing has, and
/// finds nothing, which is rare enough.
#[derive(Default)]
struct Place([AtomicU64; 2]);

impl Default for Decoys {
    fn default() -> Self {
        Self {
            places: (0..PLACES).map(|_| Place::default()).collect(),
            seen: AtomicU64::new(0),
            hasher: RandomState::new(),
        }
    }
}

impl Decoys {
    /// Takes an authorization that is new to the book into the draw.
    pub(super) fn add(&self, id: AuthorizationId) {
        let before = self.seen.fetch_add(1, Ordering::Relaxed);
        let at = if before < PLACES {
            before
        } else {
            self.hasher.hash_one(id) % (before + 1)
        };
        if let Some(place) = usize::try_from(at).ok().and_then(|at| self.places.get(at)) {
            let id = u128::from_be_bytes(id.0);
            place.0[0].store((id >> 64) as u64, Ordering::Relaxed);
            place.0[1].store(id as u64, Ordering::Relaxed);
        }
    }

    /// Begins anew with these.
    pub(super) fn become_of(&self, ids: impl Iterator<Item = AuthorizationId>) {
        self.seen.store(0, Ordering::Relaxed);
        ids.for_each(|id| self.add(id));
    }

    /// The one that stands in for `id`: always the same, as long as the book does not change.
    pub(super) fn of(&self, id: AuthorizationId) -> AuthorizationId {
        let drawn = self.seen.load(Ordering::Relaxed).clamp(1, PLACES);
        let at = (self.hasher.hash_one(id) % drawn) as usize;
        let [high, low] = self.places[at].0.each_ref();
        let halves = [high, low].map(|half| u128::from(half.load(Ordering::Relaxed)));
        AuthorizationId((halves[0] << 64 | halves[1]).to_be_bytes())
    }
}

/// An id that no authorization has: theirs are `UUIDv7`, and this is of another version.
pub(super) const fn nobody(mut id: AuthorizationId) -> AuthorizationId {
    id.0[6] ^= 0xf0;
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u64) -> AuthorizationId {
        AuthorizationId((u128::from(n) << 64 | 7).to_be_bytes())
    }

    #[test]
    fn every_one_drawn_stands_in_for_some_and_always_the_same_for_one() {
        let decoys = Decoys::default();
        (1..=3).for_each(|n| decoys.add(id(n)));
        let of = |n| decoys.of(id(n));
        let mut met: Vec<_> = (100..200).map(of).collect();
        assert_eq!(met, (100..200).map(of).collect::<Vec<_>>());
        met.sort_unstable();
        met.dedup();
        assert_eq!(met, [id(1), id(2), id(3)]);
        decoys.become_of([id(9)].into_iter());
        assert_eq!((of(100), of(101)), (id(9), id(9)));
    }

    #[test]
    fn those_that_come_late_are_drawn_like_those_that_came_first() {
        let decoys = Decoys::default();
        (1..=4 * PLACES).for_each(|n| decoys.add(id(n)));
        let first_half = (0..10_000).filter(|n| decoys.of(id(1 << 40 | n)) < id(2 * PLACES));
        let count = first_half.count();
        assert!((4_000..6_000).contains(&count), "{count} of 10000");
    }
}
