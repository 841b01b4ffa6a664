//! The model checker's `concurrent`, in place of `src/concurrent.rs`.
//!
//! Within a run all threads are the checker's and take turns on one thread of the system, so what
//! is done between two points is done at once. Nothing here holds a lock of the standard library
//! over a point.

use std::convert::Infallible;
use std::future::{IntoFuture, Pending, pending};
use std::sync::atomic::{self, Ordering};
use std::time::Duration;

pub(crate) use shuttle::sync::{Condvar, Mutex, MutexGuard};
pub(crate) use shuttle::thread;
pub(crate) use tokio::sync::oneshot;

pub(crate) mod channel;
mod entries;
mod map;

pub(crate) use entries::{DashMap, Entry};
pub(crate) use map::Map;

/// Here the checker may go on with another thread. The thread that loads the book is not one of
/// its own and is not switched.
pub(crate) fn point() {
    if shuttle::current::try_get_current_task().is_some() && !std::thread::panicking() {
        // Time does not pass, so this is nothing but a switch.
        thread::sleep(Duration::ZERO);
    }
}

/// An atomic number; each access is a point.
#[derive(Debug, Default)]
pub(crate) struct Counter(atomic::AtomicU64);

impl Counter {
    pub(crate) fn load(&self, order: Ordering) -> u64 {
        point();
        self.0.load(order)
    }

    pub(crate) fn fetch_add(&self, more: u64, order: Ordering) -> u64 {
        point();
        self.0.fetch_add(more, order)
    }

    pub(crate) fn fetch_max(&self, least: u64, order: Ordering) -> u64 {
        point();
        self.0.fetch_max(least, order)
    }
}

/// Whoever has something done off its thread waits for it: done at once, it comes to the same.
pub(crate) async fn spawn_blocking<T>(what: impl FnOnce() -> T) -> Result<T, Infallible> {
    point();
    let done = what();
    point();
    Ok(done)
}

/// No time passes.
pub(crate) fn sleep(_: Duration) -> Pending<()> {
    pending()
}

/// It is always in time.
pub(crate) async fn timeout<F: IntoFuture>(_: Duration, what: F) -> Result<F::Output, Infallible> {
    Ok(what.await)
}

/// Waits for what is told once.
pub(crate) fn wait<T>(told: oneshot::Receiver<T>) -> Result<T, oneshot::error::RecvError> {
    shuttle::future::block_on(told)
}
