//! What only SQLite has: a file, its mode, its schema version, its log, and a disk that fills up.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use fob::domain::{FleetId, VehicleId};
use fob::store::sqlite::{Sqlite, SqliteConfig};
use fob::store::{Applied, BundleKey, Store, StoreError, Write};
use rusqlite::{Connection, params};

use super::conformance::{Place, conformance};
use super::sample::*;

/// A folder with one file in it; `P::new().open()` outlives the value, so the folder is kept until
/// the process ends.
struct Folder {
    path: PathBuf,
}

impl Folder {
    fn file(&self) -> PathBuf {
        self.path.join("fob.db")
    }

    fn connection(&self) -> Connection {
        Connection::open(self.file()).unwrap()
    }
}

impl Place for Folder {
    type Store = Sqlite;

    fn new() -> Self {
        let folder = Self { path: tempfile::tempdir().unwrap().keep() };
        Sqlite::create(&folder.file(), SqliteConfig::default()).unwrap();
        folder
    }

    fn open(&self) -> Sqlite {
        Sqlite::open(&self.file(), SqliteConfig::default()).unwrap()
    }

    fn suspend_vehicle(&self, fleet: FleetId, vehicle: &VehicleId) {
        let sql = "UPDATE vehicles SET status = 1
                   WHERE id = ?2 AND fleet = (SELECT number FROM fleets WHERE id = ?1)";
        assert_eq!(self.connection().execute(sql, params![fleet.bytes(), vehicle.as_str()]), Ok(1));
    }

    fn suspend_fleet(&self, fleet: FleetId) {
        let sql = "UPDATE fleets SET status = 1 WHERE id = ?1";
        assert_eq!(self.connection().execute(sql, params![fleet.bytes()]), Ok(1));
    }
}

conformance!(Folder);
