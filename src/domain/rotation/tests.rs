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

pub(crate) fn on(token: &str, id: u8, window: (UnixTime, UnixTime), state: EpochState) -> Epoch {
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
    // A token that has none yet begins with its siblings.
    let sibling = next_windows(&epochs, "other", 10, None, (2, 100, 20));
    assert_eq!(sibling, next_windows(&epochs, "t", 10, None, (2, 100, 20)));
}
