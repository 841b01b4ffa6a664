//! Copying the log into the database beside the writer: floor 2, `store/sqlite`.
//!
//! Copying a long log, and syncing the database after it, takes from ten to some hundred
//! milliseconds, for which nobody should wait. A thread with a connection of its own does it while
//! commits go on. What they add meanwhile is little; the writer copies that itself, between two
//! transactions, and only then does SQLite begin the log anew. A log that grows faster than it is
//! copied becomes 32 times as long as it should; then the writer waits.
//!
//! A copy that fails is a sync that may have failed: the next transaction is refused, and the store
//! is to be opened anew, which copies the whole log once more (`connection::settle`).

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Builder, JoinHandle};

use crossbeam::channel::{Receiver, Sender, TryRecvError, bounded};
use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, ErrorCode};

use super::config::SqliteConfig;
use super::connection::{PAGE_LEN, open_writer};
use crate::store::StoreError;

/// How many times as long as it should be the log may become.
const GROWN: usize = 32;

/// The part of such a length that the writer copies itself.
const REST: usize = 8;

/// The writer's side of copying.
pub(super) struct Checkpoints {
    /// Frames, which are pages, in the log after the newest commit. SQLite tells it; one thread
    /// writes and reads it.
    frames: Arc<AtomicUsize>,
    /// Frames from which on the log is copied.
    long: usize,
    /// Whether the thread is at it.
    copying: bool,
    /// `None` once dropped.
    begin: Option<Sender<()>>,
    /// How many frames it has copied, those copied earlier included.
    copied: Receiver<Result<usize, StoreError>>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpoints {
    /// From now on the log that `writer` writes to is copied when it is long.
    ///
    /// # Errors
    /// [`StoreError::Failed`] where there is no second connection, or no thread.
    pub(super) fn start(
        writer: &mut Connection,
        path: &Path,
        config: &SqliteConfig,
    ) -> Result<Self, StoreError> {
        let own = SqliteConfig {
            writer_cache_mib: 1,
            ..*config
        };
        let long = (config.wal_mib as usize) << 20;
        Self::over(writer, open_writer(path, &own)?, long / PAGE_LEN as usize)
    }

    fn over(writer: &mut Connection, own: Connection, long: usize) -> Result<Self, StoreError> {
        let frames = Arc::new(AtomicUsize::new(0));
        let told = Arc::clone(&frames);
        // Replaces what SQLite would do by itself: copy within the commit.
        writer.wal_hook(Some(move |_: &mut _, frames| {
            told.store(usize::try_from(frames).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))?;
        let (begin, orders) = bounded::<()>(1);
        let (done, copied) = bounded(1);
        let copy_all = move || {
            for () in orders {
                // Nobody waits for it where the store is being closed.
                drop(done.send(copy(&own).map(|(_, copied)| copied)));
            }
        };
        let thread = Builder::new()
            .name("fob-checkpoint".into())
            .spawn(copy_all)
            .map_err(|_| StoreError::Failed("no thread to copy the log with".into()))?;
        Ok(Self {
            frames,
            long,
            copying: false,
            begin: Some(begin),
            copied,
            thread: Some(thread),
        })
    }

    /// Sees to the log between two transactions of `writer`.
    ///
    /// # Errors
    /// Why the log could not be copied; the store is to be opened anew.
    pub(super) fn look(&mut self, writer: &Connection) -> Result<(), StoreError> {
        let frames = self.frames.load(Ordering::Relaxed);
        if self.copying {
            let Some(copied) = self.outcome(frames)? else {
                return Ok(());
            };
            self.copying = false;
            if frames.saturating_sub(copied) <= self.long / REST {
                let (frames, copied) = copy(writer)?;
                self.frames.store(frames - copied, Ordering::Relaxed);
            }
        }
        if self.frames.load(Ordering::Relaxed) >= self.long
            && let Some(begin) = &self.begin
        {
            // There is room: the thread has told of what it was asked last.
            self.copying = begin.try_send(()).is_ok();
        }
        Ok(())
    }

    /// What the thread has copied, once it has; waits for it where the log is far too long.
    fn outcome(&self, frames: usize) -> Result<Option<usize>, StoreError> {
        let gone = || StoreError::Failed("the thread that copies the log is gone".into());
        if frames >= GROWN * self.long {
            return self.copied.recv().map_err(|_| gone())?.map(Some);
        }
        match self.copied.try_recv() {
            Ok(outcome) => outcome.map(Some),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(gone()),
        }
    }
}

impl Drop for Checkpoints {
    /// Waits for the thread: whoever opens the store next finds nobody at its log.
    fn drop(&mut self) {
        drop(self.begin.take());
        if let Some(thread) = self.thread.take() {
            // It does not panic; and there is nothing to be done if it did.
            drop(thread.join());
        }
    }
}

/// Copies what nobody still reads the older state of. Returns the log's frames, and how many of
/// them are copied, now or earlier: none where another process is at it.
fn copy(connection: &Connection) -> Result<(usize, usize), StoreError> {
    match connection.wal_checkpoint_v2(Some(c"main"), CheckpointMode::PASSIVE) {
        Ok((frames, copied)) => {
            let count = |frames: i32| usize::try_from(frames).unwrap_or(0);
            Ok((count(frames), count(copied).min(count(frames))))
        }
        Err(why) if why.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => Ok((0, 0)),
        Err(why) => Err(why.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::connection::{create_file, open_reader};

    const LONG: usize = 64;

    struct Scene {
        writer: Connection,
        path: std::path::PathBuf,
        _folder: tempfile::TempDir,
    }

    impl Scene {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("fob.db");
            create_file(&path).unwrap();
            let writer = open_writer(&path, &SqliteConfig::default()).unwrap();
            writer
                .execute_batch("CREATE TABLE t (x BLOB) STRICT")
                .unwrap();
            Self {
                writer,
                path,
                _folder: folder,
            }
        }

        /// About two pages.
        fn write(&self) {
            self.writer
                .execute("INSERT INTO t VALUES (zeroblob(4000))", [])
                .unwrap();
        }

        fn log_pages(&self) -> usize {
            let log = self.path.with_extension("db-wal");
            std::fs::metadata(log).unwrap().len() as usize / PAGE_LEN as usize
        }
    }

    #[test]
    fn a_log_that_is_copied_while_it_is_written_begins_anew() {
        let mut scene = Scene::new();
        let own = open_writer(&scene.path, &SqliteConfig::default()).unwrap();
        let mut checkpoints = Checkpoints::over(&mut scene.writer, own, LONG).unwrap();
        let mut began_anew = 0;
        let mut before = 0;
        for _ in 0..2_000 {
            checkpoints.look(&scene.writer).unwrap();
            scene.write();
            let frames = checkpoints.frames.load(Ordering::Relaxed);
            began_anew += usize::from(frames < before);
            before = frames;
        }
        assert!(began_anew > 2, "{began_anew}");
        // One transaction more than the most, and the log's head.
        assert!(
            scene.log_pages() <= GROWN * LONG + 8,
            "{}",
            scene.log_pages()
        );
        let count = |connection: &Connection| -> i64 {
            connection
                .query_row("SELECT count(*) FROM t", [], |row| row.get(0))
                .unwrap()
        };
        let reader = open_reader(&scene.path, &SqliteConfig::default()).unwrap();
        assert_eq!(count(&reader), 2_000);
    }

    #[test]
    fn the_log_stays_while_somebody_reads_what_was_before_it() {
        let mut scene = Scene::new();
        let own = open_writer(&scene.path, &SqliteConfig::default()).unwrap();
        let mut checkpoints = Checkpoints::over(&mut scene.writer, own, LONG).unwrap();
        let reader = open_reader(&scene.path, &SqliteConfig::default()).unwrap();
        reader
            .execute_batch("BEGIN; SELECT count(*) FROM t")
            .unwrap();
        for _ in 0..2_000 {
            checkpoints.look(&scene.writer).unwrap();
            scene.write();
        }
        assert!(scene.log_pages() > GROWN * LONG);
        let before: i64 = reader
            .query_row("SELECT count(*) FROM t", [], |row| row.get(0))
            .unwrap();
        assert_eq!(before, 0, "a reader sees what was when it began");
    }

    #[test]
    fn a_copy_that_fails_is_told_to_the_next_transaction() {
        let mut scene = Scene::new();
        // A connection that is within a transaction cannot copy; neither can a disk that fails.
        let own = open_writer(&scene.path, &SqliteConfig::default()).unwrap();
        own.execute_batch("BEGIN; SELECT count(*) FROM t").unwrap();
        let mut checkpoints = Checkpoints::over(&mut scene.writer, own, LONG).unwrap();
        let failed = (0..10_000).find_map(|_| {
            scene.write();
            checkpoints.look(&scene.writer).err()
        });
        assert!(matches!(failed, Some(StoreError::Failed(_))), "{failed:?}");
    }
}
