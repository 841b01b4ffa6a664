//! What the issuer is: epochs, the trust list, records, fleets and their registry.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use fob_verify::trust::{self, TrustList};
use fob_verify::{IssuerKey, RustCrypto, Verified};

use super::acts::Made;
use super::{Flaw, OfEpoch, Report};
use crate::domain::record::EpochNote;
use crate::domain::{
    Epoch, EpochId, EpochState, Fleet, FleetId, IdentityId, Restore, ShardId, TerminalId, UnixTime,
    VehicleId,
};
use crate::engine::records;
use crate::engine::statuses::Statuses;
use crate::store::whole::{Entry, Kind, Progress, Whole};
use crate::store::{SignatureCount, StoreError};

/// What is read here.
pub(super) const KINDS: [Kind; 13] = [
    Kind::Fleets,
    Kind::Vehicles,
    Kind::Identities,
    Kind::Terminals,
    Kind::Tokens,
    Kind::Acts,
    Kind::Epochs,
    Kind::Signatures,
    Kind::TrustLists,
    Kind::Records,
    Kind::Revisions,
    Kind::Restores,
    Kind::Statuses,
];

/// The issuer, as the store has it.
#[derive(Default)]
pub(super) struct Issuer {
    pub(super) fleets: HashMap<FleetId, Fleet>,
    pub(super) epochs: HashMap<EpochId, Epoch>,
    pub(super) restore: Restore,
    /// How many amendments there were.
    pub(super) revision: u64,
    pub(super) statuses: Statuses,
    /// Where keys are marked.
    pub(super) marked: Vec<(ShardId, u32)>,
    /// The epochs of vehicles.
    pub(super) vehicles: HashMap<(FleetId, VehicleId), u32>,
    owners: Vec<(FleetId, VehicleId, IdentityId)>,
    holders: Vec<(FleetId, TerminalId, IdentityId)>,
    identities: HashSet<(FleetId, IdentityId)>,
    trust: Option<(u32, Arc<[u8]>)>,
    pub(super) records: Vec<Arc<str>>,
    /// Signatures counted.
    pub(super) counts: Vec<SignatureCount>,
    pub(super) made: Made,
}

impl Issuer {
    pub(super) fn read(
        store: &dyn Whole,
        tell: &mut dyn FnMut(Progress),
    ) -> Result<Self, StoreError> {
        let mut issuer = Self::default();
        for kind in KINDS {
            store.export(kind, &mut |entry| {
                tell(Progress::Passed(kind));
                issuer.take(entry);
                Ok(())
            })?;
        }
        issuer.statuses.restored(issuer.restore);
        Ok(issuer)
    }

    fn take(&mut self, entry: Entry) {
        match entry {
            Entry::Fleet(fleet) => {
                self.made.fleet(&fleet);
                self.fleets.insert(fleet.id, fleet);
            }
            Entry::Token(token) => self.made.token(&token),
            Entry::Act(_, act) => self.made.act(&act),
            Entry::Vehicle(it) => {
                self.vehicles.insert((it.fleet, it.id.clone()), it.epoch);
                let owner = it.owner.map(|owner| (it.fleet, it.id, owner));
                self.owners.extend(owner);
            }
            Entry::Identity(it) => drop(self.identities.insert((it.fleet, it.id))),
            Entry::Terminal(it) => self.holders.push((it.fleet, it.id, it.identity)),
            Entry::Epoch(_, epoch) => drop(self.epochs.insert(epoch.id, epoch)),
            Entry::Signatures(count) => self.counts.push(count),
            Entry::TrustList(version, bytes)
                if self
                    .trust
                    .as_ref()
                    .is_none_or(|(newest, _)| *newest < version) =>
            {
                self.trust = Some((version, bytes));
            }
            Entry::Record(_, text) => self.records.push(text),
            Entry::Revision(count) => self.revision = count,
            Entry::Restore(restore) => self.restore = restore,
            Entry::Status {
                shard, index, held, ..
            } => {
                self.marked.push((shard, index));
                self.statuses.put(shard, index, held);
            }
            _ => {}
        }
    }

    /// The newest trust list, where a car would take it at `now`.
    pub(super) fn trusted(
        &self,
        root: IssuerKey,
        now: UnixTime,
    ) -> Result<Verified<TrustList<'_>>, String> {
        let Some((_, bytes)) = &self.trust else {
            return Err("there is none".into());
        };
        trust::verify(bytes, &[root], now, &RustCrypto).map_err(|why| why.to_string())
    }

    pub(super) fn check(&self, root: IssuerKey, now: UnixTime, report: &mut Report) {
        report.marks = self.marked.len() as u64;
        self.check_records(root, report);
        self.check_registry(report);
        for (id, epoch) in &self.epochs {
            let of = OfEpoch {
                state: epoch.state.name(),
                ..OfEpoch::default()
            };
            report.epochs.insert(id.to_string(), of);
        }
        let active = || {
            let all = self.epochs.values();
            all.filter(|epoch| epoch.state == EpochState::Active)
        };
        let mut tokens = BTreeMap::<_, u32>::new();
        for epoch in active() {
            *tokens.entry(&epoch.token_serial).or_default() += 1;
        }
        for (token, count) in tokens.into_iter().filter(|(_, count)| *count > 1) {
            report.find(Flaw::EpochsActive, token, format!("{count} are active"));
        }
        let trusted = match self.trusted(root, now) {
            Ok(trusted) => trusted,
            Err(why) => return report.find(Flaw::TrustListVoid, "trust list", why),
        };
        for epoch in active() {
            let entry = trusted.issuer_for(&epoch.id.0);
            if entry.is_none_or(|entry| entry.key != epoch.key) {
                let version = format!("version {} does not name it", trusted.version());
                report.find(Flaw::EpochUnlisted, epoch.id, version);
            }
        }
    }

    fn check_records(&self, root: IssuerKey, report: &mut Report) {
        let epochs: Vec<_> = self.epochs.values().map(EpochNote::from).collect();
        let ends = records::Ends {
            epochs: &epochs,
            trust_version: self.trust.as_ref().map_or(0, |(version, _)| *version),
            root,
        };
        let checked = records::check(self.records.iter().map(|text| &**text), &ends);
        if let Err((number, why)) = checked {
            report.find(Flaw::RecordWrong, format!("record {number}"), why);
        }
    }

    fn check_registry(&self, report: &mut Report) {
        let unknown = |fleet: &FleetId, id: &IdentityId| {
            let name = (*fleet, id.clone());
            !self.identities.contains(&name)
        };
        for (fleet, vehicle, owner) in &self.owners {
            if unknown(fleet, owner) {
                let of = format!("vehicle {}", vehicle.as_str());
                report.find(Flaw::OwnerUnknown, of, owner.as_str());
            }
        }
        for (fleet, terminal, identity) in &self.holders {
            if unknown(fleet, identity) {
                let of = format!("terminal {}", terminal.as_str());
                report.find(Flaw::TerminalOfNobody, of, identity.as_str());
            }
        }
    }
}
