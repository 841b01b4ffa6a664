//! The engine under a model checker.
//!
//! These are the engine's own files, compiled once more with another `crate::concurrent`: whatever
//! its threads share or wait with becomes a point at which the checker may go on with another
//! thread. Rules, store and HSM are the real ones and are not looked into: what they do is one
//! step. No time passes.
//!
//! `tests/races` has what is tried: it says how the threads began, and what must hold however they
//! were switched.
//!
//! The engine's unit tests are not among them: they run where its threads are real.
#![cfg(not(test))]
#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    break_with_label_and_loop,
    clippy::unused_unit,
    reason = "the engine has more callers than there are here, and `select` other insides"
)]

pub use fob::{clock, domain, hook, hsm, store};

pub(crate) mod concurrent;

#[path = "../../src/engine/mod.rs"]
pub mod engine;
