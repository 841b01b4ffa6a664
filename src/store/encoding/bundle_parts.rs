//! The parts of a bundle that every store spells alike: floor 2, `store/encoding`.
//!
//! Keys are `[status index | [status index, max uses], …]`; a proof is one string of 64 bytes for
//! each key, or `[signature, size, first, outside]` of a tree, `outside` being one string of 32
//! bytes for each hash.

use fob_verify::tree::{HASH_LEN, Hash};
use minicbor::data::Type;
use minicbor::{Decoder, decode};

use super::cbor::{self, Into, Read, Written};
use crate::domain::KeyRecord;
use crate::hsm::Signature;
use crate::store::{Proof, TreeProof};

const SIGNATURE_LEN: usize = size_of::<Signature>();

/// Writes keys.
pub(in crate::store) fn write_keys(e: &mut Into<'_>, keys: &[KeyRecord]) -> Written {
    e.array(keys.len() as u64)?;
    for key in keys {
        match key.max_uses {
            None => e.u32(key.status_index)?,
            Some(max_uses) => e.array(2)?.u32(key.status_index)?.u32(max_uses)?,
        };
    }
    Ok(())
}

/// See [`write_keys`].
pub(in crate::store) fn read_keys(d: &mut Decoder<'_>) -> Read<Vec<KeyRecord>> {
    cbor::list(d, read_key_record)
}

/// Writes how keys were signed.
pub(in crate::store) fn write_proof(e: &mut Into<'_>, proof: &Proof) -> Written {
    match proof {
        Proof::Each(signatures) => e.bytes(signatures.as_flattened())?.ok(),
        Proof::Tree(tree) => {
            e.array(4)?.bytes(&tree.signature)?.u64(tree.size)?;
            e.u64(tree.first)?.bytes(tree.outside.as_flattened())?.ok()
        }
    }
}

/// See [`write_proof`].
pub(in crate::store) fn read_proof(d: &mut Decoder<'_>) -> Read<Proof> {
    if d.datatype()? == Type::Bytes {
        let (signatures, rest) = d.bytes()?.as_chunks::<SIGNATURE_LEN>();
        if !rest.is_empty() {
            return Err(decode::Error::message("part of a signature"));
        }
        return Ok(Proof::Each(signatures.to_vec()));
    }
    cbor::array(d, 4)?;
    let signature = d
        .bytes()?
        .try_into()
        .map_err(|_| decode::Error::message("part of a signature"))?;
    let (size, first) = (d.u64()?, d.u64()?);
    let (outside, rest): (&[Hash], _) = d.bytes()?.as_chunks::<HASH_LEN>();
    if !rest.is_empty() {
        return Err(decode::Error::message("part of a hash"));
    }
    Ok(Proof::Tree(TreeProof {
        signature,
        size,
        first,
        outside: outside.into(),
    }))
}

fn read_key_record(d: &mut Decoder<'_>) -> Read<KeyRecord> {
    if d.datatype()? != Type::Array {
        return Ok(KeyRecord {
            status_index: d.u32()?,
            max_uses: None,
        });
    }
    cbor::array(d, 2)?;
    Ok(KeyRecord {
        status_index: d.u32()?,
        max_uses: Some(d.u32()?),
    })
}
