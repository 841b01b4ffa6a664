//! Authorizations: an owner's command, as checked and kept.
//!
//! Open ones are held in memory by the million, so what few have is behind one pointer
//! ([`Restrictions`]) and the functions of most need no allocation ([`FunctionSet`]).

use fob_verify::HolderKey;
use fob_verify::region::Region;
use fob_verify::window::Recurring;

use super::function::FunctionCode;
use super::function_set::FunctionSet;
use super::id::{AuthorizationId, FleetId, IdentityId, TerminalId, TokenId, VehicleId};
use super::refusal::{Refusal, RefusalCode};
use super::time::{UnixTime, Window};

/// Wrong PINs in a row after which a code set is locked.
pub const PIN_ATTEMPTS_MAX: u32 = 5;

/// How the keys of an authorization are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signing {
    /// One signature for each key.
    Each,
    /// One signature for the root of a tree of many keys, and a receipt for each.
    Tree,
    /// A signature for each while the HSM keeps up, trees when it does not.
    Auto,
}

impl Signing {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Each, Self::Tree, Self::Auto];

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Each => "each",
            Self::Tree => "tree",
            Self::Auto => "auto",
        }
    }

    /// The way of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|way| way.name() == name)
    }
}

/// Where an authorization stands. Expiry is not a state: it is a matter of the time of asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthorizationState {
    /// Its code set may be redeemed.
    Open,
    /// Its code set has been redeemed.
    Redeemed,
    /// Nothing may be issued on it for now.
    Suspended,
    /// It was withdrawn.
    Cancelled,
}

impl AuthorizationState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Open, Self::Redeemed, Self::Suspended, Self::Cancelled];

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Redeemed => "redeemed",
            Self::Suspended => "suspended",
            Self::Cancelled => "cancelled",
        }
    }

    /// The state of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// Whom a code set is for; `None` leaves it open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recipient {
    /// Only this identity.
    pub identity: Option<IdentityId>,
    /// Only this registered terminal.
    pub terminal: Option<TerminalId>,
    /// Only the terminal with this key, registered or not; never beside `terminal`.
    pub key: Option<HolderKey>,
}

static ANYBODY: Recipient = Recipient {
    identity: None,
    terminal: None,
    key: None,
};

/// What narrows an authorization beyond vehicle, functions and window, and what was made of it
/// later. Most have nothing of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Restrictions {
    /// Where the keys may be used.
    pub region: Option<Box<Region>>,
    /// At which hours of the week the keys may be used; `None` is always.
    pub recurring: Option<Box<Recurring>>,
    /// How often each function may be used, ascending by code; a function not listed has no limit.
    pub max_uses: Box<[(FunctionCode, u32)]>,
    /// Whom the code set is for.
    pub recipient: Recipient,
    /// What changes and endings have left on it.
    pub amended: Option<Amended>,
    /// Until when its owner has approved of a redemption that is asked for more than the code set.
    pub approved_until: Option<UnixTime>,
}

impl Restrictions {
    /// As an authorization holds them: nothing where there are none.
    pub fn boxed(self) -> Option<Box<Self>> {
        let Self {
            region,
            recurring,
            max_uses,
            recipient,
            amended,
            approved_until,
        } = &self;
        let none = amended.is_none()
            && approved_until.is_none()
            && region.is_none()
            && recurring.is_none()
            && max_uses.is_empty()
            && *recipient == ANYBODY;
        (!none).then(|| Box::new(self))
    }
}

/// Who gave the command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Author {
    /// A fleet's back end, by bearer token.
    Token(TokenId),
    /// An owner terminal, by signed command.
    Terminal(TerminalId),
}

/// What changes and endings have left on an authorization. Most have nothing of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Amended {
    /// The store's count of amendments at the last one of this authorization.
    pub revision: u64,
    /// Version and functions of the code set it was redeemed with, where a change has come since:
    /// the same redemption again still brings that one.
    pub code_set: Option<(u32, FunctionSet)>,
}

/// An owner's command: which vehicle, which functions, when, where, how often and for whom.
///
/// Its id is also its code set's: an authorization has one code set at a time.
#[derive(Clone, Debug, PartialEq)]
pub struct Authorization {
    /// Its id, UUIDv7.
    pub id: AuthorizationId,
    /// Its fleet.
    pub fleet: FleetId,
    /// 1 at first; a change makes the next.
    pub version: u32,
    /// The vehicle.
    pub vehicle: VehicleId,
    /// The functions, ascending.
    pub functions: FunctionSet,
    /// When the keys may be used.
    pub window: Window,
    /// Until when the code set may be redeemed.
    pub redeem_by: UnixTime,
    /// Where, when, how often and for whom, as [`Restrictions::boxed`] makes it.
    pub restrictions: Option<Box<Restrictions>>,
    /// Whether redemption asks for the PIN.
    pub pin: bool,
    /// How its keys are signed; `None` leaves it to the configuration.
    pub signing: Option<Signing>,
    /// Where it stands.
    pub state: AuthorizationState,
    /// Whether its code set has been redeemed, whatever has become of it since.
    pub redeemed: bool,
    /// When it was made.
    pub created_at: UnixTime,
    /// Who gave the command.
    pub author: Author,
}

impl Authorization {
    /// Whether its code set may be redeemed at `now`, apart from who asks.
    ///
    /// # Errors
    /// `code_set_redeemed`, `authorization_suspended`, `code_set_cancelled` or `code_set_expired`.
    pub fn check_open(&self, now: UnixTime) -> Result<(), Refusal> {
        if self.redeemed {
            return Err(RefusalCode::CodeSetRedeemed.into());
        }
        match self.state {
            AuthorizationState::Redeemed => Err(RefusalCode::CodeSetRedeemed.into()),
            AuthorizationState::Suspended => Err(RefusalCode::AuthorizationSuspended.into()),
            AuthorizationState::Cancelled => Err(RefusalCode::CodeSetCancelled.into()),
            AuthorizationState::Open if self.expired(now) => {
                Err(RefusalCode::CodeSetExpired.into())
            }
            AuthorizationState::Open => Ok(()),
        }
    }

    /// Whether the time to redeem it has passed at `now`.
    pub fn expired(&self, now: UnixTime) -> bool {
        now >= self.redeem_by.min(self.window.not_after)
    }

    /// What changes and endings have left on it.
    pub fn amended(&self) -> Option<&Amended> {
        self.restrictions.as_ref()?.amended.as_ref()
    }

    /// Notes what a change or an ending leaves on it.
    pub fn set_amended(&mut self, amended: Option<Amended>) {
        let mut restrictions = self.restrictions.take().unwrap_or_default();
        restrictions.amended = amended;
        self.restrictions = restrictions.boxed();
    }

    /// Until when its owner has approved of its redemption, where it has.
    pub fn approved_until(&self) -> Option<UnixTime> {
        self.restrictions.as_ref()?.approved_until
    }

    /// Whether its owner has approved of its redemption at `now`.
    pub fn is_approved(&self, now: UnixTime) -> bool {
        self.approved_until().is_some_and(|until| now < until)
    }

    /// Notes until when its owner approves of its redemption.
    pub fn approve(&mut self, until: UnixTime) {
        let mut restrictions = self.restrictions.take().unwrap_or_default();
        restrictions.approved_until = Some(until);
        self.restrictions = restrictions.boxed();
    }

    /// Version and functions of the code set that stands for it.
    pub fn code_set(&self) -> (u32, &FunctionSet) {
        let redeemed_with = self.amended().and_then(|it| it.code_set.as_ref());
        match redeemed_with {
            Some((version, functions)) => (*version, functions),
            None => (self.version, &self.functions),
        }
    }

    /// The store's count of amendments at its last one; 0 where there was none.
    pub fn revision(&self) -> u64 {
        self.amended().map_or(0, |amended| amended.revision)
    }

    /// Where the keys may be used; `None` is everywhere.
    pub fn region(&self) -> Option<&Region> {
        self.restrictions.as_ref()?.region.as_deref()
    }

    /// At which hours of the week the keys may be used; `None` is always.
    pub fn recurring(&self) -> Option<&Recurring> {
        self.restrictions.as_ref()?.recurring.as_deref()
    }

    /// How often `function` may be used.
    pub fn max_uses(&self, function: FunctionCode) -> Option<u32> {
        let limits = self.use_limits();
        let at = limits
            .binary_search_by_key(&function, |(code, _)| *code)
            .ok()?;
        Some(limits[at].1)
    }

    /// How often each function may be used, ascending by code, as far as there is a limit.
    pub fn use_limits(&self) -> &[(FunctionCode, u32)] {
        self.restrictions
            .as_ref()
            .map_or(&[], |restrictions| &restrictions.max_uses)
    }

    /// Takes the limit off a function, where it has one.
    pub fn drop_limit(&mut self, function: FunctionCode) {
        if let Some(mut restrictions) = self.restrictions.take() {
            let left = restrictions
                .max_uses
                .iter()
                .filter(|(code, _)| *code != function);
            restrictions.max_uses = left.copied().collect();
            self.restrictions = restrictions.boxed();
        }
    }

    /// Whom the code set is for.
    pub fn recipient(&self) -> &Recipient {
        self.restrictions
            .as_ref()
            .map_or(&ANYBODY, |restrictions| &restrictions.recipient)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An open authorization of functions 1 and 3, from 100 to 200, to be redeemed by 150.
    pub(crate) fn sample() -> Authorization {
        Authorization {
            id: AuthorizationId([7; 16]),
            fleet: FleetId([1; 16]),
            version: 1,
            vehicle: VehicleId::parse("V-1").expect("a vehicle id"),
            functions: [1, 3].into(),
            window: Window {
                not_before: 100,
                not_after: 200,
            },
            redeem_by: 150,
            restrictions: Restrictions {
                max_uses: [(3, 2)].into(),
                ..Restrictions::default()
            }
            .boxed(),
            pin: false,
            signing: None,
            state: AuthorizationState::Open,
            redeemed: false,
            created_at: 50,
            author: Author::Token(TokenId([9; 16])),
        }
    }

    #[test]
    fn each_state_has_its_refusal() {
        let code =
            |authorization: &Authorization, now| authorization.check_open(now).map_err(|r| r.code);
        let open = sample();
        assert_eq!(code(&open, 149), Ok(()));
        assert_eq!(code(&open, 150), Err(RefusalCode::CodeSetExpired));
        assert_eq!(
            code(
                &Authorization {
                    redeem_by: 900,
                    ..open.clone()
                },
                200
            ),
            Err(RefusalCode::CodeSetExpired)
        );
        for (state, expected) in [
            (AuthorizationState::Redeemed, RefusalCode::CodeSetRedeemed),
            (
                AuthorizationState::Suspended,
                RefusalCode::AuthorizationSuspended,
            ),
            (AuthorizationState::Cancelled, RefusalCode::CodeSetCancelled),
        ] {
            assert_eq!(
                code(
                    &Authorization {
                        state,
                        ..open.clone()
                    },
                    0
                ),
                Err(expected)
            );
        }
    }

    #[test]
    fn uses_are_limited_by_function() {
        assert_eq!(sample().max_uses(3), Some(2));
        assert_eq!(sample().max_uses(1), None);
    }

    #[test]
    fn no_restrictions_are_nothing() {
        assert_eq!(Restrictions::default().boxed(), None);
        let free = Authorization {
            restrictions: None,
            ..sample()
        };
        assert_eq!((free.max_uses(3), free.recipient()), (None, &ANYBODY));
        assert!(free.region().is_none() && free.recurring().is_none());
    }

    #[test]
    fn an_authorization_stays_small() {
        // With the two counters of its `Arc`, 160 bytes.
        assert_eq!(size_of::<Authorization>(), 144);
    }
}
