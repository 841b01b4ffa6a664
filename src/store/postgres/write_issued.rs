//! What is authorized, issued and ended: its part of a transaction's writes; floor 2,
//! `store/postgres`.

use super::bundle_body;
use super::ground::{AuthorizationRow, Ground, KeyPlace, Whole, Written};
use super::session::{Value, values};
use super::write::{Writing, each, try_each, uuid};
use crate::domain::{AuthorizationId, FleetId, Held, KeyStatus, VehicleId};
use crate::store::encoding::{authorization_body, column, words};
use crate::store::{Contact, StoreError};

impl<'a> Writing<'a> {
    pub(super) fn authorizations(&mut self, ground: &'a Ground) -> Result<(), StoreError> {
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

    pub(super) fn requests(&mut self, ground: &'a Ground) -> Result<(), StoreError> {
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

    pub(super) fn answers(&mut self, ground: &'a Ground) -> Result<(), StoreError> {
        let calls = ground.calls.iter();
        let rows = calls.flat_map(|(id, call)| call.rows().map(move |row| (id, call.ends, row)));
        let mut rows: Vec<_> = rows.collect();
        if rows.is_empty() {
            return Ok(());
        }
        // By everybody the same way: nobody waits for another who waits for him.
        rows.sort_unstable_by_key(|(id, _, (number, _))| (**id, *number));
        self.put(
            "INSERT INTO answered (call, number, ends, orders)
             SELECT * FROM unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::bytea[])",
            vec![
                each(&rows, |(id, ..)| &id[..]),
                each(&rows, |(.., (number, _))| *number),
                try_each(&rows, |(_, ends, _)| column(*ends))?,
                each(&rows, |(.., (_, orders))| *orders),
            ],
        );
        Ok(())
    }

    pub(super) fn renewals(&mut self, ground: &'a Ground) -> Result<(), StoreError> {
        let rows = &ground.changes.renewals;
        if rows.is_empty() {
            return Ok(());
        }
        self.put(
            "UPDATE bundles b SET epoch = k.epoch, body = k.body
             FROM unnest($1::uuid[], $2::bigint[], $3::bytea[], $4::bytea[])
             k (id, version, epoch, body) WHERE b.id = k.id AND b.version = k.version",
            vec![
                each(rows, |it| uuid(&it.signed.bundle.id.0)),
                each(rows, |it| i64::from(it.signed.bundle.version)),
                each(rows, |it| &it.signed.bundle.epoch.0[..]),
                try_each(rows, |it| bundle_body::encode(&it.signed))?,
            ],
        );
        Ok(())
    }

    pub(super) fn statuses(&mut self, ground: &'a Ground) -> Result<(), StoreError> {
        let changes = &ground.changes;
        let rows = changes.marks.iter().filter_map(|place| {
            let (held, ends) = ground.held.get(place)?;
            Some((place, *held, *ends))
        });
        let (valid, held): (Vec<_>, Vec<_>) =
            rows.partition(|(_, held, _)| held.status() == KeyStatus::Valid);
        let places = |rows: &[(&'a KeyPlace, Held, u64)]| {
            Ok::<_, StoreError>(vec![
                each(rows, |((tag, ..), ..)| i64::from(*tag)),
                try_each(rows, |((_, shard, _), ..)| column(*shard))?,
                each(rows, |((.., place), ..)| i64::from(*place)),
            ])
        };
        if !valid.is_empty() {
            self.put(
                "DELETE FROM statuses s
                 USING unnest($1::bigint[], $2::bigint[], $3::bigint[]) k (tag, shard, place)
                 WHERE s.tag = k.tag AND s.shard = k.shard AND s.place = k.place",
                places(&valid)?,
            );
        }
        if !held.is_empty() {
            let mut values = places(&held)?;
            values.push(each(&held, |(_, held, _)| match held {
                Held::ForGood => words::KEY_REVOKED,
                Held::By(_) => words::KEY_SUSPENDED,
            }));
            values.push(each(&held, |(_, held, _)| match held {
                Held::ForGood => 0_i64,
                Held::By(reasons) => i64::from(reasons.bits()),
            }));
            values.push(try_each(&held, |(.., ends)| column(*ends))?);
            self.put(
                "INSERT INTO statuses (tag, shard, place, status, reasons, ends)
                 SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[],
                 $5::bigint[], $6::bigint[]) ON CONFLICT (tag, shard, place)
                 DO UPDATE SET status = excluded.status, reasons = excluded.reasons",
                values,
            );
        }
        if !changes.lists.is_empty() {
            self.put(
                "INSERT INTO status_lists AS l (tag, shard, issued_at, expires)
                 SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[])
                 ON CONFLICT (tag, shard)
                 DO UPDATE SET issued_at = greatest(l.issued_at, excluded.issued_at),
                 expires = greatest(l.expires, excluded.expires)",
                vec![
                    each(&changes.lists, |((tag, _), _)| i64::from(*tag)),
                    try_each(&changes.lists, |((_, shard), _)| column(*shard))?,
                    try_each(&changes.lists, |(_, (at, _))| column(*at))?,
                    try_each(&changes.lists, |(_, (_, end))| column(*end))?,
                ],
            );
        }
        self.signed_lists(ground)?;
        self.contacts(ground)
    }

    /// What is given out of lists whose times were written just before. An older one that comes
    /// late leaves the newer.
    fn signed_lists(&mut self, ground: &'a Ground) -> Result<(), StoreError> {
        let rows = &ground.changes.signed_lists;
        if rows.is_empty() {
            return Ok(());
        }
        self.put(
            "UPDATE status_lists l SET revision = k.revision, epoch = k.epoch,
             content = k.content, body = k.body
             FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bytea[],
             $6::bytea[], $7::bytea[]) k (tag, shard, issued_at, revision, epoch, content, body)
             WHERE l.tag = k.tag AND l.shard = k.shard AND l.issued_at = k.issued_at",
            vec![
                each(rows, |((tag, _), _)| i64::from(*tag)),
                try_each(rows, |((_, shard), _)| column(*shard))?,
                try_each(rows, |(_, it)| column(it.listed.issued_at))?,
                try_each(rows, |(_, it)| column(it.revision))?,
                each(rows, |(_, it)| &it.epoch.0[..]),
                each(rows, |(_, it)| &it.content[..]),
                each(rows, |(_, it)| &*it.bytes),
            ],
        );
        Ok(())
    }

    fn contacts(&mut self, ground: &'a Ground) -> Result<(), StoreError> {
        let rows: Vec<_> = ground
            .changes
            .contacts
            .iter()
            .map(|((fleet, vehicle), contact)| ((fleet, vehicle), contact))
            .collect();
        if rows.is_empty() {
            return Ok(());
        }
        self.put_contacts(&rows)
    }

    pub(super) fn put_contacts(
        &mut self,
        rows: &[((&'a FleetId, &'a VehicleId), &'a Contact)],
    ) -> Result<(), StoreError> {
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
