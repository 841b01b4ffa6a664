//! What stands in the way of serving from the store, and which of its tables hold what: floor 2,
//! `store/sqlite`.

use rusqlite::{Connection, OptionalExtension, params};

use super::error::{column, number};
use super::load::text;
use crate::domain::{AuthorizationState, Restore, UnixTime};
use crate::store::encoding::words;
use crate::store::whole::{Fence, FencedOff, Kind, Position};
use crate::store::{Row, StoreError};

/// Processes that are remembered, those that wrote last.
const PROCESSES_KEPT: u32 = 256;

/// What a table holds.
#[derive(Clone, Copy)]
enum Holds {
    /// What a kind of entries says, this table alone or with others.
    Entries(Kind),
    /// What follows from entries.
    Index,
    /// What is this store's own, and stays where it is.
    Own,
}

/// Every table with its columns, and what it holds. A test compares them with the schema: whoever
/// adds a table or a column says here where [`super::export`] gives it out.
const TABLES: [(&str, &str, Holds); 35] = [
    ("settings", "name value", Holds::Entries(Kind::Settings)),
    (
        "fleets",
        "number id name tag status status_key status_next open_redemption signing",
        Holds::Entries(Kind::Fleets),
    ),
    (
        "functions",
        "fleet code name",
        Holds::Entries(Kind::Functions),
    ),
    (
        "vehicles",
        "number fleet id status epoch model functions owner key",
        Holds::Entries(Kind::Vehicles),
    ),
    (
        "identities",
        "number fleet id status licences hold proved",
        Holds::Entries(Kind::Identities),
    ),
    (
        "terminals",
        "fleet id status identity key since attested_by attested_at",
        Holds::Entries(Kind::Terminals),
    ),
    (
        "tokens",
        "id fleet hash scopes created_at expires_at revoked_at used_at",
        Holds::Entries(Kind::Tokens),
    ),
    (
        "epochs",
        "number id state key cka_id token_serial not_before not_after created_at activated_at",
        Holds::Entries(Kind::Epochs),
    ),
    (
        "signatures",
        "epoch process signed synced tried given_up failed in_flight_max keys trees lists versions \
         gone ended",
        Holds::Entries(Kind::Signatures),
    ),
    (
        "trust_lists",
        "version body",
        Holds::Entries(Kind::TrustLists),
    ),
    ("records", "number jws", Holds::Entries(Kind::Records)),
    ("revisions", "number value", Holds::Entries(Kind::Revisions)),
    (
        "authorizations",
        "id fleet segment vehicle version state pin_attempts bundle not_after redeem_by request \
         format body revision code_set",
        Holds::Entries(Kind::Authorizations),
    ),
    ("segments", "number first", Holds::Index),
    (
        "commands",
        "authorization version command",
        Holds::Entries(Kind::Commands),
    ),
    (
        "requests",
        "scope authorization",
        Holds::Entries(Kind::Requests),
    ),
    (
        "amendments",
        "scope digest authorization made_at command outcome",
        Holds::Entries(Kind::Amendments),
    ),
    ("contexts", "number body", Holds::Entries(Kind::Bundles)),
    (
        "packs",
        "number fleet epoch segment first ends format body",
        Holds::Entries(Kind::Bundles),
    ),
    (
        "reissues",
        "authorization version fleet epoch format body",
        Holds::Entries(Kind::Bundles),
    ),
    (
        "bundles_by_identity",
        "segment identity bundle",
        Holds::Index,
    ),
    ("orders_by_vehicle", "segment vehicle bundle", Holds::Index),
    ("calls", "number scope", Holds::Entries(Kind::Orders)),
    (
        "answered",
        "call transaction_number ends orders",
        Holds::Entries(Kind::Orders),
    ),
    (
        "statuses",
        "tag shard position status ends reasons",
        Holds::Entries(Kind::Statuses),
    ),
    (
        "status_lists",
        "tag shard issued_at expires revision epoch body",
        Holds::Entries(Kind::StatusLists),
    ),
    (
        "contacts",
        "vehicle heard_at sent sent_revision sent_at acked acked_revision acked_at",
        Holds::Entries(Kind::Contacts),
    ),
    ("rules", "fleet version body", Holds::Entries(Kind::Rules)),
    // Where it is not known, keys are looked at again.
    ("followed", "fleet version", Holds::Index),
    (
        "acts",
        "number fleet at by act object why",
        Holds::Entries(Kind::Acts),
    ),
    (
        "brakes",
        "fleet vehicle since by why",
        Holds::Entries(Kind::Brakes),
    ),
    (
        "quotas",
        "fleet day base approved",
        Holds::Entries(Kind::Quotas),
    ),
    ("fences", "name says", Holds::Own),
    ("processes", "id number at", Holds::Own),
    (
        "restores",
        "number at trust_next",
        Holds::Entries(Kind::Restores),
    ),
];

/// What a fence says, where it stands.
pub(super) fn of(connection: &Connection, fence: Fence) -> Result<Option<String>, StoreError> {
    let says = connection
        .prepare_cached("SELECT says FROM fences WHERE name = ?1")?
        .query_row(params![fence.name()], |row| row.get(0))
        .optional()?;
    Ok(says)
}

/// Puts up a fence, or takes it down.
pub(super) fn set(
    connection: &Connection,
    fence: Fence,
    says: Option<&str>,
) -> Result<(), StoreError> {
    match says {
        Some(says) => connection
            .prepare_cached("INSERT OR REPLACE INTO fences (name, says) VALUES (?1, ?2)")?
            .execute(params![fence.name(), says])?,
        None => connection
            .prepare_cached("DELETE FROM fences WHERE name = ?1")?
            .execute(params![fence.name()])?,
    };
    Ok(())
}

/// Notes that a process has committed so many transactions, in the last of them.
pub(super) fn note(connection: &Connection, position: Position) -> Result<(), StoreError> {
    let Position { process, number } = position;
    if number == 1 {
        // The file outside knows the last one alone.
        connection
            .prepare_cached(
                "DELETE FROM processes WHERE id NOT IN
                 (SELECT id FROM processes ORDER BY at DESC LIMIT ?1)",
            )?
            .execute([PROCESSES_KEPT])?;
    }
    connection
        .prepare_cached(
            "INSERT INTO processes (id, number, at) VALUES (?1, ?2, unixepoch())
             ON CONFLICT (id) DO UPDATE SET number = excluded.number, at = excluded.at",
        )?
        .execute(params![process, column(number)?])?;
    Ok(())
}

/// Whether a transaction is here, or a later one of the same process.
pub(super) fn reaches(connection: &Connection, position: Position) -> Result<bool, StoreError> {
    let Position { process, number } = position;
    let sql = "SELECT 1 FROM processes WHERE id = ?1 AND number >= ?2";
    let mut statement = connection.prepare_cached(sql)?;
    Ok(number == 0 || statement.exists(params![process, column(number)?])?)
}

/// When anybody wrote last.
pub(super) fn last_written(connection: &Connection) -> Result<Option<UnixTime>, StoreError> {
    let at: Option<i64> =
        connection.query_row("SELECT max(at) FROM processes", [], |row| row.get(0))?;
    at.map(number).transpose()
}

/// Hands every restore to `each`, in their order.
pub(super) fn restores(
    connection: &Connection,
    each: &mut dyn FnMut(Row),
) -> Result<(), StoreError> {
    let sql = "SELECT number, at, trust_next FROM restores ORDER BY number";
    super::load::rows(connection, sql, [], |row| {
        each(Row::Restore(Restore {
            number: row.get(0)?,
            at: number(row.get(1)?)?,
            trust_next: row.get(2)?,
        }));
        Ok(())
    })
}

/// Notes a restore.
pub(super) fn put_restore(connection: &Connection, restore: &Restore) -> Result<(), StoreError> {
    connection
        .prepare_cached("INSERT INTO restores (number, at, trust_next) VALUES (?1, ?2, ?3)")?
        .execute(params![
            restore.number,
            column(restore.at)?,
            restore.trust_next
        ])?;
    Ok(())
}

/// Fences off what was before a restore.
pub(super) fn restore(connection: &Connection, restore: &Restore) -> Result<FencedOff, StoreError> {
    put_restore(connection, restore)?;
    let revision = super::amend::count(connection)?;
    let code_sets = connection
        .prepare_cached(
            "UPDATE authorizations SET state = ?1, revision = ?2
             WHERE bundle IS NULL AND state <> ?1",
        )?
        .execute(params![
            words::state(AuthorizationState::Cancelled),
            column(revision)?
        ])?;
    let vehicles = connection
        .prepare_cached("UPDATE vehicles SET epoch = max(epoch, ?1)")?
        .execute(params![restore.vehicle_epoch()])?;
    let fleets = connection
        .prepare_cached("UPDATE fleets SET status_next = (status_next & ?2) | ?1")?
        .execute(params![
            column(restore.status_next())?,
            column(Restore::STATUS_KEPT)?
        ])?;
    // They go by the counters that have just jumped; the day begins anew.
    connection.execute("DELETE FROM quotas", [])?;
    // What was given out of lists says less than is true now.
    let sql = "UPDATE status_lists SET revision = NULL, epoch = NULL, body = NULL";
    connection.execute(sql, [])?;
    Ok(FencedOff {
        code_sets: code_sets as u64,
        vehicles: vehicles as u64,
        fleets: fleets as u64,
    })
}

/// Whether nobody has written into the store.
pub(super) fn is_empty(connection: &Connection) -> Result<bool, StoreError> {
    let sql = "SELECT NOT EXISTS (SELECT 1 FROM settings) AND NOT EXISTS (SELECT 1 FROM fleets)";
    Ok(connection.query_row(sql, [], |row| row.get(0))?)
}

/// Removes everything that can be taken in.
pub(super) fn clear(connection: &Connection) -> Result<(), StoreError> {
    for (table, _, holds) in TABLES {
        match holds {
            Holds::Own => {}
            // Its one row stays.
            Holds::Entries(Kind::Revisions) => {
                connection.execute("UPDATE revisions SET value = 0", [])?;
            }
            Holds::Entries(_) | Holds::Index => {
                connection.execute(&format!("DELETE FROM {table}"), [])?;
            }
        }
    }
    Ok(())
}

/// Tables, with their columns, that are not as [`TABLES`] says.
pub(super) fn unspoken(connection: &Connection) -> Result<Vec<String>, StoreError> {
    let sql = "SELECT m.name, group_concat(c.name, ' ' ORDER BY c.cid) FROM sqlite_schema m
               JOIN pragma_table_info(m.name) c WHERE m.type = 'table' GROUP BY m.name";
    let known = TABLES.map(|(table, columns, _)| (table, columns));
    let mut unspoken = Vec::new();
    super::load::rows(connection, sql, [], |row| {
        let (table, columns) = (text(row, 0)?, text(row, 1)?);
        if !known.contains(&(table, columns)) {
            unspoken.push(format!("{table} ({columns})"));
        }
        Ok(())
    })?;
    Ok(unspoken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::schema;

    #[test]
    fn every_table_and_column_is_spoken_for() {
        let mut connection = Connection::open_in_memory().unwrap();
        schema::create(&mut connection).unwrap();
        assert_eq!(unspoken(&connection), Ok(vec![]));
        for kind in Kind::ALL {
            let held =
                |(.., holds): &(_, _, Holds)| matches!(holds, Holds::Entries(of) if *of == kind);
            assert!(TABLES.iter().any(held), "{}", kind.name());
        }
        let later = "ALTER TABLE fleets ADD COLUMN colour BLOB; CREATE TABLE more (x INTEGER)";
        connection.execute_batch(later).unwrap();
        assert_eq!(unspoken(&connection).unwrap().len(), 2);
    }
}
