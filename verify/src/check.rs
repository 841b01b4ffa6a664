//! The order in which a car asks its questions.
//!
//! 1. format: key and proof are well-formed
//! 2. issuer: on the trust list, and trusted when the key was issued
//! 3. signature
//! 4. time
//! 5. vehicle and fleet
//! 6. vehicle epoch: not below the floor
//! 7. version: not below the highest seen for the bundle
//! 8. status: not revoked, not suspended
//! 9. region, recurring windows, uses
//! 10. the holder's proof
//!
//! Only after all of it does the car raise what it remembers.
//!
//! BUG: question 8 is not asked yet. Until status lists are read here, a
//! revoked key works until it expires or its bundle's next version is seen.

use crate::key::{Claims, SignedKey};
use crate::region::Position;
use crate::trust::TrustList;
use crate::use_proof::{Use, UseProof};
use crate::{ID_LEN, Refusal, Verified, Verifier};

/// A car at the moment it is asked to act.
#[derive(Debug)]
pub struct Car<'a, V> {
    /// The id the car was provisioned with.
    pub vehicle: &'a str,
    /// The fleet the car was provisioned with.
    pub fleet: [u8; ID_LEN],
    /// The trust list it holds.
    pub trust: &'a Verified<TrustList<'a>>,
    /// Its clock, in seconds since 1970-01-01T00:00:00Z.
    pub clock: u64,
    /// Where it is, if it knows.
    pub position: Option<Position>,
    /// The challenge it gave the phone: random, and good for one answer.
    pub challenge: &'a [u8],
    /// What verifies its signatures.
    pub verifier: V,
}

/// What a car remembers from one use to the next.
pub trait Memory {
    /// The lowest vehicle epoch it accepts; 0 at first.
    fn vehicle_epoch(&self) -> u32;

    /// The highest version seen of this bundle; 0 if none was.
    fn version(&self, bundle: &[u8; ID_LEN]) -> u32;

    /// The newest time anything verified has stated; 0 at first.
    fn time(&self) -> u64;

    /// How often this function of this bundle was used.
    fn uses(&self, bundle: &[u8; ID_LEN], function: u16) -> u32;

    /// Raises the four to what is given (none of them ever falls) and counts
    /// one use. All of it is durable when this returns `Ok`; the car acts
    /// only then.
    ///
    /// # Errors
    /// [`Refusal::MemoryFailed`]; the car must not act.
    fn raise(&mut self, seen: &Seen) -> Result<(), Refusal>;
}

/// What a use teaches a car.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The vehicle epoch of the key.
    pub vehicle_epoch: u32,
    /// The bundle of the key.
    pub bundle: [u8; ID_LEN],
    /// The version of the key.
    pub version: u32,
    /// The function that was used once.
    pub function: u16,
    /// When the key was issued: the present is not before it.
    pub time: u64,
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
/// The time is the car's clock, or the newest time that anything verified has
/// stated (what it remembers, and its trust list) if that is later.
///
/// # Errors
/// The first refusal; nothing is then remembered.
pub fn check<'k, V: Verifier>(
    key: &'k [u8],
    proof: &[u8],
    car: &Car<'_, V>,
    memory: &mut impl Memory,
) -> Result<Admitted<'k>, Refusal> {
    let key = SignedKey::decode(key)?;
    let proof = UseProof::decode(proof)?;
    let known = memory.time().max(car.trust.issued_at());
    let now = car.clock.max(known);
    car.trust.check_time(now)?;
    let claims = key.verify(car.trust, &car.verifier)?;
    claims.check_time(now)?;
    claims.check_vehicle(car.vehicle, &car.fleet)?;
    check_floors(&claims, memory)?;
    // The status of the key belongs here.
    check_limits(&claims, car.position, now, memory)?;
    let expected = Use {
        key_id: claims.key_id,
        function_name: claims.function_name,
        nonce: car.challenge,
    };
    proof.verify(&claims.holder, &expected, &car.verifier)?;
    memory.raise(&Seen {
        vehicle_epoch: claims.vehicle_epoch,
        bundle: claims.bundle,
        version: claims.version,
        function: claims.function,
        time: claims.issued_at,
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

fn check_limits(
    claims: &Claims<'_>,
    position: Option<Position>,
    now: u64,
    memory: &impl Memory,
) -> Result<(), Refusal> {
    if let Some(region) = &claims.region {
        let position = position.ok_or(Refusal::PositionUnknown)?;
        if !region.contains(position) {
            return Err(Refusal::OutsideRegion);
        }
    }
    if claims
        .recurring
        .is_some_and(|windows| !windows.is_open(now))
    {
        return Err(Refusal::OutsideWindow);
    }
    let used = memory.uses(&claims.bundle, claims.function);
    if claims.max_uses.is_some_and(|max| used >= max) {
        return Err(Refusal::UsesExhausted);
    }
    Ok(())
}
