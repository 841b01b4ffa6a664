//! How what bundles rest on stands, as far as this process has read it: floor 2, `store/postgres`.
//!
//! To ask for vehicle, identity and terminal of each bundle costs the database as much as to write
//! it. A fleet counts the changes of how anything of it stands (`fleets.standing`), and is held
//! shared by whoever relies on that, so what was read under the same count is as it was. The count
//! comes with the lock; where it is another than was relied on, everything is asked for after all.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::ground::{Ground, IdentityRow, TerminalRow, VehicleRow};
use super::needs::Needs;
use crate::domain::{FleetId, IdentityId, TerminalId, VehicleId};

/// Vehicles, and identities, and terminals of a fleet that are remembered at most; then the fleet
/// is begun anew.
const REMEMBERED_MAX: usize = 1 << 19;

/// What is remembered, by fleets.
#[derive(Default)]
pub(super) struct Standings(HashMap<FleetId, OfFleet>);

/// What is remembered of a fleet.
struct OfFleet {
    /// The count of changes it was read under.
    count: i64,
    /// What is frozen, all of it, as its column has it.
    frozen: HashSet<String>,
    vehicles: HashMap<VehicleId, VehicleRow>,
    identities: HashMap<IdentityId, IdentityRow>,
    terminals: HashMap<TerminalId, TerminalRow>,
}

/// The counts that are relied on.
pub(super) type Relied = BTreeMap<FleetId, i64>;

impl Standings {
    /// Puts what is known of `needs` on the ground, and takes it out of them. Fleets that are held
    /// alone are asked about: how they stand is about to change.
    pub(super) fn recall(&self, needs: &mut Needs, ground: &mut Ground) -> Relied {
        let mut relied = Relied::new();
        for fleet in needs.fleets.difference(&needs.fleets_alone) {
            let Some(known) = self.0.get(fleet) else {
                continue;
            };
            relied.insert(*fleet, known.count);
            if needs.braked.remove(fleet) {
                let row = ground.ruled.entry(*fleet).or_default();
                row.frozen.clone_from(&known.frozen);
            }
        }
        let of = |fleet: &FleetId| self.0.get(fleet).filter(|_| relied.contains_key(fleet));
        needs.vehicles.retain(|name| {
            let known = of(&name.0).and_then(|of| of.vehicles.get(&name.1));
            let known = known.map(|row| ground.vehicles.insert(name.clone(), row.clone()));
            known.is_none()
        });
        needs.identities.retain(|name| {
            let known = of(&name.0).and_then(|of| of.identities.get(&name.1));
            let known = known.map(|row| ground.identities.insert(name.clone(), *row));
            known.is_none()
        });
        needs.terminals.retain(|name| {
            let known = of(&name.0).and_then(|of| {
                let row = of.terminals.get(&name.1)?;
                Some((row, of.identities.get(&row.identity)?))
            });
            let known = known.map(|(row, identity)| {
                let of = (name.0, row.identity.clone());
                ground.identities.insert(of, *identity);
                ground.terminals.insert(name.clone(), row.clone());
            });
            known.is_none()
        });
        relied
    }

    /// Whether what was relied on is as it was, now that the fleets are held. What is not is
    /// forgotten.
    pub(super) fn stand(&mut self, relied: &Relied, ground: &Ground) -> bool {
        let mut stand = true;
        for (fleet, count) in relied {
            if ground.counts.get(fleet) != Some(count) {
                self.0.remove(fleet);
                stand = false;
            }
        }
        stand
    }

    /// Remembers what was asked for by `needs`, before anything is decided on it.
    pub(super) fn learn(&mut self, needs: &Needs, ground: &Ground) {
        for fleet in needs.braked.difference(&needs.fleets_alone) {
            let frozen = ground.ruled.get(fleet).map(|row| row.frozen.clone());
            let Some(count) = ground.counts.get(fleet) else {
                continue;
            };
            let new = OfFleet {
                count: *count,
                frozen: frozen.unwrap_or_default(),
                vehicles: HashMap::new(),
                identities: HashMap::new(),
                terminals: HashMap::new(),
            };
            self.0.insert(*fleet, new);
        }
        // What was read without their fleet being held may be of another count.
        let held =
            |fleet: &FleetId| needs.fleets.contains(fleet) && !needs.fleets_alone.contains(fleet);
        for name in needs.vehicles.iter().filter(|it| held(&it.0)) {
            if let (Some(of), Some(row)) = (self.0.get_mut(&name.0), ground.vehicles.get(name)) {
                remember(&mut of.vehicles, &name.1, row);
            }
        }
        for name in needs.identities.iter().filter(|it| held(&it.0)) {
            if let (Some(of), Some(row)) = (self.0.get_mut(&name.0), ground.identities.get(name)) {
                remember(&mut of.identities, &name.1, row);
            }
        }
        for name in needs.terminals.iter().filter(|it| held(&it.0)) {
            let (Some(of), Some(row)) = (self.0.get_mut(&name.0), ground.terminals.get(name))
            else {
                continue;
            };
            remember(&mut of.terminals, &name.1, row);
            let identity = (name.0, row.identity.clone());
            if let Some(row) = ground.identities.get(&identity) {
                remember(&mut of.identities, &identity.1, row);
            }
        }
    }

    /// Forgets the fleets in which something stands otherwise now.
    pub(super) fn forget(&mut self, ground: &Ground) {
        for fleet in &ground.changes.standings {
            self.0.remove(fleet);
        }
    }
}

fn remember<K: Clone + Eq + std::hash::Hash, T: Clone>(
    known: &mut HashMap<K, T>,
    name: &K,
    row: &T,
) {
    if known.len() >= REMEMBERED_MAX {
        known.clear();
    }
    known.insert(name.clone(), row.clone());
}
