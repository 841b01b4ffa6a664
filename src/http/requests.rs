//! `/v1/requests`: what a borrower's terminal asks for.

use actix_web::http::header::CACHE_CONTROL;
use actix_web::web::{self, Data};
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::State;
use super::body::{Body, Kind, kind, unsupported};
use super::problem::Problem;
use super::shapes::FunctionArg;
use crate::domain::Refusal;
use crate::domain::time::Time;
use crate::engine::jws;
use crate::engine::requests::BorrowRequest;

/// What a request says, and nothing that it does not.
#[derive(Serialize, ToSchema)]
pub(super) struct RequestView {
    /// The fleet it asks.
    fleet: String,
    /// Who asks.
    identity: String,
    vehicle: String,
    functions: Vec<FunctionArg>,
    #[schema(value_type = String, format = DateTime)]
    not_before: Time,
    #[schema(value_type = String, format = DateTime)]
    not_after: Time,
    /// The public key of the terminal that asks.
    #[schema(value_type = Object)]
    jwk: Value,
    /// Until when it may be answered.
    #[schema(value_type = String, format = DateTime)]
    expires: Time,
    /// The request as an address, for whoever is to answer it.
    link: String,
}

/// Check a borrower's request, before it is handed on or answered. It is a compact JWS that the
/// borrower's terminal has signed (`application/jose`); the server keeps nothing of it, and looks
/// nothing up: the answer is the same whether there is such a vehicle or not.
#[utoipa::path(post, path = "/v1/requests", tag = "borrower",
    request_body(content = String, content_type = "application/jose"),
    responses((status = 200, body = RequestView), (status = "4XX", description = "problem+json")))]
pub(super) async fn check(
    state: Data<State>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    if kind(&request)? != Kind::Jose {
        return Err(unsupported("this call takes application/jose"));
    }
    let body = Body::read(&request, payload).await?;
    let text = std::str::from_utf8(&body.0)
        .map_err(|_| Refusal::malformed("body", "a compact JWS is ASCII"))?
        .trim();
    let engine = &state.engine;
    let public_url = &engine.settings().public_url;
    let asked = BorrowRequest::read(text, public_url)?;
    asked.check_time(engine.clock().unix())?;
    Ok(HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, "no-store"))
        .json(RequestView {
            fleet: asked.fleet.to_string(),
            identity: asked.identity.to_string(),
            vehicle: asked.vehicle.to_string(),
            functions: asked.functions.into_iter().map(Into::into).collect(),
            not_before: Time(asked.not_before),
            not_after: Time(asked.not_after),
            jwk: jws::public_jwk(&asked.key),
            expires: Time(asked.expires),
            link: format!("{public_url}/r#{text}"),
        }))
}
