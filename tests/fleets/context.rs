//! Rules about the context of a redemption: what more is asked for, of whom, and for how long it
//! counts.

use serde_json::{Value, json};

use super::rental::{Rental, text};
use crate::support::garage::Garage;
use crate::support::{Answer, Phone, now, redemption, time};

const UNLOCK: &str = "doors.unlock";

/// A fleet whose phones count as new for a week.
fn new_phones() -> Value {
    json!({ "rules": [{ "points": 50, "terminal_newer_than_days": 7 }],
        "step_up_from": 50, "refuse_from": 100, "approval_s": 60 })
}

fn approve(rental: &Rental, made: &Value) -> Answer {
    let id = text(&made["authorization"]);
    let path = format!("/v1/authorizations/{id}/approve");
    rental.send("POST", &path, &json!({}))
}

fn redeem(rental: &Rental, made: &Value, pin: Option<&str>) -> Answer {
    let server = &rental.server;
    let code_set = text(&made["code_set"]);
    let mut body = redemption(&server.url, code_set, "anna", &rental.phone);
    if let Some(pin) = pin {
        body["pin"] = json!(pin);
    }
    server.json("POST", "/v1/redemptions", &body)
}

fn with_pin(rental: &Rental) -> Value {
    let body = json!({ "vehicle": "CAR", "functions": [UNLOCK], "pin": true,
        "not_before": time(now()), "not_after": time(now() + 3600) });
    let answer = rental.send("POST", "/v1/authorizations", &body);
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.value()
}

/// Asked for more, and told what would be enough.
#[track_caller]
fn stepped_up(answer: &Answer, ways: &[&str]) {
    answer.refused(403, "step_up_required");
    assert_eq!(answer.value()["step_up"], json!(ways));
    let detail = answer.value()["detail"].clone();
    assert!(text(&detail).contains("/approve"), "{detail}");
    assert!(!text(&detail).contains("terminal"), "why is for the fleet");
}

#[test]
fn a_new_phone_needs_the_owners_approval() {
    let rental = Rental::new();
    rental.rule(&json!({ "context": new_phones() }));
    let made = rental.authorize("CAR", &[UNLOCK]);
    stepped_up(&redeem(&rental, &made, None), &["approval"]);
    // A PIN that nobody asked for is not one.
    stepped_up(&redeem(&rental, &made, Some("123456")), &["approval"]);
    let approved = approve(&rental, &made);
    assert_eq!(approved.status, 200, "{}", approved.text());
    let view = approved.value();
    assert_eq!(view["version"], 1, "its code set stays");
    assert_eq!(view["state"], "open");
    assert!(text(&view["approved_until"]) > time(now()).as_str());
    assert!(text(&view["approved_until"]) <= time(now() + 60).as_str());
    // What was approved of is this code set, and no other.
    let other = rental.authorize("CAR", &[UNLOCK]);
    stepped_up(&redeem(&rental, &other, None), &["approval"]);
    let redeemed = redeem(&rental, &made, None);
    assert_eq!(redeemed.status, 201, "{}", redeemed.text());
    let again = redeem(&rental, &made, None);
    assert_eq!(again.body, redeemed.body, "the same request again");
    approve(&rental, &made).refused(409, "code_set_redeemed");
}

#[test]
fn an_approval_ends_and_survives_a_crash_until_then() {
    let mut rental = Rental::new();
    let mut context = new_phones();
    context["approval_s"] = json!(3);
    rental.rule(&json!({ "context": context }));
    let (made, late) = (
        rental.authorize("CAR", &[UNLOCK]),
        rental.authorize("CAR", &[UNLOCK]),
    );
    assert_eq!(approve(&rental, &late).status, 200);
    let until = now() + 3;
    while now() < until {
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    stepped_up(&redeem(&rental, &late, None), &["approval"]);
    rental.rule(&json!({ "context": new_phones() }));
    assert_eq!(approve(&rental, &made).status, 200);
    let address = rental
        .server
        .url
        .strip_prefix("http://")
        .unwrap()
        .to_owned();
    let nowhere = crate::support::Server::at(String::new());
    std::mem::replace(&mut rental.server, nowhere).kill();
    rental.server = rental.issuer.serve_at(&address);
    assert_eq!(redeem(&rental, &made, None).status, 201);
}

#[test]
fn a_pin_is_enough_where_there_is_one_and_may_be_asked_for_only_then() {
    let rental = Rental::new();
    rental.rule(&json!({ "context": new_phones() }));
    let made = with_pin(&rental);
    stepped_up(&redeem(&rental, &made, None), &["pin", "approval"]);
    let pin = text(&made["pin"]).to_owned();
    let wrong = if pin == "000000" { "000001" } else { "000000" };
    redeem(&rental, &made, Some(wrong)).refused(403, "pin_wrong");
    assert_eq!(redeem(&rental, &made, Some(&pin)).status, 201);
    // An approval does not stand for a PIN that is asked for in any case.
    let made = with_pin(&rental);
    assert_eq!(approve(&rental, &made).status, 200);
    redeem(&rental, &made, None).refused(403, "pin_required");
    // Left to the context, it is asked for where more is asked for and nobody approved.
    let mut context = new_phones();
    context["pin_on_step_up"] = json!(true);
    rental.rule(&json!({ "context": context }));
    assert_eq!(redeem(&rental, &made, None).status, 201, "approved of");
    let made = with_pin(&rental);
    stepped_up(&redeem(&rental, &made, None), &["pin", "approval"]);
    context["rules"] = json!([]);
    rental.rule(&json!({ "context": context }));
    assert_eq!(redeem(&rental, &made, None).status, 201, "nothing is amiss");
    // A phone nobody knows has nothing but the PIN.
    rental.put("/v1/identities/ben", &json!({}));
    let made = with_pin(&rental);
    let stranger = Phone::new();
    let body = redemption(
        &rental.server.url,
        text(&made["code_set"]),
        "ben",
        &stranger,
    );
    let answer = rental.server.json("POST", "/v1/redemptions", &body);
    answer.refused(403, "pin_required");
}

#[test]
fn what_is_refused_is_refused_whatever_is_brought() {
    let rental = Rental::new();
    let mut context = new_phones();
    context["rules"] = json!([
        { "points": 50, "terminal_newer_than_days": 7 },
        { "points": 50, "inside": ["127.0.0.0/8"] } ]);
    rental.rule(&json!({ "context": context }));
    let made = with_pin(&rental);
    let pin = text(&made["pin"]).to_owned();
    let refused = redeem(&rental, &made, Some(&pin));
    refused.refused(403, "context_refused");
    assert!(text(&refused.value()["detail"]).contains("ask the fleet"));
    assert_eq!(approve(&rental, &made).status, 200);
    redeem(&rental, &made, Some(&pin)).refused(403, "context_refused");
    // No attempt at the PIN was spent on it.
    context["rules"] = json!([{ "points": 100, "outside": ["127.0.0.0/8", "::1"] }]);
    rental.rule(&json!({ "context": context }));
    assert_eq!(redeem(&rental, &made, Some(&pin)).status, 201);
}

#[test]
fn many_redemptions_and_an_old_proof_of_identity_are_asked_for_more() {
    let rental = Rental::new();
    rental.rule(&json!({ "context": { "step_up_from": 10, "rules": [
        { "points": 10, "redemptions": { "count": 2, "seconds": 3600 } } ] } }));
    let made: Vec<_> = (0..3).map(|_| rental.authorize("CAR", &[UNLOCK])).collect();
    assert_eq!(redeem(&rental, &made[0], None).status, 201);
    assert_eq!(
        redeem(&rental, &made[0], None).status,
        201,
        "the same again"
    );
    assert_eq!(redeem(&rental, &made[1], None).status, 201);
    stepped_up(&redeem(&rental, &made[2], None), &["approval"]);
    // Another identity has redeemed nothing.
    rental.put("/v1/identities/ben", &json!({}));
    let phone = Phone::new();
    let registered = json!({ "identity": "ben", "jwk": phone.jwk() });
    rental.put("/v1/terminals/bens", &registered);
    let bens = rental.authorize("CAR", &[UNLOCK]);
    let code_set = text(&bens["code_set"]);
    assert_eq!(rental.server.redeem(code_set, "ben", &phone).status, 201);
    // What was redeemed lately is what new rules are tried on.
    let tried = json!({ "rules": { "context": { "step_up_from": 1, "refuse_from": 5, "rules": [
        { "points": 5, "redemptions": { "count": 1, "seconds": 60 } } ] } } });
    let trial = rental.set_rules(1, "?dry_run=true", &tried).value()["trial"].clone();
    let expected = json!({ "looked_at": 3, "issue": 2, "step_up": 0, "refuse": 1 });
    assert_eq!(trial["context"], expected);

    rental.rule(&json!({ "context": { "step_up_from": 10, "rules": [
        { "points": 10, "proved_longer_ago_than_days": 30 } ] } }));
    stepped_up(&redeem(&rental, &made[2], None), &["approval"]);
    let prove = |at: u64| json!({ "proved": time(at) });
    let future = rental.send("PUT", "/v1/identities/anna", &prove(now() + 60));
    future.refused(400, "malformed");
    rental.put("/v1/identities/anna", &prove(now() - 31 * 86_400));
    stepped_up(&redeem(&rental, &made[2], None), &["approval"]);
    rental.put("/v1/identities/anna", &prove(now() - 29 * 86_400));
    // Described anew, she was proved when she was.
    rental.put("/v1/identities/anna", &json!({}));
    assert_eq!(redeem(&rental, &made[2], None).status, 201);
}

#[test]
fn a_score_is_explained_to_the_fleet_rule_by_rule() {
    let rental = Rental::new();
    rental.rule(
        &json!({ "context": { "step_up_from": 10, "refuse_from": 40, "rules": [
        { "points": 10, "terminal_newer_than_days": 7 },
        { "points": 5, "proved_longer_ago_than_days": 1 },
        { "points": 25, "outside": ["192.0.2.0/24"] } ] } }),
    );
    let made = rental.authorize("CAR", &[UNLOCK]);
    let explain = |address: Option<&str>| {
        let mut asked = json!({ "authorization": made["authorization"], "identity": "anna",
            "terminal": "annas" });
        if let Some(address) = address {
            asked["address"] = json!(address);
        }
        let body = json!({ "redemption": asked });
        rental.send("POST", "/v1/explain", &body)
    };
    let failing = |explained: &Value| -> Vec<String> {
        let rules = explained["rules"].as_array().unwrap().iter();
        let failing = rules.filter(|it| it["passes"] == false);
        failing.map(|it| text(&it["code"]).to_owned()).collect()
    };
    let within = explain(Some("192.0.2.7")).value();
    assert_eq!(within["context"]["score"], 15);
    assert_eq!(within["context"]["decision"], "step_up");
    assert_eq!(
        within["context"]["points"],
        json!([{ "rule": 0, "because": "terminal_newer_than_days", "points": 10 },
            { "rule": 1, "because": "proved_longer_ago_than_days", "points": 5 }])
    );
    assert_eq!(failing(&within), ["step_up_required"]);
    for from in [None, Some("192.0.3.7")] {
        let beyond = explain(from).value();
        assert_eq!(beyond["context"]["score"], 40, "{beyond}");
        assert_eq!(failing(&beyond), ["context_refused"]);
    }
    explain(Some("nowhere")).refused(400, "malformed");
    assert_eq!(approve(&rental, &made).status, 200);
    let approved = explain(Some("192.0.2.7")).value();
    assert_eq!(approved["passes"], true, "{approved}");
}

#[test]
fn an_owner_approves_with_a_signed_command_and_nobody_else_does() {
    let garage = Garage::new();
    let admin = |method: &str, path: &str, body: &Value| {
        garage.server.json_as(&garage.admin, method, path, body)
    };
    let (bearer, url) = (format!("Bearer {}", garage.admin), &garage.server.url);
    let headers = [
        ("content-type", "application/json"),
        ("authorization", bearer.as_str()),
        ("if-match", "\"0\""),
    ];
    let rules = json!({ "rules": { "context": new_phones() } }).to_string();
    let set = garage
        .server
        .send("PUT", "/v1/rules", &headers, rules.as_bytes());
    assert_eq!(set.status, 200, "{}", set.text());
    let asked = crate::support::authorization("DEMO-0001", &[UNLOCK]);
    let made = garage.server.command(&garage.owner.command(url, &asked));
    assert_eq!(made.status, 201, "{}", made.text());
    let made = made.value();
    let redeem = || {
        let code_set = text(&made["code_set"]);
        garage.server.redeem(code_set, "renter-1", &Phone::new())
    };
    stepped_up(&redeem(), &["approval"]);
    let path = format!(
        "/v1/authorizations/{}/approve",
        text(&made["authorization"])
    );
    let send = |jws: &str| {
        let headers = [("content-type", "application/jose")];
        garage.server.send("POST", &path, &headers, jws.as_bytes())
    };
    // A command for another address, and one of somebody who owns nothing.
    let elsewhere = path.replace("approve", "suspend");
    let other = garage.owner.command_to(url, "POST", &elsewhere, &json!({}));
    send(&other).refused(401, "unauthenticated");
    let stranger = Phone::new();
    let body = json!({ "identity": "renter-2", "jwk": stranger.jwk() });
    assert_eq!(admin("PUT", "/v1/terminals/strangers", &body).status, 204);
    let foreign = stranger.command_with(url, &json!({}), |header, claims| {
        header["kid"] = json!("demo/strangers");
        claims["iss"] = json!("renter-2");
        claims["htu"] = json!(format!("{url}{path}"));
    });
    send(&foreign).refused(403, "forbidden");
    stepped_up(&redeem(), &["approval"]);
    let command = garage.owner.command_to(url, "POST", &path, &json!({}));
    let approved = send(&command);
    assert_eq!(approved.status, 200, "{}", approved.text());
    let until = approved.value()["approved_until"].clone();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let again = send(&command);
    assert_eq!(again.status, 200, "{}", again.text());
    assert_eq!(again.value()["approved_until"], until, "it is not renewed");
    assert_eq!(redeem().status, 201);
}

#[test]
fn what_is_only_taken_away_is_taken_away_under_brake_and_hold() {
    let rental = Rental::new();
    let redeemed = rental.redeem("CAR", &[UNLOCK, "doors.lock", "engine.start"]);
    assert_eq!(redeemed.status, 201, "{}", redeemed.text());
    let path = format!(
        "/v1/authorizations/{}",
        text(&redeemed.value()["authorization"])
    );
    rental.put("/v1/identities/anna", &json!({ "hold": "payment" }));
    let change = |version, functions: &[&str]| {
        rental.patch(&path, version, &json!({ "functions": functions }))
    };
    change(1, &[UNLOCK, "doors.lock", "trunk.open"]).refused(403, "identity_held");
    let longer = json!({ "not_after": time(now() + 7200) });
    rental
        .patch(&path, 1, &longer)
        .refused(403, "identity_held");
    let less = change(1, &[UNLOCK, "doors.lock"]);
    assert_eq!(less.status, 200, "{}", less.text());
    assert_eq!(less.value()["revoked"].as_array().unwrap().len(), 1);
    assert_eq!(less.value()["issued"].as_array().unwrap().len(), 2);
    change(2, &[UNLOCK, "doors.lock", "engine.start"]).refused(403, "identity_held");
    rental.put("/v1/identities/anna", &json!({ "hold": "none" }));
    let frozen = rental.send("POST", "/v1/brake", &json!({ "why": "stolen" }));
    assert_eq!(frozen.status, 200, "{}", frozen.text());
    change(2, &[UNLOCK, "trunk.open"]).refused(403, "issuing_frozen");
    let less = change(2, &[UNLOCK]);
    assert_eq!(less.status, 200, "{}", less.text());
    let revoked = less.value()["revoked"].as_array().unwrap().len();
    assert_eq!(revoked, 2, "of both versions");
}
