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

/// Decides a list of writes, one after the other.
pub(super) fn decide_all(
    ground: &mut Ground,
    writes: &[Write],
    applied: &mut Vec<Applied>,
) -> Result<(), StoreError> {
    let before = applied.len();
    for (at, write) in writes.iter().enumerate() {
        let outcome = match write {
            Write::Registered(act, count) => {
                let told = act.of_registered(*count, &writes[..at], &applied[before..]);
                if let Some(act) = told {
                    acts::keep(ground, &act)?;
                }
                Applied::Done
            }
            write => decide(ground, write)?,
        };
        applied.push(outcome);
    }
    Ok(())
}
