//! The round that locks and reads what a transaction rests on: floor 2, `store/postgres`.
//!
//! Locks are taken table by table and by key within each, the same way by everybody. Rows that say
//! how something stands are not locked one by one: whoever relies on them holds their fleet shared,
//! whoever changes them holds it alone. Statements read what was committed before each of them, so
//! what comes after the locks is read as it is.

use tokio_postgres::Row;
use uuid::Uuid;

use super::ground::{Ground, TokenRow};
use super::needs::Needs;
use super::rows::{bytes, id, name, names, number, small, text, uuids};
use super::session::{Ask, Value, values};
use super::surveyed::{
    authorization, bundle, conditions, epoch, fleet, held, identity_row, terminal, vehicle,
};
use super::turn::{BEGIN_IMPATIENT, PATIENT_AGAIN};
use crate::domain::{
    AuthorizationId, BundleId, EpochId, FleetId, IdentityId, TerminalId, TokenId, VehicleId,
};
use crate::store::StoreError;

/// Takes a statement's rows in.
pub(super) type Take = fn(&mut Ground, &Row) -> Result<(), StoreError>;

/// A round that reads: its statements, and what takes in the rows of each.
pub(super) struct Survey<'a> {
    pub(super) asks: Vec<Ask<'a>>,
    takes: Vec<Option<Take>>,
}

impl<'a> Survey<'a> {
    /// Asks for everything in `needs`; `begin` begins the transaction. With `heed` it steps back
    /// where it is the turn of another ([`Ground::turn_of_another`]).
    pub(super) fn of(needs: &'a Needs, begin: Option<&'static str>, heed: bool) -> Self {
        let mut survey = Self {
            asks: Vec::with_capacity(16),
            takes: Vec::with_capacity(16),
        };
        if let Some(begin) = begin {
            survey.asks.push(Ask::Plain(begin));
            survey.takes.push(None);
        }
        survey.leases(needs);
        survey.fleets(needs, heed, begin == Some(BEGIN_IMPATIENT));
        survey.locks(needs);
        survey.keys(needs);
        survey.registry(needs);
        survey.members(needs);
        survey.models(needs);
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

    /// Leases that are held, by the database's clock; nobody else takes them until the transaction
    /// ends.
    fn leases(&mut self, needs: &'a Needs) {
        let leases: Vec<&str> = needs.leases.iter().map(|task| task.name()).collect();
        self.ask(
            !leases.is_empty(),
            "SELECT name, number FROM leases WHERE name = ANY($1) AND ends > clock_timestamp()
             ORDER BY name FOR SHARE",
            values![leases],
            |ground, row| {
                ground.leases.insert(text(row, 0)?.into(), number(row, 1)?);
                Ok(())
            },
        );
    }

    /// Fleets. One at which it is the turn of another is not locked, where turns are heeded, and is
    /// found out by that.
    fn fleets(&mut self, needs: &'a Needs, heed: bool, impatient: bool) {
        let alone = &needs.fleets_alone;
        self.ask(
            !alone.is_empty(),
            "SELECT id, status, standing FROM fleets WHERE id = ANY($1) ORDER BY id FOR UPDATE",
            values![uuids(alone.iter().map(|id| &id.0))],
            fleet,
        );
        if impatient {
            self.asks.push(Ask::Plain(PATIENT_AGAIN));
            self.takes.push(None);
        }
        let shared = needs.fleets.difference(alone);
        let shared = uuids(shared.map(|id| &id.0));
        // Who holds another alone has had his turn, and does not step back while he has it.
        let heed = heed && alone.is_empty();
        self.ask(
            !shared.is_empty(),
            "SELECT id, status, standing FROM fleets WHERE id = ANY($1) AND NOT ($2 AND EXISTS (
                 SELECT 1 FROM turns WHERE fleet = ANY($1) AND ends > clock_timestamp()))
             ORDER BY id FOR SHARE",
            values![shared.clone(), heed],
            fleet,
        );
        self.ask(
            heed && !shared.is_empty(),
            "SELECT id FROM fleets WHERE id = ANY($1)",
            values![shared],
            |ground, row| {
                // Fleets are never deleted.
                ground.turn_of_another |= !ground.fleets.contains_key(&FleetId(id(row, 0)?));
                Ok(())
            },
        );
    }

    fn locks(&mut self, needs: &'a Needs) {
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
        self.ask(
            !needs.counters.is_empty(),
            "SELECT fleet, next FROM status_counters WHERE fleet = ANY($1)
             ORDER BY fleet FOR UPDATE",
            values![uuids(needs.counters.iter().map(|id| &id.0))],
            |ground, row| {
                let fleet = FleetId(id(row, 0)?);
                ground.counters.insert(fleet, number(row, 1)?);
                Ok(())
            },
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
                ground.held.insert(place, (held(row, 3)?, number(row, 5)?));
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

    /// Models of vehicles.
    fn models(&mut self, needs: &'a Needs) {
        let (fleets, vehicles) = names(&needs.models, VehicleId::as_str);
        self.ask(
            !fleets.is_empty(),
            "SELECT v.fleet, v.id, v.model FROM unnest($1::uuid[], $2::text[]) k (fleet, id)
             JOIN vehicles v ON v.fleet = k.fleet AND v.id = k.id",
            values![fleets, vehicles],
            |ground, row| {
                let place = (FleetId(id(row, 0)?), name(row, 1, VehicleId::parse)?);
                ground.models.insert(place, text(row, 2)?.into());
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
        let (fleets, identities) = names(&needs.conditions, IdentityId::as_str);
        self.ask(
            !fleets.is_empty(),
            "SELECT i.fleet, i.id, i.hold, i.licences
             FROM unnest($1::uuid[], $2::text[]) k (fleet, id)
             JOIN identities i ON i.fleet = k.fleet AND i.id = k.id",
            values![fleets, identities],
            conditions,
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
        let bundles = needs.bundles.union(&needs.claimed);
        self.ask(
            !(needs.bundles.is_empty() && needs.claimed.is_empty()),
            "SELECT id, version, fleet, vehicle, author, terminal FROM bundles
             WHERE id = ANY($1) ORDER BY id, version",
            values![uuids(bundles.map(|id| &id.0))],
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
        // Held, so that the last of them is not purged before the next is written. Call by call, and
        // within bounds: so the planner expects few rows, and goes by the key.
        let calls: Vec<&[u8]> = needs.calls.keys().map(|call| &call[..]).collect();
        let last: Vec<i64> = needs.calls.values().copied().collect();
        self.ask(
            !calls.is_empty(),
            "SELECT k.call, a.number, a.orders
             FROM unnest($1::bytea[], $2::bigint[]) k (call, last) CROSS JOIN LATERAL (
                 SELECT number, orders FROM answered WHERE call = k.call
                 AND number >= k.last AND number <= $3 ORDER BY number FOR SHARE) a",
            values![calls, last, i64::MAX],
            |ground, row| {
                let call = ground.calls.entry(bytes(row, 0)?).or_default();
                call.take(super::rows::get(row, 1)?, super::rows::get(row, 2)?)
            },
        );
    }
}
