//! `fob acts`: whatever is done to fleets is kept with who did it and why.

use serde_json::{Value, json};

use super::rental::text;
use crate::support::garage::Garage;
use crate::support::{Issuer, Phone};

/// The acts, oldest first.
pub(super) fn acts(issuer: &Issuer, args: &[&str]) -> Vec<Value> {
    let said = issuer.fob(&[&["acts", "--json"], args].concat());
    let lines = said.lines();
    lines.map(|it| serde_json::from_str(it).unwrap()).collect()
}

/// Who did what to what, and why.
pub(super) fn told(acts: &[Value]) -> Vec<[&str; 4]> {
    let names = ["by", "act", "object", "why"];
    let each = acts
        .iter()
        .map(|it| names.map(|name| it[name].as_str().unwrap_or("-")));
    each.collect()
}

pub(super) fn json_of(said: &str) -> Value {
    serde_json::from_str(said).unwrap()
}

/// What an operator says of herself.
const ANNA: [&str; 4] = ["--operator", "anna", "--why", "night shift"];

#[test]
fn operators_are_named_for_fleets_and_tokens() {
    let issuer = Issuer::demo();
    let create = |args: &[&str]| {
        let create = [
            "token", "create", "--fleet", "rental", "--scopes", "read", "--json",
        ];
        json_of(&issuer.fob(&[&create, args].concat()))
    };
    let server = issuer.serve();
    issuer.fob(&[&["fleet", "create", "rental"], &ANNA[..]].concat());
    let first = create(&ANNA);
    server.stop();
    // Without a server as with one; and who says nothing is named by the process.
    let second = create(&[]);
    let (first_id, second_id) = (text(&first["id"]), text(&second["id"]));
    let rotate = ["token", "rotate", first_id, "--json"];
    let third = json_of(&issuer.fob(&[&rotate, &ANNA[..]].concat()));
    let server = issuer.serve();
    issuer.fob(&["token", "revoke", second_id, "--operator", "ben"]);
    let rotated = format!("{} in place of {first_id}", text(&third["id"]));
    let all = acts(&issuer, &["--fleet", "rental"]);
    let user = text(&all[2]["by"]).to_owned();
    assert!(!user.is_empty() && user != "anna");
    let expected = [
        ["anna", "fleet.create", "rental", "night shift"],
        ["anna", "token.create", first_id, "night shift"],
        [&user, "token.create", second_id, "-"],
        ["anna", "token.rotate", &rotated, "night shift"],
        ["ben", "token.revoke", second_id, "-"],
    ];
    assert_eq!(told(&all), expected);
    assert!(all.iter().all(|act| act["fleet"] == "rental"));
    // What is refused leaves none.
    let long = "x".repeat(201);
    for refused in [
        &["fleet", "create", "rental"][..],
        &["fleet", "create", "silent", "--why", &long],
        &["fleet", "create", "silent", "--operator", "two words"],
        &[
            "token", "create", "--fleet", "rental", "--scopes", "read", "--why", "",
        ],
        &["token", "rotate", second_id],
        &["token", "revoke", "0190a000-0000-7000-8000-000000000001"],
    ] {
        issuer.fob_fails(refused);
    }
    assert!(!issuer.fob(&["fleet", "list"]).contains("silent"));
    assert_eq!(acts(&issuer, &["--fleet", "rental"]), all);
    // The demo fleet has its own, and no secret is among any.
    let everything = acts(&issuer, &[]);
    let demo = told(&everything)[0];
    assert_eq!(demo[1..], ["fleet.create", "demo", "fob init --demo"]);
    let shown = issuer.fob(&["acts"]);
    for token in [&first, &second, &third] {
        let secret = text(&token["token"]);
        assert!(!shown.contains(secret) && !json!(everything).to_string().contains(secret));
    }
    assert_eq!(shown.lines().count(), everything.len() + 1);
    assert!(
        shown.starts_with("AT ") && shown.contains("night shift"),
        "{shown}"
    );
    assert_eq!(acts(&issuer, &["--since", "1h"]), everything);
    assert!(acts(&issuer, &["--since", "2099-01-01T00:00:00Z"]).is_empty());
    issuer.fob_fails(&["acts", "--fleet", "nobody"]);
    issuer.fob_fails(&["acts", "--since", "soon"]);
    // The same without a server, and after a crash.
    server.kill();
    assert_eq!(acts(&issuer, &[]), everything);
    crate::audit::sound(&issuer);
}

/// The id of the newest token with this scope.
pub(super) fn token_id(issuer: &Issuer, scope: &str) -> String {
    let list = json_of(&issuer.fob(&["token", "list", "--json"]));
    let has = |row: &&Value| row["scopes"].as_array().unwrap().contains(&json!(scope));
    let newest = list.as_array().unwrap().iter().rfind(has).unwrap();
    text(&newest["id"]).into()
}

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "one call of each kind, and what is kept of it"
)]
fn back_ends_are_named_by_their_tokens() {
    let garage = Garage::new();
    let (own, admin) = (
        token_id(&garage.issuer, "revoke"),
        token_id(&garage.issuer, "admin"),
    );
    let before = acts(&garage.issuer, &[]).len();
    let phone = Phone::new();
    let ids: Vec<String> = (1..=4)
        .map(|n| {
            let (bundle, _) = garage.issue(
                &format!("DEMO-000{n}"),
                &["doors.unlock"],
                &format!("renter-{n}"),
                &phone,
            );
            text(&bundle["authorization"]).into()
        })
        .collect();
    let authorization = |n: usize| format!("authorization {}", ids[n]);
    let path = |n: usize, what: &str| format!("/v1/authorizations/{}{what}", ids[n]);
    let done = |method: &str, path: &str, body: Value| garage.done(method, path, &body);
    done("POST", &path(0, "/suspend"), json!({ "why": "unpaid" }));
    // It stands so: nothing is done.
    done("POST", &path(0, "/suspend"), json!({ "why": "again" }));
    done("POST", &path(0, "/resume"), json!({}));
    done("DELETE", &path(0, ""), json!({ "why": "over" }));
    done(
        "POST",
        "/v1/suspensions",
        json!({ "identity": "renter-2", "why": "asked about" }),
    );
    done("POST", "/v1/resumptions", json!({ "identity": "renter-2" }));
    done(
        "POST",
        "/v1/revocations",
        json!({ "vehicle": "DEMO-0003", "why": "sold" }),
    );
    done(
        "POST",
        "/v1/vehicles/DEMO-0003/reset",
        json!({ "why": "new owner" }),
    );
    let lines = format!(
        "{}\n{}\n",
        json!({ "authorization": ids[3], "why": "a line" }),
        json!({ "authorization": ids[1] })
    );
    let bearer = format!("Bearer {}", garage.token);
    let headers = [
        ("content-type", "application/x-ndjson"),
        ("authorization", bearer.as_str()),
    ];
    let sent = garage
        .server
        .send("POST", "/v1/revocations", &headers, lines.as_bytes());
    assert_eq!(
        sent.text().matches("\"status\":\"revoked\"").count(),
        2,
        "{}",
        sent.text()
    );
    let refused = json!({ "identity": "renter-4", "why": "x".repeat(201) });
    garage
        .send("POST", "/v1/suspensions", &refused)
        .refused(400, "malformed");
    garage
        .send(
            "POST",
            "/v1/suspensions",
            &json!({ "identity": "nobody", "why": "?" }),
        )
        .refused(404, "not_found");
    let all = acts(&garage.issuer, &[]);
    let objects: Vec<_> = (0..4).map(authorization).collect();
    let expected = [
        [&own, "suspend", &objects[0], "unpaid"],
        [&own, "resume", &objects[0], "-"],
        [&own, "revoke", &objects[0], "over"],
        [&own, "suspend", "identity renter-2", "asked about"],
        [&own, "resume", "identity renter-2", "-"],
        [&own, "revoke", "vehicle DEMO-0003", "sold"],
        [&own, "reset", "vehicle DEMO-0003", "new owner"],
    ];
    let told = told(&all[before..]);
    assert_eq!(told[..7], expected);
    // What is carried out side by side comes in any order.
    let mut lines = told[7..].to_vec();
    lines.sort_by_key(|it| it[3] == "-");
    let expected = [
        [&own, "revoke", &objects[3], "a line"],
        [&own, "revoke", &objects[1], "-"],
    ];
    assert_eq!(lines, expected);

    // An erasure, and what was said of whom it is about.
    let erased = garage.server.json_as(
        &garage.admin,
        "DELETE",
        "/v1/identities/renter-2/data",
        &json!({ "why": "on request" }),
    );
    assert_eq!(erased.status, 200, "{}", erased.text());
    let name = format!("identity {}", text(&erased.value()["erased_as"]));
    let all = acts(&garage.issuer, &[]);
    assert!(!json!(all).to_string().contains("renter-2"));
    let about: Vec<_> = self::told(&all)
        .into_iter()
        .filter(|it| it[2] == name)
        .collect();
    let expected = [
        [&own, "suspend", &name, "-"],
        [&own, "resume", &name, "-"],
        [&admin, "revoke", &name, "-"],
        [&admin, "erase", &name, "on request"],
    ];
    assert_eq!(about, expected);
}

#[test]
fn commands_say_why() {
    let garage = Garage::new();
    garage.issue("DEMO-0001", &["doors.unlock"], "renter-1", &Phone::new());
    let url = garage.server.url.clone();
    let run = |args: &[&str]| {
        let with = ["--url", &url, "--why", "for a test"];
        garage.issuer.fob(&[args, &with].concat())
    };
    let file = garage.issuer.file("targets.csv").display().to_string();
    std::fs::write(&file, "kind,id\nvehicle,DEMO-0002\n").unwrap();
    run(&["suspend", "--identity", "renter-1"]);
    run(&["suspend", "--from", &file]);
    run(&["erase", "--identity", "renter-3"]);
    let all = acts(&garage.issuer, &[]);
    let why = |act: &str| {
        let of = told(&all).into_iter().filter(move |it| it[1] == act);
        of.map(|it| it[3].to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(why("suspend"), ["for a test"; 2]);
    assert_eq!(why("erase"), ["for a test"]);
    // The token was made for the run by whoever ran it: so a token's id leads to a name.
    let told = told(&all);
    let erase = told.iter().find(|it| it[1] == "erase").unwrap();
    let made = told.iter().find(|it| it[2] == erase[0]).unwrap();
    assert_eq!(
        [made[1], made[3]],
        ["token.create", "for one run of a command"]
    );
}
