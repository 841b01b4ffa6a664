//! The round that locks and reads what a transaction rests on: floor 2, `store/postgres`.
//!
//! Locks are taken table by table and by key within each, the same way by everybody. Rows that say
//! how something stands are not locked one by one: whoever relies on them holds their fleet shared,
//! whoever changes them holds it alone. Statements read what was committed before each of them, so
//! what comes after the locks is read as it is.

use std::collections::HashMap;

use tokio_postgres::Row;
use uuid::Uuid;

use super::ground::{
    AuthorizationRow, EpochRow, FirstIssue, Ground, IdentityRow, TerminalRow, TokenRow, VehicleRow,
    Written,
};
use super::needs::Needs;
use super::rows::{bytes, id, name, names, number, small, text, uuids};
use super::session::{Ask, Value, values};
use crate::domain::{
    AuthorizationId, BundleId, EpochId, FleetId, Held, IdentityId, Reasons, TerminalId, TokenId,
    VehicleId,
};
use crate::store::StoreError;
use crate::store::encoding::{corrupt, words};

/// Takes a statement's rows in.
pub(super) type Take = fn(&mut Ground, &Row) -> Result<(), StoreError>;

/// A round that reads: its statements, and what takes in the rows of each.
pub(super) struct Survey<'a> {
    pub(super) asks: Vec<Ask<'a>>,
    takes: Vec<Option<Take>>,
}

impl<'a> Survey<'a> {
    /// Asks for everything in `needs`. With `begin` it begins the transaction; with `lease` the
    /// next answer is the number of whoever serves, held until the transaction ends.
    pub(super) fn of(needs: &'a Needs, begin: bool, lease: bool) -> Self {
        let mut survey = Self {
            asks: Vec::with_capacity(16),
            takes: Vec::with_capacity(16),
        };
        if begin {
            // Whatever the server's default: statements after the locks must see what the locks
            // were waited for.
            survey
                .asks
                .push(Ask::Plain("BEGIN ISOLATION LEVEL READ COMMITTED"));
            survey.takes.push(None);
        }
        survey.ask(
            lease,
            "SELECT number FROM leases WHERE name = 'serving' FOR SHARE",
            values![],
            |_, _| Ok(()),
        );
        survey.locks(needs);
        survey.keys(needs);
        survey.registry(needs);
        survey.members(needs);
        survey.issued(needs);
        survey.ruled(needs);
        survey
    }

    /// Takes the answers in.
    pub(super) fn take(&self, ground: &mut Ground, answers: &[Vec<Row>]) -> Result<(), StoreError> {
        for (take, rows) in self.takes.iter().zip(answers) {
            let Some(take) = take else { continue };
            for row in rows {
                take(ground, row)?;
            }
        }
        Ok(())
    }

    pub(super) fn ask(
        &mut self,
        wanted: bool,
        sql: &'static str,
        values: Vec<Value<'a>>,
        take: Take,
    ) {
        if wanted {
            self.asks.push(Ask::Query(sql, values));
            self.takes.push(Some(take));
        }
    }

    fn locks(&mut self, needs: &'a Needs) {
        let alone = &needs.fleets_alone;
        self.ask(
            !alone.is_empty(),
            "SELECT id, status FROM fleets WHERE id = ANY($1) ORDER BY id FOR UPDATE",
            values![uuids(alone.iter().map(|id| &id.0))],
            fleet,
        );
        let shared = needs.fleets.difference(alone);
        let shared = uuids(shared.map(|id| &id.0));
        self.ask(
            !shared.is_empty(),
            "SELECT id, status FROM fleets WHERE id = ANY($1) ORDER BY id FOR SHARE",
            values![shared],
            fleet,
        );
        self.ask(
            needs.steps,
            "SELECT value FROM counters WHERE name = 'epochs' FOR UPDATE",
            values![],
            |_, _| Ok(()),
        );
        self.ask(
            needs.steps,
            "SELECT id, state, token_serial, place FROM epochs ORDER BY id FOR UPDATE",
            values![],
            epoch,
        );
        let epochs: Vec<&[u8]> = needs.epochs.iter().map(|id| &id.0[..]).collect();
        self.ask(
            !needs.steps && !epochs.is_empty(),
            "SELECT id, state, token_serial, place FROM epochs WHERE id = ANY($1)
             ORDER BY id FOR SHARE",
            values![epochs],
            epoch,
        );
        self.ask(
            needs.amendments,
            "SELECT value FROM counters WHERE name = 'amendments' FOR UPDATE",
            values![],
            |ground, row| {
                ground.amendments = number(row, 0)?;
                Ok(())
            },
        );
        self.ask(
            !needs.authorizations.is_empty(),
            "SELECT id, fleet, vehicle, version, state, pin_attempts, bundle,
             coalesce(revision, 0) FROM authorizations WHERE id = ANY($1) ORDER BY id FOR UPDATE",
            values![uuids(needs.authorizations.iter().map(|id| &id.0))],
            authorization,
        );
    }

    /// What of keys and their bundles is written over.
    fn keys(&mut self, needs: &'a Needs) {
        self.ask(
            !needs.renewed.is_empty(),
            "SELECT id, version, epoch FROM bundles WHERE id = ANY($1)
             ORDER BY id, version FOR UPDATE",
            values![uuids(needs.renewed.iter().map(|id| &id.0))],
            |ground, row| {
                let stands = (small(row, 1)?, EpochId(bytes(row, 2)?));
                // The last version of each is the one that stands.
                ground.standing.insert(BundleId(id(row, 0)?), stands);
                Ok(())
            },
        );
        let marks = &needs.marks;
        let shards: Vec<i64> = marks
            .iter()
            .map(|(_, shard, _)| i64::try_from(*shard).unwrap_or(i64::MAX))
            .collect();
        self.ask(
            !marks.is_empty(),
            "SELECT s.tag, s.shard, s.place, s.status, s.reasons, s.ends
             FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) k (tag, shard, place)
             JOIN statuses s ON s.tag = k.tag AND s.shard = k.shard AND s.place = k.place",
            values![
                marks
                    .iter()
                    .map(|(tag, ..)| i64::from(*tag))
                    .collect::<Vec<_>>(),
                shards,
                marks
                    .iter()
                    .map(|(.., at)| i64::from(*at))
                    .collect::<Vec<_>>(),
            ],
            |ground, row| {
                let place = (small(row, 0)?, number(row, 1)?, small(row, 2)?);
                let reasons = Reasons::from_bits(small(row, 4)?)
                    .ok_or_else(|| corrupt("an unknown reason"))?;
                let held = match super::rows::get::<i64>(row, 3)? {
                    words::KEY_REVOKED => Held::ForGood,
                    _ => Held::By(reasons),
                };
                ground.held.insert(place, (held, number(row, 5)?));
                Ok(())
            },
        );
    }

    fn registry(&mut self, needs: &'a Needs) {
        let settings: Vec<&str> = needs.settings.iter().map(String::as_str).collect();
        self.ask(
            !settings.is_empty(),
            "SELECT name, value FROM settings WHERE name = ANY($1)",
            values![settings],
            |ground, row| {
                ground
                    .settings
                    .insert(text(row, 0)?.into(), text(row, 1)?.into());
                Ok(())
            },
        );
        let new = &needs.new_fleets;
        let new_names: Vec<&str> = new.iter().map(|(_, name, _)| name.as_str()).collect();
        let new_tags: Vec<i64> = new.iter().map(|(.., tag)| i64::from(*tag)).collect();
        self.ask(
            !new.is_empty(),
            "SELECT id, name, tag FROM fleets
             WHERE id = ANY($1) OR name = ANY($2) OR tag = ANY($3)",
            values![uuids(new.iter().map(|(id, ..)| &id.0)), new_names, new_tags],
            |ground, row| {
                ground.fleets_taken.0.insert(FleetId(id(row, 0)?));
                ground.fleets_taken.1.insert(text(row, 1)?.into());
                ground.fleets_taken.2.insert(small(row, 2)?);
                Ok(())
            },
        );
        self.ask(
            !needs.functions.is_empty(),
            "SELECT fleet, code, name FROM functions WHERE fleet = ANY($1)",
            values![uuids(needs.functions.iter().map(|id| &id.0))],
            |ground, row| {
                let place = (FleetId(id(row, 0)?), small(row, 1)?);
                ground.functions.insert(place, text(row, 2)?.into());
                Ok(())
            },
        );
    }

    /// Vehicles, people, phones, and tokens.
    fn members(&mut self, needs: &'a Needs) {
        let (fleets, vehicles) = names(&needs.vehicles, VehicleId::as_str);
        self.ask(
            !fleets.is_empty(),
            "SELECT v.fleet, v.id, v.status, v.epoch, v.owner
             FROM unnest($1::uuid[], $2::text[]) k (fleet, id)
             JOIN vehicles v ON v.fleet = k.fleet AND v.id = k.id",
            values![fleets, vehicles],
            vehicle,
        );
        let (fleets, identities) = names(&needs.identities, IdentityId::as_str);
        self.ask(
            !fleets.is_empty(),
            "SELECT i.fleet, i.id, i.status, i.hold FROM unnest($1::uuid[], $2::text[]) k (fleet, id)
             JOIN identities i ON i.fleet = k.fleet AND i.id = k.id",
            values![fleets, identities],
            |ground, row| {
                let place = (FleetId(id(row, 0)?), name(row, 1, IdentityId::parse)?);
                let of = identity_row(row, super::rows::get(row, 2)?, 3)?;
                ground.identities.insert(place, of);
                Ok(())
            },
        );
        let (fleets, terminals) = names(&needs.terminals, TerminalId::as_str);
        self.ask(
            !fleets.is_empty(),
            "SELECT t.fleet, t.id, t.status, t.identity, i.status, i.hold
             FROM unnest($1::uuid[], $2::text[]) k (fleet, id)
             JOIN terminals t ON t.fleet = k.fleet AND t.id = k.id
             LEFT JOIN identities i ON i.fleet = t.fleet AND i.id = t.identity",
            values![fleets, terminals],
            terminal,
        );
        self.ask(
            !needs.tokens.is_empty(),
            "SELECT id, fleet, revoked_at FROM tokens WHERE id = ANY($1) ORDER BY id FOR UPDATE",
            values![uuids(needs.tokens.iter().map(|id| &id.0))],
            |ground, row| {
                let revoked_at: Option<i64> = super::rows::get(row, 2)?;
                let token = TokenRow {
                    fleet: FleetId(id(row, 1)?),
                    revoked_at: revoked_at.map(crate::store::encoding::number).transpose()?,
                };
                ground.tokens.insert(TokenId(id(row, 0)?), token);
                Ok(())
            },
        );
        self.ask(
            needs.steps,
            "SELECT (SELECT coalesce(max(number), 0) FROM records),
                    (SELECT max(version) FROM trust_lists)",
            values![],
            |ground, row| {
                ground.record = super::rows::get(row, 0)?;
                ground.trust = super::rows::get(row, 1)?;
                Ok(())
            },
        );
    }

    fn issued(&mut self, needs: &'a Needs) {
        let scopes: Vec<&[u8]> = needs.scopes.iter().map(|scope| &scope[..]).collect();
        self.ask(
            !scopes.is_empty(),
            "SELECT scope, authorization_id, digest FROM requests WHERE scope = ANY($1)",
            values![scopes],
            |ground, row| {
                let of: Option<Uuid> = super::rows::get(row, 1)?;
                let of = of.map(|of| AuthorizationId(of.into_bytes()));
                ground.requests.insert(bytes(row, 0)?, (of, bytes(row, 2)?));
                Ok(())
            },
        );
        self.ask(
            !needs.bundles.is_empty(),
            "SELECT id, version, fleet, vehicle, author, terminal FROM bundles
             WHERE id = ANY($1) ORDER BY id, version",
            values![uuids(needs.bundles.iter().map(|id| &id.0))],
            bundle,
        );
        self.ask(
            !needs.bundles_of.is_empty(),
            "SELECT b.id, b.version, b.fleet, b.vehicle, b.author, b.terminal
             FROM authorizations a JOIN bundles b ON b.id = a.bundle
             WHERE a.id = ANY($1) ORDER BY b.id, b.version",
            values![uuids(needs.bundles_of.iter().map(|id| &id.0))],
            bundle,
        );
        let calls: Vec<&[u8]> = needs.answers.iter().map(|(call, _)| &call[..]).collect();
        let references: Vec<&[u8]> = needs.answers.iter().map(|(_, it)| &it[..]).collect();
        self.ask(
            !calls.is_empty(),
            "SELECT a.call, a.reference, a.digest, a.bundle
             FROM unnest($1::bytea[], $2::bytea[]) k (call, reference)
             JOIN answered a ON a.call = k.call AND a.reference = k.reference",
            values![calls, references],
            |ground, row| {
                let place = (bytes(row, 0)?, bytes(row, 1)?);
                let answer = (bytes(row, 2)?, BundleId(id(row, 3)?));
                ground.answers.insert(place, answer);
                Ok(())
            },
        );
    }
}

fn row_is_active(row: &Row, column: usize) -> Result<bool, StoreError> {
    let status: i64 = super::rows::get(row, column)?;
    Ok(status == words::ACTIVE)
}

fn fleet(ground: &mut Ground, row: &Row) -> Result<(), StoreError> {
    let active = row_is_active(row, 1)?;
    ground.fleets.insert(FleetId(id(row, 0)?), active);
    Ok(())
}

fn epoch(ground: &mut Ground, row: &Row) -> Result<(), StoreError> {
    let epoch = EpochRow {
        state: super::rows::get(row, 1)?,
        token_serial: text(row, 2)?.into(),
        place: super::rows::get(row, 3)?,
    };
    ground.epochs.insert(EpochId(bytes(row, 0)?), epoch);
    Ok(())
}

fn authorization(ground: &mut Ground, row: &Row) -> Result<(), StoreError> {
    let bundle: Option<Uuid> = super::rows::get(row, 6)?;
    let of = AuthorizationId(id(row, 0)?);
    let row = AuthorizationRow {
        fleet: FleetId(id(row, 1)?),
        vehicle: name(row, 2, VehicleId::parse)?,
        version: small(row, 3)?,
        state: super::rows::get(row, 4)?,
        pin_attempts: small(row, 5)?,
        revision: number(row, 7)?,
        bundle: bundle.map(|bundle| BundleId(bundle.into_bytes())),
        written: Written::No,
    };
    ground.authorizations.insert(of, row);
    Ok(())
}

fn vehicle(ground: &mut Ground, row: &Row) -> Result<(), StoreError> {
    let place = (FleetId(id(row, 0)?), name(row, 1, VehicleId::parse)?);
    let owned: Option<&str> = super::rows::get(row, 4)?;
    let row = VehicleRow {
        status: super::rows::get(row, 2)?,
        epoch: small(row, 3)?,
        owner: owned.map(|_| name(row, 4, IdentityId::parse)).transpose()?,
    };
    ground.vehicles.insert(place, row);
    Ok(())
}

/// How an identity of this status stands; its hold is in column `hold`.
fn identity_row(row: &Row, status: i64, hold: usize) -> Result<IdentityRow, StoreError> {
    let hold: Option<i64> = super::rows::get(row, hold)?;
    Ok(IdentityRow {
        active: status == words::ACTIVE,
        held: hold.is_some(),
    })
}

/// A terminal, with the identity it belongs to.
fn terminal(ground: &mut Ground, row: &Row) -> Result<(), StoreError> {
    let fleet = FleetId(id(row, 0)?);
    let identity = name(row, 3, IdentityId::parse)?;
    let status: Option<i64> = super::rows::get(row, 4)?;
    if let Some(status) = status {
        let of = identity_row(row, status, 5)?;
        ground.identities.insert((fleet, identity.clone()), of);
    }
    let of = TerminalRow {
        status: super::rows::get(row, 2)?,
        identity,
    };
    let place = (fleet, name(row, 1, TerminalId::parse)?);
    ground.terminals.insert(place, of);
    Ok(())
}

/// A version of a bundle; the first of it counts.
fn bundle(ground: &mut Ground, row: &Row) -> Result<(), StoreError> {
    let author: Option<Uuid> = super::rows::get(row, 4)?;
    let terminal: Option<&str> = super::rows::get(row, 5)?;
    let first = FirstIssue {
        version: small(row, 1)?,
        fleet: FleetId(id(row, 2)?),
        vehicle: name(row, 3, VehicleId::parse)?,
        author: author.map(|author| TokenId(author.into_bytes())),
        terminal: terminal
            .map(|terminal| super::rows::named(TerminalId::parse(terminal)))
            .transpose()?,
    };
    let known: &mut HashMap<_, _> = &mut ground.bundles;
    known.entry(BundleId(id(row, 0)?)).or_insert(first);
    Ok(())
}
