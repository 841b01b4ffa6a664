//! How what a redemption rests on stands: floor 2, `store/sqlite`.
//!
//! Asking the tables for fleet, vehicle, identity, terminal and epoch of each redemption costs more
//! than writing it. The writer therefore remembers what it has asked: everything that changes goes
//! through it, each write of the registry takes out what it touches, and a change by another
//! connection, which there should be none of, empties the memory before the next transaction.

use std::collections::{HashMap, HashSet};

use rusqlite::{Connection, OptionalExtension, params};

use super::words;
use crate::domain::{Bundle, EpochId, FleetId, IdentityId, Reason, Reasons, TerminalId, VehicleId};
use crate::store::encoding::rulings::name;
use crate::store::{Reissue, StoreError};

/// Vehicles, and identities, and terminals, remembered at most; then the memory starts over.
const REMEMBERED_MAX: usize = 1 << 19;

/// What is remembered. Valid while no transaction is rolled back.
#[derive(Default)]
pub(super) struct Standings {
    fleets: HashMap<FleetId, OfFleet>,
    epochs: HashMap<EpochId, (i64, bool)>,
    /// Of other connections' changes, as SQLite counts them.
    data_version: i64,
}

/// What is remembered of one fleet.
struct OfFleet {
    number: i64,
    active: bool,
    /// What is frozen, as its column has it; `None` until it is asked.
    frozen: Option<HashSet<String>>,
    /// The version of its newest rules; `None` until it is asked.
    rules: Option<u32>,
    vehicles: HashMap<VehicleId, Standing>,
    identities: HashMap<IdentityId, Standing>,
    terminals: HashMap<TerminalId, bool>,
}

#[derive(Clone, Copy)]
struct Standing {
    number: i64,
    active: bool,
    /// A vehicle's epoch.
    epoch: u32,
    /// Whether an identity is held.
    held: bool,
}

/// What a bundle rests on.
struct Ground {
    numbers: Numbers,
    suspended: Reasons,
    /// Whether there are no new keys: the identity is held, or something is frozen.
    withheld: bool,
}

/// Numbers of what a bundle rests on.
#[derive(Clone, Copy)]
pub(super) struct Numbers {
    pub(super) fleet: i64,
    pub(super) vehicle: i64,
    pub(super) identity: i64,
    pub(super) epoch: i64,
}

impl Standings {
    /// At the beginning of a transaction: forgets everything if anybody else has written.
    pub(super) fn begin(&mut self, connection: &Connection) -> Result<(), StoreError> {
        let now = connection
            .prepare_cached("PRAGMA data_version")?
            .query_row([], |row| row.get(0))?;
        if now != self.data_version {
            *self = Self {
                data_version: now,
                ..Self::default()
            };
        }
        Ok(())
    }

    /// The numbers of what a bundle rests on, if all of it stands: the conditions that
    /// [`crate::store::Redemption`] documents, apart from those on its authorization.
    pub(super) fn of(
        &mut self,
        connection: &Connection,
        bundle: &Bundle,
        terminal: Option<&TerminalId>,
    ) -> Result<Option<Numbers>, StoreError> {
        let found = self.ground(connection, bundle, terminal)?;
        let free = found.filter(|it| it.suspended == Reasons::NONE && !it.withheld);
        Ok(free.map(|it| it.numbers))
    }

    /// The same for a bundle that is issued again, where vehicle or identity may be suspended; and
    /// which of them are.
    pub(super) fn with_suspended(
        &mut self,
        connection: &Connection,
        again: &Reissue,
    ) -> Result<Option<(Numbers, Reasons)>, StoreError> {
        let found = self.ground(connection, &again.signed.bundle, again.terminal.as_ref())?;
        let free = found.filter(|it| !(again.changed && it.withheld));
        Ok(free.map(|it| (it.numbers, it.suspended)))
    }

    fn ground(
        &mut self,
        connection: &Connection,
        bundle: &Bundle,
        terminal: Option<&TerminalId>,
    ) -> Result<Option<Ground>, StoreError> {
        let Some((epoch, true)) = self.epoch(connection, &bundle.epoch)? else {
            return Ok(None);
        };
        let Some(fleet) = self.fleet(connection, &bundle.fleet)? else {
            return Ok(None);
        };
        let vehicle = fleet.vehicle(connection, &bundle.vehicle)?;
        let Some(vehicle) = vehicle.filter(|it| it.epoch == bundle.vehicle_epoch) else {
            return Ok(None);
        };
        let Some(identity) = fleet.identity(connection, &bundle.identity)? else {
            return Ok(None);
        };
        let terminal = match terminal {
            None => true,
            Some(terminal) => fleet.terminal(connection, terminal)?,
        };
        if !(fleet.active && terminal) {
            return Ok(None);
        }
        let frozen = fleet.is_frozen(connection, &bundle.vehicle)?;
        let mut suspended = Reasons::NONE;
        if !vehicle.active {
            suspended = suspended.with(Reason::Vehicle);
        }
        if !identity.active {
            suspended = suspended.with(Reason::Identity);
        }
        let numbers = Numbers {
            fleet: fleet.number,
            vehicle: vehicle.number,
            identity: identity.number,
            epoch,
        };
        Ok(Some(Ground {
            numbers,
            suspended,
            withheld: identity.held || frozen,
        }))
    }

    /// Forgets a vehicle that is written.
    pub(super) fn forget_vehicle(&mut self, fleet: &FleetId, id: &VehicleId) {
        if let Some(fleet) = self.fleets.get_mut(fleet) {
            fleet.vehicles.remove(id);
        }
    }

    /// Forgets an identity that is written.
    pub(super) fn forget_identity(&mut self, fleet: &FleetId, id: &IdentityId) {
        if let Some(fleet) = self.fleets.get_mut(fleet) {
            fleet.identities.remove(id);
        }
    }

    /// Forgets every identity and terminal of a fleet.
    pub(super) fn forget_members(&mut self, fleet: &FleetId) {
        if let Some(fleet) = self.fleets.get_mut(fleet) {
            fleet.identities.clear();
            fleet.terminals.clear();
        }
    }

    /// Forgets a terminal that is written.
    pub(super) fn forget_terminal(&mut self, fleet: &FleetId, id: &TerminalId) {
        if let Some(fleet) = self.fleets.get_mut(fleet) {
            fleet.terminals.remove(id);
        }
    }

    /// Forgets what a fleet has ruled and frozen, where that is written.
    pub(super) fn forget_ruled(&mut self, fleet: &FleetId) {
        if let Some(fleet) = self.fleets.get_mut(fleet) {
            (fleet.frozen, fleet.rules) = (None, None);
        }
    }

    /// The version of a fleet's newest rules; 0 where it has none.
    pub(super) fn rules(
        &mut self,
        connection: &Connection,
        fleet: &FleetId,
    ) -> Result<u32, StoreError> {
        let Some(fleet) = self.fleet(connection, fleet)? else {
            return Ok(0);
        };
        if let Some(known) = fleet.rules {
            return Ok(known);
        }
        let newest = connection
            .prepare_cached("SELECT coalesce(max(version), 0) FROM rules WHERE fleet = ?1")?
            .query_row([fleet.number], |row| row.get(0))?;
        Ok(*fleet.rules.insert(newest))
    }

    /// Forgets an epoch that is written.
    pub(super) fn forget_epoch(&mut self, id: &EpochId) {
        self.epochs.remove(id);
    }

    /// An epoch's number, and whether it may have signed.
    pub(super) fn epoch(
        &mut self,
        connection: &Connection,
        id: &EpochId,
    ) -> Result<Option<(i64, bool)>, StoreError> {
        if let Some(known) = self.epochs.get(id) {
            return Ok(Some(*known));
        }
        let found = connection
            .prepare_cached("SELECT number, state <> ?2 FROM epochs WHERE id = ?1")?
            .query_row(params![id.0, words::EPOCH_REVOKED], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()?;
        if let Some(found) = found {
            self.epochs.insert(*id, found);
        }
        Ok(found)
    }

    fn fleet(
        &mut self,
        connection: &Connection,
        id: &FleetId,
    ) -> Result<Option<&mut OfFleet>, StoreError> {
        if !self.fleets.contains_key(id) {
            let found = connection
                .prepare_cached("SELECT number, status = ?2 FROM fleets WHERE id = ?1")?
                .query_row(params![id.bytes(), words::ACTIVE], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })
                .optional()?;
            let Some((number, active)) = found else {
                return Ok(None);
            };
            self.fleets.insert(*id, OfFleet::new(number, active));
        }
        Ok(self.fleets.get_mut(id))
    }
}

impl OfFleet {
    fn new(number: i64, active: bool) -> Self {
        Self {
            number,
            active,
            frozen: None,
            rules: None,
            vehicles: HashMap::new(),
            identities: HashMap::new(),
            terminals: HashMap::new(),
        }
    }

    /// Whether the fleet, or this vehicle of it, is frozen.
    fn is_frozen(&mut self, connection: &Connection, id: &VehicleId) -> Result<bool, StoreError> {
        let frozen = match &self.frozen {
            Some(known) => known,
            None => self.frozen.insert(
                connection
                    .prepare_cached("SELECT vehicle FROM brakes WHERE fleet = ?1")?
                    .query_map([self.number], |row| row.get(0))?
                    .collect::<Result<_, _>>()?,
            ),
        };
        let is_frozen = |of| frozen.contains(name(of));
        Ok(!frozen.is_empty() && (is_frozen(None) || is_frozen(Some(id))))
    }

    fn vehicle(
        &mut self,
        connection: &Connection,
        id: &VehicleId,
    ) -> Result<Option<Standing>, StoreError> {
        let sql = "SELECT number, status = ?3, epoch, 0 FROM vehicles WHERE fleet = ?1 AND id = ?2";
        standing(&mut self.vehicles, id, || {
            ask(connection, sql, self.number, id.as_str())
        })
    }

    fn identity(
        &mut self,
        connection: &Connection,
        id: &IdentityId,
    ) -> Result<Option<Standing>, StoreError> {
        let sql = "SELECT number, status = ?3, 0, hold IS NOT NULL FROM identities
                   WHERE fleet = ?1 AND id = ?2";
        standing(&mut self.identities, id, || {
            ask(connection, sql, self.number, id.as_str())
        })
    }

    fn terminal(&mut self, connection: &Connection, id: &TerminalId) -> Result<bool, StoreError> {
        let sql = "SELECT 0, status = ?3, 0, 0 FROM terminals WHERE fleet = ?1 AND id = ?2";
        let active = standing(&mut self.terminals, id, || {
            Ok(ask(connection, sql, self.number, id.as_str())?.map(|found| found.active))
        })?;
        Ok(active == Some(true))
    }
}

/// What is remembered under `id`, or what `ask` finds. What is not there is not remembered.
fn standing<K: Clone + Eq + std::hash::Hash, T: Copy>(
    remembered: &mut HashMap<K, T>,
    id: &K,
    ask: impl FnOnce() -> Result<Option<T>, StoreError>,
) -> Result<Option<T>, StoreError> {
    if let Some(known) = remembered.get(id) {
        return Ok(Some(*known));
    }
    let found = ask()?;
    if let Some(found) = found {
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(id.clone(), found);
    }
    Ok(found)
}

fn ask(
    connection: &Connection,
    sql: &str,
    fleet: i64,
    id: &str,
) -> Result<Option<Standing>, StoreError> {
    let found = connection
        .prepare_cached(sql)?
        .query_row(params![fleet, id, words::ACTIVE], |row| {
            Ok(Standing {
                number: row.get(0)?,
                active: row.get(1)?,
                epoch: row.get(2)?,
                held: row.get(3)?,
            })
        })
        .optional()?;
    Ok(found)
}
