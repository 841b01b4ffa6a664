//! The functions of an authorization: small enough to be held by the million.
//!
//! Up to [`INLINE_MAX`] codes lie in the value itself, which is where nearly all of them are; more
//! are kept in a box. A set reads as a slice.

use std::fmt;
use std::ops::Deref;

use super::function::FunctionCode;

/// Codes that need no box: as many as fit 24 bytes.
pub const INLINE_MAX: usize = 11;

/// Function codes in the order they were given, which is ascending wherever they come from the
/// rules or the store.
#[derive(Clone)]
pub struct FunctionSet(Kept);

#[derive(Clone)]
enum Kept {
    Inline(u8, [FunctionCode; INLINE_MAX]),
    Boxed(Box<[FunctionCode]>),
}

impl Deref for FunctionSet {
    type Target = [FunctionCode];

    fn deref(&self) -> &[FunctionCode] {
        match &self.0 {
            Kept::Inline(len, codes) => &codes[..usize::from(*len)],
            Kept::Boxed(codes) => codes,
        }
    }
}

impl From<&[FunctionCode]> for FunctionSet {
    fn from(codes: &[FunctionCode]) -> Self {
        match u8::try_from(codes.len()) {
            Ok(len) if codes.len() <= INLINE_MAX => {
                let mut inline = [0; INLINE_MAX];
                inline[..codes.len()].copy_from_slice(codes);
                Self(Kept::Inline(len, inline))
            }
            _ => Self(Kept::Boxed(codes.into())),
        }
    }
}

impl From<Vec<FunctionCode>> for FunctionSet {
    fn from(codes: Vec<FunctionCode>) -> Self {
        codes.as_slice().into()
    }
}

impl<const N: usize> From<[FunctionCode; N]> for FunctionSet {
    fn from(codes: [FunctionCode; N]) -> Self {
        codes.as_slice().into()
    }
}

impl FromIterator<FunctionCode> for FunctionSet {
    fn from_iter<I: IntoIterator<Item = FunctionCode>>(codes: I) -> Self {
        let mut codes = codes.into_iter();
        let mut inline = [0; INLINE_MAX];
        for at in 0..INLINE_MAX {
            match codes.next() {
                Some(code) => inline[at] = code,
                None => return inline[..at].into(),
            }
        }
        match codes.next() {
            None => inline.into(),
            Some(one_more) => {
                let all = inline.into_iter().chain([one_more]).chain(codes);
                Self(Kept::Boxed(all.collect()))
            }
        }
    }
}

impl<'a> IntoIterator for &'a FunctionSet {
    type Item = &'a FunctionCode;
    type IntoIter = std::slice::Iter<'a, FunctionCode>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl PartialEq for FunctionSet {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for FunctionSet {}

impl fmt::Debug for FunctionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_in_keeps_the_codes_inline_or_boxed() {
        for len in [0, 1, 8, 10, 11, 12, 13, 64] {
            let codes: Vec<FunctionCode> = (1..=len).map(|code| code * 1000).collect();
            let set = FunctionSet::from(codes.as_slice());
            assert_eq!(*set, *codes);
            assert_eq!(set, codes.iter().copied().collect());
            assert_eq!(set, codes.clone().into());
            let inline = matches!(set.0, Kept::Inline(..));
            assert_eq!(inline, codes.len() <= INLINE_MAX, "{len}");
            let collected: FunctionSet = codes.iter().copied().collect();
            assert_eq!(matches!(collected.0, Kept::Inline(..)), inline, "{len}");
        }
        assert_eq!(size_of::<FunctionSet>(), 24);
        assert_eq!(FunctionSet::from([3, 1]), [3, 1].into());
        assert_ne!(FunctionSet::from([3, 1]), [1, 3].into());
    }
}
