//! `/v1/terminals`: registered by the fleet, or by another terminal of the same identity; and listed.
#![allow(unused_qualifications, reason = "utoipa's IntoParams writes some")]

use actix_web::http::header::CACHE_CONTROL;
use actix_web::web::{self, Data, Path, Query};
use actix_web::{HttpRequest, HttpResponse};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::State;
use super::authorizations::command;
use super::body::{Body, Kind, json as decode_json, kind};
use super::caller::{self, WhyQuery};
use super::entries::TerminalBody;
use super::problem::Problem;
use super::registry;
use crate::domain::time::Time;
use crate::domain::{IdentityId, Refusal, Scope, Terminal, TerminalId};
use crate::engine::attest::TerminalFilter;

/// The most terminals on one page.
const PAGE_MAX: usize = 500;

/// Put a terminal into the registry, or in place of the one it has: by bearer token. Or as a signed
/// command (`application/jose`) of an active terminal, which registers another of its own identity,
/// under an id that is free.
#[utoipa::path(put, path = "/v1/terminals/{id}", tag = "registry", params(("id" = String, Path), WhyQuery),
    request_body = TerminalBody, security(("bearer" = ["admin"]), ()),
    responses((status = 204), (status = "4XX", description = "problem+json")))]
pub(super) async fn put(
    state: Data<State>,
    request: HttpRequest,
    id: Path<String>,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    if kind(&request)? == Kind::Jose {
        return attest(&state, &request, &id, payload).await;
    }
    let caller = caller::back_end_because(&state, &request, Scope::Admin).await?;
    let body = Body::read(&request, payload).await?;
    let entry = decode_json::<TerminalBody>(&request, &body)?.check(&id)?;
    registry::put(&state, &caller, entry).await
}

async fn attest(
    state: &State,
    request: &HttpRequest,
    id: &str,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let body = Body::read(request, payload).await?;
    let jws = std::str::from_utf8(&body.0)
        .map_err(|_| Refusal::malformed("body", "a compact JWS is ASCII"))?;
    let (engine, method) = (&state.engine, request.method().as_str());
    let known = engine.look(|| engine.owner(jws.trim(), method, request.path()));
    let caller = known.await?;
    let body: TerminalBody = command(&caller.command)?;
    let (id, identity, key) = body.parts(id)?;
    engine.attest(&caller, id, identity, key).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// A terminal of the registry.
#[derive(Serialize, ToSchema)]
pub(super) struct TerminalView {
    terminal: String,
    identity: String,
    /// `active` or `suspended`.
    status: &'static str,
    /// The terminal that has registered it; absent where the fleet has.
    #[serde(skip_serializing_if = "Option::is_none")]
    attested_by: Option<String>,
    /// When it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    attested_at: Option<Time>,
}

impl TerminalView {
    pub(super) fn new(terminal: &Terminal) -> Self {
        let attested = terminal.attested.as_deref();
        Self {
            terminal: terminal.id.to_string(),
            identity: terminal.identity.to_string(),
            status: terminal.status.name(),
            attested_by: attested.map(|it| it.by.to_string()),
            attested_at: attested.map(|it| Time(it.at)),
        }
    }
}

/// A page of terminals.
#[derive(Serialize, ToSchema)]
pub(super) struct TerminalPage {
    items: Vec<TerminalView>,
    /// Give it as `after` for the next page; absent on the last.
    next: Option<String>,
}

/// Which terminals to list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    /// Of this identity.
    identity: Option<String>,
    /// Registered by this terminal.
    attested_by: Option<String>,
    /// Registered by another terminal at this time or later.
    #[param(value_type = Option<String>, format = DateTime)]
    attested_since: Option<Time>,
    /// The `next` of the page before.
    after: Option<String>,
    /// 1 to 500; 100 where absent.
    limit: Option<usize>,
}

/// List terminals, ascending by id.
#[utoipa::path(get, path = "/v1/terminals", tag = "registry", params(ListQuery),
    security(("bearer" = ["read"])),
    responses((status = 200, body = TerminalPage), (status = "4XX", description = "problem+json")))]
pub(super) async fn list(
    state: Data<State>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let caller = caller::back_end(&state, &request, Scope::Read).await?;
    let query = Query::<ListQuery>::from_query(request.query_string()).map_err(|_| {
        Refusal::malformed(
            "query",
            "it takes identity, attested_by, attested_since, after and limit",
        )
    })?;
    let filter = filter(query.into_inner())?;
    let limit = filter.limit;
    let found = state.engine.terminals(&caller.fleet, filter).await?;
    let next = (found.len() == limit)
        .then(|| found.last().map(|last| last.id.to_string()))
        .flatten();
    Ok(HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, "no-store"))
        .json(TerminalPage {
            items: found.iter().map(|it| TerminalView::new(it)).collect(),
            next,
        }))
}

fn filter(query: ListQuery) -> Result<TerminalFilter, Refusal> {
    let limit = query.limit.unwrap_or(100);
    if !(1..=PAGE_MAX).contains(&limit) {
        return Err(Refusal::malformed("limit", "a page has 1 to 500 items"));
    }
    let terminal = |id: Option<String>| id.as_deref().map(TerminalId::parse).transpose();
    Ok(TerminalFilter {
        identity: query
            .identity
            .as_deref()
            .map(IdentityId::parse)
            .transpose()?,
        attested_by: terminal(query.attested_by)?,
        attested_since: query.attested_since.map(|it| it.0),
        after: terminal(query.after)?,
        limit,
    })
}
