//! What a key says.

use super::{FUNCTION_NAME_LEN_MAX, ISSUER_LEN_MAX, STATUS_URI_LEN_MAX, VEHICLE_LEN_MAX};
use crate::region::Region;
use crate::window::Recurring;
use crate::{HolderKey, ID_LEN, Refusal, TIME_MAX};

/// The claims of a key, in no particular form.
///
/// Times are seconds since 1970-01-01T00:00:00Z. As read from a key they are
/// within all limits; the encoders ask [`Claims::check_limits`] first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claims<'a> {
    /// `iss`: the issuer's name, 1–128 octets.
    pub issuer: &'a str,
    /// `aud`: the vehicle's id, 1–32 of `A-Z a-z 0-9 - _ .`.
    pub vehicle: &'a str,
    /// `exp`: the first second at which the key no longer works.
    pub expires: u64,
    /// `nbf`: the first second at which the key works; before `expires`.
    pub not_before: u64,
    /// `iat`: when the key was issued.
    pub issued_at: u64,
    /// `cti`: the key's own id, a UUIDv7.
    pub key_id: [u8; ID_LEN],
    /// `cnf`: the key of the terminal that may use this key.
    pub holder: HolderKey,
    /// `scope`: the function's name, 1–64 octets.
    pub function_name: &'a str,
    /// `status`: where the key's revocation is published.
    pub status: StatusRef<'a>,
    /// The function's code, above 0.
    pub function: u16,
    /// The id of the bundle the key belongs to.
    pub bundle: [u8; ID_LEN],
    /// The version of the authorization under which it was issued.
    pub version: u32,
    /// The vehicle epoch at the time of issue.
    pub vehicle_epoch: u32,
    /// Where the key works; anywhere if `None`.
    pub region: Option<Region>,
    /// How often the bundle's function may be used, at least once; without
    /// limit if `None`.
    pub max_uses: Option<u32>,
    /// The id of the vehicle's fleet.
    pub fleet: [u8; ID_LEN],
    /// When in the week the key works; always if `None`.
    pub recurring: Option<Recurring>,
}

/// An entry of a status list (Token Status List, CWT form).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StatusRef<'a> {
    /// `idx`: the index in the list, from 0.
    pub index: u32,
    /// `uri`: the address of the list, 1–256 octets.
    pub uri: &'a str,
}

impl Claims<'_> {
    /// Whether every value is within the limits of the format.
    ///
    /// # Errors
    /// [`Refusal::OutOfBounds`].
    pub fn check_limits(&self) -> Result<(), Refusal> {
        let texts = (1..=ISSUER_LEN_MAX).contains(&self.issuer.len())
            && is_vehicle_id(self.vehicle)
            && (1..=FUNCTION_NAME_LEN_MAX).contains(&self.function_name.len())
            && (1..=STATUS_URI_LEN_MAX).contains(&self.status.uri.len());
        let times = self.not_before < self.expires
            && self.expires <= TIME_MAX
            && self.issued_at <= TIME_MAX;
        if texts && times && self.function != 0 && self.max_uses != Some(0) {
            Ok(())
        } else {
            Err(Refusal::OutOfBounds)
        }
    }

    /// Whether the key's window is open at `now`: `nbf ≤ now < exp`
    /// (RFC 8392 §3.1.4, §3.1.5).
    ///
    /// # Errors
    /// [`Refusal::NotYetValid`] or [`Refusal::Expired`].
    pub const fn check_time(&self, now: u64) -> Result<(), Refusal> {
        if now < self.not_before {
            Err(Refusal::NotYetValid)
        } else if now >= self.expires {
            Err(Refusal::Expired)
        } else {
            Ok(())
        }
    }

    /// Whether the key is for this vehicle of this fleet.
    ///
    /// # Errors
    /// [`Refusal::WrongVehicle`] or [`Refusal::WrongFleet`].
    pub fn check_vehicle(&self, vehicle: &str, fleet: &[u8; ID_LEN]) -> Result<(), Refusal> {
        if self.vehicle != vehicle {
            Err(Refusal::WrongVehicle)
        } else if self.fleet != *fleet {
            Err(Refusal::WrongFleet)
        } else {
            Ok(())
        }
    }
}

/// Whether this is a vehicle id: 1–32 of `A-Z a-z 0-9 - _ .`.
pub(crate) fn is_vehicle_id(id: &str) -> bool {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
    (1..=VEHICLE_LEN_MAX).contains(&id.len()) && id.bytes().all(allowed)
}
