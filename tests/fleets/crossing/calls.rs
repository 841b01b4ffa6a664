//! How each call of the API is made against names.

use serde_json::{Value, json};

use crate::support::{authorization, now, time};

const UNLOCK: &str = "doors.unlock";

/// What the objects of a fleet are called.
#[derive(Clone, Debug)]
pub(super) struct Names {
    pub(super) vehicle: String,
    pub(super) identity: String,
    pub(super) terminal: String,
    pub(super) authorization: String,
    pub(super) bundle: String,
    pub(super) key: String,
}

impl Names {
    /// Names of the same form that nobody has.
    pub(super) fn absent() -> Self {
        Self {
            vehicle: "ABSENT-CAR".into(),
            identity: "absent-renter".into(),
            terminal: "absent-phone".into(),
            authorization: "0190a000-0000-7000-8000-000000000001".into(),
            bundle: "0190a000-0000-7000-8000-000000000000".into(),
            key: "0190a000-0000-7001-8000-000000000001".into(),
        }
    }

    pub(super) fn all(&self) -> [&str; 6] {
        [
            &self.vehicle,
            &self.identity,
            &self.terminal,
            &self.authorization,
            &self.bundle,
            &self.key,
        ]
    }
}

/// One call, as somebody makes it who knows these names.
pub(super) struct Call {
    pub(super) method: &'static str,
    pub(super) path: String,
    pub(super) body: String,
    pub(super) lines: bool,
}

fn json_body(method: &'static str, path: String, body: &Value) -> Call {
    Call {
        method,
        path,
        body: body.to_string(),
        lines: false,
    }
}

fn lines(path: &str, lines: &[Value]) -> Call {
    let lines = lines.iter().map(|line| format!("{line}\n"));
    Call {
        method: "POST",
        path: path.into(),
        body: lines.collect(),
        lines: true,
    }
}

/// The ways to make one call of the API against `names`. `jwk` is a phone's.
#[expect(
    clippy::too_many_lines,
    reason = "a table: what each call is made with"
)]
pub(super) fn calls(operation: &str, names: &Names, jwk: &Value) -> Vec<Call> {
    let Names {
        vehicle,
        identity,
        terminal,
        authorization: id,
        bundle,
        key,
    } = names;
    let get = |path: String| Call {
        method: "GET",
        path,
        body: String::new(),
        lines: false,
    };
    let (from, until) = (time(now()), time(now() + 3600));
    let post = |path: String, body: Value| json_body("POST", path, &body);
    let put = |path: String, body: Value| json_body("PUT", path, &body);
    match operation {
        "PUT /v1/vehicles/{id}" => vec![put(
            format!("/v1/vehicles/{vehicle}"),
            json!({ "model": "Stolen", "functions": [UNLOCK] }),
        )],
        "PUT /v1/identities/{id}" => vec![put(
            format!("/v1/identities/{identity}"),
            json!({ "status": "suspended" }),
        )],
        "PUT /v1/terminals/{id}" => vec![put(
            format!("/v1/terminals/{terminal}"),
            json!({ "identity": "south-renter", "jwk": jwk }),
        )],
        "DELETE /v1/identities/{id}/data" => vec![json_body(
            "DELETE",
            format!("/v1/identities/{identity}/data"),
            &json!({}),
        )],
        "POST /v1/import" => vec![lines(
            "/v1/import",
            &[
                json!({ "kind": "identity", "id": identity, "status": "suspended" }),
                json!({ "kind": "vehicle", "id": vehicle, "model": "Stolen" }),
                json!({ "kind": "terminal", "id": terminal, "identity": identity, "jwk": jwk }),
            ],
        )],
        "POST /v1/authorizations/{id}/approve" => {
            vec![post(format!("/v1/authorizations/{id}/approve"), json!({}))]
        }
        "POST /v1/batches" => {
            let order = |vehicle: &str, identity: &str, terminal: &str| {
                json!({ "ref": "r", "vehicle": vehicle, "functions": [UNLOCK], "not_before": from,
                    "not_after": until,
                    "recipient": { "identity": identity, "terminal": terminal } })
            };
            vec![
                lines("/v1/batches", &[order(vehicle, identity, terminal)]),
                lines("/v1/batches", &[order("SOUTH-CAR", identity, terminal)]),
                lines(
                    "/v1/batches",
                    &[order("SOUTH-CAR", "south-renter", terminal)],
                ),
            ]
        }
        "POST /v1/authorizations" => {
            let path = || "/v1/authorizations".to_owned();
            let mut to = authorization("SOUTH-CAR", &[UNLOCK]);
            to["recipient"] = json!({ "identity": identity });
            let mut bound = authorization("SOUTH-CAR", &[UNLOCK]);
            bound["recipient"] = json!({ "terminal": terminal });
            vec![
                post(path(), authorization(vehicle, &[UNLOCK])),
                post(path(), to),
                post(path(), bound),
            ]
        }
        "GET /v1/authorizations" => vec![
            get(format!("/v1/authorizations?vehicle={vehicle}")),
            get(format!("/v1/authorizations?terminal={terminal}")),
            get(format!("/v1/authorizations?after={id}")),
            get("/v1/authorizations?limit=500".into()),
        ],
        "GET /v1/terminals" => vec![
            get(format!("/v1/terminals?identity={identity}")),
            get(format!("/v1/terminals?attested_by={terminal}")),
            get(format!("/v1/terminals?after={terminal}")),
        ],
        "GET /v1/authorizations/{id}" => vec![get(format!("/v1/authorizations/{id}"))],
        "PATCH /v1/authorizations/{id}" => vec![json_body(
            "PATCH",
            format!("/v1/authorizations/{id}"),
            &json!({ "functions": [UNLOCK] }),
        )],
        "DELETE /v1/authorizations/{id}" => {
            let body = json!({});
            vec![json_body(
                "DELETE",
                format!("/v1/authorizations/{id}"),
                &body,
            )]
        }
        "POST /v1/authorizations/{id}/suspend" | "POST /v1/authorizations/{id}/resume" => {
            let last = operation.rsplit('/').next().unwrap();
            vec![post(format!("/v1/authorizations/{id}/{last}"), json!({}))]
        }
        "POST /v1/bundles/{id}/rebind" => vec![post(
            format!("/v1/bundles/{bundle}/rebind"),
            json!({ "terminal": terminal }),
        )],
        "POST /v1/revocations" | "POST /v1/suspensions" | "POST /v1/resumptions" => {
            let path = operation.strip_prefix("POST ").unwrap();
            let targets = [
                json!({ "key": key }),
                json!({ "bundle": bundle }),
                json!({ "authorization": id }),
                json!({ "identity": identity }),
                json!({ "vehicle": vehicle }),
                json!({ "terminal": terminal }),
            ];
            let mut all = vec![lines(path, &targets)];
            all.extend(targets.map(|target| post(path.into(), target)));
            all
        }
        "POST /v1/vehicles/{id}/reset" => vec![
            post(
                format!("/v1/vehicles/{vehicle}/reset"),
                json!({ "end": "all" }),
            ),
            post(
                format!("/v1/vehicles/{vehicle}/reset"),
                json!({ "end": [id] }),
            ),
            post(
                "/v1/vehicles/SOUTH-CAR/reset".into(),
                json!({ "end": [id] }),
            ),
        ],
        "GET /v1/rules" => vec![get("/v1/rules".into())],
        "PUT /v1/rules" => vec![put("/v1/rules".into(), json!({ "rules": {} }))],
        "POST /v1/explain" => {
            let path = || "/v1/explain".to_owned();
            let who = |identity: &str, terminal: Option<&str>| {
                let mut who = json!({ "authorization": id, "identity": identity });
                if let Some(terminal) = terminal {
                    who["terminal"] = json!(terminal);
                }
                post(path(), json!({ "redemption": who }))
            };
            vec![who(identity, None), who("south-renter", Some(terminal))]
        }
        "GET /v1/brake" => vec![get("/v1/brake".into())],
        "POST /v1/brake" => vec![post("/v1/brake".into(), json!({ "vehicle": vehicle }))],
        "POST /v1/brake/release" => {
            let path = || "/v1/brake/release".to_owned();
            let all = [json!({}), json!({ "vehicle": vehicle })];
            all.map(|body| post(path(), body)).into()
        }
        "PUT /v1/quota" => vec![put("/v1/quota".into(), json!({ "approved": 1 }))],
        "GET /v1/vehicles/{id}/sync" => vec![get(format!("/v1/vehicles/{vehicle}/sync"))],
        "GET /v1/bundles/{id}" => vec![
            get(format!("/v1/bundles/{bundle}")),
            get(format!("/v1/bundles/{bundle}?staple=true")),
        ],
        other => panic!("{other} is new: say here how it is called, or name it among the public"),
    }
}
