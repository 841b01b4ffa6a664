//! What stands in the way of serving from the store, and which of its tables hold what: floor 2,
//! `store/postgres`.

use uuid::Uuid;

use super::error::Trouble;
use super::load;
use super::rows::{get, text, time};
use super::session::{Ask, Session, values};
use crate::domain::{AuthorizationState, Restore, UnixTime};
use crate::store::encoding::{column, words};
use crate::store::whole::{Fence, Position};
use crate::store::{Row, StoreError};

/// What a fence says, where it stands.
pub(super) async fn of(session: &Session, fence: Fence) -> Result<Option<String>, Trouble> {
    let sql = "SELECT says FROM fences WHERE name = $1";
    let rows = session.query(sql, values![fence.name()]).await?;
    Ok(rows.first().map(|row| get(row, 0)).transpose()?)
}

/// Puts up a fence, or takes it down.
pub(super) fn set(fence: Fence, says: Option<&str>) -> Ask<'_> {
    match says {
        Some(says) => Ask::Query(
            "INSERT INTO fences (name, says) VALUES ($1, $2)
             ON CONFLICT (name) DO UPDATE SET says = excluded.says",
            values![fence.name(), says],
        ),
        None => Ask::Query("DELETE FROM fences WHERE name = $1", values![fence.name()]),
    }
}

/// Whether a transaction is here, or a later one of the same process.
pub(super) async fn reaches(session: &Session, position: Position) -> Result<bool, Trouble> {
    let Position { process, number } = position;
    let sql = "SELECT 1 FROM transactions WHERE process = $1 AND number >= $2 LIMIT 1";
    let values = values![Uuid::from_bytes(process), column(number)?];
    Ok(number == 0 || !session.query(sql, values).await?.is_empty())
}

/// When anybody wrote last.
pub(super) async fn last_written(session: &Session) -> Result<Option<UnixTime>, Trouble> {
    let sql = "SELECT floor(extract(epoch FROM max(at)))::bigint FROM transactions";
    let rows = session.query(sql, vec![]).await?;
    Ok(rows.first().map_or(Ok(None), |row| time(row, 0))?)
}

/// The last restore.
pub(super) async fn restored(session: &Session) -> Result<Restore, Trouble> {
    let rows = session.query(load::RESTORES, vec![]).await?;
    let last = rows.last();
    let last = last.map(|row| load::restore(row, &mut load::Names::default()));
    Ok(match last.transpose()? {
        Some(Row::Restore(restore)) => restore,
        _ => Restore::default(),
    })
}

/// Notes a restore.
pub(super) fn put_restore<'a>(restore: &Restore) -> Result<Ask<'a>, StoreError> {
    Ok(Ask::Query(
        "INSERT INTO restores (number, at, trust_next) VALUES ($1, $2, $3)",
        values![
            i64::from(restore.number),
            column(restore.at)?,
            i64::from(restore.trust_next)
        ],
    ))
}

/// What fences off what was before a restore, and counts what it has touched.
pub(super) fn restore<'a>(restore: &Restore) -> Result<Vec<Ask<'a>>, StoreError> {
    Ok(vec![
        Ask::Query(
            "WITH done AS (UPDATE authorizations SET state = $1, revision =
             (SELECT value + 1 FROM counters WHERE name = 'amendments')
             WHERE bundle IS NULL AND state <> $1 RETURNING 1) SELECT count(*) FROM done",
            values![words::state(AuthorizationState::Cancelled)],
        ),
        Ask::Query(
            "WITH done AS (UPDATE vehicles SET epoch = greatest(epoch, $1) RETURNING 1)
             SELECT count(*) FROM done",
            values![i64::from(restore.vehicle_epoch())],
        ),
        Ask::Query(
            "WITH done AS (UPDATE status_counters SET next = (next & $2) | $1 RETURNING 1)
             SELECT count(*) FROM done",
            values![
                column(restore.status_next())?,
                column(Restore::STATUS_KEPT)?
            ],
        ),
        Ask::Query("UPDATE fleets SET standing = standing + 1", vec![]),
        Ask::Query(
            "UPDATE counters SET value = value + 1 WHERE name = 'amendments'",
            vec![],
        ),
        // What was given out of lists says less than is true now.
        Ask::Query(
            "UPDATE status_lists SET revision = NULL, epoch = NULL, content = NULL, body = NULL",
            vec![],
        ),
        // Whoever held one does not serve any more; whoever serves next need not wait for its end.
        Ask::Query(
            "UPDATE leases SET number = number + 1, ends = clock_timestamp()",
            vec![],
        ),
        // They go by the counters that have just jumped; the day begins anew.
        Ask::Query("DELETE FROM quotas", vec![]),
        put_restore(restore)?,
    ])
}

/// Removes everything that can be taken in.
pub(super) fn clear<'a>() -> Vec<Ask<'a>> {
    let clears = TABLES.iter().map(|(.., clear)| *clear);
    clears.filter(|it| !it.is_empty()).map(Ask::Plain).collect()
}

/// Tables, with their columns, that are not as [`TABLES`] says.
pub(super) async fn unspoken(session: &Session) -> Result<Vec<String>, Trouble> {
    let sql = "SELECT table_name::text, string_agg(column_name, ' ' ORDER BY ordinal_position)
               FROM information_schema.columns WHERE table_schema = current_schema()
               GROUP BY table_name ORDER BY table_name";
    let mut unspoken = Vec::new();
    for row in session.query(sql, vec![]).await? {
        let (table, columns) = (text(&row, 0)?, text(&row, 1)?);
        if !TABLES.iter().any(|it| (it.0, it.1) == (table, columns)) {
            unspoken.push(format!("{table} ({columns})"));
        }
    }
    Ok(unspoken)
}

/// Every table with its columns, and what empties it of entries; nothing does where it is the
/// store's own. A test compares them with the schema: whoever adds a table or a column says here
/// that [`super::export`] gives it out.
const TABLES: [(&str, &str, &str); 36] = [
    ("settings", "name value", "DELETE FROM settings"),
    (
        "fleets",
        "id name tag status status_key open_redemption signing standing",
        "DELETE FROM fleets",
    ),
    (
        "status_counters",
        "fleet next",
        "DELETE FROM status_counters",
    ),
    ("functions", "fleet code name", "DELETE FROM functions"),
    (
        "vehicles",
        "fleet id status epoch model functions owner key",
        "DELETE FROM vehicles",
    ),
    (
        "identities",
        "fleet id status licences hold proved",
        "DELETE FROM identities",
    ),
    (
        "terminals",
        "fleet id status identity key since attested_by attested_at",
        "DELETE FROM terminals",
    ),
    (
        "tokens",
        "id fleet hash scopes created_at expires_at revoked_at used_at",
        "DELETE FROM tokens",
    ),
    (
        "epochs",
        "id place state key cka_id token_serial not_before not_after created_at activated_at",
        "DELETE FROM epochs",
    ),
    (
        "signatures",
        "epoch process signed synced tried given_up failed in_flight_max keys trees lists versions \
         gone ended",
        "DELETE FROM signatures",
    ),
    ("trust_lists", "version body", "DELETE FROM trust_lists"),
    ("records", "number jws", "DELETE FROM records"),
    ("counters", "name value", "UPDATE counters SET value = 0"),
    (
        "authorizations",
        "id fleet vehicle version state pin_attempts bundle not_after redeem_by ends revision \
         code_set format body",
        "DELETE FROM authorizations",
    ),
    (
        "commands",
        "authorization_id version command",
        "DELETE FROM commands",
    ),
    (
        "requests",
        "scope digest authorization_id made_at command outcome",
        "DELETE FROM requests",
    ),
    ("contexts", "id body", "DELETE FROM contexts"),
    (
        "bundles",
        "id version fleet authorization_id vehicle identity epoch author terminal issuer \
         subjects ends format body",
        "DELETE FROM bundles",
    ),
    (
        "answered",
        "call number ends orders",
        "DELETE FROM answered",
    ),
    (
        "statuses",
        "tag shard place status reasons ends",
        "DELETE FROM statuses",
    ),
    (
        "status_lists",
        "tag shard issued_at expires revision epoch content body",
        "DELETE FROM status_lists",
    ),
    (
        "contacts",
        "fleet vehicle heard_at sent sent_revision sent_at acked acked_revision acked_at",
        "DELETE FROM contacts",
    ),
    ("rules", "fleet version body", "DELETE FROM rules"),
    // Where it is not known, keys are looked at again.
    ("followed", "fleet version", "DELETE FROM followed"),
    (
        "acts",
        "fleet number at by act object why",
        "DELETE FROM acts",
    ),
    ("brakes", "fleet vehicle since by why", "DELETE FROM brakes"),
    ("quotas", "fleet day base approved", "DELETE FROM quotas"),
    ("leases", "name number holder ends", ""),
    ("turns", "fleet ends", ""),
    ("nodes", "id number began seen", ""),
    ("writers", "process number at", ""),
    ("changes", "process number at body", ""),
    ("transactions", "process number at", ""),
    ("fences", "name says", ""),
    ("restores", "number at trust_next", "DELETE FROM restores"),
    ("fob_schema", "number version", ""),
];
