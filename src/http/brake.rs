//! `/v1/brake` and `/v1/quota`: what is frozen, who releases it, and keys beyond the quota.

use actix_web::http::header::CACHE_CONTROL;
use actix_web::web::{self, Data};
use actix_web::{HttpRequest, HttpResponse};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::State;
use super::body::{Body, json as decode_json};
use super::caller;
use super::problem::Problem;
use crate::domain::time::Time;
use crate::domain::{Refusal, Scope, VehicleId};
use crate::engine::book::FleetBook;

/// What is to be frozen or released.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BrakeCommand {
    /// One vehicle; the whole fleet where absent.
    vehicle: Option<String>,
    /// Why, kept beside who and when; 1 to 200 characters.
    why: Option<String>,
}

/// Keys for today beyond the quota.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct QuotaCommand {
    /// So many, in place of what was approved for today before.
    approved: u64,
    /// Why, kept beside who and when; 1 to 200 characters.
    why: Option<String>,
}

/// Something that is frozen.
#[derive(Serialize, ToSchema)]
struct FrozenView {
    /// The vehicle; absent for the whole fleet.
    #[serde(skip_serializing_if = "Option::is_none")]
    vehicle: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    since: Time,
    /// A token's id, or `brake` where the rate left its normal band.
    by: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

/// How much a fleet may issue at the moment.
#[derive(Serialize, ToSchema)]
pub(super) struct BrakeView {
    frozen: Vec<FrozenView>,
    /// Keys let in today (UTC); counted where the rules have a quota.
    keys_today: u64,
    /// The quota, where the rules have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    keys_per_day: Option<u64>,
    /// Keys approved for today beyond it.
    approved_today: u64,
}

/// What is frozen, and how much of today's quota is used.
#[utoipa::path(get, path = "/v1/brake", tag = "rules", security(("bearer" = ["read"])),
    responses((status = 200, body = BrakeView), (status = "4XX", description = "problem+json")))]
pub(super) async fn read(
    state: Data<State>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let caller = caller::back_end(&state, &request, Scope::Read).await?;
    Ok(answer(&state, &caller.fleet))
}

/// Freeze issuing for the fleet or one vehicle. What was issued goes on working.
#[utoipa::path(post, path = "/v1/brake", tag = "rules", request_body = BrakeCommand,
    security(("bearer" = ["revoke"])),
    responses((status = 200, body = BrakeView), (status = "4XX", description = "problem+json")))]
pub(super) async fn freeze(
    state: Data<State>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let caller = caller::back_end(&state, &request, Scope::Revoke).await?;
    let command: BrakeCommand = decode_json(&request, &Body::read(&request, payload).await?)?;
    let vehicle = vehicle(command.vehicle.as_deref())?;
    state.engine.freeze(&caller, vehicle, command.why).await?;
    Ok(answer(&state, &caller.fleet))
}

/// Release what is frozen: somebody else than who froze it. Rates begin anew.
#[utoipa::path(post, path = "/v1/brake/release", tag = "rules", request_body = BrakeCommand,
    security(("bearer" = ["approve"])),
    responses((status = 200, body = BrakeView), (status = "4XX", description = "problem+json")))]
pub(super) async fn release(
    state: Data<State>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let caller = caller::back_end(&state, &request, Scope::Approve).await?;
    let command: BrakeCommand = decode_json(&request, &Body::read(&request, payload).await?)?;
    let vehicle = vehicle(command.vehicle.as_deref())?;
    state.engine.release(&caller, vehicle, command.why).await?;
    Ok(answer(&state, &caller.fleet))
}

/// Approve keys for today beyond the quota.
#[utoipa::path(put, path = "/v1/quota", tag = "rules", request_body = QuotaCommand,
    security(("bearer" = ["approve"])),
    responses((status = 200, body = BrakeView), (status = "4XX", description = "problem+json")))]
pub(super) async fn approve(
    state: Data<State>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let caller = caller::back_end(&state, &request, Scope::Approve).await?;
    let command: QuotaCommand = decode_json(&request, &Body::read(&request, payload).await?)?;
    let QuotaCommand { approved, why } = command;
    state.engine.approve_keys(&caller, approved, why).await?;
    Ok(answer(&state, &caller.fleet))
}

fn vehicle(id: Option<&str>) -> Result<Option<VehicleId>, Refusal> {
    id.map(VehicleId::parse).transpose()
}

fn answer(state: &State, fleet: &FleetBook) -> HttpResponse {
    let ruled = &fleet.ruled;
    let frozen = ruled.frozen();
    let frozen = frozen.iter().map(|(vehicle, frozen)| FrozenView {
        vehicle: vehicle.as_ref().map(ToString::to_string),
        since: Time(frozen.since),
        by: frozen.by.clone(),
        why: frozen.why.clone(),
    });
    let used = ruled.used(state.engine.counted(fleet), state.engine.clock().unix());
    let view = BrakeView {
        frozen: frozen.collect(),
        keys_today: used.keys,
        keys_per_day: ruled.rules().keys_per_day,
        approved_today: used.approved,
    };
    HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, "no-store"))
        .json(view)
}
