//! The public key a virtual key is bound to: the borrower terminal's.

use crate::cbor::{Reader, Write};
use crate::public_key::label;
use crate::{Algorithm, PublicKey, Refusal};

/// The largest encoded holder key, in octets.
pub const HOLDER_KEY_LEN_MAX: usize = 42;

/// The COSE_Key of a `cnf` claim (RFC 8747 §3.2): `{1: 2, -1: 1, -2: x, -3:
/// y is odd}` on P-256, `{1: 1, -1: 6, -2: x}` on Ed25519.
///
/// The wire form is compressed; in memory the point is whole and checked, so
/// that its thumbprint costs one hash. Taking one from `(x, y)` is cheap,
/// decoding a compressed one costs a square root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HolderKey(PublicKey);

impl HolderKey {
    /// The holder key of a public key.
    #[must_use]
    pub const fn new(public: PublicKey) -> Self {
        Self(public)
    }

    /// A P-256 key from its affine coordinates, each 32 octets big-endian.
    ///
    /// # Errors
    /// [`Refusal::InvalidPoint`] off the curve.
    pub fn new_p256(x: &[u8; 32], y: &[u8; 32]) -> Result<Self, Refusal> {
        PublicKey::p256(x, y).map(Self)
    }

    /// An Ed25519 key from its 32 octets.
    ///
    /// # Errors
    /// [`Refusal::InvalidPoint`], see [`PublicKey::ed25519`].
    pub fn new_ed25519(x: &[u8; 32]) -> Result<Self, Refusal> {
        PublicKey::ed25519(x).map(Self)
    }

    /// A P-256 key from a SEC 1 point of 33 or 65 octets.
    ///
    /// # Errors
    /// [`Refusal::InvalidPoint`], see [`PublicKey::from_sec1`].
    pub fn from_sec1(sec1: &[u8]) -> Result<Self, Refusal> {
        PublicKey::from_sec1(sec1).map(Self)
    }

    /// The key itself: raw octets, coordinates, curve.
    #[must_use]
    pub const fn public(&self) -> &PublicKey {
        &self.0
    }

    /// The SHA-256 COSE Key Thumbprint (RFC 9679 §3), y uncompressed.
    #[must_use]
    pub fn thumbprint(&self) -> [u8; 32] {
        self.0.thumbprint()
    }

    /// Whether the holder may sign its proof with this algorithm. A P-256
    /// holder may call it −7 or −9, which mean the same signature.
    #[must_use]
    pub const fn fits(&self, algorithm: Algorithm) -> bool {
        self.0.fits(algorithm)
    }

    /// Appends the deterministic encoding.
    #[cfg(feature = "alloc")]
    pub fn encode(&self, out: &mut alloc::vec::Vec<u8>) {
        self.write(out);
    }

    /// Reads an encoded key.
    ///
    /// # Errors
    /// Whatever of the form refuses it, or [`Refusal::InvalidPoint`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Refusal> {
        let mut reader = Reader::new(bytes, HOLDER_KEY_LEN_MAX)?;
        let key = Self::read(&mut reader)?;
        reader.end()?;
        Ok(key)
    }

    pub(crate) fn write(&self, out: &mut impl Write) {
        out.map(if self.0.is_p256() { 4 } else { 3 });
        self.0.write_x(out, None);
        if let Some(odd) = self.0.y_is_odd() {
            out.int(label::Y);
            out.boolean(odd);
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Refusal> {
        let pairs = reader.map()?;
        reader.label(label::KTY)?;
        let kty = reader.uint()?;
        reader.label(label::CRV)?;
        let crv = reader.uint()?;
        reader.label(label::X)?;
        let x = reader.array_of::<32>()?;
        match (kty, crv, pairs) {
            (label::KTY_EC2, label::CRV_P256, 4) => {
                reader.label(label::Y)?;
                PublicKey::p256_compressed(x, reader.boolean()?).map(Self)
            }
            (label::KTY_OKP, label::CRV_ED25519, 3) => PublicKey::ed25519(x).map(Self),
            (label::KTY_EC2, label::CRV_P256, _) | (label::KTY_OKP, label::CRV_ED25519, _) => {
                Err(Refusal::UnexpectedLabel)
            }
            _ => Err(Refusal::WrongType),
        }
    }
}

#[cfg(all(test, feature = "alloc"))]
mod tests {
    use super::HolderKey;
    use p256::ecdsa::SigningKey;

    #[test]
    fn compressing_keeps_the_point() {
        for scalar in 1..20u8 {
            let secret = SigningKey::from_slice(&[scalar; 32]).unwrap();
            let point = secret.verifying_key().to_sec1_point(false);
            let key = HolderKey::from_sec1(point.as_bytes()).unwrap();
            let mut bytes = alloc::vec![];
            key.encode(&mut bytes);
            assert_eq!(HolderKey::decode(&bytes), Ok(key));
            assert_eq!(key.public().as_bytes(), point.as_bytes());
        }
    }
}
