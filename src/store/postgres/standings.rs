//! How what bundles rest on stands, as far as this process has read it: floor 2, `store/postgres`.
//!
//! To ask for vehicle, identity and terminal of each bundle costs the database as much as to write
//! it. A fleet counts the changes of how anything of it stands (`fleets.standing`), and is held
//! shared by whoever relies on that, so what was read under the same count is as it was. The count
//! comes with the lock; where it is another than was relied on, everything is asked for after all.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::ground::{Ground, IdentityRow, TerminalRow, VehicleRow};
use super::needs::Needs;
use crate::domain::{Bundle, FleetId, IdentityId, TerminalId, VehicleId};

/// Vehicles, or identities, or terminals of a fleet that are remembered at most; then the fleet is
/// begun anew.
const REMEMBERED_MAX: usize = 1 << 19;

/// What is remembered, by fleets. It lies on the ground of the transaction under way.
#[derive(Default)]
pub(super) struct Standings(HashMap<FleetId, OfFleet>);

/// What is remembered of a fleet.
pub(super) struct OfFleet {
    /// The count of changes it was read under.
    count: i64,
    /// What is frozen, all of it, as its column has it.
    pub(super) frozen: HashSet<String>,
    /// The version of its newest rules; 0 is none.
    pub(super) rules: u32,
    pub(super) vehicles: HashMap<VehicleId, VehicleRow>,
    pub(super) identities: HashMap<IdentityId, IdentityRow>,
    pub(super) terminals: HashMap<TerminalId, TerminalRow>,
}

/// The counts that are relied on.
pub(super) type Relied = BTreeMap<FleetId, i64>;

impl Standings {
    /// Whether all that a bundle rests on is known.
    pub(super) fn knows(&self, bundle: &Bundle, terminal: Option<&TerminalId>) -> bool {
        self.0.get(&bundle.fleet).is_some_and(|of| {
            of.vehicles.contains_key(&bundle.vehicle)
                && of.identities.contains_key(&bundle.identity)
                && terminal.is_none_or(|id| of.terminals.contains_key(id))
        })
    }

    /// Puts what is known of the fleets in `needs` on the ground, and takes it out of them. Fleets
    /// that are held alone are asked about: how they stand is about to change.
    pub(super) fn recall(&mut self, needs: &mut Needs, ground: &mut Ground) -> Relied {
        let mut relied = Relied::new();
        for fleet in needs.fleets.difference(&needs.fleets_alone) {
            if let Some(known) = self.0.remove(fleet) {
                relied.insert(*fleet, known.count);
                needs.braked.remove(fleet);
                ground.known.insert(*fleet, known);
            }
        }
        let known = &ground.known;
        needs.vehicles.retain(|(fleet, id)| {
            let of = known.get(fleet);
            !of.is_some_and(|of| of.vehicles.contains_key(id))
        });
        needs.identities.retain(|(fleet, id)| {
            let of = known.get(fleet);
            !of.is_some_and(|of| of.identities.contains_key(id))
        });
        needs.terminals.retain(|(fleet, id)| {
            let of = known.get(fleet);
            let found = of.and_then(|of| of.identities.get(&of.terminals.get(id)?.identity));
            found.is_none()
        });
        relied
    }

    /// Whether what was relied on is as it was, now that the fleets are held.
    pub(super) fn stand(relied: &Relied, ground: &Ground) -> bool {
        relied
            .iter()
            .all(|(fleet, count)| ground.counts.get(fleet) == Some(count))
    }

    /// Puts what was asked for to what was known, before anything is decided on it.
    pub(super) fn learn(needs: &Needs, ground: &mut Ground) {
        for fleet in needs.braked.difference(&needs.fleets_alone) {
            let Some(count) = ground.counts.get(fleet) else {
                continue;
            };
            let ruled = ground.ruled.get(fleet);
            let frozen = ruled.map(|row| row.frozen.clone());
            let new = OfFleet {
                count: *count,
                frozen: frozen.unwrap_or_default(),
                rules: ruled.map_or(0, |row| row.version),
                vehicles: HashMap::new(),
                identities: HashMap::new(),
                terminals: HashMap::new(),
            };
            ground.known.insert(*fleet, new);
        }
        // What was read without its fleet being held shared stays where it is.
        let known = &mut ground.known;
        for ((fleet, id), row) in std::mem::take(&mut ground.vehicles) {
            match known.get_mut(&fleet) {
                Some(of) => drop(of.vehicles.insert(id, row)),
                None => drop(ground.vehicles.insert((fleet, id), row)),
            }
        }
        for ((fleet, id), row) in std::mem::take(&mut ground.identities) {
            match known.get_mut(&fleet) {
                Some(of) => drop(of.identities.insert(id, row)),
                None => drop(ground.identities.insert((fleet, id), row)),
            }
        }
        for ((fleet, id), row) in std::mem::take(&mut ground.terminals) {
            match known.get_mut(&fleet) {
                Some(of) => drop(of.terminals.insert(id, row)),
                None => drop(ground.terminals.insert((fleet, id), row)),
            }
        }
    }

    /// Remembers what lay on the ground, but for fleets in which something stands otherwise now.
    pub(super) fn keep(&mut self, ground: &mut Ground) {
        for (fleet, of) in ground.known.drain() {
            let most = of.vehicles.len().max(of.identities.len());
            let changed = ground.changes.standings.contains(&fleet);
            if !changed && most.max(of.terminals.len()) <= REMEMBERED_MAX {
                self.0.insert(fleet, of);
            }
        }
    }
}
