//! PINs and their files, floor 2. A PIN never comes from the command line and
//! never goes into a log or an error.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use aws_lc_rs::rand;
use cryptoki::slot::TokenInfo;
use secrecy::{ExposeSecret, SecretString};
use zeroize::{Zeroize, Zeroizing};

use super::{HsmError, refused};

/// Symbols of a made-up PIN. 32 of them, so that a random byte maps without bias.
const SYMBOLS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
/// Length of a made-up PIN: 120 bits, and short enough for every token we know.
const PIN_LEN: usize = 24;

/// A user PIN, and where it is remembered that a token has refused it.
pub(super) struct Pin {
    secret: SecretString,
    memory: Option<PathBuf>,
}

impl Pin {
    pub(super) fn new(secret: SecretString, memory: Option<PathBuf>) -> Self {
        Self { secret, memory }
    }

    pub(super) fn secret(&self) -> &SecretString {
        &self.secret
    }

    /// Fails where this token is known to have refused this PIN.
    pub(super) fn check_not_refused(&self, token: &TokenInfo) -> Result<(), HsmError> {
        let Some(memory) = &self.memory else {
            return Ok(());
        };
        let (label, serial) = (token.label(), token.serial_number());
        if refused::is_remembered(memory, label, serial, self.secret.expose_secret()) {
            return Err(HsmError::PinRefusedBefore {
                label: label.to_owned(),
                memory: memory.clone(),
            });
        }
        Ok(())
    }

    /// Remembers that this token has refused this PIN.
    pub(super) fn remember_refused(&self, token: &TokenInfo) {
        let Some(memory) = &self.memory else {
            return;
        };
        let (label, serial) = (token.label(), token.serial_number());
        let remembered = refused::remember(memory, label, serial, self.secret.expose_secret());
        if let Err(error) = remembered {
            tracing::error!(%error, "a refused PIN is not remembered; correct it before the next start");
        }
    }
}

/// A new random PIN, 24 letters and digits.
///
/// # Errors
///
/// When the system gives no random numbers.
pub fn random_pin() -> Result<SecretString, HsmError> {
    let mut bytes = Zeroizing::new([0_u8; PIN_LEN]);
    rand::fill(&mut *bytes).map_err(|_| HsmError::System {
        what: "random numbers",
    })?;
    let pin: String = bytes
        .iter()
        .map(|byte| char::from(SYMBOLS[usize::from(byte % 32)]))
        .collect();
    Ok(pin.into())
}

/// Reads a PIN from its file: the whole content without a trailing line break.
///
/// # Errors
///
/// [`HsmError::PinFile`] when it cannot be read, is not text, or is empty.
pub fn read_pin_file(path: &Path) -> Result<SecretString, HsmError> {
    let mut text = fs::read_to_string(path).map_err(|error| pin_file(path, error.to_string()))?;
    let pin = SecretString::from(text.trim_end_matches(['\r', '\n']));
    text.zeroize();
    if pin.expose_secret().is_empty() {
        return Err(pin_file(path, "it is empty".to_owned()));
    }
    warn_if_others_may_read(path);
    Ok(pin)
}

/// Writes a PIN to a new file that only its owner may read.
///
/// # Errors
///
/// [`HsmError::PinFile`] when the file exists already or cannot be written.
pub fn write_pin_file(path: &Path, pin: &SecretString) -> Result<(), HsmError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let write = |mut file: fs::File| {
        file.write_all(pin.expose_secret().as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()
    };
    options
        .open(path)
        .and_then(write)
        .map_err(|error| pin_file(path, error.to_string()))
}

fn pin_file(path: &Path, reason: String) -> HsmError {
    HsmError::PinFile {
        path: path.to_owned(),
        reason,
    }
}

/// A PIN that everybody can read is worth a warning, not a refusal: mounted
/// secrets often come with wide rights inside a directory that is closed.
fn warn_if_others_may_read(path: &Path) {
    #[cfg(unix)]
    if let Ok(found) = fs::metadata(path) {
        let mode = std::os::unix::fs::PermissionsExt::mode(&found.permissions());
        if mode & 0o077 != 0 {
            tracing::warn!(path = %path.display(), "the PIN file can be read by others than its owner");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_long_and_differ() {
        let (one, two) = (random_pin().unwrap(), random_pin().unwrap());
        assert_eq!(one.expose_secret().len(), PIN_LEN);
        assert_ne!(one.expose_secret(), two.expose_secret());
    }

    #[test]
    fn a_pin_survives_its_file_and_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pin");
        write_pin_file(&path, &"s3cret pin".into()).unwrap();
        assert_eq!(read_pin_file(&path).unwrap().expose_secret(), "s3cret pin");
        let again = write_pin_file(&path, &"other".into()).unwrap_err();
        assert!(matches!(again, HsmError::PinFile { .. }) && !again.to_string().contains("other"));
    }

    #[test]
    fn an_empty_pin_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pin");
        fs::write(&path, "\n").unwrap();
        assert!(matches!(
            read_pin_file(&path),
            Err(HsmError::PinFile { .. })
        ));
    }
}
