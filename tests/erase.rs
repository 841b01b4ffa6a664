//! An identity's data go on request: what is left of it, and what whoever comes after it has.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use fob_verify::status::Status;
use serde_json::{Value, json};

use crate::support::database::Schema;
use crate::support::garage::{Garage, keys};
use crate::support::{Answer, Phone, authorization};

const TWO: [&str; 2] = ["doors.unlock", "engine.start"];

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn register(garage: &Garage, phone: &Phone, licences: &Value) {
    for (path, body) in [
        ("/v1/identities/anna", json!({ "licences": licences })),
        (
            "/v1/terminals/anna-phone",
            json!({ "identity": "anna", "jwk": phone.jwk() }),
        ),
    ] {
        let put = garage.server.json_as(&garage.admin, "PUT", path, &body);
        assert_eq!(put.status, 204, "{}", put.text());
    }
}

fn erase(garage: &Garage, id: &str) -> Answer {
    let path = format!("/v1/identities/{id}/data");
    garage
        .server
        .json_as(&garage.admin, "DELETE", &path, &json!({}))
}

fn authorize(garage: &Garage, recipient: &Value) -> Value {
    let mut body = authorization("DEMO-0001", &TWO);
    body["recipient"] = recipient.clone();
    let made = garage
        .server
        .json_as(&garage.token, "POST", "/v1/authorizations", &body);
    assert_eq!(made.status, 201, "{}", made.text());
    made.value()
}

#[expect(clippy::too_many_lines, reason = "a story, told in its order")]
fn erased_leaves_evidence_and_whoever_comes_after_has_nothing(init: &[&str]) {
    let mut garage = Garage::with(init);
    let (phone, other) = (Phone::new(), Phone::new());
    let licences = json!([{ "class": "C1E", "expires": "2031-06-30T00:00:00Z" }]);
    register(&garage, &phone, &licences);
    let for_anna = json!({ "identity": "anna" });
    let made = authorize(&garage, &for_anna);
    let redeemed = garage
        .server
        .redeem(text(&made["code_set"]), "anna", &phone);
    assert_eq!(redeemed.status, 201, "{}", redeemed.text());
    let bundle = redeemed.value();
    let open = authorize(&garage, &for_anna);
    let (_, bystander) = garage.issue("DEMO-0002", &TWO, "renter-2", &other);

    let done = erase(&garage, "anna");
    assert_eq!(done.status, 200, "{}", done.text());
    let done = done.value();
    for (name, count) in [("ended", 2), ("revoked", 2), ("terminals", 1)] {
        assert_eq!(done[name], count, "{done}");
    }
    assert!(text(&done["erased_as"]).starts_with("erased-"), "{done}");
    erase(&garage, "anna").refused(404, "not_found");

    // The first time as the server remembers it, then as it is stored.
    for _ in 0..2 {
        garage
            .server
            .redeem(text(&open["code_set"]), "anna", &phone)
            .refused(410, "code_set_cancelled");
        // What it redeemed was redeemed by somebody else, whoever asks.
        garage
            .server
            .redeem(text(&made["code_set"]), "anna", &phone)
            .refused(409, "code_set_redeemed");
        // What was issued is there, and revoked; others' is as it was.
        let kept = garage.bundle(text(&bundle["bundle"]));
        assert_eq!(
            kept["keys"]
                .as_array()
                .unwrap()
                .iter()
                .map(|key| &key["key"])
                .collect::<Vec<_>>(),
            bundle["keys"]
                .as_array()
                .unwrap()
                .iter()
                .map(|key| &key["key"])
                .collect::<Vec<_>>()
        );
        assert!(
            keys(&bundle)
                .iter()
                .all(|key| garage.status(key) == Status::Revoked)
        );
        assert!(
            keys(&bystander)
                .iter()
                .all(|key| garage.status(key) == Status::Valid)
        );
        let line = json!({ "kind": "terminal", "id": "anna-phone", "identity": "anna",
            "jwk": phone.jwk() });
        let import = garage
            .server
            .json_as(&garage.admin, "POST", "/v1/import", &line);
        assert_eq!(
            import.value()["status"],
            "unknown_identity",
            "{}",
            import.text()
        );
        garage.crash();
    }

    // Somebody else of that name begins anew.
    register(&garage, &phone, &json!([]));
    let revoked = garage.server.json_as(
        &garage.token,
        "POST",
        "/v1/suspensions",
        &json!({ "identity": "anna" }),
    );
    assert_eq!(revoked.value()["total"], 0, "{}", revoked.text());
    let resumed = garage.server.json_as(
        &garage.token,
        "POST",
        "/v1/resumptions",
        &json!({ "identity": "anna" }),
    );
    assert_eq!(resumed.status, 200, "{}", resumed.text());
    assert!(
        keys(&bundle)
            .iter()
            .all(|key| garage.status(key) == Status::Revoked)
    );
    let rebind = garage.server.json_as(
        &garage.token,
        "POST",
        &format!("/v1/bundles/{}/rebind", text(&bundle["bundle"])),
        &json!({ "terminal": "anna-phone" }),
    );
    assert!((400..500).contains(&rebind.status), "{}", rebind.text());
    for (code_set, status, code) in [
        (&open["code_set"], 410, "code_set_cancelled"),
        (&made["code_set"], 409, "code_set_redeemed"),
    ] {
        let again = garage.server.redeem(text(code_set), "anna", &phone);
        again.refused(status, code);
    }
    let new = authorize(&garage, &for_anna);
    let new = garage.server.redeem(text(&new["code_set"]), "anna", &phone);
    assert_eq!(new.status, 201, "{}", new.text());
    // Nobody takes the name that stands for it.
    let path = format!("/v1/identities/{}", text(&done["erased_as"]));
    let taken = garage
        .server
        .json_as(&garage.admin, "PUT", &path, &json!({}));
    taken.refused(400, "malformed");
    erase(&garage, text(&done["erased_as"])).refused(404, "not_found");
    if init.is_empty() {
        let Garage { issuer, server, .. } = garage;
        server.stop();
        crate::audit::sound(&issuer);
        // Neither licence nor key is in a row any more.
        let connection = rusqlite::Connection::open(issuer.file("fob.db")).unwrap();
        let sql = "SELECT count(*) FROM identities WHERE instr(licences, CAST('C1E' AS BLOB)) > 0";
        let left: u32 = connection.query_row(sql, [], |row| row.get(0)).unwrap();
        assert_eq!(left, 0);
    }
}

#[test]
fn over_a_file() {
    erased_leaves_evidence_and_whoever_comes_after_has_nothing(&[]);
}

#[test]
fn over_a_database() {
    let schema = Schema::new();
    erased_leaves_evidence_and_whoever_comes_after_has_nothing(&["--store", &schema.url()]);
}

#[test]
fn an_owner_is_not_erased_until_it_owns_nothing() {
    let garage = Garage::new();
    let refused = erase(&garage, "owner-1");
    refused.refused(409, "identity_owns_vehicles");
    assert!(refused.text().contains("DEMO-00"), "{}", refused.text());
    for n in 1..=10 {
        let body = json!({ "model": "Demo" });
        let path = format!("/v1/vehicles/DEMO-{n:04}");
        let put = garage.server.json_as(&garage.admin, "PUT", &path, &body);
        assert_eq!(put.status, 204, "{}", put.text());
    }
    let erased = erase(&garage, "owner-1");
    assert_eq!(erased.value()["terminals"], 1, "{}", erased.text());
    let command = garage
        .owner
        .command(&garage.server.url, &authorization("DEMO-0001", &TWO));
    garage
        .server
        .command(&command)
        .refused(401, "unauthenticated");
    erase(&garage, "nobody").refused(404, "not_found");
}

#[test]
fn by_a_command() {
    let garage = Garage::new();
    garage.issue("DEMO-0001", &TWO, "renter-1", &Phone::new());
    let url = garage.server.url.clone();
    let args = ["erase", "--identity", "renter-1", "--url", &url];
    let told: Value =
        serde_json::from_str(&garage.issuer.fob(&[&args[..], &["--json"]].concat())).unwrap();
    assert_eq!(
        (&told["ended"], &told["revoked"]),
        (&json!(1), &json!(2)),
        "{told}"
    );
    let said = garage.issuer.fob_fails(&args);
    assert!(said.contains("not_found"), "{said}");
    let args = ["erase", "--identity", "renter-2", "--url", &url];
    let said = garage.issuer.fob(&args);
    assert!(said.contains("renter-2 is erased"), "{said}");
}
