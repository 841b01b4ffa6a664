//! The vehicle's side: what a car asks, what it takes, what it remembers.
//!
//! A car is provisioned with the root's public key, its vehicle id and its
//! fleet id. From then on it
//!
//! - takes trust lists, status lists and syncs, whoever brings them
//!   ([`take_trust`], [`take_status`], [`take_sync`]);
//! - gives a phone a [`Challenge`] and decides by [`check`] whether a key and
//!   its use proof open a function;
//! - tells the server by an [`ack`](crate::ack) which sync it applied last.
//!
//! Nothing here allocates or does I/O. Time comes in as a [`Clock`] with its
//! uncertainty, randomness as the octets of a challenge, and everything that
//! has to outlive a loss of power stands behind [`Memory`].
//!
//! Invariant: a refusal leaves no trace. Only what was verified whole, and
//! for a key only a use that was proved, changes what a car remembers.

mod challenge;
mod check;
mod clock;
mod memory;
mod policy;
mod take;

pub use challenge::Challenge;
pub use check::{Admitted, Request, check};
pub use clock::{Clock, Moment};
pub use memory::{Lists, Memory, News};
pub use policy::{Patience, Policy};
pub use take::{Anchor, take_status, take_sync, take_trust};

use crate::trust::TrustList;
use crate::{ID_LEN, Verified, Verifier};

/// A car at the moment it is asked.
#[derive(Debug)]
pub struct Car<'a, L: ?Sized, V> {
    /// The id the car was provisioned with.
    pub vehicle: &'a str,
    /// The fleet the car was provisioned with.
    pub fleet: [u8; ID_LEN],
    /// The trust list it holds.
    pub trust: &'a Verified<TrustList<'a>>,
    /// The status lists it holds.
    pub lists: &'a L,
    /// How old a status list may be for which function.
    pub policy: Policy<'a>,
    /// Its clock.
    pub clock: Clock,
    /// What verifies its signatures.
    pub verifier: V,
}

impl<L: ?Sized, V: Verifier> Car<'_, L, V> {
    /// What the present may be: by the clock, and never before anything that
    /// was verified.
    fn moment(&self, memory: &impl Memory) -> Moment {
        self.clock.moment(memory.time().max(self.trust.issued_at()))
    }
}
