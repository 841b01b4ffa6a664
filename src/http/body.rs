//! Request bodies: bounded, then decoded, with a refusal that names the field.

use std::time::Duration;

use actix_web::dev::ServiceRequest;
use actix_web::error::PayloadError;
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use actix_web::web::{self, Bytes};
use actix_web::{FromRequest, HttpRequest};
use serde::de::{Deserialize, DeserializeOwned};

use super::problem::Problem;
use crate::domain::json::Object;
use crate::domain::{Refusal, RefusalCode};

/// The default of [`Patience`].
const PATIENCE: Duration = Duration::from_secs(5);

/// A body, whole, within the listener's bound.
pub(super) struct Body(pub(super) Bytes);

/// What a body says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// JSON, or nothing said.
    Json,
    /// A compact JWS.
    Jose,
    /// JSON, one value to a line.
    NdJson,
}

/// How long a body may take to arrive.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience(pub(super) Duration);

impl Body {
    /// Reads the body. Called once it is known who sends it, where that is asked for: nobody else
    /// makes the server hold much. What is packed is not unpacked: a few bytes may become many.
    pub(super) async fn read(
        request: &HttpRequest,
        payload: web::Payload,
    ) -> Result<Self, Problem> {
        check_plain(request)?;
        let patience = request
            .app_data::<Patience>()
            .map_or(PATIENCE, |patience| patience.0);
        let bytes = Bytes::from_request(request, &mut payload.into_inner());
        match tokio::time::timeout(patience, bytes).await {
            Ok(Ok(bytes)) => Ok(Self(bytes)),
            Ok(Err(error)) => Err(unreadable(&error)),
            Err(_) => {
                let refusal = Refusal::malformed("body", "the body did not arrive in time");
                Err(Problem::with_status(StatusCode::REQUEST_TIMEOUT, refusal))
            }
        }
    }
}

/// Takes a body that nobody looks at. A connection whose request has a body that was not read is
/// closed after the answer, and another one costs both sides more than all the rest of a refusal.
///
/// What is larger than the listener's bound, or does not arrive within `patience`, is left.
pub(super) async fn discard(request: &mut ServiceRequest, patience: Duration) {
    let (request, payload) = request.parts_mut();
    let bytes = Bytes::from_request(request, payload);
    // Left or taken: the caller is refused all the same.
    drop(tokio::time::timeout(patience, bytes).await);
}

/// Refuses a body that is packed.
pub(super) fn check_plain(request: &HttpRequest) -> Result<(), Problem> {
    if !request.headers().contains_key(CONTENT_ENCODING) {
        return Ok(());
    }
    let refusal = Refusal::malformed("Content-Encoding", "bodies are taken as they are");
    Err(Problem::with_status(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        refusal,
    ))
}

/// What the request's body is.
pub(super) fn kind(request: &HttpRequest) -> Result<Kind, Problem> {
    let Some(value) = request.headers().get(CONTENT_TYPE) else {
        return Ok(Kind::Json);
    };
    let text = value.to_str().unwrap_or_default();
    let essence = text
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    match essence.as_str() {
        "application/json" => Ok(Kind::Json),
        "application/jose" => Ok(Kind::Jose),
        "application/x-ndjson" | "application/ndjson" => Ok(Kind::NdJson),
        _ => Err(unsupported("this call takes application/json")),
    }
}

/// A 415.
pub(super) fn unsupported(why: &'static str) -> Problem {
    let refusal = Refusal::malformed("Content-Type", why);
    Problem::with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE, refusal)
}

/// Decodes a JSON body whose `Content-Type` says so.
pub(super) fn json<T: DeserializeOwned>(request: &HttpRequest, body: &Body) -> Result<T, Problem> {
    if kind(request)? != Kind::Json {
        return Err(unsupported("this call takes application/json"));
    }
    Ok(decode(&body.0)?)
}

/// Decodes JSON: one object.
///
/// # Errors
/// `malformed`, with the path of the field at fault.
pub(super) fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Refusal> {
    match serde_json::from_slice(bytes) {
        Ok(Object(value)) => Ok(value),
        // Once more, to find the field: keeping track of it costs as much as reading.
        Err(_) => locate(bytes),
    }
}

fn locate<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Refusal> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let Object(value) = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let field = field(&error.path().to_string());
        at(field, &error.into_inner())
    })?;
    json.end().map_err(|error| at(None, &error))?;
    Ok(value)
}

/// As much of a path as is ours: a member's name that the caller chose may be a secret.
fn field(path: &str) -> Option<String> {
    let ours = |segment: &&str| {
        let name = segment.split('[').next().unwrap_or_default();
        name.len() <= 20 && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
    };
    let known: Vec<_> = path
        .split('.')
        .take_while(ours)
        .filter(|name| !name.is_empty())
        .collect();
    (!known.is_empty()).then(|| known.join("."))
}

fn at(field: Option<String>, error: &serde_json::Error) -> Refusal {
    let refusal = Refusal::new(RefusalCode::Malformed).detail(shown(error));
    match field {
        Some(field) => refusal.field(field),
        None => refusal,
    }
}

/// The decoder's words without what it read: that may be a secret.
fn shown(error: &serde_json::Error) -> String {
    let (line, column) = (error.line(), error.column());
    let kind = match error.classify() {
        serde_json::error::Category::Syntax => "not JSON",
        serde_json::error::Category::Eof => "JSON that ends too soon",
        serde_json::error::Category::Io => "not readable",
        serde_json::error::Category::Data => return expected(&error.to_string()),
    };
    format!("the body is {kind} (line {line}, column {column})")
}

/// Of `invalid type: string "…", expected u32 at line 1 column 2` only what was expected.
fn expected(text: &str) -> String {
    let text = text.rsplit_once(" at line ").map_or(text, |(text, _)| text);
    let rest = text.rsplit_once(", expected ").map(|(_, rest)| rest);
    match (text.split(' ').next(), rest) {
        (Some("invalid"), Some(rest)) => format!("expected {rest}"),
        (Some("unknown"), Some(rest)) => {
            format!("a member that this call does not know; expected {rest}")
        }
        (Some("invalid" | "unknown"), None) => "this call does not know what to do with it".into(),
        _ => text.chars().take(200).collect(),
    }
}

fn unreadable(error: &actix_web::Error) -> Problem {
    let too_large = matches!(
        error.as_error::<PayloadError>(),
        Some(PayloadError::Overflow)
    );
    if too_large || error.as_response_error().status_code() == StatusCode::PAYLOAD_TOO_LARGE {
        let refusal = Refusal::malformed("body", "the body is larger than this server takes");
        return Problem::with_status(StatusCode::PAYLOAD_TOO_LARGE, refusal);
    }
    Refusal::malformed("body", "the body could not be read").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        #[expect(dead_code, reason = "only decoded")]
        count: u32,
    }

    #[test]
    fn refusals_name_the_field_and_never_show_its_value() {
        let refusal = decode::<Sample>(br#"{"count":"FOB1SECRET"}"#).expect_err("a refusal");
        assert_eq!(refusal.field.as_deref(), Some("count"));
        assert!(!refusal.to_string().contains("SECRET"), "{refusal}");
        for bad in [
            &b"{"[..],
            b"{\"count\":1} x",
            b"\xff",
            b"{\"count\":1,\"other\":2}",
            b"",
        ] {
            assert!(decode::<Sample>(bad).is_err());
        }
    }
}
