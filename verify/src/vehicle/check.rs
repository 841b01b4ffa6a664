//! The order in which a car asks its questions.
//!
//! 1. format: key and proof are well-formed
//! 2. issuer: on the trust list, and trusted when the key was issued
//! 3. signature, or receipt
//! 4. time
//! 5. vehicle and fleet
//! 6. vehicle epoch: not below the floor
//! 7. version: not below the highest seen for the bundle
//! 8. status: not revoked, not suspended, by a list that is not too old
//! 9. region, recurring windows, uses
//! 10. the holder's proof
//!
//! Only after all of it does the car raise what it remembers.

use super::{Car, Challenge, Lists, Memory, Moment, News, Patience};
use crate::key::{Claims, SignedKey};
use crate::region::Position;
use crate::status::Room;
use crate::use_proof::{Use, UseProof};
use crate::{Refusal, Verified, Verifier};

/// What a phone asks of a car.
#[derive(Debug)]
pub struct Request<'k, 'p> {
    /// The virtual key.
    pub key: &'k [u8],
    /// The use proof.
    pub proof: &'p [u8],
    /// The challenge the car gave this phone. It is used up.
    pub challenge: Challenge,
    /// Where the car is, if it knows.
    pub position: Option<Position>,
}

/// A use the car has agreed to. What it remembers is already raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted<'a> {
    claims: Verified<Claims<'a>>,
}

impl<'a> Admitted<'a> {
    /// The code of the function the car must now perform.
    #[must_use]
    pub fn function(&self) -> u16 {
        self.claims.function
    }

    /// The key that was used.
    #[must_use]
    pub const fn claims(&self) -> &Verified<Claims<'a>> {
        &self.claims
    }
}

/// Asks every question about a key and the proof that came with it.
///
/// # Errors
/// The first refusal; nothing is then remembered.
pub fn check<'k, L: Lists + ?Sized, V: Verifier>(
    request: Request<'k, '_>,
    car: &Car<'_, L, V>,
    room: &mut Room,
    memory: &mut impl Memory,
) -> Result<Admitted<'k>, Refusal> {
    let key = SignedKey::decode(request.key)?;
    let proof = UseProof::decode(request.proof)?;
    let moment = car.moment(memory);
    car.trust.check_time(moment.latest)?;
    let claims = key.verify(car.trust, &car.verifier)?;
    moment.check_within(claims.not_before, claims.expires)?;
    claims.check_vehicle(car.vehicle, &car.fleet)?;
    check_floors(&claims, memory)?;
    check_status(&claims, car, moment, room)?;
    check_limits(&claims, request.position, moment, memory)?;
    let expected = Use {
        key_id: claims.key_id,
        function_name: claims.function_name,
        nonce: request.challenge.as_bytes(),
    };
    proof.verify(&claims.holder, &expected, &car.verifier)?;
    memory.remember(&News::Use {
        vehicle_epoch: claims.vehicle_epoch,
        bundle: claims.bundle,
        version: claims.version,
        function: claims.function,
        issued_at: claims.issued_at,
    })?;
    Ok(Admitted { claims })
}

fn check_floors(claims: &Claims<'_>, memory: &impl Memory) -> Result<(), Refusal> {
    if claims.vehicle_epoch < memory.vehicle_epoch() {
        return Err(Refusal::VehicleEpochSuperseded);
    }
    if claims.version < memory.version(&claims.bundle) {
        return Err(Refusal::VersionSuperseded);
    }
    Ok(())
}

/// What a list says comes before how old it is: a key that any list has
/// revoked stays revoked. A list whose signer is no longer trusted says
/// nothing.
fn check_status<L: Lists + ?Sized, V>(
    claims: &Claims<'_>,
    car: &Car<'_, L, V>,
    moment: Moment,
    room: &mut Room,
) -> Result<(), Refusal> {
    let patience = car.policy.patience(claims.function);
    let list = car.lists.list(claims.status.uri);
    let believed = list.filter(|list| list.check_issuer(car.trust).is_ok());
    match believed {
        Some(list) => {
            list.status(claims.status.index, room)?.check()?;
            patience.check(&list, moment.latest)
        }
        None if patience == Patience::Offline => Ok(()),
        None => Err(Refusal::StatusMissing),
    }
}

fn check_limits(
    claims: &Claims<'_>,
    position: Option<Position>,
    moment: Moment,
    memory: &impl Memory,
) -> Result<(), Refusal> {
    if let Some(region) = &claims.region {
        let position = position.ok_or(Refusal::PositionUnknown)?;
        if !region.contains(position) {
            return Err(Refusal::OutsideRegion);
        }
    }
    let Moment { earliest, latest } = moment;
    if claims
        .recurring
        .is_some_and(|windows| !windows.is_open_throughout(earliest, latest))
    {
        return Err(Refusal::OutsideWindow);
    }
    let used = memory.uses(&claims.bundle, claims.function);
    if claims.max_uses.is_some_and(|max| used >= max) {
        return Err(Refusal::UsesExhausted);
    }
    Ok(())
}
