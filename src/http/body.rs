//! Request bodies: bounded, then decoded, with a refusal that names the field.

use actix_web::error::PayloadError;
use actix_web::http::StatusCode;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::web::{self, Bytes};
use actix_web::{FromRequest, HttpRequest};
use serde::de::DeserializeOwned;

use super::problem::Problem;
use crate::domain::Refusal;

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

impl Body {
    /// Reads the body. Called once it is known who sends it, where that is asked for: nobody else
    /// makes the server hold much.
    pub(super) async fn read(
        request: &HttpRequest,
        payload: web::Payload,
    ) -> Result<Self, Problem> {
        let bytes = Bytes::from_request(request, &mut payload.into_inner());
        bytes.await.map(Self).map_err(|error| unreadable(&error))
    }
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

/// Decodes JSON.
///
/// # Errors
/// `malformed`, with the path of the field at fault.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        at(path, &error.into_inner())
    })?;
    json.end().map_err(|error| at(".".into(), &error))?;
    Ok(value)
}

fn at(path: String, error: &serde_json::Error) -> Refusal {
    let refusal = Refusal::malformed(path.clone(), shown(error));
    if path == "." {
        Refusal {
            field: None,
            ..refusal
        }
    } else {
        refusal
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
    match text.split_once(", expected ") {
        Some((_, expected)) if text.starts_with("invalid") => format!("expected {expected}"),
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
