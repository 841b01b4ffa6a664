//! What has to happen with time: epochs change at the ends of their windows, and what has long
//! been over is purged. Whoever has a timer calls [`Engine::keep`] now and then.

use super::Engine;
use crate::domain::epoch::sweep;
use crate::domain::{Epoch, Refusal};
use crate::store::{Applied, Write};

/// Authorizations purged in one transaction, so that no request waits long behind it.
const PURGE_MAX: u32 = 1_000;

/// What is over is purged by whole hours, so that the book is looked through once an hour.
const PURGE_STEP_S: u64 = 3_600;

impl Engine {
    /// Applies what is due now. Returns how many authorizations were purged; at most a bounded
    /// number in one go, so call it again soon where it was many.
    ///
    /// # Errors
    /// As [`Engine::write`]; calling it again is always right.
    pub async fn keep(&self) -> Result<u32, Refusal> {
        let now = self.clock().unix();
        let epochs: Vec<Epoch> = self
            .book()
            .epochs()
            .iter()
            .map(|one| Epoch::clone(one))
            .collect();
        let mut writes = Vec::new();
        for change in sweep(&epochs, now) {
            let Some(epoch) = epochs.iter().find(|epoch| epoch.id == change.id) else {
                continue;
            };
            tracing::info!(epoch = %change.id, to = change.to.name(), "an epoch changes");
            writes.push(Write::Epoch(Epoch {
                state: change.to,
                ..epoch.clone()
            }));
        }
        let over = now.saturating_sub(self.settings().retain_for_s);
        writes.push(Write::Purge(over - over % PURGE_STEP_S, PURGE_MAX));
        let applied = self.write(writes).await?;
        Ok(applied
            .iter()
            .map(|one| {
                if let Applied::Purged(count) = one {
                    *count
                } else {
                    0
                }
            })
            .sum())
    }
}
