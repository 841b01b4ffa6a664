//! Sessions and login taken away while a token is in use.

use std::sync::Arc;

use cryptoki::context::Pkcs11;
use cryptoki_sys::{CK_SLOT_ID, CKR_OK};
use fob::hsm::{GeneratedKey, HsmError, Signer, Token, verify_signature};
use fob_verify::Algorithm;

use super::attack::foreign_session;
use super::{config, messages, module, new_token, open, sign_and_check, user_pin};

/// `C_CloseAllSessions` on the token, as if the HSM had restarted: the binding
/// does not offer it.
fn close_all_sessions(label: &str) {
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
    // SAFETY: the library is loaded and initialised, and the call takes a number.
    #[expect(unsafe_code, reason = "the binding has no C_CloseAllSessions")]
    let answer = unsafe {
        cryptoki_sys::Pkcs11::new(module())
            .unwrap()
            .C_CloseAllSessions(CK_SLOT_ID::from(slot))
    };
    assert_eq!(answer, CKR_OK);
}

#[test]
fn closed_sessions_are_opened_again() {
    let token = open("hsm closed");
    let generated = token.generate_key_pair(Algorithm::Esp256, "epoch").unwrap();
    sign_and_check(&token, &generated, &messages(40));
    for round in 1..4 {
        close_all_sessions("hsm closed");
        sign_and_check(&token, &generated, &messages(40));
        assert_eq!(token.status().reconnects, round);
    }
    close_all_sessions("hsm closed");
    token.generate_key_pair(Algorithm::Ed25519, "next").unwrap();
    close_all_sessions("hsm closed");
    assert!(token.status().up);
    close_all_sessions("hsm closed");
    token.destroy_key(&generated.key).unwrap();
    assert_eq!(token.keys().unwrap().len(), 1);
}

#[test]
fn a_lost_login_is_renewed_before_and_after_the_first_use_of_a_key() {
    let token = open("hsm logged out");
    let generated = token
        .generate_key_pair(Algorithm::Ed25519, "epoch")
        .unwrap();
    for _ in 0..2 {
        foreign_session("hsm logged out").logout().unwrap();
        sign_and_check(&token, &generated, &messages(9));
    }
}

#[test]
fn callers_at_work_when_the_login_ends_get_their_signatures() {
    // Not with closed sessions: SoftHSM frees those under whoever signs in them.
    let token = Arc::new(open("hsm lost at work"));
    let generated = token.generate_key_pair(Algorithm::Esp256, "epoch").unwrap();
    let callers: Vec<_> = (0..3)
        .map(|_| {
            let token = Arc::clone(&token);
            std::thread::spawn(move || {
                (0..30)
                    .map(|_| try_sign(&token, &generated, 24))
                    .sum::<usize>()
            })
        })
        .collect();
    for _ in 0..5 {
        foreign_session("hsm lost at work").logout().unwrap();
        try_sign(&token, &generated, 4);
    }
    let signed: usize = callers
        .into_iter()
        .map(|caller| caller.join().unwrap())
        .sum();
    assert!(signed >= 24 * 45, "only {signed}");
    sign_and_check(&token, &generated, &messages(4));
}

/// How many signatures were given out: all, each one good, or none if the login
/// ended once more just after it was renewed.
fn try_sign(token: &Token, generated: &GeneratedKey, count: usize) -> usize {
    let all = messages(count);
    let slices: Vec<&[u8]> = all.iter().map(Vec::as_slice).collect();
    match token.sign_all(&generated.key, &slices) {
        Ok(signatures) => {
            let good = |(message, signature): (&Vec<u8>, _)| {
                verify_signature(&generated.public, message, signature)
            };
            assert!(all.iter().zip(&signatures).all(good));
            signatures.len()
        }
        Err(error) => {
            assert!(error.retryable(), "{error}");
            0
        }
    }
}

#[test]
fn a_pin_refused_while_renewing_is_never_tried_again() {
    new_token("hsm pin changed");
    let keeper = Token::open(config("hsm pin changed"), user_pin()).unwrap();
    let generated = keeper
        .generate_key_pair(Algorithm::Esp256, "epoch")
        .unwrap();
    // Logged in already, so nobody looked at this PIN yet.
    let stale = Token::open(config("hsm pin changed"), "an older pin".into()).unwrap();
    drop(keeper);
    close_all_sessions("hsm pin changed");
    let refused = HsmError::PinWrong {
        label: "hsm pin changed".to_owned(),
    };
    assert_eq!(
        stale.sign_all(&generated.key, &[b"message"]),
        Err(refused.clone())
    );
    // With the login back the sessions would open; the refused PIN keeps them shut.
    let keeper = Token::open(config("hsm pin changed"), user_pin()).unwrap();
    assert_eq!(stale.sign_all(&generated.key, &[b"message"]), Err(refused));
    assert!(!stale.status().up);
    sign_and_check(&keeper, &generated, &messages(2));
}
