//! Who keeps issuing keys, floor 2: what the life of epochs needs of tokens beyond signatures.

use fob_verify::{Algorithm, IssuerKey};

use super::{GeneratedKey, HsmError, KeyAttributes, KeyRef, Signer, Token, TokenKey};

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

/// The issuing tokens: each keeps keys of its own, named by the token's serial number.
///
/// Blocks for as long as the HSM takes, and keeps nobody from signing meanwhile.
pub trait Custody: Signer {
    /// Every token, in the order of the configuration.
    ///
    /// # Errors
    /// When one cannot be reached.
    fn tokens(&self) -> Result<Vec<TokenIdentity>, HsmError>;

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
        self.with_link(|link| {
            let firmware = link.info.firmware_version();
            Ok(TokenIdentity {
                serial: link.info.serial_number().to_owned(),
                label: link.info.label().to_owned(),
                manufacturer: link.info.manufacturer_id().to_owned(),
                model: link.info.model().to_owned(),
                firmware: format!("{}.{}", firmware.major(), firmware.minor()),
            })
        })
    }
}

impl Custody for Token {
    fn tokens(&self) -> Result<Vec<TokenIdentity>, HsmError> {
        Ok(vec![self.identity()?])
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
