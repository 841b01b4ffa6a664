//! The format of Fob's virtual keys and the check a vehicle runs.
//!
//! Floor 0: this crate knows bytes, integers and signatures. It has no I/O,
//! no clock, no randomness and no private key; the time, the position and the
//! challenge come in as arguments, and what a car remembers stands behind one
//! small trait. Without the feature `alloc` nothing here allocates.
//!
//! | module | object |
//! |---|---|
//! | [`key`] | a virtual key, signed by itself or in a tree |
//! | [`receipt`], [`tree`] | what proves that a key was signed in a tree |
//! | [`trust`] | the trust list: which issuer keys a car believes, and when |
//! | [`status`] | the status list: which keys are revoked or suspended |
//! | [`sync`], [`ack`] | what a server tells a car, and the car's answer |
//! | [`code_set`] | the text an owner hands on |
//! | [`use_proof`] | the phone's answer to the car's challenge |
//! | [`region`], [`window`] | where and when a key works |
//! | [`vehicle`] | the vehicle's side: what a car asks, takes and remembers |
//! | [`public_key`], [`issuer_key`], [`holder_key`] | public keys and their names |
//! | [`sign1`], [`signature`] | the one signed shape, and how it is verified |
//!
//! The wire format is described, with every intermediate value, in
//! `docs/protocol.md`.
//!
//! Invariant: nothing in this crate panics, recurses or allocates in
//! proportion to a length found in its input; every object has a largest size
//! and every list a largest count, checked before anything is read.

#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]
#![cfg_attr(
    not(feature = "alloc"),
    expect(dead_code, reason = "only the encoders call what writes items")
)]

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod ack;
mod algorithm;
mod base32;
mod cbor;
pub mod code_set;
mod geometry;
pub mod holder_key;
pub mod issuer_key;
pub mod key;
pub mod public_key;
pub mod receipt;
mod refusal;
pub mod region;
pub mod sign1;
pub mod signature;
pub mod status;
pub mod sync;
pub mod tree;
pub mod trust;
pub mod use_proof;
pub mod vehicle;
mod verified;
pub mod window;

pub use algorithm::Algorithm;
pub use holder_key::HolderKey;
pub use issuer_key::IssuerKey;
pub use public_key::PublicKey;
pub use refusal::Refusal;
pub use signature::{RustCrypto, SIGNATURE_LEN, Verifier};
pub use verified::Verified;

/// The latest time any object may state: the end of the year 9999, in seconds
/// since 1970-01-01T00:00:00Z. It keeps every sum of times far from overflow.
pub const TIME_MAX: u64 = 253_402_300_799;

/// Octets in a `kid`: the start of an issuer key's thumbprint.
pub const KID_LEN: usize = 8;

/// Octets in every id the server makes: key, bundle, fleet, code set.
pub const ID_LEN: usize = 16;

/// Octets of a SHA-256 digest.
pub const DIGEST_LEN: usize = 32;
