//! The ceiling, floor 2: how many signatures a token makes when nothing but
//! the two PKCS#11 calls stands between it and its caller.
//!
//! Measured on the kind of key object the server signs with, in sessions beside
//! the server's, so that a measurement can alternate with real work. Time comes
//! from the caller. Sessions lost while measuring are an error, never renewed, and
//! a call that does not return is waited for: this is for people at a terminal.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use cryptoki::object::ObjectHandle;

use super::config::SESSIONS_MAX;
use super::fast::BareCalls;
use super::session::Lane;
use super::{HsmError, KeyRef, Token};

/// Bytes signed: a SHA-256 digest for P-256; for Ed25519, which hashes in the
/// token, about what a virtual key has.
const P256_LEN: usize = 32;
const ED25519_LEN: usize = 256;

/// A monotonic time, from whatever moment on.
type Now<'a> = &'a (dyn Fn() -> Duration + Sync);

/// Sessions and handles ready to be measured, as often as wanted.
pub struct Ceiling {
    key: KeyRef,
    /// `None`: the binding's calls have to do.
    bare: Option<BareCalls>,
    lanes: Vec<(Lane, ObjectHandle)>,
    session_key_copies: bool,
}

/// What one measurement found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CeilingRun {
    /// Sessions that signed in parallel, each in a thread of its own.
    pub sessions: usize,
    /// Signatures made by all of them.
    pub signatures: u64,
    /// From the common start to the end of the last signature.
    pub elapsed: Duration,
    /// Whether the bare calls were measured, or the binding's because the module
    /// has no others to give.
    pub bare_calls: bool,
    /// Whether the sessions signed with copies of the key.
    pub session_key_copies: bool,
}

impl CeilingRun {
    /// Signatures per second.
    pub fn per_s(&self) -> f64 {
        self.signatures as f64 / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

impl Ceiling {
    /// Opens `sessions` sessions of its own and the key in each of them.
    ///
    /// # Errors
    ///
    /// [`HsmError::Setting`] for none or more than 64 sessions, and whatever
    /// keeps a session or the key from being opened.
    pub fn prepare(token: &Token, key: &KeyRef, sessions: usize) -> Result<Self, HsmError> {
        if !(1..=usize::from(SESSIONS_MAX)).contains(&sessions) {
            let reason = format!("{sessions} is not a number from 1 to {SESSIONS_MAX}");
            return Err(HsmError::Setting {
                key: "sessions",
                reason,
            });
        }
        token.with_up(|up| {
            let link = &up.link;
            let _inside = link.instance.enter();
            let open = |_| {
                let mut lane = link.extra_lane()?;
                let handle = lane.open_key(link, key)?;
                Ok((lane, handle))
            };
            let lanes = (0..sessions).map(open).collect::<Result<_, HsmError>>()?;
            Ok(Self {
                key: *key,
                bare: link.bare,
                lanes,
                session_key_copies: link.copies.on(),
            })
        })
    }

    /// Signs in all sessions until `duration` has passed on the clock `now`.
    ///
    /// # Errors
    ///
    /// The first error of any session.
    pub fn run(&mut self, duration: Duration, now: Now<'_>) -> Result<CeilingRun, HsmError> {
        let sessions = self.lanes.len();
        let start = Barrier::new(sessions);
        let (bare, key) = (self.bare, self.key);
        let counted = thread::scope(|scope| {
            let start = &start;
            let running = self.lanes.iter_mut().map(|(lane, handle)| {
                scope.spawn(move || {
                    start.wait();
                    sign_until(duration, now, || sign_once(lane, bare, &key, *handle))
                })
            });
            // All of them have to run before the first is waited for.
            let running: Vec<_> = running.collect();
            running
                .into_iter()
                .map(|thread| thread.join())
                .collect::<Vec<_>>()
        });
        let mut run = CeilingRun {
            sessions,
            signatures: 0,
            elapsed: Duration::ZERO,
            bare_calls: bare.is_some(),
            session_key_copies: self.session_key_copies,
        };
        for thread in counted {
            let (signatures, elapsed) = thread.map_err(|_| HsmError::System {
                what: "a measuring thread",
            })??;
            run.signatures += signatures;
            run.elapsed = run.elapsed.max(elapsed);
        }
        Ok(run)
    }
}

/// Prepares and measures once: signatures per second of `sessions` sessions.
///
/// # Errors
///
/// Those of [`Ceiling::prepare`] and [`Ceiling::run`].
pub fn bench_ceiling(
    token: &Token,
    key: &KeyRef,
    sessions: usize,
    duration: Duration,
    now: Now<'_>,
) -> Result<f64, HsmError> {
    Ok(Ceiling::prepare(token, key, sessions)?
        .run(duration, now)?
        .per_s())
}

/// Counts what `sign` manages until `duration` has passed.
fn sign_until(
    duration: Duration,
    now: Now<'_>,
    mut sign: impl FnMut() -> Result<(), HsmError>,
) -> Result<(u64, Duration), HsmError> {
    let (begin, mut signatures) = (now(), 0);
    loop {
        sign()?;
        signatures += 1;
        let elapsed = now().saturating_sub(begin);
        if elapsed >= duration {
            return Ok((signatures, elapsed));
        }
    }
}

fn sign_once(
    lane: &Lane,
    bare: Option<BareCalls>,
    key: &KeyRef,
    handle: ObjectHandle,
) -> Result<(), HsmError> {
    let mut signature = [0; 64];
    let data = [0x5a; ED25519_LEN];
    let data = if key.algorithm.is_p256() {
        &data[..P256_LEN]
    } else {
        &data[..]
    };
    lane.sign_raw(bare, key, handle, data, &mut signature)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn counting_ends_with_the_clock() {
        let ticks = AtomicU64::new(0);
        let now = || Duration::from_millis(ticks.fetch_add(1, Ordering::Relaxed));
        let counted = sign_until(Duration::from_millis(10), &now, || Ok(()));
        assert_eq!(counted, Ok((10, Duration::from_millis(10))));
        assert_eq!(
            sign_until(Duration::from_millis(10), &now, || Err(
                HsmError::NoFreeSlot
            )),
            Err(HsmError::NoFreeSlot)
        );
    }

    #[test]
    fn a_run_is_a_rate() {
        let run = CeilingRun {
            sessions: 2,
            signatures: 500,
            elapsed: Duration::from_millis(250),
            bare_calls: true,
            session_key_copies: true,
        };
        assert_eq!(run.per_s(), 2000.0);
    }
}
