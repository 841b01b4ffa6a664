//! How epochs follow each other, as pure functions of the epochs and the time.
//!
//! Every rule is by token: of each token's epochs exactly one is active wherever one can be. A
//! function here says which epochs change, [`changed`] applies that and has the last word.

use std::collections::BTreeSet;

use super::epoch::{Epoch, EpochState};
use super::id::EpochId;
use super::refusal::{Refusal, RefusalCode};
use super::time::{UnixTime, Window};

/// When epochs change by themselves, and when somebody is told that too few are prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// How long an epoch is active, in seconds; as long as its window is open where absent.
    pub rotate_every_s: Option<u64>,
    /// How much longer than that a window is open, in seconds: the time there is to put right a
    /// rotation that did not take place.
    pub overlap_s: u64,
    /// How long before the prepared epochs end to give the alarm, in seconds.
    pub warn_before_s: u64,
}

/// How long before its window closes an active epoch hands over to one that is ready, in seconds;
/// a tenth of the window where that is less.
const HAND_OVER_S: u64 = 60;

/// A step of an epoch's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which epoch.
    pub id: EpochId,
    /// What it becomes.
    pub to: EpochState,
}

/// The serial numbers of the tokens that have epochs.
pub fn tokens(epochs: &[Epoch]) -> BTreeSet<&str> {
    epochs
        .iter()
        .map(|epoch| epoch.token_serial.as_str())
        .collect()
}

fn of<'a>(epochs: &'a [Epoch], token: &'a str) -> impl Iterator<Item = &'a Epoch> {
    epochs
        .iter()
        .filter(move |epoch| epoch.token_serial == token)
}

/// The active epoch of a token. Of several, which there should not be, the one that began last.
pub fn active<'a>(epochs: &'a [Epoch], token: &'a str) -> Option<&'a Epoch> {
    of(epochs, token)
        .filter(|epoch| epoch.state == EpochState::Active)
        .max_by_key(|epoch| (epoch.activated_at, epoch.window.not_before, epoch.id))
}

/// The prepared epoch of a token that is to take over next: its window is open at `now`, and of
/// those it closes first.
pub fn ready<'a>(epochs: &'a [Epoch], token: &'a str, now: UnixTime) -> Option<&'a Epoch> {
    of(epochs, token)
        .filter(|epoch| epoch.state == EpochState::Prepared && epoch.window.contains(now))
        .min_by_key(|epoch| (epoch.window.not_after, epoch.id))
}

/// What has to happen to `epochs` at `now`.
///
/// An active epoch whose window has closed retires. So does one that was active for
/// `rotate_every_s`, or whose window is about to close, where another is ready. Where none is ready, an epoch whose window has closed
/// retires all the same: no vehicle would believe what it signs. Calling it again after its
/// changes were applied changes nothing more.
pub fn sweep(epochs: &[Epoch], now: UnixTime, rotate_every_s: Option<u64>) -> Vec<Change> {
    tokens(epochs)
        .into_iter()
        .flat_map(|token| sweep_token(epochs, token, now, rotate_every_s))
        .collect()
}

fn sweep_token(
    epochs: &[Epoch],
    token: &str,
    now: UnixTime,
    rotate_every_s: Option<u64>,
) -> Vec<Change> {
    let next = ready(epochs, token, now);
    let stays = active(epochs, token).filter(|epoch| {
        let due = rotates_at(epoch, rotate_every_s) <= now;
        epoch.window.contains(now) && !(due && next.is_some())
    });
    let mut changes = retire_all_but(epochs, token, stays.map(|epoch| epoch.id));
    if stays.is_none() {
        changes.extend(next.map(|epoch| to(epoch.id, EpochState::Active)));
    }
    changes
}

/// When an active epoch is to be followed by the next, if one is ready: by schedule, or shortly
/// before its window closes, so that no request meets the moment between the two.
fn rotates_at(epoch: &Epoch, rotate_every_s: Option<u64>) -> UnixTime {
    let Window {
        not_before,
        not_after,
    } = epoch.window;
    let since = epoch.activated_at.unwrap_or(not_before);
    let due = rotate_every_s.map_or(UnixTime::MAX, |every| since.saturating_add(every));
    let before_s = (not_after.saturating_sub(not_before) / 10).min(HAND_OVER_S);
    due.min(not_after.saturating_sub(before_s))
}

/// The next time after `now` at which [`sweep`] may have something to do.
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

fn to(id: EpochId, to: EpochState) -> Change {
    Change { id, to }
}

fn retire_all_but(epochs: &[Epoch], token: &str, stays: Option<EpochId>) -> Vec<Change> {
    of(epochs, token)
        .filter(|epoch| epoch.state == EpochState::Active && Some(epoch.id) != stays)
        .map(|epoch| to(epoch.id, EpochState::Retired))
        .collect()
}

fn find(epochs: &[Epoch], id: EpochId) -> Result<&Epoch, Refusal> {
    epochs.iter().find(|epoch| epoch.id == id).ok_or_else(|| {
        Refusal::new(RefusalCode::NotFound).detail("there is no such epoch; see `fob epoch list`")
    })
}

/// A prepared epoch becomes active, within its window; the one that was active retires.
///
/// # Errors
/// `not_found`, or `malformed` where it is not prepared or its window is not open.
pub fn activate(epochs: &[Epoch], id: EpochId, now: UnixTime) -> Result<Vec<Change>, Refusal> {
    let epoch = find(epochs, id)?;
    if epoch.state != EpochState::Prepared {
        let is = epoch.state.name();
        return refuse(format!("epoch {id} is {is}; only a prepared one activates"));
    }
    if !epoch.window.contains(now) {
        return refuse(format!("the window of epoch {id} is not open now"));
    }
    let mut changes = retire_all_but(epochs, &epoch.token_serial, None);
    changes.push(to(id, EpochState::Active));
    Ok(changes)
}

/// An epoch signs no more; what it signed still verifies. An active one is followed by the next
/// that is ready.
///
/// # Errors
/// `not_found`, or `malformed` where it is over already or none is ready to follow it.
pub fn retire(epochs: &[Epoch], id: EpochId, now: UnixTime) -> Result<Vec<Change>, Refusal> {
    let epoch = find(epochs, id)?;
    match epoch.state {
        EpochState::Prepared => Ok(vec![to(id, EpochState::Retired)]),
        EpochState::Active => match ready(epochs, &epoch.token_serial, now) {
            Some(next) => activate(epochs, next.id, now),
            None => refuse(format!(
                "epoch {id} is active and none is ready to follow it: `fob epoch rotate` makes one"
            )),
        },
        EpochState::Retired | EpochState::Revoked => {
            refuse(format!("epoch {id} is {} already", epoch.state.name()))
        }
    }
}

/// An epoch is no longer believed. An active one is followed by the next that is ready; where none
/// is, the caller has to bring one, see [`changed`].
///
/// # Errors
/// `not_found`, or `malformed` where it is revoked already.
pub fn revoke(epochs: &[Epoch], id: EpochId, now: UnixTime) -> Result<Vec<Change>, Refusal> {
    let epoch = find(epochs, id)?;
    let mut changes = match epoch.state {
        EpochState::Revoked => {
            return refuse(format!(
                "epoch {id} is revoked already; with `--reissue` what of it is live is signed again"
            ));
        }
        EpochState::Active => ready(epochs, &epoch.token_serial, now)
            .map(|next| to(next.id, EpochState::Active))
            .into_iter()
            .collect(),
        EpochState::Prepared | EpochState::Retired => Vec::new(),
    };
    changes.push(to(id, EpochState::Revoked));
    Ok(changes)
}

/// The epochs that `changes` changes, as they are then, beside `new` ones.
///
/// # Errors
/// `malformed` where afterwards a token had two active epochs, or none though one could be: then
/// nothing is to be changed.
pub fn changed(
    epochs: &[Epoch],
    changes: &[Change],
    new: Vec<Epoch>,
    now: UnixTime,
) -> Result<Vec<Epoch>, Refusal> {
    let mut touched = new;
    for change in changes {
        let mut epoch = find(epochs, change.id)?.clone();
        epoch.state = change.to;
        if change.to == EpochState::Active {
            epoch.activated_at = Some(now);
        }
        touched.push(epoch);
    }
    check(&after(epochs, &touched), &touched, now)?;
    Ok(touched)
}

/// `epochs`, with those of `touched` in place of what they were or beside them.
pub fn after(epochs: &[Epoch], touched: &[Epoch]) -> Vec<Epoch> {
    let stays = |epoch: &&Epoch| touched.iter().all(|one| one.id != epoch.id);
    epochs
        .iter()
        .filter(stays)
        .chain(touched)
        .cloned()
        .collect()
}

/// Whether of the epochs of each token that `touched` is about exactly one is active, or none where
/// none could be.
///
/// # Errors
/// `malformed`, naming the token.
pub fn check(epochs: &[Epoch], touched: &[Epoch], now: UnixTime) -> Result<(), Refusal> {
    for token in tokens(touched) {
        let count = of(epochs, token)
            .filter(|epoch| epoch.state == EpochState::Active)
            .count();
        if count > 1 {
            return refuse(format!("token {token} would have {count} active epochs"));
        }
        if count == 0 && ready(epochs, token, now).is_some() {
            return refuse(format!("token {token} would have no active epoch"));
        }
    }
    Ok(())
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
/// that is planned leaves off.
pub fn next_windows(
    epochs: &[Epoch],
    token: &str,
    now: UnixTime,
    from: Option<UnixTime>,
    (count, every_s, overlap_s): (u32, u64, u64),
) -> Vec<Window> {
    let last = of(epochs, token)
        .filter(|epoch| matches!(epoch.state, EpochState::Prepared | EpochState::Active))
        .map(|epoch| {
            let planned = epoch.window.not_before.saturating_add(every_s);
            planned.min(epoch.window.not_after.saturating_sub(overlap_s))
        })
        .max();
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

fn refuse<T>(why: String) -> Result<T, Refusal> {
    Err(Refusal::new(RefusalCode::Malformed).detail(why))
}

#[cfg(test)]
mod tests {
    use EpochState::{Active, Prepared, Retired, Revoked};
    use fob_verify::IssuerKey;

    use super::*;

    /// Any key: the rule does not look at it.
    fn key() -> IssuerKey {
        // The public key of RFC 8032 §7.1, test 1.
        let hex = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        let byte = |at: usize| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("hex");
        IssuerKey::new_ed25519(&std::array::from_fn(byte)).expect("a point")
    }

    fn on(token: &str, id: u8, window: (UnixTime, UnixTime), state: EpochState) -> Epoch {
        let (not_before, not_after) = window;
        Epoch {
            id: EpochId([id; 8]),
            key: key(),
            cka_id: [id; 16],
            token_serial: token.into(),
            window: Window {
                not_before,
                not_after,
            },
            state,
            created_at: 0,
            activated_at: (state != Prepared).then_some(not_before),
        }
    }

    fn epoch(id: u8, not_before: UnixTime, not_after: UnixTime, state: EpochState) -> Epoch {
        on("t", id, (not_before, not_after), state)
    }

    fn apply(epochs: &mut Vec<Epoch>, now: UnixTime, every: Option<u64>) -> Vec<EpochState> {
        let changes = sweep(epochs, now, every);
        let touched = changed(epochs, &changes, Vec::new(), now).expect("a sweep keeps the rule");
        *epochs = after(epochs, &touched);
        epochs.sort_by_key(|epoch| epoch.id);
        assert!(
            sweep(epochs, now, every).is_empty(),
            "a second sweep changes nothing"
        );
        epochs.iter().map(|epoch| epoch.state).collect()
    }

    #[test]
    fn the_next_takes_over_when_the_window_closes() {
        let mut epochs = vec![
            epoch(1, 0, 100, Active),
            epoch(2, 50, 200, Prepared),
            epoch(3, 50, 300, Prepared),
        ];
        assert_eq!(apply(&mut epochs, 89, None), [Active, Prepared, Prepared]);
        assert_eq!(apply(&mut epochs, 90, None), [Retired, Active, Prepared]);
        assert_eq!(apply(&mut epochs, 200, None), [Retired, Retired, Active]);
        assert_eq!(apply(&mut epochs, 299, None), [Retired, Retired, Active]);
        assert_eq!(apply(&mut epochs, 300, None), [Retired, Retired, Retired]);
    }

    #[test]
    fn by_schedule_each_is_active_for_its_time_and_the_last_stays() {
        let every = Some(30);
        let mut epochs = vec![
            epoch(1, 0, 100, Active),
            epoch(2, 0, 100, Prepared),
            epoch(3, 80, 190, Prepared),
        ];
        assert_eq!(apply(&mut epochs, 29, every), [Active, Prepared, Prepared]);
        assert_eq!(apply(&mut epochs, 35, every), [Retired, Active, Prepared]);
        assert_eq!(apply(&mut epochs, 64, every), [Retired, Active, Prepared]);
        // Due, but nobody is ready yet: it stays while its window is open.
        assert_eq!(apply(&mut epochs, 79, every), [Retired, Active, Prepared]);
        assert_eq!(apply(&mut epochs, 80, every), [Retired, Retired, Active]);
        assert_eq!(apply(&mut epochs, 189, every), [Retired, Retired, Active]);
    }

    #[test]
    fn tokens_go_their_own_ways() {
        let mut epochs = vec![
            on("a", 1, (0, 100), Active),
            on("b", 2, (0, 300), Active),
            on("a", 3, (50, 200), Prepared),
            on("b", 4, (50, 200), Prepared),
        ];
        let states = apply(&mut epochs, 100, None);
        assert_eq!(states, [Retired, Active, Active, Prepared]);
        let changes = activate(&epochs, EpochId([4; 8]), 100).expect("it is ready");
        let touched = changed(&epochs, &changes, Vec::new(), 100).expect("one for each token");
        epochs = after(&epochs, &touched);
        epochs.sort_by_key(|epoch| epoch.id);
        let states: Vec<_> = epochs.iter().map(|epoch| epoch.state).collect();
        assert_eq!(states, [Retired, Retired, Active, Active]);
    }

    #[test]
    fn each_token_has_an_active_epoch_of_its_own() {
        let mut epochs = vec![
            on("a", 1, (0, 100), Active),
            on("b", 2, (10, 100), Active),
            on("c", 3, (10, 100), Prepared),
        ];
        let lone = [to(EpochId([1; 8]), Retired)];
        let touched = changed(&epochs, &lone, Vec::new(), 20);
        assert!(touched.is_ok(), "what waits in another token is no reason");
        assert!(check(&epochs, &epochs, 20).is_err());
        assert_eq!(apply(&mut epochs, 20, None), [Active, Active, Active]);
    }

    #[test]
    fn two_active_become_one_and_revoked_ones_stay_revoked() {
        let mut epochs = vec![
            epoch(1, 0, 100, Active),
            epoch(2, 10, 100, Active),
            epoch(3, 0, 100, Revoked),
        ];
        assert!(check(&epochs, &epochs, 20).is_err());
        assert_eq!(apply(&mut epochs, 20, None), [Retired, Active, Revoked]);
    }

    #[test]
    fn a_change_that_would_leave_none_active_is_not_made() {
        let epochs = [epoch(1, 0, 100, Active), epoch(2, 0, 200, Prepared)];
        let lone = [Change {
            id: EpochId([1; 8]),
            to: Retired,
        }];
        assert!(changed(&epochs, &lone, Vec::new(), 50).is_err());
        let two = [Change {
            id: EpochId([2; 8]),
            to: Active,
        }];
        assert!(changed(&epochs, &two, Vec::new(), 50).is_err());
        assert!(retire(&epochs[..1], EpochId([1; 8]), 50).is_err());
        assert_eq!(
            retire(&epochs, EpochId([1; 8]), 50).map(|it| it.len()),
            Ok(2)
        );
        assert!(activate(&epochs, EpochId([2; 8]), 200).is_err(), "closed");
        assert!(activate(&epochs, EpochId([1; 8]), 50).is_err(), "active");
        assert!(activate(&epochs, EpochId([9; 8]), 50).is_err(), "unknown");
        let changes = revoke(&epochs, EpochId([1; 8]), 50).expect("another is ready");
        assert_eq!(changes.len(), 2);
        assert!(changed(&epochs, &changes, Vec::new(), 50).is_ok());
    }

    #[test]
    fn the_runway_ends_where_the_chain_of_windows_breaks() {
        let epochs = [
            epoch(1, 0, 100, Active),
            epoch(2, 80, 200, Prepared),
            epoch(3, 180, 300, Prepared),
            epoch(4, 310, 400, Prepared),
        ];
        assert_eq!(runway(&epochs, "t", 50, None), 300);
        assert_eq!(next_change(&epochs, 50, None), Some(80));
        assert_eq!(next_change(&epochs[..1], 50, None), Some(90));
        assert_eq!(runway(&epochs, "t", 50, Some(80)), 180 + 80);
        assert_eq!(runway(&epochs[..1], "t", 50, Some(30)), 50, "overdue");
        assert_eq!(runway(&[], "t", 50, None), 50);
    }

    #[test]
    fn windows_follow_what_is_planned() {
        let epochs = [epoch(1, 0, 1000, Active)];
        let windows = next_windows(&epochs, "t", 10, None, (2, 100, 20));
        let as_pairs: Vec<_> = windows
            .iter()
            .map(|w| (w.not_before, w.not_after))
            .collect();
        assert_eq!(as_pairs, [(100, 220), (200, 320)]);
        let windows = next_windows(&epochs, "t", 10, None, (1, 2000, 20));
        assert_eq!(windows[0].not_before, 980, "before the last one closes");
        let windows = next_windows(&epochs, "t", 10, Some(10), (1, 5, 1));
        assert_eq!(windows[0].not_after, 16);
        assert_eq!(
            next_windows(&[], "t", 10, None, (1, 5, 1))[0].not_before,
            10
        );
    }
}
