//! The server from outside, once a second: memory and CPU of its process, and the queue it tells
//! of in `/metrics`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::connection::Connection;
use crate::target::Target;

/// How long to wait for a queue to become empty, in looks.
const SETTLE_LOOKS_MAX: usize = 600;

/// Between two looks.
const SETTLE_LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How long one look at `/metrics` may take.
const METRICS_WITHIN: Duration = Duration::from_millis(900);

/// A process at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Usage {
    /// Resident memory, in MiB.
    pub(crate) rss_mib: f64,
    /// CPU since it started, user and system, in seconds.
    pub(crate) cpu_s: f64,
}

/// The server at one moment of the run.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Sample {
    /// Seconds after the run's beginning.
    pub(crate) at_s: f64,
    /// Its process, where that is known.
    pub(crate) usage: Option<Usage>,
    /// `fob_queue_bundles`, where it was told in time.
    pub(crate) queue: Option<f64>,
    /// CPU that the whole machine has spent since it started, in seconds.
    pub(crate) machine_cpu_s: Option<f64>,
}

/// A process's usage, where it may be read.
pub(crate) fn usage(pid: u32) -> Option<Usage> {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).ok();
    let pages: u64 = read("statm")?.split(' ').nth(1)?.parse().ok()?;
    let bytes = pages * rustix::param::page_size() as u64;
    Some(Usage {
        rss_mib: bytes as f64 / f64::from(1 << 20),
        cpu_s: cpu_ticks(&read("stat")?)? as f64 / rustix::param::clock_ticks_per_second() as f64,
    })
}

/// `utime` and `stime` of `/proc/PID/stat`. The second field is a name in brackets that may hold
/// anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// CPU by thread, in seconds: threads of one name but for its number are taken together.
pub(crate) fn cpu_by_thread(pid: u32) -> BTreeMap<String, f64> {
    let mut all = BTreeMap::new();
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return all;
    };
    for thread in threads.flatten() {
        // A thread may have ended meanwhile.
        let Ok(stat) = std::fs::read_to_string(thread.path().join("stat")) else {
            continue;
        };
        if let (Some(name), Some(ticks)) = (thread_name(&stat), cpu_ticks(&stat)) {
            let cpu_s = ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
            *all.entry(name).or_default() += cpu_s;
        }
    }
    all
}

/// The name in a thread's `stat`, without the number at its end.
fn thread_name(stat: &str) -> Option<String> {
    let (_, rest) = stat.split_once('(')?;
    let (name, _) = rest.rsplit_once(')')?;
    let bare = name.trim_end_matches(|digit: char| digit.is_ascii_digit());
    Some(bare.trim_end_matches('-').to_owned())
}

/// What the whole machine has spent: every column of the first line of `/proc/stat` but the fourth
/// and fifth, which are idling, and the ninth and tenth, which are in the first two.
fn busy_ticks(stat: &str) -> Option<u64> {
    let fields = stat.lines().next()?.strip_prefix("cpu ")?;
    let columns = fields.split_ascii_whitespace().enumerate();
    let busy = columns.filter(|(column, _)| !matches!(column, 3 | 4 | 8 | 9));
    busy.map(|(_, text)| text.parse::<u64>().ok()).sum()
}

fn machine_cpu_s() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    Some(busy_ticks(&stat)? as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// This process's usage.
pub(crate) fn own_usage() -> Usage {
    usage(std::process::id()).unwrap_or_default()
}

/// Looks at a server. Its connection for `/metrics` is apart from those of the load.
pub(crate) struct Watch {
    pid: Option<u32>,
    metrics: Connection,
    request: Box<[u8]>,
}

impl Watch {
    /// Of this server.
    pub(crate) fn new(target: &Target) -> Self {
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {}\r\n\r\n", target.host);
        Self {
            pid: target.pid,
            metrics: Connection::to(target.address, 0),
            request: request.into_bytes().into(),
        }
    }

    /// One look, at `at_s` after the run's beginning.
    pub(crate) async fn look(&mut self, at_s: f64) -> Sample {
        Sample {
            at_s,
            usage: self.pid.and_then(usage),
            machine_cpu_s: machine_cpu_s(),
            queue: self.queue().await,
        }
    }

    /// Waits until the server has nothing left of earlier runs. A server whose callers were told to
    /// come back may still be working for them.
    pub(crate) async fn settle(&mut self) {
        for _ in 0..SETTLE_LOOKS_MAX {
            if self.queue().await.is_none_or(|queue| queue == 0.0) {
                return;
            }
            tokio::time::sleep(SETTLE_LOOK_AGAIN).await;
        }
    }

    async fn queue(&mut self) -> Option<f64> {
        let asked = tokio::time::timeout(METRICS_WITHIN, self.metrics.exchange(&self.request));
        let head = asked.await.ok()?.ok()?;
        let text = std::str::from_utf8(self.metrics.body(&head)).ok()?;
        gauge(text, "fob_queue_bundles")
    }
}

/// The value of a metric without labels.
fn gauge(text: &str, name: &str) -> Option<f64> {
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
    text.lines().find_map(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_blanks_does_not_shift_the_fields() {
        let stat = "42 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 70 30 0 0";
        assert_eq!(cpu_ticks(stat), Some(100));
        assert_eq!(thread_name(stat).as_deref(), Some("a) b (c"));
        assert!(own_usage().rss_mib > 0.1);
    }

    #[test]
    fn threads_of_one_kind_are_taken_together() {
        for (stat, name) in [
            ("1 (hsm-0) S", "hsm"),
            ("1 (hsm-11) S", "hsm"),
            ("1 (fob-issue) S", "fob-issue"),
            ("1 (actix-rt|system) S", "actix-rt|system"),
        ] {
            assert_eq!(thread_name(stat).as_deref(), Some(name));
        }
        assert!(!cpu_by_thread(std::process::id()).is_empty());
    }

    #[test]
    fn idling_and_guests_are_not_counted_as_busy() {
        let stat = "cpu  1 2 4 100 200 8 16 32 1000 2000\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(busy_ticks(stat), Some(63));
        assert_eq!(busy_ticks("intr 1"), None);
        assert!(machine_cpu_s().is_some());
    }

    #[test]
    fn a_gauge_is_found_by_its_whole_name() {
        let text = "# HELP fob_queue_bundles x\nfob_queue_bundles_max 9\nfob_queue_bundles 17\n";
        assert_eq!(gauge(text, "fob_queue_bundles"), Some(17.0));
        assert_eq!(gauge(text, "fob_queue"), None);
    }
}
