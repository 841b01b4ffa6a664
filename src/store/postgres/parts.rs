//! A transaction's writes, taken apart where something else than writing comes between, and each
//! part decided: floor 2, `store/postgres`.

use super::acts;
use super::decide::decide;
use super::ground::Ground;
use crate::store::{Applied, Lease, StoreError, Write};

/// A transaction's writes in parts that are decided together.
pub(super) enum Part<'a> {
    Writes(&'a [Write]),
    Purge(u64, u32, Option<Lease>),
}

/// The parts, in their order.
pub(super) fn parts(writes: &[Write]) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let is_purge = |write: &Write| purge_of(write).is_some();
    for some in writes.chunk_by(|a, b| !is_purge(a) && !is_purge(b)) {
        let purge = some.first().and_then(purge_of);
        parts.push(purge.unwrap_or(Part::Writes(some)));
    }
    parts
}

fn purge_of(write: &Write) -> Option<Part<'_>> {
    match write {
        Write::Purge(before, at_most) => Some(Part::Purge(*before, *at_most, None)),
        Write::Under(lease, write) => match **write {
            Write::Purge(before, at_most) => Some(Part::Purge(before, at_most, Some(*lease))),
            _ => None,
        },
        _ => None,
    }
}

/// Decides the next of a part's writes; `applied` are the answers to those before it.
pub(super) fn decide_next(
    ground: &mut Ground,
    writes: &[Write],
    applied: &[Applied],
) -> Result<Applied, StoreError> {
    let (before, rest) = writes.split_at(applied.len());
    match rest.first() {
        Some(Write::Registered(act, count)) => {
            if let Some(act) = act.of_registered(*count, before, applied) {
                acts::keep(ground, &act)?;
            }
            Ok(Applied::Done)
        }
        Some(write) => decide(ground, write),
        None => Err(StoreError::Failed("there is no such write".into())),
    }
}
