//! Orders that may be sent again: floor 2, `store/postgres`.
//!
//! A row for each would cost the database a third of what the order does. What a transaction answers
//! under one `Idempotency-Key`, a *call*, is therefore kept in as few rows as hold it, and the rows
//! of a call are counted. Whoever writes one knows all before it: those it remembers it has seen to
//! be there still, and what has come since it has read, in the same transaction. So of two nodes
//! that answer under one call at once, the unique key lets one through, and the other decides anew.

use std::collections::HashMap;

use super::error::Trouble;
use super::needs::Needs;
use crate::domain::{BundleId, UnixTime};
use crate::store::answers::{Answer, Answers};
use crate::store::encoding::answered;
use crate::store::{AnsweredOrder, OrderRequest, StoreError};

/// Orders of a row at most: a larger one the database would try to compress, in vain, and keep
/// elsewhere.
const ROW_ORDERS_MAX: usize = 38;

/// Calls remembered at most.
const REMEMBERED_MAX: usize = 16;

/// A call's id, as in [`OrderRequest`].
pub(super) type CallId = [u8; 32];

/// What is remembered. It lies on the ground of the transaction under way.
#[derive(Default)]
pub(super) struct Calls {
    known: HashMap<CallId, Call>,
    /// Counts transactions, to find the call not met for longest.
    now: u64,
}

/// A call: what was answered under it.
#[derive(Default)]
pub(super) struct Call {
    /// The number of its last row; 0 where there is none.
    last: i64,
    /// Whether that row, or a later one, was seen in the transaction under way.
    seen: bool,
    /// Whether another was seen in its place: all were purged, and it was begun anew.
    replaced: bool,
    met: u64,
    answered: Answers,
    /// What the transaction under way answers, as one piece.
    new: Vec<u8>,
    /// When all of that is over.
    pub(super) ends: UnixTime,
}

/// Orders as the rows have them.
pub(super) fn rows(orders: &[u8]) -> impl Iterator<Item = &[u8]> {
    orders.chunks(ROW_ORDERS_MAX * answered::ORDER_LEN)
}

impl Call {
    /// What this order asked and was answered with, if it was.
    pub(super) fn find(&self, request: &OrderRequest) -> Option<&Answer> {
        self.answered.get(&request.reference)
    }

    /// Notes that an order is answered with `bundle`, which is over at `ends`.
    pub(super) fn answer(&mut self, request: &OrderRequest, bundle: BundleId, ends: UnixTime) {
        let order = AnsweredOrder {
            reference: request.reference,
            digest: request.digest,
            bundle,
        };
        answered::put(&mut self.new, &order);
        self.ends = self.ends.max(ends);
        self.take_order(order);
    }

    /// Takes in a row that was read.
    pub(super) fn take(&mut self, number: i64, orders: &[u8]) -> Result<(), StoreError> {
        let known = self.last == number;
        (self.seen, self.last) = (true, self.last.max(number));
        answered::each(orders, |order| {
            let is_new = self.take_order(order);
            self.replaced |= known && is_new;
            Ok(())
        })
    }

    /// The rows that the transaction under way writes: number and orders of each.
    pub(super) fn rows(&self) -> impl Iterator<Item = (i64, &[u8])> {
        (self.last + 1..).zip(rows(&self.new))
    }

    /// Whether it was not known.
    fn take_order(&mut self, order: AnsweredOrder) -> bool {
        self.answered.note(order)
    }
}

impl Calls {
    /// Puts what is known of the calls in `needs` on the ground, and has `needs` ask for what has
    /// come since.
    pub(super) fn recall(&mut self, needs: &mut Needs, ground: &mut HashMap<CallId, Call>) {
        for (id, last) in &mut needs.calls {
            let call = self.known.remove(id).unwrap_or_default();
            *last = call.last;
            ground.insert(*id, call);
        }
    }

    /// Once it was asked for: a call of which nothing is there any more was purged.
    ///
    /// # Errors
    /// [`Trouble::Again`] where one was begun anew since: not all of it was asked for.
    pub(super) fn check(ground: &mut HashMap<CallId, Call>) -> Result<(), Trouble> {
        for call in ground.values_mut().filter(|call| !call.seen) {
            *call = Call::default();
        }
        match ground.values().any(|call| call.replaced) {
            true => Err(Trouble::Again(StoreError::Failed(
                "what was answered before was purged meanwhile".into(),
            ))),
            false => Ok(()),
        }
    }

    /// Remembers what lay on the ground, which is written.
    pub(super) fn keep(&mut self, ground: &mut HashMap<CallId, Call>) {
        self.now += 1;
        for (id, mut call) in ground.drain().take(REMEMBERED_MAX) {
            call.last = call.rows().last().map_or(call.last, |(number, _)| number);
            call.new.clear();
            (call.ends, call.seen, call.met) = (0, false, self.now);
            self.known.insert(id, call);
        }
        while self.known.len() > REMEMBERED_MAX {
            let oldest = self.known.iter().min_by_key(|(_, call)| call.met);
            let Some(oldest) = oldest.map(|(id, _)| *id) else {
                return;
            };
            self.known.remove(&oldest);
        }
    }
}
