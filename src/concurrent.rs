//! What the engine's threads share and wait with, named in one place: wiring.
//!
//! The model checker (`model/`) compiles the engine's own files with another module of this name,
//! in which each of these is a point where threads may be switched and no time passes. Whatever the
//! engine waits with comes from here, and so does whatever decides what is redeemed, changed or
//! revoked first. Locks that are held for a few lines and never while anything is waited for are
//! the standard library's.

pub(crate) use crossbeam::channel;
pub(crate) use dashmap::{DashMap, Entry};
pub(crate) use papaya::HashMap as Map;
pub(crate) use std::sync::atomic::AtomicU64 as Counter;
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};
pub(crate) use std::thread;
pub(crate) use tokio::sync::oneshot;
pub(crate) use tokio::task::spawn_blocking;
pub(crate) use tokio::time::{sleep, timeout};

/// Waits, off any runtime, for what is told once.
///
/// # Errors
/// Nobody will tell it any more.
pub(crate) fn wait<T>(told: oneshot::Receiver<T>) -> Result<T, oneshot::error::RecvError> {
    told.blocking_recv()
}
