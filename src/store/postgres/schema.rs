//! Schema versions and how one becomes the next: floor 2, `store/postgres`. Forward only.

use tokio_postgres::error::SqlState;

use super::error::{Trouble, words};
use super::session::{Ask, Session};
use crate::store::StoreError;

/// Each makes the next version of the one before, from 0, where there is nothing. A step once
/// released is never edited: the next one is appended.
const STEPS: [&str; 7] = [
    include_str!("schema_v1.sql"),
    include_str!("schema_v2_standing.sql"),
    include_str!("schema_v3_context.sql"),
    include_str!("schema_v4_asking.sql"),
    include_str!("schema_v5_acts.sql"),
    include_str!("schema_v6_signatures.sql"),
    include_str!("schema_v7_rules_followed.sql"),
];

/// The version this program works with.
pub(super) const VERSION: u32 = STEPS.len() as u32;

/// Where the version stands; one row.
const MADE: &str = "CREATE TABLE fob_schema (number BIGINT PRIMARY KEY, version BIGINT NOT NULL);
                    INSERT INTO fob_schema VALUES (0, 0);";

/// The version in the database; 0 where there is no store.
pub(super) async fn version(session: &Session) -> Result<u32, StoreError> {
    let asked = [Ask::Query(
        "SELECT version FROM fob_schema WHERE number = 0",
        vec![],
    )];
    match session.round(&asked).await {
        Ok(answers) => match answers.first().and_then(|rows| rows.first()) {
            Some(row) => super::rows::small(row, 0),
            None => Ok(0),
        },
        Err(unanswered) => match &unanswered.error {
            Some(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => Ok(0),
            Some(error) => Err(StoreError::Failed(words(error))),
            None => Err(Trouble::late().into_error()),
        },
    }
}

/// Whether anybody has written into the store.
pub(super) async fn is_used(session: &Session) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM settings) OR EXISTS (SELECT 1 FROM fleets)";
    let rows = session.query(sql, vec![]).await?;
    rows.first()
        .map_or(Ok(true), |row| super::rows::get(row, 0))
}

/// Refuses a database of another version than this program's.
pub(super) async fn check(session: &Session) -> Result<(), StoreError> {
    let found = version(session).await?;
    let advice = match found {
        VERSION => return Ok(()),
        0 => "it has no store yet; run `fob init` or `fob migrate`",
        older if older < VERSION => "run `fob migrate`",
        _ => "it was written by a newer program",
    };
    Err(StoreError::Schema {
        found,
        known: VERSION,
        advice,
    })
}

/// Brings the database to this program's version; returns the one it had.
///
/// # Errors
/// [`StoreError::Schema`] where it is newer.
pub(super) async fn migrate(session: &Session) -> Result<u32, StoreError> {
    let found = version(session).await?;
    if found > VERSION {
        return check(session).await.map(|()| found);
    }
    for (before, step) in STEPS.iter().enumerate().skip(found as usize) {
        let made = if before == 0 { MADE } else { "" };
        let after = before + 1;
        // Each whole or not at all. A rival finds that the version has moved, and fails.
        let sql = format!(
            "BEGIN; {made} {step}; UPDATE fob_schema SET version = 1 / (CASE version WHEN {before} \
             THEN 1 ELSE 0 END) * {after} WHERE number = 0; COMMIT"
        );
        if let Err(trouble) = session.execute(&sql).await {
            // Whatever was begun is taken back with the session, at the latest.
            let _ = session.execute("ROLLBACK").await;
            return Err(trouble.into_error());
        }
    }
    Ok(found)
}
