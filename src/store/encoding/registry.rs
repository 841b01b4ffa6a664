//! What a vehicle and an identity list: floor 2, `store/encoding`.

use super::authorization_body::{read_functions, write_functions};
use super::cbor;
use crate::domain::{FunctionCode, Licence};
use crate::store::StoreError;

/// A vehicle's functions: an array of codes.
pub(in crate::store) fn functions(functions: &[FunctionCode]) -> Result<Vec<u8>, StoreError> {
    cbor::written(|e| write_functions(e, functions))
}

/// See [`functions`].
pub(in crate::store) fn read_vehicle_functions(
    bytes: &[u8],
) -> Result<Vec<FunctionCode>, StoreError> {
    cbor::read("a vehicle's functions", bytes, read_functions)
}

/// An identity's licences: an array of `[class, expiry]`.
pub(in crate::store) fn licences(licences: &[Licence]) -> Result<Vec<u8>, StoreError> {
    cbor::written(|e| {
        e.array(licences.len() as u64)?;
        for licence in licences {
            e.array(2)?.str(&licence.class)?.u64(licence.expires)?;
        }
        Ok(())
    })
}

/// See [`licences`].
pub(in crate::store) fn read_licences(bytes: &[u8]) -> Result<Vec<Licence>, StoreError> {
    cbor::read("an identity's licences", bytes, |d| {
        cbor::list(d, |d| {
            cbor::array(d, 2)?;
            Ok(Licence {
                class: d.str()?.into(),
                expires: d.u64()?,
            })
        })
    })
}
