//! A car's check: each question with what it allows and refuses, the order of
//! the questions, and what is remembered.

use crate::fixture::{
    self, CHALLENGE, ED_PHONE, ESP256, EXPIRES, FLEET, ISSUED, LISTED, NOT_BEFORE, NOW, PHONE,
    VEHICLE, full_claims,
};
use crate::garage::{self, Garage, Notebook, proof_of};
use fob_verify::Refusal;
use fob_verify::key::{Claims, StatusRef};
use fob_verify::region::Position;
use fob_verify::status::Status;
use fob_verify::vehicle::{Challenge, Clock, Memory, Patience, Policy};

/// Monday to Sunday, so that only the question at hand can refuse.
fn claims() -> Claims<'static> {
    Claims {
        recurring: None,
        ..full_claims()
    }
}

fn at(reading: u64) -> impl Fn(&mut Garage) {
    move |garage| garage.clock.reading = reading
}

fn fresh(claims: &Claims<'_>, edit: impl Fn(&mut Garage)) -> Result<u16, Refusal> {
    let mut garage = Garage::new();
    edit(&mut garage);
    garage.use_key(claims)
}

#[test]
fn a_good_use_is_admitted_and_remembered() {
    let mut garage = Garage::new();
    let before = garage.notebook.clone();
    assert_eq!(garage.use_key(&full_claims()), Ok(1));
    let expected = Notebook {
        vehicle_epoch: 3,
        versions: [(fixture::BUNDLE, 1)].into(),
        time: ISSUED,
        uses: [((fixture::BUNDLE, 1), 1)].into(),
        ..before
    };
    assert_eq!(garage.notebook, expected);
}

#[test]
fn a_key_signed_in_a_tree_is_used_like_any_other() {
    let key = fixture::in_tree(&ESP256, 13, 1).assemble();
    let proof = proof_of(&fixture::tree_claims(1));
    let mut garage = Garage::new();
    let mut forged = key.clone();
    forged[key.len() - 1] ^= 1;
    assert_eq!(garage.show(&forged, &proof), Err(Refusal::BadSignature));
    assert_eq!(garage.show(&key, &proof), Ok(1));
    assert_eq!(garage.notebook.uses(&fixture::BUNDLE, 1), 1);
}

#[test]
fn format_and_signature() {
    let key = fixture::key(&ESP256, &claims());
    let proof = proof_of(&claims());
    let show = |key: &[u8], proof: &[u8]| Garage::new().show(key, proof);
    assert_eq!(show(&key, &proof), Ok(1));
    let longer = [&key[..], &[0]].concat();
    assert_eq!(show(&longer, &proof), Err(Refusal::TrailingBytes));
    assert_eq!(show(&key[1..], &proof), Err(Refusal::WrongType));
    assert_eq!(show(&key, &key), Err(Refusal::TooLong));
    assert_eq!(show(&proof, &proof), Err(Refusal::UnexpectedLabel));
    let strange = fixture::key(&fixture::ROOT, &claims());
    assert_eq!(show(&strange, &proof), Err(Refusal::UnknownIssuer));
    let mut forged = key.clone();
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(show(&forged, &proof), Err(Refusal::BadSignature));
}

#[test]
fn the_trust_list_has_to_be_valid() {
    let expires = fixture::draft(&[]).expires;
    let long = Claims {
        expires: expires + 10,
        ..claims()
    };
    let offline = |reading| {
        fresh(&long, |garage| {
            garage.clock.reading = reading;
            garage.policy.functions = &[(1, Patience::Offline)];
        })
    };
    assert_eq!(offline(expires - 1), Ok(1));
    assert_eq!(offline(expires), Err(Refusal::TrustListExpired));
}

#[test]
fn the_window_of_the_key() {
    let claims = Claims {
        expires: LISTED + 3 * 86_400,
        ..claims()
    };
    for (reading, answer) in [
        (NOT_BEFORE - 1, Err(Refusal::NotYetValid)),
        (NOT_BEFORE, Ok(1)),
        (claims.expires - 1, Ok(1)),
        (claims.expires, Err(Refusal::Expired)),
    ] {
        assert_eq!(fresh(&claims, at(reading)), answer, "{reading}");
    }
}

#[test]
fn an_uncertain_clock_is_certain_of_less() {
    let claims = Claims {
        expires: LISTED + 3 * 86_400,
        ..claims()
    };
    for (reading, answer) in [
        (NOT_BEFORE + 299, Err(Refusal::NotYetValid)),
        (NOT_BEFORE + 300, Ok(1)),
        (claims.expires - 301, Ok(1)),
        (claims.expires - 300, Err(Refusal::Expired)),
    ] {
        let clock = Clock {
            reading,
            uncertainty_s: 300,
        };
        assert_eq!(fresh(&claims, |garage| garage.clock = clock), answer);
    }
    // The working week at UTC+1 closes at 17:00Z.
    let closes = ISSUED + 17 * 3600;
    for (reading, answer) in [
        (closes - 301, Ok(1)),
        (closes - 300, Err(Refusal::OutsideWindow)),
    ] {
        let clock = Clock {
            reading,
            uncertainty_s: 300,
        };
        assert_eq!(fresh(&full_claims(), |garage| garage.clock = clock), answer);
    }
}

#[test]
fn vehicle_and_fleet() {
    let other_vehicle = fresh(&claims(), |garage| garage.vehicle = "DEMO-0002");
    assert_eq!(other_vehicle, Err(Refusal::WrongVehicle));
    let longer = fresh(&claims(), |garage| garage.vehicle = "DEMO-00010");
    assert_eq!(longer, Err(Refusal::WrongVehicle));
    let other_fleet = fresh(&claims(), |garage| garage.fleet = [0; 16]);
    assert_eq!(other_fleet, Err(Refusal::WrongFleet));
}

#[test]
fn floors_refuse_what_is_older_and_take_what_is_equal() {
    let full = full_claims();
    let mut garage = Garage::new();
    garage.notebook.vehicle_epoch = 4;
    assert_eq!(garage.use_key(&full), Err(Refusal::VehicleEpochSuperseded));
    garage.notebook.vehicle_epoch = 3;
    assert_eq!(garage.use_key(&full), Ok(1));
    assert_eq!(garage.use_key(&Claims { version: 2, ..full }), Ok(1));
    assert_eq!(garage.use_key(&full), Err(Refusal::VersionSuperseded));
    let other = Claims {
        bundle: [7; 16],
        ..full
    };
    assert_eq!(garage.use_key(&other), Ok(1));
}

fn with_index(index: u32) -> Claims<'static> {
    Claims {
        status: StatusRef {
            index,
            ..claims().status
        },
        ..claims()
    }
}

#[test]
fn the_status_of_the_key() {
    for (index, answer) in [
        (99, Ok(1)),
        (100, Err(Refusal::Revoked)),
        (101, Ok(1)),
        (4712, Err(Refusal::Suspended)),
        (131_070, Ok(1)),
        (131_071, Err(Refusal::Revoked)),
        (131_072, Err(Refusal::StatusIndex)),
    ] {
        assert_eq!(fresh(&with_index(index), |_| ()), answer, "{index}");
    }
    let elsewhere = Claims {
        status: StatusRef {
            uri: "https://fob.example/v1/status/8",
            ..claims().status
        },
        ..claims()
    };
    assert_eq!(fresh(&elsewhere, |_| ()), Err(Refusal::StatusMissing));
}

const PATIENT: Policy<'static> = Policy {
    otherwise: Patience::Valid,
    functions: &[
        (1, Patience::Fresh),
        (2, Patience::Expired(100)),
        (4, Patience::Offline),
    ],
};

#[test]
fn every_function_has_its_patience_with_a_stale_list() {
    let expires = LISTED + 7 * 86_400;
    let long = |function| Claims {
        function,
        expires: expires + 1000,
        ..claims()
    };
    for (function, reading, answer) in [
        (1, LISTED + 3599, Ok(())),
        (1, LISTED + 3600, Err(Refusal::StatusListStale)),
        (3, LISTED + 3600, Ok(())),
        (3, expires - 1, Ok(())),
        (3, expires, Err(Refusal::StatusListExpired)),
        (2, expires + 99, Ok(())),
        (2, expires + 100, Err(Refusal::StatusListExpired)),
        (4, expires + 999, Ok(())),
    ] {
        let used = fresh(&long(function), |garage| {
            garage.policy = PATIENT;
            garage.clock.reading = reading;
        });
        assert_eq!(used.map(|_| ()), answer, "{function} at {reading}");
    }
    // An uncertain clock counts with its latest second.
    let clock = Clock {
        reading: LISTED + 3600 - 61,
        uncertainty_s: 60,
    };
    for (more, answer) in [(0, Ok(1)), (1, Err(Refusal::StatusListStale))] {
        let used = fresh(&long(1), |garage| {
            garage.policy = PATIENT;
            garage.clock = Clock {
                reading: clock.reading + more,
                ..clock
            };
        });
        assert_eq!(used, answer);
    }
}

#[test]
fn a_list_from_an_issuer_that_is_no_longer_trusted_says_nothing() {
    let key = fixture::key(&fixture::ED25519, &claims());
    let revoked = fixture::key(&fixture::ED25519, &with_index(100));
    let mut garage = Garage::new();
    assert_eq!(garage.show(&key, &proof_of(&claims())), Ok(1));
    // ESP256, which signed the list, is taken from the trust list.
    garage.take_trust(&garage::trust_list(8, 1)).unwrap();
    let shown = garage.show(&key, &proof_of(&claims()));
    assert_eq!(shown, Err(Refusal::StatusMissing));
    garage.policy.functions = &[(1, Patience::Offline)];
    assert_eq!(garage.show(&revoked, &proof_of(&claims())), Ok(1));
}

#[test]
fn a_car_without_a_list_opens_only_what_may_be_opened_offline() {
    for (function, answer) in [
        (1, Err(Refusal::StatusMissing)),
        (2, Err(Refusal::StatusMissing)),
        (3, Err(Refusal::StatusMissing)),
        (4, Ok(4)),
    ] {
        let claims = Claims {
            function,
            ..claims()
        };
        let used = fresh(&claims, |garage| {
            garage.policy = PATIENT;
            garage.notebook.lists.clear();
        });
        assert_eq!(used, answer);
    }
    // A list that is held is asked all the same.
    let revoked = Claims {
        function: 4,
        ..with_index(100)
    };
    let used = fresh(&revoked, |garage| garage.policy = PATIENT);
    assert_eq!(used, Err(Refusal::Revoked));
}

#[test]
fn what_a_car_does_that_was_told_nothing_else() {
    let standard = Policy::STANDARD;
    assert_eq!(standard.patience(1), Patience::Expired(86_400));
    assert_eq!(standard.patience(2), Patience::Expired(86_400));
    assert_eq!(standard.patience(3), Patience::Valid);
    assert_eq!(standard.patience(u16::MAX), Patience::Valid);
}

#[test]
fn the_region_of_the_key() {
    // 5 km north of the gate are 0.0449661 degrees.
    let north = |e7| Position::new(525_162_720 + e7, 133_777_220).ok();
    for (position, answer) in [
        (north(0), Ok(1)),
        (north(449_660), Ok(1)),
        (north(449_661), Err(Refusal::OutsideRegion)),
        (Position::new(0, 0).ok(), Err(Refusal::OutsideRegion)),
        (None, Err(Refusal::PositionUnknown)),
    ] {
        let used = fresh(&claims(), |garage| garage.position = position);
        assert_eq!(used, answer, "{position:?}");
    }
    let anywhere = Claims {
        region: None,
        ..claims()
    };
    assert_eq!(fresh(&anywhere, |garage| garage.position = None), Ok(1));
}

#[test]
fn recurring_windows() {
    let day = 86_400;
    for (reading, answer) in [
        (ISSUED + day + 7 * 3600 - 1, Err(Refusal::OutsideWindow)),
        (ISSUED + day + 7 * 3600, Ok(1)),
        (ISSUED + day + 17 * 3600 - 1, Ok(1)),
        (ISSUED + day + 17 * 3600, Err(Refusal::OutsideWindow)),
        (ISSUED + 5 * day + 10 * 3600, Err(Refusal::OutsideWindow)),
    ] {
        assert_eq!(fresh(&full_claims(), at(reading)), answer, "{reading}");
    }
}

#[test]
fn uses_are_counted_per_bundle_and_function_across_versions() {
    let twice = |version, function| Claims {
        max_uses: Some(2),
        version,
        function,
        ..claims()
    };
    let mut garage = Garage::new();
    assert_eq!(garage.use_key(&twice(1, 1)), Ok(1));
    assert_eq!(garage.use_key(&twice(2, 1)), Ok(1));
    assert_eq!(garage.use_key(&twice(3, 1)), Err(Refusal::UsesExhausted));
    assert_eq!(garage.use_key(&twice(2, 2)), Ok(2));
    let more = Claims {
        max_uses: Some(3),
        ..twice(3, 1)
    };
    assert_eq!(garage.use_key(&more), Ok(1));
}

#[test]
fn the_holders_proof() {
    for challenge in [&[0; 16][..], b"challenge-000002", &[0; 64]] {
        let used = fresh(&claims(), |garage| garage.challenge = challenge.to_vec());
        assert_eq!(used, Err(Refusal::ProofMismatch));
    }
    let key = fixture::key(&ESP256, &claims());
    let of_another = proof_of(&Claims {
        key_id: [0; 16],
        ..claims()
    });
    let shown = Garage::new().show(&key, &of_another);
    assert_eq!(shown, Err(Refusal::ProofMismatch));
    let of_another = proof_of(&Claims {
        function_name: "engine.start",
        ..claims()
    });
    let shown = Garage::new().show(&key, &of_another);
    assert_eq!(shown, Err(Refusal::ProofMismatch));
    let stranger = Claims {
        holder: ESP256.holder(),
        ..claims()
    };
    assert_eq!(fresh(&stranger, |_| ()), Err(Refusal::BadProof));
    let other_curve = Claims {
        holder: ED_PHONE.holder(),
        ..claims()
    };
    assert_eq!(fresh(&other_curve, |_| ()), Err(Refusal::AlgorithmMismatch));
    assert_eq!(PHONE.holder(), claims().holder);
}

#[test]
fn challenges_are_of_the_formats_length() {
    for (len, sound) in [(15, false), (16, true), (64, true), (65, false)] {
        let octets = vec![7; len];
        let challenge = Challenge::new(&octets);
        assert_eq!(challenge.is_ok_and(|c| c.as_bytes() == octets), sound);
    }
}

#[test]
fn a_clock_that_was_set_back_does_not_revive_a_key() {
    let used = fresh(&claims(), |garage| garage.notebook.time = EXPIRES);
    assert_eq!(used, Err(Refusal::Expired));
}

#[test]
fn a_clock_that_stands_still_is_as_late_as_the_trust_list() {
    let listed = fixture::draft(&[]).issued_at;
    let early = Claims {
        not_before: listed,
        ..claims()
    };
    assert_eq!(fresh(&early, at(0)), Ok(1));
    let later = Claims {
        not_before: listed + 1,
        ..claims()
    };
    assert_eq!(fresh(&later, at(0)), Err(Refusal::NotYetValid));
}

#[test]
fn a_car_that_cannot_remember_does_not_act() {
    let used = fresh(&claims(), |garage| garage.notebook.broken = true);
    assert_eq!(used, Err(Refusal::MemoryFailed));
}

/// A reset that is shown by a key which opens nothing must not lock others
/// out.
#[test]
fn a_reset_shown_by_a_key_that_opens_nothing_keeps_the_floor() {
    let reset = Claims {
        vehicle_epoch: 9,
        version: 9,
        ..claims()
    };
    let mut garage = Garage::new();
    let not_yet = Claims {
        not_before: NOW + 1,
        ..reset
    };
    assert_eq!(garage.use_key(&not_yet), Err(Refusal::NotYetValid));
    let key = fixture::key(&ESP256, &reset);
    let of_another = proof_of(&fixture::plain_claims());
    assert_eq!(garage.show(&key, &of_another), Err(Refusal::ProofMismatch));
    garage.challenge = b"challenge-000002".to_vec();
    assert_eq!(garage.use_key(&reset), Err(Refusal::ProofMismatch));
    garage.challenge = CHALLENGE.to_vec();
    assert_eq!(garage.notebook.vehicle_epoch, 0);
    assert_eq!(garage.use_key(&claims()), Ok(1));
    assert_eq!(garage.use_key(&reset), Ok(1));
    assert_eq!(
        garage.use_key(&claims()),
        Err(Refusal::VehicleEpochSuperseded)
    );
}

/// Everything wrong at once, then put right one question after the other.
#[test]
fn the_questions_come_in_their_order() {
    let full = full_claims();
    let mut claims = Claims {
        version: 1,
        vehicle_epoch: 1,
        max_uses: Some(1),
        ..full
    };
    let mut garage = Garage::new();
    garage.notebook.vehicle_epoch = 2;
    garage.notebook.versions.insert(claims.bundle, 2);
    garage.notebook.uses.insert((claims.bundle, 1), 1);
    let entries = [(4711, Status::Revoked)];
    let revoked = garage::status_list(LISTED, &entries);
    let valid = garage.notebook.lists.clone();
    let uri = claims.status.uri.to_owned();
    let mut seen = vec![];
    for step in 0..11 {
        claims.vehicle_epoch = if step < 4 { 1 } else { 2 };
        claims.version = if step < 5 { 1 } else { 2 };
        claims.max_uses = Some(if step < 9 { 1 } else { 2 });
        garage.clock.reading = match step {
            0 => full.expires,
            1..8 => ISSUED + 6 * 86_400,
            _ => NOW,
        };
        garage.vehicle = if step < 2 { "OTHER" } else { VEHICLE };
        garage.fleet = if step < 3 { [0; 16] } else { FLEET };
        garage.notebook.lists = valid.clone();
        if step < 6 {
            garage.notebook.lists.insert(uri.clone(), revoked.clone());
        }
        garage.position = Garage::new().position.filter(|_| step >= 7);
        garage.challenge = if step < 10 {
            vec![0; 16]
        } else {
            CHALLENGE.to_vec()
        };
        seen.push(garage.use_key(&claims));
    }
    let refusals: Vec<Refusal> = seen.iter().filter_map(|answer| answer.err()).collect();
    assert_eq!(
        refusals,
        [
            Refusal::Expired,
            Refusal::WrongVehicle,
            Refusal::WrongFleet,
            Refusal::VehicleEpochSuperseded,
            Refusal::VersionSuperseded,
            Refusal::Revoked,
            Refusal::PositionUnknown,
            Refusal::OutsideWindow,
            Refusal::UsesExhausted,
            Refusal::ProofMismatch,
        ]
    );
    assert_eq!(seen.last(), Some(&Ok(1)));
}
