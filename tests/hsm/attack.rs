//! What somebody with the user PIN and another program may try on the token.

use cryptoki::context::Pkcs11;
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::elliptic_curve::{EcKdf, Ecdh1DeriveParams};
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use fob::hsm::{HsmError, KeyRef, SessionKeyCopy, Signer, Token, TokenConfig};
use fob_verify::Algorithm;

use super::{config, messages, module, new_token, open, sign_and_check, user_pin};

/// `secp256r1` in DER.
const P256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

/// A session of another program's, logged in: the library is the same instance.
pub(super) fn foreign_session(label: &str) -> Session {
    let pkcs11 = Pkcs11::new(module()).unwrap();
    let labelled = |slot: &_| {
        pkcs11
            .get_token_info(*slot)
            .is_ok_and(|info| info.label() == label)
    };
    let slot = pkcs11
        .get_slots_with_token()
        .unwrap()
        .into_iter()
        .find(labelled)
        .unwrap();
    let session = pkcs11.open_rw_session(slot).unwrap();
    // Logged in already, by the token under test.
    let _ = session.login(UserType::User, Some(&user_pin()));
    session
}

/// Every private key object: those of the token, and the copies in sessions.
fn private_keys(session: &Session) -> Vec<ObjectHandle> {
    session
        .find_objects(&[Attribute::Class(ObjectClass::PRIVATE_KEY)])
        .unwrap()
}

#[test]
fn no_key_can_be_read_off_the_token() {
    let token = open("hsm attack");
    for algorithm in [Algorithm::Esp256, Algorithm::Ed25519] {
        let generated = token.generate_key_pair(algorithm, "epoch").unwrap();
        token.prepare_key(&generated.key).unwrap();
    }
    let session = foreign_session("hsm attack");
    let keys = private_keys(&session);
    assert_eq!(
        keys.len(),
        6,
        "two keys in the token, and a copy of each in two sessions"
    );
    for key in keys {
        assert_eq!(
            session
                .get_attributes(key, &[AttributeType::Value])
                .unwrap(),
            [],
            "the value is not given"
        );
        assert_cannot_be_wrapped(&session, key);
        assert_cannot_be_opened(&session, key);
        let derive = Ecdh1DeriveParams::new(EcKdf::null(), &[4; 65]);
        let shared = session.derive_key(
            &Mechanism::Ecdh1Derive(derive),
            key,
            &[Attribute::Class(ObjectClass::SECRET_KEY)],
        );
        assert!(shared.is_err());
        assert!(session.decrypt(&Mechanism::RsaPkcs, key, &[0; 32]).is_err());
    }
}

fn assert_cannot_be_wrapped(session: &Session, key: ObjectHandle) {
    let template = [
        Attribute::ValueLen(32.into()),
        Attribute::Wrap(true),
        Attribute::Encrypt(true),
        Attribute::Token(false),
    ];
    let wrapping = session
        .generate_key(&Mechanism::AesKeyGen, &template)
        .unwrap();
    for mechanism in [Mechanism::AesKeyWrap, Mechanism::AesKeyWrapPad] {
        assert!(session.wrap_key(&mechanism, wrapping, key).is_err());
    }
}

/// Nor can it be made a key that could be: not in place, and not by copying.
fn assert_cannot_be_opened(session: &Session, key: ObjectHandle) {
    for opened in [Attribute::Extractable(true), Attribute::Sensitive(false)] {
        assert!(
            session
                .update_attributes(key, std::slice::from_ref(&opened))
                .is_err(),
            "{opened:?}"
        );
        assert!(
            session
                .copy_object(key, &[Attribute::Token(false), opened])
                .is_err()
        );
    }
}

/// A key pair made behind our back, with one attribute that is not as it must be.
fn foreign_key(session: &Session, id: u8, bent: &Attribute) -> KeyRef {
    let key = KeyRef {
        id: [id; 16],
        algorithm: Algorithm::Esp256,
    };
    let public = [
        Attribute::Token(true),
        Attribute::EcParams(P256.to_vec()),
        Attribute::Id(key.id.to_vec()),
    ];
    let straight = [
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Sign(true),
        Attribute::SignRecover(false),
        Attribute::Decrypt(false),
        Attribute::Unwrap(false),
        Attribute::Derive(false),
        Attribute::Id(key.id.to_vec()),
    ];
    let mut private: Vec<_> = straight
        .into_iter()
        .filter(|attribute| attribute.attribute_type() != bent.attribute_type())
        .collect();
    private.push(bent.clone());
    session
        .generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private)
        .unwrap();
    key
}

#[test]
fn a_key_that_could_leave_or_do_more_than_sign_is_refused() {
    let token = open("hsm bent keys");
    let session = foreign_session("hsm bent keys");
    let bent = [
        (Attribute::Extractable(true), "CKA_EXTRACTABLE", "true"),
        (Attribute::Sensitive(false), "CKA_SENSITIVE", "false"),
        (Attribute::Derive(true), "CKA_DERIVE", "true"),
        (Attribute::Decrypt(true), "CKA_DECRYPT", "true"),
        (Attribute::Unwrap(true), "CKA_UNWRAP", "true"),
        (Attribute::Sign(false), "CKA_SIGN", "false"),
    ];
    for (number, (wish, attribute, found)) in bent.iter().enumerate() {
        let key = foreign_key(&session, number as u8, wish);
        let refused = HsmError::AttributeRefused {
            id: key.id_hex(),
            attribute,
            found,
        };
        assert_eq!(token.sign_all(&key, &[b"message"]), Err(refused.clone()));
        assert_eq!(token.prepare_key(&key), Err(refused));
    }
    let straight = foreign_key(&session, 99, &Attribute::Derive(false));
    assert!(
        token.sign_all(&straight, &[b"message"]).is_ok(),
        "the helper makes good keys otherwise"
    );
}

#[test]
fn a_key_that_was_open_once_is_refused_after_it_was_closed() {
    let token = open("hsm closed late");
    let session = foreign_session("hsm closed late");
    let key = foreign_key(&session, 1, &Attribute::Sensitive(false));
    let object = session
        .find_objects(&[
            Attribute::Class(ObjectClass::PRIVATE_KEY),
            Attribute::Id(key.id.to_vec()),
        ])
        .unwrap()[0];
    session
        .update_attributes(object, &[Attribute::Sensitive(true)])
        .unwrap();
    let refused = HsmError::AttributeRefused {
        id: key.id_hex(),
        attribute: "CKA_ALWAYS_SENSITIVE",
        found: "false",
    };
    assert_eq!(token.sign_all(&key, &[b"message"]), Err(refused));
}

#[test]
fn two_keys_of_one_id_are_refused() {
    let token = open("hsm one id");
    let generated = token.generate_key_pair(Algorithm::Esp256, "epoch").unwrap();
    let session = foreign_session("hsm one id");
    let id = [
        Attribute::Class(ObjectClass::PRIVATE_KEY),
        Attribute::Id(generated.key.id.to_vec()),
        Attribute::Token(true),
    ];
    let object = session.find_objects(&id).unwrap()[0];
    session
        .copy_object(object, &[Attribute::Token(true)])
        .unwrap();
    let refused = token.sign_all(&generated.key, &[b"message"]);
    assert_eq!(
        refused,
        Err(HsmError::KeyAmbiguous {
            id: generated.key.id_hex()
        })
    );
}

#[test]
fn a_key_that_may_not_be_copied_signs_by_itself() {
    new_token("hsm uncopyable");
    let open = |session_key_copy| {
        Token::open(
            TokenConfig {
                session_key_copy,
                ..config("hsm uncopyable")
            },
            user_pin(),
        )
        .unwrap()
    };
    let token = open(SessionKeyCopy::Auto);
    let key = foreign_key(
        &foreign_session("hsm uncopyable"),
        7,
        &Attribute::Copyable(false),
    );
    let public = token.public_key(&key).unwrap();
    let generated = fob::hsm::GeneratedKey {
        key,
        public,
        attributes: token.key_attributes(&key).unwrap(),
    };
    sign_and_check(&token, &generated, &messages(12));
    assert!(!token.status().session_key_copies);

    let demanding = open(SessionKeyCopy::On);
    assert!(matches!(
        demanding.sign_all(&key, &[b"message"]),
        Err(HsmError::CopyRefused { .. })
    ));
}
