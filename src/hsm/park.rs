//! Calls that never return, floor 2: their threads are parked and counted, and
//! whoever waited goes on.
//!
//! A thread inside a PKCS#11 call cannot be taken out of it. So nobody waits for
//! a call without a limit: calls are made in threads that can be spared, and one
//! that is late is *parked*: left where it is, and counted until it comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::Builder;
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, bounded};

use super::HsmError;

/// Threads of this process that are parked, whatever token they belong to.
/// Only counted, orders nothing.
static PARKED: AtomicUsize = AtomicUsize::new(0);

/// How many threads of this process are inside a call that is overdue. While
/// there are any, the modules' exit handlers may hang: leave by `leave`.
pub fn parked_threads() -> usize {
    PARKED.load(Ordering::Relaxed)
}

/// The parked threads of one token.
#[derive(Clone, Debug, Default)]
pub(super) struct Parking(Arc<AtomicUsize>);

impl Parking {
    /// How many threads are parked.
    pub(super) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn park(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
        PARKED.fetch_add(1, Ordering::Relaxed);
    }

    fn unpark(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
        PARKED.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a thread is at. One word, so that coming back and being parked cannot
/// pass each other: zero while it is at nothing, else twice the number of what
/// it is at, and one more once it is parked.
#[derive(Debug, Default)]
pub(super) struct At(AtomicU64);

impl At {
    /// The thread begins with work of that number, which is not zero.
    pub(super) fn begin(&self, number: u64) {
        self.0.store(number << 1, Ordering::Release);
    }

    /// The thread is done with it, and no longer parked.
    pub(super) fn end(&self, parking: &Parking) {
        if self.0.swap(0, Ordering::AcqRel) & 1 == 1 {
            parking.unpark();
        }
    }

    /// Parks the thread if it is still at that number. Returns whether it was.
    pub(super) fn park(&self, number: u64, parking: &Parking) -> bool {
        let (at, parked) = (number << 1, number << 1 | 1);
        let was = self
            .0
            .compare_exchange(at, parked, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok();
        if was {
            parking.park();
        }
        was
    }

    /// Whether the thread is parked.
    pub(super) fn is_parked(&self) -> bool {
        self.0.load(Ordering::Relaxed) & 1 == 1
    }
}

/// A call in a thread of its own, and its outcome to come.
pub(super) struct Call<T> {
    at: Arc<At>,
    parking: Parking,
    outcome: Receiver<T>,
}

impl<T: Send + 'static> Call<T> {
    /// Starts it.
    ///
    /// # Errors
    ///
    /// Where the system gives no thread.
    pub(super) fn start(
        parking: &Parking,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Self, HsmError> {
        let (done, outcome) = bounded(1);
        let at = Arc::new(At::default());
        at.begin(1);
        let (own, parking) = (Arc::clone(&at), parking.clone());
        let counted = parking.clone();
        let thread = move || {
            let result = call();
            own.end(&counted);
            // Nobody may wait for it any more.
            drop(done.send(result));
        };
        Builder::new()
            .name("hsm-call".to_owned())
            .spawn(thread)
            .map_err(|_| HsmError::System {
                what: "a thread for a call into the HSM",
            })?;
        Ok(Self {
            at,
            parking,
            outcome,
        })
    }

    /// Its outcome, if it has one within `patience`. Afterwards the thread is
    /// parked, and may be asked again.
    ///
    /// # Errors
    ///
    /// The call itself, where it has none; or that it panicked.
    pub(super) fn wait(self, patience: Duration) -> Result<T, Late<T>> {
        match self.outcome.recv_timeout(patience) {
            Ok(outcome) => Ok(outcome),
            Err(RecvTimeoutError::Timeout) => {
                // It may have ended just now: then the next look finds its outcome.
                self.at.park(1, &self.parking);
                Err(Late::Still(self))
            }
            Err(RecvTimeoutError::Disconnected) => Err(Late::Panicked),
        }
    }
}

/// Why a call has no outcome.
pub(super) enum Late<T> {
    /// It has not returned.
    Still(Call<T>),
    /// Its thread has panicked.
    Panicked,
}

impl<T> Late<T> {
    /// As an error about the token of that label.
    pub(super) fn error(&self, label: &str, patience: Duration) -> HsmError {
        match self {
            Self::Still(_) => stuck(label, patience),
            Self::Panicked => HsmError::System {
                what: "a thread that ended well",
            },
        }
    }
}

/// That a call into the token of that label has not returned.
pub(super) fn stuck(label: &str, patience: Duration) -> HsmError {
    HsmError::Stuck {
        label: label.to_owned(),
        waited_ms: u64::try_from(patience.as_millis()).unwrap_or(u64::MAX),
        may_have_happened: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_call_is_parked_until_it_returns() {
        let parking = Parking::default();
        let (let_go, held) = bounded::<()>(1);
        let call = Call::start(&parking, move || held.recv().is_ok()).unwrap();
        let Err(late) = call.wait(Duration::from_millis(1)) else {
            panic!("it has returned");
        };
        assert_eq!(parking.count(), 1);
        assert!(matches!(
            late.error("token", Duration::from_millis(1)),
            HsmError::Stuck { waited_ms: 1, .. }
        ));
        let Late::Still(call) = late else {
            panic!("it has panicked");
        };
        let_go.send(()).unwrap();
        assert!(matches!(call.wait(Duration::from_secs(60)), Ok(true)));
        assert_eq!(parking.count(), 0);
    }

    #[test]
    fn a_call_in_time_is_not_parked() {
        let parking = Parking::default();
        let call = Call::start(&parking, || 7).unwrap();
        assert!(matches!(call.wait(Duration::from_secs(60)), Ok(7)));
        assert_eq!(parking.count(), 0);
    }

    #[test]
    fn coming_back_and_being_parked_do_not_pass_each_other() {
        let (at, parking) = (At::default(), Parking::default());
        at.begin(4);
        assert!(!at.park(3, &parking), "it is at something else");
        assert!(at.park(4, &parking) && at.is_parked());
        assert!(!at.park(4, &parking), "it is parked once");
        at.end(&parking);
        assert!(!at.park(4, &parking), "it is done");
        assert_eq!(parking.count(), 0);
    }
}
