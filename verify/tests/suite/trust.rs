//! Trust lists, and keys under them.

use crate::fixture::{
    self, ED25519, ES256, ESP256, ISSUED, NEXT_ROOT, NOW, ROOT, draft, entries, full_claims,
};
use fob_verify::key::{Claims, SignedKey};
use fob_verify::trust::{self, Draft, ENTRIES_MAX, Entry, TRUST_LEN_MAX, TrustList};
use fob_verify::{Algorithm, IssuerKey, Refusal, RustCrypto, Verified};

fn read<'a>(bytes: &'a [u8], roots: &[IssuerKey]) -> Result<Verified<TrustList<'a>>, Refusal> {
    trust::verify(bytes, roots, NOW, &RustCrypto)
}

fn signed(draft: &Draft<'_>) -> Vec<u8> {
    ROOT.finish(&trust::to_be_signed(draft, &ROOT.issuer()).unwrap())
}

#[test]
fn a_list_is_what_was_drafted() {
    let bytes = fixture::trust_list();
    let list = read(&bytes, &[ROOT.issuer()]).unwrap();
    assert_eq!(list.entries().collect::<Vec<_>>(), entries());
    assert_eq!((list.version(), list.issuer()), (7, fixture::ISSUER));
    assert_eq!(list.next_root(), Some(&NEXT_ROOT.issuer()));
    assert_eq!(list.root(), &ROOT.issuer());
    for entry in entries() {
        assert_eq!(list.issuer_for(&entry.key.kid()), Some(entry));
    }
    assert_eq!(list.issuer_for(&[0; 8]), None);
    assert_eq!(list.check_newer_than(6), Ok(()));
    assert_eq!(list.check_newer_than(7), Err(Refusal::TrustListNotNewer));
}

#[test]
fn the_next_root_takes_over_by_a_list_it_signs() {
    let entries = entries();
    let second = Draft {
        version: 8,
        next_root: None,
        ..draft(&entries)
    };
    let message = trust::to_be_signed(&second, &NEXT_ROOT.issuer()).unwrap();
    let bytes = NEXT_ROOT.finish(&message);
    assert_eq!(
        read(&bytes, &[ROOT.issuer()]).err(),
        Some(Refusal::UnknownRoot)
    );
    let list = read(&bytes, &[ROOT.issuer(), NEXT_ROOT.issuer()]).unwrap();
    assert_eq!(list.root(), &NEXT_ROOT.issuer());
}

#[test]
fn the_largest_list_fits() {
    let many: Vec<Entry> = (1..=ENTRIES_MAX as u8)
        .map(|i| Entry {
            key: fixture::Secret {
                octets: [i; 32],
                ..ESP256
            }
            .issuer(),
            not_before: 1 << 32,
            not_after: fob_verify::TIME_MAX,
        })
        .collect();
    let name = "n".repeat(128);
    let bytes = signed(&Draft {
        issuer: &name,
        next_root: Some(ROOT.issuer()),
        ..draft(&many)
    });
    assert!(bytes.len() <= TRUST_LEN_MAX);
    let list = read(&bytes, &[ROOT.issuer()]).unwrap();
    assert_eq!(list.entries().count(), ENTRIES_MAX);
    let empty = signed(&draft(&[]));
    assert_eq!(read(&empty, &[ROOT.issuer()]).unwrap().entries().count(), 0);
}

#[test]
fn lists_no_car_would_take_are_not_made() {
    let refusal = |entries: &[Entry]| trust::to_be_signed(&draft(entries), &ROOT.issuer()).err();
    let [one, two, _] = entries();
    let longer = Entry {
        not_after: one.not_after + 1,
        ..one
    };
    assert_eq!(refusal(&[one, two, longer]), Some(Refusal::DuplicateIssuer));
    assert_eq!(refusal(&[one; ENTRIES_MAX + 1]), Some(Refusal::WrongCount));
    let void = Entry {
        not_after: one.not_before,
        ..one
    };
    assert_eq!(refusal(&[void]), Some(Refusal::OutOfBounds));
    // The same key under its other name has the same thumbprint and kid.
    let key = IssuerKey::new(Algorithm::Es256, *one.key.public()).unwrap();
    let renamed = Entry { key, ..one };
    assert_eq!(refusal(&[one, renamed]), Some(Refusal::DuplicateIssuer));
}

#[test]
fn a_signed_list_with_a_key_twice_is_refused() {
    let [one, two, _] = entries();
    let message = trust::to_be_signed(&draft(&[one, two]), &ROOT.issuer()).unwrap();
    let (mut first, mut second) = (vec![], vec![]);
    one.key.encode(&mut first);
    two.key.encode(&mut second);
    let claims = message.claims();
    let at = claims
        .windows(second.len())
        .position(|w| w == second)
        .unwrap();
    let doubled = [&claims[..at], &first, &claims[at + second.len()..]].concat();
    let swap = |m: &[u8]| {
        let at = m.windows(claims.len()).position(|w| w == claims).unwrap();
        [&m[..at], &doubled, &m[at + claims.len()..]].concat()
    };
    let signature = ROOT.sign(&swap(message.message()));
    let bytes = swap(&message.assemble(&signature));
    assert_eq!(
        read(&bytes, &[ROOT.issuer()]).err(),
        Some(Refusal::DuplicateIssuer)
    );
}

#[test]
fn expiry_root_and_signature_are_checked() {
    let bytes = fixture::trust_list();
    let list = |now| trust::verify(&bytes, &[ROOT.issuer()], now, &RustCrypto).map(|_| ());
    let expires = draft(&[]).expires;
    assert_eq!(list(expires - 1), Ok(()));
    assert_eq!(list(expires), Err(Refusal::TrustListExpired));
    assert_eq!(
        read(&bytes, &[ESP256.issuer()]).err(),
        Some(Refusal::UnknownRoot)
    );
    assert_eq!(read(&bytes, &[]).err(), Some(Refusal::UnknownRoot));
    let renamed = IssuerKey::new(Algorithm::Es256, ROOT.public()).unwrap();
    assert_eq!(
        read(&bytes, &[renamed]).err(),
        Some(Refusal::AlgorithmMismatch)
    );
    let mut forged = bytes.clone();
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(
        read(&forged, &[ROOT.issuer()]).err(),
        Some(Refusal::BadSignature)
    );
}

#[test]
fn a_key_needs_its_issuer_on_the_list_and_in_its_window() {
    let [esp256, es256, ed25519] = entries();
    let with = |entries: &[Entry], claims: &Claims<'_>| {
        let bytes = signed(&draft(entries));
        let list = read(&bytes, &[ROOT.issuer()]).unwrap();
        let key = fixture::key(&ESP256, claims);
        let key = SignedKey::decode(&key).unwrap();
        key.verify(&list, &RustCrypto).map(|_| ())
    };
    let full = full_claims();
    assert_eq!(with(&entries(), &full), Ok(()));
    assert_eq!(with(&[es256, ed25519], &full), Err(Refusal::UnknownIssuer));
    for (issued_at, answer) in [
        (esp256.not_before - 1, Err(Refusal::OutsideIssuerWindow)),
        (esp256.not_before, Ok(())),
        (esp256.not_after - 1, Ok(())),
        (esp256.not_after, Err(Refusal::OutsideIssuerWindow)),
    ] {
        assert_eq!(with(&entries(), &Claims { issued_at, ..full }), answer);
    }
    let other = Claims {
        issuer: "other.example",
        ..full
    };
    assert_eq!(with(&entries(), &other), Err(Refusal::WrongIssuer));
    let renamed = IssuerKey::new(Algorithm::Es256, ESP256.public()).unwrap();
    let renamed = [Entry {
        key: renamed,
        ..esp256
    }];
    assert_eq!(with(&renamed, &full), Err(Refusal::AlgorithmMismatch));
}

#[test]
fn a_list_in_memory_is_small() {
    assert!(size_of::<TrustList<'_>>() < 2048);
}

#[test]
fn every_algorithm_verifies() {
    let bytes = fixture::trust_list();
    let list = read(&bytes, &[ROOT.issuer()]).unwrap();
    for issuer in [ESP256, ES256, ED25519] {
        let key = fixture::key(&issuer, &full_claims());
        let key = SignedKey::decode(&key).unwrap();
        let verified = key.verify(&list, &RustCrypto).unwrap();
        assert_eq!(verified.issued_at, ISSUED);
    }
}
