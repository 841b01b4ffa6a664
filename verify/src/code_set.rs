//! The code set: the text an owner hands on, and a borrower redeems.
//!
//! `FOB1` and the base32 of `[id, secret, [function codes, ascending]]`. There
//! is exactly one text for one code set, so a text can stand for it in a hash.
//! A code set is a secret: its `Debug` shows the id alone.

use crate::cbor::{Fixed, Reader, Write};
use crate::{ID_LEN, Refusal, base32};
use sha2::{Digest, Sha256};

/// The first characters of every code set.
pub const PREFIX: &str = "FOB1";

/// The most functions of one code set.
pub const CODES_MAX: usize = 64;

/// Octets of the one-time secret.
pub const SECRET_LEN: usize = 16;

/// The largest CBOR under the base32.
const CBOR_LEN_MAX: usize = 1 + (1 + ID_LEN) + (1 + SECRET_LEN) + 2 + 3 * CODES_MAX;

/// The most characters of a code set.
pub const TEXT_LEN_MAX: usize = PREFIX.len() + base32::len_of(CBOR_LEN_MAX);

/// The parts of a code set, in canonical order and within its limits.
#[derive(Clone, PartialEq, Eq)]
pub struct CodeSet {
    id: [u8; ID_LEN],
    secret: [u8; SECRET_LEN],
    codes: [u16; CODES_MAX],
    count: usize,
}

impl CodeSet {
    /// A code set of these parts; `codes` are 1 to [`CODES_MAX`] function
    /// codes above 0, strictly ascending.
    ///
    /// # Errors
    /// [`Refusal::WrongCount`] for none or too many codes;
    /// [`Refusal::OutOfBounds`] for a code of 0 or out of order.
    pub fn new(id: [u8; ID_LEN], secret: [u8; SECRET_LEN], codes: &[u16]) -> Result<Self, Refusal> {
        let mut all = [0; CODES_MAX];
        all.get_mut(..codes.len())
            .filter(|codes| !codes.is_empty())
            .ok_or(Refusal::WrongCount)?
            .copy_from_slice(codes);
        let ascending = codes.is_sorted_by(|a, b| a < b);
        if !ascending || codes.first() == Some(&0) {
            return Err(Refusal::OutOfBounds);
        }
        Ok(Self {
            id,
            secret,
            codes: all,
            count: codes.len(),
        })
    }

    /// Reads a text; everything but the one canonical form is refused.
    ///
    /// # Errors
    /// [`Refusal::TooLong`], [`Refusal::WrongPrefix`],
    /// [`Refusal::WrongCharacter`], [`Refusal::TrailingBits`], or whatever
    /// refuses the CBOR inside.
    pub fn decode(text: &str) -> Result<Self, Refusal> {
        if text.len() > TEXT_LEN_MAX {
            return Err(Refusal::TooLong);
        }
        let text = text.strip_prefix(PREFIX).ok_or(Refusal::WrongPrefix)?;
        let mut octets = [0; CBOR_LEN_MAX];
        let octets = base32::decode(text.as_bytes(), &mut octets)?;
        let mut reader = Reader::new(octets, CBOR_LEN_MAX)?;
        reader.array(3, 3)?;
        let id = *reader.array_of()?;
        let secret = *reader.array_of()?;
        let count = reader.array(1, CODES_MAX)?;
        let mut codes = [0; CODES_MAX];
        for code in codes.iter_mut().take(count) {
            *code = u16::try_from(reader.uint()?).map_err(|_| Refusal::OutOfBounds)?;
        }
        reader.end()?;
        Self::new(id, secret, codes.get(..count).unwrap_or(&[]))
    }

    /// The id, known to the server's store.
    #[must_use]
    pub const fn id(&self) -> &[u8; ID_LEN] {
        &self.id
    }

    /// The one-time secret. Compare it in constant time.
    #[must_use]
    pub const fn secret(&self) -> &[u8; SECRET_LEN] {
        &self.secret
    }

    /// The function codes, ascending.
    #[must_use]
    pub fn codes(&self) -> &[u16] {
        self.codes.get(..self.count).unwrap_or(&[])
    }

    /// The characters of the canonical text, all ASCII, one after the other.
    pub fn characters(&self) -> impl Iterator<Item = char> {
        let cbor = self.cbor();
        let digits = (0..base32::len_of(cbor.as_slice().len()))
            .map_while(move |at| base32::digit(cbor.as_slice(), at));
        PREFIX.bytes().chain(digits).map(char::from)
    }

    /// The canonical text.
    #[cfg(feature = "alloc")]
    #[must_use]
    pub fn encode(&self) -> alloc::string::String {
        self.characters().collect()
    }

    fn cbor(&self) -> Fixed<CBOR_LEN_MAX> {
        let mut out = Fixed::new();
        out.array(3);
        out.bytes(&self.id);
        out.bytes(&self.secret);
        out.array(self.count);
        for code in self.codes() {
            out.uint((*code).into());
        }
        out
    }
}

impl core::fmt::Debug for CodeSet {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("CodeSet(")?;
        for octet in self.id {
            write!(f, "{octet:02x}")?;
        }
        f.write_str(", …)")
    }
}

/// The nonce that binds a proof of possession to a code set: the SHA-256 of
/// the characters of its canonical text.
#[must_use]
pub fn text_nonce(canonical: &str) -> [u8; 32] {
    Sha256::digest(canonical.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::{CODES_MAX, CodeSet, TEXT_LEN_MAX};
    use crate::Refusal;
    use std::string::String;

    fn text(codes: &[u16]) -> String {
        let set = CodeSet::new([1; 16], [2; 16], codes).unwrap();
        set.characters().collect()
    }

    #[test]
    fn a_code_set_survives_its_text() {
        let most: std::vec::Vec<u16> = (0..CODES_MAX as u16).map(|i| 60_000 + i).collect();
        for codes in [&[1][..], &[1, 2, 3], &[8, 256, 65_535], &most] {
            let set = CodeSet::decode(&text(codes)).unwrap();
            assert_eq!(set.codes(), codes);
            assert_eq!((set.id(), set.secret()), (&[1; 16], &[2; 16]));
        }
        assert_eq!(text(&most).len(), TEXT_LEN_MAX);
    }

    #[test]
    fn codes_must_ascend() {
        for codes in [&[2, 1][..], &[1, 1], &[0, 1]] {
            let answer = CodeSet::new([1; 16], [2; 16], codes);
            assert_eq!(answer, Err(Refusal::OutOfBounds));
        }
        assert_eq!(
            CodeSet::new([1; 16], [2; 16], &[]),
            Err(Refusal::WrongCount)
        );
    }

    #[test]
    fn other_texts_are_refused() {
        let good = text(&[1, 2]);
        assert_eq!(
            CodeSet::decode(&good.to_lowercase()),
            Err(Refusal::WrongPrefix)
        );
        assert_eq!(CodeSet::decode(&good[4..]), Err(Refusal::WrongPrefix));
        assert_eq!(
            CodeSet::decode(&(good.clone() + " ")),
            Err(Refusal::WrongCharacter)
        );
        assert_eq!(CodeSet::decode("FOB1"), Err(Refusal::Truncated));
        assert!(CodeSet::decode(&good.repeat(20)).is_err());
    }
}
