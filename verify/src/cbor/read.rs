//! The strict reader.

use super::major;
use crate::Refusal;

/// Reads one item after the other from a slice and refuses every encoding
/// that is not the shortest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader over an object of at most `len_max` octets.
    pub(crate) fn new(bytes: &'a [u8], len_max: usize) -> Result<Self, Refusal> {
        if bytes.len() > len_max {
            return Err(Refusal::TooLong);
        }
        Ok(Self { rest: bytes })
    }

    /// What has not been read.
    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Refuses bytes after the object.
    pub(crate) const fn end(&self) -> Result<(), Refusal> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(Refusal::TrailingBytes)
        }
    }

    /// An unsigned integer.
    pub(crate) fn uint(&mut self) -> Result<u64, Refusal> {
        self.head(major::UINT)
    }

    /// An unsigned integer of at most `max`.
    pub(crate) fn uint_max(&mut self, max: u64) -> Result<u64, Refusal> {
        let value = self.uint()?;
        if value > max {
            return Err(Refusal::OutOfBounds);
        }
        Ok(value)
    }

    /// An unsigned integer that fits `u32`.
    pub(crate) fn uint32(&mut self) -> Result<u32, Refusal> {
        u32::try_from(self.uint()?).map_err(|_| Refusal::OutOfBounds)
    }

    /// A time in seconds, at most [`crate::TIME_MAX`].
    pub(crate) fn time(&mut self) -> Result<u64, Refusal> {
        self.uint_max(crate::TIME_MAX)
    }

    /// An integer of either sign that fits `i64`.
    pub(crate) fn int(&mut self) -> Result<i64, Refusal> {
        let first = *self.rest.first().ok_or(Refusal::Truncated)?;
        let negative = first >> 5 == major::NINT;
        let value = self.head(if negative { major::NINT } else { major::UINT })?;
        let value = i64::try_from(value).map_err(|_| Refusal::OutOfBounds)?;
        Ok(if negative { -1 - value } else { value })
    }

    /// An integer from `min` to `max`.
    pub(crate) fn int_within(&mut self, min: i32, max: i32) -> Result<i32, Refusal> {
        let value = i32::try_from(self.int()?).map_err(|_| Refusal::OutOfBounds)?;
        if value < min || value > max {
            return Err(Refusal::OutOfBounds);
        }
        Ok(value)
    }

    /// A byte string of `min` to `max` octets.
    pub(crate) fn bytes(&mut self, min: usize, max: usize) -> Result<&'a [u8], Refusal> {
        self.string(major::BYTES, min, max)
    }

    /// A byte string of exactly `N` octets.
    pub(crate) fn array_of<const N: usize>(&mut self) -> Result<&'a [u8; N], Refusal> {
        self.bytes(N, N)?
            .try_into()
            .map_err(|_| Refusal::OutOfBounds)
    }

    /// A text string of `min` to `max` octets.
    pub(crate) fn text(&mut self, min: usize, max: usize) -> Result<&'a str, Refusal> {
        let octets = self.string(major::TEXT, min, max)?;
        core::str::from_utf8(octets).map_err(|_| Refusal::InvalidText)
    }

    /// The text of a map label, which must be this one.
    pub(crate) fn text_label(&mut self, expected: &str) -> Result<(), Refusal> {
        let octets = self.string(major::TEXT, 0, usize::MAX)?;
        if octets == expected.as_bytes() {
            Ok(())
        } else {
            Err(Refusal::UnexpectedLabel)
        }
    }

    /// The head of an array of `min` to `max` items.
    pub(crate) fn array(&mut self, min: usize, max: usize) -> Result<usize, Refusal> {
        let count = self.head(major::ARRAY)?;
        usize::try_from(count)
            .ok()
            .filter(|n| (min..=max).contains(n))
            .ok_or(Refusal::WrongCount)
    }

    /// The head of a map, as the number of its pairs.
    pub(crate) fn map(&mut self) -> Result<u64, Refusal> {
        self.head(major::MAP)
    }

    /// The head of a map of exactly `pairs` pairs.
    pub(crate) fn map_of(&mut self, pairs: u64) -> Result<(), Refusal> {
        if self.map()? == pairs {
            Ok(())
        } else {
            Err(Refusal::UnexpectedLabel)
        }
    }

    /// An integer map label, which must be this one.
    pub(crate) fn label(&mut self, expected: i64) -> Result<(), Refusal> {
        if self.int()? == expected {
            Ok(())
        } else {
            Err(Refusal::UnexpectedLabel)
        }
    }

    /// Reads an integer map label if it is this one; otherwise reads nothing.
    pub(crate) fn label_if(&mut self, expected: i64) -> bool {
        let mut ahead = *self;
        if ahead.label(expected).is_ok() {
            *self = ahead;
            true
        } else {
            false
        }
    }

    /// A tag, which must be this one.
    pub(crate) fn tag(&mut self, expected: u64) -> Result<(), Refusal> {
        if self.head(major::TAG)? == expected {
            Ok(())
        } else {
            Err(Refusal::WrongType)
        }
    }

    /// `false` or `true`.
    pub(crate) fn boolean(&mut self) -> Result<bool, Refusal> {
        let (first, rest) = self.rest.split_first().ok_or(Refusal::Truncated)?;
        let value = match first {
            0xf4 => false,
            0xf5 => true,
            _ => return Err(Refusal::WrongType),
        };
        self.rest = rest;
        Ok(value)
    }

    /// `null`.
    pub(crate) fn null(&mut self) -> Result<(), Refusal> {
        let (first, rest) = self.rest.split_first().ok_or(Refusal::Truncated)?;
        if *first != 0xf6 {
            return Err(Refusal::WrongType);
        }
        self.rest = rest;
        Ok(())
    }

    fn string(&mut self, major: u8, min: usize, max: usize) -> Result<&'a [u8], Refusal> {
        let len = self.head(major)?;
        let len = usize::try_from(len).map_err(|_| Refusal::Truncated)?;
        let (octets, rest) = self.rest.split_at_checked(len).ok_or(Refusal::Truncated)?;
        if len < min || len > max {
            return Err(Refusal::OutOfBounds);
        }
        self.rest = rest;
        Ok(octets)
    }

    /// The argument of a head of this major type, in its shortest form only.
    fn head(&mut self, expected: u8) -> Result<u64, Refusal> {
        let (&first, rest) = self.rest.split_first().ok_or(Refusal::Truncated)?;
        if first >> 5 != expected {
            return Err(Refusal::WrongType);
        }
        let width = match first & 0x1f {
            direct @ 0..=23 => {
                self.rest = rest;
                return Ok(u64::from(direct));
            }
            24 => 1,
            25 => 2,
            26 => 4,
            27 => 8,
            _ => return Err(Refusal::NotDeterministic),
        };
        let (argument, rest) = rest.split_at_checked(width).ok_or(Refusal::Truncated)?;
        let value = argument
            .iter()
            .fold(0u64, |value, octet| value << 8 | u64::from(*octet));
        let shorter_max = match width {
            1 => 23,
            2 => u64::from(u8::MAX),
            4 => u64::from(u16::MAX),
            _ => u64::from(u32::MAX),
        };
        if value <= shorter_max {
            return Err(Refusal::NotDeterministic);
        }
        self.rest = rest;
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::Reader;
    use crate::Refusal;

    fn reader(bytes: &[u8]) -> Reader<'_> {
        Reader::new(bytes, 64).unwrap()
    }

    #[test]
    fn only_the_shortest_integer_is_read() {
        assert_eq!(reader(&[0x17]).uint(), Ok(23));
        assert_eq!(reader(&[0x18, 24]).uint(), Ok(24));
        assert_eq!(reader(&[0x19, 1, 0]).uint(), Ok(256));
        assert_eq!(reader(&[0x3a, 0, 1, 0x11, 0x70]).int(), Ok(-70_001));
        for longer in [
            &[0x18, 23][..],
            &[0x19, 0, 255],
            &[0x1a, 0, 0, 255, 255],
            &[0x1b, 0, 0, 0, 0, 255, 255, 255, 255],
            &[0x1c],
            &[0x1f],
        ] {
            assert_eq!(reader(longer).uint(), Err(Refusal::NotDeterministic));
        }
    }

    #[test]
    fn the_smallest_integers_of_cbor_do_not_wrap() {
        let lowest = [0x3b, 255, 255, 255, 255, 255, 255, 255, 255];
        assert_eq!(reader(&lowest).int(), Err(Refusal::OutOfBounds));
        let lowest_i64 = [0x3b, 0x7f, 255, 255, 255, 255, 255, 255, 255];
        assert_eq!(reader(&lowest_i64).int(), Ok(i64::MIN));
    }

    #[test]
    fn a_length_beyond_the_input_is_truncation() {
        let huge = [0x5b, 255, 255, 255, 255, 255, 255, 255, 255, 0];
        assert_eq!(reader(&huge).bytes(0, 9), Err(Refusal::Truncated));
        assert_eq!(reader(&[0x42, 0]).bytes(0, 9), Err(Refusal::Truncated));
        assert_eq!(
            reader(&[0x5f, 0xff]).bytes(0, 9),
            Err(Refusal::NotDeterministic)
        );
    }
}
