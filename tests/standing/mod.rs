//! Suspensions of one key, a bundle, an authorization, an identity or a vehicle, whatever else
//! happens to them; and how far an end of each of these has come.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod calls;
mod races;

use fob_verify::status::Status;
use serde_json::{Value, json};

use crate::support::garage::{Garage, keys, statuses};
use crate::support::{Phone, authorization, now, time};

const TWO: [&str; 2] = ["doors.unlock", "engine.start"];

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn suspend(garage: &Garage, target: &Value) -> Value {
    garage.done("POST", "/v1/suspensions", target)
}

fn resume(garage: &Garage, target: &Value) -> Value {
    garage.done("POST", "/v1/resumptions", target)
}

/// How the lists have each key of a bundle, which its own answer must say too.
#[track_caller]
fn standing(garage: &Garage, bundle: &Value) -> Vec<Status> {
    let read = statuses(&garage.bundle(text(&bundle["bundle"])));
    let mut all = Vec::new();
    for key in keys(bundle) {
        let status = garage.status(&key);
        let word = match status {
            Status::Valid => "valid",
            Status::Suspended => "suspended",
            _ => "revoked",
        };
        if bundle["version"] == garage.bundle(text(&bundle["bundle"]))["version"] {
            assert_eq!(read[&key.function], word);
        }
        all.push(status);
    }
    all
}

const AWAKE: [Status; 2] = [Status::Valid; 2];
const ASLEEP: [Status; 2] = [Status::Suspended; 2];

#[test]
fn whatever_is_named_is_suspended_and_nothing_else() {
    let garage = Garage::new();
    let phone = Phone::new();
    let (made, one) = garage.issue("DEMO-0001", &TWO, "renter-1", &phone);
    let two = garage.issue("DEMO-0001", &TWO, "renter-2", &phone).1;
    let three = garage.issue("DEMO-0002", &TWO, "renter-1", &phone).1;
    let all = || [&one, &two, &three].map(|bundle| standing(&garage, bundle));
    let first = keys(&one)[0].id.clone();
    let half = vec![Status::Suspended, Status::Valid];
    let (awake, asleep) = (AWAKE.to_vec(), ASLEEP.to_vec());
    let table = [
        (json!({"key": first}), [&half, &awake, &awake], 1),
        (
            json!({"bundle": one["bundle"]}),
            [&asleep, &awake, &awake],
            2,
        ),
        (
            json!({"authorization": made["authorization"]}),
            [&asleep, &awake, &awake],
            2,
        ),
        (
            json!({"identity": "renter-1"}),
            [&asleep, &awake, &asleep],
            4,
        ),
        (
            json!({"vehicle": "DEMO-0001"}),
            [&asleep, &asleep, &awake],
            4,
        ),
    ];
    for (target, expected, count) in table {
        let answer = suspend(&garage, &target);
        assert_eq!(answer["status"], "suspended", "{target}");
        assert_eq!(answer["suspended"], count, "{target}");
        assert_eq!(answer["certain_by"]["when"], "next_contact");
        assert_eq!(all(), expected.map(Clone::clone), "{target}");
        // Again: nothing is left to do, and the car may still not know.
        let again = suspend(&garage, &target);
        assert_eq!(
            (&again["status"], &again["suspended"]),
            (&json!("suspended"), &json!(0))
        );
        assert_eq!(again["certain_by"]["when"], "next_contact", "{target}");
        let answer = resume(&garage, &target);
        assert_eq!(
            (&answer["status"], &answer["resumed"]),
            (&json!("resumed"), &json!(count))
        );
        assert_eq!(all(), [AWAKE.to_vec(), AWAKE.to_vec(), AWAKE.to_vec()]);
        assert_eq!(resume(&garage, &target)["resumed"], 0, "{target}");
    }
}

/// Each two of the reasons there are, the one that came first going first or last.
#[test]
fn a_key_sleeps_while_anything_holds_it() {
    let mut garage = Garage::new();
    let (made, bundle) = garage.issue("DEMO-0001", &TWO, "renter-1", &Phone::new());
    let key = keys(&bundle)[0].clone();
    let reasons = [
        json!({"key": key.id}),
        json!({"authorization": made["authorization"]}),
        json!({"identity": "renter-1"}),
        json!({"vehicle": "DEMO-0001"}),
    ];
    for (at, one) in reasons.iter().enumerate() {
        for (then, other) in reasons.iter().enumerate().skip(at + 1) {
            suspend(&garage, one);
            suspend(&garage, other);
            let ends = match (at + then) % 2 {
                0 => [one, other],
                _ => [other, one],
            };
            resume(&garage, ends[0]);
            assert_eq!(garage.status(&key), Status::Suspended, "{one}, {other}");
            resume(&garage, ends[1]);
            assert_eq!(garage.status(&key), Status::Valid, "{one}, {other}");
        }
    }
    // All of them outlive a crash, each by itself.
    reasons.iter().for_each(|one| drop(suspend(&garage, one)));
    garage.crash();
    let (last, others) = reasons.split_last().unwrap();
    for one in others {
        resume(&garage, one);
        assert_eq!(garage.status(&key), Status::Suspended, "{one}");
    }
    garage.crash();
    resume(&garage, last);
    assert_eq!(standing(&garage, &bundle), AWAKE);
    // What is revoked stays so.
    garage.done("POST", "/v1/revocations", &json!({"key": key.id}));
    for target in &reasons[1..] {
        suspend(&garage, target);
        resume(&garage, target);
        assert_eq!(
            standing(&garage, &bundle),
            [Status::Revoked, Status::Valid],
            "{target}"
        );
    }
    for path in ["/v1/suspensions", "/v1/resumptions"] {
        garage
            .send("POST", path, &reasons[0])
            .refused(410, "code_set_cancelled");
    }
    garage.done("POST", "/v1/revocations", &reasons[1]);
    garage
        .send("POST", "/v1/resumptions", &reasons[1])
        .refused(410, "code_set_cancelled");
    let ended = resume(&garage, &reasons[2]);
    assert_eq!(
        (&ended["status"], &ended["resumed"]),
        (&json!("resumed"), &json!(0))
    );
    assert_eq!(standing(&garage, &bundle), [Status::Revoked; 2]);
}

#[test]
fn who_is_suspended_gets_nothing_new() {
    let garage = Garage::new();
    let phone = Phone::new();
    let body = json!({"identity": "renter-1", "jwk": phone.jwk()});
    let put = garage
        .server
        .json_as(&garage.admin, "PUT", "/v1/terminals/phone-1", &body);
    assert_eq!(put.status, 204);
    let bearer = format!("Bearer {}", garage.token);
    let headers = [
        ("content-type", "application/x-ndjson"),
        ("authorization", bearer.as_str()),
    ];
    let mut order = authorization("DEMO-0001", &TWO);
    order["recipient"] = json!({"identity": "renter-1", "terminal": "phone-1"});
    let ordered = |reference: &str| {
        order.clone().as_object_mut().map(|order| {
            order.insert("ref".into(), json!(reference));
            let body = format!("{}\n", Value::Object(order.clone()));
            let answer = garage
                .server
                .send("POST", "/v1/batches", &headers, body.as_bytes());
            answer.value()["status"].clone()
        })
    };
    let open = garage.authorize("DEMO-0001", &TWO);
    let redeem = || {
        garage
            .server
            .redeem(text(&open["code_set"]), "renter-1", &phone)
    };
    let identity = json!({"identity": "renter-1"});
    let vehicle = json!({"vehicle": "DEMO-0001"});
    suspend(&garage, &identity);
    redeem().refused(403, "identity_suspended");
    assert_eq!(ordered("a"), Some(json!("identity_suspended")));
    resume(&garage, &identity);
    suspend(&garage, &vehicle);
    redeem().refused(403, "authorization_suspended");
    assert_eq!(ordered("b"), Some(json!("authorization_suspended")));
    garage
        .send(
            "POST",
            "/v1/authorizations",
            &authorization("DEMO-0001", &TWO),
        )
        .refused(403, "authorization_suspended");
    resume(&garage, &vehicle);
    assert_eq!(redeem().status, 201);
    assert_eq!(ordered("c"), Some(json!("issued")));
}

#[test]
fn what_is_issued_again_meanwhile_comes_out_suspended() {
    let garage = Garage::new();
    let targets = |made: &Value, bundle: &Value| {
        [
            json!({"key": keys(bundle)[0].id}),
            json!({"authorization": made["authorization"]}),
            json!({"identity": "renter-1"}),
            json!({"vehicle": "DEMO-0001"}),
        ]
    };
    for which in 0..4 {
        let mut meant = authorization("DEMO-0001", &TWO);
        meant["recipient"] = json!({"identity": "renter-1"});
        let made = garage.done("POST", "/v1/authorizations", &meant);
        let code_set = text(&made["code_set"]);
        let bundle = garage
            .server
            .redeem(code_set, "renter-1", &Phone::new())
            .value();
        let (id, bundle_id) = (text(&made["authorization"]), text(&bundle["bundle"]));
        let target = &targets(&made, &bundle)[which];
        suspend(&garage, target);
        let expected = match which {
            0 => [Status::Suspended, Status::Valid],
            _ => ASLEEP,
        };
        let changed = garage.change(id, 1, &json!({"not_after": time(now() + 5000)}));
        assert_eq!(changed.status, 200, "{target}: {}", changed.text());
        let second = garage.bundle(bundle_id);
        assert_eq!(standing(&garage, &second), expected, "{target}");
        let proof = Phone::new().proof(&garage.server.url, bundle_id);
        let path = format!("/v1/bundles/{bundle_id}/rebind");
        garage.done("POST", &path, &json!({"proof": proof}));
        let third = garage.bundle(bundle_id);
        assert_eq!(standing(&garage, &third), expected, "{target}");
        garage.done("POST", "/v1/vehicles/DEMO-0001/reset", &json!({}));
        let fourth = garage.bundle(bundle_id);
        assert_eq!(fourth["version"], 4, "{target}");
        assert_eq!(standing(&garage, &fourth), expected, "{target}");
        // A function that is taken off and given again is as good as new.
        if which == 0 {
            garage.change(id, 4, &json!({"functions": ["engine.start"]}));
            garage.change(id, 5, &json!({"functions": TWO}));
            assert_eq!(standing(&garage, &garage.bundle(bundle_id)), AWAKE);
        } else {
            resume(&garage, target);
            assert_eq!(standing(&garage, &fourth), AWAKE, "{target}");
        }
        garage.done("POST", "/v1/revocations", &json!({"authorization": id}));
    }
}

#[test]
fn the_registry_suspends_and_resumes_an_identity_as_a_call_does() {
    let garage = Garage::new();
    let (_, bundle) = garage.issue("DEMO-0001", &TWO, "renter-1", &Phone::new());
    let put = |body: Value| {
        let put = garage
            .server
            .json_as(&garage.admin, "PUT", "/v1/identities/renter-1", &body);
        assert_eq!(put.status, 204, "{}", put.text());
    };
    put(json!({"status": "suspended"}));
    assert_eq!(standing(&garage, &bundle), ASLEEP);
    put(json!({}));
    assert_eq!(standing(&garage, &bundle), ASLEEP, "no word of its status");
    let line = json!({"kind": "identity", "id": "renter-1", "status": "active"});
    let import = garage
        .server
        .json_as(&garage.admin, "POST", "/v1/import", &line);
    assert_eq!(import.value()["status"], "registered_otherwise");
    assert_eq!(
        standing(&garage, &bundle),
        ASLEEP,
        "an import changes nothing"
    );
    put(json!({"status": "active"}));
    assert_eq!(standing(&garage, &bundle), AWAKE);
    suspend(&garage, &json!({"identity": "renter-1"}));
    put(json!({"status": "active"}));
    assert_eq!(standing(&garage, &bundle), AWAKE);
}
