//! Suspended, resumed, changed and ended from both nodes at once: what keys come to is the same on
//! both, and what the last word on each says.

use std::thread;

use serde_json::{Value, json};

use super::pair::{PUBLIC, Pair, act, authorize, redeem, text};
use super::until;
use crate::support::database::Schema;
use crate::support::garage::{keys, statuses};
use crate::support::{Phone, Server};

/// Calls that each of the threads makes.
const CALLS: usize = 8;

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = self.0.wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }
}

fn bundle(server: &Server, token: &str, id: &str) -> Value {
    let bearer = format!("Bearer {token}");
    let read = server.get(&format!("/v1/bundles/{id}"), &[("authorization", &bearer)]);
    assert_eq!(read.status, 200, "{}", read.text());
    read.value()
}

/// Does something to somebody, whatever is answered; what fails is refused for a reason.
fn call(server: &Server, token: &str, targets: &[(&str, String)], dice: &mut Dice) {
    let call = ["suspensions", "resumptions"][dice.roll(2)];
    let (kind, id) = &targets[dice.roll(targets.len())];
    let answer = match dice.roll(6) {
        0 => change(server, token, &targets[0].1, dice),
        _ => act(server, token, call, (kind, id)),
    };
    let refused = ["version_conflict", "busy"];
    let fine = answer.status == 200 || refused.contains(&answer.refusal().as_str());
    assert!(fine, "{}", answer.text());
}

fn change(server: &Server, token: &str, id: &str, dice: &mut Dice) -> crate::support::Answer {
    let path = format!("/v1/authorizations/{id}");
    let bearer = format!("Bearer {token}");
    let read = server.get(&path, &[("authorization", &bearer)]);
    let version = read.header("etag").unwrap().to_owned();
    let functions = match dice.roll(2) {
        0 => json!(["doors.unlock"]),
        _ => json!(["doors.unlock", "engine.start"]),
    };
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/json"),
        ("if-match", version.as_str()),
    ];
    let body = json!({ "functions": functions }).to_string();
    let changed = server.send("PATCH", &path, &headers, body.as_bytes());
    match changed.status {
        412 => read,
        _ => changed,
    }
}

#[test]
fn both_nodes_agree_on_how_keys_stand() {
    let schema = Schema::new();
    let pair = Pair::over(&schema);
    let token = pair.issuers[0].token("authorize,revoke,read");
    let servers = pair.serve_both();
    let made = authorize(&servers[0], &pair.owner(), "DEMO-0005");
    let redeemed = redeem(
        &servers[1],
        &text(&made, "code_set"),
        "renter-1",
        &Phone::new(),
    );
    assert_eq!(redeemed.status, 201, "{}", redeemed.text());
    let redeemed = redeemed.value();
    let id = text(&redeemed, "bundle");
    let targets = [
        ("authorization", text(&made, "authorization")),
        ("identity", "renter-1".to_owned()),
        ("vehicle", "DEMO-0005".to_owned()),
        ("key", keys(&redeemed)[0].id.clone()),
    ];
    let agreed = || {
        let [one, other] = [0, 1].map(|at| statuses(&bundle(&servers[at], &token, &id)));
        (one == other).then_some(one)
    };
    for round in 0..3_u64 {
        thread::scope(|scope| {
            for number in 0..4_u64 {
                let (server, token, targets) = (&servers[number as usize % 2], &token, &targets);
                let mut dice = Dice(100 * round + number);
                scope.spawn(move || {
                    for _ in 0..CALLS {
                        call(server, token, targets, &mut dice);
                    }
                });
            }
        });
        // The last word, each from another node.
        let all = |call: &str, turn: usize| {
            for (at, (kind, id)) in targets.iter().enumerate() {
                let acted = act(&servers[(at + turn) % 2], &token, call, (kind, id));
                assert_eq!(acted.status, 200, "{}", acted.text());
            }
        };
        all("suspensions", round as usize);
        until(|| agreed().is_some_and(|all| all.values().all(|it| it == "suspended")));
        all("resumptions", round as usize + 1);
        until(|| agreed().is_some_and(|all| all.values().all(|it| it == "valid")));
        // No row is left of what was resumed, of whichever version.
        let left = "SELECT count(*) FROM statuses WHERE status = 2 OR reasons <> 0";
        assert_eq!(schema.execute(left).unwrap(), "0");
    }
    assert!(text(&made, "link").starts_with(PUBLIC));
}
