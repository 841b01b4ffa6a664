//! The orders, from their file into the body of a call: in a thread of its own, as fast as the
//! body takes them.
//!
//! An order goes out on the line it has in its file: lines that are not asked for (any more) go
//! out blank, so that the server counts them and its numbers are the file's.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Context, anyhow};
use aws_lc_rs::digest::{Context as Digest, SHA256};
use hyper::body::Bytes;
use tokio::sync::mpsc::Sender;

use super::record::RunFile;
use super::send::Shared;
use super::table::Table;
use crate::cli::csv::Wrong;
use crate::cli::lines::{LINE_LEN_MAX, Lines};
use crate::cli::refusals::Refused;

/// Bytes of a piece of the body, about.
const PIECE_LEN: usize = 64 * 1024;

/// The orders' file.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// Where it is.
    pub(super) path: PathBuf,
    /// Its name as the caller gave it.
    pub(super) shown: String,
    /// It is a table, not NDJSON.
    pub(super) table: bool,
    /// What orders that name no `signing` get.
    pub(super) signing: Option<&'static str>,
}

/// How far a feeder got.
#[derive(Debug, Default)]
pub(super) struct Fed {
    /// Orders sent.
    pub(super) orders: AtomicU64,
    /// Every order was sent, and those before it.
    pub(super) all: AtomicBool,
}

impl Source {
    /// Reads it once: what tells it from another, and how many lines there are.
    pub(super) fn survey(&self, key: String) -> anyhow::Result<(RunFile, u64)> {
        let mut file = BufReader::with_capacity(1 << 20, self.open()?);
        let (mut digest, mut bytes, mut lines) = (Digest::new(&SHA256), 0, 1);
        loop {
            let piece = file.fill_buf().with_context(|| self.shown.clone())?;
            if piece.is_empty() {
                break;
            }
            digest.update(piece);
            lines += memchr::memchr_iter(b'\n', piece).count() as u64;
            let len = piece.len();
            bytes += len as u64;
            file.consume(len);
        }
        let sha256 = digest.finish();
        let hex = sha256.as_ref().iter().map(|byte| format!("{byte:02x}"));
        let run = RunFile {
            key,
            bytes,
            sha256: hex.collect(),
            signing: self.signing.map(Into::into),
        };
        Ok((run, lines))
    }

    /// Whether it is a table: NDJSON begins with a brace.
    pub(super) fn is_table(&self) -> anyhow::Result<bool> {
        let mut lines = Lines::new(self.open()?);
        while lines.next().with_context(|| self.shown.clone())?.is_some() {
            let text = lines.text.trim_ascii();
            if !text.is_empty() {
                return Ok(!text.starts_with(b"{"));
            }
        }
        Ok(false)
    }

    /// Checks the header of a table.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        if self.table {
            self.header(&mut Lines::new(self.open()?))?;
        }
        Ok(())
    }

    fn open(&self) -> anyhow::Result<File> {
        File::open(&self.path).with_context(|| self.shown.clone())
    }

    fn header(&self, lines: &mut Lines<File>) -> anyhow::Result<Table> {
        lines.next().with_context(|| self.shown.clone())?;
        Table::new(&lines.text)
            .map_err(|Wrong { column, why }| anyhow!("{}, line 1, {column}: {why}", self.shown))
    }
}

/// Sends every order that has no answer yet into `body`, and ends early where nobody takes it.
pub(super) fn feed(
    source: &Source,
    shared: &Shared,
    fed: &Arc<Fed>,
    body: &Sender<Bytes>,
) -> anyhow::Result<()> {
    let mut lines = Lines::new(source.open()?);
    let mut piece = Vec::with_capacity(PIECE_LEN + LINE_LEN_MAX);
    let mut table = None;
    if source.table {
        table = Some(source.header(&mut lines)?);
        piece.push(b'\n');
    }
    while let Some(number) = lines.next().with_context(|| source.shown.clone())? {
        let asked = !lines.text.trim_ascii().is_empty() && !shared.answered(number);
        if asked {
            match append(source, table.as_mut(), &lines, &mut piece) {
                Ok(()) => drop(fed.orders.fetch_add(1, Ordering::Relaxed)),
                Err(refused) => shared.refuse(&refused)?,
            }
        }
        piece.push(b'\n');
        if piece.len() >= PIECE_LEN && !hand_over(&mut piece, body) {
            return Ok(());
        }
    }
    if hand_over(&mut piece, body) {
        fed.all.store(true, Ordering::Release);
    }
    Ok(())
}

fn hand_over(piece: &mut Vec<u8>, body: &Sender<Bytes>) -> bool {
    let full = std::mem::replace(piece, Vec::with_capacity(PIECE_LEN + LINE_LEN_MAX));
    full.is_empty() || body.blocking_send(full.into()).is_ok()
}

/// Appends the order on a line, without its line break; or says why there is none.
fn append(
    source: &Source,
    table: Option<&mut Table>,
    lines: &Lines<File>,
    piece: &mut Vec<u8>,
) -> Result<(), Refused> {
    let refuse = |reference, field: &str, why: &str| Refused {
        line: lines.number,
        reference,
        code: "malformed".into(),
        field: Some(field.into()),
        detail: Some(format!(
            "{}, line {}, {field}: {why}",
            source.shown, lines.number
        )),
    };
    if lines.too_long {
        return Err(refuse(None, "line", "a line has 64 KiB at most"));
    }
    match table {
        Some(table) => table
            .row(&lines.text, source.signing, piece)
            .map_err(|(reference, Wrong { column, why })| refuse(reference, column, &why)),
        None => {
            plain(&lines.text, source.signing, piece);
            Ok(())
        }
    }
}

/// Appends an order as it stands, with `signing` added where it names none.
fn plain(text: &[u8], signing: Option<&str>, piece: &mut Vec<u8>) {
    let text = text.trim_ascii();
    match (signing, text.strip_prefix(b"{")) {
        (Some(signing), Some(rest)) if !names_signing(text) => {
            let comma = if rest.trim_ascii() == b"}" { "" } else { "," };
            let added = format!("{{\"signing\":\"{signing}\"{comma}");
            piece.extend_from_slice(added.as_bytes());
            piece.extend_from_slice(rest);
        }
        _ => piece.extend_from_slice(text),
    }
}

/// Whether there is a member of that name. Within a string its quotes would be escaped.
fn names_signing(text: &[u8]) -> bool {
    let name = b"\"signing\"";
    let mut found = memchr::memmem::find_iter(text, name);
    found.any(|at| text[at + name.len()..].trim_ascii_start().starts_with(b":"))
}

/// Copies standard input beside the output: it can be read only once, and a run may have to read
/// its orders again.
pub(super) fn keep_standard_input(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let copy = || {
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(path)?;
        std::io::copy(&mut std::io::stdin().lock(), &mut file)?;
        file.sync_all()
    };
    copy().with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signing_is_added_where_none_is_named() {
        let with = |text: &str| {
            let mut out = Vec::new();
            plain(text.as_bytes(), Some("each"), &mut out);
            String::from_utf8(out).expect("text")
        };
        assert_eq!(with(r#" {"ref":"a"} "#), r#"{"signing":"each","ref":"a"}"#);
        assert_eq!(with("{}"), r#"{"signing":"each"}"#);
        for as_it_is in [r#"{"signing" : "auto"}"#, "[]", "nonsense"] {
            assert_eq!(with(as_it_is), as_it_is);
        }
        assert!(with(r#"{"ref":"\"signing\":"}"#).starts_with(r#"{"signing":"each","#));
        assert!(with(r#"{"ref":"signing"}"#).starts_with(r#"{"signing":"each","#));
    }
}
