//! What is kept of decisions, and how what is frozen is named: floor 2, `store/encoding`.

use super::corrupt;
use crate::domain::VehicleId;
use crate::store::{Ruling, StoreError};

/// A decision, in a word, and of what.
pub(in crate::store) fn act(what: &Ruling) -> Option<(&'static str, String)> {
    Some(match what {
        Ruling::Rules(version, _) => ("rules", version.to_string()),
        Ruling::Freeze(vehicle) => ("freeze", name(vehicle.as_ref()).into()),
        Ruling::Release(vehicle) => ("release", name(vehicle.as_ref()).into()),
        Ruling::Approve(_, _, keys) => ("approve", keys.to_string()),
        Ruling::Day(..) | Ruling::Followed(..) => return None,
    })
}

/// What is frozen: a vehicle's name, or nothing for the whole fleet.
pub(in crate::store) fn name(vehicle: Option<&VehicleId>) -> &str {
    vehicle.map_or("", VehicleId::as_str)
}

/// See [`name`].
pub(in crate::store) fn read_name(name: &str) -> Result<Option<VehicleId>, StoreError> {
    if name.is_empty() {
        return Ok(None);
    }
    let vehicle = VehicleId::parse(name);
    vehicle
        .map(Some)
        .map_err(|_| corrupt("a name outside its alphabet"))
}
