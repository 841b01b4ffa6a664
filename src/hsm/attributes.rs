//! What a token says of a private key, and what it must say, floor 2.
//!
//! The template a key is generated with is a wish. Only what is read back
//! counts, and a key that could leave its token, or do more than sign, is
//! refused whoever made it.

use cryptoki::object::{Attribute, AttributeType, ObjectHandle};
use cryptoki::session::Session;
use serde::{Deserialize, Serialize};

use super::{HsmError, Profile};

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
    /// By its profile the token says `CKA_LOCAL` of whatever its maker said it of, and
    /// not of what it has generated.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub local_says_nothing: bool,
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
    /// Asks a token of that profile.
    pub(super) fn read(
        session: &Session,
        profile: &Profile,
        key: ObjectHandle,
    ) -> Result<Self, HsmError> {
        let mut read = Self {
            local_says_nothing: !profile.tells_local,
            ..Self::default()
        };
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
    /// only to be not affirmed, since not every token knows every use. A key that was
    /// brought in is neither always sensitive nor never extractable (PKCS#11 v3.1,
    /// §4.9), so where `CKA_LOCAL` says nothing, these two say it.
    pub fn offence(&self) -> Option<(&'static str, Option<bool>)> {
        let local = if self.local_says_nothing {
            Some(true)
        } else {
            self.local
        };
        let affirmed = [
            ("CKA_TOKEN", self.token, true),
            ("CKA_LOCAL", local, true),
            ("CKA_ALWAYS_SENSITIVE", self.always_sensitive, true),
            ("CKA_NEVER_EXTRACTABLE", self.never_extractable, true),
        ];
        self.kept_inside_offence()
            .or_else(|| first_not_affirmed(&affirmed))
            .or_else(|| self.use_offence())
    }

    /// The same for the copy of such a key in a session. Where it came from is
    /// not asked: tokens disagree about `CKA_LOCAL` of a copy.
    pub(super) fn copy_offence(&self) -> Option<(&'static str, Option<bool>)> {
        let affirmed = [("CKA_TOKEN", self.token, false)];
        self.kept_inside_offence()
            .or_else(|| first_not_affirmed(&affirmed))
            .or_else(|| self.use_offence())
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
        forbidden
            .into_iter()
            .find(|(_, found)| *found == Some(true))
    }
}

fn first_not_affirmed(
    wanted: &[(&'static str, Option<bool>, bool)],
) -> Option<(&'static str, Option<bool>)> {
    wanted
        .iter()
        .find(|(_, found, want)| *found != Some(*want))
        .map(|(name, found, _)| (*name, *found))
}

/// An offence as an error about the key with that `CKA_ID`.
pub(super) fn refuse(
    id: &[u8],
    offence: Option<(&'static str, Option<bool>)>,
) -> Result<(), HsmError> {
    let Some((attribute, found)) = offence else {
        return Ok(());
    };
    let found = match found {
        Some(true) => "true",
        Some(false) => "false",
        None => "(not given)",
    };
    Err(HsmError::AttributeRefused {
        id: super::hex(id),
        attribute,
        found,
    })
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
            local_says_nothing: false,
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
        let terse = KeyAttributes {
            decrypt: None,
            derive: None,
            ..good()
        };
        assert_eq!(terse.offence(), None);
    }

    /// The name of what is wrong with a good key after `bend`.
    fn offence_after(bend: impl FnOnce(&mut KeyAttributes)) -> Option<&'static str> {
        let mut bent = good();
        bend(&mut bent);
        bent.offence().map(|(name, _)| name)
    }

    #[test]
    fn what_must_be_affirmed_and_is_not_is_named() {
        for found in [Some(false), None] {
            assert_eq!(offence_after(|key| key.token = found), Some("CKA_TOKEN"));
            assert_eq!(
                offence_after(|key| key.private = found),
                Some("CKA_PRIVATE")
            );
            assert_eq!(
                offence_after(|key| key.sensitive = found),
                Some("CKA_SENSITIVE")
            );
            assert_eq!(offence_after(|key| key.local = found), Some("CKA_LOCAL"));
            assert_eq!(offence_after(|key| key.sign = found), Some("CKA_SIGN"));
            let offence = offence_after(|key| key.always_sensitive = found);
            assert_eq!(offence, Some("CKA_ALWAYS_SENSITIVE"));
            let offence = offence_after(|key| key.never_extractable = found);
            assert_eq!(offence, Some("CKA_NEVER_EXTRACTABLE"));
        }
        for found in [Some(true), None] {
            assert_eq!(
                offence_after(|key| key.extractable = found),
                Some("CKA_EXTRACTABLE")
            );
        }
    }

    #[test]
    fn where_local_says_nothing_the_other_two_say_where_a_key_is_from() {
        let generated = |key: &mut KeyAttributes| {
            (key.local, key.local_says_nothing) = (Some(false), true);
        };
        assert_eq!(offence_after(generated), None);
        let brought_in = |key: &mut KeyAttributes| {
            (key.local, key.local_says_nothing) = (Some(true), true);
            (key.always_sensitive, key.never_extractable) = (Some(false), Some(false));
        };
        assert_eq!(offence_after(brought_in), Some("CKA_ALWAYS_SENSITIVE"));
    }

    #[test]
    fn uses_beyond_signing_are_named() {
        let yes = Some(true);
        assert_eq!(offence_after(|key| key.derive = yes), Some("CKA_DERIVE"));
        assert_eq!(offence_after(|key| key.unwrap = yes), Some("CKA_UNWRAP"));
        assert_eq!(offence_after(|key| key.decrypt = yes), Some("CKA_DECRYPT"));
        assert_eq!(
            offence_after(|key| key.sign_recover = yes),
            Some("CKA_SIGN_RECOVER")
        );
        let offence = offence_after(|key| key.always_authenticate = yes);
        assert_eq!(offence, Some("CKA_ALWAYS_AUTHENTICATE"));
    }

    #[test]
    fn a_copy_lives_in_its_session_and_is_as_closed() {
        let copy = KeyAttributes {
            token: Some(false),
            local: Some(false),
            ..good()
        };
        assert_eq!(copy.copy_offence(), None);
        assert_eq!(
            good().copy_offence().map(|(name, _)| name),
            Some("CKA_TOKEN")
        );
        let open = KeyAttributes {
            extractable: Some(true),
            ..copy
        };
        assert_eq!(
            open.copy_offence().map(|(name, _)| name),
            Some("CKA_EXTRACTABLE")
        );
    }
}
