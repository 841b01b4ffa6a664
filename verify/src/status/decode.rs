//! Reading status lists, and believing them.

use super::{Bits, COMPRESSED_LEN_MAX, LIST_LEN_MAX, Room, STATUS_LEN_MAX, Status, TYP, label};
use crate::cbor::Reader;
use crate::key::STATUS_URI_LEN_MAX;
use crate::sign1::Sign1;
use crate::trust::TrustList;
use crate::{Algorithm, KID_LEN, Refusal, Verified, Verifier};

/// A status list, still compressed, over the bytes it was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusList<'a> {
    uri: &'a str,
    expires: u64,
    issued_at: u64,
    compressed: &'a [u8],
    ttl_s: u32,
    signer: ([u8; KID_LEN], Algorithm),
}

/// Reads a status list token of at most [`STATUS_LEN_MAX`] octets and checks
/// that a trusted issuer signed it while it was trusted. Neither its age nor
/// its address is looked at, and it is not inflated.
///
/// # Errors
/// What of the form or the limits refuses it; in this order
/// [`Refusal::UnknownIssuer`], [`Refusal::AlgorithmMismatch`],
/// [`Refusal::OutsideIssuerWindow`], [`Refusal::BadSignature`].
pub fn verify<'a>(
    bytes: &'a [u8],
    trust: &Verified<TrustList<'_>>,
    verifier: &impl Verifier,
) -> Result<Verified<StatusList<'a>>, Refusal> {
    let envelope = Sign1::decode(bytes, STATUS_LEN_MAX, TYP, true)?;
    let kid = envelope.kid.ok_or(Refusal::UnexpectedLabel)?;
    let list = StatusList::read(envelope.claims, (kid, envelope.algorithm))?;
    trust.check_signed(&envelope, list.issued_at, verifier)?;
    Ok(Verified::mark(list))
}

impl<'a> StatusList<'a> {
    /// `sub`: the address of the list, as keys name it.
    #[must_use]
    pub const fn uri(&self) -> &'a str {
        self.uri
    }

    /// `iat`: when it was made, in seconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn issued_at(&self) -> u64 {
        self.issued_at
    }

    /// `exp`: the first second at which it is void.
    #[must_use]
    pub const fn expires(&self) -> u64 {
        self.expires
    }

    /// The first second at which it is no longer fresh, `iat + ttl`: from
    /// then on a newer one should be had.
    #[must_use]
    pub const fn fresh_until(&self) -> u64 {
        self.issued_at.saturating_add(self.ttl_s as u64)
    }

    /// `ttl`: for how many seconds it is fresh.
    #[must_use]
    pub const fn ttl_s(&self) -> u32 {
        self.ttl_s
    }

    /// `lst`: the list as a zlib stream.
    #[must_use]
    pub const fn compressed(&self) -> &'a [u8] {
        self.compressed
    }

    /// The status of the key at this index.
    ///
    /// # Errors
    /// [`Refusal::BadCompression`], [`Refusal::StatusIndex`] or
    /// [`Refusal::UnknownStatus`].
    pub fn status(&self, index: u32, room: &mut Room<LIST_LEN_MAX>) -> Result<Status, Refusal> {
        let value = room.look_up(self.compressed, Bits::Two, index)?;
        Status::from_value(value)
    }

    /// Whether it may still be used at `now`.
    ///
    /// # Errors
    /// [`Refusal::StatusListExpired`].
    pub const fn check_time(&self, now: u64) -> Result<(), Refusal> {
        if now < self.expires {
            Ok(())
        } else {
            Err(Refusal::StatusListExpired)
        }
    }

    /// Whether a car that holds a list of this address, made at `held`, takes
    /// this one.
    ///
    /// # Errors
    /// [`Refusal::StatusListNotNewer`].
    pub const fn check_newer_than(&self, held: u64) -> Result<(), Refusal> {
        if self.issued_at > held {
            Ok(())
        } else {
            Err(Refusal::StatusListNotNewer)
        }
    }

    /// Whether its signer is on this trust list, which may be newer than the
    /// one it was verified under: a list from an issuer that is no longer
    /// listed is void.
    ///
    /// # Errors
    /// [`Refusal::UnknownIssuer`], [`Refusal::AlgorithmMismatch`] or
    /// [`Refusal::OutsideIssuerWindow`].
    pub fn check_issuer(&self, trust: &Verified<TrustList<'_>>) -> Result<(), Refusal> {
        let (kid, algorithm) = &self.signer;
        trust.entry_for(kid, *algorithm, self.issued_at).map(|_| ())
    }

    fn read(claims: &'a [u8], signer: ([u8; KID_LEN], Algorithm)) -> Result<Self, Refusal> {
        let mut reader = Reader::new(claims, STATUS_LEN_MAX)?;
        reader.map_of(5)?;
        reader.label(label::SUB)?;
        let uri = reader.text(1, STATUS_URI_LEN_MAX)?;
        reader.label(label::EXP)?;
        let expires = reader.time()?;
        reader.label(label::IAT)?;
        let issued_at = reader.time()?;
        reader.label(label::STATUS_LIST)?;
        reader.map_of(2)?;
        reader.text_label(label::LST)?;
        let compressed = reader.bytes(1, COMPRESSED_LEN_MAX)?;
        reader.text_label(label::BITS)?;
        let bits = reader.uint()?;
        reader.label(label::TTL)?;
        let ttl_s = reader.uint32()?;
        reader.end()?;
        if bits != Bits::Two as u64 || issued_at >= expires || ttl_s == 0 {
            return Err(Refusal::OutOfBounds);
        }
        Ok(Self {
            uri,
            expires,
            issued_at,
            compressed,
            ttl_s,
            signer,
        })
    }
}
