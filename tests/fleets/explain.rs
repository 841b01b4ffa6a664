//! `POST /v1/explain` says what would happen, and then that happens.

use serde_json::{Value, json};

use super::rental::{Rental, text};
use crate::support::{now, time};

const UNLOCK: &str = "doors.unlock";
const START: &str = "engine.start";

fn explain(rental: &Rental, body: &Value) -> Value {
    let answer = rental.send("POST", "/v1/explain", body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.value()
}

/// The first rule that does not pass, its code and why.
fn first(explained: &Value) -> Option<(String, String, String)> {
    let rules = explained["rules"].as_array().unwrap();
    let failed = rules.iter().find(|rule| rule["passes"] == false)?;
    let text = |name: &str| text(&failed[name]).to_owned();
    Some((text("rule"), text("code"), text("why")))
}

/// What makes a redemption fail, one after the other, and which rule says so.
type Trouble = (&'static str, &'static str, fn(&Rental));

const TROUBLES: [Trouble; 8] = [
    ("terminal", "terminal_mismatch", |rental| {
        let lost = json!({ "terminal": "annas" });
        assert_eq!(rental.send("POST", "/v1/suspensions", &lost).status, 200);
    }),
    ("brake", "issuing_frozen", |rental| {
        let frozen = rental.send("POST", "/v1/brake", &json!({ "vehicle": "CAR" }));
        assert_eq!(frozen.status, 200);
    }),
    ("functions", "function_not_on_vehicle", |rental| {
        let poor = json!({ "model": "Car", "functions": [UNLOCK] });
        rental.put("/v1/vehicles/CAR", &poor);
    }),
    ("identity_status", "identity_suspended", |rental| {
        rental.put("/v1/identities/anna", &json!({ "status": "suspended" }));
    }),
    ("hold", "identity_held", |rental| {
        rental.put("/v1/identities/anna", &json!({ "hold": "payment" }));
    }),
    ("licence", "licence_missing", |rental| {
        let rule = json!({ "functions": [START], "classes": ["B"] });
        rental.rule(&json!({ "licences": [rule] }));
    }),
    ("quota", "quota_exceeded", |rental| {
        rental.rule(&json!({ "keys_per_day": 1 }));
    }),
    ("open", "code_set_cancelled", |rental| {
        let list = rental.send("GET", "/v1/authorizations", &json!({}));
        let id = text(&list.value()["items"][0]["authorization"]).to_owned();
        let path = format!("/v1/authorizations/{id}");
        assert_eq!(rental.send("DELETE", &path, &json!({})).status, 200);
    }),
];

#[test]
fn what_is_explained_is_what_happens() {
    for (rule, code, make) in TROUBLES {
        let rental = Rental::new();
        let made = rental.authorize("CAR", &[UNLOCK, START]);
        let body = json!({ "redemption": {
            "authorization": made["authorization"], "identity": "anna", "terminal": "annas" } });
        let before = explain(&rental, &body);
        assert_eq!(before["passes"], true, "{before}");
        make(&rental);
        let explained = explain(&rental, &body);
        let (by, with, why) = first(&explained).expect(rule);
        assert_eq!((by.as_str(), with.as_str()), (rule, code), "{explained}");
        assert!(why.len() > 10, "{why}");
        assert_eq!(explained, explain(&rental, &body), "it has no effect");
        let redeemed = rental
            .server
            .redeem(text(&made["code_set"]), "anna", &rental.phone);
        assert_eq!(redeemed.refusal(), code, "{}", redeemed.text());
    }
}

#[test]
fn an_authorization_is_explained_before_it_is_made() {
    let rental = Rental::new();
    rental.rule(&json!({ "licences": [{ "functions": [START], "classes": ["B"] }] }));
    let ask = |functions: &[&str], to: Option<&str>| {
        let mut asked = json!({ "vehicle": "CAR", "functions": functions,
            "not_before": time(now()), "not_after": time(now() + 3600) });
        if let Some(to) = to {
            asked["recipient"] = json!({ "identity": to });
        }
        explain(&rental, &json!({ "authorization": asked }))
    };
    assert_eq!(ask(&[UNLOCK, START], None)["passes"], true);
    let (rule, code, why) = first(&ask(&[START], Some("anna"))).unwrap();
    assert_eq!(
        (rule.as_str(), code.as_str()),
        ("licence", "licence_missing")
    );
    assert!(why.contains("class B"), "{why}");
    let (rule, code, _) = first(&ask(&["sunroof.open"], None)).unwrap();
    assert_eq!(
        (rule.as_str(), code.as_str()),
        ("authorization", "unknown_function")
    );
    let list = rental.send("GET", "/v1/authorizations", &json!({}));
    assert_eq!(list.value()["items"], json!([]), "none was made");
    let neither = rental.send("POST", "/v1/explain", &json!({}));
    neither.refused(400, "malformed");
}

#[test]
fn keys_begin_as_early_as_the_fleet_lets_them() {
    let rental = Rental::new();
    let from = now() + 1200;
    let body = json!({ "vehicle": "CAR", "functions": [UNLOCK, START],
        "not_before": time(from), "not_after": time(from + 3600) });
    let authorize = || rental.send("POST", "/v1/authorizations", &body).value();
    let begin = |bundle: &Value| text(&bundle["keys"][0]["not_before"]).to_owned();
    let redeem = |made: &Value| {
        let code_set = text(&made["code_set"]);
        let redeemed = rental.server.redeem(code_set, "anna", &rental.phone);
        assert_eq!(redeemed.status, 201, "{}", redeemed.text());
        redeemed.value()
    };
    assert_eq!(begin(&redeem(&authorize())), time(from), "nothing is ruled");
    rental.rule(&json!({ "early_grace_s": 900 }));
    let made = authorize();
    let asked = json!({ "redemption": {
        "authorization": made["authorization"], "identity": "anna" } });
    let words = explain(&rental, &asked)["keys"]["words"].clone();
    let early = format!("early start from {}", time(from - 900));
    assert!(
        text(&words).starts_with(&format!("valid from {}", time(from))),
        "{words}"
    );
    assert!(text(&words).ends_with(&early), "{words}");
    let bundle = redeem(&made);
    assert_eq!(begin(&bundle), time(from - 900));
    // A change that grants the same issues the same again and takes nothing away.
    let (bearer, body) = (
        format!("Bearer {}", rental.token),
        json!({ "functions": [UNLOCK, START] }),
    );
    let headers = [
        ("content-type", "application/json"),
        ("authorization", bearer.as_str()),
        ("if-match", "\"1\""),
    ];
    let path = format!("/v1/authorizations/{}", text(&made["authorization"]));
    let changed = rental
        .server
        .send("PATCH", &path, &headers, body.to_string().as_bytes());
    assert_eq!(changed.status, 200, "{}", changed.text());
    assert_eq!(changed.value()["revoked"], json!([]));
    let path = format!("/v1/bundles/{}", text(&bundle["bundle"]));
    assert_eq!(
        begin(&rental.send("GET", &path, &json!({})).value()),
        time(from - 900)
    );
}
