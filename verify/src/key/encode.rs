//! Writing keys: the message to sign first, the key from it afterwards.

use super::label::{self, fob};
use super::{Claims, PROTECTED_LEN, TYP};
use crate::cbor::{Fixed, Write};
use crate::sign1::{ToBeSigned, write_header, write_sig_structure};
use crate::{Algorithm, KID_LEN, Refusal};
use alloc::vec::Vec;
use core::ops::Range;

/// The encoded protected header of every key that this issuer key signs:
/// `{1: alg, 4: kid, 16: "application/fob-key+cwt"}`.
#[must_use]
pub fn protected_header(algorithm: Algorithm, kid: &[u8; KID_LEN]) -> [u8; PROTECTED_LEN] {
    let mut out = Fixed::new();
    write_header(&mut out, algorithm, Some(kid), TYP);
    out.into_array()
}

/// Appends the Sig_structure of a key to `out` (RFC 9052 §4.4) and returns
/// where in `out` the encoded claims stand, so that [`crate::sign1::assemble`]
/// can take them from there.
///
/// # Errors
/// [`Refusal::OutOfBounds`] when the claims exceed the limits; `out` is then
/// as it was.
pub fn to_be_signed(
    out: &mut Vec<u8>,
    protected: &[u8; PROTECTED_LEN],
    claims: &Claims<'_>,
) -> Result<Range<usize>, Refusal> {
    claims.check_limits()?;
    Ok(write_sig_structure(out, protected, |out| {
        write_claims(out, claims)
    }))
}

/// The message of one key on its own, see [`ToBeSigned`].
///
/// # Errors
/// [`Refusal::OutOfBounds`] when the claims exceed the limits.
pub fn encode(protected: &[u8; PROTECTED_LEN], claims: &Claims<'_>) -> Result<ToBeSigned, Refusal> {
    claims.check_limits()?;
    Ok(ToBeSigned::new(protected, |out| write_claims(out, claims)))
}

/// Appends the encoded claims map alone: what a rebuild compares, and what a
/// tree of keys hashes.
///
/// # Errors
/// [`Refusal::OutOfBounds`] when the claims exceed the limits; `out` is then
/// as it was.
pub fn encode_claims(out: &mut Vec<u8>, claims: &Claims<'_>) -> Result<(), Refusal> {
    claims.check_limits()?;
    write_claims(out, claims);
    Ok(())
}

fn write_claims(out: &mut Vec<u8>, claims: &Claims<'_>) {
    out.map(10);
    out.int(label::ISS);
    out.text(claims.issuer);
    out.int(label::AUD);
    out.text(claims.vehicle);
    out.int(label::EXP);
    out.uint(claims.expires);
    out.int(label::NBF);
    out.uint(claims.not_before);
    out.int(label::IAT);
    out.uint(claims.issued_at);
    out.int(label::CTI);
    out.bytes(&claims.key_id);
    out.int(label::CNF);
    out.map(1);
    out.int(label::CNF_COSE_KEY);
    claims.holder.write(out);
    out.int(label::SCOPE);
    out.text(claims.function_name);
    out.int(label::STATUS);
    out.map(1);
    out.text(label::STATUS_LIST);
    out.map(2);
    out.text(label::STATUS_IDX);
    out.uint(claims.status.index.into());
    out.text(label::STATUS_URI);
    out.text(claims.status.uri);
    out.int(label::FOB);
    write_fob(out, claims);
}

fn write_fob(out: &mut Vec<u8>, claims: &Claims<'_>) {
    let optional = [
        claims.region.is_some(),
        claims.max_uses.is_some(),
        claims.recurring.is_some(),
    ];
    let optional = optional.into_iter().filter(|is_there| *is_there).count();
    out.map(optional.saturating_add(5));
    out.int(fob::FUNCTION);
    out.uint(claims.function.into());
    out.int(fob::BUNDLE);
    out.bytes(&claims.bundle);
    out.int(fob::VERSION);
    out.uint(claims.version.into());
    out.int(fob::VEHICLE_EPOCH);
    out.uint(claims.vehicle_epoch.into());
    if let Some(region) = &claims.region {
        out.int(fob::REGION);
        region.write(out);
    }
    if let Some(max_uses) = claims.max_uses {
        out.int(fob::MAX_USES);
        out.uint(max_uses.into());
    }
    out.int(fob::FLEET);
    out.bytes(&claims.fleet);
    if let Some(recurring) = &claims.recurring {
        out.int(fob::RECURRING);
        recurring.write(out);
    }
}
