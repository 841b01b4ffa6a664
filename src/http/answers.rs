//! The lines a batch is answered with: NDJSON, or the same maps as a CBOR sequence (RFC 8742).
//!
//! In JSON `line`, `ref` and `status` stand first, in this order: a reader that passes bundles on
//! knows what a line is from its beginning.

use std::sync::Arc;

use actix_web::HttpRequest;
use minicbor::Encoder;
use serde_json::Value;
use utoipa::ToSchema;

use super::bundles::BundleView;
use super::problem::Problem;
use super::{caller, encode};
use crate::domain::{Refusal, RefusalCode};
use crate::engine::Failure;
use crate::engine::statuses::Statuses;
use crate::store::Redemption;

/// The status of an order whose keys are there.
const ISSUED: &str = "issued";

/// The status of an order that met a fault nobody listed.
const FAULT: &str = "fault";

/// What became of an order.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the shape, for the document; it is written below")]
pub(super) struct OrderAnswer {
    /// The number of the order's line in the body, from 1.
    line: u64,
    /// The order's name; absent where it could not be read.
    #[schema(rename = "ref")]
    reference: Option<String>,
    /// `issued`, or the code of a refusal.
    status: String,
    /// The keys of an order that was issued, as in a redemption.
    bundle: Option<BundleView>,
    /// Why an order was refused: what a problem+json would say.
    #[schema(value_type = Option<Object>)]
    problem: Option<Value>,
}

/// What became of one line.
pub(super) struct Answer {
    pub(super) line: u64,
    pub(super) reference: Option<String>,
    pub(super) outcome: Result<Arc<Redemption>, Failure>,
}

/// How answers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A line of JSON each.
    Lines,
    /// A CBOR item each, keys as bytes.
    Sequence,
}

impl Form {
    /// The form a request asks for.
    pub(super) fn asked(request: &HttpRequest) -> Self {
        if caller::accepts(request, "application/cbor-seq") {
            Self::Sequence
        } else {
            Self::Lines
        }
    }

    /// Its media type.
    pub(super) const fn media_type(self) -> &'static str {
        match self {
            Self::Lines => "application/x-ndjson",
            Self::Sequence => "application/cbor-seq",
        }
    }

    /// Appends an answer; the word for what became of the order comes back.
    pub(super) fn write(
        self,
        out: &mut Vec<u8>,
        answer: Answer,
        statuses: &Statuses,
    ) -> &'static str {
        let Answer {
            line,
            reference,
            outcome,
        } = answer;
        let start = out.len();
        let name = reference.as_deref();
        let failure = match outcome {
            Ok(redemption) => match self.issued(out, line, name, (&redemption, statuses)) {
                Ok(()) => return ISSUED,
                Err(failure) => failure,
            },
            Err(failure) => failure,
        };
        out.truncate(start);
        let status = match &failure {
            Failure::Refused(refusal) => refusal.code.code(),
            Failure::Fault(_) => FAULT,
        };
        self.refused(
            out,
            Some(line),
            name,
            status,
            &Problem::from(failure).json(),
        );
        status
    }

    /// Appends the last answer of a call that does not come to its end.
    pub(super) fn write_last(self, out: &mut Vec<u8>, refusal: Refusal) {
        let code: RefusalCode = refusal.code;
        self.refused(out, None, None, code.code(), &Problem::from(refusal).json());
    }

    fn issued(
        self,
        out: &mut Vec<u8>,
        line: u64,
        reference: Option<&str>,
        (redemption, statuses): (&Redemption, &Statuses),
    ) -> Result<(), Failure> {
        match self {
            Self::Lines => {
                head(out, Some(line), reference, ISSUED);
                out.extend_from_slice(b",\"bundle\":");
                encode::json(out, &redemption.signed, statuses)?;
                out.extend_from_slice(b"}\n");
                Ok(())
            }
            Self::Sequence => {
                sequence_head(out, Some(line), reference)
                    .and_then(|mut out| out.str("bundle").map(drop))
                    .map_err(|error| Failure::Fault(error.to_string()))?;
                encode::cbor(out, &redemption.signed, statuses, None)?;
                Encoder::new(out)
                    .str("status")
                    .and_then(|out| out.str(ISSUED))
                    .map(drop)
                    .map_err(|error| Failure::Fault(error.to_string()))
            }
        }
    }

    fn refused(
        self,
        out: &mut Vec<u8>,
        line: Option<u64>,
        reference: Option<&str>,
        status: &str,
        problem: &Value,
    ) {
        let start = out.len();
        let written = match self {
            Self::Lines => {
                head(out, line, reference, status);
                out.extend_from_slice(b",\"problem\":");
                out.extend_from_slice(problem.to_string().as_bytes());
                out.extend_from_slice(b"}\n");
                Ok(())
            }
            Self::Sequence => sequence_head(out, line, reference).and_then(|mut out| {
                out.str("status")?.str(status)?.str("problem")?;
                flat_map(&mut out, problem)
            }),
        };
        if let Err(error) = written {
            tracing::error!(%error, "a refusal that cannot be written");
            out.truncate(start);
        }
    }
}

/// The beginning of a line of JSON, up to its status.
pub(super) fn head(out: &mut Vec<u8>, line: Option<u64>, reference: Option<&str>, status: &str) {
    out.push(b'{');
    if let Some(line) = line {
        out.extend_from_slice(b"\"line\":");
        encode::number(out, line);
        out.push(b',');
    }
    if let Some(reference) = reference {
        out.extend_from_slice(b"\"ref\":");
        encode::text(out, reference);
        out.push(b',');
    }
    out.extend_from_slice(b"\"status\":\"");
    out.extend_from_slice(status.as_bytes());
    out.push(b'"');
}

type CborResult<T> = Result<T, minicbor::encode::Error<std::convert::Infallible>>;

/// The beginning of a map of two more members, in deterministic order.
fn sequence_head<'a>(
    out: &'a mut Vec<u8>,
    line: Option<u64>,
    reference: Option<&str>,
) -> CborResult<Encoder<&'a mut Vec<u8>>> {
    let mut out = Encoder::new(out);
    out.map(2 + u64::from(line.is_some()) + u64::from(reference.is_some()))?;
    if let Some(reference) = reference {
        out.str("ref")?.str(reference)?;
    }
    if let Some(line) = line {
        out.str("line")?.u64(line)?;
    }
    Ok(out)
}

/// A problem in deterministic CBOR: a map of texts and numbers.
fn flat_map(out: &mut Encoder<&mut Vec<u8>>, problem: &Value) -> CborResult<()> {
    let mut members: Vec<_> = problem.as_object().into_iter().flatten().collect();
    members.sort_by_key(|(name, _)| (name.len(), name.as_str()));
    out.map(members.len() as u64)?;
    for (name, value) in members {
        out.str(name)?;
        match value {
            Value::Number(number) => out.u64(number.as_u64().unwrap_or_default())?,
            value => out.str(value.as_str().unwrap_or_default())?,
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::encode::tests::sample;

    fn answer(outcome: Result<Arc<Redemption>, Failure>) -> Answer {
        Answer {
            line: 12,
            reference: Some("r \"1\"".into()),
            outcome,
        }
    }

    fn issued() -> Answer {
        answer(Ok(Arc::new(Redemption {
            signed: sample(),
            terminal: None,
            status_next: 0,
            order: None,
            relies_on: crate::store::ReliedOn::default(),
        })))
    }

    #[test]
    fn an_issued_line_begins_with_what_it_is_and_ends_with_its_bundle() {
        let mut out = Vec::new();
        assert_eq!(
            Form::Lines.write(&mut out, issued(), &Statuses::default()),
            "issued"
        );
        let text = String::from_utf8(out).expect("text");
        let head = r#"{"line":12,"ref":"r \"1\"","status":"issued","bundle":{"bundle":""#;
        assert!(text.starts_with(head) && text.ends_with("]}}\n"), "{text}");
        let mut bundle = Vec::new();
        encode::json(&mut bundle, &sample(), &Statuses::default()).expect("a bundle");
        let value: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(value["bundle"].to_string().len(), bundle.len());
        assert!(
            text.as_bytes()
                .windows(bundle.len())
                .any(|part| part == bundle)
        );
    }

    #[test]
    fn a_refused_line_says_why() {
        let refusal = Refusal::malformed("vehicle", "no").retry_after(2);
        let mut out = Vec::new();
        assert_eq!(
            Form::Lines.write(&mut out, answer(Err(refusal.into())), &Statuses::default()),
            "malformed"
        );
        let text = String::from_utf8(out).expect("text");
        let head = r#"{"line":12,"ref":"r \"1\"","status":"malformed","problem":{"#;
        assert!(text.starts_with(head), "{text}");
        let value: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(value["problem"]["field"], "vehicle");
        let mut out = Vec::new();
        Form::Lines.write_last(&mut out, RefusalCode::ShuttingDown.into());
        assert!(out.starts_with(br#"{"status":"shutting_down","problem":{"#));
    }

    #[test]
    fn a_bundle_that_cannot_be_written_is_a_fault_without_detail() {
        let mut signed = sample();
        signed.proof = crate::store::Proof::Each(Vec::new());
        let broken = Redemption {
            signed,
            terminal: None,
            status_next: 0,
            order: None,
            relies_on: crate::store::ReliedOn::default(),
        };
        for form in [Form::Lines, Form::Sequence] {
            let mut out = Vec::new();
            let broken = answer(Ok(Arc::new(broken.clone())));
            assert_eq!(form.write(&mut out, broken, &Statuses::default()), "fault");
            assert!(!String::from_utf8_lossy(&out).contains("signatures"));
        }
    }

    #[test]
    fn a_sequence_is_deterministic_cbor() {
        let mut out = Vec::new();
        let statuses = Statuses::default();
        Form::Sequence.write(&mut out, issued(), &statuses);
        let refusal = Refusal::malformed("vehicle", "no").retry_after(2);
        let first = out.len();
        Form::Sequence.write(&mut out, answer(Err(refusal.into())), &statuses);
        let mut decoder = minicbor::Decoder::new(&out);
        let mut names = Vec::new();
        assert_eq!(decoder.map().expect("a map"), Some(4));
        for _ in 0..4 {
            names.push(decoder.str().expect("a name").to_owned());
            decoder.skip().expect("a value");
        }
        assert_eq!(names, ["ref", "line", "bundle", "status"]);
        assert_eq!(decoder.position(), first);
        assert_eq!(decoder.map().expect("a map"), Some(4));
        for name in ["ref", "line", "status", "problem"] {
            assert_eq!(decoder.str().expect("a name"), name);
            if name != "problem" {
                decoder.skip().expect("a value");
            }
        }
        let count = decoder.map().expect("a map").expect("its length");
        let mut members = Vec::new();
        for _ in 0..count {
            members.push(decoder.str().expect("a name").to_owned());
            decoder.skip().expect("a value");
        }
        let expected = [
            "code",
            "type",
            "field",
            "title",
            "detail",
            "status",
            "retry_after_s",
        ];
        assert_eq!(members, expected);
        assert_eq!(decoder.position(), out.len());
    }
}
