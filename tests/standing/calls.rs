//! Who may suspend what, one in a call or a line each, and how far an end has come.

use std::collections::BTreeMap;

use fob_verify::status::Status;
use fob_verify::sync;
use serde_json::{Value, json};

use super::{ASLEEP, AWAKE, TWO, resume, standing, text};
use crate::support::garage::{Garage, keys, parts};
use crate::support::{Phone, now};

#[test]
fn who_may_suspend_what() {
    let garage = Garage::new();
    let phone = Phone::new();
    let other = garage.issue("DEMO-0050", &TWO, "renter-1", &phone).1;
    let by_owner = |path: &str, command: &Value| {
        let (url, headers) = (&garage.server.url, [("content-type", "application/jose")]);
        let jws = garage.owner.command_to(url, "POST", path, command);
        garage.server.send("POST", path, &headers, jws.as_bytes())
    };
    for path in ["/v1/suspensions", "/v1/resumptions"] {
        for target in [
            json!({"identity": "renter-1"}),
            json!({"vehicle": "DEMO-0050"}),
            json!({"bundle": other["bundle"]}),
            json!({"key": keys(&other)[0].id}),
        ] {
            by_owner(path, &target).refused(403, "forbidden");
        }
        garage
            .send("POST", path, &json!({"vehicle": "NONE"}))
            .refused(404, "not_found");
        garage
            .send("POST", path, &json!({"identity": "nobody"}))
            .refused(404, "not_found");
        garage
            .send("POST", path, &json!({}))
            .refused(400, "malformed");
        let reader = garage.issuer.token("read");
        let target = json!({"vehicle": "DEMO-0001"});
        let asked = garage.server.json_as(&reader, "POST", path, &target);
        asked.refused(403, "forbidden");
    }
    assert_eq!(standing(&garage, &other), AWAKE);
}

#[test]
fn an_owner_suspends_by_signed_command() {
    let garage = Garage::new();
    let phone = Phone::new();
    let bundles = [
        garage.issue("DEMO-0001", &TWO, "renter-1", &phone).1,
        garage.issue("DEMO-0001", &TWO, "renter-2", &phone).1,
    ];
    let send = |path: &str, jws: &str| {
        let headers = [("content-type", "application/jose")];
        garage.server.send("POST", path, &headers, jws.as_bytes())
    };
    let sign = |path: &str, command: &Value| {
        garage
            .owner
            .command_to(&garage.server.url, "POST", path, command)
    };
    let by_owner = |path: &str, command: &Value| send(path, &sign(path, command));
    let (suspensions, resumptions) = ("/v1/suspensions", "/v1/resumptions");
    let target = json!({"vehicle": "DEMO-0001"});
    let jws = sign(suspensions, &target);
    let answer = send(suspensions, &jws);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.value()["suspended"], 4);
    assert_eq!(
        send(suspensions, &jws).status,
        200,
        "the same command again"
    );
    assert!(
        bundles
            .iter()
            .all(|bundle| standing(&garage, bundle) == ASLEEP)
    );
    let answer = by_owner(resumptions, &target);
    assert_eq!(answer.value()["resumed"], 4, "{}", answer.text());
    // Whoever has kept it cannot undo that.
    send(suspensions, &jws).refused(409, "command_replayed");
    assert!(
        bundles
            .iter()
            .all(|bundle| standing(&garage, bundle) == AWAKE)
    );
    let key = json!({"key": keys(&bundles[0])[1].id});
    assert_eq!(by_owner(suspensions, &key).status, 200);
    assert_eq!(
        standing(&garage, &bundles[0]),
        [Status::Valid, Status::Suspended]
    );
    // One command ends everything there is on a vehicle, however much that is.
    let jws = sign("/v1/revocations", &target);
    let answer = send("/v1/revocations", &jws);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.value()["revoked"], 4, "{}", answer.text());
}

#[test]
fn many_are_suspended_line_by_line() {
    let garage = Garage::new();
    let phone = Phone::new();
    let bundles: Vec<_> = (0..3)
        .map(|_| garage.issue("DEMO-0001", &TWO, "renter-1", &phone).1)
        .collect();
    let lines = format!(
        "{}\n{}\n\nnonsense\n{}\n{}\n",
        json!({"bundle": bundles[0]["bundle"]}),
        json!({"key": keys(&bundles[1])[0].id}),
        json!({"identity": "nobody"}),
        json!({"identity": "renter-1"}),
    );
    let bearer = format!("Bearer {}", garage.token);
    let send = |path: &str, kind: &str, body: &[u8]| -> Vec<Value> {
        let headers = [
            ("content-type", kind),
            ("accept", "application/x-ndjson"),
            ("authorization", bearer.as_str()),
        ];
        let answer = garage.server.send("POST", path, &headers, body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let text = String::from_utf8(answer.body).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        lines.collect()
    };
    let by_line = |answers: Vec<Value>| -> BTreeMap<u64, String> {
        let pair = |it: &Value| (it["line"].as_u64().unwrap(), text(&it["status"]).to_owned());
        answers.iter().map(pair).collect()
    };
    for (path, word) in [
        ("/v1/suspensions", "suspended"),
        ("/v1/resumptions", "resumed"),
    ] {
        let answers = by_line(send(path, "application/x-ndjson", lines.as_bytes()));
        let expected = [
            (1, word),
            (2, word),
            (4, "malformed"),
            (5, "not_found"),
            (6, word),
        ];
        let expected = expected.map(|(line, word)| (line, word.to_owned()));
        assert_eq!(answers, BTreeMap::from(expected));
    }
    assert!(
        bundles
            .iter()
            .all(|bundle| standing(&garage, bundle) == AWAKE)
    );
    let told = send(
        "/v1/suspensions",
        "application/json",
        br#"{"vehicle":"DEMO-0001"}"#,
    );
    let last = told.last().unwrap();
    assert_eq!(
        (&last["status"], &last["total"], &last["suspended"]),
        (&json!("suspended"), &json!(3), &json!(6))
    );
}

/// What is revoked by each of the ways there are says how far it has come.
#[test]
fn whatever_is_revoked_is_terminating_until_the_car_knows() {
    let garage = Garage::new();
    let (phone, car) = (Phone::new(), Phone::new());
    let vehicle = json!({"model": "demo", "owner": "owner-1", "jwk": car.jwk()});
    let put = garage
        .server
        .json_as(&garage.admin, "PUT", "/v1/vehicles/DEMO-0001", &vehicle);
    assert_eq!(put.status, 204);
    let mut at = now();
    let mut applied = None;
    let mut connect = || {
        // The first brings the car up to date, the ack of the second says so.
        for _ in 0..2 {
            at += 1;
            let told = garage.sync(&car, "DEMO-0001", at, applied);
            assert_eq!(told.status, 200, "{}", told.text());
            applied = Some(sync::digest(&parts(&told.body)[0]));
        }
    };
    connect();
    for kind in ["bundle", "authorization", "identity", "vehicle"] {
        let (made, bundle) = garage.issue("DEMO-0001", &TWO, "renter-1", &phone);
        let id = text(&made["authorization"]);
        let target = match kind {
            "bundle" => json!({"bundle": bundle["bundle"]}),
            "authorization" => json!({"authorization": id}),
            "identity" => json!({"identity": "renter-1"}),
            _ => json!({"vehicle": "DEMO-0001"}),
        };
        garage.done("POST", "/v1/revocations", &target);
        assert_eq!(garage.read(id)["state"], "terminating", "{kind}");
        let listed = garage.done("GET", "/v1/authorizations?vehicle=DEMO-0001", &json!({}));
        let items = listed["items"].as_array().unwrap();
        let listed = items.iter().find(|it| it["authorization"] == id).unwrap();
        assert_eq!(listed["state"], "terminating", "{kind}");
        connect();
        assert_eq!(garage.read(id)["state"], "terminated", "{kind}");
        resume(&garage, &json!({"identity": "renter-1"}));
    }
    let (made, bundle) = garage.issue("DEMO-0001", &TWO, "renter-1", &phone);
    let id = text(&made["authorization"]);
    assert!(garage.read(id).get("revoked_keys").is_none());
    let key = &keys(&bundle)[1].id;
    garage.done("POST", "/v1/revocations", &json!({"key": key}));
    let ended = |state: &str| json!([{"id": key, "function": "engine.start", "state": state}]);
    assert_eq!(garage.read(id)["revoked_keys"], ended("terminating"));
    assert_eq!(garage.read(id)["state"], "redeemed");
    connect();
    assert_eq!(garage.read(id)["revoked_keys"], ended("terminated"));
    // What the car knows already is certain.
    let again = garage.done("POST", "/v1/revocations", &json!({"key": key}));
    assert_eq!(again["certain_by"], json!({"when": "now"}));
}
