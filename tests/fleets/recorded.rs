//! What tokens administer is kept: every call of `/openapi.json` that changes something leaves an
//! act, or is named here with the reason why not; and what each entry of a registry leaves.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::acts::{acts, token_id, told};
use super::rental::text;
use crate::support::database::Schema;
use crate::support::garage::Garage;
use crate::support::{Phone, authorization, now, time};

/// Calls of a token that leave no act.
const NO_ACT: [(&str, &str); 3] = [
    (
        "POST /v1/authorizations",
        "business: which token made it is kept with the authorization",
    ),
    (
        "POST /v1/batches",
        "business: which token gave it is kept with the order",
    ),
    ("POST /v1/explain", "it changes nothing"),
];

const UNLOCK: &str = "doors.unlock";

/// A fleet whose rules know of a context, and somebody else who approves.
struct World {
    garage: Garage,
    approving: String,
    /// A rented car, and a code set that is open.
    rented: Value,
    open: String,
}

/// A call as it is made, and the act that is expected of it.
struct Call {
    token: String,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: String,
    act: &'static str,
    object: String,
}

impl World {
    fn new() -> Self {
        let garage = Garage::new();
        let approving = garage.issuer.token("approve");
        let (_, rented) = garage.issue("DEMO-0001", &[UNLOCK], "renter-1", &Phone::new());
        let open = garage.authorize("DEMO-0002", &[UNLOCK]);
        let open = text(&open["authorization"]).to_owned();
        Self {
            garage,
            approving,
            rented,
            open,
        }
    }

    /// How each call is made, why being `for a test`.
    #[expect(clippy::too_many_lines, reason = "a table: each call and its act")]
    fn call(&self, name: &str) -> Call {
        let (garage, open) = (&self.garage, &self.open);
        let jwk = Phone::new().jwk();
        let call = |token: &str, path: String, body: Value, act, object: &str| {
            let mut body = body;
            let mut path = path;
            match act {
                // What is put is the body.
                "register" => path += "?why=for%20a+test",
                _ => body["why"] = json!("for a test"),
            }
            Call {
                token: token.into(),
                path,
                headers: vec![("content-type", "application/json".into())],
                body: body.to_string(),
                act,
                object: object.into(),
            }
        };
        let version = |mut call: Call, version: u32| {
            call.headers.push(("if-match", format!("\"{version}\"")));
            call
        };
        let (own, admin) = (&garage.token, &garage.admin);
        let of_open = format!("authorization {open}");
        let at_open = |end: &str| format!("/v1/authorizations/{open}{end}");
        let of_rented = format!("authorization {}", text(&self.rented["authorization"]));
        let bundle = text(&self.rented["bundle"]);
        let car = json!({ "vehicle": "DEMO-0003" });
        match name {
            "PUT /v1/vehicles/{id}" => call(
                admin,
                "/v1/vehicles/VAN-1".into(),
                json!({ "model": "Van" }),
                "register",
                "vehicle VAN-1",
            ),
            "PUT /v1/identities/{id}" => call(
                admin,
                "/v1/identities/anna".into(),
                json!({}),
                "register",
                "identity anna",
            ),
            "PUT /v1/terminals/{id}" => call(
                admin,
                "/v1/terminals/phone".into(),
                json!({ "identity": "renter-1", "jwk": jwk }),
                "register",
                "terminal phone",
            ),
            "POST /v1/import" => {
                let line = json!({ "kind": "identity", "id": "ben" });
                let path = "/v1/import?why=for%20a%20test".into();
                let mut call = call(admin, path, line.clone(), "import", "1 identity");
                call.headers = vec![("content-type", "application/x-ndjson".into())];
                call.body = line.to_string();
                call
            }
            "PUT /v1/rules" => {
                let context = json!({ "step_up_from": 2, "rules":
                    [{ "points": 1, "terminal_newer_than_days": 1 }] });
                let rules = json!({ "rules": { "context": context, "keys_per_day": 100 } });
                let call = call(admin, "/v1/rules".into(), rules, "rules", "1");
                version(call, 0)
            }
            "POST /v1/authorizations/{id}/approve" => {
                call(own, at_open("/approve"), json!({}), "approve", &of_open)
            }
            "PATCH /v1/authorizations/{id}" => {
                let body = json!({ "functions": ["trunk.open"] });
                version(call(own, at_open(""), body, "change", &of_open), 1)
            }
            "POST /v1/authorizations/{id}/suspend" => {
                call(own, at_open("/suspend"), json!({}), "suspend", &of_open)
            }
            "POST /v1/authorizations/{id}/resume" => {
                call(own, at_open("/resume"), json!({}), "resume", &of_open)
            }
            "DELETE /v1/authorizations/{id}" => {
                call(own, at_open(""), json!({}), "revoke", &of_open)
            }
            "POST /v1/bundles/{id}/rebind" => {
                let proof = Phone::new().proof(&garage.server.url, bundle);
                let path = format!("/v1/bundles/{bundle}/rebind");
                call(own, path, json!({ "proof": proof }), "rebind", &of_rented)
            }
            "POST /v1/suspensions" => {
                let path = "/v1/suspensions".into();
                call(own, path, car, "suspend", "vehicle DEMO-0003")
            }
            "POST /v1/resumptions" => {
                let path = "/v1/resumptions".into();
                call(own, path, car, "resume", "vehicle DEMO-0003")
            }
            "POST /v1/revocations" => {
                let path = "/v1/revocations".into();
                call(own, path, car, "revoke", "vehicle DEMO-0003")
            }
            "POST /v1/vehicles/{id}/reset" => {
                let path = "/v1/vehicles/DEMO-0001/reset".into();
                call(own, path, json!({}), "reset", "vehicle DEMO-0001")
            }
            "POST /v1/brake" => call(own, "/v1/brake".into(), car, "freeze", "DEMO-0003"),
            "POST /v1/brake/release" => {
                let path = "/v1/brake/release".into();
                call(&self.approving, path, car, "release", "DEMO-0003")
            }
            "PUT /v1/quota" => {
                let (path, body) = ("/v1/quota".into(), json!({ "approved": 7 }));
                call(&self.approving, path, body, "approve", "7")
            }
            "DELETE /v1/identities/{id}/data" => {
                let path = "/v1/identities/renter-9/data".into();
                call(admin, path, json!({}), "erase", "identity erased-")
            }
            "POST /v1/authorizations" => {
                let body = authorization("DEMO-0001", &[UNLOCK]);
                Call {
                    body: body.to_string(),
                    ..call(own, "/v1/authorizations".into(), body, "", "")
                }
            }
            "POST /v1/batches" => {
                let order = json!({ "ref": "r", "vehicle": "DEMO-0004", "functions": [UNLOCK],
                    "not_before": time(now()), "not_after": time(now() + 3600),
                    "recipient": { "identity": "owner-1", "terminal": "owner-1-phone" } });
                let mut call = call(own, "/v1/batches".into(), json!({}), "", "");
                call.headers = vec![("content-type", "application/x-ndjson".into())];
                call.body = order.to_string();
                call
            }
            "POST /v1/explain" => {
                let body =
                    json!({ "redemption": { "authorization": open, "identity": "renter-1" } });
                Call {
                    body: body.to_string(),
                    ..call(own, "/v1/explain".into(), body, "", "")
                }
            }
            other => panic!("{other} is new: say here what act it leaves, or in NO_ACT why none"),
        }
    }
}

/// Every call of the document that a token may make and that is no mere question, in an order in
/// which each finds what it is about.
fn changing(garage: &Garage) -> Vec<String> {
    const FIRST: [&str; 8] = [
        "PUT /v1/rules",
        "POST /v1/authorizations/{id}/approve",
        "PATCH /v1/authorizations/{id}",
        "POST /v1/authorizations/{id}/suspend",
        "POST /v1/authorizations/{id}/resume",
        "POST /v1/explain",
        "POST /v1/brake",
        "POST /v1/suspensions",
    ];
    let document = garage.server.get("/openapi.json", &[]).value();
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let ways = operation["security"].as_array();
            let ways = ways.map(Vec::as_slice).unwrap_or_default();
            if method != "get" && ways.iter().any(|way| way["bearer"].is_array()) {
                all.push(format!("{} {path}", method.to_uppercase()));
            }
        }
    }
    let place = |name: &String| FIRST.iter().position(|one| one == name);
    all.sort_by_key(|name| place(name).unwrap_or(FIRST.len()));
    all
}

#[test]
fn every_call_of_a_token_that_changes_something_leaves_an_act() {
    let world = World::new();
    let garage = &world.garage;
    let ids = [
        (&garage.token, token_id(&garage.issuer, "issue")),
        (&garage.admin, token_id(&garage.issuer, "admin")),
        (&world.approving, token_id(&garage.issuer, "approve")),
    ];
    let all = changing(garage);
    let exceptions = NO_ACT.map(|(name, _)| name.to_owned());
    assert!(exceptions.iter().all(|name| all.contains(name)));
    let mut words = BTreeSet::new();
    for name in all {
        let before = acts(&garage.issuer, &[]).len();
        let call = world.call(&name);
        let (method, _) = name.split_once(' ').unwrap();
        let bearer = format!("Bearer {}", call.token);
        let mut headers: Vec<_> = call.headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
        headers.push(("authorization", &bearer));
        let server = &garage.server;
        let answer = server.send(method, &call.path, &headers, call.body.as_bytes());
        assert!(answer.status < 300, "{name}: {}", answer.text());
        assert!(
            !answer.text().contains("problem"),
            "{name}: {}",
            answer.text()
        );
        let new = acts(&garage.issuer, &[]).split_off(before);
        if exceptions.contains(&name) {
            assert!(new.is_empty(), "{name} leaves {new:?}");
            continue;
        }
        let [.., act] = told(&new)[..] else {
            panic!("{name} leaves none");
        };
        // What an identity has is revoked before it is erased.
        let count = 1 + usize::from(call.act == "erase");
        assert_eq!(new.len(), count, "{name} leaves {new:?}");
        let (_, by) = ids.iter().find(|(token, _)| **token == call.token).unwrap();
        assert_eq!(
            (act[0], act[1], act[3]),
            (by.as_str(), call.act, "for a test"),
            "{name}"
        );
        match call.act {
            "erase" => assert!(act[2].starts_with(&call.object), "{act:?}"),
            _ => assert_eq!(act[2], call.object, "{name}"),
        }
        words.insert(call.act);
    }
    assert!(words.len() > 12, "{words:?}");
    sound(world.garage);
}

/// Puts an entry with the admin's token; its answer's status.
fn put(garage: &Garage, path: &str, body: &Value) -> u16 {
    garage
        .server
        .json_as(&garage.admin, "PUT", path, body)
        .status
}

#[expect(clippy::too_many_lines, reason = "a story, told in its order")]
fn the_registry_is_kept_with_who_and_why(init: &[&str]) {
    let garage = Garage::with(init);
    let admin = token_id(&garage.issuer, "admin");
    let (phone, other) = (Phone::new().jwk(), Phone::new().jwk());
    let mut seen = acts(&garage.issuer, &[]).len();
    // What has come to the acts: word, object and why of each.
    let mut new = || {
        let all = acts(&garage.issuer, &[]).split_off(seen);
        seen += all.len();
        assert!(all.iter().all(|it| it["by"] == admin.as_str()), "{all:?}");
        let each = told(&all).into_iter();
        each.map(|[_, act, object, why]| format!("{act} {object}: {why}"))
            .collect::<Vec<_>>()
    };
    let terminal = |identity: &str, jwk: &Value| json!({ "identity": identity, "jwk": jwk });
    let owned = |owner: &str| json!({ "model": "Van", "owner": owner });
    let ramp = json!([UNLOCK, { "code": 300, "name": "ramp.lower" }]);
    let with_ramp = json!({ "model": "Van", "owner": "anna", "functions": ramp });
    let licence = json!([{ "class": "B", "expires": "2031-06-30T00:00:00Z" }]);
    let (anna, annas, van) = (
        "/v1/identities/anna",
        "/v1/terminals/annas",
        "/v1/vehicles/VAN-1",
    );
    // Each twice: what stands so is left as it is, and leaves nothing.
    for (path, body, expected) in [
        (anna, json!({}), &["register identity anna: -"][..]),
        (
            anna,
            json!({ "licences": licence }),
            &["change identity anna: -"],
        ),
        (
            anna,
            json!({ "licences": licence, "status": "suspended", "hold": "payment" }),
            &["suspend identity anna: -", "hold identity anna: -"],
        ),
        (
            anna,
            json!({ "hold": "insurance", "proved": "2026-01-01T00:00:00Z" }),
            &["hold identity anna: -", "change identity anna: -"],
        ),
        (
            anna,
            json!({ "status": "active", "hold": "none" }),
            &["resume identity anna: -", "lift_hold identity anna: -"],
        ),
        (
            annas,
            terminal("anna", &phone),
            &["register terminal annas: -"],
        ),
        (
            annas,
            terminal("anna", &other),
            &["change terminal annas: -"],
        ),
        (van, owned("anna"), &["register vehicle VAN-1: -"]),
        (
            van,
            with_ramp,
            &[
                "register function 300=ramp.lower: -",
                "change vehicle VAN-1: -",
            ],
        ),
        (van, owned("renter-1"), &["hand_over vehicle VAN-1: -"]),
    ] {
        for expected in [expected, &[]] {
            assert_eq!(put(&garage, path, &body), 204);
            assert_eq!(new(), expected, "{path} {body}");
        }
    }
    // Why is said beside it, in any script.
    let why = "?why=T%C3%9CV+%26%20more";
    assert_eq!(
        put(&garage, &format!("{van}{why}"), &owned("renter-2")),
        204
    );
    assert_eq!(new(), ["hand_over vehicle VAN-1: TÜV & more"]);
    let refused = [
        (format!("{anna}?why={}", "x".repeat(201)), json!({}), 400),
        (format!("{anna}?why="), json!({}), 400),
        (format!("{anna}?wyh=x"), json!({}), 400),
        (format!("{anna}?why=x"), json!({ "hold": "never" }), 400),
        (format!("{van}?why=x"), owned("nobody"), 404),
    ];
    for (path, body, status) in refused {
        assert_eq!(put(&garage, &path, &body), status, "{path}");
    }
    let nothing: [&str; 0] = [];
    assert_eq!(new(), nothing);

    // An import leaves one for what it has made, and none where that is nothing.
    let lines: String = (0..3000)
        .map(|n| json!({ "kind": "identity", "id": format!("p-{n}") }))
        .chain((0..2).map(|n| {
            json!({ "kind": "vehicle", "id": format!("V-{n}"), "model": "V",
            "functions": [{ "code": 301, "name": "ramp.raise" }] })
        }))
        .chain([
            json!({ "kind": "terminal", "id": "t", "identity": "p-7", "jwk": other }),
            json!({ "kind": "vehicle", "id": "V-0", "model": "otherwise" }),
            json!({ "kind": "identity", "id": "anna", "hold": "payment" }),
        ])
        .map(|line| format!("{line}\n"))
        .collect();
    let file = garage.issuer.file("fleet.ndjson");
    std::fs::write(&file, lines).unwrap();
    let bearer = format!("Bearer {}", garage.admin);
    let import = || {
        let headers = [
            ("content-type", "application/x-ndjson"),
            ("authorization", bearer.as_str()),
        ];
        let body = std::fs::read(&file).unwrap();
        let server = &garage.server;
        let answer = server.send("POST", "/v1/import?why=a%20merger", &headers, &body);
        let text = answer.text();
        assert_eq!(text.lines().count(), 3005, "{text}");
        text.matches("\"done\"").count()
    };
    assert_eq!(import(), 3003);
    let told = new();
    let (mut identities, mut rest) = (0, Vec::new());
    for act in &told {
        let said = act.strip_prefix("import ").unwrap();
        let said = said.strip_suffix(": a merger").unwrap();
        for part in said.split(", ") {
            match part.split_once(" identit") {
                Some((count, _)) => identities += count.parse::<u32>().unwrap(),
                None => rest.push(part),
            }
        }
    }
    assert!((2..10).contains(&told.len()), "{told:?}");
    assert_eq!(identities, 3000, "{told:?}");
    assert_eq!(rest, ["2 vehicles", "1 terminal", "1 function"]);
    assert_eq!(import(), 0);
    assert_eq!(new(), nothing);

    // An erasure takes the names out of all of it.
    let erased = garage.server.json_as(
        &garage.admin,
        "DELETE",
        "/v1/identities/anna/data",
        &json!({}),
    );
    let name = erased.value()["erased_as"].clone();
    let all = json!(acts(&garage.issuer, &[])).to_string();
    assert!(!all.contains("anna"), "{all}");
    let of = |kind: &str| all.matches(&format!("{kind} {}", text(&name))).count();
    assert_eq!((of("identity"), of("terminal")), (10, 2), "{all}");
    if init.is_empty() {
        sound(garage);
    }
}

/// Stops the server, and has what it leaves audited.
fn sound(garage: Garage) {
    let Garage { issuer, server, .. } = garage;
    server.stop();
    crate::audit::sound(&issuer);
}

#[test]
fn over_a_file() {
    the_registry_is_kept_with_who_and_why(&[]);
}

#[test]
fn over_a_database() {
    let schema = Schema::new();
    the_registry_is_kept_with_who_and_why(&["--store", &schema.url()]);
}

#[test]
fn an_import_by_a_command_says_why() {
    let garage = Garage::new();
    let file = garage.issuer.file("people.csv").display().to_string();
    std::fs::write(&file, "id\nanna\nben\n").unwrap();
    let url = garage.server.url.clone();
    let import = ["import", &file, "--kind", "identity", "--url", &url];
    garage
        .issuer
        .fob(&[&import[..], &["--why", "a merger & more"]].concat());
    let all = acts(&garage.issuer, &[]);
    let all = told(&all);
    let import = all.iter().find(|it| it[1] == "import").unwrap();
    assert_eq!(import[2..], ["2 identities", "a merger & more"]);
    let made = all.iter().find(|it| it[2] == import[0]).unwrap();
    assert_eq!(made[1], "token.create");
}

#[test]
fn what_an_owner_commands_is_no_act() {
    let garage = Garage::new();
    let made = garage.authorize("DEMO-0001", &[UNLOCK]);
    let before = acts(&garage.issuer, &[]).len();
    let path = format!("/v1/authorizations/{}", text(&made["authorization"]));
    let url = &garage.server.url;
    let headers = [("content-type", "application/jose")];
    for (method, path, command) in [
        (
            "PATCH",
            path.clone(),
            json!({ "functions": ["trunk.open"], "version": 1, "why": "a parcel" }),
        ),
        (
            "POST",
            format!("{path}/suspend"),
            json!({ "why": "a doubt" }),
        ),
        ("DELETE", path.clone(), json!({})),
        (
            "PUT",
            "/v1/terminals/second".into(),
            json!({ "jwk": Phone::new().jwk() }),
        ),
    ] {
        let jws = garage.owner.command_to(url, method, &path, &command);
        let done = garage.server.send(method, &path, &headers, jws.as_bytes());
        assert!(done.status < 300, "{method} {path}: {}", done.text());
    }
    assert_eq!(acts(&garage.issuer, &[]).len(), before);
}
