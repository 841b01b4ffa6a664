//! The threads that help signing, floor 2: a rayon pool of a token's own.
//!
//! The caller of a batch signs too, so a token with n sessions has n − 1
//! helpers, and a batch never waits for a thread to wake up before it begins.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use rayon::{ThreadPool, ThreadPoolBuilder};

use super::HsmError;

/// Helpers, joined when dropped. A pool alone does not wait for its threads, and
/// one that still winds up while the process exits runs into what the HSM's
/// library has already taken down.
pub(super) struct Helpers {
    /// Some until dropped.
    pool: Option<ThreadPool>,
    threads: Vec<JoinHandle<()>>,
    /// Helpers not at work. Taken by compare-and-swap before work is handed to
    /// the pool, so that handed-over work begins at once: who waits for its end
    /// would wait for its turn otherwise. It guards nothing but this count.
    idle: AtomicUsize,
}

impl Helpers {
    pub(super) fn start(count: usize) -> Result<Self, HsmError> {
        let threads = Mutex::new(Vec::with_capacity(count));
        let pool = ThreadPoolBuilder::new()
            .num_threads(count)
            .spawn_handler(|thread| {
                let name = format!("hsm-{}", thread.index());
                let started = Builder::new().name(name).spawn(|| thread.run())?;
                threads
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(started);
                Ok(())
            })
            .build()
            .map_err(|_| HsmError::System {
                what: "threads for the HSM's sessions",
            })?;
        let threads = threads.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(Self {
            pool: Some(pool),
            threads,
            idle: AtomicUsize::new(count),
        })
    }

    /// Does `work` here and in up to `wanted` helpers, as many as are idle, and
    /// returns when all of them are done.
    pub(super) fn work_along(&self, wanted: usize, work: impl Fn() + Sync) {
        let reserved = Reserved::of(&self.idle, wanted);
        match &self.pool {
            Some(pool) if reserved.count > 0 => pool.in_place_scope(|scope| {
                for _ in 0..reserved.count {
                    scope.spawn(|_| work());
                }
                work();
            }),
            _ => work(),
        }
    }
}

/// Helpers reserved for one batch, given back when dropped, panics included.
struct Reserved<'a> {
    idle: &'a AtomicUsize,
    count: usize,
}

impl<'a> Reserved<'a> {
    fn of(idle: &'a AtomicUsize, wanted: usize) -> Self {
        let take = |idle: usize| Some(idle - idle.min(wanted));
        let before = idle.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        Self {
            idle,
            count: before.unwrap_or(0).min(wanted),
        }
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.idle.fetch_add(self.count, Ordering::Relaxed);
    }
}

impl Drop for Helpers {
    fn drop(&mut self) {
        drop(self.pool.take());
        for thread in self.threads.drain(..) {
            // A panic in it has been passed on to its caller already.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::sync::{Arc, Barrier};

    use super::*;

    struct CountedAtEnd(Arc<AtomicUsize>);

    impl Drop for CountedAtEnd {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    thread_local! {
        static HELD: RefCell<Option<CountedAtEnd>> = const { RefCell::new(None) };
    }

    #[test]
    fn caller_and_helpers_work_together_and_dropping_waits_for_the_helpers_end() {
        let ended = Arc::new(AtomicUsize::new(0));
        let helpers = Helpers::start(3).unwrap();
        let together = Barrier::new(4);
        let caller = std::thread::current().id();
        helpers.work_along(9, || {
            together.wait();
            if std::thread::current().id() != caller {
                HELD.with_borrow_mut(|held| *held = Some(CountedAtEnd(Arc::clone(&ended))));
            }
        });
        assert_eq!(helpers.idle.load(Ordering::Relaxed), 3);
        assert_eq!(ended.load(Ordering::SeqCst), 0);
        drop(helpers);
        assert_eq!(ended.load(Ordering::SeqCst), 3);
    }

    #[test]
    fn without_idle_helpers_the_caller_works_alone() {
        let helpers = Helpers::start(1).unwrap();
        let all = Reserved::of(&helpers.idle, 5);
        assert_eq!(all.count, 1);
        let times = AtomicUsize::new(0);
        helpers.work_along(1, || {
            times.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(times.into_inner(), 1);
    }
}
