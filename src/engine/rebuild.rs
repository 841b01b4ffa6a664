//! A bundle's keys from what is stored: a pure function, so the same bundle gives the same bytes
//! at the first answer and at every later one.

use fob_verify::key::{self, PROTECTED_LEN};
use fob_verify::receipt;
use fob_verify::sign1::assemble;
use fob_verify::tree::Section;

use super::Failure;
use crate::domain::Bundle;
use crate::hsm::Signature;
use crate::store::{Proof, SignedBundle, TreeProof};

/// Bytes of a key's claims, about.
const CLAIMS_LEN: usize = 512;

/// Hands the keys of a bundle, ready for a car, to `each`, in the order of `bundle.keys`.
///
/// # Errors
/// A fault where what is stored cannot be encoded: it was not written by this format.
pub fn each_key(signed: &SignedBundle, mut each: impl FnMut(&[u8])) -> Result<(), Failure> {
    let bundle = &signed.bundle;
    let protected = key::protected_header(bundle.algorithm, &bundle.epoch.0);
    let each: &mut dyn FnMut(&[u8]) = &mut each;
    match &signed.proof {
        Proof::Each(signatures) => signed_each(bundle, &protected, signatures, each),
        Proof::Tree(proof) => signed_in_tree(bundle, &protected, proof, each),
    }
}

/// The keys of a bundle, ready for a car, in the order of `bundle.keys`.
///
/// # Errors
/// As [`each_key`].
pub fn keys(signed: &SignedBundle) -> Result<Vec<Vec<u8>>, Failure> {
    let mut keys = Vec::with_capacity(signed.bundle.keys.len());
    each_key(signed, |key| keys.push(key.to_vec()))?;
    Ok(keys)
}

fn signed_each(
    bundle: &Bundle,
    protected: &[u8; PROTECTED_LEN],
    signatures: &[Signature],
    each: &mut dyn FnMut(&[u8]),
) -> Result<(), Failure> {
    if bundle.keys.len() != signatures.len() {
        let id = bundle.id;
        return Err(Failure::Fault(format!("bundle {id} lacks signatures")));
    }
    let mut claims = Vec::with_capacity(CLAIMS_LEN);
    let mut out = Vec::with_capacity(2 * CLAIMS_LEN);
    for ((subject, record), signature) in bundle.each_key().zip(signatures) {
        claims.clear();
        key::encode_claims(&mut claims, &bundle.claims(subject, record))
            .map_err(|why| fault(bundle, why))?;
        out.clear();
        assemble(&mut out, protected, &claims, signature);
        each(&out);
    }
    Ok(())
}

fn signed_in_tree(
    bundle: &Bundle,
    protected: &[u8; PROTECTED_LEN],
    proof: &TreeProof,
    each: &mut dyn FnMut(&[u8]),
) -> Result<(), Failure> {
    // All claims in one piece: they are hashed first, and needed again with the paths.
    let mut claims = Vec::with_capacity(CLAIMS_LEN * bundle.keys.len());
    let mut ends = Vec::with_capacity(bundle.keys.len());
    let mut leaves = Vec::with_capacity(bundle.keys.len());
    for (subject, record) in bundle.each_key() {
        let start = claims.len();
        key::encode_claims(&mut claims, &bundle.claims(subject, record))
            .map_err(|why| fault(bundle, why))?;
        leaves.push(key::leaf(protected, &claims[start..]));
        ends.push(claims.len());
    }
    let section = Section::new(proof.size, proof.first, leaves, &proof.outside)
        .map_err(|why| fault(bundle, why))?;
    let receipt_protected = receipt::protected_header(bundle.algorithm, &bundle.epoch.0);
    let mut out = Vec::with_capacity(3 * CLAIMS_LEN);
    let (mut start, mut index) = (0, proof.first);
    for (at, end) in ends.into_iter().enumerate() {
        out.clear();
        receipt::assemble(
            &mut out,
            protected,
            &claims[start..end],
            &receipt_protected,
            proof.size,
            index,
            section.path(at),
            &proof.signature,
        );
        each(&out);
        start = end;
        index += 1;
    }
    Ok(())
}

fn fault(bundle: &Bundle, why: fob_verify::Refusal) -> Failure {
    Failure::Fault(format!("bundle {}: {why}", bundle.id))
}
