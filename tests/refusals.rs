//! Every refusal there is, over HTTP, with its code and its status; and the order in which they
//! come: authentication, scope, decoding, existence, rules.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use fob::domain::RefusalCode;
use fob_verify::code_set::CodeSet;
use serde_json::{Value, json};

use crate::support::{Answer, Issuer, Phone, Server, authorization, now, redemption, time};

const ALL_SCOPES: &str = "authorize,issue,revoke,read,admin";

/// A server of the demo fleet, and a token that may do everything in it.
struct World {
    issuer: Issuer,
    server: Server,
    token: String,
}

impl World {
    fn new() -> Self {
        let issuer = Issuer::demo();
        let token = issuer.token(ALL_SCOPES);
        let server = issuer.serve();
        Self {
            issuer,
            server,
            token,
        }
    }

    /// The same with a fleet that has not opened redemption: `renter` and `other` are its
    /// identities, `CAR` its vehicle.
    fn closed() -> Self {
        let issuer = Issuer::demo();
        issuer.fob(&["fleet", "create", "rental"]);
        let token = fleet_token(&issuer, "rental", ALL_SCOPES);
        let server = issuer.serve();
        let world = Self {
            issuer,
            server,
            token,
        };
        world.put("/v1/identities/renter", &json!({}));
        world.put("/v1/identities/other", &json!({}));
        world.put("/v1/vehicles/CAR", &json!({ "model": "M" }));
        world
    }

    fn put(&self, path: &str, body: &Value) {
        let answer = self.server.json_as(&self.token, "PUT", path, body);
        assert_eq!(answer.status, 204, "{path}: {}", answer.text());
    }

    fn ask(&self, body: &Value) -> Answer {
        self.server
            .json_as(&self.token, "POST", "/v1/authorizations", body)
    }

    /// What an authorization is answered with; `extra` are fields beside the usual ones.
    fn authorize(&self, vehicle: &str, extra: Value) -> Value {
        let answer = self.ask(&with(authorization(vehicle, &["doors.unlock"]), extra));
        assert_eq!(answer.status, 201, "{}", answer.text());
        answer.value()
    }

    fn code_set(&self, vehicle: &str, extra: Value) -> String {
        text(&self.authorize(vehicle, extra), "code_set")
    }

    fn redeem_with(&self, code_set: &str, proof: &str) -> Answer {
        let body =
            json!({ "code_set": code_set, "identity": { "id": "renter-1" }, "proof": proof });
        self.server.json("POST", "/v1/redemptions", &body)
    }

    fn redeem_pin(&self, code_set: &str, identity: &str, phone: &Phone, pin: &str) -> Answer {
        let body = redemption(&self.server.url, code_set, identity, phone);
        let body = with(body, json!({ "pin": pin }));
        self.server.json("POST", "/v1/redemptions", &body)
    }

    fn preview(&self, code_set: &str) -> Answer {
        let body = json!({ "code_set": code_set });
        self.server.json("POST", "/v1/code-sets/preview", &body)
    }
}

fn fleet_token(issuer: &Issuer, fleet: &str, scopes: &str) -> String {
    issuer.fob(&["token", "create", "--fleet", fleet, "--scopes", scopes])
}

/// `body` with the members of `extra`.
fn with(mut body: Value, extra: Value) -> Value {
    for (name, value) in extra.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap().to_owned()
}

fn encode(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// The same code set with another secret.
fn wrong_secret(code_set: &str) -> String {
    let parts = CodeSet::decode(code_set).unwrap();
    let mut secret = *parts.secret();
    secret[0] ^= 1;
    CodeSet::new(*parts.id(), secret, parts.codes())
        .unwrap()
        .encode()
}

/// Another PIN than this one.
fn wrong(pin: &str) -> String {
    format!("{:06}", (pin.parse::<u32>().unwrap() + 1) % 1_000_000)
}

/// The field a refusal names.
fn field(answer: &Answer) -> Option<String> {
    answer.value()["field"].as_str().map(ToOwned::to_owned)
}

// ---- who calls -----------------------------------------------------------------------------

/// Every call that takes a bearer token, with the scope it asks for.
const SCOPED: [(&str, &str, &str); 12] = [
    ("PUT", "/v1/vehicles/NEW", "admin"),
    ("PUT", "/v1/identities/new", "admin"),
    ("PUT", "/v1/terminals/new", "admin"),
    ("POST", "/v1/import", "admin"),
    ("POST", "/v1/batches", "issue"),
    ("POST", "/v1/authorizations", "authorize"),
    ("POST", "/v1/revocations", "revoke"),
    ("POST", "/v1/suspensions", "revoke"),
    ("POST", "/v1/resumptions", "revoke"),
    ("GET", "/v1/authorizations", "read"),
    ("GET", "/v1/authorizations/x", "read"),
    ("GET", "/v1/bundles/x", "read"),
];

#[test]
fn who_calls_is_asked_first_then_what_it_may_then_what_it_wants() {
    let world = World::new();
    let send = |method, path, authorization: Option<&str>| {
        let json = ("content-type", "application/json");
        let headers = [json, ("authorization", authorization.unwrap_or_default())];
        let body: &[u8] = if method == "GET" { b"" } else { b"{" };
        let headers = &headers[..if authorization.is_some() { 2 } else { 1 }];
        world.server.send(method, path, headers, body)
    };
    let tokens: Vec<_> = ALL_SCOPES
        .split(',')
        .map(|scope| (scope, world.issuer.token(scope)))
        .collect();
    for (method, path, needed) in SCOPED {
        for bad in [
            None,
            Some(""),
            Some("Bearer"),
            Some("Bearer "),
            Some("Bearer fob_unknown"),
            Some("Basic Zm9iOmZvYg=="),
            Some(tokens[0].1.as_str()),
        ] {
            let answer = send(method, path, bad);
            answer.refused(401, "unauthenticated");
            let challenge = answer.header("www-authenticate").unwrap();
            assert!(challenge.starts_with("Bearer"), "{challenge}");
        }
        for (scope, token) in &tokens {
            let answer = send(method, path, Some(&format!("Bearer {token}")));
            if *scope != needed {
                answer.refused(403, "forbidden");
            } else if path == "/v1/batches" {
                // What the body is comes next; this is JSON and not NDJSON.
                answer.refused(415, "malformed");
            } else if method != "GET" && path != "/v1/import" {
                // The body is looked at only now.
                answer.refused(400, "malformed");
            } else if path.ends_with("/x") {
                answer.refused(404, "not_found");
            } else {
                assert_eq!(answer.status, 200, "{}", answer.text());
            }
        }
    }
}

#[test]
fn a_token_that_has_ended_is_unknown() {
    let issuer = Issuer::demo();
    let brief = issuer.fob(&[
        "token",
        "create",
        "--fleet",
        "demo",
        "--scopes",
        "read",
        "--expires",
        "1s",
    ]);
    let server = issuer.serve();
    let revoked: Value = serde_json::from_str(&issuer.fob(&[
        "token", "create", "--fleet", "demo", "--scopes", "read", "--json",
    ]))
    .unwrap();
    let list = |token: &str| {
        let bearer = format!("Bearer {token}");
        server.get("/v1/authorizations", &[("authorization", &bearer)])
    };
    assert_eq!(list(&text(&revoked, "token")).status, 200);
    issuer.fob(&["token", "revoke", &text(&revoked, "id")]);
    list(&text(&revoked, "token")).refused(401, "unauthenticated");
    thread::sleep(Duration::from_millis(1100));
    list(&brief).refused(401, "unauthenticated");
}

#[test]
fn decoding_comes_before_existence_and_existence_before_rules() {
    let world = World::new();
    // An unknown vehicle in a body of the wrong form, then in one of the right form, then a known
    // one whose window breaks a rule.
    let body = authorization("NOBODYS", &["doors.unlock"]);
    world
        .ask(&with(body.clone(), json!({ "pin": "yes" })))
        .refused(400, "malformed");
    let past = json!({ "not_before": time(10), "not_after": time(20) });
    world
        .ask(&with(body, past.clone()))
        .refused(404, "unknown_vehicle");
    let answer = world.ask(&with(
        authorization("DEMO-0001", &["doors.unlock"]),
        past.clone(),
    ));
    answer.refused(400, "malformed");
    assert_eq!(field(&answer).as_deref(), Some("not_after"));
    let answer = world.ask(&with(authorization("DEMO-0001", &["sunroof.open"]), past));
    answer.refused(404, "unknown_function");
}

// ---- an owner's command --------------------------------------------------------------------

type Change = fn(&mut Value, &mut Value);

/// Changes to header and claims after which a command must not be believed.
const BAD_COMMANDS: [(&str, Change); 28] = [
    ("no kid", |header, _| drop(header["kid"].take())),
    ("a kid that is no pair", |header, _| {
        header["kid"] = json!("owner-1-phone")
    }),
    ("an unknown terminal", |header, _| {
        header["kid"] = json!("demo/other-phone")
    }),
    ("an unknown fleet", |header, _| {
        header["kid"] = json!("other/owner-1-phone")
    }),
    ("another typ", |header, _| header["typ"] = json!("JWT")),
    ("a proof's typ", |header, _| {
        header["typ"] = json!("openid4vci-proof+jwt")
    }),
    ("no typ", |header, _| drop(header["typ"].take())),
    ("alg none", |header, _| header["alg"] = json!("none")),
    ("another alg", |header, _| header["alg"] = json!("ES384")),
    ("a symmetric alg", |header, _| {
        header["alg"] = json!("HS256")
    }),
    ("no alg", |header, _| drop(header["alg"].take())),
    ("crit", |header, _| header["crit"] = json!(["exp"])),
    ("another issuer", |_, claims| {
        claims["iss"] = json!("renter-1")
    }),
    ("no issuer", |_, claims| drop(claims["iss"].take())),
    ("another audience", |_, claims| {
        claims["aud"] = json!("http://127.0.0.1:1")
    }),
    ("a list of audiences", |_, claims| {
        claims["aud"] = json!([claims["aud"], "http://127.0.0.1:1"])
    }),
    ("another method", |_, claims| claims["htm"] = json!("PATCH")),
    ("a method in lower case", |_, claims| {
        claims["htm"] = json!("post")
    }),
    ("another address", |_, claims| {
        claims["htu"] = json!("http://127.0.0.1:1/v1/authorizations")
    }),
    ("another path", |_, claims| {
        claims["htu"] = json!(format!(
            "{}/v1/revocations",
            claims["aud"].as_str().unwrap()
        ))
    }),
    ("exp too far", |_, claims| {
        claims["exp"] = json!(now() + 301)
    }),
    ("exp before iat", |_, claims| {
        claims["exp"] = json!(now() - 1)
    }),
    ("expired", |_, claims| {
        claims["iat"] = json!(now() - 301);
        claims["exp"] = json!(now() - 1);
    }),
    ("no exp", |_, claims| drop(claims["exp"].take())),
    ("signed in the future", |_, claims| {
        claims["iat"] = json!(now() + 65);
        claims["exp"] = json!(now() + 100);
    }),
    ("no jti", |_, claims| drop(claims["jti"].take())),
    ("an empty jti", |_, claims| claims["jti"] = json!("")),
    ("a jti without end", |_, claims| {
        claims["jti"] = json!("x".repeat(129))
    }),
];

#[test]
fn an_owners_command_is_believed_only_where_all_of_it_holds() {
    let World { issuer, server, .. } = World::new();
    let (owner, wanted) = (
        issuer.owner(),
        authorization("DEMO-0001", &["doors.unlock"]),
    );
    let command = |change: Change| owner.command_with(&server.url, &wanted, change);
    for (what, change) in BAD_COMMANDS {
        let answer = server.command(&command(change));
        assert_eq!(answer.status, 401, "{what}: {}", answer.text());
        answer.refused(401, "unauthenticated");
    }
    // Another key under the owner's name; a signature cut, changed or of something else.
    let good = command(|_, _| {});
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let other = command(|_, _| {});
    for bad in [
        Phone::new().command(&server.url, &wanted),
        signed.to_owned(),
        format!("{signed}."),
        format!("{signed}.{}", &signature[..80]),
        format!("{signed}.{}", other.rsplit_once('.').unwrap().1),
        format!("{good}.{signature}"),
        "..".into(),
        "a.b.c".into(),
        String::from("x"),
        "x".repeat(20_000),
    ] {
        server.command(&bad).refused(401, "unauthenticated");
    }
    // The edges of what is believed.
    for change in [
        (|_, claims| {
            claims["iat"] = json!(now() - 298);
            claims["exp"] = json!(now() + 2);
        }) as Change,
        |_, claims| {
            claims["iat"] = json!(now() + 60);
            claims["exp"] = json!(now() + 360);
        },
        |_, claims| claims["jti"] = json!("x".repeat(128)),
    ] {
        let answer = server.command(&command(change));
        assert_eq!(answer.status, 201, "{}", answer.text());
    }
    // Believed, and what it wants is of the wrong form: the field is named.
    let answer = server.command(&owner.command(&server.url, &json!({ "vehicle": 7 })));
    answer.refused(400, "malformed");
    assert_eq!(field(&answer).as_deref(), Some("command.vehicle"));
}

#[test]
fn a_command_counts_once() {
    let World { issuer, server, .. } = World::new();
    let owner = issuer.owner();
    let command = |functions: &[&str], jti: &'static str| {
        owner.command_with(
            &server.url,
            &authorization("DEMO-0001", functions),
            |_, claims| claims["jti"] = json!(jti),
        )
    };
    let first = command(&["doors.unlock"], "one");
    let answer = server.command(&first);
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert_eq!(server.command(&first).body, answer.body, "the same answer");
    server
        .command(&command(&["doors.unlock", "engine.start"], "one"))
        .refused(409, "command_replayed");
    // ECDSA is randomised: the same command signed anew is another one.
    server
        .command(&command(&["doors.unlock"], "one"))
        .refused(409, "command_replayed");
    let other = server.command(&command(&["doors.unlock"], "two"));
    assert_eq!(other.status, 201);
    assert_ne!(other.value()["code_set"], answer.value()["code_set"]);
    // It is not forgotten when the server is.
    let public_url = server.url.clone();
    server.kill();
    let server = issuer.serve_with(&[("FOB_SERVER_PUBLIC_URL", &public_url)]);
    assert_eq!(server.command(&first).body, answer.body, "after a crash");
}

#[test]
fn an_owner_authorizes_its_own_vehicles_while_it_is_in_good_standing() {
    let world = World::new();
    let (server, owner) = (&world.server, world.issuer.owner());
    let ask = |vehicle| {
        let wanted = authorization(vehicle, &["doors.unlock"]);
        server.command(&owner.command(&server.url, &wanted))
    };
    assert_eq!(ask("DEMO-0010").status, 201);
    let answer = ask("DEMO-0011");
    answer.refused(403, "forbidden");
    assert_eq!(field(&answer).as_deref(), Some("vehicle"));
    ask("NOBODYS").refused(404, "unknown_vehicle");
    let vehicle = |owner: &str| json!({ "model": "Demo", "owner": owner });
    world.put("/v1/vehicles/DEMO-0010", &vehicle("renter-1"));
    ask("DEMO-0010").refused(403, "forbidden");
    world.put("/v1/vehicles/DEMO-0010", &vehicle("owner-1"));
    assert_eq!(ask("DEMO-0010").status, 201);
    world.put("/v1/identities/owner-1", &json!({ "status": "suspended" }));
    ask("DEMO-0010").refused(403, "identity_suspended");
    world.put("/v1/identities/owner-1", &json!({ "status": "active" }));
    assert_eq!(ask("DEMO-0010").status, 201);
    // The terminal now holds another key: the old one is nobody's.
    let terminal = json!({ "identity": "owner-1", "jwk": Phone::new().jwk() });
    world.put("/v1/terminals/owner-1-phone", &terminal);
    ask("DEMO-0010").refused(401, "unauthenticated");
}

// ---- what may be authorized ----------------------------------------------------------------

#[test]
fn what_an_authorization_names_must_exist() {
    let world = World::new();
    world.put("/v1/identities/gone", &json!({ "status": "suspended" }));
    let jwk = Phone::new().jwk();
    let terminal = json!({ "identity": "renter-1", "jwk": jwk });
    world.put("/v1/terminals/renter-1-phone", &terminal);
    let few = json!({ "model": "M", "functions": ["doors.unlock", 2] });
    world.put("/v1/vehicles/FEW", &few);
    let usual = || authorization("DEMO-0001", &["doors.unlock"]);
    let recipient = |recipient: Value| world.ask(&with(usual(), json!({ "recipient": recipient })));

    world
        .ask(&authorization("FEW", &["doors.unlock", "engine.start"]))
        .refused(422, "function_not_on_vehicle");
    for unknown in ["sunroof.open", "", "doors.unlock "] {
        world
            .ask(&authorization("DEMO-0001", &[unknown]))
            .refused(404, "unknown_function");
    }
    world
        .ask(&with(usual(), json!({ "functions": [999] })))
        .refused(404, "unknown_function");
    recipient(json!({ "identity": "nobody" })).refused(404, "unknown_identity");
    recipient(json!({ "identity": "gone" })).refused(403, "identity_suspended");
    recipient(json!({ "terminal": "nothing" })).refused(404, "not_found");
    recipient(json!({ "terminal": "renter-1-phone", "identity": "renter-2" }))
        .refused(403, "terminal_mismatch");
    for (body, path) in [
        (json!({ "model": "M", "owner": "nobody" }), "/v1/vehicles/X"),
        (
            json!({ "identity": "nobody", "jwk": jwk }),
            "/v1/terminals/x",
        ),
    ] {
        let answer = world.server.json_as(&world.token, "PUT", path, &body);
        answer.refused(404, "unknown_identity");
    }
    let body = json!({ "model": "M", "functions": ["sunroof.open"] });
    let answer = world
        .server
        .json_as(&world.token, "PUT", "/v1/vehicles/X", &body);
    answer.refused(404, "unknown_function");
}

#[test]
fn what_an_authorization_says_must_make_sense() {
    let world = World::new();
    let t = now();
    let circle =
        |lat: f64, radius: u64| json!({ "circle": { "lat": lat, "lon": 0, "radius_m": radius } });
    let square = json!([[0.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.0]]);
    for (extra, named) in [
        (json!({ "vehicle": "a b" }), "vehicle"),
        (json!({ "functions": [] }), "functions"),
        (json!({ "functions": [1, "doors.unlock"] }), "functions"),
        (json!({ "functions": vec![1; 65] }), "functions"),
        (json!({ "not_after": time(t) }), "not_after"),
        (json!({ "not_before": time(t + 7300) }), "not_after"),
        (json!({ "not_after": time(t + 732 * 86_400) }), "not_after"),
        (json!({ "not_after": "tomorrow" }), "not_after"),
        (json!({ "redeem_by": time(t) }), "redeem_by"),
        (json!({ "redeem_by": time(t + 7300) }), "redeem_by"),
        (json!({ "max_uses": { "doors.unlock": 0 } }), "max_uses"),
        (json!({ "max_uses": { "engine.start": 1 } }), "max_uses"),
        (
            json!({ "max_uses": { "doors.unlock": 1, "1": 1 } }),
            "max_uses",
        ),
        (json!({ "signing": "forest" }), "signing"),
        (json!({ "region": {} }), "region"),
        (json!({ "region": circle(90.1, 100) }), "region"),
        (json!({ "region": circle(1e300, 100) }), "region"),
        (json!({ "region": circle(50.0, 0) }), "region"),
        (
            json!({ "region": { "polygon": [[0.0, 0.0], [0.0, 1.0]] } }),
            "region",
        ),
        (
            json!({ "region": { "polygon": square, "circle": circle(50.0, 10)["circle"] } }),
            "region",
        ),
        (
            json!({ "recipient": { "identity": "a b" } }),
            "recipient.identity",
        ),
        (
            json!({ "recipient": { "terminal": "" } }),
            "recipient.terminal",
        ),
    ] {
        let answer = world.ask(&with(
            authorization("DEMO-0001", &["doors.unlock"]),
            extra.clone(),
        ));
        assert_eq!(answer.status, 400, "{extra}: {}", answer.text());
        answer.refused(400, "malformed");
        assert_eq!(field(&answer).as_deref(), Some(named), "{extra}");
    }
    let fine = json!({ "region": { "polygon": square }, "max_uses": { "1": 3 } });
    world.authorize("DEMO-0001", fine);
    // A function that no limit names is not known either.
    let extra = json!({ "max_uses": { "sunroof.open": 1 } });
    world
        .ask(&with(authorization("DEMO-0001", &["doors.unlock"]), extra))
        .refused(404, "unknown_function");
}

#[test]
fn an_idempotency_key_stands_for_one_request() {
    let world = World::new();
    let bearer = format!("Bearer {}", world.token);
    let send = |key: &str, body: &Value| {
        let headers = [
            ("content-type", "application/json"),
            ("authorization", bearer.as_str()),
            ("idempotency-key", key),
        ];
        let body = body.to_string();
        world
            .server
            .send("POST", "/v1/authorizations", &headers, body.as_bytes())
    };
    let body = authorization("DEMO-0001", &["doors.unlock"]);
    let first = send("order 7", &body);
    assert_eq!(first.status, 201, "{}", first.text());
    assert_eq!(send("order 7", &body).body, first.body);
    send("order 7", &authorization("DEMO-0002", &["doors.unlock"]))
        .refused(409, "command_replayed");
    assert_ne!(send("order 8", &body).body, first.body);
    for bad in ["", &"x".repeat(129)] {
        let answer = send(bad, &body);
        answer.refused(400, "malformed");
        assert_eq!(field(&answer).as_deref(), Some("Idempotency-Key"));
    }
    // A refused request uses nothing up.
    send("order 9", &authorization("NOBODYS", &["doors.unlock"])).refused(404, "unknown_vehicle");
    assert_eq!(send("order 9", &body).status, 201);
}

#[test]
fn the_same_request_gets_the_same_answer_even_where_its_time_has_passed() {
    let world = World::new();
    let bearer = format!("Bearer {}", world.token);
    let headers = [
        ("content-type", "application/json"),
        ("authorization", bearer.as_str()),
        ("idempotency-key", "once"),
    ];
    let brief = json!({ "redeem_by": time(now() + 2) });
    let body = with(authorization("DEMO-0001", &["doors.unlock"]), brief).to_string();
    let send = || {
        world
            .server
            .send("POST", "/v1/authorizations", &headers, body.as_bytes())
    };
    let first = send();
    assert_eq!(first.status, 201, "{}", first.text());
    thread::sleep(Duration::from_millis(2100));
    let again = send();
    assert_eq!(again.status, 201, "{}", again.text());
    assert_eq!(again.value()["code_set"], first.value()["code_set"]);
}

// ---- what a borrower proves ----------------------------------------------------------------

/// Changes to header and claims after which a proof must not be believed.
const BAD_PROOFS: [(&str, Change); 22] = [
    ("no jwk", |header, _| drop(header["jwk"].take())),
    ("a jwk with other coordinates", |header, _| {
        header["jwk"] = Phone::new().jwk()
    }),
    ("a jwk off the curve", |header, _| {
        header["jwk"]["x"] = json!(encode(&[7; 32]))
    }),
    ("a short coordinate", |header, _| {
        header["jwk"]["x"] = json!("AQ")
    }),
    ("another curve", |header, _| {
        header["jwk"]["crv"] = json!("P-384")
    }),
    ("a symmetric key", |header, _| {
        header["jwk"] = json!({ "kty": "oct", "k": "AAAA" })
    }),
    ("a jwk that is a text", |header, _| {
        header["jwk"] = json!("x")
    }),
    ("another typ", |header, _| header["typ"] = json!("JWT")),
    ("a command's typ", |header, _| {
        header["typ"] = json!("fob-command+jwt")
    }),
    ("no typ", |header, _| drop(header["typ"].take())),
    ("alg none", |header, _| header["alg"] = json!("none")),
    ("another alg", |header, _| header["alg"] = json!("EdDSA")),
    ("crit", |header, _| header["crit"] = json!(["b64"])),
    ("another audience", |_, claims| {
        claims["aud"] = json!("http://127.0.0.1:1")
    }),
    ("no audience", |_, claims| drop(claims["aud"].take())),
    ("no iat", |_, claims| drop(claims["iat"].take())),
    ("an iat in words", |_, claims| claims["iat"] = json!("now")),
    ("a negative iat", |_, claims| claims["iat"] = json!(-1)),
    ("signed 301 seconds ago", |_, claims| {
        claims["iat"] = json!(now() - 301)
    }),
    ("signed 65 seconds ahead", |_, claims| {
        claims["iat"] = json!(now() + 65)
    }),
    ("no nonce", |_, claims| drop(claims["nonce"].take())),
    ("a padded nonce", |_, claims| {
        claims["nonce"] = json!(format!("{}=", claims["nonce"].as_str().unwrap()))
    }),
];

/// Proofs that go wrong where the signature is made.
fn forged(url: &str, code_set: &str, other: &str, phone: &Phone) -> Vec<String> {
    let good = phone.proof(url, code_set);
    let (signed, signature) = good.rsplit_once('.').unwrap();
    // A public key is no secret: HS256 with it must not pass.
    let jwk = phone.jwk();
    let coordinate = |name| BASE64_URL_SAFE_NO_PAD.decode(text(&jwk, name)).unwrap();
    let point = [vec![4], coordinate("x"), coordinate("y")].concat();
    let claims = good.split('.').nth(1).unwrap();
    let symmetric = |secret: &[u8]| {
        let header = json!({ "alg": "HS256", "typ": "openid4vci-proof+jwt", "jwk": jwk });
        let signed = format!("{}.{claims}", encode(header.to_string().as_bytes()));
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let tag = hmac::sign(&key, signed.as_bytes());
        format!("{signed}.{}", encode(tag.as_ref()))
    };
    let unsigned = {
        let header = json!({ "alg": "none", "typ": "openid4vci-proof+jwt", "jwk": jwk });
        format!("{}.{claims}.", encode(header.to_string().as_bytes()))
    };
    let private = phone.proof_with(url, code_set, |header, _| {
        header["jwk"]["d"] = json!(phone.private())
    });
    vec![
        phone.proof(url, other),
        symmetric(&point),
        symmetric(jwk.to_string().as_bytes()),
        unsigned,
        private,
        format!("{signed}."),
        format!("{signed}.{}", &signature[..40]),
        format!("{signed}.{}", encode(&[0; 64])),
        format!("{good}="),
        format!(" {good}"),
        signed.to_owned(),
        "..".into(),
        "x".repeat(17_000),
        String::new(),
    ]
}

#[test]
fn a_proof_is_believed_only_where_all_of_it_holds() {
    let world = World::new();
    let url = world.server.url.as_str();
    let phone = Phone::new();
    let (code_set, other) = (
        world.code_set("DEMO-0001", json!({})),
        world.code_set("DEMO-0001", json!({})),
    );
    for (what, change) in BAD_PROOFS {
        let answer = world.redeem_with(&code_set, &phone.proof_with(url, &code_set, change));
        assert_eq!(answer.status, 422, "{what}: {}", answer.text());
        answer.refused(422, "proof_invalid");
        assert_eq!(field(&answer).as_deref(), Some("proof"), "{what}");
    }
    for proof in forged(url, &code_set, &other, &phone) {
        let answer = world.redeem_with(&code_set, &proof);
        assert_eq!(answer.status, 422, "{proof}: {}", answer.text());
    }
    // Nothing of all that has used the code set up; and the edges of time are inside.
    let early = phone.proof_with(url, &code_set, |_, claims| {
        claims["iat"] = json!(now() + 60)
    });
    let late = phone.proof_with(url, &code_set, |_, claims| {
        claims["iat"] = json!(now() - 298)
    });
    let first = world.redeem_with(&code_set, &early);
    assert_eq!(first.status, 201, "{}", first.text());
    assert_eq!(world.redeem_with(&code_set, &late).body, first.body);

    // The same for who reads a bundle.
    let bundle = text(&first.value(), "bundle");
    let path = format!("/v1/bundles/{bundle}");
    let read = |proof: &str| world.server.get(&path, &[("fob-proof", proof)]);
    assert_eq!(read(&phone.proof(url, &bundle)).body, first.body);
    for (_, change) in BAD_PROOFS {
        read(&phone.proof_with(url, &bundle, change)).refused(422, "proof_invalid");
    }
    for proof in forged(url, &bundle, &code_set, &phone) {
        // A header begins with its first visible character.
        if proof.trim() == proof {
            read(&proof).refused(422, "proof_invalid");
        }
    }
    read(&Phone::new().proof(url, &bundle)).refused(404, "not_found");
}

// ---- code sets -----------------------------------------------------------------------------

#[test]
fn a_code_set_has_one_form() {
    let world = World::new();
    let good = world.code_set("DEMO-0001", json!({}));
    let hyphens = format!("{}-{}", &good[..8], &good[8..]);
    let link = format!("{}/k#{good}", world.server.url);
    for bad in [
        "",
        "FOB1",
        "FOB2",
        &good[4..],
        &good[..good.len() - 1],
        &format!("{good}0"),
        &good.to_lowercase(),
        &format!("{good} "),
        &format!(" {good}"),
        &format!("{good}="),
        &hyphens,
        &link,
        &format!("{}U", &good[..good.len() - 1]),
        &"FOB1".repeat(5_000),
        "FOB1\u{0}",
        "FOB1ÄÖÜ",
    ] {
        let answer = world.preview(bad);
        assert_eq!(answer.status, 400, "{bad}: {}", answer.text());
        answer.refused(400, "code_set_malformed");
        assert_eq!(field(&answer).as_deref(), Some("code_set"));
        world
            .redeem_with(bad, &Phone::new().proof(&world.server.url, bad))
            .refused(400, "code_set_malformed");
    }
}

#[test]
fn an_unknown_code_set_and_a_wrong_secret_get_the_same_answer() {
    let world = World::new();
    let brief = json!({ "redeem_by": time(now() + 2) });
    let expired = world.code_set("DEMO-0001", brief);
    let locked = world.code_set("DEMO-0001", json!({ "pin": true }));
    let redeemed = world.code_set("DEMO-0001", json!({}));
    let phone = Phone::new();
    assert_eq!(
        world.server.redeem(&redeemed, "renter-1", &phone).status,
        201
    );
    let open = world.code_set("DEMO-0001", json!({}));
    let parts = CodeSet::decode(&open).unwrap();
    let unknown = CodeSet::new([9; 16], *parts.secret(), parts.codes()).unwrap();
    let more = CodeSet::new(*parts.id(), *parts.secret(), &[1, 2]).unwrap();
    let other = CodeSet::new(*parts.id(), *parts.secret(), &[2]).unwrap();
    thread::sleep(Duration::from_millis(2050));

    world
        .server
        .redeem(&redeemed, "renter-2", &phone)
        .refused(409, "code_set_redeemed");
    world.preview(&redeemed).refused(409, "code_set_redeemed");
    world
        .server
        .redeem(&expired, "renter-1", &phone)
        .refused(410, "code_set_expired");
    world.preview(&expired).refused(410, "code_set_expired");
    world
        .server
        .redeem(&locked, "renter-1", &phone)
        .refused(403, "pin_required");

    let mut bodies = Vec::new();
    for bad in [
        unknown.encode(),
        more.encode(),
        other.encode(),
        wrong_secret(&open),
        wrong_secret(&redeemed),
        wrong_secret(&expired),
        wrong_secret(&locked),
    ] {
        for answer in [
            world.preview(&bad),
            world.server.redeem(&bad, "renter-1", &phone),
            // Who redeems, and how well it proves that, is not looked at before.
            world.redeem_with(&bad, "not a proof"),
            world.redeem_pin(&bad, "nobody", &phone, "000000"),
        ] {
            answer.refused(404, "code_set_unknown");
            bodies.push(answer.body);
        }
    }
    assert!(bodies.iter().all(|body| *body == bodies[0]));
    assert_eq!(world.preview(&open).status, 200);
}

// ---- PINs ----------------------------------------------------------------------------------

#[test]
fn five_wrong_pins_lock_a_code_set_through_crashes_too() {
    let mut world = World::new();
    let phone = Phone::new();
    let made = world.authorize("DEMO-0001", json!({ "pin": true }));
    let (code_set, pin) = (text(&made, "code_set"), text(&made, "pin"));
    assert_eq!(world.preview(&code_set).value()["pin_required"], true);
    world
        .server
        .redeem(&code_set, "renter-1", &phone)
        .refused(403, "pin_required");
    // What cannot be a PIN, and who could not redeem anyway, costs no attempt.
    for none in ["", "12345", "1234567", "12345a", "１２３４５６"] {
        let answer = world.redeem_pin(&code_set, "renter-1", &phone, none);
        answer.refused(400, "malformed");
        assert_eq!(field(&answer).as_deref(), Some("pin"));
    }
    for _ in 0..6 {
        world
            .redeem_pin(&code_set, "nobody", &phone, &pin)
            .refused(404, "unknown_identity");
    }
    for attempt in 0..5 {
        if attempt == 3 {
            world.server.kill();
            world.server = world.issuer.serve();
        }
        world
            .redeem_pin(&code_set, "renter-1", &phone, &wrong(&pin))
            .refused(403, "pin_wrong");
    }
    world
        .redeem_pin(&code_set, "renter-1", &phone, &pin)
        .refused(403, "pin_locked");
    world.server.kill();
    world.server = world.issuer.serve();
    world
        .redeem_pin(&code_set, "renter-1", &phone, &pin)
        .refused(403, "pin_locked");
    // Another code set is not locked: four wrong ones, and the fifth is right.
    let made = world.authorize("DEMO-0001", json!({ "pin": true }));
    let (code_set, pin) = (text(&made, "code_set"), text(&made, "pin"));
    for _ in 0..4 {
        world
            .redeem_pin(&code_set, "renter-1", &phone, &wrong(&pin))
            .refused(403, "pin_wrong");
    }
    let bundle = world.redeem_pin(&code_set, "renter-1", &phone, &pin);
    assert_eq!(bundle.status, 201, "{}", bundle.text());
    // The same phone again; another one learns no more than that it is too late.
    assert_eq!(
        world.server.redeem(&code_set, "renter-1", &phone).body,
        bundle.body
    );
    world
        .redeem_pin(&code_set, "renter-1", &Phone::new(), &pin)
        .refused(409, "code_set_redeemed");
}

/// The answers to `count` requests sent at once, each by a client of its own.
fn at_once(server: &Server, count: usize, body: impl Fn(usize) -> Value + Sync) -> Vec<Answer> {
    let start = Barrier::new(count);
    thread::scope(|scope| {
        let senders: Vec<_> = (0..count)
            .map(|n| {
                let (start, body) = (&start, &body);
                scope.spawn(move || {
                    let (client, body) = (server.client(), body(n));
                    start.wait();
                    client.json("POST", "/v1/redemptions", &[], &body).unwrap()
                })
            })
            .collect();
        senders
            .into_iter()
            .map(|sender| sender.join().unwrap())
            .collect()
    })
}

#[test]
fn pins_cannot_be_tried_in_parallel() {
    let world = World::new();
    let made = world.authorize("DEMO-0001", json!({ "pin": true }));
    let (code_set, pin) = (text(&made, "code_set"), text(&made, "pin"));
    let url = world.server.url.as_str();
    let answers = at_once(&world.server, 20, |_| {
        let body = redemption(url, &code_set, "renter-1", &Phone::new());
        with(body, json!({ "pin": wrong(&pin) }))
    });
    let (compared, rest): (Vec<_>, Vec<_>) = answers
        .iter()
        .partition(|answer| answer.refusal() == "pin_wrong");
    assert_eq!(compared.len(), 5, "guesses that were compared");
    for answer in rest {
        answer.refused(403, "pin_locked");
    }
}

#[test]
fn the_right_pin_may_be_sent_as_often_as_the_network_needs() {
    let world = World::new();
    let made = world.authorize("DEMO-0001", json!({ "pin": true }));
    let phone = Phone::new();
    let body = redemption(
        &world.server.url,
        &text(&made, "code_set"),
        "renter-1",
        &phone,
    );
    let body = with(body, json!({ "pin": made["pin"] }));
    let answers = at_once(&world.server, 12, |_| body.clone());
    for answer in &answers {
        assert_eq!(answer.status, 201, "{}", answer.text());
        assert_eq!(answer.body, answers[0].body);
    }
}

// ---- who may redeem ------------------------------------------------------------------------

#[test]
fn a_closed_fleet_asks_for_a_terminal_or_a_pin() {
    let world = World::closed();
    let server = &world.server;
    let (known, stranger) = (Phone::new(), Phone::new());
    let answer = server.redeem(&world.code_set("CAR", json!({})), "renter", &stranger);
    answer.refused(403, "terminal_mismatch");
    assert_eq!(field(&answer).as_deref(), Some("proof"));
    // With a PIN a stranger's phone will do.
    let made = world.authorize("CAR", json!({ "pin": true }));
    let answer = world.redeem_pin(
        &text(&made, "code_set"),
        "renter",
        &stranger,
        &text(&made, "pin"),
    );
    assert_eq!(answer.status, 201, "{}", answer.text());
    // Once the identity has a terminal, only that one will, PIN or not.
    let terminal = json!({ "identity": "renter", "jwk": known.jwk() });
    world.put("/v1/terminals/renter-phone", &terminal);
    let made = world.authorize("CAR", json!({ "pin": true }));
    let (code_set, pin) = (text(&made, "code_set"), text(&made, "pin"));
    for _ in 0..6 {
        world
            .redeem_pin(&code_set, "renter", &stranger, &pin)
            .refused(403, "terminal_mismatch");
    }
    assert_eq!(
        world.redeem_pin(&code_set, "renter", &known, &pin).status,
        201
    );
    let code_set = world.code_set("CAR", json!({}));
    // Somebody else's registered terminal is a stranger's.
    server
        .redeem(&code_set, "other", &known)
        .refused(403, "terminal_mismatch");
    assert_eq!(server.redeem(&code_set, "renter", &known).status, 201);
}

#[test]
fn a_code_set_may_be_for_one_person_or_one_terminal() {
    let world = World::closed();
    let server = &world.server;
    let (one, two) = (Phone::new(), Phone::new());
    for (id, phone) in [("one", &one), ("two", &two)] {
        let terminal = json!({ "identity": "renter", "jwk": phone.jwk() });
        world.put(&format!("/v1/terminals/{id}"), &terminal);
    }
    let code_set = world.code_set("CAR", json!({ "recipient": { "identity": "renter" } }));
    server
        .redeem(&code_set, "other", &one)
        .refused(403, "recipient_mismatch");
    server
        .redeem(&code_set, "nobody", &one)
        .refused(404, "unknown_identity");
    assert_eq!(server.redeem(&code_set, "renter", &two).status, 201);
    let code_set = world.code_set("CAR", json!({ "recipient": { "terminal": "one" } }));
    server
        .redeem(&code_set, "renter", &two)
        .refused(403, "terminal_mismatch");
    server
        .redeem(&code_set, "other", &one)
        .refused(403, "terminal_mismatch");
    assert_eq!(server.redeem(&code_set, "renter", &one).status, 201);
    // Bound to a terminal whose key is replaced before it redeems.
    let code_set = world.code_set("CAR", json!({ "recipient": { "terminal": "one" } }));
    let terminal = json!({ "identity": "renter", "jwk": Phone::new().jwk() });
    world.put("/v1/terminals/one", &terminal);
    server
        .redeem(&code_set, "renter", &one)
        .refused(403, "terminal_mismatch");
}

#[test]
fn who_is_suspended_or_unknown_redeems_nothing() {
    let world = World::new();
    let phone = Phone::new();
    let code_set = world.code_set("DEMO-0020", json!({}));
    let redeem = |identity: &str| world.server.redeem(&code_set, identity, &phone);
    redeem("nobody").refused(404, "unknown_identity");
    world.put("/v1/identities/renter-1", &json!({ "status": "suspended" }));
    redeem("renter-1").refused(403, "identity_suspended");
    // A vehicle may lose a function while a code set for it is on its way.
    let vehicle = |functions: Value| json!({ "model": "Demo", "functions": functions });
    world.put("/v1/vehicles/DEMO-0020", &vehicle(json!(["doors.lock"])));
    redeem("renter-2").refused(422, "function_not_on_vehicle");
    world.put("/v1/vehicles/DEMO-0020", &vehicle(json!([1])));
    world.put("/v1/identities/renter-1", &json!({ "status": "active" }));
    assert_eq!(redeem("renter-1").status, 201);
}

// ---- what is not there ---------------------------------------------------------------------

#[test]
fn another_fleets_objects_are_not_there() {
    let world = World::new();
    let server = &world.server;
    let phone = Phone::new();
    let made = world.authorize("DEMO-0001", json!({}));
    let bundle = server.redeem(&text(&made, "code_set"), "renter-1", &phone);
    let id = text(&made, "authorization");
    world.issuer.fob(&["fleet", "create", "rental"]);
    let rival = fleet_token(&world.issuer, "rental", ALL_SCOPES);
    let bearer = format!("Bearer {rival}");
    let get = |path: &str| server.get(path, &[("authorization", &bearer)]);
    get(&format!("/v1/authorizations/{id}")).refused(404, "not_found");
    get(&format!("/v1/bundles/{}", text(&bundle.value(), "bundle"))).refused(404, "not_found");
    for query in ["", "?vehicle=DEMO-0001", "?state=redeemed"] {
        let page = get(&format!("/v1/authorizations{query}"));
        assert_eq!(page.value()["items"], json!([]), "{}", page.text());
    }
    let ask = |method, path, body: &Value| server.json_as(&rival, method, path, body);
    let wanted = authorization("DEMO-0001", &["doors.unlock"]);
    ask("POST", "/v1/authorizations", &wanted).refused(404, "unknown_vehicle");
    let vehicle = json!({ "model": "M", "owner": "owner-1" });
    ask("PUT", "/v1/vehicles/CAR", &vehicle).refused(404, "unknown_identity");
    let terminal = json!({ "identity": "owner-1", "jwk": phone.jwk() });
    ask("PUT", "/v1/terminals/t", &terminal).refused(404, "unknown_identity");
    // The same name in both fleets means two things.
    let own = json!({ "model": "Rival", "functions": ["doors.lock"] });
    assert_eq!(ask("PUT", "/v1/vehicles/DEMO-0001", &own).status, 204);
    ask("POST", "/v1/authorizations", &wanted).refused(422, "function_not_on_vehicle");
    world.authorize("DEMO-0001", json!({}));
    let recipient = json!({ "recipient": { "identity": "renter-1" } });
    let wanted = with(authorization("DEMO-0001", &["doors.lock"]), recipient);
    ask("POST", "/v1/authorizations", &wanted).refused(404, "unknown_identity");
    // An owner of one fleet signs for the other: its terminal is not registered there.
    let command = world.issuer.owner().command_with(
        &server.url,
        &authorization("DEMO-0001", &["doors.lock"]),
        |header, _| header["kid"] = json!("rental/owner-1-phone"),
    );
    server.command(&command).refused(401, "unauthenticated");
}

#[test]
fn what_is_not_there_is_not_found() {
    let world = World::new();
    let bearer = format!("Bearer {}", world.token);
    let nothing = "01890000-0000-7000-8000-000000000000";
    for path in ["/v1/authorizations/", "/v1/bundles/"] {
        for id in [nothing, "x", "%20", "01890000", &"0".repeat(4000)] {
            let answer = world
                .server
                .get(&format!("{path}{id}"), &[("authorization", &bearer)]);
            answer.refused(404, "not_found");
        }
    }
    let proof = Phone::new().proof(&world.server.url, nothing);
    world
        .server
        .get(&format!("/v1/bundles/{nothing}"), &[("fob-proof", &proof)])
        .refused(404, "not_found");
    for query in [
        "limit=0",
        "limit=501",
        "limit=x",
        "limit=-1",
        "state=new",
        "after=x",
        "vehicle=a%20b",
        "page=1",
        "limit=1&limit=2",
    ] {
        world
            .server
            .get(
                &format!("/v1/authorizations?{query}"),
                &[("authorization", &bearer)],
            )
            .refused(400, "malformed");
    }
}

// ---- all of them ---------------------------------------------------------------------------

/// Codes that no test of this file reaches, and why.
const ELSEWHERE: [(&str, &str); 22] = [
    (
        "request_invalid",
        "needs a borrower who asks: fleets/requests.rs",
    ),
    (
        "request_expired",
        "needs a borrower who asks: fleets/requests.rs",
    ),
    (
        "request_answered",
        "needs a borrower who asks: fleets/requests.rs",
    ),
    ("busy", "needs a full queue: faults.rs"),
    ("hsm_unavailable", "needs a broken HSM: faults.rs"),
    ("store_unavailable", "needs a broken store: faults.rs"),
    ("shutting_down", "needs a server that drains: faults.rs"),
    (
        "identity_held",
        "needs a fleet that holds: fleets/eligibility.rs",
    ),
    ("licence_missing", "needs rules: fleets/eligibility.rs"),
    ("licence_expired", "needs rules: fleets/eligibility.rs"),
    ("rate_limited", "needs rules: fleets/limits.rs"),
    ("quota_exceeded", "needs rules: fleets/limits.rs"),
    ("issuing_frozen", "needs rules: fleets/limits.rs"),
    ("step_up_required", "needs rules: fleets/context.rs"),
    ("context_refused", "needs rules: fleets/context.rs"),
    ("hook_refused", "needs rules: fleets/hooks.rs"),
    ("hook_unavailable", "needs rules: fleets/hooks.rs"),
    ("authorization_suspended", "needs a suspension: status.rs"),
    ("code_set_cancelled", "needs an end: change.rs"),
    ("identity_owns_vehicles", "needs an owner: erase.rs"),
    ("registered_otherwise", "comes in a line: api.rs"),
    ("version_conflict", "needs a change: change.rs"),
];

#[test]
fn no_code_is_without_a_test() {
    let source: String = include_str!("refusals.rs").split_whitespace().collect();
    for code in RefusalCode::ALL.iter().map(|code| code.code()) {
        let reached = source.match_indices(".refused(").any(|(at, call)| {
            let expected = &source[at + call.len()..];
            expected
                .get(3..)
                .is_some_and(|rest| rest.starts_with(&format!(",\"{code}\"")))
        });
        let excused = ELSEWHERE.iter().any(|(excused, _)| *excused == code);
        assert!(
            reached != excused,
            "{code}: refuse it over HTTP in a test here, or say in ELSEWHERE why not"
        );
    }
    for (code, why) in ELSEWHERE {
        let known = RefusalCode::ALL.iter().any(|known| known.code() == code);
        assert!(known, "{code} ({why}) is no code any more");
    }
}
