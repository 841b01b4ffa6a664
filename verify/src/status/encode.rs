//! Writing status lists: what a server does.

use super::{Bits, COMPRESSED_LEN_MAX, TYP, label};
use crate::cbor::{Fixed, Write};
use crate::key::STATUS_URI_LEN_MAX;
use crate::sign1::{ToBeSigned, write_header};
use crate::{Algorithm, KID_LEN, Refusal, TIME_MAX};

/// A status list before it is signed.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'a> {
    /// `sub`: the address of the list, 1–256 octets, as keys name it.
    pub uri: &'a str,
    /// `exp`: the first second at which it is void, after `issued_at`.
    pub expires: u64,
    /// `iat`: when it was made; later than that of every list of this
    /// address before it.
    pub issued_at: u64,
    /// `ttl`: for how many seconds it is fresh, at least 1.
    pub ttl_s: u32,
    /// `lst`: the list of two bits an entry as a zlib stream (RFC 1950).
    pub compressed: &'a [u8],
}

/// The message that the issuer key of this algorithm and `kid` must sign, see
/// [`ToBeSigned`].
///
/// # Errors
/// [`Refusal::OutOfBounds`] for a draft no car would take. The stream is not
/// inflated.
pub fn to_be_signed(
    draft: &Draft<'_>,
    algorithm: Algorithm,
    kid: &[u8; KID_LEN],
) -> Result<ToBeSigned, Refusal> {
    let sound = (1..=STATUS_URI_LEN_MAX).contains(&draft.uri.len())
        && (1..=COMPRESSED_LEN_MAX).contains(&draft.compressed.len())
        && draft.issued_at < draft.expires
        && draft.expires <= TIME_MAX
        && draft.ttl_s != 0;
    if !sound {
        return Err(Refusal::OutOfBounds);
    }
    let mut protected = Fixed::<64>::new();
    write_header(&mut protected, algorithm, Some(kid), TYP);
    Ok(ToBeSigned::new(protected.as_slice(), |out| {
        out.map(5);
        out.int(label::SUB);
        out.text(draft.uri);
        out.int(label::EXP);
        out.uint(draft.expires);
        out.int(label::IAT);
        out.uint(draft.issued_at);
        out.int(label::STATUS_LIST);
        out.map(2);
        out.text(label::LST);
        out.bytes(draft.compressed);
        out.text(label::BITS);
        out.uint(Bits::Two as u64);
        out.int(label::TTL);
        out.uint(draft.ttl_s.into());
    }))
}
