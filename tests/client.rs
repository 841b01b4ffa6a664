//! The independent client: written in Python from the design alone, with `cbor2` and
//! `cryptography`, and run against a real server. `make test` makes its environment.
//! Beside it `scitt-cose`, a verifier of COSE Receipts by others, over the golden vectors.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::support::garage::{Garage, keys};
use crate::support::{Issuer, Phone};
use crate::vectors::unhex;

/// The environment `make test` makes, or the one `FOB_PYTHON` names.
fn python() -> PathBuf {
    environment("FOB_PYTHON", ".venv")
}

/// The Python of an environment in `folder`, or the one that `variable` names.
fn environment(variable: &str, folder: &str) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let python = std::env::var_os(variable).map(PathBuf::from);
    let python = python.unwrap_or_else(|| root.join(folder).join("bin/python"));
    assert!(
        python.exists(),
        "{} is missing: `make {folder}/bin/python` makes it",
        python.display()
    );
    python
}

fn script(name: &str) -> Command {
    script_in(&python(), name)
}

fn script_in(python: &Path, name: &str) -> Command {
    let mut command = Command::new(python);
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    command.arg(root.join("tests/client").join(name));
    command
}

fn passed(done: &Output) {
    let printed = String::from_utf8_lossy(&done.stdout);
    let complaint = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{printed}\n{complaint}");
    assert!(printed.contains(" 0 failed"), "{printed}");
}

fn flow(init: &[&str]) {
    let issuer = Issuer::with(&[&["--demo"], init].concat());
    let server = issuer.serve();
    let token = issuer.token("authorize,read,admin,revoke");
    let done = script("flow.py")
        .args(["--url", &server.url, "--token", &token, "--dir"])
        .arg(issuer.path())
        .output()
        .unwrap();
    passed(&done);
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

#[test]
fn libraries_by_others_read_the_status_lists_of_a_server() {
    let garage = Garage::with(&["--alg", "ES256"]);
    let phone = Phone::new();
    let two = ["doors.unlock", "engine.start", "trunk.open"];
    let (_, bundle) = garage.issue("DEMO-0001", &two, "renter-1", &phone);
    let handed = keys(&bundle);
    let (other, suspended) = garage.issue("DEMO-0001", &two, "renter-1", &phone);
    let other = other["authorization"].as_str().unwrap();
    let path = format!("/v1/authorizations/{other}/suspend");
    garage.done("POST", &path, &serde_json::json!({}));
    let revoked = serde_json::json!({"key": handed[1].id});
    garage.done("POST", "/v1/revocations", &revoked);
    let folder = tempfile::tempdir().unwrap();
    let [issuer_file, list_file] = ["jwks", "list"].map(|name| folder.path().join(name));
    let fetch = |path: &str| garage.server.get(path, &[]).body;
    std::fs::write(&issuer_file, fetch("/.well-known/jwks.json")).unwrap();
    let path = handed[0].uri.strip_prefix(&garage.server.url).unwrap();
    std::fs::write(&list_file, fetch(path)).unwrap();
    let python = environment("FOB_PYTHON_STATUS", ".venv-status");
    let mut check = script_in(&python, "status.py");
    check
        .args(["--url", &handed[0].uri, "--key"])
        .arg(issuer_file);
    check.arg(list_file).arg(format!("{}:0", handed[0].index));
    check.arg(format!("{}:1", handed[1].index));
    for key in keys(&suspended) {
        check.arg(format!("{}:2", key.index));
    }
    passed(&check.output().unwrap());
}

fn vectors() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("verify/vectors")
}

#[test]
fn the_independent_client_opens_the_golden_vectors() {
    passed(&script("vectors.py").arg(vectors()).output().unwrap());
}

#[test]
fn a_verifier_of_receipts_by_others_takes_the_golden_keys_and_no_change_of_them() {
    let read = |name: &str| -> Value {
        serde_json::from_slice(&std::fs::read(vectors().join(name)).unwrap()).unwrap()
    };
    let all = read("keys.json");
    let mut all = all.as_array().unwrap().iter();
    let issuer = all.find(|key| key["name"] == "issuer ES256").unwrap();
    let trees = read("tree-es256.json");
    let keys = trees.as_array().unwrap().iter();
    let lines: Vec<String> = keys
        .map(|key| BASE64_URL_SAFE_NO_PAD.encode(unhex(&key["object"])))
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let [issuer_file, keys_file] = ["issuer.cbor", "keys"].map(|name| folder.path().join(name));
    std::fs::write(&issuer_file, unhex(&issuer["issuer_cose_key"])).unwrap();
    std::fs::write(&keys_file, lines.join("\n")).unwrap();
    let mut check = script("receipts.py");
    check.arg("--key").arg(issuer_file).arg(keys_file);
    passed(&check.output().unwrap());
}
