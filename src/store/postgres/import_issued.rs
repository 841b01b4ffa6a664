//! What was authorized, issued and ended, taken in: its part of `import`; floor 2,
//! `store/postgres`.

use std::collections::BTreeMap;

use super::import::all;
use super::write::{Writing, context_id, each, try_each, uuid};
use super::{bundle_body, calls, fences};
use crate::domain::{Authorization, AuthorizationId, BundleId, Held, Reasons, UnixTime};
use crate::store::encoding::{answered, authorization_body, column, context, words};
use crate::store::whole::{Entry, OrderOf};
use crate::store::{AnsweredOrder, Listed, Request, SignedBundle, StoreError};

/// An order that was answered: its call, and the span in which it is over.
type Answered<'a> = (&'a [u8; 32], u64, AnsweredOrder);

/// The end of a span: nothing is deleted earlier for having been copied.
fn end_of(span: u64) -> Result<i64, StoreError> {
    column(span << 16 | 0xffff)
}

impl<'a> Writing<'a> {
    pub(super) fn take_authorized(&mut self, entries: &'a [Entry]) -> Result<(), StoreError> {
        let rows =
            all!(entries, Entry::Authorization(it, attempts, bundle) => (&**it, attempts, bundle));
        if !rows.is_empty() {
            self.take_authorizations(&rows)?;
        }
        let rows = all!(entries, Entry::Request(request, of, at) => (request, of, at));
        if !rows.is_empty() {
            self.take_requests(&rows)?;
        }
        let rows = all!(entries, Entry::Command(of, version, command) => (of, version, command));
        if !rows.is_empty() {
            self.put(
                "INSERT INTO commands (authorization_id, version, command)
                 SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::text[])",
                vec![
                    each(&rows, |(id, ..)| uuid(&id.0)),
                    each(&rows, |(_, version, _)| i64::from(**version)),
                    each(&rows, |(.., command)| command.as_str()),
                ],
            );
        }
        let rows = all!(
            entries,
            Entry::Amendment { request, authorization, made_at, command, outcome }
                => (request, authorization, made_at, command, outcome)
        );
        if !rows.is_empty() {
            self.put(
                "INSERT INTO requests (scope, digest, authorization_id, made_at, command, outcome)
                 SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::uuid[], $4::bigint[],
                 $5::text[], $6::bytea[])",
                vec![
                    each(&rows, |(it, ..)| &it.scope[..]),
                    each(&rows, |(it, ..)| &it.digest[..]),
                    each(&rows, |(_, of, ..)| of.as_ref().map(|id| uuid(&id.0))),
                    try_each(&rows, |(_, _, at, ..)| column(**at))?,
                    each(&rows, |(_, _, _, command, _)| command.as_deref()),
                    each(&rows, |(.., outcome)| &outcome[..]),
                ],
            );
        }
        Ok(())
    }

    fn take_requests(
        &mut self,
        rows: &[(&'a Request, &'a AuthorizationId, &'a UnixTime)],
    ) -> Result<(), StoreError> {
        self.put(
            "INSERT INTO requests (scope, digest, authorization_id, made_at)
             SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::uuid[], $4::bigint[])",
            vec![
                each(rows, |(it, ..)| &it.scope[..]),
                each(rows, |(it, ..)| &it.digest[..]),
                each(rows, |(_, of, _)| uuid(&of.0)),
                try_each(rows, |(.., at)| column(**at))?,
            ],
        );
        Ok(())
    }

    fn take_authorizations(
        &mut self,
        rows: &[(&'a Authorization, &'a u32, &'a Option<BundleId>)],
    ) -> Result<(), StoreError> {
        self.put(
            "INSERT INTO authorizations (id, fleet, vehicle, version, state, pin_attempts,
             bundle, not_after, redeem_by, ends, revision, code_set, format, body)
             SELECT id, fleet, vehicle, version, state, pin_attempts, bundle, not_after,
             redeem_by, greatest(not_after, redeem_by), revision, code_set, format, body
             FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::bigint[], $5::bigint[],
             $6::bigint[], $7::uuid[], $8::bigint[], $9::bigint[], $10::bigint[],
             $11::bytea[], $12::bigint[], $13::bytea[]) k (id, fleet, vehicle, version, state,
             pin_attempts, bundle, not_after, redeem_by, revision, code_set, format, body)",
            vec![
                each(rows, |(it, ..)| uuid(&it.id.0)),
                each(rows, |(it, ..)| uuid(&it.fleet.0)),
                each(rows, |(it, ..)| it.vehicle.as_str()),
                each(rows, |(it, ..)| i64::from(it.version)),
                each(rows, |(it, ..)| words::state(it.state)),
                each(rows, |(_, attempts, _)| i64::from(**attempts)),
                each(rows, |(.., bundle)| bundle.as_ref().map(|id| uuid(&id.0))),
                try_each(rows, |(it, ..)| column(it.window.not_after))?,
                try_each(rows, |(it, ..)| column(it.redeem_by))?,
                try_each(rows, |(it, ..)| {
                    it.amended().map(|it| column(it.revision)).transpose()
                })?,
                try_each(rows, |(it, ..)| authorization_body::code_set(it))?,
                each(rows, |_| authorization_body::FORMAT),
                try_each(rows, |(it, ..)| authorization_body::encode(it))?,
            ],
        );
        Ok(())
    }

    pub(super) fn take_issued(&mut self, entries: &'a [Entry]) -> Result<(), StoreError> {
        let rows = all!(entries, Entry::Bundle(signed, order) => (&**signed, order));
        if !rows.is_empty() {
            self.take_bundles(&rows)?;
        }
        let rows = all!(
            entries,
            Entry::Order { call, reference, digest, bundle, span }
                => (call, *span, AnsweredOrder {
                    reference: *reference,
                    digest: *digest,
                    bundle: *bundle,
                })
        );
        if !rows.is_empty() {
            self.take_answers(&rows)?;
        }
        Ok(())
    }

    /// What belongs to one call and span together, after what is there.
    fn take_answers(&mut self, rows: &[Answered<'a>]) -> Result<(), StoreError> {
        let mut pieces: BTreeMap<_, Vec<u8>> = BTreeMap::new();
        for (call, span, order) in rows {
            let piece = pieces.entry((*call, *span)).or_default();
            answered::put(piece, order);
        }
        let rows = pieces.iter().flat_map(|((call, span), piece)| {
            calls::rows(piece).map(move |orders| (*call, *span, orders))
        });
        let rows: Vec<_> = rows.collect();
        self.put(
            "INSERT INTO answered (call, number, ends, orders)
             SELECT k.call, coalesce((SELECT max(number) FROM answered a WHERE a.call = k.call), 0)
             + row_number() OVER (PARTITION BY k.call ORDER BY k.ends), k.ends, k.orders
             FROM unnest($1::bytea[], $2::bigint[], $3::bytea[]) k (call, ends, orders)",
            vec![
                each(&rows, |(call, ..)| &call[..]),
                try_each(&rows, |(_, span, _)| end_of(*span))?,
                each(&rows, |(.., orders)| orders.to_vec()),
            ],
        );
        Ok(())
    }

    fn take_bundles(
        &mut self,
        rows: &[(&'a SignedBundle, &'a Option<OrderOf>)],
    ) -> Result<(), StoreError> {
        let mut contexts = BTreeMap::new();
        let mut note = |body: Vec<u8>| {
            let id = context_id(&body);
            contexts.insert(id, body);
            uuid(&id)
        };
        let (mut issuers, mut subjects) = (Vec::new(), Vec::new());
        for (signed, _) in rows {
            let mut body = Vec::new();
            context::write_issuer(&mut body, &signed.bundle.issuer)?;
            issuers.push(note(body));
            let mut body = Vec::new();
            context::write_subjects(&mut body, &signed.bundle.subjects)?;
            subjects.push(note(body));
        }
        self.put(
            "INSERT INTO contexts (id, body) SELECT * FROM unnest($1::uuid[], $2::bytea[])
             ON CONFLICT DO NOTHING",
            vec![
                each(contexts.keys(), uuid),
                each(contexts.values(), Clone::clone),
            ],
        );
        let order = |order: &'a Option<OrderOf>| order.as_ref();
        self.put(
            "INSERT INTO bundles (id, version, fleet, authorization_id, vehicle, identity, epoch,
             author, terminal, issuer, subjects, ends, format, body)
             SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::uuid[], $5::text[],
             $6::text[], $7::bytea[], $8::uuid[], $9::text[], $10::uuid[], $11::uuid[],
             $12::bigint[], $13::bigint[], $14::bytea[])",
            vec![
                each(rows, |(it, _)| uuid(&it.bundle.id.0)),
                each(rows, |(it, _)| i64::from(it.bundle.version)),
                each(rows, |(it, _)| uuid(&it.bundle.fleet.0)),
                each(rows, |(it, _)| uuid(&it.bundle.authorization.0)),
                each(rows, |(it, _)| it.bundle.vehicle.as_str()),
                each(rows, |(it, _)| it.bundle.identity.as_str()),
                each(rows, |(it, _)| &it.bundle.epoch.0[..]),
                each(rows, |(_, of)| order(of).map(|it| uuid(&it.author.0))),
                each(rows, |(_, of)| {
                    let terminal = order(of).and_then(|it| it.terminal.as_ref());
                    terminal.map(|id| id.as_str())
                }),
                Box::new(issuers),
                Box::new(subjects),
                try_each(rows, |(it, _)| column(it.bundle.window.not_after))?,
                each(rows, |_| bundle_body::FORMAT),
                try_each(rows, |(it, _)| bundle_body::encode(it))?,
            ],
        );
        Ok(())
    }

    pub(super) fn take_statuses(&mut self, entries: &'a [Entry]) -> Result<(), StoreError> {
        let rows = all!(
            entries,
            Entry::Status { shard, index, held, span } => (shard, index, held, span)
        );
        if !rows.is_empty() {
            let stands = |held: &Held| match held {
                Held::ForGood => (words::KEY_REVOKED, Reasons::NONE),
                Held::By(reasons) => (words::KEY_SUSPENDED, *reasons),
            };
            self.put(
                "INSERT INTO statuses (tag, shard, place, status, reasons, ends)
                 SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[],
                 $5::bigint[], $6::bigint[])",
                vec![
                    each(&rows, |(shard, ..)| i64::from(shard.tag)),
                    try_each(&rows, |(shard, ..)| column(shard.number))?,
                    each(&rows, |(_, index, ..)| i64::from(**index)),
                    each(&rows, |(_, _, held, _)| stands(held).0),
                    each(&rows, |(_, _, held, _)| i64::from(stands(held).1.bits())),
                    try_each(&rows, |(.., span)| end_of(**span))?,
                ],
            );
        }
        let rows: Vec<&Listed> = all!(entries, Entry::Listed(listed) => listed);
        if !rows.is_empty() {
            self.put(
                "INSERT INTO status_lists (tag, shard, issued_at, expires)
                 SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[])",
                vec![
                    each(&rows, |it| i64::from(it.shard.tag)),
                    try_each(&rows, |it| column(it.shard.number))?,
                    try_each(&rows, |it| column(it.issued_at))?,
                    try_each(&rows, |it| column(it.expires))?,
                ],
            );
        }
        for restore in all!(entries, Entry::Restore(restore) => restore) {
            self.0.push(fences::put_restore(restore)?);
        }
        let rows = all!(entries, Entry::Contact(fleet, vehicle, it) => ((fleet, vehicle), it));
        if !rows.is_empty() {
            self.put_contacts(&rows)?;
        }
        Ok(())
    }
}
