//! An opened token, floor 2: [`Token`] and how it signs a batch.
//!
//! A batch is cut into runs, which the caller and helping threads sign in
//! parallel, one session each. A batch of one is signed where the caller stands.

use std::fmt;
use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, Ordering};

use cryptoki::mechanism::MechanismType;
use fob_verify::{Algorithm, IssuerKey};
use secrecy::SecretString;

use super::batch::Batch;
use super::module::Module;
use super::recover::LinkState;
use super::session::Link;
use super::threads::Helpers;
use super::{
    GeneratedKey, HsmError, KeyAttributes, KeyRef, Signature, Signer, TokenConfig, TokenKey,
    TokenStatus, keys,
};

/// A token this process has logged in to.
///
/// Dropping it closes its sessions. It never logs out: the login is the whole
/// process's, and ends with the last session of the token.
pub struct Token {
    pub(super) module: &'static Module,
    pub(super) config: TokenConfig,
    /// Kept to log in again when sessions are lost.
    pub(super) pin: SecretString,
    /// Read while signing, written only to renew the sessions: who holds the
    /// write lock knows that no session is in use.
    pub(super) state: RwLock<LinkState>,
    /// One for every session but the one the caller uses; none where that is all.
    helpers: Option<Helpers>,
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
    /// [`HsmError::PinWrong`] after the one attempt that is made;
    /// [`HsmError::TokenNotFound`], [`HsmError::TokenAmbiguous`],
    /// [`HsmError::SessionsExhausted`] and others, each saying what to do.
    pub fn open(config: TokenConfig, pin: SecretString) -> Result<Self, HsmError> {
        let module = Module::load(&config.module)?;
        let link = Link::open(module, &config, &pin)?;
        let helpers = if link.lanes > 1 {
            Some(Helpers::start(link.lanes - 1)?)
        } else {
            None
        };
        tracing::info!(
            label = link.info.label(),
            serial = link.info.serial_number(),
            sessions = link.lanes,
            "token opened"
        );
        Ok(Self {
            module,
            config,
            pin,
            state: RwLock::new(LinkState::up(link)),
            helpers,
            signatures: AtomicU64::new(0),
            reconnects: AtomicU64::new(0),
        })
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
        self.with_link(|link| {
            link.check_alive()?;
            let offered = link.module.pkcs11.get_mechanism_list(link.slot)?;
            for (mechanism, name) in keys::mechanisms(algorithm) {
                if !offered.contains(&mechanism) {
                    return Err(HsmError::MechanismMissing {
                        label: self.config.label.clone(),
                        mechanism: name,
                    });
                }
            }
            let _objects = link.module.lock_objects();
            keys::generate(&link.admin_session()?, algorithm, label)
        })
    }

    /// The public half of a key in the token.
    ///
    /// # Errors
    ///
    /// [`HsmError::PublicKeyUnreadable`] when there is none, or none we can read.
    pub fn public_key(&self, key: &KeyRef) -> Result<IssuerKey, HsmError> {
        self.with_link(|link| {
            let _objects = link.module.lock_objects();
            keys::public_key(&link.admin_session()?, key)
        })
    }

    /// What the token says of a private key, good or not.
    ///
    /// # Errors
    ///
    /// [`HsmError::KeyNotFound`] when it is not there.
    pub fn key_attributes(&self, key: &KeyRef) -> Result<KeyAttributes, HsmError> {
        self.with_link(|link| {
            let _objects = link.module.lock_objects();
            let session = link.admin_session()?;
            KeyAttributes::read(&session, keys::find_private(&session, key)?)
        })
    }

    /// Every private key in the token, foreign ones included.
    ///
    /// # Errors
    ///
    /// When the token cannot be reached or its objects cannot be read.
    pub fn keys(&self) -> Result<Vec<TokenKey>, HsmError> {
        self.with_link(|link| {
            let _objects = link.module.lock_objects();
            keys::list(&link.admin_session()?)
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
        self.with_idle_link(|link| {
            link.with_every_lane(|link, lane| lane.open_key(link, key).map(drop))
        })
    }

    /// Drops what the sessions keep of `key`, copies included: when its epoch retires.
    ///
    /// # Errors
    ///
    /// When the token cannot be reached.
    pub fn forget_key(&self, key: &KeyRef) -> Result<(), HsmError> {
        self.with_idle_link(|link| {
            let _objects = link.module.lock_objects();
            link.with_every_lane(|_, lane| {
                lane.forget(key);
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
        self.with_idle_link(|link| {
            let _objects = link.module.lock_objects();
            link.with_every_lane(|_, lane| {
                lane.forget(key);
                Ok(())
            })?;
            keys::destroy(&link.admin_session()?, key)
        })
    }

    /// Signatures given out since the token was opened.
    pub fn signatures(&self) -> u64 {
        self.signatures.load(Ordering::Relaxed)
    }

    fn sign_batch(
        &self,
        link: &Link,
        key: &KeyRef,
        messages: &[&[u8]],
    ) -> Result<Vec<Signature>, HsmError> {
        let mut signatures = vec![[0; 64]; messages.len()];
        let batch = Batch::new(key, messages, &mut signatures, link.lanes);
        match &self.helpers {
            Some(helpers) if batch.runs() > 1 => {
                helpers.work_along(batch.runs() - 1, || batch.work(link))
            }
            _ => batch.work(link),
        }
        batch.outcome()?;
        Ok(signatures)
    }
}

impl Signer for Token {
    fn sign_all(&self, key: &KeyRef, messages: &[&[u8]]) -> Result<Vec<Signature>, HsmError> {
        if messages.is_empty() {
            return Ok(Vec::new());
        }
        let signatures = self.with_link(|link| self.sign_batch(link, key, messages))?;
        self.signatures
            .fetch_add(signatures.len() as u64, Ordering::Relaxed);
        Ok(signatures)
    }

    fn status(&self) -> TokenStatus {
        let checked = self.with_link(|link| {
            link.check_alive()?;
            let offered = link.module.pkcs11.get_mechanism_list(link.slot)?;
            Ok(self.status_of(link, &offered))
        });
        checked.unwrap_or_else(|error| self.status_down(&error))
    }
}

impl Token {
    fn status_of(&self, link: &Link, offered: &[MechanismType]) -> TokenStatus {
        let offers = |algorithm| {
            keys::mechanisms(algorithm)
                .iter()
                .all(|(mechanism, _)| offered.contains(mechanism))
        };
        TokenStatus {
            up: true,
            serial: link.info.serial_number().to_owned(),
            manufacturer: link.info.manufacturer_id().to_owned(),
            model: link.info.model().to_owned(),
            sessions: link.lanes,
            session_key_copies: link.copies.on(),
            bare_calls: link.bare.is_some(),
            p256: offers(Algorithm::Es256),
            ed25519: offers(Algorithm::Ed25519),
            ..self.status_base()
        }
    }

    fn status_down(&self, error: &HsmError) -> TokenStatus {
        TokenStatus {
            problem: Some(error.to_string()),
            ..self.status_base()
        }
    }

    fn status_base(&self) -> TokenStatus {
        let library = self.module.info.as_ref().map_or_else(String::new, |info| {
            format!(
                "{} {} {}",
                info.manufacturer_id(),
                info.library_description(),
                info.library_version()
            )
        });
        TokenStatus {
            up: false,
            problem: None,
            module: self.config.module.clone(),
            library,
            label: self.config.label.clone(),
            serial: self.config.serial.clone().unwrap_or_default(),
            manufacturer: String::new(),
            model: String::new(),
            sessions: 0,
            session_key_copies: false,
            bare_calls: false,
            p256: false,
            ed25519: false,
            signatures: self.signatures(),
            reconnects: self.reconnects.load(Ordering::Relaxed),
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
