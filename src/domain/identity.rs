//! Identities: persons and back ends known to a fleet.

use super::id::{FleetId, IdentityId};
use super::time::UnixTime;

/// The most licence classes one identity may have.
pub const LICENCES_MAX: usize = 32;

/// Whether an object may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Status {
    /// It may.
    #[default]
    Active,
    /// It may not, for now.
    Suspended,
}

impl Status {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
        }
    }

    /// The status of that name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Active, Self::Suspended]
            .into_iter()
            .find(|status| status.name() == name)
    }
}

/// Why a fleet holds keys back from somebody who is not suspended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// A payment is open.
    Payment,
    /// The insurance does not cover.
    Insurance,
}

impl Hold {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Payment, Self::Insurance];

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Payment => "payment",
            Self::Insurance => "insurance",
        }
    }

    /// The hold of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|hold| hold.name() == name)
    }
}

/// Whether `class` may be a licence class: 1 to 8 letters and digits.
pub fn is_licence_class(class: &str) -> bool {
    (1..=8).contains(&class.len()) && class.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// A driving licence class and when it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Licence {
    /// The class, 1 to 8 characters, as in `B` or `C1E`.
    pub class: String,
    /// First second in which it no longer holds.
    pub expires: UnixTime,
}

/// A person or back end known to a fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its fleet.
    pub fleet: FleetId,
    /// Its id within the fleet.
    pub id: IdentityId,
    /// Suspended identities neither authorize nor redeem.
    pub status: Status,
    /// Why it gets no keys for now, where it does not.
    pub hold: Option<Hold>,
    /// When the fleet last proved who it is; `None` where it never said so.
    pub proved: Option<UnixTime>,
    /// Licence classes, for the rules about eligibility.
    pub licences: Vec<Licence>,
}
