//! Suspensions of one key, a bundle, an authorization, an identity or a vehicle, whatever else
//! happens to them; and how far an end of each of these has come.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::collections::BTreeMap;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use fob_verify::status::Status;
use fob_verify::sync;
use serde_json::{Value, json};

use crate::support::garage::{Garage, Handed, keys, parts, statuses};
use crate::support::{Answer, Phone, authorization, now, redemption, time};

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
    let bearer = format!("Bearer {}", garage.admin);
    let headers = [
        ("content-type", "application/x-ndjson"),
        ("authorization", bearer.as_str()),
    ];
    let body = format!("{line}\n");
    let import = garage
        .server
        .send("POST", "/v1/import", &headers, body.as_bytes());
    assert_eq!(import.value()["status"], "done", "{}", import.text());
    assert_eq!(standing(&garage, &bundle), AWAKE);
    suspend(&garage, &json!({"identity": "renter-1"}));
    put(json!({"status": "active"}));
    assert_eq!(standing(&garage, &bundle), AWAKE);
}

#[test]
fn who_may_suspend_what() {
    let garage = Garage::new();
    let phone = Phone::new();
    let bundles = [
        garage.issue("DEMO-0001", &TWO, "renter-1", &phone).1,
        garage.issue("DEMO-0001", &TWO, "renter-2", &phone).1,
    ];
    let other = garage.issue("DEMO-0050", &TWO, "renter-1", &phone).1;
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
    for path in [suspensions, resumptions] {
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

/// Two calls at the same moment; both answers.
fn at_once(
    one: impl FnOnce() -> Answer + Send,
    other: impl FnOnce() -> Answer + Send,
) -> (Answer, Answer) {
    let start = Barrier::new(2);
    thread::scope(|scope| {
        let one = scope.spawn(|| {
            start.wait();
            one()
        });
        let other = scope.spawn(|| {
            start.wait();
            other()
        });
        (one.join().unwrap(), other.join().unwrap())
    })
}

fn none_is_valid(garage: &Garage, handed: &[Handed]) {
    for key in handed {
        assert_ne!(garage.status(key), Status::Valid, "{key:?}");
    }
}

#[test]
fn a_suspension_against_a_redemption() {
    let garage = Garage::new();
    let mut redeemed_before = 0;
    for round in 0..24_u64 {
        let target = match round % 3 {
            0 => json!({"identity": "renter-1"}),
            1 => json!({"vehicle": "DEMO-0001"}),
            _ => Value::Null,
        };
        let made = garage.authorize("DEMO-0001", &TWO);
        let target = match target {
            Value::Null => json!({"authorization": made["authorization"]}),
            target => target,
        };
        let body = redemption(
            &garage.server.url,
            text(&made["code_set"]),
            "renter-1",
            &Phone::new(),
        );
        let (suspended, redeemed) = at_once(
            || {
                // What is asked for first is not always what is committed first.
                thread::sleep(Duration::from_micros(500 * (round / 3)));
                garage.send("POST", "/v1/suspensions", &target)
            },
            || garage.server.json("POST", "/v1/redemptions", &body),
        );
        assert_eq!(suspended.status, 200, "{}", suspended.text());
        if redeemed.status == 201 {
            redeemed_before += 1;
            none_is_valid(&garage, &keys(&redeemed.value()));
        } else {
            assert_eq!(redeemed.status, 403, "{}", redeemed.text());
        }
        resume(&garage, &target);
        if redeemed.status == 201 {
            let bundle = redeemed.value();
            assert_eq!(standing(&garage, &bundle), AWAKE, "round {round}");
        }
    }
    println!("{redeemed_before} of 24 redeemed before");
}

#[test]
fn a_suspension_against_a_change() {
    let garage = Garage::new();
    let phone = Phone::new();
    for round in 0..8 {
        let (made, first) = garage.issue("DEMO-0001", &TWO, "renter-1", &phone);
        let id = text(&made["authorization"]);
        let target = match round % 4 {
            0 => json!({"identity": "renter-1"}),
            1 => json!({"vehicle": "DEMO-0001"}),
            2 => json!({"key": keys(&first)[0].id}),
            _ => json!({"authorization": id}),
        };
        let (suspended, changed) = at_once(
            || garage.send("POST", "/v1/suspensions", &target),
            || garage.change(id, 1, &json!({"functions": ["doors.unlock"]})),
        );
        assert_eq!(suspended.status, 200, "{}", suspended.text());
        assert_eq!(changed.status, 200, "{}", changed.text());
        let second = garage.bundle(text(&first["bundle"]));
        assert_eq!(second["version"], 2);
        none_is_valid(&garage, &[keys(&first), keys(&second)].concat());
        resume(&garage, &target);
        assert_eq!(standing(&garage, &second), [Status::Valid], "{target}");
    }
}

#[test]
fn a_resumption_against_an_end_and_against_a_suspension() {
    let garage = Garage::new();
    let phone = Phone::new();
    for round in 0..6 {
        let (made, bundle) = garage.issue("DEMO-0001", &TWO, "renter-1", &phone);
        let target = match round % 3 {
            0 => json!({"identity": "renter-1"}),
            1 => json!({"vehicle": "DEMO-0001"}),
            _ => json!({"authorization": made["authorization"]}),
        };
        suspend(&garage, &target);
        let (resumed, other) = at_once(
            || garage.send("POST", "/v1/resumptions", &target),
            || garage.send("POST", "/v1/suspensions", &target),
        );
        for answer in [&resumed, &other] {
            if answer.status != 200 {
                answer.refused(412, "version_conflict");
            }
        }
        let stands = standing(&garage, &bundle);
        assert!(stands == AWAKE || stands == ASLEEP, "{stands:?}");
        // It is as the last of them says, for what is new as for what there is.
        let asked = authorization("DEMO-0001", &TWO);
        let open = garage.send("POST", "/v1/authorizations", &asked);
        let awake = open.status == 201 && {
            let code_set = open.value()["code_set"].clone();
            let redeemed = garage.server.redeem(text(&code_set), "renter-1", &phone);
            redeemed.status == 201
        };
        if round % 3 != 2 {
            assert_eq!(awake, stands == AWAKE, "{target}");
        }
        suspend(&garage, &target);
        let (resumed, ended) = at_once(
            || garage.send("POST", "/v1/resumptions", &target),
            || garage.send("POST", "/v1/revocations", &target),
        );
        assert_eq!(ended.status, 200, "{}", ended.text());
        if resumed.status != 200 {
            assert!([410, 412].contains(&resumed.status), "{}", resumed.text());
        }
        for key in keys(&bundle) {
            assert_eq!(garage.status(&key), Status::Revoked, "{target}");
        }
        resume(&garage, &json!({"identity": "renter-1"}));
        resume(&garage, &json!({"vehicle": "DEMO-0001"}));
    }
}
