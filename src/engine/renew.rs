//! Bundles of a revoked epoch, signed again by one that is believed: floor 3.
//!
//! A *renewal* leaves what a bundle's keys say as it is: id, version, key ids, status indexes. What
//! was suspended or revoked is so without a new mark, and the authorization does not change. It
//! goes through the stages beside orders, in their lane, so that redemptions go before it and
//! orders take turns with it.
//!
//! What is left to do is read from the store: bundles that stand as the epoch signed them, and are
//! live. Each is committed only if it still stands so. Whoever is cut off begins anew, and does
//! nothing twice.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use super::admit::Admitted;
use super::reserve::Outcome;
use super::ticket::Ticket;
use super::{Engine, Failure};
use crate::domain::{
    Author, Authorization, AuthorizationState, Bundle, EpochId, EpochState, KeyStatus, Refusal,
    RefusalCode, TokenId, UnixTime,
};
use crate::store::{Cursor, ReliedOn};

/// How long one slice goes on taking up more.
const SLICE: Duration = Duration::from_secs(2);

/// Bundles read, and handed over, together.
const PAGE_MIN: usize = 32;
const PAGE_MAX: usize = 256;

/// Keys of a bundle, about.
const KEYS: usize = 8;

/// Pages under way at once: as many bundles as two full batches at most, and no more keys than the
/// HSM signs one by one in [`SLICE`].
const PAGES_MIN: usize = 2;
const PAGES_MAX: usize = 16;

/// What a slice of a look through an epoch's bundles has come to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Slice {
    /// Live bundles that were counted, or signed again.
    pub bundles: u64,
    /// Keys in them.
    pub keys: u64,
    /// Live bundles that were not signed again: they stand otherwise by now, or `problem` says
    /// why.
    pub left: u64,
    /// Why some were not.
    pub problem: Option<Refusal>,
    /// Where to go on; `None` at the end.
    pub next: Option<Cursor>,
}

/// Live bundles, and where to go on.
struct Page {
    bundles: Vec<Bundle>,
    next: Option<Cursor>,
}

impl Slice {
    fn add(&mut self, other: Self) {
        self.bundles += other.bundles;
        self.keys += other.keys;
        self.left += other.left;
        self.problem = self.problem.take().or(other.problem);
    }
}

impl Engine {
    /// Counts the live bundles of an epoch, for a while, from `after` on.
    ///
    /// # Errors
    /// The store's.
    pub async fn count_live(
        &self,
        epoch: EpochId,
        after: Option<Cursor>,
    ) -> Result<Slice, Failure> {
        let began = self.clock().monotonic();
        let (mut slice, mut from) = (Slice::default(), after);
        loop {
            let page = self.live_page(epoch, from, PAGE_MAX).await?;
            slice.bundles += page.bundles.len() as u64;
            slice.keys += keys_of(&page.bundles);
            from = page.next;
            if from.is_none() || self.is_over(began) {
                slice.next = from;
                return Ok(slice);
            }
        }
    }

    /// Signs live bundles of a revoked epoch again, for a while, from `after` on. Before the first
    /// of them, the status lists.
    ///
    /// # Errors
    /// `malformed` for an epoch that is not revoked; the store's and the HSM's.
    pub async fn renew(&self, epoch: EpochId, after: Option<Cursor>) -> Result<Slice, Failure> {
        self.check_revoked(epoch)?;
        if after.is_none() {
            self.all_lists_fresh().await?;
        }
        let began = self.clock().monotonic();
        let (page_len, pages_max) = self.shares();
        let (mut slice, mut from, mut more) = (Slice::default(), after, true);
        let mut under_way = FuturesUnordered::new();
        loop {
            while more && under_way.len() < pages_max && !self.is_over(began) {
                let page = self.live_page(epoch, from, page_len).await?;
                from = page.next;
                more = from.is_some();
                if !page.bundles.is_empty() {
                    under_way.push(self.renew_all(page.bundles));
                }
            }
            match under_way.next().await {
                Some(done) => slice.add(done),
                None if more && !self.is_over(began) => {}
                None => break,
            }
        }
        slice.next = from;
        Ok(slice)
    }

    fn is_over(&self, began: Duration) -> bool {
        self.clock().monotonic().saturating_sub(began) >= SLICE
    }

    /// Bundles of a page, and pages under way at once.
    fn shares(&self) -> (usize, usize) {
        let keys = self.shared.pace.within(SLICE);
        let page_len = (keys / (PAGES_MIN * KEYS)).clamp(PAGE_MIN, PAGE_MAX);
        let room = self.settings().queue_len_max;
        let page_len = page_len.min((room / (2 * PAGES_MIN)).max(1));
        let pages = (keys / (page_len * KEYS)).clamp(PAGES_MIN, PAGES_MAX);
        // Half of the room is left to orders.
        (page_len, pages.min((room / 2 / page_len).max(1)))
    }

    fn check_revoked(&self, id: EpochId) -> Result<(), Refusal> {
        let epochs = self.book().epochs();
        let Some(epoch) = epochs.iter().find(|epoch| epoch.id == id) else {
            return Err(Refusal::new(RefusalCode::NotFound).detail("there is no such epoch"));
        };
        if epoch.state == EpochState::Revoked {
            return Ok(());
        }
        let why = format!("epoch {id} is {}, not revoked", epoch.state.name());
        Err(Refusal::new(RefusalCode::Malformed).detail(why))
    }

    /// Some bundles that stand as an epoch signed them, apart from those that are dead: expired, or
    /// with every key revoked.
    async fn live_page(
        &self,
        epoch: EpochId,
        after: Option<Cursor>,
        at_most: usize,
    ) -> Result<Page, Failure> {
        let shared = Arc::clone(&self.shared);
        let now = self.clock().unix();
        let at_most = u32::try_from(at_most).unwrap_or(u32::MAX);
        self.read(move |store| {
            let found = store.signed_by(epoch, now, after.as_ref(), at_most)?;
            let bundles = found.bundles.into_iter().map(|signed| signed.bundle);
            let lives = |bundle: &Bundle| {
                let standing = shared.book.statuses.of_bundle(bundle);
                is_live(bundle, &standing, now)
            };
            Ok(Page {
                bundles: bundles.filter(lives).collect(),
                next: found.next,
            })
        })
        .await
    }

    /// Has bundles signed again through the stages, and waits until that is durable.
    async fn renew_all(&self, bundles: Vec<Bundle>) -> Slice {
        let mut slice = Slice {
            left: bundles.len() as u64,
            ..Slice::default()
        };
        let keys: Vec<_> = bundles.iter().map(|bundle| bundle.keys.len()).collect();
        if let Err(refusal) = self.shared.check_signing(self.clock().unix()) {
            slice.problem = Some(refusal);
            return slice;
        }
        let parts: Option<Vec<_>> = bundles.into_iter().map(|one| self.parts(one)).collect();
        let Some(parts) = parts else {
            tracing::error!("a bundle of a fleet or a vehicle that is not there");
            slice.problem = Some(RefusalCode::NotFound.into());
            return slice;
        };
        let admit = |parts: Parts, place| parts.admit(Ticket::Order(place));
        let outcomes = match self.hand_over_chunk(parts, admit).await {
            Ok(outcomes) => outcomes,
            Err(refusal) => {
                slice.problem = Some(refusal);
                return slice;
            }
        };
        for (outcome, keys) in outcomes.into_iter().zip(keys) {
            match outcome {
                Outcome::Renewed => {
                    slice.left -= 1;
                    slice.bundles += 1;
                    slice.keys += keys as u64;
                }
                Outcome::Refused(refusal) => slice.problem = Some(refusal),
                _ => {}
            }
        }
        slice
    }

    fn parts(&self, bundle: Bundle) -> Option<Parts> {
        let fleet = self.book().fleet(bundle.fleet)?;
        let vehicle = fleet.vehicle(bundle.vehicle.as_str())?;
        let authorization = self.book().authorization(bundle.authorization);
        Some(Parts {
            authorization: authorization.unwrap_or_else(|| Arc::new(ordered(&bundle))),
            fleet,
            vehicle,
            bundle,
        })
    }
}

/// A bundle to sign again, and what it belongs to.
struct Parts {
    authorization: Arc<Authorization>,
    fleet: Arc<super::book::FleetBook>,
    vehicle: Arc<crate::domain::Vehicle>,
    bundle: Bundle,
}

impl Parts {
    fn admit(self, ticket: Ticket) -> Admitted {
        Admitted {
            ticket,
            authorization: self.authorization,
            fleet: self.fleet,
            vehicle: self.vehicle,
            identity: self.bundle.identity.clone(),
            holder: self.bundle.holder,
            terminal: None,
            window: self.bundle.window,
            order: None,
            renews: Some(Box::new(self.bundle)),
            relies_on: ReliedOn::default(),
        }
    }
}

/// Whether one of its keys is good for something yet, or may be again.
fn is_live(bundle: &Bundle, standing: &[KeyStatus], now: UnixTime) -> bool {
    bundle.window.not_after > now && standing.iter().any(|one| *one != KeyStatus::Revoked)
}

fn keys_of(bundles: &[Bundle]) -> u64 {
    bundles.iter().map(|bundle| bundle.keys.len() as u64).sum()
}

/// What an order's bundle says of its authorization, which the book does not hold. Nothing is
/// decided on it: a bundle that is signed again stays as it is.
fn ordered(bundle: &Bundle) -> Authorization {
    let functions = bundle.subjects.iter().map(|subject| subject.function);
    Authorization {
        id: bundle.authorization,
        fleet: bundle.fleet,
        version: bundle.version,
        vehicle: bundle.vehicle.clone(),
        functions: functions.collect(),
        window: bundle.window,
        redeem_by: bundle.window.not_after,
        restrictions: None,
        pin: false,
        signing: None,
        state: AuthorizationState::Redeemed,
        redeemed: true,
        created_at: bundle.issued_at,
        author: Author::Token(TokenId([0; 16])),
    }
}

#[cfg(test)]
mod tests {
    use KeyStatus::{Revoked, Suspended, Valid};

    use super::*;
    use crate::domain::authorization::tests::sample;
    use crate::domain::bundle::tests::issued;

    #[test]
    fn a_bundle_lives_until_it_expires_or_its_last_key_is_revoked() {
        let bundle = issued(&sample());
        let ends = bundle.window.not_after;
        for (standing, at, lives) in [
            ([Valid, Valid], ends - 1, true),
            ([Valid, Valid], ends, false),
            ([Revoked, Suspended], ends - 1, true),
            ([Revoked, Revoked], ends - 1, false),
        ] {
            assert_eq!(is_live(&bundle, &standing, at), lives, "{standing:?} {at}");
        }
    }
}
