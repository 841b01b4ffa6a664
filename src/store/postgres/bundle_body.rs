//! What of a bundle no column holds, format 1: floor 2, `store/postgres`.
//!
//! A deterministic CBOR array:
//!
//! `[vehicle epoch, alg, holder, issued at, not before, region, recurring, keys, proof]`
//!
//! `holder` is a short public key; `region` and `recurring` are null where there is none. A body
//! is believed only if writing it again gives the same bytes.

use fob_verify::region::Region;
use fob_verify::window::Recurring;
use fob_verify::{Algorithm, HolderKey};
use minicbor::decode::Error;
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{IsNull, ToSql, Type, accepts, to_sql_checked};

use crate::domain::{KeyRecord, UnixTime};
use crate::store::encoding::{bundle_parts, cbor, corrupt};
use crate::store::{Proof, SignedBundle, StoreError};

/// The number of this format, which stands beside each body.
pub(super) const FORMAT: i64 = 1;

/// Room for a body.
const BODY_LEN: usize = 640;

/// What a body says.
pub(super) struct Body {
    pub(super) vehicle_epoch: u32,
    pub(super) algorithm: Algorithm,
    pub(super) holder: HolderKey,
    pub(super) issued_at: UnixTime,
    pub(super) not_before: UnixTime,
    pub(super) region: Option<Box<Region>>,
    pub(super) recurring: Option<Box<Recurring>>,
    pub(super) keys: Vec<KeyRecord>,
    pub(super) proof: Proof,
}

/// Writes what of `signed` no column holds.
pub(super) fn encode(signed: &SignedBundle) -> Result<Vec<u8>, StoreError> {
    let mut bytes = Vec::with_capacity(BODY_LEN);
    let bundle = &signed.bundle;
    let (holder, holder_len) = cbor::short_key(&bundle.holder);
    cbor::write(&mut bytes, |e| {
        e.array(9)?
            .u32(bundle.vehicle_epoch)?
            .i64(bundle.algorithm.cose())?
            .bytes(&holder[..holder_len])?
            .u64(bundle.issued_at)?
            .u64(bundle.window.not_before)?;
        cbor::write_region(e, bundle.region.as_deref())?;
        cbor::write_recurring(e, bundle.recurring.as_deref())?;
        bundle_parts::write_keys(e, &bundle.keys)?;
        bundle_parts::write_proof(e, &signed.proof)
    })?;
    Ok(bytes)
}

/// A body that is written when it is sent, while the database is busy with what was sent before.
#[derive(Debug)]
pub(super) struct Unwritten<'a>(pub(super) &'a SignedBundle);

impl ToSql for Unwritten<'_> {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(&encode(self.0)?);
        Ok(IsNull::No)
    }

    accepts!(BYTEA);
    to_sql_checked!();
}

/// Reads a body. Whoever has the whole bundle compares it with [`encode`].
///
/// # Errors
/// [`StoreError::Corrupt`] for what is not one.
pub(super) fn decode(bytes: &[u8]) -> Result<Body, StoreError> {
    cbor::read("a bundle", bytes, |d| {
        cbor::array(d, 9)?;
        Ok(Body {
            vehicle_epoch: d.u32()?,
            algorithm: Algorithm::from_cose(d.i64()?)
                .ok_or_else(|| Error::message("an unknown algorithm"))?,
            holder: cbor::read_key(d.bytes()?)?,
            issued_at: d.u64()?,
            not_before: d.u64()?,
            region: cbor::read_region(d)?.map(Box::new),
            recurring: cbor::read_recurring(d)?.map(Box::new),
            keys: bundle_parts::read_keys(d)?,
            proof: bundle_parts::read_proof(d)?,
        })
    })
}

/// Whether `bytes` are what [`encode`] makes of `signed`.
pub(super) fn check(signed: &SignedBundle, bytes: &[u8]) -> Result<(), StoreError> {
    let whole = match &signed.proof {
        Proof::Each(signatures) => signatures.len() == signed.bundle.keys.len(),
        Proof::Tree(_) => true,
    };
    (whole && encode(signed)? == bytes)
        .then_some(())
        .ok_or_else(|| corrupt("a bundle: not as it was written"))
}
