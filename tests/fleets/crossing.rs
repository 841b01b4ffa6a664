//! Nothing crosses fleets: every call of `/openapi.json` is made by another fleet that knows every
//! name, and with a token that lacks the scope.

use std::collections::BTreeSet;
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Answer, FOB, Issuer, Phone, Server, authorization};

mod calls;
mod world;

use calls::{Names, calls};
use world::{SCOPES, World, text, token};

/// Every call that asks for no credentials of a fleet. Cars, borrowers and the public make them.
const PUBLIC: [&str; 10] = [
    "GET /.well-known/jwks.json",
    "GET /healthz",
    "GET /metrics",
    "GET /readyz",
    "GET /v1/status/{shard}",
    "GET /v1/trust",
    "POST /v1/code-sets/preview",
    "POST /v1/redemptions",
    "POST /v1/requests",
    "POST /v1/vehicles/{id}/sync",
];

/// Calls that make something of a name where there is nothing of it: to another fleet a name that
/// is taken elsewhere is as free as any, and these do not answer with a refusal.
const MAKING: [&str; 4] = [
    "POST /v1/import",
    "PUT /v1/identities/{id}",
    "PUT /v1/terminals/{id}",
    "PUT /v1/vehicles/{id}",
];

/// Calls about nothing but the fleet whose token it is.
const OWN: [&str; 4] = [
    "GET /v1/brake",
    "GET /v1/rules",
    "PUT /v1/quota",
    "PUT /v1/rules",
];

/// Calls whose answer is a list, or a line for each line.
const LISTING: [&str; 3] = [
    "GET /v1/authorizations",
    "GET /v1/terminals",
    "POST /v1/batches",
];

/// What goes with neither `authorize` nor `issue`.
const APPROVE: &str = "approve";

const UNLOCK: &str = "doors.unlock";

/// Every call of the document: its name, the scope it asks a token for, and whether a signed
/// command or a proof may stand in a token's place.
fn operations(server: &Server) -> Vec<(String, Option<String>, bool)> {
    let document = server.get("/openapi.json", &[]).value();
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let name = format!("{} {path}", method.to_uppercase());
            let security = operation["security"].as_array();
            let ways = security.map(Vec::as_slice).unwrap_or_default();
            let scopes: Vec<_> = ways
                .iter()
                .filter_map(|way| way["bearer"].as_array())
                .flatten()
                .map(text)
                .collect();
            assert!(scopes.len() <= 1, "{name} asks for {scopes:?}");
            let otherwise = ways.iter().any(|way| way == &json!({}));
            all.push((name, scopes.first().cloned(), otherwise));
        }
    }
    all
}

/// What an answer says, with the names that were asked for taken out of it, and without the time.
fn said(answer: &Answer, names: &Names) -> (u16, String) {
    let mut body = String::from_utf8_lossy(&answer.body).into_owned();
    for (own, other) in names.all().into_iter().zip(Names::absent().all()) {
        body = body.replace(own, other);
    }
    (answer.status, body)
}

#[test]
fn public_calls_are_these_and_no_others() {
    let issuer = Issuer::with(&[]);
    let server = issuer.serve();
    let all = operations(&server);
    let public: BTreeSet<_> = all
        .iter()
        .filter(|(_, scope, _)| scope.is_none())
        .map(|(name, ..)| name.as_str())
        .collect();
    assert_eq!(public, BTreeSet::from(PUBLIC));
    assert!(all.len() > PUBLIC.len() + 10, "the document is there");
}

#[test]
fn no_call_reaches_another_fleet_or_goes_without_its_scope() {
    let world = World::new();
    let before = world.north_has();
    let jwk = Phone::new().jwk();
    let approving = token(&world.issuer, "south", &[APPROVE]);
    let mut all = operations(&world.server);
    // Once they have made something, the southern fleet has something of that name.
    all.sort_by_key(|(name, ..)| MAKING.contains(&name.as_str()));
    for (name, scope, _) in all {
        let Some(scope) = scope else { continue };
        let lacking: Vec<_> = SCOPES.into_iter().filter(|one| *one != scope).collect();
        let known = SCOPES.len() - usize::from(scope != APPROVE);
        assert_eq!(lacking.len(), known, "{name} asks for {scope}");
        let mut lacking = vec![
            token(&world.issuer, "north", &lacking),
            token(&world.issuer, "south", &lacking),
        ];
        if scope != APPROVE {
            lacking.push(token(&world.issuer, "north", &[APPROVE]));
        }
        let south = if scope == APPROVE {
            &approving
        } else {
            &world.south
        };
        let own = calls(&name, &world.names, &jwk);
        for (asked, absent) in own.iter().zip(calls(&name, &Names::absent(), &jwk)) {
            world.send(asked, None).refused(401, "unauthenticated");
            for token in &lacking {
                world.send(asked, Some(token)).refused(403, "forbidden");
            }
            let answer = world.send(asked, Some(south));
            let nothing = world.send(&absent, Some(south));
            assert_eq!(
                said(&answer, &world.names),
                said(&nothing, &world.names),
                "{name}: what another fleet has is told from what nobody has"
            );
            let made = MAKING.contains(&name.as_str());
            let listed = LISTING.contains(&name.as_str()) || asked.lines;
            if OWN.contains(&name.as_str()) {
                continue;
            }
            if !made && !listed {
                let code = answer.refusal();
                let gone = [
                    "not_found",
                    "unknown_vehicle",
                    "unknown_identity",
                    "forbidden",
                ];
                assert!(gone.contains(&code.as_str()), "{name}: {}", answer.text());
            }
            if listed && !made {
                let body = String::from_utf8_lossy(&answer.body);
                let known = world.names.all().map(|name| body.contains(name));
                assert_eq!(known, [false; 6], "{name}: {body}");
                assert!(!body.contains("\"issued\""), "{name}: {body}");
            }
        }
    }
    assert_eq!(world.north_has(), before);
    // And what stands in no answer: vehicle, identity and terminal are what they were.
    let redeemed = world
        .server
        .redeem(&world.code_set, "north-renter", &world.phone);
    assert_eq!(redeemed.status, 201, "{}", redeemed.text());
    assert_eq!(redeemed.value()["keys"].as_array().unwrap().len(), 2);
}

#[test]
fn no_owner_commands_what_is_of_another_fleet() {
    let world = World::new();
    let before = world.north_has();
    let owner = Phone::new();
    let body = json!({ "identity": "south-renter", "jwk": owner.jwk() });
    let path = "/v1/terminals/south-owner";
    let put = world.server.json_as(&world.south, "PUT", path, &body);
    assert_eq!(put.status, 204, "{}", put.text());
    let jwk = Phone::new().jwk();
    let mut tried = 0;
    for (name, scope, otherwise) in operations(&world.server) {
        if scope.is_none() || !otherwise || name.starts_with("GET") {
            continue;
        }
        let own = calls(&name, &world.names, &jwk).into_iter();
        for (asked, absent) in own.zip(calls(&name, &Names::absent(), &jwk)) {
            if asked.lines {
                continue;
            }
            tried += 1;
            let (kid, iss) = ("south/south-owner", "south-renter");
            let answer = world.command(&asked, &owner, kid, iss);
            let nothing = world.command(&absent, &owner, kid, iss);
            assert_eq!(
                said(&answer, &world.names),
                said(&nothing, &world.names),
                "{name}"
            );
            let made = MAKING.contains(&name.as_str()) && answer.status == 204;
            let refused = (400..500).contains(&answer.status);
            assert!(made || refused, "{}", answer.text());
            // It is no terminal of that fleet, whatever it calls itself.
            for (kid, iss) in [
                ("north/south-owner", "south-renter"),
                ("north/north-phone", "north-renter"),
            ] {
                let answer = world.command(&asked, &owner, kid, iss);
                answer.refused(401, "unauthenticated");
            }
        }
    }
    assert!(tried >= 8, "{tried}");
    assert_eq!(world.north_has(), before);
}

#[test]
fn borrowers_are_known_to_the_code_sets_fleet_alone() {
    let world = World::new();
    let phone = Phone::new();
    let body = json!({ "identity": "south-renter", "jwk": phone.jwk() });
    let path = "/v1/terminals/south-phone";
    let put = world.server.json_as(&world.south, "PUT", path, &body);
    assert_eq!(put.status, 204, "{}", put.text());
    let redeem = |identity: &str| world.server.redeem(&world.code_set, identity, &phone);
    redeem("south-renter").refused(404, "unknown_identity");
    redeem("absent-renter").refused(404, "unknown_identity");
    // A terminal of the same name in another fleet is another terminal.
    redeem("north-renter").refused(403, "terminal_mismatch");
}

/// A car with its file in a folder, and a phone beside it.
struct Car {
    folder: TempDir,
}

impl Car {
    /// Provisioned with the root's key, its id and its fleet's.
    fn new(issuer: &Issuer, vehicle: &str, fleet: &str, phone: &Phone) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut jwk = phone.jwk();
        jwk["d"] = json!(phone.private());
        std::fs::write(folder.path().join("phone.jwk"), jwk.to_string()).unwrap();
        let fleets: Value =
            serde_json::from_str(&issuer.fob(&["fleet", "list", "--json"])).unwrap();
        let mut fleets = fleets.as_array().unwrap().iter();
        let id = text(&fleets.find(|one| one["name"] == fleet).unwrap()["id"]);
        let car = Self { folder };
        let root = issuer.file("root.cbor");
        let root = ["init", "--root", root.to_str().unwrap()];
        let made = car.run(&[&root[..], &["--vehicle", vehicle, "--fleet", &id]].concat());
        assert!(made.status.success());
        car
    }

    fn fob(&self, args: &[&str]) -> Output {
        let mut command = Command::new(FOB);
        command.current_dir(self.folder.path()).args(args);
        command.output().unwrap()
    }

    fn run(&self, args: &[&str]) -> Output {
        self.fob(&[&["vehicle"], args, &["--state", "car.json"]].concat())
    }

    /// What the car says to the phone that shows it this bundle and asks to be let in.
    fn asked(&self, bundle: &Value) -> String {
        let write = |name: &str, text: &[u8]| {
            std::fs::write(self.folder.path().join(name), text).unwrap();
        };
        write("bundle.json", bundle.to_string().as_bytes());
        self.run(&["take", "bundle.json"]);
        let challenge = String::from_utf8(self.run(&["challenge"]).stdout).unwrap();
        let of = ["--key", "bundle.json", "--function", UNLOCK];
        let sign = ["sign", "use", "--jwk", "phone.jwk", "--challenge"];
        let signed = self.fob(&[&sign[..], &[challenge.trim()], &of].concat());
        write("proof", &signed.stdout);
        let done = self.run(&[&["open", "--proof", "proof", "--json"], &of[..]].concat());
        let said: Value = serde_json::from_slice(&done.stdout).unwrap();
        said["refusal"].as_str().unwrap_or("opened").to_owned()
    }
}

#[test]
fn a_car_refuses_keys_of_another_fleet_for_its_own_id() {
    let world = World::new();
    let put = |path: &str, body: &Value| {
        let answer = world.server.json_as(&world.south, "PUT", path, body);
        assert_eq!(answer.status, 204, "{path}: {}", answer.text());
    };
    // The same ids, in the other fleet, with the phone of the one that has the car.
    put("/v1/identities/north-renter", &json!({}));
    put("/v1/vehicles/NORTH-CAR", &json!({ "model": "M" }));
    let registered = json!({ "identity": "north-renter", "jwk": world.phone.jwk() });
    put("/v1/terminals/north-phone", &registered);
    let car = Car::new(&world.issuer, "NORTH-CAR", "north", &world.phone);
    let bundle = |token: &str| {
        let body = authorization("NORTH-CAR", &[UNLOCK]);
        let made = world
            .server
            .json_as(token, "POST", "/v1/authorizations", &body);
        let made = made.value();
        let redeemed = world
            .server
            .redeem(&text(&made["code_set"]), "north-renter", &world.phone);
        let path = format!(
            "/v1/bundles/{}?staple=true",
            text(&redeemed.value()["bundle"])
        );
        let bearer = format!("Bearer {token}");
        world
            .server
            .get(&path, &[("authorization", &bearer)])
            .value()
    };
    assert_eq!(car.asked(&bundle(&world.south)), "wrong_fleet");
    assert_eq!(car.asked(&bundle(&world.north)), "opened");
}
