//! The end of what has long been over: floor 2, `store/postgres`. Contexts stay; there are few.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::error::Trouble;
use super::rows::{bytes, get, number};
use super::session::{Ask, Session, values};
use crate::domain::{EpochId, UnixTime};
use crate::store::StoreError;
use crate::store::encoding::column;

/// What processes have left. Nobody asks after transactions once their process knows; after the last
/// of a process its witness does, however late. Whoever has not heard of changes by then loads
/// everything (`news::KEPT_MS`).
const PROCESSES: [&str; 4] = [
    "DELETE FROM transactions t WHERE at < now() - interval '1 day' AND EXISTS
     (SELECT 1 FROM transactions n WHERE n.process = t.process AND n.number > t.number)",
    "DELETE FROM changes WHERE at < now() - interval '1 hour'",
    "DELETE FROM writers WHERE at < now() - interval '1 day'",
    "DELETE FROM nodes WHERE seen < now() - interval '1 day'",
];

/// Which of the statements below deletes tokens.
const TOKENS: usize = 4;

/// What was purged.
pub(super) struct Purged {
    pub(super) authorizations: u32,
    /// Whether there was anything among it that books hold.
    pub(super) of_books: bool,
    /// Versions of bundles among it, by the epochs that signed them.
    pub(super) versions: BTreeMap<EpochId, u64>,
}

/// Whatever was over before `before`, which itself is not before it. A transaction has begun.
pub(super) async fn purge(
    session: &Session,
    before: UnixTime,
    at_most: u32,
) -> Result<Purged, Trouble> {
    let before = column(before)?;
    let over = session
        .query(
            "SELECT id, bundle FROM authorizations WHERE ends < $1 ORDER BY ends, id LIMIT $2
             FOR UPDATE",
            values![before, i64::from(at_most)],
        )
        .await?;
    let mut authorizations = Vec::with_capacity(over.len());
    let mut bundles = Vec::with_capacity(over.len());
    for row in &over {
        authorizations.push(get::<Uuid>(row, 0)?);
        bundles.extend(get::<Option<Uuid>>(row, 1)?);
    }
    let rest = i64::from(at_most) - i64::try_from(over.len()).unwrap_or(i64::MAX);
    // Once amended, an order has an authorization's row, and goes with that.
    let orders = session
        .query(
            "SELECT b.id FROM bundles b WHERE b.author IS NOT NULL AND b.ends < $1
             AND NOT EXISTS (SELECT 1 FROM authorizations a WHERE a.id = b.id)
             ORDER BY b.ends, b.id LIMIT $2 FOR UPDATE",
            values![before, rest],
        )
        .await?;
    for row in &orders {
        bundles.push(get(row, 0)?);
    }
    let of = "DELETE FROM requests WHERE authorization_id = ANY($1)";
    let gone = [
        Ask::Query(
            "WITH gone AS (DELETE FROM bundles WHERE id = ANY($1) RETURNING epoch)
             SELECT epoch, count(*) FROM gone GROUP BY epoch",
            values![bundles],
        ),
        Ask::Query(of, values![authorizations.clone()]),
        Ask::Query(
            "DELETE FROM commands WHERE authorization_id = ANY($1)",
            values![authorizations.clone()],
        ),
        Ask::Query(
            "DELETE FROM authorizations WHERE id = ANY($1)",
            values![authorizations],
        ),
        Ask::Query(
            "DELETE FROM tokens WHERE expires_at < $1 OR revoked_at < $1 RETURNING id",
            values![before],
        ),
        Ask::Query("DELETE FROM statuses WHERE ends < $1", values![before]),
        Ask::Query(
            "DELETE FROM requests WHERE authorization_id IS NULL AND made_at < $1",
            values![before],
        ),
        Ask::Query("DELETE FROM answered WHERE ends < $1", values![before]),
        Ask::Query(PROCESSES[0], values![]),
        Ask::Query(PROCESSES[1], values![]),
        Ask::Query(PROCESSES[2], values![]),
        Ask::Query(PROCESSES[3], values![]),
    ];
    let gone = session.round(&gone).await.map_err(|it| it.trouble())?;
    let tokens = gone.get(TOKENS).is_some_and(|rows| !rows.is_empty());
    let authorizations = u32::try_from(over.len() + orders.len()).unwrap_or(at_most);
    let versions = gone.first().into_iter().flatten();
    let versions = versions.map(|row| Ok((EpochId(bytes(row, 0)?), number(row, 1)?)));
    Ok(Purged {
        versions: versions.collect::<Result<_, StoreError>>()?,
        authorizations,
        of_books: authorizations > 0 || tokens,
    })
}
