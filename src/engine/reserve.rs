//! Reservations: at most one redemption of a code set is under way at any moment.
//!
//! Guarantee: between the moment [`Reservations::reserve`] answers [`Reserved::Mine`] and the
//! moment that reservation is resolved or dropped, everybody else who asks for the same code set
//! waits for its outcome. Resolving takes the entry out and answers every waiter, once.

use std::sync::Arc;

use crate::concurrent::{DashMap, Entry, oneshot};
use crate::domain::{AuthorizationId, BundleId, IdentityId, Refusal, RefusalCode};
use crate::store::Redemption;

/// What makes two requests for one code set the same request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestKey {
    /// Who redeems.
    pub identity: IdentityId,
    /// SHA-256 COSE Key Thumbprint of the terminal's key.
    pub thumbprint: [u8; 32],
}

/// What a waiter is told.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The bundle is durable.
    Issued(Arc<Redemption>),
    /// The same order was answered before, with this bundle.
    Answered(BundleId),
    /// The bundle is durable under another epoch's signature.
    Renewed,
    /// It came to nothing; nothing was given out.
    Refused(Refusal),
    /// The one in flight came to nothing; ask again.
    Released,
}

/// What became of an attempt to reserve.
pub enum Reserved {
    /// The code set is reserved for this request, which must now be carried through.
    Mine(Reservation),
    /// Another request is under way; its outcome will be told.
    Waiting,
}

struct InFlight {
    request: RequestKey,
    waiters: Vec<(RequestKey, oneshot::Sender<Outcome>)>,
}

/// All reservations. No guard of the map leaves this file.
pub struct Reservations {
    in_flight: DashMap<AuthorizationId, InFlight>,
    waiters_max: usize,
}

impl Reservations {
    /// With room for `waiters_max` requests waiting for one code set.
    pub fn new(waiters_max: usize) -> Arc<Self> {
        Arc::new(Self {
            in_flight: DashMap::new(),
            waiters_max,
        })
    }

    /// Reserves the code set for `request`, or joins whoever has.
    ///
    /// `still_open` is asked under the entry's lock, and only where nobody holds a reservation: a
    /// redemption marks the book before it resolves, so a code set just redeemed is seen here.
    ///
    /// # Errors
    /// What `still_open` answers; `busy` where too many wait already.
    pub fn reserve(
        self: &Arc<Self>,
        id: AuthorizationId,
        request: RequestKey,
        still_open: impl FnOnce() -> Result<(), Refusal>,
    ) -> Result<(Reserved, oneshot::Receiver<Outcome>), Refusal> {
        let (sender, receiver) = oneshot::channel();
        match self.in_flight.entry(id) {
            Entry::Occupied(mut entry) => {
                let waiters = &mut entry.get_mut().waiters;
                waiters.retain(|(_, waiter)| !waiter.is_closed());
                if waiters.len() >= self.waiters_max {
                    return Err(Refusal::new(RefusalCode::Busy)
                        .detail("too many requests wait for this code set")
                        .retry_after(1));
                }
                waiters.push((request, sender));
                Ok((Reserved::Waiting, receiver))
            }
            Entry::Vacant(entry) => {
                still_open()?;
                let waiters = vec![(request.clone(), sender)];
                entry.insert(InFlight { request, waiters });
                let reservation = Reservation {
                    id,
                    reservations: Arc::clone(self),
                    resolved: false,
                };
                Ok((Reserved::Mine(reservation), receiver))
            }
        }
    }

    /// How many code sets are reserved.
    pub fn len(&self) -> usize {
        self.in_flight.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.in_flight.is_empty()
    }

    fn resolve(&self, id: AuthorizationId, outcome: Outcome) {
        let Some((_, InFlight { request, waiters })) = self.in_flight.remove(&id) else {
            return;
        };
        for (waiting, waiter) in waiters {
            let same = waiting == request;
            let told = match &outcome {
                Outcome::Issued(_) if !same => {
                    Outcome::Refused(Refusal::new(RefusalCode::CodeSetRedeemed))
                }
                Outcome::Refused(_) if !same => Outcome::Released,
                other => other.clone(),
            };
            // A client that has gone is no reason to undo work that is done.
            if waiter.send(told).is_err() {
                tracing::debug!(authorization = %id, "nobody waits for this redemption any more");
            }
        }
    }
}

/// The right to redeem one code set; given back when dropped.
pub struct Reservation {
    id: AuthorizationId,
    reservations: Arc<Reservations>,
    resolved: bool,
}

impl Reservation {
    /// Which code set.
    pub fn id(&self) -> AuthorizationId {
        self.id
    }

    /// Ends the reservation and tells everybody who waits.
    pub fn resolve(mut self, outcome: Outcome) {
        self.resolved = true;
        self.reservations.resolve(self.id, outcome);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.resolved {
            self.reservations.resolve(self.id, Outcome::Released);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: AuthorizationId = AuthorizationId([1; 16]);

    fn request(n: u8) -> RequestKey {
        RequestKey {
            identity: IdentityId::parse("renter").expect("an id"),
            thumbprint: [n; 32],
        }
    }

    fn open() -> Result<(), Refusal> {
        Ok(())
    }

    #[test]
    fn a_failure_releases_and_rivals_ask_again() {
        let reservations = Reservations::new(8);
        let (mine, mut first) = reservations
            .reserve(ID, request(1), open)
            .expect("reserved");
        let (_, mut same) = reservations.reserve(ID, request(1), open).expect("joined");
        let (_, mut rival) = reservations.reserve(ID, request(2), open).expect("waits");
        let Reserved::Mine(mine) = mine else {
            panic!("the first one gets it")
        };
        mine.resolve(Outcome::Refused(RefusalCode::HsmUnavailable.into()));
        assert!(matches!(first.try_recv(), Ok(Outcome::Refused(_))));
        assert!(matches!(same.try_recv(), Ok(Outcome::Refused(_))));
        assert!(matches!(rival.try_recv(), Ok(Outcome::Released)));
        assert!(reservations.is_empty());
    }

    #[test]
    fn a_dropped_reservation_is_released() {
        let reservations = Reservations::new(8);
        let (mine, mut first) = reservations
            .reserve(ID, request(1), open)
            .expect("reserved");
        drop(mine);
        assert!(matches!(first.try_recv(), Ok(Outcome::Released)));
        assert!(matches!(
            reservations.reserve(ID, request(2), open),
            Ok((Reserved::Mine(_), _))
        ));
    }

    #[test]
    fn what_is_closed_is_not_reserved_and_waiters_are_bounded() {
        let reservations = Reservations::new(2);
        let closed = || Err(Refusal::new(RefusalCode::CodeSetRedeemed));
        assert!(reservations.reserve(ID, request(1), closed).is_err());
        assert!(reservations.is_empty());
        let kept: Vec<_> = (0..2)
            .map(|n| reservations.reserve(ID, request(n), open))
            .collect();
        let refused = reservations
            .reserve(ID, request(9), open)
            .map(|_| ())
            .map_err(|r| r.code);
        assert_eq!(refused, Err(RefusalCode::Busy));
        drop(kept);
    }
}
