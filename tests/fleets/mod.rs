//! Fleets among each other, and what each of them may rule: nothing crosses from one to another.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod acts;
mod attested;
mod certificates;
mod context;
mod crossing;
mod eligibility;
mod explain;
mod guessing;
mod hooks;
mod lapse;
mod limits;
mod owners;
mod presets;
mod recorded;
mod rental;
mod requests;
mod ruled;
mod terminals;
mod tokens;
