//! Who owns a vehicle: with another owner everything it was authorized for ends, and it is reset.

use fob_verify::status::Status;
use serde_json::{Value, json};

use super::rental::text;
use crate::support::garage::{Garage, keys};
use crate::support::{Answer, Phone, authorization, redemption};

const TWO: [&str; 2] = ["doors.unlock", "engine.start"];

fn put(garage: &Garage, vehicle: &str, body: &Value) -> Answer {
    let path = format!("/v1/vehicles/{vehicle}");
    garage.server.json_as(&garage.admin, "PUT", &path, body)
}

/// The epoch that keys of a vehicle are issued at.
fn epoch(garage: &Garage, vehicle: &str) -> u32 {
    let issued = garage.issue(vehicle, &TWO, "renter-3", &Phone::new()).1;
    keys(&issued)[0].vehicle_epoch
}

/// What the demo owner's phone is told that authorizes this vehicle.
fn commanded(garage: &Garage, vehicle: &str) -> Answer {
    let command = authorization(vehicle, &TWO);
    let command = garage.owner.command(&garage.server.url, &command);
    garage.server.command(&command)
}

#[test]
fn another_owner_ends_what_there_was_and_the_same_one_nothing() {
    let same = json!({ "model": "Other", "owner": "owner-1" });
    let another = json!({ "model": "Other", "owner": "renter-1" });
    let fleet = json!({ "model": "Other" });
    for (body, ends) in [(same, false), (another, true), (fleet, true)] {
        let garage = Garage::new();
        let phone = Phone::new();
        let bundle = garage.issue("DEMO-0001", &TWO, "renter-1", &phone).1;
        let elsewhere = garage.issue("DEMO-0002", &TWO, "renter-1", &phone).1;
        let open = garage.server.authorize(&garage.owner, "DEMO-0001", &TWO);
        let suspended = garage.authorize("DEMO-0001", &TWO);
        let id = text(&suspended["authorization"]);
        garage.done(
            "POST",
            &format!("/v1/authorizations/{id}/suspend"),
            &json!({}),
        );
        // As often as it is said.
        for _ in 0..2 {
            let answer = put(&garage, "DEMO-0001", &body);
            assert_eq!(answer.status, 204, "{}", answer.text());
        }
        let standing = |bundle| {
            let all = keys(bundle);
            all.iter().map(|key| garage.status(key)).collect::<Vec<_>>()
        };
        let (revoked, valid) = ([Status::Revoked; 2], [Status::Valid; 2]);
        assert_eq!(standing(&bundle), if ends { revoked } else { valid });
        assert_eq!(standing(&elsewhere), valid);
        let asked = redemption(&garage.server.url, &open, "renter-2", &phone);
        let redeemed = garage.server.json("POST", "/v1/redemptions", &asked);
        let state = &garage.read(id)["state"];
        if ends {
            redeemed.refused(410, "code_set_cancelled");
            assert_eq!(state, "cancelled");
            commanded(&garage, "DEMO-0001").refused(403, "forbidden");
        } else {
            assert_eq!(redeemed.status, 201, "{}", redeemed.text());
            assert_eq!(state, "suspended");
            assert_eq!(commanded(&garage, "DEMO-0001").status, 201);
        }
        assert_eq!(epoch(&garage, "DEMO-0001"), u32::from(ends));
        assert_eq!(epoch(&garage, "DEMO-0002"), 0);
    }
}

#[test]
fn an_owner_nobody_knows_ends_nothing() {
    let garage = Garage::new();
    let (made, bundle) = garage.issue("DEMO-0001", &TWO, "renter-1", &Phone::new());
    let nobody = json!({ "model": "Other", "owner": "nobody" });
    let refused = put(&garage, "DEMO-0001", &nobody);
    refused.refused(404, "unknown_identity");
    assert_eq!(refused.value()["field"], "owner");
    let id = text(&made["authorization"]);
    assert_eq!(garage.read(id)["state"], "redeemed");
    assert_eq!(garage.bundle(text(&bundle["bundle"])), bundle);
    assert_eq!(epoch(&garage, "DEMO-0001"), 0);
}

#[test]
fn an_import_hands_over_nothing() {
    let garage = Garage::new();
    let bundle = garage.issue("DEMO-0001", &TWO, "renter-1", &Phone::new()).1;
    let line = |id: &str, owner: &str| json!({ "kind": "vehicle", "id": id, "model": "Demo", "owner": owner });
    let lines = [
        line("DEMO-0001", "renter-1"),
        line("DEMO-0002", "owner-1"),
        line("NEW", "renter-1"),
        line("NEW", "renter-2"),
        line("DEMO-0001", "owner-1"),
    ];
    let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let bearer = format!("Bearer {}", garage.admin);
    let headers = [
        ("content-type", "application/x-ndjson"),
        ("authorization", bearer.as_str()),
    ];
    let path = "/v1/import";
    let answer = garage.server.send("POST", path, &headers, body.as_bytes());
    let text = String::from_utf8(answer.body).unwrap();
    let results: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let words: Vec<_> = results.iter().map(|one| &one["status"]).collect();
    let otherwise = "registered_otherwise";
    let expected = [otherwise, "unchanged", "done", otherwise, "unchanged"];
    assert_eq!(words, expected, "{text}");
    for refused in [&results[0], &results[3]] {
        assert_eq!(refused["problem"]["field"], "owner");
    }
    let standing = keys(&bundle)
        .iter()
        .all(|key| garage.status(key) == Status::Valid);
    assert!(standing, "what the vehicle was authorized for goes on");
    for vehicle in ["DEMO-0001", "DEMO-0002", "NEW"] {
        assert_eq!(epoch(&garage, vehicle), 0, "{vehicle}");
    }
    assert_eq!(commanded(&garage, "DEMO-0001").status, 201);
}
