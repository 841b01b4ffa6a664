//! Keys as such: what is encoded is decoded, and nothing else is.

use crate::fixture::{self, ESP256, full_claims, key_message, plain_claims};
use fob_verify::key::{self, Claims, KEY_LEN_MAX, SignedKey};
use fob_verify::region::{CORNERS_MAX, Polygon, Position, Region};
use fob_verify::sign1::assemble;
use fob_verify::window::{Recurring, WINDOWS_MAX, Window};
use fob_verify::{Refusal, TIME_MAX};

fn decoded(claims: &Claims<'_>) -> Result<usize, Refusal> {
    let object = fixture::key(&ESP256, claims);
    let key = SignedKey::decode(&object)?;
    assert_eq!(key.unverified(), claims);
    Ok(object.len())
}

/// The claims of every length the format can have at most.
fn largest() -> Claims<'static> {
    let corner = |i: i32| Position::new(899_000_000 - i, -1_700_000_000 - i).unwrap();
    let corners: [Position; CORNERS_MAX] = std::array::from_fn(|i| corner(i as i32));
    let window = Window::new(127, 1438, 1439, 840).unwrap();
    Claims {
        issuer: Box::leak("i".repeat(key::ISSUER_LEN_MAX).into_boxed_str()),
        vehicle: Box::leak("v".repeat(key::VEHICLE_LEN_MAX).into_boxed_str()),
        expires: TIME_MAX,
        not_before: TIME_MAX - 1,
        issued_at: TIME_MAX,
        function_name: Box::leak("f".repeat(key::FUNCTION_NAME_LEN_MAX).into_boxed_str()),
        status: key::StatusRef {
            index: u32::MAX,
            uri: Box::leak("u".repeat(key::STATUS_URI_LEN_MAX).into_boxed_str()),
        },
        function: u16::MAX,
        version: u32::MAX,
        vehicle_epoch: u32::MAX,
        region: Some(Region::Polygon(Polygon::new(&corners).unwrap())),
        max_uses: Some(u32::MAX),
        recurring: Some(Recurring::new(&[window; WINDOWS_MAX]).unwrap()),
        ..full_claims()
    }
}

#[test]
fn every_combination_of_optional_claims_survives() {
    let full = full_claims();
    for present in 0..8 {
        let claims = Claims {
            region: full.region.filter(|_| present & 1 != 0),
            max_uses: full.max_uses.filter(|_| present & 2 != 0),
            recurring: full.recurring.filter(|_| present & 4 != 0),
            ..full
        };
        assert!(decoded(&claims).is_ok());
    }
    assert!(decoded(&plain_claims()).is_ok());
    assert!(decoded(&fixture::fiji_claims()).is_ok());
}

#[test]
fn the_largest_key_fits_and_the_smallest_has_a_short_head() {
    assert!(decoded(&largest()).unwrap() <= KEY_LEN_MAX);
    let smallest = Claims {
        issuer: "i",
        vehicle: "v",
        expires: 1,
        not_before: 0,
        issued_at: 0,
        function_name: "f",
        status: key::StatusRef { index: 0, uri: "u" },
        ..plain_claims()
    };
    let message = key_message(&ESP256, &smallest);
    assert!(message.claims().len() < 256);
    assert!(decoded(&smallest).is_ok());
}

#[test]
fn the_fast_encoder_appends_and_says_where() {
    let header = key::protected_header(ESP256.algorithm, &ESP256.issuer().kid());
    let mut arena = b"before".to_vec();
    let range = key::to_be_signed(&mut arena, &header, &full_claims()).unwrap();
    let message = key_message(&ESP256, &full_claims());
    assert_eq!(&arena[6..], message.message());
    assert_eq!(&arena[range.clone()], message.claims());
    let mut claims = vec![];
    key::encode_claims(&mut claims, &full_claims()).unwrap();
    assert_eq!(claims, message.claims());
    let signature = ESP256.sign(&arena[6..]);
    let mut object = vec![];
    assemble(&mut object, &header, &arena[range], &signature);
    assert_eq!(object, fixture::key(&ESP256, &full_claims()));
}

#[test]
fn claims_outside_the_limits_are_not_encoded() {
    let full = full_claims();
    let long = "x".repeat(257);
    let wrong = [
        Claims { issuer: "", ..full },
        Claims {
            issuer: &long,
            ..full
        },
        Claims {
            vehicle: "",
            ..full
        },
        Claims {
            vehicle: "A B",
            ..full
        },
        Claims {
            vehicle: "Ä",
            ..full
        },
        Claims {
            vehicle: &long[..33],
            ..full
        },
        Claims {
            function_name: "",
            ..full
        },
        Claims {
            expires: full.not_before,
            ..full
        },
        Claims {
            expires: TIME_MAX + 1,
            ..full
        },
        Claims {
            issued_at: TIME_MAX + 1,
            ..full
        },
        Claims {
            function: 0,
            ..full
        },
        Claims {
            max_uses: Some(0),
            ..full
        },
    ];
    for claims in wrong {
        let mut out = vec![1];
        assert_eq!(
            key::encode_claims(&mut out, &claims),
            Err(Refusal::OutOfBounds)
        );
        assert_eq!(out, [1]);
    }
}

/// Edits the claims of a key, signs it again and says how it is read.
fn edited(from: &[u8], to: &[u8]) -> Result<(), Refusal> {
    let message = key_message(&ESP256, &full_claims());
    let claims = message.claims();
    let at = claims.windows(from.len()).position(|w| w == from).unwrap();
    let claims = [&claims[..at], to, &claims[at + from.len()..]].concat();
    let mut object = vec![];
    assemble(&mut object, message.protected(), &claims, &[1; 64]);
    SignedKey::decode(&object).map(|_| ())
}

#[test]
fn a_signed_oddity_is_still_an_oddity() {
    let version = &[0x03, 0x01, 0x04, 0x03, 0x05, 0x84];
    for (to, refusal) in [
        (
            &[0x03, 0x18, 0x01, 0x04, 0x03, 0x05, 0x84][..],
            Refusal::NotDeterministic,
        ),
        (
            &[0x03, 0x01, 0x03, 0x03, 0x05, 0x84],
            Refusal::UnexpectedLabel,
        ),
        (
            &[0x04, 0x03, 0x03, 0x01, 0x05, 0x84],
            Refusal::UnexpectedLabel,
        ),
        (&[0x03, 0x20, 0x04, 0x03, 0x05, 0x84], Refusal::WrongType),
        (
            &[0x03, 0xf9, 0x3c, 0x00, 0x04, 0x03, 0x05, 0x84],
            Refusal::WrongType,
        ),
        (
            &[0x03, 0x01, 0x04, 0x03, 0x05, 0x9f],
            Refusal::NotDeterministic,
        ),
        (&[0x03, 0x01, 0x04, 0x03, 0x05, 0x83], Refusal::WrongCount),
        (
            &[0x03, 0x01, 0x04, 0x03, 0x0a, 0x84],
            Refusal::UnexpectedLabel,
        ),
    ] {
        assert_eq!(edited(version, to), Err(refusal), "{to:02x?}");
    }
    assert_eq!(
        edited(b"\xa8\x01\x01", b"\xa9\x01\x01"),
        Err(Refusal::UnexpectedLabel)
    );
    assert_eq!(
        edited(b"\xa8\x01\x01", b"\xa7\x01\x01"),
        Err(Refusal::TrailingBytes)
    );
    assert_eq!(
        edited(b"\xa8\x01\x01", b"\xa8\x01\x00"),
        Err(Refusal::OutOfBounds)
    );
    assert_eq!(
        edited(b"DEMO-0001", b"DEMO 0001"),
        Err(Refusal::OutOfBounds)
    );
    assert_eq!(
        edited(b"fob.example\x03", b"fob.e\xffample\x03"),
        Err(Refusal::InvalidText)
    );
    assert_eq!(
        edited(b"\x18\x3c", b"\x18\x3c\x00"),
        Err(Refusal::TrailingBytes)
    );
    assert_eq!(
        edited(b"\xaa\x01\x6b", b"\xab\x01\x6b"),
        Err(Refusal::UnexpectedLabel)
    );
}

#[test]
fn only_the_exact_header_is_read() {
    let message = key_message(&ESP256, &full_claims());
    let [kid, typ] = [&message.protected()[3..13], &message.protected()[13..]];
    let read = |header: &[&[u8]]| {
        let mut object = vec![];
        assemble(&mut object, &header.concat(), message.claims(), &[1; 64]);
        SignedKey::decode(&object).map(|_| ())
    };
    assert_eq!(read(&[b"\xa3\x01\x28", kid, typ]), Ok(()));
    assert_eq!(
        read(&[b"\xa3\x01\x27", kid, typ]),
        Err(Refusal::UnknownAlgorithm)
    );
    assert_eq!(
        read(&[b"\xa3\x01\x05", kid, typ]),
        Err(Refusal::UnknownAlgorithm)
    );
    assert_eq!(read(&[b"\xa2\x01\x28", typ]), Err(Refusal::UnexpectedLabel));
    assert_eq!(
        read(&[b"\xa4\x01\x28\x02\x81\x01", kid, typ]),
        Err(Refusal::UnexpectedLabel)
    );
    assert_eq!(
        read(&[b"\xa3", kid, b"\x01\x28", typ]),
        Err(Refusal::UnexpectedLabel)
    );
    assert_eq!(
        read(&[b"\xa3\x01\x28", kid, b"\x10\x77application/fob-use+cwt"]),
        Err(Refusal::WrongObject)
    );
    assert_eq!(
        read(&[b"\xa3\x01\x28", kid, typ, b"\x00"]),
        Err(Refusal::TrailingBytes)
    );
    let object = fixture::key(&ESP256, &full_claims());
    assert_eq!(
        SignedKey::decode(&object[1..]).err(),
        Some(Refusal::WrongType),
        "untagged"
    );
}
