//! Bearer tokens of fleets' back ends: opaque, stored hashed, scoped, ending.

use std::fmt;

use super::id::{FleetId, TokenId};
use super::time::UnixTime;

/// What a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Create and change authorizations.
    Authorize,
    /// Issue batches.
    Issue,
    /// Suspend, resume and revoke.
    Revoke,
    /// Read.
    Read,
    /// Keep the registry, and set the rules.
    Admin,
    /// Release the brake, and approve keys beyond the quota: what takes a second person.
    Approve,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Authorize,
        Self::Issue,
        Self::Revoke,
        Self::Read,
        Self::Admin,
        Self::Approve,
    ];

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Authorize => "authorize",
            Self::Issue => "issue",
            Self::Revoke => "revoke",
            Self::Read => "read",
            Self::Admin => "admin",
            Self::Approve => "approve",
        }
    }

    /// The scope of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.name() == name)
    }
}

/// A set of scopes.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// Whether `scope` is among them.
    pub const fn has(self, scope: Scope) -> bool {
        self.0 & (1 << scope as u8) != 0
    }

    /// Whether nobody may have all of them: who approves does not issue.
    pub const fn contradict(self) -> bool {
        self.has(Scope::Approve) && (self.has(Scope::Authorize) || self.has(Scope::Issue))
    }

    /// The set as bits, for the store.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The set the store keeps as `bits`; unknown bits are dropped.
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits & 0x3f)
    }

    /// Their names, in the order of [`Scope::ALL`].
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Scope::ALL
            .into_iter()
            .filter(move |scope| self.has(*scope))
            .map(Scope::name)
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<T: IntoIterator<Item = Scope>>(scopes: T) -> Self {
        Self(
            scopes
                .into_iter()
                .fold(0, |bits, scope| bits | 1 << scope as u8),
        )
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

/// A token as the store keeps it: never the token itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Its public handle.
    pub id: TokenId,
    /// Its fleet.
    pub fleet: FleetId,
    /// SHA-256 of the token's text.
    pub hash: [u8; 32],
    /// What it may do.
    pub scopes: Scopes,
    /// When it was made.
    pub created_at: UnixTime,
    /// First second in which it no longer holds.
    pub expires_at: Option<UnixTime>,
    /// When it was revoked.
    pub revoked_at: Option<UnixTime>,
    /// When it was used last, as far as that was written down.
    pub used_at: Option<UnixTime>,
}

impl Token {
    /// Whether it holds at `now`.
    pub fn holds(&self, now: UnixTime) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_scopes() {
        let scopes: Scopes = [Scope::Read, Scope::Authorize].into_iter().collect();
        assert!(
            scopes.has(Scope::Read) && scopes.has(Scope::Authorize) && !scopes.has(Scope::Admin)
        );
        assert_eq!(scopes.names().collect::<Vec<_>>(), ["authorize", "read"]);
        assert_eq!(Scopes::from_bits(scopes.bits()), scopes);
        assert!(
            Scope::ALL
                .into_iter()
                .all(|scope| Scope::parse(scope.name()) == Some(scope))
        );
    }

    #[test]
    fn a_token_ends() {
        let token = Token {
            id: TokenId([0; 16]),
            fleet: FleetId([0; 16]),
            hash: [0; 32],
            scopes: Scopes::default(),
            created_at: 0,
            expires_at: Some(10),
            revoked_at: None,
            used_at: None,
        };
        assert!(token.holds(9) && !token.holds(10));
        assert!(
            !Token {
                revoked_at: Some(5),
                ..token
            }
            .holds(6)
        );
    }
}
