//! An owner's phone that was lost: it commands nothing more, what it authorized is listed and may be
//! revoked in one call, and another takes its place.

use fob_verify::status::Status;
use serde_json::{Value, json};

use super::rental::text;
use crate::support::garage::{Garage, keys};
use crate::support::{Answer, Phone, authorization};

const TWO: [&str; 2] = ["doors.unlock", "engine.start"];
const LOST: &str = "owner-1-phone";

/// A signed command of a terminal of an identity.
fn command(
    garage: &Garage,
    (phone, identity, terminal): (&Phone, &str, &str),
    path: &str,
    command: &Value,
) -> Answer {
    let url = &garage.server.url;
    let jws = phone.command_with(url, command, |header, claims| {
        header["kid"] = json!(format!("demo/{terminal}"));
        claims["iss"] = json!(identity);
        claims["htu"] = json!(format!("{url}{path}"));
    });
    let headers = [("content-type", "application/jose")];
    garage.server.send("POST", path, &headers, jws.as_bytes())
}

/// What a phone of the demo owner is told that authorizes a vehicle.
fn authorized(garage: &Garage, phone: &Phone, terminal: &str, vehicle: &str) -> Answer {
    let asked = authorization(vehicle, &TWO);
    let who = (phone, "owner-1", terminal);
    command(garage, who, "/v1/authorizations", &asked)
}

/// Registers a phone with the fleet's token.
#[track_caller]
fn register(garage: &Garage, terminal: &str, identity: &str, phone: &Phone) {
    let body = json!({ "identity": identity, "jwk": phone.jwk() });
    let path = format!("/v1/terminals/{terminal}");
    let server = &garage.server;
    let answer = server.json_as(&garage.admin, "PUT", &path, &body);
    assert_eq!(answer.status, 204, "{}", answer.text());
}

/// The authorizations a terminal has commanded, as the list has them.
fn listed(garage: &Garage, query: &str) -> Vec<String> {
    let path = format!("/v1/authorizations?{query}");
    let page = garage.done("GET", &path, &json!({}));
    let items = page["items"].as_array().unwrap().iter();
    items
        .map(|it| text(&it["authorization"]).to_owned())
        .collect()
}

#[test]
fn a_lost_phone_commands_nothing_until_it_is_resumed() {
    let garage = Garage::new();
    let (lost, spare) = (&garage.owner, Phone::new());
    register(&garage, "spare", "owner-1", &spare);
    let made = authorized(&garage, lost, LOST, "DEMO-0001");
    assert_eq!(made.status, 201, "{}", made.text());
    let target = json!({ "terminal": LOST });
    for _ in 0..2 {
        let done = garage.done("POST", "/v1/suspensions", &target);
        assert_eq!(done["suspended"], 0, "no key is");
    }
    let refused = authorized(&garage, lost, LOST, "DEMO-0001");
    refused.refused(403, "forbidden");
    let why = refused.value()["detail"].clone();
    assert!(text(&why).contains("another terminal"), "{why}");
    assert_eq!(
        authorized(&garage, &spare, "spare", "DEMO-0001").status,
        201
    );
    // What it gave before goes on.
    let code_set = made.value()["code_set"].clone();
    let redeemed = garage
        .server
        .redeem(text(&code_set), "renter-1", &Phone::new());
    assert_eq!(redeemed.status, 201, "{}", redeemed.text());
    // To describe it anew does not lift it.
    register(&garage, LOST, "owner-1", lost);
    authorized(&garage, lost, LOST, "DEMO-0001").refused(403, "forbidden");
    garage.done("POST", "/v1/resumptions", &target);
    assert_eq!(authorized(&garage, lost, LOST, "DEMO-0001").status, 201);
    let nobody = json!({ "terminal": "nobodys" });
    let refused = garage.send("POST", "/v1/suspensions", &nobody);
    refused.refused(404, "not_found");
    assert_eq!(refused.value()["field"], "terminal");
}

#[test]
fn everything_it_authorized_is_listed_and_nothing_else() {
    let garage = Garage::new();
    let (lost, spare) = (&garage.owner, Phone::new());
    register(&garage, "spare", "owner-1", &spare);
    let made = |phone, terminal, vehicle| {
        let made = authorized(&garage, phone, terminal, vehicle);
        text(&made.value()["authorization"]).to_owned()
    };
    let first = made(lost, LOST, "DEMO-0001");
    let others = made(&spare, "spare", "DEMO-0001");
    let second = made(lost, LOST, "DEMO-0002");
    let third = made(lost, LOST, "DEMO-0001");
    garage.authorize("DEMO-0001", &TWO);
    garage.done("DELETE", &format!("/v1/authorizations/{third}"), &json!({}));
    let all = [first.as_str(), &second, &third];
    let terminal = |more: &str| listed(&garage, &format!("terminal={LOST}{more}"));
    assert_eq!(terminal(""), all);
    assert_eq!(terminal("&limit=3"), all);
    assert_eq!(terminal("&limit=2"), all[..2]);
    assert_eq!(terminal(&format!("&limit=2&after={second}")), all[2..]);
    assert_eq!(terminal("&vehicle=DEMO-0002"), all[1..2]);
    assert_eq!(terminal("&state=open"), all[..2]);
    assert_eq!(terminal("&state=cancelled"), all[2..]);
    assert!(terminal("&state=expired").is_empty());
    assert_eq!(listed(&garage, "terminal=spare"), [others]);
    assert!(listed(&garage, "terminal=nobodys").is_empty());
    let refused = garage.send("GET", "/v1/authorizations?terminal=%20", &json!({}));
    refused.refused(400, "malformed");
}

#[test]
fn everything_it_authorized_is_revoked_in_one_call() {
    let garage = Garage::new();
    let (lost, spare, renter) = (&garage.owner, Phone::new(), Phone::new());
    register(&garage, "spare", "owner-1", &spare);
    let redeem = |made: &Answer| {
        let made = made.value();
        let redeemed = garage
            .server
            .redeem(text(&made["code_set"]), "renter-1", &renter);
        assert_eq!(redeemed.status, 201, "{}", redeemed.text());
        redeemed.value()
    };
    let given = redeem(&authorized(&garage, lost, LOST, "DEMO-0001"));
    let open = authorized(&garage, lost, LOST, "DEMO-0002").value();
    let others = redeem(&authorized(&garage, &spare, "spare", "DEMO-0001"));
    let fleets = garage.issue("DEMO-0001", &TWO, "renter-1", &renter).1;
    let standing = |bundle: &Value| {
        let all = keys(bundle);
        all.iter().map(|key| garage.status(key)).collect::<Vec<_>>()
    };
    let target = json!({ "terminal": LOST });
    let done = garage.done("POST", "/v1/revocations", &target);
    assert_eq!((&done["total"], &done["revoked"]), (&json!(2), &json!(2)));
    assert_eq!(standing(&given), [Status::Revoked; 2]);
    assert_eq!(standing(&others), [Status::Valid; 2]);
    assert_eq!(standing(&fleets), [Status::Valid; 2]);
    let code_set = text(&open["code_set"]);
    let late = garage.server.redeem(code_set, "renter-2", &renter);
    late.refused(410, "code_set_cancelled");
    authorized(&garage, lost, LOST, "DEMO-0001").refused(403, "forbidden");
    // Resumed it commands again, and what was revoked stays so.
    garage.done("POST", "/v1/resumptions", &target);
    assert_eq!(authorized(&garage, lost, LOST, "DEMO-0001").status, 201);
    assert_eq!(standing(&given), [Status::Revoked; 2]);
}

#[test]
fn another_terminal_of_the_identity_may_do_it_and_no_other() {
    let garage = Garage::new();
    let (lost, spare, stranger) = (&garage.owner, Phone::new(), Phone::new());
    register(&garage, "spare", "owner-1", &spare);
    register(&garage, "strangers", "renter-1", &stranger);
    assert_eq!(authorized(&garage, lost, LOST, "DEMO-0001").status, 201);
    let target = json!({ "terminal": LOST });
    for call in ["suspensions", "resumptions", "revocations"] {
        let path = format!("/v1/{call}");
        let by = |who| command(&garage, who, &path, &target);
        by((&stranger, "renter-1", "strangers")).refused(403, "forbidden");
        by((lost, "owner-1", LOST)).refused(403, "forbidden");
        let done = by((&spare, "owner-1", "spare"));
        assert_eq!(done.status, 200, "{}", done.text());
        let stands = authorized(&garage, lost, LOST, "DEMO-0001").status;
        assert_eq!(stands, if call == "resumptions" { 201 } else { 403 });
        if call == "suspensions" {
            // Which says nothing of whether it may.
            by((lost, "owner-1", LOST)).refused(403, "forbidden");
        }
    }
    assert_eq!(
        listed(&garage, &format!("terminal={LOST}&state=cancelled")).len(),
        2
    );
}

#[test]
fn a_phone_is_replaced_and_nobody_enrolls_again() {
    let garage = Garage::new();
    let (lost, new, newer) = (&garage.owner, Phone::new(), Phone::new());
    let given = authorized(&garage, lost, LOST, "DEMO-0001").value();
    garage.done("POST", "/v1/suspensions", &json!({ "terminal": LOST }));
    // By a name of its own.
    register(&garage, "new", "owner-1", &new);
    assert_eq!(authorized(&garage, &new, "new", "DEMO-0001").status, 201);
    let id = text(&given["authorization"]);
    let path = format!("/v1/authorizations/{id}/suspend");
    let changed = command(&garage, (&new, "owner-1", "new"), &path, &json!({}));
    assert_eq!(changed.status, 200, "what the one before gave is its own");
    // In the place of the one before, which stays suspended until that is lifted.
    register(&garage, LOST, "owner-1", &newer);
    authorized(&garage, &newer, LOST, "DEMO-0001").refused(403, "forbidden");
    garage.done("POST", "/v1/resumptions", &json!({ "terminal": LOST }));
    assert_eq!(authorized(&garage, &newer, LOST, "DEMO-0001").status, 201);
    authorized(&garage, lost, LOST, "DEMO-0001").refused(401, "unauthenticated");
}
