//! What cars ask for: status lists and syncs; and the reset of a vehicle.

use actix_web::http::header::CACHE_CONTROL;
use actix_web::web::{self, Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use minicbor::Encoder;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::State;
use super::amendments::OutcomeView;
use super::asked::Asked;
use super::body::Body;
use super::caller;
use super::keys::cacheable;
use super::problem::Problem;
use super::shapes::not_found;
use crate::domain::{AuthorizationId, Refusal, Scope, ShardId, VehicleId};
use crate::engine::Failure;
use crate::engine::reset::Ends;
use crate::engine::sync::Synced;

/// A status list (IETF Token Status List, CWT form), fresh.
#[utoipa::path(get, path = "/v1/status/{shard}", tag = "cars",
    params(("shard" = String, Path, description = "the end of a key's status address")),
    responses((status = 200, content_type = "application/statuslist+cwt", body = Vec<u8>),
        (status = 304), (status = "4XX", description = "problem+json")))]
pub(super) async fn status_list(
    state: Data<State>,
    request: HttpRequest,
    shard: Path<String>,
) -> Result<HttpResponse, Problem> {
    let id = ShardId::parse(&shard).ok_or_else(not_found)?;
    let list = state.engine.status_list(id).await?;
    let list = list.ok_or_else(not_found)?;
    let media_type = fob_verify::status::TYP;
    Ok(cacheable(&request, media_type, list.bytes.to_vec()))
}

/// What a car sends and is sent: its acknowledgement, and an array of a sync, the trust list and
/// the status lists of its keys.
#[utoipa::path(post, path = "/v1/vehicles/{id}/sync", tag = "cars",
    params(("id" = String, Path)),
    request_body(content = Vec<u8>, content_type = "application/cbor", description = "an ack"),
    responses((status = 200, content_type = "application/cbor", body = Vec<u8>),
        (status = "4XX", description = "problem+json")))]
pub(super) async fn sync(
    state: Data<State>,
    request: HttpRequest,
    id: Path<String>,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let body = Body::read(&request, payload).await?;
    let synced = state.engine.sync(&id, &body.0).await?;
    written(&synced)
}

/// What the car would be sent now, to look at; it is not noted.
#[utoipa::path(get, path = "/v1/vehicles/{id}/sync", tag = "cars",
    params(("id" = String, Path)), security(("bearer" = ["read"])),
    responses((status = 200, content_type = "application/cbor", body = Vec<u8>),
        (status = "4XX", description = "problem+json")))]
pub(super) async fn sync_shown(
    state: Data<State>,
    request: HttpRequest,
    id: Path<String>,
) -> Result<HttpResponse, Problem> {
    let caller = caller::back_end(&state, &request, Scope::Read).await?;
    let synced = state.engine.sync_shown(&caller.fleet, &id).await?;
    written(&synced)
}

fn written(synced: &Synced) -> Result<HttpResponse, Problem> {
    let mut out = Vec::new();
    let mut encoder = Encoder::new(&mut out);
    let fault = |error: minicbor::encode::Error<_>| Failure::Fault(error.to_string());
    encoder.array(synced.parts.len() as u64).map_err(fault)?;
    for part in &synced.parts {
        encoder.bytes(part).map_err(fault)?;
    }
    Ok(HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, "no-store"))
        .content_type("application/cbor")
        .body(out))
}

/// Which authorizations end with a reset.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ResetCommand {
    /// Their ids, or `"all"`; none where absent.
    #[schema(value_type = Option<Object>)]
    end: Option<Value>,
    /// Why, kept beside who and when; 1 to 200 characters.
    why: Option<String>,
}

/// What a reset came to.
#[derive(Serialize, ToSchema)]
pub(super) struct ResetView {
    vehicle: String,
    /// The vehicle's epoch from now on.
    epoch: u32,
    #[serde(flatten)]
    outcome: OutcomeView,
}

/// Reset a vehicle, as at the end of a rental or with another owner: its epoch is raised by one,
/// the authorizations that are named end, and the bundles of its others are issued again.
#[utoipa::path(post, path = "/v1/vehicles/{id}/reset", tag = "cars",
    params(("id" = String, Path)), request_body = ResetCommand,
    security(("bearer" = ["revoke"]), ()),
    responses((status = 200, body = ResetView), (status = "4XX", description = "problem+json")))]
pub(super) async fn reset(
    state: Data<State>,
    request: HttpRequest,
    id: Path<String>,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let mut asked = Asked::read(&state, &request, payload, Scope::Revoke).await?;
    let body = Value::Object(asked.body.clone()).to_string();
    let command: ResetCommand = super::body::decode(body.as_bytes())?;
    asked.because(command.why)?;
    let ends = ends(command.end.as_ref())?;
    let vehicle = VehicleId::parse(&id).map_err(|_| not_found())?;
    let done = state.engine.reset(asked.caller(), &vehicle, &ends).await?;
    Ok(HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, "no-store"))
        .json(ResetView {
            vehicle: vehicle.to_string(),
            epoch: done.epoch,
            outcome: (&done.outcome).into(),
        }))
}

fn ends(named: Option<&Value>) -> Result<Ends, Refusal> {
    let malformed = || Refusal::malformed("end", "it is a list of authorizations, or \"all\"");
    match named {
        None => Ok(Ends::These(Vec::new())),
        Some(Value::String(all)) if all == "all" => Ok(Ends::All),
        Some(Value::Array(ids)) => {
            let id = |id: &Value| id.as_str().and_then(AuthorizationId::parse);
            let ids: Option<Vec<_>> = ids.iter().map(id).collect();
            Ok(Ends::These(ids.ok_or_else(malformed)?))
        }
        Some(_) => Err(malformed()),
    }
}
