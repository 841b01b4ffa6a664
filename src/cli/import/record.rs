//! What going on after a kill rests on: which file it was, and up to which line every line had its
//! answer. Written now and then; what it does not know of yet is sent again and found unchanged.

use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::cli::refusals::Refused;

/// A run, as far as it has come.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Progress {
    /// SHA-256 of the file, in hexadecimal.
    pub(super) sha256: String,
    /// The kind that was said for all of its rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) kind: Option<String>,
    /// Every line up to this one has its answer.
    pub(super) line: u64,
    /// What became of them.
    pub(super) registered: u64,
    /// Those that were there.
    pub(super) unchanged: u64,
    /// Those that were refused.
    pub(super) refused: u64,
}

impl Progress {
    /// Reads the one of a run that is to go on.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read(path).with_context(|| {
            format!(
                "{} is not there, so there is no run to go on with: leave out --resume",
                path.display()
            )
        })?;
        serde_json::from_slice(&text).with_context(|| path.display().to_string())
    }

    /// Writes it whole, in place of the one before.
    pub(super) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let write = || {
            let mut new = PathBuf::from(path).into_os_string();
            new.push(".new");
            let mut file = std::fs::File::create(&new)?;
            file.write_all(&serde_json::to_vec(self)?)?;
            std::fs::rename(&new, path)
        };
        write().with_context(|| path.display().to_string())
    }

    /// The refusals of an earlier run that are about lines up to this one.
    pub(super) fn refusals(&self, path: &Path) -> anyhow::Result<Vec<Refused>> {
        let text = match std::fs::read(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            read => read.with_context(|| path.display().to_string())?,
        };
        let read = |line: &[u8]| serde_json::from_slice::<Refused>(line).ok();
        // The last line may be torn.
        let all = text.split(|byte| *byte == b'\n').filter_map(read);
        Ok(all.filter(|refused| refused.line <= self.line).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_kept_and_a_torn_refusal_is_none() {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, refused) = (dir.path().join("run"), dir.path().join("refused"));
        assert!(Progress::read(&path).is_err());
        let progress = Progress {
            sha256: "00".into(),
            line: 7,
            refused: 2,
            ..Progress::default()
        };
        progress.write(&path).expect("written");
        assert_eq!(Progress::read(&path).expect("read"), progress);
        assert!(progress.refusals(&refused).expect("none").is_empty());
        let line = |number| format!(r#"{{"line":{number},"ref":"a","code":"malformed"}}"#);
        let text = [line(3), line(7), line(8), line(5)[..9].into()].join("\n");
        std::fs::write(&refused, text).expect("written");
        let kept = progress.refusals(&refused).expect("read");
        let lines: Vec<_> = kept.iter().map(|refused| refused.line).collect();
        assert_eq!(lines, [3, 7]);
    }
}
