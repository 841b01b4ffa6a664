//! What is done on one node counts on the other at once.

use fob_verify::status::{self, Room, Status};
use fob_verify::{IssuerKey, RustCrypto, trust};
use serde_json::json;

use super::pair::{PUBLIC, Pair, act, authorize, body, redeem, text};
use super::until;
use crate::support::database::Schema;
use crate::support::garage::keys;
use crate::support::{Answer, Issuer, Phone, Server, now};

/// So often that what is not told in time shows.
const ROUNDS: usize = 12;

fn pair() -> (Schema, Pair) {
    let schema = Schema::new();
    let pair = Pair::over(&schema);
    (schema, pair)
}

#[test]
fn what_one_node_authorizes_is_redeemed_on_the_other_at_once() {
    let (_schema, pair) = pair();
    let servers = pair.serve_both();
    let (owner, phone) = (pair.owner(), Phone::new());
    for round in 0..ROUNDS {
        let (here, there) = (&servers[round % 2], &servers[(round + 1) % 2]);
        let made = authorize(here, &owner, "DEMO-0001");
        let code_set = text(&made, "code_set");
        let shown = there.json(
            "POST",
            "/v1/code-sets/preview",
            &json!({ "code_set": code_set }),
        );
        assert_eq!(shown.status, 200, "{}", shown.text());
        let redeemed = redeem(there, &code_set, "renter-1", &phone);
        assert_eq!(redeemed.status, 201, "{}", redeemed.text());
        // And what was redeemed there is known here.
        let again = redeem(here, &code_set, "renter-1", &phone);
        assert_eq!(again.body, redeemed.body, "{}", again.text());
        let rival = redeem(here, &code_set, "renter-2", &Phone::new());
        rival.refused(409, "code_set_redeemed");
    }
}

#[test]
fn what_one_node_ends_or_suspends_the_other_refuses_at_once() {
    let (_schema, pair) = pair();
    let token = pair.issuers[0].token("revoke,read");
    let servers = pair.serve_both();
    let owner = pair.owner();
    for round in 0..ROUNDS {
        let (here, there) = (&servers[round % 2], &servers[(round + 1) % 2]);
        let made = authorize(here, &owner, "DEMO-0002");
        let (id, code_set) = (text(&made, "authorization"), text(&made, "code_set"));
        let (target, code) = match round % 4 {
            0 => (("authorization", &*id), "code_set_cancelled"),
            1 => (("authorization", &*id), "authorization_suspended"),
            2 => (("identity", "renter-1"), "identity_suspended"),
            _ => (("vehicle", "DEMO-0002"), "authorization_suspended"),
        };
        let call = match round % 4 {
            0 => "revocations",
            _ => "suspensions",
        };
        // The other node has its book, and a request to answer, before it is told.
        let request = body(&code_set, "renter-1", &Phone::new());
        let acted = act(here, &token, call, target);
        assert_eq!(acted.status, 200, "{}", acted.text());
        let refused = there.json("POST", "/v1/redemptions", &request);
        assert_eq!(refused.refusal(), code, "{}", refused.text());
        if round % 4 != 0 {
            let resumed = act(there, &token, "resumptions", target);
            assert_eq!(resumed.status, 200, "{}", resumed.text());
            let redeemed = here.json("POST", "/v1/redemptions", &request);
            assert_eq!(redeemed.status, 201, "{}", redeemed.text());
        }
    }
}

/// Freezes or releases a vehicle, or the whole fleet.
fn brake(server: &Server, token: &str, path: &str, vehicle: Option<&str>) {
    let body = match vehicle {
        Some(id) => json!({ "vehicle": id, "why": "seen abroad" }),
        None => json!({ "why": "seen abroad" }),
    };
    let answer = server.json_as(token, "POST", path, &body);
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[test]
fn what_one_node_freezes_the_other_issues_no_more_at_once() {
    let (_schema, pair) = pair();
    let token = pair.issuers[0].token("authorize,revoke,read");
    let second = pair.issuers[1].token("approve,read");
    let servers = pair.serve_both();
    let owner = pair.owner();
    for round in 0..ROUNDS {
        let (here, there) = (&servers[round % 2], &servers[(round + 1) % 2]);
        let vehicle = (round % 4 < 2).then_some("DEMO-0006");
        let made = authorize(here, &owner, "DEMO-0006");
        let request = body(&text(&made, "code_set"), "renter-1", &Phone::new());
        let redeem = |at: &Server| at.json("POST", "/v1/redemptions", &request);
        // The other's book has not heard of it yet: what refuses is the commit.
        brake(here, &token, "/v1/brake", vehicle);
        let refused = redeem(there);
        refused.refused(403, "issuing_frozen");
        redeem(here).refused(403, "issuing_frozen");
        brake(there, &second, "/v1/brake/release", vehicle);
        let redeemed = redeem(here);
        assert_eq!(redeemed.status, 201, "{}", redeemed.text());
        // New keys by a change, too.
        brake(here, &token, "/v1/brake", vehicle);
        let path = format!("/v1/authorizations/{}", text(&made, "authorization"));
        let bearer = format!("Bearer {token}");
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/json"),
            ("if-match", "\"1\""),
        ];
        let more = ["doors.unlock", "engine.start", "trunk.open"];
        let change = json!({ "functions": more }).to_string();
        let change = |at: &Server| at.send("PATCH", &path, &headers, change.as_bytes());
        change(there).refused(403, "issuing_frozen");
        brake(there, &second, "/v1/brake/release", vehicle);
        let changed = change(here);
        assert_eq!(changed.status, 200, "{}", changed.text());
    }
}

/// Sets the demo fleet's rules, which are at that version.
fn rule(server: &Server, token: &str, version: usize, rules: &serde_json::Value) {
    let bearer = format!("Bearer {token}");
    let version = format!("\"{version}\"");
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/json"),
        ("if-match", version.as_str()),
    ];
    let body = json!({ "rules": rules }).to_string();
    let ruled = server.send("PUT", "/v1/rules", &headers, body.as_bytes());
    assert_eq!(ruled.status, 200, "{}", ruled.text());
}

#[test]
fn what_one_node_rules_the_other_follows() {
    let (_schema, pair) = pair();
    let token = pair.issuers[0].token("admin,read");
    let servers = pair.serve_both();
    let owner = pair.owner();
    let strict = json!({ "licences": [{ "functions": ["engine.start"], "classes": ["D"] }] });
    for round in 0..ROUNDS / 2 {
        let (here, there) = (&servers[round % 2], &servers[(round + 1) % 2]);
        let made = authorize(here, &owner, "DEMO-0007");
        let request = body(&text(&made, "code_set"), "renter-1", &Phone::new());
        rule(here, &token, 2 * round, &strict);
        // What is stricter, the other has heard of a moment later.
        let bearer = format!("Bearer {token}");
        until(|| {
            let read = there.get("/v1/rules", &[("authorization", &bearer)]);
            read.value()["version"] == json!(2 * round + 1)
        });
        let refused = there.json("POST", "/v1/redemptions", &request);
        refused.refused(403, "licence_missing");
        // What is looser counts at once: whoever is about to refuse looks again.
        rule(there, &token, 2 * round + 1, &json!({}));
        let redeemed = here.json("POST", "/v1/redemptions", &request);
        assert_eq!(redeemed.status, 201, "{}", redeemed.text());
    }
}

#[test]
fn operators_and_back_ends_may_ask_any_node() {
    let (_schema, pair) = pair();
    let servers = pair.serve_both();
    for round in 0..ROUNDS / 2 {
        let (at, there) = (round % 2, &servers[(round + 1) % 2]);
        let token = pair.issuers[at].token("admin,authorize,read");
        let vehicle = format!("VAN-{round}");
        let shape = json!({
            "model": "Transporter",
            "functions": ["doors.unlock", { "code": 256 + round, "name": format!("f{round}.x") }],
        });
        let path = format!("/v1/vehicles/{vehicle}");
        let put = there.json_as(&token, "PUT", &path, &shape);
        assert_eq!(put.status, 204, "{}", put.text());
        let mut asked = crate::support::authorization(&vehicle, &["doors.unlock"]);
        asked["functions"] = json!(["doors.unlock", format!("f{round}.x")]);
        let here = &servers[at];
        let made = here.json_as(&token, "POST", "/v1/authorizations", &asked);
        assert_eq!(made.status, 201, "{}", made.text());
        let path = format!(
            "/v1/authorizations/{}",
            text(&made.value(), "authorization")
        );
        let bearer = format!("Bearer {token}");
        let read = there.get(&path, &[("authorization", &bearer)]);
        assert_eq!(read.status, 200, "{}", read.text());
    }
    // A command on a machine whose server does not run.
    let [first, second] = servers;
    assert!(first.stop());
    let token = pair.issuers[0].token("read");
    let bearer = format!("Bearer {token}");
    let listed = second.get("/v1/authorizations", &[("authorization", &bearer)]);
    assert_eq!(listed.status, 200, "{}", listed.text());
    let tokens = pair.issuers[0].fob(&["token", "list", "--json"]);
    let tokens: Vec<serde_json::Value> = serde_json::from_str(&tokens).unwrap();
    let newest = tokens.iter().map(|it| text(it, "id")).max().unwrap();
    pair.issuers[0].fob(&["token", "revoke", &newest]);
    until(|| {
        second
            .get("/v1/authorizations", &[("authorization", &bearer)])
            .status
            == 401
    });
}

/// The status of a bundle's first key, as the list of a node says it.
fn listed(server: &Server, issuer: &Issuer, redeemed: &Answer) -> Status {
    let root = std::fs::read(issuer.file("root.cbor")).unwrap();
    let root = IssuerKey::decode(&root).unwrap();
    let list = server.get("/v1/trust", &[]).body;
    let trusted = trust::verify(&list, &[root], now(), &RustCrypto).unwrap();
    let key = &keys(&redeemed.value())[0];
    let list = server.get(key.uri.strip_prefix(PUBLIC).unwrap(), &[]);
    assert_eq!(list.status, 200, "{}", list.text());
    let list = status::verify(&list.body, &trusted, &RustCrypto).unwrap();
    list.check_time(now()).unwrap();
    list.status(key.index, &mut Room::new()).unwrap()
}

#[test]
fn one_node_signs_status_lists_and_both_give_them_out() {
    let (schema, pair) = pair();
    let token = pair.issuers[0].token("revoke,read");
    let servers = pair.serve_both();
    let owner = pair.owner();
    for round in 0..4 {
        let (here, there) = (&servers[round % 2], &servers[(round + 1) % 2]);
        let made = authorize(here, &owner, "DEMO-0003");
        let redeemed = redeem(there, &text(&made, "code_set"), "renter-1", &Phone::new());
        assert_eq!(redeemed.status, 201, "{}", redeemed.text());
        for server in &servers {
            assert_eq!(listed(server, &pair.issuers[0], &redeemed), Status::Valid);
        }
        let id = text(&made, "authorization");
        let revoked = act(here, &token, "revocations", ("authorization", &id));
        assert_eq!(revoked.status, 200, "{}", revoked.text());
        // Whoever was asked has waited for the list; the other gives out the same a moment later.
        assert_eq!(listed(here, &pair.issuers[0], &redeemed), Status::Revoked);
        until(|| listed(there, &pair.issuers[0], &redeemed) == Status::Revoked);
    }
    let holders = "SELECT count(*) FROM leases WHERE ends > now() AND holder IS NOT NULL";
    assert_eq!(schema.execute(holders).unwrap(), "2");
}

#[test]
fn what_one_node_imports_the_other_finds_unchanged_or_otherwise() {
    let (_schema, pair) = pair();
    let token = pair.issuers[0].token("admin");
    let servers = pair.serve_both();
    for round in 0..ROUNDS {
        let (here, there) = (&servers[round % 2], &servers[(round + 1) % 2]);
        let import = |server: &Server, hold: &str| {
            let line = json!({ "kind": "identity", "id": format!("p-{round}"), "hold": hold });
            let answer = server.json_as(&token, "POST", "/v1/import", &line);
            assert_eq!(answer.status, 200, "{}", answer.text());
            text(&answer.value(), "status")
        };
        assert_eq!(import(here, "payment"), "done");
        assert_eq!(import(there, "payment"), "unchanged");
        assert_eq!(import(there, "insurance"), "registered_otherwise");
        // At the same moment one of them is first.
        let line = json!({ "kind": "vehicle", "id": format!("V-{round}"), "model": "here" });
        let other = json!({ "kind": "vehicle", "id": format!("V-{round}"), "model": "there" });
        let send = |server: &Server, line: &serde_json::Value| {
            text(
                &server.json_as(&token, "POST", "/v1/import", line).value(),
                "status",
            )
        };
        let mut words = std::thread::scope(|scope| {
            let first = scope.spawn(|| send(here, &line));
            let second = send(there, &other);
            [first.join().unwrap(), second]
        });
        words.sort();
        assert_eq!(words, ["done", "registered_otherwise"]);
    }
}

#[test]
fn whom_one_node_erases_the_other_does_not_know_at_once() {
    let (_schema, pair) = pair();
    let token = pair.issuers[0].token("admin,authorize,read");
    let servers = pair.serve_both();
    for round in 0..ROUNDS {
        let (here, there) = (&servers[round % 2], &servers[(round + 1) % 2]);
        let (id, phone) = (format!("p-{round}"), Phone::new());
        let register = |server: &Server| {
            for (path, body) in [
                (format!("/v1/identities/{id}"), json!({})),
                (
                    format!("/v1/terminals/phone-{round}"),
                    json!({ "identity": id, "jwk": phone.jwk() }),
                ),
            ] {
                let put = server.json_as(&token, "PUT", &path, &body);
                assert_eq!(put.status, 204, "{}", put.text());
            }
        };
        register(here);
        let mut body = crate::support::authorization("DEMO-0011", &["doors.unlock"]);
        body["recipient"] = json!({ "identity": id });
        let made = there.json_as(&token, "POST", "/v1/authorizations", &body);
        assert_eq!(made.status, 201, "{}", made.text());
        let code_set = text(&made.value(), "code_set");
        let redeemed = redeem(there, &code_set, &id, &phone);
        assert_eq!(redeemed.status, 201, "{}", redeemed.text());
        let path = format!("/v1/identities/{id}/data");
        let erased = here.json_as(&token, "DELETE", &path, &json!({}));
        assert_eq!(erased.status, 200, "{}", erased.text());
        for server in [there, here] {
            server
                .json_as(&token, "DELETE", &path, &json!({}))
                .refused(404, "not_found");
            redeem(server, &code_set, &id, &phone).refused(409, "code_set_redeemed");
        }
        // Whoever comes after it is known on both.
        register(there);
        let new = here.json_as(&token, "POST", "/v1/authorizations", &body);
        assert_eq!(new.status, 201, "{}", new.text());
        let code_set = text(&new.value(), "code_set");
        let redeemed = redeem(here, &code_set, &id, &phone);
        assert_eq!(redeemed.status, 201, "{}", redeemed.text());
    }
}
