//! Who calls, out of the request's headers.

use actix_web::HttpRequest;
use actix_web::http::header::{ACCEPT, AUTHORIZATION};

use super::State;
use crate::domain::{Refusal, RefusalCode, Scope};
use crate::engine::authenticate::BackEnd;

/// The back end that sends this request, with `scope`.
pub(super) async fn back_end(
    state: &State,
    request: &HttpRequest,
    scope: Scope,
) -> Result<BackEnd, Refusal> {
    let bearer = bearer(request).ok_or_else(|| {
        Refusal::new(RefusalCode::Unauthenticated)
            .detail("send Authorization: Bearer fob_…; `fob token create` makes one")
    })?;
    let engine = &state.engine;
    engine.look(|| engine.back_end(bearer, scope)).await
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
