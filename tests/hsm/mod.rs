//! The HSM floor against a real token: SoftHSM, in a directory of this process.
//!
//! SoftHSM takes its configuration once per process, so all tests here share
//! one directory and have a token each, named after the test. Where SoftHSM is
//! not installed they fail and say so.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod attack;
mod hang;
mod loss;
mod outage;
mod pin;
mod replica;
mod several;
mod siblings;
mod token;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use fob::hsm::{
    GeneratedKey, SessionCount, SessionKeyCopy, Signer, SoftHsm, Token, TokenConfig, init_token,
    softhsm_module, verify_signature,
};
use fob_verify::Algorithm;
use secrecy::SecretString;
use tempfile::TempDir;

const SO_PIN: &str = "security officer";
const USER_PIN: &str = "user pin 1";
const ALGORITHMS: [Algorithm; 3] = [Algorithm::Es256, Algorithm::Esp256, Algorithm::Ed25519];

/// SoftHSM's library, with its tokens in a directory of this process.
pub fn module() -> PathBuf {
    static DIR: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, module) = DIR.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let softhsm = SoftHsm::under(dir.path());
        softhsm.create().unwrap();
        softhsm.activate().unwrap();
        (dir, softhsm_module().expect("SoftHSM is not installed"))
    });
    module.clone()
}

/// A fresh token with that label. Returns its serial.
fn new_token(label: &str) -> String {
    init_token(&config(label), &SO_PIN.into(), &user_pin()).unwrap()
}

fn user_pin() -> SecretString {
    USER_PIN.into()
}

fn config(label: &str) -> TokenConfig {
    TokenConfig {
        sessions: SessionCount::Exactly(2),
        ..TokenConfig::new(module(), label)
    }
}

/// A fresh token, opened.
fn open(label: &str) -> Token {
    new_token(label);
    Token::open(config(label), user_pin()).unwrap()
}

/// Messages of many lengths, no two alike.
fn messages(count: usize) -> Vec<Vec<u8>> {
    (0..count)
        .map(|number| {
            [
                number.to_le_bytes().as_slice(),
                &vec![number as u8; number % 300],
            ]
            .concat()
        })
        .collect()
}

/// Signs and verifies one by one: each signature must belong to its own message.
fn sign_and_check(token: &Token, generated: &GeneratedKey, messages: &[Vec<u8>]) {
    let slices: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
    let signatures = token.sign_all(&generated.key, &slices).unwrap();
    assert_eq!(signatures.len(), messages.len());
    for (message, signature) in messages.iter().zip(&signatures) {
        assert!(verify_signature(&generated.public, message, signature));
    }
}

#[test]
fn every_algorithm_signs_what_its_public_key_verifies() {
    let token = open("hsm algorithms");
    for algorithm in ALGORITHMS {
        let generated = token.generate_key_pair(algorithm, "epoch").unwrap();
        assert_eq!(generated.key.algorithm, algorithm);
        assert_eq!(token.public_key(&generated.key).unwrap(), generated.public);
        sign_and_check(&token, &generated, &messages(20));
        // An empty message is a message.
        sign_and_check(&token, &generated, &[Vec::new()]);
    }
}

#[test]
fn signatures_come_in_the_order_of_their_messages() {
    let token = open("hsm order");
    let generated = token
        .generate_key_pair(Algorithm::Ed25519, "epoch")
        .unwrap();
    let all = messages(1000);
    for count in [0, 1, 2, 3, 7, 8, 9, 63, 64, 65, 500, 1000] {
        sign_and_check(&token, &generated, &all[..count]);
    }
    let made: u64 = [1, 2, 3, 7, 8, 9, 63, 64, 65, 500, 1000].iter().sum();
    assert_eq!(token.signatures(), made);
    assert_eq!(token.status().signatures, made);
}

#[test]
fn many_callers_share_the_sessions() {
    let token = Arc::new(open("hsm callers"));
    let keys = [Algorithm::Esp256, Algorithm::Ed25519]
        .map(|algorithm| token.generate_key_pair(algorithm, "epoch").unwrap());
    let callers: Vec<_> = (0..6)
        .map(|caller| {
            let (token, generated) = (Arc::clone(&token), keys[caller % keys.len()]);
            std::thread::spawn(move || {
                for batch in 1..12 {
                    sign_and_check(&token, &generated, &messages(batch * (caller + 1)));
                }
            })
        })
        .collect();
    for caller in callers {
        caller.join().unwrap();
    }
}

#[test]
fn keys_come_and_go_while_others_sign() {
    let token = Arc::new(open("hsm come and go"));
    let steady = token
        .generate_key_pair(Algorithm::Esp256, "steady")
        .unwrap();
    let signer = {
        let token = Arc::clone(&token);
        std::thread::spawn(move || {
            (0..40).for_each(|_| sign_and_check(&token, &steady, &messages(16)))
        })
    };
    for _ in 0..12 {
        let passing = token
            .generate_key_pair(Algorithm::Esp256, "passing")
            .unwrap();
        sign_and_check(&token, &passing, &messages(9));
        token.destroy_key(&passing.key).unwrap();
    }
    signer.join().unwrap();
    assert_eq!(token.keys().unwrap().len(), 1);
}

#[test]
fn more_keys_than_a_session_keeps_open_still_sign() {
    let token = open("hsm many keys");
    let keys: Vec<_> = (0..11)
        .map(|_| {
            token
                .generate_key_pair(Algorithm::Ed25519, "epoch")
                .unwrap()
        })
        .collect();
    for generated in keys.iter().chain(&keys) {
        sign_and_check(&token, generated, &messages(4));
    }
}

#[test]
fn session_copies_and_token_objects_sign_alike() {
    new_token("hsm copies");
    let open = |session_key_copy| {
        Token::open(
            TokenConfig {
                session_key_copy,
                ..config("hsm copies")
            },
            user_pin(),
        )
        .unwrap()
    };
    let generated = open(SessionKeyCopy::Off)
        .generate_key_pair(Algorithm::Esp256, "epoch")
        .unwrap();
    for (mode, copies) in [
        (SessionKeyCopy::Off, false),
        (SessionKeyCopy::On, true),
        (SessionKeyCopy::Auto, true),
    ] {
        let token = open(mode);
        sign_and_check(&token, &generated, &messages(30));
        assert_eq!(token.status().session_key_copies, copies, "{mode:?}");
    }
}

#[test]
fn one_session_is_enough() {
    new_token("hsm one session");
    let config = TokenConfig {
        sessions: SessionCount::Exactly(1),
        ..config("hsm one session")
    };
    let token = Token::open(config, user_pin()).unwrap();
    let generated = token.generate_key_pair(Algorithm::Esp256, "epoch").unwrap();
    sign_and_check(&token, &generated, &messages(50));
}

#[test]
fn the_ceiling_can_be_measured_beside_real_work() {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    let token = open("hsm ceiling");
    let generated = token.generate_key_pair(Algorithm::Esp256, "epoch").unwrap();
    // A clock that ticks by being read: the test measures no time.
    let ticks = AtomicU64::new(0);
    let now = || Duration::from_millis(ticks.fetch_add(1, Ordering::Relaxed));
    let mut ceiling = fob::hsm::Ceiling::prepare(&token, &generated.key, 2).unwrap();
    for _ in 0..2 {
        let run = ceiling.run(Duration::from_millis(100), &now).unwrap();
        assert!(
            run.signatures > 0 && run.sessions == 2 && run.bare_calls && run.session_key_copies,
            "{run:?}"
        );
        sign_and_check(&token, &generated, &messages(10));
    }
    assert!(fob::hsm::Ceiling::prepare(&token, &generated.key, 65).is_err());
    assert!(
        fob::hsm::bench_ceiling(&token, &generated.key, 1, Duration::from_millis(50), &now)
            .unwrap()
            > 0.0
    );
    assert_eq!(token.signatures(), 20, "measuring is not counted");
}
