//! Signatures counted: how many a process has had of its tokens under each epoch's key, and what
//! became of them. Part of the contract.
//!
//! There are two who count, each what it sees, so that the one can be held against the other. The
//! process says what its tokens have made, and what of that went nowhere; the store says what of it
//! was committed, in the transaction that commits it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::{Amendment, Applied, Proof, Signature, SignedBundle, Write};
use crate::domain::EpochId;

/// What a process says of its signatures so far, by epoch, since it began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedSoFar {
    /// A random number, which no other process has.
    pub process: [u8; 16],
    /// Epochs under whose keys anything was signed.
    pub made: Vec<(EpochId, Made)>,
    /// Whether nothing more will come: the process ends in order.
    pub ended: bool,
}

/// Signatures under one epoch's key, as the process counts them that had them made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// All that its tokens have answered with.
    pub signed: u64,
    /// Of these, syncs: given out, and kept nowhere.
    pub synced: u64,
    /// Of these, trials.
    pub tried: u64,
    /// Of these, what was let go of: it did not verify, or what it was for did not take place.
    pub given_up: u64,
    /// Asked for, and not answered with: of these a token may have made some.
    pub failed: u64,
    /// The most that may be signed at a moment and not be written down here.
    pub in_flight_max: u64,
}

/// Signatures under one epoch's key, as the store counts what it commits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Of keys that were signed one by one.
    pub keys: u64,
    /// Of trees' roots that a bundle hangs from.
    pub trees: u64,
    /// Of status lists.
    pub lists: u64,
    /// Versions of bundles that were written as the epoch signed them.
    pub versions: u64,
    /// Versions of these that went again: purged, or signed anew by another epoch.
    pub gone: u64,
}

impl Recorded {
    /// All signatures.
    pub fn signatures(&self) -> u64 {
        self.keys + self.trees + self.lists
    }
}

/// What is kept of an epoch and a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignatureCount {
    /// Whose key.
    pub epoch: EpochId,
    /// The process; all zeros stand for what was signed before anybody counted.
    pub process: [u8; 16],
    /// What the process has said last.
    pub made: Made,
    /// What was committed.
    pub recorded: Recorded,
    /// Whether the process has ended in order.
    pub ended: bool,
}

/// What the writes of a transaction bring to each epoch's counts.
#[derive(Default)]
struct Gathered {
    of: BTreeMap<EpochId, Recorded>,
    roots: HashSet<(EpochId, Signature)>,
    last_root: Option<(EpochId, Signature)>,
}

/// What a transaction has recorded, by epoch: what of its writes took place.
pub fn recorded<'a>(
    writes: impl IntoIterator<Item = &'a Write>,
    applied: &[Applied],
) -> BTreeMap<EpochId, Recorded> {
    let mut gathered = Gathered::default();
    for (write, applied) in writes.into_iter().zip(applied) {
        if applied.took_place() {
            gathered.add(write);
        }
    }
    gathered.of
}

/// What a transaction would record, by epoch, were every write to take place.
pub fn borne<'a>(writes: impl IntoIterator<Item = &'a Write>) -> BTreeMap<EpochId, Recorded> {
    let mut gathered = Gathered::default();
    writes.into_iter().for_each(|write| gathered.add(write));
    gathered.of
}

impl Gathered {
    fn add(&mut self, write: &Write) {
        match write {
            Write::Redeem(redemption) => self.bundle(&redemption.signed),
            Write::Renew(renewal) => {
                self.bundle(&renewal.signed);
                self.of.entry(renewal.from).or_default().gone += 1;
            }
            Write::Amend(amendment) => self.amendment(amendment),
            Write::Reset(reset) => reset.amendments.iter().for_each(|it| self.amendment(it)),
            Write::Lists(lists) => {
                for list in &**lists {
                    self.of.entry(list.epoch).or_default().lists += 1;
                }
            }
            Write::Under(_, write) | Write::Act(_, Some(write)) => self.add(write),
            _ => {}
        }
    }

    fn amendment(&mut self, amendment: &Arc<Amendment>) {
        if let Some(reissue) = &amendment.reissue {
            self.bundle(&reissue.signed);
        }
    }

    fn bundle(&mut self, signed: &SignedBundle) {
        let epoch = signed.bundle.epoch;
        let of = self.of.entry(epoch).or_default();
        of.versions += 1;
        match &signed.proof {
            Proof::Each(signatures) => of.keys += signatures.len() as u64,
            Proof::Tree(proof) => {
                let root = (epoch, proof.signature);
                // Bundles of one tree mostly follow each other.
                if self.last_root != Some(root) {
                    self.last_root = Some(root);
                    of.trees += u64::from(self.roots.insert(root));
                }
            }
        }
    }
}

/// What the transaction brings to the counts that its last [`Write::Signed`] names: all of what is
/// kept of an epoch, with `recorded` to be added to what is there. Nothing where it has none.
pub(in crate::store) fn counts(
    writes: &[Write],
    applied: &[Applied],
    purged: &BTreeMap<EpochId, u64>,
) -> Vec<SignatureCount> {
    let so_far = writes.iter().rev().find_map(|write| match write {
        Write::Signed(so_far) => Some(so_far),
        _ => None,
    });
    let Some(so_far) = so_far else {
        return Vec::new();
    };
    let mut all = recorded(writes, applied);
    for (epoch, gone) in purged {
        all.entry(*epoch).or_default().gone += gone;
    }
    let mut made: BTreeMap<EpochId, Made> = so_far.made.iter().copied().collect();
    for epoch in all.keys() {
        made.entry(*epoch).or_default();
    }
    let count = |(epoch, made)| SignatureCount {
        epoch,
        process: so_far.process,
        made,
        recorded: all.get(&epoch).copied().unwrap_or_default(),
        ended: so_far.ended,
    };
    made.into_iter().map(count).collect()
}
