//! `POST /v1/revocations`, `/v1/suspensions` and `/v1/resumptions`: one thing, or everything that
//! something stands for; one in a call, or a line each.
//!
//! Whoever takes NDJSON is told how it goes on, a line after each chunk. What has begun goes on
//! when the client is gone: it may be sent again, and what is done stays so.

use std::sync::Arc;

use actix_web::http::header::CACHE_CONTROL;
use actix_web::web::{self, Bytes, Data};
use actix_web::{HttpRequest, HttpResponse};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc::{Sender, channel};
use utoipa::ToSchema;

use super::State;
use super::asked::Asked;
use super::batches::{Place, pieces};
use super::body::{Body, Kind, decode, kind};
use super::caller;
use super::problem::Problem;
use super::progress::{Progress, ProgressView};
use crate::domain::change::Action;
use crate::domain::{
    AuthorizationId, BundleId, IdentityId, KeyId, Refusal, RefusalCode, Scope, TerminalId,
    VehicleId,
};
use crate::engine::amend::Caller;
use crate::engine::authenticate::BackEnd;
use crate::engine::revoke::{CHUNK, Part, Target};
use crate::engine::ruling::check_why;
use crate::engine::{Engine, Failure};

/// Lines that may wait for the client.
const LINES_WAITING_MAX: usize = 64;

/// What is to be revoked, suspended or resumed: one of these.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TargetCommand {
    /// One key: every key of its function on its authorization. Revoked, the function is taken off
    /// the authorization.
    key: Option<String>,
    /// A bundle.
    bundle: Option<String>,
    /// An authorization.
    authorization: Option<String>,
    /// Everything an identity has. Revoked, it is suspended until it is resumed.
    identity: Option<String>,
    /// Everything on a vehicle.
    vehicle: Option<String>,
    /// A terminal, as one that was lost: it commands and redeems nothing more. Revoked, it is
    /// suspended until it is resumed, and everything it authorized ends.
    terminal: Option<String>,
    /// Why, kept beside who and when; 1 to 200 characters.
    why: Option<String>,
}

impl TargetCommand {
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
            self.terminal
                .map(|id| TerminalId::parse(&id).map(Target::Terminal)),
        ];
        let mut targets = targets.into_iter().flatten();
        match (targets.next(), targets.next()) {
            (Some(target), None) => target,
            _ => Err(Refusal::malformed(
                "body",
                "name one: key, bundle, authorization, identity, vehicle or terminal",
            )),
        }
    }
}

/// Revoke a key, a bundle, an authorization, or everything of an identity, on a vehicle, or that a
/// terminal authorized. With
/// `application/x-ndjson` a target a line, each answered with a line; with `Accept:
/// application/x-ndjson` a line of progress after each chunk.
#[utoipa::path(post, path = "/v1/revocations", tag = "authorizations",
    request_body = TargetCommand, security(("bearer" = ["revoke"]), ()),
    responses((status = 200, body = ProgressView), (status = "4XX", description = "problem+json")))]
pub(super) async fn revoke(
    state: Data<State>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    carry_out(&state, &request, payload, Action::Cancel).await
}

/// Suspend a key, a bundle, an authorization, or everything of an identity or on a vehicle, until
/// it is resumed; an identity or a vehicle gets nothing more meanwhile. A terminal commands and
/// redeems nothing more; no key is suspended with it. A key is suspended while
/// anything suspends it: itself, its authorization, its identity or its vehicle. Called like
/// `/v1/revocations`.
#[utoipa::path(post, path = "/v1/suspensions", tag = "authorizations",
    request_body = TargetCommand, security(("bearer" = ["revoke"]), ()),
    responses((status = 200, body = ProgressView), (status = "4XX", description = "problem+json")))]
pub(super) async fn suspend(
    state: Data<State>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    carry_out(&state, &request, payload, Action::Suspend).await
}

/// End a suspension of the same target. Keys that something else suspends stay suspended, and those
/// that were revoked stay revoked. Called like `/v1/revocations`.
#[utoipa::path(post, path = "/v1/resumptions", tag = "authorizations",
    request_body = TargetCommand, security(("bearer" = ["revoke"]), ()),
    responses((status = 200, body = ProgressView), (status = "4XX", description = "problem+json")))]
pub(super) async fn resume(
    state: Data<State>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    carry_out(&state, &request, payload, Action::Resume).await
}

async fn carry_out(
    state: &State,
    request: &HttpRequest,
    payload: web::Payload,
    action: Action,
) -> Result<HttpResponse, Problem> {
    if kind(request)? == Kind::NdJson {
        return carry_out_lines(state, request, payload, action).await;
    }
    let mut asked = Asked::read(state, request, payload, Scope::Revoke).await?;
    let body = Value::Object(asked.body.clone()).to_string();
    let mut command = decode::<TargetCommand>(body.as_bytes())?;
    asked.because(command.why.take())?;
    let target = command.check()?;
    let engine = &state.engine;
    if caller::accepts(request, "application/x-ndjson") {
        let place = state.door.enter(engine)?;
        let begun = begin(engine, asked.caller(), action, &target).await?;
        let run = async move |run: Run| run.carry_out(asked.caller(), begun).await;
        return Ok(streamed((Arc::clone(engine), action), place, run));
    }
    let (parts, mut progress) = begin(engine, asked.caller(), action, &target).await?;
    for chunk in parts.chunks(CHUNK) {
        for outcome in engine.carry_out(asked.caller(), action, chunk).await? {
            progress.note(outcome)?;
        }
    }
    Ok(HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, "no-store"))
        .json(progress.view()))
}

/// What a target stands for, of which nothing is carried out yet.
async fn begin(
    engine: &Engine,
    caller: Caller<'_>,
    action: Action,
    target: &Target,
) -> Result<(Vec<Part>, Progress), Failure> {
    let parts = engine.parts_of(caller, action, target).await?;
    // It registers nothing more by now.
    let registered = match action {
        Action::Suspend | Action::Cancel => engine.registered_by(caller, target).await?,
        Action::Resume => Vec::new(),
    };
    let progress = Progress::new(action, parts.len()).of(registered);
    Ok((parts, progress))
}

/// A target a line.
async fn carry_out_lines(
    state: &State,
    request: &HttpRequest,
    payload: web::Payload,
    action: Action,
) -> Result<HttpResponse, Problem> {
    let caller = caller::back_end(state, request, Scope::Revoke).await?;
    let body = Body::read(request, payload).await?;
    let place = state.door.enter(&state.engine)?;
    let engine = (Arc::clone(&state.engine), action);
    let run = async move |run: Run| run.carry_out_lines(&caller, &body.0).await;
    Ok(streamed(engine, place, run))
}

fn streamed(
    (engine, action): (Arc<Engine>, Action),
    place: Place,
    work: impl AsyncFnOnce(Run) + 'static,
) -> HttpResponse {
    let (lines, waiting) = channel(LINES_WAITING_MAX);
    let run = Run {
        engine,
        action,
        lines,
        _place: place,
    };
    actix_web::rt::spawn(async move { work(run).await });
    HttpResponse::Ok()
        .content_type("application/x-ndjson")
        .insert_header((CACHE_CONTROL, "no-store"))
        .streaming(pieces(waiting))
}

/// A call that is answered line by line.
struct Run {
    engine: Arc<Engine>,
    action: Action,
    lines: Sender<Bytes>,
    _place: Place,
}

impl Run {
    /// Carries all of it out, and says after each chunk how far it has come.
    async fn carry_out(self, caller: Caller<'_>, (parts, mut progress): (Vec<Part>, Progress)) {
        if parts.is_empty() {
            self.say(json!(progress.view())).await;
        }
        for chunk in parts.chunks(CHUNK) {
            let done = self.engine.carry_out(caller, self.action, chunk).await;
            let noted = done.and_then(|all| all.into_iter().try_for_each(|it| progress.note(it)));
            match noted {
                Ok(()) => self.say(json!(progress.view())).await,
                Err(failure) => {
                    self.say(refused(None, failure)).await;
                    return;
                }
            }
        }
    }

    /// A chunk of lines at a time: what they stand for is done together, and each is answered.
    async fn carry_out_lines(self, caller: &BackEnd, body: &[u8]) {
        let lines: Vec<_> = (1_u64..).zip(body.split(|b| *b == b'\n')).collect();
        let lines = lines
            .iter()
            .filter(|(_, line)| !line.trim_ascii().is_empty());
        let lines: Vec<_> = lines.collect();
        for lines in lines.chunks(CHUNK) {
            let mut begun = Vec::with_capacity(lines.len());
            for (number, line) in lines {
                match self.begin(caller, line).await {
                    Ok((parts, progress)) => begun.push((*number, parts, progress)),
                    Err(failure) => self.say(refused(Some(*number), failure)).await,
                }
            }
            self.finish_lines(Caller::BackEnd(caller, None), begun)
                .await;
        }
    }

    async fn begin(&self, caller: &BackEnd, line: &[u8]) -> Result<(Vec<Part>, Progress), Failure> {
        let mut command = decode::<TargetCommand>(line)?;
        let why = command.why.take();
        check_why(why.as_deref())?;
        let target = command.check()?;
        // Each line says why for itself.
        let caller = BackEnd {
            fleet: Arc::clone(&caller.fleet),
            token: Arc::clone(&caller.token),
            why,
        };
        let caller = Caller::BackEnd(&caller, None);
        begin(&self.engine, caller, self.action, &target).await
    }

    async fn finish_lines(&self, caller: Caller<'_>, begun: Vec<(u64, Vec<Part>, Progress)>) {
        let mut all: Vec<_> = begun
            .iter()
            .enumerate()
            .flat_map(|(at, (_, parts, _))| parts.iter().map(move |part| (at, part.clone())))
            .collect();
        let mut progress: Vec<_> = begun
            .into_iter()
            .map(|(number, _, progress)| (number, progress, None))
            .collect();
        while !all.is_empty() {
            let chunk: Vec<_> = all.drain(..all.len().min(CHUNK)).collect();
            let (places, parts): (Vec<usize>, Vec<Part>) = chunk.into_iter().unzip();
            let outcomes = match self.engine.carry_out(caller, self.action, &parts).await {
                Ok(outcomes) => outcomes,
                Err(failure) => {
                    self.say(refused(None, failure)).await;
                    return;
                }
            };
            for (at, outcome) in places.into_iter().zip(outcomes) {
                let (_, progress, why) = &mut progress[at];
                if let Err(failure) = progress.note(outcome) {
                    *why = Some(failure);
                }
            }
        }
        for (number, progress, why) in progress {
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
    let status = failure.word();
    let mut answer = json!({ "status": status, "problem": Problem::from(failure).json() });
    if let Some(line) = line {
        answer["line"] = json!(line);
    }
    answer
}
