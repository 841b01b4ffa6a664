//! The bare calls, floor 2: `C_SignInit` and `C_Sign` into a buffer of ours,
//! without the length query and the allocation the binding makes of a signature.
//!
//! The only file with calls into a module that the binding does not guard, and
//! nothing but these two calls is here. Where the bare calls cannot be had, the
//! binding's own do the same.
#![allow(unsafe_code)]

use std::mem;
use std::path::Path;
use std::ptr;

use cryptoki::error::Rv;
use cryptoki::object::ObjectHandle;
use cryptoki::session::Session;
use cryptoki_sys::{
    CK_FUNCTION_LIST, CK_MECHANISM, CK_MECHANISM_TYPE, CK_OBJECT_HANDLE, CK_RV, CK_SESSION_HANDLE,
    CK_SESSION_INFO, CK_ULONG, CKR_OK,
};

use super::error::failed;
use super::{HsmError, Signature};

type SignInit =
    unsafe extern "C" fn(CK_SESSION_HANDLE, *mut CK_MECHANISM, CK_OBJECT_HANDLE) -> CK_RV;
type Sign =
    unsafe extern "C" fn(CK_SESSION_HANDLE, *mut u8, CK_ULONG, *mut u8, *mut CK_ULONG) -> CK_RV;

/// The two calls that make a signature, of a module that stays loaded.
#[derive(Clone, Copy)]
pub(super) struct BareCalls {
    sign_init: SignInit,
    sign: Sign,
}

impl BareCalls {
    /// The calls of the module at `path`, provided they reach the instance that
    /// opened `session`.
    ///
    /// The binding keeps its function list to itself, so this asks the module
    /// for one more. Most modules give the same list every time; p11-kit's
    /// client gives a new instance that nobody initialised. Whether it is the
    /// same shows in whether it knows the session.
    pub(super) fn of(path: &Path, session: &Session) -> Option<Self> {
        // SAFETY: the module is loaded and initialised already (there is a
        // session), so loading it again only counts one more reference and runs
        // no initialiser.
        let library = unsafe { cryptoki_sys::Pkcs11::new(path) }.ok()?;
        library.C_GetFunctionList.as_ref().ok()?;
        let mut list: *mut CK_FUNCTION_LIST = ptr::null_mut();
        // SAFETY: the symbol is there, and the argument is a valid place for a pointer.
        let answer = unsafe { library.C_GetFunctionList(&mut list) };
        // The functions must stay where they are for the life of the process.
        mem::forget(library);
        if answer != CKR_OK || list.is_null() {
            return None;
        }
        // SAFETY: the module answered CKR_OK, so the pointer is to its function
        // list, which PKCS#11 requires to stay valid while it is loaded.
        let list = unsafe { ptr::read_unaligned(list) };
        let mut info = CK_SESSION_INFO::default();
        // SAFETY: a session handle may be any number, and `info` is ours.
        let answer = unsafe { (list.C_GetSessionInfo?)(session.handle(), &mut info) };
        if answer != CKR_OK {
            return None;
        }
        Some(Self {
            sign_init: list.C_SignInit?,
            sign: list.C_Sign?,
        })
    }

    /// Signs `data` with `key` in `session` by a mechanism without parameters.
    /// Returns how many of the 64 bytes the token filled.
    pub(super) fn sign(
        &self,
        session: &Session,
        mechanism: CK_MECHANISM_TYPE,
        key: ObjectHandle,
        data: &[u8],
        signature: &mut Signature,
    ) -> Result<usize, HsmError> {
        let mut mechanism = CK_MECHANISM {
            mechanism,
            pParameter: ptr::null_mut(),
            ulParameterLen: 0,
        };
        let mut filled = signature.len() as CK_ULONG;
        // SAFETY: `session` is borrowed and not `Sync`, so it is open and no other
        // thread uses it; the mechanism outlives the call.
        let answer = unsafe { (self.sign_init)(session.handle(), &mut mechanism, key.handle()) };
        accept("C_SignInit", answer)?;
        // SAFETY: as above; C_Sign only reads the data, in spite of its pointer's
        // type, and writes at most `filled` bytes, the length of `signature`.
        let answer = unsafe {
            (self.sign)(
                session.handle(),
                data.as_ptr().cast_mut(),
                data.len() as CK_ULONG,
                signature.as_mut_ptr(),
                &mut filled,
            )
        };
        accept("C_Sign", answer)?;
        Ok(filled as usize)
    }
}

fn accept(call: &str, answer: CK_RV) -> Result<(), HsmError> {
    match Rv::from(answer) {
        Rv::Ok => Ok(()),
        Rv::Error(code) => Err(failed(call.to_owned(), code)),
    }
}
