//! Signatures: what was counted as they were made, against what was recorded of them, against what
//! is there, and against what the HSM says where somebody has asked it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::issuer::Issuer;
use super::{Flaw, Report};
use crate::domain::EpochId;
use crate::engine::generate::SIGNED_IN_STEP_MAX;
use crate::store::SignatureCount;

/// Stands for whoever signed before anybody counted.
const NOBODY: [u8; 16] = [0; 16];

/// What was signed under an epoch's key, and what became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OfSigned {
    /// Whether everything it signed was counted; otherwise it is older than the count.
    pub complete: bool,
    /// Signatures that processes had of their tokens.
    pub signed: u64,
    /// Of these, in what was committed, purged by now or not.
    pub recorded: u64,
    /// Of these, syncs: given out, and kept nowhere.
    pub synced: u64,
    /// Of these, trials, and what did not verify or was for something that did not take place.
    pub given_up: u64,
    /// The others: signed, and not committed before their process was killed, or in doubt.
    pub unsettled: u64,
    /// Asked for, and not answered with.
    pub failed: u64,
    /// Processes that have not ended in order: they were killed, or still run.
    pub killed: u64,
    /// What the HSM says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hsm: Option<OfHsm>,
}

/// What the HSM has signed with an epoch's key by its own count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OfHsm {
    /// What it says.
    pub says: u64,
    /// So many more than were counted here.
    pub beyond: u64,
    /// So many more can be explained; `None` where there is no bound: the epoch is older than the
    /// count, or a backup was put back.
    pub explained_max: Option<u64>,
}

/// Sums of an epoch's counts.
#[derive(Default)]
struct Sums {
    says: OfSigned,
    keys_and_trees: u64,
    versions: u64,
    gone: u64,
    in_flight_max: u64,
    uncounted: bool,
}

/// Compares the counts with each other, with what the report has found by now, and with what the
/// HSM says.
pub(super) fn check(issuer: &Issuer, hsm_signed: &BTreeMap<EpochId, u64>, report: &mut Report) {
    let mut all: BTreeMap<EpochId, Sums> = BTreeMap::new();
    for count in &issuer.counts {
        add(all.entry(count.epoch).or_default(), count, report);
    }
    for id in issuer.epochs.keys() {
        all.entry(*id).or_default();
    }
    for (id, mut sums) in all {
        sums.says.complete = !sums.uncounted;
        against_bundles(id, &sums, report);
        sums.says.hsm = hsm_signed
            .get(&id)
            .map(|says| against_hsm(id, *says, &sums, issuer, report));
        let of = report.epochs.entry(id.to_string()).or_default();
        of.made = sums.says;
    }
}

fn add(sums: &mut Sums, count: &SignatureCount, report: &mut Report) {
    let SignatureCount {
        epoch,
        process,
        made,
        recorded,
        ended,
    } = count;
    if *process == NOBODY {
        sums.uncounted = true;
    }
    let settled = recorded.signatures() + made.synced + made.tried + made.given_up;
    if settled > made.signed {
        let process = u128::from_be_bytes(*process);
        let detail = format!(
            "process {process:032x} had {} of its tokens, and {settled} of them are accounted for",
            made.signed
        );
        report.find(Flaw::SignedFewer, format!("epoch {epoch}"), detail);
    }
    let says = &mut sums.says;
    says.signed += made.signed;
    says.recorded += recorded.signatures();
    says.synced += made.synced;
    says.given_up += made.tried + made.given_up;
    says.unsettled += made.signed.saturating_sub(settled);
    says.failed += made.failed;
    says.killed += u64::from(!ended);
    sums.keys_and_trees += recorded.keys + recorded.trees;
    sums.versions += recorded.versions;
    sums.gone += recorded.gone;
    if !ended {
        sums.in_flight_max += made.in_flight_max;
    }
}

/// What is there against what was recorded.
fn against_bundles(id: EpochId, sums: &Sums, report: &mut Report) {
    let found = report.epochs.get(&id.to_string());
    let (versions, signatures) = found.map_or((0, 0), |of| (of.versions, of.signatures));
    let of = || format!("epoch {id}");
    let left = sums.versions.saturating_sub(sums.gone);
    if versions < left {
        let detail = format!("{left} were recorded and not purged, {versions} are there");
        return report.find(Flaw::VersionsLost, of(), detail);
    }
    if sums.uncounted {
        return;
    }
    if versions > left {
        let detail = format!("{left} were recorded and not purged, {versions} are there");
        return report.find(Flaw::VersionUncounted, of(), detail);
    }
    let recorded = sums.keys_and_trees;
    if signatures > recorded || sums.gone == 0 && signatures < recorded {
        let detail = format!("{recorded} were recorded, {signatures} are there");
        report.find(Flaw::SignaturesDiffer, of(), detail);
    }
}

/// What was counted against what the HSM says.
fn against_hsm(id: EpochId, says: u64, sums: &Sums, issuer: &Issuer, report: &mut Report) -> OfHsm {
    let of = || format!("epoch {id}");
    let signed = sums.says.signed;
    if says < signed {
        let detail = format!("the HSM says {says}, and {signed} were counted");
        report.find(Flaw::HsmSignedFewer, of(), detail);
    }
    let beyond = says.saturating_sub(signed);
    let steps = issuer.records.len() as u64 * SIGNED_IN_STEP_MAX;
    let bounded = sums.says.complete && issuer.restore.number == 0;
    let explained_max = bounded.then_some(sums.says.failed + sums.in_flight_max + steps);
    if explained_max.is_some_and(|most| beyond > most) {
        let detail = format!(
            "the HSM says {says}, {beyond} more than were counted; crashes, failed calls and steps \
             in the life of epochs explain {}",
            explained_max.unwrap_or_default()
        );
        report.find(Flaw::HsmSignedMore, of(), detail);
    }
    OfHsm {
        says,
        beyond,
        explained_max,
    }
}
