//! Tickets: who waits for an item of the pipeline, whatever it is.
//!
//! A redemption holds its code set's reservation. An order belongs to a chunk, and the caller of a
//! chunk waits until each of its orders has its outcome. A ticket dropped unresolved says that its
//! item came to nothing and may be tried again.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedSemaphorePermit;

use super::reserve::{Outcome, Reservation};
use crate::concurrent::oneshot;

/// Who waits for one item.
pub(super) enum Ticket {
    /// Whoever redeems a code set, and those who joined.
    Redemption(Reservation),
    /// One order of a chunk.
    Order(Place),
}

impl Ticket {
    /// Tells whoever waits.
    pub(super) fn resolve(self, outcome: Outcome) {
        match self {
            Self::Redemption(reservation) => reservation.resolve(outcome),
            Self::Order(place) => place.resolve(outcome),
        }
    }
}

/// The outcomes of some orders that were let in together.
struct Chunk {
    outcomes: Mutex<Vec<Outcome>>,
    /// Orders without an outcome. Whoever takes it to zero has seen every other's outcome written
    /// (release, then acquire), and tells.
    left: AtomicUsize,
    /// The room these orders take up, given back when the last of them has its outcome.
    _room: Option<OwnedSemaphorePermit>,
    done: Mutex<Option<oneshot::Sender<Vec<Outcome>>>>,
}

/// One order's place in its chunk.
pub(super) struct Place {
    chunk: Arc<Chunk>,
    at: usize,
    resolved: bool,
}

/// Places for `count` orders, at least one, and where their outcomes will be told, in the same
/// order. They hold on to their `room` until then.
pub(super) fn chunk(
    count: usize,
    room: impl Into<Option<OwnedSemaphorePermit>>,
) -> (Vec<Place>, oneshot::Receiver<Vec<Outcome>>) {
    let (sender, receiver) = oneshot::channel();
    let chunk = Arc::new(Chunk {
        outcomes: Mutex::new(vec![Outcome::Released; count]),
        left: AtomicUsize::new(count),
        _room: room.into(),
        done: Mutex::new(Some(sender)),
    });
    let place = |at| Place {
        chunk: Arc::clone(&chunk),
        at,
        resolved: false,
    };
    ((0..count).map(place).collect(), receiver)
}

impl Place {
    fn resolve(mut self, outcome: Outcome) {
        self.resolved = true;
        let mut outcomes = lock(&self.chunk.outcomes);
        outcomes[self.at] = outcome;
        drop(outcomes);
        self.chunk.count_down();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.resolved {
            self.chunk.count_down();
        }
    }
}

impl Chunk {
    fn count_down(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        let outcomes = std::mem::take(&mut *lock(&self.outcomes));
        if let Some(done) = lock(&self.done).take()
            && done.send(outcomes).is_err()
        {
            // A client that has gone is no reason to undo work that is done.
            tracing::debug!("nobody waits for these orders any more");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{BundleId, RefusalCode};

    #[test]
    fn the_last_order_tells_of_all_and_what_is_dropped_came_to_nothing() {
        let (places, mut told) = chunk(3, None);
        let mut places = places.into_iter();
        let mut next = || places.next().expect("three places");
        next().resolve(Outcome::Answered(BundleId([1; 16])));
        drop(next());
        assert!(told.try_recv().is_err());
        next().resolve(Outcome::Refused(RefusalCode::Busy.into()));
        let outcomes = told.try_recv().expect("outcomes");
        assert!(matches!(
            outcomes[..],
            [Outcome::Answered(_), Outcome::Released, Outcome::Refused(_)]
        ));
    }
}
