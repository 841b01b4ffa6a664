//! Who keeps issuing keys, floor 2: what the life of epochs needs of tokens beyond signatures.

use std::sync::Arc;

use fob_verify::{Algorithm, IssuerKey};

use super::token::plain;
use super::{GeneratedKey, HsmError, KeyAttributes, KeyRef, Signer, Token, TokenKey};
use crate::domain::record::TokenNote;

/// What a token says of itself. Holds nothing secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenIdentity {
    /// The serial number, which with the label names it.
    pub serial: String,
    /// The label.
    pub label: String,
    /// The maker.
    pub manufacturer: String,
    /// The model.
    pub model: String,
    /// The version of the firmware.
    pub firmware: String,
}

/// As records note it.
impl From<TokenIdentity> for TokenNote {
    fn from(token: TokenIdentity) -> Self {
        Self {
            serial: token.serial,
            label: token.label,
            manufacturer: token.manufacturer,
            model: token.model,
            firmware: token.firmware,
        }
    }
}

/// The issuing tokens: each keeps keys of its own, named by the token's serial number.
///
/// Blocks for as long as the HSM takes, and keeps nobody from signing meanwhile.
pub trait Custody: Send + Sync + 'static {
    /// Every token, in the order of the configuration.
    ///
    /// # Errors
    /// When one cannot be reached.
    fn tokens(&self) -> Result<Vec<TokenIdentity>, HsmError>;

    /// The token of that serial.
    ///
    /// # Errors
    /// When it cannot be reached; [`HsmError::TokenNotFound`] for another serial.
    fn token(&self, serial: &str) -> Result<TokenIdentity, HsmError>;

    /// Who signs with the keys of the token of that serial. A token that is alone is believed to be
    /// the one; whether it holds a key shows when it signs.
    ///
    /// # Errors
    /// As [`Custody::token`].
    fn signer(&self, serial: &str) -> Result<&dyn Signer, HsmError>;

    /// Generates a key pair in the token of that serial, reads it back and tries it.
    ///
    /// # Errors
    /// As [`Token::generate_key_pair`]; [`HsmError::TokenNotFound`] for another serial.
    fn generate(
        &self,
        serial: &str,
        algorithm: Algorithm,
        label: &str,
    ) -> Result<GeneratedKey, HsmError>;

    /// Every private key in the token of that serial, foreign ones included.
    ///
    /// # Errors
    /// When it cannot be reached; [`HsmError::TokenNotFound`] for another serial.
    fn private_keys(&self, serial: &str) -> Result<Vec<TokenKey>, HsmError>;

    /// The public half of a key in the token of that serial, and what the token says of its
    /// private half, which is one that may sign.
    ///
    /// # Errors
    /// [`HsmError::KeyNotFound`], [`HsmError::AttributeRefused`] and others, as for the first use
    /// of a key; [`HsmError::TokenNotFound`] for another serial.
    fn inspect(&self, serial: &str, key: &KeyRef) -> Result<(IssuerKey, KeyAttributes), HsmError>;
}

/// All issuing tokens that keep keys of their own, found by serial number. What holds copies of
/// another's keys is none of them. A token that cannot be reached is an error for what concerns it,
/// and for nothing else.
pub struct Tokens(Vec<Arc<Token>>);

impl Tokens {
    /// These tokens; where there are several, each is configured with its serial number.
    pub fn new(tokens: Vec<Arc<Token>>) -> Self {
        Self(tokens)
    }

    /// Whether somebody else holds one of them too.
    pub fn shared(&self) -> bool {
        self.0.iter().any(|token| Arc::strong_count(token) > 1)
    }

    fn find(&self, serial: &str) -> Result<&Token, HsmError> {
        if let [alone] = &self.0[..] {
            return Ok(alone);
        }
        let named = |token: &&Arc<Token>| token.config.serial.as_deref() == Some(serial);
        let found = self.0.iter().find(named);
        found.map(|token| &**token).ok_or_else(|| {
            let labels: Vec<_> = self.0.iter().map(|token| token.label()).collect();
            let serials = self.0.iter().filter_map(|one| one.config.serial.clone());
            HsmError::TokenNotFound {
                label: labels.join(", "),
                serial: Some(serial.to_owned()),
                seen: serials.collect(),
            }
        })
    }
}

impl Custody for Tokens {
    fn tokens(&self) -> Result<Vec<TokenIdentity>, HsmError> {
        self.0.iter().map(|token| token.identity()).collect()
    }

    fn token(&self, serial: &str) -> Result<TokenIdentity, HsmError> {
        self.find(serial)?.token(serial)
    }

    fn signer(&self, serial: &str) -> Result<&dyn Signer, HsmError> {
        let token = self.find(serial)?;
        if self.0.len() > 1 {
            token.token(serial)?;
        }
        Ok(token)
    }

    fn generate(
        &self,
        serial: &str,
        algorithm: Algorithm,
        label: &str,
    ) -> Result<GeneratedKey, HsmError> {
        self.find(serial)?.generate(serial, algorithm, label)
    }

    fn private_keys(&self, serial: &str) -> Result<Vec<TokenKey>, HsmError> {
        self.find(serial)?.private_keys(serial)
    }

    fn inspect(&self, serial: &str, key: &KeyRef) -> Result<(IssuerKey, KeyAttributes), HsmError> {
        self.find(serial)?.inspect(serial, key)
    }
}

impl Token {
    fn own(&self, serial: &str) -> Result<TokenIdentity, HsmError> {
        let own = self.identity()?;
        if own.serial == serial {
            return Ok(own);
        }
        Err(HsmError::TokenNotFound {
            label: own.label,
            serial: Some(serial.to_owned()),
            seen: vec![own.serial],
        })
    }

    /// What the token says of itself.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub fn identity(&self) -> Result<TokenIdentity, HsmError> {
        self.with_link(1, |link| {
            let firmware = link.info.firmware_version();
            Ok(TokenIdentity {
                serial: plain(link.info.serial_number()),
                label: plain(link.info.label()),
                manufacturer: plain(link.info.manufacturer_id()),
                model: plain(link.info.model()),
                firmware: format!("{}.{}", firmware.major(), firmware.minor()),
            })
        })
    }
}

impl Custody for Token {
    fn tokens(&self) -> Result<Vec<TokenIdentity>, HsmError> {
        Ok(vec![self.identity()?])
    }

    fn token(&self, serial: &str) -> Result<TokenIdentity, HsmError> {
        self.own(serial)
    }

    fn signer(&self, _: &str) -> Result<&dyn Signer, HsmError> {
        Ok(self)
    }

    fn generate(
        &self,
        serial: &str,
        algorithm: Algorithm,
        label: &str,
    ) -> Result<GeneratedKey, HsmError> {
        self.own(serial)?;
        self.generate_key_pair(algorithm, label)
    }

    fn private_keys(&self, serial: &str) -> Result<Vec<TokenKey>, HsmError> {
        self.own(serial)?;
        self.keys()
    }

    fn inspect(&self, serial: &str, key: &KeyRef) -> Result<(IssuerKey, KeyAttributes), HsmError> {
        self.own(serial)?;
        let attributes = self.key_attributes(key)?;
        super::attributes::refuse(&key.id, attributes.offence())?;
        Ok((self.public_key(key)?, attributes))
    }
}
