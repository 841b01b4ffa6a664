//! Rates, as a fleet sets them.

use serde::{Deserialize, Serialize};

use crate::domain::refusal::Refusal;

/// The most a rate may count.
const COUNT_MAX: u32 = 1_000_000;

/// The longest time a rate may speak of, in seconds.
const SECONDS_MAX: u32 = 86_400;

/// So many in so many seconds: all of them at once, if need be, and then one by one as they become
/// free again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// How many, 1 to 1,000,000.
    pub count: u32,
    /// In how many seconds, 1 to 86,400.
    pub seconds: u32,
}

/// How fast each caller, borrower, device and vehicle may ask; where nothing is said, as fast as it
/// can.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rates {
    /// Calls and orders of one token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Rate>,
    /// Redemptions, orders and commands of one identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<Rate>,
    /// Redemptions, orders and commands of one registered terminal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminal: Option<Rate>,
    /// Authorizations, redemptions and orders for one vehicle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vehicle: Option<Rate>,
}

/// The normal band of issuing, in bundles. Beyond it issuing freezes until somebody else releases
/// it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bands {
    /// Of the whole fleet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fleet: Option<Rate>,
    /// Of each vehicle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vehicle: Option<Rate>,
}

impl Rates {
    /// Whether nothing is limited.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn check(&self, at: &str) -> Result<(), Refusal> {
        check(at, "token", self.token)?;
        check(at, "identity", self.identity)?;
        check(at, "terminal", self.terminal)?;
        check(at, "vehicle", self.vehicle)
    }
}

impl Bands {
    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn check(&self, at: &str) -> Result<(), Refusal> {
        check(at, "fleet", self.fleet)?;
        check(at, "vehicle", self.vehicle)
    }
}

fn check(at: &str, name: &str, rate: Option<Rate>) -> Result<(), Refusal> {
    let fits = |rate: Rate| {
        (1..=COUNT_MAX).contains(&rate.count) && (1..=SECONDS_MAX).contains(&rate.seconds)
    };
    if rate.is_none_or(fits) {
        return Ok(());
    }
    Err(Refusal::malformed(
        format!("{at}.{name}"),
        "a rate is 1 to 1000000 in 1 to 86400 seconds",
    ))
}
