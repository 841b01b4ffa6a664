//! Building a COSE_Sign1: the message first, the signature from elsewhere.

use super::{CONTEXT, NO_EXTERNAL_DATA, TAG, label};
use crate::cbor::{Write, head, major};
use crate::{Algorithm, KID_LEN, SIGNATURE_LEN};
use alloc::vec::Vec;
use core::ops::Range;

/// A message waiting for its signature.
///
/// The Sig_structure contains the protected header and the claims, so it is
/// all that has to be kept until the signature comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToBeSigned {
    message: Vec<u8>,
    protected: Range<usize>,
    claims: Range<usize>,
}

impl ToBeSigned {
    /// Encodes a message; `write_claims` appends the claims map.
    pub(crate) fn new(protected: &[u8], write_claims: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut message = Vec::with_capacity(512);
        let claims = write_sig_structure(&mut message, protected, write_claims);
        let (_, head_len) = head(major::BYTES, protected.len() as u64);
        let start = CONTEXT.len().saturating_add(head_len);
        let protected = start..start.saturating_add(protected.len());
        Self {
            message,
            protected,
            claims,
        }
    }

    /// The Sig_structure (RFC 9052 §4.4): ECDSA signs its SHA-256, Ed25519
    /// signs these octets.
    #[must_use]
    pub fn message(&self) -> &[u8] {
        &self.message
    }

    /// The encoded protected header map.
    #[must_use]
    pub fn protected(&self) -> &[u8] {
        self.message.get(self.protected.clone()).unwrap_or(&[])
    }

    /// The encoded claims map.
    #[must_use]
    pub fn claims(&self) -> &[u8] {
        self.message.get(self.claims.clone()).unwrap_or(&[])
    }

    /// The finished object.
    #[must_use]
    pub fn assemble(&self, signature: &[u8; SIGNATURE_LEN]) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.message.len().saturating_add(SIGNATURE_LEN));
        assemble(&mut out, self.protected(), self.claims(), signature);
        out
    }
}

/// Appends the finished object: `18([protected, {}, claims, signature])`.
///
/// `protected` and `claims` are the contents of their byte strings, exactly
/// as they stood in the message that was signed.
pub fn assemble(
    out: &mut Vec<u8>,
    protected: &[u8],
    claims: &[u8],
    signature: &[u8; SIGNATURE_LEN],
) {
    out.head(major::TAG, TAG);
    out.array(4);
    out.bytes(protected);
    out.map(0);
    out.bytes(claims);
    out.bytes(signature);
}

/// Appends a protected header map.
pub(crate) fn write_header(
    out: &mut impl Write,
    algorithm: Algorithm,
    kid: Option<&[u8; KID_LEN]>,
    typ: &str,
) {
    out.map(if kid.is_some() { 3 } else { 2 });
    write_members(out, algorithm, kid, typ);
}

/// Appends the members `alg`, `kid` and `typ` of a protected header map.
pub(crate) fn write_members(
    out: &mut impl Write,
    algorithm: Algorithm,
    kid: Option<&[u8; KID_LEN]>,
    typ: &str,
) {
    out.int(label::ALG);
    out.int(algorithm.cose());
    if let Some(kid) = kid {
        out.int(label::KID);
        out.bytes(kid);
    }
    out.int(label::TYP);
    out.text(typ);
}

/// Appends `["Signature1", protected, h'', claims]` and says where the claims
/// stand.
///
/// The claims are encoded once, straight into the message: their length stands
/// before them, so room for a head of three octets is left and closed up in
/// the rare case that a shorter one is due.
pub(crate) fn write_sig_structure(
    out: &mut Vec<u8>,
    protected: &[u8],
    write_claims: impl FnOnce(&mut Vec<u8>),
) -> Range<usize> {
    out.put(CONTEXT);
    out.bytes(protected);
    out.put(NO_EXTERNAL_DATA);
    let head_at = out.len();
    out.put(&[0; 3]);
    let start = out.len();
    write_claims(out);
    let len = out.len().saturating_sub(start);
    let (octets, head_len) = head(major::BYTES, len as u64);
    let octets = octets.iter().copied().take(head_len);
    out.splice(head_at..start, octets);
    let start = head_at.saturating_add(head_len);
    start..start.saturating_add(len)
}
