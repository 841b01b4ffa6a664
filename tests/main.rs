//! Everything that is tested from outside, in one binary. Unit tests stand at the foot of the
//! files they test.
#![allow(
    missing_docs,
    unreachable_pub,
    reason = "tests are read by their names"
)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod act;
mod api;
mod audit;
mod batches;
mod certain;
mod change;
mod client;
mod cluster;
mod demo;
mod epochs;
mod erase;
mod faults;
mod fleets;
mod floors;
mod hostile;
mod hsm;
mod import;
mod issue;
mod lists;
mod moved;
mod offline;
mod once;
mod overload;
mod refusals;
mod restored;
mod secrets;
mod simulation;
mod standing;
mod status;
mod store;
mod support;
mod vectors;
mod vehicle;
