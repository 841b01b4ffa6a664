//! `/v1/trust` and `/.well-known/jwks.json`: whom to believe.

use actix_web::http::header::{CACHE_CONTROL, ETAG, IF_NONE_MATCH};
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::State;
use super::problem::Problem;
use super::shapes::not_found;
use crate::domain::{Epoch, EpochState};

/// How long caches may keep these, in seconds.
const MAX_AGE: &str = "public, max-age=60";

/// The trust list, signed by the root (CBOR).
#[utoipa::path(get, path = "/v1/trust", tag = "cars",
    responses((status = 200, content_type = "application/cbor", body = Vec<u8>)))]
pub(super) async fn trust(
    state: Data<State>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let list = state.engine.book().trust().ok_or_else(not_found)?;
    Ok(cacheable(&request, "application/cbor", list.bytes.to_vec()))
}

/// The public keys of all epochs that are not revoked (RFC 7517).
#[utoipa::path(get, path = "/.well-known/jwks.json", tag = "cars", responses((status = 200, body = Object)))]
pub(super) async fn jwks(state: Data<State>, request: HttpRequest) -> HttpResponse {
    let epochs = state.engine.book().epochs();
    let trusted = epochs
        .iter()
        .filter(|epoch| epoch.state != EpochState::Revoked);
    let keys: Vec<_> = trusted.map(|epoch| jwk(epoch)).collect();
    cacheable(
        &request,
        "application/jwk-set+json",
        json!({ "keys": keys }).to_string().into_bytes(),
    )
}

fn jwk(epoch: &Epoch) -> Value {
    let encode = |part: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(part);
    let public = epoch.key.public();
    let kid = epoch.id.to_string();
    match public.y() {
        Some(y) => json!({
            "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": kid,
            "x": encode(public.x()), "y": encode(y),
        }),
        None => json!({
            "kty": "OKP", "crv": "Ed25519", "alg": "Ed25519", "use": "sig", "kid": kid,
            "x": encode(public.x()),
        }),
    }
}

/// An answer with a strong `ETag`, or a 304 to whoever has it.
pub(super) fn cacheable(
    request: &HttpRequest,
    content_type: &'static str,
    body: Vec<u8>,
) -> HttpResponse {
    let digest = digest(&SHA256, &body);
    let tag = format!(
        "\"{}\"",
        BASE64_URL_SAFE_NO_PAD.encode(&digest.as_ref()[..16])
    );
    let known = request
        .headers()
        .get(IF_NONE_MATCH)
        .and_then(|value| value.to_str().ok());
    let has_it = known.is_some_and(|all| {
        all.split(',')
            .map(|one| one.trim().trim_start_matches("W/"))
            .any(|one| one == tag || one == "*")
    });
    let mut response = if has_it {
        HttpResponse::NotModified()
    } else {
        HttpResponse::Ok()
    };
    response
        .insert_header((ETAG, tag))
        .insert_header((CACHE_CONTROL, MAX_AGE));
    if has_it {
        response.finish()
    } else {
        response.content_type(content_type).body(body)
    }
}
