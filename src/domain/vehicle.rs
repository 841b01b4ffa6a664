//! Vehicles.

use fob_verify::HolderKey;

use super::function::FunctionCode;
use super::id::{FleetId, IdentityId, VehicleId};
use super::identity::Status;
use super::refusal::{Refusal, RefusalCode};

/// The most characters a model's name may have.
pub const MODEL_LEN_MAX: usize = 64;

/// A vehicle of a fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vehicle {
    /// Its fleet.
    pub fleet: FleetId,
    /// Its id within the fleet, the `aud` of its keys.
    pub id: VehicleId,
    /// Its model's name.
    pub model: String,
    /// What it can do, ascending.
    pub functions: Vec<FunctionCode>,
    /// Who owns it; `None` is the fleet itself.
    pub owner: Option<IdentityId>,
    /// Its own public key, with which it signs acknowledgements.
    pub key: Option<HolderKey>,
    /// Raised by one at every reset, and into another range at every restore of the store.
    pub epoch: u32,
    /// Suspended vehicles get no keys.
    pub status: Status,
}

impl Vehicle {
    /// Checks that the vehicle has every one of `functions`.
    ///
    /// # Errors
    /// `function_not_on_vehicle` for the first it lacks.
    pub fn check_functions(&self, functions: &[FunctionCode]) -> Result<(), Refusal> {
        match functions
            .iter()
            .find(|code| self.functions.binary_search(code).is_err())
        {
            None => Ok(()),
            Some(code) => Err(Refusal::new(RefusalCode::FunctionNotOnVehicle)
                .field("functions")
                .detail(format!("function {code} is not on this vehicle"))),
        }
    }
}
