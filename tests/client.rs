//! The independent client: written in Python from the design alone, with `cbor2` and
//! `cryptography`, and run against a real server. `make test` makes its environment.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::path::PathBuf;
use std::process::Command;

use crate::support::Issuer;

/// The environment `make test` makes, or the one `FOB_PYTHON` names.
fn python() -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let python = std::env::var_os("FOB_PYTHON").map(PathBuf::from);
    let python = python.unwrap_or_else(|| root.join(".venv/bin/python"));
    assert!(
        python.exists(),
        "{} is missing: `make .venv/bin/python` makes it",
        python.display()
    );
    python
}

fn flow(init: &[&str]) {
    let issuer = Issuer::with(&[&["--demo"], init].concat());
    let server = issuer.serve();
    let token = issuer.token("authorize,read,admin");
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/client/flow.py");
    let done = Command::new(python())
        .arg(script)
        .args(["--url", &server.url, "--token", &token, "--dir"])
        .arg(issuer.path())
        // Parts of the contract that are still to come.
        .args([
            "--without",
            "tree",
            "--without",
            "status",
            "--without",
            "cancel",
        ])
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&done.stdout);
    let complaint = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{printed}\n{complaint}");
    assert!(printed.contains(" 0 failed"), "{printed}");
}

#[test]
fn an_independent_client_goes_from_authorization_to_verified_keys() {
    flow(&[]);
}

#[test]
fn the_same_with_ed25519_issuing_keys() {
    flow(&["--alg", "Ed25519"]);
}

#[test]
fn the_same_with_es256_as_its_older_name() {
    flow(&["--alg", "ES256"]);
}
