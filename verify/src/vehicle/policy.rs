//! How old a status list may be, function by function.
//!
//! A car that is offline for long has to choose between letting nobody in and
//! not knowing of a revocation. It chooses by function: to unlock a door may
//! be allowed with an older list than to start the engine. The server counts
//! with the same policy when it says by when a revocation is certain.

use crate::Refusal;
use crate::status::StatusList;

/// How old a status list may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Only while it is fresh: before `iat` + `ttl`, and before `exp`.
    Fresh,
    /// Until it expires: before `exp`.
    Valid,
    /// So many seconds longer than until it expires.
    Expired(u32),
    /// However old; and a key may be used even if the car has no list for it.
    Offline,
}

impl Patience {
    /// Whether a list may still serve when it may be as late as `latest`.
    pub(super) const fn check(self, list: &StatusList<'_>, latest: u64) -> Result<(), Refusal> {
        let grace_s = match self {
            Self::Fresh if latest >= list.fresh_until() => return Err(Refusal::StatusListStale),
            Self::Fresh | Self::Valid => 0,
            Self::Expired(seconds) => seconds as u64,
            Self::Offline => return Ok(()),
        };
        if latest < list.expires().saturating_add(grace_s) {
            Ok(())
        } else {
            Err(Refusal::StatusListExpired)
        }
    }
}

/// The patience of every function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy<'a> {
    /// For function codes that are not named.
    pub otherwise: Patience,
    /// For these function codes.
    pub functions: &'a [(u16, Patience)],
}

impl Policy<'static> {
    /// What a car does that was told nothing else: `doors.unlock` and
    /// `doors.lock` work for a day longer than the list, everything else
    /// until it expires.
    pub const STANDARD: Self = Self {
        otherwise: Patience::Valid,
        functions: &[
            (1, Patience::Expired(86_400)),
            (2, Patience::Expired(86_400)),
        ],
    };
}

impl Policy<'_> {
    /// The patience of a function.
    #[must_use]
    pub fn patience(&self, function: u16) -> Patience {
        let named = self.functions.iter().find(|(code, _)| *code == function);
        named.map_or(self.otherwise, |(_, patience)| *patience)
    }
}
