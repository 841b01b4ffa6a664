//! Time as the rules see it: whole seconds since 1970-01-01T00:00:00Z, and windows of them.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::refusal::{Refusal, RefusalCode};

/// Seconds since the Unix epoch, UTC.
pub type UnixTime = u64;

/// The last second the JSON form (RFC 3339, four-digit year, any offset) can show:
/// 9999-12-30T21:59:59Z.
pub const UNIX_TIME_MAX: UnixTime = 253_402_207_199;

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
        let refuse = |why| {
            Err(Refusal::new(RefusalCode::Malformed)
                .field("not_after")
                .detail(why))
        };
        if not_after <= not_before {
            return refuse("not_after must be later than not_before");
        }
        if not_after <= now {
            return refuse("not_after has already passed");
        }
        if not_after > UNIX_TIME_MAX {
            return refuse("not_after lies beyond the year 9999");
        }
        Ok(Self {
            not_before,
            not_after,
        })
    }

    /// Whether `at` lies inside.
    pub fn contains(&self, at: UnixTime) -> bool {
        self.not_before <= at && at < self.not_after
    }
}

/// A time, read from any RFC 3339 text and written in UTC with whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time(pub UnixTime);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = i64::try_from(self.0).ok();
        match seconds.and_then(|seconds| Timestamp::from_second(seconds).ok()) {
            Some(time) => write!(f, "{time}"),
            None => Err(fmt::Error),
        }
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let time: Timestamp = text.parse().map_err(|_| {
            de::Error::custom(
                "a time is RFC 3339 and before 9999-12-30T22:00:00Z, as in 2026-11-22T20:00:00Z",
            )
        })?;
        let seconds = u64::try_from(time.as_second())
            .map_err(|_| de::Error::custom("a time is not before 1970"))?;
        Ok(Self(seconds))
    }
}

/// A duration as people write it, in seconds: `90s`, `2h`, `30d`.
///
/// # Errors
/// What is wrong with the text.
pub fn seconds(text: &str) -> Result<u64, String> {
    let span: jiff::Span = text
        .parse()
        .map_err(|_| "a time is like 90s, 2h or 30d".to_owned())?;
    let day = jiff::SpanRelativeTo::days_are_24_hours();
    let total = span
        .total((jiff::Unit::Second, day))
        .map_err(|error| error.to_string())?;
    if (1.0..=3.2e9).contains(&total) {
        Ok(total as u64)
    } else {
        Err("a time is 1 second to 100 years".into())
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
        for (not_before, not_after, now) in [
            (10, 10, 0),
            (10, 9, 0),
            (10, 20, 20),
            (0, UNIX_TIME_MAX + 1, 0),
        ] {
            assert!(Window::new(not_before, not_after, now).is_err());
        }
    }

    #[test]
    fn reads_offsets_and_writes_utc() {
        let time: Time = serde_json::from_str("\"2026-11-22T21:00:00.9+01:00\"").expect("a time");
        assert_eq!(
            serde_json::to_string(&time).expect("text"),
            "\"2026-11-22T20:00:00Z\""
        );
        for bad in ["\"2026-11-22\"", "\"1969-12-31T23:59:59Z\"", "5", "\"now\""] {
            assert!(serde_json::from_str::<Time>(bad).is_err(), "{bad}");
        }
        assert_eq!(Time(UNIX_TIME_MAX).to_string(), "9999-12-30T21:59:59Z");
    }
}
