//! `/v1/authorizations`.
#![allow(unused_qualifications, reason = "utoipa's IntoParams writes some")]

use actix_web::http::header::CACHE_CONTROL;
use actix_web::web::{self, Data, Path, Query};
use actix_web::{HttpRequest, HttpResponse};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use utoipa::IntoParams;

use super::State;
use super::body::{Body, Kind, decode, kind, unsupported};
use super::caller;
use super::problem::Problem;
use super::shapes::{AuthorizationCommand, AuthorizationPage, AuthorizationView, not_found};
use crate::domain::{
    Authorization, AuthorizationId, AuthorizationState, Refusal, Scope, TerminalId, VehicleId,
};
use crate::engine::authenticate::idempotency;
use crate::engine::book::FleetBook;
use crate::store::AuthorizationFilter;

/// The most authorizations on one page.
const PAGE_MAX: u32 = 500;

/// Authorize functions of a vehicle. By bearer token, or as a signed command (`application/jose`).
#[utoipa::path(post, path = "/v1/authorizations", tag = "authorizations",
    request_body = AuthorizationCommand, security(("bearer" = ["authorize"]), ()),
    responses((status = 201, body = AuthorizationView), (status = "4XX", description = "problem+json")))]
pub(super) async fn create(
    state: Data<State>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    match kind(&request)? {
        Kind::Jose => for_owner(&state, &request, payload).await,
        Kind::Json => for_fleet(&state, &request, payload).await,
        Kind::NdJson => Err(unsupported(
            "this call takes application/json or application/jose",
        )),
    }
}

async fn for_owner(
    state: &State,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let body = Body::read(request, payload).await?;
    let jws = std::str::from_utf8(&body.0)
        .map_err(|_| Refusal::malformed("body", "a compact JWS is ASCII"))?;
    let (engine, method) = (&state.engine, request.method().as_str());
    let known = engine.look(|| engine.owner(jws.trim(), method, request.path()));
    let caller = known.await?;
    let command: AuthorizationCommand = command(&caller.command)?;
    let made = state
        .engine
        .authorize_for_owner(&caller, command.check(&state.engine)?)
        .await?;
    created(state, &caller.fleet, &made)
}

async fn for_fleet(
    state: &State,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let caller = caller::back_end(state, request, Scope::Authorize).await?;
    let body = Body::read(request, payload).await?;
    let command: AuthorizationCommand = decode(&body.0)?;
    let repeatable = caller::header(request, "Idempotency-Key")?
        .map(|key| idempotency(caller.fleet.fleet.id, request.path(), key, &body.0))
        .transpose()?;
    let made = state
        .engine
        .authorize_for_fleet(&caller, command.check(&state.engine)?, repeatable)
        .await?;
    created(state, &caller.fleet, &made)
}

/// A signed command's content.
pub(super) fn command<T: DeserializeOwned>(value: &Value) -> Result<T, Refusal> {
    decode(value.to_string().as_bytes()).map_err(|refusal| {
        let field = refusal
            .field
            .as_deref()
            .map_or("command".into(), |at| format!("command.{at}"));
        refusal.field(field)
    })
}

fn created(
    state: &State,
    fleet: &FleetBook,
    made: &Authorization,
) -> Result<HttpResponse, Problem> {
    let engine = &state.engine;
    let mut view = AuthorizationView::new(made, &fleet.catalogue(), engine.clock().unix());
    view.show_code_set(engine, made)?;
    Ok(HttpResponse::Created()
        .insert_header(("Location", format!("/v1/authorizations/{}", made.id)))
        .insert_header(("ETag", format!("\"{}\"", made.version)))
        .insert_header((CACHE_CONTROL, "no-store"))
        .json(view))
}

/// Read one authorization. Its code set is not shown: reading is not redeeming.
#[utoipa::path(get, path = "/v1/authorizations/{id}", tag = "authorizations",
    params(("id" = String, Path, description = "UUID")), security(("bearer" = ["read"])),
    responses((status = 200, body = AuthorizationView), (status = "4XX", description = "problem+json")))]
pub(super) async fn read(
    state: Data<State>,
    request: HttpRequest,
    id: Path<String>,
) -> Result<HttpResponse, Problem> {
    let caller = caller::back_end(&state, &request, Scope::Read).await?;
    let engine = &state.engine;
    let id = AuthorizationId::parse(&id).ok_or_else(not_found)?;
    let found = engine.authorization(caller.fleet.fleet.id, id).await?;
    let found = found.ok_or_else(not_found)?;
    let mut view = AuthorizationView::new(&found, &caller.fleet.catalogue(), engine.clock().unix())
        .ended(engine.ended(&caller.fleet, &found));
    if found.redeemed {
        view.bundle = engine
            .bundle_of(found.id)
            .await?
            .map(|one| one.bundle.id.to_string());
        let ended = engine.ended_keys(&caller.fleet, &found).await?;
        view.revoked_keys = ended.into_iter().map(Into::into).collect();
    }
    Ok(HttpResponse::Ok()
        .insert_header(("ETag", format!("\"{}\"", found.version)))
        .insert_header((CACHE_CONTROL, "no-store"))
        .json(view))
}

/// Which authorizations to list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    /// For this vehicle.
    vehicle: Option<String>,
    /// Commanded by this owner terminal.
    terminal: Option<String>,
    /// `open`, `expired`, `redeemed`, `suspended` or `cancelled`.
    state: Option<String>,
    /// The `next` of the page before.
    after: Option<String>,
    /// 1 to 500; 100 where absent.
    limit: Option<u32>,
}

/// List authorizations, oldest first.
#[utoipa::path(get, path = "/v1/authorizations", tag = "authorizations", params(ListQuery),
    security(("bearer" = ["read"])),
    responses((status = 200, body = AuthorizationPage), (status = "4XX", description = "problem+json")))]
pub(super) async fn list(
    state: Data<State>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let caller = caller::back_end(&state, &request, Scope::Read).await?;
    let query = Query::<ListQuery>::from_query(request.query_string()).map_err(|_| {
        Refusal::malformed(
            "query",
            "it takes vehicle, terminal, state, after and limit",
        )
    })?;
    let query = query.into_inner();
    let terminal = query.terminal.as_deref().map(TerminalId::parse);
    let terminal = terminal.transpose()?;
    let filter = filter(&caller.fleet, query, state.engine.clock().unix())?;
    let (limit, now) = (filter.limit as usize, filter.now);
    let found = match terminal {
        Some(terminal) => state.engine.authorized_by(terminal, filter).await?,
        None => state.engine.authorizations(filter).await?,
    };
    let catalogue = caller.fleet.catalogue();
    let next = (found.len() == limit)
        .then(|| found.last().map(|last| last.id.to_string()))
        .flatten();
    let items = found
        .iter()
        .map(|one| {
            let ended = state.engine.ended(&caller.fleet, one);
            AuthorizationView::new(one, &catalogue, now).ended(ended)
        })
        .collect();
    Ok(HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, "no-store"))
        .json(AuthorizationPage { items, next }))
}

fn filter(fleet: &FleetBook, query: ListQuery, now: u64) -> Result<AuthorizationFilter, Refusal> {
    let limit = query.limit.unwrap_or(100);
    if !(1..=PAGE_MAX).contains(&limit) {
        return Err(Refusal::malformed("limit", "a page has 1 to 500 items"));
    }
    let (state, expired) = match query.state.as_deref() {
        None => (None, None),
        Some("open") => (Some(AuthorizationState::Open), Some(false)),
        Some("expired") => (Some(AuthorizationState::Open), Some(true)),
        Some(name) => (
            Some(AuthorizationState::parse(name).ok_or_else(bad_state)?),
            None,
        ),
    };
    let after = query.after.as_deref().map(|id| {
        AuthorizationId::parse(id)
            .ok_or_else(|| Refusal::malformed("after", "give the `next` of a page"))
    });
    Ok(AuthorizationFilter {
        fleet: fleet.fleet.id,
        id: None,
        vehicle: query.vehicle.as_deref().map(VehicleId::parse).transpose()?,
        state,
        expired,
        now,
        after: after.transpose()?,
        limit,
    })
}

fn bad_state() -> Refusal {
    Refusal::malformed(
        "state",
        "a state is open, expired, redeemed, suspended or cancelled",
    )
}
