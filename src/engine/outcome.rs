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
    /// When it is certain that the car refuses what was revoked.
    pub certain_by: CertainBy,
}

impl Outcome {
    /// As it is kept: CBOR `[revoked ids, issued ids, latest | null]`, ids one after the other.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let ids = |ids: &[KeyId]| ids.iter().flat_map(|id| id.0).collect::<Vec<u8>>();
        let mut encoder = Encoder::new(&mut out);
        // Writing into memory cannot fail.
        let _ = encoder.array(3).and_then(|e| {
            e.bytes(&ids(&self.revoked))?.bytes(&ids(&self.issued))?;
            match self.certain_by {
                CertainBy::Now => e.null(),
                CertainBy::Contact(latest) => e.u64(latest),
            }
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
            decoder.array()?;
            let mut ids = || -> Result<Vec<KeyId>, minicbor::decode::Error> {
                let (ids, _) = decoder.bytes()?.as_chunks::<16>();
                Ok(ids.iter().map(|id| KeyId(*id)).collect())
            };
            let (revoked, issued) = (ids()?, ids()?);
            let certain_by = match decoder.datatype()? {
                Type::Null => CertainBy::Now,
                _ => CertainBy::Contact(decoder.u64()?),
            };
            Ok(Self {
                revoked,
                issued,
                certain_by,
            })
        };
        read().map_err(|why| Failure::Fault(format!("an outcome that cannot be read: {why}")))
    }
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
                certain_by,
            };
            let kept = outcome.encode();
            assert_eq!(Outcome::decode(&kept).expect("an outcome"), outcome);
            assert!(Outcome::decode(&kept[..kept.len() - 1]).is_err());
        }
    }
}
