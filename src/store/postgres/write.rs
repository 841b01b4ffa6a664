//! The round that writes what was decided: floor 2, `store/postgres`. One statement for each table,
//! whatever the number of rows.
//!
//! Rows that must be new are inserted plainly: where another has just made them, the transaction is
//! taken back and decided anew.

use aws_lc_rs::digest::{SHA256, digest};
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::ground::{Changes, Ground};
use super::session::{Ask, Value};
use crate::store::StoreError;
use crate::store::encoding::{column, words};

/// Statements being gathered.
pub(super) struct Writing<'a>(pub(super) Vec<Ask<'a>>);

/// One column of many rows.
pub(super) fn each<'a, T, U: ToSql + Sync + Send + 'a>(
    rows: impl IntoIterator<Item = T>,
    get: impl FnMut(T) -> U,
) -> Value<'a>
where
    Vec<U>: ToSql,
{
    Box::new(rows.into_iter().map(get).collect::<Vec<U>>())
}

/// The same where a value may be too large to be kept.
pub(super) fn try_each<'a, T, U: ToSql + Sync + Send + 'a>(
    rows: impl IntoIterator<Item = T>,
    get: impl FnMut(T) -> Result<U, StoreError>,
) -> Result<Value<'a>, StoreError>
where
    Vec<U>: ToSql,
{
    let column: Vec<U> = rows.into_iter().map(get).collect::<Result<_, _>>()?;
    Ok(Box::new(column))
}

pub(super) fn uuid(id: &[u8; 16]) -> Uuid {
    Uuid::from_bytes(*id)
}

/// The first half of a SHA-256.
pub(super) fn context_id(body: &[u8]) -> [u8; 16] {
    let hash = digest(&SHA256, body);
    let mut id = [0; 16];
    id.copy_from_slice(&hash.as_ref()[..16]);
    id
}

impl<'a> Writing<'a> {
    /// Everything that was decided on `ground`, but for new bundles (`write_bundles`).
    pub(super) fn of(ground: &'a Ground) -> Result<Self, StoreError> {
        let mut writing = Self(Vec::with_capacity(16));
        writing.fleets(ground)?;
        writing.erased(ground)?;
        writing.registry(ground)?;
        writing.operators(ground)?;
        writing.authorizations(ground)?;
        writing.requests(ground)?;
        writing.answers(ground)?;
        writing.renewals(ground)?;
        writing.statuses(ground)?;
        writing.rulings(ground)?;
        writing.acts(ground)?;
        Ok(writing)
    }

    pub(super) fn put(&mut self, sql: &'static str, values: Vec<Value<'a>>) {
        self.0.push(Ask::Query(sql, values));
    }

    fn fleets(&mut self, ground: &'a Ground) -> Result<(), StoreError> {
        let changes = &ground.changes;
        if !changes.settings.is_empty() {
            let rows = &changes.settings;
            self.put(
                "INSERT INTO settings (name, value) SELECT * FROM unnest($1::text[], $2::text[])",
                vec![
                    each(rows, |(name, _)| name.as_str()),
                    each(rows, |(_, value)| value.as_str()),
                ],
            );
        }
        if !changes.fleets.is_empty() {
            let rows = &changes.fleets;
            self.put(
                "INSERT INTO fleets
                 (id, name, tag, status, status_key, open_redemption, signing, standing)
                 SELECT *, 0 FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::bigint[],
                 $5::bytea[], $6::boolean[], $7::bigint[])",
                vec![
                    each(rows, |fleet| uuid(&fleet.id.0)),
                    each(rows, |fleet| fleet.name.as_str()),
                    each(rows, |fleet| i64::from(fleet.tag)),
                    each(rows, |fleet| words::status(fleet.status)),
                    each(rows, |fleet| &fleet.status_key[..]),
                    each(rows, |fleet| fleet.settings.open_redemption),
                    each(rows, |fleet| {
                        fleet
                            .settings
                            .signing
                            .map(|it| i64::from(words::signing(it)))
                    }),
                ],
            );
        }
        if !changes.standings.is_empty() {
            self.put(
                "UPDATE fleets SET standing = standing + 1 WHERE id = ANY($1)",
                vec![each(&changes.standings, |id| uuid(&id.0))],
            );
        }
        if !changes.status_next.is_empty() {
            let rows = &changes.status_next;
            self.put(
                "INSERT INTO status_counters AS c (fleet, next)
                 SELECT * FROM unnest($1::uuid[], $2::bigint[]) ON CONFLICT (fleet)
                 DO UPDATE SET next = greatest(c.next, excluded.next)",
                vec![
                    each(rows, |(id, _)| uuid(&id.0)),
                    try_each(rows, |(_, next)| column(*next))?,
                ],
            );
        }
        Ok(())
    }

    fn operators(&mut self, ground: &'a Ground) -> Result<(), StoreError> {
        let changes = &ground.changes;
        if !changes.tokens.is_empty() {
            let rows = &changes.tokens;
            let time = |at: Option<u64>| at.map(column).transpose();
            // One that ended within its own transaction has its end here already.
            let end = |id| ground.tokens.get(id).and_then(|row| row.revoked_at);
            self.put(
                "INSERT INTO tokens (id, fleet, hash, scopes, created_at, expires_at, revoked_at,
                 used_at)
                 SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bytea[], $4::bigint[],
                 $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[])",
                vec![
                    each(rows, |it| uuid(&it.id.0)),
                    each(rows, |it| uuid(&it.fleet.0)),
                    each(rows, |it| &it.hash[..]),
                    each(rows, |it| i64::from(it.scopes.bits())),
                    try_each(rows, |it| column(it.created_at))?,
                    try_each(rows, |it| time(it.expires_at))?,
                    try_each(rows, |it| time(end(&it.id)))?,
                    try_each(rows, |it| time(it.used_at))?,
                ],
            );
        }
        if !changes.tokens_revoked.is_empty() {
            let end = |id| ground.tokens.get(id).and_then(|row| row.revoked_at);
            self.put(
                "UPDATE tokens t SET revoked_at = k.at
                 FROM unnest($1::uuid[], $2::bigint[]) k (id, at) WHERE t.id = k.id",
                vec![
                    each(&changes.tokens_revoked, |id| uuid(&id.0)),
                    try_each(&changes.tokens_revoked, |id| {
                        end(id).map(column).transpose()
                    })?,
                ],
            );
        }
        self.tokens(changes)?;
        self.epochs(ground)?;
        if !changes.trust.is_empty() {
            self.put(
                "INSERT INTO trust_lists (version, body)
                 SELECT * FROM unnest($1::bigint[], $2::bytea[])",
                vec![
                    each(&changes.trust, |(version, _)| *version),
                    each(&changes.trust, |(_, body)| &**body),
                ],
            );
        }
        if !changes.records.is_empty() {
            self.put(
                "INSERT INTO records (number, jws) SELECT * FROM unnest($1::bigint[], $2::text[])",
                vec![
                    each(&changes.records, |(number, _)| *number),
                    each(&changes.records, |(_, jws)| &**jws),
                ],
            );
        }
        Ok(())
    }

    /// Tokens that end, and when they were used.
    fn tokens(&mut self, changes: &'a Changes) -> Result<(), StoreError> {
        if !changes.tokens_end.is_empty() {
            let rows = &changes.tokens_end;
            self.put(
                "UPDATE tokens t SET expires_at = least(coalesce(t.expires_at, k.at), k.at)
                 FROM unnest($1::uuid[], $2::bigint[]) k (id, at) WHERE t.id = k.id",
                vec![
                    each(rows, |(id, _)| uuid(&id.0)),
                    try_each(rows, |(_, at)| column(*at))?,
                ],
            );
        }
        if !changes.tokens_used.is_empty() {
            let rows = &changes.tokens_used;
            self.put(
                "UPDATE tokens t SET used_at = greatest(coalesce(t.used_at, 0), k.at)
                 FROM unnest($1::uuid[], $2::bigint[]) k (id, at) WHERE t.id = k.id",
                vec![
                    each(rows, |(id, _)| uuid(&id.0)),
                    try_each(rows, |(_, at)| column(*at))?,
                ],
            );
        }
        Ok(())
    }

    fn epochs(&mut self, ground: &'a Ground) -> Result<(), StoreError> {
        let rows = ground.changes.epochs.values();
        if rows.len() == 0 {
            return Ok(());
        }
        let place = |epoch: &crate::domain::Epoch| {
            let row = ground.epochs.get(&epoch.id);
            row.map_or(0, |row| row.place)
        };
        let key = |epoch: &crate::domain::Epoch| {
            let mut key = Vec::new();
            epoch.key.encode(&mut key);
            key
        };
        self.put(
            "INSERT INTO epochs (id, place, state, key, cka_id, token_serial, not_before,
             not_after, created_at, activated_at)
             SELECT * FROM unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::bytea[],
             $5::bytea[], $6::text[], $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[])
             ON CONFLICT (id) DO UPDATE SET state = excluded.state, key = excluded.key,
             cka_id = excluded.cka_id, token_serial = excluded.token_serial,
             not_before = excluded.not_before, not_after = excluded.not_after,
             created_at = excluded.created_at, activated_at = excluded.activated_at",
            vec![
                each(rows.clone(), |it| &it.id.0[..]),
                each(rows.clone(), place),
                each(rows.clone(), |it| words::epoch_state(it.state)),
                each(rows.clone(), key),
                each(rows.clone(), |it| &it.cka_id[..]),
                each(rows.clone(), |it| it.token_serial.as_str()),
                try_each(rows.clone(), |it| column(it.window.not_before))?,
                try_each(rows.clone(), |it| column(it.window.not_after))?,
                try_each(rows.clone(), |it| column(it.created_at))?,
                try_each(rows, |it| it.activated_at.map(column).transpose())?,
            ],
        );
        Ok(())
    }
}
