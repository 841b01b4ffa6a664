//! Inflating a list in memory the caller gives.

use super::{Bits, LIST_LEN_MAX};
use crate::Refusal;
use core::fmt;
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::{
    TINFL_FLAG_PARSE_ZLIB_HEADER, TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF,
};
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

/// Room for one inflated list of at most `N` octets. A car has one, in static
/// memory; looking an entry up takes about 11 KiB of stack beside it.
pub struct Room<const N: usize = LIST_LEN_MAX>([u8; N]);

impl<const N: usize> Room<N> {
    /// An empty room.
    #[must_use]
    pub const fn new() -> Self {
        Self([0; N])
    }

    /// Inflates a zlib stream (RFC 1950) and gives its octets.
    ///
    /// The work is bounded by the length of the stream and by `N`.
    ///
    /// # Errors
    /// [`Refusal::BadCompression`] when it is no such stream, its checksum
    /// does not hold, octets follow it, or it holds more than `N` octets.
    pub fn inflate(&mut self, stream: &[u8]) -> Result<&[u8], Refusal> {
        let mut inflater = DecompressorOxide::new();
        let flags = TINFL_FLAG_PARSE_ZLIB_HEADER | TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
        let (status, read, written) = decompress(&mut inflater, stream, &mut self.0, 0, flags);
        if status != TINFLStatus::Done || read != stream.len() {
            return Err(Refusal::BadCompression);
        }
        self.0.get(..written).ok_or(Refusal::BadCompression)
    }

    /// The value of entry `index` of a compressed list.
    ///
    /// # Errors
    /// [`Refusal::BadCompression`], see [`Room::inflate`];
    /// [`Refusal::StatusIndex`] when the list ends before that entry.
    pub fn look_up(&mut self, stream: &[u8], bits: Bits, index: u32) -> Result<u8, Refusal> {
        let octets = self.inflate(stream)?;
        bits.value(octets, index).ok_or(Refusal::StatusIndex)
    }
}

impl<const N: usize> Default for Room<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> fmt::Debug for Room<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Room({N})")
    }
}
