//! How epochs follow each other, as pure functions of the epochs and the time.
//!
//! Every rule is by token: of each token's epochs exactly one is active wherever one can be. A
//! function here says which epochs change, [`changed`] applies that and has the last word.

use std::collections::BTreeSet;

use super::epoch::{Epoch, EpochState};
use super::id::EpochId;
use super::refusal::{Refusal, RefusalCode};
use super::time::{UnixTime, Window};

mod plan;
#[cfg(test)]
pub(crate) mod tests;

pub use plan::{next_change, next_windows, runway};

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

fn refuse<T>(why: String) -> Result<T, Refusal> {
    Err(Refusal::new(RefusalCode::Malformed).detail(why))
}
