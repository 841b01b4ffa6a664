//! The one signed shape: a tagged COSE_Sign1 (RFC 9052 §4.2) with an empty
//! unprotected header and its payload inside.
//!
//! `18([protected, {}, claims, signature])`, signed over the Sig_structure
//! `["Signature1", protected, h'', claims]` (§4.4). Every object of Fob that
//! is signed by itself has it; they differ in the `typ` of their protected
//! header (RFC 9596) and in their claims. A key signed in a tree has another
//! shape, see [`crate::receipt`], and shares the Sig_structure.

use crate::cbor::{Reader, head, major};
use crate::{Algorithm, KID_LEN, PublicKey, Refusal, SIGNATURE_LEN, Verifier};

#[cfg(feature = "alloc")]
mod build;
#[cfg(feature = "alloc")]
pub use build::{ToBeSigned, assemble};
#[cfg(feature = "alloc")]
pub(crate) use build::{write_header, write_members, write_sig_structure};

/// Header parameters (RFC 9052 §3.1, RFC 9596).
pub(crate) mod label {
    pub(crate) const ALG: i64 = 1;
    pub(crate) const KID: i64 = 4;
    pub(crate) const TYP: i64 = 16;
}

/// The tag of COSE_Sign1 (RFC 9052 §2).
pub(crate) const TAG: u64 = 18;

/// The longest protected header, in octets.
pub(crate) const PROTECTED_LEN_MAX: usize = 64;

/// The start of every Sig_structure: `["Signature1", …`, four items.
pub(crate) const CONTEXT: &[u8] = b"\x84\x6aSignature1";

/// The octets of the empty byte string: no external data (RFC 9052 §4.3).
pub(crate) const NO_EXTERNAL_DATA: &[u8] = &[0x40];

/// A COSE_Sign1 taken apart, with nothing believed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sign1<'a> {
    pub(crate) algorithm: Algorithm,
    /// Absent where the format has no `kid`.
    pub(crate) kid: Option<[u8; KID_LEN]>,
    pub(crate) protected: &'a [u8],
    pub(crate) claims: &'a [u8],
    pub(crate) signature: &'a [u8; SIGNATURE_LEN],
}

impl<'a> Sign1<'a> {
    /// Takes an object of at most `len_max` octets apart; its header must be
    /// exactly `alg`, `kid` if `with_kid`, and this `typ`.
    pub(crate) fn decode(
        bytes: &'a [u8],
        len_max: usize,
        typ: &str,
        with_kid: bool,
    ) -> Result<Self, Refusal> {
        let mut reader = Reader::new(bytes, len_max)?;
        reader.tag(TAG)?;
        reader.array(4, 4)?;
        let protected = reader.bytes(0, PROTECTED_LEN_MAX)?;
        reader.map_of(0)?;
        let claims = reader.bytes(0, len_max)?;
        let signature = reader.array_of()?;
        reader.end()?;
        let (algorithm, kid) = read_header(protected, typ, with_kid)?;
        Ok(Self {
            algorithm,
            kid,
            protected,
            claims,
            signature,
        })
    }

    /// Whether the signature holds under this key.
    pub(crate) fn holds(&self, key: &PublicKey, verifier: &impl Verifier) -> bool {
        let signed = [self.protected, self.claims];
        holds(self.algorithm, key, signed, self.signature, verifier)
    }
}

/// Whether the signature holds over the Sig_structure of a protected header
/// and a payload, which need not stand in one object.
pub(crate) fn holds(
    algorithm: Algorithm,
    key: &PublicKey,
    [protected, payload]: [&[u8]; 2],
    signature: &[u8; SIGNATURE_LEN],
    verifier: &impl Verifier,
) -> bool {
    let (protected_head, protected_head_len) = head(major::BYTES, protected.len() as u64);
    let (payload_head, payload_head_len) = head(major::BYTES, payload.len() as u64);
    let message = [
        CONTEXT,
        protected_head.get(..protected_head_len).unwrap_or(&[]),
        protected,
        NO_EXTERNAL_DATA,
        payload_head.get(..payload_head_len).unwrap_or(&[]),
        payload,
    ];
    verifier.verify(algorithm, key, &message, signature)
}

/// Reads a protected header that is exactly `alg`, `kid` if `with_kid`, and
/// this `typ`.
pub(crate) fn read_header(
    protected: &[u8],
    typ: &str,
    with_kid: bool,
) -> Result<(Algorithm, Option<[u8; KID_LEN]>), Refusal> {
    let mut reader = Reader::new(protected, PROTECTED_LEN_MAX)?;
    reader.map_of(if with_kid { 3 } else { 2 })?;
    let members = read_members(&mut reader, typ, with_kid)?;
    reader.end()?;
    Ok(members)
}

/// Reads the members `alg`, `kid` if `with_kid`, and `typ`, which must be this.
pub(crate) fn read_members(
    reader: &mut Reader<'_>,
    typ: &str,
    with_kid: bool,
) -> Result<(Algorithm, Option<[u8; KID_LEN]>), Refusal> {
    reader.label(label::ALG)?;
    let algorithm = Algorithm::from_cose(reader.int()?).ok_or(Refusal::UnknownAlgorithm)?;
    let kid = if with_kid {
        reader.label(label::KID)?;
        Some(*reader.array_of()?)
    } else {
        None
    };
    reader.label(label::TYP)?;
    if reader.text(0, PROTECTED_LEN_MAX)? != typ {
        return Err(Refusal::WrongObject);
    }
    Ok((algorithm, kid))
}
