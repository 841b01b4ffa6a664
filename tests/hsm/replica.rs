//! A token that holds copies of another's keys, as vendors make them, signs under its epochs.

use std::collections::BTreeSet;
use std::path::Path;

use super::outage::{check, under_load, until};
use super::several::{kids, status};
use crate::support::Issuer;
use crate::support::far::{Far, client_module};

/// The serial number of the copy.
const COPY: &str = "00c0ffee00c0ffee";

/// Has `other` hold a copy of the tokens of `near`, the issuing one under a serial number of its
/// own: SoftHSM keeps that beside the objects, so this is what a vendor's tool makes.
fn replicate(near: &Issuer, other: &Issuer, serial: &str) {
    std::fs::remove_dir_all(other.file("tokens")).unwrap();
    copy(&near.file("tokens"), &other.file("tokens"));
    let mut renamed = 0;
    for folder in std::fs::read_dir(other.file("tokens")).unwrap() {
        let file = folder.unwrap().path().join("token.object");
        let mut bytes = std::fs::read(&file).unwrap();
        let mut windows = bytes.windows(serial.len());
        if let Some(at) = windows.position(|window| window == serial.as_bytes()) {
            bytes[at..at + serial.len()].copy_from_slice(COPY.as_bytes());
            std::fs::write(&file, bytes).unwrap();
            renamed += 1;
        }
    }
    assert_eq!(renamed, 1);
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn a_replica_signs_under_the_others_epoch() {
    let (near, other) = (Issuer::demo(), Issuer::demo());
    let file = near.file("fob.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let mut config: toml::Table = toml::from_str(&text).unwrap();
    let mine = config["hsm"].clone();
    let serial = mine["serial"].as_str().unwrap().to_owned();
    replicate(&near, &other, &serial);
    let mut theirs = mine.clone();
    theirs["module"] = client_module().display().to_string().into();
    theirs["serial"] = COPY.into();
    let table = theirs.as_table_mut().unwrap();
    table.insert("replica_of".into(), serial.into());
    let mut section = toml::Table::new();
    section.insert("token".into(), vec![mine, theirs].into());
    config.insert("hsm".into(), section.into());
    std::fs::write(&file, config.to_string()).unwrap();

    let mut far = Far::of(&other);
    let (name, address) = far.address();
    // Every signature is verified against the one epoch's key.
    let server = near.serve_with(&[(name, &address), ("FOB_ENGINE_VERIFY_ONE_IN", "1")]);
    let signatures = || {
        let tokens = status(&near);
        [0, 1].map(|at| tokens[at]["signatures"].as_u64().unwrap())
    };
    let before = signatures();
    let seen = under_load(&server, &near.owner(), |seen| {
        until("both have signed", || {
            let now = signatures();
            now.iter()
                .zip(before)
                .all(|(now, before)| *now > before + 5)
        });
        far.kill();
        until("the far one is taken out", || {
            status(&near)[1]["breaker"] == "open"
        });
        let answered = || seen.answered.load(std::sync::atomic::Ordering::Relaxed);
        let before = answered();
        until("the near one goes on", || answered() > before + 20);
    });
    let unavailable = seen.unavailable.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(unavailable, 0, "{}", near.log());
    let orders = seen.orders.lock().unwrap();
    let signers = orders
        .iter()
        .flat_map(|order| kids(order.answered.as_ref().unwrap()));
    assert_eq!(signers.collect::<BTreeSet<_>>().len(), 1, "one epoch");
    drop(orders);
    check(&server, &seen);
    assert!(server.stop());
}
