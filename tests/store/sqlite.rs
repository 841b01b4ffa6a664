//! What only SQLite has: a file, its mode, its schema version, its log, and a disk that fills up.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use fob::domain::{Author, FleetId, Recipient, Restrictions};
use fob::store::sqlite::{Sqlite, SqliteConfig};
use fob::store::{Row, Store, StoreError};
use rusqlite::{Connection, params};

use super::conformance::{Place, conformance};
use super::sample::*;

/// A folder with one store in it, removed with it.
pub(super) struct Folder(tempfile::TempDir);

impl Folder {
    fn file(&self) -> PathBuf {
        self.0.path().join("fob.db")
    }

    /// A connection of its own, past the store.
    pub(super) fn connection(&self) -> Connection {
        Connection::open(self.file()).unwrap()
    }
}

impl Place for Folder {
    type Store = Sqlite;

    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        Sqlite::create(&folder.file(), SqliteConfig::default()).unwrap();
        folder
    }

    fn open(&self) -> Sqlite {
        Sqlite::open(&self.file(), SqliteConfig::default()).unwrap()
    }

    fn suspend_fleet(&self, fleet: FleetId) {
        let sql = "UPDATE fleets SET status = 1 WHERE id = ?1";
        assert_eq!(
            self.connection().execute(sql, params![fleet.bytes()]),
            Ok(1)
        );
    }
}

conformance!(Folder);

fn create(path: &Path) -> Result<(), StoreError> {
    Sqlite::create(path, SqliteConfig::default()).map(drop)
}

fn open(path: &Path) -> Result<(), StoreError> {
    Sqlite::open(path, SqliteConfig::default()).map(drop)
}

#[test]
fn what_is_loaded_has_its_names_from_the_registry() {
    let folder = Folder::new();
    let store = folder.open();
    done(&store, &world());
    let mut bound = authorization(1);
    bound.author = Author::Terminal(terminal_id("phone"));
    bound.restrictions = Restrictions {
        recipient: Recipient {
            identity: Some(identity_id("ben")),
            terminal: Some(terminal_id("phone")),
            key: None,
        },
        ..Restrictions::default()
    }
    .boxed();
    done(&store, &[authorize(bound)]);
    let (mut of_registry, mut repeated) = (Vec::new(), Vec::new());
    for row in loaded(&store) {
        match row {
            Row::Vehicle(vehicle) => of_registry.push(vehicle.id.as_str().as_ptr()),
            Row::Identity(identity) => of_registry.push(identity.id.as_str().as_ptr()),
            Row::Terminal(terminal) => of_registry.push(terminal.id.as_str().as_ptr()),
            Row::Authorization(one) => {
                let recipient = one.recipient();
                repeated.push(one.vehicle.as_str().as_ptr());
                repeated.extend(recipient.identity.iter().map(|id| id.as_str().as_ptr()));
                repeated.extend(recipient.terminal.iter().map(|id| id.as_str().as_ptr()));
                if let Author::Terminal(id) = &one.author {
                    repeated.push(id.as_str().as_ptr());
                }
            }
            _ => {}
        }
    }
    assert_eq!(repeated.len(), 4);
    assert!(repeated.iter().all(|name| of_registry.contains(name)));
}

#[test]
fn opening_does_not_create_and_creating_does_not_replace() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("fob.db");
    assert!(matches!(open(&file), Err(StoreError::Failed(_))));
    assert!(!file.exists());
    create(&file).unwrap();
    assert!(matches!(create(&file), Err(StoreError::Failed(_))));
    open(&file).unwrap();
}

#[test]
fn other_versions_and_other_files_are_refused() {
    let folder = Folder::new();
    let current: u32 = folder
        .connection()
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .unwrap();
    for (found, advised) in [
        (0, "initialise again"),
        (1, "initialise again"),
        (current + 1, "newer program"),
        (current + 9, "newer program"),
    ] {
        folder
            .connection()
            .pragma_update(None, "user_version", found)
            .unwrap();
        match open(&folder.file()) {
            Err(StoreError::Schema {
                found: said,
                known,
                advice,
            }) => {
                assert_eq!((said, known), (found, current));
                assert!(advice.contains(advised), "{advice}");
            }
            other => panic!("{other:?}"),
        }
    }
    folder
        .connection()
        .pragma_update(None, "user_version", current)
        .unwrap();
    open(&folder.file()).unwrap();
    folder
        .connection()
        .pragma_update(None, "application_id", 7)
        .unwrap();
    assert!(matches!(open(&folder.file()), Err(StoreError::Corrupt(_))));
    fs::write(folder.file(), vec![b'x'; 8192]).unwrap();
    assert!(matches!(open(&folder.file()), Err(StoreError::Corrupt(_))));
}

#[test]
fn only_the_owner_reads_the_file_and_its_log() {
    let folder = Folder::new();
    let store = folder.open();
    done(&store, &world());
    let mut seen = 0;
    for file in fs::read_dir(folder.0.path()).unwrap() {
        let mode = file.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        seen += 1;
    }
    assert_eq!(seen, 3, "database, log, and the log's index");
    let mode: String = folder
        .connection()
        .query_row("PRAGMA journal_mode", [], |row| row.get(0))
        .unwrap();
    assert_eq!(mode, "wal");
}

#[test]
fn another_writer_is_waited_for_and_then_refused() {
    let folder = Folder::new();
    let config = SqliteConfig {
        busy_timeout_ms: 50,
        ..SqliteConfig::default()
    };
    let store = Sqlite::open(&folder.file(), config).unwrap();
    done(&store, &world());
    let rival = folder.connection();
    rival.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = store.commit(&[authorize(authorization(1))]).unwrap_err();
    assert!(
        matches!(error, StoreError::Failed(_)) && !error.may_have_happened(),
        "{error}"
    );
    assert!(
        store.authorizations(&everything()).unwrap().is_empty(),
        "reading goes on"
    );
    rival.execute_batch("ROLLBACK").unwrap();
    done(&store, &[authorize(authorization(1))]);
}

#[test]
fn bundles_are_found_by_vehicle_identity_and_epoch_without_a_scan() {
    let folder = Folder::new();
    for (sql, index) in [
        (
            "SELECT 1 FROM authorizations WHERE segment = 1 AND vehicle = 2",
            "authorizations_by_vehicle",
        ),
        (
            "SELECT 1 FROM bundles_by_identity WHERE segment = 1 AND identity = 2",
            "PRIMARY KEY",
        ),
        (
            "SELECT 1 FROM orders_by_vehicle WHERE segment = 1 AND vehicle = 2",
            "PRIMARY KEY",
        ),
        ("SELECT 1 FROM packs WHERE epoch = 1", "packs_by_epoch"),
        (
            "SELECT body FROM packs WHERE first <= x'01' AND first >= x'00' ORDER BY first DESC",
            "packs_by_first",
        ),
    ] {
        let plan: String = folder
            .connection()
            .query_row(&format!("EXPLAIN QUERY PLAN {sql}"), [], |row| {
                row.get("detail")
            })
            .unwrap();
        assert!(plan.starts_with("SEARCH") && plan.contains(index), "{plan}");
    }
}
