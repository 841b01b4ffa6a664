//! Who calls, out of the request's headers, and why.
#![allow(unused_qualifications, reason = "utoipa's IntoParams writes some")]

use actix_web::HttpRequest;
use actix_web::http::header::{ACCEPT, AUTHORIZATION};
use actix_web::web::Query;
use serde::Deserialize;
use utoipa::IntoParams;

use super::State;
use super::tls::Shown;
use crate::domain::{Refusal, RefusalCode, Scope};
use crate::engine::authenticate::BackEnd;
use crate::engine::ruling::check_why;

/// The back end that sends this request, with `scope`.
pub(super) async fn back_end(
    state: &State,
    request: &HttpRequest,
    scope: Scope,
) -> Result<BackEnd, Refusal> {
    let engine = &state.engine;
    if let Some(bearer) = bearer(request) {
        return engine.look(|| engine.back_end(bearer, scope)).await;
    }
    if let Some(Shown(hash)) = request.conn_data::<Shown>() {
        return engine.look(|| engine.back_end_shown(hash, scope)).await;
    }
    Err(Refusal::new(RefusalCode::Unauthenticated)
        .detail("send Authorization: Bearer fob_…; `fob token create` makes one"))
}

/// Why something is put whose body is the thing itself.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct WhyQuery {
    /// Why, kept beside who and when; 1 to 200 characters. It stands in the address, which others
    /// may log.
    why: Option<String>,
}

/// The same as [`back_end`], with why it asks, out of the query.
pub(super) async fn back_end_because(
    state: &State,
    request: &HttpRequest,
    scope: Scope,
) -> Result<BackEnd, Refusal> {
    let mut caller = back_end(state, request, scope).await?;
    let query = Query::<WhyQuery>::from_query(request.query_string())
        .map_err(|_| Refusal::malformed("query", "it takes why"))?;
    caller.why = query.into_inner().why;
    check_why(caller.why.as_deref())?;
    Ok(caller)
}

/// The bearer token, where there is one (RFC 6750 §2.1).
pub(super) fn bearer(request: &HttpRequest) -> Option<&str> {
    let value = request.headers().get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then_some(token.trim())
}

/// Whether the caller names `media_type` among those it takes.
pub(super) fn accepts(request: &HttpRequest, media_type: &str) -> bool {
    let accept = request.headers().get(ACCEPT);
    let accept = accept.and_then(|value| value.to_str().ok());
    accept.is_some_and(|accept| {
        accept
            .split(',')
            .any(|one| one.split(';').next().unwrap_or_default().trim() == media_type)
    })
}

/// A header, as text.
pub(super) fn header<'a>(request: &'a HttpRequest, name: &str) -> Result<Option<&'a str>, Refusal> {
    let Some(value) = request.headers().get(name) else {
        return Ok(None);
    };
    match value.to_str() {
        Ok(text) => Ok(Some(text)),
        Err(_) => Err(Refusal::malformed(
            name.to_owned(),
            "this header is visible ASCII",
        )),
    }
}
