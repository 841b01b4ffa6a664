//! Floor 4, the HTTP surface: decode → engine → encode.
//!
//! Every handler is short, because what it gets is decoded already and what it calls decides.
//! Status codes live in `problem.rs`, the shapes of requests and answers in `shapes.rs`, with
//! `entries.rs` for the registry's, `orders.rs` and `answers.rs` for the lines of a batch, and
//! `region.rs` for places. Bundles are written by `encode.rs`.
//!
//! Deliberately not here: rules, and anything that waits on I/O inside an extractor.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::ALLOW;
use actix_web::{HttpResponse, Resource, ResponseError, Route};
use actix_web::{guard, web};

use crate::domain::{Refusal, RefusalCode};
use crate::engine::Engine;
use crate::metrics::Exporter;

mod address;
mod amendments;
mod answers;
mod asked;
mod authorizations;
mod batches;
mod body;
mod brake;
mod bundles;
mod caller;
mod cars;
mod chunks;
mod code_sets;
mod encode;
mod entries;
mod erase;
mod explain;
mod idle;
mod import;
mod keys;
mod lines;
mod merge;
mod observe;
mod openapi;
mod operations;
mod orders;
mod problem;
mod progress;
mod recipient;
mod region;
mod registry;
mod requests;
mod revocations;
mod round;
mod rules;
mod serve;
mod shapes;
mod socket;
mod terminals;
mod tls;

pub use openapi::document;
pub use serve::{Limits, ServeError, Server, ServerConfig};
pub use tls::TlsFiles;

use body::Patience;
use problem::Problem;

/// What handlers share.
pub(crate) struct State {
    pub(crate) engine: Arc<Engine>,
    /// How long a worker's round may take before it refuses what it turns to.
    pub(crate) round_max: Duration,
    /// Where metrics are read; `None` where they have a listener of their own.
    pub(crate) exporter: Option<Exporter>,
    /// Lets batch calls and imports in, so many at once.
    door: batches::Door,
    /// How fast each address asks.
    addresses: address::Addresses,
}

/// Every route of the API.
fn routes(config: &mut web::ServiceConfig, limits: Limits) {
    config
        .app_data(web::PayloadConfig::new(limits.body_bytes_max))
        .app_data(Patience(limits.request_timeout))
        .configure(registering)
        .service(resource(
            "/v1/authorizations",
            "GET, HEAD, POST",
            [
                read().to(authorizations::list),
                web::post().to(authorizations::create),
            ],
        ))
        .configure(asking)
        .configure(amending)
        .service(resource(
            "/v1/brake",
            "GET, HEAD, POST",
            [read().to(brake::read), web::post().to(brake::freeze)],
        ))
        .service(post("/v1/explain", web::post().to(explain::explain)))
        .service(post("/v1/brake/release", web::post().to(brake::release)))
        .service(resource(
            "/v1/quota",
            "PUT",
            [web::put().to(brake::approve)],
        ))
        .configure(ruling)
        .service(get("/v1/status/{shard}", read().to(cars::status_list)))
        .service(resource(
            "/v1/code-sets/preview",
            "POST",
            [web::post().to(code_sets::preview)],
        ))
        .service(resource(
            "/v1/redemptions",
            "POST",
            [web::post().to(code_sets::redeem)],
        ))
        .service(resource(
            "/v1/batches",
            "POST",
            [web::post().to(batches::issue)],
        ))
        .service(get("/v1/trust", read().to(keys::trust)))
        .service(get("/.well-known/jwks.json", read().to(keys::jwks)))
        .service(get("/healthz", read().to(operations::healthz)))
        .service(get("/readyz", read().to(operations::readyz)))
        .service(get("/metrics", read().to(operations::metrics)))
        .service(get("/openapi.json", read().to(openapi::json)))
        .service(get("/docs", read().to(openapi::to_page)))
        .service(openapi::page())
        .default_service(web::route().to(not_found));
}

/// Terminals, and what they ask for.
fn asking(config: &mut web::ServiceConfig) {
    config
        .service(resource(
            "/v1/terminals/{id}",
            "PUT",
            [web::put().to(terminals::put)],
        ))
        .service(get("/v1/terminals", read().to(terminals::list)))
        .service(post("/v1/requests", web::post().to(requests::check)));
}

/// What a fleet rules.
fn ruling(config: &mut web::ServiceConfig) {
    config.service(resource(
        "/v1/rules",
        "GET, HEAD, PUT",
        [read().to(rules::read), web::put().to(rules::set)],
    ));
}

/// What changes or ends what was authorized, and what else is asked about one authorization or
/// vehicle.
fn amending(config: &mut web::ServiceConfig) {
    config
        .service(resource(
            "/v1/authorizations/{id}",
            "DELETE, GET, HEAD, PATCH",
            [
                read().to(authorizations::read),
                web::patch().to(amendments::change),
                web::delete().to(amendments::cancel),
            ],
        ))
        .service(post(
            "/v1/authorizations/{id}/suspend",
            web::post().to(amendments::suspend),
        ))
        .service(post(
            "/v1/authorizations/{id}/resume",
            web::post().to(amendments::resume),
        ))
        .service(post(
            "/v1/authorizations/{id}/approve",
            web::post().to(amendments::approve),
        ))
        .service(get("/v1/bundles/{id}", read().to(bundles::read)))
        .service(post(
            "/v1/bundles/{id}/rebind",
            web::post().to(amendments::rebind),
        ))
        .service(post("/v1/revocations", web::post().to(revocations::revoke)))
        .service(post(
            "/v1/suspensions",
            web::post().to(revocations::suspend),
        ))
        .service(post("/v1/resumptions", web::post().to(revocations::resume)))
        .service(post("/v1/vehicles/{id}/reset", web::post().to(cars::reset)))
        .service(resource(
            "/v1/vehicles/{id}/sync",
            "GET, HEAD, POST",
            [read().to(cars::sync_shown), web::post().to(cars::sync)],
        ));
}

/// What is put into the registry, and taken out.
fn registering(config: &mut web::ServiceConfig) {
    config
        .service(resource(
            "/v1/vehicles/{id}",
            "PUT",
            [web::put().to(registry::put_vehicle)],
        ))
        .service(resource(
            "/v1/identities/{id}",
            "PUT",
            [web::put().to(registry::put_identity)],
        ))
        .service(resource(
            "/v1/identities/{id}/data",
            "DELETE",
            [web::delete().to(erase::erase)],
        ))
        .service(resource(
            "/v1/terminals/{id}",
            "PUT",
            [web::put().to(terminals::put)],
        ))
        .service(get("/v1/terminals", read().to(terminals::list)))
        .service(post("/v1/import", web::post().to(import::import)));
}

fn get(path: &str, route: Route) -> Resource {
    resource(path, "GET, HEAD", [route])
}

fn post(path: &str, route: Route) -> Resource {
    resource(path, "POST", [route])
}

/// GET, and HEAD with it (RFC 9110 §9.1).
fn read() -> Route {
    web::route().guard(guard::Any(guard::Get()).or(guard::Head()))
}

/// A path with its methods; any other is a 405 that says which there are.
fn resource<const N: usize>(path: &str, allow: &'static str, routes: [Route; N]) -> Resource {
    routes
        .into_iter()
        .fold(web::resource(path), Resource::route)
        .default_service(web::route().to(move || method_not_allowed(allow)))
}

async fn method_not_allowed(allow: &'static str) -> HttpResponse {
    let refusal = Refusal::malformed("method", format!("this address takes {allow}"));
    let mut response =
        Problem::with_status(StatusCode::METHOD_NOT_ALLOWED, refusal).error_response();
    response.headers_mut().insert(
        ALLOW,
        actix_web::http::header::HeaderValue::from_static(allow),
    );
    response
}

async fn not_found() -> HttpResponse {
    let refusal = Refusal::new(RefusalCode::NotFound);
    Problem::from(refusal.detail("there is no such address; see /docs")).error_response()
}
