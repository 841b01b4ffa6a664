//! What an amendment came to, as it is answered and kept: floor 3.

use minicbor::data::Type;
use minicbor::{Decoder, Encoder};

use super::Failure;
use super::certain::CertainBy;
use crate::domain::KeyId;

/// What an amendment came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Keys that were revoked.
    pub revoked: Vec<KeyId>,
    /// Keys that were issued.
    pub issued: Vec<KeyId>,
    /// Keys that were valid and are suspended.
    pub suspended: Vec<KeyId>,
    /// Keys that were suspended and are valid.
    pub resumed: Vec<KeyId>,
    /// When it is certain that the car refuses what was revoked or suspended.
    pub certain_by: CertainBy,
}

impl Outcome {
    /// Where nothing had to be done.
    pub(super) fn nothing() -> Self {
        Self {
            revoked: Vec::new(),
            issued: Vec::new(),
            suspended: Vec::new(),
            resumed: Vec::new(),
            certain_by: CertainBy::Now,
        }
    }

    /// Both in one.
    pub(super) fn with(mut self, other: Self) -> Self {
        self.revoked.extend(other.revoked);
        self.issued.extend(other.issued);
        self.suspended.extend(other.suspended);
        self.resumed.extend(other.resumed);
        self.certain_by = self.certain_by.and(other.certain_by);
        self
    }

    /// As it is kept: CBOR `[revoked ids, issued ids, latest | null, suspended ids, resumed ids]`,
    /// ids one after the other. Those kept before there were the last two have three items.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let ids = |ids: &[KeyId]| ids.iter().flat_map(|id| id.0).collect::<Vec<u8>>();
        let mut encoder = Encoder::new(&mut out);
        // Writing into memory cannot fail.
        let _ = encoder.array(5).and_then(|e| {
            e.bytes(&ids(&self.revoked))?.bytes(&ids(&self.issued))?;
            match self.certain_by {
                CertainBy::Now => e.null()?,
                CertainBy::Contact(latest) => e.u64(latest)?,
            };
            e.bytes(&ids(&self.suspended))?.bytes(&ids(&self.resumed))
        });
        out
    }

    /// Reads what [`Outcome::encode`] wrote.
    ///
    /// # Errors
    /// A fault for anything else.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Failure> {
        let read = || -> Result<Self, minicbor::decode::Error> {
            let mut decoder = Decoder::new(bytes);
            let len = decoder.array()?;
            let (revoked, issued) = (ids(&mut decoder)?, ids(&mut decoder)?);
            let certain_by = match decoder.datatype()? {
                Type::Null => {
                    decoder.null()?;
                    CertainBy::Now
                }
                _ => CertainBy::Contact(decoder.u64()?),
            };
            let (suspended, resumed) = match len {
                Some(3) => (Vec::new(), Vec::new()),
                _ => (ids(&mut decoder)?, ids(&mut decoder)?),
            };
            Ok(Self {
                revoked,
                issued,
                suspended,
                resumed,
                certain_by,
            })
        };
        read().map_err(|why| Failure::Fault(format!("an outcome that cannot be read: {why}")))
    }
}

fn ids(decoder: &mut Decoder<'_>) -> Result<Vec<KeyId>, minicbor::decode::Error> {
    let (ids, _) = decoder.bytes()?.as_chunks::<16>();
    Ok(ids.iter().map(|id| KeyId(*id)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back() {
        for certain_by in [CertainBy::Now, CertainBy::Contact(1_790_000_000)] {
            let outcome = Outcome {
                revoked: vec![KeyId([1; 16]), KeyId([2; 16])],
                issued: Vec::new(),
                suspended: vec![KeyId([3; 16])],
                resumed: vec![KeyId([4; 16]), KeyId([5; 16])],
                certain_by,
            };
            let kept = outcome.encode();
            assert_eq!(Outcome::decode(&kept).expect("an outcome"), outcome);
            assert!(Outcome::decode(&kept[..kept.len() - 1]).is_err());
        }
    }

    #[test]
    fn what_was_kept_before_keys_were_suspended_by_themselves_is_read() {
        let mut kept = vec![0x83, 0x50];
        kept.extend([1; 16]);
        kept.extend([0x40, 0xf6]);
        let outcome = Outcome::decode(&kept).expect("an outcome");
        let expected = Outcome {
            revoked: vec![KeyId([1; 16])],
            ..Outcome::nothing()
        };
        assert_eq!(outcome, expected);
    }
}
