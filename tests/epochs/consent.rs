//! Dual control: one proposes, another approves.

use serde_json::json as object;

use super::*;
use crate::support::Phone;

/// An issuer under dual control with the operators anna and ben, and their key files.
fn issuer() -> Issuer {
    let issuer = Issuer::demo();
    for name in ["anna", "ben"] {
        add(&issuer, name, &[]);
    }
    configure(&issuer, "[epochs]\ndual_control = true");
    issuer
}

pub(super) fn key(issuer: &Issuer, name: &str) -> String {
    issuer
        .file(&format!("{name}.jwk"))
        .to_str()
        .unwrap()
        .to_owned()
}

/// Makes an operator's key and registers, or proposes, the operator.
pub(super) fn add(issuer: &Issuer, name: &str, consent: &[&str]) -> String {
    let public = issuer.fob(&["operator", "key", &key(issuer, name)]);
    let file = issuer.file(&format!("{name}.pub"));
    std::fs::write(&file, public).unwrap();
    let args = ["operator", "add", name, "--jwk", file.to_str().unwrap()];
    issuer.fob(&[&args, consent].concat())
}

/// Has anna propose; the proposal's number.
pub(super) fn propose(issuer: &Issuer, step: &[&str]) -> String {
    let anna = key(issuer, "anna");
    let proposed = json(
        issuer,
        &[step, &["--operator", "anna", "--key", &anna]].concat(),
    );
    proposed["proposal"].to_string()
}

#[test]
fn a_step_takes_effect_with_the_approval_of_another() {
    let issuer = issuer();
    let before = active(&issuer);
    for step in [
        &["epoch", "rotate", "--now"][..],
        &["epoch", "prepare"],
        &["epoch", "revoke", &before],
        &["epoch", "root-name"],
    ] {
        let refused = issuer.fob_fails(step);
        assert!(refused.contains("dual control is on"), "{refused}");
    }
    let _server = issuer.serve();
    let number = propose(&issuer, &["epoch", "rotate", "--now"]);
    assert_eq!(active(&issuer), before, "proposed only");
    assert!(issuer.fob(&["epoch", "proposals"]).contains("anna"));
    // Her own approval is none, nor one that is signed with another's key.
    let (anna, ben) = (key(&issuer, "anna"), key(&issuer, "ben"));
    let approve = |operator: &str, key: &str| {
        [
            "epoch",
            "approve",
            &number,
            "--operator",
            operator,
            "--key",
            key,
        ]
        .map(String::from)
    };
    for (operator, key, why) in [
        ("anna", &anna, "another operator"),
        ("ben", &anna, "signature"),
        ("carl", &ben, "no registered operator"),
    ] {
        let args = approve(operator, key);
        let refused = issuer.fob_fails(&args.each_ref().map(String::as_str));
        assert!(refused.contains(why), "{refused}");
    }
    assert_eq!(active(&issuer), before);
    let args = approve("ben", &ben);
    issuer.fob(&args.each_ref().map(String::as_str));
    assert_ne!(active(&issuer), before);
    // Once.
    let refused = issuer.fob_fails(&args.each_ref().map(String::as_str));
    assert!(refused.contains("no such open proposal"), "{refused}");
    let records = json(&issuer, &["epoch", "records"]);
    let last = &records.as_array().unwrap().last().unwrap()["record"];
    assert_eq!(last["who"]["operator"], "anna");
    assert_eq!(last["who"]["approval"]["proposal"].to_string(), number);
}

/// Takes a step proposed by anna as the operators' socket takes it, with an approval that ben signs.
fn take(issuer: &Issuer, step: &Value, proposal: &Value, header: &Value, claims: &Value) -> Value {
    let ben = Phone::read(&issuer.file("ben.jwk"));
    let server = issuer.serve();
    let approval = object!({ "proposal": proposal, "jws": ben.jws(header, claims) });
    let ask = object!({ "command": "epoch", "ask": { "take": {
        "step": step, "who": { "operator": "anna", "approval": approval },
        "root_at_hand": true, "next_root": null,
    }}});
    let answer = ask_socket(issuer, &ask);
    server.stop();
    answer
}

#[test]
fn an_approval_holds_for_what_was_proposed_and_nothing_else() {
    let issuer = issuer();
    propose(&issuer, &["epoch", "prepare", "--window", WIDE]);
    propose(&issuer, &["epoch", "rotate", "--now"]);
    let open = json(&issuer, &["epoch", "proposals"]);
    let [first, second] = [0, 1].map(|at| open[at]["proposal"].clone());
    let (prepare, rotate) = (&open[0]["step"], &open[1]["step"]);
    let header = object!({ "alg": "ES256", "typ": "fob-approval+jwt", "kid": "ben" });
    let claims = object!({
        "iss": "ben", "iat": now(), "exp": now() + 600, "proposal": first,
        "digest": fob::engine::records::digest(open[0]["jws"].as_str().unwrap()),
    });
    let with = |object: &Value, name: &str, value: Value| {
        let mut bent = object.clone();
        bent[name] = value;
        bent
    };
    let nothing = "A".repeat(43);
    for (step, proposal, header, claims) in [
        // Of the first, for the second; and for the second's step.
        (rotate, &second, header.clone(), claims.clone()),
        (rotate, &first, header.clone(), claims.clone()),
        // Over; of something else; for another use.
        (
            prepare,
            &first,
            header.clone(),
            with(&claims, "exp", now().into()),
        ),
        (
            prepare,
            &first,
            header.clone(),
            with(&claims, "digest", nothing.into()),
        ),
        (
            prepare,
            &first,
            with(&header, "typ", "fob-command+jwt".into()),
            claims.clone(),
        ),
    ] {
        let answer = take(&issuer, step, proposal, &header, &claims);
        let refused = answer["refused"].as_str().unwrap_or_default();
        assert!(refused.contains("forbidden"), "{answer}");
    }
    // As it is, it is good: a draft for the root.
    let good = take(&issuer, prepare, &first, &header, &claims);
    assert!(good["ok"]["epoch"]["draft"].is_object(), "{good}");
}

/// A line to the operators' socket, and its answer.
fn ask_socket(issuer: &Issuer, ask: &Value) -> Value {
    use std::io::{BufRead as _, BufReader, Write as _};
    let path = issuer.file("fob.sock");
    let mut stream = std::os::unix::net::UnixStream::connect(path).unwrap();
    stream.write_all(format!("{ask}\n").as_bytes()).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap()
}

#[test]
fn operators_beyond_two_come_and_go_by_approval() {
    let issuer = issuer();
    let public = issuer.fob(&["operator", "key", &key(&issuer, "carl")]);
    let file = issuer.file("carl.pub");
    std::fs::write(&file, public).unwrap();
    let add = ["operator", "add", "carl", "--jwk", file.to_str().unwrap()];
    let refused = issuer.fob_fails(&add);
    assert!(refused.contains("dual control is on"), "{refused}");
    let ben = key(&issuer, "ben");
    let alone = propose(&issuer, &["operator", "remove", "ben"]);
    let refused = issuer.fob_fails(&[
        "epoch",
        "approve",
        &alone,
        "--operator",
        "ben",
        "--key",
        &ben,
    ]);
    assert!(refused.contains("two operators stay"), "{refused}");
    let number = propose(&issuer, &add);
    let approve = [
        "epoch",
        "approve",
        &number,
        "--operator",
        "ben",
        "--key",
        &ben,
    ];
    issuer.fob(&approve);
    assert_eq!(
        json(&issuer, &["operator", "list"])
            .as_array()
            .unwrap()
            .len(),
        3
    );
    a_removed_operators_proposals_are_void(&issuer);
}

/// Anna goes, by the word of ben and carl, and with her what she has proposed.
fn a_removed_operators_proposals_are_void(issuer: &Issuer) {
    let [anna, ben, carl] = ["anna", "ben", "carl"].map(|name| key(issuer, name));
    let orphan = propose(issuer, &["epoch", "rotate", "--now"]);
    let remove = [
        "operator",
        "remove",
        "anna",
        "--operator",
        "ben",
        "--key",
        &ben,
    ];
    let proposed = json(issuer, &remove)["proposal"].to_string();
    issuer.fob(&[
        "epoch",
        "approve",
        &proposed,
        "--operator",
        "carl",
        "--key",
        &carl,
    ]);
    let args = [
        "epoch",
        "approve",
        &orphan,
        "--operator",
        "ben",
        "--key",
        &ben,
    ];
    let refused = issuer.fob_fails(&args);
    assert!(refused.contains("no registered operator"), "{refused}");
    let refused = issuer.fob_fails(&[
        "epoch",
        "rotate",
        "--now",
        "--operator",
        "anna",
        "--key",
        &anna,
    ]);
    assert!(refused.contains("no registered operator"), "{refused}");
    issuer.fob(&["epoch", "records"]);
}
