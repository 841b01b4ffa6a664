//! How a signature is verified, and by whom.

use crate::{Algorithm, PublicKey};
use ed25519_dalek::ed25519::signature::MultipartVerifier;
use p256::ecdsa::signature::hazmat::PrehashVerifier;
use sha2::{Digest, Sha256};

/// Octets of every signature in the format: `r ‖ s` of ECDSA, each 32 octets
/// big-endian (RFC 9053 §2.1), or an Ed25519 signature (RFC 8032 §5.1.6).
pub const SIGNATURE_LEN: usize = 64;

/// Something that verifies signatures: a library or a piece of hardware.
///
/// An implementation refuses r and s of zero or not below the group order,
/// and never looks at anything but its arguments. It may rely on `key` being
/// a checked point.
pub trait Verifier {
    /// Whether `signature` by `key` holds over the concatenation of the parts
    /// of `message`.
    ///
    /// ECDSA signs the SHA-256 of the message; Ed25519 signs the message
    /// itself. When the algorithm does not fit the key the answer is `false`.
    fn verify(
        &self,
        algorithm: Algorithm,
        key: &PublicKey,
        message: &[&[u8]],
        signature: &[u8; SIGNATURE_LEN],
    ) -> bool;
}

/// The verifier of this crate: `p256` and `ed25519-dalek`, in constant memory
/// whatever the length of the message.
#[derive(Clone, Copy, Debug, Default)]
pub struct RustCrypto;

impl Verifier for RustCrypto {
    fn verify(
        &self,
        algorithm: Algorithm,
        key: &PublicKey,
        message: &[&[u8]],
        signature: &[u8; SIGNATURE_LEN],
    ) -> bool {
        match algorithm {
            _ if !key.fits(algorithm) => false,
            Algorithm::Es256 | Algorithm::Esp256 => p256(key, message, signature),
            Algorithm::Ed25519 => ed25519(key, message, signature),
        }
    }
}

/// RFC 9053 §2.1. `from_slice` refuses r or s of zero or not below n.
fn p256(key: &PublicKey, message: &[&[u8]], signature: &[u8; SIGNATURE_LEN]) -> bool {
    let Ok(key) = p256::ecdsa::VerifyingKey::from_sec1_bytes(key.as_bytes()) else {
        return false;
    };
    let Ok(signature) = p256::ecdsa::Signature::from_slice(signature) else {
        return false;
    };
    let mut hash = Sha256::new();
    for part in message {
        hash.update(part);
    }
    key.verify_prehash(&hash.finalize(), &signature).is_ok()
}

/// RFC 8032 §5.1.7, and stricter where it leaves a choice: s below the group
/// order, the equation without the cofactor, and no R of small order (a
/// [`PublicKey`] never has small order itself).
fn ed25519(key: &PublicKey, message: &[&[u8]], signature: &[u8; SIGNATURE_LEN]) -> bool {
    let Ok(key) = ed25519_dalek::VerifyingKey::from_bytes(key.x()) else {
        return false;
    };
    let signature = ed25519_dalek::Signature::from_bytes(signature);
    let r_is_sound =
        ed25519_dalek::VerifyingKey::from_bytes(signature.r_bytes()).is_ok_and(|r| !r.is_weak());
    r_is_sound && key.multipart_verify(message, &signature).is_ok()
}
