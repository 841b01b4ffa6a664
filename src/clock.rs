//! The clock, floor 2: the one place that asks what time it is.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime};

use crate::domain::UnixTime;

/// Tells the time. Everything that depends on it gets it from one of these, so that tests can set
/// it.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since 1970-01-01T00:00:00Z. May step with the system's clock.
    fn unix_ms(&self) -> u64;

    /// Time since some fixed moment of this process. Never goes back.
    fn monotonic(&self) -> Duration;

    /// Seconds since 1970-01-01T00:00:00Z.
    fn unix(&self) -> UnixTime {
        self.unix_ms() / 1000
    }
}

/// The system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

static STARTED: LazyLock<Instant> = LazyLock::new(now);

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is where the time comes from"
    )]
    fn unix_ms(&self) -> u64 {
        // A clock before 1970 is as good as none; everything would be refused as not yet valid.
        let since = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn monotonic(&self) -> Duration {
        STARTED.elapsed()
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is where the time comes from"
)]
fn now() -> Instant {
    Instant::now()
}
