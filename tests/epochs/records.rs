//! Records tell all of it, and none goes missing.

use rusqlite::Connection;
use serde_json::json as object;

use super::*;

/// An issuer with five records.
fn issuer() -> Issuer {
    let issuer = Issuer::demo();
    issuer.fob(&[
        "epoch",
        "prepare",
        "--window",
        WIDE,
        "--window",
        WIDE,
        "--operator",
        "anna",
    ]);
    issuer.fob(&["epoch", "rotate"]);
    issuer.fob(&["epoch", "rotate"]);
    issuer.fob(&["epoch", "revoke", &active(&issuer)]);
    issuer
}

fn change(issuer: &Issuer, sql: &str) {
    let store = Connection::open(issuer.file("fob.db")).unwrap();
    assert!(store.execute(sql, []).unwrap() > 0, "{sql}");
}

#[test]
fn a_record_says_who_when_where_and_what() {
    let issuer = issuer();
    let all = json(&issuer, &["epoch", "records"]);
    let all = all.as_array().unwrap();
    let steps: Vec<_> = all
        .iter()
        .map(|one| &one["record"]["step"]["kind"])
        .collect();
    assert_eq!(steps, ["found", "prepare", "rotate", "rotate", "revoke"]);
    let prepared = &all[1]["record"];
    assert_eq!(prepared["who"], object!({ "operator": "anna" }));
    assert_eq!(prepared["number"], 2);
    assert_eq!(prepared["previous"], all[0]["digest"]);
    assert!(prepared["iat"].as_u64().unwrap() <= now());
    // Both tokens: that of the new keys, and the root's.
    let tokens = prepared["tokens"].as_array().unwrap();
    assert_eq!(tokens.len(), 2);
    for token in tokens {
        assert_eq!(token["serial"].as_str().unwrap().len(), 16);
        assert!(token["firmware"].as_str().unwrap().contains('.'));
        assert!(!token["model"].as_str().unwrap().is_empty());
    }
    let keys = prepared["keys"].as_array().unwrap();
    assert_eq!(keys.len(), 3, "two epochs and the root");
    for key in keys {
        assert_eq!(key["attributes"]["never_extractable"], true);
        assert_eq!(key["attributes"]["local"], true);
        assert_eq!(key["attributes"]["sign"], true);
    }
    assert_eq!(prepared["before"]["trust_version"], 1);
    assert_eq!(prepared["after"]["trust_version"], 2);
    let rotated = &all[2]["record"];
    let states = |facts: &Value| {
        let epochs = facts["epochs"].as_array().unwrap().iter();
        let mut states: Vec<_> = epochs
            .map(|one| one["state"].as_str().unwrap().to_owned())
            .collect();
        states.sort();
        states
    };
    assert_eq!(states(&rotated["before"]), ["active", "prepared"]);
    assert_eq!(states(&rotated["after"]), ["active", "retired"]);
    // With a server it is the same list.
    let text = issuer.fob(&["epoch", "records"]);
    let _server = issuer.serve();
    assert_eq!(issuer.fob(&["epoch", "records"]), text);
}

#[test]
fn whatever_is_changed_or_missing_is_noticed() {
    let swapped =
        "UPDATE records SET jws = (SELECT jws FROM records WHERE number = 4) WHERE number = 3";
    for (number, sql) in [
        (
            "1",
            "UPDATE records SET jws = replace(jws, '.', '.A') WHERE number = 1",
        ),
        ("2", "DELETE FROM records WHERE number = 2"),
        ("3", swapped),
        ("4", "DELETE FROM records WHERE number = 5"),
        ("5", "UPDATE epochs SET state = 2 WHERE state = 3"),
        (
            "5",
            "UPDATE epochs SET not_after = not_after + 1 WHERE state = 1",
        ),
        ("5", "INSERT INTO trust_lists VALUES (99, x'00')"),
        (
            "5",
            "UPDATE records SET jws = substr(jws, 1, length(jws) - 4) || 'AAAA' WHERE number = 5",
        ),
    ] {
        let issuer = issuer();
        issuer.fob(&["epoch", "records"]);
        change(&issuer, sql);
        let complaint = issuer.fob_fails(&["epoch", "records"]);
        let expected = format!("record {number} does not hold");
        let unreadable = number == "1" && complaint.contains("a record");
        assert!(
            complaint.contains(&expected) || unreadable,
            "{sql}: {complaint}"
        );
    }
}

/// What a restored backup forgets is written anew, with the same numbers.
#[test]
fn a_record_of_another_past_does_not_fit() {
    let issuer = Issuer::demo();
    consent::add(&issuer, "anna", &[]);
    // With the witness, which would tell.
    let files = ["fob.db", "fob.db-wal", "store.witness"].map(|name| issuer.file(name));
    let backup = files.each_ref().map(|file| std::fs::read(file).ok());
    consent::propose(&issuer, &["epoch", "rotate", "--now"]);
    let records = json(&issuer, &["epoch", "records"]);
    let forgotten = records[2]["jws"].as_str().unwrap().to_owned();
    for (file, bytes) in files.iter().zip(backup) {
        match bytes {
            Some(bytes) => std::fs::write(file, bytes).unwrap(),
            None => drop(std::fs::remove_file(file)),
        }
    }
    consent::propose(&issuer, &["epoch", "prepare"]);
    issuer.fob(&["epoch", "rotate", "--now"]);
    issuer.fob(&["epoch", "records"]);
    change(
        &issuer,
        &format!("UPDATE records SET jws = '{forgotten}' WHERE number = 3"),
    );
    let complaint = issuer.fob_fails(&["epoch", "records"]);
    assert!(complaint.contains("record 4 does not hold"), "{complaint}");
}

#[test]
fn records_of_another_issuer_are_not_taken_for_its_own() {
    let (issuer, other) = (issuer(), Issuer::with(&[]));
    let root = other.file("root.cbor");
    let args = ["epoch", "records", "--root", root.to_str().unwrap()];
    let complaint = issuer.fob_fails(&args);
    assert!(
        complaint.contains("no record knows the root"),
        "{complaint}"
    );
}
