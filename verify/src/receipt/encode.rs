//! Writing receipts: the message to sign first, then one key after the other.

use super::{PROTECTED_LEN, RFC9162_SHA256, TYP, label};
use crate::cbor::{Fixed, Write, head, major};
use crate::sign1::{CONTEXT, NO_EXTERNAL_DATA, TAG, write_members};
use crate::tree::{HASH_LEN, Hash};
use crate::{Algorithm, KID_LEN, SIGNATURE_LEN};
use alloc::vec::Vec;

/// Octets of a hash on the path: its head and itself.
const STEP_LEN: u64 = 2 + HASH_LEN as u64;

/// The encoded protected header of every receipt of this issuer key:
/// `{1: alg, 4: kid, 16: "application/fob-receipt+cose", 395: 1}`.
#[must_use]
pub fn protected_header(algorithm: Algorithm, kid: &[u8; KID_LEN]) -> [u8; PROTECTED_LEN] {
    let mut out = Fixed::new();
    out.map(4);
    write_members(&mut out, algorithm, Some(kid), TYP);
    out.int(label::VDS);
    out.uint(RFC9162_SHA256);
    out.into_array()
}

/// The Sig_structure over a tree's root (RFC 9052 §4.4): the one message that
/// is signed for a whole tree.
#[must_use]
pub fn to_be_signed(protected: &[u8; PROTECTED_LEN], root: &Hash) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    out.put(CONTEXT);
    out.bytes(protected);
    out.put(NO_EXTERNAL_DATA);
    out.bytes(root);
    out
}

/// Appends the finished key: `[protected, claims, receipt]`.
///
/// `key_protected` and `claims` are what [`crate::key::leaf`] hashed, `path`
/// the siblings from that leaf up, `signature` the one over
/// [`to_be_signed`] of the root they lead to. None of it is checked here; a
/// tree has at least two leaves.
#[expect(clippy::too_many_arguments, reason = "each is a field of the key")]
pub fn assemble<'a>(
    out: &mut Vec<u8>,
    key_protected: &[u8],
    claims: &[u8],
    receipt_protected: &[u8; PROTECTED_LEN],
    size: u64,
    index: u64,
    path: impl ExactSizeIterator<Item = &'a Hash>,
    signature: &[u8; SIGNATURE_LEN],
) {
    out.array(3);
    out.bytes(key_protected);
    out.bytes(claims);
    out.head(major::TAG, TAG);
    out.array(4);
    out.bytes(receipt_protected);
    out.map(1);
    out.int(label::VDP);
    out.map(1);
    out.int(label::INCLUSION);
    out.array(1);
    out.head(major::BYTES, proof_len(size, index, path.len() as u64));
    out.array(3);
    out.uint(size);
    out.uint(index);
    out.array(path.len());
    for hash in path {
        out.bytes(hash);
    }
    out.null();
    out.bytes(signature);
}

/// Octets of `[tree_size, leaf_index, path]`: its length stands before it.
fn proof_len(size: u64, index: u64, steps: u64) -> u64 {
    let heads = [size, index, steps].map(|argument| head(major::UINT, argument).1 as u64);
    let heads = heads
        .iter()
        .fold(1, |sum: u64, len| sum.saturating_add(*len));
    heads.saturating_add(steps.saturating_mul(STEP_LEN))
}
