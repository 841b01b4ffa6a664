//! Changes and ends of one authorization: `PATCH` and `DELETE /v1/authorizations/{id}`, `suspend`,
//! `resume`, and the rebinding of a bundle.

use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, IF_MATCH};
use actix_web::web::{self, Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::State;
use super::asked::Asked;
use super::merge;
use super::problem::Problem;
use super::shapes::{AuthorizationView, ChangeCommand, RebindCommand, not_found};
use crate::domain::change::Action;
use crate::domain::time::Time;
use crate::domain::{
    AuthorizationId, AuthorizationState, BundleId, KeyId, Refusal, RefusalCode, Scope, Status,
};
use crate::engine::amend::Done;
use crate::engine::certain::CertainBy;
use crate::engine::outcome::Outcome;

/// Why something is done; nothing needs to be said.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WhyCommand {
    /// Why, kept beside who and when; 1 to 200 characters.
    pub(super) why: Option<String>,
}

/// When it is certain that the car refuses what was revoked.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CertainView {
    /// `now`, or `next_contact`: from the car's next sync on, a stapled status list, or the first
    /// key of the new version it meets.
    when: &'static str,
    /// And without any contact from this time on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    latest: Option<Time>,
}

/// What an amendment came to.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OutcomeView {
    /// Keys that were revoked.
    revoked: Vec<String>,
    /// Keys that were issued.
    issued: Vec<String>,
    /// Keys that were valid and are suspended.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    suspended: Vec<String>,
    /// Keys that were suspended and are valid.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    resumed: Vec<String>,
    /// When it is certain that the car refuses what was revoked or suspended.
    pub(super) certain_by: CertainView,
}

impl From<CertainBy> for CertainView {
    fn from(certain: CertainBy) -> Self {
        match certain {
            CertainBy::Now => Self {
                when: "now",
                latest: None,
            },
            CertainBy::Contact(latest) => Self {
                when: "next_contact",
                latest: Some(Time(latest)),
            },
        }
    }
}

impl From<&Outcome> for OutcomeView {
    fn from(outcome: &Outcome) -> Self {
        let ids = |ids: &[KeyId]| ids.iter().map(ToString::to_string).collect();
        Self {
            revoked: ids(&outcome.revoked),
            issued: ids(&outcome.issued),
            suspended: ids(&outcome.suspended),
            resumed: ids(&outcome.resumed),
            certain_by: outcome.certain_by.into(),
        }
    }
}

/// An authorization as it stands now, and what that took.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AmendedView {
    #[serde(flatten)]
    authorization: AuthorizationView,
    #[serde(flatten)]
    outcome: OutcomeView,
}

/// Change an authorization: a merge patch (RFC 7396) over what it says. Before redemption its code
/// set is replaced. After it every function that remains is issued again to the same terminal, under
/// the same bundle's id, and keys that grant more than the authorization now does are revoked. By
/// bearer token with `If-Match`, or as a signed command with `version`.
#[utoipa::path(patch, path = "/v1/authorizations/{id}", tag = "authorizations",
    params(("id" = String, Path, description = "UUID"),
        ("If-Match" = Option<String>, Header, description = "the version it is at, in quotes")),
    request_body = ChangeCommand, security(("bearer" = ["authorize"]), ()),
    responses((status = 200, body = AmendedView), (status = 412, description = "version_conflict"),
        (status = 428, description = "no If-Match"), (status = "4XX", description = "problem+json")))]
pub(super) async fn change(
    state: Data<State>,
    request: HttpRequest,
    id: Path<String>,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let mut asked = Asked::read(&state, &request, payload, Scope::Authorize).await?;
    let version = version(&request, &mut asked)?;
    asked.take_why()?;
    let id = AuthorizationId::parse(&id).ok_or_else(not_found)?;
    let caller = asked.caller();
    let catalogue = caller.fleet().catalogue();
    let spec = |now: &_| merge::changed(now, &catalogue, &asked.body);
    let done = state.engine.change(caller, id, version, spec).await?;
    answer(&state, &asked, &done, true).await
}

/// The version a change is for: a signed command says it itself.
fn version(request: &HttpRequest, asked: &mut Asked) -> Result<u32, Problem> {
    let missing = |field: &'static str| {
        let refusal = Refusal::malformed(field, "say at which version it is to be changed");
        Problem::with_status(StatusCode::PRECONDITION_REQUIRED, refusal)
    };
    let conflict = || Problem::from(RefusalCode::VersionConflict);
    let header = request.headers().get(IF_MATCH);
    let named = header.map(|value| {
        let text = value.to_str().unwrap_or_default().trim();
        let text = text.strip_prefix('"').and_then(|it| it.strip_suffix('"'));
        text.and_then(|text| text.parse().ok()).ok_or_else(conflict)
    });
    let named: Option<u32> = named.transpose()?;
    if !asked.is_signed() {
        return named.ok_or_else(|| missing("If-Match"));
    }
    let said = asked
        .body
        .remove("version")
        .ok_or_else(|| missing("command.version"))?;
    let said = said.as_u64().and_then(|said| u32::try_from(said).ok());
    let said = said.ok_or_else(|| Refusal::malformed("command.version", "it is a number"))?;
    match named {
        Some(named) if named != said => Err(conflict()),
        _ => Ok(said),
    }
}

/// Suspend an authorization and every key issued on it, until it is resumed.
#[utoipa::path(post, path = "/v1/authorizations/{id}/suspend", tag = "authorizations",
    params(("id" = String, Path, description = "UUID")), request_body = Option<WhyCommand>, security(("bearer" = ["revoke"]), ()),
    responses((status = 200, body = AmendedView), (status = "4XX", description = "problem+json")))]
pub(super) async fn suspend(
    state: Data<State>,
    request: HttpRequest,
    id: Path<String>,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    act(&state, &request, &id, payload, Action::Suspend).await
}

/// End the suspension of an authorization. Keys that were revoked stay so.
#[utoipa::path(post, path = "/v1/authorizations/{id}/resume", tag = "authorizations",
    params(("id" = String, Path, description = "UUID")), request_body = Option<WhyCommand>, security(("bearer" = ["revoke"]), ()),
    responses((status = 200, body = AmendedView), (status = "4XX", description = "problem+json")))]
pub(super) async fn resume(
    state: Data<State>,
    request: HttpRequest,
    id: Path<String>,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    act(&state, &request, &id, payload, Action::Resume).await
}

/// End an authorization: its code set is closed, every key issued on it is revoked.
#[utoipa::path(delete, path = "/v1/authorizations/{id}", tag = "authorizations",
    params(("id" = String, Path, description = "UUID")), request_body = Option<WhyCommand>, security(("bearer" = ["revoke"]), ()),
    responses((status = 200, body = AmendedView), (status = "4XX", description = "problem+json")))]
pub(super) async fn cancel(
    state: Data<State>,
    request: HttpRequest,
    id: Path<String>,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    act(&state, &request, &id, payload, Action::Cancel).await
}

/// Approve of the redemption of an authorization, whose context asks for more than the code set:
/// for as long as the fleet's rules say. An owner terminal approves with a signed command.
#[utoipa::path(post, path = "/v1/authorizations/{id}/approve", tag = "authorizations",
    params(("id" = String, Path, description = "UUID")), request_body = Option<WhyCommand>,
    security(("bearer" = ["authorize"]), ()),
    responses((status = 200, body = AmendedView), (status = "4XX", description = "problem+json")))]
pub(super) async fn approve(
    state: Data<State>,
    request: HttpRequest,
    id: Path<String>,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let mut asked = Asked::read(&state, &request, payload, Scope::Authorize).await?;
    asked.take_why()?;
    asked.only(&[])?;
    let id = AuthorizationId::parse(&id).ok_or_else(not_found)?;
    let done = state.engine.approve(asked.caller(), id).await?;
    answer(&state, &asked, &done, false).await
}

async fn act(
    state: &State,
    request: &HttpRequest,
    id: &str,
    payload: web::Payload,
    action: Action,
) -> Result<HttpResponse, Problem> {
    let mut asked = Asked::read(state, request, payload, Scope::Revoke).await?;
    asked.take_why()?;
    asked.only(&[])?;
    let id = AuthorizationId::parse(id).ok_or_else(not_found)?;
    let done = state.engine.act(asked.caller(), id, action).await?;
    answer(state, &asked, &done, false).await
}

/// Bind a bundle to another terminal of the same identity, as when a phone is broken: every key is
/// issued again for it, and those of the one before are revoked.
#[utoipa::path(post, path = "/v1/bundles/{id}/rebind", tag = "authorizations",
    params(("id" = String, Path, description = "UUID")), request_body = RebindCommand,
    security(("bearer" = ["authorize"]), ()),
    responses((status = 200, body = AmendedView), (status = "4XX", description = "problem+json")))]
pub(super) async fn rebind(
    state: Data<State>,
    request: HttpRequest,
    id: Path<String>,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let mut asked = Asked::read(&state, &request, payload, Scope::Authorize).await?;
    let body = serde_json::Value::Object(asked.body.clone()).to_string();
    let mut command: RebindCommand = super::body::decode(body.as_bytes())?;
    asked.because(command.why.take())?;
    let id = BundleId::parse(&id).ok_or_else(not_found)?;
    let fleet = asked.caller().fleet();
    let found = state.engine.bundle(id).await?;
    let found = found.filter(|found| found.bundle.fleet == fleet.fleet.id);
    let bundle = found.ok_or_else(not_found)?.bundle;
    let holder = match (&command.terminal, &command.proof) {
        (Some(terminal), None) => {
            let known = fleet
                .terminal(terminal)
                .filter(|it| it.identity == bundle.identity && it.status == Status::Active);
            let refusal = Refusal::new(RefusalCode::TerminalMismatch).field("terminal");
            let refusal = refusal.detail("the bundle's identity has no such active terminal");
            known.ok_or(refusal)?.key
        }
        (None, Some(proof)) => state.engine.bundle_prover(&id, proof)?,
        _ => return Err(Refusal::malformed("terminal", "give a terminal or a proof").into()),
    };
    let caller = asked.caller();
    let done = state
        .engine
        .rebind(caller, bundle.authorization, holder)
        .await?;
    answer(&state, &asked, &done, false).await
}

/// The authorization as it stands. A code set is shown where a change has just replaced it.
async fn answer(
    state: &State,
    asked: &Asked,
    done: &Done,
    code_set: bool,
) -> Result<HttpResponse, Problem> {
    let engine = &state.engine;
    let fleet = asked.caller().fleet().clone();
    let authorization = &*done.authorization;
    let now = engine.clock().unix();
    let mut view = AuthorizationView::new(authorization, &fleet.catalogue(), now)
        .ended(engine.ended(&fleet, authorization));
    if authorization.redeemed {
        let bundle = engine.bundle_of(authorization.id).await?;
        view.bundle = bundle.map(|found| found.bundle.id.to_string());
    } else if code_set && authorization.state != AuthorizationState::Cancelled {
        view.show_code_set(engine, authorization)?;
    }
    let body = AmendedView {
        authorization: view,
        outcome: (&done.outcome).into(),
    };
    Ok(HttpResponse::Ok()
        .insert_header(("ETag", format!("\"{}\"", authorization.version)))
        .insert_header((CACHE_CONTROL, "no-store"))
        .json(body))
}
