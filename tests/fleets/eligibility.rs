//! Who may have keys at all, as a fleet rules: licences, holds; and how rules are set.

use serde_json::{Value, json};

use super::rental::{Rental, text};
use crate::support::{Phone, now, time};

const UNLOCK: &str = "doors.unlock";
const START: &str = "engine.start";

/// Starting needs a B; on a lorry it needs a C or C1E beside it.
fn lorries() -> Value {
    json!({ "licences": [
        { "functions": [START], "classes": ["B"] },
        { "functions": [3], "models": ["Lorry"], "classes": ["C", "C1E"] },
    ]})
}

fn licences(all: &[(&str, u64)]) -> Value {
    let all = all
        .iter()
        .map(|(class, until)| json!({ "class": class, "expires": time(*until) }));
    json!({ "licences": all.collect::<Vec<_>>() })
}

#[test]
fn licences_are_asked_for_where_keys_are_issued_and_nowhere_before_they_are_ruled() {
    let rental = Rental::new();
    let far = now() + 100_000;
    assert_eq!(rental.redeem("LORRY", &[START]).status, 201, "no rule yet");
    rental.rule(&lorries());
    for (held, vehicle, function, expected) in [
        (&[][..], "CAR", UNLOCK, "issued"),
        (&[], "CAR", START, "licence_missing"),
        (&[("B", far)], "CAR", START, "issued"),
        (&[("B", now() - 1)], "CAR", START, "licence_expired"),
        (&[("B", far)], "LORRY", START, "licence_missing"),
        (&[("B", far), ("C1E", far)], "LORRY", START, "issued"),
        (
            &[("B", far), ("C", now() - 1)],
            "LORRY",
            START,
            "licence_expired",
        ),
    ] {
        rental.put("/v1/identities/anna", &licences(held));
        let redeemed = rental.redeem(
            vehicle,
            &[UNLOCK, function][usize::from(function == UNLOCK)..],
        );
        let ordered = rental.order("r", vehicle, &[function]);
        assert_eq!(ordered["status"], expected, "{held:?} {vehicle}: {ordered}");
        if expected == "issued" {
            assert_eq!(redeemed.status, 201, "{held:?}: {}", redeemed.text());
        } else {
            redeemed.refused(403, expected);
            let said = text(&redeemed.value()["detail"]).to_owned();
            assert!(said.contains("have the fleet enter"), "{said}");
        }
    }
}

#[test]
fn keys_end_with_the_licence_they_need() {
    let rental = Rental::new();
    rental.rule(&lorries());
    let until = now() + 1800;
    rental.put("/v1/identities/anna", &licences(&[("B", until)]));
    let made = rental.authorize("CAR", &[UNLOCK, START]);
    let (id, code_set) = (text(&made["authorization"]), text(&made["code_set"]));
    let redeem = || rental.server.redeem(code_set, "anna", &rental.phone);
    let bundle = redeem();
    assert_eq!(bundle.status, 201, "{}", bundle.text());
    let ends = |bundle: &Value| {
        let keys = bundle["keys"].as_array().unwrap().iter();
        let ends: Vec<_> = keys.map(|key| text(&key["not_after"]).to_owned()).collect();
        ends
    };
    assert_eq!(ends(&bundle.value()), [time(until), time(until)]);
    assert_eq!(redeem().body, bundle.body, "and so they are found again");
    let ordered = rental.order("r", "CAR", &[START]);
    assert_eq!(ends(&ordered["bundle"]), [time(until)]);
    // Keys that need no licence end when they were meant to.
    let other = rental.redeem("CAR", &[UNLOCK]).value();
    assert_ne!(ends(&other), [time(until)]);
    // Issued again, they end as the licence does by then.
    let renewed = now() + 2400;
    rental.put("/v1/identities/anna", &licences(&[("B", renewed)]));
    let authorization = format!("/v1/authorizations/{id}");
    let changed = rental.patch(&authorization, 1, &json!({ "functions": [START] }));
    assert_eq!(changed.status, 200, "{}", changed.text());
    let path = format!("/v1/bundles/{}", text(&bundle.value()["bundle"]));
    let again = rental.send("GET", &path, &json!({})).value();
    assert_eq!(ends(&again), [time(renewed)]);
    rental.put("/v1/identities/anna", &licences(&[]));
    let refused = rental.patch(&authorization, 2, &json!({ "functions": [START, UNLOCK] }));
    refused.refused(403, "licence_missing");
}

#[test]
fn a_reset_leaves_everybody_the_keys_they_have() {
    let rental = Rental::new();
    rental.rule(&json!({ "licences": lorries()["licences"], "early_grace_s": 60 }));
    let until = now() + 1800;
    rental.put("/v1/identities/anna", &licences(&[("B", until)]));
    let bundle = rental.redeem("CAR", &[UNLOCK, START]).value();
    let path = format!("/v1/bundles/{}", text(&bundle["bundle"]));
    let keys = || rental.send("GET", &path, &json!({})).value()["keys"].clone();
    let windows = |keys: &Value| {
        let window = |key: &Value| (key["not_before"].clone(), key["not_after"].clone());
        let all: Vec<_> = keys.as_array().unwrap().iter().map(window).collect();
        all
    };
    let before = windows(&keys());
    // Nobody who asked for these keys now would get them.
    let mut body = licences(&[]);
    body["hold"] = json!("payment");
    rental.put("/v1/identities/anna", &body);
    rental.rule(&json!({ "licences": lorries()["licences"], "keys_per_day": 0 }));
    let frozen = rental.send("POST", "/v1/brake", &json!({}));
    assert_eq!(frozen.status, 200, "{}", frozen.text());
    let reset = json!({ "end": [] });
    let reset = rental.send("POST", "/v1/vehicles/CAR/reset", &reset);
    assert_eq!(reset.status, 200, "{}", reset.text());
    assert_eq!(reset.value()["epoch"], 1, "{}", reset.text());
    assert_eq!(reset.value()["issued"].as_array().unwrap().len(), 2);
    let after = keys();
    assert_eq!(windows(&after), before, "as long as before, and no longer");
    // What suspends the keys of before suspends these, and lifts from them too.
    let statuses = |keys: &Value| [keys[0]["status"].clone(), keys[1]["status"].clone()];
    assert_eq!(statuses(&after), ["suspended", "suspended"]);
    let mut body = licences(&[("B", until)]);
    body["hold"] = json!("none");
    rental.put("/v1/identities/anna", &body);
    assert_eq!(statuses(&keys()), ["valid", "valid"]);
}

#[test]
fn whoever_is_held_gets_no_keys_until_the_hold_is_lifted() {
    let rental = Rental::new();
    for hold in ["payment", "insurance"] {
        rental.put("/v1/identities/anna", &json!({ "hold": hold }));
        // What does not speak of it leaves it.
        rental.put("/v1/identities/anna", &json!({}));
        let refused = rental.redeem("CAR", &[UNLOCK]);
        refused.refused(403, "identity_held");
        assert!(text(&refused.value()["detail"]).contains(hold));
        assert_eq!(
            rental.order(hold, "CAR", &[UNLOCK])["status"],
            "identity_held"
        );
        rental.put("/v1/identities/anna", &json!({ "hold": "none" }));
        assert_eq!(rental.redeem("CAR", &[UNLOCK]).status, 201);
    }
    let bad = rental.send("PUT", "/v1/identities/anna", &json!({ "hold": "mood" }));
    bad.refused(400, "malformed");
    assert_eq!(bad.value()["field"], "hold");
}

#[test]
fn rules_are_set_at_a_version_tried_and_kept() {
    let rental = Rental::new();
    let read = || rental.send("GET", "/v1/rules", &json!({}));
    let nothing = json!({ "version": 0, "followed": 0, "rules": { "limits": {}, "brake": {} } });
    assert_eq!(read().value(), nothing);
    let body = json!({ "rules": lorries(), "why": "the insurer asks for it" });
    let missing = rental.send("PUT", "/v1/rules", &body);
    assert_eq!(
        (missing.status, missing.refusal().as_str()),
        (428, "malformed")
    );
    rental
        .set_rules(1, "", &body)
        .refused(412, "version_conflict");
    // Of three that are open, one could not be redeemed by the one it is for.
    for (functions, to) in [
        ([UNLOCK, "doors.lock"], Some("anna")),
        ([UNLOCK, START], Some("anna")),
        ([UNLOCK, START], None),
    ] {
        let mut asked = json!({ "vehicle": "CAR", "functions": functions,
            "not_before": time(now()), "not_after": time(now() + 3600) });
        if let Some(to) = to {
            asked["recipient"] = json!({ "identity": to });
        }
        let made = rental.send("POST", "/v1/authorizations", &asked);
        assert_eq!(made.status, 201, "{}", made.text());
    }
    let tried = rental.set_rules(0, "?dry_run=true", &body);
    assert_eq!(tried.status, 200, "{}", tried.text());
    let trial = json!({ "looked_at": 2, "refused": { "licence_missing": 1 },
        "keys": { "bundles": 0, "suspended": 0, "resumed": 0, "all": true } });
    assert_eq!(tried.value()["trial"], trial);
    assert_eq!(read().value(), nothing, "nothing was set");
    let set = rental.set_rules(0, "", &body);
    assert_eq!((set.status, set.header("etag")), (200, Some("\"1\"")));
    rental
        .set_rules(0, "", &body)
        .refused(412, "version_conflict");
    for (bad, field) in [
        (
            json!({ "rules": { "licences": [{ "functions": ["no.such"], "classes": ["B"] }] } }),
            "licences[0].functions[0]",
        ),
        (
            json!({ "rules": { "limits": { "token": { "count": 0, "seconds": 1 } } } }),
            "limits.token",
        ),
        (json!({ "rules": { "speed": 1 } }), "rules.speed"),
        (json!({ "rules": {}, "why": "" }), "why"),
    ] {
        let refused = rental.set_rules(1, "", &bad);
        assert!([400, 404].contains(&refused.status), "{}", refused.text());
        assert_eq!(refused.value()["field"], field, "{}", refused.text());
    }
    let before = read().value();
    let Rental { issuer, server, .. } = rental;
    server.kill();
    let server = issuer.serve();
    let token = issuer.fob(&["token", "create", "--fleet", "rental", "--scopes", "read"]);
    let after = server.json_as(&token, "GET", "/v1/rules", &json!({}));
    for member in ["version", "rules"] {
        assert_eq!(
            after.value()[member],
            before[member],
            "they outlive a crash"
        );
    }
}

#[test]
fn a_licence_lost_between_order_and_redemption_counts() {
    let rental = Rental::new();
    rental.rule(&lorries());
    let far = now() + 100_000;
    rental.put("/v1/identities/anna", &licences(&[("B", far)]));
    let made = rental.authorize("CAR", &[START]);
    rental.put("/v1/identities/anna", &licences(&[]));
    let redeem = |phone: &Phone| rental.server.redeem(text(&made["code_set"]), "anna", phone);
    redeem(&rental.phone).refused(403, "licence_missing");
    rental.put("/v1/identities/anna", &licences(&[("B", far)]));
    assert_eq!(
        redeem(&rental.phone).status,
        201,
        "and is not used up by it"
    );
}

#[test]
fn an_order_begins_when_it_says_and_a_redemption_as_early_as_the_fleet_lets_it() {
    let rental = Rental::new();
    rental.rule(&json!({ "early_grace_s": 600 }));
    let (from, until) = (now() + 1000, now() + 5000);
    let spec = json!({ "vehicle": "CAR", "functions": [UNLOCK],
        "not_before": time(from), "not_after": time(until) });
    let mut order = spec.clone();
    order["ref"] = json!("one");
    order["recipient"] = json!({ "identity": "anna", "terminal": "annas" });
    let ordered = rental.orders(&[order]).remove(0);
    let begins = |bundle: &Value| bundle["keys"][0]["not_before"].clone();
    assert_eq!(begins(&ordered["bundle"]), json!(time(from)), "{ordered}");
    let made = rental.send("POST", "/v1/authorizations", &spec).value();
    let redeemed = rental
        .server
        .redeem(text(&made["code_set"]), "anna", &rental.phone);
    assert_eq!(begins(&redeemed.value()), json!(time(from - 600)));
}
