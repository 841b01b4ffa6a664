//! `DELETE /v1/identities/{id}/data`: what is kept of an identity goes.

use actix_web::web::{self, Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;
use utoipa::ToSchema;

use super::amendments::{CertainView, WhyCommand};
use super::body::{Body, decode};
use super::problem::Problem;
use super::{State, caller};
use crate::domain::{IdentityId, Refusal, RefusalCode, Scope};

/// What an erasure has come to.
#[derive(Serialize, ToSchema)]
pub(super) struct ErasedView {
    /// The name under which what was issued to the identity is kept.
    erased_as: String,
    /// Authorizations that ended, open code sets among them.
    ended: usize,
    /// Keys that were revoked.
    revoked: usize,
    /// Terminals that went.
    terminals: usize,
    /// When it is certain that cars refuse the keys.
    certain_by: CertainView,
}

/// Erase what is kept of an identity. What it has ends: open code sets are cancelled, keys revoked.
/// Its licences, its status, its terminals and their keys go. Bundles, signed commands, decisions and
/// revocations stay, under a name that nobody has had. Whoever is registered under the same id later
/// has nothing of it. An identity that owns a vehicle is not erased.
#[utoipa::path(delete, path = "/v1/identities/{id}/data", tag = "registry",
    params(("id" = String, Path)), request_body = Option<WhyCommand>,
    security(("bearer" = ["admin"])),
    responses((status = 200, body = ErasedView),
        (status = 409, description = "problem+json: identity_owns_vehicles"),
        (status = "4XX", description = "problem+json")))]
pub(super) async fn erase(
    state: Data<State>,
    request: HttpRequest,
    id: Path<String>,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let mut caller = caller::back_end(&state, &request, Scope::Admin).await?;
    let body = Body::read(&request, payload).await?;
    if !body.0.is_empty() {
        caller.why = decode::<WhyCommand>(&body.0)?.why;
    }
    let id = IdentityId::parse(&id).map_err(|_| Refusal::new(RefusalCode::NotFound).field("id"))?;
    let erased = state.engine.erase(&caller, &id).await?;
    Ok(HttpResponse::Ok().json(ErasedView {
        erased_as: erased.becomes.as_str().into(),
        ended: erased.ended,
        revoked: erased.revoked,
        terminals: erased.terminals,
        certain_by: erased.certain_by.into(),
    }))
}
