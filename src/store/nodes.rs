//! What several nodes need of a store that they share: who does what only one may do, and what the
//! others have changed. Part of the contract; a store of one node has nothing of it.

use std::sync::Arc;
use std::time::Duration;

use super::{Listed, Row, StoreError};
use crate::domain::EpochId;

/// A store that several nodes serve from at once.
pub trait Nodes: Send + Sync {
    /// Makes this process known as a node that serves. Returns its number, which no other node has.
    ///
    /// # Errors
    /// The store's.
    fn register(&self) -> Result<u64, StoreError>;

    /// Says that this node is there; returns how many were within `within`, this one included.
    ///
    /// # Errors
    /// The store's.
    fn beat(&self, within: Duration) -> Result<u64, StoreError>;

    /// Takes a lease for `term`, or keeps it for `term` from now, by the store's clock; zero gives
    /// it back. `None` where another has it. Its number stays the same while it is kept, and is
    /// higher than before where it was not held at that moment, by this node or another.
    ///
    /// # Errors
    /// The store's: then it is held for no longer than was known before.
    fn hold(&self, task: Task, term: Duration) -> Result<Option<Lease>, StoreError>;

    /// Hands every row to `each` that others have changed since the last [`super::Store::load`] or
    /// the last call of this that succeeded: all of them as of one commit, and nothing that was
    /// committed before the call is missing. Keys' standing comes before authorizations.
    ///
    /// To be called by whoever commits, between commits: then what this process has committed is
    /// in what is read, or comes after it.
    ///
    /// # Errors
    /// The store's: the same is told again by the next call.
    fn news(&self, each: &mut dyn FnMut(Row)) -> Result<News, StoreError>;
}

/// What is done by one node at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Task {
    /// Changing epochs as the schedule says, and purging.
    Keeping,
    /// Signing status lists.
    Lists,
}

impl Task {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Keeping, Self::Lists];

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Keeping => "keeping",
            Self::Lists => "lists",
        }
    }
}

/// The right to do a task, taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// What may be done.
    pub task: Task,
    /// Which taking of all.
    pub number: u64,
}

/// What became of asking for news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// All of it was told.
    Told,
    /// There is more than is kept, or too much: load everything anew.
    TooMuch,
}

/// A status list that was signed, as all nodes give it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedList {
    /// Which list, and when it was signed.
    pub listed: Listed,
    /// Which epoch signed it.
    pub epoch: EpochId,
    /// It says what every amendment up to this one has marked.
    pub revision: u64,
    /// SHA-256 of its entries, four to an octet; zeros where there is one node.
    pub content: [u8; 32],
    /// Its token, as cars get it.
    pub bytes: Arc<[u8]>,
}
