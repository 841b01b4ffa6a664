//! How many entries there are, and what all of them hash to, whatever their order.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};

use super::Entry;
use crate::store::StoreError;

/// A count, and the sum of the SHA-256 of each entry, in four parts of 64 bits that are added
/// without a carry: the same entries come to the same sum, in whatever order a store keeps them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many.
    pub count: u64,
    sum: [u64; 4],
}

impl Tally {
    /// Counts one more.
    ///
    /// # Errors
    /// It cannot be encoded.
    pub fn add(&mut self, entry: &Entry, scratch: &mut Vec<u8>) -> Result<(), StoreError> {
        scratch.clear();
        entry.write(scratch)?;
        let hash = digest(&SHA256, scratch);
        for (part, bytes) in self.sum.iter_mut().zip(hash.as_ref().chunks_exact(8)) {
            let mut number = [0; 8];
            number.copy_from_slice(bytes);
            *part = part.wrapping_add(u64::from_be_bytes(number));
        }
        self.count += 1;
        Ok(())
    }

    /// The sum, as text.
    pub fn hash(&self) -> String {
        let [a, b, c, d] = self.sum;
        format!("{a:016x}{b:016x}{c:016x}{d:016x}")
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.count, self.hash())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(values: &[&str]) -> Tally {
        let mut tally = Tally::default();
        for value in values {
            let entry = Entry::Setting("name".into(), (*value).into());
            tally.add(&entry, &mut Vec::new()).unwrap();
        }
        tally
    }

    #[test]
    fn order_does_not_count_and_everything_else_does() {
        assert_eq!(tally(&["a", "b", "c"]), tally(&["c", "a", "b"]));
        assert_ne!(tally(&["a", "b"]), tally(&["a", "c"]));
        assert_ne!(
            tally(&["a", "a"]),
            tally(&["b", "b"]),
            "pairs do not cancel"
        );
        assert_ne!(tally(&["a"]), tally(&["a", "a"]));
    }

    #[test]
    fn golden_hash() {
        // SHA-256 of 82 64 "name" 61 "a".
        let expected = digest(&SHA256, b"\x82\x64name\x61a");
        let hex: String = expected
            .as_ref()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        assert_eq!(tally(&["a"]).hash(), hex);
    }
}
