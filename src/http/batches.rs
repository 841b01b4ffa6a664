//! `POST /v1/batches`: orders in, a line each; answers out, a line each, as they become durable.
//!
//! Streaming both ways: orders are issued while the body still arrives. Memory is bounded whatever
//! its size: so many orders are in work at once, and so many bytes wait for the client. A client
//! that does not read its answers is not read from either.
//!
//! Deliberately not here: the shape of an order (`orders.rs`), of an answer (`answers.rs`), and
//! every rule.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::CACHE_CONTROL;
use actix_web::web::{self, Bytes, Data};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::stream::{self, FuturesUnordered, StreamExt as _};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::answers::{Answer, Form, OrderAnswer};
use super::body::{Kind, check_plain, kind, unsupported};
use super::chunks::{Bounds, Chunks, Next};
use super::orders::{OrderLine, Read, read};
use super::problem::Problem;
use super::{State, caller};
use crate::domain::{Refusal, Scope};
use crate::engine::orders::OrderCall;
use crate::engine::{Engine, shutting_down};

/// Orders handed to the engine in one go, at most.
const CHUNK: Bounds = Bounds {
    lines: 256,
    bytes: 4 << 20,
};

/// Chunks of one call in work at once, at most.
const CHUNKS_IN_WORK_MAX: usize = 8;

/// Answers go to the connection in pieces of so many bytes.
const PIECE_LEN_MAX: usize = 64 * 1024;

/// Pieces that may wait for the client, at most.
pub(super) const PIECES_WAITING_MAX: usize = 16;

/// Bytes of an answer, about: what is set aside before it is written.
const ISSUED_LEN: usize = 8 * 1024;
const REFUSED_LEN: usize = 512;

/// Lets batch calls and imports in, so many at once.
pub(super) struct Door {
    places: Arc<Semaphore>,
    pub(super) idle: Duration,
}

/// The place of such a call; given back when dropped.
pub(super) struct Place(#[expect(dead_code, reason = "held, not read")] OwnedSemaphorePermit);

impl Door {
    /// A door for so many calls, whose clients may be silent for `idle` while they are waited for.
    pub(super) fn new(calls_max: usize, idle: Duration) -> Self {
        Self {
            places: Arc::new(Semaphore::new(calls_max)),
            idle,
        }
    }

    pub(super) fn enter(&self, engine: &Engine) -> Result<Place, Refusal> {
        let permit = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            engine
                .shared
                .busy("as many batch calls and imports as may be are open")
        })?;
        metrics::gauge!("fob_batch_calls").increment(1.0);
        Ok(Place(permit))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        metrics::gauge!("fob_batch_calls").decrement(1.0);
    }
}

/// Issue orders: authorization and redemption in one, for registered terminals. NDJSON, an order a
/// line; blank lines are passed over. Each is answered with a line as soon as it is durable, in no
/// particular order. A bad line refuses that line only. With an `Idempotency-Key`, an order that
/// was issued under it before is answered with the same bundle.
#[utoipa::path(post, path = "/v1/batches", tag = "batches",
    params(("Idempotency-Key" = Option<String>, Header,
        description = "with an order's `ref`, its durable name")),
    request_body(content = OrderLine, content_type = "application/x-ndjson",
        description = "an order a line, 64 KiB at most"),
    security(("bearer" = ["issue"])),
    responses((status = 200, description = "a line or a CBOR item for each order",
            content((OrderAnswer = "application/x-ndjson"), (OrderAnswer = "application/cbor-seq"))),
        (status = "4XX", description = "problem+json"),
        (status = 503, description = "problem+json; as many batch calls and imports as may be are open")))]
pub(super) async fn issue(
    state: Data<State>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let caller = caller::back_end(&state, &request, Scope::Issue).await?;
    if kind(&request)? != Kind::NdJson {
        return Err(unsupported("this call takes application/x-ndjson"));
    }
    check_plain(&request)?;
    let form = Form::asked(&request);
    let key = caller::header(&request, "Idempotency-Key")?;
    let call = state.engine.open_orders(caller, key).await?;
    let place = state.door.enter(&state.engine)?;
    let (answers, waiting) = channel(PIECES_WAITING_MAX);
    let run = Run {
        engine: Arc::clone(&state.engine),
        call,
        form,
        answers,
        _place: place,
    };
    let orders = Chunks::new(payload, state.door.idle, CHUNK, read);
    actix_web::rt::spawn(async move { run.complete(orders).await });
    Ok(HttpResponse::Ok()
        .content_type(form.media_type())
        .insert_header((CACHE_CONTROL, "no-store"))
        .streaming(pieces(waiting)))
}

/// The piece after which an answer ends.
pub(super) const END: Bytes = Bytes::new();

/// The answer's body: what arrives in the channel, until nobody can put anything there any more,
/// or [`END`] does.
pub(super) fn pieces(
    mut waiting: Receiver<Bytes>,
) -> impl stream::Stream<Item = Result<Bytes, Infallible>> {
    stream::poll_fn(move |cx| {
        let piece = waiting.poll_recv(cx);
        piece.map(|piece| piece.filter(|piece| *piece != END).map(Ok))
    })
}

/// A call under way.
struct Run {
    engine: Arc<Engine>,
    call: OrderCall,
    form: Form,
    answers: Sender<Bytes>,
    _place: Place,
}

impl Run {
    /// Reads, issues and answers until the body ends, the server shuts down, or the client is
    /// gone. What was handed over goes on in every case.
    async fn complete(&self, mut orders: Chunks<Read>) {
        let mut in_work = FuturesUnordered::new();
        let (mut reading, mut why) = (true, None);
        loop {
            if reading && !self.engine.readiness().accepting {
                (reading, why) = (false, Some(shutting_down()));
            }
            tokio::select! {
                biased;
                Some(answers) = in_work.next(), if !in_work.is_empty() => {
                    reading &= send(&self.answers, answers).await;
                }
                () = self.answers.closed(), if reading => reading = false,
                next = orders.next(false), if reading && in_work.len() < CHUNKS_IN_WORK_MAX => {
                    match next {
                        Next::Chunk(chunk) => in_work.push(self.carry_out(chunk)),
                        Next::End(early) => (reading, why) = (false, early),
                    }
                }
                else => break,
            }
        }
        if let Some(refusal) = why {
            let mut last = Vec::new();
            self.form.write_last(&mut last, refusal);
            send(&self.answers, last.into()).await;
            // A connection is closed whose body is still held when its answer ends; one whose body
            // is let go before would be kept, waiting for the rest.
            if self.answers.send(END).await.is_ok() {
                self.answers.closed().await;
            }
            drop(orders);
        }
    }

    /// Issues a chunk, and writes its answers.
    async fn carry_out(&self, chunk: Vec<Read>) -> Bytes {
        let mut orders = Vec::with_capacity(chunk.len());
        let mut issued = Vec::with_capacity(chunk.len());
        let mut answers = Vec::with_capacity(chunk.len());
        for Read {
            line,
            reference,
            order,
        } in chunk
        {
            match order {
                Ok(order) => {
                    orders.push(order);
                    issued.push((line, reference));
                }
                Err(refusal) => answers.push(Answer {
                    line,
                    reference,
                    outcome: Err(refusal.into()),
                }),
            }
        }
        if !orders.is_empty() {
            let outcomes = self.engine.issue(&self.call, orders).await;
            let answer = |((line, reference), outcome)| Answer {
                line,
                reference,
                outcome,
            };
            answers.extend(issued.into_iter().zip(outcomes).map(answer));
        }
        let (form, engine) = (self.form, Arc::clone(&self.engine));
        // Megabytes of text: not on the worker, which has others to answer.
        let written = tokio::task::spawn_blocking(move || write(form, answers, &engine)).await;
        written.unwrap_or_else(|error| {
            tracing::error!(%error, "answers that were not written");
            Bytes::new()
        })
    }
}

/// Hands answers to the connection; whether the client is still there.
pub(super) async fn send(to: &Sender<Bytes>, mut answers: Bytes) -> bool {
    while !answers.is_empty() {
        let piece = answers.split_to(answers.len().min(PIECE_LEN_MAX));
        if to.send(piece).await.is_err() {
            return false;
        }
    }
    true
}

fn write(form: Form, answers: Vec<Answer>, engine: &Engine) -> Bytes {
    let issued = answers.iter().filter(|one| one.outcome.is_ok()).count();
    let refused = answers.len() - issued;
    let mut out = Vec::with_capacity(issued * ISSUED_LEN + refused * REFUSED_LEN);
    for answer in answers {
        let outcome = form.write(&mut out, answer, &engine.book().statuses);
        metrics::counter!("fob_orders_total", "outcome" => outcome).increment(1);
    }
    out.into()
}
