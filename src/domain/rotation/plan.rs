//! Plans: what is to come of the epochs that are there, and when those that follow begin.

use super::{active, of, rotates_at};
use crate::domain::epoch::{Epoch, EpochState};
use crate::domain::time::{UnixTime, Window};

/// The next time after `now` at which [`super::sweep`] may have something to do.
pub fn next_change(
    epochs: &[Epoch],
    now: UnixTime,
    rotate_every_s: Option<u64>,
) -> Option<UnixTime> {
    let times = epochs.iter().flat_map(|epoch| match epoch.state {
        EpochState::Active => vec![rotates_at(epoch, rotate_every_s), epoch.window.not_after],
        EpochState::Prepared => vec![epoch.window.not_before],
        EpochState::Retired | EpochState::Revoked => vec![],
    });
    times.filter(|at| *at > now).min()
}

/// Until when a token can go on as planned without the root: each of its epochs active for
/// `rotate_every_s` or until its window closes, and the next one's window open by then.
pub fn runway(
    epochs: &[Epoch],
    token: &str,
    now: UnixTime,
    rotate_every_s: Option<u64>,
) -> UnixTime {
    let mut prepared: Vec<_> = of(epochs, token)
        .filter(|epoch| epoch.state == EpochState::Prepared && epoch.window.not_after > now)
        .collect();
    prepared.sort_by_key(|epoch| (epoch.window.not_after, epoch.id));
    let (mut planned, mut open) = active(epochs, token).map_or((now, now), |epoch| {
        let planned = rotates_at(epoch, rotate_every_s);
        (planned.max(now), epoch.window.not_after.max(now))
    });
    for epoch in prepared {
        if epoch.window.not_before > open {
            break;
        }
        let begins = planned.max(epoch.window.not_before);
        let due = rotate_every_s.map_or(UnixTime::MAX, |every| begins.saturating_add(every));
        planned = planned.max(due.min(epoch.window.not_after));
        open = open.max(epoch.window.not_after);
    }
    planned
}

/// Windows for `count` epochs that follow those a token has: each begins `every_s` after the one
/// before it and is open for `overlap_s` longer. The first begins at `from`, or where the last one
/// that is planned leaves off: the token's, or any other's where it has none yet, so that siblings
/// go together.
pub fn next_windows(
    epochs: &[Epoch],
    token: &str,
    now: UnixTime,
    from: Option<UnixTime>,
    (count, every_s, overlap_s): (u32, u64, u64),
) -> Vec<Window> {
    let ends = |epoch: &Epoch| {
        let planned = epoch.window.not_before.saturating_add(every_s);
        planned.min(epoch.window.not_after.saturating_sub(overlap_s))
    };
    let goes_on = |epoch: &&Epoch| {
        let state = epoch.state;
        state == EpochState::Prepared || state == EpochState::Active
    };
    let own = of(epochs, token).filter(goes_on).map(ends).max();
    let last = own.or_else(|| epochs.iter().filter(goes_on).map(ends).max());
    let first = from.unwrap_or_else(|| last.unwrap_or(now).max(now));
    (0..u64::from(count))
        .map(|at| {
            let not_before = first.saturating_add(at.saturating_mul(every_s));
            Window {
                not_before,
                not_after: not_before.saturating_add(every_s).saturating_add(overlap_s),
            }
        })
        .collect()
}
