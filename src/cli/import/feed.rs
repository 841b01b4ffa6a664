//! The entries, from their file into the body of a call: in a thread of its own, as fast as the
//! body takes them. As for orders, an entry goes out on the line it has in its file, and lines that
//! have their answer go out blank.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use anyhow::{Context, anyhow};
use aws_lc_rs::digest::{Context as Digest, SHA256};
use hyper::body::Bytes;
use tokio::sync::mpsc::Sender;

use super::send::Shared;
use super::table::Table;
use crate::cli::csv::Wrong;
use crate::cli::lines::{LINE_LEN_MAX, Lines};
use crate::cli::refusals::Refused;

/// Bytes of a piece of the body, about.
const PIECE_LEN: usize = 64 * 1024;

/// The file of entries.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// Where it is.
    pub(super) path: PathBuf,
    /// It is a table, not NDJSON.
    pub(super) table: bool,
    /// The kind of every row of a table, where no column says it.
    pub(super) kind: Option<&'static str>,
}

/// What tells a file from another.
pub(super) struct Survey {
    /// SHA-256, in hexadecimal.
    pub(super) sha256: String,
    /// Lines, a last one without a break included.
    pub(super) lines: u64,
}

impl Source {
    /// Opens a file, and finds out what it is: NDJSON begins with a brace.
    pub(super) fn new(path: PathBuf, kind: Option<&'static str>) -> anyhow::Result<Self> {
        let mut source = Self {
            path,
            table: false,
            kind,
        };
        let mut lines = Lines::new(source.open()?);
        while lines.next().with_context(|| source.shown())?.is_some() {
            let text = lines.text.trim_ascii();
            if !text.is_empty() {
                source.table = !text.starts_with(b"{");
                break;
            }
        }
        if source.table {
            source.header(&mut Lines::new(source.open()?))?;
        } else if kind.is_some() {
            return Err(anyhow!(
                "{}: it is no table, and its lines say their kinds themselves: leave out --kind",
                source.shown()
            ));
        }
        Ok(source)
    }

    pub(super) fn shown(&self) -> String {
        self.path.display().to_string()
    }

    /// Reads it once.
    pub(super) fn survey(&self) -> anyhow::Result<Survey> {
        let mut file = BufReader::with_capacity(1 << 20, self.open()?);
        let (mut digest, mut lines) = (Digest::new(&SHA256), 1);
        loop {
            let piece = file.fill_buf().with_context(|| self.shown())?;
            if piece.is_empty() {
                break;
            }
            digest.update(piece);
            lines += memchr::memchr_iter(b'\n', piece).count() as u64;
            let len = piece.len();
            file.consume(len);
        }
        let sha256 = digest.finish();
        let hex = sha256.as_ref().iter().map(|byte| format!("{byte:02x}"));
        Ok(Survey {
            sha256: hex.collect(),
            lines,
        })
    }

    fn open(&self) -> anyhow::Result<File> {
        File::open(&self.path).with_context(|| self.shown())
    }

    fn header(&self, lines: &mut Lines<File>) -> anyhow::Result<Table> {
        lines.next().with_context(|| self.shown())?;
        Table::new(&lines.text, self.kind)
            .map_err(|Wrong { column, why }| anyhow!("{}, line 1, {column}: {why}", self.shown()))
    }
}

/// Sends every entry that has no answer yet into `body`, and ends early where nobody takes it.
pub(super) fn feed(source: &Source, shared: &Shared, body: &Sender<Bytes>) -> anyhow::Result<()> {
    let mut lines = Lines::new(source.open()?);
    let mut piece = Vec::with_capacity(PIECE_LEN + LINE_LEN_MAX);
    let mut table = None;
    if source.table {
        table = Some(source.header(&mut lines)?);
        piece.push(b'\n');
    }
    while let Some(number) = lines.next().with_context(|| source.shown())? {
        if !lines.text.trim_ascii().is_empty() && !shared.answered(number) {
            match append(source, table.as_mut(), &lines, &mut piece) {
                Ok(()) => drop(shared.sent.fetch_add(1, Ordering::Relaxed)),
                Err(refused) => shared.refuse(&refused)?,
            }
        }
        piece.push(b'\n');
        if piece.len() >= PIECE_LEN && !hand_over(&mut piece, body) {
            return Ok(());
        }
    }
    if hand_over(&mut piece, body) {
        shared.all_sent.store(true, Ordering::Release);
    }
    Ok(())
}

fn hand_over(piece: &mut Vec<u8>, body: &Sender<Bytes>) -> bool {
    let full = std::mem::replace(piece, Vec::with_capacity(PIECE_LEN + LINE_LEN_MAX));
    full.is_empty() || body.blocking_send(full.into()).is_ok()
}

/// Appends the entry on a line, without its line break; or says why there is none.
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
            source.shown(),
            lines.number
        )),
    };
    if lines.too_long {
        return Err(refuse(None, "line", "a line has 64 KiB at most"));
    }
    match table {
        Some(table) => table
            .row(&lines.text, piece)
            .map_err(|(id, Wrong { column, why })| refuse(id, column, &why)),
        None => {
            piece.extend_from_slice(lines.text.trim_ascii());
            Ok(())
        }
    }
}
