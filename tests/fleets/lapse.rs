//! A condition that held when keys were issued and holds no longer: they are suspended, and valid
//! again once it does.

use fob_verify::status::Status;
use serde_json::{Value, json};

use super::rental::text;
use crate::support::garage::{Garage, keys};
use crate::support::{Phone, now, time};

const UNLOCK: &str = "doors.unlock";
const START: &str = "engine.start";

/// A demo fleet in which starting needs a B, and a renter of it with keys for both functions.
struct Lent {
    garage: Garage,
    admin: String,
    phone: Phone,
    bundle: Value,
}

impl Lent {
    fn new() -> Self {
        let garage = Garage::new();
        let admin = garage.admin.clone();
        let body = json!({ "rules": { "licences": [
            { "functions": [START], "classes": ["B"] } ] } });
        let bearer = format!("Bearer {admin}");
        let headers = [
            ("content-type", "application/json"),
            ("authorization", bearer.as_str()),
            ("if-match", "\"0\""),
        ];
        let set = garage
            .server
            .send("PUT", "/v1/rules", &headers, body.to_string().as_bytes());
        assert_eq!(set.status, 200, "{}", set.text());
        let phone = Phone::new();
        let (_, bundle) = garage.issue("DEMO-0001", &[UNLOCK, START], "renter-1", &phone);
        Self {
            garage,
            admin,
            phone,
            bundle,
        }
    }

    /// Describes the renter anew.
    #[track_caller]
    fn put(&self, body: &Value) {
        let path = "/v1/identities/renter-1";
        let answer = self.garage.server.json_as(&self.admin, "PUT", path, body);
        assert_eq!(answer.status, 204, "{}", answer.text());
    }

    /// How the keys first issued stand on their lists: doors, and engine.
    fn standing(&self) -> [Status; 2] {
        let all = keys(&self.bundle);
        [self.garage.status(&all[0]), self.garage.status(&all[1])]
    }

    /// How the keys are shown by now.
    fn shown(&self) -> Vec<String> {
        let bundle = self.garage.bundle(text(&self.bundle["bundle"]));
        let all = bundle["keys"].as_array().unwrap().iter();
        all.map(|key| text(&key["status"]).to_owned()).collect()
    }

    fn call(&self, call: &str, target: &Value) -> Value {
        self.garage.done("POST", &format!("/v1/{call}"), target)
    }
}

/// A licence of class B until then, as a body has it.
fn licensed(until: u64) -> Value {
    json!({ "licences": [{ "class": "B", "expires": time(until) }] })
}

use Status::{Suspended, Valid};

#[test]
fn a_licence_that_is_withdrawn_takes_the_keys_that_need_it_and_gives_them_back() {
    let mut lent = Lent::new();
    let far = now() + 10_000_000;
    lent.put(&licensed(far));
    assert_eq!(lent.standing(), [Valid, Valid]);
    for lost in [
        json!({ "licences": [] }),
        json!({ "licences": [{ "class": "C", "expires": time(far) }] }),
        licensed(now() - 1),
    ] {
        lent.put(&lost);
        assert_eq!(lent.standing(), [Valid, Suspended], "{lost}");
        assert_eq!(lent.shown(), ["valid", "suspended"]);
        lent.put(&licensed(far));
        assert_eq!(lent.standing(), [Valid, Valid]);
    }
    // It outlives a crash, and may be undone after it.
    lent.put(&json!({ "licences": [] }));
    lent.garage.crash();
    assert_eq!(lent.standing(), [Valid, Suspended]);
    lent.put(&licensed(far));
    assert_eq!(lent.standing(), [Valid, Valid]);
}

#[test]
fn whoever_is_held_has_no_key_that_works_until_it_is_lifted() {
    let lent = Lent::new();
    let far = now() + 10_000_000;
    for hold in ["payment", "insurance"] {
        let mut body = licensed(far);
        body["hold"] = json!(hold);
        lent.put(&body);
        assert_eq!(lent.standing(), [Suspended, Suspended]);
        // Held, and without a licence: each by itself is enough.
        lent.put(&json!({ "licences": [] }));
        assert_eq!(lent.standing(), [Suspended, Suspended]);
        lent.put(&json!({ "licences": [], "hold": "none" }));
        assert_eq!(lent.standing(), [Valid, Suspended]);
        lent.put(&licensed(far));
        assert_eq!(lent.standing(), [Valid, Valid]);
    }
}

#[test]
fn what_else_suspends_a_key_stays() {
    let lent = Lent::new();
    let far = now() + 10_000_000;
    let key = keys(&lent.bundle)[0].id.clone();
    lent.call("suspensions", &json!({ "key": key }));
    let mut held = licensed(far);
    held["hold"] = json!("payment");
    lent.put(&held);
    let vehicle = json!({ "vehicle": "DEMO-0001" });
    lent.call("suspensions", &vehicle);
    held["hold"] = json!("none");
    lent.put(&held);
    assert_eq!(lent.standing(), [Suspended, Suspended], "by the vehicle");
    let resumed = lent.call("resumptions", &vehicle);
    assert_eq!(resumed["resumed"], 1, "{resumed}");
    assert_eq!(lent.standing(), [Suspended, Valid], "by itself");
    // And the other way round: what is resumed is not what the licence holds down.
    lent.put(&json!({ "licences": [] }));
    let identity = json!({ "identity": "renter-1" });
    let suspended = lent.call("suspensions", &identity);
    assert_eq!(suspended["suspended"], 0, "{suspended}");
    let resumed = lent.call("resumptions", &json!({ "key": key }));
    assert_eq!(resumed["resumed"], 0, "{resumed}");
    let resumed = lent.call("resumptions", &identity);
    assert_eq!(resumed["resumed"], 1, "{resumed}");
    assert_eq!(lent.standing(), [Valid, Suspended]);
    // Whatever holds it down, it ends.
    lent.call("revocations", &json!({ "bundle": lent.bundle["bundle"] }));
    lent.put(&licensed(far));
    assert_eq!(lent.standing(), [Status::Revoked, Status::Revoked]);
}

#[test]
fn a_key_that_would_outlast_a_licence_is_replaced_by_one_that_does_not() {
    let lent = Lent::new();
    let all = lent.bundle["keys"].as_array().unwrap();
    let ends: jiff::Timestamp = text(&all[1]["not_after"]).parse().unwrap();
    let ends = u64::try_from(ends.as_second()).unwrap();
    lent.put(&licensed(ends));
    assert_eq!(lent.standing(), [Valid, Valid], "to the second");
    lent.put(&licensed(ends - 1));
    assert_eq!(lent.standing(), [Valid, Suspended]);
    let id = text(&lent.bundle["authorization"]);
    let changed = lent.garage.change(id, 1, &json!({ "functions": [START] }));
    assert_eq!(changed.status, 200, "{}", changed.text());
    assert_eq!(lent.shown(), ["valid"], "what is issued again ends in time");
    assert_eq!(lent.standing(), [Status::Revoked, Suspended]);
    lent.put(&licensed(ends));
    assert_eq!(lent.standing(), [Status::Revoked, Valid]);
    lent.put(&json!({ "licences": [] }));
    assert_eq!(lent.shown(), ["suspended"], "of every version");
    assert_eq!(lent.standing(), [Status::Revoked, Suspended]);
}

#[test]
fn a_change_that_gives_more_asks_for_all_of_it_and_one_that_takes_away_for_the_licence() {
    let lent = Lent::new();
    let far = now() + 10_000_000;
    let id = text(&lent.bundle["authorization"]);
    let more = json!({ "functions": [UNLOCK, START, "trunk.open"] });
    let less = json!({ "functions": [START] });
    let change = |body: &Value| lent.garage.change(id, 1, body);
    let mut held = licensed(far);
    held["hold"] = json!("payment");
    lent.put(&held);
    change(&more).refused(403, "identity_held");
    lent.put(&json!({ "licences": [] }));
    change(&less).refused(403, "licence_missing");
    lent.put(&licensed(far));
    let less = change(&less);
    assert_eq!(less.status, 200, "still held: {}", less.text());
    assert_eq!(lent.shown(), ["suspended"]);
}

#[test]
fn keys_issued_while_a_condition_is_lost_come_suspended() {
    let lent = Lent::new();
    lent.put(&json!({ "licences": [] }));
    let reset = json!({ "end": [] });
    let done = lent.call("vehicles/DEMO-0001/reset", &reset);
    assert_eq!(done["issued"].as_array().unwrap().len(), 2, "{done}");
    assert_eq!(lent.shown(), ["valid", "suspended"]);
    // For another phone of theirs: refused while the licence is asked for.
    let next = Phone::new();
    let bundle = text(&lent.bundle["bundle"]);
    let path = format!("/v1/bundles/{bundle}/rebind");
    let proof = json!({ "proof": next.proof(&lent.garage.server.url, bundle) });
    let refused = lent.garage.send("POST", &path, &proof);
    refused.refused(403, "licence_missing");
    lent.put(&licensed(now() + 10_000_000));
    assert_eq!(lent.shown(), ["valid", "valid"]);
    assert_eq!(lent.garage.send("POST", &path, &proof).status, 200);
    let _ = &lent.phone;
}
