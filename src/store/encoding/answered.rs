//! Orders that were answered together, as one piece: reference, digest and bundle of each, 16 bytes
//! apiece.

use super::corrupt;
use crate::domain::BundleId;
use crate::store::{AnsweredOrder, StoreError};

/// Bytes of one order.
pub(in crate::store) const ORDER_LEN: usize = 48;

/// Puts an order to those in `piece`.
pub(in crate::store) fn put(piece: &mut Vec<u8>, order: &AnsweredOrder) {
    for part in [&order.reference, &order.digest, order.bundle.bytes()] {
        piece.extend_from_slice(part);
    }
}

/// Hands every order of a piece to `each`, in the order they were put there.
pub(in crate::store) fn each(
    piece: &[u8],
    mut each: impl FnMut(AnsweredOrder) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let (orders, rest) = piece.as_chunks::<ORDER_LEN>();
    if !rest.is_empty() {
        return Err(corrupt("part of an order"));
    }
    for order in orders {
        let part = |at: usize| {
            let mut part = [0; 16];
            part.copy_from_slice(&order[16 * at..16 * (at + 1)]);
            part
        };
        each(AnsweredOrder {
            reference: part(0),
            digest: part(1),
            bundle: BundleId(part(2)),
        })?;
    }
    Ok(())
}
