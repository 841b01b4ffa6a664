//! `fob vehicle` beside `fob serve`: a car that was offline while something was changed or taken
//! back, and the three ways in which it learns of it. Everything it is shown is the server's own.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::garage::Garage;
use crate::support::{FOB, Phone, authorization, now, time};

pub(crate) const VEHICLE: &str = "DEMO-0001";
pub(crate) const UNLOCK: &str = "doors.unlock";
pub(crate) const START: &str = "engine.start";
pub(crate) const TRUNK: &str = "trunk.open";

/// A car with its file in a folder, a phone beside it, and a server neither of them sees unless it
/// is said.
pub(crate) struct Street {
    pub(crate) garage: Garage,
    pub(crate) folder: TempDir,
    pub(crate) phone: Phone,
    /// The car's own key.
    jwk: Value,
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

impl Street {
    /// Provisioned with the root's key, its vehicle id and its fleet's id, and its key registered.
    fn new() -> Self {
        Self::with(Garage::new())
    }

    /// The same with this server.
    pub(crate) fn with(garage: Garage) -> Self {
        let mut street = Self {
            jwk: Value::Null,
            folder: tempfile::tempdir().unwrap(),
            phone: Phone::new(),
            garage,
        };
        street.write_phone("phone.jwk", &street.phone);
        let fleets: Value =
            serde_json::from_str(&street.garage.issuer.fob(&["fleet", "list", "--json"])).unwrap();
        let root = street.garage.issuer.file("root.cbor");
        let made = street.vehicle(&[
            "init",
            "--root",
            root.to_str().unwrap(),
            "--vehicle",
            VEHICLE,
            "--fleet",
            text(&fleets[0]["id"]),
            "--json",
        ]);
        let made: Value = serde_json::from_slice(&made.stdout).unwrap();
        street.jwk = made["jwk"].clone();
        let body = json!({
            "model": "Demo",
            "owner": "owner-1",
            "functions": [UNLOCK, "doors.lock", START, TRUNK],
            "jwk": street.jwk,
        });
        let path = format!("/v1/vehicles/{VEHICLE}");
        let server = &street.garage.server;
        let put = server.json_as(&street.garage.admin, "PUT", &path, &body);
        assert_eq!(put.status, 204, "{}", put.text());
        street
    }

    fn write(&self, name: &str, what: &str) {
        std::fs::write(self.folder.path().join(name), what).unwrap();
    }

    fn write_phone(&self, name: &str, phone: &Phone) {
        let mut jwk = phone.jwk();
        jwk["d"] = json!(phone.private());
        self.write(name, &jwk.to_string());
    }

    fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(FOB);
        command.current_dir(self.folder.path()).args(args);
        command.output().unwrap()
    }

    pub(crate) fn vehicle(&self, args: &[&str]) -> Output {
        self.run(&[&["vehicle"], args, &["--state", "car.json"]].concat())
    }

    /// The car connects.
    #[track_caller]
    pub(crate) fn sync(&self) -> Value {
        let done = self.vehicle(&["sync", "--server", &self.garage.server.url, "--json"]);
        let complaint = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "{complaint}");
        serde_json::from_slice(&done.stdout).unwrap()
    }

    /// Shows the car lists; how many it took.
    pub(crate) fn take(&self, bundle: &Value) -> usize {
        self.write("take.json", &bundle.to_string());
        let done = self.vehicle(&["take", "take.json", "--json"]);
        let lines: Vec<Value> = serde_json::from_slice(&done.stdout).unwrap();
        lines.iter().filter(|line| line["taken"] == true).count()
    }

    /// What the car says to a phone that asks for a function: `opened`, or why not.
    fn asked_by(&self, jwk: &str, bundle: &Value, function: &str) -> String {
        self.write("bundle.json", &bundle.to_string());
        let challenge = self.vehicle(&["challenge"]).stdout;
        let challenge = String::from_utf8(challenge).unwrap();
        let of = ["--key", "bundle.json", "--function", function];
        let sign = ["sign", "use", "--jwk", jwk, "--challenge", challenge.trim()];
        let signed = self.run(&[&sign[..], &of].concat());
        let complaint = String::from_utf8_lossy(&signed.stderr).into_owned();
        assert!(signed.status.success(), "{complaint}");
        self.write("proof", std::str::from_utf8(&signed.stdout).unwrap());
        let done = self.vehicle(&[&["open", "--proof", "proof", "--json"], &of[..]].concat());
        let said: Value = serde_json::from_slice(&done.stdout).unwrap_or_else(|_| {
            panic!("{function}: {}", String::from_utf8_lossy(&done.stderr));
        });
        assert_eq!(said["opened"] == true, done.status.success());
        said["refusal"].as_str().unwrap_or("opened").to_owned()
    }

    pub(crate) fn asked(&self, bundle: &Value, function: &str) -> String {
        self.asked_by("phone.jwk", bundle, function)
    }

    pub(crate) fn shown(&self) -> Value {
        serde_json::from_slice(&self.vehicle(&["show"]).stdout).unwrap()
    }

    /// The bundle as the phone reads it now, with lists beside it.
    pub(crate) fn stapled(&self, bundle: &Value) -> Value {
        let id = text(&bundle["bundle"]);
        let proof = self.phone.proof(&self.garage.server.url, id);
        let path = format!("/v1/bundles/{id}?staple=true");
        let read = self.garage.server.get(&path, &[("fob-proof", &proof)]);
        assert_eq!(read.status, 200, "{}", read.text());
        read.value()
    }

    /// Unlock and start, issued, met by the car with what it needs; then it is offline. The
    /// authorization's id and the bundle without lists.
    pub(crate) fn lent(&self) -> (String, Value) {
        let (made, bundle) = self
            .garage
            .issue(VEHICLE, &[UNLOCK, START], "renter-1", &self.phone);
        assert_eq!(self.asked(&self.stapled(&bundle), UNLOCK), "opened");
        assert_eq!(self.asked(&bundle, START), "opened");
        (text(&made["authorization"]).to_owned(), bundle)
    }

    /// Start is dropped and trunk added, behind the car's back; the bundle as it is now, without
    /// lists. The car cannot know.
    fn changed(&self, id: &str, old: &Value) -> Value {
        let changed = self
            .garage
            .change(id, 1, &json!({ "functions": [UNLOCK, TRUNK] }));
        assert_eq!(changed.status, 200, "{}", changed.text());
        assert_eq!(self.asked(old, START), "opened");
        assert_eq!(self.asked(old, UNLOCK), "opened");
        self.garage.bundle(text(&old["bundle"]))
    }

    /// Whatever the car is shown from now on, no key of the old version opens anything.
    fn never_again(&self, old: &Value, new: &Value) {
        assert_eq!(self.asked(new, TRUNK), "opened");
        let before = self.shown();
        for function in [UNLOCK, START] {
            assert_eq!(self.asked(old, function), "version_superseded");
        }
        assert_eq!(self.shown(), before, "a refusal leaves no trace");
        self.sync();
        for function in [UNLOCK, START] {
            assert_eq!(self.asked(old, function), "version_superseded");
        }
        assert_eq!(self.asked(new, UNLOCK), "opened");
    }
}

#[test]
fn a_change_is_learned_of_by_any_key_of_the_new_version() {
    let street = Street::new();
    let (id, old) = street.lent();
    let new = street.changed(&id, &old);
    // No list comes with it, and it opens the added function at once.
    assert!(new.get("status_lists").is_none());
    assert_eq!(street.asked(&new, TRUNK), "opened");
    assert_eq!(street.asked(&old, START), "version_superseded");
    assert_eq!(street.asked(&old, UNLOCK), "version_superseded");
    street.never_again(&old, &new);
}

#[test]
fn a_change_is_learned_of_by_a_stapled_list() {
    let street = Street::new();
    let (id, old) = street.lent();
    let before = street.stapled(&old);
    let new = street.changed(&id, &old);
    assert_eq!(street.take(&street.stapled(&old)), 1, "the status list");
    assert_eq!(street.asked(&old, START), "revoked");
    assert_eq!(
        street.asked(&old, UNLOCK),
        "opened",
        "it was not taken away"
    );
    // The list of before does not bring it back.
    assert_eq!(street.take(&before), 0);
    assert_eq!(street.asked(&old, START), "revoked");
    street.never_again(&old, &new);
}

#[test]
fn a_change_is_learned_of_by_a_sync() {
    let street = Street::new();
    let (id, old) = street.lent();
    let new = street.changed(&id, &old);
    let synced = street.sync();
    assert_eq!(
        (&synced["status_lists"], &synced["vehicle_epoch"]),
        (&1.into(), &0.into())
    );
    assert_eq!(street.asked(&old, START), "revoked");
    assert_eq!(
        street.asked(&old, UNLOCK),
        "opened",
        "it was not taken away"
    );
    street.never_again(&old, &new);
}

#[test]
fn an_end_is_learned_of_by_a_stapled_list_and_by_a_sync() {
    let street = Street::new();
    for by_sync in [false, true] {
        let (id, old) = street.lent();
        let path = format!("/v1/authorizations/{id}");
        street.garage.done("DELETE", &path, &json!({}));
        assert_eq!(street.asked(&old, START), "opened", "it cannot know");
        assert_eq!(street.garage.read(&id)["state"], "terminating");
        if by_sync {
            street.sync();
            assert_eq!(
                street.garage.read(&id)["state"],
                "terminated",
                "it says that it knows"
            );
        } else {
            assert_eq!(street.take(&street.stapled(&old)), 1, "the status list");
        }
        for function in [UNLOCK, START] {
            assert_eq!(street.asked(&old, function), "revoked");
        }
    }
}

#[test]
fn a_reset_that_is_not_proved_leaves_the_floor_where_it_is() {
    let street = Street::new();
    let (_, old) = street.lent();
    let reset = format!("/v1/vehicles/{VEHICLE}/reset");
    let done = street.garage.done("POST", &reset, &json!({}));
    assert_eq!(done["epoch"], 1);
    let floor = || street.shown()["vehicle_epoch"].clone();

    // A key of the new epoch that is not valid yet.
    let mut later = authorization(VEHICLE, &[UNLOCK]);
    later["not_before"] = json!(time(now() + 3600));
    let made = street.garage.done("POST", "/v1/authorizations", &later);
    let code_set = text(&made["code_set"]);
    let later = street
        .garage
        .server
        .redeem(code_set, "renter-1", &street.phone);
    assert_eq!(later.status, 201, "{}", later.text());
    assert_eq!(street.asked(&later.value(), UNLOCK), "not_yet_valid");
    assert_eq!(
        (floor(), street.asked(&old, START).as_str()),
        (0.into(), "opened")
    );

    // One that is, and somebody else's proof.
    let new = street.garage.bundle(text(&old["bundle"]));
    street.write_phone("other.jwk", &Phone::new());
    assert_eq!(street.asked_by("other.jwk", &new, UNLOCK), "bad_proof");
    assert_eq!(
        (floor(), street.asked(&old, START).as_str()),
        (0.into(), "opened")
    );

    // The same key, proved.
    assert_eq!(street.asked(&new, UNLOCK), "opened");
    assert_eq!(floor(), 1);
    assert_eq!(street.asked(&old, START), "vehicle_epoch_superseded");
}

#[test]
fn a_car_with_another_owner_refuses_what_the_one_before_gave() {
    let street = Street::new();
    for (owner, by_sync) in [("renter-2", false), ("owner-1", true)] {
        let (id, old) = street.lent();
        assert_eq!(street.asked(&old, UNLOCK), "opened");
        let body = json!({ "model": "Demo", "owner": owner, "functions": [UNLOCK, START],
            "jwk": street.jwk });
        let path = format!("/v1/vehicles/{VEHICLE}");
        let server = &street.garage.server;
        let put = server.json_as(&street.garage.admin, "PUT", &path, &body);
        assert_eq!(put.status, 204, "{}", put.text());
        let why = if by_sync {
            street.sync();
            assert_eq!(street.garage.read(&id)["state"], "terminated");
            "vehicle_epoch_superseded"
        } else {
            assert_eq!(street.take(&street.stapled(&old)), 1, "the status list");
            "revoked"
        };
        for function in [UNLOCK, START] {
            assert_eq!(street.asked(&old, function), why);
        }
    }
    assert_eq!(street.shown()["vehicle_epoch"], 2);
}

#[test]
fn a_car_whose_key_nobody_registered_is_not_told() {
    let street = Street::new();
    let body = json!({ "model": "Demo", "owner": "owner-1", "functions": [UNLOCK] });
    let path = format!("/v1/vehicles/{VEHICLE}");
    let put = street
        .garage
        .server
        .json_as(&street.garage.admin, "PUT", &path, &body);
    assert_eq!(put.status, 204);
    let done = street.vehicle(&["sync", "--server", &street.garage.server.url]);
    assert!(!done.status.success());
    let complaint = String::from_utf8(done.stderr).unwrap();
    assert!(complaint.contains("401 unauthenticated"), "{complaint}");
    assert!(street.shown()["synced_at"].is_null());
}
