//! `POST /v1/revocations`: one thing, or everything that something stands for; one in a call, or a
//! line each.
//!
//! Whoever takes NDJSON is told how it goes on, a line after each chunk. What has begun goes on
//! when the client is gone: it may be sent again, and what has ended stays so.

use std::sync::Arc;

use actix_web::http::header::CACHE_CONTROL;
use actix_web::web::{self, Bytes, Data};
use actix_web::{HttpRequest, HttpResponse};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::mpsc::{Sender, channel};
use utoipa::ToSchema;

use super::State;
use super::amendments::CertainView;
use super::asked::Asked;
use super::batches::{Place, pieces};
use super::body::{Body, Kind, decode, kind};
use super::caller;
use super::problem::Problem;
use crate::domain::{
    AuthorizationId, BundleId, IdentityId, KeyId, Refusal, RefusalCode, Scope, VehicleId,
};
use crate::engine::amend::Caller;
use crate::engine::authenticate::BackEnd;
use crate::engine::certain::CertainBy;
use crate::engine::revoke::{CHUNK, End, Target};
use crate::engine::{Engine, Failure};

/// Lines that may wait for the client.
const LINES_WAITING_MAX: usize = 64;

/// What is to be revoked: one of these.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RevocationCommand {
    /// One key: its function is taken off the authorization.
    key: Option<String>,
    /// A bundle.
    bundle: Option<String>,
    /// An authorization.
    authorization: Option<String>,
    /// Everything an identity has. It is suspended, until the registry makes it active again.
    identity: Option<String>,
    /// Everything on a vehicle.
    vehicle: Option<String>,
}

impl RevocationCommand {
    fn check(self) -> Result<Target, Refusal> {
        let no_id = |field| Refusal::new(RefusalCode::NotFound).field(field);
        let targets = [
            self.key.map(|id| {
                KeyId::parse(&id)
                    .map(Target::Key)
                    .ok_or_else(|| no_id("key"))
            }),
            self.bundle.map(|id| {
                let id = BundleId::parse(&id).map(Target::Bundle);
                id.ok_or_else(|| no_id("bundle"))
            }),
            self.authorization.map(|id| {
                let id = AuthorizationId::parse(&id).map(Target::Authorization);
                id.ok_or_else(|| no_id("authorization"))
            }),
            self.identity
                .map(|id| IdentityId::parse(&id).map(Target::Identity)),
            self.vehicle
                .map(|id| VehicleId::parse(&id).map(Target::Vehicle)),
        ];
        let mut targets = targets.into_iter().flatten();
        match (targets.next(), targets.next()) {
            (Some(target), None) => target,
            _ => Err(Refusal::malformed(
                "body",
                "name one: key, bundle, authorization, identity or vehicle",
            )),
        }
    }
}

/// What a revocation has come to so far.
#[derive(Serialize, ToSchema)]
pub(super) struct RevocationView {
    /// `revoking`, then `revoked`; or the code of a refusal.
    status: &'static str,
    /// Authorizations and keys this stands for.
    total: usize,
    /// How many of them have ended.
    done: usize,
    /// Those that had ended before, or are gone.
    passed_over: usize,
    /// Keys that were revoked.
    revoked: usize,
    /// When it is certain that the cars refuse them.
    certain_by: CertainView,
}

/// Where a revocation stands.
struct Progress {
    total: usize,
    done: usize,
    passed_over: usize,
    revoked: usize,
    certain_by: CertainBy,
}

impl Progress {
    fn new(total: usize) -> Self {
        Self {
            total,
            done: 0,
            passed_over: 0,
            revoked: 0,
            certain_by: CertainBy::Now,
        }
    }

    fn view(&self) -> RevocationView {
        let over = self.done + self.passed_over >= self.total;
        RevocationView {
            status: if over { "revoked" } else { "revoking" },
            total: self.total,
            done: self.done,
            passed_over: self.passed_over,
            revoked: self.revoked,
            certain_by: self.certain_by.into(),
        }
    }
}

/// Revoke a key, a bundle, an authorization, or everything of an identity or on a vehicle. With
/// `application/x-ndjson` a target a line, each answered with a line; with `Accept:
/// application/x-ndjson` a line of progress after each chunk.
#[utoipa::path(post, path = "/v1/revocations", tag = "authorizations",
    request_body = RevocationCommand, security(("bearer" = ["revoke"]), ()),
    responses((status = 200, body = RevocationView), (status = "4XX", description = "problem+json")))]
pub(super) async fn revoke(
    state: Data<State>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    if kind(&request)? == Kind::NdJson {
        return revoke_lines(&state, &request, payload).await;
    }
    let asked = Asked::read(&state, &request, payload, Scope::Revoke).await?;
    let body = Value::Object(asked.body.clone()).to_string();
    let target = decode::<RevocationCommand>(body.as_bytes())?.check()?;
    if caller::accepts(&request, "application/x-ndjson") {
        let place = state.door.enter(&state.engine)?;
        let ends = state.engine.ends_of(asked.caller(), &target).await?;
        return Ok(streamed(
            Arc::clone(&state.engine),
            place,
            |run| async move {
                run.carry_out(asked.caller(), ends).await;
            },
        ));
    }
    let engine = &state.engine;
    let ends = engine.ends_of(asked.caller(), &target).await?;
    let sole = ends.len() == 1;
    let mut progress = Progress::new(ends.len());
    for chunk in ends.chunks(CHUNK) {
        end(engine, asked.caller(), chunk, sole, &mut progress).await?;
    }
    Ok(HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, "no-store"))
        .json(progress.view()))
}

/// A target a line.
async fn revoke_lines(
    state: &State,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let caller = caller::back_end(state, request, Scope::Revoke)?;
    let body = Body::read(request, payload).await?;
    let place = state.door.enter(&state.engine)?;
    Ok(streamed(
        Arc::clone(&state.engine),
        place,
        |run| async move {
            run.carry_out_lines(&caller, &body.0).await;
        },
    ))
}

fn streamed<F: Future<Output = ()> + 'static>(
    engine: Arc<Engine>,
    place: Place,
    work: impl FnOnce(Run) -> F,
) -> HttpResponse {
    let (lines, waiting) = channel(LINES_WAITING_MAX);
    actix_web::rt::spawn(work(Run {
        engine,
        lines,
        _place: place,
    }));
    HttpResponse::Ok()
        .content_type("application/x-ndjson")
        .insert_header((CACHE_CONTROL, "no-store"))
        .streaming(pieces(waiting))
}

/// A call that is answered line by line.
struct Run {
    engine: Arc<Engine>,
    lines: Sender<Bytes>,
    _place: Place,
}

impl Run {
    /// Ends all of them, and says after each chunk how far it has come.
    async fn carry_out(self, caller: Caller<'_>, ends: Vec<End>) {
        let sole = ends.len() == 1;
        let mut progress = Progress::new(ends.len());
        if ends.is_empty() {
            self.say(json!(progress.view())).await;
        }
        for chunk in ends.chunks(CHUNK) {
            match end(&self.engine, caller, chunk, sole, &mut progress).await {
                Ok(()) => self.say(json!(progress.view())).await,
                Err(failure) => {
                    self.say(refused(None, failure)).await;
                    return;
                }
            }
        }
    }

    /// A chunk of lines at a time: what they stand for is ended together, and each is answered.
    async fn carry_out_lines(self, caller: &BackEnd, body: &[u8]) {
        let caller = Caller::BackEnd(caller, None);
        let lines: Vec<_> = (1_u64..).zip(body.split(|b| *b == b'\n')).collect();
        let lines = lines
            .iter()
            .filter(|(_, line)| !line.trim_ascii().is_empty());
        let lines: Vec<_> = lines.collect();
        for lines in lines.chunks(CHUNK) {
            let mut begun = Vec::with_capacity(lines.len());
            for (number, line) in lines {
                match self.begin(caller, line).await {
                    Ok(ends) => begun.push((*number, ends)),
                    Err(failure) => self.say(refused(Some(*number), failure)).await,
                }
            }
            self.end_lines(caller, begun).await;
        }
    }

    async fn begin(&self, caller: Caller<'_>, line: &[u8]) -> Result<Vec<End>, Failure> {
        let target = decode::<RevocationCommand>(line)?.check()?;
        self.engine.ends_of(caller, &target).await
    }

    async fn end_lines(&self, caller: Caller<'_>, begun: Vec<(u64, Vec<End>)>) {
        let mut all: Vec<_> = begun
            .iter()
            .enumerate()
            .flat_map(|(at, (_, ends))| ends.iter().map(move |end| (at, *end)))
            .collect();
        let mut progress: Vec<_> = begun
            .iter()
            .map(|(_, ends)| (Progress::new(ends.len()), None))
            .collect();
        while !all.is_empty() {
            let chunk: Vec<_> = all.drain(..all.len().min(CHUNK)).collect();
            let ends: Vec<End> = chunk.iter().map(|(_, end)| *end).collect();
            let outcomes = match self.engine.end(caller, &ends).await {
                Ok(outcomes) => outcomes,
                Err(failure) => {
                    self.say(refused(None, failure)).await;
                    return;
                }
            };
            for ((at, _), outcome) in chunk.into_iter().zip(outcomes) {
                let (progress, why) = &mut progress[at];
                if let Err(failure) = note(progress, outcome, progress.total == 1) {
                    *why = Some(failure);
                }
            }
        }
        for ((number, _), (progress, why)) in begun.into_iter().zip(progress) {
            let answer = match why {
                Some(failure) => refused(Some(number), failure),
                None => {
                    let mut answer = json!(progress.view());
                    answer["line"] = json!(number);
                    answer
                }
            };
            self.say(answer).await;
        }
    }

    /// A client that has gone is no reason to stop.
    async fn say(&self, line: Value) {
        drop(self.lines.send(format!("{line}\n").into()).await);
    }
}

fn refused(line: Option<u64>, failure: Failure) -> Value {
    let status = match &failure {
        Failure::Refused(refusal) => refusal.code.code(),
        Failure::Fault(_) => "fault",
    };
    let mut answer = json!({ "status": status, "problem": Problem::from(failure).json() });
    if let Some(line) = line {
        answer["line"] = json!(line);
    }
    answer
}

async fn end(
    engine: &Engine,
    caller: Caller<'_>,
    chunk: &[End],
    sole: bool,
    progress: &mut Progress,
) -> Result<(), Failure> {
    for outcome in engine.end(caller, chunk).await? {
        note(progress, outcome, sole)?;
    }
    Ok(())
}

/// Notes what became of one. Of many, what is gone meanwhile is passed over.
fn note(
    progress: &mut Progress,
    outcome: Result<crate::engine::outcome::Outcome, Failure>,
    sole: bool,
) -> Result<(), Failure> {
    match outcome {
        Ok(outcome) => {
            progress.done += 1;
            progress.revoked += outcome.revoked.len();
            progress.certain_by = progress.certain_by.and(outcome.certain_by);
            Ok(())
        }
        Err(Failure::Refused(refusal)) if !sole && refusal.code == RefusalCode::NotFound => {
            progress.passed_over += 1;
            Ok(())
        }
        Err(failure) => Err(failure),
    }
}
