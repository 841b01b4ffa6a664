//! Keys: made, found again, read back, refused, destroyed.

use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use fob::hsm::{GeneratedKey, HsmError, KeyRef, Signer, Token, TokenConfig};
use fob_verify::Algorithm;

use super::world::{World, sign_and_check};

/// `secp256r1` in DER.
const P256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

pub fn generate(token: &Token, algorithm: Algorithm) -> GeneratedKey {
    match token.generate_key_pair(algorithm, "suite") {
        Ok(generated) => generated,
        Err(error) => panic!("{error}"),
    }
}

/// Everything the status has to tell is told.
pub fn status(world: &World) {
    let token = world.open();
    let generated = generate(&token, Algorithm::Esp256);
    sign_and_check(&token, &generated, 3);
    let status = token.status();
    assert!(status.up && status.p256, "{status:?}");
    assert_eq!((status.sessions, status.signatures), (2, 3));
    assert_eq!((status.reconnects, status.parked_threads), (0, 0));
    let version = |text: &str| text.contains('.');
    assert!(version(&status.cryptoki_version) && version(&status.firmware));
    for text in [
        &status.library,
        &status.label,
        &status.serial,
        &status.manufacturer,
        &status.model,
    ] {
        let told = !text.is_empty() && !text.contains('\0') && text.trim() == text;
        assert!(told, "{text:?}");
    }
    // The profile is the module's own: it is known.
    assert_ne!(status.profile, "unknown");
    assert!(status.mechanisms.iter().any(|name| name == "CKM_ECDSA"));
    let own = |key: &&fob::hsm::TokenKey| key.id == generated.key.id_hex();
    let listed = status.keys.iter().find(own).unwrap();
    assert_eq!(
        (listed.label.as_str(), listed.attributes.offence()),
        ("suite", None)
    );
    token.destroy_key(&generated.key).unwrap();
}

pub fn p256(world: &World) {
    for algorithm in [Algorithm::Es256, Algorithm::Esp256] {
        made_and_found_again(world, algorithm);
    }
}

pub fn ed25519(world: &World) {
    made_and_found_again(world, Algorithm::Ed25519);
}

/// A key is found again by its id, once everything has been closed and opened anew.
fn made_and_found_again(world: &World, algorithm: Algorithm) {
    let token = world.open();
    let generated = generate(&token, algorithm);
    sign_and_check(&token, &generated, 20);
    drop(token);
    let token = world.open();
    assert_eq!(token.public_key(&generated.key), Ok(generated.public));
    let read = token.key_attributes(&generated.key);
    assert_eq!(read, Ok(generated.attributes));
    sign_and_check(&token, &generated, 20);
    token.destroy_key(&generated.key).unwrap();
}

/// What is read back of a key is as it must be, and a key of which anything else is said does not
/// sign: one made otherwise, and one brought in.
pub fn attributes(world: &World) {
    let token = world.open();
    let generated = generate(&token, Algorithm::Esp256);
    assert_eq!(generated.attributes.offence(), None);
    let session = world.foreign_session();
    for (number, bent) in [
        Attribute::Extractable(true),
        Attribute::Sensitive(false),
        Attribute::Derive(true),
        Attribute::Decrypt(true),
        Attribute::Sign(false),
    ]
    .iter()
    .enumerate()
    {
        // A module may refuse to make it, or make it as it should be.
        if let Some(key) = made_otherwise(&session, number as u8, bent) {
            never_signs_if_bent(&token, &key);
        }
    }
    if let Some(key) = brought_in(&session) {
        let refused = token.sign_all(&key, &[b"message"]);
        let refused = matches!(refused, Err(HsmError::AttributeRefused { .. }));
        assert!(refused, "a key that was brought in signs");
        token.destroy_key(&key).unwrap();
    }
    token.destroy_key(&generated.key).unwrap();
}

/// The value of a key is not shown, and the key cannot be opened later. One that is changed all the
/// same is refused from then on.
pub fn fixed(world: &World) {
    let token = world.open();
    let generated = generate(&token, Algorithm::Esp256);
    let session = world.foreign_session();
    let own = find(&session, &generated.key);
    let value = session.get_attributes(own, &[AttributeType::Value]);
    let shown = value.is_ok_and(|read| !read.is_empty());
    assert!(!shown, "the key can be read");
    let mut changed = Vec::new();
    for (name, opened) in [
        ("CKA_EXTRACTABLE", Attribute::Extractable(true)),
        ("CKA_SENSITIVE", Attribute::Sensitive(false)),
    ] {
        if session.update_attributes(own, &[opened]).is_ok() {
            changed.push(name);
        }
    }
    // Uses may be added by whoever is logged in.
    let _ = session.update_attributes(own, &[Attribute::Derive(true)]);
    token.forget_key(&generated.key).unwrap();
    never_signs_if_bent(&token, &generated.key);
    assert!(changed.is_empty(), "can be changed: {}", changed.join(", "));
}

fn find(session: &Session, key: &KeyRef) -> ObjectHandle {
    let template = [
        Attribute::Class(ObjectClass::PRIVATE_KEY),
        Attribute::Token(true),
        Attribute::Id(key.id.to_vec()),
    ];
    session.find_objects(&template).unwrap()[0]
}

/// Signs only if everything read back is as it must be.
fn never_signs_if_bent(token: &Token, key: &KeyRef) {
    let offence = token.key_attributes(key).unwrap().offence();
    let signed = token.sign_all(key, &[b"message"]);
    match offence {
        Some(_) => assert!(matches!(signed, Err(HsmError::AttributeRefused { .. }))),
        None => assert!(signed.is_ok()),
    }
    token.destroy_key(key).unwrap();
}

/// A key pair made behind Fob's back, with one attribute that is not as it must be.
fn made_otherwise(session: &Session, id: u8, bent: &Attribute) -> Option<KeyRef> {
    let key = KeyRef {
        id: [id; 16],
        algorithm: Algorithm::Esp256,
    };
    let public = [
        Attribute::Token(true),
        Attribute::EcParams(P256.to_vec()),
        Attribute::Id(key.id.to_vec()),
    ];
    let mut private = vec![
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Sign(true),
        Attribute::Decrypt(false),
        Attribute::Derive(false),
        Attribute::Id(key.id.to_vec()),
    ];
    private.retain(|attribute| attribute.attribute_type() != bent.attribute_type());
    private.push(bent.clone());
    let made = session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private);
    made.is_ok().then_some(key)
}

/// A key whose value was known outside before it came into the token.
fn brought_in(session: &Session) -> Option<KeyRef> {
    let key = KeyRef {
        id: [99; 16],
        algorithm: Algorithm::Esp256,
    };
    let template = |local: bool| {
        let mut template = vec![
            Attribute::Class(ObjectClass::PRIVATE_KEY),
            Attribute::KeyType(KeyType::EC),
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Sign(true),
            Attribute::Derive(false),
            Attribute::Id(key.id.to_vec()),
            Attribute::EcParams(P256.to_vec()),
            Attribute::Value(vec![7; 32]),
        ];
        if local {
            template.push(Attribute::Local(true));
        }
        template
    };
    let tries = [true, false].into_iter();
    let mut brought = tries.filter_map(|local| session.create_object(&template(local)).ok());
    brought.next().map(|_| key)
}

pub fn destroy(world: &World) {
    let token = world.open();
    let (kept, generated) = (
        generate(&token, Algorithm::Esp256),
        generate(&token, Algorithm::Esp256),
    );
    sign_and_check(&token, &generated, 10);
    token.forget_key(&generated.key).unwrap();
    sign_and_check(&token, &generated, 2);
    token.destroy_key(&generated.key).unwrap();
    let gone = HsmError::KeyNotFound {
        id: generated.key.id_hex(),
    };
    assert_eq!(
        token.sign_all(&generated.key, &[b"message"]),
        Err(gone.clone())
    );
    assert_eq!(token.destroy_key(&generated.key), Err(gone));
    assert!(token.public_key(&generated.key).is_err());
    sign_and_check(&token, &kept, 10);
    token.destroy_key(&kept.key).unwrap();
}

/// A token that `fob init` makes, where no PIN file is named.
pub fn init_token(world: &World) {
    let config = TokenConfig {
        label: "fob-made".to_owned(),
        serial: None,
        ..world.config(2)
    };
    let (so_pin, pin) = ("security officer".into(), "user pin 1".into());
    let serial = match fob::hsm::init_token(&config, &so_pin, &pin) {
        Ok(serial) => serial,
        Err(error) => panic!("{error}"),
    };
    let again = fob::hsm::init_token(&config, &so_pin, &pin);
    assert!(matches!(again, Err(HsmError::TokenExists { .. })));
    let token = Token::open(config, pin).unwrap();
    assert_eq!(token.status().serial, serial);
    let generated = generate(&token, Algorithm::Esp256);
    sign_and_check(&token, &generated, 3);
    token.destroy_key(&generated.key).unwrap();
}
