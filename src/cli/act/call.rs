//! A run: calls, reads the answers as they come, and calls again for what has none yet. That is
//! safe, since what stands as asked for is not done twice.

use std::collections::BTreeSet;

use anyhow::{Context, bail};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Request, Response, StatusCode};
use indicatif::ProgressBar;
use serde_json::{Value, json};
use tokio::sync::mpsc::channel;
use tokio::time::timeout;

use super::targets::Targets;
use crate::cli::answers::{Answers, SILENCE_MAX, reason, word};
use crate::cli::link::{Link, Orders};
use crate::cli::reach::Way;
use crate::cli::refusals::{Refusals, Refused};
use crate::cli::retry::{Again, again, is_temporary, jittered, problem, turned_away};
use crate::domain::change::Action;

/// Targets of one call at most, and bytes of its body.
const TARGETS_MAX: usize = 256;
const BODY_LEN_MAX: usize = 32 * 1024;

const NDJSON: &str = "application/x-ndjson";

/// What has come of a run so far.
#[derive(Default)]
pub(super) struct CameTo {
    pub(super) done: u64,
    pub(super) refused: u64,
    pub(super) keys: u64,
    /// Terminals that those named have registered.
    pub(super) registered: Vec<String>,
    latest: Option<String>,
}

impl CameTo {
    /// As the server says it, the latest of all: its times are as long as each other and sort.
    pub(super) fn certain_by(&self) -> Value {
        match &self.latest {
            Some(latest) => json!({ "when": "next_contact", "latest": latest }),
            None => json!({ "when": "now" }),
        }
    }

    fn add(&mut self, action: Action, answer: &Value) {
        self.done += 1;
        let keys = match action {
            Action::Suspend => &answer["suspended"],
            Action::Resume => &answer["resumed"],
            Action::Cancel => &answer["revoked"],
        };
        self.keys += keys.as_u64().unwrap_or_default();
        let registered = answer["registered"].as_array().into_iter().flatten();
        let names = registered.filter_map(|it| it["terminal"].as_str());
        self.registered.extend(names.map(ToOwned::to_owned));
        let latest = answer["certain_by"]["latest"].as_str();
        self.latest = self.latest.take().max(latest.map(ToOwned::to_owned));
    }
}

/// A run.
pub(super) struct Run {
    pub(super) way: Way,
    pub(super) action: Action,
    pub(super) retries: u32,
    pub(super) bar: ProgressBar,
    /// Where refusals of a file go.
    pub(super) refusals: Option<Refusals>,
    pub(super) came_to: CameTo,
}

impl Run {
    /// Calls until every target has its answer.
    pub(super) async fn complete(&mut self, targets: Targets) -> anyhow::Result<()> {
        match targets {
            Targets::One(body) => self.one(&body).await,
            Targets::Many(targets, wrong) => {
                for refused in &wrong {
                    self.refuse(refused)?;
                }
                let mut rest = targets.as_slice();
                while !rest.is_empty() {
                    let (chunk, others) = rest.split_at(chunk_len(rest));
                    rest = others;
                    self.chunk(chunk).await?;
                }
                Ok(())
            }
        }
    }

    /// One target, whose progress the server tells.
    async fn one(&mut self, body: &str) -> anyhow::Result<()> {
        let mut failures = 0;
        loop {
            let why = match self.try_one(body).await? {
                Ok(()) => return Ok(()),
                Err(again) => again,
            };
            self.put_off(why, &mut failures).await?;
        }
    }

    async fn try_one(&mut self, body: &str) -> anyhow::Result<Result<(), Again>> {
        let (_link, response) = match self.call(body.to_owned(), "application/json").await? {
            Ok(called) => called,
            Err(again) => return Ok(Err(again)),
        };
        let status = response.status();
        if status != StatusCode::OK {
            let refused = [
                StatusCode::NOT_FOUND,
                StatusCode::CONFLICT,
                StatusCode::GONE,
                StatusCode::PRECONDITION_FAILED,
            ];
            return turned_away(response, &refused)
                .await
                .map(|told| told.map(|(code, detail)| self.say_refused(&code, &detail)));
        }
        let mut last = Value::Null;
        let mut lines = Answers::new(response.into_body());
        loop {
            match lines.next().await? {
                Ok(Some(line)) => {
                    self.show(&line);
                    last = line;
                }
                Ok(None) => break,
                Err(again) => return Ok(Err(again)),
            }
        }
        Ok(match word(&last)? {
            code if is_temporary(code) => Err(again(reason(&last))),
            _ if last.get("problem").is_some() => {
                let (code, detail) = problem(last.to_string().as_bytes()).unwrap_or_default();
                self.say_refused(&code, &detail);
                Ok(())
            }
            "revoked" | "suspended" | "resumed" => {
                self.came_to.add(self.action, &last);
                Ok(())
            }
            _ => Err(again("the answer broke off")),
        })
    }

    /// A chunk of lines, called for until each has its answer.
    async fn chunk(&mut self, chunk: &[(u64, String)]) -> anyhow::Result<()> {
        let mut left: Vec<&(u64, String)> = chunk.iter().collect();
        let mut failures = 0;
        while !left.is_empty() {
            let last = failures == self.retries;
            let (answered, why) = self.try_chunk(&left, last).await?;
            if !answered.is_empty() {
                failures = 0;
            }
            left.retain(|(line, _)| !answered.contains(line));
            if !left.is_empty() {
                let why = why.unwrap_or_else(|| again("the answer broke off"));
                self.put_off(why, &mut failures).await?;
            }
        }
        Ok(())
    }

    /// One call: the lines that have their answer now, and why the others have none.
    async fn try_chunk(
        &mut self,
        left: &[&(u64, String)],
        last: bool,
    ) -> anyhow::Result<(BTreeSet<u64>, Option<Again>)> {
        let mut answered = BTreeSet::new();
        let body: String = left.iter().flat_map(|(_, body)| [body, "\n"]).collect();
        let (_link, response) = match self.call(body, NDJSON).await? {
            Ok(called) => called,
            Err(again) => return Ok((answered, Some(again))),
        };
        if response.status() != StatusCode::OK {
            let told = turned_away(response, &[]).await?;
            return Ok((answered, told.err()));
        }
        let mut lines = Answers::new(response.into_body());
        loop {
            let answer = match lines.next().await? {
                Ok(Some(answer)) => answer,
                Ok(None) => return Ok((answered, None)),
                Err(again) => return Ok((answered, Some(again))),
            };
            let code = word(&answer)?;
            let number = answer["line"].as_u64();
            let Some(number) = number else {
                return Ok((answered, Some(again(reason(&answer)))));
            };
            let place = usize::try_from(number).unwrap_or_default().wrapping_sub(1);
            let (line, _) = left
                .get(place)
                .context("the server answers a line that was not sent")?;
            if is_temporary(code) && !last {
                continue;
            }
            if !answered.insert(*line) {
                bail!("the server answers a line twice");
            }
            match answer.get("problem") {
                None => self.came_to.add(self.action, &answer),
                Some(problem) => {
                    let text = |name: &str| problem[name].as_str().map(ToOwned::to_owned);
                    self.refuse(&Refused {
                        line: *line,
                        reference: None,
                        code: code.into(),
                        field: text("field"),
                        detail: text("detail").or_else(|| text("title")),
                    })?;
                }
            }
            self.bar
                .set_position(self.came_to.done + self.came_to.refused);
            let (keys, refused) = (self.came_to.keys, self.came_to.refused);
            self.bar
                .set_message(format!("{keys} keys, {refused} refused"));
        }
    }

    async fn call(
        &mut self,
        body: String,
        content_type: &'static str,
    ) -> anyhow::Result<Result<(Link, Response<Incoming>), Again>> {
        let (mut link, pass) = match self.way.go().await? {
            Ok(there) => there,
            Err(again) => return Ok(Err(again)),
        };
        let path = match self.action {
            Action::Suspend => "/v1/suspensions",
            Action::Resume => "/v1/resumptions",
            Action::Cancel => "/v1/revocations",
        };
        let (sender, receiver) = channel(1);
        sender.try_send(Bytes::from(body))?;
        drop(sender);
        let request = Request::post(self.way.server.target(path))
            .header(HOST, &self.way.server.authority)
            .header(AUTHORIZATION, format!("Bearer {}", pass.token))
            .header(CONTENT_TYPE, content_type)
            .header(ACCEPT, NDJSON)
            .body(Orders(receiver))
            .context("the request")?;
        match timeout(SILENCE_MAX, link.sender.send_request(request)).await {
            Ok(Ok(response)) => Ok(Ok((link, response))),
            Ok(Err(error)) => Ok(Err(again(error.to_string()))),
            Err(_) => Ok(Err(again("the server has fallen silent"))),
        }
    }

    /// Waits before the next call, or gives up.
    async fn put_off(&self, again: Again, failures: &mut u32) -> anyhow::Result<()> {
        let Again { why, wait } = again;
        if *failures == self.retries {
            bail!("{why}; tried {} times in vain", *failures + 1);
        }
        *failures += 1;
        self.bar.set_message(why.clone());
        tracing::debug!(why, failures, "calling again");
        tokio::time::sleep(jittered(wait, *failures)).await;
        Ok(())
    }

    fn refuse(&mut self, refused: &Refused) -> anyhow::Result<()> {
        self.came_to.refused += 1;
        match &mut self.refusals {
            Some(refusals) => refusals.push(refused),
            None => Ok(()),
        }
    }

    /// The refusal of a target named on the command line is told there.
    fn say_refused(&mut self, code: &str, detail: &str) {
        self.came_to.refused += 1;
        self.bar.suspend(|| eprintln!("fob: {code}: {detail}"));
    }

    /// How far the server has come with one target.
    fn show(&self, line: &Value) {
        let count = |name: &str| line[name].as_u64().unwrap_or_default();
        self.bar.set_length(count("total"));
        self.bar.set_position(count("done") + count("passed_over"));
        if let Some(status) = line["status"].as_str() {
            self.bar.set_message(status.to_owned());
        }
    }
}

/// How many of the targets go into the next call.
fn chunk_len(targets: &[(u64, String)]) -> usize {
    let mut bytes = 0;
    let fits = |(_, body): &&(u64, String)| {
        bytes += body.len() + 1;
        bytes <= BODY_LEN_MAX
    };
    let fitting = targets.iter().take(TARGETS_MAX).take_while(fits);
    fitting.count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_has_so_many_targets_and_bytes_at_most() {
        let targets = |count: usize, len: usize| -> Vec<_> {
            (0..count as u64)
                .map(|line| (line, "x".repeat(len)))
                .collect()
        };
        assert_eq!(chunk_len(&targets(1000, 10)), TARGETS_MAX);
        assert_eq!(chunk_len(&targets(7, 10)), 7);
        assert_eq!(chunk_len(&targets(20, 4095)), 8);
        assert_eq!(chunk_len(&targets(2, BODY_LEN_MAX)), 1);
    }

    #[test]
    fn the_latest_certainty_counts() {
        let mut came_to = CameTo::default();
        assert_eq!(came_to.certain_by(), json!({ "when": "now" }));
        for latest in [
            Some("2026-11-23T08:00:00Z"),
            None,
            Some("2026-11-22T09:00:00Z"),
        ] {
            let answer = json!({ "suspended": 2, "certain_by": { "latest": latest } });
            came_to.add(Action::Suspend, &answer);
        }
        assert_eq!((came_to.done, came_to.keys), (3, 6));
        assert_eq!(came_to.certain_by()["latest"], "2026-11-23T08:00:00Z");
    }
}
