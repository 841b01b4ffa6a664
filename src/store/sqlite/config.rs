//! What of SQLite can be set: floor 2, `store/sqlite`. Bounds and defaults; the units are in the
//! names.

use std::time::Duration;

/// How the store uses memory, disk and connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SqliteConfig {
    /// Connections that read while the writer works (1 to 64).
    pub readers: usize,
    /// Page cache of the writer, in MiB (1 to 4096).
    pub writer_cache_mib: u32,
    /// Page cache of each reader, in MiB (1 to 1024).
    pub reader_cache_mib: u32,
    /// How long a lock of another process is waited for, in milliseconds (at most a minute).
    pub busy_timeout_ms: u32,
    /// Size of the write-ahead log from which on it is copied into the database, in MiB (1 to
    /// 1024). A page that was written many times since is copied once, so a longer log saves
    /// writes; what is copied at once is a pause for those who commit meanwhile, on a disk that
    /// is slow to sync. A log that grows faster than it is copied becomes 32 times as long.
    pub wal_mib: u32,
}

impl Default for SqliteConfig {
    fn default() -> Self {
        Self {
            readers: 4,
            writer_cache_mib: 64,
            reader_cache_mib: 8,
            busy_timeout_ms: 2000,
            wal_mib: 4,
        }
    }
}

impl SqliteConfig {
    /// The same within the bounds of each field.
    pub(super) fn bounded(self) -> Self {
        Self {
            readers: self.readers.clamp(1, 64),
            writer_cache_mib: self.writer_cache_mib.clamp(1, 4096),
            reader_cache_mib: self.reader_cache_mib.clamp(1, 1024),
            busy_timeout_ms: self.busy_timeout_ms.min(60_000),
            wal_mib: self.wal_mib.clamp(1, 1024),
        }
    }

    pub(super) fn busy_timeout(&self) -> Duration {
        Duration::from_millis(self.busy_timeout_ms.into())
    }
}
