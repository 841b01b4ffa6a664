//! Two tokens, one in Fob's process and one behind p11-kit, each with a key of its own: one that
//! fails is taken out and comes back, and no request fails for it.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use fob::domain::Epoch;
use fob::store::sqlite::{Sqlite, SqliteConfig};
use fob::store::{Applied, Row, Store as _, Write};
use serde_json::Value;

use super::outage::{check, under_load, until};
use crate::support::Issuer;
use crate::support::far::{Far, client_module};

/// An issuer whose epochs are in two tokens: its own, and that of another issuer.
fn with_two_tokens(near: &Issuer, other: &Issuer) {
    let epoch = epochs(other).remove(0);
    let applied = store(near).commit(&[Write::Epoch(epoch)]).unwrap();
    assert_eq!(applied, [Applied::Done]);
    name_both(near, other);
}

/// Has an issuer sign in two tokens: its own, and that of another issuer.
pub(super) fn name_both(near: &Issuer, other: &Issuer) {
    let read = |issuer: &Issuer| -> toml::Table {
        let text = std::fs::read_to_string(issuer.file("fob.toml")).unwrap();
        toml::from_str(&text).unwrap()
    };
    let (mut config, far) = (read(near), read(other));
    let (mine, mut theirs) = (config["hsm"].clone(), far["hsm"].clone());
    theirs["module"] = client_module().display().to_string().into();
    theirs["pin_file"] = other.file("hsm.pin").display().to_string().into();
    let mut section = toml::Table::new();
    section.insert("token".into(), vec![mine, theirs].into());
    section.insert("call_timeout_ms".into(), 500.into());
    config.insert("hsm".into(), section.into());
    std::fs::write(near.file("fob.toml"), config.to_string()).unwrap();
}

fn store(issuer: &Issuer) -> Sqlite {
    Sqlite::open(&issuer.file("fob.db"), SqliteConfig::default()).unwrap()
}

fn epochs(issuer: &Issuer) -> Vec<Epoch> {
    let mut found = Vec::new();
    let each = &mut |row| {
        if let Row::Epoch(epoch) = row {
            found.push(epoch);
        }
    };
    store(issuer).load(each).unwrap();
    found
}

/// What `fob hsm status` says, through the running server.
pub(super) fn status(issuer: &Issuer) -> Vec<Value> {
    let said = issuer.fob(&["hsm", "status", "--json"]);
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["up"], true);
    said["tokens"].as_array().unwrap().clone()
}

/// Waits until the far token has signed more than the trial that brought it back.
fn far_signs(issuer: &Issuer) {
    let signatures = || status(issuer)[1]["signatures"].as_u64().unwrap();
    until("the far token is up", || {
        status(issuer)[1]["breaker"] == "closed"
    });
    let before = signatures();
    until("the far token signs", || signatures() > before);
}

#[test]
fn a_token_that_fails_under_load_costs_no_request() {
    let (near, other) = (Issuer::demo(), Issuer::demo());
    with_two_tokens(&near, &other);
    let mut far = Far::of(&other);
    let (name, address) = far.address();
    // Every signature is verified against the key of the epoch it is said to be of.
    let server = near.serve_with(&[(name, &address), ("FOB_ENGINE_VERIFY_ONE_IN", "1")]);
    let owner = near.owner();
    let seen = under_load(&server, &owner, |seen| {
        far_signs(&near);
        for _ in 0..2 {
            far.kill();
            let taken_out = || status(&near)[1]["breaker"] == "open";
            until("the far token is taken out", taken_out);
            let before = seen.answered.load(Ordering::Relaxed);
            until("the near token goes on", || {
                seen.answered.load(Ordering::Relaxed) > before + 20
            });
            assert_eq!(server.get("/readyz", &[]).status, 200);
            far.start();
            far_signs(&near);
        }
        far.stop();
        let parked = || status(&near)[1]["parked_threads"] != 0;
        until("its threads are parked", parked);
        thread::sleep(Duration::from_millis(50));
        far.go_on();
        far_signs(&near);
    });
    assert_eq!(
        seen.unavailable.load(Ordering::Relaxed),
        0,
        "{}",
        near.log()
    );
    let keys: std::collections::BTreeSet<_> = seen
        .orders
        .lock()
        .unwrap()
        .iter()
        .flat_map(|order| kids(order.answered.as_ref().unwrap()))
        .collect();
    assert_eq!(keys.len(), 2, "both epochs have signed");
    check(&server, &seen);
    let log = near.log();
    let lines = |text: &str| log.lines().filter(|line| line.contains(text)).count();
    assert_eq!(lines("a token does not sign"), 3, "{log}");
    assert_eq!(lines("the HSM signs again"), 3, "{log}");
    assert_eq!(lines("the HSM is down"), 0, "{log}");
    assert!(server.stop());
}

/// The issuers that a bundle's keys name.
pub(super) fn kids(bundle: &[u8]) -> Vec<Vec<u8>> {
    use base64::Engine as _;
    let bundle: Value = serde_json::from_slice(bundle).unwrap();
    let kid = |key: &Value| {
        let text = key["key"].as_str().unwrap();
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD
            .decode(text)
            .unwrap();
        // The header begins with alg, one octet, and kid, eight: `{1: alg, 4: bstr 8 …`.
        let at = bytes
            .windows(2)
            .position(|pair| pair == [0x04, 0x48])
            .unwrap();
        bytes[at + 2..at + 10].to_vec()
    };
    bundle["keys"].as_array().unwrap().iter().map(kid).collect()
}

#[test]
fn a_token_that_is_not_there_at_the_start_is_taken_in_when_it_comes() {
    let (near, other) = (Issuer::demo(), Issuer::demo());
    with_two_tokens(&near, &other);
    let mut far = Far::of(&other);
    far.kill();
    let (name, address) = far.address();
    let server = near.serve_with(&[(name, &address)]);
    let tokens = status(&near);
    assert_eq!(
        (&tokens[0]["breaker"], &tokens[1]["breaker"]),
        (&"closed".into(), &"open".into())
    );
    assert_eq!(server.get("/readyz", &[]).status, 200);
    far.start();
    until("it is taken in", || status(&near)[1]["breaker"] == "closed");
    // Both tell what they are.
    for token in status(&near) {
        for field in ["module", "library", "label", "serial", "firmware", "model"] {
            let text = token[field].as_str().unwrap();
            assert!(
                !text.is_empty() && !text.contains('\0'),
                "{field}: {text:?}"
            );
        }
        assert!(!token["mechanisms"].as_array().unwrap().is_empty());
        let keys = token["keys"].as_array().unwrap();
        assert!(keys.iter().any(|key| key["state"] == "active"), "{token}");
    }
}

#[test]
fn epochs_follow_each_other_in_every_token() {
    let (near, other) = (Issuer::demo(), Issuer::demo());
    with_two_tokens(&near, &other);
    let mut far = Far::of(&other);
    let (name, address) = far.address();
    let server = near.serve_with(&[(name, &address)]);
    let in_state = |state: &str| -> Vec<Value> {
        let rows = near.fob(&["epoch", "list", "--json"]);
        let rows: Vec<Value> = serde_json::from_str(&rows).unwrap();
        let rows = rows.into_iter();
        rows.filter(|row| row["state"] == state).collect()
    };
    let of_token = |rows: &[Value], token: &Value| -> String {
        let mut own = rows.iter().filter(|row| row["token_serial"] == *token);
        let id = own.next().unwrap()["id"].as_str().unwrap().to_owned();
        assert!(own.next().is_none(), "one for each token");
        id
    };
    let tokens: Vec<Value> = status(&near)
        .iter()
        .map(|one| one["serial"].clone())
        .collect();
    let before = in_state("active");
    near.fob(&["epoch", "rotate"]);
    let after = in_state("active");
    for token in &tokens {
        assert_ne!(of_token(&before, token), of_token(&after, token));
    }
    near.fob(&["epoch", "prepare", "--window", "now/2099-01-01T00:00:00Z"]);
    let prepared = in_state("prepared");
    let [of_near, of_far] = [0, 1].map(|at| of_token(&prepared, &tokens[at]));

    far.kill();
    near.fob(&["epoch", "activate", &of_near]);
    let refused = near.fob_fails(&["epoch", "activate", &of_far]);
    assert!(refused.contains("HSM"), "{refused}");
    let active = in_state("active");
    assert_eq!(of_token(&active, &tokens[0]), of_near);
    assert_eq!(of_token(&active, &tokens[1]), of_token(&after, &tokens[1]));

    far.start();
    until("the far token activates its own", || {
        near.command(&["epoch", "activate", &of_far])
            .output()
            .unwrap()
            .status
            .success()
    });
    assert_eq!(of_token(&in_state("active"), &tokens[1]), of_far);
    assert!(server.stop());
}
