//! A store as a whole: what it holds in a form that no store keeps, read out of one and taken into
//! another; how far it has come, and what stands in the way of serving from it.
//!
//! | room | what it does |
//! |---|---|
//! | `entry` | one thing a store holds, spelled in one way only, so that it can be compared |
//! | `tally` | how many there are of a kind, and what all of them hash to |
//! | `witness` | how far a store has come, known outside of it |
//! | `copying` | one store into another, a batch at a time, and both compared |
//!
//! Deliberately not here: how a store keeps any of it. Every store reads and writes its own rows.

use super::{Act, SignedList, Store, StoreError};
use crate::domain::{Restore, UnixTime};

mod copying;
mod entry;
mod tally;
mod witness;

pub use copying::{Compared, Copied, Difference, Progress, compare, copy};
pub use entry::{Entry, Kind, OrderOf};
pub use tally::Tally;
pub use witness::{Testimony, WITNESS_FILE, Witness, Witnessed};

/// A store that can be read out whole and taken in whole.
///
/// Nobody serves from a store while any of this is called.
pub trait Whole: Fenced {
    /// Hands everything of a kind to `each`, always in the same order while nothing is written; an
    /// error of `each` ends it.
    fn export(
        &self,
        kind: Kind,
        each: &mut dyn FnMut(Entry) -> Result<(), StoreError>,
    ) -> Result<(), StoreError>;

    /// Hands every status list to `each` as it was given out last, by list. Where that is not known,
    /// since a copy or a restore, there is none.
    fn lists_given_out(
        &self,
        each: &mut dyn FnMut(SignedList) -> Result<(), StoreError>,
    ) -> Result<(), StoreError>;

    /// How many there are of a kind, about: what progress is shown by.
    fn about(&self, kind: Kind) -> Result<u64, StoreError>;

    /// Takes in what another store gave out, in the order of [`Kind::ALL`], and sets the fence
    /// [`Fence::Unfinished`] to `reached`: all in one transaction.
    fn import(&self, entries: &[Entry], reached: &str) -> Result<(), StoreError>;

    /// Whether it holds nothing at all.
    fn is_empty(&self) -> Result<bool, StoreError>;

    /// Removes everything that [`Whole::import`] takes in.
    fn clear(&self) -> Result<(), StoreError>;

    /// Tables and columns of which nobody has said whether an entry gives them out: none, unless a
    /// program has forgotten some.
    fn unspoken(&self) -> Result<Vec<String>, StoreError>;
}

/// A store of which is known how far it has come, and whether it may be served from.
pub trait Fenced: Store {
    /// What a fence says, where it stands.
    fn fence(&self, fence: Fence) -> Result<Option<String>, StoreError>;

    /// Puts up a fence, or takes it down.
    fn set_fence(&self, fence: Fence, says: Option<&str>) -> Result<(), StoreError>;

    /// The last transaction that this process has committed; `None` before the first.
    fn position(&self) -> Option<Position>;

    /// Whether it has this transaction, or a later one of the same process.
    fn reaches(&self, position: Position) -> Result<bool, StoreError>;

    /// When anybody wrote into it last, by its own clock; `None` where that is not known.
    fn last_written(&self) -> Result<Option<UnixTime>, StoreError>;

    /// The last restore.
    fn restored(&self) -> Result<Restore, StoreError>;

    /// Fences off what was before a restore, in one transaction: code sets that are open are
    /// cancelled, and every count is raised to what the restore says. With it the acts it is kept as.
    fn restore(&self, restore: Restore, acts: &[Act]) -> Result<FencedOff, StoreError>;
}

/// A transaction: which of which process. The default stands for none, which every store has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// A process, by a random number.
    pub process: [u8; 16],
    /// Its transaction, from 1.
    pub number: u64,
}

/// What a restore has touched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FencedOff {
    /// Code sets that were open, and are cancelled.
    pub code_sets: u64,
    /// Vehicles whose epoch was raised.
    pub vehicles: u64,
    /// Fleets whose count of status indexes was raised.
    pub fleets: u64,
}

/// What is said of a store as a whole. The first two keep everybody from serving from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fence {
    /// It is being copied into. Says from where, and how far that has come.
    Unfinished,
    /// It was copied to another store, which has taken its place. Says where that is, and when.
    Moved,
    /// There is a file that says how far it has come.
    Witnessed,
}

impl Fence {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unfinished => "unfinished",
            Self::Moved => "moved",
            Self::Witnessed => "witnessed",
        }
    }
}
