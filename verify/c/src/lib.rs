//! What a car runs of Fob, for C. The header is `include/fob_car.h`; it says
//! what every function expects.
//!
//! | file | what it does |
//! |---|---|
//! | `border.rs` | all unsafe code: C's pointers become slices and references |
//! | `car.rs` | the car, its lists and its memory, as the check wants them |
//! | this one | the functions of the header |
//!
//! Nothing allocates. Nothing in `fob-verify` panics; should it all the same,
//! the library with `std` aborts, and the one without calls `fob_car_panic`,
//! which the car's software defines.

#![cfg_attr(not(feature = "std"), no_std)]
#![deny(unsafe_op_in_unsafe_fn)]

mod border;
mod car;

use border::{Bytes, CarSpec, MemorySpec, RequestSpec};
use car::{Books, with_car};
use core::ffi::c_int;
use fob_verify::key::SignedKey;
use fob_verify::region::Position;
use fob_verify::status::Room;
use fob_verify::vehicle::{self, Anchor, Challenge, Clock, Request};
use fob_verify::{IssuerKey, Refusal, RustCrypto, trust};

/// `FOB_OK`.
const OK: c_int = 0;
/// `FOB_BAD_ARGUMENT`.
const BAD_ARGUMENT: c_int = -1;

/// A refusal as C has it: its place among all refusals, from 1.
fn number(answer: Result<(), Refusal>) -> c_int {
    let Err(why) = answer else { return OK };
    let place = Refusal::ALL.iter().position(|other| *other == why);
    place
        .and_then(|at| c_int::try_from(at).ok())
        .map_or(BAD_ARGUMENT, |at| at.saturating_add(1))
}

pub(crate) fn check(
    car: &CarSpec,
    request: &RequestSpec,
    room: &mut Room,
    memory: &MemorySpec,
    function: &mut u16,
) -> c_int {
    number(with_car(car, |car| {
        let position = match request.position_known {
            false => None,
            true => Some(Position::new(request.lat_e7, request.lon_e7)?),
        };
        let asked = Request {
            key: request.key.as_slice(),
            proof: request.proof.as_slice(),
            challenge: Challenge::new(request.challenge.as_slice())?,
            position,
        };
        let admitted = vehicle::check(asked, car, room, &mut Books(memory))?;
        *function = admitted.function();
        Ok(())
    }))
}

pub(crate) fn take_trust(car: &CarSpec, bytes: &Bytes, memory: &MemorySpec) -> c_int {
    let take = || {
        let root = IssuerKey::decode(car.root.as_slice())?;
        let clock = Clock {
            reading: car.clock,
            uncertainty_s: car.uncertainty_s,
        };
        let mut books = Books(memory);
        let bytes = bytes.as_slice();
        if car.trust.as_slice().is_empty() {
            let anchor = Anchor::Root(root);
            return vehicle::take_trust(bytes, &anchor, clock, &RustCrypto, &mut books).map(|_| ());
        }
        let held = trust::verify(car.trust.as_slice(), &[root], 0, &RustCrypto)?;
        let anchor = Anchor::List(&held);
        vehicle::take_trust(bytes, &anchor, clock, &RustCrypto, &mut books).map(|_| ())
    };
    number(take())
}

pub(crate) fn take_status(car: &CarSpec, bytes: &Bytes, uri: &Bytes, memory: &MemorySpec) -> c_int {
    number(with_car(car, |car| {
        let uri = core::str::from_utf8(uri.as_slice()).map_err(|_| Refusal::InvalidText)?;
        vehicle::take_status(bytes.as_slice(), uri, car, &mut Books(memory)).map(|_| ())
    }))
}

pub(crate) fn take_sync(car: &CarSpec, bytes: &Bytes, memory: &MemorySpec) -> c_int {
    number(with_car(car, |car| {
        vehicle::take_sync(bytes.as_slice(), car, &mut Books(memory)).map(|_| ())
    }))
}

pub(crate) fn status_uri(key: &Bytes, uri: &mut Bytes) -> c_int {
    number(SignedKey::decode(key.as_slice()).map(|key| {
        *uri = Bytes::of(key.unverified().status.uri.as_bytes());
    }))
}

/// The code of a refusal; empty for what is none.
pub(crate) fn refusal_code(refusal: c_int) -> Bytes {
    let at = usize::try_from(refusal).ok().and_then(|n| n.checked_sub(1));
    let refusal = at.and_then(|at| Refusal::ALL.get(at));
    Bytes::of(refusal.map_or("", |why| why.code()).as_bytes())
}
