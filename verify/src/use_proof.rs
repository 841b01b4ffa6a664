//! The use proof: the phone's answer to the car's challenge.
//!
//! `18([<<{1: alg, 16: "application/fob-use+cwt"}>>, {}, <<{7: cti, 9: scope,
//! 10: nonce}>>, signature])`, signed by the key in the virtual key's `cnf`.
//! The header has no `kid`: the virtual key says whose signature it must be.

use crate::cbor::Reader;
use crate::key::FUNCTION_NAME_LEN_MAX;
use crate::sign1::Sign1;
use crate::{Algorithm, HolderKey, ID_LEN, Refusal, Verified, Verifier};

#[cfg(feature = "alloc")]
mod encode;
#[cfg(feature = "alloc")]
pub use encode::to_be_signed;

/// The largest use proof, in octets.
pub const USE_PROOF_LEN_MAX: usize = 320;

/// The `typ` of a use proof's header (RFC 9596).
pub const TYP: &str = "application/fob-use+cwt";

/// The fewest octets of a challenge.
pub const NONCE_LEN_MIN: usize = 16;

/// The most octets of a challenge.
pub const NONCE_LEN_MAX: usize = 64;

/// Claim labels (RFC 8392, RFC 8693 `scope`, RFC 9711 `eat_nonce`).
mod label {
    pub(super) const CTI: i64 = 7;
    pub(super) const SCOPE: i64 = 9;
    pub(super) const NONCE: i64 = 10;
}

/// What a holder proves: that it means to use this key, for this function,
/// in answer to this challenge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use<'a> {
    /// `cti`: the id of the virtual key.
    pub key_id: [u8; ID_LEN],
    /// `scope`: the name of the function, as in the virtual key.
    pub function_name: &'a str,
    /// `nonce`: the challenge, 16–64 octets the car has never used before.
    pub nonce: &'a [u8],
}

/// A well-formed use proof whose signature nobody has checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UseProof<'a> {
    envelope: Sign1<'a>,
    claims: Use<'a>,
}

impl<'a> UseProof<'a> {
    /// Reads a use proof of at most [`USE_PROOF_LEN_MAX`] octets.
    ///
    /// # Errors
    /// What of the form or the limits refuses it.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Refusal> {
        let envelope = Sign1::decode(bytes, USE_PROOF_LEN_MAX, TYP, false)?;
        let mut reader = Reader::new(envelope.claims, USE_PROOF_LEN_MAX)?;
        reader.map_of(3)?;
        reader.label(label::CTI)?;
        let key_id = *reader.array_of()?;
        reader.label(label::SCOPE)?;
        let function_name = reader.text(1, FUNCTION_NAME_LEN_MAX)?;
        reader.label(label::NONCE)?;
        let nonce = reader.bytes(NONCE_LEN_MIN, NONCE_LEN_MAX)?;
        reader.end()?;
        let claims = Use {
            key_id,
            function_name,
            nonce,
        };
        Ok(Self { envelope, claims })
    }

    /// The algorithm its header names.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.envelope.algorithm
    }

    /// Whether this holder signed exactly what is expected.
    ///
    /// # Errors
    /// In this order: [`Refusal::AlgorithmMismatch`] when the algorithm is
    /// not one of the holder's curve, [`Refusal::ProofMismatch`],
    /// [`Refusal::BadProof`].
    pub fn verify(
        &self,
        holder: &HolderKey,
        expected: &Use<'_>,
        verifier: &impl Verifier,
    ) -> Result<Verified<Use<'a>>, Refusal> {
        if !holder.fits(self.algorithm()) {
            return Err(Refusal::AlgorithmMismatch);
        }
        if self.claims != *expected {
            return Err(Refusal::ProofMismatch);
        }
        if !self.envelope.holds(holder.public(), verifier) {
            return Err(Refusal::BadProof);
        }
        Ok(Verified::mark(self.claims))
    }
}
