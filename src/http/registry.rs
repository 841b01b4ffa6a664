//! `PUT /v1/vehicles|identities/{id}`: the registry, one by one. Terminals are in `terminals.rs`.

use actix_web::web::{self, Data, Path};
use actix_web::{HttpRequest, HttpResponse};

use super::State;
use super::body::{Body, json as decode_json};
use super::caller::{self, WhyQuery};
use super::entries::{IdentityBody, VehicleBody};
use super::problem::Problem;
use crate::domain::Scope;
use crate::engine::authenticate::BackEnd;
use crate::engine::registry::Entry;

/// Put a vehicle into the registry, or a new description in place of the one it has. With another
/// owner everything it was authorized for ends, open code sets and keys, and it is reset.
#[utoipa::path(put, path = "/v1/vehicles/{id}", tag = "registry", params(("id" = String, Path), WhyQuery),
    request_body = VehicleBody, security(("bearer" = ["admin"])),
    responses((status = 204), (status = "4XX", description = "problem+json")))]
pub(super) async fn put_vehicle(
    state: Data<State>,
    request: HttpRequest,
    id: Path<String>,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let caller = caller::back_end_because(&state, &request, Scope::Admin).await?;
    let body = Body::read(&request, payload).await?;
    let entry = decode_json::<VehicleBody>(&request, &body)?.check(&id)?;
    put(&state, &caller, entry).await
}

/// Put an identity into the registry, or in place of the one it has.
#[utoipa::path(put, path = "/v1/identities/{id}", tag = "registry", params(("id" = String, Path), WhyQuery),
    request_body = IdentityBody, security(("bearer" = ["admin"])),
    responses((status = 204), (status = "4XX", description = "problem+json")))]
pub(super) async fn put_identity(
    state: Data<State>,
    request: HttpRequest,
    id: Path<String>,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let caller = caller::back_end_because(&state, &request, Scope::Admin).await?;
    let body = Body::read(&request, payload).await?;
    let entry = decode_json::<IdentityBody>(&request, &body)?.check(&id)?;
    put(&state, &caller, entry).await
}

/// Puts an entry into the registry of a back end's fleet.
pub(super) async fn put(
    state: &State,
    caller: &BackEnd,
    entry: Entry,
) -> Result<HttpResponse, Problem> {
    state.engine.put(caller, entry).await?;
    Ok(HttpResponse::NoContent().finish())
}
