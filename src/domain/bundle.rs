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

/// What a key shares with the same key of other bundles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The function it stands for.
    pub function: FunctionCode,
    /// That function's name when it was issued.
    pub name: Arc<str>,
    /// Where its status list is.
    pub status_uri: Arc<str>,
}

/// One key of a bundle: what is particular to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    /// How often it may be used.
    pub max_uses: Option<u32>,
    /// Its index in its subject's status list.
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
    /// What each key stands for, ascending by function code. Bundles of the same functions share
    /// it: a count of references each, and not one for every name in it.
    pub subjects: Arc<[Subject]>,
    /// The keys, one for each subject.
    pub keys: Vec<KeyRecord>,
}

impl Bundle {
    /// The keys with what they stand for, in their order.
    pub fn each_key(&self) -> impl ExactSizeIterator<Item = (&Subject, &KeyRecord)> {
        self.subjects.iter().zip(&self.keys)
    }

    /// The id of the key of one of its subjects.
    pub fn key_id(&self, subject: &Subject) -> KeyId {
        self.id.key(self.version, subject.function)
    }

    /// The claims of one of its keys.
    pub fn claims<'a>(&'a self, subject: &'a Subject, key: &KeyRecord) -> Claims<'a> {
        Claims {
            issuer: &self.issuer,
            vehicle: self.vehicle.as_str(),
            expires: self.window.not_after,
            not_before: self.window.not_before,
            issued_at: self.issued_at,
            key_id: self.key_id(subject).0,
            holder: self.holder,
            function_name: &subject.name,
            status: StatusRef {
                index: key.status_index,
                uri: &subject.status_uri,
            },
            function: subject.function,
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::domain::Authorization;

    /// What would be issued on an authorization, its keys counted from 7 on.
    pub(crate) fn issued(authorization: &Authorization) -> Bundle {
        let mut x = [0x66; 32];
        x[0] = 0x58;
        let subject = |function: &FunctionCode| Subject {
            function: *function,
            name: format!("function.{function}").into(),
            status_uri: "https://fob.example/v1/status/00000001-0".into(),
        };
        let key = |(function, status_index): (&FunctionCode, u32)| KeyRecord {
            max_uses: authorization.max_uses(*function),
            status_index,
        };
        Bundle {
            id: BundleId::new(1_790_000_000_123, 5),
            authorization: authorization.id,
            version: authorization.version,
            fleet: authorization.fleet,
            vehicle: authorization.vehicle.clone(),
            vehicle_epoch: 0,
            identity: IdentityId::parse("anna").expect("an identity"),
            // Ed25519's base point (RFC 8032 §5.1).
            holder: HolderKey::new_ed25519(&x).expect("a key"),
            epoch: EpochId([5; 8]),
            algorithm: Algorithm::Esp256,
            issuer: "fob.example".into(),
            issued_at: 100,
            window: authorization.window,
            region: authorization.region().copied().map(Box::new),
            recurring: authorization.recurring().copied().map(Box::new),
            subjects: authorization.functions.iter().map(subject).collect(),
            keys: authorization.functions.iter().zip(7..).map(key).collect(),
        }
    }
}
