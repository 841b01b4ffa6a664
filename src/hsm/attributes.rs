//! What a token says of a private key, and what it must say, floor 2.
//!
//! The template a key is generated with is a wish. Only what is read back
//! counts, and a key that could leave its token, or do more than sign, is
//! refused whoever made it.

use cryptoki::object::{Attribute, AttributeType, ObjectHandle};
use cryptoki::session::Session;
use serde::{Deserialize, Serialize};

use super::HsmError;

/// The attributes of a private key as its token gives them. `None`: not given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyAttributes {
    /// `CKA_TOKEN`: it lives in the token, not in a session.
    pub token: Option<bool>,
    /// `CKA_PRIVATE`: only a logged-in user sees it.
    pub private: Option<bool>,
    /// `CKA_SENSITIVE`: its value is not shown in plain.
    pub sensitive: Option<bool>,
    /// `CKA_ALWAYS_SENSITIVE`: nor ever was.
    pub always_sensitive: Option<bool>,
    /// `CKA_EXTRACTABLE`: it can be wrapped and taken out.
    pub extractable: Option<bool>,
    /// `CKA_NEVER_EXTRACTABLE`: nor ever could be.
    pub never_extractable: Option<bool>,
    /// `CKA_LOCAL`: it was generated in this token.
    pub local: Option<bool>,
    /// `CKA_SIGN`.
    pub sign: Option<bool>,
    /// `CKA_SIGN_RECOVER`.
    pub sign_recover: Option<bool>,
    /// `CKA_DECRYPT`.
    pub decrypt: Option<bool>,
    /// `CKA_UNWRAP`.
    pub unwrap: Option<bool>,
    /// `CKA_DERIVE`.
    pub derive: Option<bool>,
    /// `CKA_ALWAYS_AUTHENTICATE`: it wants the PIN for every single signature.
    pub always_authenticate: Option<bool>,
}

const READ: [AttributeType; 13] = [
    AttributeType::Token,
    AttributeType::Private,
    AttributeType::Sensitive,
    AttributeType::AlwaysSensitive,
    AttributeType::Extractable,
    AttributeType::NeverExtractable,
    AttributeType::Local,
    AttributeType::Sign,
    AttributeType::SignRecover,
    AttributeType::Decrypt,
    AttributeType::Unwrap,
    AttributeType::Derive,
    AttributeType::AlwaysAuthenticate,
];

impl KeyAttributes {
    /// Asks the token.
    pub(super) fn read(session: &Session, key: ObjectHandle) -> Result<Self, HsmError> {
        let mut read = Self::default();
        for attribute in session.get_attributes(key, &READ)? {
            read.set(&attribute);
        }
        Ok(read)
    }

    fn set(&mut self, attribute: &Attribute) {
        let (place, value) = match attribute {
            Attribute::Token(value) => (&mut self.token, value),
            Attribute::Private(value) => (&mut self.private, value),
            Attribute::Sensitive(value) => (&mut self.sensitive, value),
            Attribute::AlwaysSensitive(value) => (&mut self.always_sensitive, value),
            Attribute::Extractable(value) => (&mut self.extractable, value),
            Attribute::NeverExtractable(value) => (&mut self.never_extractable, value),
            Attribute::Local(value) => (&mut self.local, value),
            Attribute::Sign(value) => (&mut self.sign, value),
            Attribute::SignRecover(value) => (&mut self.sign_recover, value),
            Attribute::Decrypt(value) => (&mut self.decrypt, value),
            Attribute::Unwrap(value) => (&mut self.unwrap, value),
            Attribute::Derive(value) => (&mut self.derive, value),
            Attribute::AlwaysAuthenticate(value) => (&mut self.always_authenticate, value),
            _ => return,
        };
        *place = Some(*value);
    }

    /// The first attribute that an issuing key in a token must not have, with
    /// what the token says of it. `None`: the key is good.
    ///
    /// What keeps the key inside has to be affirmed; a use beyond signing has
    /// only to be not affirmed, since not every token knows every use.
    pub fn offence(&self) -> Option<(&'static str, Option<bool>)> {
        let affirmed = [
            ("CKA_TOKEN", self.token, true),
            ("CKA_LOCAL", self.local, true),
            ("CKA_ALWAYS_SENSITIVE", self.always_sensitive, true),
            ("CKA_NEVER_EXTRACTABLE", self.never_extractable, true),
        ];
        self.kept_inside_offence().or_else(|| first_not_affirmed(&affirmed)).or_else(|| self.use_offence())
    }

    /// The same for the copy of such a key in a session. Where it came from is
    /// not asked: tokens disagree about `CKA_LOCAL` of a copy.
    pub(super) fn copy_offence(&self) -> Option<(&'static str, Option<bool>)> {
        let affirmed = [("CKA_TOKEN", self.token, false)];
        self.kept_inside_offence().or_else(|| first_not_affirmed(&affirmed)).or_else(|| self.use_offence())
    }

    fn kept_inside_offence(&self) -> Option<(&'static str, Option<bool>)> {
        first_not_affirmed(&[
            ("CKA_SENSITIVE", self.sensitive, true),
            ("CKA_EXTRACTABLE", self.extractable, false),
            ("CKA_PRIVATE", self.private, true),
            ("CKA_SIGN", self.sign, true),
        ])
    }

    fn use_offence(&self) -> Option<(&'static str, Option<bool>)> {
        let forbidden = [
            ("CKA_SIGN_RECOVER", self.sign_recover),
            ("CKA_DECRYPT", self.decrypt),
            ("CKA_UNWRAP", self.unwrap),
            ("CKA_DERIVE", self.derive),
            ("CKA_ALWAYS_AUTHENTICATE", self.always_authenticate),
        ];
        forbidden.into_iter().find(|(_, found)| *found == Some(true))
    }
}

fn first_not_affirmed(wanted: &[(&'static str, Option<bool>, bool)]) -> Option<(&'static str, Option<bool>)> {
    wanted.iter().find(|(_, found, want)| *found != Some(*want)).map(|(name, found, _)| (*name, *found))
}

/// An offence as an error about the key with that `CKA_ID`.
pub(super) fn refuse(id: &[u8], offence: Option<(&'static str, Option<bool>)>) -> Result<(), HsmError> {
    let Some((attribute, found)) = offence else { return Ok(()) };
    let found = match found {
        Some(true) => "true",
        Some(false) => "false",
        None => "(not given)",
    };
    Err(HsmError::AttributeRefused { id: super::hex(id), attribute, found })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> KeyAttributes {
        KeyAttributes {
            token: Some(true),
            private: Some(true),
            sensitive: Some(true),
            always_sensitive: Some(true),
            extractable: Some(false),
            never_extractable: Some(true),
            local: Some(true),
            sign: Some(true),
            sign_recover: Some(false),
            decrypt: Some(false),
            unwrap: Some(false),
            derive: Some(false),
            always_authenticate: Some(false),
        }
    }

    #[test]
    fn a_key_that_only_signs_and_never_leaves_is_good() {
        assert_eq!(good().offence(), None);
        let terse = KeyAttributes { decrypt: None, derive: None, ..good() };
        assert_eq!(terse.offence(), None);
    }

    #[test]
    fn every_offence_is_named() {
        let not_true = |found| ("CKA_SENSITIVE", found);
        assert_eq!(KeyAttributes { sensitive: Some(false), ..good() }.offence(), Some(not_true(Some(false))));
        assert_eq!(KeyAttributes { sensitive: None, ..good() }.offence(), Some(not_true(None)));
        let cases = [
            ("CKA_EXTRACTABLE", KeyAttributes { extractable: Some(true), ..good() }),
            ("CKA_NEVER_EXTRACTABLE", KeyAttributes { never_extractable: Some(false), ..good() }),
            ("CKA_ALWAYS_SENSITIVE", KeyAttributes { always_sensitive: Some(false), ..good() }),
            ("CKA_LOCAL", KeyAttributes { local: Some(false), ..good() }),
            ("CKA_TOKEN", KeyAttributes { token: Some(false), ..good() }),
            ("CKA_SIGN", KeyAttributes { sign: Some(false), ..good() }),
            ("CKA_DERIVE", KeyAttributes { derive: Some(true), ..good() }),
            ("CKA_UNWRAP", KeyAttributes { unwrap: Some(true), ..good() }),
            ("CKA_DECRYPT", KeyAttributes { decrypt: Some(true), ..good() }),
        ];
        for (name, attributes) in cases {
            assert_eq!(attributes.offence().map(|(name, _)| name), Some(name));
        }
    }

    #[test]
    fn a_copy_lives_in_its_session_and_is_as_closed() {
        let copy = KeyAttributes { token: Some(false), local: Some(false), ..good() };
        assert_eq!(copy.copy_offence(), None);
        assert_eq!(good().copy_offence().map(|(name, _)| name), Some("CKA_TOKEN"));
        let open = KeyAttributes { extractable: Some(true), ..copy };
        assert_eq!(open.copy_offence().map(|(name, _)| name), Some("CKA_EXTRACTABLE"));
    }
}
