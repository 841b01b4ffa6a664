//! What happens to every request: one metric and one debug line, and no bare error; and a
//! refusal at once where the worker is too far behind.
//!
//! Paths are named by their pattern: ids, code sets, PINs and proofs reach neither metrics nor
//! logs.

use std::rc::Rc;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::middleware::Next;
use actix_web::web::Data;
use actix_web::{Error, ResponseError};

use super::State;
use super::body;
use super::idle::{Connection, Sent, Use};
use super::problem::{PROBLEM_JSON, Problem};
use super::round;
use crate::domain::{Refusal, RefusalCode};

/// Where the paths begin whose work is refused when there is too much of it; what operators look at
/// is always answered.
const API: &str = "/v1/";

pub(super) async fn observe(
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<Sent<BoxBody>>, Error> {
    let state = request.app_data::<Data<State>>().cloned();
    // A method may be any word; only those of HTTP are named.
    let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    let asked = request.method().as_str();
    let method = known
        .into_iter()
        .find(|one| *one == asked)
        .unwrap_or("other");
    let started = state.as_ref().map(|state| state.engine.clock().monotonic());
    let until = Use::begin(request.request(), started);
    let late = match (&state, started) {
        (Some(state), Some(now)) if request.path().starts_with(API) => {
            let connection = request.request().conn_data::<Rc<Connection>>();
            !round::serves(now, state.round_max, || connection?.socket.waited())
        }
        _ => false,
    };
    if late && let Some(state) = &state {
        body::discard(&mut request, state.round_max).await;
        let busy = Problem::from(
            state
                .engine
                .busy("this server has more to do than it gets to"),
        );
        return Ok(sent(request.into_response(busy.error_response()), until));
    }
    if let Some(state) = &state
        && request.path().starts_with(API)
        && let Err(refusal) = state.addresses.ask(&request)
    {
        body::discard(&mut request, state.round_max).await;
        let refused = Problem::from(refusal).error_response();
        return Ok(sent(request.into_response(refused), until));
    }
    let response = spelled_out(next.call(request).await?.map_into_boxed_body());
    if let (Some(state), Some(started)) = (state, started) {
        let took = state.engine.clock().monotonic().saturating_sub(started);
        let pattern = response.request().match_pattern();
        let path = pattern.unwrap_or_else(|| "none".into());
        let status = response.status().as_u16();
        metrics::histogram!("fob_http_seconds", "path" => path.clone()).record(took.as_secs_f64());
        tracing::debug!(
            method,
            path,
            status,
            took_us = took.as_micros() as u64,
            "answered"
        );
    }
    Ok(sent(response, until))
}

fn sent(response: ServiceResponse, until: Use) -> ServiceResponse<Sent<BoxBody>> {
    response.map_body(|_, body| Sent::new(body, until))
}

/// An error that some library has answered in its own way becomes a problem like any other.
fn spelled_out(response: ServiceResponse) -> ServiceResponse {
    let status = response.status();
    let kind = response.headers().get(CONTENT_TYPE);
    if !status.is_client_error() || kind.is_some_and(|kind| kind == PROBLEM_JSON) {
        return response;
    }
    let problem = match status {
        StatusCode::NOT_FOUND => Problem::from(RefusalCode::NotFound),
        _ => Problem::with_status(status, Refusal::new(RefusalCode::Malformed)),
    };
    let request = response.into_parts().0;
    ServiceResponse::new(request, problem.error_response())
}
