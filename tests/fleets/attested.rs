//! Terminals that vouch for each other: which may, for which, and what of it is found again when one
//! was lost.

use serde_json::{Value, json};

use super::rental::text;
use crate::support::garage::Garage;
use crate::support::{Answer, Phone, authorization, now, time};

const OWN: &str = "owner-1-phone";
const TWO: [&str; 2] = ["doors.unlock", "engine.start"];

/// A terminal of an identity.
#[derive(Clone, Copy)]
struct Who<'a>(&'a Phone, &'a str, &'a str);

/// The command of a terminal that registers another, with its claims changed before it is signed.
fn registering(
    garage: &Garage,
    Who(phone, identity, terminal): Who<'_>,
    id: &str,
    body: &Value,
    change: impl FnOnce(&mut Value),
) -> String {
    let url = &garage.server.url;
    phone.command_with(url, body, |header, claims| {
        header["kid"] = json!(format!("demo/{terminal}"));
        claims["iss"] = json!(identity);
        claims["htm"] = json!("PUT");
        claims["htu"] = json!(format!("{url}/v1/terminals/{id}"));
        change(claims);
    })
}

fn put(garage: &Garage, id: &str, jws: &str) -> Answer {
    let headers = [("content-type", "application/jose")];
    let path = format!("/v1/terminals/{id}");
    garage.server.send("PUT", &path, &headers, jws.as_bytes())
}

/// What a terminal is told that registers this phone.
fn attest(garage: &Garage, by: Who<'_>, id: &str, phone: &Phone) -> Answer {
    let body = json!({ "jwk": phone.jwk() });
    put(garage, id, &registering(garage, by, id, &body, |_| ()))
}

/// What a terminal is told that authorizes a vehicle of `owner-1`.
fn authorize(garage: &Garage, Who(phone, identity, terminal): Who<'_>) -> Answer {
    let asked = authorization("DEMO-0001", &TWO);
    let jws = phone.command_with(&garage.server.url, &asked, |header, claims| {
        header["kid"] = json!(format!("demo/{terminal}"));
        claims["iss"] = json!(identity);
    });
    garage.server.command(&jws)
}

/// Registers a phone with the fleet's token.
fn register(garage: &Garage, terminal: &str, identity: &str, phone: &Phone) {
    let body = json!({ "identity": identity, "jwk": phone.jwk() });
    let path = format!("/v1/terminals/{terminal}");
    let answer = garage.server.json_as(&garage.admin, "PUT", &path, &body);
    assert_eq!(answer.status, 204, "{}", answer.text());
}

/// The terminals a list has, by their ids.
fn listed(garage: &Garage, query: &str) -> Vec<String> {
    let page = garage.done("GET", &format!("/v1/terminals?{query}"), &json!({}));
    let items = page["items"].as_array().unwrap().iter();
    items.map(|it| text(&it["terminal"]).to_owned()).collect()
}

#[test]
fn an_active_terminal_registers_the_next_and_both_command() {
    let mut garage = Garage::new();
    let (tablet, watch) = (Phone::new(), Phone::new());
    let first = Who(&garage.owner, "owner-1", OWN);
    authorize(&garage, Who(&tablet, "owner-1", "tablet")).refused(401, "unauthenticated");
    let body = json!({ "jwk": tablet.jwk(), "identity": "owner-1" });
    let command = registering(&garage, first, "tablet", &body, |_| ());
    for _ in 0..2 {
        let done = put(&garage, "tablet", &command);
        assert_eq!(done.status, 204, "the same command again: {}", done.text());
    }
    let second = Who(&tablet, "owner-1", "tablet");
    assert_eq!(authorize(&garage, second).status, 201);
    assert_eq!(attest(&garage, second, "watch", &watch).status, 204);
    assert_eq!(
        listed(&garage, "identity=owner-1"),
        [OWN, "tablet", "watch"]
    );
    let shown = |garage: &Garage| {
        let path = "/v1/terminals?attested_by=tablet";
        garage.done("GET", path, &json!({}))["items"].clone()
    };
    let before = shown(&garage);
    assert_eq!(
        (&before[0]["terminal"], &before[0]["status"]),
        (&json!("watch"), &json!("active"))
    );
    garage.crash();
    assert_eq!(shown(&garage), before);
    assert_eq!(
        authorize(&garage, Who(&watch, "owner-1", "watch")).status,
        201
    );
    // Once the fleet has described it, it is the fleet that vouches for it.
    register(&garage, "watch", "owner-1", &watch);
    assert_eq!(shown(&garage), json!([]));
}

#[test]
fn nobody_registers_for_others_or_in_the_place_of_what_is_there() {
    let garage = Garage::new();
    let (renters, thief) = (Phone::new(), Phone::new());
    register(&garage, "renters", "renter-1", &renters);
    let owner = Who(&garage.owner, "owner-1", OWN);
    let renter = Who(&renters, "renter-1", "renters");
    for (who, id, body, field) in [
        (
            renter,
            "next",
            json!({ "jwk": thief.jwk(), "identity": "owner-1" }),
            json!("identity"),
        ),
        (renter, OWN, json!({ "jwk": thief.jwk() }), json!(null)),
        (owner, OWN, json!({ "jwk": thief.jwk() }), json!(null)),
        (owner, "renters", json!({ "jwk": thief.jwk() }), json!(null)),
    ] {
        let refused = put(&garage, id, &registering(&garage, who, id, &body, |_| ()));
        refused.refused(403, "forbidden");
        assert_eq!(refused.value()["field"], field, "{id}");
    }
    // A renter's own is a renter's own: it commands no vehicle of the owner.
    assert_eq!(attest(&garage, renter, "next", &thief).status, 204);
    authorize(&garage, Who(&thief, "owner-1", "next")).refused(401, "unauthenticated");
    authorize(&garage, Who(&thief, "renter-1", "next")).refused(403, "forbidden");
    let bad = registering(&garage, owner, "other", &json!({}), |_| ());
    put(&garage, "other", &bad).refused(400, "malformed");
    let mut private = thief.jwk();
    private["d"] = json!(thief.private());
    let bad = registering(&garage, owner, "other", &json!({ "jwk": private }), |_| ());
    put(&garage, "other", &bad).refused(400, "malformed");
    for n in 1..32 {
        let done = attest(&garage, owner, &format!("phone-{n}"), &Phone::new());
        assert_eq!(done.status, 204, "{n}: {}", done.text());
    }
    let refused = attest(&garage, owner, "phone-32", &Phone::new());
    refused.refused(403, "forbidden");
}

#[test]
fn a_command_registers_what_it_names_once_and_in_time() {
    let garage = Garage::new();
    let (next, other) = (Phone::new(), Phone::new());
    let owner = Who(&garage.owner, "owner-1", OWN);
    let body = json!({ "jwk": next.jwk() });
    let made = |change: &dyn Fn(&mut Value)| registering(&garage, owner, "next", &body, change);
    // For this address and method, for this server, now.
    let url = &garage.server.url;
    let elsewhere = format!("{url}/v1/terminals/other");
    for (what, bad) in [
        ("for another id", made(&|it| it["htu"] = json!(elsewhere))),
        ("another method", made(&|it| it["htm"] = json!("POST"))),
        (
            "another server",
            made(&|it| it["aud"] = json!("http://other")),
        ),
        (
            "another identity",
            made(&|it| it["iss"] = json!("renter-1")),
        ),
        (
            "too old",
            made(&|it| {
                it["iat"] = json!(now() - 400);
                it["exp"] = json!(now() - 101);
            }),
        ),
        ("too long", made(&|it| it["exp"] = json!(now() + 3600))),
    ] {
        let refused = put(&garage, "next", &bad);
        assert_eq!(
            (refused.status, refused.refusal().as_str()),
            (401, "unauthenticated"),
            "{what}"
        );
    }
    let strangers = registering(&garage, Who(&other, "owner-1", OWN), "next", &body, |_| ());
    put(&garage, "next", &strangers).refused(401, "unauthenticated");
    assert!(listed(&garage, "attested_by=owner-1-phone").is_empty());
    let named = |id: &str, phone: &Phone| {
        let body = json!({ "jwk": phone.jwk() });
        let command = registering(&garage, owner, id, &body, |it| it["jti"] = json!("one"));
        put(&garage, id, &command)
    };
    assert_eq!(named("next", &next).status, 204);
    named("other", &other).refused(409, "command_replayed");
    named("next", &other).refused(403, "forbidden");
    assert_eq!(listed(&garage, "attested_by=owner-1-phone"), ["next"]);
}

#[test]
fn what_a_lost_phone_has_registered_since_is_listed_and_it_registers_no_more() {
    let garage = Garage::new();
    let (spare, before, after) = (Phone::new(), Phone::new(), Phone::new());
    register(&garage, "spare", "owner-1", &spare);
    let lost = Who(&garage.owner, "owner-1", OWN);
    assert_eq!(attest(&garage, lost, "before", &before).status, 204);
    // The time is told in seconds.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let since = time(now());
    assert_eq!(attest(&garage, lost, "after", &after).status, 204);
    assert_eq!(authorize(&garage, lost).status, 201);
    let told = garage.done("POST", "/v1/suspensions", &json!({ "terminal": OWN }));
    assert_eq!(registered(&told), ["after", "before"], "{told}");
    attest(&garage, lost, "later", &Phone::new()).refused(403, "forbidden");
    assert_eq!(
        listed(&garage, "attested_by=owner-1-phone"),
        ["after", "before"]
    );
    let query = format!("attested_by=owner-1-phone&attested_since={since}");
    assert_eq!(listed(&garage, &query), ["after"]);
    assert_eq!(
        listed(&garage, &format!("attested_since={since}")),
        ["after"]
    );
    let path = format!("/v1/authorizations?terminal={OWN}");
    let authorized = garage.done("GET", &path, &json!({}));
    assert_eq!(authorized["items"].as_array().unwrap().len(), 1);
    // What it vouched for is suspended like any other: by the fleet, or by another of the owner's.
    let thief = Who(&after, "owner-1", "after");
    assert_eq!(authorize(&garage, thief).status, 201);
    garage.done("POST", "/v1/suspensions", &json!({ "terminal": "after" }));
    authorize(&garage, thief).refused(403, "forbidden");
    attest(&garage, thief, "later", &Phone::new()).refused(403, "forbidden");
    let items = garage.done("GET", &format!("/v1/terminals?{query}"), &json!({}));
    assert_eq!(items["items"][0]["status"], "suspended");
    // Suspended with its identity, no terminal vouches for any.
    let spare = Who(&spare, "owner-1", "spare");
    garage.done("POST", "/v1/suspensions", &json!({ "identity": "owner-1" }));
    attest(&garage, spare, "later", &Phone::new()).refused(403, "identity_suspended");
    garage.done("POST", "/v1/resumptions", &json!({ "identity": "owner-1" }));
    assert_eq!(attest(&garage, spare, "later", &Phone::new()).status, 204);
}

/// The terminals that an answer says were registered by the one that it is about.
fn registered(told: &Value) -> Vec<&str> {
    let all = told["registered"].as_array().map(Vec::as_slice);
    let all = all.unwrap_or_default().iter();
    all.map(|it| text(&it["terminal"])).collect()
}

#[test]
fn what_a_lost_phone_has_registered_is_told_where_it_is_suspended() {
    let garage = Garage::new();
    let (spare, tablet) = (Phone::new(), Phone::new());
    register(&garage, "spare", "owner-1", &spare);
    let lost = Who(&garage.owner, "owner-1", OWN);
    assert_eq!(attest(&garage, lost, "tablet", &tablet).status, 204);
    assert_eq!(authorize(&garage, lost).status, 201);
    let nothing: [&str; 0] = [];
    let target = json!({ "terminal": OWN });
    for (path, expected) in [
        ("/v1/suspensions", &["tablet"][..]),
        ("/v1/resumptions", &nothing),
        ("/v1/revocations", &["tablet"]),
    ] {
        let told = garage.done("POST", path, &target);
        assert_eq!(registered(&told), expected, "{path}: {told}");
    }
    // It is told as the list tells it, a line each too, and where somebody follows how it goes on.
    let listed = garage.done("GET", "/v1/terminals?attested_by=owner-1-phone", &json!({}));
    let bearer = format!("Bearer {}", garage.token);
    let lines = format!("{target}\n{}\n", json!({ "terminal": "spare" }));
    let ndjson = "application/x-ndjson";
    for (content_type, accept, body, expected) in [
        (ndjson, "*/*", lines, &["tablet"][..]),
        ("application/json", ndjson, target.to_string(), &["tablet"]),
    ] {
        let headers = [
            ("content-type", content_type),
            ("accept", accept),
            ("authorization", bearer.as_str()),
        ];
        let server = &garage.server;
        let sent = server.send("POST", "/v1/suspensions", &headers, body.as_bytes());
        let sent = String::from_utf8(sent.body).unwrap();
        let told: Vec<Value> = sent
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(told[0]["registered"], listed["items"], "{sent}");
        let all: Vec<_> = told.iter().flat_map(registered).collect();
        assert_eq!(all, expected, "{sent}");
    }
    let url = &garage.server.url;
    let args = ["suspend", "--terminal", OWN, "--url", url];
    let said = garage.issuer.fob(&args);
    assert!(said.contains("it has registered tablet"), "{said}");
    let said = garage.issuer.fob(&[&args[..], &["--json"]].concat());
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["registered"], json!(["tablet"]));
    // An owner who suspends it is told what is of the same identity.
    garage.done("POST", "/v1/resumptions", &json!({ "terminal": "spare" }));
    let command = |identity: &str| {
        let path = "/v1/suspensions";
        let jws = spare.command_with(url, &target, |header, claims| {
            header["kid"] = json!("demo/spare");
            claims["iss"] = json!(identity);
            claims["htu"] = json!(format!("{url}{path}"));
        });
        let headers = [("content-type", "application/jose")];
        let sent = garage.server.send("POST", path, &headers, jws.as_bytes());
        assert_eq!(sent.status, 200, "{}", sent.text());
        sent.value()
    };
    assert_eq!(registered(&command("owner-1")), ["tablet"]);
    register(&garage, OWN, "renter-1", &garage.owner);
    register(&garage, "spare", "renter-1", &spare);
    let told = command("renter-1");
    assert_eq!(registered(&told), nothing, "it is somebody else's: {told}");
}

#[test]
fn terminals_are_listed_page_by_page() {
    let garage = Garage::new();
    for n in 0..5 {
        register(&garage, &format!("phone-{n}"), "renter-1", &Phone::new());
    }
    let of = "identity=renter-1";
    let all = ["phone-0", "phone-1", "phone-2", "phone-3", "phone-4"];
    assert_eq!(listed(&garage, of), all);
    assert_eq!(listed(&garage, &format!("{of}&limit=2")), all[..2]);
    let next = listed(&garage, &format!("{of}&limit=2&after=phone-1"));
    assert_eq!(next, all[2..4]);
    let last = garage.done(
        "GET",
        &format!("/v1/terminals?{of}&limit=2&after=phone-3"),
        &json!({}),
    );
    assert_eq!(last["items"].as_array().unwrap().len(), 1);
    assert_eq!(last["next"], json!(null));
    for bad in [
        "limit=0",
        "limit=501",
        "attested_since=now",
        "page=2",
        "identity=%20",
    ] {
        let refused = garage.send("GET", &format!("/v1/terminals?{bad}"), &json!({}));
        refused.refused(400, "malformed");
    }
}
