//! Checks that live elsewhere: who is asked what, what an answer is, and what becomes of keys
//! without one.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use fob::engine::jws::{Unverified, holder_key};
use serde_json::{Value, json};

use super::rental::{Rental, text};
use crate::support::elsewhere::{Answers, Elsewhere, certificate, claims};
use crate::support::{Issuer, Phone, now};

const UNLOCK: &str = "doors.unlock";
const START: &str = "engine.start";

/// How long the server of these tests waits.
const DEADLINE_MS: u64 = 700;

struct World {
    rental: Rental,
    elsewhere: Elsewhere,
}

impl World {
    fn new() -> Self {
        Self::with("right", &[])
    }

    /// Whoever is asked has this certificate; the server has these variables.
    fn with(presented: &str, variables: &[(&str, &str)]) -> Self {
        let issuer = Issuer::with(&[]);
        issuer.fob(&["hook", "init"]);
        let folder = issuer.path().to_owned();
        certificate(&folder, "right", "IP:127.0.0.1,DNS:localhost");
        certificate(&folder, "unknown", "IP:127.0.0.1,DNS:localhost");
        certificate(&folder, "other", "IP:127.0.0.2,DNS:example.com");
        let trusted = if presented == "other" {
            "other"
        } else {
            "right"
        };
        let elsewhere = Elsewhere::start(&folder, presented);
        elsewhere.answers(Answers::Allow(None));
        let port = elsewhere.port;
        let allow = format!(r#"["127.0.0.1:{port}", "localhost:{port}"]"#);
        let ca = format!("{trusted}.crt");
        let deadline = DEADLINE_MS.to_string();
        let mut all = vec![
            ("FOB_HOOK_ALLOW", allow.as_str()),
            ("FOB_HOOK_TLS_CA", &ca),
            ("FOB_HOOK_DEADLINE_MS", &deadline),
        ];
        all.extend(variables);
        Self {
            rental: Rental::on(issuer, &all),
            elsewhere,
        }
    }

    fn url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}/{path}", self.elsewhere.port)
    }

    /// From now on this address is asked about starting and unlocking.
    #[track_caller]
    fn ask(&self, url: &str, start: &str, unlock: &str) {
        let functions = json!({ START: start, UNLOCK: unlock });
        self.rental
            .rule(&json!({ "hook": { "url": url, "functions": functions } }));
    }

    fn asked(&self) -> usize {
        self.elsewhere.asked().len()
    }
}

#[test]
fn who_is_asked_is_told_what_and_by_whom_and_is_asked_once() {
    let world = World::new();
    let (rental, url) = (&world.rental, world.url("fob?a=b"));
    world.ask(&url, "closed", "open");
    let redeemed = rental.redeem("CAR", &[UNLOCK, START]);
    assert_eq!(redeemed.status, 201, "{}", redeemed.text());
    let asked = world.elsewhere.asked();
    assert_eq!(asked.len(), 1);
    let public: Value = serde_json::from_str(&rental.issuer.fob(&["hook", "key"])).unwrap();
    let key = holder_key(&public).unwrap();
    let question = Unverified::parse(&asked[0], "fob-hook+jwt").unwrap();
    assert_eq!(question.kid(), public["kid"].as_str());
    let signed: Value = question.verify(&key).unwrap();
    assert_eq!(signed["iss"], rental.server.url);
    assert_eq!(signed["aud"], url);
    let (iat, exp) = (
        signed["iat"].as_u64().unwrap(),
        signed["exp"].as_u64().unwrap(),
    );
    assert!(iat.abs_diff(now()) < 60 && exp == iat + 60);
    let expected = json!({ "fleet": "rental", "identity": "anna", "vehicle": "CAR", "model": "Car",
        "functions": [UNLOCK, START] });
    assert_eq!(signed["question"], expected);
    // The same again is remembered; another vehicle, or another function, is another question.
    assert_eq!(rental.redeem("CAR", &[UNLOCK, START]).status, 201);
    assert_eq!(world.asked(), 1);
    assert_eq!(rental.redeem("LORRY", &[UNLOCK, START]).status, 201);
    assert_eq!(rental.redeem("CAR", &[UNLOCK]).status, 201);
    assert_eq!(world.asked(), 3);
    // Nobody is asked about what the rules do not name.
    assert_eq!(rental.redeem("CAR", &["trunk.open"]).status, 201);
    assert_eq!(world.asked(), 3);
    let ids: std::collections::BTreeSet<_> = world
        .elsewhere
        .asked()
        .iter()
        .map(|it| text(&claims(it)["jti"]).to_owned())
        .collect();
    assert_eq!(ids.len(), 3, "each has an id of its own");
}

#[test]
fn what_is_denied_is_refused_and_their_reason_is_handed_on() {
    let world = World::new();
    let rental = &world.rental;
    world.ask(&world.url("fob"), "open", "open");
    world
        .elsewhere
        .answers(Answers::Deny("the deposit is open"));
    for _ in 0..2 {
        let refused = rental.redeem("CAR", &[START]);
        refused.refused(403, "hook_refused");
        assert_eq!(refused.value()["detail"], "they say: the deposit is open");
    }
    assert_eq!(world.asked(), 1, "a denial is remembered too");
    let explained = json!({ "redemption": { "identity": "anna",
        "authorization": rental.authorize("CAR", &[START])["authorization"] } });
    let explained = rental.send("POST", "/v1/explain", &explained).value();
    let rules = explained["rules"].as_array().unwrap();
    let hook = rules.iter().find(|it| it["rule"] == "hook").unwrap();
    assert_eq!(hook["code"], "hook_refused");
    assert_eq!(world.asked(), 1, "nobody is asked to explain");
}

#[test]
fn without_an_answer_each_function_fails_as_its_fleet_says() {
    let world = World::new();
    let raw = |head: &str, body: &str| {
        let length = body.len();
        Answers::Raw(format!(
            "HTTP/1.1 {head}\r\ncontent-length: {length}\r\n\r\n{body}"
        ))
    };
    let elsewhere = format!(
        "302 Found\r\nlocation: https://127.0.0.1:{}/there",
        world.elsewhere.port
    );
    // So many octets, all of them an answer.
    let long = |length: usize| {
        let question = "q".repeat(length - r#"{"question":"","verdict":"allow"}"#.len());
        format!(r#"{{"question":"{question}","verdict":"allow"}}"#)
    };
    for (at, (answers, logged)) in [
        (raw("200 OK", "<html>"), "is no answer"),
        (raw("200 OK", r#"{"verdict":"allow"}"#), "is no answer"),
        (
            raw("200 OK", r#"{"question":"q","verdict":"allow"}"#),
            "another question",
        ),
        (raw("200 OK", &long(16 * 1024)), "another question"),
        (raw("200 OK", &long(16 * 1024 + 1)), "16 KiB"),
        (raw(&elsewhere, ""), "not 200"),
        (raw("500 Internal Server Error", "{}"), "not 200"),
        (raw("201 Created", "{}"), "not 200"),
        (Answers::Raw("SSH-2.0-nothing\r\n".into()), "not reached"),
        (Answers::Nothing, "not reached"),
        (Answers::Before, "another question"),
    ]
    .into_iter()
    .enumerate()
    {
        let said = format!("{answers:?}");
        world.elsewhere.answers(answers);
        // Each at an address of its own: the one before is left alone for a while.
        world.ask(&world.url(&format!("case-{at}")), "closed", "open");
        let refused = world.rental.redeem("CAR", &[UNLOCK, START]);
        refused.refused(503, "hook_unavailable");
        assert!(refused.header("retry-after").is_some(), "{said}");
        let passed = world.rental.redeem("CAR", &[UNLOCK]);
        assert_eq!(passed.status, 201, "{said}: {}", passed.text());
        let log = world.rental.issuer.log();
        assert!(log.contains(logged), "{said}: {log}");
    }
    let there = |it: &String| text(&claims(it)["aud"]).ends_with("there");
    assert!(
        !world.elsewhere.asked().iter().any(there),
        "it was not followed"
    );
}

#[test]
fn nobody_waits_longer_than_the_deadline_and_it_is_asked_again_later() {
    let world = World::new();
    world.ask(&world.url("slow"), "closed", "closed");
    world
        .elsewhere
        .answers(Answers::After(Duration::from_secs(20)));
    for vehicle in ["CAR", "LORRY"] {
        let refused = world.rental.redeem(vehicle, &[START]);
        refused.refused(503, "hook_unavailable");
    }
    world
        .rental
        .redeem("CAR", &[UNLOCK])
        .refused(503, "hook_unavailable");
    assert_eq!(world.asked(), 3);
    // Once it is well again, it is asked again.
    world.elsewhere.answers(Answers::Allow(None));
    let mut tries = 0;
    while world.rental.redeem("LORRY", &[UNLOCK]).status != 201 {
        tries += 1;
        assert!(tries < 150, "it is never asked again");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn who_does_not_prove_its_name_is_not_asked() {
    for (presented, host) in [("unknown", "127.0.0.1"), ("other", "127.0.0.1")] {
        let world = World::with(presented, &[]);
        let url = format!("https://{host}:{}/fob", world.elsewhere.port);
        world.ask(&url, "closed", "open");
        let refused = world.rental.redeem("CAR", &[START]);
        refused.refused(503, "hook_unavailable");
        assert_eq!(world.asked(), 0, "{presented}: it was told nothing");
        assert!(world.elsewhere.connections() > 0);
    }
}

#[test]
fn names_lead_to_no_address_of_this_machine_unless_the_operator_lets_them() {
    let world = World::new();
    let url = |world: &World| format!("https://localhost:{}/fob", world.elsewhere.port);
    world.ask(&url(&world), "closed", "open");
    let refused = world.rental.redeem("CAR", &[START]);
    refused.refused(503, "hook_unavailable");
    assert_eq!(world.elsewhere.connections(), 0);
    let log = world.rental.issuer.log();
    assert!(log.contains("where no call goes"), "{log}");
    let lets = ("FOB_HOOK_ALLOW_ADDRESSES", r#"["127.0.0.0/8", "::1/128"]"#);
    let world = World::with("right", &[lets]);
    world.ask(&url(&world), "closed", "open");
    assert_eq!(world.rental.redeem("CAR", &[START]).status, 201);
}

#[test]
fn a_fleet_names_only_whom_the_operator_lists() {
    let world = World::new();
    let port = world.elsewhere.port;
    let set = |rental: &Rental, url: &str| {
        let hook = json!({ "url": url, "functions": { START: "closed" } });
        rental.set_rules(0, "?dry_run=true", &json!({ "rules": { "hook": hook } }))
    };
    for url in [
        "https://127.0.0.1:1/fob".to_owned(),
        format!("https://127.0.0.2:{port}/fob"),
        format!("https://user@127.0.0.1:{port}/fob"),
        format!("http://127.0.0.1:{port}/fob"),
        "https://169.254.169.254/latest/meta-data".to_owned(),
        "nowhere".to_owned(),
    ] {
        let refused = set(&world.rental, &url);
        refused.refused(400, "malformed");
        assert_eq!(refused.value()["field"], "hook.url", "{url}");
    }
    assert_eq!(set(&world.rental, &world.url("fob")).status, 200);
    let nobody = Rental::new();
    let refused = set(&nobody, &world.url("fob"));
    refused.refused(400, "malformed");
    assert!(text(&refused.value()["detail"]).contains("[hook]"));
}

#[test]
fn many_who_have_the_same_question_ask_it_once() {
    let world = World::new();
    let rental = &world.rental;
    world.ask(&world.url("fob"), "closed", "open");
    world
        .elsewhere
        .answers(Answers::After(Duration::from_millis(300)));
    let made: Vec<_> = (0..8).map(|_| rental.authorize("CAR", &[START])).collect();
    std::thread::scope(|scope| {
        let redeem = |one: &Value| {
            let code_set = text(&one["code_set"]).to_owned();
            scope.spawn(move || {
                rental
                    .server
                    .redeem(&code_set, "anna", &rental.phone)
                    .status
            })
        };
        let all: Vec<_> = made.iter().map(redeem).collect();
        for one in all {
            assert_eq!(one.join().unwrap(), 201);
        }
    });
    assert_eq!(world.asked(), 1);
}

#[test]
fn orders_are_asked_about_before_they_are_let_in_each_question_once() {
    let world = World::new();
    let rental = &world.rental;
    rental.put("/v1/identities/ben", &json!({}));
    let registered = json!({ "identity": "ben", "jwk": Phone::new().jwk() });
    rental.put("/v1/terminals/bens", &registered);
    world.ask(&world.url("fob"), "closed", "open");
    world.elsewhere.answers(Answers::Only("anna"));
    let order = |reference: &str, identity: &str, terminal: &str, function: &str| {
        json!({ "ref": reference, "vehicle": "CAR", "functions": [function],
            "not_before": crate::support::time(now()),
            "not_after": crate::support::time(now() + 3600),
            "recipient": { "identity": identity, "terminal": terminal } })
    };
    let answers = rental.orders(&[
        order("1", "anna", "annas", START),
        order("2", "anna", "annas", START),
        order("3", "ben", "bens", START),
        order("4", "ben", "bens", "trunk.open"),
        order("5", "ben", "annas", START),
    ]);
    let statuses: Vec<_> = answers.iter().map(|it| text(&it["status"])).collect();
    assert_eq!(
        statuses[..4],
        ["issued", "issued", "hook_refused", "issued"]
    );
    assert_ne!(statuses[4], "issued");
    assert_eq!(world.asked(), 2, "one for each who may have it at all");
    world.elsewhere.answers(Answers::Nothing);
    world.ask(&world.url("other"), "closed", "open");
    let gone = rental.orders(&[
        order("6", "anna", "annas", START),
        order("7", "anna", "annas", UNLOCK),
    ]);
    let statuses: Vec<_> = gone.iter().map(|it| text(&it["status"])).collect();
    assert_eq!(statuses, ["hook_unavailable", "issued"]);
}

#[test]
fn a_change_is_asked_about_what_it_adds() {
    let world = World::new();
    let rental = &world.rental;
    world.ask(&world.url("fob"), "closed", "closed");
    let redeemed = rental.redeem("CAR", &[UNLOCK]);
    assert_eq!(redeemed.status, 201, "{}", redeemed.text());
    let path = format!(
        "/v1/authorizations/{}",
        text(&redeemed.value()["authorization"])
    );
    world.elsewhere.answers(Answers::Deny("no licence on file"));
    let more = json!({ "functions": [UNLOCK, START] });
    rental.patch(&path, 1, &more).refused(403, "hook_refused");
    assert_eq!(world.asked(), 2);
    let asked = claims(&world.elsewhere.asked()[1]);
    assert_eq!(asked["question"]["functions"], json!([START]));
    // What it leaves and what nobody has to be asked about goes on.
    let other = json!({ "functions": [UNLOCK, "trunk.open"] });
    assert_eq!(rental.patch(&path, 1, &other).status, 200);
    assert_eq!(world.asked(), 2);
    world.elsewhere.answers(Answers::Allow(None));
    world.ask(&world.url("again"), "closed", "closed");
    let done = rental.patch(&path, 2, &more);
    assert_eq!(done.status, 200, "{}", done.text());
    assert_eq!(world.asked(), 3);
}

#[test]
fn the_key_is_made_once_and_shown_in_public_only() {
    let issuer = Issuer::with(&[]);
    let complaint = issuer.fob_fails(&["hook", "key"]);
    assert!(complaint.contains("hook.jwk"), "{complaint}");
    let made: Value = serde_json::from_str(&issuer.fob(&["hook", "init"])).unwrap();
    assert!(made.get("d").is_none() && made["alg"] == "ES256", "{made}");
    let mode = issuer
        .file("hook.jwk")
        .metadata()
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let again = issuer.fob_fails(&["hook", "init"]);
    assert!(again.contains("exists"), "{again}");
    let shown: Value = serde_json::from_str(&issuer.fob(&["hook", "key"])).unwrap();
    assert_eq!(shown, made);
    // Without its key a server that may ask does not start.
    std::fs::remove_file(issuer.file("hook.jwk")).unwrap();
    let mut serve = issuer.command(&["serve", "--listen", "127.0.0.1:0"]);
    let ended = serve.env("FOB_HOOK_ALLOW", r#"["h:1"]"#).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(
        !ended.status.success() && said.contains("fob hook init"),
        "{said}"
    );
}
