//! A bundle's keys from what is stored: a pure function, so the same bundle gives the same bytes
//! at the first answer and at every later one.

use fob_verify::key;
use fob_verify::sign1::assemble;

use super::Failure;
use crate::store::SignedBundle;

/// The keys of a bundle, ready for a car, in the order of `bundle.keys`.
///
/// # Errors
/// A fault where what is stored cannot be encoded: it was not written by this format.
pub fn keys(signed: &SignedBundle) -> Result<Vec<Vec<u8>>, Failure> {
    let bundle = &signed.bundle;
    let protected = key::protected_header(bundle.algorithm, &bundle.epoch.0);
    if bundle.keys.len() != signed.signatures.len() {
        return Err(Failure::Fault(format!(
            "bundle {} lacks signatures",
            bundle.id
        )));
    }
    let mut claims = Vec::with_capacity(512);
    let one = |(record, signature)| {
        claims.clear();
        key::encode_claims(&mut claims, &bundle.claims(record))
            .map_err(|why| Failure::Fault(format!("bundle {}: {why}", bundle.id)))?;
        let mut out = Vec::with_capacity(claims.len() + 128);
        assemble(&mut out, &protected, &claims, signature);
        Ok(out)
    };
    bundle
        .keys
        .iter()
        .zip(&signed.signatures)
        .map(one)
        .collect()
}
