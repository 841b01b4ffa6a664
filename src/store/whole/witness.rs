//! What is known outside of a store of how far it has come: a file beside it that no backup of the
//! store has, and that says so after every transaction, before its outcome is told to anybody.
//!
//! Each process has an id, and counts its transactions; the store keeps both, in the transaction
//! itself. The file has those of the last transaction that was committed. A store that does not
//! reach as far was put back from a backup, whichever moment that is of. The file is written after
//! the commit, so a crash between the two leaves a store that is further than its file, which is no
//! alarm. It is synced once a second and at the end: only where the machine itself fails, and not
//! just a process, can the last second before that be missing from it.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{RecvTimeoutError, Sender, bounded};

use super::{Fence, Fenced, Position};
use crate::domain::{
    Authorization, AuthorizationId, BundleId, EpochId, FleetId, IdentityId, UnixTime,
};
use crate::store::{
    ActFilter, Acts, AnsweredOrder, Applied, AuthorizationFilter, BundleKey, Cursor, Nodes, Row,
    SignedBundle, SignedBy, Store, StoreError, Write,
};

/// The file's name, beside the configuration.
pub const WITNESS_FILE: &str = "store.witness";

/// Bytes of one of the two places in the file, which are written in turn: whatever a loss of power
/// leaves of one, the other is whole.
const PLACE_LEN: usize = 512;

/// How often the file is synced.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// What the file says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Witness {
    /// Counts what was written into the file.
    turn: u64,
    /// How often the store had been restored.
    pub restores: u32,
    /// The last transaction that was committed.
    pub position: Position,
}

/// How a store stands to its witness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Testimony {
    /// It has come at least as far.
    Reached,
    /// It was put back from a backup: the last transaction that was answered is not in it.
    Behind(Witness),
    /// There is no file, and there was one.
    Missing,
}

impl Witness {
    /// What the file at `path` says; `None` where there is none.
    ///
    /// # Errors
    /// It cannot be read, or says nothing.
    pub fn read(path: &Path) -> Result<Option<Self>, StoreError> {
        let bytes = match std::fs::read(path) {
            // Made a moment before a crash.
            Ok(bytes) if bytes.is_empty() => return Ok(None),
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(path, &error)),
        };
        let newest = bytes.chunks(PLACE_LEN).filter_map(Self::parse);
        let newest = newest.max_by_key(|witness| witness.turn);
        let nothing = || StoreError::Corrupt(format!("{} says nothing", path.display()));
        newest.ok_or_else(nothing).map(Some)
    }

    fn parse(place: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(place).ok()?.trim_end();
        let (said, sum) = text.rsplit_once(' ')?;
        let mut words = said.split(' ');
        let mut word = |name| {
            let word = words.next()?;
            word.strip_prefix(name)?.strip_prefix('=')
        };
        let witness = Self {
            turn: word("turn")?.parse().ok()?,
            restores: word("restores")?.parse().ok()?,
            position: Position {
                process: u128::from_str_radix(word("process")?, 16)
                    .ok()?
                    .to_be_bytes(),
                number: word("transaction")?.parse().ok()?,
            },
        };
        (sum == checksum(said)).then_some(witness)
    }

    fn place(&self) -> [u8; PLACE_LEN] {
        let Position { process, number } = self.position;
        let said = format!(
            "turn={} restores={} process={:032x} transaction={number}",
            self.turn,
            self.restores,
            u128::from_be_bytes(process)
        );
        let line = format!("{said} {}", checksum(&said));
        let mut place = [b' '; PLACE_LEN];
        let len = line.len().min(PLACE_LEN - 1);
        place[..len].copy_from_slice(&line.as_bytes()[..len]);
        place[PLACE_LEN - 1] = b'\n';
        place
    }

    /// How `store` stands to the file at `path`.
    ///
    /// # Errors
    /// Either cannot be read.
    pub fn ask(path: &Path, store: &dyn Fenced) -> Result<Testimony, StoreError> {
        let restores = store.restored()?.number;
        Ok(match Self::read(path)? {
            None if store.fence(Fence::Witnessed)?.is_some() => Testimony::Missing,
            None => Testimony::Reached,
            // It was restored, and fenced, since this file was written.
            Some(witness) if witness.restores < restores => Testimony::Reached,
            Some(witness) if witness.restores == restores && store.reaches(witness.position)? => {
                Testimony::Reached
            }
            Some(witness) => Testimony::Behind(witness),
        })
    }

    /// Says in the file at `path` that a store was restored so often, and nothing of how far it
    /// has come since.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn restored(path: &Path, restores: u32) -> Result<(), StoreError> {
        let (file, before) = open(path)?;
        let witness = Self {
            turn: before.turn + 1,
            restores,
            position: Position::default(),
        };
        witness.write(&file).map_err(|error| failed(path, &error))?;
        file.sync_all().map_err(|error| failed(path, &error))
    }

    fn write(&self, file: &File) -> std::io::Result<()> {
        file.write_all_at(&self.place(), self.turn % 2 * PLACE_LEN as u64)
    }
}

/// The first digits of a SHA-256.
fn checksum(said: &str) -> String {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, said.as_bytes());
    let first = hash.as_ref().iter().take(8);
    first.map(|byte| format!("{byte:02x}")).collect()
}

fn failed(path: &Path, error: &std::io::Error) -> StoreError {
    StoreError::Failed(format!("{}: {}", path.display(), error.kind()))
}

/// Opens the file, made where there is none, and what it says.
fn open(path: &Path) -> Result<(File, Witness), StoreError> {
    let before = Witness::read(path)?;
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| failed(path, &error))?;
    if before.is_none() {
        // Its name is on disk before anything rests on it.
        let folder = path.parent().filter(|it| !it.as_os_str().is_empty());
        let synced = file.sync_all().and_then(|()| {
            File::open(folder.unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all())
        });
        synced.map_err(|error| failed(path, &error))?;
    }
    Ok((file, before.unwrap_or_default()))
}

/// A store that is watched: a transaction is not told of before the file says that it took place.
pub struct Witnessed {
    store: Arc<dyn Fenced>,
    path: PathBuf,
    file: Arc<File>,
    /// Held to write the file.
    last: Mutex<Witness>,
    unsynced: Arc<AtomicBool>,
    /// Dropped to end the thread that syncs.
    stop: Option<Sender<()>>,
    syncer: Option<JoinHandle<()>>,
}

impl Witnessed {
    /// Watches `store` with the file at `path`, whose word on it has been asked.
    ///
    /// # Errors
    /// Either fails.
    pub fn over(store: Arc<dyn Fenced>, path: &Path) -> Result<Self, StoreError> {
        let (file, before) = open(path)?;
        let restores = store.restored()?.number;
        let mut last = before;
        if before.restores < restores {
            last = Witness {
                turn: before.turn,
                restores,
                position: Position::default(),
            };
            // To be said, though the position may be the same.
            last.turn += 1;
            last.write(&file).map_err(|error| failed(path, &error))?;
        }
        let (file, unsynced) = (Arc::new(file), Arc::new(AtomicBool::new(true)));
        let (stop, stopped) = bounded::<()>(0);
        let synced = (Arc::clone(&file), Arc::clone(&unsynced));
        let syncer = std::thread::Builder::new().name("fob-witness".into());
        let syncer = syncer.spawn(move || {
            let (file, unsynced) = synced;
            while matches!(
                stopped.recv_timeout(SYNC_EVERY),
                Err(RecvTimeoutError::Timeout)
            ) {
                sync(&file, &unsynced);
            }
        });
        let no_thread = |error| StoreError::Failed(format!("no thread for the witness: {error}"));
        let watched = Self {
            store,
            path: path.to_owned(),
            file,
            last: Mutex::new(last),
            unsynced,
            stop: Some(stop),
            syncer: Some(syncer.map_err(no_thread)?),
        };
        // Before the store says that there is a file.
        watched.say(last.position)?;
        if watched.store.fence(Fence::Witnessed)?.is_none() {
            watched.store.set_fence(Fence::Witnessed, Some("yes"))?;
        }
        Ok(watched)
    }

    fn say(&self, position: Position) -> Result<(), StoreError> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.turn > 0 && last.position == position {
            return Ok(());
        }
        let next = Witness {
            turn: last.turn + 1,
            position,
            ..*last
        };
        next.write(&self.file)
            .map_err(|error| failed(&self.path, &error))?;
        *last = next;
        self.unsynced.store(true, Ordering::Release);
        Ok(())
    }
}

fn sync(file: &File, unsynced: &AtomicBool) {
    if unsynced.swap(false, Ordering::AcqRel)
        && let Err(error) = file.sync_data()
    {
        unsynced.store(true, Ordering::Release);
        tracing::error!(%error, "the store's witness cannot be synced");
    }
}

impl Drop for Witnessed {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(syncer) = self.syncer.take() {
            // One that panicked has synced nothing.
            let _ = syncer.join();
        }
        sync(&self.file, &self.unsynced);
    }
}

impl Store for Witnessed {
    fn commit_beside(
        &self,
        writes: &[Write],
        beside: &mut dyn FnMut(),
    ) -> Result<Vec<Applied>, StoreError> {
        let applied = self.store.commit_beside(writes, beside)?;
        if let Some(position) = self.store.position() {
            // It took place, and whoever asked is told so only if that is known outside too.
            let said = self.say(position);
            said.map_err(|why| StoreError::Unknown(why.to_string()))?;
        }
        Ok(applied)
    }

    fn load(&self, each: &mut dyn FnMut(Row)) -> Result<(), StoreError> {
        self.store.load(each)
    }

    fn bundle(&self, by: BundleKey) -> Result<Option<SignedBundle>, StoreError> {
        self.store.bundle(by)
    }

    fn versions(&self, bundle: BundleId) -> Result<Vec<SignedBundle>, StoreError> {
        self.store.versions(bundle)
    }

    fn signed_by(
        &self,
        epoch: EpochId,
        now: UnixTime,
        after: Option<&Cursor>,
        at_most: u32,
    ) -> Result<SignedBy, StoreError> {
        self.store.signed_by(epoch, now, after, at_most)
    }

    fn held_by(
        &self,
        fleet: FleetId,
        identity: &IdentityId,
    ) -> Result<Vec<AuthorizationId>, StoreError> {
        self.store.held_by(fleet, identity)
    }

    fn outcome(&self, scope: &[u8; 32]) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.outcome(scope)
    }

    fn answered(&self, call: &[u8; 32]) -> Result<Vec<AnsweredOrder>, StoreError> {
        self.store.answered(call)
    }

    fn authorizations(
        &self,
        filter: &AuthorizationFilter,
    ) -> Result<Vec<Authorization>, StoreError> {
        self.store.authorizations(filter)
    }

    fn nodes(&self) -> Option<&dyn Nodes> {
        self.store.nodes()
    }

    /// What was put back beneath a server that runs is noticed here: it is never opened again.
    fn acts(&self, filter: &ActFilter) -> Result<Acts, StoreError> {
        self.store.acts(filter)
    }

    fn reopen(&self) -> Result<(), StoreError> {
        self.store.reopen()?;
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if self.store.restored()?.number == last.restores && self.store.reaches(last.position)? {
            return Ok(());
        }
        Err(StoreError::Failed(
            "this store was put back from a backup: stop the server and run `fob restore`".into(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn witness(turn: u64) -> Witness {
        Witness {
            turn,
            restores: 3,
            position: Position {
                process: [0x0a; 16],
                number: 77,
            },
        }
    }

    #[test]
    fn the_newest_whole_place_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(WITNESS_FILE);
        assert_eq!(Witness::read(&path), Ok(None));
        let (file, none) = open(&path).unwrap();
        assert_eq!(none, Witness::default());
        for turn in 1..=5 {
            witness(turn).write(&file).unwrap();
            assert_eq!(Witness::read(&path), Ok(Some(witness(turn))));
        }
        // The fifth is torn: the fourth is whole.
        file.write_all_at(b"turn=9", PLACE_LEN as u64).unwrap();
        assert_eq!(Witness::read(&path), Ok(Some(witness(4))));
        file.write_all_at(b"?", 0).unwrap();
        assert!(matches!(Witness::read(&path), Err(StoreError::Corrupt(_))));
    }
}
