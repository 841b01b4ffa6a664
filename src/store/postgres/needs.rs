//! What a list of writes has to know before it is decided: floor 2, `store/postgres`.

use std::collections::{BTreeMap, BTreeSet};

use super::calls::CallId;
use super::standings::Standings;
use crate::domain::change::{Followed, Registered};
use crate::domain::{
    Author, AuthorizationId, BundleId, EpochId, FleetId, IdentityId, Mark, TerminalId, TokenId,
    VehicleId,
};
use crate::store::{
    AmendRequest, Amendment, Member, NewAuthorization, Redemption, ReliedOn, Reset, SignedBundle,
    Suspension, Task, Write,
};

/// The rows to read, by their keys; sorted, because that is the order they are locked in.
#[derive(Default)]
pub(super) struct Needs {
    /// Fleets to hold shared: how what belongs to them stands is relied on.
    pub(super) fleets: BTreeSet<FleetId>,
    /// Fleets to hold alone: how what belongs to them stands is changed.
    pub(super) fleets_alone: BTreeSet<FleetId>,
    /// Ids, names and tags of new fleets.
    pub(super) new_fleets: Vec<(FleetId, String, u32)>,
    pub(super) settings: BTreeSet<String>,
    pub(super) functions: BTreeSet<FleetId>,
    pub(super) vehicles: BTreeSet<(FleetId, VehicleId)>,
    pub(super) identities: BTreeSet<(FleetId, IdentityId)>,
    /// Identities whose hold and licences are relied on, or changed.
    pub(super) conditions: BTreeSet<(FleetId, IdentityId)>,
    /// Vehicles whose models are relied on.
    pub(super) models: BTreeSet<(FleetId, VehicleId)>,
    pub(super) terminals: BTreeSet<(FleetId, TerminalId)>,
    pub(super) tokens: BTreeSet<TokenId>,
    /// Epochs to hold shared.
    pub(super) epochs: BTreeSet<EpochId>,
    /// Whether epochs, records and trust lists are changed: all of them, held alone.
    pub(super) steps: bool,
    pub(super) authorizations: BTreeSet<AuthorizationId>,
    pub(super) scopes: BTreeSet<[u8; 32]>,
    /// Bundles by their ids, and those issued on authorizations.
    pub(super) bundles: BTreeSet<BundleId>,
    pub(super) bundles_of: BTreeSet<AuthorizationId>,
    /// Ids that new bundles are to have.
    pub(super) claimed: BTreeSet<BundleId>,
    /// Calls that orders come under, and the last row of each that is known; 0 is none.
    pub(super) calls: BTreeMap<CallId, i64>,
    /// Bundles that are signed again as they are.
    pub(super) renewed: BTreeSet<BundleId>,
    /// Keys that are marked, by fleet tag, list and index.
    pub(super) marks: BTreeSet<(u32, u64, u32)>,
    /// Fleets whose rulings are read.
    pub(super) ruled: BTreeSet<FleetId>,
    /// Fleets of which is read what is frozen, and the version of their rules.
    pub(super) braked: BTreeSet<FleetId>,
    /// Fleets whose status indexes are counted out.
    pub(super) counters: BTreeSet<FleetId>,
    /// Leases under which something is done.
    pub(super) leases: BTreeSet<Task>,
    /// Whether amendments are counted.
    pub(super) amendments: bool,
    /// Whether what is to be new is not looked for.
    trusting: bool,
}

impl Needs {
    pub(super) fn of(writes: &[Write]) -> Self {
        let mut needs = Self::default();
        for write in writes {
            needs.add(write);
        }
        needs
    }

    /// The same, where it is taken for granted that what is to be new is new, since the database
    /// refuses it otherwise; without what redemptions rest on that is known.
    pub(super) fn trusting(writes: &[Write], known: &Standings) -> Self {
        let mut needs = Self {
            trusting: true,
            ..Self::default()
        };
        let mut relied = BTreeSet::new();
        for write in writes {
            match write {
                Write::Redeem(it) if known.knows(&it.signed.bundle, it.terminal.as_ref()) => {
                    let bundle = &it.signed.bundle;
                    needs.fleets.insert(bundle.fleet);
                    needs.epochs.insert(bundle.epoch);
                    needs.relied(bundle.fleet, &it.relies_on);
                    needs.redeemed(it);
                    relied.insert(bundle.fleet);
                }
                write => needs.add(write),
            }
        }
        if relied.is_disjoint(&needs.fleets_alone) {
            return needs;
        }
        // Where a fleet is held alone, nothing is known of it.
        Self::trusting(writes, &Standings::default())
    }

    #[expect(clippy::too_many_lines, reason = "one short arm for each write")]
    fn add(&mut self, write: &Write) {
        match write {
            Write::Setting(name, _) => drop(self.settings.insert(name.clone())),
            Write::NewFleet(fleet) => {
                let name = fleet.name.as_str().to_owned();
                self.new_fleets.push((fleet.id, name, fleet.tag));
            }
            Write::Function(fleet, ..) => {
                self.fleets.insert(*fleet);
                self.functions.insert(*fleet);
            }
            Write::Vehicle(vehicle) | Write::New(Member::Vehicle(vehicle)) => {
                self.fleets_alone.insert(vehicle.fleet);
                self.vehicles.insert((vehicle.fleet, vehicle.id.clone()));
            }
            Write::Identity(identity) | Write::New(Member::Identity(identity)) => {
                self.fleets_alone.insert(identity.fleet);
                self.identities
                    .insert((identity.fleet, identity.id.clone()));
                self.conditions
                    .insert((identity.fleet, identity.id.clone()));
            }
            Write::Terminal(terminal) | Write::New(Member::Terminal(terminal)) => {
                self.fleets_alone.insert(terminal.fleet);
                self.terminals.insert((terminal.fleet, terminal.id.clone()));
            }
            Write::Attest(attestation) => {
                let terminal = &attestation.terminal;
                self.fleets_alone.insert(terminal.fleet);
                self.terminals.insert((terminal.fleet, terminal.id.clone()));
                let by = terminal.attested.as_ref().map(|it| &it.by);
                self.commander(terminal.fleet, by);
                self.request(Some(&attestation.request));
            }
            Write::Erase(erasure) => {
                self.fleets_alone.insert(erasure.fleet);
                self.identities.insert((erasure.fleet, erasure.id.clone()));
            }
            Write::NewToken(token) => {
                self.fleets.insert(token.fleet);
                self.tokens.insert(token.id);
            }
            Write::RotateToken(rotation) => {
                self.fleets.insert(rotation.token.fleet);
                self.tokens.insert(rotation.before);
                self.tokens.insert(rotation.token.id);
            }
            Write::TokensUsed(used) => self.tokens.extend(used.iter().map(|(id, _)| *id)),
            Write::RevokeToken(_, token, _) => drop(self.tokens.insert(*token)),
            Write::Epoch(_) | Write::TrustList(..) | Write::Step(_) => self.steps = true,
            Write::Authorize(new) => self.authorization(new),
            Write::Recall(request) => drop(self.scopes.insert(request.scope)),
            Write::PinAttempt(id, _) | Write::PinRight(id, _) => {
                self.authorizations.insert(*id);
            }
            Write::Redeem(redemption) => self.redemption(redemption),
            Write::Amend(amendment) => self.amendment(amendment),
            Write::Reset(reset) => self.reset(reset),
            Write::Suspend(suspension) => self.suspension(suspension),
            Write::Follow(following) => {
                self.amendments = true;
                self.fleets.insert(following.fleet);
                self.followed(following.fleet, &following.of);
                self.relied(following.fleet, &following.relies_on);
                self.marks(&following.marks);
            }
            Write::Renew(renewal) => {
                self.epochs.insert(renewal.signed.bundle.epoch);
                self.renewed.insert(renewal.signed.bundle.id);
            }
            Write::Lists(_) | Write::AskLists(_) | Write::Signed(_) => {}
            Write::TakeIndexes(fleet, _) => drop(self.counters.insert(*fleet)),
            Write::Under(lease, write) => {
                self.leases.insert(lease.task);
                self.add(write);
            }
            Write::Contact(fleet, vehicle, _) => {
                self.fleets.insert(*fleet);
                self.vehicles.insert((*fleet, vehicle.clone()));
            }
            Write::Rule(ruled) => {
                self.fleets_alone.insert(ruled.fleet);
                self.ruled.insert(ruled.fleet);
            }
            Write::Act(act, write) => {
                if let Some(write) = write {
                    self.add(write);
                }
                // Of these there are many: their acts follow each other by their times.
                if !matches!(write.as_deref(), Some(Write::Amend(_))) {
                    self.fleets_alone.insert(act.fleet);
                    self.ruled.insert(act.fleet);
                }
            }
            // The fleet is held alone for what was registered.
            Write::Registered(act, _) => drop(self.ruled.insert(act.fleet)),
            Write::Purge(..) => {}
        }
    }

    fn suspension(&mut self, suspension: &Suspension) {
        let fleet = suspension.fleet;
        self.fleets_alone.insert(fleet);
        match &suspension.of {
            Registered::Followed(of) => self.followed(fleet, of),
            Registered::Terminal(id) => drop(self.terminals.insert((fleet, id.clone()))),
        }
        self.commander(fleet, suspension.by.as_ref());
        self.request(suspension.request.as_ref());
    }

    fn authorization(&mut self, new: &NewAuthorization) {
        let authorization = &new.authorization;
        let fleet = authorization.fleet;
        self.fleets.insert(fleet);
        self.vehicles.insert((fleet, authorization.vehicle.clone()));
        if let Author::Terminal(terminal) = &authorization.author {
            self.terminals.insert((fleet, terminal.clone()));
        }
        self.authorizations.insert(authorization.id);
        self.scopes.extend(new.request.map(|request| request.scope));
        self.request(new.answers.as_ref());
    }

    fn redemption(&mut self, redemption: &Redemption) {
        let bundle = &redemption.signed.bundle;
        self.signed(&redemption.signed, redemption.terminal.as_ref());
        self.braked.insert(bundle.fleet);
        if !self.trusting {
            self.claimed.insert(bundle.id);
        }
        self.relied(bundle.fleet, &redemption.relies_on);
        self.redeemed(redemption);
    }

    /// What is redeemed, or the call that an order comes under.
    fn redeemed(&mut self, redemption: &Redemption) {
        match &redemption.order {
            None => {
                let authorization = redemption.signed.bundle.authorization;
                self.authorizations.insert(authorization);
            }
            Some(order) => {
                let request = order.request.as_ref();
                self.calls.extend(request.map(|it| (*it.call, 0)));
            }
        }
    }

    /// What a bundle rests on.
    fn signed(&mut self, signed: &SignedBundle, terminal: Option<&TerminalId>) {
        let bundle = &signed.bundle;
        self.fleets.insert(bundle.fleet);
        self.epochs.insert(bundle.epoch);
        self.vehicles.insert((bundle.fleet, bundle.vehicle.clone()));
        self.identities
            .insert((bundle.fleet, bundle.identity.clone()));
        if let Some(terminal) = terminal {
            self.terminals.insert((bundle.fleet, terminal.clone()));
        }
    }

    fn amendment(&mut self, amendment: &Amendment) {
        let authorization = &amendment.authorization;
        self.fleets.insert(authorization.fleet);
        self.authorizations.insert(authorization.id);
        self.bundles.insert(BundleId(authorization.id.0));
        self.bundles_of.insert(authorization.id);
        if let Some(again) = &amendment.reissue {
            self.signed(&again.signed, again.terminal.as_ref());
            self.braked.insert(authorization.fleet);
            self.relied(authorization.fleet, &again.relies_on);
        }
        self.command(authorization.fleet, amendment.by.as_ref());
        self.request(amendment.request.as_ref());
        self.marks(&amendment.marks);
    }

    fn reset(&mut self, reset: &Reset) {
        self.fleets_alone.insert(reset.fleet);
        self.vehicles.insert((reset.fleet, reset.vehicle.clone()));
        self.command(reset.fleet, reset.by.as_ref());
        self.request(reset.request.as_ref());
        for amendment in &reset.amendments {
            self.amendment(amendment);
        }
    }

    fn followed(&mut self, fleet: FleetId, of: &Followed) {
        match of {
            Followed::Identity(id) => drop(self.identities.insert((fleet, id.clone()))),
            Followed::Vehicle(id) => drop(self.vehicles.insert((fleet, id.clone()))),
        }
    }

    fn relied(&mut self, fleet: FleetId, relies_on: &ReliedOn) {
        let identity = relies_on.identity.as_ref();
        let identity = identity.map(|it| (it.fleet, it.id.clone()));
        self.conditions.extend(identity);
        let vehicle = relies_on.vehicle.as_ref();
        self.models
            .extend(vehicle.map(|it| (it.fleet, it.id.clone())));
        // How a fleet's rules stand comes with what it has frozen.
        self.braked.extend(relies_on.rules.map(|_| fleet));
    }

    fn marks(&mut self, marks: &[Mark]) {
        let place = |mark: &Mark| (mark.shard.tag, mark.shard.number, mark.index);
        self.marks.extend(marks.iter().map(place));
    }

    fn command(&mut self, fleet: FleetId, by: Option<&TerminalId>) {
        self.amendments = true;
        self.commander(fleet, by);
    }

    fn commander(&mut self, fleet: FleetId, by: Option<&TerminalId>) {
        if let Some(by) = by {
            self.terminals.insert((fleet, by.clone()));
        }
    }

    fn request(&mut self, request: Option<&AmendRequest>) {
        self.scopes.extend(request.map(|asked| asked.request.scope));
    }
}
