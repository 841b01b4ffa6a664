//! How many signatures this process has had of its tokens, under each epoch's key, and what became
//! of those that were not committed: floor 3. What was committed the store counts.
//!
//! What is counted here comes along with the next transaction ([`Write::Signed`]), so that it costs
//! no round of its own; a process that ends in order has it written once more at the end. What it
//! has counted and not written down when it is killed is bounded: what was on its way through the
//! stages.
//!
//! Deliberately not here: what the HSM signs before an epoch is one, and with each step of its life
//! (`generate`): those are a few trials each.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::concurrent::{Mutex, MutexGuard};
use crate::domain::EpochId;
use crate::store::{Applied, Made, Recorded, SignedSoFar, Write, borne, recorded};

/// Calls into the HSM beside the batches that may wait for a commit at once: four that issue again,
/// one that signs lists, and a few syncs.
const BESIDE: u64 = 8;

/// Batches that are signed and not committed, beside those of each station: two in a transaction, two
/// that are ready for the next, and one that waits.
const BEHIND: u64 = 5;

/// The count.
pub(crate) struct Tally {
    process: [u8; 16],
    /// Calls into the HSM whose signatures may not be written down, at most.
    calls_max: u64,
    of: Mutex<BTreeMap<EpochId, Made>>,
    /// Whether anything was counted since it was handed out to be written. Set after it is counted,
    /// taken before it is read.
    fresh: AtomicBool,
}

impl Tally {
    /// Nothing, of a process with so many stations. Each may have a batch that it signs, and one
    /// that waits to be handed on.
    pub(super) fn new(process: [u8; 16], stations: usize) -> Self {
        Self {
            process,
            calls_max: 2 * stations as u64 + BEHIND + BESIDE,
            of: Mutex::new(BTreeMap::new()),
            fresh: AtomicBool::new(false),
        }
    }

    /// A token has answered a call with so many signatures.
    pub(super) fn made(&self, epoch: EpochId, signatures: usize) {
        metrics::counter!("fob_hsm_signatures_total").increment(signatures as u64);
        let call = signatures as u64;
        self.note(epoch, |made| {
            made.signed += call;
            made.in_flight_max = made.in_flight_max.max(call.saturating_mul(self.calls_max));
        });
    }

    /// One of them was a trial.
    pub(super) fn tried(&self, epoch: EpochId) {
        self.note(epoch, |made| made.tried += 1);
    }

    /// One of them was a sync.
    pub(super) fn synced(&self, epoch: EpochId) {
        self.note(epoch, |made| made.synced += 1);
    }

    /// So many of them are let go of, or are until somebody has them written.
    pub(super) fn given_up(&self, epoch: EpochId, signatures: usize) {
        self.note(epoch, |made| made.given_up += signatures as u64);
    }

    /// A token was asked for so many, and has answered with none.
    pub(super) fn failed(&self, epoch: EpochId, messages: usize) {
        self.note(epoch, |made| made.failed += messages as u64);
    }

    /// What was signed beside the batches is about to be committed: it is not given up any more.
    pub(super) fn take_on(&self, writes: &[Write]) {
        let beside = |write: &&Write| !matches!(write, Write::Redeem(_) | Write::Renew(_));
        for (epoch, borne) in borne(writes.iter().filter(beside)) {
            let signatures = borne.signatures();
            if signatures > 0 {
                self.note(epoch, |made| {
                    made.given_up = made.given_up.saturating_sub(signatures);
                });
            }
        }
    }

    /// A transaction took place: what its writes brought and the store has not recorded is given up.
    pub(super) fn settle(&self, writes: &[Write], applied: &[Applied]) {
        self.give_up_but(borne(writes), &recorded(writes, applied));
    }

    /// What these writes brought is given up, apart from what `others` bring too.
    pub(super) fn let_go(&self, writes: &[Write], others: &[Write]) {
        self.give_up_but(borne(writes), &borne(others));
    }

    fn give_up_but(
        &self,
        brought: BTreeMap<EpochId, Recorded>,
        kept: &BTreeMap<EpochId, Recorded>,
    ) {
        for (epoch, brought) in brought {
            let kept = kept.get(&epoch).map_or(0, Recorded::signatures);
            let lost = brought.signatures().saturating_sub(kept);
            if lost > 0 {
                self.note(epoch, |made| made.given_up += lost);
            }
        }
    }

    /// Has the count come along with a transaction: where there is something new, or it records or
    /// removes what is counted.
    pub(super) fn come_along(&self, writes: &mut Vec<Write>) {
        let fresh = self.fresh.swap(false, Ordering::AcqRel);
        if fresh || writes.iter().any(is_counted) {
            writes.push(self.so_far(false));
        }
    }

    /// It was not written.
    pub(super) fn not_written(&self) {
        self.fresh.store(true, Ordering::Release);
    }

    /// The count at the end; `None` where nothing was signed.
    pub(super) fn at_the_end(&self) -> Option<Write> {
        let any = !self.lock().is_empty();
        any.then(|| self.so_far(true))
    }

    fn so_far(&self, ended: bool) -> Write {
        let made = self.lock().iter().map(|(id, made)| (*id, *made)).collect();
        let process = self.process;
        Write::Signed(
            SignedSoFar {
                process,
                made,
                ended,
            }
            .into(),
        )
    }

    fn note(&self, epoch: EpochId, change: impl FnOnce(&mut Made)) {
        change(self.lock().entry(epoch).or_default());
        self.fresh.store(true, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<EpochId, Made>> {
        self.of.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the store counts something of it.
fn is_counted(write: &Write) -> bool {
    match write {
        Write::Redeem(_) | Write::Renew(_) | Write::Lists(_) | Write::Purge(..) => true,
        Write::Amend(amendment) => amendment.reissue.is_some(),
        Write::Reset(reset) => reset.amendments.iter().any(|it| it.reissue.is_some()),
        Write::Under(_, write) | Write::Act(_, Some(write)) => is_counted(write),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: EpochId = EpochId([1; 8]);

    fn said(write: Option<&Write>) -> Option<(Made, bool)> {
        match write {
            Some(Write::Signed(so_far)) => Some((so_far.made.first()?.1, so_far.ended)),
            _ => None,
        }
    }

    #[test]
    fn what_is_new_comes_along_once_and_all_of_it_at_the_end() {
        let tally = Tally::new([7; 16], 2);
        assert!(tally.at_the_end().is_none());
        let mut writes = Vec::new();
        tally.come_along(&mut writes);
        assert!(writes.is_empty());
        tally.made(EPOCH, 5);
        tally.made(EPOCH, 3);
        tally.tried(EPOCH);
        tally.failed(EPOCH, 4);
        let made = Made {
            signed: 8,
            tried: 1,
            failed: 4,
            in_flight_max: 5 * 17,
            ..Made::default()
        };
        tally.come_along(&mut writes);
        assert_eq!(said(writes.last()), Some((made, false)));
        tally.come_along(&mut writes);
        assert_eq!(writes.len(), 1, "that is known");
        tally.not_written();
        tally.come_along(&mut writes);
        assert_eq!(writes.len(), 2);
        // A purge takes away what is counted, whether or not anything is new.
        let mut purge = vec![Write::Purge(1, 1)];
        tally.come_along(&mut purge);
        assert_eq!(said(purge.last()), Some((made, false)));
        assert_eq!(said(tally.at_the_end().as_ref()), Some((made, true)));
    }

    #[test]
    fn what_is_signed_beside_the_batches_is_given_up_until_it_is_written() {
        use crate::domain::ShardId;
        use crate::store::{Listed, SignedList};
        let list = SignedList {
            listed: Listed {
                shard: ShardId { tag: 1, number: 0 },
                issued_at: 1,
                expires: 2,
            },
            epoch: EPOCH,
            revision: 0,
            content: [0; 32],
            bytes: Vec::new().into(),
        };
        let writes = [Write::Lists([list].into())];
        let given_up = |tally: &Tally| said(tally.at_the_end().as_ref()).unwrap().0.given_up;
        let tally = Tally::new([7; 16], 1);
        tally.made(EPOCH, 2);
        tally.given_up(EPOCH, 2);
        tally.take_on(&writes);
        assert_eq!(given_up(&tally), 1);
        tally.settle(&writes, &[Applied::Done]);
        assert_eq!(given_up(&tally), 1);
        tally.take_on(&writes);
        tally.settle(&writes, &[Applied::Stale]);
        assert_eq!(given_up(&tally), 1);
        tally.let_go(&writes, &writes);
        assert_eq!(given_up(&tally), 1);
        tally.let_go(&writes, &[]);
        assert_eq!(given_up(&tally), 2);
    }
}
