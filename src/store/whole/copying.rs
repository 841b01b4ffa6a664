//! One store into another.
//!
//! Entries go over in batches, each in one transaction with the note of how many there were before
//! it. Whoever is broken off goes on from there: the order in which a store gives out its entries is
//! the same while nothing is written to it. At the end both stores are read once more and compared.

use super::{Entry, Fence, Kind, Tally, Whole};
use crate::store::StoreError;

/// Entries of one transaction.
const BATCH_LEN: usize = 2048;

/// What happens while stores are copied and compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// So many entries in all, about, are to be looked at.
    Begun(u64),
    /// One of this kind was looked at.
    Passed(Kind),
}

/// What a copy has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Entries that were there already, from a copy that was broken off.
    pub before: u64,
    /// Entries that were written.
    pub written: u64,
}

/// What both stores hold of each kind, where it is the same.
pub type Compared = Vec<(Kind, Tally)>;

/// A kind of which two stores hold different things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Which.
    pub kind: Kind,
    /// What the one holds.
    pub from: Tally,
    /// What the other holds.
    pub to: Tally,
}

/// Copies everything `from` holds into `to`, which is empty or has this copy's beginning.
///
/// `name` names the state of `from` and is kept in `to` meanwhile. A beginning under another name
/// is removed first. `to` is left [`Fence::Unfinished`].
///
/// # Errors
/// Either store fails, or `to` holds something that no copy has put there.
pub fn copy(
    from: &dyn Whole,
    to: &dyn Whole,
    name: &str,
    tell: &mut dyn FnMut(Progress),
) -> Result<Copied, StoreError> {
    for store in [from, to] {
        if let Some(table) = store.unspoken()?.first() {
            let why = format!("this program does not know how to copy {table}");
            return Err(StoreError::Failed(why));
        }
    }
    let before = begin(to, name)?;
    let about = Kind::ALL.iter().map(|kind| from.about(*kind));
    tell(Progress::Begun(about.sum::<Result<_, _>>()?));
    let mut copied = Copied { before, written: 0 };
    let mut passed = 0;
    let mut batch: Vec<Entry> = Vec::with_capacity(BATCH_LEN);
    let mut flush = |batch: &mut Vec<Entry>| -> Result<(), StoreError> {
        copied.written += batch.len() as u64;
        to.import(batch, &reached(name, before + copied.written))?;
        batch.clear();
        Ok(())
    };
    for kind in Kind::ALL {
        from.export(kind, &mut |entry| {
            tell(Progress::Passed(kind));
            passed += 1;
            if passed > before {
                batch.push(entry);
            }
            if batch.len() == BATCH_LEN {
                flush(&mut batch)?;
            }
            Ok(())
        })?;
        // A batch has one kind.
        if !batch.is_empty() {
            flush(&mut batch)?;
        }
    }
    Ok(copied)
}

/// Compares everything both stores hold, kind by kind.
///
/// # Errors
/// Either store fails.
pub fn compare(
    from: &dyn Whole,
    to: &dyn Whole,
    tell: &mut dyn FnMut(Progress),
) -> Result<Result<Compared, Vec<Difference>>, StoreError> {
    let about = Kind::ALL.iter().map(|kind| from.about(*kind));
    tell(Progress::Begun(2 * about.sum::<Result<u64, _>>()?));
    let (mut same, mut different) = (Vec::new(), Vec::new());
    for kind in Kind::ALL {
        let tallies = (tally(from, kind, tell)?, tally(to, kind, tell)?);
        match tallies {
            (from, to) if from == to => same.push((kind, to)),
            (from, to) => different.push(Difference { kind, from, to }),
        }
    }
    Ok(if different.is_empty() {
        Ok(same)
    } else {
        Err(different)
    })
}

fn tally(
    store: &dyn Whole,
    kind: Kind,
    tell: &mut dyn FnMut(Progress),
) -> Result<Tally, StoreError> {
    let (mut tally, mut scratch) = (Tally::default(), Vec::new());
    store.export(kind, &mut |entry| {
        tell(Progress::Passed(kind));
        tally.add(&entry, &mut scratch)
    })?;
    Ok(tally)
}

/// How many entries `to` has of this copy.
fn begin(to: &dyn Whole, name: &str) -> Result<u64, StoreError> {
    match to.fence(Fence::Unfinished)? {
        Some(says) => {
            let of_this = says
                .strip_prefix(name)
                .and_then(|rest| rest.strip_prefix(' '));
            if let Some(before) = of_this.and_then(|count| count.parse().ok()) {
                return Ok(before);
            }
            to.clear()?;
        }
        None if to.is_empty()? => {}
        None => {
            return Err(StoreError::Failed(
                "there is an issuer in the store already".into(),
            ));
        }
    }
    to.set_fence(Fence::Unfinished, Some(&reached(name, 0)))?;
    Ok(0)
}

fn reached(name: &str, count: u64) -> String {
    format!("{name} {count}")
}
