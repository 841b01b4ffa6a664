//! What many bundles have in common, as it is kept once: floor 2, `store/encoding`.

use std::sync::Arc;

use super::cbor::{self, Read};
use crate::domain::Subject;
use crate::store::StoreError;

/// Appends an issuer's name.
pub(in crate::store) fn write_issuer(bytes: &mut Vec<u8>, name: &str) -> Result<(), StoreError> {
    cbor::write(bytes, |e| e.str(name)?.ok())
}

/// See [`write_issuer`].
pub(in crate::store) fn read_issuer(bytes: &[u8]) -> Result<Arc<str>, StoreError> {
    cbor::read("an issuer's name", bytes, |d| d.str().map(Arc::from))
}

/// Appends what a bundle's keys stand for: an array of `[code, name, status address]`.
pub(in crate::store) fn write_subjects(
    bytes: &mut Vec<u8>,
    subjects: &[Subject],
) -> Result<(), StoreError> {
    cbor::write(bytes, |e| {
        e.array(subjects.len() as u64)?;
        for subject in subjects {
            e.array(3)?
                .u16(subject.function)?
                .str(&subject.name)?
                .str(&subject.status_uri)?;
        }
        Ok(())
    })
}

/// See [`write_subjects`].
pub(in crate::store) fn read_subjects(bytes: &[u8]) -> Result<Arc<[Subject]>, StoreError> {
    cbor::read("what keys stand for", bytes, |d| {
        cbor::list(d, |d| -> Read<_> {
            cbor::array(d, 3)?;
            Ok(Subject {
                function: d.u16()?,
                name: d.str()?.into(),
                status_uri: d.str()?.into(),
            })
        })
    })
}
