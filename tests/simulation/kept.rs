//! Lists that are kept and tried in every run. Each was found by the test beside it, while a rule of
//! the engine or of its store was broken, and fails whenever that rule is: the name says what it is
//! that must not be left behind. The two operations of a step do not always meet in the same way,
//! so each is tried several times. A list that is found to fail comes here too, as it is printed.

use fob::domain::change::Action::{Resume, Suspend};

use super::Op::{
    self, Act, Authorize, Change, OnIdentity, OnKey, OnVehicle, Rebind, Redeem, Reset,
};

/// How often each is tried.
pub(super) const TIMES: usize = 12;

/// Why each is kept, and its steps.
pub(super) fn all() -> Vec<(&'static str, Vec<(Op, Op)>)> {
    [in_flight(), issued_again(), suspended(), of_every_version()].concat()
}

/// Redemptions that are committed, or are not, while what they rest on changes.
fn in_flight() -> Vec<(&'static str, Vec<(Op, Op)>)> {
    vec![
        (
            "keys of a redemption that does not see a change",
            vec![(Authorize(1), Authorize(1)), (Change(0, 2, 1), Redeem(0))],
        ),
        (
            "keys of a redemption that does not see a suspension",
            vec![
                (Authorize(1), Authorize(1)),
                (Redeem(0), OnVehicle(Suspend)),
            ],
        ),
        (
            "keys of a redemption that an end does not see",
            vec![
                (Act(0, Suspend), Authorize(3)),
                (Authorize(3), Redeem(0)),
                (Redeem(1), Reset(Some(1))),
                (Authorize(1), Authorize(1)),
            ],
        ),
        (
            "keys of a redemption at the epoch before, after the reset",
            vec![(Authorize(1), Authorize(1)), (Redeem(0), Reset(None))],
        ),
        (
            // What it was shrunk to rarely fails: the more there is to sign, the longer a reset
            // takes from its look to its commit.
            "keys of a redemption at the epoch before, between the reset's look and its commit",
            vec![
                (Authorize(31), Authorize(31)),
                (Authorize(31), Authorize(31)),
                (Authorize(31), Authorize(1)),
                (Redeem(0), Redeem(1)),
                (Redeem(2), Redeem(3)),
                (Redeem(4), Redeem(0)),
                (Redeem(5), Reset(None)),
            ],
        ),
    ]
}

/// Keys issued again while what suspends them comes.
fn issued_again() -> Vec<(&'static str, Vec<(Op, Op)>)> {
    vec![
        (
            "new keys that do not know of their vehicle's suspension",
            vec![
                (Authorize(1), Redeem(0)),
                (Redeem(0), Authorize(1)),
                (Change(0, 1, 1), OnVehicle(Suspend)),
            ],
        ),
        (
            "new keys that do not know of their identity's suspension",
            vec![
                (Authorize(1), Authorize(1)),
                (Authorize(1), Redeem(6)),
                (Rebind(3), OnIdentity(Suspend)),
            ],
        ),
        (
            "new keys of a function that is suspended by itself",
            vec![
                (Authorize(15), Authorize(1)),
                (Redeem(0), Act(1, Suspend)),
                (Authorize(1), OnKey(2, 1, Suspend)),
                (Reset(None), Authorize(1)),
            ],
        ),
        (
            "new keys that do not know of their function's suspension",
            vec![
                (Authorize(15), Reset(None)),
                (OnKey(0, 1, Suspend), Redeem(0)),
                (OnKey(0, 1, Suspend), Reset(None)),
            ],
        ),
    ]
}

/// Suspensions and resumptions at the same moment.
fn suspended() -> Vec<(&'static str, Vec<(Op, Op)>)> {
    vec![(
        "keys that follow the one of two calls that was overtaken",
        vec![
            (Authorize(1), Authorize(1)),
            (Act(0, Resume), Redeem(0)),
            (OnIdentity(Suspend), OnIdentity(Resume)),
        ],
    )]
}

/// Versions before the newest.
fn of_every_version() -> Vec<(&'static str, Vec<(Op, Op)>)> {
    vec![
        (
            "keys for the phone before",
            vec![
                (Authorize(1), Authorize(1)),
                (Authorize(1), Reset(None)),
                (Redeem(3), Redeem(0)),
                (Rebind(3), OnKey(0, 2, Suspend)),
            ],
        ),
        (
            "keys of an older version that a rebinding forgets",
            vec![
                (Authorize(4), Authorize(1)),
                (Redeem(6), OnIdentity(Resume)),
                (Change(2, 4, 2), Rebind(6)),
            ],
        ),
        (
            "keys of an older version that an end forgets",
            vec![
                (Authorize(1), OnIdentity(Resume)),
                (Rebind(0), Change(0, 7, 1)),
                (OnKey(0, 1, Suspend), Redeem(0)),
                (Change(0, 1, 1), Authorize(1)),
                (Authorize(1), Reset(Some(2))),
                (OnVehicle(Suspend), Authorize(1)),
            ],
        ),
        (
            "keys of an older version that its function's suspension forgets",
            vec![
                (Authorize(6), Redeem(0)),
                (OnKey(0, 1, Suspend), Redeem(0)),
                (Change(0, 10, 2), Redeem(0)),
                (Authorize(1), OnKey(0, 2, Suspend)),
            ],
        ),
    ]
}
