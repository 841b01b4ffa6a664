//! Schema versions and how one becomes the next: floor 2, `store/sqlite`.

use rusqlite::{Connection, TransactionBehavior};

use super::error::corrupt;
use crate::store::StoreError;

/// Says whose file this is (`PRAGMA application_id`): "Fob" and a zero byte.
const APPLICATION_ID: i32 = 0x466f_6200;

/// Versions up to this one were never released, and nothing makes a later one of them.
const UNRELEASED: u32 = 1;

/// The steps after [`UNRELEASED`]: each makes the next version of the one before. A step once
/// released is never edited: the next one is appended.
const STEPS: [&str; 12] = [
    include_str!("schema_v2.sql"),
    include_str!("schema_v3_status.sql"),
    include_str!("schema_v4_epochs.sql"),
    include_str!("schema_v5_reasons.sql"),
    include_str!("schema_v6_renewals.sql"),
    include_str!("schema_v7_rules.sql"),
    include_str!("schema_v8_standing.sql"),
    include_str!("schema_v9_context.sql"),
    include_str!("schema_v10_asking.sql"),
    include_str!("schema_v11_acts.sql"),
    include_str!("schema_v12_signatures.sql"),
    include_str!("schema_v13_rules_followed.sql"),
];

/// The version this program works with.
#[cfg(test)]
const VERSION: u32 = UNRELEASED + STEPS.len() as u32;

/// Makes an empty file a store.
pub(super) fn create(connection: &mut Connection) -> Result<(), StoreError> {
    migrate(connection, UNRELEASED, &STEPS)
}

/// Brings the store to this program's version.
///
/// # Errors
/// [`StoreError::Schema`] for a store that is newer or was never finished, [`StoreError::Corrupt`]
/// for a file that is something else.
pub(super) fn update(connection: &mut Connection) -> Result<(), StoreError> {
    update_by(connection, &STEPS)
}

/// The version in the file.
pub(super) fn version(connection: &Connection) -> Result<u32, StoreError> {
    Ok(connection.query_row("PRAGMA user_version", [], |row| row.get(0))?)
}

fn update_by(connection: &mut Connection, steps: &[&str]) -> Result<(), StoreError> {
    let known = version_after(steps);
    let found = version(connection)?;
    let refuse = |advice| {
        Err(StoreError::Schema {
            found,
            known,
            advice,
        })
    };
    if found == 0 {
        return refuse("it was never finished; remove it and initialise again");
    }
    let owner: i32 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    if owner != APPLICATION_ID {
        return Err(corrupt("a database of another program"));
    }
    if found <= UNRELEASED {
        return refuse("it was made before the first release; initialise again");
    }
    match found.cmp(&known) {
        std::cmp::Ordering::Greater => refuse("it was written by a newer program; use that one"),
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Less => migrate(connection, found, steps),
    }
}

/// Takes the steps after `from` in one transaction: the store has all of them or none.
fn migrate(connection: &mut Connection, from: u32, steps: &[&str]) -> Result<(), StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Exclusive)?;
    for step in steps.iter().skip((from - UNRELEASED) as usize) {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    let to = version_after(steps);
    transaction.pragma_update(None, "user_version", to)?;
    transaction.commit()?;
    if from > UNRELEASED {
        tracing::info!(from, to, "the store's schema was updated");
    }
    Ok(())
}

fn version_after(steps: &[&str]) -> u32 {
    u32::try_from(steps.len()).map_or(u32::MAX, |steps| UNRELEASED.saturating_add(steps))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_store_takes_the_missing_steps_and_keeps_its_rows() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, UNRELEASED, &STEPS[..1]).unwrap();
        connection
            .execute("INSERT INTO settings VALUES ('issuer', 'fob')", [])
            .unwrap();
        let later = [
            "ALTER TABLE settings ADD COLUMN note TEXT",
            "UPDATE settings SET note = 'x'",
        ];
        let steps = [&STEPS[..], &later].concat();
        update_by(&mut connection, &steps).unwrap();
        assert_eq!(version(&connection), Ok(VERSION + 2));
        let row: String = connection
            .query_row("SELECT value || note FROM settings", [], |row| row.get(0))
            .unwrap();
        assert_eq!(row, "fobx");
        assert!(matches!(
            update(&mut connection),
            Err(StoreError::Schema { found, known: VERSION, .. }) if found == VERSION + 2
        ));
    }

    #[test]
    fn epochs_that_signed_before_signatures_were_counted_are_known_as_such() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, UNRELEASED, &STEPS[..10]).unwrap();
        for (id, activated_at) in [("x'01'", "7"), ("x'02'", "NULL")] {
            let sql = format!(
                "INSERT INTO epochs (id, state, key, cka_id, token_serial, not_before, not_after,
                 created_at, activated_at) VALUES ({id}, 1, x'', x'', '', 0, 1, 0, {activated_at})"
            );
            connection.execute(&sql, []).unwrap();
        }
        update(&mut connection).unwrap();
        let sql = "SELECT epoch FROM signatures WHERE process = zeroblob(16) AND ended";
        let epoch: Vec<u8> = connection.query_row(sql, [], |row| row.get(0)).unwrap();
        assert_eq!(epoch, [1]);
    }

    #[test]
    fn a_step_that_fails_leaves_the_store_as_it_was() {
        let mut connection = Connection::open_in_memory().unwrap();
        create(&mut connection).unwrap();
        let later = [
            "ALTER TABLE settings ADD COLUMN note TEXT",
            "UPDATE nothing SET x = 1",
        ];
        let steps = [&STEPS[..], &later].concat();
        assert!(matches!(
            update_by(&mut connection, &steps),
            Err(StoreError::Failed(_))
        ));
        assert_eq!(version(&connection), Ok(VERSION));
        assert!(connection.prepare("SELECT note FROM settings").is_err());
    }

    #[test]
    fn foreign_and_unfinished_files_are_refused() {
        let mut connection = Connection::open_in_memory().unwrap();
        assert!(matches!(
            update(&mut connection),
            Err(StoreError::Schema { found: 0, .. })
        ));
        connection
            .pragma_update(None, "user_version", VERSION)
            .unwrap();
        assert!(matches!(
            update(&mut connection),
            Err(StoreError::Corrupt(_))
        ));
    }
}
