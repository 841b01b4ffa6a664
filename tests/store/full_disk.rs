//! A disk that fills up under SQLite, for real: a child of this process works under a limit on
//! the size of files, its parent looks at what is left.
//!
//! A write beyond the limit fails with EFBIG instead of ENOSPC; SQLite treats both as a failed
//! write, wherever in a transaction they strike.

use std::path::Path;
use std::process::Command;

use fob::store::sqlite::{Sqlite, SqliteConfig};
use fob::store::{Applied, BundleKey, Store, StoreError, Write};

use super::sample::*;

/// Names the file the child works on. A test that finds it set is its own child.
const CHILD: &str = "FOB_TEST_STORE";

/// The limit, in blocks of 512 bytes: the database has room, a long log has not.
const BLOCKS: &str = "2048";

/// Runs the test `case` once more, as a child that works on `file` under the limit.
fn child_in(case: &str, file: &Path) {
    let module = module_path!()
        .split_once("::")
        .map_or("", |(_, inner)| inner);
    let status = Command::new("sh")
        // Ignored signals stay ignored in what is executed, so the write fails instead.
        .args([
            "-c",
            &format!("trap '' XFSZ; ulimit -f {BLOCKS}; exec \"$0\" \"$@\""),
        ])
        .arg(std::env::current_exe().unwrap())
        .args([&format!("{module}::{case}"), "--exact", "--nocapture"])
        .env(CHILD, file)
        .status()
        .unwrap();
    assert!(status.success(), "{case}");
}

fn small_log() -> SqliteConfig {
    SqliteConfig {
        writer_cache_mib: 1,
        ..SqliteConfig::default()
    }
}

/// The authorization of that number, with an id of two bytes.
fn numbered(number: u16) -> fob::domain::Authorization {
    let mut authorization = authorization(0);
    authorization.id.0[14..].copy_from_slice(&number.to_be_bytes());
    authorization
}

fn pair(number: u16) -> [Write; 2] {
    let authorization = numbered(number);
    let mut redemption = redemption(&authorization);
    redemption.signed.bundle.id.0[13..15].copy_from_slice(&number.to_be_bytes());
    [
        authorize(authorization),
        Write::Redeem(std::sync::Arc::new(redemption)),
    ]
}

/// Whether a pair is there; half a pair is a failure.
fn present(store: &Sqlite, number: u16) -> bool {
    let bundle = store
        .bundle(BundleKey::Authorization(numbered(number).id))
        .unwrap();
    let all = store.authorizations(&fob::store::AuthorizationFilter {
        limit: 70_000,
        ..everything()
    });
    let authorization = all
        .unwrap()
        .into_iter()
        .find(|one| one.id == numbered(number).id);
    assert_eq!(bundle.is_some(), authorization.is_some());
    bundle.is_some()
}

#[test]
fn a_commit_that_finds_no_room_is_unknown_and_closes_the_store() {
    if let Some(file) = std::env::var_os(CHILD) {
        return commit_until_there_is_no_room(Path::new(&file));
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("fob.db");
    done(&Sqlite::create(&file, small_log()).unwrap(), &world());
    child_in(
        "a_commit_that_finds_no_room_is_unknown_and_closes_the_store",
        &file,
    );
    // The child went on after opening it anew; without a limit everything does.
    let store = Sqlite::open(&file, small_log()).unwrap();
    done(&store, &pair(60_000));
}

fn commit_until_there_is_no_room(file: &Path) {
    let store = Sqlite::open(file, small_log()).unwrap();
    let mut number = 0;
    let error = loop {
        match store.commit(&pair(number)) {
            Ok(answers) => assert_eq!(answers, [Applied::Done; 2]),
            Err(error) => break error,
        }
        number += 1;
        assert!(number < 10_000, "the limit did not strike");
    };
    assert!(matches!(error, StoreError::Unknown(_)), "{error}");
    assert!(error.may_have_happened() && error.retryable());
    let closed = |result: Result<(), StoreError>| {
        assert!(matches!(result, Err(StoreError::Failed(_))), "{result:?}");
    };
    closed(store.commit(&[]).map(drop));
    closed(store.load(&mut |_| ()));
    closed(store.authorizations(&everything()).map(drop));
    closed(
        store
            .bundle(BundleKey::Authorization(numbered(0).id))
            .map(drop),
    );

    store.reopen().unwrap();
    assert!(
        (0..number).all(|number| present(&store, number)),
        "what was confirmed is there"
    );
    // What was unknown is there whole or not at all; either way it can be brought about.
    if !present(&store, number) {
        done(&store, &pair(number));
    }
    assert!(present(&store, number));
}

#[test]
fn a_transaction_that_finds_no_room_before_its_end_has_failed() {
    if let Some(file) = std::env::var_os(CHILD) {
        return ask_for_too_much_at_once(Path::new(&file));
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("fob.db");
    done(&Sqlite::create(&file, small_log()).unwrap(), &world());
    child_in(
        "a_transaction_that_finds_no_room_before_its_end_has_failed",
        &file,
    );
    let store = Sqlite::open(&file, small_log()).unwrap();
    assert!(present(&store, 1) && present(&store, 2) && !present(&store, 3));
}

fn ask_for_too_much_at_once(file: &Path) {
    let store = Sqlite::open(file, small_log()).unwrap();
    done(&store, &pair(1));
    // More than the cache holds goes to the log before the end.
    let much: Vec<_> = (3..40_000)
        .map(|number| authorize(numbered(number)))
        .collect();
    let error = store.commit(&much).unwrap_err();
    assert!(
        matches!(error, StoreError::Failed(_)) && !error.may_have_happened(),
        "{error}"
    );
    assert!(
        present(&store, 1) && !present(&store, 3),
        "the store goes on"
    );
    done(&store, &pair(2));
}
