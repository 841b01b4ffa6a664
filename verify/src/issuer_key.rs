//! The public key of an issuer, or of the root, with the one algorithm it is
//! used with.

use crate::cbor::{Reader, Write};
use crate::public_key::label;
use crate::{Algorithm, KID_LEN, PublicKey, Refusal};

/// The largest encoded issuer key, in octets.
pub const ISSUER_KEY_LEN_MAX: usize = 77;

/// A COSE_Key (RFC 9052 §7) with its `alg`: `{1: 2, 3: alg, -1: 1, -2: x,
/// -3: y}` on P-256, `{1: 1, 3: alg, -1: 6, -2: x}` on Ed25519.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IssuerKey {
    algorithm: Algorithm,
    public: PublicKey,
}

impl IssuerKey {
    /// A key of this algorithm.
    ///
    /// # Errors
    /// [`Refusal::AlgorithmMismatch`] when the algorithm is not one of the
    /// key's curve.
    pub const fn new(algorithm: Algorithm, public: PublicKey) -> Result<Self, Refusal> {
        if public.fits(algorithm) {
            Ok(Self { algorithm, public })
        } else {
            Err(Refusal::AlgorithmMismatch)
        }
    }

    /// A P-256 key from its affine coordinates, each 32 octets big-endian.
    ///
    /// # Errors
    /// [`Refusal::InvalidPoint`] off the curve; [`Refusal::AlgorithmMismatch`]
    /// for [`Algorithm::Ed25519`].
    pub fn new_p256(algorithm: Algorithm, x: &[u8; 32], y: &[u8; 32]) -> Result<Self, Refusal> {
        Self::new(algorithm, PublicKey::p256(x, y)?)
    }

    /// An Ed25519 key from its 32 octets.
    ///
    /// # Errors
    /// [`Refusal::InvalidPoint`], see [`PublicKey::ed25519`].
    pub fn new_ed25519(x: &[u8; 32]) -> Result<Self, Refusal> {
        Self::new(Algorithm::Ed25519, PublicKey::ed25519(x)?)
    }

    /// The one algorithm of this key.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The key itself: raw octets, coordinates, curve.
    #[must_use]
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The SHA-256 COSE Key Thumbprint (RFC 9679 §3).
    #[must_use]
    pub fn thumbprint(&self) -> [u8; 32] {
        self.public.thumbprint()
    }

    /// The `kid` in the headers of what this key signs: the first 8 octets of
    /// its thumbprint.
    #[must_use]
    pub fn kid(&self) -> [u8; KID_LEN] {
        self.public.kid()
    }

    /// Appends the deterministic encoding.
    #[cfg(feature = "alloc")]
    pub fn encode(&self, out: &mut alloc::vec::Vec<u8>) {
        self.write(out);
    }

    /// Reads an encoded key.
    ///
    /// # Errors
    /// Whatever of the form refuses it; [`Refusal::UnknownAlgorithm`],
    /// [`Refusal::AlgorithmMismatch`] or [`Refusal::InvalidPoint`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Refusal> {
        let mut reader = Reader::new(bytes, ISSUER_KEY_LEN_MAX)?;
        let key = Self::read(&mut reader)?;
        reader.end()?;
        Ok(key)
    }

    pub(crate) fn write(&self, out: &mut impl Write) {
        out.map(if self.public.is_p256() { 5 } else { 4 });
        self.public.write_x(out, Some(self.algorithm));
        if let Some(y) = self.public.y() {
            out.int(label::Y);
            out.bytes(y);
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Refusal> {
        let pairs = reader.map()?;
        reader.label(label::KTY)?;
        let kty = reader.uint()?;
        reader.label(label::ALG)?;
        let algorithm = Algorithm::from_cose(reader.int()?).ok_or(Refusal::UnknownAlgorithm)?;
        reader.label(label::CRV)?;
        let crv = reader.uint()?;
        reader.label(label::X)?;
        let x = reader.array_of::<32>()?;
        let public = match (kty, crv, pairs) {
            (label::KTY_EC2, label::CRV_P256, 5) => {
                reader.label(label::Y)?;
                PublicKey::p256(x, reader.array_of::<32>()?)?
            }
            (label::KTY_OKP, label::CRV_ED25519, 4) => PublicKey::ed25519(x)?,
            (label::KTY_EC2, label::CRV_P256, _) | (label::KTY_OKP, label::CRV_ED25519, _) => {
                return Err(Refusal::UnexpectedLabel);
            }
            _ => return Err(Refusal::WrongType),
        };
        Self::new(algorithm, public)
    }
}

#[cfg(all(test, feature = "alloc"))]
mod tests {
    use super::{ISSUER_KEY_LEN_MAX, IssuerKey};
    use crate::{Algorithm, PublicKey, Refusal};

    /// The key of RFC 9679 §6, whose thumbprint the RFC prints.
    fn rfc9679() -> PublicKey {
        let x = hex("65eda5a12577c2bae829437fe338701a10aaa375e1bb5b5de108de439c08551d");
        let y = hex("1e52ed75701163f7f9e40ddf9f341b3dc9ba860af7e0ca7ca7e9eecd0084d19c");
        PublicKey::p256(&x, &y).unwrap()
    }

    fn hex(text: &str) -> [u8; 32] {
        core::array::from_fn(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
    }

    #[test]
    fn the_thumbprint_is_the_one_of_rfc_9679() {
        let expected = hex("496bd8afadf307e5b08c64b0421bf9dc01528a344a43bda88fadd1669da253ec");
        assert_eq!(rfc9679().thumbprint(), expected);
    }

    #[test]
    fn a_key_survives_its_encoding_and_nothing_longer_does() {
        for algorithm in [Algorithm::Es256, Algorithm::Esp256] {
            let key = IssuerKey::new(algorithm, rfc9679()).unwrap();
            let mut bytes = alloc::vec![];
            key.encode(&mut bytes);
            assert_eq!(bytes.len(), ISSUER_KEY_LEN_MAX);
            assert_eq!(IssuerKey::decode(&bytes), Ok(key));
            bytes.push(0);
            assert_eq!(IssuerKey::decode(&bytes), Err(Refusal::TooLong));
        }
    }

    #[test]
    fn curve_and_algorithm_belong_together() {
        assert_eq!(
            IssuerKey::new(Algorithm::Ed25519, rfc9679()),
            Err(Refusal::AlgorithmMismatch)
        );
    }

    #[test]
    fn points_off_the_curve_and_of_small_order_are_refused() {
        let one = core::array::from_fn(|i| u8::from(i == 31));
        assert_eq!(PublicKey::p256(&one, &one), Err(Refusal::InvalidPoint));
        let identity = core::array::from_fn(|i| u8::from(i == 0));
        assert_eq!(PublicKey::ed25519(&identity), Err(Refusal::InvalidPoint));
        assert_eq!(PublicKey::from_sec1(&[0]), Err(Refusal::InvalidPoint));
    }
}
