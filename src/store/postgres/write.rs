//! The round that writes what was decided: floor 2, `store/postgres`. One statement for each table,
//! whatever the number of rows.
//!
//! Rows that must be new are inserted plainly: where another has just made them, the transaction is
//! taken back and decided anew.

use aws_lc_rs::digest::{SHA256, digest};
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::bundle_body;
use super::contexts::Contexts;
use super::ground::{AuthorizationRow, Ground, Whole, Written};
use super::session::{Ask, Value, values};
use crate::domain::{AuthorizationId, KeyStatus};
use crate::store::StoreError;
use crate::store::encoding::{authorization_body, column, registry, words};

/// Statements being gathered.
pub(super) struct Writing<'a>(pub(super) Vec<Ask<'a>>);

/// One column of many rows.
fn each<'a, T, U: ToSql + Sync + Send + 'a>(
    rows: impl IntoIterator<Item = T>,
    get: impl FnMut(T) -> U,
) -> Value<'a>
where
    Vec<U>: ToSql,
{
    Box::new(rows.into_iter().map(get).collect::<Vec<U>>())
}

/// The same where a value may be too large to be kept.
fn try_each<'a, T, U: ToSql + Sync + Send + 'a>(
    rows: impl IntoIterator<Item = T>,
    get: impl FnMut(T) -> Result<U, StoreError>,
) -> Result<Value<'a>, StoreError>
where
    Vec<U>: ToSql,
{
    let column: Vec<U> = rows.into_iter().map(get).collect::<Result<_, _>>()?;
    Ok(Box::new(column))
}

fn uuid(id: &[u8; 16]) -> Uuid {
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
    /// Everything that was decided on `ground`.
    pub(super) fn of(ground: &'a Ground, contexts: &mut Contexts) -> Result<Self, StoreError> {
        let mut writing = Self(Vec::with_capacity(16));
        writing.fleets(ground)?;
        writing.registry(ground)?;
        writing.operators(ground)?;
        writing.authorizations(ground)?;
        writing.requests(ground)?;
        writing.bundles(ground, contexts)?;
        writing.answers(ground)?;
        writing.statuses(ground)?;
        Ok(writing)
    }

    fn put(&mut self, sql: &'static str, values: Vec<Value<'a>>) {
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

    fn registry(&mut self, ground: &'a Ground) -> Result<(), StoreError> {
        let changes = &ground.changes;
        if !changes.functions.is_empty() {
            let rows = &changes.functions;
            self.put(
                "INSERT INTO functions (fleet, code, name)
                 SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::text[])",
                vec![
                    each(rows, |(fleet, ..)| uuid(&fleet.0)),
                    each(rows, |(_, code, _)| i64::from(*code)),
                    each(rows, |(.., name)| &**name),
                ],
            );
        }
        if !changes.vehicles.is_empty() {
            let rows = changes.vehicles.values();
            let status = |vehicle: &crate::domain::Vehicle| words::status(vehicle.status);
            self.put(
                "INSERT INTO vehicles (fleet, id, status, epoch, model, functions, owner, key)
                 SELECT * FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::bigint[],
                 $5::text[], $6::bytea[], $7::text[], $8::bytea[])
                 ON CONFLICT (fleet, id) DO UPDATE SET model = excluded.model,
                 functions = excluded.functions, owner = excluded.owner, key = excluded.key",
                vec![
                    each(rows.clone(), |it| uuid(&it.fleet.0)),
                    each(rows.clone(), |it| it.id.as_str()),
                    each(rows.clone(), status),
                    each(rows.clone(), |it| i64::from(it.epoch)),
                    each(rows.clone(), |it| &*it.model),
                    try_each(rows.clone(), |it| registry::functions(&it.functions))?,
                    each(rows.clone(), |it| {
                        it.owner.as_ref().map(|owner| owner.as_str())
                    }),
                    each(rows, |it| it.key.as_ref().map(key_column)),
                ],
            );
        }
        if !changes.raised.is_empty() {
            let epoch = |name: &(_, _)| {
                let row = ground.vehicles.get(name);
                row.map_or(0, |row| i64::from(row.epoch))
            };
            self.put(
                "UPDATE vehicles v SET epoch = k.epoch
                 FROM unnest($1::uuid[], $2::text[], $3::bigint[]) k (fleet, id, epoch)
                 WHERE v.fleet = k.fleet AND v.id = k.id",
                vec![
                    each(&changes.raised, |(fleet, _)| uuid(&fleet.0)),
                    each(&changes.raised, |(_, id)| id.as_str()),
                    each(&changes.raised, epoch),
                ],
            );
        }
        if !changes.identities.is_empty() {
            let rows = changes.identities.values();
            self.put(
                "INSERT INTO identities (fleet, id, status, licences)
                 SELECT * FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::bytea[])
                 ON CONFLICT (fleet, id) DO UPDATE SET status = excluded.status,
                 licences = excluded.licences",
                vec![
                    each(rows.clone(), |it| uuid(&it.fleet.0)),
                    each(rows.clone(), |it| it.id.as_str()),
                    each(rows.clone(), |it| words::status(it.status)),
                    try_each(rows, |it| registry::licences(&it.licences))?,
                ],
            );
        }
        if !changes.terminals.is_empty() {
            let rows = changes.terminals.values();
            self.put(
                "INSERT INTO terminals (fleet, id, status, identity, key)
                 SELECT * FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::text[],
                 $5::bytea[])
                 ON CONFLICT (fleet, id) DO UPDATE SET identity = excluded.identity,
                 key = excluded.key",
                vec![
                    each(rows.clone(), |it| uuid(&it.fleet.0)),
                    each(rows.clone(), |it| it.id.as_str()),
                    each(rows.clone(), |it| words::status(it.status)),
                    each(rows.clone(), |it| it.identity.as_str()),
                    each(rows, |it| key_column(&it.key)),
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
                "INSERT INTO tokens (id, fleet, hash, scopes, created_at, expires_at, revoked_at)
                 SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bytea[], $4::bigint[],
                 $5::bigint[], $6::bigint[], $7::bigint[])",
                vec![
                    each(rows, |it| uuid(&it.id.0)),
                    each(rows, |it| uuid(&it.fleet.0)),
                    each(rows, |it| &it.hash[..]),
                    each(rows, |it| i64::from(it.scopes.bits())),
                    try_each(rows, |it| column(it.created_at))?,
                    try_each(rows, |it| time(it.expires_at))?,
                    try_each(rows, |it| time(end(&it.id)))?,
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

    fn authorizations(&mut self, ground: &'a Ground) -> Result<(), StoreError> {
        let (mut marks, mut whole, mut new) = (Vec::new(), Vec::new(), Vec::new());
        for (id, row) in &ground.authorizations {
            match &row.written {
                Written::No => {}
                Written::Marks => marks.push((id, row)),
                Written::Whole(all) => whole.push((id, row, all)),
                Written::New(all) => new.push((id, row, all)),
            }
        }
        if !marks.is_empty() {
            self.put(
                "UPDATE authorizations a
                 SET state = k.state, pin_attempts = k.pin_attempts, bundle = k.bundle
                 FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::uuid[])
                 k (id, state, pin_attempts, bundle) WHERE a.id = k.id",
                vec![
                    each(&marks, |(id, _)| uuid(&id.0)),
                    each(&marks, |(_, row)| row.state),
                    each(&marks, |(_, row)| i64::from(row.pin_attempts)),
                    each(&marks, |(_, row)| row.bundle.map(|id| uuid(&id.0))),
                ],
            );
        }
        if !whole.is_empty() {
            self.put(
                "UPDATE authorizations a SET fleet = k.fleet, vehicle = k.vehicle,
                 version = k.version, state = k.state, pin_attempts = k.pin_attempts,
                 bundle = k.bundle, not_after = k.not_after, redeem_by = k.redeem_by,
                 ends = greatest(k.not_after, k.redeem_by), revision = k.revision,
                 code_set = k.code_set, format = k.format, body = k.body
                 FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::bigint[], $5::bigint[],
                 $6::bigint[], $7::uuid[], $8::bigint[], $9::bigint[], $10::bigint[],
                 $11::bytea[], $12::bigint[], $13::bytea[]) k (id, fleet, vehicle, version, state,
                 pin_attempts, bundle, not_after, redeem_by, revision, code_set, format, body)
                 WHERE a.id = k.id",
                authorization_columns(&whole)?,
            );
        }
        if !new.is_empty() {
            // Neighbours lie in the same pages.
            new.sort_unstable_by_key(|(id, ..)| **id);
            self.put(
                "INSERT INTO authorizations (id, fleet, vehicle, version, state, pin_attempts,
                 bundle, not_after, redeem_by, ends, revision, code_set, format, body)
                 SELECT id, fleet, vehicle, version, state, pin_attempts, bundle, not_after,
                 redeem_by, greatest(not_after, redeem_by), revision, code_set, format, body
                 FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::bigint[], $5::bigint[],
                 $6::bigint[], $7::uuid[], $8::bigint[], $9::bigint[], $10::bigint[],
                 $11::bytea[], $12::bigint[], $13::bytea[]) k (id, fleet, vehicle, version, state,
                 pin_attempts, bundle, not_after, redeem_by, revision, code_set, format, body)",
                authorization_columns(&new)?,
            );
        }
        Ok(())
    }

    fn requests(&mut self, ground: &'a Ground) -> Result<(), StoreError> {
        let changes = &ground.changes;
        if !changes.requests.is_empty() {
            let rows = &changes.requests;
            self.put(
                "INSERT INTO requests (scope, digest, authorization_id, made_at, command, outcome)
                 SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::uuid[], $4::bigint[],
                 $5::text[], $6::bytea[])",
                vec![
                    each(rows, |it| &it.request.scope[..]),
                    each(rows, |it| &it.request.digest[..]),
                    each(rows, |it| it.authorization.map(|id| uuid(&id.0))),
                    try_each(rows, |it| column(it.made_at))?,
                    each(rows, |it| it.command.as_deref()),
                    each(rows, |it| it.outcome.as_deref()),
                ],
            );
        }
        if !changes.commands.is_empty() {
            let rows = &changes.commands;
            self.put(
                "INSERT INTO commands (authorization_id, version, command)
                 SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::text[])",
                vec![
                    each(rows, |(id, ..)| uuid(&id.0)),
                    each(rows, |(_, version, _)| i64::from(*version)),
                    each(rows, |(.., command)| command.as_str()),
                ],
            );
        }
        if changes.amended {
            self.put(
                "UPDATE counters SET value = $1 WHERE name = 'amendments'",
                values![column(ground.amendments)?],
            );
        }
        Ok(())
    }

    fn bundles(&mut self, ground: &'a Ground, contexts: &mut Contexts) -> Result<(), StoreError> {
        let rows = &ground.changes.bundles;
        if rows.is_empty() {
            return Ok(());
        }
        let mut issuers = Vec::with_capacity(rows.len());
        let mut subjects = Vec::with_capacity(rows.len());
        for row in rows {
            let bundle = &row.signed.bundle().bundle;
            issuers.push(uuid(&contexts.issuer(&bundle.issuer)?));
            subjects.push(uuid(&contexts.subjects(&bundle.subjects)?));
        }
        let new = contexts.take_new();
        if !new.is_empty() {
            self.put(
                "INSERT INTO contexts (id, body) SELECT * FROM unnest($1::uuid[], $2::bytea[])
                 ON CONFLICT DO NOTHING",
                vec![
                    each(&new, |(id, _)| uuid(id)),
                    each(&new, |(_, body)| body.clone()),
                ],
            );
        }
        let of = |row: &'a super::ground::NewBundle| &row.signed.bundle().bundle;
        self.put(
            "INSERT INTO bundles (id, version, fleet, authorization_id, vehicle, identity, epoch,
             author, terminal, issuer, subjects, ends, format, body)
             SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::uuid[], $5::text[],
             $6::text[], $7::bytea[], $8::uuid[], $9::text[], $10::uuid[], $11::uuid[],
             $12::bigint[], $13::bigint[], $14::bytea[])",
            vec![
                each(rows, |it| uuid(&of(it).id.0)),
                each(rows, |it| i64::from(of(it).version)),
                each(rows, |it| uuid(&of(it).fleet.0)),
                each(rows, |it| uuid(&of(it).authorization.0)),
                each(rows, |it| of(it).vehicle.as_str()),
                each(rows, |it| of(it).identity.as_str()),
                each(rows, |it| &of(it).epoch.0[..]),
                each(rows, |it| it.author.map(|id| uuid(&id.0))),
                each(rows, |it| it.terminal.as_ref().map(|id| id.as_str())),
                Box::new(issuers),
                Box::new(subjects),
                try_each(rows, |it| column(of(it).window.not_after))?,
                each(rows, |_| bundle_body::FORMAT),
                try_each(rows, |it| bundle_body::encode(it.signed.bundle()))?,
            ],
        );
        Ok(())
    }

    fn answers(&mut self, ground: &'a Ground) -> Result<(), StoreError> {
        let rows = &ground.changes.answers;
        if rows.is_empty() {
            return Ok(());
        }
        self.put(
            "INSERT INTO answered (call, reference, digest, bundle, ends)
             SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::bytea[], $4::uuid[],
             $5::bigint[])",
            vec![
                each(rows, |it| &it.call[..]),
                each(rows, |it| &it.reference[..]),
                each(rows, |it| &it.digest[..]),
                each(rows, |it| uuid(&it.bundle.0)),
                try_each(rows, |it| column(it.ends))?,
            ],
        );
        Ok(())
    }

    fn statuses(&mut self, ground: &'a Ground) -> Result<(), StoreError> {
        let changes = &ground.changes;
        for (to, sql) in [
            (
                KeyStatus::Valid,
                "DELETE FROM statuses s
                 USING unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[])
                 k (tag, shard, place, ends)
                 WHERE s.tag = k.tag AND s.shard = k.shard AND s.place = k.place AND s.status = 2",
            ),
            (
                KeyStatus::Suspended,
                "INSERT INTO statuses (tag, shard, place, ends, status)
                 SELECT *, 2 FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[])
                 ON CONFLICT DO NOTHING",
            ),
            (
                KeyStatus::Revoked,
                "INSERT INTO statuses (tag, shard, place, ends, status)
                 SELECT *, 1 FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[])
                 ON CONFLICT (tag, shard, place) DO UPDATE SET status = 1",
            ),
        ] {
            let rows = changes.marks.iter().filter(|(_, (it, _))| *it == to);
            let rows: Vec<_> = rows.collect();
            if rows.is_empty() {
                continue;
            }
            self.put(
                sql,
                vec![
                    each(&rows, |((tag, ..), _)| i64::from(*tag)),
                    try_each(&rows, |((_, shard, _), _)| column(*shard))?,
                    each(&rows, |((.., place), _)| i64::from(*place)),
                    try_each(&rows, |(_, (_, ends))| column(*ends))?,
                ],
            );
        }
        if !changes.lists.is_empty() {
            self.put(
                "INSERT INTO status_lists AS l (tag, shard, issued_at)
                 SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[])
                 ON CONFLICT (tag, shard)
                 DO UPDATE SET issued_at = greatest(l.issued_at, excluded.issued_at)",
                vec![
                    each(&changes.lists, |((tag, _), _)| i64::from(*tag)),
                    try_each(&changes.lists, |((_, shard), _)| column(*shard))?,
                    try_each(&changes.lists, |(_, at)| column(*at))?,
                ],
            );
        }
        self.contacts(ground)
    }

    fn contacts(&mut self, ground: &'a Ground) -> Result<(), StoreError> {
        let rows = &ground.changes.contacts;
        if rows.is_empty() {
            return Ok(());
        }
        self.put(
            "INSERT INTO contacts (fleet, vehicle, heard_at, sent, sent_revision, sent_at, acked,
             acked_revision, acked_at)
             SELECT * FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::bytea[],
             $5::bigint[], $6::bigint[], $7::bytea[], $8::bigint[], $9::bigint[])
             ON CONFLICT (fleet, vehicle) DO UPDATE SET heard_at = excluded.heard_at,
             sent = excluded.sent, sent_revision = excluded.sent_revision,
             sent_at = excluded.sent_at, acked = excluded.acked,
             acked_revision = excluded.acked_revision, acked_at = excluded.acked_at",
            vec![
                each(rows, |((fleet, _), _)| uuid(&fleet.0)),
                each(rows, |((_, vehicle), _)| vehicle.as_str()),
                try_each(rows, |(_, it)| column(it.heard_at))?,
                each(rows, |(_, it)| &it.sent.digest[..]),
                try_each(rows, |(_, it)| column(it.sent.revision))?,
                try_each(rows, |(_, it)| column(it.sent.at))?,
                each(rows, |(_, it)| {
                    it.acked.as_ref().map(|acked| &acked.digest[..])
                }),
                try_each(rows, |(_, it)| {
                    it.acked.map(|it| column(it.revision)).transpose()
                })?,
                try_each(rows, |(_, it)| it.acked.map(|it| column(it.at)).transpose())?,
            ],
        );
        Ok(())
    }
}

/// A public key as its column keeps it: whole, so that reading a million costs no square roots.
fn key_column(key: &fob_verify::HolderKey) -> Vec<u8> {
    key.public().as_bytes().to_vec()
}

/// The columns of authorizations that are written whole.
fn authorization_columns<'a>(
    rows: &[(&'a AuthorizationId, &'a AuthorizationRow, &'a Whole)],
) -> Result<Vec<Value<'a>>, StoreError> {
    Ok(vec![
        each(rows, |(id, ..)| uuid(&id.0)),
        each(rows, |(_, row, _)| uuid(&row.fleet.0)),
        each(rows, |(_, row, _)| row.vehicle.as_str()),
        each(rows, |(_, row, _)| i64::from(row.version)),
        each(rows, |(_, row, _)| row.state),
        each(rows, |(_, row, _)| i64::from(row.pin_attempts)),
        each(rows, |(_, row, _)| row.bundle.map(|id| uuid(&id.0))),
        try_each(rows, |(.., it)| column(it.authorization.window.not_after))?,
        try_each(rows, |(.., it)| column(it.authorization.redeem_by))?,
        try_each(rows, |(.., it)| it.revision.map(column).transpose())?,
        try_each(rows, |(.., it)| {
            authorization_body::code_set(&it.authorization)
        })?,
        each(rows, |_| authorization_body::FORMAT),
        try_each(rows, |(.., it)| {
            authorization_body::encode(&it.authorization)
        })?,
    ])
}
