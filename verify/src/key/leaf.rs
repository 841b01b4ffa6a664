//! A key as a leaf of a tree.

use super::PROTECTED_LEN;
use crate::cbor::Write;
use crate::tree::Hash;
use sha2::{Digest, Sha256};

/// What precedes the header in every leaf: 0x00 (RFC 9162 §2.1.1), an array
/// of three, and the text that keeps a leaf apart from any other entry.
const START: &[u8] = b"\x00\x83\x67fob-key";

/// The leaf of a key: SHA-256(0x00 ‖ `["fob-key", protected, claims]`).
///
/// `protected` and `claims` are the contents of their byte strings in the key.
#[must_use]
pub fn leaf(protected: &[u8; PROTECTED_LEN], claims: &[u8]) -> Hash {
    let mut hash = Sha256::new();
    hash.put(START);
    hash.bytes(protected);
    hash.bytes(claims);
    hash.finalize().into()
}
