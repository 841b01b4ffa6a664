//! Time as the rules see it: whole seconds since 1970-01-01T00:00:00Z, and windows of them.

use super::refusal::{Refusal, RefusalCode};

/// Seconds since the Unix epoch, UTC.
pub type UnixTime = u64;

/// The last second the JSON form (RFC 3339, four-digit year) can show: 9999-12-31T23:59:59Z.
pub const UNIX_TIME_MAX: UnixTime = 253_402_300_799;

/// From `not_before` up to and including `not_after`, the way CWT's `nbf` and `exp` are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// First second in which the window is open.
    pub not_before: UnixTime,
    /// First second after it: at this time and later the window is closed (RFC 8392 §3.1.4).
    pub not_after: UnixTime,
}

impl Window {
    /// A window that ends after it begins and has not passed at `now`.
    ///
    /// # Errors
    /// `malformed`, naming `not_after`.
    pub fn new(not_before: UnixTime, not_after: UnixTime, now: UnixTime) -> Result<Self, Refusal> {
        let refuse = |why| Err(Refusal::new(RefusalCode::Malformed).field("not_after").detail(why));
        if not_after <= not_before {
            return refuse("not_after must be later than not_before");
        }
        if not_after <= now {
            return refuse("not_after has already passed");
        }
        if not_after > UNIX_TIME_MAX {
            return refuse("not_after lies beyond the year 9999");
        }
        Ok(Self { not_before, not_after })
    }

    /// Whether `at` lies inside.
    pub fn contains(&self, at: UnixTime) -> bool {
        self.not_before <= at && at < self.not_after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges() {
        let window = Window::new(10, 20, 5).expect("a window");
        assert!(!window.contains(9) && window.contains(10));
        assert!(window.contains(19) && !window.contains(20));
        for (not_before, not_after, now) in [(10, 10, 0), (10, 9, 0), (10, 20, 20), (0, UNIX_TIME_MAX + 1, 0)] {
            assert!(Window::new(not_before, not_after, now).is_err());
        }
    }
}
