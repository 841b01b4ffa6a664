//! Time in a car: a clock that may be wrong, and what cannot be undone.

use crate::Refusal;

/// What a car's clock shows, and by how much it may be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Seconds since 1970-01-01T00:00:00Z.
    pub reading: u64,
    /// The present lies within this many seconds of the reading, before or
    /// after.
    pub uncertainty_s: u32,
}

impl Clock {
    /// What the present may be, if it is not before `known`: the newest time
    /// that anything verified has stated.
    #[must_use]
    pub const fn moment(self, known: u64) -> Moment {
        let uncertainty = self.uncertainty_s as u64;
        let earliest = self.reading.saturating_sub(uncertainty);
        let latest = self.reading.saturating_add(uncertainty);
        Moment {
            earliest: if earliest > known { earliest } else { known },
            latest: if latest > known { latest } else { known },
        }
    }
}

/// The present, as far as a car knows it: some second from `earliest` to
/// `latest`, both included. A car says yes only to what holds in all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The earliest second it may be, since 1970-01-01T00:00:00Z.
    pub earliest: u64,
    /// The latest second it may be; not before `earliest`.
    pub latest: u64,
}

impl Moment {
    /// Whether all of it lies in `not_before ≤ now < expires`.
    ///
    /// # Errors
    /// [`Refusal::NotYetValid`] or [`Refusal::Expired`].
    pub const fn check_within(self, not_before: u64, expires: u64) -> Result<(), Refusal> {
        if self.earliest < not_before {
            Err(Refusal::NotYetValid)
        } else if self.latest >= expires {
            Err(Refusal::Expired)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Clock, Moment};
    use crate::Refusal;

    #[test]
    fn a_moment_is_never_before_what_is_known() {
        let clock = Clock {
            reading: 1000,
            uncertainty_s: 100,
        };
        let moment = |known| {
            let moment = clock.moment(known);
            (moment.earliest, moment.latest)
        };
        assert_eq!(moment(0), (900, 1100));
        assert_eq!(moment(901), (901, 1100));
        assert_eq!(moment(5000), (5000, 5000));
        let ends = Clock {
            reading: u64::MAX,
            uncertainty_s: u32::MAX,
        };
        assert_eq!(ends.moment(0).latest, u64::MAX);
        let begins = Clock { reading: 3, ..ends };
        assert_eq!(begins.moment(0).earliest, 0);
    }

    #[test]
    fn all_of_a_moment_must_lie_in_a_window() {
        let within = |earliest, latest| Moment { earliest, latest }.check_within(10, 20);
        assert_eq!(within(10, 19), Ok(()));
        assert_eq!(within(9, 19), Err(Refusal::NotYetValid));
        assert_eq!(within(10, 20), Err(Refusal::Expired));
        assert_eq!(within(9, 20), Err(Refusal::NotYetValid));
    }
}
