//! Reading syncs, and believing them.

use super::{STATUS_URIS_MAX, SYNC_LEN_MAX, TYP, digest, label};
use crate::cbor::Reader;
use crate::key::{STATUS_URI_LEN_MAX, VEHICLE_LEN_MAX, is_vehicle_id};
use crate::sign1::Sign1;
use crate::trust::TrustList;
use crate::{DIGEST_LEN, ID_LEN, Refusal, Verified, Verifier};

/// What a sync says, over the bytes it was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sync<'a> {
    /// `aud`: the vehicle it is for.
    pub vehicle: &'a str,
    /// `exp`: the first second at which a car does not take it any more.
    pub expires: u64,
    /// `iat`: when it was made.
    pub issued_at: u64,
    /// The id of the vehicle's fleet.
    pub fleet: [u8; ID_LEN],
    /// The vehicle epoch: keys of a lower one are void.
    pub vehicle_epoch: u32,
    /// The version of the newest trust list.
    pub trust_version: u32,
    /// The addresses of the status lists that the vehicle's keys stand on.
    pub status_uris: Uris<'a>,
    /// The name of this sync in an ack.
    pub digest: [u8; DIGEST_LEN],
}

/// Reads a sync of at most [`SYNC_LEN_MAX`] octets and checks that a trusted
/// issuer signed it while it was trusted.
///
/// # Errors
/// What of the form or the limits refuses it; in this order
/// [`Refusal::UnknownIssuer`], [`Refusal::AlgorithmMismatch`],
/// [`Refusal::OutsideIssuerWindow`], [`Refusal::BadSignature`].
pub fn verify<'a>(
    bytes: &'a [u8],
    trust: &Verified<TrustList<'_>>,
    verifier: &impl Verifier,
) -> Result<Verified<Sync<'a>>, Refusal> {
    let envelope = Sign1::decode(bytes, SYNC_LEN_MAX, TYP, true)?;
    let sync = Sync::read(envelope.claims, digest(bytes))?;
    trust.check_signed(&envelope, sync.issued_at, verifier)?;
    Ok(Verified::mark(sync))
}

impl<'a> Sync<'a> {
    /// Whether it may still be taken at `now`.
    ///
    /// # Errors
    /// [`Refusal::SyncExpired`].
    pub const fn check_time(&self, now: u64) -> Result<(), Refusal> {
        if now < self.expires {
            Ok(())
        } else {
            Err(Refusal::SyncExpired)
        }
    }

    /// Whether a car that took a sync made at `held` takes this one.
    ///
    /// # Errors
    /// [`Refusal::SyncNotNewer`].
    pub const fn check_newer_than(&self, held: u64) -> Result<(), Refusal> {
        if self.issued_at > held {
            Ok(())
        } else {
            Err(Refusal::SyncNotNewer)
        }
    }

    /// Whether it is for this vehicle of this fleet.
    ///
    /// # Errors
    /// [`Refusal::WrongVehicle`] or [`Refusal::WrongFleet`].
    pub fn check_vehicle(&self, vehicle: &str, fleet: &[u8; ID_LEN]) -> Result<(), Refusal> {
        if self.vehicle != vehicle {
            Err(Refusal::WrongVehicle)
        } else if self.fleet != *fleet {
            Err(Refusal::WrongFleet)
        } else {
            Ok(())
        }
    }

    fn read(claims: &'a [u8], digest: [u8; DIGEST_LEN]) -> Result<Self, Refusal> {
        let mut reader = Reader::new(claims, SYNC_LEN_MAX)?;
        reader.map_of(4)?;
        reader.label(label::AUD)?;
        let vehicle = reader.text(1, VEHICLE_LEN_MAX)?;
        reader.label(label::EXP)?;
        let expires = reader.time()?;
        reader.label(label::IAT)?;
        let issued_at = reader.time()?;
        reader.label(label::SYNC)?;
        reader.map_of(4)?;
        reader.label(label::FLEET)?;
        let fleet = *reader.array_of()?;
        reader.label(label::VEHICLE_EPOCH)?;
        let vehicle_epoch = reader.uint32()?;
        reader.label(label::TRUST_VERSION)?;
        let trust_version = reader.uint32()?;
        reader.label(label::STATUS_URIS)?;
        let status_uris = Uris::read(&mut reader)?;
        reader.end()?;
        if !is_vehicle_id(vehicle) || issued_at >= expires {
            return Err(Refusal::OutOfBounds);
        }
        Ok(Self {
            vehicle,
            expires,
            issued_at,
            fleet,
            vehicle_epoch,
            trust_version,
            status_uris,
            digest,
        })
    }
}

/// The addresses a sync names, ascending and each once; read again from its
/// bytes whenever they are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uris<'a> {
    items: &'a [u8],
    count: usize,
}

impl<'a> Uris<'a> {
    /// The addresses in the order of the sync.
    pub fn iter(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let mut reader = Reader::new(self.items, SYNC_LEN_MAX).ok();
        let next = move || reader.as_mut()?.text(1, STATUS_URI_LEN_MAX).ok();
        core::iter::from_fn(next).take(self.count)
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Reads the array. Ascending order, octet by octet, makes the encoding
    /// the only one and refuses an address that is named twice.
    fn read(reader: &mut Reader<'a>) -> Result<Self, Refusal> {
        let count = reader.array(0, STATUS_URIS_MAX)?;
        let items = reader.rest();
        let mut last = "";
        for _ in 0..count {
            let uri = reader.text(1, STATUS_URI_LEN_MAX)?;
            if uri <= last {
                return Err(Refusal::OutOfBounds);
            }
            last = uri;
        }
        Ok(Self { items, count })
    }
}
