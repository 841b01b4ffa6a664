//! The threads that sign, floor 2: a rayon pool of a token's own, joined when
//! it is dropped.
//!
//! A pool alone does not wait for its threads. One that still winds up while
//! the process exits runs into what the HSM's library has already taken down.

use std::sync::{Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use rayon::{ThreadPool, ThreadPoolBuilder};

use super::HsmError;

/// As many threads as a token has sessions.
pub(super) struct SigningThreads {
    /// Some until dropped.
    pool: Option<ThreadPool>,
    threads: Vec<JoinHandle<()>>,
}

impl SigningThreads {
    pub(super) fn start(count: usize) -> Result<Self, HsmError> {
        let threads = Mutex::new(Vec::with_capacity(count));
        let pool = ThreadPoolBuilder::new()
            .num_threads(count)
            .spawn_handler(|thread| {
                let started = Builder::new().name(format!("hsm-{}", thread.index())).spawn(|| thread.run())?;
                threads.lock().unwrap_or_else(PoisonError::into_inner).push(started);
                Ok(())
            })
            .build()
            .map_err(|_| HsmError::System { what: "threads for the HSM's sessions" })?;
        Ok(Self { pool: Some(pool), threads: threads.into_inner().unwrap_or_else(PoisonError::into_inner) })
    }

    /// Does `work` in these threads and waits for it.
    pub(super) fn install<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        match &self.pool {
            Some(pool) => pool.install(work),
            // Only while being dropped, when nobody can call.
            None => work(),
        }
    }
}

impl Drop for SigningThreads {
    fn drop(&mut self) {
        drop(self.pool.take());
        for thread in self.threads.drain(..) {
            // A panic in it has been passed on to the caller of `install` already.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    struct CountedAtEnd(Arc<AtomicUsize>);

    impl Drop for CountedAtEnd {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    thread_local! {
        static HELD: std::cell::RefCell<Option<CountedAtEnd>> = const { std::cell::RefCell::new(None) };
    }

    #[test]
    fn dropping_waits_for_every_thread_to_be_gone() {
        let ended = Arc::new(AtomicUsize::new(0));
        let threads = SigningThreads::start(3).unwrap();
        threads.install(|| {
            rayon::broadcast(|_| HELD.with_borrow_mut(|held| *held = Some(CountedAtEnd(Arc::clone(&ended)))));
        });
        assert_eq!(ended.load(Ordering::SeqCst), 0);
        drop(threads);
        assert_eq!(ended.load(Ordering::SeqCst), 3);
    }
}
