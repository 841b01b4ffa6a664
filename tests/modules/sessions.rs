//! Sessions: many at once, copies of keys in them, and what takes them away.

use std::sync::Arc;

use cryptoki::context::Pkcs11;
use cryptoki_sys::{CK_FUNCTION_LIST, CK_SLOT_ID, CKR_OK};
use fob::hsm::{HsmError, SessionKeyCopy, Signer, Token, TokenConfig};
use fob_verify::Algorithm;

use super::keys::generate;
use super::world::{World, messages, sign_and_check};

/// Callers share the sessions, and every signature is verified.
pub fn many_callers(world: &World) {
    let token = Arc::new(world.open_with(world.config(4)));
    assert_eq!(token.status().sessions, 4);
    let keys = [(); 2].map(|()| generate(&token, Algorithm::Esp256));
    let call = |caller: usize| {
        let (token, generated) = (Arc::clone(&token), keys[caller % keys.len()]);
        std::thread::spawn(move || {
            for batch in 1..5 {
                sign_and_check(&token, &generated, batch * 2 + caller);
            }
        })
    };
    let callers: Vec<_> = (0..4).map(call).collect();
    let ended: Vec<_> = callers.into_iter().map(|caller| caller.join()).collect();
    assert!(ended.iter().all(Result::is_ok));
    for generated in keys {
        token.destroy_key(&generated.key).unwrap();
    }
}

/// A batch of many: all of them, in order, or none.
pub fn batch(world: &World) {
    let token = world.open();
    let generated = generate(&token, Algorithm::Esp256);
    sign_and_check(&token, &generated, world.batch);
    let made = world.batch as u64;
    assert_eq!(token.signatures(), made);
    // One that cannot be signed gives out nothing.
    let other = fob::hsm::KeyRef {
        id: [0xee; 16],
        ..generated.key
    };
    let all = messages(world.batch);
    let slices: Vec<&[u8]> = all.iter().map(Vec::as_slice).collect();
    assert!(token.sign_all(&other, &slices).is_err());
    assert_eq!(token.signatures(), made);
    token.destroy_key(&generated.key).unwrap();
}

/// Sessions sign with copies of the key of their own, and with the key in the token.
pub fn copies(world: &World) {
    let open = |session_key_copy| {
        world.open_with(TokenConfig {
            session_key_copy,
            ..world.config(2)
        })
    };
    let token = open(SessionKeyCopy::Off);
    let generated = generate(&token, Algorithm::Esp256);
    sign_and_check(&token, &generated, 12);
    assert!(!token.status().session_key_copies);
    let token = open(SessionKeyCopy::On);
    sign_and_check(&token, &generated, 12);
    assert!(token.status().session_key_copies);
    token.destroy_key(&generated.key).unwrap();
}

/// A PIN that is wrong is refused, and the right one opens the token after it.
pub fn wrong_pin(world: &World) {
    let error = Token::open(world.config(2), "not the pin".into()).unwrap_err();
    assert!(matches!(error, HsmError::PinWrong { .. }), "{error}");
    assert!(!format!("{error} {error:?}").contains("not the pin"));
    let token = world.open();
    let generated = generate(&token, Algorithm::Esp256);
    sign_and_check(&token, &generated, 3);
    token.destroy_key(&generated.key).unwrap();
}

/// Somebody else in the process logs out: Fob logs in again.
pub fn logged_out(world: &World) {
    let token = world.open();
    world.same_instance();
    let generated = generate(&token, Algorithm::Esp256);
    for _ in 0..2 {
        world.foreign_session().logout().unwrap();
        sign_and_check(&token, &generated, 9);
    }
    assert_eq!(token.status().reconnects, 2);
    token.destroy_key(&generated.key).unwrap();
}

/// All sessions are closed, as if the HSM had restarted.
pub fn closed(world: &World) {
    let token = world.open();
    let library = world.same_instance();
    let generated = generate(&token, Algorithm::Esp256);
    sign_and_check(&token, &generated, 9);
    for round in 1..4 {
        close_all_sessions(world, &library);
        sign_and_check(&token, &generated, 9);
        assert_eq!(token.status().reconnects, round);
    }
    close_all_sessions(world, &library);
    token.destroy_key(&generated.key).unwrap();
}

/// `C_CloseAllSessions`, which the binding does not offer.
#[expect(unsafe_code, reason = "the binding has no C_CloseAllSessions")]
fn close_all_sessions(world: &World, library: &Pkcs11) {
    let slot = CK_SLOT_ID::from(world.slot(library));
    let module = world.config(1).module;
    let mut list: *mut CK_FUNCTION_LIST = std::ptr::null_mut();
    // SAFETY: the library is loaded and initialised, the list it gives stays valid
    // while it is, and the call takes a number.
    let answer = unsafe {
        let library = cryptoki_sys::Pkcs11::new(&module).unwrap();
        assert_eq!(library.C_GetFunctionList(&mut list), CKR_OK);
        let close = std::ptr::read_unaligned(list).C_CloseAllSessions.unwrap();
        close(slot)
    };
    assert_eq!(answer, CKR_OK);
}

/// The module is finalised under Fob, which initialises it anew.
pub fn finalized(world: &World) {
    let token = world.open();
    let library = world.same_instance();
    let generated = generate(&token, Algorithm::Esp256);
    sign_and_check(&token, &generated, 9);
    library.finalize().unwrap();
    sign_and_check(&token, &generated, 9);
    assert_eq!(token.status().reconnects, 1);
    token.destroy_key(&generated.key).unwrap();
}
