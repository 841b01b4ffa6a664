//! Orders that may be sent again: floor 2, `store/sqlite`.
//!
//! A row for each would be written to wherever its reference happens to sort. What a transaction
//! answers is therefore kept in one row for each `Idempotency-Key`, a *call*, and the writer
//! remembers the references of the calls it has met last.

use std::collections::{BTreeMap, HashMap};

use rusqlite::{Connection, OptionalExtension, params};

use super::error::corrupt;
use super::load::{blob, rows};
use super::packs::span;
use crate::domain::{AuthorizationId, BundleId};
use crate::store::answers::Answers;
use crate::store::encoding::answered;
use crate::store::whole::Entry;
use crate::store::{AnsweredOrder, Applied, OrderRequest, StoreError};

/// Calls remembered at most.
const REMEMBERED_MAX: usize = 16;

/// The calls the writer remembers. Valid while no transaction is rolled back.
#[derive(Default)]
pub(super) struct Calls {
    known: HashMap<[u8; 32], Call>,
    /// Counts transactions, to find the call not met for longest.
    now: u64,
    /// The number of the next row of answers.
    next: i64,
}

struct Call {
    /// `None` until one of its orders is answered.
    number: Option<i64>,
    met: u64,
    answered: Answers,
}

/// The answers of a transaction under way: by call, the latest end of its orders, and its row.
#[derive(Default)]
pub(super) struct PendingAnswers(BTreeMap<i64, (i64, Vec<u8>)>);

impl Calls {
    pub(super) fn load(connection: &Connection) -> Result<Self, StoreError> {
        let sql = "SELECT coalesce(max(transaction_number), 0) + 1 FROM answered";
        Ok(Self {
            next: connection.query_row(sql, [], |row| row.get(0))?,
            ..Self::default()
        })
    }

    /// What became of this order before, if anything did.
    pub(super) fn repeated(
        &mut self,
        connection: &Connection,
        request: &OrderRequest,
    ) -> Result<Option<Applied>, StoreError> {
        let call = self.call(connection, &request.call)?;
        let before = call.answered.get(&request.reference);
        Ok(before.map(|(digest, bundle)| {
            if *digest == request.digest {
                Applied::Repeated(AuthorizationId(bundle.0))
            } else {
                Applied::Conflict
            }
        }))
    }

    /// Notes that an order is answered with `bundle`, which is over at `end`.
    pub(super) fn answer(
        &mut self,
        connection: &Connection,
        pending: &mut PendingAnswers,
        request: &OrderRequest,
        bundle: BundleId,
        end: u64,
    ) -> Result<(), StoreError> {
        let call = self.call(connection, &request.call)?;
        let order = AnsweredOrder {
            reference: request.reference,
            digest: request.digest,
            bundle,
        };
        call.answered.note(order);
        let number = match call.number {
            Some(number) => number,
            None => connection
                .prepare_cached("INSERT INTO calls (scope) VALUES (?1)")?
                .insert(params![*request.call])?,
        };
        call.number = Some(number);
        let (ends, row) = pending.0.entry(number).or_default();
        *ends = span(end).max(*ends);
        answered::put(row, &order);
        Ok(())
    }

    /// Writes the answers of a transaction.
    pub(super) fn flush(
        &mut self,
        connection: &Connection,
        pending: &mut PendingAnswers,
    ) -> Result<(), StoreError> {
        self.now += 1;
        for (call, (ends, orders)) in std::mem::take(&mut pending.0) {
            connection
                .prepare_cached(
                    "INSERT INTO answered (call, transaction_number, ends, orders)
                     VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute(params![call, self.next, ends, orders])?;
            self.next += 1;
        }
        Ok(())
    }

    /// Forgets every call: some of what they hold was purged.
    pub(super) fn forget(&mut self) {
        self.known.clear();
    }

    fn call(&mut self, connection: &Connection, scope: &[u8; 32]) -> Result<&mut Call, StoreError> {
        if !self.known.contains_key(scope) {
            self.make_room();
            let number = number(connection, scope)?;
            let mut answered = Answers::default();
            if let Some(number) = number {
                each_answered(connection, number, |order| {
                    answered.note(order);
                })?;
            }
            let met = self.now;
            self.known.insert(
                *scope,
                Call {
                    number,
                    met,
                    answered,
                },
            );
        }
        let now = self.now;
        let call = self
            .known
            .get_mut(scope)
            .ok_or_else(|| corrupt("a call that is gone"))?;
        call.met = now;
        Ok(call)
    }

    /// Forgets the call that was not met for longest; never one of this transaction, whose answers
    /// nobody else knows yet.
    fn make_room(&mut self) {
        if self.known.len() < REMEMBERED_MAX {
            return;
        }
        let earlier = self.known.iter().filter(|(_, call)| call.met < self.now);
        let oldest = earlier.min_by_key(|(_, call)| call.met);
        if let Some(oldest) = oldest.map(|(scope, _)| *scope) {
            self.known.remove(&oldest);
        }
    }
}

/// Every order answered under the call.
pub(super) fn answered(
    connection: &Connection,
    scope: &[u8; 32],
) -> Result<Vec<AnsweredOrder>, StoreError> {
    let snapshot = connection.unchecked_transaction()?;
    let mut found = Vec::new();
    if let Some(number) = number(&snapshot, scope)? {
        each_answered(&snapshot, number, |order| found.push(order))?;
    }
    Ok(found)
}

/// Deletes the answers whose orders were all over before `before`, and the calls left with none.
pub(super) fn purge(connection: &Connection, before: u64) -> Result<(), StoreError> {
    let over = connection
        .prepare_cached("DELETE FROM answered WHERE ends < ?1 RETURNING call")?
        .query_map(params![span(before)], |row| row.get(0))?
        .collect::<Result<Vec<i64>, _>>()?;
    for call in over {
        connection
            .prepare_cached(
                "DELETE FROM calls WHERE number = ?1
                 AND NOT EXISTS (SELECT 1 FROM answered WHERE call = ?1)",
            )?
            .execute(params![call])?;
    }
    Ok(())
}

/// Hands every order that was answered to `each`, by its call and in the order of answers.
pub(super) fn export(
    connection: &Connection,
    each: &mut dyn FnMut(Entry) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let sql = "SELECT c.scope, a.ends, a.orders FROM answered a
               CROSS JOIN calls c ON c.number = a.call ORDER BY a.call, a.transaction_number";
    rows(connection, sql, [], |row| {
        let (call, span) = (row.get(0)?, super::error::number(row.get(1)?)?);
        answered::each(blob(row, 2)?, |order| {
            each(Entry::Order {
                call,
                reference: order.reference,
                digest: order.digest,
                bundle: order.bundle,
                span,
            })
        })
    })
}

/// Writes what another store has answered: a row for each call and span.
pub(super) fn import(
    connection: &Connection,
    answers: &super::import::Answers,
) -> Result<(), StoreError> {
    let sql = "SELECT coalesce(max(transaction_number), 0) FROM answered";
    let mut last: i64 = connection.query_row(sql, [], |row| row.get(0))?;
    for ((scope, span), orders) in answers {
        let call = match number(connection, scope)? {
            Some(call) => call,
            None => connection
                .prepare_cached("INSERT INTO calls (scope) VALUES (?1)")?
                .insert(params![scope])?,
        };
        last += 1;
        connection
            .prepare_cached(
                "INSERT INTO answered (call, transaction_number, ends, orders)
                 VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![call, last, super::error::column(*span)?, orders])?;
    }
    Ok(())
}

fn number(connection: &Connection, scope: &[u8; 32]) -> Result<Option<i64>, StoreError> {
    let found = connection
        .prepare_cached("SELECT number FROM calls WHERE scope = ?1")?
        .query_row(params![scope], |row| row.get(0))
        .optional()?;
    Ok(found)
}

fn each_answered(
    connection: &Connection,
    call: i64,
    mut each: impl FnMut(AnsweredOrder),
) -> Result<(), StoreError> {
    let sql = "SELECT orders FROM answered WHERE call = ?1 ORDER BY transaction_number";
    rows(connection, sql, [call], |row| {
        answered::each(blob(row, 0)?, |order| {
            each(order);
            Ok(())
        })
    })
}
