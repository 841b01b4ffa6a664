//! One question to a car, to count its instructions:
//!
//!     valgrind --tool=callgrind --toggle-collect='worst::measured*' worst CASE
//!
//! `scripts/vehicle-cost` does so for every case and prints a table.

#![allow(clippy::unwrap_used, dead_code, missing_docs)]

#[path = "../tests/suite/annotate.rs"]
mod annotate;
#[path = "../tests/suite/fixture.rs"]
mod fixture;
#[path = "../tests/suite/garage.rs"]
mod garage;

use fixture::{ESP256, FLEET, NOW, STATUS_URI, VEHICLE, full_claims};
use fob_verify::key::{self, Claims};
use fob_verify::region::{Polygon, Position, Region};
use fob_verify::status::{self, COMPRESSED_LEN_MAX, LIST_LEN_MAX, Room};
use fob_verify::tree::node;
use fob_verify::trust::{self, Draft, ENTRIES_MAX, Entry};
use fob_verify::vehicle::{Anchor, Clock, take_trust};
use fob_verify::window::{Recurring, WINDOWS_MAX, Window};
use fob_verify::{Refusal, RustCrypto, receipt};
use garage::{Garage, Notebook, compressed, proof_of};
use std::hint::black_box;

fn main() {
    let case = std::env::args().nth(1).unwrap_or_default();
    let outcome = match case.as_str() {
        "key" => show(&fixture::key(&ESP256, &full_claims()), &full_claims(), None),
        "key-largest" => show(&largest_key(), &largest_claims(), None),
        "key-forged" => {
            let mut forged = largest_key();
            *forged.last_mut().unwrap() ^= 1;
            show(&forged, &largest_claims(), None)
        }
        "key-noise" => show(&[0xd2; key::KEY_LEN_MAX], &full_claims(), None),
        "list-sparse" => show_with(&sparse()),
        "list-one-in-100" => show_with(&one_in_100()),
        "list-noise" => show_with(&stored(&noise())),
        "list-empty-blocks" => show_with(&empty_blocks()),
        "trust-largest" => take_largest_trust(),
        _ => panic!("no such case"),
    };
    println!("{case}: {outcome:?}");
}

/// What is counted.
#[inline(never)]
fn measured<T>(what: impl FnOnce() -> T) -> T {
    black_box(what())
}

fn show(key: &[u8], claims: &Claims<'_>, list: Option<&[u8]>) -> Result<u16, Refusal> {
    let mut garage = Garage::new();
    if let Some(list) = list {
        let lists = &mut garage.notebook.lists;
        lists.insert(STATUS_URI.to_owned(), list.to_vec());
    }
    let proof = proof_of(claims);
    garage.show_measured(key, &proof)
}

/// The key of the examples against a list with this stream.
fn show_with(stream: &[u8]) -> Result<u16, Refusal> {
    let draft = fixture::status_draft(stream);
    let kid = ESP256.issuer().kid();
    let message = status::to_be_signed(&draft, ESP256.algorithm, &kid).unwrap();
    let key = fixture::key(&ESP256, &full_claims());
    show(&key, &full_claims(), Some(&ESP256.finish(&message)))
}

fn sparse() -> Vec<u8> {
    annotate::unhex(fixture::COMPRESSED)
}

fn one_in_100() -> Vec<u8> {
    let mut state = 7u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 15
    };
    let revoked = (0..1311).map(|_| (next(), status::Status::Revoked));
    let revoked: Vec<_> = revoked.filter(|entry| entry.0 != 4711).collect();
    compressed(&revoked)
}

fn noise() -> Vec<u8> {
    let mut state = 1u32;
    let octets = (0..LIST_LEN_MAX).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    let mut octets: Vec<u8> = octets.collect();
    status::set(&mut octets, 4711, status::Status::Valid);
    octets
}

/// As zlib compresses what cannot be compressed, with Huffman codes all the
/// same: the most symbols a stream can have.
fn stored(octets: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let level = flate2::Compression::best();
    let mut encoder = flate2::write::ZlibEncoder::new(vec![], level);
    encoder.write_all(octets).unwrap();
    encoder.finish().unwrap()
}

/// As many blocks as fit, each with Huffman tables of its own and nothing in
/// it: the most work for an octet. It ends as an empty list.
fn empty_blocks() -> Vec<u8> {
    let mut bits = Bits(vec![0x78, 0xda], 0);
    // Each is 90 bits: a header, the lengths of 18 codes of lengths of which
    // those of 1 and 18 are 1 bit, 256 zeros by two repetitions, a one for the
    // end of the block and a one for a distance, and that end.
    while bits.0.len() < COMPRESSED_LEN_MAX - 32 {
        bits.put(0, 1);
        bits.put(2, 2);
        bits.put(0, 5);
        bits.put(0, 5);
        bits.put(14, 4);
        for at in 0..18 {
            bits.put(u32::from(at == 2 || at == 17), 3);
        }
        for zeros in [138 - 11, 118 - 11] {
            bits.put(1, 1);
            bits.put(zeros, 7);
        }
        bits.put(0, 1);
        bits.put(0, 1);
        bits.put(0, 1);
    }
    // The last block: fixed codes, and its end.
    bits.put(1, 1);
    bits.put(1, 2);
    bits.put(0, 7);
    bits.0.extend([0, 0, 0, 1]);
    bits.0
}

/// Octets, and how many bits of the last are used.
struct Bits(Vec<u8>, u32);

impl Bits {
    fn put(&mut self, value: u32, count: u32) {
        for at in 0..count {
            if self.1 == 0 {
                self.0.push(0);
            }
            let bit = (value >> at & 1) as u8;
            *self.0.last_mut().unwrap() |= bit << self.1;
            self.1 = (self.1 + 1) % 8;
        }
    }
}

/// Every part as large as the format allows, and nothing that refuses early.
fn largest_claims() -> Claims<'static> {
    let corner = |lat: i32, lon: i32| Position::new(lat * 10_000_000, lon * 10_000_000).unwrap();
    let east = (0..8).map(|at| corner(-40 + 12 * at, 20 + at % 2));
    let west = (0..8).map(|at| corner(44 - 12 * at, 5 + at % 2));
    let corners: Vec<_> = east.chain(west).collect();
    let windows: Vec<_> = (0..WINDOWS_MAX as u16)
        .map(|at| Window::new(0x7f, at * 90, (at + 1) * 90 % 1440, 0).unwrap())
        .collect();
    Claims {
        region: Some(Region::Polygon(Polygon::new(&corners).unwrap())),
        recurring: Some(Recurring::new(&windows).unwrap()),
        ..full_claims()
    }
}

/// Signed in a tree of 2^24 keys.
fn largest_key() -> Vec<u8> {
    let kid = ESP256.issuer().kid();
    let header = key::protected_header(ESP256.algorithm, &kid);
    let mut claims = vec![];
    key::encode_claims(&mut claims, &largest_claims()).unwrap();
    let path: Vec<_> = (0..24).map(|at| [at; 32]).collect();
    let leaf = key::leaf(&header, &claims);
    let root = path.iter().fold(leaf, |hash, next| node(&hash, next));
    let receipt_header = receipt::protected_header(ESP256.algorithm, &kid);
    let signature = ESP256.sign(&receipt::to_be_signed(&receipt_header, &root));
    let mut out = vec![];
    receipt::assemble(
        &mut out,
        &header,
        &claims,
        &receipt_header,
        1 << 24,
        0,
        path.iter(),
        &signature,
    );
    out
}

fn take_largest_trust() -> Result<u16, Refusal> {
    let many: Vec<Entry> = (1..=ENTRIES_MAX as u8)
        .map(|octet| Entry {
            key: fixture::Secret {
                octets: [octet; 32],
                ..ESP256
            }
            .issuer(),
            not_before: 1 << 32,
            not_after: fob_verify::TIME_MAX,
        })
        .collect();
    let draft = Draft {
        entries: &many,
        ..fixture::draft(&[])
    };
    let message = trust::to_be_signed(&draft, &fixture::ROOT.issuer()).unwrap();
    let bytes = fixture::ROOT.finish(&message);
    let anchor = Anchor::Root(fixture::ROOT.issuer());
    let clock = Clock {
        reading: NOW,
        uncertainty_s: 0,
    };
    let mut notebook = Notebook::default();
    measured(|| take_trust(&bytes, &anchor, clock, &RustCrypto, &mut notebook).map(|_| 0))
}

impl Garage {
    /// A use with lists that were verified before, as in a car that is awake.
    fn show_measured(&self, key: &[u8], proof: &[u8]) -> Result<u16, Refusal> {
        use fob_verify::vehicle::{Car, Challenge, Policy, Request, check};
        let trust = &self.notebook.trust;
        let trust = trust::verify(trust, &[fixture::ROOT.issuer()], 0, &RustCrypto)?;
        let lists = &self.notebook.lists;
        let list = lists.get(STATUS_URI).map_or(&[][..], Vec::as_slice);
        let lists = [status::verify(list, &trust, &RustCrypto)?];
        let car = Car {
            vehicle: VEHICLE,
            fleet: FLEET,
            trust: &trust,
            lists: &lists,
            policy: Policy::STANDARD,
            clock: self.clock,
            verifier: RustCrypto,
        };
        let request = Request {
            key,
            proof,
            challenge: Challenge::new(&self.challenge)?,
            position: Position::new(100_000_000, 120_000_000).ok(),
        };
        // The examples' key is for a circle elsewhere.
        let request = Request {
            position: if key.len() < 1000 {
                self.position
            } else {
                request.position
            },
            ..request
        };
        let mut notebook = self.notebook.clone();
        let mut room = Box::new(Room::new());
        measured(|| check(request, &car, &mut room, &mut notebook).map(|ok| ok.function()))
    }
}
