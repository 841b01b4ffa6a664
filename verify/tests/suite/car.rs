//! A car: the order of its questions, and what it remembers.

use crate::fixture::{self, CHALLENGE, ESP256, FLEET, NOW, PHONE, ROOT, VEHICLE, full_claims};
use fob_verify::check::{Car, Memory, Seen, check};
use fob_verify::key::Claims;
use fob_verify::region::Position;
use fob_verify::trust::{self, TrustList};
use fob_verify::use_proof::{self, Use};
use fob_verify::{Algorithm, Refusal, RustCrypto, Verified};
use std::collections::HashMap;

#[derive(Clone, Debug, Default, PartialEq)]
struct Notebook {
    vehicle_epoch: u32,
    versions: HashMap<[u8; 16], u32>,
    time: u64,
    uses: HashMap<([u8; 16], u16), u32>,
    broken: bool,
}

impl Memory for Notebook {
    fn vehicle_epoch(&self) -> u32 {
        self.vehicle_epoch
    }

    fn version(&self, bundle: &[u8; 16]) -> u32 {
        self.versions.get(bundle).copied().unwrap_or(0)
    }

    fn time(&self) -> u64 {
        self.time
    }

    fn uses(&self, bundle: &[u8; 16], function: u16) -> u32 {
        self.uses.get(&(*bundle, function)).copied().unwrap_or(0)
    }

    fn raise(&mut self, seen: &Seen) -> Result<(), Refusal> {
        if self.broken {
            return Err(Refusal::MemoryFailed);
        }
        self.vehicle_epoch = self.vehicle_epoch.max(seen.vehicle_epoch);
        let version = self.versions.entry(seen.bundle).or_default();
        *version = seen.version.max(*version);
        self.time = self.time.max(seen.time);
        *self.uses.entry((seen.bundle, seen.function)).or_default() += 1;
        Ok(())
    }
}

fn with_trust<T>(then: impl FnOnce(&Verified<TrustList<'_>>) -> T) -> T {
    let bytes = fixture::trust_list();
    then(&trust::verify(&bytes, &[ROOT.issuer()], NOW, &RustCrypto).unwrap())
}

fn car<'a>(trust: &'a Verified<TrustList<'a>>) -> Car<'a, RustCrypto> {
    Car {
        vehicle: VEHICLE,
        fleet: FLEET,
        trust,
        clock: NOW,
        position: Some(Position::new(525_162_720, 133_777_220).unwrap()),
        challenge: &CHALLENGE,
        verifier: RustCrypto,
    }
}

fn proof_of(claims: &Claims<'_>) -> Vec<u8> {
    let claims = Use {
        key_id: claims.key_id,
        function_name: claims.function_name,
        nonce: &CHALLENGE,
    };
    PHONE.finish(&use_proof::to_be_signed(Algorithm::Es256, &claims).unwrap())
}

/// One use, and that a refusal leaves no trace.
fn attempt(
    claims: &Claims<'_>,
    notebook: &mut Notebook,
    edit: impl FnOnce(&mut Car<'_, RustCrypto>),
) -> Result<u16, Refusal> {
    let key = fixture::key(&ESP256, claims);
    let before = notebook.clone();
    let answer = with_trust(|trust| {
        let mut car = car(trust);
        edit(&mut car);
        check(&key, &proof_of(claims), &car, notebook).map(|admitted| admitted.function())
    });
    assert!(answer.is_ok() || *notebook == before);
    answer
}

fn fresh(claims: &Claims<'_>, edit: impl FnOnce(&mut Car<'_, RustCrypto>)) -> Result<u16, Refusal> {
    attempt(claims, &mut Notebook::default(), edit)
}

#[test]
fn a_good_use_is_admitted_and_remembered() {
    let mut notebook = Notebook::default();
    assert_eq!(attempt(&full_claims(), &mut notebook, |_| ()), Ok(1));
    assert_eq!(notebook.vehicle_epoch, 3);
    assert_eq!(notebook.version(&fixture::BUNDLE), 1);
    assert_eq!(notebook.time, fixture::ISSUED);
    assert_eq!(notebook.uses(&fixture::BUNDLE, 1), 1);
}

#[test]
fn a_key_signed_in_a_tree_is_used_like_any_other() {
    let key = fixture::in_tree(&ESP256, 13, 1).assemble();
    let claims = fixture::tree_claims(1);
    let mut notebook = Notebook::default();
    with_trust(|trust| {
        let car = car(trust);
        let admitted = check(&key, &proof_of(&claims), &car, &mut notebook).unwrap();
        assert_eq!(**admitted.claims(), claims);
    });
    assert_eq!(notebook.uses(&fixture::BUNDLE, 1), 1);
    let mut forged = key.clone();
    forged[key.len() - 1] ^= 1;
    let before = notebook.clone();
    with_trust(|trust| {
        let refused = check(&forged, &proof_of(&claims), &car(trust), &mut notebook);
        assert_eq!(refused, Err(Refusal::BadSignature));
    });
    assert_eq!(notebook, before);
}

#[test]
fn each_question_has_its_refusal() {
    let full = full_claims();
    let far = Position::new(0, 0).ok();
    let sunday = fixture::ISSUED + 6 * 86_400 + 10 * 3600;
    assert_eq!(
        fresh(&full, |c| c.clock = full.not_before - 1),
        Err(Refusal::NotYetValid)
    );
    assert_eq!(
        fresh(&full, |c| c.clock = full.expires),
        Err(Refusal::Expired)
    );
    assert_eq!(
        fresh(&full, |c| c.clock = u64::MAX),
        Err(Refusal::TrustListExpired)
    );
    assert_eq!(
        fresh(&full, |c| c.vehicle = "DEMO-0002"),
        Err(Refusal::WrongVehicle)
    );
    assert_eq!(
        fresh(&full, |c| c.fleet = [0; 16]),
        Err(Refusal::WrongFleet)
    );
    assert_eq!(
        fresh(&full, |c| c.position = None),
        Err(Refusal::PositionUnknown)
    );
    assert_eq!(
        fresh(&full, |c| c.position = far),
        Err(Refusal::OutsideRegion)
    );
    assert_eq!(
        fresh(&full, |c| c.clock = sunday),
        Err(Refusal::OutsideWindow)
    );
    assert_eq!(
        fresh(&full, |c| c.challenge = &[0; 16]),
        Err(Refusal::ProofMismatch)
    );
    let stranger = Claims {
        holder: ESP256.holder(),
        ..full
    };
    assert_eq!(fresh(&stranger, |_| ()), Err(Refusal::BadProof));
    let other_curve = Claims {
        holder: fixture::ED_PHONE.holder(),
        ..full
    };
    assert_eq!(fresh(&other_curve, |_| ()), Err(Refusal::AlgorithmMismatch));
}

#[test]
fn floors_refuse_what_is_older_and_take_what_is_equal() {
    let full = full_claims();
    let mut notebook = Notebook {
        vehicle_epoch: 4,
        ..Notebook::default()
    };
    assert_eq!(
        attempt(&full, &mut notebook, |_| ()),
        Err(Refusal::VehicleEpochSuperseded)
    );
    notebook.vehicle_epoch = 3;
    assert_eq!(attempt(&full, &mut notebook, |_| ()), Ok(1));
    let changed = Claims { version: 2, ..full };
    assert_eq!(attempt(&changed, &mut notebook, |_| ()), Ok(1));
    assert_eq!(
        attempt(&full, &mut notebook, |_| ()),
        Err(Refusal::VersionSuperseded)
    );
    let other = Claims {
        bundle: [7; 16],
        ..full
    };
    assert_eq!(attempt(&other, &mut notebook, |_| ()), Ok(1));
}

#[test]
fn uses_are_counted_per_bundle_and_function_across_versions() {
    let twice = Claims {
        max_uses: Some(2),
        ..full_claims()
    };
    let mut notebook = Notebook::default();
    assert_eq!(attempt(&twice, &mut notebook, |_| ()), Ok(1));
    assert_eq!(
        attempt(
            &Claims {
                version: 2,
                ..twice
            },
            &mut notebook,
            |_| ()
        ),
        Ok(1)
    );
    assert_eq!(
        attempt(
            &Claims {
                version: 3,
                ..twice
            },
            &mut notebook,
            |_| ()
        ),
        Err(Refusal::UsesExhausted)
    );
    let other = Claims {
        function: 2,
        version: 2,
        ..twice
    };
    assert_eq!(attempt(&other, &mut notebook, |_| ()), Ok(2));
}

#[test]
fn a_clock_that_was_set_back_does_not_revive_a_key() {
    let full = full_claims();
    let mut notebook = Notebook {
        time: full.expires,
        ..Notebook::default()
    };
    assert_eq!(attempt(&full, &mut notebook, |_| ()), Err(Refusal::Expired));
}

#[test]
fn a_clock_that_stands_still_is_as_late_as_the_trust_list() {
    let listed = fixture::draft(&[]).issued_at;
    let claims = Claims {
        not_before: listed,
        recurring: None,
        ..full_claims()
    };
    assert_eq!(fresh(&claims, |car| car.clock = 0), Ok(1));
    let later = Claims {
        not_before: listed + 1,
        ..claims
    };
    assert_eq!(
        fresh(&later, |car| car.clock = 0),
        Err(Refusal::NotYetValid)
    );
}

#[test]
fn a_car_that_cannot_remember_does_not_act() {
    let mut notebook = Notebook {
        broken: true,
        ..Notebook::default()
    };
    assert_eq!(
        attempt(&full_claims(), &mut notebook, |_| ()),
        Err(Refusal::MemoryFailed)
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
    let mut notebook = Notebook {
        vehicle_epoch: 2,
        ..Notebook::default()
    };
    notebook.versions.insert(claims.bundle, 2);
    notebook.uses.insert((claims.bundle, 1), 1);
    let mut seen = vec![];
    for step in 0..10 {
        if step == 4 {
            claims.vehicle_epoch = 2;
        }
        if step == 5 {
            claims.version = 2;
        }
        if step == 8 {
            claims.max_uses = Some(2);
        }
        seen.push(attempt(&claims, &mut notebook, |car| {
            let bad_clock = if step < 1 {
                full.expires
            } else {
                fixture::ISSUED + 6 * 86_400
            };
            car.clock = if step < 7 { bad_clock } else { NOW };
            car.vehicle = if step < 2 { "OTHER" } else { VEHICLE };
            car.fleet = if step < 3 { [0; 16] } else { FLEET };
            car.position = car.position.filter(|_| step >= 6);
            car.challenge = if step < 9 { &[0; 16] } else { &CHALLENGE };
        }));
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
            Refusal::PositionUnknown,
            Refusal::OutsideWindow,
            Refusal::UsesExhausted,
            Refusal::ProofMismatch,
        ]
    );
    assert_eq!(seen.last(), Some(&Ok(1)));
}
