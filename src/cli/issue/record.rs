//! What a run leaves on disk: the bundles, and what it takes to go on after a kill. At every moment the output is whole lines, apart from a torn last one that a
//! kill may leave and that going on cuts off.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use serde::{Deserialize, Serialize};

use super::answer::{Head, KeyCount};
use crate::cli::line_set::LineSet;
use crate::cli::place;

/// Bytes gathered before they are written.
const BUFFER_LEN: usize = 1 << 20;

/// What going on rests on: written before the first byte is sent.
#[derive(Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RunFile {
    /// The `Idempotency-Key` of all its calls.
    pub(super) key: String,
    /// Bytes of the orders.
    pub(super) bytes: u64,
    /// Their SHA-256, in hexadecimal.
    pub(super) sha256: String,
    /// What was added to those that name no `signing`: part of what is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) signing: Option<String>,
}

impl RunFile {
    /// Writes it, for its owner alone; there must be none yet.
    pub(super) fn write(&self, path: &Path) -> anyhow::Result<()> {
        place::write_private(path, serde_json::to_string(self)?.as_bytes())
    }

    /// Reads the one of the run that is to go on.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read(path).with_context(|| {
            format!(
                "{} is not there, so there is no run to go on with",
                path.display()
            )
        })?;
        serde_json::from_slice(&text).with_context(|| path.display().to_string())
    }
}

/// The bundles: a line each, exactly one for each order that was issued.
pub(super) struct Output {
    path: PathBuf,
    file: File,
    /// Bytes of whole lines in the file.
    len: u64,
    buffer: Vec<u8>,
    keys_of: KeyCount,
    /// Lines, those of earlier runs included.
    pub(super) bundles: u64,
    /// Keys in them.
    pub(super) keys: u64,
}

impl Output {
    /// Opens it, and takes up what an earlier run has left in it. Its lines go into `answered`.
    pub(super) fn open(path: &Path, resume: bool, answered: &mut LineSet) -> anyhow::Result<Self> {
        let shown = || path.display().to_string();
        let mut open = OpenOptions::new();
        open.read(true).write(true).mode(0o600);
        if resume {
            open.create(true).truncate(false);
        } else {
            open.create_new(true);
        }
        let file = open.open(path).with_context(shown)?;
        if file.try_lock().is_err() {
            bail!("{}: another fob issue writes it", shown());
        }
        let mut output = Self {
            path: path.into(),
            file,
            len: 0,
            buffer: Vec::with_capacity(BUFFER_LEN + BUFFER_LEN / 8),
            keys_of: KeyCount::new(),
            bundles: 0,
            keys: 0,
        };
        output.take_up(answered).with_context(shown)?;
        Ok(output)
    }

    fn take_up(&mut self, answered: &mut LineSet) -> anyhow::Result<()> {
        let mut reader = BufReader::with_capacity(BUFFER_LEN, &self.file);
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = reader.read_until(b'\n', &mut line)?;
            let Some(text) = line.strip_suffix(b"\n") else {
                break;
            };
            let head = Head::read(text).filter(Head::issued);
            let head = head.ok_or_else(|| anyhow!("its line {} is no bundle", self.bundles + 1))?;
            if !answered.fits(head.line) || !answered.insert(head.line) {
                bail!("its line {} does not belong there", self.bundles + 1);
            }
            self.len += read as u64;
            self.bundles += 1;
            self.keys += self.keys_of.of(text);
        }
        // A line without its end was torn by a kill.
        self.file.set_len(self.len)?;
        self.file.seek(SeekFrom::Start(self.len))?;
        Ok(())
    }

    /// Appends a bundle's line, given without its line break.
    pub(super) fn push(&mut self, line: &[u8]) -> anyhow::Result<()> {
        self.buffer.extend_from_slice(line);
        self.buffer.push(b'\n');
        self.bundles += 1;
        self.keys += self.keys_of.of(line);
        if self.buffer.len() >= BUFFER_LEN {
            self.flush()?;
        }
        Ok(())
    }

    /// Writes what was gathered: all of it, or nothing.
    pub(super) fn flush(&mut self) -> anyhow::Result<()> {
        if let Err(error) = self.file.write_all(&self.buffer) {
            self.buffer.clear();
            self.file.set_len(self.len)?;
            return Err(error).context(self.path.display().to_string());
        }
        self.len += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Writes what was gathered, and sees it onto the disk.
    pub(super) fn finish(&mut self) -> anyhow::Result<()> {
        self.flush()?;
        let synced = self.file.sync_all();
        synced.with_context(|| self.path.display().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: u64) -> String {
        format!(
            r#"{{"line":{number},"ref":"r{number}","status":"issued","bundle":{{"keys":[{{"key":"k"}}]}}}}"#
        )
    }

    #[test]
    fn going_on_cuts_a_torn_line_and_keeps_the_others() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("out");
        let whole = format!("{}\n{}\n", line(3), line(1));
        std::fs::write(&path, format!("{whole}{}", &line(2)[..40])).expect("written");
        let mut answered = LineSet::new(9);
        assert!(Output::open(&path, false, &mut answered).is_err());
        let mut output = Output::open(&path, true, &mut answered).expect("opened");
        assert!(answered.contains(3) && answered.contains(1) && !answered.contains(2));
        assert_eq!((output.bundles, output.keys), (2, 2));
        output.push(line(2).as_bytes()).expect("pushed");
        output.finish().expect("finished");
        let text = std::fs::read_to_string(&path).expect("read");
        assert_eq!(text, format!("{whole}{}\n", line(2)));
    }

    #[test]
    fn a_file_that_is_not_ours_is_left_as_it_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("out");
        for text in [
            "something else\n".to_owned(),
            format!("{0}\n{0}\n", line(1)),
            line(10) + "\n",
        ] {
            std::fs::write(&path, &text).expect("written");
            assert!(Output::open(&path, true, &mut LineSet::new(9)).is_err());
            assert_eq!(std::fs::read_to_string(&path).expect("read"), text);
        }
    }
}
