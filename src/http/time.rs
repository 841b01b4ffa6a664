//! Times in JSON: RFC 3339, UTC, whole seconds.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::domain::UnixTime;

/// A time, read from any RFC 3339 text and written in UTC with whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Time(pub(crate) UnixTime);

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
        let time: Timestamp = text
            .parse()
            .map_err(|_| de::Error::custom("a time is RFC 3339, as in 2026-11-22T20:00:00Z"))?;
        let seconds = u64::try_from(time.as_second())
            .map_err(|_| de::Error::custom("a time is not before 1970"))?;
        Ok(Self(seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_offsets_and_writes_utc() {
        let time: Time = serde_json::from_str("\"2026-11-22T21:00:00.9+01:00\"").expect("a time");
        assert_eq!(serde_json::to_string(&time).expect("text"), "\"2026-11-22T20:00:00Z\"");
        for bad in ["\"2026-11-22\"", "\"1969-12-31T23:59:59Z\"", "5", "\"now\""] {
            assert!(serde_json::from_str::<Time>(bad).is_err(), "{bad}");
        }
        assert_eq!(Time(crate::domain::time::UNIX_TIME_MAX).to_string(), "9999-12-31T23:59:59Z");
    }
}
