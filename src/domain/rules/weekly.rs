//! Hours of the week, as people write them.

use fob_verify::window::{Recurring, WINDOWS_MAX, Window};
use serde::{Deserialize, Serialize};

use crate::domain::refusal::Refusal;

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// On these days, from this hour to that.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct WeeklyText {
    /// `mon` to `sun`: the days on which it begins.
    pub days: Vec<String>,
    /// From when, `HH:MM`.
    pub from: String,
    /// Until when, `HH:MM`; not after `from`, on the day after.
    pub until: String,
    /// Minutes by which these hours are ahead of UTC, −720 to 840.
    #[serde(default)]
    pub utc_offset_min: i16,
}

impl WeeklyText {
    fn check(&self) -> Option<Window> {
        let day = |name: &String| DAYS.iter().position(|day| day == name);
        let days: Option<Vec<_>> = self.days.iter().map(day).collect();
        let mask = days?.into_iter().fold(0, |mask, day| mask | 1 << day);
        let (from, until) = (minutes(&self.from)?, minutes(&self.until)?);
        Window::new(mask, from, until, self.utc_offset_min).ok()
    }
}

impl From<&Window> for WeeklyText {
    fn from(window: &Window) -> Self {
        let days = (0..7).filter(|day| window.weekdays() >> day & 1 == 1);
        let hours = |minutes: u16| format!("{:02}:{:02}", minutes / 60, minutes % 60);
        Self {
            days: days.map(|day| DAYS[day].into()).collect(),
            from: hours(window.start_min()),
            until: hours(window.end_min()),
            utc_offset_min: window.utc_offset_min(),
        }
    }
}

/// `HH:MM`, in minutes after midnight.
fn minutes(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |text: &str, most: u16| {
        let digits = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
        let number = digits.then(|| text.parse::<u16>().ok()).flatten()?;
        (number <= most).then_some(number)
    };
    Some(number(hours, 23)? * 60 + number(minutes, 59)?)
}

/// The windows of a week; `None` where there are none, which is always.
///
/// # Errors
/// `malformed`, naming `recurring`.
pub fn recurring(all: &[WeeklyText]) -> Result<Option<Recurring>, Refusal> {
    let refuse = || {
        Refusal::malformed(
            "recurring",
            "at most 16, each {days: [mon, …], from: HH:MM, until: HH:MM, utc_offset_min?}",
        )
    };
    if all.is_empty() {
        return Ok(None);
    }
    if all.len() > WINDOWS_MAX {
        return Err(refuse());
    }
    let windows: Option<Vec<_>> = all.iter().map(WeeklyText::check).collect();
    let recurring = Recurring::new(&windows.ok_or_else(refuse)?);
    recurring.map(Some).map_err(|_| refuse())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weekly(days: &[&str], from: &str, until: &str, utc_offset_min: i16) -> WeeklyText {
        WeeklyText {
            days: days.iter().map(|day| (*day).into()).collect(),
            from: from.into(),
            until: until.into(),
            utc_offset_min,
        }
    }

    #[test]
    fn hours_are_read_and_written_alike() {
        let text = weekly(&["mon", "fri"], "08:00", "18:30", -60);
        let read = recurring(std::slice::from_ref(&text))
            .expect("hours")
            .expect("some");
        let window = read.windows()[0];
        assert_eq!(
            (window.weekdays(), window.start_min(), window.end_min()),
            (0x11, 480, 1110)
        );
        assert_eq!(WeeklyText::from(&window), text);
        assert_eq!(recurring(&[]), Ok(None));
    }

    #[test]
    fn what_are_no_hours_is_refused() {
        assert!(recurring(&[weekly(&["sun"], "23:59", "00:00", 840)]).is_ok());
        for bad in [
            weekly(&[], "08:00", "18:00", 0),
            weekly(&["Mon"], "08:00", "18:00", 0),
            weekly(&["mon"], "24:00", "18:00", 0),
            weekly(&["mon"], "08:00", "24:00", 0),
            weekly(&["mon"], "08:60", "18:00", 0),
            weekly(&["mon"], "8:00", "18:00", 0),
            weekly(&["mon"], "+8:00", "18:00", 0),
            weekly(&["mon"], "08:00", "18:00", 841),
        ] {
            assert!(recurring(std::slice::from_ref(&bad)).is_err(), "{bad:?}");
        }
        let one = weekly(&["mon"], "08:00", "18:00", 0);
        assert!(recurring(&vec![one.clone(); 16]).is_ok());
        assert!(recurring(&vec![one; 17]).is_err());
    }
}
