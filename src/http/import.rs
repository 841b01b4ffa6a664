//! `POST /v1/import`: entries of the registry in, a line each; what became of them out, a line each,
//! in the order of the lines.
//!
//! Streaming both ways: while some lines are committed, those behind them are read and decoded.
//! Memory is bounded whatever the size of the body: so many lines are in work at once, and so many
//! bytes wait for the client. A client that does not read its answers is not read from either.

use std::sync::Arc;

use actix_web::http::header::CACHE_CONTROL;
use actix_web::web::{self, Bytes, Data};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::stream::{FuturesOrdered, FuturesUnordered, StreamExt as _};
use tokio::sync::mpsc::{Sender, channel};
use tokio::task::{JoinHandle, spawn_blocking};

use super::State;
use super::answers::{Form, head};
use super::batches::{END, PIECES_WAITING_MAX, Place, pieces, send};
use super::body::{Kind, check_plain, decode, kind, unsupported};
use super::caller::{self, WhyQuery};
use super::chunks::{Bounds, Chunks, Next};
use super::entries::ImportLine;
use super::lines::Line;
use super::problem::Problem;
use crate::domain::{Refusal, Scope};
use crate::engine::authenticate::BackEnd;
use crate::engine::import::Imported;
use crate::engine::registry::Entry;
use crate::engine::{Engine, Failure, shutting_down};

/// Lines that are committed together, at most, and bytes of them. A sync to disk for so many costs
/// little for each, and whoever redeems meanwhile waits for one such transaction at most.
const CHUNK: Bounds = Bounds {
    lines: 2048,
    bytes: 1 << 20,
};

/// Chunks that are decoded while another is committed, at most.
const CHUNKS_AHEAD_MAX: usize = 2;

/// Bytes of an answer, about: what is set aside before it is written.
const ANSWER_LEN: usize = 48;

/// Import many: a line each with `kind`, `id` and the rest as the body of `PUT`; a result for each
/// line, in their order. What is not there is made; what is there as described is `unchanged`; what
/// is there otherwise is refused as `registered_otherwise`. A bad line refuses that line only. A
/// line may name what one before it makes.
#[utoipa::path(post, path = "/v1/import", tag = "registry", params(WhyQuery),
    request_body(content = Object, content_type = "application/x-ndjson",
        description = "an entry a line, 64 KiB at most"),
    security(("bearer" = ["admin"])),
    responses((status = 200, description = "NDJSON: {line, status} or {line, status, problem}"),
        (status = "4XX", description = "problem+json"),
        (status = 503, description = "problem+json; as many batch calls and imports as may be are open")))]
pub(super) async fn import(
    state: Data<State>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let caller = caller::back_end_because(&state, &request, Scope::Admin).await?;
    if kind(&request)? == Kind::Jose {
        return Err(unsupported("this call takes application/x-ndjson"));
    }
    check_plain(&request)?;
    state.engine.shared.check_door()?;
    let place = state.door.enter(&state.engine)?;
    let (answers, waiting) = channel(PIECES_WAITING_MAX);
    let run = Run {
        engine: Arc::clone(&state.engine),
        caller,
        answers,
        _place: place,
    };
    let lines = Chunks::new(payload, state.door.idle, CHUNK, |line| line);
    actix_web::rt::spawn(async move { run.complete(lines).await });
    Ok(HttpResponse::Ok()
        .content_type("application/x-ndjson")
        .insert_header((CACHE_CONTROL, "no-store"))
        .streaming(pieces(waiting)))
}

/// A line, and what it asks for.
type Asked = (u64, Result<Entry, Refusal>);

fn read(lines: Vec<Line>) -> Vec<Asked> {
    let entry = |text: Option<Bytes>| match text {
        Some(text) => decode::<ImportLine>(&text).and_then(ImportLine::check),
        None => Err(Refusal::malformed("line", "a line has 64 KiB at most")),
    };
    let each = lines.into_iter();
    each.map(|line| (line.number, entry(line.text))).collect()
}

/// A call under way.
struct Run {
    engine: Arc<Engine>,
    caller: BackEnd,
    answers: Sender<Bytes>,
    _place: Place,
}

impl Run {
    /// Reads, imports and answers until the body ends, the server shuts down, or the client is
    /// gone. What was handed over goes on in every case.
    async fn complete(&self, mut lines: Chunks<Line>) {
        let mut decoding: FuturesOrdered<JoinHandle<Vec<Asked>>> = FuturesOrdered::new();
        // One at a time: a line may name what one before it makes.
        let mut committing = FuturesUnordered::new();
        let (mut reading, mut why) = (true, None);
        loop {
            if reading && !self.engine.readiness().accepting {
                (reading, why) = (false, Some(shutting_down()));
            }
            let busy = !committing.is_empty() || !decoding.is_empty();
            tokio::select! {
                biased;
                Some(answers) = committing.next(), if !committing.is_empty() => {
                    reading &= send(&self.answers, answers).await;
                }
                Some(decoded) = decoding.next(), if committing.is_empty() && !decoding.is_empty() => {
                    match decoded {
                        Ok(asked) => committing.push(self.carry_out(asked)),
                        Err(error) => {
                            tracing::error!(%error, "lines of an import that were not decoded");
                            break;
                        }
                    }
                }
                () = self.answers.closed(), if reading => reading = false,
                next = lines.next(busy), if reading && decoding.len() < CHUNKS_AHEAD_MAX => {
                    match next {
                        Next::Chunk(chunk) => decoding.push_back(spawn_blocking(|| read(chunk))),
                        Next::End(early) => (reading, why) = (false, early),
                    }
                }
                else => break,
            }
        }
        if let Some(refusal) = why {
            let mut last = Vec::new();
            Form::Lines.write_last(&mut last, refusal);
            send(&self.answers, last.into()).await;
            // As for a batch: the body is held until the answer has ended.
            if self.answers.send(END).await.is_ok() {
                self.answers.closed().await;
            }
            drop(lines);
        }
    }

    /// Imports a chunk, and writes its answers.
    async fn carry_out(&self, asked: Vec<Asked>) -> Bytes {
        let mut entries = Vec::with_capacity(asked.len());
        let mut outcomes = Vec::with_capacity(asked.len());
        for (line, entry) in asked {
            match entry {
                Ok(entry) => {
                    entries.push(entry);
                    outcomes.push((line, None));
                }
                Err(refusal) => outcomes.push((line, Some(refusal))),
            }
        }
        let mut imported = self.engine.import(&self.caller, entries).await.into_iter();
        let mut out = Vec::with_capacity(ANSWER_LEN * outcomes.len());
        for (line, refused) in outcomes {
            let outcome = match refused {
                Some(refusal) => Err(refusal.into()),
                // There is one for each.
                None => imported
                    .next()
                    .unwrap_or_else(|| Err(shutting_down().into())),
            };
            let word = write(&mut out, line, outcome);
            metrics::counter!("fob_import_lines_total", "outcome" => word).increment(1);
        }
        out.into()
    }
}

fn write(out: &mut Vec<u8>, line: u64, outcome: Result<Imported, Failure>) -> &'static str {
    let (word, problem) = match outcome {
        Ok(imported) => (imported.name(), None),
        Err(failure) => (failure.word(), Some(Problem::from(failure).json())),
    };
    head(out, Some(line), None, word);
    if let Some(problem) = problem {
        out.extend_from_slice(b",\"problem\":");
        out.extend_from_slice(problem.to_string().as_bytes());
    }
    out.extend_from_slice(b"}\n");
    word
}
