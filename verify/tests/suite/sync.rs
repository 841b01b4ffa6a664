//! Syncs and acks.

use crate::fixture::{
    self, CAR, ESP256, FLEET, LISTED, NOW, PHONE, ROOT, VEHICLE, entries, sync_draft,
};
use fob_verify::ack::{self, Ack, SignedAck};
use fob_verify::sync::{self, Draft, STATUS_URIS_MAX, SYNC_LEN_MAX, Sync};
use fob_verify::trust::{self, Entry};
use fob_verify::{Algorithm, PublicKey, Refusal, RustCrypto, TIME_MAX};
use sha2::{Digest, Sha256};

fn read_under<T>(
    entries: &[Entry],
    bytes: &[u8],
    then: impl FnOnce(&Sync<'_>) -> T,
) -> Result<T, Refusal> {
    let message = trust::to_be_signed(&fixture::draft(entries), &ROOT.issuer()).unwrap();
    let list = ROOT.finish(&message);
    let trust = trust::verify(&list, &[ROOT.issuer()], NOW, &RustCrypto).unwrap();
    sync::verify(bytes, &trust, &RustCrypto).map(|sync| then(&sync))
}

fn read<T>(bytes: &[u8], then: impl FnOnce(&Sync<'_>) -> T) -> Result<T, Refusal> {
    read_under(&entries(), bytes, then)
}

fn signed(draft: &Draft<'_>) -> Vec<u8> {
    let message = sync::to_be_signed(draft, ESP256.algorithm, &ESP256.issuer().kid());
    ESP256.finish(&message.unwrap())
}

#[test]
fn a_sync_is_what_was_drafted() {
    let bytes = fixture::sync();
    let draft = sync_draft();
    read(&bytes, |sync| {
        assert_eq!(sync.vehicle, draft.vehicle);
        assert_eq!((sync.issued_at, sync.expires), (LISTED, LISTED + 86_400));
        assert_eq!((sync.vehicle_epoch, sync.trust_version), (3, 7));
        assert_eq!(
            sync.status_uris.iter().collect::<Vec<_>>(),
            draft.status_uris
        );
        assert_eq!(sync.status_uris.len(), 2);
        assert_eq!(sync.digest, Sha256::digest(&bytes)[..]);
        assert_eq!(sync.check_vehicle(VEHICLE, &FLEET), Ok(()));
        let other = sync.check_vehicle("DEMO-0002", &FLEET);
        assert_eq!(other, Err(Refusal::WrongVehicle));
        let fleet = sync.check_vehicle(VEHICLE, &[0; 16]);
        assert_eq!(fleet, Err(Refusal::WrongFleet));
        assert_eq!(sync.check_time(sync.expires - 1), Ok(()));
        assert_eq!(sync.check_time(sync.expires), Err(Refusal::SyncExpired));
        assert_eq!(sync.check_newer_than(LISTED - 1), Ok(()));
        let again = sync.check_newer_than(LISTED);
        assert_eq!(again, Err(Refusal::SyncNotNewer));
    })
    .unwrap();
}

#[test]
fn the_largest_and_the_smallest_sync_fit() {
    let uris: Vec<String> = (0..=STATUS_URIS_MAX)
        .map(|at| format!("{at:03}{}", "u".repeat(253)))
        .collect();
    let uris: Vec<&str> = uris.iter().map(String::as_str).collect();
    let vehicle = "v".repeat(32);
    let largest = Draft {
        vehicle: &vehicle,
        expires: TIME_MAX,
        issued_at: TIME_MAX - 1,
        vehicle_epoch: u32::MAX,
        trust_version: u32::MAX,
        status_uris: &uris[..STATUS_URIS_MAX],
        ..sync_draft()
    };
    let message = sync::to_be_signed(&largest, ESP256.algorithm, &[0; 8]).unwrap();
    assert!(message.assemble(&[0; 64]).len() <= SYNC_LEN_MAX);
    let many = Draft {
        issued_at: LISTED,
        ..largest
    };
    let count = read(&signed(&many), |sync| sync.status_uris.iter().count());
    assert_eq!(count, Ok(STATUS_URIS_MAX));
    let none = Draft {
        status_uris: &[],
        ..sync_draft()
    };
    let empty = read(&signed(&none), |sync| sync.status_uris.is_empty());
    assert_eq!(empty, Ok(true));
    let too_many = Draft {
        status_uris: &uris,
        ..largest
    };
    let refused = sync::to_be_signed(&too_many, ESP256.algorithm, &[0; 8]);
    assert_eq!(refused, Err(Refusal::WrongCount));
}

#[test]
fn syncs_no_car_would_take_are_not_made() {
    let good = sync_draft();
    let long = "u".repeat(257);
    for draft in [
        Draft {
            vehicle: "a b",
            ..good
        },
        Draft {
            expires: good.issued_at,
            ..good
        },
        Draft {
            expires: TIME_MAX + 1,
            ..good
        },
        Draft {
            status_uris: &["b", "a"],
            ..good
        },
        Draft {
            status_uris: &["a", "a"],
            ..good
        },
        Draft {
            status_uris: &[""],
            ..good
        },
        Draft {
            status_uris: &[&long],
            ..good
        },
    ] {
        let made = sync::to_be_signed(&draft, ESP256.algorithm, &[0; 8]);
        assert_eq!(made, Err(Refusal::OutOfBounds));
    }
}

#[test]
fn a_sync_needs_an_issuer_that_is_listed_and_in_its_window() {
    let [esp256, es256, ed25519] = entries();
    let bytes = fixture::sync();
    let under = |entries: &[Entry]| read_under(entries, &bytes, |_| ());
    assert_eq!(under(&[es256, ed25519]), Err(Refusal::UnknownIssuer));
    let shut = Entry {
        not_after: LISTED,
        ..esp256
    };
    assert_eq!(under(&[shut]), Err(Refusal::OutsideIssuerWindow));
    let mut forged = bytes.clone();
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(read(&forged, |_| ()), Err(Refusal::BadSignature));
}

fn ack_of(bytes: &[u8], vehicle: &str, key: &PublicKey) -> Result<Option<[u8; 32]>, Refusal> {
    let ack = SignedAck::decode(bytes)?;
    ack.verify(vehicle, key, &RustCrypto).map(|ack| ack.applied)
}

#[test]
fn an_ack_names_the_sync_that_was_applied() {
    let bytes = fixture::ack();
    let digest = sync::digest(&fixture::sync());
    assert_eq!(ack_of(&bytes, VEHICLE, &CAR.public()), Ok(Some(digest)));
    let unverified = SignedAck::decode(&bytes).unwrap();
    assert_eq!(unverified.unverified(), &fixture::the_ack());
}

#[test]
fn a_car_that_applied_none_yet_says_so() {
    for algorithm in [Algorithm::Es256, Algorithm::Esp256] {
        let first = Ack {
            applied: None,
            ..fixture::the_ack()
        };
        let message = ack::to_be_signed(&first, algorithm, &CAR.public()).unwrap();
        let bytes = CAR.finish(&message);
        assert_eq!(ack_of(&bytes, VEHICLE, &CAR.public()), Ok(None));
    }
}

#[test]
fn an_ack_of_another_car_or_key_is_refused() {
    let bytes = fixture::ack();
    let refusals = [
        ("DEMO-0002", CAR.public(), Refusal::WrongVehicle),
        (VEHICLE, PHONE.public(), Refusal::UnknownIssuer),
        (
            VEHICLE,
            fixture::ED_PHONE.public(),
            Refusal::AlgorithmMismatch,
        ),
    ];
    for (vehicle, key, refusal) in refusals {
        assert_eq!(ack_of(&bytes, vehicle, &key), Err(refusal));
    }
    let mut forged = bytes.clone();
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(
        ack_of(&forged, VEHICLE, &CAR.public()),
        Err(Refusal::BadSignature)
    );
}

#[test]
fn acks_no_server_would_take_are_not_made() {
    let good = fixture::the_ack();
    let late = Ack {
        issued_at: TIME_MAX + 1,
        ..good
    };
    let made = |ack: &Ack<'_>, algorithm| ack::to_be_signed(ack, algorithm, &CAR.public()).err();
    assert_eq!(made(&late, CAR.algorithm), Some(Refusal::OutOfBounds));
    let nameless = Ack {
        vehicle: "",
        ..good
    };
    assert_eq!(made(&nameless, CAR.algorithm), Some(Refusal::OutOfBounds));
    assert_eq!(
        made(&good, Algorithm::Ed25519),
        Some(Refusal::AlgorithmMismatch)
    );
}
