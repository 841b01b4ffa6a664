//! Reading acks, and believing them: what a server does.

use super::{ACK_LEN_MAX, Ack, TYP, label};
use crate::cbor::Reader;
use crate::key::{VEHICLE_LEN_MAX, is_vehicle_id};
use crate::sign1::Sign1;
use crate::{Algorithm, DIGEST_LEN, KID_LEN, PublicKey, Refusal, Verified, Verifier};

/// A well-formed ack whose signature nobody has checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignedAck<'a> {
    envelope: Sign1<'a>,
    kid: [u8; KID_LEN],
    claims: Ack<'a>,
}

impl<'a> SignedAck<'a> {
    /// Reads an ack of at most [`ACK_LEN_MAX`] octets.
    ///
    /// # Errors
    /// What of the form or the limits refuses it.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Refusal> {
        let envelope = Sign1::decode(bytes, ACK_LEN_MAX, TYP, true)?;
        let kid = envelope.kid.ok_or(Refusal::UnexpectedLabel)?;
        let mut reader = Reader::new(envelope.claims, ACK_LEN_MAX)?;
        reader.map_of(3)?;
        reader.label(label::AUD)?;
        let vehicle = reader.text(1, VEHICLE_LEN_MAX)?;
        reader.label(label::IAT)?;
        let issued_at = reader.time()?;
        reader.label(label::ACK)?;
        let applied = match reader.bytes(0, DIGEST_LEN)? {
            [] => None,
            digest => Some(digest.try_into().map_err(|_| Refusal::OutOfBounds)?),
        };
        reader.end()?;
        if !is_vehicle_id(vehicle) {
            return Err(Refusal::OutOfBounds);
        }
        let claims = Ack {
            vehicle,
            issued_at,
            applied,
        };
        Ok(Self {
            envelope,
            kid,
            claims,
        })
    }

    /// The algorithm its header names.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.envelope.algorithm
    }

    /// What it claims, unverified: whose key to look for.
    #[must_use]
    pub const fn unverified(&self) -> &Ack<'a> {
        &self.claims
    }

    /// Whether the vehicle of this id, which has this key, signed it.
    ///
    /// # Errors
    /// In this order: [`Refusal::WrongVehicle`],
    /// [`Refusal::AlgorithmMismatch`] when the algorithm is not one of the
    /// key's curve, [`Refusal::UnknownIssuer`] when `kid` is not the key's,
    /// [`Refusal::BadSignature`].
    pub fn verify(
        &self,
        vehicle: &str,
        key: &PublicKey,
        verifier: &impl Verifier,
    ) -> Result<Verified<Ack<'a>>, Refusal> {
        if self.claims.vehicle != vehicle {
            return Err(Refusal::WrongVehicle);
        }
        if !key.fits(self.algorithm()) {
            return Err(Refusal::AlgorithmMismatch);
        }
        if self.kid != key.kid() {
            return Err(Refusal::UnknownIssuer);
        }
        if !self.envelope.holds(key, verifier) {
            return Err(Refusal::BadSignature);
        }
        Ok(Verified::mark(self.claims))
    }
}
