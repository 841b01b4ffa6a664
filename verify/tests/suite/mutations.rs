//! No mutation of a valid object verifies, and no byte string panics.

use crate::fixture::{self, CAR, ED25519, ES256, ESP256, NOW, PHONE, ROOT, Secret};
use fob_verify::ack::SignedAck;
use fob_verify::code_set::CodeSet;
use fob_verify::key::{self, SignedKey};
use fob_verify::receipt;
use fob_verify::sign1::assemble;
use fob_verify::use_proof::UseProof;
use fob_verify::{HolderKey, IssuerKey, RustCrypto};
use fob_verify::{status, sync, trust};
use proptest::prelude::*;
use std::sync::LazyLock;

/// An object and whether bytes verify as one of its kind.
type Kind = (Vec<u8>, fn(&[u8]) -> bool);

static TRUST: LazyLock<Vec<u8>> = LazyLock::new(fixture::trust_list);

static KINDS: LazyLock<Vec<Kind>> = LazyLock::new(|| {
    vec![
        (fixture::key(&ESP256, &fixture::full_claims()), key_holds),
        (fixture::key(&ES256, &fixture::fiji_claims()), key_holds),
        (fixture::key(&ED25519, &fixture::plain_claims()), key_holds),
        // Its size and index can say nothing else: see `receipt`.
        (fixture::in_tree(&ESP256, 2, 1).assemble(), key_holds),
        (fixture::trust_list(), trust_holds),
        (fixture::proof(), proof_holds),
        (fixture::status_list(), status_holds),
        (fixture::sync(), sync_holds),
        (fixture::ack(), ack_holds),
    ]
});

fn key_holds(bytes: &[u8]) -> bool {
    let list = trust::verify(&TRUST, &[ROOT.issuer()], NOW, &RustCrypto).unwrap();
    SignedKey::decode(bytes).is_ok_and(|key| key.verify(&list, &RustCrypto).is_ok())
}

fn trust_holds(bytes: &[u8]) -> bool {
    trust::verify(bytes, &[ROOT.issuer()], NOW, &RustCrypto).is_ok()
}

fn proof_holds(bytes: &[u8]) -> bool {
    let expected = fixture::the_use();
    UseProof::decode(bytes).is_ok_and(|proof| {
        proof
            .verify(&PHONE.holder(), &expected, &RustCrypto)
            .is_ok()
    })
}

fn status_holds(bytes: &[u8]) -> bool {
    let list = trust::verify(&TRUST, &[ROOT.issuer()], NOW, &RustCrypto).unwrap();
    status::verify(bytes, &list, &RustCrypto).is_ok()
}

fn sync_holds(bytes: &[u8]) -> bool {
    let list = trust::verify(&TRUST, &[ROOT.issuer()], NOW, &RustCrypto).unwrap();
    sync::verify(bytes, &list, &RustCrypto).is_ok()
}

fn ack_holds(bytes: &[u8]) -> bool {
    SignedAck::decode(bytes).is_ok_and(|ack| {
        ack.verify(fixture::VEHICLE, &CAR.public(), &RustCrypto)
            .is_ok()
    })
}

#[test]
fn the_objects_themselves_verify() {
    for (object, holds) in &*KINDS {
        assert!(holds(object));
    }
}

#[test]
fn no_flipped_bit_verifies() {
    for (object, holds) in &*KINDS {
        for bit in 0..object.len() * 8 {
            let mut mutant = object.clone();
            mutant[bit / 8] ^= 1 << (bit % 8);
            assert!(!holds(&mutant), "bit {bit} of {object:02x?}");
        }
    }
}

#[test]
fn nothing_shorter_or_longer_verifies() {
    for (object, holds) in &*KINDS {
        for at in 0..object.len() {
            assert!(!holds(&object[..at]), "cut at {at}");
            assert!(!holds(&object[at + 1..]), "begun at {at}");
            let mut mutant = object.clone();
            mutant.remove(at);
            assert!(!holds(&mutant), "without octet {at}");
            mutant.insert(at, object[at]);
            mutant.insert(at, object[at]);
            assert!(!holds(&mutant), "octet {at} twice");
        }
        for octet in 0..=255 {
            assert!(!holds(&[&object[..], &[octet]].concat()));
            assert!(!holds(&[&[octet], &object[..]].concat()));
        }
    }
}

#[test]
fn objects_of_one_kind_are_not_of_another() {
    for (at, (object, _)) in KINDS.iter().enumerate() {
        for (other, (_, holds)) in KINDS.iter().enumerate() {
            let same = at == other || (at < 4 && other < 4);
            assert_eq!(holds(object), same);
        }
    }
}

/// What ECDSA allows and nothing above it prevents: `(r, n − s)` is a second
/// signature of the same message. It names the same key and the same claims.
#[test]
fn the_twin_of_an_ecdsa_signature_verifies() {
    let (object, holds) = &KINDS[0];
    let start = object.len() - 64;
    let signature = p256::ecdsa::Signature::from_slice(&object[start..]).unwrap();
    let (r, s) = signature.split_scalars();
    let twin = p256::ecdsa::Signature::from_scalars(r, -s).unwrap();
    let mut mutant = object.clone();
    mutant[start..].copy_from_slice(&twin.to_bytes());
    assert_ne!(mutant, *object);
    assert!(holds(&mutant));
}

#[test]
fn scalars_outside_their_range_do_not_verify() {
    let order = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    let order = crate::annotate::unhex(order);
    for (object, holds) in &*KINDS {
        for half in [object.len() - 64, object.len() - 32] {
            for value in [&[0; 32][..], &[255; 32], &order] {
                let mut mutant = object.clone();
                mutant[half..half + 32].copy_from_slice(value);
                assert!(!holds(&mutant));
            }
        }
    }
}

#[test]
fn no_other_text_is_the_same_code_set() {
    let set = fixture::code_set();
    let text = set.encode();
    for at in 0..text.len() {
        for octet in 0..128u8 {
            let mut mutant = text.clone().into_bytes();
            mutant[at] = octet;
            let mutant = String::from_utf8(mutant).unwrap();
            if let Ok(read) = CodeSet::decode(&mutant) {
                assert_eq!(read.encode(), mutant);
                assert_eq!(read == set, mutant == text);
            }
        }
        assert_ne!(CodeSet::decode(&text[..at]).ok().as_ref(), Some(&set));
        assert_ne!(CodeSet::decode(&text[at + 1..]).ok().as_ref(), Some(&set));
    }
}

/// Claims changed at random and signed again by a trusted key: whatever is
/// accepted is in its one encoding.
fn accepted_is_canonical(signer: &Secret, claims: &[u8]) {
    let header = key::protected_header(signer.algorithm, &signer.issuer().kid());
    let mut object = vec![];
    assemble(&mut object, &header, claims, &[1; 64]);
    if let Ok(read) = SignedKey::decode(&object) {
        let mut again = vec![];
        key::encode_claims(&mut again, read.unverified()).unwrap();
        assert_eq!(again, claims);
    }
}

/// The same for a key in a tree, its receipt included.
fn accepted_in_tree_is_canonical(bytes: &[u8]) {
    let Ok(read) = SignedKey::decode(bytes) else {
        return;
    };
    let Some(receipt) = read.receipt() else {
        return;
    };
    let mut claims = vec![];
    key::encode_claims(&mut claims, read.unverified()).unwrap();
    let mut again = vec![];
    let path: Vec<_> = receipt.path().collect();
    receipt::assemble(
        &mut again,
        &key::protected_header(read.algorithm(), read.kid()),
        &claims,
        &receipt::protected_header(read.algorithm(), read.kid()),
        receipt.tree_size(),
        receipt.leaf_index(),
        path.into_iter(),
        bytes.last_chunk().unwrap(),
    );
    assert_eq!(again, bytes);
}

fn feed_all(bytes: &[u8]) {
    accepted_in_tree_is_canonical(bytes);
    for (_, holds) in &*KINDS {
        assert!(!holds(bytes));
    }
    let _ = IssuerKey::decode(bytes);
    let _ = HolderKey::decode(bytes);
    let _ = CodeSet::decode(&String::from_utf8_lossy(bytes));
    accepted_is_canonical(&ESP256, bytes);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_byte_string_panics(bytes in prop::collection::vec(any::<u8>(), 0..700)) {
        feed_all(&bytes);
    }

    #[test]
    fn no_beginning_with_a_random_end_verifies(
        kind in 0..9usize,
        cut in any::<prop::sample::Index>(),
        end in prop::collection::vec(any::<u8>(), 1..120),
    ) {
        let object = &KINDS[kind].0;
        let mutant = [&object[..cut.index(object.len())], &end].concat();
        prop_assume!(mutant != *object);
        feed_all(&mutant);
    }

    #[test]
    fn no_random_edits_verify(
        kind in 0..9usize,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let (object, holds) = &KINDS[kind];
        let mut mutant = object.clone();
        for (at, octet) in edits {
            mutant[at.index(object.len())] = octet;
        }
        prop_assume!(mutant != *object);
        accepted_in_tree_is_canonical(&mutant);
        prop_assert!(!holds(&mutant));
    }

    #[test]
    fn signed_again_only_the_canonical_is_read(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..3),
        lost in prop::option::of(any::<prop::sample::Index>()),
    ) {
        for claims in [fixture::full_claims(), fixture::plain_claims(), fixture::fiji_claims()] {
            let mut octets = vec![];
            key::encode_claims(&mut octets, &claims).unwrap();
            for (at, octet) in &edits {
                let at = at.index(octets.len());
                octets[at] = *octet;
            }
            if let Some(at) = &lost {
                octets.remove(at.index(octets.len()));
            }
            accepted_is_canonical(&ESP256, &octets);
        }
    }

    #[test]
    fn every_code_set_survives_its_text(
        id in any::<[u8; 16]>(),
        secret in any::<[u8; 16]>(),
        codes in prop::collection::btree_set(1..=u16::MAX, 1..=64),
    ) {
        let codes: Vec<u16> = codes.into_iter().collect();
        let set = CodeSet::new(id, secret, &codes).unwrap();
        prop_assert_eq!(CodeSet::decode(&set.encode()), Ok(set));
    }

    #[test]
    fn texts_near_a_code_set_have_one_reading(text in "FOB1[0-9A-HJKMNP-TV-Z]{0,90}") {
        if let Ok(set) = CodeSet::decode(&text) {
            prop_assert_eq!(set.encode(), text);
        }
    }
}
