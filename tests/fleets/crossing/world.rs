//! Two fleets that know each other's names.

use serde_json::{Value, json};

use super::calls::{Call, Names};
use crate::support::{Answer, Issuer, Phone, Server, authorization};

const UNLOCK: &str = "doors.unlock";

pub(super) const SCOPES: [&str; 5] = ["authorize", "issue", "revoke", "read", "admin"];

/// Two fleets of one issuer. `north` has everything there is; `south` knows all its names.
pub(super) struct World {
    pub(super) issuer: Issuer,
    pub(super) server: Server,
    pub(super) north: String,
    pub(super) south: String,
    pub(super) phone: Phone,
    pub(super) names: Names,
    pub(super) code_set: String,
}

pub(super) fn token(issuer: &Issuer, fleet: &str, scopes: &[&str]) -> String {
    let scopes = scopes.join(",");
    issuer.fob(&["token", "create", "--fleet", fleet, "--scopes", &scopes])
}

pub(super) fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

impl World {
    pub(super) fn new() -> Self {
        let issuer = Issuer::with(&[]);
        for fleet in ["north", "south"] {
            issuer.fob(&["fleet", "create", fleet]);
        }
        let (north, south) = (
            token(&issuer, "north", &SCOPES),
            token(&issuer, "south", &SCOPES),
        );
        let server = issuer.serve();
        let phone = Phone::new();
        let mut names = Names {
            vehicle: "NORTH-CAR".into(),
            identity: "north-renter".into(),
            terminal: "north-phone".into(),
            ..Names::absent()
        };
        let put = |token: &str, path: &str, body: &Value| {
            let answer = server.json_as(token, "PUT", path, body);
            assert_eq!(answer.status, 204, "{path}: {}", answer.text());
        };
        put(&north, "/v1/identities/north-renter", &json!({}));
        put(&south, "/v1/identities/south-renter", &json!({}));
        let owned = json!({ "model": "M", "owner": "north-renter" });
        put(&north, "/v1/vehicles/NORTH-CAR", &owned);
        let owned = json!({ "model": "M", "owner": "south-renter" });
        put(&south, "/v1/vehicles/SOUTH-CAR", &owned);
        let registered = json!({ "identity": "north-renter", "jwk": phone.jwk() });
        put(&north, "/v1/terminals/north-phone", &registered);
        let make = || {
            let body = authorization("NORTH-CAR", &[UNLOCK, "engine.start"]);
            let made = server.json_as(&north, "POST", "/v1/authorizations", &body);
            assert_eq!(made.status, 201, "{}", made.text());
            made.value()
        };
        let made = make();
        let redeemed = server.redeem(&text(&made["code_set"]), "north-renter", &phone);
        assert_eq!(redeemed.status, 201, "{}", redeemed.text());
        names.authorization = text(&made["authorization"]);
        names.bundle = text(&redeemed.value()["bundle"]);
        names.key = text(&redeemed.value()["keys"][0]["id"]);
        let code_set = text(&make()["code_set"]);
        Self {
            issuer,
            server,
            north,
            south,
            phone,
            names,
            code_set,
        }
    }

    pub(super) fn send(&self, call: &Call, bearer: Option<&str>) -> Answer {
        let kind = if call.lines {
            "application/x-ndjson"
        } else {
            "application/json"
        };
        let bearer = bearer.map(|token| format!("Bearer {token}"));
        let mut headers = vec![("content-type", kind), ("if-match", "\"1\"")];
        headers.extend(bearer.as_deref().map(|bearer| ("authorization", bearer)));
        let body = call.body.as_bytes();
        self.server.send(call.method, &call.path, &headers, body)
    }

    /// The same, as a command signed by an owner terminal whose `kid` is this.
    pub(super) fn command(&self, call: &Call, owner: &Phone, kid: &str, iss: &str) -> Answer {
        let command: Value = serde_json::from_str(&call.body).unwrap();
        let mut command = command;
        if call.method == "PATCH" {
            command["version"] = json!(1);
        }
        let jws = owner.command_with(&self.server.url, &command, |header, claims| {
            header["kid"] = json!(kid);
            claims["iss"] = json!(iss);
            claims["htm"] = json!(call.method);
            claims["htu"] = json!(format!("{}{}", self.server.url, call.path));
        });
        let headers = [("content-type", "application/jose")];
        self.server
            .send(call.method, &call.path, &headers, jws.as_bytes())
    }

    /// All there is of the northern fleet, as it sees it itself.
    pub(super) fn north_has(&self) -> [Value; 3] {
        let read = |path: String| {
            let answer = self.server.json_as(&self.north, "GET", &path, &json!({}));
            assert_eq!(answer.status, 200, "{}", answer.text());
            answer.value()
        };
        [
            read(format!("/v1/authorizations/{}", self.names.authorization)),
            read(format!("/v1/bundles/{}", self.names.bundle)),
            read("/v1/authorizations".into()),
        ]
    }
}
