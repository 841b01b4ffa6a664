//! The life of epochs and of the root: what operators do, what the server does by itself, and what
//! cars believe before, meanwhile and afterwards.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod consent;
mod crash;
mod life;
mod load;
mod records;
mod reissue;
mod renewal;
mod root;
mod schedule;

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use fob_verify::key::SignedKey;
use fob_verify::trust;
use fob_verify::{IssuerKey, Refusal, RustCrypto};
use serde_json::Value;

use crate::support::{Answer, Issuer, now};

/// A window that is open now and for long.
const WIDE: &str = "now/2099-01-01T00:00:00Z";

/// What `fob … --json` prints.
fn json(issuer: &Issuer, args: &[&str]) -> Value {
    let text = issuer.fob(&[args, &["--json"]].concat());
    serde_json::from_str(&text).unwrap()
}

/// The ids of all epochs in a state.
fn epochs(issuer: &Issuer, state: &str) -> Vec<String> {
    let rows = json(issuer, &["epoch", "list"]);
    let rows = rows.as_array().unwrap().iter();
    rows.filter(|row| row["state"] == state)
        .map(|row| row["id"].as_str().unwrap().to_owned())
        .collect()
}

/// The one active epoch.
fn active(issuer: &Issuer) -> String {
    let all = epochs(issuer, "active");
    assert_eq!(all.len(), 1, "exactly one is active: {all:?}");
    all[0].clone()
}

/// Adds lines to the configuration.
fn configure(issuer: &Issuer, lines: &str) {
    let path = issuer.file("fob.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(path, format!("{text}\n{lines}\n")).unwrap();
}

fn root(issuer: &Issuer) -> IssuerKey {
    IssuerKey::decode(&std::fs::read(issuer.file("root.cbor")).unwrap()).unwrap()
}

/// The keys of a bundle.
fn keys(bundle: &Answer) -> Vec<Vec<u8>> {
    assert_eq!(bundle.status, 201, "{}", bundle.text());
    let value = bundle.value();
    let keys = value["keys"].as_array().unwrap().iter();
    keys.map(|key| {
        let text = key["key"].as_str().unwrap();
        BASE64_URL_SAFE_NO_PAD.decode(text).unwrap()
    })
    .collect()
}

/// Whether a car that has this root and this trust list believes every key; otherwise why not.
fn believed(list: &[u8], roots: &[IssuerKey], keys: &[Vec<u8>]) -> Result<(), Refusal> {
    let list = trust::verify(list, roots, now(), &RustCrypto)?;
    keys.iter().try_for_each(|key| {
        let claims = SignedKey::decode(key)?.verify(&list, &RustCrypto)?;
        claims.check_time(now())
    })
}

/// The epochs that signed these keys.
fn signers<'a>(keys: impl IntoIterator<Item = &'a Vec<u8>>) -> BTreeSet<String> {
    let kid = |key: &Vec<u8>| {
        let kid = *SignedKey::decode(key).unwrap().kid();
        fob::domain::EpochId(kid).to_string()
    };
    keys.into_iter().map(kid).collect()
}

/// Waits until something is so; what takes longer than a minute will not happen.
#[track_caller]
fn wait_until(what: &str, mut so: impl FnMut() -> bool) {
    for _ in 0..1_200 {
        if so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{what} did not happen");
}
