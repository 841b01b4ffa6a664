//! Tokens: found by label and serial, opened with a PIN that is tried once.

use cryptoki::context::Pkcs11;
use fob::hsm::{
    HsmError, KeyRef, SessionCount, SessionKeyCopy, Signer, Token, TokenConfig, init_token,
};
use fob_verify::Algorithm;

use super::{SO_PIN, config, messages, new_token, open, sign_and_check, user_pin};

#[test]
fn two_tokens_are_told_apart_by_label_and_serial() {
    let (root_serial, issuing_serial) = (new_token("hsm two root"), new_token("hsm two issuing"));
    assert_ne!(root_serial, issuing_serial);
    let with = |label, serial: &str| TokenConfig {
        serial: Some(serial.to_owned()),
        ..config(label)
    };
    let root = Token::open(with("hsm two root", &root_serial), user_pin()).unwrap();
    let issuing = Token::open(with("hsm two issuing", &issuing_serial), user_pin()).unwrap();

    let root_key = root.generate_key_pair(Algorithm::Esp256, "root").unwrap();
    let issuing_key = issuing
        .generate_key_pair(Algorithm::Esp256, "epoch")
        .unwrap();
    sign_and_check(&root, &root_key, &messages(3));
    sign_and_check(&issuing, &issuing_key, &messages(3));
    assert_eq!(
        (root.status().serial, issuing.status().serial),
        (root_serial, issuing_serial.clone())
    );

    let elsewhere = issuing.sign_all(&root_key.key, &[b"message"]).unwrap_err();
    assert_eq!(
        elsewhere,
        HsmError::KeyNotFound {
            id: root_key.key.id_hex()
        }
    );
    let mixed_up = Token::open(with("hsm two root", &issuing_serial), user_pin()).unwrap_err();
    assert!(
        matches!(mixed_up, HsmError::TokenNotFound { .. }),
        "{mixed_up}"
    );
}

#[test]
fn a_token_that_is_not_there_is_named() {
    new_token("hsm present");
    let error = Token::open(config("hsm absent"), user_pin()).unwrap_err();
    assert!(
        error.to_string().contains("hsm absent") && error.to_string().contains("hsm present"),
        "{error}"
    );
    assert!(error.retryable() && !error.may_have_happened());
}

#[test]
fn labels_are_given_out_once() {
    new_token("hsm taken");
    let again = init_token(&config("hsm taken"), &SO_PIN.into(), &user_pin()).unwrap_err();
    assert_eq!(
        again,
        HsmError::TokenExists {
            label: "hsm taken".to_owned()
        }
    );
}

#[test]
fn a_wrong_pin_is_its_own_error_and_tried_once() {
    new_token("hsm wrong pin");
    let error = Token::open(config("hsm wrong pin"), "not the pin".into()).unwrap_err();
    assert_eq!(
        error,
        HsmError::PinWrong {
            label: "hsm wrong pin".to_owned()
        }
    );
    assert!(!error.retryable() && !format!("{error} {error:?}").contains("not the pin"));
    // The right one still opens it: nothing is locked, nothing is left logged in.
    Token::open(config("hsm wrong pin"), user_pin()).unwrap();
}

#[test]
fn a_second_opening_finds_itself_logged_in() {
    let first = open("hsm twice");
    let generated = first.generate_key_pair(Algorithm::Esp256, "epoch").unwrap();
    let second = Token::open(config("hsm twice"), user_pin()).unwrap();
    sign_and_check(&second, &generated, &messages(4));
    drop(first);
    sign_and_check(&second, &generated, &messages(4));
}

#[test]
fn the_status_tells_what_the_token_is() {
    let token = open("hsm status");
    let status = token.status();
    assert!(
        status.up && status.p256 && status.ed25519 && status.bare_calls,
        "{status:?}"
    );
    assert_eq!(
        (status.label.as_str(), status.sessions, status.reconnects),
        ("hsm status", 2, 0)
    );
    assert!(status.model.contains("SoftHSM"));
    assert!(!format!("{status:?} {token:?}").contains(super::USER_PIN));
}

#[test]
fn settings_out_of_bounds_are_refused() {
    new_token("hsm bounds");
    for sessions in [0, 65] {
        let config = TokenConfig {
            sessions: SessionCount::Exactly(sessions),
            ..config("hsm bounds")
        };
        assert!(matches!(
            Token::open(config, user_pin()),
            Err(HsmError::Setting {
                key: "sessions",
                ..
            })
        ));
    }
}

#[test]
fn attributes_are_read_back_as_they_must_be() {
    let token = open("hsm attributes");
    for algorithm in super::ALGORITHMS {
        let generated = token.generate_key_pair(algorithm, "epoch").unwrap();
        let read = generated.attributes;
        assert_eq!(read.offence(), None);
        assert_eq!(
            (read.sensitive, read.always_sensitive),
            (Some(true), Some(true))
        );
        assert_eq!(
            (read.extractable, read.never_extractable),
            (Some(false), Some(true))
        );
        assert_eq!(
            (read.sign, read.derive, read.unwrap, read.decrypt),
            (Some(true), Some(false), Some(false), Some(false))
        );
        assert_eq!(token.key_attributes(&generated.key), Ok(read));
    }
    let listed = token.keys().unwrap();
    assert_eq!(listed.len(), 3);
    assert!(
        listed
            .iter()
            .all(|key| key.label == "epoch" && key.id.len() == 32)
    );
}

#[test]
fn a_destroyed_key_signs_no_more() {
    let token = open("hsm destroyed");
    let generated = token.generate_key_pair(Algorithm::Esp256, "epoch").unwrap();
    token.prepare_key(&generated.key).unwrap();
    sign_and_check(&token, &generated, &messages(10));
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
}

#[test]
fn a_key_is_not_used_with_an_algorithm_of_another_kind() {
    let token = open("hsm kind");
    let generated = token.generate_key_pair(Algorithm::Esp256, "epoch").unwrap();
    let crossed = KeyRef {
        algorithm: Algorithm::Ed25519,
        ..generated.key
    };
    assert_eq!(
        token.sign_all(&crossed, &[b"message"]),
        Err(HsmError::KeyKind {
            id: crossed.id_hex()
        })
    );
    // The two names of ECDSA on P-256 share a kind.
    let renamed = KeyRef {
        algorithm: Algorithm::Es256,
        ..generated.key
    };
    assert!(token.sign_all(&renamed, &[b"message"]).is_ok());
}

#[test]
fn without_a_module_nothing_is_guessed() {
    let missing = TokenConfig::new("/nowhere/libhsm.so", "hsm");
    assert!(matches!(
        Token::open(missing, user_pin()),
        Err(HsmError::ModuleUnusable { .. })
    ));
    let other = TokenConfig {
        session_key_copy: SessionKeyCopy::Off,
        ..TokenConfig::new(std::env::current_exe().unwrap(), "hsm")
    };
    assert!(matches!(
        Token::open(other, user_pin()),
        Err(HsmError::ModuleUnusable { .. })
    ));
    assert!(Pkcs11::new("/nowhere/libhsm.so").is_err());
}
