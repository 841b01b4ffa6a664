//! What fleets rule.

use fob::store::{Applied, Row, Ruled, Ruling, Rulings, Store, Write};

use super::Place;
use crate::store::sample::*;

fn rule(fleet: fob::domain::FleetId, what: Ruling) -> Write {
    Write::Rule(Box::new(Rulings {
        fleet,
        at: 1_790_000_000,
        by: "anna".into(),
        why: Some("because".into()),
        what,
    }))
}

fn rules(version: u32, text: &str) -> Ruling {
    Ruling::Rules(version, text.into())
}

/// What fleets rule, as the store hands it on.
fn ruled(store: &impl Store) -> Vec<(fob::domain::FleetId, Ruled)> {
    let ruled = |row| match row {
        Row::Ruled(fleet, ruled) => Some((fleet, ruled)),
        _ => None,
    };
    loaded(store).into_iter().filter_map(ruled).collect()
}

pub(crate) fn rules_follow_each_other<P: Place>() {
    let place = P::new();
    let store = place.open();
    done(
        &store,
        &[
            Write::NewFleet(fleet(FLEET, "first", 1)),
            Write::NewFleet(fleet(OTHER_FLEET, "other", 2)),
        ],
    );
    let answers = commit(
        &store,
        &[
            rule(FLEET, rules(2, "{}")),
            rule(FLEET, rules(1, "{}")),
            rule(FLEET, rules(1, "{}")),
            rule(FLEET, rules(2, "{\"keys_per_day\":5}")),
            rule(OTHER_FLEET, rules(1, "{\"keys_per_day\":6}")),
            rule(fob::domain::FleetId([0xf3; 16]), rules(1, "{}")),
        ],
    );
    let expected = [
        Applied::Stale,
        Applied::Done,
        Applied::Stale,
        Applied::Done,
        Applied::Done,
        Applied::Stale,
    ];
    assert_eq!(answers, expected);
    drop(store);
    let newest = |version, text: &str| Ruled::Rules(version, text.into());
    assert_eq!(
        ruled(&place.open()),
        [
            (FLEET, newest(2, "{\"keys_per_day\":5}")),
            (OTHER_FLEET, newest(1, "{\"keys_per_day\":6}")),
        ]
    );
}
