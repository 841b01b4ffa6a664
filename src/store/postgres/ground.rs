//! What a transaction rests on, in memory: floor 2, `store/postgres`.
//!
//! Rows are read and locked in one round, every write is decided on them in turn, and what came of
//! it is written in another. So a later write sees what an earlier one of its transaction did, and
//! a write that is refused has nothing to take back.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::calls::{Call, CallId};
use super::standings::OfFleet;
use crate::domain::{
    Authorization, AuthorizationId, BundleId, Epoch, EpochId, Fleet, FleetId, FunctionCode, Held,
    Hold, Identity, IdentityId, Licence, Mark, Terminal, TerminalId, Token, TokenId, UnixTime,
    Vehicle, VehicleId,
};
use crate::store::encoding::rulings::name as brake_name;
use crate::store::{
    Act, AmendRequest, Contact, Frozen, Lease, Listed, QuotaDay, Renewal, Request, SignedBundle,
    SignedList,
};

/// Everything known, and everything to be written.
#[derive(Default)]
pub(super) struct Ground {
    pub(super) settings: HashMap<String, String>,
    /// Whether a fleet is active.
    pub(super) fleets: HashMap<FleetId, bool>,
    /// How often it has changed how anything of it stands.
    pub(super) counts: HashMap<FleetId, i64>,
    /// Ids, names and tags that are taken.
    pub(super) fleets_taken: (HashSet<FleetId>, HashSet<String>, HashSet<u32>),
    pub(super) functions: HashMap<(FleetId, FunctionCode), Arc<str>>,
    /// How members of fleets stand that are held shared, as far as it is remembered.
    pub(super) known: HashMap<FleetId, OfFleet>,
    /// How those of others stand.
    pub(super) vehicles: HashMap<(FleetId, VehicleId), VehicleRow>,
    pub(super) identities: HashMap<(FleetId, IdentityId), IdentityRow>,
    /// Hold and licences of identities, where they are relied on or changed.
    pub(super) conditions: HashMap<(FleetId, IdentityId), Conditions>,
    /// Models of vehicles on which something relies.
    pub(super) models: HashMap<(FleetId, VehicleId), String>,
    pub(super) terminals: HashMap<(FleetId, TerminalId), TerminalRow>,
    pub(super) tokens: HashMap<TokenId, TokenRow>,
    pub(super) epochs: HashMap<EpochId, EpochRow>,
    /// The newest record and trust list.
    pub(super) record: i64,
    pub(super) trust: Option<i64>,
    pub(super) authorizations: HashMap<AuthorizationId, AuthorizationRow>,
    pub(super) requests: HashMap<[u8; 32], (Option<AuthorizationId>, [u8; 32])>,
    /// The first versions of bundles, and which were issued on which authorizations.
    pub(super) bundles: HashMap<BundleId, FirstIssue>,
    /// The calls that orders come under.
    pub(super) calls: HashMap<CallId, Call>,
    /// How bundles that are renewed stand: version, and the epoch that signed it.
    pub(super) standing: HashMap<BundleId, (u32, EpochId)>,
    /// What was done to keys, and when they expire.
    pub(super) held: HashMap<KeyPlace, (Held, UnixTime)>,
    pub(super) amendments: u64,
    pub(super) ruled: HashMap<FleetId, RuledRow>,
    /// The number of each fleet's last act, as far as it is known; 0 is none.
    pub(super) acts: HashMap<FleetId, u64>,
    /// Fleets' counters of status indexes.
    pub(super) counters: HashMap<FleetId, u64>,
    /// Whether somebody waits for his turn at a fleet.
    pub(super) turn_of_another: bool,
    /// Leases that are held now, by whomever.
    pub(super) leases: HashMap<String, u64>,
    pub(super) changes: Changes,
}

/// A key by fleet tag, list and index.
pub(super) type KeyPlace = (u32, u64, u32);

pub(super) struct VehicleRow {
    pub(super) status: i64,
    pub(super) epoch: u32,
    pub(super) owner: Option<IdentityId>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct IdentityRow {
    pub(super) active: bool,
    pub(super) held: bool,
}

/// Why an identity is held, where it is, and its licences.
pub(super) type Conditions = (Option<Hold>, Vec<Licence>);

/// What of a fleet's rulings stands.
#[derive(Default)]
pub(super) struct RuledRow {
    /// The version of its newest rules; 0 is none.
    pub(super) version: u32,
    /// By which version every key stands.
    pub(super) followed: u32,
    /// What is frozen, as its column has it.
    pub(super) frozen: HashSet<String>,
    pub(super) day: Option<QuotaDay>,
}

pub(super) struct TerminalRow {
    pub(super) status: i64,
    pub(super) identity: IdentityId,
}

pub(super) struct TokenRow {
    pub(super) fleet: FleetId,
    pub(super) revoked_at: Option<UnixTime>,
}

pub(super) struct EpochRow {
    pub(super) state: i64,
    pub(super) token_serial: String,
    pub(super) place: i64,
}

pub(super) struct AuthorizationRow {
    pub(super) fleet: FleetId,
    pub(super) vehicle: VehicleId,
    pub(super) version: u32,
    pub(super) state: i64,
    /// Which amendment of all was its last; 0 where there was none.
    pub(super) revision: u64,
    pub(super) pin_attempts: u32,
    pub(super) bundle: Option<BundleId>,
    pub(super) written: Written,
}

/// What of an authorization's row is to be written.
pub(super) enum Written {
    /// Nothing.
    No,
    /// What the row here says.
    Marks,
    /// All of it, into the row that is there.
    Whole(Whole),
    /// All of it: there is none yet.
    New(Whole),
}

/// What an authorization says beside what its row here has.
pub(super) struct Whole {
    pub(super) authorization: Arc<Authorization>,
    pub(super) revision: Option<u64>,
}

impl AuthorizationRow {
    /// Notes that what the row here says has changed.
    pub(super) fn touch(&mut self) {
        if let Written::No = self.written {
            self.written = Written::Marks;
        }
    }
}

/// How a bundle was issued first.
#[derive(Clone)]
pub(super) struct FirstIssue {
    pub(super) version: u32,
    pub(super) fleet: FleetId,
    pub(super) vehicle: VehicleId,
    /// The token, where it is an order.
    pub(super) author: Option<TokenId>,
    pub(super) terminal: Option<TerminalId>,
}

/// What is to be written, apart from authorizations.
#[derive(Default)]
pub(super) struct Changes {
    pub(super) settings: Vec<(String, String)>,
    pub(super) fleets: Vec<Fleet>,
    /// Fleets in which something stands otherwise.
    pub(super) standings: BTreeSet<FleetId>,
    pub(super) functions: Vec<(FleetId, FunctionCode, Arc<str>)>,
    /// Whole vehicles, and those that stand otherwise.
    pub(super) vehicles: BTreeMap<(FleetId, VehicleId), Vehicle>,
    pub(super) vehicles_stand: BTreeSet<(FleetId, VehicleId)>,
    pub(super) identities_stand: BTreeSet<(FleetId, IdentityId)>,
    pub(super) identities: BTreeMap<(FleetId, IdentityId), Identity>,
    /// Identities whose data go, and what they are called from then on.
    pub(super) erased: BTreeMap<(FleetId, IdentityId), IdentityId>,
    pub(super) terminals: BTreeMap<(FleetId, TerminalId), Terminal>,
    pub(super) terminals_stand: BTreeSet<(FleetId, TerminalId)>,
    pub(super) tokens: Vec<Token>,
    pub(super) tokens_revoked: BTreeSet<TokenId>,
    /// Tokens that end at a time, at the latest.
    pub(super) tokens_end: BTreeMap<TokenId, UnixTime>,
    /// When tokens were used.
    pub(super) tokens_used: BTreeMap<TokenId, UnixTime>,
    pub(super) epochs: BTreeMap<EpochId, Epoch>,
    pub(super) trust: Vec<(i64, Arc<[u8]>)>,
    pub(super) records: Vec<(i64, Arc<str>)>,
    pub(super) requests: Vec<NewRequest>,
    pub(super) commands: Vec<(AuthorizationId, u32, String)>,
    pub(super) bundles: Vec<NewBundle>,
    pub(super) status_next: BTreeMap<FleetId, u64>,
    pub(super) marks: BTreeSet<KeyPlace>,
    /// When lists were signed and end.
    pub(super) lists: BTreeMap<(u32, u64), (UnixTime, UnixTime)>,
    /// What is given out of them.
    pub(super) signed_lists: BTreeMap<(u32, u64), SignedList>,
    pub(super) asked_lists: BTreeSet<(u32, u64)>,
    pub(super) renewals: Vec<Arc<Renewal>>,
    pub(super) contacts: BTreeMap<(FleetId, VehicleId), Contact>,
    /// Rules that were set: fleet, version and text.
    pub(super) rules: Vec<(FleetId, u32, Arc<str>)>,
    /// By which rules every key of a fleet stands.
    pub(super) followed: BTreeMap<FleetId, u32>,
    /// Acts, each with its number in its fleet.
    pub(super) acts: Vec<(u64, Act)>,
    /// What is frozen from now on, and what not any more (`None`).
    pub(super) brakes: BTreeMap<(FleetId, String), Option<Frozen>>,
    /// Fleets whose day of the quota is another.
    pub(super) days: BTreeSet<FleetId>,
    pub(super) amended: bool,
}

/// A request to be remembered.
pub(super) struct NewRequest {
    pub(super) request: Request,
    pub(super) authorization: Option<AuthorizationId>,
    pub(super) made_at: UnixTime,
    pub(super) command: Option<String>,
    pub(super) outcome: Option<Vec<u8>>,
}

/// A version of a bundle to be written.
pub(super) struct NewBundle {
    pub(super) signed: Signed,
    pub(super) author: Option<TokenId>,
    pub(super) terminal: Option<TerminalId>,
}

/// A signed bundle, wherever it is held.
pub(super) enum Signed {
    Redeemed(Arc<crate::store::Redemption>),
    Again(Box<SignedBundle>),
}

impl Signed {
    pub(super) fn bundle(&self) -> &SignedBundle {
        match self {
            Self::Redeemed(redemption) => &redemption.signed,
            Self::Again(signed) => signed,
        }
    }
}

impl Changes {
    /// Freezes something, or releases it: whether anything is issued stands otherwise then.
    pub(super) fn brake(&mut self, fleet: FleetId, place: String, frozen: Option<Frozen>) {
        self.standings.insert(fleet);
        self.brakes.insert((fleet, place), frozen);
    }
}

impl Ground {
    /// With nothing but calls.
    pub(super) fn with_calls(calls: HashMap<CallId, Call>) -> Self {
        Self {
            calls,
            ..Self::default()
        }
    }

    /// How a vehicle stands, where there is one.
    pub(super) fn vehicle(&self, fleet: FleetId, id: &VehicleId) -> Option<&VehicleRow> {
        match self.known.get(&fleet) {
            Some(of) => of.vehicles.get(id),
            None => self.vehicles.get(&(fleet, id.clone())),
        }
    }

    /// How an identity stands, where there is one.
    pub(super) fn identity(&self, fleet: FleetId, id: &IdentityId) -> Option<&IdentityRow> {
        match self.known.get(&fleet) {
            Some(of) => of.identities.get(id),
            None => self.identities.get(&(fleet, id.clone())),
        }
    }

    /// How a terminal stands, where there is one.
    pub(super) fn terminal(&self, fleet: FleetId, id: &TerminalId) -> Option<&TerminalRow> {
        match self.known.get(&fleet) {
            Some(of) => of.terminals.get(id),
            None => self.terminals.get(&(fleet, id.clone())),
        }
    }

    /// Whether a vehicle, or all of its fleet, is frozen.
    pub(super) fn is_frozen(&self, fleet: FleetId, vehicle: &VehicleId) -> bool {
        let frozen = match (self.known.get(&fleet), self.ruled.get(&fleet)) {
            (Some(of), _) => &of.frozen,
            (None, Some(row)) => &row.frozen,
            (None, None) => return false,
        };
        let is_frozen = |of| frozen.contains(brake_name(of));
        !frozen.is_empty() && (is_frozen(None) || is_frozen(Some(vehicle)))
    }

    /// The version of a fleet's newest rules; 0 where it has none.
    pub(super) fn rules(&self, fleet: FleetId) -> u32 {
        match self.known.get(&fleet) {
            Some(of) => of.rules,
            None => self.ruled.get(&fleet).map_or(0, |row| row.version),
        }
    }

    /// Whether the lease of this number is held.
    pub(super) fn holds(&self, lease: Lease) -> bool {
        self.leases.get(lease.task.name()) == Some(&lease.number)
    }

    /// Whether anything is to be written.
    pub(super) fn is_changed(&self) -> bool {
        let c = &self.changes;
        let authorizations = self.authorizations.values();
        c.amended
            || !(c.settings.is_empty()
                && c.fleets.is_empty()
                && c.standings.is_empty()
                && c.functions.is_empty()
                && c.vehicles.is_empty()
                && c.identities.is_empty()
                && c.erased.is_empty()
                && c.terminals.is_empty()
                && c.tokens.is_empty()
                && c.tokens_revoked.is_empty()
                && c.tokens_end.is_empty()
                && c.tokens_used.is_empty()
                && c.epochs.is_empty()
                && c.trust.is_empty()
                && c.records.is_empty()
                && c.requests.is_empty()
                && c.bundles.is_empty()
                && c.status_next.is_empty()
                && c.lists.is_empty()
                && c.asked_lists.is_empty()
                && c.renewals.is_empty()
                && c.vehicles_stand.is_empty()
                && c.identities_stand.is_empty()
                && c.terminals_stand.is_empty()
                && c.rules.is_empty()
                && c.followed.is_empty()
                && c.acts.is_empty()
                && c.brakes.is_empty()
                && c.days.is_empty()
                && c.contacts.is_empty())
            || authorizations
                .into_iter()
                .any(|row| !matches!(row.written, Written::No))
    }

    /// Notes what becomes of keys.
    pub(super) fn mark(&mut self, marks: &[Mark]) {
        for mark in marks {
            let place = (mark.shard.tag, mark.shard.number, mark.index);
            let known = self.held.entry(place);
            let known = known.or_insert((Held::default(), mark.ends));
            known.0 = known.0.after(mark.change);
            self.changes.marks.insert(place);
        }
    }

    pub(super) fn list(&mut self, lists: &[Listed]) {
        for list in lists {
            let place = (list.shard.tag, list.shard.number);
            let (issued_at, expires) = self.changes.lists.entry(place).or_default();
            *issued_at = list.issued_at.max(*issued_at);
            *expires = list.expires.max(*expires);
        }
    }

    /// Notes that a fleet has counted out status indexes up to `next`; 0 where they were taken
    /// before.
    pub(super) fn raise_status_next(&mut self, fleet: FleetId, next: u64) {
        if next > 0 {
            let known = self.changes.status_next.entry(fleet).or_default();
            *known = next.max(*known);
        }
    }

    /// Counts out status indexes of a fleet; the first of them.
    pub(super) fn take_indexes(&mut self, fleet: FleetId, count: u64) -> Option<u64> {
        let counted = *self.counters.get(&fleet)?;
        let raised = self.changes.status_next.get(&fleet).copied();
        let first = counted.max(raised.unwrap_or(0));
        self.changes.status_next.insert(fleet, first + count);
        Some(first)
    }

    /// Keeps a request, so that it is known again.
    pub(super) fn keep(&mut self, of: Option<AuthorizationId>, request: Option<&AmendRequest>) {
        let Some(asked) = request else { return };
        let Request { scope, digest } = asked.request;
        self.requests.insert(scope, (of, digest));
        self.changes.requests.push(NewRequest {
            request: asked.request,
            authorization: of,
            made_at: asked.made_at,
            command: asked.command.clone(),
            outcome: Some(asked.outcome.clone()),
        });
    }
}
