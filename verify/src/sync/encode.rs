//! Writing syncs: what a server does.

use super::{STATUS_URIS_MAX, TYP, label};
use crate::cbor::{Fixed, Write};
use crate::key::{STATUS_URI_LEN_MAX, is_vehicle_id};
use crate::sign1::{ToBeSigned, write_header};
use crate::{Algorithm, ID_LEN, KID_LEN, Refusal, TIME_MAX};

/// A sync before it is signed.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'a> {
    /// `aud`: the vehicle it is for.
    pub vehicle: &'a str,
    /// `exp`: the first second at which a car does not take it any more,
    /// after `issued_at`.
    pub expires: u64,
    /// `iat`: when it was made; later than that of every sync of this vehicle
    /// before it.
    pub issued_at: u64,
    /// The id of the vehicle's fleet.
    pub fleet: [u8; ID_LEN],
    /// The vehicle epoch.
    pub vehicle_epoch: u32,
    /// The version of the trust list that goes with it.
    pub trust_version: u32,
    /// The addresses of the status lists that go with it: ascending, each
    /// once, at most [`STATUS_URIS_MAX`].
    pub status_uris: &'a [&'a str],
}

/// The message that the issuer key of this algorithm and `kid` must sign, see
/// [`ToBeSigned`].
///
/// # Errors
/// [`Refusal::OutOfBounds`] or [`Refusal::WrongCount`] for a draft no car
/// would take.
pub fn to_be_signed(
    draft: &Draft<'_>,
    algorithm: Algorithm,
    kid: &[u8; KID_LEN],
) -> Result<ToBeSigned, Refusal> {
    draft.check()?;
    let mut protected = Fixed::<64>::new();
    write_header(&mut protected, algorithm, Some(kid), TYP);
    Ok(ToBeSigned::new(protected.as_slice(), |out| {
        draft.write(out)
    }))
}

impl Draft<'_> {
    fn check(&self) -> Result<(), Refusal> {
        if self.status_uris.len() > STATUS_URIS_MAX {
            return Err(Refusal::WrongCount);
        }
        let lengths = 1..=STATUS_URI_LEN_MAX;
        let sound = is_vehicle_id(self.vehicle)
            && self.issued_at < self.expires
            && self.expires <= TIME_MAX
            && self
                .status_uris
                .iter()
                .all(|uri| lengths.contains(&uri.len()))
            && self.status_uris.is_sorted_by(|a, b| a < b);
        if sound {
            Ok(())
        } else {
            Err(Refusal::OutOfBounds)
        }
    }

    fn write(&self, out: &mut impl Write) {
        out.map(4);
        out.int(label::AUD);
        out.text(self.vehicle);
        out.int(label::EXP);
        out.uint(self.expires);
        out.int(label::IAT);
        out.uint(self.issued_at);
        out.int(label::SYNC);
        out.map(4);
        out.int(label::FLEET);
        out.bytes(&self.fleet);
        out.int(label::VEHICLE_EPOCH);
        out.uint(self.vehicle_epoch.into());
        out.int(label::TRUST_VERSION);
        out.uint(self.trust_version.into());
        out.int(label::STATUS_URIS);
        out.array(self.status_uris.len());
        for uri in self.status_uris {
            out.text(uri);
        }
    }
}
