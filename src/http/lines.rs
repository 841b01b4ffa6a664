//! Lines out of a body as it arrives: bounded, numbered, without a copy where a line came in one
//! piece.

use actix_web::web::Bytes;

/// The most bytes of a line.
pub(super) const LINE_LEN_MAX: usize = 64 * 1024;

/// Cuts pieces of a body into lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// What arrived last and is not cut up yet.
    piece: Bytes,
    /// The beginning of a line whose end has not arrived.
    begun: Vec<u8>,
    /// The line that has begun is longer than lines may be; its bytes are dropped.
    too_long: bool,
    /// Lines ended so far.
    number: u64,
}

/// A line with something on it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Which one, from 1. Blank lines count.
    pub(super) number: u64,
    /// What it says, blanks around it taken off; `None` where it is too long.
    pub(super) text: Option<Bytes>,
}

impl Lines {
    /// Takes the next piece. The one before it has been cut up.
    pub(super) fn feed(&mut self, piece: Bytes) {
        self.piece = piece;
    }

    /// The next line that has ended, blank ones passed over.
    pub(super) fn pull(&mut self) -> Option<Line> {
        while let Some(end) = memchr::memchr(b'\n', &self.piece) {
            let rest = self.piece.split_to(end + 1);
            if let Some(line) = self.end(rest.slice(..end)) {
                return Some(line);
            }
        }
        let rest = std::mem::take(&mut self.piece);
        self.begin(&rest);
        None
    }

    /// The last line, where the body ended without a line break.
    pub(super) fn finish(&mut self) -> Option<Line> {
        self.end(Bytes::new())
    }

    fn begin(&mut self, rest: &[u8]) {
        if self.begun.len() + rest.len() > LINE_LEN_MAX {
            self.too_long = true;
            self.begun = Vec::new();
        }
        if !self.too_long {
            self.begun.extend_from_slice(rest);
        }
    }

    fn end(&mut self, rest: Bytes) -> Option<Line> {
        self.number += 1;
        let number = self.number;
        let text = if self.begun.is_empty() && !self.too_long {
            rest
        } else {
            self.begin(&rest);
            Bytes::from(std::mem::take(&mut self.begun))
        };
        if std::mem::take(&mut self.too_long) || text.len() > LINE_LEN_MAX {
            return Some(Line { number, text: None });
        }
        let trimmed = text.trim_ascii();
        (!trimmed.is_empty()).then(|| Line {
            number,
            text: Some(text.slice_ref(trimmed)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every line of `body`, fed in pieces of `len` bytes.
    fn cut(body: &[u8], len: usize) -> Vec<(u64, Option<String>)> {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        let mut take = |line: Line| {
            let text = line
                .text
                .map(|text| String::from_utf8_lossy(&text).into_owned());
            found.push((line.number, text));
        };
        for piece in body.chunks(len) {
            lines.feed(Bytes::copy_from_slice(piece));
            while let Some(line) = lines.pull() {
                take(line);
            }
        }
        if let Some(line) = lines.finish() {
            take(line);
        }
        found
    }

    #[test]
    fn lines_are_the_same_in_whatever_pieces_they_come() {
        let body = b"\n a \r\n\n{\"b\":1}\n  \nlast";
        let text = |text: &str| Some(text.to_owned());
        let expected = [(2, text("a")), (4, text("{\"b\":1}")), (6, text("last"))];
        for len in 1..=body.len() {
            assert_eq!(cut(body, len), expected, "{len}");
        }
        assert!(cut(b"", 1).is_empty() && cut(b"\n\n", 1).is_empty());
    }

    #[test]
    fn a_line_too_long_costs_itself_alone() {
        let longest = "x".repeat(LINE_LEN_MAX);
        let body = format!("{longest}\n{longest}y\nz\n{longest}{longest}{longest}");
        for len in [1_000, LINE_LEN_MAX, LINE_LEN_MAX + 1, body.len()] {
            let found = cut(body.as_bytes(), len);
            let numbers: Vec<_> = found.iter().map(|(number, _)| *number).collect();
            assert_eq!(numbers, [1, 2, 3, 4], "{len}");
            assert_eq!(found[0].1.as_ref().map(String::len), Some(LINE_LEN_MAX));
            assert_eq!(found[2].1.as_deref(), Some("z"));
            assert!(found[1].1.is_none() && found[3].1.is_none(), "{len}");
        }
    }

    #[test]
    fn a_line_that_never_ends_is_not_kept() {
        let mut lines = Lines::default();
        for _ in 0..100 {
            lines.feed(Bytes::from(vec![b'x'; 10_000]));
            assert_eq!(lines.pull(), None);
        }
        assert!(lines.begun.capacity() <= 2 * LINE_LEN_MAX);
    }
}
