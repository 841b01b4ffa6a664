//! Bundles: everything that was decided and signed in one redemption.
//!
//! A bundle holds the inputs of its keys and their signatures, not the keys: a key's bytes are a
//! pure function of these, so the same request is answered with the same bytes for as long as the
//! bundle is kept.

use std::sync::Arc;

use fob_verify::key::{Claims, StatusRef};
use fob_verify::region::Region;
use fob_verify::window::Recurring;
use fob_verify::{Algorithm, HolderKey};

use super::function::FunctionCode;
use super::id::{AuthorizationId, BundleId, EpochId, FleetId, IdentityId, KeyId, VehicleId};
use super::time::{UnixTime, Window};

/// One key of a bundle: what is particular to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    /// The function it stands for.
    pub function: FunctionCode,
    /// That function's name when it was issued.
    pub name: Arc<str>,
    /// How often it may be used.
    pub max_uses: Option<u32>,
    /// Where its status list is.
    pub status_uri: Arc<str>,
    /// Its index there.
    pub status_index: u32,
}

/// All keys of one redemption, before or after signing.
#[derive(Clone, Debug, PartialEq)]
pub struct Bundle {
    /// Its id, which outlives changes.
    pub id: BundleId,
    /// The authorization it was issued on.
    pub authorization: AuthorizationId,
    /// That authorization's version.
    pub version: u32,
    /// The fleet.
    pub fleet: FleetId,
    /// The vehicle.
    pub vehicle: VehicleId,
    /// The vehicle's epoch at issue.
    pub vehicle_epoch: u32,
    /// Who redeemed.
    pub identity: IdentityId,
    /// The borrower terminal's key, to which the keys are bound.
    pub holder: HolderKey,
    /// SHA-256 COSE Key Thumbprint of the holder's key (RFC 9679).
    pub thumbprint: [u8; 32],
    /// The epoch that signed.
    pub epoch: EpochId,
    /// `kid` algorithm of that epoch, as in every key's header.
    pub algorithm: Algorithm,
    /// The issuer's name at issue.
    pub issuer: Arc<str>,
    /// When it was issued.
    pub issued_at: UnixTime,
    /// When the keys may be used.
    pub window: Window,
    /// Where the keys may be used.
    pub region: Option<Box<Region>>,
    /// At which hours of the week the keys may be used; `None` is always.
    pub recurring: Option<Box<Recurring>>,
    /// The keys, ascending by function code.
    pub keys: Vec<KeyRecord>,
}

impl Bundle {
    /// The id of one of its keys.
    pub fn key_id(&self, key: &KeyRecord) -> KeyId {
        self.id.key(self.version, key.function)
    }

    /// The claims of one of its keys.
    pub fn claims<'a>(&'a self, key: &'a KeyRecord) -> Claims<'a> {
        Claims {
            issuer: &self.issuer,
            vehicle: self.vehicle.as_str(),
            expires: self.window.not_after,
            not_before: self.window.not_before,
            issued_at: self.issued_at,
            key_id: self.key_id(key).0,
            holder: self.holder,
            function_name: &key.name,
            status: StatusRef {
                index: key.status_index,
                uri: &key.status_uri,
            },
            function: key.function,
            bundle: self.id.0,
            version: self.version,
            vehicle_epoch: self.vehicle_epoch,
            region: self.region.as_deref().copied(),
            max_uses: key.max_uses,
            fleet: self.fleet.0,
            recurring: self.recurring.as_deref().copied(),
        }
    }
}
