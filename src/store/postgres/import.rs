//! What another store has given out, taken in: floor 2, `store/postgres`. One statement for each
//! table, and nothing is asked of it but that it fits.

use super::session::{Ask, values};
use super::write::{Writing, each, try_each, uuid};
use crate::domain::{Epoch, Fleet, UnixTime};
use crate::store::StoreError;
use crate::store::encoding::{column, registry, words};
use crate::store::whole::Entry;

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

pub(super) use all;

/// What writes these entries.
pub(super) fn asks(entries: &[Entry]) -> Result<Vec<Ask<'_>>, StoreError> {
    let mut writing = Writing(Vec::with_capacity(4));
    writing.take_registry(entries)?;
    writing.take_operators(entries)?;
    writing.take_authorized(entries)?;
    writing.take_issued(entries)?;
    writing.take_statuses(entries)?;
    writing.take_rulings(entries)?;
    writing.take_signatures(entries)?;
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
                "INSERT INTO identities (fleet, id, status, licences, hold, proved)
                 SELECT * FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::bytea[],
                 $5::bigint[], $6::bigint[])",
                vec![
                    each(rows, |it| uuid(&it.fleet.0)),
                    each(rows, |it| it.id.as_str()),
                    each(rows, |it| words::status(it.status)),
                    try_each(rows, |it| registry::licences(&it.licences))?,
                    each(rows, |it| it.hold.map(words::hold)),
                    try_each(rows, |it| it.proved.map(column).transpose())?,
                ],
            );
        }
        let terminals = all!(entries, Entry::Terminal(terminal) => terminal);
        if !terminals.is_empty() {
            let rows = &terminals;
            self.put(
                "INSERT INTO terminals (fleet, id, status, identity, key, since, attested_by,
                 attested_at)
                 SELECT * FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::text[],
                 $5::bytea[], $6::bigint[], $7::text[], $8::bigint[])",
                vec![
                    each(rows, |it| uuid(&it.fleet.0)),
                    each(rows, |it| it.id.as_str()),
                    each(rows, |it| words::status(it.status)),
                    each(rows, |it| it.identity.as_str()),
                    each(rows, |it| it.key.public().as_bytes().to_vec()),
                    try_each(rows, |it| column(it.since))?,
                    each(rows, |it| it.attested.as_ref().map(|it| it.by.as_str())),
                    try_each(rows, |it| {
                        it.attested.as_ref().map(|it| column(it.at)).transpose()
                    })?,
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
                    try_each(rows, |it| time(it.revoked_at))?,
                    try_each(rows, |it| time(it.used_at))?,
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
}
