//! The registry's and the operators' writes.

use std::sync::Arc;

use fob::domain::change::{Followed, Registered};
use fob::domain::{Attested, AuthorizationId, EpochState, FleetId, Hold, Licence, Status, TokenId};
use fob::store::{
    AmendRequest, Applied, Attestation, BundleKey, Erasure, Member, Request, Rotation, Row, Store,
    Suspension, Write,
};
use fob_verify::HolderKey;

use super::Place;
use crate::store::sample::*;

pub(crate) fn settings_are_fixed<P: Place>() {
    let place = P::new();
    let store = place.open();
    let set = |value: &str| Write::Setting("issuer".into(), value.into());
    let answers = commit(&store, &[set("a"), set("a"), set("b"), set("a")]);
    assert_eq!(
        answers,
        [
            Applied::Done,
            Applied::Done,
            Applied::Conflict,
            Applied::Done
        ]
    );
    assert_eq!(rows(&store), [r#"Setting("issuer", "a")"#]);
}

pub(crate) fn fleets_are_unique<P: Place>() {
    let place = P::new();
    let store = place.open();
    done(&store, &[Write::NewFleet(fleet(FLEET, "first", 1))]);
    for taken in [
        fleet(FLEET, "b", 2),
        fleet(OTHER_FLEET, "first", 2),
        fleet(OTHER_FLEET, "b", 1),
    ] {
        assert_eq!(
            commit(&store, &[Write::NewFleet(taken)]),
            [Applied::Conflict]
        );
    }
    done(
        &store,
        &[Write::NewFleet(fleet(OTHER_FLEET, "b", u32::MAX))],
    );
    assert_eq!(loaded(&store).len(), 2);
}

pub(crate) fn a_function_keeps_its_meaning<P: Place>() {
    let place = P::new();
    let store = place.open();
    done(
        &store,
        &[
            Write::NewFleet(fleet(FLEET, "first", 1)),
            Write::NewFleet(fleet(OTHER_FLEET, "other", 2)),
        ],
    );
    let define = |fleet, code, name: &str| Write::Function(fleet, code, name.into());
    let answers = commit(
        &store,
        &[
            define(FLEET, 256, "crane.lift"),
            define(FLEET, 256, "crane.lift"),
            define(FLEET, 256, "crane.drop"),
            define(FLEET, 257, "crane.lift"),
            define(OTHER_FLEET, 256, "crane.drop"),
        ],
    );
    let expected = [
        Applied::Done,
        Applied::Done,
        Applied::Conflict,
        Applied::Conflict,
        Applied::Done,
    ];
    assert_eq!(answers, expected);
}

pub(crate) fn a_vehicle_keeps_epoch_and_status<P: Place>() {
    let place = P::new();
    let store = place.open();
    done(&store, &world());
    done(&store, &[suspend_vehicle("V-1")]);
    let mut again = vehicle("V-1");
    (again.epoch, again.status) = (9, Status::Active);
    (again.model, again.key) = ("other".into(), None);
    again.functions = vec![];
    done(&store, &[Write::Vehicle(again.clone())]);
    for owner in [None, Some(identity_id("anna"))] {
        let taken = Write::Vehicle(fob::domain::Vehicle {
            owner,
            ..again.clone()
        });
        assert_eq!(commit(&store, &[taken]), [Applied::Conflict]);
    }
    (again.epoch, again.status) = (4, Status::Suspended);
    let found = loaded(&store).into_iter().find_map(|row| match row {
        Row::Vehicle(vehicle) if vehicle.id == again.id => Some(vehicle),
        _ => None,
    });
    assert_eq!(found, Some(again));
}

pub(crate) fn an_identity_is_replaced_whole<P: Place>() {
    let place = P::new();
    let store = place.open();
    done(&store, &world());
    let mut anna = identity("anna");
    anna.status = Status::Suspended;
    anna.licences = vec![
        Licence {
            class: "B".into(),
            expires: 1,
        },
        Licence {
            class: "".into(),
            expires: 0,
        },
    ];
    for hold in [Some(Hold::Payment), Some(Hold::Insurance), None] {
        anna.hold = hold;
        done(&store, &[Write::Identity(anna.clone())]);
        let found = loaded(&store).into_iter().find_map(|row| match row {
            Row::Identity(identity) if identity.id == anna.id => Some(identity),
            _ => None,
        });
        assert_eq!(found.as_ref(), Some(&anna));
    }
}

pub(crate) fn a_terminal_keeps_its_status<P: Place>() {
    let place = P::new();
    let store = place.open();
    done(&store, &world());
    let mut tablet = terminal("tablet", "anna");
    tablet.status = Status::Suspended;
    done(&store, &[Write::Terminal(tablet.clone())]);
    tablet.key = HolderKey::new(ed25519());
    tablet.identity = identity_id("ben");
    done(
        &store,
        &[Write::Terminal(fob::domain::Terminal {
            status: Status::Active,
            ..tablet.clone()
        })],
    );
    let found = loaded(&store).into_iter().find_map(|row| match row {
        Row::Terminal(terminal) if terminal.id == tablet.id => Some(terminal),
        _ => None,
    });
    assert_eq!(found, Some(tablet));
}

pub(crate) fn what_is_new_is_taken_once<P: Place>() {
    let place = P::new();
    let store = place.open();
    done(&store, &world());
    let mut held = identity("new");
    held.hold = Some(Hold::Payment);
    let mut other = vehicle("NEW");
    other.model = "Other".into();
    let members = [
        Member::Identity(identity("new")),
        Member::Identity(held),
        Member::Vehicle(vehicle("NEW")),
        Member::Vehicle(other),
        Member::Terminal(terminal("new-phone", "new")),
        Member::Terminal(terminal("new-phone", "ben")),
    ];
    let writes: Vec<_> = members.into_iter().map(Write::New).collect();
    // In one transaction a later one finds what an earlier one has made; so does another.
    let (first, later) = (Applied::Done, Applied::Conflict);
    let expected = [first, later, first, later, first, later];
    assert_eq!(commit(&store, &writes), expected);
    assert_eq!(commit(&store, &writes), [later; 6]);
    let (mut identities, mut vehicles, mut terminals) = (Vec::new(), Vec::new(), Vec::new());
    for row in loaded(&store) {
        match row {
            Row::Identity(it) if it.id == identity_id("new") => identities.push(it),
            Row::Vehicle(it) if it.id.as_str() == "NEW" => vehicles.push(it),
            Row::Terminal(it) if it.id.as_str() == "new-phone" => terminals.push(it),
            _ => {}
        }
    }
    assert_eq!(identities, [identity("new")]);
    assert_eq!(vehicles, [vehicle("NEW")]);
    assert_eq!(terminals, [terminal("new-phone", "new")]);
    // What is there may be replaced all the same, and a fleet that is not there has nothing new.
    done(&store, &[Write::Identity(identity("new"))]);
    let mut lost = identity("lost");
    lost.fleet = FleetId([9; 16]);
    let stale = commit(&store, &[Write::New(Member::Identity(lost))]);
    assert_eq!(stale, [Applied::Stale]);
}

pub(crate) fn what_is_erased_leaves_its_bundles_to_another_name<P: Place>() {
    let place = P::new();
    let store = place.open();
    done(&store, &world());
    let given = authorization(1);
    done(&store, &[authorize(given.clone()), redeem(&given)]);
    let key = BundleKey::Authorization(given.id);
    let before = store.bundle(key).unwrap().unwrap();
    let (old, new) = (before.bundle.identity.clone(), identity_id("erased-1"));
    assert!(!store.held_by(FLEET, &old).unwrap().is_empty());
    let erase = Write::Erase(Erasure {
        fleet: FLEET,
        id: old.clone(),
        becomes: new.clone(),
    });
    // In the same transaction: what was put before goes with it, what comes after is somebody new.
    let somebody = identity(old.as_str());
    let put = |it: &fob::domain::Identity| Write::Identity(it.clone());
    let pad = Write::Terminal(terminal("pad", old.as_str()));
    done(
        &store,
        &[pad, put(&somebody), erase.clone(), put(&somebody)],
    );
    let found = |store: &P::Store| {
        let (mut names, mut terminals) = (Vec::new(), Vec::new());
        for row in loaded(store) {
            match row {
                Row::Identity(it) if it.id == old => {
                    assert_eq!(it, somebody);
                    names.push(it.id);
                }
                Row::Identity(it) if it.id == new => {
                    assert_eq!((it.status, it.hold), (Status::Suspended, None));
                    assert!(it.licences.is_empty());
                    names.push(it.id);
                }
                Row::Terminal(it) if it.identity == old => terminals.push(it.id),
                _ => {}
            }
        }
        names.sort();
        (names, terminals)
    };
    let mut both = vec![old.clone(), new.clone()];
    both.sort();
    assert_eq!(found(&store), (both.clone(), vec![]));
    let mut after = store.bundle(key).unwrap().unwrap();
    assert_eq!(after.bundle.identity, new);
    after.bundle.identity = old.clone();
    assert_eq!(after, before, "all else is as it was");
    assert!(store.held_by(FLEET, &old).unwrap().is_empty());
    assert_eq!(store.held_by(FLEET, &new).unwrap(), [given.id]);
    drop(store);
    assert_eq!(found(&place.open()), (both, vec![]));
    let store = place.open();
    let nobody = Write::Erase(Erasure {
        fleet: FLEET,
        id: identity_id("nobody"),
        becomes: identity_id("erased-2"),
    });
    assert_eq!(commit(&store, &[nobody]), [Applied::Stale]);
}

#[expect(clippy::too_many_lines, reason = "a table of attempts")]
pub(crate) fn a_terminal_is_vouched_for_by_one_that_may<P: Place>() {
    let place = P::new();
    let store = place.open();
    done(&store, &world());
    let attest = |id: &str, by: &str, of: &str, scope: u8, digest: u8| {
        Write::Attest(Box::new(Attestation {
            terminal: fob::domain::Terminal {
                attested: Some(Box::new(Attested {
                    by: terminal_id(by),
                    at: 77,
                })),
                ..terminal(id, of)
            },
            request: AmendRequest {
                request: Request {
                    scope: [scope; 32],
                    digest: [digest; 32],
                },
                command: Some("header.command.signature".into()),
                made_at: 77,
                outcome: vec![1],
            },
        }))
    };
    let suspend = |of: Registered, status| {
        Write::Suspend(Arc::new(Suspension {
            fleet: FLEET,
            of,
            status,
            by: None,
            request: None,
        }))
    };
    let phone = |status| suspend(Registered::Terminal(terminal_id("phone")), status);
    let ben = |status| suspend(Followed::Identity(identity_id("ben")).into(), status);
    let writes = [
        attest("next", "phone", "ben", 1, 1),
        attest("next", "phone", "ben", 1, 1),
        attest("other", "phone", "ben", 1, 2),
        attest("next", "phone", "ben", 2, 1),
        attest("annas", "phone", "anna", 3, 1),
        attest("nobodys", "absent", "ben", 4, 1),
        attest("itself", "itself", "ben", 5, 1),
        phone(Status::Suspended),
        attest("late", "phone", "ben", 6, 1),
        attest("by-next", "next", "ben", 7, 1),
        phone(Status::Active),
        ben(Status::Suspended),
        attest("later", "phone", "ben", 8, 1),
        ben(Status::Active),
        attest("late", "phone", "ben", 6, 1),
    ];
    let (yes, no) = (Applied::Done, Applied::Stale);
    let again = Applied::Repeated(AuthorizationId([0; 16]));
    let expected = [
        yes,
        again,
        Applied::Conflict,
        no,
        no,
        no,
        no,
        yes,
        no,
        yes,
        yes,
        yes,
        no,
        yes,
        yes,
    ];
    assert_eq!(commit(&store, &writes), expected);
    drop(store);
    let found: Vec<_> = loaded(&place.open())
        .into_iter()
        .filter_map(|row| match row {
            Row::Terminal(it) => Some((it.id, it.attested.map(|it| (it.by, it.at)))),
            _ => None,
        })
        .collect();
    let by = |id: &str, by: &str| (terminal_id(id), Some((terminal_id(by), 77)));
    let expected = [
        by("by-next", "next"),
        by("late", "phone"),
        by("next", "phone"),
        (terminal_id("phone"), None),
    ];
    let mut found = found;
    found.sort_unstable();
    assert_eq!(found, expected);
    // Described by the fleet, it is the fleet's.
    let store = place.open();
    done(&store, &[Write::Terminal(terminal("next", "ben"))]);
    let fleets = loaded(&store).into_iter().any(|row| match row {
        Row::Terminal(it) => it.id == terminal_id("next") && it.attested.is_none(),
        _ => false,
    });
    assert!(fleets);
}

/// Expiry, end and last use of a token, as loaded.
fn token_times(store: &impl Store, id: u8) -> Option<[Option<u64>; 3]> {
    loaded(store).into_iter().find_map(|row| match row {
        Row::Token(it) if it.id == token(id).id => Some([it.expires_at, it.revoked_at, it.used_at]),
        _ => None,
    })
}

pub(crate) fn a_token_takes_the_place_of_another<P: Place>() {
    let place = P::new();
    let store = place.open();
    done(&store, &[Write::NewFleet(fleet(FLEET, "first", 1))]);
    done(&store, &[Write::NewFleet(fleet(OTHER_FLEET, "other", 2))]);
    let forever = fob::domain::Token {
        expires_at: None,
        ..token(1)
    };
    let short = fob::domain::Token {
        expires_at: Some(50),
        ..token(2)
    };
    done(&store, &[Write::NewToken(forever), Write::NewToken(short)]);
    let rotate = |before: u8, ends, new: u8| {
        Write::RotateToken(Box::new(Rotation {
            before: token(before).id,
            ends,
            token: token(new),
        }))
    };
    let elsewhere = Write::RotateToken(Box::new(Rotation {
        before: token(1).id,
        ends: 1,
        token: fob::domain::Token {
            fleet: OTHER_FLEET,
            ..token(9)
        },
    }));
    let answers = commit(
        &store,
        &[
            elsewhere,
            rotate(8, 70, 9),
            rotate(1, 70, 2),
            rotate(1, 70, 3),
            rotate(2, 70, 4),
            Write::RevokeToken(FLEET, token(4).id, 60),
            rotate(4, 70, 5),
        ],
    );
    let (yes, no) = (Applied::Done, Applied::Stale);
    assert_eq!(answers, [no, no, Applied::Conflict, yes, yes, yes, no]);
    drop(store);
    let store = place.open();
    let expires = |id| token_times(&store, id).map(|[expires, ..]| expires);
    assert_eq!(expires(1), Some(Some(70)));
    assert_eq!(expires(2), Some(Some(50)), "it ends before that itself");
    assert_eq!(expires(3), Some(token(3).expires_at));
    assert_eq!((expires(5), expires(9)), (None, None));
}

pub(crate) fn tokens_are_noted_as_used<P: Place>() {
    let place = P::new();
    let store = place.open();
    done(&store, &[Write::NewFleet(fleet(FLEET, "first", 1))]);
    done(&store, &[1, 2].map(|id| Write::NewToken(token(id))));
    let used = |all: &[(u8, u64)]| {
        let all = all.iter().map(|(id, at)| (token(*id).id, *at));
        Write::TokensUsed(all.collect())
    };
    // One that is not there is nobody's.
    done(
        &store,
        &[used(&[(1, 70), (7, 70)]), used(&[(1, 60), (2, 80)])],
    );
    drop(store);
    let store = place.open();
    let last = |id| token_times(&store, id).map(|[.., used]| used);
    assert_eq!((last(1), last(2)), (Some(Some(70)), Some(Some(80))));
    assert_eq!(last(7), None);
}

pub(crate) fn tokens_end_once<P: Place>() {
    let place = P::new();
    let store = place.open();
    done(
        &store,
        &[
            Write::NewFleet(fleet(FLEET, "first", 1)),
            Write::NewFleet(fleet(OTHER_FLEET, "other", 2)),
        ],
    );
    let mut kept = token(1);
    kept.expires_at = Some(900);
    let id = kept.id;
    let answers = commit(
        &store,
        &[
            Write::NewToken(kept.clone()),
            Write::NewToken(token(1)),
            Write::RevokeToken(OTHER_FLEET, id, 60),
            Write::RevokeToken(FLEET, TokenId([2; 16]), 60),
            Write::RevokeToken(FLEET, id, 70),
            Write::RevokeToken(FLEET, id, 80),
        ],
    );
    use Applied::{Conflict, Done, Stale};
    assert_eq!(answers, [Done, Conflict, Stale, Stale, Done, Done]);
    kept.revoked_at = Some(70);
    assert_eq!(
        rows(&store).last(),
        Some(&format!("{:?}", Row::Token(kept)))
    );
}

pub(crate) fn epochs_go_on<P: Place>() {
    let place = P::new();
    let store = place.open();
    let mut one = epoch(9, EpochState::Prepared);
    for state in EpochState::ALL {
        one.state = state;
        one.window.not_after += 1;
        done(&store, &[Write::Epoch(one.clone())]);
        assert_eq!(rows(&store), [format!("{:?}", Row::Epoch(one.clone()))]);
    }
    let mut second = epoch(10, EpochState::Active);
    second.key = fob_verify::IssuerKey::new(fob_verify::Algorithm::Ed25519, ed25519()).unwrap();
    done(&store, &[Write::Epoch(second.clone())]);
    assert_eq!(rows(&store)[1], format!("{:?}", Row::Epoch(second)));
}

pub(crate) fn trust_lists_rise<P: Place>() {
    let place = P::new();
    let store = place.open();
    let list = |version: u8| Write::TrustList(version.into(), [version; 3].into());
    let answers = commit(&store, &[list(2), list(2), list(1), list(7), list(3)]);
    use Applied::{Conflict, Done};
    assert_eq!(answers, [Done, Conflict, Conflict, Done, Conflict]);
    assert_eq!(rows(&store), ["TrustList(7, [7, 7, 7])"]);
}

pub(crate) fn nothing_belongs_to_no_fleet<P: Place>() {
    let place = P::new();
    let store = place.open();
    let writes = [
        Write::Function(FLEET, 300, "crane.lift".into()),
        Write::Vehicle(vehicle("V-1")),
        Write::Identity(identity("anna")),
        Write::Terminal(terminal("phone", "anna")),
        Write::NewToken(token(1)),
        authorize(authorization(1)),
    ];
    assert_eq!(commit(&store, &writes), vec![Applied::Stale; writes.len()]);
    assert!(rows(&store).is_empty());
}

pub(crate) fn rows_come_in_order_and_whole<P: Place>() {
    let place = P::new();
    let store = place.open();
    let expected = [
        Row::Setting("issuer".into(), "fob".into()),
        Row::Fleet(fleet(FLEET, "first", 1)),
        Row::Function(FLEET, 300, "crane.lift".into()),
        Row::Vehicle(vehicle("V-1")),
        Row::Identity(identity("anna")),
        Row::Terminal(terminal("phone", "anna")),
        Row::Token(token(1)),
        Row::Epoch(epoch(9, EpochState::Active)),
        Row::TrustList(1, [1, 2].into()),
        Row::Authorization(authorization(1)),
    ];
    done(
        &store,
        &[
            Write::NewFleet(fleet(FLEET, "first", 1)),
            Write::Vehicle(vehicle("V-1")),
            authorize(authorization(1)),
            Write::TrustList(1, [1, 2].into()),
            Write::Epoch(epoch(9, EpochState::Active)),
            Write::NewToken(token(1)),
            Write::Terminal(terminal("phone", "anna")),
            Write::Identity(identity("anna")),
            Write::Function(FLEET, 300, "crane.lift".into()),
            Write::Setting("issuer".into(), "fob".into()),
        ],
    );
    assert_eq!(rows(&store), expected.map(|row| format!("{row:?}")));
}
