//! What a fleet rules, as it is written and read: floor 2.

use std::sync::Arc;

use crate::domain::{FleetId, UnixTime};

/// A decision of those who administer a fleet. It is kept with who took it and why, whatever
/// becomes of what was decided.
///
/// [`crate::store::Applied::Stale`] where the fleet is not there, or what the ruling says must
/// stand does not.
#[derive(Clone, Debug)]
pub struct Rulings {
    /// The fleet.
    pub fleet: FleetId,
    /// When.
    pub at: UnixTime,
    /// Who: a token's id, or an operator's name.
    pub by: String,
    /// Why, as they put it.
    pub why: Option<String>,
    /// What is ruled.
    pub what: Ruling,
}

/// What is ruled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// The fleet's rules at this version, as JSON. The newest must be of the version before.
    Rules(u32, Arc<str>),
}

/// What stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ruled {
    /// The fleet's newest rules: version and JSON.
    Rules(u32, Arc<str>),
}
