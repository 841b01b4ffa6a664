//! Lines of a file, each within its bound and with its number.

use std::io::{BufRead as _, BufReader, Read};

/// The most bytes of a line: the server takes no longer ones.
pub(super) const LINE_LEN_MAX: usize = 64 * 1024;

/// Bytes read from the file in one go.
const PIECE_LEN: usize = 64 * 1024;

/// Lines of a file, each within its bound.
pub(super) struct Lines<R> {
    file: BufReader<R>,
    /// The line read last, without its break.
    pub(super) text: Vec<u8>,
    /// It was longer than lines may be; `text` is its beginning.
    pub(super) too_long: bool,
    /// Its number, from 1.
    pub(super) number: u64,
}

impl<R: Read> Lines<R> {
    /// The lines of `file` from where it stands.
    pub(super) fn new(file: R) -> Self {
        Self {
            file: BufReader::with_capacity(PIECE_LEN, file),
            text: Vec::new(),
            too_long: false,
            number: 0,
        }
    }

    /// Reads the next line; its number, or `None` at the end.
    pub(super) fn next(&mut self) -> std::io::Result<Option<u64>> {
        self.text.clear();
        self.too_long = false;
        let mut begun = false;
        loop {
            let piece = self.file.fill_buf()?;
            if piece.is_empty() && !begun {
                return Ok(None);
            }
            begun = true;
            let end = memchr::memchr(b'\n', piece);
            let part = &piece[..end.unwrap_or(piece.len())];
            let room = LINE_LEN_MAX - self.text.len();
            self.text.extend_from_slice(&part[..part.len().min(room)]);
            self.too_long |= part.len() > room;
            let (taken, last) = (part.len(), piece.is_empty());
            self.file.consume(taken + usize::from(end.is_some()));
            if end.is_some() || last {
                self.number += 1;
                return Ok(Some(self.number));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_and_numbered() {
        let long = "x".repeat(LINE_LEN_MAX + 1);
        let text = format!("a\n\n{long}\n{}\r\nlast", &long[1..]);
        let mut lines = Lines::new(text.as_bytes());
        let mut found = Vec::new();
        while let Some(number) = lines.next().expect("read") {
            found.push((number, lines.text.len(), lines.too_long));
        }
        let full = LINE_LEN_MAX;
        let expected = [
            (1, 1, false),
            (2, 0, false),
            (3, full, true),
            (4, full, true),
            (5, 4, false),
        ];
        assert_eq!(found, expected);
    }
}
