//! What becomes of an authorization that is suspended, resumed, cancelled or changed, and which of
//! the keys issued on it it still grants.

use super::authorization::{Authorization, AuthorizationState};
use super::bundle::{Bundle, KeyRecord, Subject};
use super::id::{IdentityId, TerminalId, VehicleId};
use super::identity::Status;
use super::refusal::{Refusal, RefusalCode};
use super::status::{KeyChange, Reason};

/// What is done to an authorization, or to all there is of an identity or on a vehicle, without
/// changing what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing is issued on it and its keys are suspended, until it is resumed.
    Suspend,
    /// The end of a suspension.
    Resume,
    /// Its end: the code set is closed, its keys are revoked.
    Cancel,
}

impl Action {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Suspend => "suspend",
            Self::Resume => "resume",
            Self::Cancel => "cancel",
        }
    }

    /// What it does to a key, where it is done to it for `reason`.
    pub const fn on_keys(self, reason: Reason) -> KeyChange {
        match self {
            Self::Suspend => KeyChange::Suspend(reason),
            Self::Resume => KeyChange::Resume(reason),
            Self::Cancel => KeyChange::Revoke,
        }
    }

    /// How an identity or a vehicle stands after it: for the end of all it has it is suspended, or
    /// it would get more.
    pub const fn leaves(self) -> Status {
        match self {
            Self::Suspend | Self::Cancel => Status::Suspended,
            Self::Resume => Status::Active,
        }
    }

    /// Where it leads from `authorization` as it stands; `None` where it is there already.
    ///
    /// # Errors
    /// `code_set_cancelled`: what is cancelled stays so.
    pub fn leads_to(
        self,
        authorization: &Authorization,
    ) -> Result<Option<AuthorizationState>, Refusal> {
        use AuthorizationState::{Cancelled, Open, Redeemed, Suspended};
        let to = match (self, authorization.state) {
            (Self::Cancel, _) => Cancelled,
            (_, Cancelled) => return Err(cancelled()),
            (Self::Suspend, _) => Suspended,
            (Self::Resume, Suspended) if authorization.redeemed => Redeemed,
            (Self::Resume, Suspended) => Open,
            (Self::Resume, state) => state,
        };
        Ok((to != authorization.state).then_some(to))
    }
}

/// What keys follow beside their authorization: suspended with it, and active again with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Followed {
    /// The identity they were issued to.
    Identity(IdentityId),
    /// The vehicle they are for.
    Vehicle(VehicleId),
}

impl Followed {
    /// The reason for which keys are suspended with it.
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Identity(_) => Reason::Identity,
            Self::Vehicle(_) => Reason::Vehicle,
        }
    }
}

/// What of a fleet's registry may be suspended as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Registered {
    /// An identity or a vehicle: keys follow it.
    Followed(Followed),
    /// A terminal, of which nothing follows: it commands and redeems no more.
    Terminal(TerminalId),
}

impl From<Followed> for Registered {
    fn from(of: Followed) -> Self {
        Self::Followed(of)
    }
}

/// Whether an authorization may be changed at all.
///
/// # Errors
/// `code_set_cancelled`.
pub fn check_changeable(authorization: &Authorization) -> Result<(), Refusal> {
    match authorization.state {
        AuthorizationState::Cancelled => Err(cancelled()),
        _ => Ok(()),
    }
}

/// Whether `authorization` grants everything that a key of `bundle` does: the function, to the
/// same holder, at no other time, in no other place and not more often.
///
/// `holder_stays` is false where the keys go to another terminal.
pub fn grants(
    authorization: &Authorization,
    bundle: &Bundle,
    subject: &Subject,
    key: &KeyRecord,
    holder_stays: bool,
) -> bool {
    let (now, then) = (authorization.window, bundle.window);
    let often = match (authorization.max_uses(subject.function), key.max_uses) {
        (None, _) => true,
        (Some(now), Some(then)) => then <= now,
        (Some(_), None) => false,
    };
    let region = authorization.region();
    let recurring = authorization.recurring();
    holder_stays
        && authorization
            .functions
            .binary_search(&subject.function)
            .is_ok()
        && now.not_before <= then.not_before
        && then.not_after <= now.not_after
        && (region.is_none() || region == bundle.region.as_deref())
        && (recurring.is_none() || recurring == bundle.recurring.as_deref())
        && often
}

/// Whether everything that `next` says `now` says too: a change to it only takes away.
pub fn narrows(next: &Authorization, now: &Authorization) -> bool {
    let often = |function| match (next.max_uses(function), now.max_uses(function)) {
        (_, None) => true,
        (Some(next), Some(now)) => next <= now,
        (None, Some(_)) => false,
    };
    next.functions
        .iter()
        .all(|one| now.functions.binary_search(one).is_ok() && often(*one))
        && now.window.not_before <= next.window.not_before
        && next.window.not_after <= now.window.not_after
        && (now.region().is_none() || now.region() == next.region())
        && (now.recurring().is_none() || now.recurring() == next.recurring())
}

/// `code_set_cancelled`.
pub fn cancelled() -> Refusal {
    Refusal::new(RefusalCode::CodeSetCancelled).detail("what is cancelled stays so")
}

#[cfg(test)]
mod tests {
    use fob_verify::region::{Circle, Position, Region};

    use super::*;
    use crate::domain::authorization::tests::sample;
    use crate::domain::bundle::tests::issued;
    use crate::domain::{Restrictions, Window};

    #[test]
    fn every_state_and_every_action() {
        use AuthorizationState::{Cancelled, Open, Redeemed, Suspended};
        let table = [
            (
                Open,
                false,
                [Ok(Some(Suspended)), Ok(None), Ok(Some(Cancelled))],
            ),
            (
                Redeemed,
                true,
                [Ok(Some(Suspended)), Ok(None), Ok(Some(Cancelled))],
            ),
            (
                Suspended,
                false,
                [Ok(None), Ok(Some(Open)), Ok(Some(Cancelled))],
            ),
            (
                Suspended,
                true,
                [Ok(None), Ok(Some(Redeemed)), Ok(Some(Cancelled))],
            ),
            (Cancelled, false, [Err(()), Err(()), Ok(None)]),
            (Cancelled, true, [Err(()), Err(()), Ok(None)]),
        ];
        for (state, redeemed, expected) in table {
            let authorization = Authorization {
                state,
                redeemed,
                ..sample()
            };
            for (action, expected) in [Action::Suspend, Action::Resume, Action::Cancel]
                .into_iter()
                .zip(expected)
            {
                let led = action.leads_to(&authorization).map_err(|refusal| {
                    assert_eq!(refusal.code, RefusalCode::CodeSetCancelled);
                });
                assert_eq!(
                    led, expected,
                    "{action:?} of {state:?}, redeemed {redeemed}"
                );
            }
            assert_eq!(check_changeable(&authorization).is_ok(), state != Cancelled);
        }
    }

    /// Whether `authorization` grants the key of each function of what was issued on `sample`.
    fn granted(authorization: &Authorization, holder_stays: bool) -> Vec<bool> {
        let bundle = issued(&sample());
        bundle
            .each_key()
            .map(|(subject, key)| grants(authorization, &bundle, subject, key, holder_stays))
            .collect()
    }

    fn within(not_before: u64, not_after: u64) -> Authorization {
        Authorization {
            window: Window {
                not_before,
                not_after,
            },
            ..sample()
        }
    }

    fn restricted(change: impl FnOnce(&mut Restrictions)) -> Authorization {
        let mut restrictions = Restrictions {
            max_uses: [(3, 2)].into(),
            ..Restrictions::default()
        };
        change(&mut restrictions);
        Authorization {
            restrictions: restrictions.boxed(),
            ..sample()
        }
    }

    #[test]
    fn what_is_dropped_or_narrowed_is_not_granted_and_nothing_else() {
        assert_eq!(granted(&sample(), true), [true, true]);
        assert_eq!(granted(&sample(), false), [false, false]);
        let dropped = Authorization {
            functions: [1].into(),
            restrictions: None,
            ..sample()
        };
        assert_eq!(granted(&dropped, true), [true, false]);
        let added = Authorization {
            functions: [1, 2, 3].into(),
            ..sample()
        };
        assert_eq!(granted(&added, true), [true, true]);
        for (window, stays) in [
            ((100, 200), true),
            ((50, 300), true),
            ((101, 200), false),
            ((100, 199), false),
        ] {
            assert_eq!(
                granted(&within(window.0, window.1), true),
                [stays; 2],
                "{window:?}"
            );
        }
        let circle = |radius| {
            let centre = Position::new(0, 0).expect("a position");
            Some(Box::new(Region::Circle(
                Circle::new(centre, radius).expect("a circle"),
            )))
        };
        assert_eq!(
            granted(&restricted(|it| it.region = circle(5)), true),
            [false; 2]
        );
        let uses = |limits: &[(u16, u32)]| restricted(|it| it.max_uses = limits.into());
        assert_eq!(granted(&uses(&[]), true), [true, true]);
        assert_eq!(granted(&uses(&[(3, 9)]), true), [true, true]);
        assert_eq!(granted(&uses(&[(3, 1)]), true), [true, false]);
        assert_eq!(granted(&uses(&[(1, 9), (3, 2)]), true), [false, true]);
    }

    #[test]
    fn a_change_that_only_takes_away_is_told_from_one_that_gives() {
        let uses = |limits: &[(u16, u32)]| restricted(|it| it.max_uses = limits.into());
        let functions = |all: &[u16]| Authorization {
            functions: all.into(),
            ..sample()
        };
        let circle = |radius| {
            let centre = Position::new(0, 0).expect("a position");
            let circle = Circle::new(centre, radius).expect("a circle");
            restricted(|it| it.region = Some(Box::new(Region::Circle(circle))))
        };
        for (next, expected) in [
            (sample(), true),
            (functions(&[3]), true),
            (functions(&[1, 2, 3]), false),
            (functions(&[2, 3]), false),
            (within(101, 199), true),
            (within(99, 200), false),
            (within(100, 201), false),
            (uses(&[(3, 1)]), true),
            (uses(&[(1, 1), (3, 2)]), true),
            (uses(&[(3, 3)]), false),
            (uses(&[]), false),
            (circle(5), true),
        ] {
            assert_eq!(narrows(&next, &sample()), expected, "{next:?}");
        }
        assert!(!narrows(&sample(), &circle(5)) && !narrows(&circle(4), &circle(5)));
    }
}
