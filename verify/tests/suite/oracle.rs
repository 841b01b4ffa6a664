//! `coset`, an implementation by others, reads and writes the same bytes.

use crate::fixture::{self, Secret};
use coset::cbor::value::Value;
use coset::iana::{self, EnumI64};
use coset::{
    CborSerializable, CoseKey, CoseKeyBuilder, CoseSign1, CoseSign1Builder, Header, HeaderBuilder,
    Label, TaggedCborSerializable,
};
use fob_verify::{Algorithm, RustCrypto, Verifier};

fn objects() -> Vec<(Vec<u8>, Secret, &'static str, bool)> {
    let key = fob_verify::key::TYP;
    vec![
        (
            fixture::key(&fixture::ESP256, &fixture::full_claims()),
            fixture::ESP256,
            key,
            true,
        ),
        (
            fixture::key(&fixture::ES256, &fixture::fiji_claims()),
            fixture::ES256,
            key,
            true,
        ),
        (
            fixture::key(&fixture::ED25519, &fixture::plain_claims()),
            fixture::ED25519,
            key,
            true,
        ),
        (
            fixture::trust_list(),
            fixture::ROOT,
            fob_verify::trust::TYP,
            true,
        ),
        (
            fixture::proof(),
            fixture::PHONE,
            fob_verify::use_proof::TYP,
            false,
        ),
        (
            fixture::status_list(),
            fixture::ESP256,
            fob_verify::status::TYP,
            true,
        ),
        (
            fixture::sync(),
            fixture::ESP256,
            fob_verify::sync::TYP,
            true,
        ),
        (fixture::ack(), fixture::CAR, fob_verify::ack::TYP, true),
    ]
}

fn algorithm(algorithm: Algorithm) -> iana::Algorithm {
    iana::Algorithm::from_i64(algorithm.cose()).unwrap()
}

fn header(signer: &Secret, typ: &str, with_kid: bool) -> Header {
    let header = HeaderBuilder::new().algorithm(algorithm(signer.algorithm));
    let header = if with_kid {
        header.key_id(signer.issuer().kid().to_vec())
    } else {
        header
    };
    header.value(16, Value::Text(typ.to_owned())).build()
}

#[test]
fn coset_verifies_what_we_sign() {
    for (object, signer, ..) in objects() {
        let sign1 = CoseSign1::from_tagged_slice(&object).unwrap();
        let verified = sign1.verify_signature(&[], |signature, message| {
            let signature = signature.try_into().unwrap();
            let public = signer.public();
            let held = RustCrypto.verify(signer.algorithm, &public, &[message], signature);
            held.then_some(()).ok_or(())
        });
        assert_eq!(verified, Ok(()));
    }
}

#[test]
fn coset_writes_the_same_octets() {
    for (object, signer, typ, with_kid) in objects() {
        let claims = CoseSign1::from_tagged_slice(&object)
            .unwrap()
            .payload
            .unwrap();
        let built = CoseSign1Builder::new()
            .protected(header(&signer, typ, with_kid))
            .payload(claims)
            .create_signature(&[], |message| signer.sign(message).to_vec())
            .build();
        assert_eq!(built.to_tagged_vec().unwrap(), object);
    }
}

/// Not through coset's own claims set, which does not know label 65535 yet.
#[test]
fn another_reader_sees_the_claims_in_order() {
    let (object, ..) = objects().swap_remove(0);
    let payload = CoseSign1::from_tagged_slice(&object)
        .unwrap()
        .payload
        .unwrap();
    let claims = Value::from_slice(&payload).unwrap().into_map().unwrap();
    let labels: Vec<i64> = claims
        .iter()
        .map(|(label, _)| label.as_integer().unwrap().try_into().unwrap())
        .collect();
    assert_eq!(labels, [1, 3, 4, 5, 6, 7, 8, 9, 65_535, -70_001]);
    assert_eq!(claims[0].1.as_text(), Some(fixture::ISSUER));
    assert_eq!(claims[1].1.as_text(), Some(fixture::VEHICLE));
    assert_eq!(claims[5].1.as_bytes().unwrap(), &fixture::KEY_ID);
    assert_eq!(claims[9].1.as_map().unwrap().len(), 8);
}

#[test]
fn coset_reads_and_writes_our_cose_keys() {
    for secret in fixture::SECRETS {
        let public = secret.public();
        let builder = match public.y() {
            Some(y) => CoseKeyBuilder::new_ec2_pub_key(
                iana::EllipticCurve::P_256,
                public.x().to_vec(),
                y.to_vec(),
            ),
            None => CoseKeyBuilder::new_okp_key()
                .param(-1, Value::from(iana::EllipticCurve::Ed25519.to_i64()))
                .param(-2, Value::Bytes(public.x().to_vec())),
        };
        let key = builder.algorithm(algorithm(secret.algorithm)).build();
        let mut ours = vec![];
        secret.issuer().encode(&mut ours);
        assert_eq!(key.to_vec().unwrap(), ours);
        let mut holder = vec![];
        secret.holder().encode(&mut holder);
        let holder = CoseKey::from_slice(&holder).unwrap();
        assert_eq!(holder.alg, None);
        let odd = holder
            .params
            .iter()
            .find(|(label, _)| *label == Label::Int(-3));
        assert_eq!(odd.map(|(_, v)| v.as_bool().unwrap()), public.y_is_odd());
    }
}
