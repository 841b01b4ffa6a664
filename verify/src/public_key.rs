//! A public key: a checked point of P-256 or of Ed25519.
//!
//! Issuers, roots, terminals and vehicles all have one. How it is written
//! depends on who owns it, see [`crate::issuer_key`] and [`crate::holder_key`];
//! its name, the thumbprint, does not.

use crate::cbor::Write;
use crate::{Algorithm, KID_LEN, Refusal};
use p256::elliptic_curve::sec1::ToSec1Point;
use sha2::{Digest, Sha256};

/// COSE key parameters and values (RFC 9052 §7.1, RFC 9053 §7).
pub(crate) mod label {
    pub(crate) const KTY: i64 = 1;
    pub(crate) const ALG: i64 = 3;
    pub(crate) const CRV: i64 = -1;
    pub(crate) const X: i64 = -2;
    pub(crate) const Y: i64 = -3;
    pub(crate) const KTY_OKP: u64 = 1;
    pub(crate) const KTY_EC2: u64 = 2;
    pub(crate) const CRV_P256: u64 = 1;
    pub(crate) const CRV_ED25519: u64 = 6;
}

/// A public key that is a usable point of its curve.
///
/// Every constructor checks that, so a value of this type can be verified
/// against, stored and named without asking again.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey(Point);

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Point {
    /// SEC 1 uncompressed: `04 ‖ x ‖ y`.
    P256([u8; 65]),
    /// RFC 8032 §5.1.5.
    Ed25519([u8; 32]),
}

impl PublicKey {
    /// A P-256 key from its affine coordinates, each 32 octets big-endian.
    ///
    /// # Errors
    /// [`Refusal::InvalidPoint`] when they are not a point of the curve.
    pub fn p256(x: &[u8; 32], y: &[u8; 32]) -> Result<Self, Refusal> {
        let mut sec1 = [4u8; 65];
        for (to, from) in sec1.iter_mut().skip(1).zip(x.iter().chain(y)) {
            *to = *from;
        }
        p256::PublicKey::from_sec1_bytes(&sec1).map_err(|_| Refusal::InvalidPoint)?;
        Ok(Self(Point::P256(sec1)))
    }

    /// A P-256 key from its x coordinate and the parity of y. This costs a
    /// square root.
    ///
    /// # Errors
    /// [`Refusal::InvalidPoint`] when no point of the curve has this x.
    pub fn p256_compressed(x: &[u8; 32], y_odd: bool) -> Result<Self, Refusal> {
        let mut sec1 = [2 | u8::from(y_odd); 33];
        for (to, from) in sec1.iter_mut().skip(1).zip(x) {
            *to = *from;
        }
        Self::from_sec1(&sec1)
    }

    /// A P-256 key from a SEC 1 point, compressed (33 octets) or uncompressed
    /// (65 octets).
    ///
    /// # Errors
    /// [`Refusal::InvalidPoint`] for any other form, the point at infinity
    /// included, and for coordinates off the curve.
    pub fn from_sec1(sec1: &[u8]) -> Result<Self, Refusal> {
        let key = p256::PublicKey::from_sec1_bytes(sec1).map_err(|_| Refusal::InvalidPoint)?;
        let point = key.to_sec1_point(false);
        let octets = point.as_bytes().try_into();
        Ok(Self(Point::P256(
            octets.map_err(|_| Refusal::InvalidPoint)?,
        )))
    }

    /// An Ed25519 key from its 32 octets (RFC 8032 §5.1.5).
    ///
    /// # Errors
    /// [`Refusal::InvalidPoint`] when they do not decode, are not the
    /// canonical encoding of their point, or encode a point of small order,
    /// under which one signature fits many messages.
    pub fn ed25519(x: &[u8; 32]) -> Result<Self, Refusal> {
        let key = ed25519_dalek::VerifyingKey::from_bytes(x).map_err(|_| Refusal::InvalidPoint)?;
        if key.is_weak() || key.to_edwards().compress().as_bytes() != x {
            return Err(Refusal::InvalidPoint);
        }
        Ok(Self(Point::Ed25519(*x)))
    }

    /// The octets a signature library takes: the uncompressed SEC 1 point of
    /// P-256 (65), or the 32 of Ed25519.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Point::P256(sec1) => sec1,
            Point::Ed25519(x) => x,
        }
    }

    /// The x coordinate (P-256) or the whole encoded key (Ed25519): COSE −2,
    /// and the JWK member `x`.
    #[must_use]
    pub fn x(&self) -> &[u8; 32] {
        match &self.0 {
            Point::P256([_, xy @ ..]) => xy.first_chunk().unwrap_or(&[0; 32]),
            Point::Ed25519(x) => x,
        }
    }

    /// The y coordinate of a P-256 key; `None` for Ed25519.
    #[must_use]
    pub const fn y(&self) -> Option<&[u8; 32]> {
        match &self.0 {
            Point::P256(sec1) => sec1.last_chunk(),
            Point::Ed25519(_) => None,
        }
    }

    /// Whether y of a P-256 key is odd; `None` for Ed25519.
    #[must_use]
    pub fn y_is_odd(&self) -> Option<bool> {
        self.y().map(|[.., last]| last & 1 == 1)
    }

    /// Whether this is a P-256 key (otherwise it is an Ed25519 key).
    #[must_use]
    pub const fn is_p256(&self) -> bool {
        matches!(self.0, Point::P256(_))
    }

    /// Whether signatures of this algorithm can be made with such a key.
    #[must_use]
    pub const fn fits(&self, algorithm: Algorithm) -> bool {
        self.is_p256() == algorithm.is_p256()
    }

    /// The SHA-256 COSE Key Thumbprint (RFC 9679 §3): the hash of the
    /// required parameters alone, y uncompressed, `alg` left out.
    #[must_use]
    pub fn thumbprint(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        match self.y() {
            Some(y) => {
                hash.map(4);
                self.write_x(&mut hash, None);
                hash.int(label::Y);
                hash.bytes(y);
            }
            None => {
                hash.map(3);
                self.write_x(&mut hash, None);
            }
        }
        hash.finalize().into()
    }

    /// The `kid` in the headers of what this key signs: the first 8 octets of
    /// its thumbprint.
    #[must_use]
    pub fn kid(&self) -> [u8; KID_LEN] {
        let thumbprint = self.thumbprint();
        thumbprint.first_chunk().copied().unwrap_or_default()
    }

    /// Everything of a COSE_Key up to and including `-2: x`.
    pub(crate) fn write_x(&self, out: &mut impl Write, alg: Option<Algorithm>) {
        let (kty, crv) = match self.0 {
            Point::P256(_) => (label::KTY_EC2, label::CRV_P256),
            Point::Ed25519(_) => (label::KTY_OKP, label::CRV_ED25519),
        };
        out.int(label::KTY);
        out.uint(kty);
        if let Some(alg) = alg {
            out.int(label::ALG);
            out.int(alg.cose());
        }
        out.int(label::CRV);
        out.uint(crv);
        out.int(label::X);
        out.bytes(self.x());
    }
}

impl core::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(if self.is_p256() { "P256(" } else { "Ed25519(" })?;
        for octet in self.as_bytes() {
            write!(f, "{octet:02x}")?;
        }
        f.write_str(")")
    }
}
