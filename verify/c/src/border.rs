//! The border to C: the structures of `fob_car.h` and all unsafe code.
//!
//! What C promises stands in the header: pointers are valid for the length
//! beside them and for the length of the call, a null pointer comes with a
//! length of 0, memory is not changed meanwhile but by the library itself, and
//! callbacks neither unwind nor call back into the library with the same room.
//! Everything here rests on that promise and on nothing else.

#![allow(unsafe_code, reason = "C's pointers have to become references once")]

use core::ffi::{c_int, c_void};
use core::slice;
use fob_verify::DIGEST_LEN;
use fob_verify::ID_LEN;
use fob_verify::status::Room;

/// `fob_bytes`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Bytes {
    data: *const u8,
    len: usize,
}

impl Bytes {
    pub(crate) const fn of(octets: &[u8]) -> Self {
        Self {
            data: octets.as_ptr(),
            len: octets.len(),
        }
    }

    /// The octets. They live as long as the structure that C handed over,
    /// which is the length of the call.
    pub(crate) const fn as_slice(&self) -> &[u8] {
        if self.data.is_null() {
            return &[];
        }
        // SAFETY: C promises `len` octets at a pointer that is not null.
        unsafe { slice::from_raw_parts(self.data, self.len) }
    }
}

/// `fob_patience`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct PatienceSpec {
    pub(crate) function: u16,
    /// 0 fresh, 1 valid, 2 expired by `grace_s`, 3 offline.
    pub(crate) kind: u8,
    pub(crate) grace_s: u32,
}

/// `fob_car`.
#[repr(C)]
pub(crate) struct CarSpec {
    pub(crate) vehicle: Bytes,
    pub(crate) fleet: [u8; ID_LEN],
    pub(crate) root: Bytes,
    pub(crate) trust: Bytes,
    lists: *const Bytes,
    lists_len: usize,
    policy: *const PatienceSpec,
    policy_len: usize,
    pub(crate) clock: u64,
    pub(crate) uncertainty_s: u32,
}

impl CarSpec {
    pub(crate) const fn lists(&self) -> &[Bytes] {
        if self.lists.is_null() {
            return &[];
        }
        // SAFETY: C promises `lists_len` structures at a pointer that is not null.
        unsafe { slice::from_raw_parts(self.lists, self.lists_len) }
    }

    pub(crate) const fn policy(&self) -> &[PatienceSpec] {
        if self.policy.is_null() {
            return &[];
        }
        // SAFETY: C promises `policy_len` structures at a pointer that is not null.
        unsafe { slice::from_raw_parts(self.policy, self.policy_len) }
    }
}

/// `fob_request`.
#[repr(C)]
pub(crate) struct RequestSpec {
    pub(crate) key: Bytes,
    pub(crate) proof: Bytes,
    pub(crate) challenge: Bytes,
    pub(crate) position_known: bool,
    pub(crate) lat_e7: i32,
    pub(crate) lon_e7: i32,
}

/// `fob_news`.
#[repr(C)]
pub(crate) struct NewsSpec {
    /// 1 use, 2 trust list, 3 status list, 4 sync.
    pub(crate) kind: c_int,
    pub(crate) time: u64,
    pub(crate) vehicle_epoch: u32,
    pub(crate) version: u32,
    pub(crate) function: u16,
    pub(crate) bundle: [u8; ID_LEN],
    pub(crate) object: Bytes,
    pub(crate) uri: Bytes,
    pub(crate) root: Bytes,
    pub(crate) digest: [u8; DIGEST_LEN],
}

/// `fob_memory`.
#[repr(C)]
pub(crate) struct MemorySpec {
    context: *mut c_void,
    vehicle_epoch: extern "C" fn(*mut c_void) -> u32,
    version: extern "C" fn(*mut c_void, *const u8) -> u32,
    time: extern "C" fn(*mut c_void) -> u64,
    uses: extern "C" fn(*mut c_void, *const u8, u16) -> u32,
    synced_at: extern "C" fn(*mut c_void) -> u64,
    remember: extern "C" fn(*mut c_void, *const NewsSpec) -> bool,
}

impl MemorySpec {
    pub(crate) fn vehicle_epoch(&self) -> u32 {
        (self.vehicle_epoch)(self.context)
    }

    pub(crate) fn version(&self, bundle: &[u8; ID_LEN]) -> u32 {
        (self.version)(self.context, bundle.as_ptr())
    }

    pub(crate) fn time(&self) -> u64 {
        (self.time)(self.context)
    }

    pub(crate) fn uses(&self, bundle: &[u8; ID_LEN], function: u16) -> u32 {
        (self.uses)(self.context, bundle.as_ptr(), function)
    }

    pub(crate) fn synced_at(&self) -> u64 {
        (self.synced_at)(self.context)
    }

    pub(crate) fn remember(&self, news: &NewsSpec) -> bool {
        (self.remember)(self.context, core::ptr::from_ref(news))
    }
}

/// Makes references of pointers, or leaves with `FOB_BAD_ARGUMENT`.
macro_rules! referred {
    ($($name:ident),+) => {
        $(
            // SAFETY: C promises that a pointer which is not null points to a
            // whole structure for the length of the call.
            let Some($name) = (unsafe { $name.as_ref() }) else {
                return crate::BAD_ARGUMENT;
            };
        )+
    };
}

/// The same for what is written.
macro_rules! referred_mut {
    ($($name:ident),+) => {
        $(
            // SAFETY: as above, and nobody else looks at it during the call.
            let Some($name) = (unsafe { $name.as_mut() }) else {
                return crate::BAD_ARGUMENT;
            };
        )+
    };
}

/// `fob_check`
#[unsafe(no_mangle)]
extern "C" fn fob_check(
    car: *const CarSpec,
    request: *const RequestSpec,
    room: *mut Room,
    memory: *const MemorySpec,
    function: *mut u16,
) -> c_int {
    referred!(car, request, memory);
    referred_mut!(room, function);
    crate::check(car, request, room, memory, function)
}

/// `fob_take_trust`
#[unsafe(no_mangle)]
extern "C" fn fob_take_trust(car: *const CarSpec, list: Bytes, memory: *const MemorySpec) -> c_int {
    referred!(car, memory);
    crate::take_trust(car, &list, memory)
}

/// `fob_take_status`
#[unsafe(no_mangle)]
extern "C" fn fob_take_status(
    car: *const CarSpec,
    list: Bytes,
    uri: Bytes,
    memory: *const MemorySpec,
) -> c_int {
    referred!(car, memory);
    crate::take_status(car, &list, &uri, memory)
}

/// `fob_take_sync`
#[unsafe(no_mangle)]
extern "C" fn fob_take_sync(car: *const CarSpec, sync: Bytes, memory: *const MemorySpec) -> c_int {
    referred!(car, memory);
    crate::take_sync(car, &sync, memory)
}

/// `fob_status_uri`
#[unsafe(no_mangle)]
extern "C" fn fob_status_uri(key: Bytes, uri: *mut Bytes) -> c_int {
    referred_mut!(uri);
    crate::status_uri(&key, uri)
}

/// `fob_refusal_code`
#[unsafe(no_mangle)]
extern "C" fn fob_refusal_code(refusal: c_int) -> Bytes {
    crate::refusal_code(refusal)
}

/// What remains of the standard library's unwinding without `std`: the
/// compiled core names it, nothing calls it.
#[cfg(not(feature = "std"))]
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

#[cfg(not(feature = "std"))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    unsafe extern "C" {
        fn fob_car_panic() -> !;
    }
    // SAFETY: the car's software defines it and it does not return.
    unsafe { fob_car_panic() }
}
