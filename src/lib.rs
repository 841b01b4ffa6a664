//! Fob issues virtual car keys: one HSM-signed key for each function of a vehicle.
//!
//! | floor | rooms | what they do |
//! |---|---|---|
//! | 4 | [`http`], [`cli`] | surfaces: decode, call the engine, encode |
//! | 3 | [`engine`] | the pipeline: admit, batch, prepare, sign, commit |
//! | 2 | [`hsm`], [`store`], [`clock`] | the outside world, behind one small trait each |
//! | 1 | [`domain`] | the rules |
//! | 0 | `fob-verify` | the format, and everything a vehicle runs |
//!
//! Imports point down, never up or sideways; `tests/floors.rs` holds them to it. The
//! architecture is told in `docs/architecture.md`, the formats in `docs/protocol.md`.

pub mod cli;
pub mod clock;
mod concurrent;
pub mod config;
pub mod domain;
pub mod engine;
pub mod hook;
pub mod hsm;
pub mod http;
pub mod metrics;
pub mod store;
mod tls;
