//! One thing a store holds. What a store knows beside these follows from them, or is its own.
//!
//! The encoding (`spell`) is written only to be compared. Times after which something is deleted are given in spans of 2^16 seconds,
//! which is how exactly all stores keep them.

use std::sync::Arc;

use crate::domain::{
    Authorization, AuthorizationId, BundleId, Epoch, Fleet, FleetId, FunctionCode, Held, Identity,
    Restore, ShardId, Terminal, TerminalId, Token, TokenId, UnixTime, Vehicle, VehicleId,
};
use crate::store::{
    Act, Contact, Frozen, Listed, QuotaDay, Request, Row, SignatureCount, SignedBundle,
};

mod spell;

/// What kind of thing an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Settings fixed at `init`.
    Settings,
    /// Fleets, with their counters of status indexes.
    Fleets,
    /// Functions of fleets' own.
    Functions,
    /// Vehicles, with their epochs.
    Vehicles,
    /// Identities.
    Identities,
    /// Terminals.
    Terminals,
    /// Tokens.
    Tokens,
    /// Epochs.
    Epochs,
    /// Signatures counted.
    Signatures,
    /// Trust lists, all versions.
    TrustLists,
    /// Records.
    Records,
    /// The count of amendments.
    Revisions,
    /// Authorizations.
    Authorizations,
    /// Requests that authorized.
    Requests,
    /// Signed commands that authorized.
    Commands,
    /// Requests that amended.
    Amendments,
    /// Versions of bundles.
    Bundles,
    /// Orders that were answered.
    Orders,
    /// Keys that are not valid.
    Statuses,
    /// When status lists were signed.
    StatusLists,
    /// What cars were sent.
    Contacts,
    /// Rules of fleets, all versions.
    Rules,
    /// What those who administer fleets have decided and done.
    Acts,
    /// What is frozen.
    Brakes,
    /// Days of quotas.
    Quotas,
    /// Backups that were put back.
    Restores,
}

impl Kind {
    /// All kinds, in the order in which they can be taken in.
    pub const ALL: [Self; 26] = [
        Self::Settings,
        Self::Fleets,
        Self::Functions,
        Self::Vehicles,
        Self::Identities,
        Self::Terminals,
        Self::Tokens,
        Self::Epochs,
        Self::Signatures,
        Self::TrustLists,
        Self::Records,
        Self::Revisions,
        Self::Authorizations,
        Self::Requests,
        Self::Commands,
        Self::Amendments,
        Self::Bundles,
        Self::Orders,
        Self::Statuses,
        Self::StatusLists,
        Self::Contacts,
        Self::Rules,
        Self::Acts,
        Self::Brakes,
        Self::Quotas,
        Self::Restores,
    ];

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Settings => "settings",
            Self::Fleets => "fleets",
            Self::Functions => "functions",
            Self::Vehicles => "vehicles",
            Self::Identities => "identities",
            Self::Terminals => "terminals",
            Self::Tokens => "tokens",
            Self::Epochs => "epochs",
            Self::Signatures => "signatures",
            Self::TrustLists => "trust_lists",
            Self::Records => "records",
            Self::Revisions => "revisions",
            Self::Authorizations => "authorizations",
            Self::Requests => "requests",
            Self::Commands => "commands",
            Self::Amendments => "amendments",
            Self::Bundles => "bundles",
            Self::Orders => "orders",
            Self::Statuses => "statuses",
            Self::StatusLists => "status_lists",
            Self::Contacts => "contacts",
            Self::Rules => "rules",
            Self::Acts => "acts",
            Self::Brakes => "brakes",
            Self::Quotas => "quotas",
            Self::Restores => "restores",
        }
    }
}

/// One thing a store holds.
#[derive(Clone, Debug)]
pub enum Entry {
    /// Name and value.
    Setting(String, String),
    /// A fleet.
    Fleet(Fleet),
    /// A function of a fleet's own.
    Function(FleetId, FunctionCode, Arc<str>),
    /// A vehicle.
    Vehicle(Vehicle),
    /// An identity.
    Identity(Identity),
    /// A terminal.
    Terminal(Terminal),
    /// A token.
    Token(Token),
    /// An epoch, and in which place it came.
    Epoch(u64, Epoch),
    /// What was signed under an epoch's key, as one process has counted it.
    Signatures(SignatureCount),
    /// A trust list.
    TrustList(u32, Arc<[u8]>),
    /// A record.
    Record(u64, Arc<str>),
    /// The count of amendments.
    Revision(u64),
    /// An authorization, attempts at its PIN, and the bundle issued on it.
    Authorization(Box<Authorization>, u32, Option<BundleId>),
    /// The request that authorized, and when it did.
    Request(Request, AuthorizationId, UnixTime),
    /// The signed command that authorized, and for which version.
    Command(AuthorizationId, u32, String),
    /// A request that amended.
    Amendment {
        /// Who asked what.
        request: Request,
        /// What it amended; `None` for the reset of a vehicle and what suspends.
        authorization: Option<AuthorizationId>,
        /// When.
        made_at: UnixTime,
        /// The signed command, where it was one.
        command: Option<String>,
        /// What it was answered with.
        outcome: Vec<u8>,
    },
    /// A version of a bundle, as it was signed last. The versions of one bundle follow each other,
    /// ascending.
    Bundle(Box<SignedBundle>, Option<OrderOf>),
    /// An order that was answered.
    Order {
        /// As in [`crate::store::OrderRequest`].
        call: [u8; 32],
        /// As there.
        reference: [u8; 16],
        /// As there.
        digest: [u8; 16],
        /// What it was answered with.
        bundle: BundleId,
        /// The span in which it is over.
        span: u64,
    },
    /// A key that is not valid.
    Status {
        /// The status list it is on.
        shard: ShardId,
        /// Its index there.
        index: u32,
        /// What holds it.
        held: Held,
        /// The span in which it expires.
        span: u64,
    },
    /// When a status list was signed.
    Listed(Listed),
    /// What a car was sent and has acknowledged.
    Contact(FleetId, VehicleId, Contact),
    /// A fleet's rules: version and text.
    Rules(FleetId, u32, Arc<str>),
    /// An act of those who administer a fleet, and which of the fleet's it is, from 1 on.
    Act(u64, Act),
    /// What is frozen, a vehicle or the whole fleet.
    Brake(FleetId, Option<VehicleId>, Frozen),
    /// The day of a fleet's quota.
    Quota(FleetId, QuotaDay),
    /// A backup that was put back.
    Restore(Restore),
}

/// What a bundle has that comes of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderOf {
    /// The token it was given with.
    pub author: TokenId,
    /// The terminal it was for.
    pub terminal: Option<TerminalId>,
}

impl Entry {
    /// A row of the book, where it is all there is to an entry. Those that stand for several rows
    /// or for part of one are read by each store; an epoch is yet to be given its place.
    pub(in crate::store) fn of(row: Row) -> Option<Self> {
        Some(match row {
            Row::Setting(name, value) => Self::Setting(name, value),
            Row::Fleet(fleet) => Self::Fleet(fleet),
            Row::Function(fleet, code, name) => Self::Function(fleet, code, name),
            Row::Vehicle(vehicle) => Self::Vehicle(vehicle),
            Row::Identity(identity) => Self::Identity(identity),
            Row::Terminal(terminal) => Self::Terminal(terminal),
            Row::Token(token) => Self::Token(token),
            Row::Epoch(epoch) => Self::Epoch(0, epoch),
            Row::TrustList(version, body) => Self::TrustList(version, body),
            Row::Record(number, jws) => Self::Record(number, jws),
            Row::Listed(listed) => Self::Listed(listed),
            Row::Contact(fleet, vehicle, contact) => Self::Contact(fleet, vehicle, contact),
            Row::Revision(count) => Self::Revision(count),
            Row::Restore(restore) => Self::Restore(restore),
            Row::Authorization(_)
            | Row::Status(_)
            | Row::Held(..)
            | Row::List(_)
            | Row::Asked(_)
            | Row::Purged(_)
            | Row::Erased(..)
            | Row::Ruled(..) => return None,
        })
    }

    /// What kind of thing it is.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Setting(..) => Kind::Settings,
            Self::Fleet(_) => Kind::Fleets,
            Self::Function(..) => Kind::Functions,
            Self::Vehicle(_) => Kind::Vehicles,
            Self::Identity(_) => Kind::Identities,
            Self::Terminal(_) => Kind::Terminals,
            Self::Token(_) => Kind::Tokens,
            Self::Epoch(..) => Kind::Epochs,
            Self::Signatures(_) => Kind::Signatures,
            Self::TrustList(..) => Kind::TrustLists,
            Self::Record(..) => Kind::Records,
            Self::Revision(_) => Kind::Revisions,
            Self::Authorization(..) => Kind::Authorizations,
            Self::Request(..) => Kind::Requests,
            Self::Command(..) => Kind::Commands,
            Self::Amendment { .. } => Kind::Amendments,
            Self::Bundle(..) => Kind::Bundles,
            Self::Order { .. } => Kind::Orders,
            Self::Status { .. } => Kind::Statuses,
            Self::Listed(_) => Kind::StatusLists,
            Self::Contact(..) => Kind::Contacts,
            Self::Rules(..) => Kind::Rules,
            Self::Act(..) => Kind::Acts,
            Self::Brake(..) => Kind::Brakes,
            Self::Quota(..) => Kind::Quotas,
            Self::Restore(_) => Kind::Restores,
        }
    }
}
