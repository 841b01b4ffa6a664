//! Sessions and the login they share, floor 2.

use cryptoki::error::{Error, RvError};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::{Slot, TokenInfo};

use super::module::Instance;
use super::pin::Pin;
use super::{HsmError, Profile};

/// A session to sign in: one that cannot change the token, where there is such a kind.
pub(super) fn open_session(
    instance: &Instance,
    profile: &Profile,
    slot: Slot,
) -> Result<Session, HsmError> {
    let opened = if profile.read_only_sessions {
        instance.pkcs11.open_ro_session(slot)
    } else {
        instance.pkcs11.open_rw_session(slot)
    };
    Ok(opened?)
}

/// Already logged in is success: the login belongs to the process, not to the session.
pub(super) fn log_in(
    session: &Session,
    info: &TokenInfo,
    profile: &Profile,
    pin: &Pin,
) -> Result<(), HsmError> {
    let label = || info.label().to_owned();
    let unusable = |state| HsmError::PinUnusable {
        label: label(),
        state,
    };
    if info.user_pin_locked() {
        return Err(unusable("locked"));
    }
    if !info.user_pin_initialized() {
        return Err(unusable("not set"));
    }
    pin.check_not_refused(info)?;
    if let Some(reason) = profile.pins.offence(pin.secret()) {
        return Err(HsmError::Setting {
            key: "pin_file",
            reason: reason.to_owned(),
        });
    }
    match session.login(UserType::User, Some(pin.secret())) {
        Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
        Err(Error::Pkcs11(
            RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange,
            _,
        )) => {
            pin.remember_refused(info);
            Err(HsmError::PinWrong { label: label() })
        }
        Err(Error::Pkcs11(RvError::PinLocked, _)) => Err(unusable("locked")),
        Err(Error::Pkcs11(RvError::PinExpired, _)) => Err(unusable("expired")),
        Err(Error::Pkcs11(RvError::UserPinNotInitialized, _)) => Err(unusable("not set")),
        Err(other) => Err(other.into()),
    }
}
