//! Deterministic CBOR (RFC 8949 §4.2.1), as much of it as the format uses.
//!
//! Both halves are driven field by field by the module that owns the shape:
//! there is no tree of values, no recursion and no skipping of unknown items.
//! Floats, indefinite lengths and simple values other than `false`, `true` and
//! `null` do not occur in the format and have no code here.

mod read;
mod write;

pub(crate) use read::Reader;
pub(crate) use write::{Fixed, Write, head};

/// Major types (RFC 8949 §3.1).
pub(crate) mod major {
    pub(crate) const UINT: u8 = 0;
    pub(crate) const NINT: u8 = 1;
    pub(crate) const BYTES: u8 = 2;
    pub(crate) const TEXT: u8 = 3;
    pub(crate) const ARRAY: u8 = 4;
    pub(crate) const MAP: u8 = 5;
    pub(crate) const TAG: u8 = 6;
    pub(crate) const SIMPLE: u8 = 7;
}
