//! The writer: always the shortest form, into whatever takes octets.

use super::major;
use sha2::{Digest, Sha256};

/// Something that takes octets, and CBOR items made of them.
///
/// The caller writes map labels in ascending order of their encoding.
pub(crate) trait Write {
    /// Appends octets.
    fn put(&mut self, octets: &[u8]);

    /// A head: major type and argument.
    fn head(&mut self, major: u8, argument: u64) {
        let (octets, len) = head(major, argument);
        self.put(octets.get(..len).unwrap_or(&octets));
    }

    /// An unsigned integer.
    fn uint(&mut self, value: u64) {
        self.head(major::UINT, value);
    }

    /// An integer of either sign.
    fn int(&mut self, value: i64) {
        if value < 0 {
            self.head(major::NINT, (!value).unsigned_abs());
        } else {
            self.head(major::UINT, value.unsigned_abs());
        }
    }

    /// A byte string.
    fn bytes(&mut self, value: &[u8]) {
        self.head(major::BYTES, value.len() as u64);
        self.put(value);
    }

    /// A text string.
    fn text(&mut self, value: &str) {
        self.head(major::TEXT, value.len() as u64);
        self.put(value.as_bytes());
    }

    /// The head of an array.
    fn array(&mut self, items: usize) {
        self.head(major::ARRAY, items as u64);
    }

    /// The head of a map.
    fn map(&mut self, pairs: usize) {
        self.head(major::MAP, pairs as u64);
    }

    /// `false` or `true`.
    fn boolean(&mut self, value: bool) {
        self.head(major::SIMPLE, if value { 21 } else { 20 });
    }

    /// `null`.
    fn null(&mut self) {
        self.head(major::SIMPLE, 22);
    }
}

/// The octets of a head and how many of them count.
pub(crate) const fn head(major: u8, argument: u64) -> ([u8; 9], usize) {
    let top = major << 5;
    let [a, b, c, d, e, f, g, h] = argument.to_be_bytes();
    if argument < 24 {
        ([top | h, 0, 0, 0, 0, 0, 0, 0, 0], 1)
    } else if argument <= u8::MAX as u64 {
        ([top | 24, h, 0, 0, 0, 0, 0, 0, 0], 2)
    } else if argument <= u16::MAX as u64 {
        ([top | 25, g, h, 0, 0, 0, 0, 0, 0], 3)
    } else if argument <= u32::MAX as u64 {
        ([top | 26, e, f, g, h, 0, 0, 0, 0], 5)
    } else {
        ([top | 27, a, b, c, d, e, f, g, h], 9)
    }
}

#[cfg(feature = "alloc")]
impl Write for alloc::vec::Vec<u8> {
    fn put(&mut self, octets: &[u8]) {
        self.extend_from_slice(octets);
    }
}

impl Write for Sha256 {
    fn put(&mut self, octets: &[u8]) {
        self.update(octets);
    }
}

/// Room for an object of a known largest size.
///
/// What does not fit is dropped: every use has a size its contents cannot
/// exceed.
#[derive(Clone, Copy)]
pub(crate) struct Fixed<const N: usize> {
    octets: [u8; N],
    len: usize,
}

impl<const N: usize> Fixed<N> {
    pub(crate) const fn new() -> Self {
        Self {
            octets: [0; N],
            len: 0,
        }
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        self.octets.get(..self.len).unwrap_or(&[])
    }

    pub(crate) const fn into_array(self) -> [u8; N] {
        self.octets
    }
}

impl<const N: usize> Write for Fixed<N> {
    fn put(&mut self, octets: &[u8]) {
        let end = self.len.saturating_add(octets.len());
        if let Some(room) = self.octets.get_mut(self.len..end) {
            room.copy_from_slice(octets);
            self.len = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Fixed, Write};
    use crate::cbor::Reader;

    #[test]
    fn what_is_written_is_read_again() {
        let values = [0, 23, 24, 255, 256, 65_535, 65_536, 1 << 32, i64::MAX];
        for value in values.iter().flat_map(|v| [*v, -1 - *v]) {
            let mut out = Fixed::<9>::new();
            out.int(value);
            assert_eq!(Reader::new(out.as_slice(), 9).unwrap().int(), Ok(value));
        }
    }
}
