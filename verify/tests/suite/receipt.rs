//! Keys signed in a tree: what a car takes, and what it refuses.

use crate::fixture::{
    self, ED25519, ES256, ESP256, InTree, NOW, ROOT, Secret, TREE_SIZES, in_tree,
};
use crate::tree::shape;
use coset::cbor::value::Value;
use coset::iana::{self, EnumI64};
use coset::{CborSerializable, CoseSign1, CoseSign1Builder, HeaderBuilder, TaggedCborSerializable};
use fob_verify::key::{self, KEY_LEN_MAX, SignedKey};
use fob_verify::receipt::{self, RECEIPT_LEN_MAX};
use fob_verify::tree::SIZE_MAX;
use fob_verify::trust::{self, TrustList};
use fob_verify::{Refusal, RustCrypto, Verified};
use std::sync::LazyLock;

static BYTES: LazyLock<Vec<u8>> = LazyLock::new(fixture::trust_list);
static TRUST: LazyLock<Verified<TrustList<'static>>> =
    LazyLock::new(|| trust::verify(&BYTES, &[ROOT.issuer()], NOW, &RustCrypto).unwrap());

fn refusal(bytes: &[u8]) -> Option<Refusal> {
    let decoded = SignedKey::decode(bytes);
    decoded
        .and_then(|key| key.verify(&TRUST, &RustCrypto))
        .err()
}

fn places() -> impl Iterator<Item = (u64, u64)> {
    let sizes = TREE_SIZES.into_iter();
    sizes.flat_map(|size| (0..size).map(move |index| (size, index)))
}

#[test]
fn every_key_of_every_tree_verifies() {
    for issuer in [ES256, ESP256, ED25519] {
        for (size, index) in places() {
            let key = in_tree(&issuer, size, index);
            let object = key.assemble();
            let read = SignedKey::decode(&object).unwrap();
            assert_eq!(read.unverified(), &fixture::tree_claims(index));
            assert_eq!(read.algorithm(), issuer.algorithm);
            assert_eq!(*read.kid(), issuer.issuer().kid());
            let receipt = read.receipt().unwrap();
            assert_eq!(receipt.tree_size(), size);
            assert_eq!(receipt.leaf_index(), index);
            assert!(receipt.path().eq(&key.path));
            assert_eq!(receipt.root(key.leaf), Some(key.root));
            assert_eq!(refusal(&object), None);
        }
    }
    let alone = fixture::key(&ESP256, &fixture::full_claims());
    assert_eq!(SignedKey::decode(&alone).unwrap().receipt(), None);
}

/// One flipped bit of a valid key, wherever it stands: refused, but for those
/// that make of its tree's size another with the same sides.
fn accepted_flips(key: &InTree) -> Vec<u64> {
    let object = key.assemble();
    // From the end: signature, null, path with its head, index, size.
    let size_at = object.len() - 66 - 1 - (34 * key.path.len() + 1) - 1 - 1;
    assert_eq!(u64::from(object[size_at]), key.size);
    let mut sizes = vec![];
    for bit in 0..object.len() * 8 {
        let mut mutant = object.clone();
        mutant[bit / 8] ^= 1 << (bit % 8);
        if refusal(&mutant).is_none() {
            assert_eq!(bit / 8, size_at, "bit {bit} of {object:02x?}");
            sizes.push(u64::from(mutant[size_at]));
        }
    }
    sizes
}

/// The lists are complete: 7 with 0 says the same as 5, 6 and 8, and 13 with 5
/// the same as 9 to 16; of these, one bit apart are the ones here.
#[test]
fn no_flipped_bit_verifies_but_in_a_size_that_says_the_same() {
    for (issuer, size, index, expected) in [
        (ESP256, 2, 0, vec![]),
        (ESP256, 2, 1, vec![]),
        (ESP256, 3, 0, vec![]),
        (ES256, 3, 1, vec![]),
        (ESP256, 3, 2, vec![]),
        (ES256, 7, 0, vec![6, 5]),
        (ESP256, 8, 7, vec![]),
        (ES256, 13, 5, vec![12, 15, 9]),
        (ESP256, 13, 12, vec![]),
    ] {
        let key = in_tree(&issuer, size, index);
        assert_eq!(accepted_flips(&key), expected, "{size}, {index}");
    }
}

/// Everything a key's receipt can be made to say of its place: another size
/// and index verify exactly when they put the same sides on the same path.
#[test]
fn only_places_with_the_same_sides_verify() {
    for (size, index) in places() {
        let key = in_tree(&ES256, size, index);
        let mut same = vec![];
        for other_size in 0..=20 {
            for other in 0..=20 {
                let found = refusal(&key.assemble_at(other_size, other));
                let expected = if other_size < 2 {
                    Some(Refusal::TreeSize)
                } else if other >= other_size {
                    Some(Refusal::LeafIndex)
                } else if shape(other, other_size).len() != key.path.len() {
                    Some(Refusal::PathLength)
                } else if shape(other, other_size) != shape(index, size) {
                    Some(Refusal::BadSignature)
                } else {
                    same.push((other_size, other));
                    None
                };
                assert_eq!(found, expected, "{size}, {index} as {other_size}, {other}");
            }
        }
        // In one tree no two leaves have the same sides.
        let here: Vec<_> = same.iter().filter(|place| place.0 == size).collect();
        assert_eq!(here, [&(size, index)]);
        // The examples that the protocol page names.
        match (size, index) {
            (3, 1) => assert_eq!(same, [(3, 1), (4, 1)]),
            (13, 5) => assert_eq!(same, [9, 10, 11, 12, 13, 14, 15, 16].map(|size| (size, 5))),
            (13, 12) => assert_eq!(
                same,
                [
                    (4, 3),
                    (6, 5),
                    (7, 6),
                    (10, 9),
                    (11, 10),
                    (13, 12),
                    (18, 17),
                    (19, 18)
                ]
            ),
            _ => {}
        }
    }
}

#[test]
fn sizes_and_indexes_outside_the_format_are_refused() {
    let key = in_tree(&ESP256, 13, 5);
    for (size, index, expected) in [
        (0, 0, Refusal::TreeSize),
        (1, 0, Refusal::TreeSize),
        (SIZE_MAX + 1, 0, Refusal::TreeSize),
        (u64::MAX, u64::MAX - 1, Refusal::TreeSize),
        (13, 13, Refusal::LeafIndex),
        (13, u64::MAX, Refusal::LeafIndex),
        (SIZE_MAX, SIZE_MAX - 1, Refusal::PathLength),
        (17, 5, Refusal::PathLength),
        (8, 5, Refusal::PathLength),
    ] {
        assert_eq!(refusal(&key.assemble_at(size, index)), Some(expected));
    }
    let mut none = in_tree(&ESP256, 2, 0);
    none.path.clear();
    assert_eq!(refusal(&none.assemble_at(1, 0)), Some(Refusal::TreeSize));
    assert_eq!(refusal(&none.assemble_at(2, 0)), Some(Refusal::PathLength));
    let mut more = in_tree(&ESP256, 13, 5);
    more.path.push([0; 32]);
    assert_eq!(refusal(&more.assemble()), Some(Refusal::PathLength));
}

#[test]
fn the_largest_tree_fits_and_is_read() {
    let mut key = in_tree(&ESP256, 2, 1);
    key.path = vec![[7; 32]; 24];
    let object = key.assemble_at(SIZE_MAX, SIZE_MAX - 1);
    let outside = object.len() - RECEIPT_LEN_MAX;
    assert_eq!(object[outside..outside + 2], [0xd2, 0x84]);
    let read = SignedKey::decode(&object).unwrap();
    assert_eq!(read.receipt().unwrap().path().count(), 24);
    assert_eq!(refusal(&object), Some(Refusal::BadSignature));
    assert_eq!(
        SignedKey::decode(&[0x83; KEY_LEN_MAX + 1]).err(),
        Some(Refusal::TooLong)
    );
}

/// Replaces `from`, which occurs once, by `to` in a key of a tree of three.
fn edited(from: &[u8], to: &[u8]) -> Option<Refusal> {
    let object = in_tree(&ESP256, 3, 1).assemble();
    let found: Vec<usize> = (0..object.len())
        .filter(|at| object[*at..].starts_with(from))
        .collect();
    let [at] = found[..] else {
        panic!("{from:02x?} at {found:?}");
    };
    refusal(&[&object[..at], to, &object[at + from.len()..]].concat())
}

#[test]
fn only_the_exact_receipt_is_read() {
    let kid = ESP256.issuer().kid();
    let header = |alg: &[u8], kid: &[u8]| [b"\xa4\x01", alg, b"\x04\x48", kid].concat();
    let ours = header(b"\x28", &kid);
    let none: &[u8] = &[];
    for (from, to, expected) in [
        (
            &ours[..],
            &header(b"\x26", &kid)[..],
            Refusal::ReceiptMismatch,
        ),
        (&ours, &header(b"\x28", &[7; 8]), Refusal::ReceiptMismatch),
        (&ours, &header(b"\x27", &kid), Refusal::UnknownAlgorithm),
        (
            b"\x78\x1capplication/fob-receipt",
            b"\x78\x1capplication/bof-receipt",
            Refusal::WrongObject,
        ),
        // Another kind of tree, and none.
        (
            b"\x19\x01\x8b\x01",
            b"\x19\x01\x8b\x02",
            Refusal::UnknownTree,
        ),
        (
            b"\x19\x01\x8b\x01",
            b"\x19\x01\x8d\x01",
            Refusal::UnexpectedLabel,
        ),
        (b"\xa4\x01\x28", b"\xa3\x01\x28", Refusal::UnexpectedLabel),
        // The proofs: other labels, none, two.
        (
            b"\xa1\x19\x01\x8c",
            b"\xa1\x19\x01\x8b",
            Refusal::UnexpectedLabel,
        ),
        (
            b"\xa1\x19\x01\x8c",
            b"\xa2\x19\x01\x8c",
            Refusal::UnexpectedLabel,
        ),
        (
            b"\xa1\x20\x81\x58\x48",
            b"\xa1\x21\x81\x58\x48",
            Refusal::UnexpectedLabel,
        ),
        (
            b"\xa1\x20\x81\x58\x48",
            b"\xa1\x20\x82\x58\x48",
            Refusal::WrongCount,
        ),
        (
            b"\x58\x48\x83\x03\x01",
            b"\x58\x48\x84\x03\x01",
            Refusal::WrongCount,
        ),
        (
            b"\x58\x48\x83\x03\x01",
            b"\x58\x49\x83\x18\x03\x01",
            Refusal::NotDeterministic,
        ),
        // The payload: attached, even the right one, undefined, or no item.
        (b"\xf6\x58\x40", b"\x40\x58\x40", Refusal::WrongType),
        (b"\xf6\x58\x40", b"\xf7\x58\x40", Refusal::WrongType),
        (b"\xf6\x58\x40", b"\x58\x40", Refusal::WrongType),
        // The envelope: no tag, another, the other form's shape.
        (b"\xd2\x84", b"\x84", Refusal::WrongType),
        (b"\xd2\x84", b"\xd1\x84", Refusal::WrongType),
        (b"\xd2\x84", none, Refusal::WrongType),
    ] {
        assert_eq!(edited(from, to), Some(expected), "{from:02x?} as {to:02x?}");
    }
    let root = in_tree(&ESP256, 3, 1).root;
    let attached = [b"\x58\x20", &root[..], b"\x58\x40"].concat();
    assert_eq!(edited(b"\xf6\x58\x40", &attached), Some(Refusal::WrongType));
}

#[test]
fn a_key_of_another_issuers_tree_is_refused() {
    let mut key = in_tree(&ESP256, 3, 1);
    let other = in_tree(&ES256, 3, 1);
    key.receipt_protected = other.receipt_protected;
    key.signature = other.signature;
    assert_eq!(refusal(&key.assemble()), Some(Refusal::ReceiptMismatch));
    // Both headers the other's: its signature, over its own leaves.
    key.protected = other.protected;
    assert_eq!(refusal(&key.assemble()), Some(Refusal::BadSignature));
}

/// A signature over a root is none over a key, and the other way round.
#[test]
fn the_two_forms_do_not_share_signatures() {
    let mut key = in_tree(&ESP256, 3, 1);
    let message = fixture::key_message(&ESP256, &fixture::full_claims());
    let alone = message.assemble(&key.signature);
    assert_eq!(refusal(&alone), Some(Refusal::BadSignature));
    key.signature = ESP256.sign(message.message());
    assert_eq!(refusal(&key.assemble()), Some(Refusal::BadSignature));
}

#[test]
fn the_twin_of_a_roots_signature_verifies() {
    for issuer in [ES256, ESP256] {
        let mut key = in_tree(&issuer, 13, 5);
        let signature = p256::ecdsa::Signature::from_slice(&key.signature).unwrap();
        let (r, s) = signature.split_scalars();
        let twin = p256::ecdsa::Signature::from_scalars(r, -s).unwrap();
        key.signature = twin.to_bytes().into();
        assert_eq!(refusal(&key.assemble()), None);
    }
}

/// The receipt in a key, as `coset` reads it.
fn receipt_of(object: &[u8]) -> CoseSign1 {
    let item = Value::from_slice(object).unwrap();
    let [_, _, receipt] = &item.as_array().unwrap()[..] else {
        panic!("not three items");
    };
    CoseSign1::from_tagged_slice(&receipt.clone().to_vec().unwrap()).unwrap()
}

fn header(issuer: &Secret) -> coset::Header {
    let algorithm = iana::Algorithm::from_i64(issuer.algorithm.cose()).unwrap();
    HeaderBuilder::new()
        .algorithm(algorithm)
        .key_id(issuer.issuer().kid().to_vec())
        .value(16, Value::Text(receipt::TYP.to_owned()))
        .value(395, Value::from(1))
        .build()
}

#[test]
fn coset_signs_and_writes_the_same_receipts() {
    for issuer in [ES256, ESP256, ED25519] {
        for (size, index) in places() {
            let key = in_tree(&issuer, size, index);
            let path = key.path.iter().map(|hash| Value::Bytes(hash.to_vec()));
            let proof = Value::Array(vec![
                Value::from(size),
                Value::from(index),
                Value::Array(path.collect()),
            ]);
            let proofs = Value::Array(vec![Value::Bytes(proof.to_vec().unwrap())]);
            let proofs = Value::Map(vec![(Value::from(-1), proofs)]);
            let theirs = CoseSign1Builder::new()
                .protected(header(&issuer))
                .unprotected(HeaderBuilder::new().value(396, proofs).build())
                .create_detached_signature(&key.root, &[], |message| {
                    assert_eq!(message, key.to_be_signed);
                    issuer.sign(message).to_vec()
                })
                .build();
            let theirs = theirs.to_tagged_vec().unwrap();
            let object = key.assemble();
            assert!(object.ends_with(&theirs));
            let head = object.len() - theirs.len();
            let start = Value::Array(vec![
                Value::Bytes(key.protected.to_vec()),
                Value::Bytes(key.claims.clone()),
            ]);
            assert_eq!(object[1..head], start.to_vec().unwrap()[1..]);
        }
    }
}

#[test]
fn coset_reads_a_receipt_without_a_payload() {
    let key = in_tree(&ESP256, 13, 5);
    let receipt = receipt_of(&key.assemble());
    assert_eq!(receipt.payload, None);
    let held = receipt.verify_detached_signature(&key.root, &[], |signature, message| {
        assert_eq!(message, key.to_be_signed);
        (signature == key.signature).then_some(()).ok_or(())
    });
    assert_eq!(held, Ok(()));
}

/// Written down here once more, from the definition of an entry.
#[test]
fn a_leaf_is_the_hash_of_the_entry() {
    use sha2::{Digest, Sha256};
    let long = "a claims map is no business of the hash".repeat(30);
    for claims in [&b""[..], b"\xa0", long.as_bytes()] {
        let protected = key::protected_header(ESP256.algorithm, &ESP256.issuer().kid());
        let entry = Value::Array(vec![
            Value::Text("fob-key".to_owned()),
            Value::Bytes(protected.to_vec()),
            Value::Bytes(claims.to_vec()),
        ]);
        let prefixed = [vec![0], entry.to_vec().unwrap()].concat();
        assert_eq!(
            key::leaf(&protected, claims),
            <[u8; 32]>::from(Sha256::digest(prefixed))
        );
    }
}
