//! How what rows keep as one piece, or as a number, is spelled: floor 2, `store`. Pure functions,
//! and all that the stores have in common beside the contract.
//!
//! Deliberately not here: what a row is, and which rows there are. Every store has its own.

pub(in crate::store) mod acts;
pub(in crate::store) mod answered;
pub(in crate::store) mod authorization_body;
pub(in crate::store) mod bundle_parts;
pub(in crate::store) mod cbor;
pub(in crate::store) mod context;
pub(in crate::store) mod registry;
pub(in crate::store) mod rulings;
pub(in crate::store) mod words;

use super::StoreError;

/// What cannot be right in what was read.
pub(in crate::store) fn corrupt(what: impl Into<String>) -> StoreError {
    StoreError::Corrupt(what.into())
}

/// A number on its way into a column.
pub(in crate::store) fn column(number: u64) -> Result<i64, StoreError> {
    i64::try_from(number).map_err(|_| StoreError::Failed("a number is too large to be kept".into()))
}

/// A number on its way out of a column.
pub(in crate::store) fn number(column: i64) -> Result<u64, StoreError> {
    u64::try_from(column).map_err(|_| corrupt("a number below zero"))
}
