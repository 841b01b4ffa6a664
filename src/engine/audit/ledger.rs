//! What was authorized, issued, answered and revoked, against each other.

use std::collections::{HashMap, HashSet};

use rayon::prelude::*;

use super::counted::{Counted, Misplaced};
use super::issuer::Issuer;
use super::keys::{Checker, Wrong};
use super::lists::Lists;
use super::{Flaw, OfFleet, Report};
use crate::domain::change::grants;
use crate::domain::{
    Authorization, AuthorizationId, AuthorizationState, BundleId, EpochState, FleetId, KeyStatus,
    ShardId, UnixTime,
};
use crate::hsm::Signature;
use crate::store::whole::{Entry, Kind, OrderOf, Progress, Whole};
use crate::store::{Proof, SignedBundle, StoreError};

/// What is read here.
pub(super) const KINDS: [Kind; 5] = [
    Kind::Authorizations,
    Kind::Bundles,
    Kind::Requests,
    Kind::Commands,
    Kind::Orders,
];

/// Bundles that are checked side by side.
const CHUNK_LEN: usize = 1024;

/// All versions of a bundle, and what makes it an order's.
type Versions = (Vec<SignedBundle>, Option<OrderOf>);

/// What has been read so far.
pub(super) struct Ledger<'a> {
    issuer: &'a Issuer,
    authorizations: HashMap<AuthorizationId, (Authorization, Option<BundleId>)>,
    counted: HashMap<FleetId, Counted>,
    /// Bundles that were met, and by what they were issued on.
    bundles: HashSet<BundleId>,
    issued: HashMap<AuthorizationId, BundleId>,
    trees: HashSet<Signature>,
    lists: Lists,
}

impl<'a> Ledger<'a> {
    pub(super) fn read(
        store: &dyn Whole,
        issuer: &'a Issuer,
        lists: Lists,
        report: &mut Report,
        tell: &mut dyn FnMut(Progress),
    ) -> Result<Self, StoreError> {
        let counted = issuer.fleets.values();
        let mut ledger = Self {
            issuer,
            authorizations: HashMap::new(),
            counted: counted
                .map(|fleet| (fleet.id, Counted::of(fleet)))
                .collect(),
            bundles: HashSet::new(),
            issued: HashMap::new(),
            trees: HashSet::new(),
            lists,
        };
        store.export(Kind::Authorizations, &mut |entry| {
            tell(Progress::Passed(Kind::Authorizations));
            if let Entry::Authorization(authorization, _, bundle) = entry {
                report.authorizations += 1;
                let known = (*authorization, bundle);
                ledger.authorizations.insert(known.0.id, known);
            }
            Ok(())
        })?;
        Ok(ledger)
    }

    /// Looks at every bundle: signatures side by side, everything else one after the other.
    pub(super) fn bundles(
        &mut self,
        store: &dyn Whole,
        checker: &Checker<'_>,
        report: &mut Report,
        tell: &mut dyn FnMut(Progress),
    ) -> Result<(), StoreError> {
        let now = checker.now;
        let threads = rayon::ThreadPoolBuilder::new().build();
        let threads = threads.map_err(|why| StoreError::Failed(why.to_string()))?;
        let mut chunk: Vec<Versions> = Vec::with_capacity(CHUNK_LEN);
        let mut look = |chunk: &mut Vec<Versions>, report: &mut Report| {
            let checked: Vec<Vec<Vec<Wrong>>> = threads.install(|| {
                let each = |(versions, _): &Versions| {
                    versions.iter().map(|one| checker.check(one)).collect()
                };
                chunk.par_iter().map(each).collect()
            });
            for ((versions, order), wrong) in chunk.drain(..).zip(checked) {
                self.bundle(&versions, order.as_ref(), wrong, now, report);
            }
        };
        store.export(Kind::Bundles, &mut |entry| {
            tell(Progress::Passed(Kind::Bundles));
            let Entry::Bundle(signed, order) = entry else {
                return Ok(());
            };
            match chunk.last_mut() {
                // The versions of one bundle follow each other.
                Some((versions, _)) if versions[0].bundle.id == signed.bundle.id => {
                    versions.push(*signed);
                }
                _ => {
                    if chunk.len() == CHUNK_LEN {
                        look(&mut chunk, report);
                    }
                    chunk.push((vec![*signed], order));
                }
            }
            Ok(())
        })?;
        look(&mut chunk, report);
        Ok(())
    }

    fn bundle(
        &mut self,
        versions: &[SignedBundle],
        order: Option<&OrderOf>,
        wrong: Vec<Vec<Wrong>>,
        now: UnixTime,
        report: &mut Report,
    ) {
        let Some(newest) = versions.last().map(|it| &it.bundle) else {
            return;
        };
        let of = format!("bundle {}", newest.id);
        report.bundles += 1;
        for (flaw, detail) in wrong.into_iter().flatten() {
            report.find(flaw, &of, detail);
        }
        self.bundles.insert(newest.id);
        if let Some(other) = self.issued.insert(newest.authorization, newest.id) {
            let detail = format!("authorization {}, also {other}", newest.authorization);
            report.find(Flaw::RedeemedTwice, &of, detail);
        }
        for signed in versions {
            self.count(signed, &of, report);
        }
        if let Some(signed) = versions.last()
            && self.waits_to_be_renewed(signed, now)
        {
            let epoch = report.epochs.entry(newest.epoch.to_string()).or_default();
            epoch.to_renew += 1;
        }
        let known = self.authorizations.get(&newest.authorization);
        match known {
            None if order.is_some() && newest.authorization.0 == newest.id.0 => {}
            None => report.find(
                Flaw::BundleUnclaimed,
                &of,
                format!("there is no authorization {}", newest.authorization),
            ),
            Some((authorization, _)) => {
                self.against(authorization, versions, order.is_some(), &of, now, report);
            }
        }
        for signed in versions {
            self.against_lists(signed, &of, now, report);
        }
    }

    /// Whether a bundle that runs stands as a revoked epoch signed it.
    fn waits_to_be_renewed(&self, signed: &SignedBundle, now: UnixTime) -> bool {
        let bundle = &signed.bundle;
        let state = self.issuer.epochs.get(&bundle.epoch).map(|it| it.state);
        let standing = || self.issuer.statuses.of_bundle(bundle);
        state == Some(EpochState::Revoked)
            && bundle.window.not_after > now
            && standing().iter().any(|one| *one != KeyStatus::Revoked)
    }

    /// How the keys of a version stand, against what was given out of it.
    fn against_lists(&self, signed: &SignedBundle, of: &str, now: UnixTime, report: &mut Report) {
        let bundle = &signed.bundle;
        // Of what has expired marks are purged.
        if bundle.window.not_after <= now {
            return;
        }
        let known = self.authorizations.get(&bundle.authorization);
        let cancelled = known.filter(|(it, _)| it.state == AuthorizationState::Cancelled);
        let ended = cancelled.map(|(it, _)| it.revision());
        let standing = self.issuer.statuses.of_bundle(bundle);
        for ((subject, key), status) in bundle.each_key().zip(standing) {
            let Some(list) = ShardId::at(&subject.status_uri) else {
                continue;
            };
            let newest = self.issuer.revision;
            let index = key.status_index;
            if let Some(why) = self.lists.misstates(list, index, status, newest, ended) {
                let detail = format!("{} of version {}: {why}", subject.name, bundle.version);
                report.find(Flaw::ListMisstates, of, detail);
            }
        }
    }

    /// Counts a version, and takes its keys' places on their lists.
    fn count(&mut self, signed: &SignedBundle, of: &str, report: &mut Report) {
        let bundle = &signed.bundle;
        let keys = bundle.keys.len() as u64;
        let signatures = match &signed.proof {
            Proof::Each(signatures) => signatures.len() as u64,
            Proof::Tree(proof) => u64::from(self.trees.insert(proof.signature)),
        };
        report.versions += 1;
        report.keys += keys;
        report.signatures += signatures;
        let epoch = report.epochs.entry(bundle.epoch.to_string()).or_default();
        epoch.versions += 1;
        epoch.keys += keys;
        epoch.signatures += signatures;
        let Some(counted) = self.counted.get_mut(&bundle.fleet) else {
            let detail = format!("there is no fleet {}", bundle.fleet);
            return report.find(Flaw::ListOfAnother, of, detail);
        };
        for (subject, key) in bundle.each_key() {
            let place = format!("{} at {}", subject.status_uri, key.status_index);
            let taken = match ShardId::at(&subject.status_uri) {
                None => Err(Misplaced::Elsewhere),
                Some(list) => counted.take(list, key.status_index, self.issuer.restore),
            };
            match taken {
                Ok(()) => {}
                Err(Misplaced::Twice) => report.find(Flaw::IndexTwice, of, place),
                Err(Misplaced::Ahead) => report.find(Flaw::IndexAhead, of, place),
                Err(Misplaced::Elsewhere) => report.find(Flaw::ListOfAnother, of, place),
            }
        }
    }

    /// A bundle against the authorization it was issued on.
    fn against(
        &self,
        authorization: &Authorization,
        versions: &[SignedBundle],
        is_order: bool,
        of: &str,
        now: UnixTime,
        report: &mut Report,
    ) {
        let Some(newest) = versions.last().map(|it| &it.bundle) else {
            return;
        };
        if newest.version > authorization.version {
            let detail = format!("{} of {}", newest.version, authorization.version);
            report.find(Flaw::VersionAhead, of, detail);
        }
        let known = self.authorizations.get(&authorization.id);
        let named = known.and_then(|(_, bundle)| *bundle) == Some(newest.id);
        let detail = || format!("authorization {}", authorization.id);
        if !named && !is_order {
            report.find(Flaw::BundleUnclaimed, of, detail());
        }
        if authorization.state == AuthorizationState::Open {
            report.find(Flaw::StillOpen, of, detail());
        }
        // What it grants begins as early as its newest keys do.
        let mut granted = authorization.clone();
        let begins = &mut granted.window.not_before;
        *begins = (*begins).min(newest.window.not_before);
        let cancelled = authorization.state == AuthorizationState::Cancelled;
        for SignedBundle { bundle, .. } in versions {
            // Of what has expired nobody asks any more, nor of what a reset has ended.
            let name = (bundle.fleet, bundle.vehicle.clone());
            let epoch = self.issuer.vehicles.get(&name).copied();
            if bundle.window.not_after <= now || Some(bundle.vehicle_epoch) < epoch {
                continue;
            }
            let stays = bundle.holder == newest.holder;
            let standing = self.issuer.statuses.of_bundle(bundle);
            for ((subject, key), status) in bundle.each_key().zip(standing) {
                let gone = cancelled || !grants(&granted, bundle, subject, key, stays);
                if gone && status != KeyStatus::Revoked {
                    let (name, version) = (&subject.name, bundle.version);
                    let detail = format!("{name} of version {version} is {}", status.name());
                    report.find(Flaw::NotRevoked, of, detail);
                }
            }
        }
    }

    /// Looks at what rests on bundles, and sums up.
    pub(super) fn close(
        &self,
        store: &dyn Whole,
        now: UnixTime,
        report: &mut Report,
        tell: &mut dyn FnMut(Progress),
    ) -> Result<(), StoreError> {
        for (authorization, bundle) in self.authorizations.values() {
            let of = format!("authorization {}", authorization.id);
            match bundle {
                Some(id) if !self.bundles.contains(id) => {
                    report.find(Flaw::BundleMissing, of, format!("bundle {id}"));
                }
                None if authorization.state == AuthorizationState::Redeemed
                    && !self.issued.contains_key(&authorization.id) =>
                {
                    report.find(Flaw::BundleMissing, of, "it names none");
                }
                _ => {}
            }
        }
        for kind in [Kind::Requests, Kind::Commands, Kind::Orders] {
            store.export(kind, &mut |entry| {
                tell(Progress::Passed(kind));
                if let Some(missing) = self.missing(&entry, now) {
                    report.find(Flaw::RequestOfNothing, kind.name(), missing);
                }
                Ok(())
            })?;
        }
        for (id, counted) in &self.counted {
            let Some(fleet) = self.issuer.fleets.get(id) else {
                continue;
            };
            let since = Counted::since(fleet, self.issuer.restore);
            let of = OfFleet {
                name: fleet.name.as_str().into(),
                counted: since,
                recorded: counted.recorded,
                unrecorded: since.saturating_sub(counted.recorded),
            };
            report.fleets.insert(id.to_string(), of);
        }
        self.check_marks(report);
        Ok(())
    }

    /// Marks stand at places that were counted out.
    fn check_marks(&self, report: &mut Report) {
        let tags: HashMap<_, _> = self
            .issuer
            .fleets
            .values()
            .filter_map(|fleet| Some((fleet.tag, self.counted.get(&fleet.id)?)))
            .collect();
        for (list, index) in &self.issuer.marked {
            let counted = tags.get(&list.tag);
            if !counted.is_some_and(|counted| counted.has(*list, *index)) {
                let of = format!("status list {list}");
                report.find(
                    Flaw::IndexAhead,
                    of,
                    format!("what was done to key {index}"),
                );
            }
        }
    }

    /// What an answer names that is not there.
    fn missing(&self, entry: &Entry, now: UnixTime) -> Option<String> {
        let known = |id: &AuthorizationId| {
            self.authorizations.contains_key(id) || self.bundles.contains(&BundleId(id.0))
        };
        match entry {
            Entry::Request(_, id, _) | Entry::Command(id, ..) if !known(id) => {
                Some(format!("authorization {id}"))
            }
            // It goes with its bundle, in spans; not earlier.
            Entry::Order { bundle, span, .. }
                if *span >= now >> 16 && !self.bundles.contains(bundle) =>
            {
                Some(format!("bundle {bundle}"))
            }
            _ => None,
        }
    }
}
