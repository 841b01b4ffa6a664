//! The clock: the one place that asks what time it is, and a timer that wakes when an arrival is
//! due. Tokio's own timer counts milliseconds; an arrival must not be late by one.

use std::io;
use std::time::{Duration, Instant, SystemTime};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::net::unix::pipe;

/// Arrivals that may be started in one go when they are late, before answers get their turn.
const TURN: u32 = 16;

/// Now, of a clock that never goes back.
#[expect(
    clippy::disallowed_methods,
    reason = "this is where the time comes from"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Seconds since 1970-01-01T00:00:00Z.
#[expect(
    clippy::disallowed_methods,
    reason = "this is where the time comes from"
)]
pub(crate) fn unix() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

/// Wakes at moments given one after the other.
pub(crate) struct Timer {
    /// A timerfd. To the runtime it is like a pipe: eight bytes can be read once it has rung.
    bell: pipe::Receiver,
    in_a_row: u32,
}

impl Timer {
    /// A timer of the runtime that this is called in.
    ///
    /// # Errors
    /// The operating system's.
    pub(crate) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let fd = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self {
            bell: pipe::Receiver::from_owned_fd_unchecked(fd)?,
            in_a_row: 0,
        })
    }

    /// Returns at `due`, or at once where that is past.
    ///
    /// # Errors
    /// The operating system's.
    pub(crate) async fn until(&mut self, due: Instant) -> io::Result<()> {
        let wait = due.saturating_duration_since(now());
        if wait.is_zero() {
            self.in_a_row += 1;
            if self.in_a_row >= TURN {
                self.in_a_row = 0;
                tokio::task::yield_now().await;
            }
            return Ok(());
        }
        self.in_a_row = 0;
        timerfd_settime(&self.bell, TimerfdTimerFlags::empty(), &once(wait))?;
        loop {
            self.bell.readable().await?;
            match self.bell.try_read(&mut [0; 8]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                rung => return rung.map(drop),
            }
        }
    }
}

fn once(wait: Duration) -> Itimerspec {
    Itimerspec {
        it_interval: Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        },
        it_value: Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: wait.subsec_nanos().into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timer_never_wakes_before_its_moment() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut timer = Timer::new().unwrap();
            for us in [0, 1, 150, 2_000] {
                let due = now() + Duration::from_micros(us);
                timer.until(due).await.unwrap();
                assert!(now() >= due);
            }
        });
    }
}
