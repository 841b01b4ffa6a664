//! Recorded steps: floor 2, `store/sqlite`.

use std::collections::HashMap;

use rusqlite::{Connection, params};

use super::error::column;
use super::load::rows;
use super::{registry, words};
use crate::domain::{EpochId, EpochState};
use crate::store::{Applied, RecordedStep, StoreError};

/// Writes a step, if it was decided on what is there.
pub(super) fn step(connection: &Connection, step: &RecordedStep) -> Result<Applied, StoreError> {
    if !stands(connection, step)? {
        return Ok(Applied::Stale);
    }
    if let Some((version, body)) = &step.trust
        && registry::trust_list(connection, *version, body)? != Applied::Done
    {
        return Ok(Applied::Stale);
    }
    for epoch in &step.epochs {
        registry::epoch(connection, epoch)?;
    }
    connection
        .prepare_cached("INSERT INTO records (number, jws) VALUES (?1, ?2)")?
        .execute(params![column(step.number)?, step.record])?;
    Ok(Applied::Done)
}

/// Whether it is the next record, and leaves no token with two active epochs.
fn stands(connection: &Connection, step: &RecordedStep) -> Result<bool, StoreError> {
    let newest: i64 = connection
        .prepare_cached("SELECT coalesce(max(number), 0) FROM records")?
        .query_row([], |row| row.get(0))?;
    if column(step.number)? != newest + 1 {
        return Ok(false);
    }
    let mut active: HashMap<EpochId, String> = HashMap::new();
    let sql = "SELECT id, token_serial FROM epochs WHERE state = ?1";
    let state = words::epoch_state(EpochState::Active);
    rows(connection, sql, [state], |row| {
        active.insert(EpochId(row.get(0)?), row.get(1)?);
        Ok(())
    })?;
    for epoch in &step.epochs {
        active.remove(&epoch.id);
        if epoch.state == EpochState::Active {
            active.insert(epoch.id, epoch.token_serial.clone());
        }
    }
    let mut tokens: Vec<_> = active.into_values().collect();
    tokens.sort_unstable();
    Ok(tokens.is_sorted_by(|a, b| a < b))
}
