//! A store as a whole: what it holds in a form that no store keeps, read out of one and taken into
//! another; and what stands in the way of serving from it.
//!
//! | room | what it does |
//! |---|---|
//! | `entry` | one thing a store holds, spelled in one way only, so that it can be compared |
//! | `tally` | how many there are of a kind, and what all of them hash to |
//! | `copying` | one store into another, a batch at a time, and both compared |
//!
//! Deliberately not here: how a store keeps any of it. Every store reads and writes its own rows.

use super::{Store, StoreError};

mod copying;
mod entry;
mod tally;

pub use copying::{Compared, Copied, Difference, Progress, compare, copy};
pub use entry::{Entry, Kind, OrderOf};
pub use tally::Tally;

/// A store that can be read out whole, taken in whole, and fenced.
///
/// Nobody serves from a store while any of this is called, apart from [`Whole::fences`].
pub trait Whole: Store {
    /// Hands everything of a kind to `each`, always in the same order while nothing is written; an
    /// error of `each` ends it.
    fn export(
        &self,
        kind: Kind,
        each: &mut dyn FnMut(Entry) -> Result<(), StoreError>,
    ) -> Result<(), StoreError>;

    /// How many there are of a kind, about: what progress is shown by.
    fn about(&self, kind: Kind) -> Result<u64, StoreError>;

    /// Takes in what another store gave out, in the order of [`Kind::ALL`], and sets the fence
    /// [`Fence::Unfinished`] to `reached`: all in one transaction.
    fn import(&self, entries: &[Entry], reached: &str) -> Result<(), StoreError>;

    /// Tables and columns of which nobody has said whether an entry gives them out: none, unless a
    /// program has forgotten some.
    fn unspoken(&self) -> Result<Vec<String>, StoreError>;

    /// Whether it holds nothing at all.
    fn is_empty(&self) -> Result<bool, StoreError>;

    /// Removes everything that [`Whole::import`] takes in.
    fn clear(&self) -> Result<(), StoreError>;

    /// What a fence says, where it stands.
    fn fence(&self, fence: Fence) -> Result<Option<String>, StoreError>;

    /// Puts up a fence, or takes it down.
    fn set_fence(&self, fence: Fence, says: Option<&str>) -> Result<(), StoreError>;
}

/// What keeps everybody from serving from a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fence {
    /// It is being copied into. Says from where, and how far that has come.
    Unfinished,
    /// It was copied to another store, which has taken its place. Says where that is, and when.
    Moved,
}

impl Fence {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unfinished => "unfinished",
            Self::Moved => "moved",
        }
    }
}
