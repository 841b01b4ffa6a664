//! What has to happen with time: epochs change as the schedule and their windows say, and what has
//! long been over is purged. Whoever has a timer calls [`Engine::keep`] now and then.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::nodes::{NotHeld, under};
use super::rotate::Desk;
use super::{Engine, Failure, registry};
use crate::concurrent;
use crate::domain::rotation;
use crate::domain::time::Time;
use crate::domain::{Epoch, Refusal, UnixTime};
use crate::hsm::Custody;
use crate::store::{Applied, Lease, Task, Write};

/// Authorizations purged in one transaction, so that no request waits long behind it.
const PURGE_MAX: u32 = 1_000;

/// What is over is purged by whole hours, so that the book is looked through once an hour.
const PURGE_STEP_S: u64 = 3_600;

impl Engine {
    /// Applies what is due now; among several nodes, where this one holds the lease. Returns how
    /// many authorizations were purged; at most a bounded number in one go, so call it again soon
    /// where it was many.
    ///
    /// # Errors
    /// As [`Engine::write`]; calling it again is always right.
    pub async fn keep(&self, custody: &Arc<dyn Custody>) -> Result<u32, Refusal> {
        self.abreast().await?;
        let lease = self.shared.lease(Task::Keeping);
        match &lease {
            Ok(lease) => self.follow_schedule(custody, *lease).await?,
            // Its token may be this node's alone. That a step was decided on what is there is its
            // own condition.
            Err(NotHeld) if self.is_overdue() => self.follow_schedule(custody, None).await?,
            Err(NotHeld) => {}
        }
        self.mind_epochs();
        let Ok(lease) = lease else { return Ok(0) };
        let over = self
            .clock()
            .unix()
            .saturating_sub(self.settings().retain_for_s);
        let purge = Write::Purge(over - over % PURGE_STEP_S, PURGE_MAX);
        let applied = self.write(vec![under(lease, purge)]).await?;
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

    /// Epochs that are due change. An HSM that does not sign leaves everything as it is.
    async fn follow_schedule(
        &self,
        custody: &Arc<dyn Custody>,
        lease: Option<Lease>,
    ) -> Result<(), Refusal> {
        let (shared, custody) = (Arc::clone(&self.shared), Arc::clone(custody));
        // The HSM may be slow to try new keys; whoever called has other things to do meanwhile.
        let decided = concurrent::spawn_blocking(move || {
            let desk = Desk {
                book: &shared.book,
                custody: &*custody,
                settings: &shared.settings,
                now: shared.clock.unix(),
                root_at_hand: false,
            };
            desk.sweep()
        });
        match decided.await {
            Ok(Ok(None)) => {}
            Ok(Ok(Some(step))) => {
                let step = under(lease, Write::Step(step));
                let applied = self.write(vec![step]).await?;
                registry::outcome(&applied)?;
            }
            Ok(Err(Failure::Refused(refusal))) => return Err(refusal),
            Ok(Err(Failure::Fault(why))) => {
                tracing::error!(why, "an epoch that is due does not change");
            }
            Err(error) => tracing::error!(%error, "an epoch that is due does not change"),
        }
        Ok(())
    }

    /// Whether whoever keeps epochs has left a change undone for longer than it should.
    fn is_overdue(&self) -> bool {
        let settings = self.settings();
        let before = self.clock().unix();
        let before = before.saturating_sub(2 * settings.lease.as_secs());
        let epochs = owned(&self.book().epochs());
        !rotation::sweep(&epochs, before, settings.schedule.rotate_every_s).is_empty()
    }

    /// Until when epochs can go on as planned without the root, of all tokens the soonest.
    pub fn runway(&self) -> UnixTime {
        runway(
            &self.book().epochs(),
            self.clock().unix(),
            self.settings().schedule.rotate_every_s,
        )
    }

    /// When the next epoch is due to change, where one is.
    pub fn next_change(&self) -> Option<UnixTime> {
        let epochs = owned(&self.book().epochs());
        rotation::next_change(
            &epochs,
            self.clock().unix(),
            self.settings().schedule.rotate_every_s,
        )
    }

    /// One line when prepared epochs run low, and one when there are enough again.
    fn mind_epochs(&self) {
        let low = self.readiness().epochs_low;
        if self.shared.health.epochs_low.swap(low, Ordering::Relaxed) == low {
            return;
        }
        let until = Time(self.runway());
        if low {
            tracing::warn!(%until, "prepared epochs run low: `fob epoch prepare`, with the root at hand");
        } else {
            tracing::info!(%until, "enough epochs are prepared");
        }
    }
}

/// Until when epochs can go on as planned without the root, of all tokens the soonest.
pub fn runway(epochs: &[Arc<Epoch>], now: UnixTime, rotate_every_s: Option<u64>) -> UnixTime {
    let epochs = owned(epochs);
    let ends = rotation::tokens(&epochs)
        .into_iter()
        .map(|token| rotation::runway(&epochs, token, now, rotate_every_s));
    ends.min().unwrap_or(now)
}

fn owned(epochs: &[Arc<Epoch>]) -> Vec<Epoch> {
    epochs.iter().map(|epoch| Epoch::clone(epoch)).collect()
}
