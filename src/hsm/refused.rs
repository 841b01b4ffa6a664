//! PINs that a token has refused, floor 2: remembered across restarts, so that a
//! wrong one is tried once and not once for each start. A few tries more would
//! lock the token.
//!
//! What is kept is a slow, salted hash of the PIN (PBKDF2, RFC 8018 §5.2), so
//! that the file gives nothing away, and so that a PIN file that is mounted anew
//! with the same content is still the same.

use std::fs;
use std::io::Write as _;
use std::num::NonZeroU32;
use std::path::Path;

use aws_lc_rs::{constant_time, pbkdf2, rand};
use serde::{Deserialize, Serialize};

use super::{HsmError, hex};

/// Rounds of the hash: about a tenth of a second.
const ROUNDS: NonZeroU32 = NonZeroU32::new(200_000).unwrap();

/// Longest file that is read.
const FILE_LEN_MAX: u64 = 65_536;

/// One refused PIN.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Refused {
    /// The token's label.
    label: String,
    /// The token's serial number.
    serial: String,
    /// 16 random bytes in hex.
    salt: String,
    /// PBKDF2-HMAC-SHA256 of the PIN under the salt, in hex.
    hash: String,
}

/// Whether the file at `path` says that this token has refused this PIN.
///
/// A file that cannot be read says nothing: it is better to try once more than
/// not to serve.
pub(super) fn is_remembered(path: &Path, label: &str, serial: &str, pin: &str) -> bool {
    read(path)
        .iter()
        .filter(|one| one.label == label && one.serial == serial)
        .any(|one| {
            let hash = hash(&one.salt, pin);
            constant_time::verify_slices_are_equal(hash.as_bytes(), one.hash.as_bytes()).is_ok()
        })
}

/// Remembers that this token has refused this PIN. Of one token the last refused
/// PIN is kept.
///
/// # Errors
///
/// [`HsmError::PinFile`] where the file cannot be written, [`HsmError::System`]
/// where there are no random numbers.
pub(super) fn remember(path: &Path, label: &str, serial: &str, pin: &str) -> Result<(), HsmError> {
    let mut salt = [0; 16];
    rand::fill(&mut salt).map_err(|_| HsmError::System {
        what: "random numbers",
    })?;
    let salt = hex(&salt);
    let mut all = read(path);
    all.retain(|one| one.label != label || one.serial != serial);
    all.push(Refused {
        label: label.to_owned(),
        serial: serial.to_owned(),
        hash: hash(&salt, pin),
        salt,
    });
    let text = serde_json::to_string_pretty(&all).unwrap_or_default();
    write(path, &text).map_err(|error| HsmError::PinFile {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

fn read(path: &Path) -> Vec<Refused> {
    let small = fs::metadata(path).is_ok_and(|found| found.len() <= FILE_LEN_MAX);
    let text = small.then(|| fs::read_to_string(path).ok()).flatten();
    text.and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default()
}

/// Whole or not at all: written beside it and put in its place.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let beside = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    // The name is durable once its directory is.
    path.parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .map_or(Ok(()), |dir| fs::File::open(dir)?.sync_all())
}

fn hash(salt: &str, pin: &str) -> String {
    let mut out = [0; 32];
    pbkdf2::derive(
        pbkdf2::PBKDF2_HMAC_SHA256,
        ROUNDS,
        salt.as_bytes(),
        pin.as_bytes(),
        &mut out,
    );
    hex(&out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_pin_is_known_again_and_another_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("refused");
        assert!(!is_remembered(&path, "token", "1", "wrong pin"));
        remember(&path, "token", "1", "wrong pin").unwrap();
        assert!(is_remembered(&path, "token", "1", "wrong pin"));
        assert!(!is_remembered(&path, "token", "1", "another"));
        assert!(!is_remembered(&path, "token", "2", "wrong pin"));
        remember(&path, "token", "2", "4711").unwrap();
        assert!(is_remembered(&path, "token", "1", "wrong pin"));
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains("wrong pin") && !text.contains("4711"));
    }

    #[test]
    fn a_file_that_cannot_be_read_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("refused");
        fs::write(&path, "not JSON").unwrap();
        assert!(!is_remembered(&path, "token", "1", "pin"));
        remember(&path, "token", "1", "pin").unwrap();
        assert!(is_remembered(&path, "token", "1", "pin"));
    }
}
