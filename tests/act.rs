//! `fob revoke`, `fob suspend` and `fob resume`: one target or a file of them, run once or again.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::io::Write as _;
use std::process::{Output, Stdio};

use fob_verify::status::Status;
use serde_json::{Value, json};

use crate::support::Phone;
use crate::support::garage::{Garage, keys};

const TWO: [&str; 2] = ["doors.unlock", "engine.start"];

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// `fob` with these arguments, against the server of the garage.
fn fob(garage: &Garage, args: &[&str]) -> Output {
    let mut command = garage.issuer.command(args);
    command.args(["--url", &garage.server.url]);
    command.output().unwrap()
}

#[track_caller]
fn summary(done: &Output, code: i32) -> Value {
    let complaint = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(code), "{complaint}");
    serde_json::from_slice(&done.stdout).unwrap()
}

fn standing(garage: &Garage, bundle: &Value) -> Vec<Status> {
    keys(bundle).iter().map(|key| garage.status(key)).collect()
}

#[test]
fn one_target_of_each_kind() {
    let garage = Garage::new();
    let (made, bundle) = garage.issue("DEMO-0001", &TWO, "renter-1", &Phone::new());
    let key = keys(&bundle)[0].id.clone();
    let targets = [
        ("--key", key.as_str(), 1),
        ("--bundle", text(&bundle["bundle"]), 2),
        ("--authorization", text(&made["authorization"]), 2),
        ("--identity", "renter-1", 2),
        ("--vehicle", "DEMO-0001", 2),
    ];
    for (kind, id, count) in targets {
        let done = summary(&fob(&garage, &["suspend", kind, id, "--json"]), 0);
        assert_eq!(
            (&done["action"], &done["done"], &done["keys"]),
            (&json!("suspended"), &json!(1), &json!(count)),
            "{kind}"
        );
        assert_eq!(done["certain_by"]["when"], "next_contact");
        assert_eq!(standing(&garage, &bundle)[0], Status::Suspended, "{kind}");
        let done = summary(&fob(&garage, &["resume", kind, id, "--json"]), 0);
        assert_eq!(
            (&done["action"], &done["keys"]),
            (&json!("resumed"), &json!(count))
        );
        assert_eq!(standing(&garage, &bundle), [Status::Valid; 2], "{kind}");
    }
    let said = fob(&garage, &["revoke", "--vehicle", "DEMO-0001"]);
    assert!(said.status.success());
    let said = String::from_utf8(said.stdout).unwrap();
    let expected =
        "1 named: 1 revoked; 2 keys; certain at each car's next contact, and at the latest";
    assert!(said.starts_with(expected), "{said}");
    assert_eq!(standing(&garage, &bundle), [Status::Revoked; 2]);
    // Refusals, and what is no target at all.
    let refused = fob(&garage, &["resume", "--key", &key, "--json"]);
    let complaint = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        complaint.starts_with("fob: code_set_cancelled: "),
        "{complaint}"
    );
    assert_eq!(summary(&refused, 3)["refused"], 1);
    for args in [
        ["revoke", "--identity", "nobody"],
        ["suspend", "--key", "x"],
    ] {
        let refused = fob(&garage, &args);
        assert_eq!(refused.status.code(), Some(3));
        let complaint = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(complaint.starts_with("fob: not_found: "), "{complaint}");
    }
    for args in [&["revoke"][..], &["revoke", "--key", "x", "--vehicle", "y"]] {
        assert_eq!(fob(&garage, args).status.code(), Some(2), "{args:?}");
    }
    let args = ["revoke", "--key", "x", "--refused", "y"];
    assert_eq!(fob(&garage, &args).status.code(), Some(1));
}

#[test]
fn the_server_is_found_by_the_directory_or_by_name() {
    let garage = Garage::new();
    let (_, bundle) = garage.issue("DEMO-0001", &TWO, "renter-1", &Phone::new());
    std::fs::write(garage.issuer.file("token"), &garage.token).unwrap();
    let token = garage.issuer.file("token").display().to_string();
    let args = ["suspend", "--vehicle", "DEMO-0001", "--token-file", &token];
    assert!(fob(&garage, &args).status.success());
    assert_eq!(standing(&garage, &bundle), [Status::Suspended; 2]);
    std::fs::write(garage.issuer.file("token"), garage.issuer.token("read")).unwrap();
    let refused = fob(&garage, &args);
    assert_eq!(refused.status.code(), Some(1));
    let complaint = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(complaint.contains("lacks the scope revoke"), "{complaint}");
    garage.server.kill();
    let args = ["suspend", "--vehicle", "DEMO-0001"];
    let complaint = garage.issuer.fob_fails(&args);
    assert!(complaint.contains("no server holds"), "{complaint}");
}

#[test]
fn a_file_of_targets_and_the_same_again() {
    let garage = Garage::new();
    let phone = Phone::new();
    let bundles: Vec<_> = (0..4)
        .map(|_| garage.issue("DEMO-0001", &TWO, "renter-1", &phone).1)
        .collect();
    let csv = format!(
        "kind,id\nbundle,{}\n\nbicycle,x\nkey,{}\r\nbundle,none\nidentity,renter-2\n",
        text(&bundles[0]["bundle"]),
        keys(&bundles[1])[0].id,
    );
    let path = garage.issuer.file("targets.csv");
    std::fs::write(&path, csv).unwrap();
    let path = path.display().to_string();
    let refusals = || -> Vec<Value> {
        let text = std::fs::read_to_string(format!("{path}.refused")).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    let run = |action: &str| fob(&garage, &[action, "--from", &path, "--json"]);
    let done = summary(&run("suspend"), 3);
    assert_eq!(
        (
            &done["targets"],
            &done["done"],
            &done["refused"],
            &done["keys"]
        ),
        (&json!(5), &json!(3), &json!(2), &json!(3))
    );
    let told = refusals();
    let words: Vec<_> = told
        .iter()
        .map(|it| (it["line"].as_u64().unwrap(), text(&it["code"])))
        .collect();
    assert_eq!(words, [(4, "malformed"), (6, "not_found")]);
    let detail = text(&told[0]["detail"]);
    assert!(
        detail.ends_with(
            "targets.csv, line 4, kind: \
             it is one of key, bundle, authorization, identity, vehicle, terminal"
        ),
        "{detail}"
    );
    assert_eq!(standing(&garage, &bundles[0]), [Status::Suspended; 2]);
    assert_eq!(
        standing(&garage, &bundles[1]),
        [Status::Suspended, Status::Valid]
    );
    assert_eq!(standing(&garage, &bundles[2]), [Status::Valid; 2]);
    // Again: the same answer, and nothing more to do.
    let again = summary(&run("suspend"), 3);
    assert_eq!((&again["done"], &again["keys"]), (&json!(3), &json!(0)));
    assert_eq!(refusals(), told);
    assert_eq!(summary(&run("resume"), 3)["keys"], 3);
}

#[test]
fn targets_come_as_lines_from_standard_input_too() {
    let garage = Garage::new();
    let phone = Phone::new();
    let bundles: Vec<_> = (0..4)
        .map(|_| garage.issue("DEMO-0001", &TWO, "renter-1", &phone).1)
        .collect();
    let lines: String = bundles
        .iter()
        .map(|it| format!("{}\n", json!({"bundle": it["bundle"]})))
        .collect();
    let mut command = garage.issuer.command(&["revoke", "--from", "-", "--json"]);
    let refused = garage.issuer.file("refused").display().to_string();
    command.args(["--url", &garage.server.url, "--refused", &refused]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(lines.as_bytes()).unwrap();
    drop(input);
    let done = summary(&child.wait_with_output().unwrap(), 0);
    assert_eq!(done["keys"], 8);
    for bundle in &bundles {
        assert_eq!(standing(&garage, bundle), [Status::Revoked; 2]);
    }
}

#[test]
fn of_a_file_that_is_no_table_nothing_is_done() {
    let garage = Garage::new();
    std::fs::write(garage.issuer.file("bad.csv"), "vehicle,DEMO-0001\n").unwrap();
    let bad = garage.issuer.file("bad.csv").display().to_string();
    let wrong = fob(&garage, &["suspend", "--from", &bad]);
    assert_eq!(wrong.status.code(), Some(1));
    let complaint = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(
        complaint.contains("line 1: a table begins with the header kind,id"),
        "{complaint}"
    );
    let open = garage.authorize("DEMO-0001", &TWO);
    let redeemed = garage
        .server
        .redeem(text(&open["code_set"]), "renter-1", &Phone::new());
    assert_eq!(redeemed.status, 201, "and nothing was done of it");
}

/// More targets than one call takes, and a server that is killed among them.
#[test]
fn a_server_that_is_killed_is_called_again() {
    let mut garage = Garage::new();
    let made: Vec<Value> = (0..600)
        .map(|_| garage.authorize("DEMO-0001", &TWO))
        .collect();
    let lines: String = made
        .iter()
        .map(|it| format!("{}\n", json!({"authorization": it["authorization"]})))
        .collect();
    let path = garage.issuer.file("targets.ndjson");
    std::fs::write(&path, lines).unwrap();
    let path = path.display().to_string();
    let mut command = garage.issuer.command(&["suspend", "--from", &path]);
    command.args(["--url", &garage.server.url, "--json", "--retries", "20"]);
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let suspended = |garage: &Garage| {
        let path = "/v1/authorizations?state=suspended&limit=500";
        let listed = garage.done("GET", path, &json!({}));
        listed["items"].as_array().unwrap().len()
    };
    while suspended(&garage) == 0 {}
    garage.crash();
    let done = child.wait_with_output().unwrap();
    let done = summary(&done, 0);
    assert_eq!((&done["done"], &done["refused"]), (&json!(600), &json!(0)));
    for one in [&made[0], &made[599]] {
        let stands = garage.read(text(&one["authorization"]));
        assert_eq!(stands["state"], "suspended");
    }
}
