//! `C_Initialize`, floor 2: the one call with something for the module to read.
//!
//! Threads of ours call at the same time, so every module is asked to lock by the
//! system's means. Some have to be told where their tokens are, in the pointer that
//! the standard reserves: `init_args` of the configuration.

use std::ffi::{CStr, CString};
use std::ptr::NonNull;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Function, Pkcs11};
use cryptoki::error::{Error, RvError};

use super::HsmError;

/// `init_args` as a module reads it.
///
/// # Errors
///
/// [`HsmError::Setting`] where there is a zero in it.
pub(super) fn readable(text: Option<&str>) -> Result<Option<CString>, HsmError> {
    text.map(CString::new)
        .transpose()
        .map_err(|_| HsmError::Setting {
            key: "init_args",
            reason: "it has a zero in it".to_owned(),
        })
}

/// Whether the module was initialised now, and not before.
pub(super) fn initialize(pkcs11: &Pkcs11, told: Option<&'static CStr>) -> Result<bool, Error> {
    let flags = CInitializeFlags::OS_LOCKING_OK;
    let args = match told {
        None => CInitializeArgs::new(flags),
        Some(text) => {
            let text = NonNull::from(text).cast();
            // SAFETY: the pointer is to a string that ends with a zero and is never
            // freed, and only read: modules that look at it at all expect that.
            #[expect(unsafe_code, reason = "some modules find their tokens by it")]
            unsafe {
                CInitializeArgs::new_with_reserved(flags, text)
            }
        }
    };
    match pkcs11.initialize(args) {
        Ok(()) => Ok(true),
        Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, Function::Initialize)) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_module_could_read_in_part_only_is_refused() {
        assert_eq!(readable(None), Ok(None));
        assert_eq!(readable(Some("a=b")), Ok(Some(c"a=b".to_owned())));
        assert!(readable(Some("a\0b")).is_err());
    }
}
