//! Status lists: the draft's vectors, ours, and what a reader refuses.

use crate::annotate::unhex;
use crate::fixture::{
    self, COMPRESSED, ED25519, ES256, ESP256, LISTED, NOW, ROOT, STATUS_URI, Secret, entries,
    status_draft,
};
use fob_verify::status::{
    self, Bits, COMPRESSED_LEN_MAX, Draft, ENTRIES_MAX, LIST_LEN_MAX, Room, STATUS_LEN_MAX, Status,
    StatusList,
};
use fob_verify::trust::{self, Entry, TrustList};
use fob_verify::{Refusal, RustCrypto, Verified};
use std::io::Write;

fn with_trust<T>(entries: &[Entry], then: impl FnOnce(&Verified<TrustList<'_>>) -> T) -> T {
    let message = trust::to_be_signed(&fixture::draft(entries), &ROOT.issuer()).unwrap();
    let bytes = ROOT.finish(&message);
    then(&trust::verify(&bytes, &[ROOT.issuer()], NOW, &RustCrypto).unwrap())
}

fn signed(signer: &Secret, draft: &Draft<'_>) -> Vec<u8> {
    let message = status::to_be_signed(draft, signer.algorithm, &signer.issuer().kid());
    signer.finish(&message.unwrap())
}

/// What a car says to these bytes.
fn read<T>(bytes: &[u8], then: impl FnOnce(&StatusList<'_>) -> T) -> Result<T, Refusal> {
    with_trust(&entries(), |trust| {
        status::verify(bytes, trust, &RustCrypto).map(|list| then(&list))
    })
}

fn zlib(octets: &[u8], level: u32) -> Vec<u8> {
    let level = flate2::Compression::new(level);
    let mut encoder = flate2::write::ZlibEncoder::new(vec![], level);
    encoder.write_all(octets).unwrap();
    encoder.finish().unwrap()
}

fn room<const N: usize>() -> Box<Room<N>> {
    Box::new(Room::new())
}

/// The stream in the CBOR encodings that the draft prints, without the map
/// around it.
struct Vector {
    bits: Bits,
    lst: &'static str,
    set: &'static [(u32, u8)],
    entries: u32,
}

/// Sections 4.1 to 4.3, C.1 and C.2 of draft-ietf-oauth-status-list.
const VECTORS: [Vector; 4] = [
    Vector {
        bits: Bits::One,
        lst: "78dadbb918000217015d",
        set: &[
            (0, 1),
            (3, 1),
            (4, 1),
            (5, 1),
            (7, 1),
            (8, 1),
            (9, 1),
            (13, 1),
            (15, 1),
        ],
        entries: 16,
    },
    Vector {
        bits: Bits::Two,
        lst: "78da3be9f2130003df0207",
        set: &[
            (0, 1),
            (1, 2),
            (3, 3),
            (5, 1),
            (7, 1),
            (8, 1),
            (9, 2),
            (10, 3),
            (11, 3),
        ],
        entries: 12,
    },
    Vector {
        bits: Bits::One,
        lst: "78daeddc010dc0200c0041a88249400ad2903e0f4b\
              ba00bd93f002beb7a2a2010000a91e09000000000000000000000000000000807296\
              04000000000000000000000000000000000000000000000000000000000000000000\
              000000000000005c6f4800000000000000fc2c240000000000000000000000be1b12\
              000000000000000000ecaa4b000000000000000000000000000000009b0b09000000\
              00000000000038de9400000000000000002a30cc010000000080642f0bd8011b",
        set: &[
            (0, 1),
            (1993, 1),
            (25_460, 1),
            (159_495, 1),
            (495_669, 1),
            (554_353, 1),
            (645_645, 1),
            (723_232, 1),
            (854_545, 1),
            (934_534, 1),
            (1_000_345, 1),
        ],
        entries: 1 << 20,
    },
    Vector {
        bits: Bits::Two,
        lst: "78daeddb310d00211000412ea1a04004fe5520ed\
              357c28c81d3312b6df68bc65480000000000406e2101000000000000000000000000\
              0000000000000000000000000000000000000040795b020000000000000000000000\
              00000000000000000000000000000000000000000000000000000000000000000000\
              00000000000000000000000000000000000000000000000000000000000000000000\
              0080f4ba0400000000000000000000000000406d764a000000000000000000000000\
              000000000000000000e0922101000000000000000000000000000000000000fc1312\
              00000000000000000000000000000000000000000000000000000000000000c0912e\
              01000000000000000000000000000000000000c07d4b020000000000000000000000\
              00000000a8614a0000000000000000000000406a1fcd60010c",
        set: &[
            (0, 1),
            (1993, 2),
            (25_460, 1),
            (159_495, 3),
            (495_669, 1),
            (554_353, 1),
            (645_645, 2),
            (723_232, 1),
            (854_545, 1),
            (934_534, 2),
            (1_000_345, 3),
        ],
        entries: 1 << 20,
    },
];

#[test]
fn the_drafts_vectors_are_read() {
    for vector in &VECTORS {
        let stream = unhex(vector.lst);
        let mut room = room::<{ 1 << 18 }>();
        let octets = room.inflate(&stream).unwrap();
        assert_eq!(
            octets.len() * 8,
            vector.entries as usize * vector.bits as usize
        );
        let found = (0..vector.entries).map(|at| (at, vector.bits.value(octets, at).unwrap()));
        let found: Vec<_> = found.filter(|entry| entry.1 != 0).collect();
        assert_eq!(found, vector.set);
        let end = room.look_up(&stream, vector.bits, vector.entries);
        assert_eq!(end, Err(Refusal::StatusIndex));
    }
}

#[test]
fn the_drafts_vectors_changed_by_a_bit_are_refused() {
    for vector in &VECTORS {
        let stream = unhex(vector.lst);
        let mut room = room::<{ 1 << 18 }>();
        let whole = room.inflate(&stream).unwrap().to_vec();
        for bit in 0..stream.len() * 8 {
            let mut mutant = stream.clone();
            mutant[bit / 8] ^= 1 << (bit % 8);
            // A few bits say how a compressor worked and not what it read.
            match room.inflate(&mutant) {
                Ok(octets) => assert!(octets == whole, "bit {bit}"),
                Err(why) => assert_eq!(why, Refusal::BadCompression),
            }
        }
    }
}

#[test]
fn a_list_of_the_draft_that_is_too_large_for_a_car_is_refused() {
    let stream = unhex(VECTORS[3].lst);
    let mut room = room::<LIST_LEN_MAX>();
    assert_eq!(room.inflate(&stream), Err(Refusal::BadCompression));
}

#[test]
fn a_list_is_what_was_drafted() {
    read(&fixture::status_list(), |list| {
        assert_eq!(list.uri(), STATUS_URI);
        assert_eq!((list.issued_at(), list.ttl_s()), (LISTED, 3600));
        assert_eq!(list.fresh_until(), LISTED + 3600);
        assert_eq!(list.compressed(), unhex(COMPRESSED));
        assert_eq!(list.check_time(list.expires() - 1), Ok(()));
        let late = list.check_time(list.expires());
        assert_eq!(late, Err(Refusal::StatusListExpired));
        assert_eq!(list.check_newer_than(LISTED - 1), Ok(()));
        let again = list.check_newer_than(LISTED);
        assert_eq!(again, Err(Refusal::StatusListNotNewer));
    })
    .unwrap();
}

#[test]
fn every_entry_is_its_own() {
    read(&fixture::status_list(), |list| {
        let mut room = room();
        for (index, status) in [
            (99, Ok(Status::Valid)),
            (100, Ok(Status::Revoked)),
            (101, Ok(Status::Valid)),
            (4711, Ok(Status::Valid)),
            (4712, Ok(Status::Suspended)),
            (131_071, Ok(Status::Revoked)),
            (131_072, Err(Refusal::StatusIndex)),
            (u32::MAX, Err(Refusal::StatusIndex)),
        ] {
            assert_eq!(list.status(index, &mut room), status, "{index}");
        }
    })
    .unwrap();
}

#[test]
fn an_entry_of_three_is_no_status() {
    let stream = zlib(&[0b11], 9);
    read(&signed(&ESP256, &status_draft(&stream)), |list| {
        let mut room = room();
        assert_eq!(list.status(0, &mut room), Err(Refusal::UnknownStatus));
        assert_eq!(list.status(1, &mut room), Ok(Status::Valid));
    })
    .unwrap();
}

#[test]
fn what_was_set_is_read_at_every_level_of_compression() {
    let mut octets = vec![0; LIST_LEN_MAX];
    let of = |index: u32| match index % 100 {
        0 => Status::Revoked,
        33 => Status::Suspended,
        _ => Status::Valid,
    };
    for index in 0..ENTRIES_MAX as u32 {
        assert!(status::set(&mut octets, index, of(index)));
    }
    assert!(!status::set(
        &mut octets,
        ENTRIES_MAX as u32,
        Status::Revoked
    ));
    for level in [0, 1, 6, 9] {
        let stream = zlib(&octets, level);
        let mut room = room::<LIST_LEN_MAX>();
        assert_eq!(room.inflate(&stream).unwrap(), octets);
        for index in [0, 33, 100, 101, 131_000, 131_033, 131_071] {
            let value = room.look_up(&stream, Bits::Two, index);
            assert_eq!(value, Ok(of(index) as u8));
        }
    }
}

#[test]
fn the_largest_list_that_does_not_compress_fits() {
    let mut state = 1u32;
    let noise: Vec<u8> = (0..LIST_LEN_MAX)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect();
    let stream = zlib(&noise, 9);
    assert!(stream.len() > LIST_LEN_MAX && stream.len() <= COMPRESSED_LEN_MAX);
    let uri = "u".repeat(256);
    let draft = Draft {
        uri: &uri,
        ..status_draft(&stream)
    };
    let bytes = signed(&ESP256, &draft);
    assert!(bytes.len() <= STATUS_LEN_MAX);
    assert_eq!(
        read(&bytes, |list| list.compressed().len()),
        Ok(stream.len())
    );
    let more = zlib(&[&noise[..], &[0]].concat(), 9);
    assert_eq!(
        room::<LIST_LEN_MAX>().inflate(&more),
        Err(Refusal::BadCompression)
    );
}

#[test]
fn streams_that_are_not_whole_are_refused() {
    let whole = unhex(COMPRESSED);
    let mut room = room::<LIST_LEN_MAX>();
    let mut refused = |stream: &[u8]| room.inflate(stream) == Err(Refusal::BadCompression);
    for at in 0..whole.len() {
        assert!(refused(&whole[..at]), "cut at {at}");
    }
    assert!(refused(&[&whole[..], &[0]].concat()), "an octet more");
    // The stream without its zlib header, as raw DEFLATE.
    assert!(refused(&whole[2..]));
    // A zip bomb: sixteen mebioctets of zeros.
    assert!(refused(&zlib(&vec![0; 1 << 24], 9)));
    assert!(refused(&[]));
}

#[test]
fn lists_no_car_would_take_are_not_made() {
    let stream = unhex(COMPRESSED);
    let good = status_draft(&stream);
    let long = vec![0; COMPRESSED_LEN_MAX + 1];
    let uri = "u".repeat(257);
    for draft in [
        Draft { uri: "", ..good },
        Draft { uri: &uri, ..good },
        Draft { ttl_s: 0, ..good },
        Draft {
            expires: LISTED,
            ..good
        },
        Draft {
            expires: fob_verify::TIME_MAX + 1,
            ..good
        },
        Draft {
            compressed: &[],
            ..good
        },
        Draft {
            compressed: &long,
            ..good
        },
    ] {
        let made = status::to_be_signed(&draft, ESP256.algorithm, &ESP256.issuer().kid());
        assert_eq!(made, Err(Refusal::OutOfBounds));
    }
}

/// Claims of our own signer that no encoder of ours writes.
#[test]
fn signed_claims_outside_the_format_are_refused() {
    let message = fixture::status_message();
    let claims = crate::annotate::hex(message.claims());
    for (from, to, refusal) in [
        // bits 1
        ("646269747302", "646269747301", Refusal::OutOfBounds),
        // ttl 0
        ("19fffe190e10", "19fffe00", Refusal::OutOfBounds),
        // exp = iat
        ("041a6964b810", "041a695b7d90", Refusal::OutOfBounds),
        // a claim less
        ("a50278", "a40278", Refusal::UnexpectedLabel),
        // another label
        ("19fffda2", "19ffffa2", Refusal::UnexpectedLabel),
        ("646269747302", "646269787302", Refusal::UnexpectedLabel),
    ] {
        assert!(claims.contains(from), "{from} in {claims}");
        let claims = unhex(&claims.replacen(from, to, 1));
        let bytes = resigned(&ESP256, message.protected(), &claims);
        assert_eq!(read(&bytes, |_| ()), Err(refusal), "{to}");
    }
}

fn resigned(signer: &Secret, protected: &[u8], claims: &[u8]) -> Vec<u8> {
    let head = |len: usize| match u8::try_from(len) {
        Ok(len @ 0..=23) => vec![0x40 | len],
        Ok(len) => vec![0x58, len],
        Err(_) => [&[0x59][..], &u16::try_from(len).unwrap().to_be_bytes()].concat(),
    };
    let message = [
        &b"\x84\x6aSignature1"[..],
        &head(protected.len()),
        protected,
        &[0x40],
        &head(claims.len()),
        claims,
    ];
    let mut out = vec![];
    let signature = signer.sign(&message.concat());
    fob_verify::sign1::assemble(&mut out, protected, claims, &signature);
    out
}

#[test]
fn a_list_needs_an_issuer_that_is_listed_and_in_its_window() {
    let stream = unhex(COMPRESSED);
    let [esp256, es256, ed25519] = entries();
    for signer in [ESP256, ES256, ED25519] {
        let bytes = signed(&signer, &status_draft(&stream));
        assert_eq!(read(&bytes, |_| ()), Ok(()), "{}", signer.name);
    }
    assert_eq!(
        read(&signed(&ROOT, &status_draft(&stream)), |_| ()),
        Err(Refusal::UnknownIssuer)
    );
    for (issued_at, answer) in [
        (esp256.not_before - 1, Err(Refusal::OutsideIssuerWindow)),
        (esp256.not_before, Ok(())),
        (esp256.not_after - 1, Ok(())),
        (esp256.not_after, Err(Refusal::OutsideIssuerWindow)),
    ] {
        let draft = Draft {
            issued_at,
            expires: issued_at + 1,
            ..status_draft(&stream)
        };
        assert_eq!(read(&signed(&ESP256, &draft), |_| ()), answer);
    }
    let bytes = fixture::status_list();
    let held = |under: &[Entry]| {
        with_trust(&entries(), |trust| {
            let list = status::verify(&bytes, trust, &RustCrypto).unwrap();
            with_trust(under, |newer| list.check_issuer(newer))
        })
    };
    assert_eq!(held(&entries()), Ok(()));
    assert_eq!(held(&[es256, ed25519]), Err(Refusal::UnknownIssuer));
    let shut = Entry {
        not_after: LISTED,
        ..esp256
    };
    assert_eq!(held(&[shut]), Err(Refusal::OutsideIssuerWindow));
}

#[test]
fn a_forged_list_is_refused() {
    let mut bytes = fixture::status_list();
    *bytes.last_mut().unwrap() ^= 1;
    assert_eq!(read(&bytes, |_| ()), Err(Refusal::BadSignature));
    let long = vec![0xd2; STATUS_LEN_MAX + 1];
    assert_eq!(read(&long, |_| ()), Err(Refusal::TooLong));
}
