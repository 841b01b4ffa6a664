//! What can go wrong with an HSM, floor 2: one enum for the whole floor.
//!
//! Every message says what to do about it. No PIN, no key material and no
//! message to be signed is ever part of an error.

use std::path::PathBuf;

use cryptoki::error::{Error as CryptokiError, RvError};

use super::codes::{self, Remedy};

/// An error of the HSM floor, comparable in tests.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HsmError {
    /// The PKCS#11 library cannot be loaded or initialised.
    #[error(
        "cannot use the PKCS#11 module {module}: {reason}; check `module` in the configuration"
    )]
    ModuleUnusable {
        /// The library's path as configured.
        module: PathBuf,
        /// What the loader or the library said.
        reason: String,
    },
    /// SoftHSM's configuration or token directory cannot be written.
    #[error(
        "cannot write SoftHSM's files at {path}: {reason}; check owner and rights of that directory"
    )]
    SoftHsmFiles {
        /// The file or directory concerned.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// A PIN file cannot be read or written, or holds no PIN.
    #[error("cannot use the PIN file {path}: {reason}")]
    PinFile {
        /// The PIN file.
        path: PathBuf,
        /// What is wrong with it; never its content.
        reason: String,
    },
    /// A setting is out of its bounds.
    #[error("`{key}` is not usable: {reason}")]
    Setting {
        /// The key in the configuration.
        key: &'static str,
        /// What is expected.
        reason: String,
    },
    /// No initialised token has that label (and serial).
    #[error(
        "no token labelled {label:?}{} in this module (it has: {}); check `label` and `serial`, or whether the HSM is connected",
        serial.as_ref().map(|s| format!(" with serial {s:?}")).unwrap_or_default(),
        if seen.is_empty() { "none".to_owned() } else { seen.join(", ") }
    )]
    TokenNotFound {
        /// The label looked for.
        label: String,
        /// The serial looked for, if one was given.
        serial: Option<String>,
        /// Label and serial of every initialised token that was found instead.
        seen: Vec<String>,
    },
    /// Several tokens have that label.
    #[error("several tokens are labelled {label:?} (serials: {}); set `serial`", serials.join(", "))]
    TokenAmbiguous {
        /// The label looked for.
        label: String,
        /// Their serials.
        serials: Vec<String>,
    },
    /// A token to be initialised would share its label with an existing one.
    #[error(
        "a token labelled {label:?} exists already; choose another label, or use that token as it is"
    )]
    TokenExists {
        /// The label asked for.
        label: String,
    },
    /// The module offers no slot with an uninitialised token.
    #[error("this module has no uninitialised token; create or clear one with the HSM's own tools")]
    NoFreeSlot,
    /// The module leaves it to other tools to make tokens.
    #[error("this module makes no token: {by}; then name the token and its PIN file")]
    TokensMadeElsewhere {
        /// Which tools.
        by: &'static str,
    },
    /// The token refused the user PIN. It was tried once and will not be again.
    #[error(
        "the token {label:?} refused the user PIN; it was tried once and is not tried again: correct `pin_file` and restart"
    )]
    PinWrong {
        /// The token's label.
        label: String,
    },
    /// The token refused this very PIN earlier, so it was not tried now.
    #[error(
        "the token {label:?} has refused this user PIN before, and it was not tried again: correct `pin_file`; if the PIN is right by now, remove {} first",
        memory.display()
    )]
    PinRefusedBefore {
        /// The token's label.
        label: String,
        /// Where it is remembered.
        memory: PathBuf,
    },
    /// The user PIN is locked after too many wrong ones, or was never set.
    #[error("the user PIN of the token {label:?} is {state}; set it anew as security officer")]
    PinUnusable {
        /// The token's label.
        label: String,
        /// `locked`, `expired` or `not set`.
        state: &'static str,
    },
    /// The token lacks a mechanism that is needed.
    #[error("the token {label:?} does not offer {mechanism}; use another algorithm or another HSM")]
    MechanismMissing {
        /// The token's label.
        label: String,
        /// The mechanism's name in PKCS#11.
        mechanism: &'static str,
    },
    /// No private key has that `CKA_ID`.
    #[error(
        "the token holds no private key with id {id}; is it the token this data was made with?"
    )]
    KeyNotFound {
        /// The `CKA_ID` in hex.
        id: String,
    },
    /// Several private keys share that `CKA_ID`.
    #[error(
        "the token holds several private keys with id {id}; remove or renumber the foreign ones"
    )]
    KeyAmbiguous {
        /// The `CKA_ID` in hex.
        id: String,
    },
    /// The key is of another kind than the algorithm needs.
    #[error(
        "the key {id} does not fit the algorithm asked for; this data belongs to another token"
    )]
    KeyKind {
        /// The `CKA_ID` in hex.
        id: String,
    },
    /// The token says something of a key that an issuing key must not be.
    #[error(
        "the key {id} is refused: the token says {attribute} = {found}; a key that can leave its token or do more than sign is never used"
    )]
    AttributeRefused {
        /// The `CKA_ID` in hex.
        id: String,
        /// The offending attribute's name in PKCS#11.
        attribute: &'static str,
        /// `true`, `false`, or `(not given)`.
        found: &'static str,
    },
    /// The public half is missing, or its point is in no form we know.
    #[error(
        "the public key of {id} cannot be read: {reason}; this HSM's key objects are not usable here"
    )]
    PublicKeyUnreadable {
        /// The `CKA_ID` in hex.
        id: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A signature is not what the algorithm makes, or does not verify.
    #[error(
        "the token made a signature that is not valid ({reason}); take this HSM out of service"
    )]
    SignatureInvalid {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// `session_key_copy = "on"`, and the token does not copy keys into sessions.
    #[error(
        "the token does not make session copies of its keys ({code}); set `session_key_copy` to \"auto\" or \"off\""
    )]
    CopyRefused {
        /// The return value of `C_CopyObject`.
        code: String,
    },
    /// The token has fewer sessions to give than configured.
    #[error(
        "the token gave {opened} of {wanted} sessions; lower `sessions`, or end other users of this token"
    )]
    SessionsExhausted {
        /// Sessions that could be opened.
        opened: usize,
        /// Sessions that were asked for.
        wanted: usize,
    },
    /// Sessions, login or device are gone, and one reconnect did not help.
    #[error("the HSM is not reachable ({call}: {code}); it is tried again with the next batch")]
    Lost {
        /// The PKCS#11 call that failed.
        call: String,
        /// Its return value.
        code: String,
        /// What helps.
        remedy: Remedy,
        /// Whether the token's contents may have changed nevertheless.
        may_have_happened: bool,
    },
    /// A call has not returned in time. Its thread is still in it.
    #[error(
        "a call into the HSM did not return within {waited_ms} ms; its thread is left to wait, and the token {label:?} is tried again"
    )]
    Stuck {
        /// The token's label.
        label: String,
        /// How long it was waited for.
        waited_ms: u64,
        /// Whether the token's contents may change nevertheless.
        may_have_happened: bool,
    },
    /// Any other return value of the token.
    #[error("the token answered {code} to {call}; see the HSM's own log")]
    Failed {
        /// The PKCS#11 call that failed.
        call: String,
        /// Its return value.
        code: String,
        /// Whether the very same call may succeed later.
        transient: bool,
        /// Whether the token's contents may have changed nevertheless.
        may_have_happened: bool,
    },
    /// The operating system refused something (threads, random numbers).
    #[error("the system refused {what}; check its limits")]
    System {
        /// What was asked of it.
        what: &'static str,
    },
}

impl HsmError {
    /// Is it temporary: may the very same call succeed later, with nothing changed?
    pub fn retryable(&self) -> bool {
        match self {
            Self::Lost { .. }
            | Self::Stuck { .. }
            | Self::SessionsExhausted { .. }
            | Self::TokenNotFound { .. } => true,
            Self::Failed { transient, .. } => *transient,
            _ => false,
        }
    }

    /// Is it about a PIN that must not be tried again?
    pub fn pin_refused(&self) -> bool {
        matches!(
            self,
            Self::PinWrong { .. } | Self::PinRefusedBefore { .. } | Self::PinUnusable { .. }
        )
    }

    /// May the token hold something new, or something less, despite the error?
    ///
    /// Signing changes nothing in a token, so only generating, destroying and
    /// initialising ever answer true. Then look before doing it again.
    pub fn may_have_happened(&self) -> bool {
        match self {
            Self::Lost {
                may_have_happened, ..
            }
            | Self::Stuck {
                may_have_happened, ..
            }
            | Self::Failed {
                may_have_happened, ..
            } => *may_have_happened,
            _ => false,
        }
    }

    /// The same error, after a call that may have changed the token.
    pub(super) fn after_change(mut self) -> Self {
        if let Self::Lost {
            may_have_happened, ..
        }
        | Self::Stuck {
            may_have_happened, ..
        }
        | Self::Failed {
            may_have_happened, ..
        } = &mut self
        {
            *may_have_happened = true;
        }
        self
    }

    /// Are the sessions or the login gone, so that reconnecting may help?
    pub(super) fn lost(&self) -> bool {
        matches!(self, Self::Lost { .. })
    }

    /// That sessions cannot be opened: may it be for a module that has lost its
    /// far end? It then shows no tokens, or fails every call.
    pub(super) fn may_be_the_module(&self) -> bool {
        self.lost() || matches!(self, Self::TokenNotFound { .. } | Self::Stuck { .. })
    }

    /// Is only the module itself to blame, so that opening sessions in it is no use?
    pub(super) fn needs_reload(&self) -> bool {
        matches!(
            self,
            Self::Stuck { .. }
                | Self::Lost {
                    remedy: Remedy::ReloadModule,
                    ..
                }
        )
    }
}

impl From<CryptokiError> for HsmError {
    fn from(error: CryptokiError) -> Self {
        match error {
            CryptokiError::Pkcs11(code, function) => failed(format!("C_{function:?}"), code),
            other => Self::Failed {
                call: "the PKCS#11 binding".to_owned(),
                code: other.to_string(),
                transient: false,
                may_have_happened: false,
            },
        }
    }
}

/// Sorts a return value of `call` into lost and failed.
pub(super) fn failed(call: String, code: RvError) -> HsmError {
    let remedy = codes::remedy(code);
    let code = format!("{code:?}");
    let may_have_happened = false;
    if remedy.renews() {
        HsmError::Lost {
            call,
            code,
            remedy,
            may_have_happened,
        }
    } else {
        HsmError::Failed {
            call,
            code,
            transient: remedy == Remedy::RetryHere,
            may_have_happened,
        }
    }
}

#[cfg(test)]
mod tests {
    use cryptoki::context::Function;

    use super::*;

    fn of(code: RvError) -> HsmError {
        CryptokiError::Pkcs11(code, Function::Sign).into()
    }

    #[test]
    fn lost_sessions_are_retryable_and_change_nothing() {
        for code in [
            RvError::SessionHandleInvalid,
            RvError::UserNotLoggedIn,
            RvError::DeviceRemoved,
        ] {
            let error = of(code);
            assert!(
                error.lost() && error.retryable() && !error.may_have_happened(),
                "{error:?}"
            );
        }
    }

    #[test]
    fn a_wrong_argument_is_permanent() {
        let error = of(RvError::ArgumentsBad);
        assert!(!error.lost() && !error.retryable());
        assert_eq!(
            error.to_string(),
            "the token answered ArgumentsBad to C_Sign; see the HSM's own log"
        );
    }

    #[test]
    fn a_change_interrupted_may_have_happened() {
        assert!(
            of(RvError::DeviceRemoved)
                .after_change()
                .may_have_happened()
        );
        assert!(!HsmError::NoFreeSlot.after_change().may_have_happened());
    }
}
