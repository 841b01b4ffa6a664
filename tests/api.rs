//! What the API and the command line do when all goes well, beyond a plain redemption: registry,
//! imports, lists, the other forms of an answer, restarts, operators; and what `fob` says to an
//! operator whose directory or configuration is not right.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use fob_verify::code_set::text_nonce;
use minicbor::data::Type;
use serde_json::{Value, json};

use crate::support::{Answer, Issuer, Phone, Server, authorization, now, time};

/// A server of the demo fleet, and a token that may do everything in it.
struct World {
    issuer: Issuer,
    server: Server,
    token: String,
}

impl World {
    fn new() -> Self {
        let issuer = Issuer::demo();
        let token = issuer.token("authorize,issue,revoke,read,admin");
        let server = issuer.serve();
        Self {
            issuer,
            server,
            token,
        }
    }

    fn get(&self, path: &str) -> Answer {
        let bearer = format!("Bearer {}", self.token);
        self.server.get(path, &[("authorization", &bearer)])
    }

    fn put(&self, path: &str, body: &Value) -> Answer {
        self.server.json_as(&self.token, "PUT", path, body)
    }

    fn put_well(&self, path: &str, body: &Value) {
        let answer = self.put(path, body);
        assert_eq!(
            (answer.status, answer.body.len()),
            (204, 0),
            "{}",
            answer.text()
        );
    }

    fn ask(&self, vehicle: &str, functions: &[&str]) -> Answer {
        let body = authorization(vehicle, functions);
        self.server
            .json_as(&self.token, "POST", "/v1/authorizations", &body)
    }

    fn authorize(&self, vehicle: &str, extra: &Value) -> Value {
        let mut body = authorization(vehicle, &["doors.unlock", "engine.start"]);
        for (name, value) in extra.as_object().unwrap() {
            body[name] = value.clone();
        }
        let answer = self
            .server
            .json_as(&self.token, "POST", "/v1/authorizations", &body);
        assert_eq!(answer.status, 201, "{}", answer.text());
        answer.value()
    }

    /// The results of an import, line by line.
    fn import(&self, lines: &[String]) -> Vec<Value> {
        let bearer = format!("Bearer {}", self.token);
        let headers = [
            ("content-type", "application/x-ndjson"),
            ("authorization", bearer.as_str()),
        ];
        let body = lines.join("\n");
        let answer = self
            .server
            .send("POST", "/v1/import", &headers, body.as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
        let text = String::from_utf8(answer.body).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap().to_owned()
}

fn members(value: &Value) -> BTreeSet<&str> {
    value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

fn set<'a>(names: &'a [&'a str]) -> BTreeSet<&'a str> {
    names.iter().copied().collect()
}

// ---- the registry --------------------------------------------------------------------------

#[test]
fn the_registry_takes_what_is_put_in_place_of_what_was() {
    let world = World::new();
    let longest = "V".repeat(32);
    for id in ["x", "A-b_c.9", &longest] {
        world.put_well(&format!("/v1/vehicles/{id}"), &json!({ "model": "M" }));
        assert_eq!(world.ask(id, &["charge_port.open"]).status, 201, "{id}");
    }
    let id = format!("a@b+c:d~{}", "e".repeat(56));
    world.put_well(&format!("/v1/identities/{id}"), &json!({}));
    let car = |body: Value| world.put_well("/v1/vehicles/CAR", &body);
    car(json!({ "model": "First", "functions": ["doors.unlock", 3] }));
    assert_eq!(
        world.ask("CAR", &["doors.unlock", "engine.start"]).status,
        201
    );
    world
        .ask("CAR", &["doors.lock"])
        .refused(422, "function_not_on_vehicle");
    car(json!({ "model": "Second", "functions": ["doors.lock"], "jwk": Phone::new().jwk() }));
    assert_eq!(world.ask("CAR", &["doors.lock"]).status, 201);
    world
        .ask("CAR", &["doors.unlock"])
        .refused(422, "function_not_on_vehicle");
    // All built-in ones where none are named.
    car(json!({ "model": "Third" }));
    assert_eq!(
        world.ask("CAR", &["doors.unlock", "trunk.open"]).status,
        201
    );
    // Put again, it is as it was.
    car(json!({ "model": "Third" }));
    assert_eq!(world.ask("CAR", &["doors.unlock"]).status, 201);
}

#[test]
fn a_fleet_names_functions_of_its_own() {
    let world = World::new();
    let car = |id: &str, functions: Value| {
        let body = json!({ "model": "Crane", "functions": functions });
        world.put(&format!("/v1/vehicles/{id}"), &body)
    };
    let lift = json!({ "code": 256, "name": "crane.lift" });
    let top = json!({ "code": 65535, "name": "x" });
    assert_eq!(car("ONE", json!([1, lift, top])).status, 204);
    // Known from now on: by name, by code, in another vehicle.
    assert_eq!(car("TWO", json!(["crane.lift", 65535])).status, 204);
    let made = world.ask("ONE", &["crane.lift", "doors.unlock"]);
    let named = json!([
        { "code": 1, "name": "doors.unlock" },
        { "code": 256, "name": "crane.lift" },
    ]);
    assert_eq!(made.value()["functions"], named, "{}", made.text());
    let bundle = world
        .server
        .redeem(&text(&made.value(), "code_set"), "renter-1", &Phone::new());
    assert_eq!(bundle.value()["keys"][1]["function"], "crane.lift");
    // What a signed key says never changes its meaning.
    for other in [
        json!({ "code": 256, "name": "crane.drop" }),
        json!({ "code": 257, "name": "crane.lift" }),
        json!({ "code": 255, "name": "crane.turn" }),
        json!({ "code": 258, "name": "doors.unlock" }),
        json!({ "code": 258, "name": "Crane" }),
        json!({ "code": 258, "name": "x".repeat(41) }),
        json!({ "code": 258, "name": "" }),
    ] {
        car("ONE", json!([other])).refused(400, "malformed");
    }
    car("ONE", json!([258])).refused(404, "unknown_function");
    // Another fleet may mean something else by the same number.
    world.issuer.fob(&["fleet", "create", "other"]);
    let token = world
        .issuer
        .fob(&["token", "create", "--fleet", "other", "--scopes", "admin"]);
    let body = json!({ "model": "M", "functions": [{ "code": 256, "name": "crane.drop" }] });
    let answer = world
        .server
        .json_as(&token, "PUT", "/v1/vehicles/ONE", &body);
    assert_eq!(answer.status, 204, "{}", answer.text());
}

#[test]
fn a_suspension_stays_until_it_is_taken_back() {
    let world = World::new();
    let put = |body: Value| world.put_well("/v1/identities/renter-1", &body);
    let redeem = || {
        let made = world.authorize("DEMO-0001", &json!({}));
        world
            .server
            .redeem(&text(&made, "code_set"), "renter-1", &Phone::new())
    };
    put(json!({ "status": "suspended" }));
    redeem().refused(403, "identity_suspended");
    put(json!({ "licences": [{ "class": "B", "expires": "2030-01-01T00:00:00Z" }] }));
    redeem().refused(403, "identity_suspended");
    put(json!({ "status": "active" }));
    assert_eq!(redeem().status, 201);
}

#[test]
#[expect(clippy::too_many_lines, reason = "a line for each case")]
fn an_import_takes_the_good_lines_and_names_the_bad_ones() {
    let world = World::new();
    let jwk = Phone::new().jwk();
    let lines = [
        json!({ "kind": "identity", "id": "anna" }).to_string(),
        // Each leans on what a line before it has introduced.
        json!({ "kind": "terminal", "id": "anna-phone", "identity": "anna", "jwk": jwk })
            .to_string(),
        json!({ "kind": "vehicle", "id": "VAN-1", "model": "Van", "owner": "anna",
            "functions": [1, { "code": 300, "name": "ramp.lower" }] })
        .to_string(),
        String::new(),
        json!({ "kind": "vehicle", "id": "VAN-2", "model": "Van", "functions": ["ramp.lower"] })
            .to_string(),
        // Bad ones, for different reasons.
        "{".into(),
        json!({ "kind": "vehicle", "id": "VAN 3", "model": "Van" }).to_string(),
        json!({ "kind": "vehicle", "id": "VAN-4", "model": "Van", "owner": "bert" }).to_string(),
        json!({ "kind": "vehicle", "id": "VAN-5", "model": "Van", "functions": ["ramp.raise"] })
            .to_string(),
        json!({ "kind": "bicycle", "id": "BIKE-1" }).to_string(),
        json!({ "id": "nothing" }).to_string(),
        json!({ "kind": "vehicle", "id": "VAN-6", "model": "Van",
            "functions": [{ "code": 300, "name": "ramp.raise" }] })
        .to_string(),
        // What an earlier line would have needed comes too late for it, not for the next.
        json!({ "kind": "identity", "id": "bert" }).to_string(),
        format!(
            "  {}\r",
            json!({ "kind": "vehicle", "id": "VAN-4", "model": "Van", "owner": "bert" })
        ),
        // What is there stays as it is, whatever a later line says.
        json!({ "kind": "identity", "id": "anna", "status": "suspended" }).to_string(),
        json!({ "kind": "identity", "id": "anna", "status": "active" }).to_string(),
    ];
    let results = world.import(&lines);
    let outcome = |result: &Value| {
        let problem = &result["problem"];
        let taken = result["status"] == "done" || result["status"] == "unchanged";
        assert_eq!(problem.is_object(), !taken, "{result}");
        if problem.is_object() {
            assert_eq!(problem["code"], result["status"], "{result}");
        }
        (result["line"].as_u64().unwrap(), text(result, "status"))
    };
    let found: Vec<_> = results.iter().map(outcome).collect();
    let expected = [
        (1, "done"),
        (2, "done"),
        (3, "done"),
        (5, "done"),
        (6, "malformed"),
        (7, "malformed"),
        (8, "unknown_identity"),
        (9, "unknown_function"),
        (10, "malformed"),
        (11, "malformed"),
        (12, "malformed"),
        (13, "done"),
        (14, "done"),
        (15, "registered_otherwise"),
        (16, "unchanged"),
    ];
    assert_eq!(
        found,
        expected.map(|(line, status)| (line, status.to_owned()))
    );
    assert_eq!(world.ask("VAN-2", &["ramp.lower"]).status, 201);
    assert_eq!(world.ask("VAN-4", &["doors.unlock"]).status, 201);
    world
        .ask("VAN-5", &["doors.unlock"])
        .refused(404, "unknown_vehicle");
    // Again, whole: nothing is different, and nothing is in the way.
    let again: Vec<_> = world.import(&lines).iter().map(outcome).collect();
    let there = |line: u64| (line, "unchanged".to_owned());
    assert_eq!(again[..4], [1, 2, 3, 5].map(there));
    assert_eq!(again[6], there(8), "bert is known by now, and so is it");
    assert_eq!(
        again[11..],
        [13, 14]
            .map(there)
            .into_iter()
            .chain(found[13..].iter().cloned())
            .collect::<Vec<_>>()
    );
}

#[test]
fn an_import_may_be_long() {
    let world = World::new();
    let identity = |n: usize| format!(r#"{{"kind":"identity","id":"person-{n}"}}"#);
    let vehicle = |n: usize| {
        format!(r#"{{"kind":"vehicle","id":"LONG-{n}","model":"M","owner":"person-{n}"}}"#)
    };
    // More than is committed in one go, and every vehicle leans on a line before it.
    let lines: Vec<_> = (0..1500)
        .map(identity)
        .chain((0..100).map(vehicle))
        .collect();
    let results = world.import(&lines);
    assert_eq!(results.len(), 1600);
    for (result, line) in results.iter().zip(1..) {
        assert_eq!(*result, json!({ "line": line, "status": "done" }));
    }
    let fleets: Value =
        serde_json::from_str(&world.issuer.fob(&["fleet", "list", "--json"])).unwrap();
    assert_eq!(fleets[0]["vehicles"], 200);
    assert_eq!(fleets[0]["identities"], 1601);
}

// ---- authorizations ------------------------------------------------------------------------

const AUTHORIZATION: [&str; 8] = [
    "authorization",
    "version",
    "vehicle",
    "functions",
    "not_before",
    "not_after",
    "redeem_by",
    "state",
];

/// An authorization with every field there is, from a minute after `t` on; times in the forms RFC
/// 3339 allows.
fn with_everything(t: u64) -> Value {
    let local = time(t + 3660).replace('Z', ".75+01:00");
    json!({
        "vehicle": "DEMO-0001",
        "functions": ["engine.start", 1],
        "not_before": local,
        "not_after": time(t + 7200),
        "region": { "circle": { "lat": 48.137154, "lon": -11.576124, "radius_m": 500 } },
        "max_uses": { "3": 2, "doors.unlock": u32::MAX },
        "recipient": { "identity": "renter-1", "terminal": "their-phone" },
        "redeem_by": time(t + 3600),
        "signing": "each",
        "pin": true,
    })
}

#[test]
fn an_authorization_shows_what_was_asked_for() {
    let world = World::new();
    let terminal = json!({ "identity": "renter-1", "jwk": Phone::new().jwk() });
    world.put_well("/v1/terminals/their-phone", &terminal);
    let t = now();
    let asked = with_everything(t);
    let answer = world
        .server
        .json_as(&world.token, "POST", "/v1/authorizations", &asked);
    assert_eq!(answer.status, 201, "{}", answer.text());
    let made = answer.value();
    let extras = ["code_set", "link", "pin", "region", "max_uses", "recipient"];
    assert_eq!(members(&made), set(&[&AUTHORIZATION[..], &extras].concat()));
    let functions = json!([
        { "code": 1, "name": "doors.unlock" },
        { "code": 3, "name": "engine.start" },
    ]);
    assert_eq!(made["functions"], functions);
    for same in ["vehicle", "not_after", "region", "recipient", "redeem_by"] {
        assert_eq!(made[same], asked[same], "{same}");
    }
    assert_eq!(made["not_before"], time(t + 60));
    let uses = json!({ "engine.start": 2, "doors.unlock": u32::MAX });
    assert_eq!(made["max_uses"], uses);
    assert_eq!(
        (&made["state"], &made["version"]),
        (&json!("open"), &json!(1))
    );
    assert_eq!(text(&made, "pin").len(), 6);
    let link = format!("{}/k#{}", world.server.url, text(&made, "code_set"));
    assert_eq!(made["link"], link);
    assert_eq!(answer.header("etag"), Some("\"1\""));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let path = format!("/v1/authorizations/{}", text(&made, "authorization"));
    assert_eq!(answer.header("location"), Some(path.as_str()));
    // Reading it shows the same, but nothing to redeem it with.
    let mut expected = made.clone();
    for secret in ["code_set", "link", "pin"] {
        expected.as_object_mut().unwrap().remove(secret);
    }
    assert_eq!(world.get(&path).value(), expected);
    assert_eq!(world.get(&path).header("etag"), Some("\"1\""));
    preview_shows_the_same(&world.server, &made);
}

/// The borrower sees what it is about to accept, and not whom it was meant for.
fn preview_shows_the_same(server: &Server, made: &Value) {
    let preview = json!({ "code_set": made["code_set"] });
    let preview = server.json("POST", "/v1/code-sets/preview", &preview);
    let same = [
        "vehicle",
        "functions",
        "not_before",
        "not_after",
        "region",
        "max_uses",
        "redeem_by",
    ];
    let shown = [&same[..], &["pin_required"]].concat();
    assert_eq!(members(&preview.value()), set(&shown), "{}", preview.text());
    for name in same {
        assert_eq!(preview.value()[name], made[name], "{name}");
    }
    assert_eq!(preview.value()["pin_required"], true);
}

#[test]
fn a_plain_authorization_and_its_redemption_show_no_more_than_they_must() {
    let world = World::new();
    let made = world.authorize("DEMO-0001", &json!({}));
    let secrets = ["code_set", "link"];
    assert_eq!(
        members(&made),
        set(&[&AUTHORIZATION[..], &secrets].concat())
    );
    assert_eq!(
        made["redeem_by"], made["not_after"],
        "as long as the window"
    );
    let bundle = world
        .server
        .redeem(&text(&made, "code_set"), "renter-1", &Phone::new());
    assert_eq!(bundle.status, 201, "{}", bundle.text());
    let bundle = bundle.value();
    let path = format!("/v1/authorizations/{}", text(&made, "authorization"));
    let read = world.get(&path).value();
    assert_eq!(
        members(&read),
        set(&[&AUTHORIZATION[..], &["bundle"]].concat())
    );
    assert_eq!(
        (&read["state"], &read["bundle"]),
        (&json!("redeemed"), &bundle["bundle"])
    );
    let shape = ["bundle", "authorization", "version", "vehicle", "keys"];
    assert_eq!(members(&bundle), set(&shape));
    let key = ["id", "function", "key", "not_before", "not_after", "status"];
    for (shown, function) in bundle["keys"]
        .as_array()
        .unwrap()
        .iter()
        .zip(["doors.unlock", "engine.start"])
    {
        assert_eq!(members(shown), set(&key));
        assert_eq!(
            (&shown["function"], &shown["status"]),
            (&json!(function), &json!("valid"))
        );
        assert_eq!(shown["not_after"], made["not_after"]);
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text(shown, "key")).unwrap();
        assert_eq!(bytes[0], 0xd2, "COSE_Sign1, tagged");
    }
}

/// The ids of all pages of a list.
fn pages(world: &World, query: &str) -> Vec<Vec<String>> {
    let (mut pages, mut after) = (Vec::new(), String::new());
    loop {
        let page = world
            .get(&format!("/v1/authorizations?{query}{after}"))
            .value();
        assert_eq!(members(&page), set(&["items", "next"]), "{page}");
        let items = page["items"].as_array().unwrap();
        for item in items {
            for secret in ["code_set", "link", "pin"] {
                assert!(item.get(secret).is_none(), "{item}");
            }
        }
        pages.push(
            items
                .iter()
                .map(|item| text(item, "authorization"))
                .collect(),
        );
        match &page["next"] {
            Value::Null => return pages,
            next => after = format!("&after={}", next.as_str().unwrap()),
        }
        assert!(pages.len() < 100, "a list ends");
    }
}

#[test]
fn lists_are_filtered_and_come_in_pages() {
    let world = World::new();
    let brief = json!({ "redeem_by": time(now() + 2) });
    let mut made = BTreeMap::<&str, Vec<String>>::new();
    for (state, vehicle, extra, count) in [
        ("expired", "DEMO-0002", &brief, 2),
        ("redeemed", "DEMO-0001", &json!({}), 2),
        ("redeemed", "DEMO-0002", &json!({}), 1),
        ("open", "DEMO-0001", &json!({}), 3),
    ] {
        for _ in 0..count {
            let one = world.authorize(vehicle, extra);
            if state == "redeemed" {
                let code_set = text(&one, "code_set");
                let answer = world.server.redeem(&code_set, "renter-1", &Phone::new());
                assert_eq!(answer.status, 201);
            }
            for list in ["all", state, vehicle] {
                made.entry(list)
                    .or_default()
                    .push(text(&one, "authorization"));
            }
        }
    }
    thread::sleep(Duration::from_millis(2050));
    for (query, list) in [
        ("", "all"),
        ("vehicle=DEMO-0001", "DEMO-0001"),
        ("vehicle=DEMO-0002", "DEMO-0002"),
        ("state=open", "open"),
        ("state=expired", "expired"),
        ("state=redeemed", "redeemed"),
    ] {
        let expected = &made[list];
        assert_eq!(
            pages(&world, query).concat(),
            *expected,
            "{query}: oldest first"
        );
        for limit in [1, 2, 3, 500] {
            let pages = pages(&world, &format!("{query}&limit={limit}"));
            assert!(
                pages.iter().all(|page| page.len() <= limit),
                "{query} {limit}"
            );
            assert_eq!(pages.concat(), *expected, "{query} {limit}");
        }
    }
    for nothing in [
        "vehicle=DEMO-0003",
        "vehicle=NOBODYS",
        "state=cancelled",
        "state=expired&vehicle=DEMO-0001",
        "after=ffffffff-ffff-7fff-bfff-ffffffffffff",
    ] {
        assert_eq!(pages(&world, nothing), [Vec::<String>::new()], "{nothing}");
    }
    let both = pages(&world, "state=redeemed&vehicle=DEMO-0002").concat();
    assert_eq!(both.len(), 1);
    let first = world
        .get("/v1/authorizations?state=expired&limit=1")
        .value();
    assert_eq!(first["items"][0]["state"], "expired");
}

// ---- forms of a bundle ---------------------------------------------------------------------

/// CBOR as JSON, byte strings in base64url; maps must be in deterministic order.
fn from_cbor(decoder: &mut minicbor::Decoder<'_>) -> Value {
    match decoder.datatype().unwrap() {
        Type::Map => {
            let (mut map, mut before) = (serde_json::Map::new(), Vec::new());
            for _ in 0..decoder.map().unwrap().unwrap() {
                let key = decoder.str().unwrap().to_owned();
                let encoded = minicbor::to_vec(&key).unwrap();
                assert!(before < encoded, "{key} is out of order");
                before = encoded;
                map.insert(key, from_cbor(decoder));
            }
            map.into()
        }
        Type::Array => {
            let len = decoder.array().unwrap().unwrap();
            (0..len).map(|_| from_cbor(decoder)).collect()
        }
        Type::String => decoder.str().unwrap().into(),
        Type::Bytes => BASE64_URL_SAFE_NO_PAD
            .encode(decoder.bytes().unwrap())
            .into(),
        _ => decoder.u64().unwrap().into(),
    }
}

#[test]
fn a_bundle_is_the_same_whoever_reads_it_and_however() {
    let world = World::new();
    let phone = Phone::new();
    let made = world.authorize("DEMO-0001", &json!({}));
    let code_set = text(&made, "code_set");
    let first = world.server.redeem(&code_set, "renter-1", &phone);
    assert_eq!(first.header("content-type"), Some("application/json"));
    let id = text(&first.value(), "bundle");
    let path = format!("/v1/bundles/{id}");
    assert_eq!(first.header("location"), Some(path.as_str()));
    let proof = || phone.proof(&world.server.url, &id);
    let by_proof = world.server.get(&path, &[("fob-proof", &proof())]);
    assert_eq!((by_proof.status, &by_proof.body), (200, &first.body));
    assert_eq!(world.get(&path).body, first.body);
    // Its id is one id in whatever form it is written.
    let plain = format!("/v1/bundles/{}", id.replace('-', "").to_uppercase());
    assert_eq!(
        world.server.get(&plain, &[("fob-proof", &proof())]).body,
        first.body
    );
    let body = crate::support::redemption(&world.server.url, &code_set, "renter-1", &phone);
    let json = ("content-type", "application/json");
    for accept in ["application/cbor", "text/html, application/cbor;q=0.9"] {
        let headers = [json, ("accept", accept)];
        let body = body.to_string();
        let redeemed = world
            .server
            .send("POST", "/v1/redemptions", &headers, body.as_bytes());
        assert_eq!(redeemed.status, 201);
        let read = world
            .server
            .get(&path, &[("fob-proof", &proof()), ("accept", accept)]);
        for answer in [redeemed, read] {
            assert_eq!(answer.header("content-type"), Some("application/cbor"));
            let mut decoder = minicbor::Decoder::new(&answer.body);
            assert_eq!(from_cbor(&mut decoder), first.value());
            assert_eq!(decoder.position(), answer.body.len());
        }
    }
}

/// A phone with an Ed25519 key.
struct EdPhone(Ed25519KeyPair);

impl EdPhone {
    fn new() -> Self {
        Self(Ed25519KeyPair::generate().unwrap())
    }

    fn jwk(&self) -> Value {
        let x = BASE64_URL_SAFE_NO_PAD.encode(self.0.public_key().as_ref());
        json!({ "kty": "OKP", "crv": "Ed25519", "x": x })
    }

    fn jws(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = BASE64_URL_SAFE_NO_PAD.encode(self.0.sign(signed.as_bytes()).as_ref());
        format!("{signed}.{signature}")
    }

    fn proof(&self, url: &str, over: &str) -> String {
        let header = json!({ "alg": "EdDSA", "typ": "openid4vci-proof+jwt", "jwk": self.jwk() });
        let nonce = BASE64_URL_SAFE_NO_PAD.encode(text_nonce(over));
        self.jws(
            &header,
            &json!({ "aud": url, "iat": now(), "nonce": nonce }),
        )
    }
}

#[test]
fn phones_may_have_ed25519_keys() {
    let world = World::new();
    let url = world.server.url.as_str();
    let (owner, renter) = (EdPhone::new(), EdPhone::new());
    let terminal = json!({ "identity": "owner-1", "jwk": owner.jwk() });
    world.put_well("/v1/terminals/ed-phone", &terminal);
    let header = json!({ "alg": "EdDSA", "typ": "fob-command+jwt", "kid": "demo/ed-phone" });
    let claims = json!({
        "iss": "owner-1", "aud": url, "iat": now(), "exp": now() + 60, "jti": "1", "htm": "POST",
        "htu": format!("{url}/v1/authorizations"),
        "command": authorization("DEMO-0001", &["doors.unlock"]),
    });
    let made = world.server.command(&owner.jws(&header, &claims));
    assert_eq!(made.status, 201, "{}", made.text());
    let code_set = text(&made.value(), "code_set");
    let body = json!({
        "code_set": code_set, "identity": { "id": "renter-1" }, "proof": renter.proof(url, &code_set),
    });
    let bundle = world.server.json("POST", "/v1/redemptions", &body);
    assert_eq!(bundle.status, 201, "{}", bundle.text());
    let id = text(&bundle.value(), "bundle");
    let read = world.server.get(
        &format!("/v1/bundles/{id}"),
        &[("fob-proof", &renter.proof(url, &id))],
    );
    assert_eq!(read.body, bundle.body);
    // Its signature under the other algorithm's name is nothing.
    let header = json!({ "alg": "ES256", "typ": "fob-command+jwt", "kid": "demo/ed-phone" });
    world
        .server
        .command(&owner.jws(&header, &claims))
        .refused(401, "unauthenticated");
}

// ---- operations ----------------------------------------------------------------------------

#[test]
fn trust_list_and_key_set_are_cacheable() {
    let world = World::new();
    for (path, kind) in [
        ("/v1/trust", "application/cbor"),
        ("/.well-known/jwks.json", "application/jwk-set+json"),
    ] {
        let get = |tag: &str| world.server.get(path, &[("if-none-match", tag)]);
        let answer = world.server.get(path, &[]);
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, Some(kind))
        );
        assert_eq!(answer.header("cache-control"), Some("public, max-age=60"));
        let tag = answer.header("etag").unwrap();
        assert!(tag.starts_with('"') && tag.ends_with('"'), "{tag}");
        for known in [tag, "*", &format!("\"x\", {tag}"), &format!("W/{tag}")] {
            let again = get(known);
            assert_eq!((again.status, again.body.len()), (304, 0), "{known}");
            assert_eq!(again.header("etag"), Some(tag));
        }
        for other in ["\"x\"", "", tag.trim_matches('"')] {
            assert_eq!(get(other).body, answer.body, "{other}");
        }
    }
    let keys = world.server.get("/.well-known/jwks.json", &[]).value();
    let epochs: Value =
        serde_json::from_str(&world.issuer.fob(&["epoch", "list", "--json"])).unwrap();
    assert_eq!(keys["keys"].as_array().unwrap().len(), 1);
    assert_eq!(keys["keys"][0]["kid"], epochs[0]["id"]);
    assert!(keys["keys"][0].get("d").is_none());
}

#[test]
fn health_metrics_and_heads() {
    let world = World::new();
    let ready = world.server.get("/readyz", &[]);
    let all = json!({ "ready": true, "store": true, "hsm": true, "epoch": true, "accepting": true, "epochs_low": false });
    assert_eq!((ready.status, ready.value()), (200, all));
    assert_eq!(
        world.server.get("/healthz", &[]).value(),
        json!({ "status": "ok" })
    );
    let made = world.authorize("DEMO-0001", &json!({}));
    let code_set = text(&made, "code_set");
    assert_eq!(
        world
            .server
            .redeem(&code_set, "renter-1", &Phone::new())
            .status,
        201
    );
    let id = text(&made, "authorization");
    assert_eq!(world.get(&format!("/v1/authorizations/{id}")).status, 200);
    world
        .server
        .redeem(&code_set, "renter-2", &Phone::new())
        .refused(409, "code_set_redeemed");
    let metrics = String::from_utf8(world.server.get("/metrics", &[]).body).unwrap();
    for line in [
        "fob_keys_issued_total 2",
        "fob_refusals_total{code=\"code_set_redeemed\"} 1",
        "fob_hsm_up 1",
        "fob_store_up 1",
        "fob_authorizations 1",
    ] {
        assert!(
            metrics.lines().any(|found| found == line),
            "{line}:\n{metrics}"
        );
    }
    // Paths by their pattern: ids would make a metric each.
    assert!(
        metrics.contains("path=\"/v1/authorizations/{id}\""),
        "{metrics}"
    );
    assert!(!metrics.contains(&id));
    // HEAD is GET without the body.
    for path in [
        "/healthz",
        "/readyz",
        "/v1/trust",
        "/openapi.json",
        "/v1/authorizations",
    ] {
        let bearer = format!("Bearer {}", world.token);
        let headers = [("authorization", bearer.as_str())];
        let (get, head) = (
            world.server.get(path, &headers),
            world.server.send("HEAD", path, &headers, b""),
        );
        assert_eq!((head.status, head.body.len()), (get.status, 0), "{path}");
        assert_eq!(
            head.header("content-type"),
            get.header("content-type"),
            "{path}"
        );
        assert_eq!(head.header("etag"), get.header("etag"), "{path}");
    }
}

#[test]
fn metrics_may_have_a_listener_of_their_own() {
    let issuer = Issuer::demo();
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let server = issuer.serve_with(&[("FOB_SERVER_METRICS_LISTEN", &free.to_string())]);
    server.get("/metrics", &[]).refused(404, "not_found");
    let other = format!("http://{free}/metrics");
    let text = ureq::get(&other)
        .call()
        .unwrap()
        .body_mut()
        .read_to_string()
        .unwrap();
    assert!(text.contains("fob_hsm_up 1"), "{text}");
}

#[test]
fn the_document_describes_every_route_and_no_other() {
    let world = World::new();
    let document = world.server.get("/openapi.json", &[]).value();
    let described: BTreeMap<String, BTreeSet<String>> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(path, calls)| {
            let methods = members(calls).into_iter().map(str::to_uppercase);
            (path.clone(), methods.collect())
        })
        .collect();
    // The routes as the source has them: every quoted path in `routes` and what it calls.
    let source = include_str!("../src/http/mod.rs");
    let routes = &source[source.find("fn routes(").unwrap()..source.find("fn get(").unwrap()];
    let mut served: BTreeSet<_> = routes
        .split('"')
        .skip(1)
        .step_by(2)
        .filter(|text| text.starts_with('/'))
        .collect();
    // The document does not describe itself.
    for own in ["/openapi.json", "/docs"] {
        assert!(served.remove(own), "{own}");
    }
    assert_eq!(
        described
            .keys()
            .map(String::as_str)
            .collect::<BTreeSet<_>>(),
        served
    );
    for (path, methods) in &described {
        let answer = world.server.send(
            "BREW",
            &path.replace("{id}", "x").replace("{shard}", "x"),
            &[],
            b"",
        );
        answer.refused(405, "malformed");
        let allowed: BTreeSet<_> = answer.header("allow").unwrap().split(", ").collect();
        let mut expected: BTreeSet<_> = methods.iter().map(String::as_str).collect();
        if expected.contains("GET") {
            expected.insert("HEAD");
        }
        assert_eq!(allowed, expected, "{path}");
    }
    let page = world.server.get("/docs", &[]);
    assert!(page.status == 302 || page.status == 200, "{}", page.status);
    let page = world.server.get("/docs/", &[]);
    assert_eq!(page.status, 200);
    assert!(
        page.header("content-type")
            .unwrap()
            .starts_with("text/html")
    );
}

#[test]
fn a_restart_keeps_everything() {
    let World {
        issuer,
        mut server,
        token,
    } = World::new();
    let phone = Phone::new();
    let body = json!({ "model": "Van", "functions": [1, { "code": 300, "name": "ramp.lower" }] });
    assert_eq!(
        server
            .json_as(&token, "PUT", "/v1/vehicles/VAN", &body)
            .status,
        204
    );
    let mut wanted = authorization("VAN", &["ramp.lower", "doors.unlock"]);
    wanted["region"] = json!({ "polygon": [[48.1, 11.5], [48.2, 11.5], [48.2, 11.6]] });
    wanted["max_uses"] = json!({ "ramp.lower": 2 });
    let ask = |server: &Server| {
        server
            .json_as(&token, "POST", "/v1/authorizations", &wanted)
            .value()
    };
    let (made, open) = (ask(&server), ask(&server));
    let code_set = text(&made, "code_set");
    let bundle = server.redeem(&code_set, "renter-1", &phone);
    assert_eq!(bundle.status, 201, "{}", bundle.text());
    let paths = [
        "/v1/authorizations".to_owned(),
        format!("/v1/authorizations/{}", text(&made, "authorization")),
        format!("/v1/bundles/{}", text(&bundle.value(), "bundle")),
        "/v1/trust".into(),
        "/.well-known/jwks.json".into(),
    ];
    let bearer = format!("Bearer {token}");
    let all = |server: &Server| {
        let read = |path: &String| server.get(path, &[("authorization", &bearer)]).body;
        paths.iter().map(read).collect::<Vec<_>>()
    };
    let preview = |server: &Server| {
        let body = json!({ "code_set": open["code_set"] });
        server.json("POST", "/v1/code-sets/preview", &body)
    };
    let (before, seen) = (all(&server), preview(&server));
    assert_eq!(seen.status, 200, "{}", seen.text());
    for orderly in [true, false] {
        if orderly {
            assert!(server.stop());
        } else {
            server.kill();
        }
        server = issuer.serve();
        assert_eq!(all(&server), before);
        assert_eq!(preview(&server).body, seen.body);
        assert_eq!(
            server.redeem(&code_set, "renter-1", &phone).body,
            bundle.body
        );
    }
    assert_eq!(
        server
            .redeem(&text(&open, "code_set"), "renter-2", &phone)
            .status,
        201
    );
}

// ---- operators -----------------------------------------------------------------------------

#[test]
fn operators_commands_act_on_a_running_server_and_on_a_stopped_one() {
    let issuer = Issuer::demo();
    let json = |args: &[&str]| -> Value {
        serde_json::from_str(&issuer.fob(&[args, &["--json"]].concat())).unwrap()
    };
    let mut server = None;
    let mut tokens = Vec::new();
    for (round, running) in [false, true, false, true].into_iter().enumerate() {
        server = match (running, server.take()) {
            (true, None) => Some(issuer.serve()),
            (_, other) => {
                assert!(other.is_none_or(Server::stop));
                None
            }
        };
        assert_eq!(issuer.file("fob.sock").exists(), running);
        let name = format!("fleet-{round}");
        let fleet = json(&["fleet", "create", &name, "--open-redemption"]);
        assert_eq!(fleet["name"], name);
        let complaint = issuer.fob_fails(&["fleet", "create", &name]);
        assert!(
            complaint.contains("there is a fleet of this name"),
            "{complaint}"
        );
        let fleets = json(&["fleet", "list"]);
        assert_eq!(fleets.as_array().unwrap().len(), 2 + round);
        assert!(fleets.as_array().unwrap().contains(&fleet));
        let token = issuer.fob(&["token", "create", "--fleet", &name, "--scopes", "read"]);
        assert!(
            token.starts_with("fob_") && token.lines().count() == 1,
            "the token alone"
        );
        tokens.push(token);
        assert_eq!(
            json(&["token", "list", "--fleet", &name])
                .as_array()
                .unwrap()
                .len(),
            1
        );
        let epochs = json(&["epoch", "list"]);
        assert_eq!(epochs[0]["state"], "active");
        assert_eq!(json(&["hsm", "status"])["up"], true);
        operators_are_told_what_is_wrong(&issuer);
    }
    // Whichever way they were made, they hold.
    for token in tokens {
        let bearer = format!("Bearer {token}");
        let answer = server
            .as_ref()
            .unwrap()
            .get("/v1/authorizations", &[("authorization", &bearer)]);
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

/// One line, which says what is wrong.
fn operators_are_told_what_is_wrong(issuer: &Issuer) {
    for (args, why) in [
        (
            &["token", "create", "--fleet", "none", "--scopes", "read"][..],
            "no such fleet",
        ),
        (
            &["token", "create", "--fleet", "demo", "--scopes", "write"],
            "scopes are",
        ),
        (&["token", "revoke", "x"], "UUID"),
        (
            &["token", "revoke", "01890000-0000-7000-8000-000000000000"],
            "no such token",
        ),
        (&["fleet", "create", "a b"], "1 to 32"),
    ] {
        let complaint = issuer.fob_fails(args);
        assert!(complaint.contains(why), "{args:?}: {complaint}");
        assert_eq!(complaint.lines().count(), 1, "{complaint}");
    }
}

#[test]
fn a_revoked_token_ends_at_once_and_for_good() {
    let issuer = Issuer::demo();
    let server = issuer.serve();
    let create = || -> Value {
        let args = [
            "token", "create", "--fleet", "demo", "--scopes", "read", "--json",
        ];
        serde_json::from_str(&issuer.fob(&args)).unwrap()
    };
    let status = |server: &Server, token: &Value| {
        let bearer = format!("Bearer {}", text(token, "token"));
        server
            .get("/v1/authorizations", &[("authorization", &bearer)])
            .status
    };
    let (kept, ended) = (create(), create());
    assert_eq!(status(&server, &ended), 200);
    issuer.fob(&["token", "revoke", &text(&ended, "id")]);
    assert_eq!(
        (status(&server, &ended), status(&server, &kept)),
        (401, 200)
    );
    server.kill();
    // Revoked behind a stopped server's back: it knows when it comes up.
    issuer.fob(&["token", "revoke", &text(&kept, "id")]);
    let server = issuer.serve();
    assert_eq!(
        (status(&server, &ended), status(&server, &kept)),
        (401, 401)
    );
    let list = issuer.fob(&["token", "list", "--json"]);
    let rows: Value = serde_json::from_str(&list).unwrap();
    assert!(
        rows.as_array()
            .unwrap()
            .iter()
            .all(|row| row["state"] == "revoked")
    );
    assert!(
        !list.contains(&text(&ended, "token")),
        "tokens are not kept"
    );
}

#[test]
fn a_directory_has_one_server_and_one_issuer() {
    let issuer = Issuer::demo();
    let server = issuer.serve();
    let complaint = issuer.fob_fails(&["serve", "--listen", "127.0.0.1:0"]);
    assert!(complaint.contains("another fob has"), "{complaint}");
    for args in [&["init"][..], &["init", "--demo"]] {
        let complaint = issuer.fob_fails(args);
        assert!(complaint.contains("has an issuer already"), "{complaint}");
    }
    assert_eq!(
        server.get("/readyz", &[]).status,
        200,
        "the first is not disturbed"
    );
    assert!(server.stop());
    let before = std::fs::read(issuer.file("fob.toml")).unwrap();
    issuer.fob_fails(&["init"]);
    assert_eq!(std::fs::read(issuer.file("fob.toml")).unwrap(), before);
    // Nothing is made by the way.
    let empty = tempfile::tempdir().unwrap();
    let nothing = empty.path().join("nothing");
    for dir in [empty.path(), &nothing] {
        let done = std::process::Command::new(crate::support::FOB)
            .args(["serve", "--dir"])
            .arg(dir)
            .output()
            .unwrap();
        let complaint = String::from_utf8(done.stderr).unwrap();
        assert!(
            !done.status.success() && complaint.contains("`fob init` makes it"),
            "{complaint}"
        );
    }
    assert_eq!(std::fs::read_dir(empty.path()).unwrap().count(), 0);
}

#[test]
fn an_open_address_needs_tls_or_a_proxy() {
    let issuer = Issuer::demo();
    for open in ["0.0.0.0:0", "[::]:0"] {
        let complaint = issuer.fob_fails(&["serve", "--listen", open]);
        assert!(complaint.contains("TLS is not set up"), "{complaint}");
    }
    let mut child = issuer
        .command(&["serve", "--listen", "0.0.0.0:0"])
        .env("FOB_SERVER_BEHIND_PROXY", "true")
        .env("FOB_SERVER_PUBLIC_URL", "https://keys.example")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(line.contains("https://keys.example"), "{line}");
}

#[test]
fn what_is_wrong_with_a_configuration_is_said_in_one_go() {
    let issuer = Issuer::demo();
    let file = issuer.file("fob.toml");
    let good = std::fs::read_to_string(&file).unwrap();
    let lines = good.lines().count();
    for (more, expected) in [
        (
            "[engine]\nqueue_len_maxx = 3\n",
            &["fob.toml", "queue_len_maxx", &format!("line {}", lines + 2)][..],
        ),
        ("[motor]\nx = 1\n", &["fob.toml", "motor"]),
        (
            "[engine]\nqueue_len_max = \"many\"\n",
            &["fob.toml", "queue_len_max", &format!("line {}", lines + 2)],
        ),
        (
            "[engine]\nqueue_len_max = 0\n",
            &["fob.toml", "engine.queue_len_max", "1 to 1048576"],
        ),
        (
            "[engine]\nqueue_len_max\n",
            &["fob.toml", &format!("line {}", lines + 2)],
        ),
        ("[log]\nfilter = \"fob=loud\"\n", &["[log] filter"]),
        ("[store]\npath = \"elsewhere.db\"\n", &["elsewhere.db"]),
    ] {
        std::fs::write(&file, format!("{good}{more}")).unwrap();
        let complaint = issuer.fob_fails(&["serve", "--listen", "127.0.0.1:0"]);
        for part in expected {
            assert!(complaint.contains(part), "{more}: {complaint}");
        }
        assert!(!complaint.contains("panicked"), "{complaint}");
    }
    std::fs::write(&file, &good).unwrap();
    let done = issuer
        .command(&["serve"])
        .env("FOB_ENGINE_QUEUE_LEN_MAX", "many")
        .output()
        .unwrap();
    let complaint = String::from_utf8(done.stderr).unwrap();
    assert!(
        !done.status.success() && complaint.contains("FOB_ENGINE_QUEUE_LEN_MAX"),
        "{complaint}"
    );
    // Files that belong to it, one by one.
    for name in ["code-set.key", "hsm.pin", "fob.db"] {
        let (path, aside) = (issuer.file(name), issuer.file("aside"));
        std::fs::rename(&path, &aside).unwrap();
        let complaint = issuer.fob_fails(&["serve", "--listen", "127.0.0.1:0"]);
        assert!(complaint.contains(name), "{complaint}");
        assert!(!path.exists(), "{name} is not made anew");
        std::fs::rename(&aside, &path).unwrap();
    }
    assert_eq!(issuer.serve().get("/readyz", &[]).status, 200);
}
