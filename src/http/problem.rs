//! Refusals as HTTP: the one file that knows status codes. RFC 9457 `application/problem+json`.

use std::fmt;

use actix_web::http::StatusCode;
use actix_web::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpResponse, ResponseError};
use serde_json::{Map, Value, json};

use crate::domain::{Refusal, RefusalCode};
use crate::engine::Failure;

/// The media type of a problem.
pub(super) const PROBLEM_JSON: &str = "application/problem+json";

/// Why a request was not answered with what it asked for.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    refusal: Option<Refusal>,
}

impl Problem {
    /// A refusal whose status is not the one of its code: `malformed` comes as 400, 405, 413, 415
    /// and 428.
    pub(super) fn with_status(status: StatusCode, refusal: Refusal) -> Self {
        Self {
            status,
            refusal: Some(refusal),
        }
    }

    /// The body of it.
    pub(super) fn json(&self) -> Value {
        let mut body = Map::new();
        let mut put = |name: &str, value: Value| drop(body.insert(name.into(), value));
        let Some(refusal) = &self.refusal else {
            put("type", json!("about:blank"));
            put("title", json!("Internal Server Error"));
            put("status", json!(self.status.as_u16()));
            return body.into();
        };
        let code = refusal.code.code();
        put("type", json!(format!("urn:fob:refusal:{code}")));
        put("title", json!(refusal.code.title()));
        put("status", json!(self.status.as_u16()));
        put("code", json!(code));
        if let Some(detail) = &refusal.detail {
            put("detail", json!(detail));
        }
        if let Some(field) = &refusal.field {
            put("field", json!(field));
        }
        if let Some(seconds) = refusal.retry_after_s {
            put("retry_after_s", json!(seconds));
        }
        if !refusal.ways.is_empty() {
            put("step_up", json!(refusal.ways));
        }
        body.into()
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self {
            status: status(refusal.code),
            refusal: Some(refusal),
        }
    }
}

impl From<RefusalCode> for Problem {
    fn from(code: RefusalCode) -> Self {
        Refusal::new(code).into()
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(refusal) => refusal.into(),
            // A fault nobody listed: the log has it, the caller learns nothing.
            Failure::Fault(fault) => {
                tracing::error!(fault, "a request met a fault");
                Self {
                    status: StatusCode::INTERNAL_SERVER_ERROR,
                    refusal: None,
                }
            }
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.refusal {
            Some(refusal) => refusal.fmt(f),
            None => f.write_str("a fault"),
        }
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        let code = self
            .refusal
            .as_ref()
            .map_or("fault", |refusal| refusal.code.code());
        metrics::counter!("fob_refusals_total", "code" => code).increment(1);
        let mut response = HttpResponse::build(self.status);
        if let Some(seconds) = self
            .refusal
            .as_ref()
            .and_then(|refusal| refusal.retry_after_s)
        {
            response.insert_header((RETRY_AFTER, seconds.to_string()));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.insert_header((WWW_AUTHENTICATE, "Bearer realm=\"fob\""));
        }
        response
            .content_type(PROBLEM_JSON)
            .body(self.json().to_string())
    }
}

/// The status of a refusal.
fn status(code: RefusalCode) -> StatusCode {
    use RefusalCode as C;
    match code {
        C::Malformed | C::CodeSetMalformed => StatusCode::BAD_REQUEST,
        C::Unauthenticated => StatusCode::UNAUTHORIZED,
        C::Forbidden
        | C::TerminalMismatch
        | C::RecipientMismatch
        | C::IdentitySuspended
        | C::IdentityHeld
        | C::LicenceMissing
        | C::LicenceExpired
        | C::IssuingFrozen
        | C::AuthorizationSuspended
        | C::StepUpRequired
        | C::ContextRefused
        | C::HookRefused
        | C::PinRequired
        | C::PinWrong
        | C::PinLocked => StatusCode::FORBIDDEN,
        C::NotFound
        | C::UnknownVehicle
        | C::UnknownFunction
        | C::UnknownIdentity
        | C::CodeSetUnknown => StatusCode::NOT_FOUND,
        C::CodeSetRedeemed | C::CommandReplayed | C::RequestAnswered => StatusCode::CONFLICT,
        C::CodeSetExpired | C::CodeSetCancelled | C::RequestExpired => StatusCode::GONE,
        C::RegisteredOtherwise | C::IdentityOwnsVehicles => StatusCode::CONFLICT,
        C::VersionConflict => StatusCode::PRECONDITION_FAILED,
        C::FunctionNotOnVehicle | C::ProofInvalid | C::RequestInvalid => {
            StatusCode::UNPROCESSABLE_ENTITY
        }
        C::RateLimited | C::QuotaExceeded => StatusCode::TOO_MANY_REQUESTS,
        C::Busy
        | C::HookUnavailable
        | C::HsmUnavailable
        | C::StoreUnavailable
        | C::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_a_client_or_availability_status() {
        for code in RefusalCode::ALL {
            let status = status(*code).as_u16();
            assert!(
                (400..500).contains(&status) || status == 503,
                "{code:?}: {status}"
            );
        }
    }

    #[test]
    fn what_helps_is_in_the_body_and_a_fault_says_nothing() {
        let refusal = Refusal::malformed("not_after", "too late").retry_after(3);
        let body = Problem::from(refusal).json();
        assert_eq!(body["type"], "urn:fob:refusal:malformed");
        assert_eq!(body["field"], "not_after");
        assert_eq!(body["retry_after_s"], 3);
        let fault = Problem::from(Failure::Fault("secret".into()));
        assert_eq!(fault.status_code(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!fault.json().to_string().contains("secret"));
    }
}
