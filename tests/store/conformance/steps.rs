//! Recorded steps: one after the other, whole or not at all.

use fob::domain::{Epoch, EpochState};
use fob::store::{Applied, RecordedStep, Row, Write};

use super::Place;
use crate::store::sample::*;

fn step(number: u64, epochs: Vec<Epoch>, trust: Option<u32>) -> Write {
    Write::Step(Box::new(RecordedStep {
        number,
        record: format!("record {number}").into(),
        epochs,
        trust: trust.map(|version| (version, [version as u8; 3].into())),
    }))
}

fn records(rows: &[Row]) -> Vec<u64> {
    let number = |row: &Row| match row {
        Row::Record(number, text) => {
            assert_eq!(**text, format!("record {number}"));
            Some(*number)
        }
        _ => None,
    };
    rows.iter().filter_map(number).collect()
}

pub(crate) fn records_follow_each_other<P: Place>() {
    let place = P::new();
    let store = place.open();
    use Applied::{Done, Stale};
    let writes = [2, 1, 1, 3, 2, 0, 3].map(|number| step(number, vec![], None));
    let answers = commit(&store, &writes);
    assert_eq!(answers, [Stale, Done, Stale, Stale, Done, Stale, Done]);
    assert_eq!(records(&loaded(&store)), [1, 2, 3]);
    drop(store);
    let store = place.open();
    assert_eq!(commit(&store, &[step(3, vec![], None)]), [Stale]);
    assert_eq!(commit(&store, &[step(4, vec![], None)]), [Done]);
}

pub(crate) fn a_token_has_one_active_epoch<P: Place>() {
    let place = P::new();
    let store = place.open();
    let with = |scalar, state, token: &str| Epoch {
        token_serial: token.into(),
        ..epoch(scalar, state)
    };
    use EpochState::{Active, Prepared, Retired};
    let first = with(1, Active, "a");
    done(
        &store,
        &[step(1, vec![first.clone(), with(2, Prepared, "a")], None)],
    );
    // A second one beside it; two at once; one that another step has retired meanwhile.
    for epochs in [
        vec![with(2, Active, "a")],
        vec![with(3, Active, "b"), with(4, Active, "b")],
    ] {
        assert_eq!(commit(&store, &[step(2, epochs, None)]), [Applied::Stale]);
    }
    let retired = with(1, Retired, "a");
    done(
        &store,
        &[step(2, vec![with(2, Active, "a"), retired.clone()], None)],
    );
    done(&store, &[step(3, vec![with(3, Active, "b")], None)]);
    let rows = loaded(&store);
    let epochs: Vec<_> = rows
        .iter()
        .filter_map(|row| match row {
            Row::Epoch(epoch) => Some((epoch.id, epoch.state)),
            _ => None,
        })
        .collect();
    let expected = [retired, with(2, Active, "a"), with(3, Active, "b")];
    assert_eq!(epochs, expected.map(|epoch| (epoch.id, epoch.state)));
}

pub(crate) fn a_step_is_written_whole_or_not_at_all<P: Place>() {
    let place = P::new();
    let store = place.open();
    done(
        &store,
        &[step(1, vec![epoch(9, EpochState::Active)], Some(7))],
    );
    let before = rows(&store);
    let refused = [
        // A version that is not new, and a number that is not next.
        step(2, vec![epoch(9, EpochState::Revoked)], Some(7)),
        step(3, vec![epoch(9, EpochState::Revoked)], Some(8)),
    ];
    assert_eq!(commit(&store, &refused), [Applied::Stale; 2]);
    assert_eq!(rows(&store), before);
    done(
        &store,
        &[step(2, vec![epoch(9, EpochState::Revoked)], Some(9))],
    );
    let after = loaded(&store);
    assert!(after.iter().any(|row| matches!(row, Row::TrustList(9, _))));
    assert_eq!(records(&after), [1, 2]);
}
