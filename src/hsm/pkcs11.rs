//! An opened token, floor 2: [`Token`] and how it signs a batch.
//!
//! No thread of a caller ever enters the module: batches are signed by the crew,
//! and everything else is done in a thread of its own, so that a call that does
//! not return costs its caller no more than the time it may take.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use fob_verify::{Algorithm, IssuerKey};
use secrecy::SecretString;

use super::park::{Call, Parking};
use super::pin::Pin;
use super::recover::{LinkState, PARKED_MAX, Up};
use super::session::Link;
use super::{
    GeneratedKey, HsmError, KeyAttributes, KeyRef, Parked, Signature, Signer, TokenConfig,
    TokenKey, TokenStatus, keys,
};

/// How many times longer than a call opening a token may take at the start:
/// loading a library may be slow.
const CALLS_TO_OPEN: u32 = 5;

/// The same for what an operator does: some HSMs take long to make a key.
const CALLS_TO_CHANGE: u32 = 10;

/// A token this process has logged in to.
///
/// Dropping it closes its sessions. It never logs out: the login is the whole
/// process's, and ends with the last session of the token.
pub struct Token {
    pub(super) config: TokenConfig,
    /// Kept to log in again when sessions are lost.
    pub(super) pin: Arc<Pin>,
    /// Read while signing, written only to renew the sessions: who holds the
    /// write lock knows that nobody waits for a signature.
    pub(super) state: RwLock<LinkState>,
    /// Threads inside overdue calls.
    pub(super) parking: Parking,
    /// Opening new sessions is overdue. Only read to be told, orders nothing.
    pub(super) overdue: AtomicBool,
    /// Signatures given out. Only counted, orders nothing.
    signatures: AtomicU64,
    /// Times the sessions were renewed. Only counted, orders nothing.
    pub(super) reconnects: AtomicU64,
}

impl Token {
    /// Finds the token by label and serial, logs in and opens its sessions.
    ///
    /// # Errors
    ///
    /// [`HsmError::PinWrong`] after the one attempt that is made, or
    /// [`HsmError::PinRefusedBefore`] without one;
    /// [`HsmError::TokenNotFound`], [`HsmError::TokenAmbiguous`],
    /// [`HsmError::SessionsExhausted`] and others, each saying what to do.
    pub fn open(config: TokenConfig, pin: SecretString) -> Result<Self, HsmError> {
        let mut token = Self::closed(config, pin);
        let (config, pin) = (token.config.clone(), Arc::clone(&token.pin));
        let (parking, patience) = (token.parking.clone(), config.call_timeout * CALLS_TO_OPEN);
        let label = config.label.clone();
        let open = move || Up::open(&config, &pin, &parking);
        let up = Call::start(&token.parking, open)?
            .wait(patience)
            .unwrap_or_else(|late| Err(late.error(&label, patience)))?;
        tracing::info!(
            label,
            serial = up.link.info.serial_number(),
            sessions = up.link.lanes,
            "token opened"
        );
        token.state = RwLock::new(LinkState::new(Ok(up)));
        Ok(token)
    }

    /// The token without sessions: the first use opens them. For one that cannot
    /// be reached yet, beside others that can.
    pub fn closed(config: TokenConfig, pin: SecretString) -> Self {
        let none = HsmError::TokenNotFound {
            label: config.label.clone(),
            serial: config.serial.clone(),
            seen: Vec::new(),
        };
        Self {
            pin: Arc::new(Pin::new(pin, config.refused_pins.clone())),
            config,
            state: RwLock::new(LinkState::new(Err(none))),
            parking: Parking::default(),
            overdue: AtomicBool::new(false),
            signatures: AtomicU64::new(0),
            reconnects: AtomicU64::new(0),
        }
    }

    /// Generates a key pair in the token, under a new random `CKA_ID`, and reads
    /// it back. `label` is for people who look into the token with other tools.
    ///
    /// # Errors
    ///
    /// [`HsmError::MechanismMissing`] where the token cannot;
    /// [`HsmError::AttributeRefused`] when the token says of the new key that it
    /// could leave or do more than sign: the key is destroyed again. If the
    /// error [`HsmError::may_have_happened`], a key nobody uses may remain.
    pub fn generate_key_pair(
        &self,
        algorithm: Algorithm,
        label: &str,
    ) -> Result<GeneratedKey, HsmError> {
        let (token, name) = (self.config.label.clone(), label.to_owned());
        let generate = move |link: &Link| {
            link.check_alive()?;
            let offered = link.instance.pkcs11.get_mechanism_list(link.slot)?;
            for (mechanism, name) in keys::mechanisms(algorithm) {
                if !offered.contains(&mechanism) {
                    return Err(HsmError::MechanismMissing {
                        label: token.clone(),
                        mechanism: name,
                    });
                }
            }
            let _objects = link.instance.lock_objects();
            keys::generate(&link.admin_session()?, link.profile, algorithm, &name)
        };
        self.with_link(CALLS_TO_CHANGE, generate)
            .map_err(stuck_in_a_change)
    }

    /// The public half of a key in the token.
    ///
    /// # Errors
    ///
    /// [`HsmError::PublicKeyUnreadable`] when there is none, or none we can read.
    pub fn public_key(&self, key: &KeyRef) -> Result<IssuerKey, HsmError> {
        let key = *key;
        self.with_link(1, move |link| {
            let _objects = link.instance.lock_objects();
            keys::public_key(&link.admin_session()?, link.profile, &key)
        })
    }

    /// What the token says of a private key, good or not.
    ///
    /// # Errors
    ///
    /// [`HsmError::KeyNotFound`] when it is not there.
    pub fn key_attributes(&self, key: &KeyRef) -> Result<KeyAttributes, HsmError> {
        let key = *key;
        self.with_link(1, move |link| {
            let _objects = link.instance.lock_objects();
            let session = link.admin_session()?;
            let private = keys::find_private(&session, &key)?;
            KeyAttributes::read(&session, link.profile, private)
        })
    }

    /// Every private key in the token, foreign ones included.
    ///
    /// # Errors
    ///
    /// When the token cannot be reached or its objects cannot be read.
    pub fn keys(&self) -> Result<Vec<TokenKey>, HsmError> {
        self.with_link(CALLS_TO_OPEN, |link| {
            let _objects = link.instance.lock_objects();
            keys::list(&link.admin_session()?, link.profile)
        })
    }

    /// Opens `key` in every session now, attributes checked, so that the first
    /// batch does not have to: at start, and before an epoch becomes active.
    ///
    /// # Errors
    ///
    /// [`HsmError::AttributeRefused`], [`HsmError::KeyNotFound`],
    /// [`HsmError::KeyKind`] and the others of the first use of a key.
    pub fn prepare_key(&self, key: &KeyRef) -> Result<(), HsmError> {
        let key = *key;
        self.with_link(CALLS_TO_OPEN, move |link| {
            link.with_every_lane(|link, lane| lane.open_key(link, &key).map(drop))
        })
    }

    /// Drops what the sessions keep of `key`, copies included: when its epoch retires.
    ///
    /// # Errors
    ///
    /// When the token cannot be reached.
    pub fn forget_key(&self, key: &KeyRef) -> Result<(), HsmError> {
        let key = *key;
        self.with_link(CALLS_TO_OPEN, move |link| {
            link.with_every_lane(|link, lane| {
                let _objects = link.instance.lock_objects();
                lane.forget(&key);
                Ok(())
            })
        })
    }

    /// Destroys a key pair in the token, for good. No session keeps a copy.
    ///
    /// # Errors
    ///
    /// [`HsmError::KeyNotFound`] when it is not there. If the error
    /// [`HsmError::may_have_happened`], look again.
    pub fn destroy_key(&self, key: &KeyRef) -> Result<(), HsmError> {
        let key = *key;
        let destroy = move |link: &Link| {
            link.with_every_lane(|link, lane| {
                let _objects = link.instance.lock_objects();
                lane.forget(&key);
                Ok(())
            })?;
            let _objects = link.instance.lock_objects();
            keys::destroy(&link.admin_session()?, &key)
        };
        self.with_link(CALLS_TO_CHANGE, destroy)
            .map_err(stuck_in_a_change)
    }

    /// The token's label, as configured.
    pub fn label(&self) -> &str {
        &self.config.label
    }

    /// Signatures given out since the token was opened.
    pub fn signatures(&self) -> u64 {
        self.signatures.load(Ordering::Relaxed)
    }

    fn sign_batch(
        &self,
        up: &Up,
        key: &KeyRef,
        messages: &[&[u8]],
    ) -> Result<Vec<Signature>, HsmError> {
        match up.crew.sign(&up.link, key, messages) {
            // Some sessions do not come back; the others sign it.
            Err(HsmError::Stuck { .. }) if !up.crew.all_parked() => {
                up.crew.sign(&up.link, key, messages)
            }
            done => done,
        }
    }
}

/// A change that has not come back may have happened.
fn stuck_in_a_change(error: HsmError) -> HsmError {
    if matches!(error, HsmError::Stuck { .. }) {
        error.after_change()
    } else {
        error
    }
}

impl Signer for Token {
    fn sign_all(&self, key: &KeyRef, messages: &[&[u8]]) -> Result<Vec<Signature>, HsmError> {
        if messages.is_empty() {
            return Ok(Vec::new());
        }
        let signatures = self.with_up(|up| self.sign_batch(up, key, messages))?;
        self.signatures
            .fetch_add(signatures.len() as u64, Ordering::Relaxed);
        Ok(signatures)
    }

    fn prepare_key(&self, key: &KeyRef) -> Result<(), HsmError> {
        Token::prepare_key(self, key)
    }

    fn parked(&self) -> Parked {
        Parked {
            threads: self.parking.count(),
            all: self.overdue.load(Ordering::Relaxed) || self.parking.count() >= PARKED_MAX,
        }
    }

    /// Closing sessions may hang like any other call, so it is not waited for longer.
    fn close(&self) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let Some(up) = state.take() else {
            return;
        };
        drop(state);
        let closed = Call::start(&self.parking, move || drop(up))
            .map(|call| call.wait(self.config.call_timeout).is_ok());
        if closed != Ok(true) {
            tracing::warn!(
                label = self.config.label,
                "the token's sessions do not close"
            );
        }
    }

    fn status(&self) -> TokenStatus {
        let checked = self.with_link(CALLS_TO_OPEN, |link| {
            link.check_alive()?;
            let offered = link.instance.pkcs11.get_mechanism_list(link.slot)?;
            let _objects = link.instance.lock_objects();
            Ok(TokenStatus {
                keys: keys::list(&link.admin_session()?, link.profile)?,
                ..TokenStatus::of(link, &offered)
            })
        });
        let status = checked.unwrap_or_else(|error| TokenStatus {
            problem: Some(error.to_string()),
            serial: self.config.serial.clone().unwrap_or_default(),
            ..TokenStatus::default()
        });
        TokenStatus {
            module: self.config.module.clone(),
            label: self.config.label.clone(),
            signatures: self.signatures(),
            reconnects: self.reconnects.load(Ordering::Relaxed),
            parked_threads: self.parking.count(),
            ..status
        }
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        Signer::close(self);
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
