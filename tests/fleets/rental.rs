//! A fleet that rules: `CAR` and `LORRY`, `anna` with a phone that is registered.

use serde_json::{Value, json};

use crate::support::{Answer, Issuer, Phone, Server, now, time};

pub(super) const SCOPES: &str = "authorize,issue,revoke,read,admin";

pub(super) struct Rental {
    pub(super) issuer: Issuer,
    pub(super) server: Server,
    pub(super) token: String,
    pub(super) phone: Phone,
}

pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

impl Rental {
    pub(super) fn new() -> Self {
        Self::serving(&[])
    }

    /// With these variables for the server.
    pub(super) fn serving(variables: &[(&str, &str)]) -> Self {
        Self::on(Issuer::with(&[]), variables)
    }

    /// Of this issuer.
    pub(super) fn on(issuer: Issuer, variables: &[(&str, &str)]) -> Self {
        issuer.fob(&["fleet", "create", "rental"]);
        let server = issuer.serve_with(variables);
        let rental = Self {
            token: issuer.fob(&["token", "create", "--fleet", "rental", "--scopes", SCOPES]),
            issuer,
            server,
            phone: Phone::new(),
        };
        rental.put("/v1/identities/anna", &json!({}));
        rental.put("/v1/vehicles/CAR", &json!({ "model": "Car" }));
        rental.put("/v1/vehicles/LORRY", &json!({ "model": "Lorry" }));
        let registered = json!({ "identity": "anna", "jwk": rental.phone.jwk() });
        rental.put("/v1/terminals/annas", &registered);
        rental
    }

    pub(super) fn send(&self, method: &str, path: &str, body: &Value) -> Answer {
        self.server.json_as(&self.token, method, path, body)
    }

    #[track_caller]
    pub(super) fn put(&self, path: &str, body: &Value) {
        let answer = self.send("PUT", path, body);
        assert_eq!(answer.status, 204, "{path}: {}", answer.text());
    }

    /// Asks to have these rules set, in place of those at `version`.
    pub(super) fn set_rules(&self, version: u32, query: &str, body: &Value) -> Answer {
        let (bearer, tag) = (format!("Bearer {}", self.token), format!("\"{version}\""));
        let headers = [
            ("content-type", "application/json"),
            ("authorization", bearer.as_str()),
            ("if-match", tag.as_str()),
        ];
        let path = format!("/v1/rules{query}");
        self.server
            .send("PUT", &path, &headers, body.to_string().as_bytes())
    }

    /// Changes what is at `path` and at this version.
    pub(super) fn patch(&self, path: &str, version: u32, body: &Value) -> Answer {
        let (bearer, tag) = (format!("Bearer {}", self.token), format!("\"{version}\""));
        let headers = [
            ("content-type", "application/json"),
            ("authorization", bearer.as_str()),
            ("if-match", tag.as_str()),
        ];
        self.server
            .send("PATCH", path, &headers, body.to_string().as_bytes())
    }

    /// Sets these rules, whatever there were.
    #[track_caller]
    pub(super) fn rule(&self, rules: &Value) {
        let at = self.send("GET", "/v1/rules", &json!({})).value()["version"].clone();
        let at = u32::try_from(at.as_u64().unwrap()).unwrap();
        let answer = self.set_rules(at, "", &json!({ "rules": rules }));
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    /// Authorizes these functions from now on, for an hour.
    #[track_caller]
    pub(super) fn authorize(&self, vehicle: &str, functions: &[&str]) -> Value {
        let body = json!({ "vehicle": vehicle, "functions": functions,
            "not_before": time(now()), "not_after": time(now() + 3600) });
        let answer = self.send("POST", "/v1/authorizations", &body);
        assert_eq!(answer.status, 201, "{}", answer.text());
        answer.value()
    }

    /// Authorizes, and has anna redeem.
    #[track_caller]
    pub(super) fn redeem(&self, vehicle: &str, functions: &[&str]) -> Answer {
        let made = self.authorize(vehicle, functions);
        self.server
            .redeem(text(&made["code_set"]), "anna", &self.phone)
    }

    /// What one order is answered with.
    pub(super) fn order(&self, reference: &str, vehicle: &str, functions: &[&str]) -> Value {
        let order = json!({ "ref": reference, "vehicle": vehicle, "functions": functions,
            "not_before": time(now()), "not_after": time(now() + 3600),
            "recipient": { "identity": "anna", "terminal": "annas" } });
        self.orders(&[order]).remove(0)
    }

    /// What a call with these orders is answered with, in their order.
    pub(super) fn orders(&self, orders: &[Value]) -> Vec<Value> {
        let bearer = format!("Bearer {}", self.token);
        let headers = [
            ("content-type", "application/x-ndjson"),
            ("authorization", bearer.as_str()),
        ];
        let lines: String = orders.iter().map(|order| format!("{order}\n")).collect();
        let answer = self
            .server
            .send("POST", "/v1/batches", &headers, lines.as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text());
        let text = String::from_utf8(answer.body).unwrap();
        let mut lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        lines.sort_by_key(|line| line["line"].as_u64());
        lines
    }
}
