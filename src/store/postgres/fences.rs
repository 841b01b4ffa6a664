//! What stands in the way of serving from the store, and which of its tables hold what: floor 2,
//! `store/postgres`.

use super::error::Trouble;
use super::rows::{get, text};
use super::session::{Ask, Session, values};
use crate::store::whole::Fence;

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
const TABLES: [(&str, &str, &str); 25] = [
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
        "fleet id status licences",
        "DELETE FROM identities",
    ),
    (
        "terminals",
        "fleet id status identity key",
        "DELETE FROM terminals",
    ),
    (
        "tokens",
        "id fleet hash scopes created_at expires_at revoked_at",
        "DELETE FROM tokens",
    ),
    (
        "epochs",
        "id place state key cka_id token_serial not_before not_after created_at activated_at",
        "DELETE FROM epochs",
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
        "call reference digest bundle ends",
        "DELETE FROM answered",
    ),
    (
        "statuses",
        "tag shard place status reasons ends",
        "DELETE FROM statuses",
    ),
    (
        "status_lists",
        "tag shard issued_at expires",
        "DELETE FROM status_lists",
    ),
    (
        "contacts",
        "fleet vehicle heard_at sent sent_revision sent_at acked acked_revision acked_at",
        "DELETE FROM contacts",
    ),
    ("leases", "name number holder", ""),
    ("transactions", "process number at", ""),
    ("fences", "name says", ""),
    ("fob_schema", "number version", ""),
];
