//! Rules that are set anew, and a vehicle's model that is another: keys that are out follow.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use fob_verify::status::Status;
use serde_json::{Value, json};

use super::rental::text;
use crate::support::garage::{Garage, keys, statuses};
use crate::support::{Answer, Client, Phone, authorization, now, redemption, time};

const UNLOCK: &str = "doors.unlock";
const START: &str = "engine.start";

/// Code sets that are redeemed while rules change, by threads.
const REDEEMED: usize = 40;
const THREADS: usize = 4;

use Status::{Suspended, Valid};

/// Sets a fleet's rules at a version.
fn set(client: &Client, token: &str, at: u64, query: &str, rules: &Value) -> Answer {
    let (bearer, tag) = (format!("Bearer {token}"), format!("\"{at}\""));
    let headers = [
        ("authorization", bearer.as_str()),
        ("if-match", tag.as_str()),
    ];
    let path = format!("/v1/rules{query}");
    let body = json!({ "rules": rules });
    client.json("PUT", &path, &headers, &body).unwrap()
}

/// Starting needs a licence of this class, on vehicles of these models.
fn licence(class: &str, models: &[&str]) -> Value {
    json!({ "licences": [{ "functions": [START], "classes": [class], "models": models }] })
}

trait Ruled {
    fn rules(&self) -> Value;
    fn set(&self, rules: &Value) -> Value;
    fn try_out(&self, rules: &Value) -> Value;
    fn until_followed(&self);
    fn standing(&self, bundle: &Value) -> [Status; 2];
    fn describe(&self, path: &str, body: &Value);
}

impl Ruled for Garage {
    fn rules(&self) -> Value {
        self.done("GET", "/v1/rules", &json!({}))
    }

    #[track_caller]
    fn set(&self, rules: &Value) -> Value {
        let at = self.rules()["version"].as_u64().unwrap();
        let answer = set(&self.server.client(), &self.admin, at, "", rules);
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.value()
    }

    /// What these rules would come to for keys that are out.
    fn try_out(&self, rules: &Value) -> Value {
        let at = self.rules()["version"].as_u64().unwrap();
        let answer = set(
            &self.server.client(),
            &self.admin,
            at,
            "?dry_run=true",
            rules,
        );
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.value()["trial"]["keys"].clone()
    }

    #[track_caller]
    fn until_followed(&self) {
        for _ in 0..1500 {
            let rules = self.rules();
            if rules["followed"] == rules["version"] {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("keys do not follow: {}", self.rules());
    }

    /// How the two keys of a bundle stand on their lists.
    fn standing(&self, bundle: &Value) -> [Status; 2] {
        let all = keys(bundle);
        [self.status(&all[0]), self.status(&all[1])]
    }

    #[track_caller]
    fn describe(&self, path: &str, body: &Value) {
        let answer = self.server.json_as(&self.admin, "PUT", path, body);
        assert_eq!(answer.status, 204, "{}", answer.text());
    }
}

fn licensed(class: &str) -> Value {
    json!({ "licences": [{ "class": class, "expires": time(now() + 10_000_000) }] })
}

#[test]
fn keys_that_are_out_follow_rules_that_are_set_anew() {
    let garage = Garage::new();
    let lend = |identity, vehicle| {
        let issued = garage.issue(vehicle, &[UNLOCK, START], identity, &Phone::new());
        issued.1
    };
    garage.describe("/v1/identities/renter-2", &licensed("C1"));
    let (without, with) = (lend("renter-1", "DEMO-0001"), lend("renter-2", "DEMO-0002"));
    let (asked, lifted) = (licence("C1", &[]), json!({}));
    let trial = |bundles, suspended, resumed| json!({ "bundles": bundles, "suspended": suspended, "resumed": resumed, "all": true });
    assert_eq!(garage.try_out(&asked), trial(2, 1, 0));
    assert_eq!(garage.standing(&without), [Valid, Valid], "nothing is done");
    let answer = garage.set(&asked);
    assert_eq!(
        (&answer["version"], &answer["followed"]),
        (&json!(1), &json!(0))
    );
    garage.until_followed();
    assert_eq!(garage.standing(&without), [Valid, Suspended]);
    assert_eq!(garage.standing(&with), [Valid, Valid]);
    // What nobody's keys depend on needs no look at them.
    let mut more = asked.clone();
    more["keys_per_day"] = json!(1000);
    assert_eq!(garage.try_out(&more), Value::Null);
    let answer = garage.set(&more);
    assert_eq!(answer["followed"], 2, "{answer}");
    // Another licence: who had one is without, and who gets one is licensed again.
    assert_eq!(garage.try_out(&licence("C", &[])), trial(2, 1, 0));
    garage.set(&licence("C", &[]));
    garage.until_followed();
    assert_eq!(garage.standing(&with), [Valid, Suspended]);
    garage.describe("/v1/identities/renter-2", &licensed("C"));
    assert_eq!(garage.standing(&with), [Valid, Valid]);
    assert_eq!(garage.try_out(&lifted), trial(2, 0, 1));
    garage.set(&lifted);
    garage.until_followed();
    assert_eq!(garage.standing(&without), [Valid, Valid]);
}

#[test]
fn keys_of_orders_and_every_version_follow_and_what_else_suspends_them_stays() {
    let garage = Garage::new();
    let (made, bundle) = garage.issue("DEMO-0001", &[UNLOCK, START], "renter-1", &Phone::new());
    // Issued again, for less time: the keys before are revoked for good.
    let id = text(&made["authorization"]);
    let sooner = json!({ "not_after": time(now() + 600) });
    assert_eq!(garage.change(id, 1, &sooner).status, 200);
    let phone = Phone::new();
    let registered = json!({ "identity": "renter-2", "jwk": phone.jwk() });
    garage.describe("/v1/terminals/phone-2", &registered);
    let order = json!({ "ref": "one", "vehicle": "DEMO-0002", "functions": [UNLOCK, START],
        "not_before": time(now()), "not_after": time(now() + 3600),
        "recipient": { "identity": "renter-2", "terminal": "phone-2" } });
    let bearer = format!("Bearer {}", garage.token);
    let headers = [
        ("content-type", "application/x-ndjson"),
        ("authorization", bearer.as_str()),
    ];
    let ordered = garage.server.send(
        "POST",
        "/v1/batches",
        &headers,
        order.to_string().as_bytes(),
    );
    let ordered = ordered.value()["bundle"].clone();
    let shown = |bundle: &Value| {
        let all = statuses(&garage.bundle(text(&bundle["bundle"])));
        [UNLOCK, START].map(|function| all[function].clone())
    };
    assert_eq!(shown(&ordered), ["valid", "valid"], "{ordered}");
    garage.set(&licence("C1", &[]));
    garage.until_followed();
    assert_eq!(shown(&bundle), ["valid", "suspended"]);
    assert_eq!(shown(&ordered), ["valid", "suspended"]);
    assert_eq!(garage.standing(&bundle), [Status::Revoked, Status::Revoked]);
    let of_it = json!({ "bundle": ordered["bundle"] });
    garage.done("POST", "/v1/suspensions", &of_it);
    garage.set(&json!({}));
    garage.until_followed();
    assert_eq!(shown(&bundle), ["valid", "valid"]);
    assert_eq!(shown(&ordered), ["suspended", "suspended"]);
    garage.done("POST", "/v1/resumptions", &of_it);
    assert_eq!(shown(&ordered), ["valid", "valid"]);
}

#[test]
fn a_vehicles_model_decides_over_the_keys_that_are_out() {
    let garage = Garage::new();
    let model = |name: &str| {
        let owner = json!({ "model": name, "owner": "owner-1" });
        garage.describe("/v1/vehicles/DEMO-0001", &owner);
    };
    model("Car");
    let (_, bundle) = garage.issue("DEMO-0001", &[UNLOCK, START], "renter-1", &Phone::new());
    garage.set(&licence("C", &["Lorry"]));
    garage.until_followed();
    assert_eq!(garage.standing(&bundle), [Valid, Valid]);
    model("Lorry");
    assert_eq!(garage.standing(&bundle), [Valid, Suspended]);
    garage.describe("/v1/identities/renter-1", &licensed("C"));
    assert_eq!(garage.standing(&bundle), [Valid, Valid]);
    garage.describe("/v1/identities/renter-1", &json!({ "licences": [] }));
    assert_eq!(garage.standing(&bundle), [Valid, Suspended]);
    model("Van");
    assert_eq!(garage.standing(&bundle), [Valid, Valid]);
    // An import takes no model back.
    let line = json!({ "kind": "vehicle", "id": "DEMO-0001", "model": "Lorry",
        "owner": "owner-1" });
    let bearer = format!("Bearer {}", garage.admin);
    let headers = [
        ("content-type", "application/x-ndjson"),
        ("authorization", bearer.as_str()),
    ];
    let body = format!("{line}\n");
    let answer = garage
        .server
        .send("POST", "/v1/import", &headers, body.as_bytes());
    assert!(
        answer.text().contains("registered_otherwise"),
        "{}",
        answer.text()
    );
    assert_eq!(garage.standing(&bundle), [Valid, Valid]);
}

#[test]
fn a_crash_right_after_rules_are_set_does_not_let_keys_be_forgotten() {
    let mut garage = Garage::new();
    let mut bundles = Vec::new();
    for _ in 0..20 {
        let issued = garage.issue("DEMO-0001", &[UNLOCK, START], "renter-1", &Phone::new());
        bundles.push(issued.1);
    }
    for (rules, start) in [(licence("C1", &[]), Suspended), (json!({}), Valid)] {
        garage.set(&rules);
        garage.crash();
        garage.until_followed();
        for bundle in &bundles {
            assert_eq!(garage.standing(bundle), [Valid, start]);
        }
        // And what has been followed is not followed again.
        garage.crash();
        let rules = garage.rules();
        assert_eq!(rules["followed"], rules["version"]);
    }
}

/// Whatever is let in before rules are set, and committed after.
#[test]
fn keys_issued_while_rules_are_set_stand_by_the_last() {
    let garage = Garage::new();
    let mut asks = Vec::new();
    for n in 0..REDEEMED {
        let vehicle = format!("DEMO-{:04}", n + 1);
        let made = garage.done(
            "POST",
            "/v1/authorizations",
            &authorization(&vehicle, &[UNLOCK, START]),
        );
        let code_set = text(&made["code_set"]).to_owned();
        asks.push(redemption(
            &garage.server.url,
            &code_set,
            "renter-1",
            &Phone::new(),
        ));
    }
    let over = AtomicBool::new(false);
    let rules = [licence("C1", &[]), json!({})];
    let issued: Vec<Value> = thread::scope(|scope| {
        let setter = scope.spawn(|| {
            let (client, mut at) = (garage.server.client(), 0_u64);
            // Rules that ask for a licence are the last.
            while !over.load(Ordering::Relaxed) || at % 2 == 0 {
                let set = set(&client, &garage.admin, at, "", &rules[at as usize % 2]);
                assert_eq!(set.status, 200, "{}", set.text());
                at += 1;
            }
        });
        let redeem = |asks: &[Value]| -> Vec<Value> {
            let client = garage.server.client();
            let mut issued = Vec::new();
            for ask in asks {
                let answer = loop {
                    let answer = client.json("POST", "/v1/redemptions", &[], ask).unwrap();
                    // Asked again until rules let it in; overload passes too.
                    if answer.status == 201 {
                        break answer;
                    }
                    let refused = answer.refusal();
                    assert!(
                        ["licence_missing", "busy", "rate_limited"].contains(&refused.as_str()),
                        "{refused}"
                    );
                };
                issued.push(answer.value());
            }
            issued
        };
        let parts: Vec<_> = asks.chunks(REDEEMED / THREADS).collect();
        let threads = parts
            .into_iter()
            .map(|part| scope.spawn(move || redeem(part)));
        let threads: Vec<_> = threads.collect();
        let issued = threads.into_iter().flat_map(|one| one.join().unwrap());
        let issued = issued.collect();
        over.store(true, Ordering::Relaxed);
        setter.join().unwrap();
        issued
    });
    assert_eq!(issued.len(), REDEEMED);
    garage.until_followed();
    for bundle in &issued {
        assert_eq!(garage.standing(bundle), [Valid, Suspended]);
    }
}
