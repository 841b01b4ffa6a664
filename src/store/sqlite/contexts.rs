//! What many bundles have in common, kept once: floor 2, `store/sqlite`.
//!
//! A bundle refers to its issuer's name and to what its keys stand for (function code, name and
//! status address of each) by small numbers. A context is found by its bytes and never changes or
//! goes, so there are about as many as lists of functions in use times status shards.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};

use super::context;
use super::error::{corrupt, number};
use crate::domain::Subject;
use crate::store::StoreError;

/// Contexts remembered at most; then the memory starts over.
const REMEMBERED_MAX: usize = 4096;

/// The contexts the writer knows, by their bytes. Valid while no transaction is rolled back.
#[derive(Default)]
pub(super) struct Contexts {
    numbers: HashMap<Vec<u8>, u64>,
    /// The subjects met last, by where they are in memory: the same for most bundles of a
    /// transaction. Held, so that no other can come to be there.
    met: Option<(Arc<[Subject]>, u64)>,
    /// Where the bytes of a context are put together.
    scratch: Vec<u8>,
}

impl Contexts {
    /// The number of an issuer's name.
    pub(super) fn issuer(
        &mut self,
        connection: &Connection,
        name: &str,
    ) -> Result<u64, StoreError> {
        self.scratch.clear();
        context::write_issuer(&mut self.scratch, name)?;
        self.number(connection)
    }

    /// The number of what a bundle's keys stand for.
    pub(super) fn subjects(
        &mut self,
        connection: &Connection,
        subjects: &Arc<[Subject]>,
    ) -> Result<u64, StoreError> {
        if let Some((met, number)) = &self.met
            && Arc::ptr_eq(met, subjects)
        {
            return Ok(*number);
        }
        self.scratch.clear();
        context::write_subjects(&mut self.scratch, subjects)?;
        let number = self.number(connection)?;
        self.met = Some((Arc::clone(subjects), number));
        Ok(number)
    }

    /// The number of what is in `scratch`.
    fn number(&mut self, connection: &Connection) -> Result<u64, StoreError> {
        let body = &self.scratch;
        if let Some(known) = self.numbers.get(body) {
            return Ok(*known);
        }
        let found: Option<i64> = connection
            .prepare_cached("SELECT number FROM contexts WHERE body = ?1")?
            .query_row(params![body], |row| row.get(0))
            .optional()?;
        let found = match found {
            Some(found) => found,
            None => {
                let sql = "INSERT INTO contexts (body) VALUES (?1)";
                connection.prepare_cached(sql)?.insert(params![body])?
            }
        };
        if self.numbers.len() >= REMEMBERED_MAX {
            self.numbers.clear();
        }
        let found = number(found)?;
        self.numbers.insert(body.clone(), found);
        Ok(found)
    }
}

/// The issuer's name of that number.
pub(super) fn issuer(connection: &Connection, number: u64) -> Result<Arc<str>, StoreError> {
    context::read_issuer(&body(connection, number)?)
}

/// What a bundle's keys stand for, by its number.
pub(super) fn subjects(connection: &Connection, number: u64) -> Result<Arc<[Subject]>, StoreError> {
    context::read_subjects(&body(connection, number)?)
}

fn body(connection: &Connection, number: u64) -> Result<Vec<u8>, StoreError> {
    let number = i64::try_from(number).map_err(|_| corrupt("a context's number"))?;
    connection
        .prepare_cached("SELECT body FROM contexts WHERE number = ?1")?
        .query_row(params![number], |row| row.get(0))
        .optional()?
        .ok_or_else(|| corrupt("a context is missing"))
}
