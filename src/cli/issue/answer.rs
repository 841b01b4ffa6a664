//! A line of the server's answer, known by its beginning: whose it is and what became of it. The
//! bundle in it, ten kilobytes of it, is passed on as it came.

use memchr::memmem::Finder;

use crate::cli::retry::is_temporary;

/// What a line says before its bundle or its problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head<'a> {
    /// The line of the orders it answers.
    pub(super) line: u64,
    /// The order's name, as JSON; `None` where the server could not read it.
    pub(super) reference: Option<&'a str>,
    /// `issued`, or why not.
    pub(super) status: &'a str,
}

impl<'a> Head<'a> {
    /// Reads the beginning of a line, without its line break. `None` where it is not one.
    pub(super) fn read(line: &'a [u8]) -> Option<Self> {
        let rest = line.strip_prefix(b"{\"line\":")?;
        let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
        let (number, rest) = rest.split_at_checked(digits)?;
        let rest = rest.strip_prefix(b",")?;
        let (reference, rest) = match rest.strip_prefix(b"\"ref\":") {
            None => (None, rest),
            Some(rest) => {
                let (reference, rest) = string(rest)?;
                (Some(reference), rest.strip_prefix(b",")?)
            }
        };
        let (status, rest) = string(rest.strip_prefix(b"\"status\":")?)?;
        let head = Self {
            line: std::str::from_utf8(number).ok()?.parse().ok()?,
            reference,
            status: status.trim_matches('"'),
        };
        let whole = if head.issued() {
            rest.starts_with(b",\"bundle\":{") && rest.ends_with(b"]}}")
        } else {
            rest.starts_with(b",\"problem\":{") && rest.ends_with(b"}}")
        };
        whole.then_some(head)
    }

    /// Whether its keys are there.
    pub(super) fn issued(&self) -> bool {
        self.status == "issued"
    }

    /// Whether the same order may be issued later.
    pub(super) fn temporary(&self) -> bool {
        is_temporary(self.status)
    }
}

/// A JSON string at the beginning of `bytes`, quotes included, and what follows it.
fn string(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let rest = bytes.strip_prefix(b"\"")?;
    let mut at = 0;
    loop {
        at += memchr::memchr2(b'"', b'\\', rest.get(at..)?)?;
        if rest[at] == b'"' {
            let (text, rest) = bytes.split_at(at + 2);
            return Some((std::str::from_utf8(text).ok()?, rest));
        }
        at += 2;
    }
}

/// Counts the keys of an issued line.
pub(super) struct KeyCount(Finder<'static>);

impl KeyCount {
    pub(super) fn new() -> Self {
        Self(Finder::new("\"key\":\""))
    }

    pub(super) fn of(&self, line: &[u8]) -> u64 {
        self.0.find_iter(line).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_known_by_their_beginning() {
        let line = br#"{"line":12,"ref":"a \"b\\","status":"issued","bundle":{"keys":[{"key":"x"},{"key":"y"}]}}"#;
        let head = Head::read(line).expect("a line");
        assert_eq!((head.line, head.reference), (12, Some(r#""a \"b\\""#)));
        assert!(head.issued() && !head.temporary());
        assert_eq!(KeyCount::new().of(line), 2);
        let line = br#"{"line":3,"status":"busy","problem":{"code":"busy"}}"#;
        let head = Head::read(line).expect("a line");
        assert_eq!((head.line, head.reference), (3, None));
        assert!(!head.issued() && head.temporary());
    }

    #[test]
    fn what_is_cut_off_or_something_else_is_not_a_line() {
        let whole = br#"{"line":1,"ref":"a","status":"issued","bundle":{"keys":[{"key":"x"}]}}"#;
        assert!(Head::read(whole).is_some());
        for end in 0..whole.len() {
            assert!(Head::read(&whole[..end]).is_none(), "{end}");
        }
        for other in [
            &br#"{"status":"malformed","problem":{}}"#[..],
            br#"{"line":,"status":"issued","bundle":{]}}"#,
            br#"{"line":99999999999999999999,"status":"busy","problem":{}}"#,
            b"{\"line\":1,\"ref\":\"\\",
            b"",
        ] {
            assert!(Head::read(other).is_none());
        }
    }
}
