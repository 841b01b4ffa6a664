//! Writing acks: what a car does.

use super::{Ack, TYP, label};
use crate::cbor::{Fixed, Write};
use crate::key::is_vehicle_id;
use crate::sign1::{ToBeSigned, write_header};
use crate::{Algorithm, PublicKey, Refusal, TIME_MAX};

/// The message that the vehicle must sign with this key, see [`ToBeSigned`].
///
/// # Errors
/// [`Refusal::OutOfBounds`] for an ack no server would take;
/// [`Refusal::AlgorithmMismatch`] when the algorithm is not one of the key's
/// curve.
pub fn to_be_signed(
    ack: &Ack<'_>,
    algorithm: Algorithm,
    key: &PublicKey,
) -> Result<ToBeSigned, Refusal> {
    if !is_vehicle_id(ack.vehicle) || ack.issued_at > TIME_MAX {
        return Err(Refusal::OutOfBounds);
    }
    if !key.fits(algorithm) {
        return Err(Refusal::AlgorithmMismatch);
    }
    let mut protected = Fixed::<64>::new();
    write_header(&mut protected, algorithm, Some(&key.kid()), TYP);
    Ok(ToBeSigned::new(protected.as_slice(), |out| {
        out.map(3);
        out.int(label::AUD);
        out.text(ack.vehicle);
        out.int(label::IAT);
        out.uint(ack.issued_at);
        out.int(label::ACK);
        match &ack.applied {
            Some(digest) => out.bytes(digest),
            None => out.bytes(&[]),
        }
    }))
}
