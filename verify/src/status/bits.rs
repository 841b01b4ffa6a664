//! Entries in the octets of a list, before compression.

use crate::Refusal;

/// What a list says of a key. The numbers are those of the draft's registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Status {
    /// 0: nothing is held against it.
    Valid = 0,
    /// 1: ended for good.
    Revoked = 1,
    /// 2: not to be used for the time being.
    Suspended = 2,
}

impl Status {
    /// The status of a value in a list.
    ///
    /// # Errors
    /// [`Refusal::UnknownStatus`] for a value Fob does not use.
    pub const fn from_value(value: u8) -> Result<Self, Refusal> {
        match value {
            0 => Ok(Self::Valid),
            1 => Ok(Self::Revoked),
            2 => Ok(Self::Suspended),
            _ => Err(Refusal::UnknownStatus),
        }
    }

    /// Whether a key with this status may be used.
    ///
    /// # Errors
    /// [`Refusal::Revoked`] or [`Refusal::Suspended`].
    pub const fn check(self) -> Result<(), Refusal> {
        match self {
            Self::Valid => Ok(()),
            Self::Revoked => Err(Refusal::Revoked),
            Self::Suspended => Err(Refusal::Suspended),
        }
    }
}

/// How many bits an entry has. Fob's lists have two; the draft allows these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Bits {
    /// Eight entries to an octet.
    One = 1,
    /// Four entries to an octet.
    Two = 2,
    /// Two entries to an octet.
    Four = 4,
    /// One entry to an octet.
    Eight = 8,
}

impl Bits {
    /// The octet in which an entry stands, how far it is shifted there, and
    /// the mask of its bits: entries fill an octet from its least significant
    /// bit on.
    const fn place(self, index: u32) -> (usize, u32, u8) {
        let width = self as u32;
        let per_octet = 8 / width;
        let mask = 0xff >> (8 - width);
        (
            (index / per_octet) as usize,
            index % per_octet * width,
            mask,
        )
    }

    /// The value of entry `index`; `None` past the end.
    #[must_use]
    pub fn value(self, octets: &[u8], index: u32) -> Option<u8> {
        let (octet, shift, mask) = self.place(index);
        octets.get(octet).map(|octet| octet >> shift & mask)
    }
}

/// Writes entry `index` of a list of two bits an entry; `false`, and nothing
/// written, past the end.
pub fn set(octets: &mut [u8], index: u32, status: Status) -> bool {
    let (octet, shift, mask) = Bits::Two.place(index);
    octets.get_mut(octet).is_some_and(|octet| {
        *octet = *octet & !(mask << shift) | (status as u8) << shift;
        true
    })
}

#[cfg(test)]
mod tests {
    use super::{Bits, Status, set};

    /// The examples of section 4.1 of the draft.
    #[test]
    fn the_drafts_octets_are_read() {
        let one = [0xb9, 0xa3];
        let values = [1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 0, 0, 0, 1, 0, 1];
        for (index, value) in (0..).zip(values) {
            assert_eq!(Bits::One.value(&one, index), Some(value));
        }
        assert_eq!(Bits::One.value(&one, 16), None);
        let two = [0xc9, 0x44, 0xf9];
        let values = [1, 2, 0, 3, 0, 1, 0, 1, 1, 2, 3, 3];
        for (index, value) in (0..).zip(values) {
            assert_eq!(Bits::Two.value(&two, index), Some(value));
        }
        assert_eq!(Bits::Two.value(&two, 12), None);
        assert_eq!(Bits::Two.value(&two, u32::MAX), None);
        assert_eq!(Bits::Four.value(&two, 3), Some(4));
        assert_eq!(Bits::Eight.value(&two, 2), Some(0xf9));
    }

    #[test]
    fn an_entry_is_written_alone() {
        let mut octets = [0xff; 2];
        assert!(set(&mut octets, 5, Status::Revoked));
        assert_eq!(octets, [0xff, 0xf7]);
        assert!(set(&mut octets, 5, Status::Suspended));
        assert!(set(&mut octets, 0, Status::Valid));
        assert_eq!(octets, [0xfc, 0xfb]);
        assert!(!set(&mut octets, 8, Status::Revoked));
        assert_eq!(octets, [0xfc, 0xfb]);
    }
}
