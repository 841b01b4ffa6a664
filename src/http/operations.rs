//! `/healthz`, `/readyz` and `/metrics`.

use actix_web::HttpResponse;
use actix_web::web::Data;
use serde_json::json;

use super::State;
use super::problem::Problem;
use super::shapes::not_found;

/// Whether the process answers.
#[utoipa::path(get, path = "/healthz", tag = "operations", responses((status = 200, body = Object)))]
pub(super) async fn healthz() -> HttpResponse {
    HttpResponse::Ok().json(json!({ "status": "ok" }))
}

/// Whether it can issue: store, HSM, an active epoch, and not draining.
#[utoipa::path(get, path = "/readyz", tag = "operations",
    responses((status = 200, body = Object), (status = 503, body = Object)))]
pub(super) async fn readyz(state: Data<State>) -> HttpResponse {
    let readiness = state.engine.readiness();
    let ready = readiness.ready();
    let mut response = if ready {
        HttpResponse::Ok()
    } else {
        HttpResponse::ServiceUnavailable()
    };
    response.json(json!({
        "ready": ready,
        "store": readiness.store,
        "hsm": readiness.hsm,
        "epoch": readiness.epoch,
        "accepting": readiness.accepting,
        "epochs_low": readiness.epochs_low,
    }))
}

/// Metrics in Prometheus' text format, unless they have a listener of their own.
#[utoipa::path(get, path = "/metrics", tag = "operations", responses((status = 200, body = String)))]
pub(super) async fn metrics(state: Data<State>) -> Result<HttpResponse, Problem> {
    let exporter = state.exporter.as_ref().ok_or_else(not_found)?;
    exporter.observe(&state.engine);
    Ok(HttpResponse::Ok()
        .content_type("text/plain; version=0.0.4; charset=utf-8")
        .body(exporter.render()))
}
