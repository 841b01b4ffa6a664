//! A borrower asks first: what the phone signs, who may answer it, and that it is answered once.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::rental::{Rental, text};
use crate::support::garage::Garage;
use crate::support::{Answer, Phone, Server, now, time};

const UNLOCK: &str = "doors.unlock";
const START: &str = "engine.start";

/// What somebody asks the demo fleet for: two functions of a vehicle of `owner-1`, for an hour.
fn wish() -> Value {
    json!({ "fleet": "demo", "vehicle": "DEMO-0001", "functions": [UNLOCK, START],
        "not_before": time(now()), "not_after": time(now() + 3600) })
}

/// Checks a request, as whoever hands it on or is to answer it may.
fn check(server: &Server, request: &str) -> Answer {
    let headers = [("content-type", "application/jose")];
    server.send("POST", "/v1/requests", &headers, request.as_bytes())
}

/// The owner's answer to a request: these members beside it.
fn answer(garage: &Garage, request: &str, more: &Value) -> Answer {
    let mut command = more.clone();
    command["request"] = json!(request);
    let jws = garage.owner.command(&garage.server.url, &command);
    garage.server.command(&jws)
}

#[test]
fn a_request_is_answered_with_one_command_and_for_the_phone_that_asked() {
    let garage = Garage::new();
    let (server, phone, other) = (&garage.server, Phone::new(), Phone::new());
    let wish = wish();
    let request = phone.request(&server.url, "renter-1", &wish);
    let shown = check(server, &request);
    assert_eq!(shown.status, 200, "{}", shown.text());
    let shown = shown.value();
    for (name, said) in wish.as_object().unwrap() {
        assert_eq!(&shown[name], said, "{name}");
    }
    assert_eq!(
        (text(&shown["identity"]), &shown["jwk"]),
        ("renter-1", &phone.jwk())
    );
    assert_eq!(text(&shown["link"]), format!("{}/r#{request}", server.url));
    let made = answer(&garage, &request, &json!({}));
    assert_eq!(made.status, 201, "{}", made.text());
    let made = made.value();
    let recipient = json!({ "identity": "renter-1", "jwk": phone.jwk() });
    assert_eq!(made["recipient"], recipient);
    assert_eq!(made["vehicle"], "DEMO-0001");
    // In the demo fleet whoever holds a code set redeems it: not this one.
    let code_set = text(&made["code_set"]);
    server
        .redeem(code_set, "renter-1", &other)
        .refused(403, "terminal_mismatch");
    server
        .redeem(code_set, "renter-2", &phone)
        .refused(403, "recipient_mismatch");
    let asked = json!({ "redemption":
        { "authorization": made["authorization"], "identity": "renter-1" } });
    let explained = garage.done("POST", "/v1/explain", &asked);
    assert_eq!(explained["passes"], true, "{explained}");
    let redeemed = server.redeem(code_set, "renter-1", &phone);
    assert_eq!(redeemed.status, 201, "{}", redeemed.text());
    assert_eq!(redeemed.value()["keys"].as_array().unwrap().len(), 2);
}

#[test]
fn a_request_is_answered_once_whoever_answers_it() {
    let mut garage = Garage::new();
    let phone = Phone::new();
    let url = garage.server.url.clone();
    let named = |phone: &Phone, identity: &str, wish: &Value| {
        phone.request_with(&url, identity, wish, |_, claims| {
            claims["jti"] = json!("one");
        })
    };
    let request = named(&phone, "renter-1", &wish());
    let command = json!({ "request": request, "functions": [UNLOCK] });
    let jws = garage.owner.command(&url, &command);
    let made = garage.server.command(&jws);
    assert_eq!(made.status, 201, "{}", made.text());
    let again = garage.server.command(&jws);
    assert_eq!(
        (again.status, again.body),
        (201, made.body),
        "the same command"
    );
    let refused = |garage: &Garage, request: &str| {
        let refused = answer(garage, request, &json!({}));
        refused.refused(409, "request_answered");
        assert_eq!(refused.value()["field"], "request");
        let body = json!({ "request": request });
        let by_fleet = garage.send("POST", "/v1/authorizations", &body);
        by_fleet.refused(409, "request_answered");
    };
    refused(&garage, &request);
    // Signed again, and with another wish under the same name, it is the same request.
    let mut other = wish();
    other["vehicle"] = json!("DEMO-0002");
    refused(&garage, &named(&phone, "renter-1", &other));
    garage.crash();
    refused(&garage, &request);
    // Somebody else's of that name is another.
    let others = named(&Phone::new(), "renter-2", &wish());
    let made = garage.send("POST", "/v1/authorizations", &json!({ "request": others }));
    assert_eq!(made.status, 201, "{}", made.text());
}

/// Texts that are no requests of this phone to this server, each with what is wrong with it.
fn no_requests(garage: &Garage, phone: &Phone) -> Vec<(&'static str, String)> {
    let url = &garage.server.url;
    let made = |change: &dyn Fn(&mut Value)| {
        phone.request_with(url, "renter-1", &wish(), |_, it| change(it))
    };
    let good = made(&|_| {});
    let parts: Vec<&str> = good.split('.').collect();
    let with = |at: usize, part: &str| {
        let mut parts = parts.clone();
        parts[at] = part;
        parts.join(".")
    };
    let claims = |change: &dyn Fn(&mut Value)| {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(parts[1]).unwrap();
        let mut claims: Value = serde_json::from_slice(&bytes).unwrap();
        change(&mut claims);
        with(1, &BASE64_URL_SAFE_NO_PAD.encode(claims.to_string()))
    };
    let thief = Phone::new().jwk();
    let header = json!({ "alg": "ES256", "typ": "fob-request+jwt", "jwk": thief });
    let header = BASE64_URL_SAFE_NO_PAD.encode(header.to_string());
    vec![
        (
            "its vehicle",
            claims(&|it| it["request"]["vehicle"] = json!("DEMO-0002")),
        ),
        ("its identity", claims(&|it| it["iss"] = json!("renter-2"))),
        ("another key", with(0, &header)),
        ("no signature", with(2, "")),
        ("a proof", phone.proof(url, "FOB1")),
        ("a command", garage.owner.command(url, &wish())),
        (
            "another server",
            made(&|it| it["aud"] = json!("http://other")),
        ),
        (
            "too long a life",
            made(&|it| it["exp"] = json!(now() + 604_900)),
        ),
        ("no life", made(&|it| it["exp"] = it["iat"].clone())),
        (
            "from the future",
            made(&|it| {
                it["iat"] = json!(now() + 120);
                it["exp"] = json!(now() + 180);
            }),
        ),
        ("no jti", made(&|it| it["jti"] = json!(""))),
        (
            "no functions",
            made(&|it| it["request"]["functions"] = json!([])),
        ),
        (
            "more than it knows",
            made(&|it| it["request"]["region"] = json!({})),
        ),
        (
            "no window",
            made(&|it| it["request"]["not_after"] = it["request"]["not_before"].clone()),
        ),
        ("nothing", String::new()),
    ]
}

#[test]
fn what_is_not_as_it_was_signed_is_no_request() {
    let garage = Garage::new();
    let (server, phone) = (&garage.server, Phone::new());
    for (what, bad) in no_requests(&garage, &phone) {
        let refused = check(server, &bad);
        assert_eq!(
            (refused.status, refused.refusal().as_str()),
            (422, "request_invalid"),
            "{what}: {}",
            refused.text()
        );
        answer(&garage, &bad, &json!({})).refused(422, "request_invalid");
    }
    let made = |change: &dyn Fn(&mut Value)| {
        phone.request_with(&server.url, "renter-1", &wish(), |_, it| change(it))
    };
    for late in [
        made(&|it| {
            it["iat"] = json!(now() - 100);
            it["exp"] = json!(now() - 1);
        }),
        made(&|it| {
            it["request"]["not_before"] = json!(time(now() - 100));
            it["request"]["not_after"] = json!(time(now() - 1));
        }),
    ] {
        check(server, &late).refused(410, "request_expired");
        answer(&garage, &late, &json!({})).refused(410, "request_expired");
    }
    // Seven days are the longest, to the second.
    let lasting = |seconds: u64| {
        let at = now();
        made(&|it| {
            it["iat"] = json!(at);
            it["exp"] = json!(at + seconds);
            it["request"]["not_after"] = json!(time(at + 2 * seconds));
        })
    };
    check(server, &lasting(604_801)).refused(422, "request_invalid");
    assert_eq!(check(server, &lasting(604_800)).status, 200);
    let good = made(&|_| {});
    assert_eq!(check(server, &good).status, 200);
    assert_eq!(answer(&garage, &good, &json!({})).status, 201);
}

#[test]
fn nothing_is_given_that_was_not_asked_for() {
    let garage = Garage::new();
    let (server, phone) = (&garage.server, Phone::new());
    let asked = |change: &dyn Fn(&mut Value)| {
        let mut asked = wish();
        change(&mut asked);
        phone.request(&server.url, "renter-1", &asked)
    };
    let from = now();
    let request = asked(&|it| {
        it["not_before"] = json!(time(from));
        it["not_after"] = json!(time(from + 3600));
    });
    for (more, field) in [
        (json!({ "vehicle": "DEMO-0002" }), "vehicle"),
        (json!({ "not_before": time(from - 1) }), "not_before"),
        (json!({ "not_after": time(from + 3601) }), "not_after"),
        (json!({ "functions": [UNLOCK, "trunk.open"] }), "functions"),
        (json!({ "not_before": time(now() - 60) }), "not_before"),
        (json!({ "not_after": time(now() + 7200) }), "not_after"),
    ] {
        let refused = answer(&garage, &request, &more);
        refused.refused(422, "request_invalid");
        assert_eq!(refused.value()["field"], field, "{more}");
    }
    let to = json!({ "recipient": { "identity": "renter-2" } });
    let refused = answer(&garage, &request, &to);
    refused.refused(400, "malformed");
    assert_eq!(refused.value()["field"], "recipient");
    // Another fleet's vehicle of that name, and a vehicle that is not the owner's.
    let elsewhere = asked(&|it| it["fleet"] = json!("rental"));
    answer(&garage, &elsewhere, &json!({})).refused(422, "request_invalid");
    let foreign = asked(&|it| it["vehicle"] = json!("DEMO-0099"));
    answer(&garage, &foreign, &json!({})).refused(403, "forbidden");
    let nobody = phone.request(&server.url, "nobody", &wish());
    answer(&garage, &nobody, &json!({})).refused(404, "unknown_identity");
    // Less than was asked for, and a PIN beside the phone.
    let less = json!({ "functions": [1], "not_after": time(now() + 1800), "pin": true });
    let made = answer(&garage, &request, &less);
    assert_eq!(made.status, 201, "{}", made.text());
    let made = made.value();
    assert_eq!(made["functions"], json!([{ "code": 1, "name": UNLOCK }]));
    server
        .redeem(text(&made["code_set"]), "renter-1", &phone)
        .refused(403, "pin_required");
}

#[test]
fn a_request_says_nothing_that_its_sender_did_not_know() {
    let garage = Garage::new();
    let (server, phone) = (&garage.server, Phone::new());
    let shown = |fleet: &str, vehicle: &str, identity: &str, function: &str| {
        let asked = json!({ "fleet": fleet, "vehicle": vehicle, "functions": [function],
            "not_before": "2026-01-01T00:00:00Z", "not_after": "2100-01-01T00:00:00Z" });
        let answer = check(server, &phone.request(&server.url, identity, &asked));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let mut said = answer.value();
        for own in [
            "fleet",
            "vehicle",
            "identity",
            "functions",
            "link",
            "expires",
        ] {
            said.as_object_mut().unwrap().remove(own).unwrap();
        }
        said
    };
    let known = shown("demo", "DEMO-0001", "renter-1", UNLOCK);
    for (fleet, vehicle, identity, function) in [
        ("absent", "DEMO-0001", "renter-1", UNLOCK),
        ("demo", "DEMO-9999", "renter-1", UNLOCK),
        ("demo", "DEMO-0001", "absent", UNLOCK),
        ("demo", "DEMO-0001", "renter-1", "sunroof.open"),
    ] {
        assert_eq!(shown(fleet, vehicle, identity, function), known);
    }
    let headers = [("content-type", "application/json")];
    let wrong = server.send("POST", "/v1/requests", &headers, b"{}");
    assert_eq!((wrong.status, wrong.refusal().as_str()), (415, "malformed"));
}

#[test]
fn who_has_terminals_asks_with_one_of_them() {
    let rental = Rental::new();
    let url = &rental.server.url;
    let wish = json!({ "fleet": "rental", "vehicle": "CAR", "functions": [UNLOCK],
        "not_before": time(now()), "not_after": time(now() + 3600) });
    let ask = |phone: &Phone, identity: &str| {
        let body = json!({ "request": phone.request(url, identity, &wish) });
        rental.send("POST", "/v1/authorizations", &body)
    };
    let stranger = Phone::new();
    ask(&stranger, "anna").refused(403, "terminal_mismatch");
    let own = json!({ "terminal": "annas" });
    assert_eq!(rental.send("POST", "/v1/suspensions", &own).status, 200);
    ask(&rental.phone, "anna").refused(403, "terminal_mismatch");
    assert_eq!(rental.send("POST", "/v1/resumptions", &own).status, 200);
    let made = ask(&rental.phone, "anna");
    assert_eq!(made.status, 201, "{}", made.text());
    let code_set = made.value()["code_set"].clone();
    let redeem = |phone| rental.server.redeem(text(&code_set), "anna", phone);
    redeem(&stranger).refused(403, "terminal_mismatch");
    // Registered since, it is still not the one that asked.
    let registered = json!({ "identity": "anna", "jwk": stranger.jwk() });
    rental.put("/v1/terminals/annas-other", &registered);
    redeem(&stranger).refused(403, "terminal_mismatch");
    assert_eq!(redeem(&rental.phone).status, 201);
    // Without any, the phone that asked is enough: there is no open redemption here.
    rental.put("/v1/identities/ben", &json!({}));
    let bens = Phone::new();
    let made = ask(&bens, "ben").value();
    let code_set = text(&made["code_set"]);
    let thief = rental.server.redeem(code_set, "ben", &Phone::new());
    thief.refused(403, "terminal_mismatch");
    assert_eq!(rental.server.redeem(code_set, "ben", &bens).status, 201);
    // A key may be named without a request, too.
    let mut bound = json!({ "vehicle": "CAR", "functions": [UNLOCK], "not_before": time(now()),
        "not_after": time(now() + 3600), "recipient": { "jwk": bens.jwk() } });
    let made = rental.send("POST", "/v1/authorizations", &bound).value();
    let code_set = text(&made["code_set"]);
    let thief = rental.server.redeem(code_set, "anna", &rental.phone);
    thief.refused(403, "terminal_mismatch");
    assert_eq!(rental.server.redeem(code_set, "ben", &bens).status, 201);
    bound["recipient"]["terminal"] = json!("annas");
    let both = rental.send("POST", "/v1/authorizations", &bound);
    both.refused(400, "malformed");
}

#[test]
fn an_address_asks_as_often_as_it_may() {
    let rental = Rental::serving(&[("FOB_SERVER_ADDRESS_REQUESTS_PER_S_MAX", "20")]);
    let statuses = (0..40).map(|_| check(&rental.server, "no request").status);
    assert!(statuses.into_iter().any(|status| status == 429));
}

#[test]
fn the_command_line_asks_shows_and_answers() {
    let garage = Garage::new();
    let (issuer, url) = (&garage.issuer, &garage.server.url);
    let (jwk, file) = (issuer.file("renter-1.jwk"), issuer.file("request.jws"));
    let (jwk, file) = (jwk.to_str().unwrap(), file.to_str().unwrap());
    let to = ["--url", url];
    let asked = ["sign", "request", "--jwk", jwk, "--identity", "renter-1"];
    let request = issuer.fob(&[&asked[..], &to].concat());
    std::fs::write(file, &request).unwrap();
    let approval = ["sign", "approval", "--request", file, "--functions", UNLOCK];
    let approval = [&approval[..], &to].concat();
    let shown = issuer.fob(&[&approval[..], &["--preview", "--json"]].concat());
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["asked"]["functions"], json!([UNLOCK, START]));
    let jws = issuer.fob(&approval);
    let signed = jws.trim().split('.').nth(1).unwrap();
    let signed = BASE64_URL_SAFE_NO_PAD.decode(signed).unwrap();
    let mut signed: Value = serde_json::from_slice(&signed).unwrap();
    let mut previewed = shown["signs"].clone();
    for claims in [&mut signed, &mut previewed] {
        // Each command has its own.
        for own in ["jti", "iat", "exp"] {
            claims.as_object_mut().unwrap().remove(own).unwrap();
        }
    }
    assert_eq!(signed, previewed);
    let words = issuer.fob(&[&approval[..], &["--preview"]].concat());
    assert!(words.contains("renter-1 of fleet demo asks for"), "{words}");
    let made = garage.server.command(jws.trim());
    assert_eq!(made.status, 201, "{}", made.text());
    assert_eq!(made.value()["recipient"]["identity"], "renter-1");
}
