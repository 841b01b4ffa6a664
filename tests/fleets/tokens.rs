//! Tokens: one takes the place of another for a while, ends, and shows when it was used.

use serde_json::{Value, json};

use super::rental::text;
use crate::support::{Issuer, Server, authorization};

/// The row of a token, as it is listed.
fn row(issuer: &Issuer, id: &str) -> Value {
    let list: Value = serde_json::from_str(&issuer.fob(&["token", "list", "--json"])).unwrap();
    let mut rows = list.as_array().unwrap().iter();
    rows.find(|row| row["id"] == id).unwrap().clone()
}

/// A new token: its id and its text.
fn made(issuer: &Issuer, args: &[&str]) -> (String, String) {
    let said = issuer.fob(&[&["token"], args, &["--json"]].concat());
    let said: Value = serde_json::from_str(&said).unwrap();
    (text(&said["id"]).into(), text(&said["token"]).into())
}

/// The status of a call that reads.
fn reads(server: &Server, token: &str) -> u16 {
    server
        .json_as(token, "GET", "/v1/authorizations", &json!({}))
        .status
}

const READER: [&str; 5] = ["create", "--fleet", "demo", "--scopes", "read"];

#[test]
fn two_tokens_overlap_and_the_first_ends() {
    let issuer = Issuer::with(&["--demo"]);
    let server = issuer.serve();
    let (first, before) = made(&issuer, &[&READER[..], &["--expires", "30d"]].concat());
    let (second, after) = made(&issuer, &["rotate", &first, "--overlap", "1h"]);
    assert_ne!((&first, &before), (&second, &after));
    assert_eq!(
        (reads(&server, &before), reads(&server, &after)),
        (200, 200)
    );
    let (old, new) = (row(&issuer, &first), row(&issuer, &second));
    assert_eq!(old["scopes"], new["scopes"]);
    let time = |row: &Value, name: &str| {
        let at: jiff::Timestamp = text(&row[name]).parse().unwrap();
        at.as_second()
    };
    let overlap = time(&old, "expires") - time(&new, "created");
    assert_eq!(overlap, 3600);
    let lasts = |row: &Value| time(row, "expires") - time(row, "created");
    assert_eq!(
        lasts(&new),
        30 * 86_400,
        "as long as the one before was meant to"
    );
    // In its place, at once.
    let (third, last) = made(
        &issuer,
        &["rotate", &second, "--overlap", "0s", "--expires", "1d"],
    );
    assert_eq!((reads(&server, &after), reads(&server, &last)), (401, 200));
    assert_eq!(row(&issuer, &second)["state"], "expired");
    assert_eq!(lasts(&row(&issuer, &third)), 86_400);
    // What has ended is not rotated, nor what is not there.
    for gone in [
        second.as_str(),
        "0190a000-0000-7000-8000-000000000001",
        "no id",
    ] {
        issuer.fob_fails(&["token", "rotate", gone]);
    }
    // A crash changes nothing of it.
    server.kill();
    let server = issuer.serve();
    assert_eq!((reads(&server, &after), reads(&server, &last)), (401, 200));
    assert_eq!(reads(&server, &before), 200);
    // Revoked, it ends with the call that says so.
    issuer.fob(&["token", "revoke", &third]);
    assert_eq!((reads(&server, &before), reads(&server, &last)), (200, 401));
    issuer.fob_fails(&["token", "rotate", &third]);
    assert!(server.stop());
    // Without a server too.
    let (fourth, text) = made(&issuer, &["rotate", &first, "--overlap", "0s"]);
    let server = issuer.serve();
    assert_eq!((reads(&server, &before), reads(&server, &text)), (401, 200));
    assert_eq!(row(&issuer, &fourth)["state"], "valid");
}

#[test]
fn a_token_shows_when_it_was_used_and_calls_write_nothing() {
    let issuer = Issuer::with(&["--demo"]);
    let server = issuer.serve();
    let (reader, token) = made(&issuer, &READER);
    let (idle, _) = made(&issuer, &READER);
    assert_eq!(row(&issuer, &reader)["last_used"], json!(null));
    let commits = |server: &Server| {
        let metrics = String::from_utf8(server.get("/metrics", &[]).body).unwrap();
        let line = metrics
            .lines()
            .find(|it| it.starts_with("fob_commits_total"));
        line.map(ToOwned::to_owned)
    };
    let before = commits(&server);
    for _ in 0..20 {
        assert_eq!(reads(&server, &token), 200);
    }
    // Refused for its scope it is not used.
    let refused = server.json_as(&token, "POST", "/v1/authorizations", &json!({}));
    refused.refused(403, "forbidden");
    assert_eq!(commits(&server), before, "no call wrote anything");
    let used = row(&issuer, &reader)["last_used"].clone();
    assert!(used.is_string(), "{used}");
    assert_eq!(row(&issuer, &idle)["last_used"], json!(null));
    // It is written down with the next transaction of whomever.
    let writer = issuer.token("authorize");
    let body = authorization("DEMO-0001", &["doors.unlock"]);
    let made = server.json_as(&writer, "POST", "/v1/authorizations", &body);
    assert_eq!(made.status, 201, "{}", made.text());
    server.kill();
    assert_eq!(row(&issuer, &reader)["last_used"], used);
    let _server = issuer.serve();
    assert_eq!(row(&issuer, &reader)["last_used"], used);
}
