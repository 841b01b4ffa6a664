//! PKCS#11 libraries, floor 2: each is loaded and initialised once per process
//! and stays so until the process ends.
//!
//! `C_Finalize` is deliberately never called: it would pull the library from
//! under every other user of it in this process, and what happens to a token
//! at exit happens anyway.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Function, Info, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::session::Session;

use super::HsmError;
use super::fast::BareCalls;

/// One loaded library.
pub(super) struct Module {
    pub(super) path: PathBuf,
    pub(super) pkcs11: Pkcs11,
    /// What the library says of itself; some say it in a form that cannot be read.
    pub(super) info: Option<Info>,
    /// Held while objects are made, found or destroyed: SoftHSM 2.6.1 races
    /// there, even between two of its tokens. Signing never takes it.
    objects: Mutex<()>,
    /// Asked for once: some libraries can give out only so many function lists.
    bare_calls: OnceLock<Option<BareCalls>>,
}

/// Every library this process has loaded, by its real path.
static LOADED: Mutex<BTreeMap<PathBuf, &'static Module>> = Mutex::new(BTreeMap::new());

impl Module {
    /// The library at `path`, loaded and initialised now or earlier.
    ///
    /// The environment it reads (`SOFTHSM2_CONF`) counts at the first call.
    pub(super) fn load(path: &Path) -> Result<&'static Self, HsmError> {
        let real_path = path
            .canonicalize()
            .map_err(|error| unusable(path, error.to_string()))?;
        // Held over the loading: two threads must not initialise one library.
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(module) = loaded.get(&real_path) {
            return Ok(module);
        }
        let module: &'static Self = Box::leak(Box::new(Self::initialize(path)?));
        loaded.insert(real_path, module);
        Ok(module)
    }

    fn initialize(path: &Path) -> Result<Self, HsmError> {
        let pkcs11 = Pkcs11::new(path).map_err(|error| unusable(path, error.to_string()))?;
        match pkcs11.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            // Somebody else in this process initialised it: it is ready, which is all we need.
            Ok(())
            | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, Function::Initialize)) => {}
            Err(error) => return Err(unusable(path, error.to_string())),
        }
        let info = pkcs11.get_library_info().ok();
        Ok(Self {
            path: path.to_owned(),
            pkcs11,
            info,
            objects: Mutex::new(()),
            bare_calls: OnceLock::new(),
        })
    }

    /// The right to make, find and destroy objects through this library.
    pub(super) fn lock_objects(&self) -> MutexGuard<'_, ()> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bare calls of this library, if they reach the instance `session` belongs to.
    pub(super) fn bare_calls(&self, session: &Session) -> Option<BareCalls> {
        *self
            .bare_calls
            .get_or_init(|| BareCalls::of(&self.path, session))
    }
}

fn unusable(path: &Path, reason: String) -> HsmError {
    HsmError::ModuleUnusable {
        module: path.to_owned(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_is_named() {
        let error = Module::load(Path::new("/nowhere/libhsm.so")).err();
        assert!(
            matches!(error, Some(HsmError::ModuleUnusable { module, .. }) if module == Path::new("/nowhere/libhsm.so"))
        );
    }
}
