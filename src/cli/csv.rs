//! Tables (CSV, RFC 4180) of which a row is one line: cells, columns by their names, and what makes
//! JSON of them.

use csv_core::Reader;
use serde_json::Value;

/// Why a header or a row cannot be used: which column, and what is wrong.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    /// The column, or `row` or `header` where it is none in particular.
    pub(super) column: &'static str,
    /// What is wrong.
    pub(super) why: String,
}

pub(super) fn wrong<T>(column: &'static str, why: impl Into<String>) -> Result<T, Wrong> {
    let why = why.into();
    Err(Wrong { column, why })
}

/// Cuts lines into cells.
pub(super) struct Cells {
    reader: Reader,
    cells: Vec<u8>,
    ends: Vec<usize>,
}

impl Default for Cells {
    fn default() -> Self {
        Self {
            reader: Reader::new(),
            cells: Vec::new(),
            ends: Vec::new(),
        }
    }
}

impl Cells {
    /// The cells of a header, which may begin with a byte order mark.
    pub(super) fn header(&mut self, line: &[u8]) -> Result<Vec<&str>, Wrong> {
        let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        self.split(line, "header")
    }

    /// The cells of a line, blanks around them taken off.
    pub(super) fn split(&mut self, line: &[u8], what: &'static str) -> Result<Vec<&str>, Wrong> {
        let line = line.trim_ascii_end();
        if line.iter().filter(|b| **b == b'"').count() % 2 == 1 {
            return wrong(what, "a quote without its other on the same line");
        }
        self.reader.reset();
        self.cells.clear();
        self.cells.resize(line.len() + 1, 0);
        // No more cells than bytes, and one.
        self.ends.resize(line.len() + 2, 0);
        let (_, taken, written, begun) =
            self.reader
                .read_record(line, &mut self.cells, &mut self.ends);
        if taken < line.len() {
            return wrong(what, "there is a carriage return within it");
        }
        // An empty input is the end of the text, and so of the row.
        let (cells, ends) = (&mut self.cells[written..], &mut self.ends[begun..]);
        let (_, _, _, more) = self.reader.read_record(b"", cells, ends);
        let count = begun + more;
        let Ok(text) = std::str::from_utf8(&self.cells) else {
            return wrong(what, "it is not UTF-8");
        };
        let mut start = 0;
        let cell = |end: &usize| {
            let cell = text.get(start..*end).unwrap_or_default().trim();
            start = *end;
            cell
        };
        Ok(self.ends[..count].iter().map(cell).collect())
    }
}

/// The columns a header names, each of them `known` and there once.
pub(super) fn columns(names: &[&str], known: &[&'static str]) -> Result<Vec<&'static str>, Wrong> {
    let mut columns = Vec::with_capacity(names.len());
    for name in names {
        match known.iter().find(|one| *one == name) {
            Some(known) if columns.contains(known) => {
                return wrong(known, "this column stands there twice");
            }
            Some(known) => columns.push(*known),
            None => return wrong("header", format!("there is no column {name:?}")),
        }
    }
    Ok(columns)
}

/// What stands between blanks and semicolons.
pub(super) fn parts(cell: &str) -> impl Iterator<Item = &str> {
    cell.split([';', ' ', '\t']).filter(|part| !part.is_empty())
}

/// Appends a member of a JSON object, after `open`.
pub(super) fn put(out: &mut String, open: char, name: &str, value: &str) {
    put_raw(out, open, name, &quoted(value));
}

/// The same where the value is JSON already.
pub(super) fn put_raw(out: &mut String, open: char, name: &str, value: &str) {
    out.push(open);
    for part in ["\"", name, "\":", value] {
        out.push_str(part);
    }
}

/// A text as JSON.
pub(super) fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}
