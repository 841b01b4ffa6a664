//! What another store has given out, taken in: floor 2, `store/postgres`. One statement for each
//! table, and nothing is asked of it but that it fits.

use std::collections::BTreeMap;

use super::bundle_body;
use super::fences;
use super::session::{Ask, values};
use super::write::{Writing, context_id, each, try_each, uuid};
use crate::domain::{
    Authorization, AuthorizationId, BundleId, Epoch, Fleet, Held, Reasons, UnixTime,
};
use crate::store::encoding::{authorization_body, column, context, registry, words};
use crate::store::whole::{Entry, OrderOf};
use crate::store::{Listed, Request, SignedBundle, StoreError};

/// The end of a span: nothing is deleted earlier for having been copied.
fn end_of(span: u64) -> Result<i64, StoreError> {
    column(span << 16 | 0xffff)
}

/// All entries of one kind.
macro_rules! all {
    ($entries:expr, $pattern:pat => $row:expr) => {
        $entries
            .iter()
            .filter_map(|entry| match entry {
                $pattern => Some($row),
                _ => None,
            })
            .collect::<Vec<_>>()
    };
}

/// What writes these entries.
pub(super) fn asks(entries: &[Entry]) -> Result<Vec<Ask<'_>>, StoreError> {
    let mut writing = Writing(Vec::with_capacity(4));
    writing.take_registry(entries)?;
    writing.take_operators(entries)?;
    writing.take_authorized(entries)?;
    writing.take_issued(entries)?;
    writing.take_statuses(entries)?;
    Ok(writing.0)
}

impl<'a> Writing<'a> {
    fn take_registry(&mut self, entries: &'a [Entry]) -> Result<(), StoreError> {
        let settings = all!(entries, Entry::Setting(name, value) => (name, value));
        if !settings.is_empty() {
            self.put(
                "INSERT INTO settings (name, value) SELECT * FROM unnest($1::text[], $2::text[])",
                vec![
                    each(&settings, |(name, _)| name.as_str()),
                    each(&settings, |(_, value)| value.as_str()),
                ],
            );
        }
        let fleets = all!(entries, Entry::Fleet(fleet) => fleet);
        if !fleets.is_empty() {
            self.take_fleets(&fleets)?;
        }
        let functions = all!(entries, Entry::Function(fleet, code, name) => (fleet, code, name));
        if !functions.is_empty() {
            self.put(
                "INSERT INTO functions (fleet, code, name)
                 SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::text[])",
                vec![
                    each(&functions, |(fleet, ..)| uuid(&fleet.0)),
                    each(&functions, |(_, code, _)| i64::from(**code)),
                    each(&functions, |(.., name)| &***name),
                ],
            );
        }
        let vehicles = all!(entries, Entry::Vehicle(vehicle) => vehicle);
        if !vehicles.is_empty() {
            let rows = &vehicles;
            self.put(
                "INSERT INTO vehicles (fleet, id, status, epoch, model, functions, owner, key)
                 SELECT * FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::bigint[],
                 $5::text[], $6::bytea[], $7::text[], $8::bytea[])",
                vec![
                    each(rows, |it| uuid(&it.fleet.0)),
                    each(rows, |it| it.id.as_str()),
                    each(rows, |it| words::status(it.status)),
                    each(rows, |it| i64::from(it.epoch)),
                    each(rows, |it| &*it.model),
                    try_each(rows, |it| registry::functions(&it.functions))?,
                    each(rows, |it| it.owner.as_ref().map(|owner| owner.as_str())),
                    each(rows, |it| {
                        it.key.as_ref().map(|key| key.public().as_bytes().to_vec())
                    }),
                ],
            );
        }
        self.take_members(entries)
    }

    fn take_fleets(&mut self, rows: &[&'a Fleet]) -> Result<(), StoreError> {
        self.put(
            "INSERT INTO fleets
             (id, name, tag, status, status_key, open_redemption, signing, standing)
             SELECT *, 0 FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::bigint[],
             $5::bytea[], $6::boolean[], $7::bigint[])",
            vec![
                each(rows, |it| uuid(&it.id.0)),
                each(rows, |it| it.name.as_str()),
                each(rows, |it| i64::from(it.tag)),
                each(rows, |it| words::status(it.status)),
                each(rows, |it| &it.status_key[..]),
                each(rows, |it| it.settings.open_redemption),
                each(rows, |it| {
                    let signing = it.settings.signing;
                    signing.map(|signing| i64::from(words::signing(signing)))
                }),
            ],
        );
        self.put(
            "INSERT INTO status_counters (fleet, next)
             SELECT * FROM unnest($1::uuid[], $2::bigint[])",
            vec![
                each(rows, |it| uuid(&it.id.0)),
                try_each(rows, |it| column(it.status_next))?,
            ],
        );
        Ok(())
    }

    fn take_members(&mut self, entries: &'a [Entry]) -> Result<(), StoreError> {
        let identities = all!(entries, Entry::Identity(identity) => identity);
        if !identities.is_empty() {
            let rows = &identities;
            self.put(
                "INSERT INTO identities (fleet, id, status, licences)
                 SELECT * FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::bytea[])",
                vec![
                    each(rows, |it| uuid(&it.fleet.0)),
                    each(rows, |it| it.id.as_str()),
                    each(rows, |it| words::status(it.status)),
                    try_each(rows, |it| registry::licences(&it.licences))?,
                ],
            );
        }
        let terminals = all!(entries, Entry::Terminal(terminal) => terminal);
        if !terminals.is_empty() {
            let rows = &terminals;
            self.put(
                "INSERT INTO terminals (fleet, id, status, identity, key)
                 SELECT * FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::text[],
                 $5::bytea[])",
                vec![
                    each(rows, |it| uuid(&it.fleet.0)),
                    each(rows, |it| it.id.as_str()),
                    each(rows, |it| words::status(it.status)),
                    each(rows, |it| it.identity.as_str()),
                    each(rows, |it| it.key.public().as_bytes().to_vec()),
                ],
            );
        }
        Ok(())
    }

    fn take_operators(&mut self, entries: &'a [Entry]) -> Result<(), StoreError> {
        let tokens = all!(entries, Entry::Token(token) => token);
        if !tokens.is_empty() {
            let rows = &tokens;
            let time = |at: Option<UnixTime>| at.map(column).transpose();
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
                    try_each(rows, |it| time(it.revoked_at))?,
                ],
            );
        }
        let epochs = all!(entries, Entry::Epoch(place, epoch) => (place, epoch));
        if !epochs.is_empty() {
            self.take_epochs(&epochs)?;
        }
        let lists = all!(entries, Entry::TrustList(version, body) => (version, body));
        if !lists.is_empty() {
            self.put(
                "INSERT INTO trust_lists (version, body)
                 SELECT * FROM unnest($1::bigint[], $2::bytea[])",
                vec![
                    each(&lists, |(version, _)| i64::from(**version)),
                    each(&lists, |(_, body)| &***body),
                ],
            );
        }
        let records = all!(entries, Entry::Record(number, jws) => (number, jws));
        if !records.is_empty() {
            self.put(
                "INSERT INTO records (number, jws) SELECT * FROM unnest($1::bigint[], $2::text[])",
                vec![
                    try_each(&records, |(number, _)| column(**number))?,
                    each(&records, |(_, jws)| &***jws),
                ],
            );
        }
        for count in all!(entries, Entry::Revision(count) => *count) {
            self.put(
                "UPDATE counters SET value = $1 WHERE name = 'amendments'",
                values![column(count)?],
            );
        }
        Ok(())
    }

    fn take_epochs(&mut self, rows: &[(&'a u64, &'a Epoch)]) -> Result<(), StoreError> {
        let key = |epoch: &Epoch| {
            let mut key = Vec::new();
            epoch.key.encode(&mut key);
            key
        };
        self.put(
            "INSERT INTO epochs (id, place, state, key, cka_id, token_serial, not_before,
             not_after, created_at, activated_at)
             SELECT * FROM unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::bytea[],
             $5::bytea[], $6::text[], $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[])",
            vec![
                each(rows, |(_, it)| &it.id.0[..]),
                try_each(rows, |(place, _)| column(**place))?,
                each(rows, |(_, it)| words::epoch_state(it.state)),
                each(rows, |(_, it)| key(it)),
                each(rows, |(_, it)| &it.cka_id[..]),
                each(rows, |(_, it)| it.token_serial.as_str()),
                try_each(rows, |(_, it)| column(it.window.not_before))?,
                try_each(rows, |(_, it)| column(it.window.not_after))?,
                try_each(rows, |(_, it)| column(it.created_at))?,
                try_each(rows, |(_, it)| it.activated_at.map(column).transpose())?,
            ],
        );
        Ok(())
    }

    fn take_authorized(&mut self, entries: &'a [Entry]) -> Result<(), StoreError> {
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

    fn take_issued(&mut self, entries: &'a [Entry]) -> Result<(), StoreError> {
        let rows = all!(entries, Entry::Bundle(signed, order) => (&**signed, order));
        if !rows.is_empty() {
            self.take_bundles(&rows)?;
        }
        let rows = all!(
            entries,
            Entry::Order { call, reference, digest, bundle, span }
                => (call, reference, digest, bundle, span)
        );
        if !rows.is_empty() {
            self.put(
                "INSERT INTO answered (call, reference, digest, bundle, ends)
                 SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::bytea[], $4::uuid[],
                 $5::bigint[])",
                vec![
                    each(&rows, |(call, ..)| &call[..]),
                    each(&rows, |(_, reference, ..)| &reference[..]),
                    each(&rows, |(_, _, digest, ..)| &digest[..]),
                    each(&rows, |(.., bundle, _)| uuid(&bundle.0)),
                    try_each(&rows, |(.., span)| end_of(**span))?,
                ],
            );
        }
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

    fn take_statuses(&mut self, entries: &'a [Entry]) -> Result<(), StoreError> {
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
