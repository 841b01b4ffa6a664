//! What many bundles have in common, kept once: floor 2, `store/postgres`.
//!
//! A context's id is the first half of the SHA-256 of its bytes, so nobody has to ask for it. What
//! this process has written before it does not write again.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::write::context_id;
use crate::domain::Subject;
use crate::store::StoreError;
use crate::store::encoding::context;

/// Contexts remembered at most; then the memory starts over.
const REMEMBERED_MAX: usize = 4096;

/// The contexts this process knows.
#[derive(Default)]
pub(super) struct Contexts {
    /// Committed.
    known: HashSet<[u8; 16]>,
    /// Of the transaction under way, to be written.
    new: BTreeMap<[u8; 16], Vec<u8>>,
    /// Of the transaction under way, written.
    written: HashSet<[u8; 16]>,
    /// The subjects met last, by where they are in memory: the same for most bundles of a
    /// transaction. Held, so that no other can come to be there.
    met: Option<(Arc<[Subject]>, [u8; 16])>,
    /// The same for the issuer's name.
    met_issuer: Option<(Arc<str>, [u8; 16])>,
}

impl Contexts {
    /// The id of an issuer's name.
    pub(super) fn issuer(&mut self, name: &Arc<str>) -> Result<[u8; 16], StoreError> {
        if let Some((met, id)) = &self.met_issuer
            && Arc::ptr_eq(met, name)
        {
            return Ok(*id);
        }
        let mut body = Vec::with_capacity(name.len() + 3);
        context::write_issuer(&mut body, name)?;
        let id = self.note(body);
        self.met_issuer = Some((Arc::clone(name), id));
        Ok(id)
    }

    /// The id of what a bundle's keys stand for.
    pub(super) fn subjects(&mut self, subjects: &Arc<[Subject]>) -> Result<[u8; 16], StoreError> {
        if let Some((met, id)) = &self.met
            && Arc::ptr_eq(met, subjects)
        {
            return Ok(*id);
        }
        let mut body = Vec::new();
        context::write_subjects(&mut body, subjects)?;
        let id = self.note(body);
        self.met = Some((Arc::clone(subjects), id));
        Ok(id)
    }

    /// What the transaction under way has to write beside what it has.
    pub(super) fn take_new(&mut self) -> BTreeMap<[u8; 16], Vec<u8>> {
        self.written.extend(self.new.keys());
        std::mem::take(&mut self.new)
    }

    /// The transaction is on disk.
    pub(super) fn committed(&mut self) {
        if self.known.len() >= REMEMBERED_MAX {
            self.known.clear();
            (self.met, self.met_issuer) = (None, None);
        }
        self.known.extend(self.written.drain());
    }

    /// The transaction is not.
    pub(super) fn forget(&mut self) {
        self.new.clear();
        self.written.clear();
        (self.met, self.met_issuer) = (None, None);
    }

    fn note(&mut self, body: Vec<u8>) -> [u8; 16] {
        let id = context_id(&body);
        if !(self.known.contains(&id) || self.written.contains(&id)) {
            self.new.entry(id).or_insert(body);
        }
        id
    }
}
