//! Tokens in a module, floor 2: found by label and serial, never by slot, and
//! initialised where a slot is free.
//!
//! Slot numbers are deliberately not part of any interface: SoftHSM gives a
//! token another one when it is initialised, other modules when they restart.

use cryptoki::context::Pkcs11;
use cryptoki::session::UserType;
use cryptoki::slot::{Slot, TokenInfo};
use secrecy::SecretString;

use super::module::Module;
use super::{HsmError, TokenConfig};

/// The longest token label PKCS#11 can hold, in bytes.
const LABEL_LEN_MAX: usize = 32;

/// An initialised token and where it is at the moment.
pub(super) struct Found {
    pub(super) slot: Slot,
    pub(super) info: TokenInfo,
}

/// The one initialised token with that label, and that serial if one is given.
pub(super) fn find(pkcs11: &Pkcs11, label: &str, serial: Option<&str>) -> Result<Found, HsmError> {
    let tokens = tokens(pkcs11)?;
    let seen = tokens
        .iter()
        .map(|token| {
            let (label, serial) = (plain(token.info.label()), plain(token.info.serial_number()));
            format!("{label:?} serial {serial:?}")
        })
        .collect();
    let mut fitting: Vec<Found> = tokens
        .into_iter()
        .filter(|token| {
            plain(token.info.label()) == label
                && serial.is_none_or(|serial| plain(token.info.serial_number()) == serial)
        })
        .collect();
    match (fitting.pop(), fitting.is_empty()) {
        (Some(token), true) => Ok(token),
        (None, _) => Err(HsmError::TokenNotFound {
            label: label.to_owned(),
            serial: serial.map(str::to_owned),
            seen,
        }),
        (Some(last), false) => Err(HsmError::TokenAmbiguous {
            label: label.to_owned(),
            serials: fitting
                .iter()
                .chain([&last])
                .map(|token| plain(token.info.serial_number()))
                .collect(),
        }),
    }
}

/// Initialises a token of that label in a free slot through PKCS#11 itself and sets
/// its PINs.
/// Returns its serial number, which together with the label names it from now on.
///
/// # Errors
///
/// [`HsmError::TokenExists`] when a token has that label already,
/// [`HsmError::TokensMadeElsewhere`] where the module leaves that to tools of its
/// own, [`HsmError::NoFreeSlot`] when there is nothing to initialise. After an error
/// that [`HsmError::may_have_happened`], a token without a user PIN may remain.
pub fn init_token(
    config: &TokenConfig,
    so_pin: &SecretString,
    user_pin: &SecretString,
) -> Result<String, HsmError> {
    let label = &*config.label;
    check_label(label)?;
    let module = Module::load(config)?;
    if let Some(by) = module.profile.tokens_made_by {
        return Err(HsmError::TokensMadeElsewhere { by });
    }
    let instance = module.instance();
    let _inside = instance.enter();
    let _objects = instance.lock_objects();
    let pkcs11 = &instance.pkcs11;
    if tokens(pkcs11)?
        .iter()
        .any(|token| plain(token.info.label()) == label)
    {
        return Err(HsmError::TokenExists {
            label: label.to_owned(),
        });
    }
    let free = free_slot(pkcs11)?;
    pkcs11
        .init_token(free, so_pin, label)
        .map_err(after_change)?;
    // The slot may have another number by now.
    let token = find(pkcs11, label, None)?;
    let session = pkcs11.open_rw_session(token.slot).map_err(after_change)?;
    session
        .login(UserType::So, Some(so_pin))
        .map_err(after_change)?;
    session.init_pin(user_pin).map_err(after_change)?;
    session.logout().map_err(after_change)?;
    Ok(plain(token.info.serial_number()))
}

/// What a token says of itself, without what it was padded with: blanks as the
/// standard has it, zeros as some have it.
pub(super) fn plain(text: &str) -> String {
    text.trim_end_matches(['\0', ' ']).replace('\0', " ")
}

fn after_change(error: cryptoki::error::Error) -> HsmError {
    HsmError::from(error).after_change()
}

fn check_label(label: &str) -> Result<(), HsmError> {
    let reason = if label.trim().is_empty() {
        "a token needs a name".to_owned()
    } else if label.len() > LABEL_LEN_MAX {
        format!("it is longer than {LABEL_LEN_MAX} bytes")
    } else if label != label.trim_end() {
        "PKCS#11 cannot tell blanks at the end".to_owned()
    } else {
        return Ok(());
    };
    Err(HsmError::Setting {
        key: "label",
        reason,
    })
}

/// Every initialised token of a module. Slots that cannot be read are passed over:
/// a broken card in the next reader must not stop ours.
fn tokens(pkcs11: &Pkcs11) -> Result<Vec<Found>, HsmError> {
    let present = pkcs11.get_slots_with_token()?.into_iter();
    Ok(present
        .filter_map(|slot| match pkcs11.get_token_info(slot) {
            Ok(info) => info.token_initialized().then_some(Found { slot, info }),
            Err(error) => {
                tracing::debug!(%slot, %error, "a slot cannot be read and is passed over");
                None
            }
        })
        .collect())
}

fn free_slot(pkcs11: &Pkcs11) -> Result<Slot, HsmError> {
    let mut present = pkcs11.get_slots_with_token()?.into_iter();
    present
        .find(|slot| {
            pkcs11
                .get_token_info(*slot)
                .is_ok_and(|info| !info.token_initialized())
        })
        .ok_or(HsmError::NoFreeSlot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_not_shown() {
        assert_eq!(plain("SoftHSM v2\0\0\0\0"), "SoftHSM v2");
        assert_eq!(plain("model  "), "model");
        assert_eq!(plain("a\0b\0"), "a b");
    }

    #[test]
    fn labels_that_pkcs11_cannot_hold_are_refused() {
        assert_eq!(check_label("fob-issuing"), Ok(()));
        for wrong in ["", "  ", "fob ", &"x".repeat(33)] {
            assert!(
                matches!(
                    check_label(wrong),
                    Err(HsmError::Setting { key: "label", .. })
                ),
                "{wrong:?}"
            );
        }
    }
}
