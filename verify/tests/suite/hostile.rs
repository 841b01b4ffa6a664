//! Hostile bytes at a car: mutations of valid objects and noise, thrown at
//! everything it takes. Nothing panics, nothing is accepted, and the car
//! remembers nothing of it.
//!
//! `FOB_HOSTILE` says how many; the default suits an ordinary test run.
//! `FOB_HOSTILE_SEED` chooses others than those of an ordinary run, so that a
//! long run can be made in pieces.

use crate::fixture::{self, CAR, CHALLENGE, ESP256, FLEET, NOW, ROOT, STATUS_URI, VEHICLE};
use crate::garage::{self, Notebook, proof_of};
use fob_verify::ack::SignedAck;
use fob_verify::region::Position;
use fob_verify::status::{self, LIST_LEN_MAX, Room, StatusList};
use fob_verify::sync;
use fob_verify::trust::{self, TrustList};
use fob_verify::vehicle::{
    Anchor, Car, Challenge, Clock, Policy, Request, check, take_status, take_sync, take_trust,
};
use fob_verify::{Refusal, RustCrypto, Verified};
use std::io::Read as _;
use std::thread;

/// What is thrown, in shares of the whole.
const TARGETS: u64 = 8;

fn asked(name: &str, or: u64) -> u64 {
    let asked = std::env::var(name).ok();
    asked.map_or(or, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is a number"))
    })
}

/// SplitMix64: the same numbers in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.roll() % end.max(1) as u64) as usize
    }

    fn octets(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.roll() as u8).collect()
    }

    /// Another object than this: a bit, an octet, a piece of it changed, cut
    /// out, doubled, or nothing of it kept.
    fn mutate(&mut self, object: &[u8]) -> Vec<u8> {
        loop {
            let mut mutant = object.to_vec();
            for _ in 0..=self.below(3) {
                let at = self.below(mutant.len());
                let len = self.below(12).min(mutant.len() - at);
                match self.below(8) {
                    0..3 if !mutant.is_empty() => mutant[at] ^= 1 << self.below(8),
                    3 if !mutant.is_empty() => mutant[at] = self.roll() as u8,
                    4 => mutant.truncate(at),
                    5 => drop(mutant.drain(at..at + len)),
                    6 => {
                        let noise = self.octets(len);
                        mutant.splice(at..at, noise);
                    }
                    _ => {
                        let piece = mutant[at..at + len].to_vec();
                        let to = self.below(mutant.len());
                        mutant.splice(to..to, piece);
                    }
                }
            }
            if self.below(50) == 0 {
                let len = self.below(4000);
                mutant = self.octets(len);
            }
            if mutant != object {
                return mutant;
            }
        }
    }
}

struct World<'a> {
    key: Vec<u8>,
    proof: Vec<u8>,
    tree_proof: Vec<u8>,
    trust: &'a Verified<TrustList<'a>>,
    lists: [Verified<StatusList<'a>>; 1],
}

impl World<'_> {
    fn car(&self) -> Car<'_, [Verified<StatusList<'_>>], RustCrypto> {
        Car {
            vehicle: VEHICLE,
            fleet: FLEET,
            trust: self.trust,
            lists: &self.lists,
            policy: Policy::STANDARD,
            clock: clock(),
            verifier: RustCrypto,
        }
    }

    fn show(&self, key: &[u8], proof: &[u8], notebook: &mut Notebook) -> Result<(), Refusal> {
        let request = Request {
            key,
            proof,
            challenge: Challenge::new(&CHALLENGE)?,
            position: Position::new(525_162_720, 133_777_220).ok(),
        };
        let mut room = Box::new(Room::new());
        check(request, &self.car(), &mut room, notebook).map(|_| ())
    }
}

const fn clock() -> Clock {
    Clock {
        reading: NOW,
        uncertainty_s: 30,
    }
}

/// What is mutated for this target.
fn object(target: u64) -> Vec<u8> {
    match target {
        0 => fixture::key(&ESP256, &fixture::full_claims()),
        1 => fixture::in_tree(&ESP256, 2, 1).assemble(),
        2 => proof_of(&fixture::full_claims()),
        3 => garage::trust_list(8, 0),
        4 => garage::status_list(NOW, &[]),
        5 => {
            let draft = sync::Draft {
                status_uris: &[STATUS_URI],
                ..fixture::sync_draft()
            };
            let kid = ESP256.issuer().kid();
            ESP256.finish(&sync::to_be_signed(&draft, ESP256.algorithm, &kid).unwrap())
        }
        6 => fixture::ack(),
        _ => garage::fixture_stream(),
    }
}

/// Whether what is thrown is taken.
fn throw(world: &World<'_>, target: u64, bytes: &[u8], notebook: &mut Notebook) -> bool {
    let car = world.car();
    match target {
        0 => world.show(bytes, &world.proof, notebook),
        1 => world.show(bytes, &world.tree_proof, notebook),
        2 => world.show(&world.key, bytes, notebook),
        3 => {
            let anchor = Anchor::List(world.trust);
            take_trust(bytes, &anchor, clock(), &RustCrypto, notebook).map(|_| ())
        }
        4 => take_status(bytes, STATUS_URI, &car, notebook).map(|_| ()),
        5 => take_sync(bytes, &car, notebook).map(|_| ()),
        6 => SignedAck::decode(bytes)
            .and_then(|ack| ack.verify(VEHICLE, &CAR.public(), &RustCrypto))
            .map(|_| ()),
        // A stream that no signature protects. Its checksum is no signature
        // either, and now and then another list has the same: what counts is
        // that it inflates to nothing else than by another's reading.
        _ => Room::<LIST_LEN_MAX>::new()
            .inflate(bytes)
            .and_then(|octets| {
                if bytes != object(7) && inflated_by_another(bytes).as_deref() == Some(octets) {
                    return Err(Refusal::BadCompression);
                }
                Ok(())
            }),
    }
    .is_ok()
}

/// What zlib makes of a stream that is all there is.
fn inflated_by_another(stream: &[u8]) -> Option<Vec<u8>> {
    let mut decoder = flate2::bufread::ZlibDecoder::new(stream);
    let mut octets = vec![];
    decoder.read_to_end(&mut octets).ok()?;
    decoder.into_inner().is_empty().then_some(octets)
}

fn with_world<T>(then: impl FnOnce(&World<'_>) -> T) -> T {
    let trust = fixture::trust_list();
    let trust = trust::verify(&trust, &[ROOT.issuer()], NOW, &RustCrypto).unwrap();
    let list = fixture::status_list();
    let list = status::verify(&list, &trust, &RustCrypto).unwrap();
    then(&World {
        key: object(0),
        proof: object(2),
        tree_proof: proof_of(&fixture::tree_claims(1)),
        trust: &trust,
        lists: [list],
    })
}

#[test]
fn what_is_thrown_would_be_taken_unchanged() {
    with_world(|world| {
        for target in 0..TARGETS {
            let mut notebook = Notebook::default();
            let bytes = object(target);
            assert!(throw(world, target, &bytes, &mut notebook), "{target}");
        }
    });
}

#[test]
fn nothing_hostile_is_accepted_or_remembered() {
    let each = asked("FOB_HOSTILE", 100_000) / TARGETS;
    let seed = asked("FOB_HOSTILE_SEED", 0);
    thread::scope(|scope| {
        for target in 0..TARGETS {
            scope.spawn(move || {
                with_world(|world| {
                    // Far apart: the numbers of one seed are not those of another a little later.
                    let mut dice = Dice(Dice(seed * TARGETS + target).roll());
                    let mut notebook = Notebook::default();
                    let whole = object(target);
                    for at in 0..each {
                        let bytes = dice.mutate(&whole);
                        let taken = throw(world, target, &bytes, &mut notebook);
                        assert!(
                            !taken,
                            "seed {seed}, target {target}, throw {at}: {bytes:02x?}"
                        );
                    }
                    assert_eq!(notebook, Notebook::default());
                });
            });
        }
    });
}
