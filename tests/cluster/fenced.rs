//! A database that was put back is fenced when nobody serves from it, and not before.

use serde_json::Value;

use super::pair::{Pair, authorize, redeem, text};
use crate::support::Phone;
use crate::support::database::Schema;

#[test]
fn a_database_is_not_fenced_beneath_a_node() {
    let schema = Schema::new();
    let pair = Pair::over(&schema);
    let owner = pair.owner();
    let second = pair.serve(1);
    let made = authorize(&second, &owner, "DEMO-0001");
    let backup = schema.dump();
    let redeemed = redeem(&second, &text(&made, "code_set"), "renter-1", &Phone::new());
    assert_eq!(redeemed.status, 201, "{}", redeemed.text());
    assert!(second.stop());
    // One that began after the backup was made: nothing in it knows of this node.
    let first = pair.serve(0);
    schema.put_back(&backup);
    let known = || schema.execute("SELECT count(*) FROM nodes").unwrap();
    let before = known();
    let said = pair.issuers[1].fob_fails(&["restore"]);
    assert!(
        said.contains("this database is served from: node"),
        "{said}"
    );
    assert!(said.contains("Stop every server"), "{said}");
    assert_ne!(known(), before, "it has said that it is there");
    let restores = || schema.execute("SELECT count(*) FROM restores").unwrap();
    assert_eq!(restores(), "0");
    // One that was killed says nothing any more.
    first.kill();
    let mut restore = pair.issuers[1].command(&["restore", "--json"]);
    let done = restore.env("FOB_STORE_LEASE_S", "2").output().unwrap();
    let complaint = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{complaint}");
    let told: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(told["restore"], 1);
    assert_eq!(restores(), "1");
}
