//! Writing use proofs: what a phone does.

use super::{NONCE_LEN_MAX, NONCE_LEN_MIN, TYP, Use, label};
use crate::cbor::{Fixed, Write};
use crate::key::FUNCTION_NAME_LEN_MAX;
use crate::sign1::{ToBeSigned, write_header};
use crate::{Algorithm, Refusal};

/// The message that the holder must sign, see [`ToBeSigned`].
///
/// # Errors
/// [`Refusal::OutOfBounds`] for a function name or a nonce outside its limits.
pub fn to_be_signed(algorithm: Algorithm, claims: &Use<'_>) -> Result<ToBeSigned, Refusal> {
    let sound = (1..=FUNCTION_NAME_LEN_MAX).contains(&claims.function_name.len())
        && (NONCE_LEN_MIN..=NONCE_LEN_MAX).contains(&claims.nonce.len());
    if !sound {
        return Err(Refusal::OutOfBounds);
    }
    let mut protected = Fixed::<64>::new();
    write_header(&mut protected, algorithm, None, TYP);
    Ok(ToBeSigned::new(protected.as_slice(), |out| {
        out.map(3);
        out.int(label::CTI);
        out.bytes(&claims.key_id);
        out.int(label::SCOPE);
        out.text(claims.function_name);
        out.int(label::NONCE);
        out.bytes(claims.nonce);
    }))
}
