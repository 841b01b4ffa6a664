//! Everything of `fob-verify` that can be tested from outside, by behaviour.

#![allow(clippy::unwrap_used, missing_docs)]

mod annotate;
mod car;
mod claims;
mod fixture;
mod garage;
mod jws;
mod mutations;
mod offline;
mod oracle;
mod receipt;
mod status;
mod sync;
mod tree;
mod trust;
mod vectors;
