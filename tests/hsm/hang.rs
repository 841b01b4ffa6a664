//! Single calls that never return, while the module is well otherwise: a session that hangs is
//! left out, the others sign on, and new ones take over once all of them hang.

use std::path::PathBuf;
use std::process::Command;

use fob::hsm::softhsm_module;
use serde_json::Value;

use super::outage::until;
use crate::support::far::use_module;
use crate::support::{Issuer, Phone, Server};

/// `hang.c`, built into the issuer's directory.
fn build(issuer: &Issuer) -> PathBuf {
    let library = issuer.file("hang.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/hsm/hang.c");
    let built = Command::new("gcc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(source)
        .arg("-ldl")
        .status()
        .unwrap();
    assert!(built.success());
    library
}

fn redeem(issuer: &Issuer, server: &Server) -> u16 {
    let code_set = server.authorize(&issuer.owner(), "DEMO-0001", &["doors.unlock"]);
    let answer = server.redeem(&code_set, "renter-1", &Phone::new());
    if answer.status != 201 {
        answer.refused(503, "hsm_unavailable");
    }
    answer.status
}

fn parked(issuer: &Issuer) -> u64 {
    let said = issuer.fob(&["hsm", "status", "--json"]);
    let said: Value = serde_json::from_str(&said).unwrap();
    said["tokens"][0]["parked_threads"].as_u64().unwrap()
}

#[test]
fn a_session_that_hangs_is_left_out_and_the_others_sign_on() {
    let issuer = Issuer::demo();
    use_module(&issuer, &build(&issuer));
    let (provider, hang) = (softhsm_module().unwrap(), issuer.file("hang"));
    let variables = [
        ("FOB_TEST_PROVIDER", provider.to_str().unwrap()),
        ("FOB_TEST_HANG", hang.to_str().unwrap()),
        ("FOB_HSM_CALL_TIMEOUT_MS", "300"),
        ("FOB_HSM_SESSIONS", "2"),
    ];
    let server = issuer.serve_with(&variables);
    assert_eq!(redeem(&issuer, &server), 201);
    std::fs::write(&hang, "").unwrap();
    assert_eq!(redeem(&issuer, &server), 201, "another session signs it");
    assert!(!hang.exists(), "one hangs");
    assert_eq!(parked(&issuer), 1);
    for _ in 0..10 {
        assert_eq!(redeem(&issuer, &server), 201);
    }
    assert_eq!(server.get("/readyz", &[]).status, 200);
    assert!(!issuer.log().contains("ERROR"), "{}", issuer.log());

    // The last session of the two hangs: new ones are opened beside them.
    std::fs::write(&hang, "").unwrap();
    redeem(&issuer, &server);
    until("new sessions sign", || redeem(&issuer, &server) == 201);
    assert_eq!(parked(&issuer), 2);
    // It ends in order all the same, without waiting for them.
    assert!(server.stop());
}
