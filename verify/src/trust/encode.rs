//! Writing trust lists.

use super::{ENTRIES_MAX, Entry, TYP, label};
use crate::cbor::{Fixed, Write};
use crate::key::ISSUER_LEN_MAX;
use crate::sign1::{ToBeSigned, write_header};
use crate::{IssuerKey, Refusal, TIME_MAX};
use alloc::vec::Vec;

/// A trust list before it is signed.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'a> {
    /// `iss`: the issuer's name, the same as in every key.
    pub issuer: &'a str,
    /// `exp`: the first second at which the list is void, after `issued_at`.
    pub expires: u64,
    /// `iat`: when the list was made.
    pub issued_at: u64,
    /// Higher than that of every list before it.
    pub version: u32,
    /// The issuer keys to be believed, at most [`ENTRIES_MAX`], each once.
    pub entries: &'a [Entry],
    /// The root that may sign lists after this one, beside the present one.
    pub next_root: Option<IssuerKey>,
}

/// The message that the root must sign, see [`ToBeSigned`].
///
/// # Errors
/// [`Refusal::OutOfBounds`], [`Refusal::WrongCount`] or
/// [`Refusal::DuplicateIssuer`] for a draft no car would take.
pub fn to_be_signed(draft: &Draft<'_>, root: &IssuerKey) -> Result<ToBeSigned, Refusal> {
    draft.check()?;
    let mut protected = Fixed::<64>::new();
    write_header(&mut protected, root.algorithm(), Some(&root.kid()), TYP);
    Ok(ToBeSigned::new(protected.as_slice(), |out| {
        draft.write(out)
    }))
}

impl Draft<'_> {
    fn check(&self) -> Result<(), Refusal> {
        if self.entries.len() > ENTRIES_MAX {
            return Err(Refusal::WrongCount);
        }
        let windows = self.entries.iter();
        let sound = (1..=ISSUER_LEN_MAX).contains(&self.issuer.len())
            && self.issued_at < self.expires
            && self.expires <= TIME_MAX
            && windows
                .clone()
                .all(|e| e.not_before < e.not_after && e.not_after <= TIME_MAX);
        if !sound {
            return Err(Refusal::OutOfBounds);
        }
        let mut kids: Vec<_> = windows.map(|e| e.key.kid()).collect();
        kids.sort_unstable();
        if kids.is_sorted_by(|a, b| a < b) {
            Ok(())
        } else {
            Err(Refusal::DuplicateIssuer)
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.map(4);
        out.int(label::ISS);
        out.text(self.issuer);
        out.int(label::EXP);
        out.uint(self.expires);
        out.int(label::IAT);
        out.uint(self.issued_at);
        out.int(label::TRUST);
        out.map(if self.next_root.is_some() { 3 } else { 2 });
        out.int(label::VERSION);
        out.uint(self.version.into());
        out.int(label::ENTRIES);
        out.array(self.entries.len());
        for entry in self.entries {
            out.map(3);
            out.int(label::ENTRY_KEY);
            entry.key.write(out);
            out.int(label::ENTRY_NOT_BEFORE);
            out.uint(entry.not_before);
            out.int(label::ENTRY_NOT_AFTER);
            out.uint(entry.not_after);
        }
        if let Some(next_root) = &self.next_root {
            out.int(label::NEXT_ROOT);
            next_root.write(out);
        }
    }
}
