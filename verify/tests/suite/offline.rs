//! What a car takes, and a car that was offline while its keys were changed.

use crate::fixture::{
    self, ED25519, ES256, ESP256, ISSUED, LISTED, NEXT_ROOT, NOW, ROOT, STATUS_URI, entries,
    full_claims,
};
use crate::garage::{Garage, fixture_stream, status_list, trust_list};
use fob_verify::Refusal;
use fob_verify::key::{Claims, StatusRef};
use fob_verify::status::{self, Status};
use fob_verify::sync;
use fob_verify::trust::{self, Draft};
use fob_verify::vehicle::{Anchor, Clock, take_trust};

const OTHER_URI: &str = "https://fob.example/v1/status/12";

fn claims(function: u16, version: u32, index: u32) -> Claims<'static> {
    let base = Claims {
        region: None,
        max_uses: None,
        recurring: None,
        ..full_claims()
    };
    Claims {
        function,
        version,
        issued_at: ISSUED + u64::from(version),
        function_name: match function {
            1 => "doors.unlock",
            3 => "engine.start",
            _ => "trunk.open",
        },
        key_id: fixture::id((version * 16 + u32::from(function)) as u8),
        status: StatusRef {
            index,
            ..base.status
        },
        ..base
    }
}

/// Version 1 grants unlock and start. Version 2 drops start and adds the
/// trunk; the dropped key is revoked, all keys of version 1 are superseded.
const UNLOCK_1: u32 = 11;
const START_1: u32 = 13;
const UNLOCK_2: u32 = 21;
const TRUNK_2: u32 = 24;

fn used_before_the_change() -> Garage {
    let mut garage = Garage::new();
    assert_eq!(garage.use_key(&claims(3, 1, START_1)), Ok(3));
    assert_eq!(garage.use_key(&claims(1, 1, UNLOCK_1)), Ok(1));
    garage
}

fn after_the_change() -> Vec<u8> {
    status_list(LISTED + 60, &[(START_1, Status::Revoked)])
}

fn signed_sync(draft: &sync::Draft<'_>) -> Vec<u8> {
    let message = sync::to_be_signed(draft, ESP256.algorithm, &ESP256.issuer().kid());
    ESP256.finish(&message.unwrap())
}

fn sync_after(issued_at: u64) -> sync::Draft<'static> {
    sync::Draft {
        issued_at,
        expires: issued_at + 3600,
        status_uris: &[STATUS_URI],
        ..fixture::sync_draft()
    }
}

#[test]
fn it_refuses_the_dropped_function_once_it_has_met_any_key_of_the_new_version() {
    for (function, index) in [(1, UNLOCK_2), (4, TRUNK_2)] {
        let mut garage = used_before_the_change();
        // It cannot know yet.
        assert_eq!(garage.use_key(&claims(3, 1, START_1)), Ok(3));
        assert_eq!(garage.use_key(&claims(function, 2, index)), Ok(function));
        for _ in 0..2 {
            let dropped = garage.use_key(&claims(3, 1, START_1));
            assert_eq!(dropped, Err(Refusal::VersionSuperseded));
            let old = garage.use_key(&claims(1, 1, UNLOCK_1));
            assert_eq!(old, Err(Refusal::VersionSuperseded));
            // Neither time nor an old list brings it back.
            garage.clock.reading += 3600;
            let _ = garage.take_status(&fixture::status_list(), STATUS_URI);
        }
        assert_eq!(garage.use_key(&claims(4, 2, TRUNK_2)), Ok(4));
    }
}

#[test]
fn it_refuses_the_dropped_function_once_a_phone_has_brought_the_list() {
    let mut garage = used_before_the_change();
    garage.take_status(&after_the_change(), STATUS_URI).unwrap();
    let dropped = garage.use_key(&claims(3, 1, START_1));
    assert_eq!(dropped, Err(Refusal::Revoked));
    assert_eq!(garage.use_key(&claims(4, 2, TRUNK_2)), Ok(4));
    let back = garage.take_status(&fixture::status_list(), STATUS_URI);
    assert_eq!(back, Err(Refusal::StatusListNotNewer));
    let again = garage.take_status(&after_the_change(), STATUS_URI);
    assert_eq!(again, Err(Refusal::StatusListNotNewer));
    let dropped = garage.use_key(&claims(3, 1, START_1));
    assert_eq!(dropped, Err(Refusal::VersionSuperseded));
}

#[test]
fn it_refuses_the_dropped_function_after_a_sync() {
    let mut garage = used_before_the_change();
    garage.take_trust(&trust_list(8, 0)).unwrap();
    garage.take_status(&after_the_change(), STATUS_URI).unwrap();
    let draft = sync::Draft {
        trust_version: 8,
        ..sync_after(LISTED + 61)
    };
    garage.take_sync(&signed_sync(&draft)).unwrap();
    for _ in 0..2 {
        let dropped = garage.use_key(&claims(3, 1, START_1));
        assert_eq!(dropped, Err(Refusal::Revoked));
        let _ = garage.take_status(&fixture::status_list(), STATUS_URI);
    }
    assert_eq!(garage.use_key(&claims(4, 2, TRUNK_2)), Ok(4));
    assert_eq!(garage.notebook.time, LISTED + 61);
}

#[test]
fn a_reset_ends_every_older_key_by_a_sync_alone() {
    let mut garage = used_before_the_change();
    let reset = sync::Draft {
        vehicle_epoch: 4,
        ..sync_after(LISTED + 1)
    };
    garage.take_sync(&signed_sync(&reset)).unwrap();
    let old = garage.use_key(&claims(1, 7, UNLOCK_1));
    assert_eq!(old, Err(Refusal::VehicleEpochSuperseded));
    let anew = Claims {
        vehicle_epoch: 4,
        ..claims(1, 7, UNLOCK_1)
    };
    assert_eq!(garage.use_key(&anew), Ok(1));
    // A later sync that says less lowers nothing.
    garage
        .take_sync(&signed_sync(&sync_after(LISTED + 2)))
        .unwrap();
    assert_eq!(garage.notebook.vehicle_epoch, 4);
}

#[test]
fn a_sync_is_taken_only_with_all_it_names() {
    let take = |draft: sync::Draft<'_>, edit: fn(&mut Garage)| {
        let mut garage = Garage::new();
        edit(&mut garage);
        garage.take_sync(&signed_sync(&draft)).err()
    };
    let good = sync_after(LISTED + 1);
    let none = |_: &mut Garage| ();
    assert_eq!(take(good, none), None);
    for (draft, refusal) in [
        (
            sync::Draft {
                vehicle: "DEMO-0002",
                ..good
            },
            Refusal::WrongVehicle,
        ),
        (
            sync::Draft {
                fleet: [0; 16],
                ..good
            },
            Refusal::WrongFleet,
        ),
        (
            sync::Draft {
                expires: NOW,
                ..good
            },
            Refusal::SyncExpired,
        ),
        (
            sync::Draft {
                trust_version: 8,
                ..good
            },
            Refusal::TrustListBehind,
        ),
        (
            sync::Draft {
                status_uris: &[OTHER_URI, STATUS_URI],
                ..good
            },
            Refusal::StatusMissing,
        ),
        (sync_after(LISTED + 3600), Refusal::StatusListStale),
    ] {
        let soon = |garage: &mut Garage| garage.clock.reading = NOW;
        assert_eq!(take(draft, soon), Some(refusal));
    }
    let edge = sync::Draft {
        expires: NOW + 1,
        ..good
    };
    assert_eq!(take(edge, none), None);
    assert_eq!(take(sync_after(LISTED + 3599), none), None);
    let older_trust = sync::Draft {
        trust_version: 6,
        ..good
    };
    assert_eq!(take(older_trust, none), None);
    let broken = |garage: &mut Garage| garage.notebook.broken = true;
    assert_eq!(take(good, broken), Some(Refusal::MemoryFailed));
    // The list in the car is from an issuer it no longer trusts.
    let message = sync::to_be_signed(&good, ES256.algorithm, &ES256.issuer().kid());
    let by_another = ES256.finish(&message.unwrap());
    let mut garage = Garage::new();
    garage.take_trust(&trust_list(8, 1)).unwrap();
    assert_eq!(garage.take_sync(&by_another), Err(Refusal::StatusMissing));
}

#[test]
fn syncs_only_go_forward() {
    let mut garage = Garage::new();
    let first = signed_sync(&sync_after(LISTED + 10));
    garage.take_sync(&first).unwrap();
    let digest = sync::digest(&first);
    assert_eq!(garage.notebook.synced, Some((LISTED + 10, digest)));
    assert_eq!(garage.take_sync(&first), Err(Refusal::SyncNotNewer));
    let older = signed_sync(&sync_after(LISTED + 9));
    assert_eq!(garage.take_sync(&older), Err(Refusal::SyncNotNewer));
    let newer = signed_sync(&sync_after(LISTED + 11));
    assert_eq!(garage.take_sync(&newer), Ok(()));
}

#[test]
fn status_lists_only_go_forward_and_are_the_ones_asked_for() {
    let mut garage = Garage::new();
    for (issued_at, answer) in [
        (LISTED - 1, Err(Refusal::StatusListNotNewer)),
        (LISTED, Err(Refusal::StatusListNotNewer)),
        (LISTED + 1, Ok(())),
    ] {
        let list = status_list(issued_at, &[]);
        assert_eq!(garage.take_status(&list, STATUS_URI), answer);
    }
    assert_eq!(garage.notebook.time, LISTED + 1);
    let list = status_list(LISTED + 2, &[]);
    let other = garage.take_status(&list, OTHER_URI);
    assert_eq!(other, Err(Refusal::WrongStatusList));
    garage.notebook.broken = true;
    let lost = garage.take_status(&list, STATUS_URI);
    assert_eq!(lost, Err(Refusal::MemoryFailed));
}

/// Otherwise a list that a stolen issuer key dated far ahead would shut out
/// every later one.
#[test]
fn a_list_from_an_issuer_that_is_no_longer_trusted_does_not_stand_in_the_way() {
    let mut garage = Garage::new();
    let far = status_list(LISTED + 80 * 86_400, &[]);
    garage.take_status(&far, STATUS_URI).unwrap();
    garage.take_trust(&trust_list(8, 1)).unwrap();
    let stream = fixture_stream();
    let draft = fixture::status_draft(&stream);
    let message = status::to_be_signed(&draft, ED25519.algorithm, &ED25519.issuer().kid());
    let honest = ED25519.finish(&message.unwrap());
    assert_eq!(garage.take_status(&honest, STATUS_URI), Ok(()));
}

#[test]
fn trust_lists_only_go_forward() {
    let mut garage = Garage::new();
    for (version, answer) in [
        (6, Err(Refusal::TrustListNotNewer)),
        (7, Err(Refusal::TrustListNotNewer)),
        (8, Ok(())),
        (7, Err(Refusal::TrustListNotNewer)),
    ] {
        assert_eq!(garage.take_trust(&trust_list(version, 0)), answer);
    }
    garage.notebook.broken = true;
    let lost = garage.take_trust(&trust_list(9, 0));
    assert_eq!(lost, Err(Refusal::MemoryFailed));
}

#[test]
fn an_epoch_is_revoked_by_a_list_without_it() {
    let mut garage = used_before_the_change();
    garage.take_trust(&trust_list(8, 1)).unwrap();
    let used = garage.use_key(&claims(1, 1, UNLOCK_1));
    assert_eq!(used, Err(Refusal::UnknownIssuer));
}

#[test]
fn the_next_root_takes_over_and_the_old_one_is_nothing_any_more() {
    let entries = entries();
    let by = |root: &fixture::Secret, version| {
        let draft = Draft {
            version,
            next_root: None,
            ..fixture::draft(&entries)
        };
        root.finish(&trust::to_be_signed(&draft, &root.issuer()).unwrap())
    };
    let mut garage = Garage::new();
    let strange = garage.take_trust(&by(&ESP256, 8));
    assert_eq!(strange, Err(Refusal::UnknownRoot));
    assert_eq!(garage.take_trust(&by(&NEXT_ROOT, 8)), Ok(()));
    let old = garage.take_trust(&by(&ROOT, 9));
    assert_eq!(old, Err(Refusal::UnknownRoot));
    assert_eq!(garage.take_trust(&by(&NEXT_ROOT, 9)), Ok(()));
}

#[test]
fn a_new_car_takes_its_first_list_by_the_root_alone() {
    let clock = Clock {
        reading: NOW,
        uncertainty_s: 0,
    };
    let take = |bytes: &[u8], root: &fixture::Secret, clock| {
        let mut notebook = crate::garage::Notebook::default();
        let anchor = Anchor::Root(root.issuer());
        let verifier = fob_verify::RustCrypto;
        take_trust(bytes, &anchor, clock, &verifier, &mut notebook).map(|list| list.version())
    };
    let list = fixture::trust_list();
    assert_eq!(take(&list, &ROOT, clock), Ok(7));
    assert_eq!(take(&list, &NEXT_ROOT, clock), Err(Refusal::UnknownRoot));
    let expires = fixture::draft(&[]).expires;
    for (reading, answer) in [
        (expires - 1, Ok(7)),
        (expires, Err(Refusal::TrustListExpired)),
    ] {
        let clock = Clock { reading, ..clock };
        assert_eq!(take(&list, &ROOT, clock), answer);
    }
}
