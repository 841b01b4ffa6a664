//! A bundle in bytes, as JSON and as CBOR: the one way a bundle is written, for redemptions, for
//! reading and for batches.
//!
//! The shape is fixed and written by hand into one buffer, keys straight into it as base64url: a
//! batch writes a hundred thousand of these, ten kilobytes each. [`super::bundles::BundleView`]
//! describes the same shape for the API's document.
//!
//! Deliberately not here: what a refusal looks like (`problem.rs`).

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use minicbor::Encoder;
use uuid::Uuid;

use crate::domain::time::Time;
use crate::domain::{Bundle, KeyStatus};
use crate::engine::statuses::Statuses;
use crate::engine::sync::Staple;
use crate::engine::{Failure, rebuild};
use crate::store::SignedBundle;

/// Bytes of a key's JSON, about: those of a key signed in a large tree.
const KEY_LEN: usize = 1536;

/// Bytes of a bundle's JSON beside its keys, rounded up.
const BUNDLE_FRAME_LEN: usize = 256;

/// Appends a bundle as JSON. Where it fails, nothing was appended.
///
/// # Errors
/// A fault where what is stored cannot be encoded.
pub(super) fn json(
    out: &mut Vec<u8>,
    signed: &SignedBundle,
    statuses: &Statuses,
) -> Result<(), Failure> {
    let bundle = &signed.bundle;
    let start = out.len();
    out.reserve(KEY_LEN * bundle.keys.len() + BUNDLE_FRAME_LEN);
    out.extend_from_slice(b"{\"bundle\":\"");
    id(out, bundle.id.bytes());
    out.extend_from_slice(b"\",\"authorization\":\"");
    id(out, bundle.authorization.bytes());
    out.extend_from_slice(b"\",\"version\":");
    number(out, u64::from(bundle.version));
    out.extend_from_slice(b",\"vehicle\":");
    text(out, bundle.vehicle.as_str());
    out.extend_from_slice(b",\"keys\":[");
    let (not_before, not_after) = times(bundle);
    let standing = statuses.of_bundle(bundle);
    let mut subjects = bundle.subjects.iter().zip(standing);
    let mut before = "{\"id\":\"";
    let written = rebuild::each_key(signed, |key| {
        let Some((subject, status)) = subjects.next() else {
            return;
        };
        out.extend_from_slice(before.as_bytes());
        before = ",{\"id\":\"";
        id(out, &bundle.key_id(subject).0);
        out.extend_from_slice(b"\",\"function\":");
        text(out, &subject.name);
        out.extend_from_slice(b",\"key\":\"");
        base64url(out, key);
        for part in [
            "\",\"not_before\":\"",
            not_before.as_str(),
            "\",\"not_after\":\"",
            not_after.as_str(),
            "\",\"status\":\"",
            status.name(),
            "\"}",
        ] {
            out.extend_from_slice(part.as_bytes());
        }
    });
    if written.is_err() {
        out.truncate(start);
        return written;
    }
    out.extend_from_slice(b"]}");
    Ok(())
}

/// Adds to a bundle in JSON, just written, what a car in a garage should see with it.
pub(super) fn staple_json(out: &mut Vec<u8>, staple: &Staple) {
    if out.pop().is_none() {
        return;
    }
    out.extend_from_slice(b",\"trust\":\"");
    base64url(out, &staple.trust);
    out.extend_from_slice(b"\",\"status_lists\":[");
    for (at, list) in staple.lists.iter().enumerate() {
        out.extend_from_slice(if at == 0 { b"\"" } else { b",\"" });
        base64url(out, list);
        out.push(b'"');
    }
    out.extend_from_slice(b"]}");
}

/// Appends the same map in deterministic CBOR (RFC 8949 §4.2.1), keys as bytes. Where it fails,
/// nothing was appended.
///
/// # Errors
/// As [`json`].
pub(super) fn cbor(
    out: &mut Vec<u8>,
    signed: &SignedBundle,
    statuses: &Statuses,
    staple: Option<&Staple>,
) -> Result<(), Failure> {
    let keys = rebuild::keys(signed)?;
    let standing = statuses.of_bundle(&signed.bundle);
    let keys: Vec<_> = keys.into_iter().zip(standing).collect();
    map(&mut Encoder::new(out), &signed.bundle, &keys, staple)
        .map_err(|error| Failure::Fault(error.to_string()))
}

fn map(
    out: &mut Encoder<&mut Vec<u8>>,
    bundle: &Bundle,
    keys: &[(Vec<u8>, KeyStatus)],
    staple: Option<&Staple>,
) -> Result<(), minicbor::encode::Error<std::convert::Infallible>> {
    let mut buffer = Uuid::encode_buffer();
    let (not_before, not_after) = times(bundle);
    out.map(if staple.is_some() { 7 } else { 5 })?;
    out.str("keys")?.array(keys.len() as u64)?;
    for (subject, (key, status)) in bundle.subjects.iter().zip(keys) {
        let key_id = hyphenated(&bundle.key_id(subject).0, &mut buffer);
        out.map(6)?.str("id")?.str(key_id)?.str("key")?.bytes(key)?;
        out.str("status")?.str(status.name())?;
        out.str("function")?.str(&subject.name)?;
        out.str("not_after")?.str(&not_after)?;
        out.str("not_before")?.str(&not_before)?;
    }
    if let Some(staple) = staple {
        out.str("trust")?.bytes(&staple.trust)?;
    }
    out.str("bundle")?
        .str(hyphenated(bundle.id.bytes(), &mut buffer))?;
    out.str("vehicle")?.str(bundle.vehicle.as_str())?;
    out.str("version")?.u32(bundle.version)?;
    if let Some(staple) = staple {
        out.str("status_lists")?.array(staple.lists.len() as u64)?;
        for list in &staple.lists {
            out.bytes(list)?;
        }
    }
    out.str("authorization")?
        .str(hyphenated(bundle.authorization.bytes(), &mut buffer))?;
    Ok(())
}

/// Appends a text as a JSON string.
pub(super) fn text(out: &mut Vec<u8>, text: &str) {
    let plain = |b: u8| b >= 0x20 && b != b'"' && b != b'\\';
    if text.bytes().all(plain) {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        out.extend_from_slice(serde_json::Value::from(text).to_string().as_bytes());
    }
}

/// Appends a number.
pub(super) fn number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

fn times(bundle: &Bundle) -> (String, String) {
    let window = bundle.window;
    let text = |at| Time(at).to_string();
    (text(window.not_before), text(window.not_after))
}

fn id(out: &mut Vec<u8>, bytes: &[u8; 16]) {
    let mut buffer = Uuid::encode_buffer();
    out.extend_from_slice(hyphenated(bytes, &mut buffer).as_bytes());
}

fn hyphenated<'a>(bytes: &[u8; 16], buffer: &'a mut [u8; 45]) -> &'a str {
    Uuid::from_bytes(*bytes).hyphenated().encode_lower(buffer)
}

fn base64url(out: &mut Vec<u8>, bytes: &[u8]) {
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    // It fits: padding would need the last two bytes, and there is none.
    let written = BASE64_URL_SAFE_NO_PAD
        .encode_slice(bytes, &mut out[start..])
        .unwrap_or_default();
    out.truncate(start + written);
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::store::Proof;

    #[test]
    fn texts_and_numbers_are_what_serde_json_makes_of_them() {
        for sample in ["", "a.b-c_9", "ä€", "\"", "\\", "\n\u{1}", "a\"b\u{7f}"] {
            let mut out = Vec::new();
            text(&mut out, sample);
            assert_eq!(out, serde_json::to_vec(sample).expect("text"), "{sample:?}");
        }
        for sample in [0, 9, 10, 4095, u64::MAX] {
            let mut out = Vec::new();
            number(&mut out, sample);
            assert_eq!(out, sample.to_string().as_bytes());
        }
    }

    #[test]
    fn base64url_is_the_librarys_at_every_length() {
        let bytes: Vec<u8> = (0..=255).collect();
        for len in 0..bytes.len() {
            let mut out = b"x".to_vec();
            base64url(&mut out, &bytes[..len]);
            let expected = BASE64_URL_SAFE_NO_PAD.encode(&bytes[..len]);
            assert_eq!(out[1..], *expected.as_bytes());
        }
    }

    /// Ed25519's base point (RFC 8032 §5.1).
    fn holder() -> fob_verify::HolderKey {
        let mut x = [0x66; 32];
        x[0] = 0x58;
        fob_verify::HolderKey::new_ed25519(&x).expect("a key")
    }

    /// A bundle of two keys with signatures that are none.
    pub(in crate::http) fn sample() -> SignedBundle {
        use crate::domain::{AuthorizationId, BundleId, EpochId, FleetId, IdentityId, KeyRecord};
        use crate::domain::{Subject, VehicleId, Window};
        let subject = |function, name: &str| Subject {
            function,
            name: name.into(),
            status_uri: "https://fob.example/v1/status/1".into(),
        };
        let record = KeyRecord {
            max_uses: None,
            status_index: 7,
        };
        let bundle = Bundle {
            id: BundleId::new(1_790_000_000_123, 5),
            authorization: AuthorizationId([7; 16]),
            version: 1,
            fleet: FleetId([1; 16]),
            vehicle: VehicleId::parse("V-1").expect("a vehicle id"),
            vehicle_epoch: 0,
            identity: IdentityId::parse("anna").expect("an identity"),
            holder: holder(),
            epoch: EpochId([5; 8]),
            algorithm: fob_verify::Algorithm::Esp256,
            issuer: "fob.example".into(),
            issued_at: 1_790_000_000,
            window: Window {
                not_before: 1_790_000_000,
                not_after: 1_790_007_200,
            },
            region: None,
            recurring: None,
            subjects: [subject(1, "doors.unlock"), subject(3, "engine.start")].into(),
            keys: vec![record; 2],
        };
        SignedBundle {
            bundle,
            proof: Proof::Each(vec![[9; 64], [8; 64]]),
        }
    }

    /// The shape the slow and obvious way.
    fn expected(signed: &SignedBundle) -> Value {
        let bundle = &signed.bundle;
        let keys = rebuild::keys(signed).expect("keys");
        let key = |(subject, key): (&crate::domain::Subject, Vec<u8>)| {
            json!({
                "id": bundle.key_id(subject).to_string(),
                "function": subject.name,
                "key": BASE64_URL_SAFE_NO_PAD.encode(key),
                "not_before": Time(bundle.window.not_before),
                "not_after": Time(bundle.window.not_after),
                "status": "valid",
            })
        };
        json!({
            "bundle": bundle.id.to_string(),
            "authorization": bundle.authorization.to_string(),
            "version": 1,
            "vehicle": "V-1",
            "keys": bundle.subjects.iter().zip(keys).map(key).collect::<Vec<_>>(),
        })
    }

    #[test]
    fn a_bundle_is_written_as_described_in_the_order_described() {
        let signed = sample();
        let mut out = Vec::new();
        json(&mut out, &signed, &Statuses::default()).expect("a bundle");
        let value: Value = serde_json::from_slice(&out).expect("JSON");
        assert_eq!(value, expected(&signed));
        let text = String::from_utf8(out).expect("text");
        let places: Vec<_> = [
            "{\"bundle\":",
            ",\"authorization\":",
            ",\"version\":1,",
            "\"vehicle\":\"V-1\",",
            "\"keys\":[{\"id\":",
            ",\"function\":\"doors.unlock\",\"key\":\"",
            "\",\"not_before\":\"2026-",
            "\",\"not_after\":\"2026-",
            "\",\"status\":\"valid\"},{\"id\":",
            "\"status\":\"valid\"}]}",
        ]
        .iter()
        .map(|part| {
            text.find(part)
                .unwrap_or_else(|| panic!("no {part} in {text}"))
        })
        .collect();
        assert!(places.is_sorted(), "{places:?} {text}");
    }

    #[test]
    fn what_fails_leaves_nothing_behind() {
        let mut signed = sample();
        signed.proof = Proof::Each(Vec::new());
        let mut out = b"before".to_vec();
        let statuses = Statuses::default();
        assert!(json(&mut out, &signed, &statuses).is_err());
        assert!(cbor(&mut out, &signed, &statuses, None).is_err());
        assert_eq!(out, b"before");
    }
}
