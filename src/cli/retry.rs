//! Calls that may be made again: when, after which wait, and until when.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use anyhow::anyhow;
use hyper::body::{Body as _, Incoming};
use hyper::header::RETRY_AFTER;
use hyper::{Response, StatusCode};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use crate::engine::ids::Ids;

/// How long a server may be silent while it says why not.
const SILENCE_MAX: Duration = Duration::from_secs(300);

/// The most bytes of a refusal.
const PROBLEM_LEN_MAX: usize = 1 << 20;

/// The longest wait before another call.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// The shortest.
const WAIT_MIN: Duration = Duration::from_millis(250);

/// Why another call is needed.
pub(super) struct Again {
    pub(super) why: String,
    /// How long the server asks to wait.
    pub(super) wait: Duration,
}

/// Another call is needed, as soon as may be.
pub(super) fn again(why: impl Into<String>) -> Again {
    let why = why.into();
    Again {
        why,
        wait: Duration::ZERO,
    }
}

/// Whether what is refused with this code may be done later.
pub(super) fn is_temporary(code: &str) -> bool {
    [
        "busy",
        "hsm_unavailable",
        "store_unavailable",
        "shutting_down",
    ]
    .contains(&code)
}

/// Runs to the end, or until the process is asked to end.
pub(super) fn until_signalled(run: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            ended = run => ended,
            _ = terminate.recv() => Err(anyhow!("asked to end")),
            _ = interrupt.recv() => Err(anyhow!("asked to end")),
        }
    })
}

/// Status and detail of a problem: a whole body, or the last line of a call that was ended.
pub(super) fn problem(bytes: &[u8]) -> Option<(String, String)> {
    let value: Value = serde_json::from_slice(bytes).ok()?;
    let inner = value.get("problem").unwrap_or(&value);
    let text = |name: &str| inner[name].as_str();
    let code = text("code").or_else(|| text("title"))?;
    let detail = text("detail").or_else(|| text("title"))?;
    Some((code.into(), detail.into()))
}

/// Why the server did not take the call: a refusal, its code and detail, where the status is one of
/// `refused`; to be tried again; or an error.
pub(super) async fn turned_away(
    response: Response<Incoming>,
    refused: &[StatusCode],
) -> anyhow::Result<Result<(String, String), Again>> {
    let status = response.status();
    let header = response.headers().get(RETRY_AFTER);
    let seconds = header.and_then(|value| value.to_str().ok()?.parse().ok());
    let mut body = response.into_body();
    let mut text = Vec::new();
    while text.len() < PROBLEM_LEN_MAX {
        let frame = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx));
        match timeout(SILENCE_MAX, frame).await {
            Ok(Some(Ok(frame))) => text.extend(frame.into_data().unwrap_or_default()),
            _ => break,
        }
    }
    let said = problem(&text);
    let why = match &said {
        Some((code, detail)) => format!("{status}, {code}: {detail}"),
        None => status.to_string(),
    };
    if let Some(said) = said
        && refused.contains(&status)
    {
        return Ok(Ok(said));
    }
    let temporary = [
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::BAD_GATEWAY,
        StatusCode::SERVICE_UNAVAILABLE,
        StatusCode::GATEWAY_TIMEOUT,
    ];
    if temporary.contains(&status) {
        let wait = Duration::from_secs(seconds.unwrap_or_default()).min(WAIT_MAX);
        return Ok(Err(Again { why, wait }));
    }
    Err(anyhow!("the server says {why}"))
}

/// How long to wait before call number `failures`: what the server asks for, or twice as long each
/// time; half as much more or less, so that callers do not all come back at once.
pub(super) fn jittered(asked: Duration, failures: u32) -> Duration {
    let wait = WAIT_MIN
        .saturating_mul(1 << failures.min(8))
        .min(WAIT_MAX)
        .max(asked);
    let random = Ids::new().random::<1>()[0];
    let jitter = wait.mul_f64(f64::from(random) / 256.0);
    if asked.is_zero() {
        wait / 2 + jitter
    } else {
        wait + jitter / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_are_bounded() {
        for failures in 1..100 {
            let wait = jittered(Duration::ZERO, failures);
            assert!(wait >= WAIT_MIN / 2 && wait <= WAIT_MAX * 3 / 2, "{wait:?}");
            let asked = Duration::from_secs(3);
            assert!(jittered(asked, failures) >= asked);
        }
        assert!(jittered(Duration::ZERO, 8) >= WAIT_MAX / 2);
    }

    #[test]
    fn problems_are_read_whole_or_as_a_last_line() {
        let whole = br#"{"code":"busy","title":"T","detail":"D"}"#;
        let last = br#"{"status":"busy","problem":{"code":"busy","title":"D"}}"#;
        for text in [&whole[..], last] {
            assert_eq!(problem(text), Some(("busy".into(), "D".into())));
        }
        for other in [&b"<html>"[..], b"{}", b"5"] {
            assert_eq!(problem(other), None);
        }
    }
}
