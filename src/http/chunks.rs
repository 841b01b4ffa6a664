//! A body of lines, as it arrives, in chunks to be worked at together.

use std::time::Duration;

use actix_web::web;
use futures_util::FutureExt as _;
use futures_util::stream::StreamExt as _;

use super::lines::{Line, Lines};
use crate::domain::Refusal;

/// What closes a chunk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// So many lines.
    pub(super) lines: usize,
    /// So many bytes of them.
    pub(super) bytes: usize,
}

/// The lines of a body, each read into something.
pub(super) struct Chunks<T> {
    payload: web::Payload,
    /// How long the client may be silent while it is waited for.
    idle: Duration,
    bounds: Bounds,
    read: fn(Line) -> T,
    lines: Lines,
    /// Read, and not yet handed on; so many bytes of text.
    ready: Vec<T>,
    bytes: usize,
    ended: bool,
}

/// What comes next out of a body.
pub(super) enum Next<T> {
    /// So many lines, at least one.
    Chunk(Vec<T>),
    /// Nothing more; if not in order, why.
    End(Option<Refusal>),
}

impl<T> Chunks<T> {
    pub(super) fn new(
        payload: web::Payload,
        idle: Duration,
        bounds: Bounds,
        read: fn(Line) -> T,
    ) -> Self {
        Self {
            payload,
            idle,
            bounds,
            read,
            lines: Lines::default(),
            ready: Vec::new(),
            bytes: 0,
            ended: false,
        }
    }

    /// A full chunk, or what has arrived when nothing more is there yet; whoever is `patient` waits
    /// for more. Nothing is lost where it is dropped before it is done.
    pub(super) async fn next(&mut self, patient: bool) -> Next<T> {
        loop {
            self.read_lines();
            if self.is_full() || (self.ended && !self.ready.is_empty()) {
                return Next::Chunk(self.take());
            }
            if self.ended {
                return Next::End(None);
            }
            let arrived = if patient || self.ready.is_empty() {
                match tokio::time::timeout(self.idle, self.payload.next()).await {
                    Ok(arrived) => arrived,
                    Err(_) if !self.ready.is_empty() => return Next::Chunk(self.take()),
                    Err(_) => return Next::End(Some(broken("the body did not go on in time"))),
                }
            } else {
                match self.payload.next().now_or_never() {
                    Some(arrived) => arrived,
                    None => return Next::Chunk(self.take()),
                }
            };
            match arrived {
                Some(Ok(piece)) => self.lines.feed(piece),
                Some(Err(_)) => return Next::End(Some(broken("the body broke off"))),
                None => {
                    self.ended = true;
                    if let Some(line) = self.lines.finish() {
                        self.add(line);
                    }
                }
            }
        }
    }

    fn is_full(&self) -> bool {
        self.ready.len() >= self.bounds.lines || self.bytes >= self.bounds.bytes
    }

    fn read_lines(&mut self) {
        while !self.is_full() {
            let Some(line) = self.lines.pull() else {
                return;
            };
            self.add(line);
        }
    }

    fn add(&mut self, line: Line) {
        self.bytes += line.text.as_ref().map_or(0, |text| text.len());
        self.ready.push((self.read)(line));
    }

    fn take(&mut self) -> Vec<T> {
        self.bytes = 0;
        std::mem::take(&mut self.ready)
    }
}

fn broken(why: &'static str) -> Refusal {
    Refusal::malformed("body", why)
}
