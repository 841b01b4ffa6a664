//! What was refused of a file, in a file beside it.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// Bytes gathered before they are written.
const BUFFER_LEN: usize = 1 << 20;

/// `path` with something behind it.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// A line that was refused, as the side file has it.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Refused {
    /// Its number in the file it came from.
    pub(super) line: u64,
    /// Its name, where it has one.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub(super) reference: Option<String>,
    /// Why: the code of a refusal.
    pub(super) code: String,
    /// The member or column at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) field: Option<String>,
    /// What exactly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) detail: Option<String>,
}

/// The refusals: a line each, of one run alone. The file is there once there is one.
pub(super) struct Refusals {
    path: PathBuf,
    file: Option<File>,
    buffer: Vec<u8>,
    /// How many.
    pub(super) count: u64,
}

impl Refusals {
    /// Begins anew: what an earlier run refused is asked for again.
    pub(super) fn new(path: PathBuf) -> anyhow::Result<Self> {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).context(path.display().to_string());
            }
            _ => {}
        }
        Ok(Self {
            path,
            file: None,
            buffer: Vec::new(),
            count: 0,
        })
    }

    /// Appends one.
    pub(super) fn push(&mut self, refused: &Refused) -> anyhow::Result<()> {
        serde_json::to_writer(&mut self.buffer, refused)?;
        self.buffer.push(b'\n');
        self.count += 1;
        if self.buffer.len() >= BUFFER_LEN {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let mut write = || {
            let file = match &mut self.file {
                Some(file) => file,
                none => none.insert(
                    OpenOptions::new()
                        .create_new(true)
                        .write(true)
                        .mode(0o600)
                        .open(&self.path)?,
                ),
            };
            file.write_all(&self.buffer)
        };
        write().with_context(|| self.path.display().to_string())?;
        self.buffer.clear();
        Ok(())
    }

    /// Writes what was gathered, and sees it onto the disk.
    pub(super) fn finish(&mut self) -> anyhow::Result<()> {
        self.flush()?;
        match &self.file {
            None => Ok(()),
            Some(file) => file
                .sync_all()
                .with_context(|| self.path.display().to_string()),
        }
    }
}
