//! Rules that are set on one node, and keys that are out: whichever node keeps the store has them
//! follow.

use serde_json::{Value, json};

use super::pair::{Pair, authorize, redeem, text};
use super::until;
use crate::support::database::Schema;
use crate::support::garage::statuses;
use crate::support::{Phone, Server};

fn read(server: &Server, token: &str, path: &str) -> Value {
    let bearer = format!("Bearer {token}");
    let read = server.get(path, &[("authorization", &bearer)]);
    assert_eq!(read.status, 200, "{}", read.text());
    read.value()
}

fn set(server: &Server, token: &str, at: u64, rules: &Value) {
    let (bearer, tag) = (format!("Bearer {token}"), format!("\"{at}\""));
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/json"),
        ("if-match", tag.as_str()),
    ];
    let body = json!({ "rules": rules }).to_string();
    let set = server.send("PUT", "/v1/rules", &headers, body.as_bytes());
    assert_eq!(set.status, 200, "{}", set.text());
}

#[test]
fn keys_follow_rules_whichever_node_they_are_set_on() {
    let schema = Schema::new();
    let pair = Pair::over(&schema);
    let token = pair.issuers[0].token("authorize,revoke,read,admin");
    let [first, second] = pair.serve_both();
    let bundles: Vec<String> = (0..6)
        .map(|n| {
            let made = authorize(&first, &pair.owner(), "DEMO-0005");
            let on = [&first, &second][n % 2];
            let redeemed = redeem(on, &text(&made, "code_set"), "renter-1", &Phone::new());
            assert_eq!(redeemed.status, 201, "{}", redeemed.text());
            text(&redeemed.value(), "bundle")
        })
        .collect();
    let licence = json!({ "licences": [{ "functions": ["engine.start"], "classes": ["C1"] }] });
    let stand = |server: &Server, start: &str| {
        bundles.iter().all(|id| {
            let bundle = read(server, &token, &format!("/v1/bundles/{id}"));
            let all = statuses(&bundle);
            all["engine.start"] == start && all["doors.unlock"] == "valid"
        })
    };
    let followed = |server: &Server, version: u64| {
        let rules = read(server, &token, "/v1/rules");
        rules["followed"] == version && rules["version"] == version
    };
    // One of the two keeps the store, the other does not.
    for (at, server) in [&first, &second].into_iter().enumerate() {
        let at = 2 * at as u64;
        for (more, rules, start) in [(0, &licence, "suspended"), (1, &json!({}), "valid")] {
            set(server, &token, at + more, rules);
            for server in [&first, &second] {
                until(|| followed(server, at + more + 1));
                assert!(stand(server, start));
            }
        }
    }
    // The one that is left goes on, whatever the other had begun.
    set(&first, &token, 4, &licence);
    first.kill();
    until(|| followed(&second, 5));
    assert!(stand(&second, "suspended"));
}
