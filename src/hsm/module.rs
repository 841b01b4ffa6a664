//! PKCS#11 libraries, floor 2: each is loaded once per process and stays so until
//! the process ends. An [`Instance`] is one initialisation of it.
//!
//! Most of a module's life there is one instance. When its far end is another
//! process, or another machine, and that has restarted, the library has to be
//! initialised anew. `C_Finalize` pulls it from under everybody, so it is called
//! only while nobody is inside and no other token works through it.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{
    Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
};
use std::time::Duration;

use cryptoki::context::{Info, Pkcs11};
use cryptoki::session::Session;

use super::fast::BareCalls;
use super::initialize::{initialize, readable};
use super::{HsmError, Profile, TokenConfig};

/// How often, and how long apart, it is looked whether everybody has left.
const LOOKS_MAX: u32 = 20;
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// One loaded library.
pub(super) struct Module {
    path: PathBuf,
    /// What it was and will be initialised with.
    told: Option<&'static CStr>,
    /// What is particular about it.
    pub(super) profile: &'static Profile,
    /// What the library says of itself; some say it in a form that cannot be read.
    pub(super) info: Option<Info>,
    /// The instance in use. Held while it is replaced, which may take long.
    current: Mutex<Arc<Instance>>,
    /// Asked for once: some libraries can give out only so many function lists.
    bare_calls: OnceLock<Option<BareCalls>>,
}

/// One initialisation of a library.
pub(super) struct Instance {
    pub(super) pkcs11: Pkcs11,
    /// Held while objects are made, found or destroyed: SoftHSM 2.6.1 races
    /// there, even between two of its tokens. Signing never takes it.
    objects: Mutex<()>,
    /// Read while inside the library, written to finalise it.
    inside: RwLock<()>,
    /// Links that work through it. Only counted, orders nothing.
    links: AtomicUsize,
    /// Set while nobody is inside: the sessions it had are gone.
    finalized: AtomicBool,
    /// Set when a fresh one takes its place while a call has not come back.
    superseded: AtomicBool,
}

/// A token's claim on the instance it works through: while there is one, it is
/// not finalised.
pub(super) struct Claim(Arc<Instance>);

/// A library that is loaded, or being loaded; its lock is held meanwhile.
type Slot = Mutex<Option<&'static Module>>;

/// Every library this process has loaded, by its real path. Not held while one
/// is loaded, since that may take long.
static LOADED: Mutex<BTreeMap<PathBuf, &'static Slot>> = Mutex::new(BTreeMap::new());

impl Module {
    /// The library of this configuration, loaded and initialised now or earlier.
    ///
    /// What it is told (`init_args`) and the environment it reads (`SOFTHSM2_CONF`)
    /// count at the first call. To be told something else later is an error.
    pub(super) fn load(config: &TokenConfig) -> Result<&'static Self, HsmError> {
        let path = &*config.module;
        let told = readable(config.init_args.as_deref())?;
        let real_path = path
            .canonicalize()
            .map_err(|error| unusable(path, error.to_string()))?;
        let slot: &'static Slot = lock(&LOADED)
            .entry(real_path)
            .or_insert_with(|| Box::leak(Box::default()));
        // Held over the loading: two threads must not initialise one library.
        let mut slot = lock(slot);
        if let Some(module) = *slot {
            if module.told != told.as_deref() {
                let reason = "it is in use already with another `init_args`";
                return Err(unusable(path, reason.to_owned()));
            }
            return Ok(module);
        }
        // Kept for as long as the library.
        let told = told.map(|told| &*Box::leak(told.into_boxed_c_str()));
        let module: &'static Self = Box::leak(Box::new(Self::open(config, told)?));
        *slot = Some(module);
        Ok(module)
    }

    fn open(config: &TokenConfig, told: Option<&'static CStr>) -> Result<Self, HsmError> {
        let path = &*config.module;
        let pkcs11 = Pkcs11::new(path).map_err(|error| unusable(path, error.to_string()))?;
        // Somebody else in this process may have initialised it: then it is
        // ready, which is all we need.
        initialize(&pkcs11, told).map_err(|error| unusable(path, error.to_string()))?;
        let info = pkcs11.get_library_info().ok();
        Ok(Self {
            path: path.to_owned(),
            told,
            profile: config
                .profile
                .unwrap_or_else(|| Profile::of_library(info.as_ref())),
            info,
            current: Mutex::new(Arc::new(Instance::new(pkcs11))),
            bare_calls: OnceLock::new(),
        })
    }

    /// The instance in use.
    pub(super) fn instance(&self) -> Arc<Instance> {
        Arc::clone(&lock(&self.current))
    }

    /// Another instance than `failed`, if one can be had: what somebody else has
    /// put in its place, the library initialised anew, or, while a call has not
    /// come back from it, one more instance where the library gives any.
    ///
    /// # Errors
    ///
    /// [`HsmError::ModuleUnusable`] where it cannot be initialised any more.
    pub(super) fn reload(&self, failed: &Arc<Instance>) -> Result<Arc<Instance>, HsmError> {
        let mut current = lock(&self.current);
        // Other tokens may work well through it; should they fail too, their
        // claims go, and the next attempt comes further.
        if !Arc::ptr_eq(&current, failed) || failed.links.load(Ordering::Relaxed) > 0 {
            return Ok(Arc::clone(&current));
        }
        let pkcs11 = match failed.alone() {
            Some(_alone) => {
                failed.finalized.store(true, Ordering::Release);
                // It may not be initialised, or its far end may be gone: either way
                // the next call is what counts.
                if let Err(error) = failed.pkcs11.clone().finalize() {
                    tracing::debug!(module = %self.path.display(), %error, "C_Finalize");
                }
                initialize(&failed.pkcs11, self.told).map(|_| failed.pkcs11.clone())
            }
            None => Pkcs11::new(&self.path).and_then(|another| {
                // Initialised already: it is the same one, and nothing is gained.
                let fresh = initialize(&another, self.told)?;
                failed.superseded.store(fresh, Ordering::Release);
                Ok(another)
            }),
        };
        let pkcs11 = pkcs11.map_err(|error| unusable(&self.path, error.to_string()))?;
        tracing::debug!(module = %self.path.display(), "initialised anew");
        *current = Arc::new(Instance::new(pkcs11));
        Ok(Arc::clone(&current))
    }

    /// The bare calls of this library, if they reach the instance `session` belongs to.
    pub(super) fn bare_calls(&self, session: &Session) -> Option<BareCalls> {
        if !self.profile.one_instance {
            return None;
        }
        *self
            .bare_calls
            .get_or_init(|| BareCalls::of(&self.path, session))
    }
}

impl Instance {
    fn new(pkcs11: Pkcs11) -> Self {
        Self {
            pkcs11,
            objects: Mutex::new(()),
            inside: RwLock::new(()),
            links: AtomicUsize::new(0),
            finalized: AtomicBool::new(false),
            superseded: AtomicBool::new(false),
        }
    }

    /// Whether its sessions are gone: their numbers may be others' by now.
    pub(super) fn is_finalized(&self) -> bool {
        self.finalized.load(Ordering::Acquire)
    }

    /// Says that a link works through it.
    pub(super) fn claim(self: &Arc<Self>) -> Claim {
        self.links.fetch_add(1, Ordering::Relaxed);
        Claim(Arc::clone(self))
    }

    /// Held by whoever is inside the library: it is not finalised meanwhile.
    pub(super) fn enter(&self) -> RwLockReadGuard<'_, ()> {
        self.inside.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The right to make, find and destroy objects through this library.
    pub(super) fn lock_objects(&self) -> MutexGuard<'_, ()> {
        lock(&self.objects)
    }

    /// Once nobody is inside any more; `None` where somebody does not come out.
    fn alone(&self) -> Option<RwLockWriteGuard<'_, ()>> {
        for _ in 0..LOOKS_MAX {
            if let Ok(alone) = self.inside.try_write() {
                return Some(alone);
            }
            std::thread::sleep(LOOK_EVERY);
        }
        None
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.0.links.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Instance {
    /// The last call into an instance that was superseded has come back.
    fn drop(&mut self) {
        if self.superseded.load(Ordering::Acquire)
            && let Err(error) = self.pkcs11.clone().finalize()
        {
            tracing::debug!(%error, "C_Finalize");
        }
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
        let error = Module::load(&TokenConfig::new("/nowhere/libhsm.so", "hsm")).err();
        assert!(
            matches!(error, Some(HsmError::ModuleUnusable { module, .. }) if module == Path::new("/nowhere/libhsm.so"))
        );
    }
}
