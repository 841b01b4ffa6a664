//! Recurring windows: when in the week a key works.
//!
//! A window is `[weekday mask, start_min, end_min, utc_offset_min]`. Bit 0 of
//! the mask is Monday. The window opens on every day of the mask at
//! `start_min` minutes after local midnight and closes just before `end_min`.
//! When `end_min` is not after `start_min` the window runs past midnight and
//! closes at `end_min` of the next day; equal values make a window of 24
//! hours. The day of the mask is the day on which the window opens. Local
//! time is UTC plus a fixed offset: a verifier has no time zone database, so
//! there is no daylight saving time here.

use crate::Refusal;
use crate::cbor::{Reader, Write};

/// The most windows of one key.
pub const WINDOWS_MAX: usize = 16;

const DAY_MIN: i64 = 24 * 60;
const WEEK_S: u64 = 7 * 86_400;
const UTC_OFFSET_MIN: i32 = -12 * 60;
const UTC_OFFSET_MAX: i32 = 14 * 60;

/// 1970-01-01 was a Thursday; Monday is 0.
const WEEKDAY_OF_EPOCH: i64 = 3;

/// One recurring window, within its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    weekdays: u8,
    start_min: u16,
    end_min: u16,
    utc_offset_min: i16,
}

impl Window {
    /// A window that opens on the days of `weekdays` (bit 0 = Monday … bit 6
    /// = Sunday) at `start_min` and closes at `end_min`, both 0–1439 minutes
    /// after midnight at `utc_offset_min` minutes east of UTC (−720 to 840).
    ///
    /// # Errors
    /// [`Refusal::OutOfBounds`], a mask without a day included.
    pub fn new(
        weekdays: u8,
        start_min: u16,
        end_min: u16,
        utc_offset_min: i16,
    ) -> Result<Self, Refusal> {
        let minutes = 0..DAY_MIN;
        let offsets = UTC_OFFSET_MIN..=UTC_OFFSET_MAX;
        let sound = (1..=0x7f).contains(&weekdays)
            && minutes.contains(&i64::from(start_min))
            && minutes.contains(&i64::from(end_min))
            && offsets.contains(&i32::from(utc_offset_min));
        sound
            .then_some(Self {
                weekdays,
                start_min,
                end_min,
                utc_offset_min,
            })
            .ok_or(Refusal::OutOfBounds)
    }

    /// The days on which it opens, bit 0 = Monday.
    #[must_use]
    pub const fn weekdays(&self) -> u8 {
        self.weekdays
    }

    /// Minutes after local midnight at which it opens.
    #[must_use]
    pub const fn start_min(&self) -> u16 {
        self.start_min
    }

    /// Minutes after local midnight at which it is closed again.
    #[must_use]
    pub const fn end_min(&self) -> u16 {
        self.end_min
    }

    /// Minutes by which local time is ahead of UTC.
    #[must_use]
    pub const fn utc_offset_min(&self) -> i16 {
        self.utc_offset_min
    }

    /// Whether it is open at `now`, in seconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub fn is_open(&self, now: u64) -> bool {
        self.closes(now).is_some()
    }

    /// When it closes, in seconds since 1970-01-01T00:00:00Z, if it is open at
    /// `now`.
    fn closes(&self, now: u64) -> Option<u64> {
        let now = i64::try_from(now.min(crate::TIME_MAX)).unwrap_or(i64::MAX);
        let offset = i64::from(self.utc_offset_min);
        let local_min = (now / 60).saturating_add(offset);
        let day = local_min.div_euclid(DAY_MIN);
        let minute = local_min.rem_euclid(DAY_MIN);
        let (start, end) = (i64::from(self.start_min), i64::from(self.end_min));
        let last_day = if end > start {
            (self.opens_on(day) && (start..end).contains(&minute)).then_some(day)
        } else if self.opens_on(day) && minute >= start {
            Some(day.saturating_add(1))
        } else {
            (self.opens_on(day.saturating_sub(1)) && minute < end).then_some(day)
        };
        let local_end = last_day?.saturating_mul(DAY_MIN).saturating_add(end);
        u64::try_from(local_end.saturating_sub(offset).saturating_mul(60)).ok()
    }

    /// Whether it opens on this day, counted from 1970-01-01.
    fn opens_on(&self, day: i64) -> bool {
        let weekday = day.saturating_add(WEEKDAY_OF_EPOCH).rem_euclid(7);
        self.weekdays >> weekday & 1 == 1
    }

    fn write(&self, out: &mut impl Write) {
        out.array(4);
        out.uint(self.weekdays.into());
        out.uint(self.start_min.into());
        out.uint(self.end_min.into());
        out.int(self.utc_offset_min.into());
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Refusal> {
        reader.array(4, 4)?;
        let weekdays = reader.int_within(0, u8::MAX.into())?;
        let start_min = reader.int_within(0, u16::MAX.into())?;
        let end_min = reader.int_within(0, u16::MAX.into())?;
        let offset = reader.int_within(UTC_OFFSET_MIN, UTC_OFFSET_MAX)?;
        Self::new(
            u8::try_from(weekdays).map_err(|_| Refusal::OutOfBounds)?,
            u16::try_from(start_min).map_err(|_| Refusal::OutOfBounds)?,
            u16::try_from(end_min).map_err(|_| Refusal::OutOfBounds)?,
            i16::try_from(offset).map_err(|_| Refusal::OutOfBounds)?,
        )
    }
}

/// The recurring windows of a key: 1 to [`WINDOWS_MAX`] of them, and a key
/// works while any is open.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Recurring {
    windows: [Window; WINDOWS_MAX],
    count: usize,
}

impl Recurring {
    /// These windows.
    ///
    /// # Errors
    /// [`Refusal::WrongCount`] for none or too many.
    pub fn new(windows: &[Window]) -> Result<Self, Refusal> {
        let first = *windows.first().ok_or(Refusal::WrongCount)?;
        let mut all = [first; WINDOWS_MAX];
        all.get_mut(..windows.len())
            .ok_or(Refusal::WrongCount)?
            .copy_from_slice(windows);
        Ok(Self {
            windows: all,
            count: windows.len(),
        })
    }

    /// The windows, in the order of the key.
    #[must_use]
    pub fn windows(&self) -> &[Window] {
        self.windows.get(..self.count).unwrap_or(&[])
    }

    /// Whether any window is open at `now`, in seconds since
    /// 1970-01-01T00:00:00Z.
    #[must_use]
    pub fn is_open(&self, now: u64) -> bool {
        self.windows().iter().any(|window| window.is_open(now))
    }

    /// Whether at every moment from `earliest` to `latest`, both included,
    /// some window is open. Windows recur weekly, so a longer time than a week
    /// asks for no more than a week.
    #[must_use]
    pub fn is_open_throughout(&self, earliest: u64, latest: u64) -> bool {
        let latest = latest.min(earliest.saturating_add(WEEK_S));
        let mut now = earliest;
        // Every step but the last goes to the end of a window, and each window
        // ends at most eight times within a week.
        for _ in 0..=WINDOWS_MAX * 8 {
            let ends = self.windows().iter().filter_map(|w| w.closes(now));
            match ends.max() {
                None => return false,
                Some(end) if end > latest => return true,
                Some(end) => now = end,
            }
        }
        false
    }

    pub(crate) fn write(&self, out: &mut impl Write) {
        out.array(self.count);
        for window in self.windows() {
            window.write(out);
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Refusal> {
        let count = reader.array(1, WINDOWS_MAX)?;
        let first = Window::read(reader)?;
        let mut windows = [first; WINDOWS_MAX];
        for window in windows.iter_mut().take(count).skip(1) {
            *window = Window::read(reader)?;
        }
        Ok(Self { windows, count })
    }
}

impl core::fmt::Debug for Recurring {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.windows()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::{Recurring, WINDOWS_MAX, Window};
    use crate::Refusal;

    /// 2026-01-05T00:00:00Z, a Monday.
    const MONDAY: u64 = 1_767_571_200;
    const HOUR: u64 = 3600;
    const DAY: u64 = 24 * HOUR;

    #[test]
    fn a_working_week_in_berlin() {
        let window = Window::new(0b001_1111, 9 * 60, 17 * 60, 60).unwrap();
        for day in 0..5 {
            assert!(!window.is_open(MONDAY + day * DAY + 8 * HOUR - 1));
            assert!(window.is_open(MONDAY + day * DAY + 8 * HOUR));
            assert!(window.is_open(MONDAY + day * DAY + 16 * HOUR - 1));
            assert!(!window.is_open(MONDAY + day * DAY + 16 * HOUR));
        }
        assert!(!window.is_open(MONDAY + 5 * DAY + 12 * HOUR));
    }

    #[test]
    fn a_window_past_midnight_belongs_to_the_day_it_opens_on() {
        let friday_night = Window::new(0b001_0000, 22 * 60, 6 * 60, 0).unwrap();
        assert!(friday_night.is_open(MONDAY + 4 * DAY + 22 * HOUR));
        assert!(friday_night.is_open(MONDAY + 5 * DAY + 6 * HOUR - 1));
        assert!(!friday_night.is_open(MONDAY + 5 * DAY + 6 * HOUR));
        assert!(!friday_night.is_open(MONDAY + 4 * DAY + 5 * HOUR));
        assert!(!friday_night.is_open(MONDAY + 5 * DAY + 22 * HOUR));
    }

    #[test]
    fn equal_ends_make_24_hours_and_time_zero_does_not_wrap() {
        let sunday = Window::new(0b100_0000, 0, 0, 0).unwrap();
        assert!(sunday.is_open(MONDAY - 1));
        assert!(!sunday.is_open(MONDAY));
        let thursday_in_hawaii = Window::new(0b000_0100, 0, 0, -600).unwrap();
        assert!(thursday_in_hawaii.is_open(0));
        assert!(
            !thursday_in_hawaii.is_open(u64::MAX) || thursday_in_hawaii.is_open(crate::TIME_MAX)
        );
    }

    #[test]
    fn an_uncertain_moment_lies_in_windows_as_a_whole() {
        let morning = Window::new(0x7f, 8 * 60, 12 * 60, 0).unwrap();
        let noon = Window::new(0x7f, 12 * 60, 13 * 60, 0).unwrap();
        let night = Window::new(0x7f, 22 * 60, 8 * 60, 0).unwrap();
        let (eight, twelve) = (MONDAY + 8 * HOUR, MONDAY + 12 * HOUR);
        let one = Recurring::new(&[morning]).unwrap();
        assert!(one.is_open_throughout(eight, twelve - 1));
        assert!(!one.is_open_throughout(eight - 1, twelve - 1));
        assert!(!one.is_open_throughout(eight, twelve));
        // Open at both ends, and closed for most of the time between.
        assert!(!one.is_open_throughout(eight, eight + DAY));
        let touching = Recurring::new(&[noon, morning]).unwrap();
        assert!(touching.is_open_throughout(eight, twelve + HOUR - 1));
        assert!(!touching.is_open_throughout(eight, twelve + HOUR));
        let with_gap = Recurring::new(&[noon, morning, night]).unwrap();
        assert!(!with_gap.is_open_throughout(eight, eight + DAY));
        let day = Window::new(0x7f, 13 * 60, 22 * 60, 0).unwrap();
        let always = Recurring::new(&[noon, morning, night, day]).unwrap();
        assert!(always.is_open_throughout(eight, eight + 3650 * DAY));
        assert!(!always.is_open_throughout(u64::MAX, u64::MAX));
    }

    #[test]
    fn a_moment_is_open_as_often_as_every_minute_of_it() {
        let windows = [
            Window::new(0b010_1010, 600, 700, 330).unwrap(),
            Window::new(0b001_1111, 690, 60, -120).unwrap(),
            Window::new(0b100_0001, 0, 0, 0).unwrap(),
        ];
        let recurring = Recurring::new(&windows).unwrap();
        for start in (0..7 * 24 * 60).step_by(37) {
            let earliest = MONDAY + start * 60;
            for minutes in [0, 1, 61, 700, 1441] {
                let latest = earliest + minutes * 60;
                let each = (0..=minutes).all(|m| recurring.is_open(earliest + m * 60));
                assert_eq!(recurring.is_open_throughout(earliest, latest), each);
            }
        }
    }

    #[test]
    fn limits_hold() {
        for (days, start, end, offset) in [
            (0, 0, 1, 0),
            (0x80, 0, 1, 0),
            (1, 1440, 0, 0),
            (1, 0, 1440, 0),
            (1, 0, 1, -721),
            (1, 0, 1, 841),
        ] {
            assert_eq!(
                Window::new(days, start, end, offset),
                Err(Refusal::OutOfBounds)
            );
        }
        let window = Window::new(1, 0, 1, 0).unwrap();
        assert_eq!(Recurring::new(&[]), Err(Refusal::WrongCount));
        assert!(Recurring::new(&[window; WINDOWS_MAX]).is_ok());
        let many = [window; WINDOWS_MAX + 1];
        assert_eq!(Recurring::new(&many), Err(Refusal::WrongCount));
    }
}
