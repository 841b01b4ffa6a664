//! Verifying a signature on the server, floor 2: pure arithmetic, no HSM.
//!
//! The HSM floor tries every new key with it, and the engine the signatures it
//! samples. A vehicle does not use this; it has its own in `fob-verify`.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ED25519, UnparsedPublicKey};
use fob_verify::IssuerKey;

use super::Signature;

/// Does `signature` over `message` verify against `key`?
///
/// P-256 hashes the message with SHA-256, Ed25519 takes it whole, just as
/// [`Signer::sign_all`](super::Signer::sign_all) does.
pub fn verify_signature(key: &IssuerKey, message: &[u8], signature: &Signature) -> bool {
    let point = key.public().as_bytes();
    let verified = if key.algorithm().is_p256() {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature)
    } else {
        UnparsedPublicKey::new(&ED25519, point).verify(message, signature)
    };
    verified.is_ok()
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    };
    use fob_verify::Algorithm;

    use super::super::profile::PointForm;
    use super::*;

    fn check(key: &IssuerKey, signature: &[u8]) {
        let signature: Signature = signature.try_into().unwrap();
        assert!(verify_signature(key, b"message", &signature));
        assert!(!verify_signature(key, b"another", &signature));
        let mut bent = signature;
        bent[40] ^= 1;
        assert!(!verify_signature(key, b"message", &bent));
    }

    #[test]
    fn p256_verifies_and_refuses() {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let point = pair.public_key().as_ref();
        let key =
            super::super::point::public_key(Algorithm::Esp256, PointForm::WrappedOrBare, point)
                .unwrap();
        check(
            &key,
            pair.sign(&SystemRandom::new(), b"message")
                .unwrap()
                .as_ref(),
        );
    }

    #[test]
    fn ed25519_verifies_and_refuses() {
        let pair = Ed25519KeyPair::generate().unwrap();
        let key = super::super::point::public_key(
            Algorithm::Ed25519,
            PointForm::WrappedOrBare,
            pair.public_key().as_ref(),
        )
        .unwrap();
        check(&key, pair.sign(b"message").as_ref());
    }
}
