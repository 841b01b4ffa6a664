//! A run: calls `POST /v1/import`, notes what became of each line as it comes, and calls again for
//! what has no answer yet. That is safe, since what is there is not registered twice.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Request, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::timeout;

use super::feed::{Source, feed};
use super::record::Progress;
use crate::cli::answers::Answers;
use crate::cli::line_set::LineSet;
use crate::cli::link::Orders;
use crate::cli::pass::Pass;
use crate::cli::reach::Way;
use crate::cli::refusals::{Refusals, Refused};
use crate::cli::retry::{Again, again, is_temporary, jittered, problem, turned_away};
use crate::clock::{Clock as _, SystemClock};

/// Pieces of entries that may wait for the connection.
const PIECES_WAITING_MAX: usize = 4;

/// Entries go when the server has said yes, so that a no costs nothing; to one that says nothing so
/// long (a proxy may want all of them first) they go unasked.
const FIRST_WORD_WITHIN: Duration = Duration::from_secs(1);

/// How often it is written down how far a run has come.
const NOTE_EVERY: Duration = Duration::from_millis(200);

/// What the reader of the entries and the reader of the answers both know.
pub(super) struct Shared {
    /// A mutex: either holds it for one line at a time.
    answered: Mutex<Answered>,
    /// Entries sent by this call, and whether all were. Written by the feeder.
    pub(super) sent: AtomicU64,
    pub(super) all_sent: AtomicBool,
}

struct Answered {
    lines: LineSet,
    refusals: Refusals,
    progress: Progress,
    /// The last line the server has answered for good, in any call.
    highest: u64,
}

impl Shared {
    /// Begins where `progress` is; its refusals are those of the lines up to there.
    pub(super) fn new(
        progress: Progress,
        lines: u64,
        path: PathBuf,
        before: &[Refused],
    ) -> anyhow::Result<Self> {
        let mut refusals = Refusals::new(path)?;
        for refused in before {
            refusals.push(refused)?;
        }
        // What was refused beyond its line is refused again.
        let progress = Progress {
            refused: refusals.count,
            ..progress
        };
        let mut set = LineSet::new(lines);
        for line in 1..=progress.line {
            set.insert(line);
        }
        Ok(Self {
            answered: Mutex::new(Answered {
                lines: set,
                refusals,
                highest: progress.line,
                progress,
            }),
            sent: AtomicU64::new(0),
            all_sent: AtomicBool::new(false),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Answered> {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a line has its answer.
    pub(super) fn answered(&self, line: u64) -> bool {
        self.lock().lines.contains(line)
    }

    /// Notes a refusal, the first of its line.
    pub(super) fn refuse(&self, refused: &Refused) -> anyhow::Result<()> {
        let mut answered = self.lock();
        if answered.lines.insert(refused.line) {
            answered.progress.refused += 1;
            answered.refusals.push(refused)?;
        }
        Ok(())
    }

    /// How far it has come.
    pub(super) fn progress(&self) -> Progress {
        self.lock().progress.clone()
    }

    /// Sees the refusals onto the disk.
    pub(super) fn finish(&self) -> anyhow::Result<()> {
        self.lock().refusals.finish()
    }
}

/// A run.
pub(super) struct Run {
    pub(super) way: Way,
    /// What is called, and why.
    pub(super) path: String,
    pub(super) source: Source,
    pub(super) retries: u32,
    pub(super) shared: Arc<Shared>,
    pub(super) bar: indicatif::ProgressBar,
    /// Where it is written down how far it has come.
    pub(super) note: PathBuf,
    /// When it began, and with how many answers, for the rate.
    pub(super) began: (Duration, u64),
    pub(super) noted: Duration,
}

/// A line of the server's answer.
#[derive(Deserialize)]
struct Answer<'a> {
    line: u64,
    #[serde(borrow)]
    status: &'a str,
    problem: Option<Value>,
}

/// What has come of a call so far.
#[derive(Default)]
struct Call {
    /// The last one: what is put off now counts as refused.
    last: bool,
    /// Lines that were answered, those put off included, and the last of those answered for good
    /// without one that was put off before it.
    answers: u64,
    through: u64,
    put_off: u64,
    /// Why the server ended it, where it did.
    why: Option<String>,
}

impl Run {
    /// Calls until every entry has its answer.
    pub(super) async fn complete(&mut self) -> anyhow::Result<()> {
        let mut failures = 0;
        loop {
            let before = self.done();
            let last = failures == self.retries;
            let Err(Again { why, wait }) = self.call(last).await? else {
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

    /// Entries that have their answer.
    pub(super) fn done(&self) -> u64 {
        let progress = self.shared.progress();
        progress.registered + progress.unchanged + progress.refused
    }

    async fn call(&mut self, last: bool) -> anyhow::Result<Result<(), Again>> {
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
        self.shared.sent.store(0, Ordering::Relaxed);
        self.shared.all_sent.store(false, Ordering::Release);
        let feeder = {
            let (source, shared) = (self.source.clone(), Arc::clone(&self.shared));
            tokio::task::spawn_blocking(move || feed(&source, &shared, &body))
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
            Ok(response) => self.read(response.into_body(), last).await,
        };
        // The feeder ends with the connection, and before the next one begins.
        drop(link);
        feeder.await??;
        ended
    }

    fn request(&self, pass: &Pass, pieces: Receiver<Bytes>) -> anyhow::Result<Request<Orders>> {
        Request::post(self.way.server.target(&self.path))
            .header(HOST, &self.way.server.authority)
            .header(AUTHORIZATION, format!("Bearer {}", pass.token))
            .header(CONTENT_TYPE, "application/x-ndjson")
            .body(Orders(pieces))
            .context("the request")
    }

    async fn read(&mut self, body: Incoming, last: bool) -> anyhow::Result<Result<(), Again>> {
        let mut answers = Answers::new(body);
        let mut call = Call {
            last,
            ..Call::default()
        };
        loop {
            match answers.next_line().await? {
                Err(again) => return Ok(Err(again)),
                Ok(Some(line)) => self.line(&mut call, line)?,
                Ok(None) => break,
            }
            self.show(&call)?;
        }
        self.note(&call)?;
        let all = self.shared.all_sent.load(Ordering::Acquire)
            && call.answers == self.shared.sent.load(Ordering::Relaxed);
        Ok(match (call.why, call.put_off) {
            (Some(why), _) => Err(again(why)),
            (None, 1..) => Err(again(format!("{} lines were put off", call.put_off))),
            (None, 0) if all => Ok(()),
            (None, 0) => Err(again("the server has ended the call")),
        })
    }

    fn line(&self, call: &mut Call, line: &[u8]) -> anyhow::Result<()> {
        let Ok(answer) = serde_json::from_slice::<Answer<'_>>(line) else {
            let (status, detail) =
                problem(line).context("the server's answer is none to an import")?;
            call.why = Some(format!("{status}: {detail}"));
            return Ok(());
        };
        call.answers += 1;
        if !self.shared.lock().lines.fits(answer.line) {
            bail!("the server answers a line that was not sent");
        }
        if is_temporary(answer.status) && !call.last {
            call.put_off += 1;
            return Ok(());
        }
        if call.put_off == 0 {
            call.through = answer.line;
        }
        let mut answered = self.shared.lock();
        answered.highest = answered.highest.max(answer.line);
        let Some(problem) = answer.problem else {
            if answered.lines.insert(answer.line) {
                match answer.status {
                    "unchanged" => answered.progress.unchanged += 1,
                    _ => answered.progress.registered += 1,
                }
            }
            return Ok(());
        };
        drop(answered);
        let text = |name: &str| problem[name].as_str().map(ToOwned::to_owned);
        self.shared.refuse(&Refused {
            line: answer.line,
            reference: None,
            code: answer.status.into(),
            field: text("field"),
            detail: text("detail").or_else(|| text("title")),
        })
    }

    fn show(&mut self, call: &Call) -> anyhow::Result<()> {
        // Not for every line: the clock costs more than the line.
        if !call.answers.is_multiple_of(1024) {
            return Ok(());
        }
        if SystemClock.monotonic() - self.noted > NOTE_EVERY {
            self.note(call)?;
        }
        if !self.bar.is_hidden() {
            let refused = self.shared.progress().refused;
            self.bar.set_position(self.done());
            let rate = self.per_s();
            self.bar
                .set_message(format!("{rate:.0}/s, {refused} refused"));
        }
        Ok(())
    }

    /// Writes down how far it has come, refusals first.
    fn note(&mut self, call: &Call) -> anyhow::Result<()> {
        self.noted = SystemClock.monotonic();
        let progress = {
            let mut answered = self.shared.lock();
            // Answers come in the order of the lines, so none before this one is missing. Where
            // one behind it has its answer the counts would not fit it.
            if call.through < answered.highest || call.through <= answered.progress.line {
                return Ok(());
            }
            answered.progress.line = call.through;
            answered.refusals.finish()?;
            answered.progress.clone()
        };
        progress.write(&self.note)
    }

    /// Entries answered a second.
    pub(super) fn per_s(&self) -> f64 {
        let (began, done) = self.began;
        let took = SystemClock.monotonic().saturating_sub(began).as_secs_f64();
        (self.done() - done) as f64 / took.max(1e-6)
    }
}
