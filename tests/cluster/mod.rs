//! An issuer over PostgreSQL, end to end: as over a file, and it comes back when the database does;
//! and two nodes that serve from one database.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod fenced;
mod lease;
mod outage;
mod pair;
mod race;
mod ruled;
mod standing;
mod together;

use std::process::Command;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::database::{Schema, Server as Database};
use crate::support::{FOB, Issuer, Phone};

const TWO: [&str; 2] = ["doors.unlock", "engine.start"];

fn issuer(schema: &Schema) -> Issuer {
    Issuer::with(&["--demo", "--store", &schema.url()])
}

#[test]
fn an_issuer_over_a_database_keeps_what_it_answered() {
    let schema = Schema::new();
    let issuer = issuer(&schema);
    assert!(!issuer.file("fob.db").exists());
    let (owner, phone) = (issuer.owner(), Phone::new());
    let server = issuer.serve_at("127.0.0.1:0");
    let address = server.url.strip_prefix("http://").unwrap().to_owned();
    let code_set = server.authorize(&owner, "DEMO-0001", &TWO);
    let open = server.authorize(&owner, "DEMO-0002", &TWO);
    let bundle = server.redeem(&code_set, "renter-1", &phone);
    assert_eq!(bundle.status, 201, "{}", bundle.text());
    assert_eq!(
        server.redeem(&code_set, "renter-1", &phone).body,
        bundle.body
    );
    server.kill();
    let server = issuer.serve_at(&address);
    assert_eq!(
        server.redeem(&code_set, "renter-1", &phone).body,
        bundle.body
    );
    let rival = server.redeem(&code_set, "renter-2", &Phone::new());
    rival.refused(409, "code_set_redeemed");
    let late = server.redeem(&open, "renter-1", &phone);
    assert_eq!(late.status, 201, "{}", late.text());
    // The commands that open the directory themselves open the database.
    server.stop();
    sound(&issuer, &schema);
    let fleets = issuer.fob(&["fleet", "list", "--json"]);
    assert!(fleets.contains("\"demo\""), "{fleets}");
    let migrated = issuer.fob(&["migrate", "--json"]);
    assert!(migrated.contains("\"postgres\""), "{migrated}");
}

#[test]
fn a_database_that_is_not_migrated_is_refused_and_says_what_to_do() {
    let schema = Schema::new();
    let issuer = issuer(&schema);
    let version = schema.execute("SELECT version FROM fob_schema").unwrap();
    schema.execute("UPDATE fob_schema SET version = 0");
    let said = issuer.fob_fails(&["serve", "--listen", "127.0.0.1:0"]);
    assert!(said.contains("fob migrate"), "{said}");
    let taken = tempfile::tempdir().unwrap();
    schema.execute(&format!("UPDATE fob_schema SET version = {version}"));
    let second = Command::new(FOB)
        .args(["init", "--store", &schema.url(), "--dir"])
        .arg(taken.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(
        !second.status.success() && said.contains("issuer already"),
        "{said}"
    );
    assert!(!taken.path().join("fob.toml").exists());
}

#[test]
fn a_database_that_goes_away_costs_a_503_and_comes_back_by_itself() {
    let mut database = Database::start();
    let schema = database.schema();
    let issuer = issuer(&schema);
    let (owner, phone) = (issuer.owner(), Phone::new());
    let server = issuer.serve();
    for round in 0..3 {
        let vehicle = format!("DEMO-{:04}", round + 1);
        let code_set = server.authorize(&owner, &vehicle, &TWO);
        let next = server.authorize(&owner, &vehicle, &TWO);
        let answered = server.redeem(&code_set, "renter-1", &phone);
        assert_eq!(answered.status, 201, "{}", answered.text());
        database.kill();
        let refused = server.redeem(&next, "renter-1", &phone);
        refused.refused(503, "store_unavailable");
        assert!(refused.header("retry-after").is_some());
        database.start_again();
        until(|| server.get("/readyz", &[]).value()["store"] == json!(true));
        let again = server.redeem(&code_set, "renter-1", &phone);
        assert_eq!(again.body, answered.body, "{}", again.text());
        let redeemed = server.redeem(&next, "renter-1", &phone);
        assert_eq!(redeemed.status, 201, "{}", redeemed.text());
        let rival = server.redeem(&next, "renter-2", &Phone::new());
        rival.refused(409, "code_set_redeemed");
    }
    server.stop();
    sound(&issuer, &schema);
}

/// What a database says of itself from which nobody serves any more, for as long as it takes to be
/// believed.
fn sound(issuer: &Issuer, schema: &Schema) -> Value {
    schema.execute("UPDATE transactions SET at = at - interval '1 hour'");
    schema.execute("UPDATE nodes SET seen = seen - interval '1 hour'");
    crate::audit::sound(issuer)
}

fn until(mut holds: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if holds() {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
    panic!("it did not come to be");
}
