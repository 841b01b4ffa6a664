//! Ends and suspensions, the status lists that say so, and what cars are told.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::time::Duration;

use fob_verify::status::{self, Status};
use fob_verify::{RustCrypto, sync};
use serde_json::{Value, json};

use crate::support::garage::{Garage, ids, keys, parts, statuses};
use crate::support::{Phone, authorization, now};

const TWO: [&str; 2] = ["doors.unlock", "engine.start"];

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[test]
fn before_redemption_each_action_has_its_effect_in_each_state() {
    let garage = Garage::new();
    let phone = Phone::new();
    let act = |id: &str, action: &str| match action {
        "cancel" => garage.send("DELETE", &format!("/v1/authorizations/{id}"), &json!({})),
        action => garage.send(
            "POST",
            &format!("/v1/authorizations/{id}/{action}"),
            &json!({}),
        ),
    };
    // What was done before, what is done then, the answer, and what a redemption is told.
    type Case<'a> = (
        &'a [&'a str],
        &'a str,
        Result<&'a str, (u16, &'a str)>,
        Option<(u16, &'a str)>,
    );
    let suspended = Some((403, "authorization_suspended"));
    let cancelled = Some((410, "code_set_cancelled"));
    let gone = Err((410, "code_set_cancelled"));
    let table: [Case<'_>; 9] = [
        (&[], "suspend", Ok("suspended"), suspended),
        (&[], "resume", Ok("open"), None),
        (&[], "cancel", Ok("cancelled"), cancelled),
        (&["suspend"], "suspend", Ok("suspended"), suspended),
        (&["suspend"], "resume", Ok("open"), None),
        (&["suspend"], "cancel", Ok("cancelled"), cancelled),
        (&["cancel"], "suspend", gone, cancelled),
        (&["cancel"], "resume", gone, cancelled),
        (&["cancel"], "cancel", Ok("cancelled"), cancelled),
    ];
    for (before, action, answer, redeemed) in table {
        let made = garage.authorize("DEMO-0001", &TWO);
        let id = text(&made["authorization"]);
        for action in before {
            assert_eq!(act(id, action).status, 200);
        }
        let told = act(id, action);
        match answer {
            Ok(state) => {
                assert_eq!(told.status, 200, "{}", told.text());
                assert_eq!(told.value()["state"], state, "{before:?} {action}");
                assert_eq!(told.value()["certain_by"], json!({"when": "now"}));
            }
            Err((status, code)) => told.refused(status, code),
        }
        let redemption = garage
            .server
            .redeem(text(&made["code_set"]), "renter-1", &phone);
        match redeemed {
            Some((status, code)) => redemption.refused(status, code),
            None => assert_eq!(redemption.status, 201, "{}", redemption.text()),
        }
    }
}

#[test]
fn after_redemption_keys_follow_their_authorization_and_the_list_says_so() {
    let garage = Garage::new();
    let phone = Phone::new();
    let (made, bundle) = garage.issue("DEMO-0001", &TWO, "renter-1", &phone);
    let id = text(&made["authorization"]);
    let handed = keys(&bundle);
    let all = |expected: Status, word: &str, state: &str| {
        for key in &handed {
            assert_eq!(garage.status(key), expected, "{}", key.function);
        }
        let read = garage.bundle(text(&bundle["bundle"]));
        assert!(
            statuses(&read).values().all(|status| status == word),
            "{read}"
        );
        assert_eq!(garage.read(id)["state"], state);
    };
    all(Status::Valid, "valid", "redeemed");
    let path = format!("/v1/authorizations/{id}");
    let suspended = garage.done("POST", &format!("{path}/suspend"), &json!({}));
    assert_eq!(suspended["certain_by"]["when"], "next_contact");
    all(Status::Suspended, "suspended", "suspended");
    // Of one key alone, for good.
    let revoked = garage.done("POST", "/v1/revocations", &json!({"key": handed[1].id}));
    assert_eq!(
        (&revoked["status"], &revoked["revoked"]),
        (&json!("revoked"), &json!(1))
    );
    garage.done("POST", &format!("{path}/resume"), &json!({}));
    assert_eq!(garage.status(&handed[0]), Status::Valid);
    assert_eq!(garage.status(&handed[1]), Status::Revoked);
    assert_eq!(
        garage.read(id)["functions"],
        json!([{"code": 1, "name": "doors.unlock"}])
    );
    let ended = garage.done("DELETE", &path, &json!({}));
    assert_eq!(ids(&ended, "revoked"), [handed[0].id.as_str()]);
    assert_eq!(ended["state"], "terminating");
    all(Status::Revoked, "revoked", "terminating");
    // The same redemption again still brings the bundle, as it stands.
    let again = garage
        .server
        .redeem(text(&made["code_set"]), "renter-1", &phone);
    assert_eq!(again.status, 201, "{}", again.text());
    assert!(
        statuses(&again.value())
            .values()
            .all(|status| status == "revoked")
    );
    assert_eq!(
        garage
            .server
            .redeem(text(&made["code_set"]), "renter-2", &Phone::new())
            .refusal(),
        "code_set_redeemed"
    );
    assert_eq!(
        ids(&garage.done("DELETE", &path, &json!({})), "revoked"),
        [""; 0]
    );
}

#[test]
fn whatever_is_named_is_revoked_and_nothing_else() {
    let garage = Garage::new();
    let (phone, other) = (Phone::new(), Phone::new());
    let issue = |vehicle, identity| garage.issue(vehicle, &TWO, identity, &phone);
    let one = issue("DEMO-0001", "renter-1");
    let two = issue("DEMO-0001", "renter-1");
    let three = issue("DEMO-0002", "renter-1");
    let four = issue("DEMO-0001", "renter-2");
    let five = issue("DEMO-0003", "renter-3");
    let mut meant = authorization("DEMO-0003", &TWO);
    meant["recipient"] = json!({"identity": "renter-1"});
    let meant = garage.done("POST", "/v1/authorizations", &meant);
    let order = json!({"ref": "a", "vehicle": "DEMO-0003", "functions": TWO,
        "not_before": authorization("", &[])["not_before"], "not_after": authorization("", &[])["not_after"],
        "recipient": {"identity": "renter-1", "terminal": "phone-1"}});
    let body = json!({"identity": "renter-1", "jwk": other.jwk()});
    assert_eq!(
        garage
            .server
            .json_as(&garage.admin, "PUT", "/v1/terminals/phone-1", &body)
            .status,
        204
    );
    let bearer = format!("Bearer {}", garage.token);
    let headers = [
        ("content-type", "application/x-ndjson"),
        ("authorization", bearer.as_str()),
    ];
    let answer = garage.server.send(
        "POST",
        "/v1/batches",
        &headers,
        format!("{order}\n").as_bytes(),
    );
    let ordered = answer.value()["bundle"].clone();
    let live = |bundle: &Value| {
        let standing: Vec<_> = keys(bundle).iter().map(|key| garage.status(key)).collect();
        assert!(standing.iter().all(|one| *one == standing[0]));
        standing[0] == Status::Valid
    };
    let all = || [&one.1, &two.1, &three.1, &four.1, &five.1, &ordered].map(live);
    let revoke = |target: Value| garage.done("POST", "/v1/revocations", &target);
    assert_eq!(all(), [true; 6]);
    revoke(json!({"bundle": one.1["bundle"]}));
    assert_eq!(all(), [false, true, true, true, true, true]);
    let answer = revoke(json!({"identity": "renter-1"}));
    assert_eq!((&answer["total"], &answer["done"]), (&json!(5), &json!(5)));
    assert_eq!(all(), [false, false, false, true, true, false]);
    let redeemed = garage
        .server
        .redeem(text(&meant["code_set"]), "renter-1", &other);
    redeemed.refused(410, "code_set_cancelled");
    let open = garage.authorize("DEMO-0001", &TWO);
    garage
        .server
        .redeem(text(&open["code_set"]), "renter-1", &other)
        .refused(403, "identity_suspended");
    revoke(json!({"vehicle": "DEMO-0001"}));
    assert_eq!(all(), [false, false, false, false, true, false]);
    garage
        .server
        .redeem(text(&open["code_set"]), "renter-2", &phone)
        .refused(410, "code_set_cancelled");
    revoke(json!({"authorization": five.0["authorization"]}));
    assert_eq!(all(), [false; 6]);
    listed_once(&garage, &ordered);
}

/// An order's authorization is found and listed like any other, once.
fn listed_once(garage: &Garage, ordered: &Value) {
    let listed = garage.done("GET", "/v1/authorizations?vehicle=DEMO-0003", &json!({}));
    let states: Vec<_> = listed["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| text(&it["state"]))
        .collect();
    assert_eq!(states.len(), 3, "{listed}");
    assert_eq!(
        garage.read(text(&ordered["authorization"]))["state"],
        "terminating"
    );
}

#[test]
fn who_may_revoke_what() {
    let garage = Garage::new();
    let phone = Phone::new();
    let (made, bundle) = garage.issue("DEMO-0001", &TWO, "renter-1", &phone);
    let (others, _) = garage.issue("DEMO-0050", &TWO, "renter-1", &phone);
    let send = |method: &str, path: &str, jws: &str| {
        let headers = [("content-type", "application/jose")];
        garage.server.send(method, path, &headers, jws.as_bytes())
    };
    let by_owner = |method: &str, path: &str, command: &Value| {
        let jws = garage
            .owner
            .command_to(&garage.server.url, method, path, command);
        (send(method, path, &jws), jws)
    };
    let path = |made: &Value| format!("/v1/authorizations/{}", text(&made["authorization"]));
    by_owner("DELETE", &path(&others), &json!({}))
        .0
        .refused(403, "forbidden");
    by_owner("POST", "/v1/revocations", &json!({"identity": "renter-1"}))
        .0
        .refused(403, "forbidden");
    by_owner("POST", "/v1/revocations", &json!({"vehicle": "DEMO-0050"}))
        .0
        .refused(403, "forbidden");
    let (answer, jws) = by_owner("DELETE", &path(&made), &json!({}));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.value()["revoked"].as_array().unwrap().len(), 2);
    // The same signed command again, the same answer; for another call it is none.
    assert_eq!(send("DELETE", &path(&made), &jws).body, answer.body);
    send("DELETE", &path(&others), &jws).refused(401, "unauthenticated");
    for (target, code) in [
        (json!({"key": bundle["bundle"]}), "not_found"),
        (json!({"key": "x"}), "not_found"),
        (json!({"vehicle": "NONE"}), "not_found"),
        (json!({"identity": "nobody"}), "not_found"),
        (json!({}), "malformed"),
        (json!({"vehicle": "DEMO-0001", "key": "x"}), "malformed"),
    ] {
        assert_eq!(
            garage.send("POST", "/v1/revocations", &target).refusal(),
            code,
            "{target}"
        );
    }
    let reader = garage.issuer.token("read");
    let asked = garage
        .server
        .json_as(&reader, "DELETE", &path(&others), &json!({}));
    asked.refused(403, "forbidden");
    let elsewhere = {
        garage.issuer.fob(&["fleet", "create", "other"]);
        garage
            .issuer
            .fob(&["token", "create", "--fleet", "other", "--scopes", "revoke"])
    };
    let asked = garage
        .server
        .json_as(&elsewhere, "DELETE", &path(&others), &json!({}));
    asked.refused(404, "not_found");
    let bundle = json!({"bundle": bundle["bundle"]});
    garage
        .server
        .json_as(&elsewhere, "POST", "/v1/revocations", &bundle)
        .refused(404, "not_found");
}

#[test]
fn many_are_revoked_line_by_line() {
    let garage = Garage::new();
    let phone = Phone::new();
    let bundles: Vec<_> = (0..5)
        .map(|_| garage.issue("DEMO-0001", &TWO, "renter-1", &phone).1)
        .collect();
    let mut lines: String = bundles
        .iter()
        .map(|it| format!("{}\n", json!({"bundle": it["bundle"]})))
        .collect();
    lines.push_str("{\"bundle\":\"none\"}\n\nnot json\n");
    let bearer = format!("Bearer {}", garage.token);
    let headers = [
        ("content-type", "application/x-ndjson"),
        ("authorization", bearer.as_str()),
    ];
    let answer = garage
        .server
        .send("POST", "/v1/revocations", &headers, lines.as_bytes());
    assert_eq!(answer.status, 200);
    let text = String::from_utf8(answer.body).unwrap();
    let mut told: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    told.sort_by_key(|line| line["line"].as_u64());
    let words: Vec<_> = told
        .iter()
        .map(|line| {
            (
                line["line"].as_u64().unwrap(),
                line["status"].as_str().unwrap(),
            )
        })
        .collect();
    let expected = [
        (1, "revoked"),
        (2, "revoked"),
        (3, "revoked"),
        (4, "revoked"),
        (5, "revoked"),
        (6, "not_found"),
        (8, "malformed"),
    ];
    assert_eq!(words, expected, "{text}");
    for key in bundles.iter().flat_map(keys) {
        assert_eq!(garage.status(&key), Status::Revoked);
    }
    // One target with progress.
    garage.issue("DEMO-0002", &TWO, "renter-1", &phone);
    let headers = [
        ("content-type", "application/json"),
        ("accept", "application/x-ndjson"),
        ("authorization", bearer.as_str()),
    ];
    let answer = garage.server.send(
        "POST",
        "/v1/revocations",
        &headers,
        br#"{"vehicle":"DEMO-0002"}"#,
    );
    let text = String::from_utf8(answer.body).unwrap();
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(
        (&last["status"], &last["revoked"]),
        (&json!("revoked"), &json!(2))
    );
}

#[test]
fn lists_are_cacheable_and_always_later() {
    let garage = Garage::new();
    let phone = Phone::new();
    let (_, bundle) = garage.issue("DEMO-0001", &TWO, "renter-1", &phone);
    let handed = keys(&bundle);
    let path = handed[0].uri.strip_prefix(&garage.server.url).unwrap();
    let first = garage.server.get(path, &[]);
    assert_eq!(
        first.header("content-type"),
        Some("application/statuslist+cwt")
    );
    assert!(first.header("cache-control").unwrap().contains("max-age"));
    let tag = first.header("etag").unwrap();
    assert_eq!(
        garage.server.get(path, &[]).body,
        first.body,
        "nothing has changed"
    );
    assert_eq!(
        garage.server.get(path, &[("if-none-match", tag)]).status,
        304
    );
    let issued_at = |list: &[u8]| {
        garage.believing(|trusted| {
            let list = status::verify(list, trusted, &RustCrypto).unwrap();
            assert_eq!(list.ttl_s(), 3600);
            list.issued_at()
        })
    };
    let mut last = issued_at(&first.body);
    for key in &handed {
        garage.done("POST", "/v1/revocations", &json!({"key": key.id}));
        let list = garage.server.get(path, &[("if-none-match", tag)]);
        assert_eq!(list.status, 200);
        assert_eq!(garage.status_on(&list.body, key), Status::Revoked);
        assert!(issued_at(&list.body) > last);
        last = issued_at(&list.body);
    }
    for other in ["00000000-0", "x", "%2e%2e", ""] {
        assert_eq!(
            garage
                .server
                .get(&format!("/v1/status/{other}"), &[])
                .status,
            404,
            "{other}"
        );
    }
    let beyond = path.replace("-0", "-1");
    assert_eq!(garage.server.get(&beyond, &[]).status, 404);
}

#[test]
fn what_was_revoked_survives_a_crash_and_so_does_the_time_of_the_list() {
    let mut garage = Garage::new();
    let phone = Phone::new();
    let (made, bundle) = garage.issue("DEMO-0001", &TWO, "renter-1", &phone);
    let (kept, second) = garage.issue("DEMO-0001", &TWO, "renter-2", &phone);
    let handed = keys(&bundle);
    let path = handed[0]
        .uri
        .strip_prefix(&garage.server.url)
        .unwrap()
        .to_owned();
    garage.done(
        "DELETE",
        &format!("/v1/authorizations/{}", text(&made["authorization"])),
        &json!({}),
    );
    garage.done(
        "POST",
        &format!(
            "/v1/authorizations/{}/suspend",
            text(&kept["authorization"])
        ),
        &json!({}),
    );
    let before = garage.server.get(&path, &[]).body;
    garage.crash();
    for key in &handed {
        assert_eq!(garage.status(key), Status::Revoked);
    }
    assert!(
        keys(&second)
            .iter()
            .all(|key| garage.status(key) == Status::Suspended)
    );
    let after = garage.server.get(&path, &[]).body;
    let issued_at = |list: &[u8]| {
        garage.believing(|trusted| {
            status::verify(list, trusted, &RustCrypto)
                .unwrap()
                .issued_at()
        })
    };
    assert!(issued_at(&after) > issued_at(&before));
    assert_eq!(
        garage.read(text(&made["authorization"]))["state"],
        "terminating"
    );
    garage.done(
        "POST",
        &format!("/v1/authorizations/{}/resume", text(&kept["authorization"])),
        &json!({}),
    );
    assert!(
        keys(&second)
            .iter()
            .all(|key| garage.status(key) == Status::Valid)
    );
}

#[test]
fn a_car_is_told_and_what_it_acknowledges_is_certain() {
    let garage = Garage::new();
    let (phone, car) = (Phone::new(), Phone::new());
    let vehicle = json!({"model": "demo", "owner": "owner-1", "jwk": car.jwk()});
    assert_eq!(
        garage
            .server
            .json_as(&garage.admin, "PUT", "/v1/vehicles/DEMO-0001", &vehicle)
            .status,
        204
    );
    let (made, bundle) = garage.issue("DEMO-0001", &TWO, "renter-1", &phone);
    let id = text(&made["authorization"]);
    let told = garage.sync(&car, "DEMO-0001", now(), None);
    assert_eq!(told.status, 200, "{}", told.text());
    let items = parts(&told.body);
    assert_eq!(items.len(), 3, "sync, trust list, one status list");
    assert_eq!(items[1], garage.server.get("/v1/trust", &[]).body);
    let digest = garage.believing(|trusted| {
        let sync = sync::verify(&items[0], trusted, &RustCrypto).unwrap();
        assert_eq!(
            (sync.vehicle, sync.vehicle_epoch, sync.trust_version),
            ("DEMO-0001", 0, trusted.version())
        );
        assert_eq!(
            sync.status_uris.iter().collect::<Vec<_>>(),
            [keys(&bundle)[0].uri.as_str()]
        );
        sync.digest
    });
    // An ack twice, one of another key, one of another vehicle, one from the future.
    garage
        .sync(&car, "DEMO-0001", now() - 1, None)
        .refused(409, "command_replayed");
    garage
        .sync(&phone, "DEMO-0001", now() + 1, None)
        .refused(401, "unauthenticated");
    garage
        .sync(&car, "DEMO-0002", now() + 1, None)
        .refused(401, "unauthenticated");
    garage
        .sync(&car, "DEMO-0001", now() + 1000, None)
        .refused(401, "unauthenticated");
    garage.done("DELETE", &format!("/v1/authorizations/{id}"), &json!({}));
    assert_eq!(garage.read(id)["state"], "terminating");
    // It acknowledges what it was sent before the end: that says nothing of the end.
    let told = garage.sync(&car, "DEMO-0001", now() + 2, Some(digest));
    assert_eq!(garage.read(id)["state"], "terminating");
    let items = parts(&told.body);
    for key in keys(&bundle) {
        assert_eq!(garage.status_on(&items[2], &key), Status::Revoked);
    }
    // Of something it was never sent, it knows nothing.
    let told = garage.sync(&car, "DEMO-0001", now() + 3, Some([7; 32]));
    assert_eq!(garage.read(id)["state"], "terminating");
    let last = sync::digest(&parts(&told.body)[0]);
    garage.sync(&car, "DEMO-0001", now() + 4, Some(last));
    assert_eq!(garage.read(id)["state"], "terminated");
    // With an ack on record the lists' lifetime bounds what an offline car may believe.
    let (_, bundle) = garage.issue("DEMO-0001", &TWO, "renter-2", &phone);
    let answer = garage.done(
        "POST",
        "/v1/revocations",
        &json!({"bundle": bundle["bundle"]}),
    );
    assert_eq!(answer["certain_by"]["when"], "next_contact");
    // For diagnosis the same may be read, and nothing is noted.
    let bearer = format!("Bearer {}", garage.token);
    let shown = garage
        .server
        .get("/v1/vehicles/DEMO-0001/sync", &[("authorization", &bearer)]);
    assert_eq!(parts(&shown.body).len(), 3);
    assert_eq!(
        garage.server.get("/v1/vehicles/DEMO-0001/sync", &[]).status,
        401
    );
}

#[test]
fn a_bundle_brings_lists_along_where_asked() {
    let garage = Garage::new();
    let phone = Phone::new();
    let (_, bundle) = garage.issue("DEMO-0001", &TWO, "renter-1", &phone);
    let path = format!("/v1/bundles/{}", text(&bundle["bundle"]));
    let bearer = format!("Bearer {}", garage.token);
    let auth = ("authorization", bearer.as_str());
    let plain = garage.server.get(&path, &[auth]);
    assert_eq!(
        plain.value(),
        bundle,
        "as it was issued, octet by octet but for what is asked"
    );
    assert!(plain.value().get("trust").is_none());
    garage.done(
        "POST",
        "/v1/revocations",
        &json!({"key": keys(&bundle)[0].id}),
    );
    let stapled = garage
        .server
        .get(&format!("{path}?staple=true"), &[auth])
        .value();
    let decode = |value: &Value| {
        use base64::Engine as _;
        base64::prelude::BASE64_URL_SAFE_NO_PAD
            .decode(text(value))
            .unwrap()
    };
    assert_eq!(
        decode(&stapled["trust"]),
        garage.server.get("/v1/trust", &[]).body
    );
    let lists = stapled["status_lists"].as_array().unwrap();
    assert_eq!(lists.len(), 1);
    assert_eq!(
        garage.status_on(&decode(&lists[0]), &keys(&bundle)[0]),
        Status::Revoked
    );
    let cbor = garage.server.get(
        &format!("{path}?staple=true"),
        &[auth, ("accept", "application/cbor")],
    );
    let mut decoder = minicbor::Decoder::new(&cbor.body);
    let count = decoder.map().unwrap().unwrap();
    let mut names = Vec::new();
    for _ in 0..count {
        names.push(decoder.str().unwrap().to_owned());
        decoder.skip().unwrap();
    }
    assert_eq!(
        names,
        [
            "keys",
            "trust",
            "bundle",
            "vehicle",
            "version",
            "status_lists",
            "authorization"
        ]
    );
    assert_eq!(decoder.position(), cbor.body.len());
    assert_eq!(
        garage
            .server
            .get(&format!("{path}?staple=perhaps"), &[auth])
            .refusal(),
        "malformed"
    );
}

#[test]
fn a_crash_at_any_moment_of_a_revocation_leaves_all_of_it_or_nothing() {
    let mut garage = Garage::new();
    let phone = Phone::new();
    for after_ms in [0, 1, 2, 3, 5, 8, 13, 40] {
        let (made, bundle) = garage.issue("DEMO-0001", &TWO, "renter-1", &phone);
        let id = text(&made["authorization"]).to_owned();
        let (client, bearer) = (garage.server.client(), format!("Bearer {}", garage.token));
        let path = format!("/v1/authorizations/{id}");
        let asked = std::thread::spawn(move || {
            let headers = [("authorization", bearer.as_str())];
            client.json("DELETE", &path, &headers, &json!({}))
        });
        std::thread::sleep(Duration::from_millis(after_ms));
        garage.crash();
        let answered = asked
            .join()
            .unwrap()
            .is_some_and(|answer| answer.status == 200);
        let standing: Vec<_> = keys(&bundle).iter().map(|key| garage.status(key)).collect();
        let state = garage.read(&id)["state"].clone();
        if answered || state != "redeemed" {
            assert_eq!(
                standing,
                [Status::Revoked; 2],
                "after {after_ms} ms: {state}"
            );
            assert_eq!(state, "terminating");
        } else {
            assert_eq!(standing, [Status::Valid; 2], "after {after_ms} ms");
        }
    }
}
