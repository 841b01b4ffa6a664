//! Stations: the tokens that sign, each with a thread, a breaker and a measured rate of its own.
//!
//! A station signs under the active epoch of its token. A batch goes to the least busy station
//! that is up. A station that fails is *down*: no batch goes to it until its thread, which asks
//! it again and again, has had a trial signature of it. While every station is down, the door
//! refuses; what was let in before waits a little for one to come back.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::Shared;
use super::book::Book;
use super::pace::Pace;
use super::prepare::PreparedBatch;
use super::sign::trial;
use crate::clock::Clock;
use crate::concurrent::channel::{Receiver, Sender, bounded};
use crate::concurrent::{Condvar, Mutex, MutexGuard};
use crate::domain::{Epoch, EpochState, UnixTime};
use crate::hsm::{KeyRef, Parked, Signer, TokenStatus};

/// How long what was let in waits for a station to come back, counted from when the last one went
/// down.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often a waiting batch looks whether its patience is over.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Signatures a second of a station that was not measured yet.
const RATE_UNMEASURED: f64 = 1_000.0;

/// A token to sign with.
pub struct Issuing {
    /// What it is called in logs and metrics: the token's label.
    pub name: String,
    /// The serial number its epochs name. A token that holds copies of another's keys has the
    /// other's.
    pub serial: Option<String>,
    /// Whether there is no other: then epochs of another serial number are its own too, if it has
    /// none with this one. A trial shows whether it holds their keys.
    pub alone: bool,
    /// Who signs.
    pub signer: Arc<dyn Signer>,
}

impl Issuing {
    /// The only token there is.
    pub fn alone(name: impl Into<String>, signer: Arc<dyn Signer>) -> Self {
        Self {
            name: name.into(),
            serial: None,
            alone: true,
            signer,
        }
    }
}

/// How a station is.
#[derive(Clone, Debug)]
pub struct StationStatus {
    /// Its name.
    pub name: String,
    /// Whether batches go to it.
    pub up: bool,
    /// Signatures a second, as measured; zero before the first.
    pub rate_per_s: f64,
    /// Messages handed to it and not yet signed.
    pub waiting: usize,
    /// Its threads inside overdue calls.
    pub parked: Parked,
}

/// One token, from the engine's side.
pub(super) struct Station {
    issuing: Issuing,
    /// Raised by its thread when a batch fails and by the committer when a signature is wrong;
    /// taken back by its thread after a trial. Who reads it too late hands over a batch that comes
    /// back, so relaxed is enough.
    down: AtomicBool,
    /// Messages handed over and not yet signed. Advice, like the rate.
    waiting: AtomicUsize,
    pub(super) pace: Pace,
    /// Wakes the thread of a station that others have found down.
    alarm: Sender<()>,
}

/// The ends of a station's channels: the batcher's, and those of its own thread.
pub(super) struct Desk {
    pub(super) to_sign: Sender<PreparedBatch>,
    pub(super) prepared: Receiver<PreparedBatch>,
    pub(super) alarms: Receiver<()>,
}

/// All stations.
pub(super) struct Stations {
    all: Vec<Station>,
    /// When one of them went down last, on the monotonic clock. Changes are told under its lock, so
    /// that who looks and then waits misses none.
    failed_at: Mutex<Duration>,
    changed: Condvar,
}

/// Where a batch goes.
pub(super) struct Chosen {
    /// The station's number.
    pub(super) at: usize,
    /// The epoch it signs under.
    pub(super) epoch: Arc<Epoch>,
    /// A time within that epoch's window, in milliseconds: cars refuse what is issued outside it.
    pub(super) unix_ms: u64,
}

impl Station {
    pub(super) fn name(&self) -> &str {
        &self.issuing.name
    }

    pub(super) fn signer(&self) -> &Arc<dyn Signer> {
        &self.issuing.signer
    }

    pub(super) fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    /// The epoch it signs under at `now`.
    fn epoch(&self, book: &Book, now: UnixTime) -> Option<Arc<Epoch>> {
        let epochs = book.epochs();
        let open = |epoch: &&Arc<Epoch>| {
            epoch.state == EpochState::Active && epoch.window.contains(now) && self.holds(epoch)
        };
        let open = || epochs.iter().filter(open);
        let named = open().find(|epoch| self.is_named(epoch));
        named.or_else(|| open().next()).cloned()
    }

    /// An epoch to try it with: the one it signs under, or else any that may be signed with again.
    pub(super) fn trial_epoch(&self, book: &Book, now: UnixTime) -> Option<Arc<Epoch>> {
        let usable = |epoch: &&Arc<Epoch>| epoch.state != EpochState::Revoked && self.holds(epoch);
        let any = || book.epochs().iter().rfind(usable).cloned();
        self.epoch(book, now).or_else(any)
    }

    /// Has it sign something that is no key, and learns how long that takes.
    pub(super) fn try_out(&self, epoch: &Epoch, shared: &Shared) -> Result<(), String> {
        let started = shared.clock.monotonic();
        trial(&**self.signer(), epoch, &shared.tally)?;
        let took = shared.clock.monotonic().saturating_sub(started);
        self.pace.learn(1, took);
        Ok(())
    }

    fn holds(&self, epoch: &Epoch) -> bool {
        self.issuing.alone || self.is_named(epoch)
    }

    fn is_named(&self, epoch: &Epoch) -> bool {
        self.issuing.serial.as_ref() == Some(&epoch.token_serial)
    }

    /// How long what waits will take, and one message more.
    fn backlog(&self) -> f64 {
        let rate = self.pace.rate();
        let rate = if rate > 0.0 { rate } else { RATE_UNMEASURED };
        (self.waiting.load(Ordering::Relaxed) + 1) as f64 / rate
    }
}

impl Stations {
    /// The stations, all up, and for each the desk its thread sits at.
    pub(super) fn new(tokens: Vec<Issuing>) -> (Self, Vec<Desk>) {
        let station = |issuing| {
            // One batch may wait while another is worked at: enough to overlap, and back-pressure
            // for free.
            let (to_sign, prepared) = bounded(1);
            let (alarm, alarms) = bounded(1);
            let station = Station {
                issuing,
                down: AtomicBool::new(false),
                waiting: AtomicUsize::new(0),
                pace: Pace::default(),
                alarm,
            };
            let desk = Desk {
                to_sign,
                prepared,
                alarms,
            };
            (station, desk)
        };
        let (all, desks) = tokens.into_iter().map(station).unzip();
        let stations = Self {
            all,
            failed_at: Mutex::new(Duration::ZERO),
            changed: Condvar::new(),
        };
        (stations, desks)
    }

    pub(super) fn get(&self, at: usize) -> &Station {
        &self.all[at]
    }

    /// Tries every station that has an epoch; one that does not sign is down.
    pub(super) fn try_all(&self, shared: &Shared) -> Result<(), String> {
        let (mut signing, mut problem) = (0, None);
        for (at, station) in self.all.iter().enumerate() {
            let Some(epoch) = station.epoch(&shared.book, shared.clock.unix()) else {
                tracing::error!(token = station.name(), "no epoch of this token is active");
                continue;
            };
            let ready = station.signer().prepare_key(&key_of(&epoch));
            let tried = ready
                .map_err(|error| error.to_string())
                .and_then(|()| station.try_out(&epoch, shared));
            match tried {
                Ok(()) => signing += 1,
                Err(error) => {
                    self.fail(at, &*shared.clock, &epoch, &error);
                    problem = Some(format!("the key of epoch {}: {error}", epoch.id));
                }
            }
        }
        match problem {
            Some(problem) if signing == 0 => Err(problem),
            _ => Ok(()),
        }
    }

    /// Lets go of every token.
    pub(super) fn close(&self) {
        for station in &self.all {
            station.signer().close();
        }
    }

    /// Whether none is up: the HSM is down.
    pub(super) fn all_down(&self) -> bool {
        self.all.iter().all(Station::is_down)
    }

    /// Whether every thread that could sign, or open new sessions, is inside an overdue call.
    pub(super) fn all_parked(&self) -> bool {
        self.all.iter().all(|one| one.signer().parked().all)
    }

    /// Whether one is up and has an epoch to sign under.
    pub(super) fn any_open(&self, book: &Book, now: UnixTime) -> bool {
        let mut up = self.all.iter().filter(|one| !one.is_down());
        up.any(|one| one.epoch(book, now).is_some())
    }

    /// Who holds the key of this epoch: one that is up, if any is.
    pub(super) fn signer_of(&self, epoch: &Epoch) -> Option<&Arc<dyn Signer>> {
        let holders = || self.all.iter().filter(|one| one.holds(epoch));
        let up = holders().find(|one| !one.is_down());
        up.or_else(|| holders().next()).map(Station::signer)
    }

    /// The least busy station that is up, has room and an epoch; waits for one. `None` where none
    /// has an epoch, or all that have one stay down for longer than patience. `to_sign` are the
    /// stations' channels, in their order.
    pub(super) fn choose(
        &self,
        to_sign: &[Sender<PreparedBatch>],
        book: &Book,
        clock: &dyn Clock,
    ) -> Option<Chosen> {
        let mut failed_at = lock(&self.failed_at);
        loop {
            let unix_ms = clock.unix_ms();
            let able = self.all.iter().enumerate().filter_map(|(at, station)| {
                let epoch = station.epoch(book, unix_ms / 1000)?;
                let chosen = Chosen { at, epoch, unix_ms };
                Some((station, chosen))
            });
            let mut able: Vec<_> = able.collect();
            if able.is_empty() {
                return None;
            }
            able.retain(|(station, _)| !station.is_down());
            let waited = clock.monotonic().saturating_sub(*failed_at);
            if able.is_empty() && waited >= PATIENCE {
                return None;
            }
            able.retain(|(_, chosen)| !to_sign[chosen.at].is_full());
            let least = able
                .into_iter()
                .min_by(|(one, _), (other, _)| one.backlog().total_cmp(&other.backlog()));
            if let Some((_, chosen)) = least {
                return Some(chosen);
            }
            let woken = self.changed.wait_timeout(failed_at, LOOK_EVERY);
            failed_at = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The least busy station that is up and has an epoch, for what is signed outside of batches.
    pub(super) fn pick(&self, book: &Book, now: UnixTime) -> Option<(usize, Arc<Epoch>)> {
        let up = self
            .all
            .iter()
            .enumerate()
            .filter(|(_, one)| !one.is_down());
        let able = up.filter_map(|(at, one)| Some((one.backlog(), at, one.epoch(book, now)?)));
        able.min_by(|(one, ..), (other, ..)| one.total_cmp(other))
            .map(|(_, at, epoch)| (at, epoch))
    }

    /// So many messages are handed to a station.
    pub(super) fn hand_over(&self, at: usize, messages: usize) {
        self.all[at].waiting.fetch_add(messages, Ordering::Relaxed);
    }

    /// Its thread has taken a batch: there is room for another.
    pub(super) fn taken(&self) {
        drop(lock(&self.failed_at));
        self.changed.notify_all();
    }

    /// Its thread is done with a batch, however it went.
    pub(super) fn done(&self, at: usize, messages: usize) {
        self.all[at].waiting.fetch_sub(messages, Ordering::Relaxed);
    }

    /// Takes a station out. One line in the log, whoever comes first.
    pub(super) fn fail(&self, at: usize, clock: &dyn Clock, epoch: &Epoch, error: &str) {
        let station = &self.all[at];
        let mut failed_at = lock(&self.failed_at);
        if station.down.swap(true, Ordering::Relaxed) {
            return;
        }
        *failed_at = clock.monotonic();
        let (token, epoch) = (station.name(), epoch.id);
        if self.all_down() {
            tracing::error!(token, %epoch, error, "the HSM is down: nothing is signed");
        } else {
            tracing::error!(token, %epoch, error, "a token does not sign; the others go on");
        }
        metrics::counter!("fob_hsm_outages_total", "token" => station.name().to_owned())
            .increment(1);
        drop(failed_at);
        // One that waits already is as good.
        let _ = station.alarm.try_send(());
        self.changed.notify_all();
    }

    /// Brings a station back.
    pub(super) fn recover(&self, at: usize) {
        let station = &self.all[at];
        let told = lock(&self.failed_at);
        if station.down.swap(false, Ordering::Relaxed) {
            tracing::info!(token = station.name(), "the HSM signs again");
        }
        drop(told);
        self.changed.notify_all();
    }

    /// How each of them is; asks no token.
    pub(super) fn standing(&self) -> Vec<StationStatus> {
        let status = |station: &Station| StationStatus {
            name: station.name().to_owned(),
            up: !station.is_down(),
            rate_per_s: station.pace.rate(),
            waiting: station.waiting.load(Ordering::Relaxed),
            parked: station.signer().parked(),
        };
        self.all.iter().map(status).collect()
    }

    /// What each token says of itself, asked now.
    pub(super) fn ask(&self) -> Vec<(StationStatus, TokenStatus)> {
        let asked = self.all.iter().map(|one| one.signer().status());
        self.standing().into_iter().zip(asked).collect()
    }
}

/// The key of an epoch, as its token knows it.
pub(super) fn key_of(epoch: &Epoch) -> KeyRef {
    KeyRef {
        id: epoch.cka_id,
        algorithm: epoch.key.algorithm(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
