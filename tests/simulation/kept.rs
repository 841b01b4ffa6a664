//! Lists that are kept and tried in every run: meetings of two operations that must leave nothing
//! behind. They are tried several times, since the two do not always meet in the same way. A list
//! that proptest finds to fail comes here too, as it prints it.

use fob::domain::change::Action::{Cancel, Resume, Suspend};

use super::Op::{
    self, Act, Authorize, Change, OnIdentity, OnKey, OnVehicle, Rebind, Redeem, Reset,
};

/// How often each is tried.
pub(super) const TIMES: usize = 8;

/// Why each is kept, and its steps.
pub(super) fn all() -> Vec<(&'static str, Vec<(Op, Op)>)> {
    let issued = || [(Authorize(3), Authorize(5)), (Redeem(0), Redeem(1))];
    let then = |steps: &[(Op, Op)]| [&issued()[..], steps].concat();
    vec![
        (
            "keys of a redemption in flight while the authorization is changed",
            vec![(Authorize(3), Authorize(5)), (Redeem(0), Change(0, 1, 1))],
        ),
        (
            "keys of a redemption in flight at the epoch before",
            vec![(Authorize(3), Authorize(5)), (Redeem(0), Reset(None))],
        ),
        (
            "keys of a redemption in flight while what they hang on is suspended",
            vec![
                (Authorize(3), Authorize(5)),
                (Redeem(0), OnVehicle(Suspend)),
                (Redeem(1), OnIdentity(Suspend)),
                (OnVehicle(Resume), OnIdentity(Resume)),
            ],
        ),
        (
            "new keys that do not know of a suspension that came meanwhile",
            then(&[
                (OnVehicle(Suspend), Change(0, 1, 1)),
                (OnIdentity(Suspend), Rebind(1)),
                (OnVehicle(Resume), Reset(None)),
            ]),
        ),
        (
            "new keys of a function that was suspended by itself meanwhile",
            then(&[
                (OnKey(0, 1, Suspend), Change(0, 3, 1)),
                (OnKey(1, 3, Suspend), Rebind(1)),
                (OnKey(1, 3, Resume), Reset(None)),
            ]),
        ),
        (
            "keys that follow the one of two calls that was overtaken",
            then(&[
                (OnIdentity(Suspend), OnIdentity(Resume)),
                (OnVehicle(Resume), OnVehicle(Suspend)),
            ]),
        ),
        (
            "keys of the versions before the newest",
            then(&[
                (Change(0, 7, 1), Rebind(1)),
                (Act(0, Suspend), OnVehicle(Suspend)),
                (Act(0, Resume), OnVehicle(Resume)),
                (Act(0, Cancel), OnKey(1, 1, Cancel)),
            ]),
        ),
    ]
}
