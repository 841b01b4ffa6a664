//! The lines of an answer, as they come.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context, bail};
use hyper::body::{Body as _, Incoming};
use serde_json::Value;
use tokio::time::timeout;

use crate::cli::retry::{Again, again, problem};

/// How long a server may be silent while answers are missing.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(300);

/// The most bytes of an answer's line.
const LINE_LEN_MAX: usize = 1 << 20;

/// The lines of an answer.
pub(super) struct Answers {
    body: Incoming,
    begun: Vec<u8>,
    /// Bytes of `begun` that were handed on.
    taken: usize,
}

impl Answers {
    pub(super) fn new(body: Incoming) -> Self {
        Self {
            body,
            begun: Vec::new(),
            taken: 0,
        }
    }

    /// The next one; `None` at the end.
    pub(super) async fn next(&mut self) -> anyhow::Result<Result<Option<Value>, Again>> {
        Ok(match self.next_line().await? {
            Ok(Some(line)) => {
                let value = serde_json::from_slice(line);
                Ok(Some(value.context("the server's answer is no JSON")?))
            }
            Ok(None) => Ok(None),
            Err(again) => Err(again),
        })
    }

    /// The same, as it came.
    pub(super) async fn next_line(&mut self) -> anyhow::Result<Result<Option<&[u8]>, Again>> {
        loop {
            if let Some(len) = memchr::memchr(b'\n', &self.begun[self.taken..]) {
                let start = self.taken;
                self.taken += len + 1;
                return Ok(Ok(Some(&self.begun[start..start + len])));
            }
            self.begun.drain(..std::mem::take(&mut self.taken));
            if self.begun.len() > LINE_LEN_MAX {
                bail!("the server's answer has a line that does not end");
            }
            let body = &mut self.body;
            let frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx));
            match timeout(SILENCE_MAX, frame).await {
                Err(_) => return Ok(Err(again("the server has fallen silent"))),
                Ok(Some(Err(error))) => return Ok(Err(again(error.to_string()))),
                Ok(Some(Ok(frame))) => {
                    let data = frame.into_data().unwrap_or_default();
                    self.begun.extend_from_slice(&data);
                }
                Ok(None) => return Ok(Ok(None)),
            }
        }
    }
}

/// The `status` of an answer.
pub(super) fn word(answer: &Value) -> anyhow::Result<&str> {
    let status = answer["status"].as_str();
    status.context("the server's answer says nothing of a status")
}

/// Why an answer is none.
pub(super) fn reason(answer: &Value) -> String {
    match problem(answer.to_string().as_bytes()) {
        Some((code, detail)) => format!("{code}: {detail}"),
        None => "the server has ended the call".into(),
    }
}
