//! A fleet: the tenant. Nothing crosses from one fleet to another.

use super::authorization::Signing;
use super::id::{FleetId, FleetName};
use super::identity::Status;

/// A fleet and its settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fleet {
    /// Its id, signed into every key.
    pub id: FleetId,
    /// Its name, unique on the server.
    pub name: FleetName,
    /// Suspended fleets issue nothing.
    pub status: Status,
    /// Names its status shards; unique on the server.
    pub tag: u32,
    /// Key of the permutation of its status indexes.
    pub status_key: [u8; 32],
    /// The durable counter of status indexes handed out so far.
    pub status_next: u64,
    /// What the fleet has set.
    pub settings: FleetSettings,
}

/// What a fleet may set. No rule refuses until it is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FleetSettings {
    /// Whoever holds a code set may redeem it, with no registered terminal, bound terminal or PIN.
    pub open_redemption: bool,
    /// How keys are signed whose authorization does not say; `None` leaves it to the
    /// configuration.
    pub signing: Option<Signing>,
}
