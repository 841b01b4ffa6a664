//! One thing a store holds. What a store knows beside these follows from them, or is its own.
//!
//! The encoding is deterministic CBOR (RFC 8949 §4.2.1), an array for each kind, and is written
//! only to be compared. Times after which something is deleted are given in spans of 2^16 seconds,
//! which is how exactly all stores keep them.

use std::sync::Arc;

use crate::domain::{
    Authorization, AuthorizationId, BundleId, Epoch, Fleet, FleetId, FleetSettings, FunctionCode,
    Held, Identity, Restore, ShardId, Terminal, TerminalId, Token, TokenId, UnixTime, Vehicle,
    VehicleId,
};
use crate::store::encoding::{authorization_body, bundle_parts, cbor, context, registry, words};
use crate::store::{Contact, Listed, Request, Row, Sent, SignedBundle, StoreError};

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
    /// Backups that were put back.
    Restores,
}

impl Kind {
    /// All kinds, in the order in which they can be taken in.
    pub const ALL: [Self; 21] = [
        Self::Settings,
        Self::Fleets,
        Self::Functions,
        Self::Vehicles,
        Self::Identities,
        Self::Terminals,
        Self::Tokens,
        Self::Epochs,
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
            Row::Authorization(_) | Row::Status(_) => return None,
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
            Self::Restore(_) => Kind::Restores,
        }
    }

    /// Appends the entry. Structures are taken apart by name, so that a field that is added to one
    /// is missed by the compiler where it is missing here.
    pub(super) fn write(&self, bytes: &mut Vec<u8>) -> Result<(), StoreError> {
        match self {
            Self::Setting(name, value) => {
                cbor::write(bytes, |e| e.array(2)?.str(name)?.str(value)?.ok())
            }
            Self::Fleet(fleet) => write_fleet(bytes, fleet),
            Self::Function(fleet, code, name) => cbor::write(bytes, |e| {
                e.array(3)?.bytes(&fleet.0)?.u16(*code)?.str(name)?.ok()
            }),
            Self::Vehicle(vehicle) => write_vehicle(bytes, vehicle),
            Self::Identity(identity) => write_identity(bytes, identity),
            Self::Terminal(terminal) => write_terminal(bytes, terminal),
            Self::Token(token) => write_token(bytes, token),
            Self::Epoch(place, epoch) => write_epoch(bytes, *place, epoch),
            Self::TrustList(version, body) => {
                cbor::write(bytes, |e| e.array(2)?.u32(*version)?.bytes(body)?.ok())
            }
            Self::Record(number, jws) => {
                cbor::write(bytes, |e| e.array(2)?.u64(*number)?.str(jws)?.ok())
            }
            Self::Revision(count) => cbor::write(bytes, |e| e.u64(*count)?.ok()),
            Self::Authorization(authorization, attempts, bundle) => {
                write_authorization(bytes, authorization, *attempts, bundle.as_ref())
            }
            Self::Request(request, authorization, made_at) => cbor::write(bytes, |e| {
                let Request { scope, digest } = request;
                e.array(4)?.bytes(scope)?.bytes(digest)?;
                e.bytes(&authorization.0)?.u64(*made_at)?.ok()
            }),
            Self::Command(authorization, version, command) => cbor::write(bytes, |e| {
                e.array(3)?.bytes(&authorization.0)?;
                e.u32(*version)?.str(command)?.ok()
            }),
            Self::Amendment {
                request: Request { scope, digest },
                authorization,
                made_at,
                command,
                outcome,
            } => cbor::write(bytes, |e| {
                e.array(6)?.bytes(scope)?.bytes(digest)?;
                write_bytes(e, authorization.as_ref().map(|id| &id.0[..]))?;
                e.u64(*made_at)?;
                cbor::write_text(e, command.as_deref())?;
                e.bytes(outcome)?.ok()
            }),
            Self::Bundle(signed, order) => write_bundle(bytes, signed, order.as_ref()),
            Self::Order {
                call,
                reference,
                digest,
                bundle,
                span,
            } => cbor::write(bytes, |e| {
                e.array(5)?.bytes(call)?.bytes(reference)?.bytes(digest)?;
                e.bytes(&bundle.0)?.u64(*span)?.ok()
            }),
            Self::Status {
                shard,
                index,
                held,
                span,
            } => cbor::write(bytes, |e| {
                e.array(5)?.u32(shard.tag)?.u64(shard.number)?;
                e.u32(*index)?;
                match held {
                    Held::ForGood => e.null()?,
                    Held::By(reasons) => e.u8(reasons.bits())?,
                };
                e.u64(*span)?.ok()
            }),
            Self::Listed(Listed {
                shard,
                issued_at,
                expires,
            }) => cbor::write(bytes, |e| {
                e.array(4)?.u32(shard.tag)?.u64(shard.number)?;
                e.u64(*issued_at)?.u64(*expires)?.ok()
            }),
            Self::Contact(fleet, vehicle, contact) => {
                write_contact(bytes, *fleet, vehicle, contact)
            }
            Self::Restore(Restore {
                number,
                at,
                trust_next,
            }) => cbor::write(bytes, |e| {
                e.array(3)?.u32(*number)?.u64(*at)?.u32(*trust_next)?.ok()
            }),
        }
    }
}

fn write_bytes(e: &mut cbor::Into<'_>, bytes: Option<&[u8]>) -> cbor::Written {
    match bytes {
        None => e.null()?.ok(),
        Some(bytes) => e.bytes(bytes)?.ok(),
    }
}

fn write_time(e: &mut cbor::Into<'_>, time: Option<UnixTime>) -> cbor::Written {
    match time {
        None => e.null()?.ok(),
        Some(time) => e.u64(time)?.ok(),
    }
}

fn write_fleet(bytes: &mut Vec<u8>, fleet: &Fleet) -> Result<(), StoreError> {
    let Fleet {
        id,
        name,
        status,
        tag,
        status_key,
        status_next,
        settings,
    } = fleet;
    let FleetSettings {
        open_redemption,
        signing,
    } = settings;
    cbor::write(bytes, |e| {
        e.array(8)?.bytes(&id.0)?.str(name.as_str())?;
        e.i64(words::status(*status))?
            .u32(*tag)?
            .bytes(status_key)?;
        e.u64(*status_next)?.bool(*open_redemption)?;
        match signing {
            None => e.null()?.ok(),
            Some(signing) => e.u8(words::signing(*signing))?.ok(),
        }
    })
}

fn write_vehicle(bytes: &mut Vec<u8>, vehicle: &Vehicle) -> Result<(), StoreError> {
    let Vehicle {
        fleet,
        id,
        model,
        functions,
        owner,
        key,
        epoch,
        status,
    } = vehicle;
    cbor::write(bytes, |e| {
        e.array(8)?.bytes(&fleet.0)?.str(id.as_str())?.str(model)?;
        authorization_body::write_functions(e, functions)?;
        cbor::write_text(e, owner.as_ref().map(|owner| owner.as_str()))?;
        write_bytes(e, key.as_ref().map(|key| key.public().as_bytes()))?;
        e.u32(*epoch)?.i64(words::status(*status))?.ok()
    })
}

fn write_identity(bytes: &mut Vec<u8>, identity: &Identity) -> Result<(), StoreError> {
    let Identity {
        fleet,
        id,
        status,
        licences,
    } = identity;
    let licences = registry::licences(licences)?;
    cbor::write(bytes, |e| {
        e.array(4)?.bytes(&fleet.0)?.str(id.as_str())?;
        e.i64(words::status(*status))?.bytes(&licences)?.ok()
    })
}

fn write_terminal(bytes: &mut Vec<u8>, terminal: &Terminal) -> Result<(), StoreError> {
    let Terminal {
        fleet,
        id,
        identity,
        key,
        status,
    } = terminal;
    cbor::write(bytes, |e| {
        e.array(5)?.bytes(&fleet.0)?.str(id.as_str())?;
        e.str(identity.as_str())?.bytes(key.public().as_bytes())?;
        e.i64(words::status(*status))?.ok()
    })
}

fn write_token(bytes: &mut Vec<u8>, token: &Token) -> Result<(), StoreError> {
    let Token {
        id,
        fleet,
        hash,
        scopes,
        created_at,
        expires_at,
        revoked_at,
    } = token;
    cbor::write(bytes, |e| {
        e.array(7)?.bytes(&id.0)?.bytes(&fleet.0)?.bytes(hash)?;
        e.u8(scopes.bits())?.u64(*created_at)?;
        write_time(e, *expires_at)?;
        write_time(e, *revoked_at)
    })
}

fn write_epoch(bytes: &mut Vec<u8>, place: u64, epoch: &Epoch) -> Result<(), StoreError> {
    let Epoch {
        id,
        key,
        cka_id,
        token_serial,
        window,
        state,
        created_at,
        activated_at,
    } = epoch;
    let mut public = Vec::new();
    key.encode(&mut public);
    cbor::write(bytes, |e| {
        e.array(10)?.u64(place)?.bytes(&id.0)?.bytes(&public)?;
        e.bytes(cka_id)?.str(token_serial)?;
        e.u64(window.not_before)?.u64(window.not_after)?;
        e.i64(words::epoch_state(*state))?.u64(*created_at)?;
        write_time(e, *activated_at)
    })
}

fn write_authorization(
    bytes: &mut Vec<u8>,
    authorization: &Authorization,
    attempts: u32,
    bundle: Option<&BundleId>,
) -> Result<(), StoreError> {
    let Authorization {
        id,
        fleet,
        version,
        vehicle,
        functions: _,
        window,
        redeem_by,
        restrictions: _,
        pin: _,
        signing: _,
        state,
        redeemed: _,
        created_at: _,
        author: _,
    } = authorization;
    // What is passed over above is in the body.
    let body = authorization_body::encode(authorization)?;
    let code_set = authorization_body::code_set(authorization)?;
    let amended = authorization.amended();
    cbor::write(bytes, |e| {
        e.array(12)?.bytes(&id.0)?.bytes(&fleet.0)?;
        e.u32(*version)?.str(vehicle.as_str())?;
        e.u64(window.not_after)?.u64(*redeem_by)?;
        e.i64(words::state(*state))?.u32(attempts)?;
        write_bytes(e, bundle.map(|id| &id.0[..]))?;
        write_time(e, amended.map(|amended| amended.revision))?;
        write_bytes(e, code_set.as_deref())?;
        e.bytes(&body)?.ok()
    })
}

fn write_bundle(
    bytes: &mut Vec<u8>,
    signed: &SignedBundle,
    order: Option<&OrderOf>,
) -> Result<(), StoreError> {
    let SignedBundle { bundle, proof } = signed;
    let crate::domain::Bundle {
        id,
        authorization,
        version,
        fleet,
        vehicle,
        vehicle_epoch,
        identity,
        holder,
        epoch,
        algorithm,
        issuer,
        issued_at,
        window,
        region,
        recurring,
        subjects,
        keys,
    } = bundle;
    let mut stand_for = Vec::new();
    context::write_subjects(&mut stand_for, subjects)?;
    cbor::write(bytes, |e| {
        e.array(21)?.bytes(&id.0)?.bytes(&authorization.0)?;
        e.u32(*version)?.bytes(&fleet.0)?.str(vehicle.as_str())?;
        e.u32(*vehicle_epoch)?.str(identity.as_str())?;
        e.bytes(holder.public().as_bytes())?.bytes(&epoch.0)?;
        e.i64(algorithm.cose())?.str(issuer)?.u64(*issued_at)?;
        e.u64(window.not_before)?.u64(window.not_after)?;
        cbor::write_region(e, region.as_deref())?;
        cbor::write_recurring(e, recurring.as_deref())?;
        e.bytes(&stand_for)?;
        bundle_parts::write_keys(e, keys)?;
        bundle_parts::write_proof(e, proof)?;
        write_bytes(e, order.map(|order| &order.author.0[..]))?;
        let terminal = order.and_then(|order| order.terminal.as_ref());
        cbor::write_text(e, terminal.map(TerminalId::as_str))
    })
}

fn write_contact(
    bytes: &mut Vec<u8>,
    fleet: FleetId,
    vehicle: &VehicleId,
    contact: &Contact,
) -> Result<(), StoreError> {
    let Contact {
        heard_at,
        sent,
        acked,
    } = contact;
    let write_sent = |e: &mut cbor::Into<'_>, sent: &Sent| {
        e.array(3)?.bytes(&sent.digest)?;
        e.u64(sent.revision)?.u64(sent.at)?.ok()
    };
    cbor::write(bytes, |e| {
        e.array(5)?.bytes(&fleet.0)?.str(vehicle.as_str())?;
        e.u64(*heard_at)?;
        write_sent(e, sent)?;
        match acked {
            None => e.null()?.ok(),
            Some(acked) => write_sent(e, acked),
        }
    })
}
