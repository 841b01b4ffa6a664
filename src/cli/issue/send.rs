//! A run: calls `POST /v1/batches`, passes bundles on as they come, and calls again for what has
//! no answer yet. All calls of a run go under one `Idempotency-Key`, so nothing is issued twice
//! however often a call breaks off.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Request, StatusCode};
use serde_json::Value;
use tokio::sync::mpsc::channel;
use tokio::time::timeout;

use super::answer::Head;
use super::feed::{Fed, Source, feed};
use super::record::Output;
use crate::cli::line_set::LineSet;
use crate::cli::link::Orders;
use crate::cli::pass::Pass;
use crate::cli::reach::Way;
use crate::cli::refusals::{Refusals, Refused};
use crate::cli::retry::{Again, again, jittered, problem, turned_away};
use crate::clock::{Clock as _, SystemClock};

/// Pieces of orders that may wait for the connection.
const PIECES_WAITING_MAX: usize = 4;

/// Orders go when the server has said yes, so that a no costs nothing; to one that says nothing so
/// long (a proxy may want all of them first) they go unasked.
const FIRST_WORD_WITHIN: Duration = Duration::from_secs(1);

/// How long a server may be silent while answers are missing.
const SILENCE_MAX: Duration = Duration::from_secs(300);

/// The most bytes of an answer's line.
const LINE_LEN_MAX: usize = 16 << 20;

/// What the reader of the orders and the reader of the answers both know. A mutex: either holds it
/// for one line at a time.
pub(super) struct Shared(Mutex<Answered>);

struct Answered {
    lines: LineSet,
    refusals: Refusals,
}

impl Shared {
    /// Begins with the lines that have their answer already.
    pub(super) fn new(lines: LineSet, refusals: Refusals) -> Self {
        Self(Mutex::new(Answered { lines, refusals }))
    }

    fn lock(&self) -> MutexGuard<'_, Answered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is such a line.
    fn fits(&self, line: u64) -> bool {
        self.lock().lines.fits(line)
    }

    /// Whether a line has its answer.
    pub(super) fn answered(&self, line: u64) -> bool {
        self.lock().lines.contains(line)
    }

    /// Notes a refusal, the first of its line.
    pub(super) fn refuse(&self, refused: &Refused) -> anyhow::Result<()> {
        let mut answered = self.lock();
        if answered.lines.insert(refused.line) {
            answered.refusals.push(refused)?;
        }
        Ok(())
    }

    /// Notes an answer; whether it is the first of its line.
    fn mark(&self, line: u64) -> bool {
        self.lock().lines.insert(line)
    }

    /// Refusals so far.
    pub(super) fn refused(&self) -> u64 {
        self.lock().refusals.count
    }

    /// Sees the refusals onto the disk.
    pub(super) fn finish(&self) -> anyhow::Result<()> {
        self.lock().refusals.finish()
    }
}

/// A run.
pub(super) struct Run {
    pub(super) way: Way,
    pub(super) source: Source,
    pub(super) key: String,
    pub(super) retries: u32,
    pub(super) shared: Arc<Shared>,
    pub(super) output: Output,
    pub(super) bar: indicatif::ProgressBar,
    /// When it began, and with how many keys, for the rate.
    pub(super) began: (Duration, u64),
}

/// What has come of a call so far.
#[derive(Default)]
struct Call {
    /// The last one: what is put off now counts as refused.
    last: bool,
    /// Orders answered for good.
    answered: u64,
    /// Orders put off.
    put_off: u64,
    /// Why the server ended it, where it did.
    why: Option<String>,
    /// A line whose end has not arrived.
    begun: Vec<u8>,
}

impl Run {
    /// Calls until every order has its answer.
    pub(super) async fn complete(&mut self) -> anyhow::Result<()> {
        let mut failures = 0;
        loop {
            let before = self.done();
            let call = Call {
                last: failures == self.retries,
                ..Call::default()
            };
            let Err(Again { why, wait }) = self.call(call).await? else {
                return Ok(());
            };
            if self.done() > before {
                failures = 0;
            } else if failures == self.retries {
                bail!("{why}; tried {} times in vain", failures + 1);
            }
            failures += 1;
            self.bar.set_message(why.clone());
            tracing::debug!(why, failures, "calling again");
            tokio::time::sleep(jittered(wait, failures)).await;
        }
    }

    /// Orders that have their answer.
    fn done(&self) -> u64 {
        self.output.bundles + self.shared.refused()
    }

    async fn call(&mut self, call: Call) -> anyhow::Result<Result<(), Again>> {
        let (mut link, pass) = match self.way.go().await? {
            Ok(there) => there,
            Err(again) => return Ok(Err(again)),
        };
        let (body, pieces) = channel(PIECES_WAITING_MAX);
        let mut sending = pin!(link.sender.send_request(self.request(&pass, pieces)?));
        let early = timeout(FIRST_WORD_WITHIN, &mut sending).await;
        if let Ok(Ok(response)) = &early
            && response.status() != StatusCode::OK
        {
            return Ok(turned_away(early??, &[]).await?.map(drop));
        }
        let fed = Arc::new(Fed::default());
        let feeder = {
            let (source, shared) = (self.source.clone(), Arc::clone(&self.shared));
            let fed = Arc::clone(&fed);
            tokio::task::spawn_blocking(move || feed(&source, &shared, &fed, &body))
        };
        let response = match early {
            Ok(response) => response,
            Err(_) => sending.await,
        };
        let ended = match response {
            Err(error) => Ok(Err(again(error.to_string()))),
            Ok(response) if response.status() != StatusCode::OK => {
                turned_away(response, &[]).await.map(|told| told.map(drop))
            }
            Ok(response) => self.read(response.into_body(), call, &fed).await,
        };
        // The feeder ends with the connection, and before the next one begins.
        drop(link);
        feeder.await??;
        ended
    }

    fn request(
        &self,
        pass: &Pass,
        pieces: tokio::sync::mpsc::Receiver<Bytes>,
    ) -> anyhow::Result<Request<Orders>> {
        Request::post(self.way.server.target("/v1/batches"))
            .header(HOST, &self.way.server.authority)
            .header(AUTHORIZATION, format!("Bearer {}", pass.token))
            .header(CONTENT_TYPE, "application/x-ndjson")
            .header("idempotency-key", &self.key)
            .body(Orders(pieces))
            .context("the request")
    }

    async fn read(
        &mut self,
        mut body: Incoming,
        mut call: Call,
        fed: &Fed,
    ) -> anyhow::Result<Result<(), Again>> {
        loop {
            let frame = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx));
            let data = match timeout(SILENCE_MAX, frame).await {
                Err(_) => return Ok(Err(again("the server has fallen silent"))),
                Ok(Some(Err(error))) => return Ok(Err(again(error.to_string()))),
                Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
                Ok(None) => break,
            };
            self.take(&mut call, &data)?;
            self.show();
        }
        if fed.all.load(Ordering::Acquire) && call.answered == fed.orders.load(Ordering::Relaxed) {
            return Ok(Ok(()));
        }
        let why = match (call.why, call.put_off) {
            (Some(why), _) => why,
            (None, 0) => "the answer broke off".into(),
            (None, count) => format!("the server put {count} orders off"),
        };
        Ok(Err(again(why)))
    }

    /// Cuts what has arrived into lines.
    fn take(&mut self, call: &mut Call, data: &[u8]) -> anyhow::Result<()> {
        let mut rest = data;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (line, behind) = (&rest[..end], &rest[end + 1..]);
            if call.begun.is_empty() {
                self.line(call, line)?;
            } else {
                let mut begun = std::mem::take(&mut call.begun);
                begun.extend_from_slice(line);
                self.line(call, &begun)?;
                begun.clear();
                call.begun = begun;
            }
            rest = behind;
        }
        if call.begun.len() + rest.len() > LINE_LEN_MAX {
            bail!("the server's answer is none to a batch: a line does not end");
        }
        call.begun.extend_from_slice(rest);
        Ok(())
    }

    fn line(&mut self, call: &mut Call, line: &[u8]) -> anyhow::Result<()> {
        let Some(head) = Head::read(line) else {
            let (status, detail) =
                problem(line).context("the server's answer is none to a batch")?;
            call.why = Some(format!("{status}: {detail}"));
            return Ok(());
        };
        if !self.shared.fits(head.line) {
            bail!("the server answers a line that was not sent");
        }
        if head.issued() {
            call.answered += 1;
            if self.shared.mark(head.line) {
                self.output.push(line)?;
            }
            return Ok(());
        }
        if head.temporary() && !call.last {
            call.put_off += 1;
            return Ok(());
        }
        call.answered += 1;
        let value: Value = serde_json::from_slice(line)?;
        let text = |name: &str| value["problem"][name].as_str().map(ToOwned::to_owned);
        self.shared.refuse(&Refused {
            line: head.line,
            reference: value["ref"].as_str().map(ToOwned::to_owned),
            code: head.status.into(),
            field: text("field"),
            detail: text("detail").or_else(|| text("title")),
        })
    }

    fn show(&self) {
        if self.bar.is_hidden() {
            return;
        }
        self.bar.set_position(self.done());
        let refused = self.shared.refused();
        let rate = self.keys_per_s();
        self.bar
            .set_message(format!("{rate:.0} keys/s, {refused} refused"));
    }

    /// Keys a second of this run.
    pub(super) fn keys_per_s(&self) -> f64 {
        let (began, keys) = self.began;
        let took = SystemClock.monotonic().saturating_sub(began).as_secs_f64();
        (self.output.keys - keys) as f64 / took.max(1e-6)
    }
}
