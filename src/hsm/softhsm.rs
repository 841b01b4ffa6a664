//! SoftHSM's files, floor 2: a token directory and the configuration naming it.
//!
//! SoftHSM learns where its tokens are from `SOFTHSM2_CONF` alone, when it is
//! initialised. So this has to run first thing in a process.

use std::fs::{self, DirBuilder};
use std::path::{Path, PathBuf};

use super::HsmError;

/// SoftHSM reads its configuration from the file this variable names.
const VARIABLE: &str = "SOFTHSM2_CONF";

/// Where distributions put the library.
const PLACES: [&str; 8] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/lib/pkcs11/libsofthsm2.so",
    "/usr/lib/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
    "/usr/local/lib64/softhsm/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
];

/// The SoftHSM library where this system keeps it, if it is installed.
pub fn softhsm_module() -> Option<PathBuf> {
    PLACES
        .iter()
        .map(PathBuf::from)
        .find(|place| place.exists())
}

/// SoftHSM with its tokens in a directory of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SoftHsm {
    /// The configuration file written.
    pub conf: PathBuf,
    /// The directory of the tokens, closed to others.
    pub tokens: PathBuf,
}

impl SoftHsm {
    /// The files as they are named under `dir`, whether they exist or not.
    pub fn under(dir: &Path) -> Self {
        Self {
            conf: dir.join("softhsm2.conf"),
            tokens: dir.join("tokens"),
        }
    }

    /// Creates the token directory and writes the configuration.
    ///
    /// A configuration that is already there is left as it is: it may have been
    /// changed on purpose.
    ///
    /// # Errors
    ///
    /// [`HsmError::SoftHsmFiles`] when the file system refuses.
    pub fn create(&self) -> Result<(), HsmError> {
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder
            .create(&self.tokens)
            .map_err(|error| refused(&self.tokens, &error))?;
        if self.conf.exists() {
            return Ok(());
        }
        // SoftHSM does not look the path up from where its configuration stands.
        let tokens = self
            .tokens
            .canonicalize()
            .map_err(|error| refused(&self.tokens, &error))?;
        let text = format!(
            "# Where SoftHSM keeps the tokens of this installation.\n\
             directories.tokendir = {}\n\
             objectstore.backend = file\n\
             log.level = ERROR\n\
             slots.removable = false\n",
            tokens.display()
        );
        fs::write(&self.conf, text).map_err(|error| refused(&self.conf, &error))
    }

    /// Points SoftHSM at this configuration, unless the environment names one
    /// already, which then counts. Returns the file that counts.
    ///
    /// Call it before any module is loaded and before the process starts its
    /// first thread.
    ///
    /// # Errors
    ///
    /// [`HsmError::SoftHsmFiles`] when the configuration is not there.
    pub fn activate(&self) -> Result<PathBuf, HsmError> {
        if let Some(named) = std::env::var_os(VARIABLE) {
            return Ok(named.into());
        }
        let conf = self
            .conf
            .canonicalize()
            .map_err(|error| refused(&self.conf, &error))?;
        // SAFETY: changing the environment is unsound while another thread reads
        // it. By this function's contract no other thread runs yet: `main` calls
        // it before it builds a runtime, and tests under a lock of their own
        // before they touch a module. There is no safe way: SoftHSM takes its
        // configuration from the environment only.
        #[expect(
            unsafe_code,
            reason = "SoftHSM reads its configuration's name from the environment alone"
        )]
        unsafe {
            std::env::set_var(VARIABLE, &conf);
        }
        Ok(conf)
    }
}

fn refused(path: &Path, error: &std::io::Error) -> HsmError {
    HsmError::SoftHsmFiles {
        path: path.to_owned(),
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_names_the_token_directory_and_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let softhsm = SoftHsm::under(dir.path());
        softhsm.create().unwrap();
        let text = fs::read_to_string(&softhsm.conf).unwrap();
        let tokens = softhsm.tokens.canonicalize().unwrap();
        assert!(text.contains(&format!("directories.tokendir = {}\n", tokens.display())));
        fs::write(&softhsm.conf, "mine").unwrap();
        softhsm.create().unwrap();
        assert_eq!(fs::read_to_string(&softhsm.conf).unwrap(), "mine");
    }
}
