//! The root is followed by another.

use super::*;

#[test]
fn a_named_root_takes_over_and_cars_follow() {
    let issuer = Issuer::demo();
    let server = issuer.serve();
    let list = || server.get("/v1/trust", &[]).body;
    let old = root(&issuer);
    let refused = issuer.fob_fails(&["epoch", "root-succeed"]);
    assert!(refused.contains("root-name"), "{refused}");
    issuer.fob(&["epoch", "root-name"]);
    assert_eq!(root(&issuer), old, "it still signs");
    let naming = list();
    let (named, version) = {
        let list = trust::verify(&naming, &[old], now(), &RustCrypto).unwrap();
        (*list.next_root().unwrap(), list.version())
    };
    issuer.fob(&["epoch", "root-succeed"]);
    assert_eq!(root(&issuer), named, "root.cbor follows");
    // A car that has the naming list takes the next one; one that does not, does not.
    let succeeded = list();
    let taken = trust::verify(&succeeded, &[old, named], now(), &RustCrypto).unwrap();
    assert_eq!((taken.root(), taken.next_root()), (&named, None));
    assert_eq!(taken.check_newer_than(version), Ok(()));
    let refused = trust::verify(&succeeded, &[old], now(), &RustCrypto).err();
    assert_eq!(refused, Some(Refusal::UnknownRoot));
    // From now on it signs.
    issuer.fob(&["epoch", "prepare"]);
    let later = list();
    assert!(trust::verify(&later, &[named], now(), &RustCrypto).is_ok());
    issuer.fob(&["epoch", "records"]);
    // And can be followed in turn.
    issuer.fob(&["epoch", "root-name"]);
    issuer.fob(&["epoch", "root-succeed"]);
    assert_ne!(root(&issuer), named);
    issuer.fob(&["epoch", "revoke", &active(&issuer)]);
    issuer.fob(&["epoch", "records"]);
}

#[test]
fn a_crash_before_root_cbor_is_written_is_made_good_at_the_next_start() {
    let issuer = Issuer::demo();
    let before = std::fs::read(issuer.file("root.cbor")).unwrap();
    issuer.fob(&["epoch", "root-name"]);
    issuer.fob(&["epoch", "root-succeed"]);
    let after = std::fs::read(issuer.file("root.cbor")).unwrap();
    assert_ne!(before, after);
    // As if the process had ended between the commit and the file.
    std::fs::write(issuer.file("root.cbor"), &before).unwrap();
    std::fs::write(issuer.file("root.cbor.new"), b"half").unwrap();
    let server = issuer.serve();
    assert_eq!(std::fs::read(issuer.file("root.cbor")).unwrap(), after);
    assert!(!issuer.file("root.cbor.new").exists());
    server.stop();
    // The next root that was made and not named is the one that is named then.
    issuer.fob(&["epoch", "root-name"]);
}
