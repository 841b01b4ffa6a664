//! The domain's words as the small numbers rows keep: floor 2, `store/sqlite`. A number once given
//! keeps its meaning.

use super::error::corrupt;
use crate::domain::{AuthorizationState, EpochState, Hold, Signing, Status};
use crate::store::StoreError;

pub(super) const ACTIVE: i64 = 0;
pub(super) const OPEN: i64 = 0;
pub(super) const REDEEMED: i64 = 1;
pub(super) const EPOCH_REVOKED: i64 = 3;

pub(super) fn status(status: Status) -> i64 {
    match status {
        Status::Active => ACTIVE,
        Status::Suspended => 1,
    }
}

pub(super) fn read_status(number: i64) -> Result<Status, StoreError> {
    match number {
        ACTIVE => Ok(Status::Active),
        1 => Ok(Status::Suspended),
        _ => Err(corrupt("an unknown status")),
    }
}

pub(super) fn hold(hold: Hold) -> i64 {
    match hold {
        Hold::Payment => 1,
        Hold::Insurance => 2,
    }
}

pub(super) fn read_hold(number: i64) -> Result<Hold, StoreError> {
    let known = Hold::ALL.into_iter().find(|known| hold(*known) == number);
    known.ok_or_else(|| corrupt("an unknown hold"))
}

pub(super) fn state(state: AuthorizationState) -> i64 {
    match state {
        AuthorizationState::Open => OPEN,
        AuthorizationState::Redeemed => REDEEMED,
        AuthorizationState::Suspended => 2,
        AuthorizationState::Cancelled => 3,
    }
}

pub(super) fn read_state(number: i64) -> Result<AuthorizationState, StoreError> {
    let known = AuthorizationState::ALL
        .into_iter()
        .find(|known| state(*known) == number);
    known.ok_or_else(|| corrupt("an unknown state of an authorization"))
}

pub(super) fn epoch_state(state: EpochState) -> i64 {
    match state {
        EpochState::Prepared => 0,
        EpochState::Active => 1,
        EpochState::Retired => 2,
        EpochState::Revoked => EPOCH_REVOKED,
    }
}

pub(super) fn read_epoch_state(number: i64) -> Result<EpochState, StoreError> {
    let known = EpochState::ALL
        .into_iter()
        .find(|known| epoch_state(*known) == number);
    known.ok_or_else(|| corrupt("an unknown state of an epoch"))
}

pub(super) fn signing(signing: Signing) -> u8 {
    match signing {
        Signing::Each => 0,
        Signing::Auto => 1,
        Signing::Tree => 2,
    }
}

pub(super) fn read_signing(number: u8) -> Result<Signing, StoreError> {
    let known = Signing::ALL
        .into_iter()
        .find(|known| signing(*known) == number);
    known.ok_or_else(|| corrupt("an unknown way of signing"))
}
