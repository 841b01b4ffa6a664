//! When sessions are lost, floor 2: renew them once, do the work once more,
//! then say so.
//!
//! Sessions die when the HSM restarts, when another user of the library closes
//! them, when the login ends. All of them are then replaced together, because
//! every handle of the old ones is stale, copies of keys included.
//!
//! The rest of an HSM's life has its place here, and is not written yet: pauses
//! between attempts, refusing at once while a token is known to be away, calls
//! that never return, and libraries that have to be initialised anew because
//! the process at their far end is another one.

use std::sync::atomic::Ordering;
use std::sync::{PoisonError, RwLockReadGuard, RwLockWriteGuard};

use super::HsmError;
use super::pkcs11::Token;
use super::session::Link;

/// The sessions of a token, or why there are none.
pub(super) struct LinkState {
    link: Result<Link, HsmError>,
    /// One more with every attempt to renew. Who saw an older one fail knows
    /// that somebody has renewed, or tried to, since.
    number: u64,
}

impl LinkState {
    pub(super) fn up(link: Link) -> Self {
        Self {
            link: Ok(link),
            number: 0,
        }
    }
}

impl Token {
    /// Does `work` with the sessions; if they turn out to be lost, renews them
    /// and does it once more. Work that may have changed the token before it
    /// failed is not done again: its error says so instead.
    pub(super) fn with_link<T>(
        &self,
        work: impl Fn(&Link) -> Result<T, HsmError>,
    ) -> Result<T, HsmError> {
        self.renewing_once(|| {
            let state = self.read();
            Attempt::of(
                state.number,
                state.link.as_ref().map_err(Clone::clone),
                &work,
            )
        })
    }

    /// Does `work` while nobody signs; renews as `with_link` does.
    pub(super) fn with_idle_link(
        &self,
        work: impl Fn(&mut Link) -> Result<(), HsmError>,
    ) -> Result<(), HsmError> {
        self.renewing_once(|| {
            let state = &mut *self.write();
            Attempt::of(
                state.number,
                state.link.as_mut().map_err(|error| error.clone()),
                &work,
            )
        })
    }

    fn renewing_once<T>(&self, attempt: impl Fn() -> Attempt<T>) -> Result<T, HsmError> {
        match attempt() {
            Attempt::Lost { seen, cause } => {
                self.renew(seen, &cause)?;
                match attempt() {
                    Attempt::Done(done) => done,
                    Attempt::Lost { cause, .. } => Err(cause),
                }
            }
            Attempt::Done(done) => done,
        }
    }

    /// Replaces the sessions after link `seen` failed. Of several who saw it
    /// fail the first one does it, the others take its outcome.
    fn renew(&self, seen: u64, cause: &HsmError) -> Result<(), HsmError> {
        let mut state = self.write();
        if state.number != seen {
            return state.link.as_ref().map(drop).map_err(|error| error.clone());
        }
        tracing::warn!(label = self.config.label, %cause, "sessions lost; opening new ones");
        state.number += 1;
        // The old sessions are closed first: modules give out handles again, and
        // closing an old one later could close a new one.
        state.link = Err(cause.clone());
        match Link::open(self.module, &self.config, &self.pin) {
            Ok(link) => {
                self.reconnects.fetch_add(1, Ordering::Relaxed);
                tracing::info!(
                    label = self.config.label,
                    sessions = link.lanes,
                    "sessions renewed"
                );
                state.link = Ok(link);
                Ok(())
            }
            Err(error) => {
                tracing::error!(label = self.config.label, %error, "sessions cannot be renewed");
                state.link = Err(error.clone());
                Err(error)
            }
        }
    }

    // A panic while the lock was held leaves a link that works or fails as a
    // whole, so poisoning means nothing here.
    fn read(&self) -> RwLockReadGuard<'_, LinkState> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, LinkState> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One try at some work.
enum Attempt<T> {
    Done(Result<T, HsmError>),
    /// There are no sessions, or those of link `seen` failed: new ones may help.
    Lost {
        seen: u64,
        cause: HsmError,
    },
}

impl<T> Attempt<T> {
    fn of<L>(
        seen: u64,
        link: Result<L, HsmError>,
        work: impl Fn(L) -> Result<T, HsmError>,
    ) -> Self {
        match link.map(work) {
            Ok(Err(cause)) if cause.lost() && !cause.may_have_happened() => {
                Self::Lost { seen, cause }
            }
            Ok(done) => Self::Done(done),
            // A refused PIN is never tried again: that would lock the token.
            Err(refused @ (HsmError::PinWrong { .. } | HsmError::PinUnusable { .. })) => {
                Self::Done(Err(refused))
            }
            Err(cause) => Self::Lost { seen, cause },
        }
    }
}
