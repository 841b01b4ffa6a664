//! How fast somebody may ask, how many keys there are in a day, and the brake.

use std::sync::Arc;

use fob::domain::{Token, TokenId, VehicleId};
use fob::engine::authenticate::BackEnd;
use serde_json::{Value, json};

use super::rental::{Rental, text};
use crate::support::inside::{Fault, Inside};
use crate::support::{Answer, Phone, now, redemption, time};

const UNLOCK: &str = "doors.unlock";

/// Limited, saying when to ask again, in the header and in the body.
#[track_caller]
fn limited(answer: &Answer, code: &str) {
    answer.refused(429, code);
    let after = answer.header("retry-after").unwrap().to_owned();
    assert_eq!(answer.value()["retry_after_s"].to_string(), after);
    assert!(after.parse::<u32>().unwrap() >= 1, "{after}");
    assert!(text(&answer.value()["detail"]).contains("again"));
}

/// Three in a day, so that none becomes free meanwhile.
fn three() -> Value {
    json!({ "count": 3, "seconds": 86_400 })
}

#[test]
fn each_rate_counts_its_own_and_nobody_elses() {
    let rental = Rental::new();
    let ask = |vehicle: &str| {
        let body = json!({ "vehicle": vehicle, "functions": [UNLOCK],
            "not_before": time(now()), "not_after": time(now() + 3600) });
        rental.send("POST", "/v1/authorizations", &body)
    };
    // Vehicle: three authorizations, and then another vehicle.
    rental.rule(&json!({ "limits": { "vehicle": three() } }));
    assert!((0..3).all(|_| ask("CAR").status == 201));
    limited(&ask("CAR"), "rate_limited");
    assert_eq!(ask("LORRY").status, 201);
    // What is not there is not counted, and is refused as that.
    for _ in 0..4 {
        ask("NOBODYS").refused(404, "unknown_vehicle");
    }
    // Identity and terminal: three redemptions, right or wrong.
    for (limit, other_phone) in [("identity", false), ("terminal", true)] {
        rental.rule(&json!({}));
        let made: Vec<_> = (0..5)
            .map(|_| rental.authorize("LORRY", &[UNLOCK]))
            .collect();
        let redeem = |at: usize, who: &str, phone: &Phone| {
            let code_set = text(&made[at]["code_set"]);
            rental.server.redeem(code_set, who, phone)
        };
        let second = Phone::new();
        let body = json!({ "identity": "anna", "jwk": second.jwk() });
        rental.put(&format!("/v1/terminals/second-{limit}"), &body);
        rental.rule(&json!({ "limits": { limit: three() } }));
        redeem(0, "nobody", &rental.phone).refused(404, "unknown_identity");
        assert!((0..3).all(|at| redeem(at, "anna", &rental.phone).status == 201));
        limited(&redeem(3, "anna", &rental.phone), "rate_limited");
        let other = redeem(3, "anna", &second);
        if other_phone {
            assert_eq!(other.status, 201, "{}", other.text());
        } else {
            limited(&other, "rate_limited");
        }
    }
    // Token: whatever it asks; another one asks on.
    rental.rule(&json!({ "limits": { "token": three() } }));
    let read = |token: &str| {
        let list = "/v1/authorizations";
        rental.server.json_as(token, "GET", list, &json!({}))
    };
    assert!((0..3).all(|_| read(&rental.token).status == 200));
    limited(&read(&rental.token), "rate_limited");
    let create = ["token", "create", "--fleet", "rental", "--scopes", "read"];
    assert_eq!(read(&rental.issuer.fob(&create)).status, 200);
}

#[test]
fn orders_are_counted_one_by_one() {
    let rental = Rental::new();
    let order = |n: usize| {
        json!({ "ref": n.to_string(), "vehicle": "CAR", "functions": [UNLOCK],
            "not_before": time(now()), "not_after": time(now() + 3600),
            "recipient": { "identity": "anna", "terminal": "annas" } })
    };
    let all: Vec<_> = (0..6).map(order).collect();
    let count = |answers: &[Value], status: &str| {
        answers.iter().filter(|one| one["status"] == status).count()
    };
    for limit in ["vehicle", "identity", "terminal"] {
        rental.rule(&json!({ "limits": { limit: three() } }));
        let answers = rental.orders(&all);
        assert_eq!(count(&answers, "issued"), 3, "{answers:?}");
        assert_eq!(count(&answers, "rate_limited"), 3);
        let refused = answers
            .iter()
            .find(|one| one["status"] != "issued")
            .unwrap();
        assert!(refused["problem"]["retry_after_s"].as_u64().unwrap() > 1);
    }
    // The call itself is one of the token's.
    rental.rule(&json!({ "limits": { "token": three() } }));
    assert_eq!(count(&rental.orders(&all), "issued"), 2);
}

#[test]
fn an_owner_is_limited_by_identity_and_terminal() {
    let rental = Rental::new();
    let owned = json!({ "model": "Car", "owner": "anna" });
    rental.put("/v1/vehicles/CAR", &owned);
    let command = || {
        let body = json!({ "vehicle": "CAR", "functions": [UNLOCK],
            "not_before": time(now()), "not_after": time(now() + 3600) });
        let jws = rental
            .phone
            .command_with(&rental.server.url, &body, |header, claims| {
                header["kid"] = json!("rental/annas");
                claims["iss"] = json!("anna");
            });
        rental.server.command(&jws)
    };
    for limit in ["identity", "terminal"] {
        rental.rule(&json!({ "limits": { limit: three() } }));
        assert!((0..3).all(|_| command().status == 201));
        limited(&command(), "rate_limited");
    }
}

#[test]
fn an_address_is_limited_before_anything_is_looked_at() {
    let rental = Rental::serving(&[("FOB_SERVER_ADDRESS_REQUESTS_PER_S_MAX", "20")]);
    let url = &rental.server.url;
    let made = rental.authorize("CAR", &[UNLOCK]);
    let guess = fob_verify::code_set::CodeSet::decode(text(&made["code_set"])).unwrap();
    let guess = fob_verify::code_set::CodeSet::new(*guess.id(), [7; 16], guess.codes()).unwrap();
    let body = redemption(url, &guess.encode(), "anna", &rental.phone);
    let answers: Vec<_> = (0..200)
        .map(|_| rental.server.json("POST", "/v1/redemptions", &body))
        .collect();
    let tripped: Vec<_> = answers.iter().filter(|one| one.status == 429).collect();
    assert!(tripped.len() > 100, "{}", tripped.len());
    tripped.iter().for_each(|one| limited(one, "rate_limited"));
    let others = answers.iter().filter(|one| one.status != 429);
    others.for_each(|one| one.refused(404, "code_set_unknown"));
    // What operators look at is always answered.
    assert_eq!(rental.server.get("/healthz", &[]).status, 200);
}

/// What a fleet has left of today's quota, and what is frozen.
fn brake(rental: &Rental) -> Value {
    rental.send("GET", "/v1/brake", &json!({})).value()
}

fn approver(rental: &Rental) -> String {
    let create = [
        "token",
        "create",
        "--fleet",
        "rental",
        "--scopes",
        "approve,revoke",
    ];
    rental.issuer.fob(&create)
}

#[test]
fn a_days_keys_are_issued_to_the_last_and_more_need_approval() {
    let rental = Rental::new();
    let two = [UNLOCK, "doors.lock"];
    assert_eq!(rental.redeem("CAR", &two).status, 201, "before it is ruled");
    rental.rule(&json!({ "keys_per_day": 5 }));
    assert_eq!(rental.redeem("CAR", &two).status, 201);
    assert_eq!(rental.redeem("CAR", &two).status, 201);
    let made = rental.authorize("CAR", &two);
    let redeem = || {
        let code_set = text(&made["code_set"]);
        rental.server.redeem(code_set, "anna", &rental.phone)
    };
    limited(&redeem(), "quota_exceeded");
    assert_eq!(rental.order("a", "CAR", &two)["status"], "quota_exceeded");
    assert_eq!(rental.order("b", "CAR", &[UNLOCK])["status"], "issued");
    assert_eq!(
        rental.order("c", "CAR", &[UNLOCK])["status"],
        "quota_exceeded"
    );
    let shown = brake(&rental);
    assert_eq!(
        (&shown["keys_today"], &shown["keys_per_day"]),
        (&json!(5), &json!(5))
    );
    let approve = |token: &str, keys: u64| {
        let body = json!({ "approved": keys, "why": "a fair" });
        rental.server.json_as(token, "PUT", "/v1/quota", &body)
    };
    approve(&rental.token, 2).refused(403, "forbidden");
    let approved = approve(&approver(&rental), 2);
    assert_eq!(approved.value()["approved_today"], 2, "{}", approved.text());
    assert_eq!(redeem().status, 201, "the refused code set was not used up");
    assert_eq!(
        rental.order("d", "CAR", &[UNLOCK])["status"],
        "quota_exceeded"
    );
    // Whoever approves cannot be whoever issues.
    let create = ["token", "create", "--fleet", "rental", "--scopes"];
    for scopes in ["approve,issue", "authorize,approve"] {
        let why = rental.issuer.fob_fails(&[&create[..], &[scopes]].concat());
        assert!(why.contains("second person"), "{why}");
    }
    // A crash is no way around it.
    let Rental {
        issuer,
        server,
        token,
        ..
    } = rental;
    let address = server.url.strip_prefix("http://").unwrap().to_owned();
    server.kill();
    let server = issuer.serve_at(&address);
    let shown = server
        .json_as(&token, "GET", "/v1/brake", &json!({}))
        .value();
    assert_eq!(
        (&shown["keys_today"], &shown["approved_today"]),
        (&json!(7), &json!(2))
    );
}

#[test]
fn a_change_is_counted_by_the_functions_it_adds() {
    let rental = Rental::new();
    let made = rental.authorize("CAR", &[UNLOCK]);
    let code_set = text(&made["code_set"]);
    let redeemed = rental.server.redeem(code_set, "anna", &rental.phone);
    assert_eq!(redeemed.status, 201, "{}", redeemed.text());
    let path = format!("/v1/authorizations/{}", text(&made["authorization"]));
    let change = |version: u32, functions: &[&str]| {
        let body = json!({ "functions": functions });
        rental.patch(&path, version, &body)
    };
    rental.rule(&json!({ "keys_per_day": 1 }));
    let three = [UNLOCK, "doors.lock", "trunk.open"];
    limited(&change(1, &three), "quota_exceeded");
    // One is left for the one that is new; none are for those that stay.
    let two = &three[..2];
    assert_eq!(change(1, two).status, 200);
    limited(&change(2, &three), "quota_exceeded");
    assert_eq!(change(2, &[UNLOCK]).status, 200);
}

#[test]
fn what_is_approved_is_beyond_a_quota_and_has_an_end() {
    let rental = Rental::new();
    let token = approver(&rental);
    let approve = |keys: u64| {
        let body = json!({ "approved": keys });
        let answer = rental.server.json_as(&token, "PUT", "/v1/quota", &body);
        (answer.status, answer.value()["field"].clone())
    };
    let refused = (400, json!("approved"));
    assert_eq!(approve(1), refused, "there is no quota");
    rental.rule(&json!({ "keys_per_day": 1 }));
    assert_eq!(approve(1_000_000_000_000), (200, Value::Null));
    assert_eq!(approve(1_000_000_000_001), refused);
}

#[test]
fn what_was_released_is_released_though_the_store_did_not_say_so() {
    let inside = Inside::start("limits-release", |_| {});
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let one = inside.back_end();
    let other = BackEnd {
        fleet: Arc::clone(&one.fleet),
        token: Arc::new(Token {
            id: TokenId([2; 16]),
            ..Token::clone(&one.token)
        }),
        why: None,
    };
    let car = || Some(VehicleId::parse("DEMO-0001").unwrap());
    let frozen = || {
        inside
            .engine
            .book()
            .fleet_named("demo")
            .unwrap()
            .ruled
            .frozen()
    };
    for fault in [
        Fault::Failed,
        Fault::UnknownNotApplied,
        Fault::UnknownApplied,
    ] {
        runtime
            .block_on(inside.engine.freeze(&one, car(), None))
            .unwrap();
        assert_eq!(frozen().len(), 1);
        inside.store.fail(&[fault]);
        let release = || runtime.block_on(inside.engine.release(&other, car(), None));
        assert!(release().is_err(), "{fault:?}: nobody knows");
        // Where it had happened, there is nothing to release any more.
        let happened = fault == Fault::UnknownApplied;
        assert_eq!(frozen().is_empty(), happened, "{fault:?}");
        assert_eq!(release().is_err(), happened, "{fault:?}");
        assert!(frozen().is_empty(), "{fault:?}");
    }
}

#[test]
fn beyond_the_normal_band_issuing_freezes_until_somebody_else_releases_it() {
    let rental = Rental::new();
    for (band, vehicle) in [("vehicle", Some("CAR")), ("fleet", None)] {
        rental.rule(&json!({ "brake": { band: three() } }));
        let first = rental.redeem("CAR", &[UNLOCK]);
        assert_eq!(first.status, 201, "{}", first.text());
        assert_eq!(rental.redeem("CAR", &[UNLOCK]).status, 201);
        assert_eq!(rental.redeem("CAR", &[UNLOCK]).status, 201);
        let made = rental.authorize("CAR", &[UNLOCK]);
        let redeem = || {
            let code_set = text(&made["code_set"]);
            rental.server.redeem(code_set, "anna", &rental.phone)
        };
        let refused = redeem();
        refused.refused(403, "issuing_frozen");
        let said = refused.value()["detail"].clone();
        assert!(text(&said).contains("/v1/brake/release"), "{said}");
        assert_eq!(
            rental.order("x", "CAR", &[UNLOCK])["status"],
            "issuing_frozen"
        );
        // Another vehicle is not concerned, unless it is the fleet that has left its band.
        let other = rental.order("y", "LORRY", &[UNLOCK]);
        let expected = if vehicle.is_some() {
            "issued"
        } else {
            "issuing_frozen"
        };
        assert_eq!(other["status"], expected, "{other}");
        // Use goes on, and so does ending.
        let bundle = format!("/v1/bundles/{}", text(&first.value()["bundle"]));
        let keys = rental.send("GET", &bundle, &json!({})).value()["keys"].clone();
        assert_eq!(keys[0]["status"], "valid");
        // It is refused at once, and shown as soon as that is written.
        let shown = (0..100).find_map(|_| {
            let shown = brake(&rental)["frozen"].clone();
            if shown[0].is_null() {
                std::thread::sleep(std::time::Duration::from_millis(100));
                return None;
            }
            Some(shown)
        });
        let shown = shown.unwrap();
        assert_eq!(shown[0]["by"], "brake");
        assert_eq!(shown[0].get("vehicle").and_then(Value::as_str), vehicle);
        assert!(text(&shown[0]["why"]).starts_with("more than 3 bundles"));
        let release = |token: &str| {
            let mut body = json!({ "why": "a wedding" });
            if let Some(vehicle) = vehicle {
                body["vehicle"] = json!(vehicle);
            }
            let path = "/v1/brake/release";
            rental.server.json_as(token, "POST", path, &body)
        };
        release(&rental.token).refused(403, "forbidden");
        let second = approver(&rental);
        assert_eq!(release(&second).value()["frozen"], json!([]));
        release(&second).refused(404, "not_found");
        assert_eq!(redeem().status, 201, "{}", redeem().text());
    }
}

#[test]
fn who_froze_it_by_hand_does_not_release_it_and_a_crash_does_not_either() {
    let mut rental = Rental::new();
    let (one, two) = (approver(&rental), approver(&rental));
    let send = |rental: &Rental, token: &str, path: &str| {
        let body = json!({ "vehicle": "CAR", "why": "seen abroad" });
        rental.server.json_as(token, "POST", path, &body)
    };
    assert_eq!(send(&rental, &one, "/v1/brake").status, 200);
    assert_eq!(send(&rental, &two, "/v1/brake").status, 200, "it stays so");
    let address = rental
        .server
        .url
        .strip_prefix("http://")
        .unwrap()
        .to_owned();
    std::mem::replace(
        &mut rental.server,
        crate::support::Server::at(String::new()),
    )
    .kill();
    rental.server = rental.issuer.serve_at(&address);
    rental
        .redeem("CAR", &[UNLOCK])
        .refused(403, "issuing_frozen");
    assert_eq!(rental.redeem("LORRY", &[UNLOCK]).status, 201);
    let refused = send(&rental, &one, "/v1/brake/release");
    refused.refused(403, "forbidden");
    assert!(text(&refused.value()["detail"]).contains("somebody else"));
    assert_eq!(send(&rental, &two, "/v1/brake/release").status, 200);
    assert_eq!(rental.redeem("CAR", &[UNLOCK]).status, 201);
    let unknown = json!({ "vehicle": "NOBODYS" });
    let answer = rental.server.json_as(&one, "POST", "/v1/brake", &unknown);
    answer.refused(404, "unknown_vehicle");
}
