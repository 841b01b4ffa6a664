//! The registry's part of a transaction's writes: floor 2, `store/postgres`.

use super::ground::Ground;
use super::write::{Writing, each, try_each, uuid};
use crate::store::StoreError;
use crate::store::encoding::acts::{IDENTITY, TERMINAL};
use crate::store::encoding::{column, registry, words};

impl<'a> Writing<'a> {
    /// What goes, before anything comes in its place: bundles keep the identity under its new name.
    pub(super) fn erased(&mut self, ground: &'a Ground) -> Result<(), StoreError> {
        let rows = &ground.changes.erased;
        if rows.is_empty() {
            return Ok(());
        }
        let names = || {
            vec![
                each(rows, |((fleet, _), _)| uuid(&fleet.0)),
                each(rows, |((_, id), _)| id.as_str()),
            ]
        };
        let becomes = || {
            let mut values = names();
            values.push(each(rows, |(_, becomes)| becomes.as_str()));
            values
        };
        self.put(
            "UPDATE bundles b SET identity = k.becomes
             FROM unnest($1::uuid[], $2::text[], $3::text[]) k (fleet, id, becomes)
             WHERE b.fleet = k.fleet AND b.identity = k.id",
            becomes(),
        );
        let mut of = becomes();
        of.push(Box::new(IDENTITY));
        of.push(Box::new(TERMINAL));
        self.put(
            "UPDATE acts a SET object = k.prefix || k.becomes, why = NULL
             FROM (SELECT fleet, id, becomes, $4::text AS prefix, $4::text || id AS object
                   FROM unnest($1::uuid[], $2::text[], $3::text[]) i (fleet, id, becomes)
                   UNION ALL
                   SELECT t.fleet, t.id, i.becomes, $5::text, $5::text || t.id
                   FROM unnest($1::uuid[], $2::text[], $3::text[]) i (fleet, id, becomes)
                   JOIN terminals t ON t.fleet = i.fleet AND t.identity = i.id) k
             WHERE a.fleet = k.fleet AND a.object = k.object",
            of,
        );
        self.put(
            "DELETE FROM terminals t USING unnest($1::uuid[], $2::text[]) k (fleet, id)
             WHERE t.fleet = k.fleet AND t.identity = k.id",
            names(),
        );
        let mut values = becomes();
        values.push(Box::new(words::status(crate::domain::Status::Suspended)));
        values.push(Box::new(registry::licences(&[])?));
        self.put(
            "UPDATE identities i SET id = k.becomes, status = $4, licences = $5, hold = NULL
             FROM unnest($1::uuid[], $2::text[], $3::text[]) k (fleet, id, becomes)
             WHERE i.fleet = k.fleet AND i.id = k.id",
            values,
        );
        Ok(())
    }

    pub(super) fn registry(&mut self, ground: &'a Ground) -> Result<(), StoreError> {
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
        if !changes.vehicles_stand.is_empty() {
            let rows = &changes.vehicles_stand;
            let stands = |name| ground.vehicles.get(name);
            self.put(
                "UPDATE vehicles v SET epoch = k.epoch, status = k.status
                 FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::bigint[])
                 k (fleet, id, epoch, status) WHERE v.fleet = k.fleet AND v.id = k.id",
                vec![
                    each(rows, |(fleet, _)| uuid(&fleet.0)),
                    each(rows, |(_, id)| id.as_str()),
                    each(rows, |name| stands(name).map(|row| i64::from(row.epoch))),
                    each(rows, |name| stands(name).map(|row| row.status)),
                ],
            );
        }
        self.members(ground)
    }

    fn members(&mut self, ground: &'a Ground) -> Result<(), StoreError> {
        let changes = &ground.changes;
        if !changes.identities.is_empty() {
            let rows = changes.identities.values();
            self.put(
                "INSERT INTO identities (fleet, id, status, licences, hold, proved)
                 SELECT * FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::bytea[],
                 $5::bigint[], $6::bigint[])
                 ON CONFLICT (fleet, id) DO UPDATE SET status = excluded.status,
                 licences = excluded.licences, hold = excluded.hold,
                 proved = excluded.proved",
                vec![
                    each(rows.clone(), |it| uuid(&it.fleet.0)),
                    each(rows.clone(), |it| it.id.as_str()),
                    each(rows.clone(), |it| words::status(it.status)),
                    try_each(rows.clone(), |it| registry::licences(&it.licences))?,
                    each(rows.clone(), |it| it.hold.map(words::hold)),
                    try_each(rows, |it| it.proved.map(column).transpose())?,
                ],
            );
        }
        if !changes.identities_stand.is_empty() {
            let rows = &changes.identities_stand;
            let status = |name| match ground.identities.get(name) {
                Some(row) if row.active => words::ACTIVE,
                _ => words::status(crate::domain::Status::Suspended),
            };
            self.put(
                "UPDATE identities i SET status = k.status
                 FROM unnest($1::uuid[], $2::text[], $3::bigint[]) k (fleet, id, status)
                 WHERE i.fleet = k.fleet AND i.id = k.id",
                vec![
                    each(rows, |(fleet, _)| uuid(&fleet.0)),
                    each(rows, |(_, id)| id.as_str()),
                    each(rows, status),
                ],
            );
        }
        self.terminals(ground)
    }

    fn terminals(&mut self, ground: &'a Ground) -> Result<(), StoreError> {
        let changes = &ground.changes;
        if !changes.terminals.is_empty() {
            let rows = changes.terminals.values();
            self.put(
                "INSERT INTO terminals (fleet, id, status, identity, key, since, attested_by,
                 attested_at)
                 SELECT * FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::text[],
                 $5::bytea[], $6::bigint[], $7::text[], $8::bigint[])
                 ON CONFLICT (fleet, id) DO UPDATE SET identity = excluded.identity,
                 key = excluded.key, since = excluded.since,
                 attested_by = excluded.attested_by, attested_at = excluded.attested_at",
                vec![
                    each(rows.clone(), |it| uuid(&it.fleet.0)),
                    each(rows.clone(), |it| it.id.as_str()),
                    each(rows.clone(), |it| words::status(it.status)),
                    each(rows.clone(), |it| it.identity.as_str()),
                    each(rows.clone(), |it| key_column(&it.key)),
                    try_each(rows.clone(), |it| column(it.since))?,
                    each(rows.clone(), |it| {
                        it.attested.as_ref().map(|it| it.by.as_str())
                    }),
                    try_each(rows, |it| {
                        it.attested.as_ref().map(|it| column(it.at)).transpose()
                    })?,
                ],
            );
        }
        if !changes.terminals_stand.is_empty() {
            let rows = &changes.terminals_stand;
            self.put(
                "UPDATE terminals t SET status = k.status
                 FROM unnest($1::uuid[], $2::text[], $3::bigint[]) k (fleet, id, status)
                 WHERE t.fleet = k.fleet AND t.id = k.id",
                vec![
                    each(rows, |(fleet, _)| uuid(&fleet.0)),
                    each(rows, |(_, id)| id.as_str()),
                    each(rows, |name| {
                        ground.terminals.get(name).map(|row| row.status)
                    }),
                ],
            );
        }
        Ok(())
    }
}

/// A public key as its column keeps it: whole, so that reading a million costs no square roots.
fn key_column(key: &fob_verify::HolderKey) -> Vec<u8> {
    key.public().as_bytes().to_vec()
}
