//! Who waits for whom: turns at a fleet's row, and the next attempt. Floor 2, `store/postgres`.
//!
//! Rows are held shared by many at once, and the database lets more of them in while somebody waits
//! to hold one alone: where several nodes issue without a pause he would wait for ever. So whoever
//! has waited for a while says so, in a transaction of its own, and who would hold the fleet shared
//! steps back until it was his turn.

use std::time::Duration;

use uuid::Uuid;

use super::error::Trouble;
use super::needs::Needs;
use super::rows::uuids;
use super::session::{Ask, Session, values};
use crate::store::Write;

/// Begins a transaction. Whatever the server's default: statements after the locks must see what
/// the locks were waited for.
pub(super) const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";

/// The same for one that is to hold fleets alone and has not asked for its turn: it waits a little
/// without it. (Not with a limit for locks: of many who hold a row each is waited for by itself.)
pub(super) const BEGIN_IMPATIENT: &str =
    "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = 100";

/// What comes after the fleets were waited for.
pub(super) const PATIENT_AGAIN: &str = "SET LOCAL statement_timeout TO DEFAULT";

/// How long somebody who steps back waits before he looks again; how often he does.
pub(super) const STEP_BACK: Duration = Duration::from_millis(5);
pub(super) const STEPS_BACK_MAX: u32 = 100;

/// The first wait before a transaction is tried again, doubling up to the last; each is jittered.
const WAIT_MIN_MS: u64 = 2;
const WAIT_MAX_MS: u64 = 200;

/// The fleets that writes hold alone.
pub(super) fn alone(writes: &[Write]) -> Vec<Uuid> {
    uuids(Needs::of(writes).fleets_alone.iter().map(|id| &id.0))
}

/// Asks for a turn at these fleets. It ends with the transaction it is for, or soon by itself.
pub(super) async fn ask(session: &Session, fleets: &[Uuid]) -> Result<(), Trouble> {
    session
        .query(
            "INSERT INTO turns (fleet, ends)
             SELECT fleet, clock_timestamp() + interval '500 milliseconds'
             FROM unnest($1::uuid[]) k (fleet)
             ON CONFLICT (fleet) DO UPDATE SET ends = excluded.ends",
            values![fleets.to_vec()],
        )
        .await
        .map(drop)
}

/// What ends it.
pub(super) fn end(fleets: &[Uuid]) -> Ask<'static> {
    Ask::Query(
        "DELETE FROM turns WHERE fleet = ANY($1)",
        values![fleets.to_vec()],
    )
}

/// How long to wait before the next attempt: up to a bound that doubles.
pub(super) fn wait(attempt: u32) -> Duration {
    let bound = (WAIT_MIN_MS << attempt.min(16)).min(WAIT_MAX_MS);
    let mut random = [0; 8];
    // Without a random number it waits for as long as it may.
    let fraction = match aws_lc_rs::rand::fill(&mut random) {
        Ok(()) => u64::from_be_bytes(random) % 1000,
        Err(_) => 1000,
    };
    Duration::from_micros(bound * fraction)
}
