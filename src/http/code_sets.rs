//! `/v1/code-sets/preview` and `/v1/redemptions`: the borrower's side.

use actix_web::http::header::CACHE_CONTROL;
use actix_web::web::{self, Data};
use actix_web::{HttpRequest, HttpResponse};

use super::State;
use super::body::{Body, json};
use super::bundles::{self, BundleView};
use super::problem::Problem;
use super::shapes::{Preview, PreviewRequest, RedemptionBody, not_found};

/// What a code set is for. Needs nothing but the code set.
#[utoipa::path(post, path = "/v1/code-sets/preview", tag = "borrower", request_body = PreviewRequest,
    responses((status = 200, body = Preview), (status = "4XX", description = "problem+json")))]
pub(super) async fn preview(
    state: Data<State>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let body = Body::read(&request, payload).await?;
    let asked: PreviewRequest = json(&request, &body)?;
    let found = state.engine.preview(&asked.code_set).await?;
    let fleet = state
        .engine
        .book()
        .fleet(found.fleet)
        .ok_or_else(not_found)?;
    Ok(HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, "no-store"))
        .json(Preview::new(&found, &fleet.catalogue())))
}

/// Redeem a code set: one key for each function, bound to the terminal that signed the proof. The
/// same request again is answered with the same bundle.
#[utoipa::path(post, path = "/v1/redemptions", tag = "borrower", request_body = RedemptionBody,
    params(("staple" = Option<bool>, Query, description = "with trust list and status lists")),
    responses((status = 201, body = BundleView), (status = "4XX", description = "problem+json"),
        (status = 503, description = "problem+json; the same request may be sent again")))]
pub(super) async fn redeem(
    state: Data<State>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let body = Body::read(&request, payload).await?;
    let asked: RedemptionBody = json(&request, &body)?;
    let asked = asked.check(state.addresses.of(&request))?;
    let redemption = state.engine.redeem(asked).await?;
    bundles::answer(
        &state,
        &request,
        HttpResponse::Created(),
        &redemption.signed,
    )
    .await
}
