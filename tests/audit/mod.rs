//! `fob audit`: what fits is found sound, and each thing that does not is found and named.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod flaws;
mod signed;

use serde_json::{Value, json};

use crate::batches::order;
use crate::support::garage::Garage;
use crate::support::{Issuer, Phone};

const TWO: [&str; 2] = ["doors.unlock", "engine.start"];

/// What the stopped issuer of the garage says of itself.
pub fn sound(issuer: &Issuer) -> Value {
    let report: Value = serde_json::from_str(&issuer.fob(&["audit", "--json"])).unwrap();
    assert_eq!(report["sound"], true, "{report}");
    report
}

fn revoke(garage: &Garage, what: &Value) {
    let answer = garage
        .server
        .json_as(&garage.token, "POST", "/v1/revocations", what);
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// A stopped issuer that has issued each and together, changed, ended and orders; with what it has
/// handed out: bundles and keys, those of all versions.
fn used() -> (Garage, u64, u64) {
    let garage = Garage::new();
    let phone = Phone::new();
    let (changed, _) = garage.issue("DEMO-0001", &TWO, "renter-1", &phone);
    let id = changed["authorization"].as_str().unwrap();
    let answer = garage.change(id, 1, &json!({ "functions": ["doors.unlock"] }));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let (ended, _) = garage.issue("DEMO-0002", &TWO, "renter-2", &phone);
    revoke(&garage, &json!({ "authorization": ended["authorization"] }));
    garage.issue("DEMO-0003", &TWO, "renter-3", &phone);
    garage.server.authorize(&garage.owner, "DEMO-0004", &TWO);
    for (terminal, identity) in [("phone-1", "renter-1"), ("phone-2", "renter-2")] {
        let body = json!({ "identity": identity, "jwk": Phone::new().jwk() });
        let path = format!("/v1/terminals/{terminal}");
        let put = garage.server.json_as(&garage.admin, "PUT", &path, &body);
        assert_eq!(put.status, 204, "{}", put.text());
    }
    let bearer = format!("Bearer {}", garage.token);
    let headers = [
        ("content-type", "application/x-ndjson"),
        ("authorization", bearer.as_str()),
        ("idempotency-key", "a"),
    ];
    let lines = (1..=8).map(|n| {
        let mut line = order(&format!("r-{n}"), n);
        line["signing"] = json!("auto");
        format!("{line}\n")
    });
    let body: String = lines.collect();
    let issued = garage
        .server
        .send("POST", "/v1/batches", &headers, body.as_bytes());
    assert_eq!(issued.text().matches("\"issued\"").count(), 8);
    (garage, 3 + 8, 3 * 2 + 1 + 8 * 2)
}

#[test]
fn an_issuer_that_was_used_is_sound_and_counts_what_it_signed() {
    let (mut garage, bundles, keys) = used();
    garage.crash();
    let said = garage.issuer.fob_fails(&["audit"]);
    assert!(
        said.contains("stop it first") && said.contains("--file"),
        "{said}"
    );
    // A copy can be looked at meanwhile.
    let copy = garage.issuer.file("copy.db").display().to_string();
    let connection = rusqlite::Connection::open(garage.issuer.file("fob.db")).unwrap();
    connection.execute("VACUUM INTO ?1", [&copy]).unwrap();
    drop(connection);
    let of_copy: Value =
        serde_json::from_str(&garage.issuer.fob(&["audit", "--json", "--file", &copy])).unwrap();
    let Garage { issuer, server, .. } = garage;
    server.stop();
    let report = sound(&issuer);
    for counted in ["bundles", "keys", "authorizations", "marks"] {
        assert_eq!(report[counted], of_copy[counted], "{counted}");
    }
    assert_eq!(report["bundles"], bundles, "{report}");
    assert_eq!(report["keys"], keys, "{report}");
    let fleet = report["fleets"]
        .as_object()
        .unwrap()
        .values()
        .next()
        .unwrap();
    assert_eq!(fleet["recorded"], keys);
    // What was counted out and not committed: nothing, for nothing failed.
    assert_eq!(fleet["unrecorded"], 0, "{report}");
    let of_epochs = report["epochs"].as_object().unwrap().values();
    let signed: u64 = of_epochs.map(|of| of["signatures"].as_u64().unwrap()).sum();
    assert_eq!(report["signatures"], signed);
    let text = issuer.fob(&["audit"]);
    assert!(text.contains("everything fits"), "{text}");
}

#[test]
fn a_finding_is_told_with_what_to_do_and_fails_the_command() {
    let (garage, ..) = used();
    let Garage { issuer, server, .. } = garage;
    server.stop();
    let connection = rusqlite::Connection::open(issuer.file("fob.db")).unwrap();
    connection.execute("DELETE FROM statuses", []).unwrap();
    drop(connection);
    let done = issuer.command(&["audit", "--json"]).output().unwrap();
    assert_eq!(done.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(report["sound"], false);
    // Both keys of the one that was ended, and the function that was taken off the other.
    assert_eq!(report["flaws"]["not_revoked"], 3, "{report}");
    let finding = &report["findings"][0];
    assert_eq!(finding["flaw"], "not_revoked");
    assert!(
        finding["of"].as_str().unwrap().starts_with("bundle "),
        "{finding}"
    );
    assert!(
        finding["advice"].as_str().unwrap().contains("revocation"),
        "{finding}"
    );
    let done = issuer.command(&["audit"]).output().unwrap();
    let text = String::from_utf8(done.stdout).unwrap();
    assert!(text.contains("send the revocation again"), "{text}");
}
