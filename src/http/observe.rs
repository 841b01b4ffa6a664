//! One metric and one debug line for each request. Paths are named by their pattern: ids, code
//! sets, PINs and proofs reach neither metrics nor logs.

use actix_web::Error;
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use actix_web::web::Data;

use super::State;

pub(super) async fn observe(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let state = request.app_data::<Data<State>>().cloned();
    let method = request.method().clone();
    let started = state.as_ref().map(|state| state.engine.clock().monotonic());
    let response = next.call(request).await?;
    if let (Some(state), Some(started)) = (state, started) {
        let took = state.engine.clock().monotonic().saturating_sub(started);
        let path = response
            .request()
            .match_pattern()
            .unwrap_or_else(|| "none".into());
        let status = response.status().as_u16();
        metrics::histogram!("fob_http_seconds", "path" => path.clone()).record(took.as_secs_f64());
        tracing::debug!(%method, path, status, took_us = took.as_micros() as u64, "answered");
    }
    Ok(response)
}
