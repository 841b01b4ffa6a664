//! Which lines of a file have their answer.

/// A set of line numbers: a bit each.
#[derive(Debug)]
pub(super) struct LineSet {
    bits: Vec<u64>,
    lines: u64,
}

impl LineSet {
    /// An empty set of lines 1 to `lines`.
    pub(super) fn new(lines: u64) -> Self {
        Self {
            bits: Vec::new(),
            lines,
        }
    }

    /// Whether there is such a line.
    pub(super) fn fits(&self, line: u64) -> bool {
        (1..=self.lines).contains(&line)
    }

    /// Puts a line in that fits; whether it was not there yet.
    pub(super) fn insert(&mut self, line: u64) -> bool {
        let (word, bit) = ((line / 64) as usize, 1 << (line % 64));
        if self.bits.len() <= word {
            self.bits.resize(word + 1, 0);
        }
        let new = self.bits[word] & bit == 0;
        self.bits[word] |= bit;
        new
    }

    /// Whether a line is there.
    pub(super) fn contains(&self, line: u64) -> bool {
        let word = self.bits.get((line / 64) as usize).copied();
        word.unwrap_or_default() & (1 << (line % 64)) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_lines() {
        let mut set = LineSet::new(1_000_000);
        for line in [1, 63, 64, 1_000_000] {
            assert!(!set.contains(line) && set.insert(line));
            assert!(set.contains(line) && !set.insert(line));
        }
        assert!(!set.contains(2) && !set.contains(u64::MAX));
        assert!(set.fits(1) && !set.fits(0) && !set.fits(1_000_001));
    }
}
