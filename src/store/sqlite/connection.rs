//! How connections are opened, and the pool of those that read: floor 2, `store/sqlite`.
//!
//! Deliberately not here: `mmap_size`. A read error on a mapped page is a signal, not an error,
//! and the pages are in the system's cache either way.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crossbeam::channel::{Receiver, Sender, bounded};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::config::SqliteConfig;
use crate::store::StoreError;

/// Bytes of a page: what a commit writes at least for each place it touches.
pub(super) const PAGE_LEN: u32 = 4096;

/// Prepared statements a connection keeps; there are fewer than this.
const STATEMENTS_MAX: usize = 64;

/// Makes an empty file that only its owner can read, and sees to its name being on disk. SQLite
/// gives the log and its index the same mode.
pub(super) fn create_file(path: &Path) -> Result<(), StoreError> {
    let failed = |why: std::io::Error| {
        StoreError::Failed(format!("cannot create the store: {}", why.kind()))
    };
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    file.sync_all().map_err(failed)?;
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))
        .and_then(|folder| folder.sync_all())
        .map_err(failed)
}

/// Opens a connection that writes; the file has to exist.
pub(super) fn open_writer(path: &Path, config: &SqliteConfig) -> Result<Connection, StoreError> {
    let connection = open(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE,
        config.writer_cache_mib,
        config,
    )?;
    // Takes effect while the file is empty, and is then the file's own.
    connection.pragma_update(None, "page_size", PAGE_LEN)?;
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(StoreError::Failed(
            "the file system has no shared memory for a write-ahead log".into(),
        ));
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    let log_len = i64::from(config.wal_mib) << 20;
    connection.pragma_update(None, "wal_autocheckpoint", log_len / i64::from(PAGE_LEN))?;
    connection.pragma_update(None, "journal_size_limit", log_len)?;
    Ok(connection)
}

/// Opens a connection that only reads.
pub(super) fn open_reader(path: &Path, config: &SqliteConfig) -> Result<Connection, StoreError> {
    open(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY,
        config.reader_cache_mib,
        config,
    )
}

/// Copies the whole log into the database and syncs that.
///
/// After a failed sync the system may hold pages it will never write, and show them as written.
/// What is read back after this is therefore on disk, wherever the log stands.
pub(super) fn settle(connection: &Connection) -> Result<(), StoreError> {
    let busy: i64 =
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    match busy {
        0 => Ok(()),
        _ => Err(StoreError::Failed("the log is still being read".into())),
    }
}

fn open(
    path: &Path,
    access: OpenFlags,
    cache_mib: u32,
    config: &SqliteConfig,
) -> Result<Connection, StoreError> {
    // One user at a time: the writer is behind a lock, a reader is lent to one caller.
    let connection = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(config.busy_timeout())?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    // Plans that look at bound values are made anew with each value, which costs more than the rest.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.pragma_update(None, "cache_size", -i64::from(cache_mib) * 1024)?;
    connection.pragma_update(None, "mmap_size", 0)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    // Rows refer to each other by numbers that nothing changes; every write checks what it needs.
    connection.pragma_update(None, "foreign_keys", false)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    Ok(connection)
}

/// Connections that read, lent to one caller at a time.
pub(super) struct Readers {
    idle: Receiver<Connection>,
    back: Sender<Connection>,
}

impl Readers {
    pub(super) fn open(path: &Path, config: &SqliteConfig) -> Result<Self, StoreError> {
        let (back, idle) = bounded(config.readers);
        for _ in 0..config.readers {
            // There is room for all of them, and both ends are here.
            let _ = back.send(open_reader(path, config)?);
        }
        Ok(Self { idle, back })
    }

    /// Lends a connection to `with`, waiting for one where all are lent.
    pub(super) fn lend<T>(
        &self,
        with: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let lent = self
            .idle
            .recv()
            .map_err(|_| StoreError::Failed("no connection to read with".into()))?;
        let lent = Lent {
            connection: Some(lent),
            to: &self.back,
        };
        match &lent.connection {
            Some(connection) => with(connection),
            None => Err(StoreError::Failed("no connection to read with".into())),
        }
    }
}

/// Goes back where it came from, whatever becomes of the caller.
struct Lent<'a> {
    connection: Option<Connection>,
    to: &'a Sender<Connection>,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            let _ = self.to.send(connection);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_written_ahead_and_synced_at_each_commit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fob.db");
        create_file(&path).unwrap();
        let writer = open_writer(&path, &SqliteConfig::default()).unwrap();
        let pragma = |connection: &Connection, name: &str| -> String {
            let value = connection
                .pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0));
            format!("{:?}", value.unwrap())
        };
        assert_eq!(pragma(&writer, "journal_mode"), "Text(\"wal\")");
        assert_eq!(pragma(&writer, "synchronous"), "Integer(2)");
        assert_eq!(pragma(&writer, "page_size"), "Integer(4096)");
        assert_eq!(pragma(&writer, "wal_autocheckpoint"), "Integer(1024)");
        writer
            .execute_batch("CREATE TABLE t (x INTEGER) STRICT")
            .unwrap();
        let reader = open_reader(&path, &SqliteConfig::default()).unwrap();
        assert!(reader.execute_batch("INSERT INTO t VALUES (1)").is_err());
        settle(&writer).unwrap();
        reader.execute_batch("BEGIN; SELECT * FROM t").unwrap();
    }
}
