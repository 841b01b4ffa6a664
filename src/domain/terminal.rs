//! Terminals: devices with a key of their own. An owner terminal signs commands, a borrower
//! terminal redeems; the same device may do both.

use fob_verify::HolderKey;

use super::id::{FleetId, IdentityId, TerminalId};
use super::identity::Status;
use super::time::UnixTime;

/// A registered device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terminal {
    /// Its fleet.
    pub fleet: FleetId,
    /// Its id within the fleet.
    pub id: TerminalId,
    /// Whose device it is.
    pub identity: IdentityId,
    /// Its public key.
    pub key: HolderKey,
    /// Suspended terminals neither sign commands nor redeem.
    pub status: Status,
    /// When it was first seen with this key; 0 where that was not kept yet.
    pub since: UnixTime,
    /// Who has vouched for it; `None` is the fleet.
    pub attested: Option<Box<Attested>>,
}

/// Another terminal of the same identity, which has vouched for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attested {
    /// That terminal.
    pub by: TerminalId,
    /// When it did.
    pub at: UnixTime,
}
