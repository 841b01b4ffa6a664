//! When sessions are lost, floor 2: renew them once, do the work once more,
//! then say so.
//!
//! Sessions die when the HSM restarts, when another user of the library closes
//! them, when the login ends. All of them are then replaced together, because
//! every handle of the old ones is stale, copies of keys included. Where new
//! ones cannot be opened the module is initialised anew: its far end may be
//! another process by now.
//!
//! Opening goes on in a thread of its own, one at a time, so that there is one
//! login however many have seen the loss, and so that a module that hangs keeps
//! that thread and nobody else.
//!
//! Deliberately not here: when to try again. Whoever asks decides that (the
//! engine's breaker); each call here is one attempt.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLockReadGuard, RwLockWriteGuard};

use super::crew::Crew;
use super::module::{Claim, Instance, Module};
use super::park::{Call, Late, Parking, stuck};
use super::pin::Pin;
use super::pkcs11::Token;
use super::session::Link;
use super::{HsmError, TokenConfig};

/// The most threads of a token that are left inside overdue calls. With as many, it
/// counts as one of which every thread is.
pub(super) const PARKED_MAX: usize = 256;

/// The sessions of a token, or why there are none.
pub(super) struct LinkState {
    up: Result<Up, HsmError>,
    /// One more with every attempt to renew. Who saw an older one fail knows
    /// that somebody has renewed, or tried to, since.
    number: u64,
    /// An attempt that has not come back. No other is made before it has.
    opening: Option<Call<Result<Up, HsmError>>>,
}

/// Sessions, and the threads that sign in them. In the order in which they go:
/// a session is closed once nobody works in it.
pub(super) struct Up {
    pub(super) crew: Crew,
    pub(super) link: Arc<Link>,
    _claim: Claim,
}

impl LinkState {
    pub(super) fn new(up: Result<Up, HsmError>) -> Self {
        Self {
            up,
            number: 0,
            opening: None,
        }
    }

    /// Takes the sessions out, to close them.
    pub(super) fn take(&mut self) -> Option<Up> {
        let closed = Err(HsmError::System { what: "a session" });
        std::mem::replace(&mut self.up, closed).ok()
    }
}

impl Up {
    /// Opens the token: finds it, logs in, opens sessions, starts threads.
    pub(super) fn open(
        config: &TokenConfig,
        pin: &Pin,
        parking: &Parking,
    ) -> Result<Self, HsmError> {
        let module = Module::load(config)?;
        Self::connect(module, &module.instance(), config, pin, parking)
    }

    /// Opens it again after `cause`, once the old sessions are closed: modules
    /// give out handles again, and closing an old one later could close a new one.
    fn reopen(
        old: Option<Self>,
        cause: &HsmError,
        config: &TokenConfig,
        pin: &Pin,
        parking: &Parking,
    ) -> Result<Self, HsmError> {
        let module = Module::load(config)?;
        let failed = old.as_ref().map(|up| Arc::clone(&up.link.instance));
        let failed = failed.unwrap_or_else(|| module.instance());
        drop(old);
        let connect = |instance: &_| Self::connect(module, instance, config, pin, parking);
        if !cause.needs_reload() {
            match connect(&module.instance()) {
                Err(error) if error.may_be_the_module() => {
                    tracing::debug!(label = config.label, %error, "new sessions cannot be opened");
                }
                done => return done,
            }
        }
        connect(&module.reload(&failed)?)
    }

    fn connect(
        module: &'static Module,
        instance: &Arc<Instance>,
        config: &TokenConfig,
        pin: &Pin,
        parking: &Parking,
    ) -> Result<Self, HsmError> {
        let link = Link::open(module, instance, config, pin)?;
        let crew = Crew::start(link.lanes, parking, &config.label, config.call_timeout)?;
        Ok(Self {
            crew,
            link: Arc::new(link),
            _claim: instance.claim(),
        })
    }
}

impl Token {
    /// Does `work` with the sessions; if they turn out to be lost, renews them
    /// and does it once more. Work that may have changed the token before it
    /// failed is not done again: its error says so instead.
    pub(super) fn with_up<T>(
        &self,
        work: impl Fn(&Up) -> Result<T, HsmError>,
    ) -> Result<T, HsmError> {
        self.renewing_once(|| {
            let state = self.read();
            match &state.up {
                Ok(up) if up.crew.all_parked() => {
                    Attempt::without_sessions(state.number, self.stuck())
                }
                Ok(up) => Attempt::of(state.number, work(up)),
                Err(cause) => Attempt::without_sessions(state.number, cause.clone()),
            }
        })
    }

    /// Does `work` in a thread of its own, and waits for it as long as a call may
    /// take `calls` times over; renews as `with_up` does. What is late may have
    /// happened.
    pub(super) fn with_link<T: Send + 'static>(
        &self,
        calls: u32,
        work: impl Fn(&Link) -> Result<T, HsmError> + Send + Sync + 'static,
    ) -> Result<T, HsmError> {
        let (work, patience) = (Arc::new(work), self.config.call_timeout * calls);
        self.renewing_once(|| {
            let (number, link) = self.link();
            let link = match link {
                Ok(link) => link,
                Err(cause) => return Attempt::without_sessions(number, cause),
            };
            if self.parking.count() >= PARKED_MAX {
                return Attempt::Done(Err(self.stuck()));
            }
            let work = Arc::clone(&work);
            let call = Call::start(&self.parking, move || {
                let _inside = link.instance.enter();
                work(&link)
            });
            let outcome = call.and_then(|call| {
                call.wait(patience)
                    .unwrap_or_else(|late| Err(late.error(&self.config.label, patience)))
            });
            Attempt::of(number, outcome)
        })
    }

    /// The link in use, and its number.
    fn link(&self) -> (u64, Result<Arc<Link>, HsmError>) {
        let state = self.read();
        let link = state.up.as_ref().map(|up| Arc::clone(&up.link));
        (state.number, link.map_err(Clone::clone))
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
            return state.up.as_ref().map(drop).map_err(Clone::clone);
        }
        if self.parking.count() >= PARKED_MAX {
            // New sessions hang as the old ones did: that is no way out.
            return Err(self.stuck());
        }
        state.number += 1;
        let had = state.take();
        let at_once = had.is_some();
        let call = match state.opening.take() {
            Some(call) => call,
            None => self.start_opening(had, cause)?,
        };
        let patience = self.config.call_timeout;
        let outcome = match call.wait(patience) {
            Ok(outcome) => outcome,
            Err(late) => {
                let error = late.error(&self.config.label, patience);
                if let Late::Still(call) = late {
                    self.overdue.store(true, Ordering::Relaxed);
                    state.opening = Some(call);
                }
                state.up = Err(error.clone());
                return Err(error);
            }
        };
        self.overdue.store(false, Ordering::Relaxed);
        self.note(cause, &outcome, at_once);
        let done = outcome.as_ref().map(drop).map_err(Clone::clone);
        state.up = outcome;
        done
    }

    fn start_opening(
        &self,
        had: Option<Up>,
        cause: &HsmError,
    ) -> Result<Call<Result<Up, HsmError>>, HsmError> {
        let (config, pin) = (self.config.clone(), Arc::clone(&self.pin));
        let (cause, parking) = (cause.clone(), self.parking.clone());
        Call::start(&self.parking, move || {
            Up::reopen(had, &cause, &config, &pin, &parking)
        })
    }

    /// A loss that was mended at once is told here, since nobody else sees it. An
    /// outage that lasts is told by whoever keeps trying.
    fn note(&self, cause: &HsmError, outcome: &Result<Up, HsmError>, at_once: bool) {
        let label = &self.config.label;
        match outcome {
            Ok(up) => {
                self.reconnects.fetch_add(1, Ordering::Relaxed);
                let sessions = up.link.lanes;
                if at_once {
                    tracing::warn!(label, %cause, sessions, "sessions were lost and are renewed");
                } else {
                    tracing::debug!(label, sessions, "sessions are renewed");
                }
            }
            Err(error) if error.pin_refused() => {
                tracing::error!(label, %error, "the token is out until the PIN is corrected");
            }
            Err(error) => tracing::debug!(label, %cause, %error, "sessions cannot be renewed"),
        }
    }

    fn stuck(&self) -> HsmError {
        stuck(&self.config.label, self.config.call_timeout)
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
    /// Of work that was done.
    fn of(seen: u64, outcome: Result<T, HsmError>) -> Self {
        match outcome {
            Err(cause) if cause.lost() && !cause.may_have_happened() => Self::Lost { seen, cause },
            done => Self::Done(done),
        }
    }

    /// Of work for which there were no sessions.
    fn without_sessions(seen: u64, cause: HsmError) -> Self {
        // A refused PIN is never tried again: that would lock the token.
        if cause.pin_refused() {
            Self::Done(Err(cause))
        } else {
            Self::Lost { seen, cause }
        }
    }
}
