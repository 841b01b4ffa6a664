//! Bundles as rows keep them, format 1: floor 2, `store/sqlite`.
//!
//! A deterministic CBOR array:
//!
//! `[version, vehicle epoch, alg, issuer, holder, issued at, not before, not after, region,
//! recurring, [[subject, status index, max uses?], …], signatures]`
//!
//! `issuer` and `subject` are numbers of contexts; `holder` is a short public key; `region` is null
//! where there is none; `signatures` is one string of 64 bytes for each key. What the row's
//! columns and the authorization say is not repeated, and neither is what can be computed: the
//! holder's thumbprint.
//!
//! A body is believed only if writing it again gives the same bytes.

use fob_verify::{Algorithm, HolderKey, RecurringWindow, Region};
use minicbor::decode;

use super::cbor::{self, Into, Read, Written};
use super::error::corrupt;
use crate::domain::{UnixTime, Window};
use crate::hsm::Signature;
use crate::store::StoreError;

/// The number of this format, which stands beside each body.
pub(super) const FORMAT: i64 = 1;

const SIGNATURE_LEN: usize = size_of::<Signature>();

/// A body, with contexts by number.
#[derive(Debug, PartialEq)]
pub(super) struct Body<'a> {
    pub(super) version: u32,
    pub(super) vehicle_epoch: u32,
    pub(super) algorithm: Algorithm,
    pub(super) issuer: u64,
    pub(super) holder: HolderKey,
    pub(super) issued_at: UnixTime,
    pub(super) window: Window,
    pub(super) region: Option<std::borrow::Cow<'a, Region>>,
    pub(super) recurring: std::borrow::Cow<'a, [RecurringWindow]>,
    pub(super) keys: Vec<Key>,
    pub(super) signatures: std::borrow::Cow<'a, [Signature]>,
}

/// One key of a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) subject: u64,
    pub(super) status_index: u32,
    pub(super) max_uses: Option<u32>,
}

impl Body<'_> {
    /// Writes the body.
    pub(super) fn encode(&self) -> Result<Vec<u8>, StoreError> {
        cbor::written(|e| self.write(e))
    }

    fn write(&self, e: &mut Into<'_>) -> Written {
        let (holder, holder_len) = cbor::short_key(&self.holder);
        e.array(12)?.u32(self.version)?.u32(self.vehicle_epoch)?.i64(self.algorithm.cose())?;
        e.u64(self.issuer)?.bytes(&holder[..holder_len])?.u64(self.issued_at)?;
        e.u64(self.window.not_before)?.u64(self.window.not_after)?;
        cbor::write_region(e, self.region.as_deref())?;
        cbor::write_recurring(e, &self.recurring)?;
        e.array(self.keys.len() as u64)?;
        for key in &self.keys {
            e.array(if key.max_uses.is_some() { 3 } else { 2 })?;
            e.u64(key.subject)?.u32(key.status_index)?;
            if let Some(max_uses) = key.max_uses {
                e.u32(max_uses)?;
            }
        }
        e.bytes(self.signatures.as_flattened())?.ok()
    }
}

impl Body<'static> {
    /// Reads a body.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] for anything that [`Body::encode`] does not write.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let (body, holder) = cbor::read("a bundle", bytes, Self::read)?;
        let body = Self { holder: cbor::read_key(holder)?, ..body };
        let sound = body.keys.len() == body.signatures.len() && body.encode()? == bytes;
        sound.then_some(body).ok_or_else(|| corrupt("a bundle: not as it was written"))
    }
}
