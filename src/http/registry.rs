//! `PUT /v1/vehicles|identities/{id}` and `POST /v1/import`: the registry. Terminals are in
//! `terminals.rs`.

use std::collections::HashSet;
use std::sync::Arc;

use actix_web::web::{self, Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use serde_json::json;

use super::State;
use super::body::{Body, Kind, decode, json as decode_json, kind, unsupported};
use super::caller;
use super::entries::{IdentityBody, ImportLine, VehicleBody};
use super::problem::Problem;

use crate::domain::{Refusal, Scope, VehicleId};
use crate::engine::Failure;
use crate::engine::book::FleetBook;
use crate::engine::registry::{Entry, Then, check, outcome};
use crate::store::Write;

/// The most bytes of one line of an import.
const LINE_LEN_MAX: usize = 64 * 1024;

/// Lines of an import that are committed together.
const LINES_PER_COMMIT: usize = 512;

/// Put a vehicle into the registry, or a new description in place of the one it has. With another
/// owner everything it was authorized for ends, open code sets and keys, and it is reset.
#[utoipa::path(put, path = "/v1/vehicles/{id}", tag = "registry", params(("id" = String, Path)),
    request_body = VehicleBody, security(("bearer" = ["admin"])),
    responses((status = 204), (status = "4XX", description = "problem+json")))]
pub(super) async fn put_vehicle(
    state: Data<State>,
    request: HttpRequest,
    id: Path<String>,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let caller = caller::back_end(&state, &request, Scope::Admin).await?;
    let body = Body::read(&request, payload).await?;
    let entry = decode_json::<VehicleBody>(&request, &body)?.check(&id)?;
    put(&state, &caller.fleet, entry).await
}

/// Put an identity into the registry, or in place of the one it has.
#[utoipa::path(put, path = "/v1/identities/{id}", tag = "registry", params(("id" = String, Path)),
    request_body = IdentityBody, security(("bearer" = ["admin"])),
    responses((status = 204), (status = "4XX", description = "problem+json")))]
pub(super) async fn put_identity(
    state: Data<State>,
    request: HttpRequest,
    id: Path<String>,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let caller = caller::back_end(&state, &request, Scope::Admin).await?;
    let body = Body::read(&request, payload).await?;
    let entry = decode_json::<IdentityBody>(&request, &body)?.check(&id)?;
    put(&state, &caller.fleet, entry).await
}

/// Puts an entry into a fleet's registry.
pub(super) async fn put(
    state: &State,
    fleet: &Arc<FleetBook>,
    entry: Entry,
) -> Result<HttpResponse, Problem> {
    state.engine.put(fleet, entry).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Import many: a line each with `kind`, `id` and the rest as above; a result for each line. A bad
/// line refuses that line only.
#[utoipa::path(post, path = "/v1/import", tag = "registry",
    request_body(content = Object, content_type = "application/x-ndjson"),
    security(("bearer" = ["admin"])),
    responses((status = 200, description = "NDJSON: {line, status} or {line, problem}"),
        (status = "4XX", description = "problem+json")))]
pub(super) async fn import(
    state: Data<State>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let caller = caller::back_end(&state, &request, Scope::Admin).await?;
    if kind(&request)? == Kind::Jose {
        return Err(unsupported("this call takes application/x-ndjson"));
    }
    let body = Body::read(&request, payload).await?;
    let mut import = Import::new(&state, &caller.fleet);
    for (line, text) in (1_u64..).zip(body.0.split(|byte| *byte == b'\n')) {
        import.line(line, text.trim_ascii()).await;
    }
    Ok(HttpResponse::Ok()
        .content_type("application/x-ndjson")
        .body(import.finish().await))
}

/// An import under way.
struct Import<'a> {
    state: &'a State,
    fleet: &'a Arc<FleetBook>,
    /// Lines checked and not yet committed.
    waiting: Vec<Waiting>,
    writes: Vec<Write>,
    /// Vehicles among them.
    vehicles: HashSet<VehicleId>,
    answer: String,
}

/// A line that was checked.
struct Waiting {
    number: u64,
    /// How many writes it takes.
    writes: usize,
    /// What follows from it.
    then: Option<Then>,
}

impl<'a> Import<'a> {
    fn new(state: &'a State, fleet: &'a Arc<FleetBook>) -> Self {
        Self {
            state,
            fleet,
            waiting: Vec::new(),
            writes: Vec::new(),
            vehicles: HashSet::new(),
            answer: String::new(),
        }
    }

    async fn line(&mut self, number: u64, text: &[u8]) {
        if text.is_empty() {
            return;
        }
        let entry = if text.len() > LINE_LEN_MAX {
            Err(Refusal::malformed("line", "a line has 64 KiB at most"))
        } else {
            decode::<ImportLine>(text).and_then(ImportLine::check)
        };
        // Who owns a vehicle is asked of the book: one line about it after the other.
        if let Ok(Entry::Vehicle { id, .. }) = &entry
            && !self.vehicles.insert(id.clone())
        {
            self.commit().await;
            self.vehicles.insert(id.clone());
        }
        let checked = match entry {
            Err(refusal) => Err(refusal),
            Ok(entry) => match check(self.fleet, entry.clone()) {
                // It may name something an earlier line of this import introduces.
                Err(_) if !self.waiting.is_empty() => {
                    self.commit().await;
                    check(self.fleet, entry)
                }
                first => first,
            },
        };
        match checked {
            Ok(checked) => {
                self.waiting.push(Waiting {
                    number,
                    writes: checked.writes.len(),
                    then: checked.then,
                });
                self.writes.extend(checked.writes);
            }
            Err(refusal) => {
                self.commit().await;
                self.say(number, Err(refusal.into()));
            }
        }
        if self.waiting.len() >= LINES_PER_COMMIT {
            self.commit().await;
        }
    }

    async fn commit(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        self.vehicles.clear();
        if waiting.is_empty() {
            return;
        }
        let written = match std::mem::take(&mut self.writes) {
            none if none.is_empty() => Ok(Vec::new()),
            writes => self.state.engine.write(writes).await,
        };
        match written {
            Ok(applied) => {
                let mut rest = applied.as_slice();
                for line in waiting {
                    let (own, others) = rest.split_at(line.writes.min(rest.len()));
                    rest = others;
                    let done = match outcome(own) {
                        Ok(()) => self.state.engine.conclude(self.fleet, line.then).await,
                        Err(refusal) => Err(refusal.into()),
                    };
                    self.say(line.number, done);
                }
            }
            Err(refusal) => {
                for line in waiting {
                    self.say(line.number, Err(refusal.clone().into()));
                }
            }
        }
    }

    fn say(&mut self, line: u64, result: Result<(), Failure>) {
        let result = match result {
            Ok(()) => json!({ "line": line, "status": "done" }),
            Err(failure) => {
                let status = failure.word();
                json!({ "line": line, "status": status, "problem": Problem::from(failure).json() })
            }
        };
        self.answer.push_str(&result.to_string());
        self.answer.push('\n');
    }

    async fn finish(mut self) -> String {
        self.commit().await;
        self.answer
    }
}
