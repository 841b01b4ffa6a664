//! The domain's words as the small numbers rows keep: floor 2, `store/encoding`. A number once given
//! keeps its meaning.

use super::corrupt;
use crate::domain::{AuthorizationState, EpochState, Hold, Signing, Status};
use crate::store::StoreError;

pub(in crate::store) const ACTIVE: i64 = 0;
pub(in crate::store) const OPEN: i64 = 0;
pub(in crate::store) const REDEEMED: i64 = 1;
pub(in crate::store) const EPOCH_REVOKED: i64 = 3;
pub(in crate::store) const KEY_REVOKED: i64 = 1;
pub(in crate::store) const KEY_SUSPENDED: i64 = 2;

pub(in crate::store) fn status(status: Status) -> i64 {
    match status {
        Status::Active => ACTIVE,
        Status::Suspended => 1,
    }
}

pub(in crate::store) fn read_status(number: i64) -> Result<Status, StoreError> {
    match number {
        ACTIVE => Ok(Status::Active),
        1 => Ok(Status::Suspended),
        _ => Err(corrupt("an unknown status")),
    }
}

pub(in crate::store) fn hold(hold: Hold) -> i64 {
    match hold {
        Hold::Payment => 1,
        Hold::Insurance => 2,
    }
}

pub(in crate::store) fn read_hold(number: i64) -> Result<Hold, StoreError> {
    let known = Hold::ALL.into_iter().find(|known| hold(*known) == number);
    known.ok_or_else(|| corrupt("an unknown hold"))
}

pub(in crate::store) fn state(state: AuthorizationState) -> i64 {
    match state {
        AuthorizationState::Open => OPEN,
        AuthorizationState::Redeemed => REDEEMED,
        AuthorizationState::Suspended => 2,
        AuthorizationState::Cancelled => 3,
    }
}

pub(in crate::store) fn read_state(number: i64) -> Result<AuthorizationState, StoreError> {
    let known = AuthorizationState::ALL
        .into_iter()
        .find(|known| state(*known) == number);
    known.ok_or_else(|| corrupt("an unknown state of an authorization"))
}

pub(in crate::store) fn epoch_state(state: EpochState) -> i64 {
    match state {
        EpochState::Prepared => 0,
        EpochState::Active => 1,
        EpochState::Retired => 2,
        EpochState::Revoked => EPOCH_REVOKED,
    }
}

pub(in crate::store) fn read_epoch_state(number: i64) -> Result<EpochState, StoreError> {
    let known = EpochState::ALL
        .into_iter()
        .find(|known| epoch_state(*known) == number);
    known.ok_or_else(|| corrupt("an unknown state of an epoch"))
}

pub(in crate::store) fn signing(signing: Signing) -> u8 {
    match signing {
        Signing::Each => 0,
        Signing::Auto => 1,
        Signing::Tree => 2,
    }
}

pub(in crate::store) fn read_signing(number: u8) -> Result<Signing, StoreError> {
    let known = Signing::ALL
        .into_iter()
        .find(|known| signing(*known) == number);
    known.ok_or_else(|| corrupt("an unknown way of signing"))
}
