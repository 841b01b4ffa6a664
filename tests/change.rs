//! Changes of what was authorized and issued: before and after redemption, resets, phones that are
//! replaced, and whatever happens at the same time.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::collections::BTreeMap;
use std::sync::Barrier;
use std::thread;

use fob_verify::status::Status;
use serde_json::{Value, json};

use crate::support::garage::{Garage, Handed, ids, keys, statuses};
use crate::support::{Answer, Phone, authorization, now, redemption, time};

const TWO: [&str; 2] = ["doors.unlock", "engine.start"];

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// What a bundle's keys are by their functions.
fn by_function(bundle: &Value) -> BTreeMap<String, Handed> {
    keys(bundle)
        .into_iter()
        .map(|key| (key.function.clone(), key))
        .collect()
}

#[test]
fn before_redemption_a_change_replaces_the_code_set() {
    let garage = Garage::new();
    let phone = Phone::new();
    let made = garage.authorize("DEMO-0001", &TWO);
    let id = text(&made["authorization"]);
    let changed = garage.change(id, 1, &json!({"functions": ["doors.unlock", "trunk.open"]}));
    assert_eq!(changed.status, 200, "{}", changed.text());
    assert_eq!(changed.header("etag"), Some("\"2\""));
    let changed = changed.value();
    assert_eq!(
        (&changed["version"], &changed["state"]),
        (&json!(2), &json!("open"))
    );
    assert_eq!(changed["certain_by"], json!({"when": "now"}));
    assert_eq!(
        (ids(&changed, "revoked"), ids(&changed, "issued")),
        (vec![], vec![])
    );
    let old = garage
        .server
        .redeem(text(&made["code_set"]), "renter-1", &phone);
    old.refused(404, "code_set_unknown");
    let bundle = garage
        .server
        .redeem(text(&changed["code_set"]), "renter-1", &phone);
    assert_eq!(bundle.status, 201, "{}", bundle.text());
    let functions: Vec<_> = by_function(&bundle.value()).into_keys().collect();
    assert_eq!(functions, ["doors.unlock", "trunk.open"]);
    assert_eq!(bundle.value()["version"], 2);
}

#[test]
fn after_redemption_dropped_and_narrowed_keys_go_and_the_others_come_again() {
    let garage = Garage::new();
    let phone = Phone::new();
    let mut asked = authorization("DEMO-0001", &["doors.unlock", "engine.start", "trunk.open"]);
    asked["max_uses"] = json!({"trunk.open": 5});
    let made = garage.done("POST", "/v1/authorizations", &asked);
    let (id, code_set) = (text(&made["authorization"]), text(&made["code_set"]));
    let first = garage.server.redeem(code_set, "renter-1", &phone).value();
    let old = by_function(&first);
    let patch = json!({
        "functions": ["doors.unlock", "trunk.open", "windows.control"],
        "max_uses": {"trunk.open": 2},
    });
    let changed = garage.change(id, 1, &patch);
    assert_eq!(changed.status, 200, "{}", changed.text());
    let changed = changed.value();
    assert_eq!(
        (&changed["version"], &changed["state"]),
        (&json!(2), &json!("redeemed"))
    );
    let mut gone = vec![old["engine.start"].id.clone(), old["trunk.open"].id.clone()];
    gone.sort_unstable();
    assert_eq!(ids(&changed, "revoked"), gone);
    assert_eq!(changed["certain_by"]["when"], "next_contact");
    assert_eq!(changed["certain_by"]["latest"], made["not_after"]);
    assert!(
        changed.get("code_set").is_none(),
        "there is nothing to redeem"
    );
    assert_eq!(
        garage.status(&old["doors.unlock"]),
        Status::Valid,
        "untouched"
    );
    assert_eq!(garage.status(&old["engine.start"]), Status::Revoked);
    assert_eq!(garage.status(&old["trunk.open"]), Status::Revoked);
    // The bundle as it now stands, by each way to it.
    let now_is = garage.bundle(text(&first["bundle"]));
    assert_eq!(now_is["bundle"], first["bundle"]);
    assert_eq!(now_is["version"], 2);
    let new = by_function(&now_is);
    assert_eq!(
        new.keys().collect::<Vec<_>>(),
        ["doors.unlock", "trunk.open", "windows.control"]
    );
    let mut issued: Vec<_> = new.values().map(|key| key.id.clone()).collect();
    issued.sort_unstable();
    assert_eq!(ids(&changed, "issued"), issued);
    for key in new.values() {
        assert_eq!((garage.status(key), key.version), (Status::Valid, 2));
    }
    let again = garage.server.redeem(code_set, "renter-1", &phone);
    assert_eq!((again.status, again.value()), (201, now_is.clone()));
    let proof = phone.proof(&garage.server.url, text(&first["bundle"]));
    let path = format!("/v1/bundles/{}", text(&first["bundle"]));
    let read = garage.server.get(&path, &[("fob-proof", &proof)]);
    assert_eq!(read.value(), now_is);
    garage
        .server
        .redeem(code_set, "renter-2", &Phone::new())
        .refused(409, "code_set_redeemed");
}

#[test]
fn what_is_narrowed_goes_in_every_version() {
    let garage = Garage::new();
    let (made, first) = garage.issue("DEMO-0001", &TWO, "renter-1", &Phone::new());
    let id = text(&made["authorization"]);
    assert_eq!(garage.change(id, 1, &json!({})).status, 200);
    let (old, new) = (
        by_function(&first),
        by_function(&garage.bundle(text(&first["bundle"]))),
    );
    assert_eq!(new["doors.unlock"].version, 2);
    assert!(old.values().all(|key| garage.status(key) == Status::Valid));
    let patch = json!({"not_after": time(now() + 600)});
    let changed = garage.change(id, 2, &patch).value();
    assert_eq!(ids(&changed, "revoked").len(), 4, "of both versions");
    for key in old.values().chain(new.values()) {
        assert_eq!(garage.status(key), Status::Revoked, "{key:?}");
    }
    // Wider again: the newest are enough and stay.
    let newest = by_function(&garage.bundle(text(&first["bundle"])));
    let changed = garage
        .change(id, 3, &json!({"not_after": time(now() + 9000)}))
        .value();
    assert_eq!(ids(&changed, "revoked"), [""; 0]);
    assert_eq!(changed["certain_by"], json!({"when": "now"}));
    assert!(
        newest
            .values()
            .all(|key| garage.status(key) == Status::Valid)
    );
    // Its end reaches every version.
    let ended = garage.done("DELETE", &format!("/v1/authorizations/{id}"), &json!({}));
    assert_eq!(ids(&ended, "revoked").len(), 4);
}

#[test]
fn a_change_names_the_version_it_is_for() {
    let garage = Garage::new();
    let made = garage.authorize("DEMO-0001", &TWO);
    let id = text(&made["authorization"]);
    let path = format!("/v1/authorizations/{id}");
    let patch = json!({"functions": ["doors.unlock"]});
    garage
        .send("PATCH", &path, &patch)
        .refused(428, "malformed");
    garage
        .change(id, 2, &patch)
        .refused(412, "version_conflict");
    assert_eq!(garage.change(id, 1, &patch).status, 200);
    garage
        .change(id, 1, &patch)
        .refused(412, "version_conflict");
    for (patch, status, code) in [
        (json!({"functions": []}), 400, "malformed"),
        (json!({"functions": ["no.such"]}), 404, "unknown_function"),
        (json!({"vehicle": "DEMO-0002"}), 400, "malformed"),
        (json!({"not_after": time(1)}), 400, "malformed"),
        (json!({"region": {"circle": {"lat": 1}}}), 400, "malformed"),
    ] {
        garage.change(id, 2, &patch).refused(status, code);
    }
    assert_eq!(
        garage.read(id)["version"],
        2,
        "what is refused changes nothing"
    );
    garage.done("DELETE", &path, &json!({}));
    garage
        .change(id, 2, &patch)
        .refused(410, "code_set_cancelled");
    let unknown = "00000000-0000-7000-8000-000000000000";
    garage.change(unknown, 1, &patch).refused(404, "not_found");
}

#[test]
fn an_owner_changes_by_signed_command() {
    let garage = Garage::new();
    let phone = Phone::new();
    let made = garage.authorize("DEMO-0001", &TWO);
    let first = garage
        .server
        .redeem(text(&made["code_set"]), "renter-1", &phone)
        .value();
    let path = format!("/v1/authorizations/{}", text(&made["authorization"]));
    let send = |path: &str, jws: &str| {
        let headers = [("content-type", "application/jose")];
        garage.server.send("PATCH", path, &headers, jws.as_bytes())
    };
    let sign = |path: &str, command: Value| {
        garage
            .owner
            .command_to(&garage.server.url, "PATCH", path, &command)
    };
    let without = sign(&path, json!({"functions": ["doors.unlock"]}));
    send(&path, &without).refused(428, "malformed");
    let wrong = sign(&path, json!({"version": 7, "functions": ["doors.unlock"]}));
    send(&path, &wrong).refused(412, "version_conflict");
    let jws = sign(&path, json!({"version": 1, "functions": ["doors.unlock"]}));
    let changed = send(&path, &jws);
    assert_eq!(changed.status, 200, "{}", changed.text());
    assert_eq!(
        send(&path, &jws).body,
        changed.body,
        "the same command, the same answer"
    );
    assert_eq!(garage.bundle(text(&first["bundle"]))["version"], 2);
    // Not somebody else's vehicle.
    let others = garage.authorize("DEMO-0050", &TWO);
    let path = format!("/v1/authorizations/{}", text(&others["authorization"]));
    send(&path, &sign(&path, json!({"version": 1}))).refused(403, "forbidden");
}

#[test]
fn what_is_suspended_stays_so_in_its_new_keys() {
    let garage = Garage::new();
    let (made, first) = garage.issue("DEMO-0001", &TWO, "renter-1", &Phone::new());
    let id = text(&made["authorization"]);
    let path = format!("/v1/authorizations/{id}");
    garage.done("POST", &format!("{path}/suspend"), &json!({}));
    let changed = garage.change(id, 1, &json!({"functions": ["doors.unlock"]}));
    assert_eq!(changed.value()["state"], "suspended");
    let bundle = garage.bundle(text(&first["bundle"]));
    assert_eq!(
        statuses(&bundle),
        [("doors.unlock".into(), "suspended".into())].into()
    );
    garage.done("POST", &format!("{path}/resume"), &json!({}));
    assert_eq!(garage.status(&keys(&bundle)[0]), Status::Valid);
    let old = by_function(&first);
    assert_eq!(garage.status(&old["doors.unlock"]), Status::Valid);
    assert_eq!(
        garage.status(&old["engine.start"]),
        Status::Revoked,
        "dropped meanwhile"
    );
}

#[test]
fn an_order_is_changed_like_any_other_and_found_after_a_crash() {
    let mut garage = Garage::new();
    let phone = Phone::new();
    let body = json!({"identity": "renter-1", "jwk": phone.jwk()});
    let put = garage
        .server
        .json_as(&garage.admin, "PUT", "/v1/terminals/phone-1", &body);
    assert_eq!(put.status, 204);
    let mut order = authorization("DEMO-0001", &TWO);
    order["ref"] = json!("a");
    order["signing"] = json!("tree");
    order["recipient"] = json!({"identity": "renter-1", "terminal": "phone-1"});
    let bearer = format!("Bearer {}", garage.token);
    let headers = [
        ("content-type", "application/x-ndjson"),
        ("authorization", bearer.as_str()),
        ("idempotency-key", "k"),
    ];
    let send = |garage: &Garage| {
        let body = format!("{order}\n");
        garage
            .server
            .send("POST", "/v1/batches", &headers, body.as_bytes())
            .value()
    };
    let bundle = send(&garage)["bundle"].clone();
    let id = text(&bundle["bundle"]);
    assert_eq!(bundle["authorization"], bundle["bundle"]);
    let changed = garage.change(id, 1, &json!({"functions": ["doors.unlock"]}));
    assert_eq!(changed.status, 200, "{}", changed.text());
    let after = garage.bundle(id);
    assert_eq!(after["version"], 2);
    assert_eq!(send(&garage)["bundle"], after, "the same order again");
    let listed = garage.done("GET", "/v1/authorizations?vehicle=DEMO-0001", &json!({}));
    assert_eq!(listed["items"].as_array().unwrap().len(), 1, "{listed}");
    assert_eq!(listed["items"][0]["version"], 2);
    garage.crash();
    assert_eq!(
        garage.bundle(id),
        after,
        "byte for byte, whatever signed it"
    );
    assert_eq!(garage.read(id)["version"], 2);
    assert_eq!(garage.change(id, 2, &json!({"functions": TWO})).status, 200);
}

#[test]
fn a_reset_ends_what_it_names_and_issues_the_others_again() {
    let garage = Garage::new();
    let (phone, other) = (Phone::new(), Phone::new());
    let (ended, first) = garage.issue("DEMO-0001", &TWO, "renter-1", &phone);
    let (kept, second) = garage.issue("DEMO-0001", &TWO, "renter-2", &other);
    let open = garage.authorize("DEMO-0001", &TWO);
    let elsewhere = garage.issue("DEMO-0002", &TWO, "renter-1", &phone).1;
    let reset = |body: Value| garage.send("POST", "/v1/vehicles/DEMO-0001/reset", &body);
    let unknown = json!({"end": [elsewhere["authorization"]]});
    reset(unknown).refused(404, "not_found");
    reset(json!({"end": "none"})).refused(400, "malformed");
    let done = reset(json!({"end": [ended["authorization"]]}));
    assert_eq!(done.status, 200, "{}", done.text());
    let done = done.value();
    assert_eq!(
        (&done["epoch"], &done["vehicle"]),
        (&json!(1), &json!("DEMO-0001"))
    );
    assert_eq!(
        (ids(&done, "revoked").len(), ids(&done, "issued").len()),
        (2, 2)
    );
    assert!(
        keys(&first)
            .iter()
            .all(|key| garage.status(key) == Status::Revoked)
    );
    assert_eq!(
        garage.read(text(&ended["authorization"]))["state"],
        "terminating"
    );
    let after = garage.bundle(text(&second["bundle"]));
    assert_eq!(after["version"], 2);
    assert!(keys(&after).iter().all(|key| key.vehicle_epoch == 1));
    assert!(keys(&second).iter().all(|key| key.vehicle_epoch == 0));
    assert_eq!(
        garage.read(text(&kept["authorization"]))["state"],
        "redeemed"
    );
    let redeemed = garage
        .server
        .redeem(text(&open["code_set"]), "renter-3", &phone);
    assert!(
        keys(&redeemed.value())
            .iter()
            .all(|key| key.vehicle_epoch == 1)
    );
    let untouched = garage.bundle(text(&elsewhere["bundle"]));
    assert_eq!(untouched, elsewhere);
    // With a new owner everything ends.
    let done = reset(json!({"end": "all"})).value();
    assert_eq!((&done["epoch"], ids(&done, "issued").len()), (&json!(2), 0));
    assert!(
        keys(&after)
            .iter()
            .all(|key| garage.status(key) == Status::Revoked)
    );
    garage
        .send("POST", "/v1/vehicles/NONE/reset", &json!({}))
        .refused(404, "not_found");
}

#[test]
fn a_broken_phone_is_replaced() {
    let garage = Garage::new();
    let (phone, new) = (Phone::new(), Phone::new());
    let (made, first) = garage.issue("DEMO-0001", &TWO, "renter-1", &phone);
    let id = text(&first["bundle"]);
    let path = format!("/v1/bundles/{id}/rebind");
    garage
        .send("POST", &path, &json!({"terminal": "none"}))
        .refused(403, "terminal_mismatch");
    garage
        .send("POST", &path, &json!({}))
        .refused(400, "malformed");
    let proof = new.proof(&garage.server.url, id);
    let done = garage.done("POST", &path, &json!({"proof": proof}));
    assert_eq!(
        (ids(&done, "revoked").len(), ids(&done, "issued").len()),
        (2, 2)
    );
    assert!(
        keys(&first)
            .iter()
            .all(|key| garage.status(key) == Status::Revoked)
    );
    let read = |phone: &Phone| {
        let proof = phone.proof(&garage.server.url, id);
        garage
            .server
            .get(&format!("/v1/bundles/{id}"), &[("fob-proof", &proof)])
    };
    read(&phone).refused(404, "not_found");
    assert_eq!(read(&new).value()["version"], 2);
    let code_set = text(&made["code_set"]);
    garage
        .server
        .redeem(code_set, "renter-1", &phone)
        .refused(409, "code_set_redeemed");
    assert_eq!(
        garage.server.redeem(code_set, "renter-1", &new).value(),
        read(&new).value()
    );
    // A registered one, of the same identity alone.
    for (terminal, identity) in [("phone-1", "renter-1"), ("phone-2", "renter-2")] {
        let body = json!({"identity": identity, "jwk": Phone::new().jwk()});
        let put = format!("/v1/terminals/{terminal}");
        assert_eq!(
            garage
                .server
                .json_as(&garage.admin, "PUT", &put, &body)
                .status,
            204
        );
    }
    garage
        .send("POST", &path, &json!({"terminal": "phone-2"}))
        .refused(403, "terminal_mismatch");
    let stray = Phone::new().proof(&garage.server.url, id);
    garage
        .send("POST", &path, &json!({"proof": stray}))
        .refused(403, "terminal_mismatch");
    assert_eq!(
        garage.done("POST", &path, &json!({"terminal": "phone-1"}))["version"],
        3
    );
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

/// No key that is valid on its list, and of the newest epoch its vehicle has, grants what the
/// authorization does not.
fn nothing_is_left_over(garage: &Garage, id: &str, handed: &[Handed], epoch: u32) {
    let stands = garage.read(id);
    let functions: Vec<_> = stands["functions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| text(&it["name"]))
        .collect();
    let live = matches!(text(&stands["state"]), "redeemed" | "open");
    for key in handed {
        if garage.status(key) == Status::Valid && key.vehicle_epoch >= epoch {
            assert!(
                live && functions.contains(&key.function.as_str()),
                "{key:?} of {stands}"
            );
        }
    }
}

#[test]
fn of_two_changes_at_once_one_is_told_of_the_other() {
    let garage = Garage::new();
    let phone = Phone::new();
    for round in 0..12 {
        let (made, first) = garage.issue("DEMO-0001", &TWO, "renter-1", &phone);
        let id = text(&made["authorization"]);
        let (one, other) = at_once(
            || garage.change(id, 1, &json!({"functions": ["doors.unlock"]})),
            || garage.change(id, 1, &json!({"functions": ["engine.start"]})),
        );
        let mut told = [one.status, other.status];
        told.sort_unstable();
        assert_eq!(
            told,
            [200, 412],
            "round {round}: {} {}",
            one.text(),
            other.text()
        );
        let bundle = garage.bundle(text(&first["bundle"]));
        assert_eq!((&bundle["version"], keys(&bundle).len()), (&json!(2), 1));
        let all = [keys(&first), keys(&bundle)].concat();
        nothing_is_left_over(&garage, id, &all, 0);
    }
}

#[test]
fn a_change_against_a_redemption() {
    let garage = Garage::new();
    let phone = Phone::new();
    let mut changed_after = 0;
    for round in 0..24 {
        let made = garage.authorize("DEMO-0001", &TWO);
        let (id, code_set) = (text(&made["authorization"]), text(&made["code_set"]));
        let body = redemption(&garage.server.url, code_set, "renter-1", &phone);
        let (changed, redeemed) = at_once(
            || garage.change(id, 1, &json!({"functions": ["doors.unlock"]})),
            || garage.server.json("POST", "/v1/redemptions", &body),
        );
        assert_eq!(changed.status, 200, "round {round}: {}", changed.text());
        let handed = match redeemed.status {
            // The keys went out first, or as the change left them.
            201 => {
                changed_after += 1;
                keys(&redeemed.value())
            }
            _ => {
                redeemed.refused(404, "code_set_unknown");
                Vec::new()
            }
        };
        nothing_is_left_over(&garage, id, &handed, 0);
        let stands = garage.read(id);
        assert_eq!(stands["version"], 2);
        assert_eq!(stands["state"] == "redeemed", !handed.is_empty());
    }
    println!("{changed_after} of 24 redeemed before the change");
}

#[test]
fn an_end_against_a_change() {
    let garage = Garage::new();
    let phone = Phone::new();
    for _ in 0..16 {
        let (made, first) = garage.issue("DEMO-0001", &TWO, "renter-1", &phone);
        let id = text(&made["authorization"]);
        let (ended, changed) = at_once(
            || garage.send("DELETE", &format!("/v1/authorizations/{id}"), &json!({})),
            || garage.change(id, 1, &json!({"not_after": time(now() + 5000)})),
        );
        assert_eq!(ended.status, 200, "{}", ended.text());
        if changed.status != 200 {
            changed.refused(410, "code_set_cancelled");
        }
        let all = [keys(&first), keys(&garage.bundle(text(&first["bundle"])))].concat();
        for key in &all {
            assert_eq!(garage.status(key), Status::Revoked, "{key:?}");
        }
    }
}

#[test]
fn a_reset_against_a_batch_in_flight() {
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
    for round in 1..=6 {
        let mut order = authorization("DEMO-0001", &TWO);
        order["recipient"] = json!({"identity": "renter-1", "terminal": "phone-1"});
        let line = |n: u32| {
            order["ref"] = json!(n.to_string());
            format!("{order}\n")
        };
        let lines: String = (0..40).map(line).collect();
        let (reset, issued) = at_once(
            || garage.send("POST", "/v1/vehicles/DEMO-0001/reset", &json!({})),
            || {
                garage
                    .server
                    .send("POST", "/v1/batches", &headers, lines.as_bytes())
            },
        );
        assert_eq!(reset.status, 200, "{}", reset.text());
        assert_eq!(reset.value()["epoch"], round);
        let answers = String::from_utf8(issued.body).unwrap();
        for line in answers.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            assert_eq!(line["status"], "issued", "{line}");
            // Whatever it was issued at, what it is now is of the vehicle's epoch.
            let bundle = garage.bundle(text(&line["bundle"]["bundle"]));
            assert!(
                keys(&bundle).iter().all(|key| key.vehicle_epoch == round),
                "{bundle}"
            );
        }
        garage.done("POST", "/v1/revocations", &json!({"vehicle": "DEMO-0001"}));
    }
}
