//! What a car remembers, and the lists it holds.

use crate::status::StatusList;
use crate::trust::TrustList;
use crate::{DIGEST_LEN, ID_LEN, Refusal, Verified};

/// What a car remembers from one use to the next, through every loss of
/// power.
///
/// None of it ever falls. It may forget a bundle once no key of it can be
/// accepted any more: when the vehicle epoch was raised above that of its
/// keys.
pub trait Memory {
    /// The lowest vehicle epoch it accepts; 0 at first.
    fn vehicle_epoch(&self) -> u32;

    /// The highest version seen of this bundle; 0 if none was.
    fn version(&self, bundle: &[u8; ID_LEN]) -> u32;

    /// The newest time anything verified has stated; 0 at first.
    fn time(&self) -> u64;

    /// How often this function of this bundle was used.
    fn uses(&self, bundle: &[u8; ID_LEN], function: u16) -> u32;

    /// When the sync that was taken last was made; 0 at first.
    fn synced_at(&self) -> u64;

    /// Makes news durable, all of it or nothing, and raises the time to
    /// [`News::time`]. The car acts only when this has returned `Ok`.
    ///
    /// # Errors
    /// [`Refusal::MemoryFailed`]; the car must not act, and goes on with what
    /// it remembered before.
    fn remember(&mut self, news: &News<'_>) -> Result<(), Refusal>;
}

/// What a car has learned. Everything in it was verified.
#[derive(Clone, Copy, Debug)]
pub enum News<'a> {
    /// A function is about to be used. Raise the vehicle epoch and the
    /// bundle's version to these, and count one use.
    Use {
        /// The vehicle epoch of the key.
        vehicle_epoch: u32,
        /// The bundle of the key.
        bundle: [u8; ID_LEN],
        /// The version of the key.
        version: u32,
        /// The function that is used once.
        function: u16,
        /// When the key was issued.
        issued_at: u64,
    },
    /// A newer trust list. Keep its octets in place of those held, and its
    /// root as the root of the car.
    Trust {
        /// The list as it came.
        bytes: &'a [u8],
        /// The same, read.
        list: &'a Verified<TrustList<'a>>,
    },
    /// A newer status list. Keep its octets in place of those held for the
    /// same address.
    Status {
        /// The list as it came.
        bytes: &'a [u8],
        /// The same, read.
        list: &'a Verified<StatusList<'a>>,
    },
    /// A newer sync. Raise the vehicle epoch to this, and keep time and
    /// digest.
    Sync {
        /// The vehicle epoch.
        vehicle_epoch: u32,
        /// When the sync was made.
        issued_at: u64,
        /// The name of the sync, for the next ack.
        digest: [u8; DIGEST_LEN],
    },
}

impl News<'_> {
    /// When this was made: the present is not before it.
    #[must_use]
    pub fn time(&self) -> u64 {
        match self {
            Self::Use { issued_at, .. } | Self::Sync { issued_at, .. } => *issued_at,
            Self::Trust { list, .. } => list.issued_at(),
            Self::Status { list, .. } => list.issued_at(),
        }
    }
}

/// The status lists a car holds, at most one for each address.
pub trait Lists {
    /// The list of this address, verified when it was taken or just now.
    fn list(&self, uri: &str) -> Option<Verified<StatusList<'_>>>;
}

impl Lists for [Verified<StatusList<'_>>] {
    fn list(&self, uri: &str) -> Option<Verified<StatusList<'_>>> {
        self.iter().find(|list| list.uri() == uri).copied()
    }
}

impl<const N: usize> Lists for [Verified<StatusList<'_>>; N] {
    fn list(&self, uri: &str) -> Option<Verified<StatusList<'_>>> {
        self.as_slice().list(uri)
    }
}
