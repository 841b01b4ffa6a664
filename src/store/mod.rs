//! Floor 2: the durable store. One trait, its contract, and one file for each technology.
//!
//! Deliberately not here: rules and caches. The store checks the conditions of a write, because
//! only it sees what is durable; it decides nothing else.

use std::sync::Arc;

use crate::domain::{
    Authorization, AuthorizationId, AuthorizationState, Bundle, BundleId, Epoch, EpochId, Fleet,
    FleetId, FunctionCode, Held, Identity, IdentityId, Mark, Restore, ShardId, Terminal,
    TerminalId, Token, TokenId, UnixTime, Vehicle, VehicleId,
};
use crate::hsm::Signature;

mod amend;
mod answers;
mod encoding;
mod nodes;
pub mod postgres;
mod relied;
mod renew;
mod ruling;
mod signed;
pub mod sqlite;
pub mod whole;

pub use amend::{
    AmendRequest, Amendment, Contact, Following, Listed, Reissue, Reset, Sent, Suspension,
};
pub use nodes::{Lease, News, Nodes, SignedList, Task};
pub use relied::ReliedOn;
pub use renew::{Cursor, Renewal, SignedBy};
pub use ruling::{Act, ActFilter, Acts, Frozen, QuotaDay, Ruled, Ruling, Rulings};
pub use signed::{Made, Recorded, SignatureCount, SignedSoFar, borne, recorded};

/// A durable store.
///
/// Implementations are told apart by speed, never by behaviour: all of them pass the conformance
/// suite in `tests/store`.
pub trait Store: Send + Sync + 'static {
    /// Applies `writes` in order, in one transaction, and returns one answer for each.
    ///
    /// When it returns `Ok` the transaction is on disk: it survives the loss of process and power.
    /// A write whose conditions do not hold is answered so and leaves nothing behind; the others
    /// of the transaction stand. When it returns `Err`, [`StoreError::may_have_happened`] says
    /// whether the transaction may be on disk all the same; it is there whole or not at all.
    fn commit(&self, writes: &[Write]) -> Result<Vec<Applied>, StoreError> {
        self.commit_beside(writes, &mut || {})
    }

    /// As [`Store::commit`]. A store that waits for others to work calls `beside` meanwhile, so that
    /// the caller's thread can do something too: any number of times, or never.
    ///
    /// # Errors
    /// As [`Store::commit`].
    fn commit_beside(
        &self,
        writes: &[Write],
        beside: &mut dyn FnMut(),
    ) -> Result<Vec<Applied>, StoreError>;

    /// Hands everything the book is made of to `each`: settings, fleets, functions, vehicles,
    /// identities, terminals, tokens, epochs, trust list, records (ascending), authorizations, and
    /// what has become of keys, in this order.
    fn load(&self, each: &mut dyn FnMut(Row)) -> Result<(), StoreError>;

    /// A signed bundle, by any of its names, as last committed.
    fn bundle(&self, by: BundleKey) -> Result<Option<SignedBundle>, StoreError>;

    /// Every version of a bundle that was issued and is kept, oldest first; each as it was signed
    /// last.
    fn versions(&self, bundle: BundleId) -> Result<Vec<SignedBundle>, StoreError>;

    /// Bundles that stand as `epoch` signed them and have not expired at `now`: about `at_most` of
    /// them, after `after`, in an order of the store's own.
    fn signed_by(
        &self,
        epoch: EpochId,
        now: UnixTime,
        after: Option<&Cursor>,
        at_most: u32,
    ) -> Result<SignedBy, StoreError>;

    /// The authorizations on which bundles were issued to an identity.
    fn held_by(
        &self,
        fleet: FleetId,
        identity: &IdentityId,
    ) -> Result<Vec<AuthorizationId>, StoreError>;

    /// What a request to amend was answered with ([`AmendRequest::outcome`]), by its scope.
    fn outcome(&self, scope: &[u8; 32]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Every order that was answered under one `Idempotency-Key` ([`OrderRequest::call`]).
    fn answered(&self, call: &[u8; 32]) -> Result<Vec<AnsweredOrder>, StoreError>;

    /// The authorizations of a fleet that `filter` lets through, ascending by id.
    fn authorizations(
        &self,
        filter: &AuthorizationFilter,
    ) -> Result<Vec<Authorization>, StoreError>;

    /// The acts that `filter` lets through, in the order of their times; those of one second in an
    /// order of the store's own, a fleet's as they came.
    fn acts(&self, filter: &ActFilter) -> Result<Acts, StoreError>;

    /// Closes what is open and opens it anew, after a failed commit. Until it succeeds every
    /// other call fails.
    fn reopen(&self) -> Result<(), StoreError>;

    /// What several nodes need of it; `None` where there is one node.
    fn nodes(&self) -> Option<&dyn Nodes> {
        None
    }
}

/// One write of a transaction.
#[derive(Clone, Debug)]
pub enum Write {
    /// A setting fixed at `init`, as `issuer`; refused with [`Applied::Conflict`] where it already
    /// has another value.
    Setting(String, String),
    /// A new fleet; [`Applied::Conflict`] where id, name or tag is taken.
    NewFleet(Fleet),
    /// A function of a fleet's own; [`Applied::Conflict`] where code or name means another.
    Function(FleetId, FunctionCode, Arc<str>),
    /// A vehicle, new or in place of the one of that id, whose epoch and status stay as they are;
    /// [`Applied::Conflict`] where that has another owner, which takes a [`Reset`].
    Vehicle(Vehicle),
    /// An identity, new or in place of the one of that id.
    Identity(Identity),
    /// A terminal, new or in place of the one of that id, whose status stays as it is.
    Terminal(Terminal),
    /// One of the three, where the fleet has none of that id; [`Applied::Conflict`] where it has.
    New(Member),
    /// An identity's data go.
    Erase(Erasure),
    /// A terminal that another of its identity vouches for.
    Attest(Box<Attestation>),
    /// A new token.
    NewToken(Token),
    /// A new token in the place of one that ends at a time, unless it ends before that itself;
    /// [`Applied::Stale`] where the fleet has no such token, or it was revoked;
    /// [`Applied::Conflict`] where the new one's id is taken.
    RotateToken(Box<Rotation>),
    /// What this process has had signed so far. It comes along: with it the store counts, in this
    /// transaction and under this process, what of that the others of it record, and what they
    /// purge. A transaction without one is not counted.
    Signed(Arc<SignedSoFar>),
    /// When tokens were used last, unless that is known of a later time already.
    TokensUsed(Arc<[(TokenId, UnixTime)]>),
    /// The end of a token, at a time; [`Applied::Stale`] where the fleet has no such token.
    RevokeToken(FleetId, TokenId, UnixTime),
    /// An epoch, new or in place of the one of that id.
    Epoch(Epoch),
    /// A trust list of that version, with the bytes cars get; [`Applied::Conflict`] where that
    /// version or a higher one exists.
    TrustList(u32, Arc<[u8]>),
    /// A step that was recorded, with what it changes: all of it or [`Applied::Stale`].
    Step(Box<RecordedStep>),
    /// A new authorization.
    Authorize(Box<NewAuthorization>),
    /// Writes nothing, and says what became of a request that may have been answered before:
    /// [`Applied::Repeated`] or [`Applied::Conflict`] as for `Authorize`, [`Applied::Done`] where
    /// its scope has not been used.
    Recall(Request),
    /// One more attempt at the PIN of this authorization version, counted before it is compared.
    PinAttempt(AuthorizationId, u32),
    /// The last attempt at the PIN of this authorization version was right: what was counted is
    /// taken back. [`Applied::Stale`] where there is no such version.
    PinRight(AuthorizationId, u32),
    /// A redemption or an order: the bundle, how it was signed, and the conditions under which it
    /// stands.
    Redeem(Arc<Redemption>),
    /// A change of an authorization, or the end of one.
    Amend(Arc<Amendment>),
    /// A vehicle's reset.
    Reset(Arc<Reset>),
    /// An identity, a vehicle or a terminal suspended, or active again.
    Suspend(Arc<Suspension>),
    /// Keys that follow one.
    Follow(Arc<Following>),
    /// A bundle signed again as it is.
    Renew(Arc<Renewal>),
    /// Status lists are about to be given out. What is given out is kept with them: where there are
    /// several nodes, the others give it out too.
    Lists(Arc<[SignedList]>),
    /// Somebody asks for these status lists; whoever signs them is told by [`Nodes::news`]. Writes
    /// nothing else.
    AskLists(Arc<[ShardId]>),
    /// Counts out so many status indexes of a fleet, to be used by nobody else:
    /// [`Applied::Indexes`]. [`Applied::Stale`] where there is no such fleet.
    TakeIndexes(FleetId, u64),
    /// A write that is done only while the lease of this number is held; [`Applied::Stale`] where
    /// it is not. On one node every lease is held.
    Under(Lease, Box<Write>),
    /// What a car was sent and has acknowledged; [`Applied::Stale`] where there is no such vehicle.
    Contact(FleetId, VehicleId, Contact),
    /// What a fleet rules from now on, and who said so.
    Rule(Box<Rulings>),
    /// A write that somebody decided, answered as it is; where it is done, the act is kept beside it,
    /// and otherwise it leaves none. Without a write the act alone: [`Applied::Stale`] where there is
    /// no such fleet.
    Act(Box<Act>, Option<Box<Write>>),
    /// What so many writes right before it, in the same list, have registered, as one act: its object
    /// becomes how many of each kind. Where they have registered nothing it leaves none.
    Registered(Box<Act>, usize),
    /// The end of everything that was over before this time: authorizations (with their bundles,
    /// evidence and remembered requests) whose window and `redeem_by` both lie before it, at most
    /// so many in one go, and tokens that expired or were revoked before it.
    Purge(UnixTime, u32),
}

impl Write {
    /// This write, with the act it is kept as.
    pub fn as_act(self, act: Act) -> Self {
        Self::Act(Box::new(act), Some(Box::new(self)))
    }
}

/// What a fleet's registry is made of.
#[derive(Clone, Debug)]
pub enum Member {
    /// A vehicle.
    Vehicle(Vehicle),
    /// An identity.
    Identity(Identity),
    /// A terminal.
    Terminal(Terminal),
}

/// The end of what is kept of an identity.
///
/// Its row gets the name `becomes`, is suspended, and loses licences and hold; the bundles that were
/// issued to it are that name's from then on. Its terminals are deleted. Acts about it or its
/// terminals are that name's too, and no longer say why.
/// [`Applied::Stale`] where the fleet has no such identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Erasure {
    /// The fleet.
    pub fleet: FleetId,
    /// The identity.
    pub id: IdentityId,
    /// A name that nobody has had, and nobody can register.
    pub becomes: IdentityId,
}

/// A step in the life of epochs, roots or operators, as its record says.
///
/// Conditions, all of them or [`Applied::Stale`]: the newest record has the number before this one,
/// so the step was decided on what is there; no trust list has this version or a higher one; and no
/// token has two active epochs afterwards.
#[derive(Clone, Debug)]
pub struct RecordedStep {
    /// The record's number.
    pub number: u64,
    /// The record, signed.
    pub record: Arc<str>,
    /// Epochs, new or in place of those of their ids.
    pub epochs: Vec<Epoch>,
    /// A trust list: version, and the bytes cars get.
    pub trust: Option<(u32, Arc<[u8]>)>,
}

/// A new authorization, and what it rests on.
///
/// Conditions: the fleet, the vehicle and (where a terminal gave the command) the terminal and its
/// identity exist and are active, and that identity owns the vehicle; otherwise
/// [`Applied::Stale`]. Where `request` names a scope that
/// has been used, nothing is written: [`Applied::Repeated`] for the same digest,
/// [`Applied::Conflict`] for another. Where the scope of `answers` has been used:
/// [`Applied::Spent`].
#[derive(Clone, Debug)]
pub struct NewAuthorization {
    /// The authorization.
    pub authorization: Arc<Authorization>,
    /// What makes the request one that may be sent again.
    pub request: Option<Request>,
    /// The signed command, kept as evidence.
    pub command: Option<String>,
    /// The borrower's request that it answers, kept like one that amended.
    pub answers: Option<AmendRequest>,
}

/// A terminal that another of its identity vouches for.
///
/// Conditions: the fleet has no terminal of that id; the one that vouches ([`Terminal::attested`])
/// and its identity are active, and that is the new one's identity too; otherwise
/// [`Applied::Stale`]. Where `request` was answered before, nothing is written:
/// [`Applied::Repeated`] for the same digest, [`Applied::Conflict`] for another.
#[derive(Clone, Debug)]
pub struct Attestation {
    /// The new terminal.
    pub terminal: Terminal,
    /// What makes it one that may be sent again, and is kept of it.
    pub request: AmendRequest,
}

/// A token and what takes its place.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// The one before, of the same fleet.
    pub before: TokenId,
    /// First second in which that no longer holds.
    pub ends: UnixTime,
    /// The new one.
    pub token: Token,
}

/// A request that may be sent again and is then answered as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// SHA-256 over who asked and the identifier it chose (`jti` or `Idempotency-Key`).
    pub scope: [u8; 32],
    /// SHA-256 of what was asked.
    pub digest: [u8; 32],
}

/// A bundle with what makes its keys believed.
#[derive(Clone, Debug, PartialEq)]
pub struct SignedBundle {
    /// What was signed.
    pub bundle: Bundle,
    /// How.
    pub proof: Proof,
}

/// How the keys of a bundle were signed.
#[derive(Clone, Debug, PartialEq)]
pub enum Proof {
    /// One signature for each key, in their order.
    Each(Vec<Signature>),
    /// One signature for the root of a tree in which these keys are neighbouring leaves.
    Tree(TreeProof),
}

/// Where the keys of a bundle stand in a tree, and what of the tree they need (RFC 9162 §2.1).
#[derive(Clone, Debug, PartialEq)]
pub struct TreeProof {
    /// Of the tree's root.
    pub signature: Signature,
    /// Leaves of the tree, at least 2.
    pub size: u64,
    /// The leaf of the bundle's first key.
    pub first: u64,
    /// What these leaves need from the rest of the tree, as [`fob_verify::tree::Section`] takes it.
    pub outside: Box<[fob_verify::tree::Hash]>,
}

/// A redemption, or an order, to commit.
///
/// Conditions, all of them or [`Applied::Stale`]: the epoch is not revoked; the vehicle is active
/// and at `signed.bundle.vehicle_epoch`; fleet and identity are active, and so is `terminal` where
/// one is named; the identity is not held; what it `relies_on` is so; neither fleet nor vehicle is
/// frozen ([`Ruling::Freeze`]). [`Applied::Conflict`] where the bundle's id is taken. With it the fleet's counter of status indexes becomes at least
/// `status_next`.
///
/// Without `order`: the authorization is open and at `signed.bundle.version`, and becomes redeemed.
///
/// With `order` there is no authorization yet: it comes with the bundle, redeemed, and has the
/// bundle's id. Where the order's request was answered before, nothing is written:
/// [`Applied::Repeated`] for the same digest, [`Applied::Conflict`] for another.
#[derive(Clone, Debug)]
pub struct Redemption {
    /// The bundle, signed.
    pub signed: SignedBundle,
    /// The registered terminal that redeemed, where it is one.
    pub terminal: Option<TerminalId>,
    /// The fleet's counter of status indexes after this bundle.
    pub status_next: u64,
    /// What makes it an order: authorization and redemption in one.
    pub order: Option<Order>,
    /// What was believed of the fleet's rules, and of identity and vehicle where they ask for that.
    pub relies_on: ReliedOn,
}

/// What an order brings beside its bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The token it was given with.
    pub author: TokenId,
    /// What makes it one that may be sent again.
    pub request: Option<OrderRequest>,
}

/// An order that may be sent again and is then answered as before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderRequest {
    /// SHA-256 over the fleet and the `Idempotency-Key` it came under; many orders share it.
    pub call: Arc<[u8; 32]>,
    /// The first half of the SHA-256 of its `ref`.
    pub reference: [u8; 16],
    /// The first half of the SHA-256 of what was asked.
    pub digest: [u8; 16],
}

/// An order that was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnsweredOrder {
    /// As in [`OrderRequest`].
    pub reference: [u8; 16],
    /// As in [`OrderRequest`].
    pub digest: [u8; 16],
    /// What it was answered with.
    pub bundle: BundleId,
}

/// What became of one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It is on disk.
    Done,
    /// Its conditions do not hold (any more); it left nothing behind.
    Stale,
    /// The same request was answered before, with this authorization.
    Repeated(AuthorizationId),
    /// Something else stands in its place.
    Conflict,
    /// The borrower's request that it answers was answered before.
    Spent,
    /// Attempts at the PIN so far, this one included; it was not counted where the number is above
    /// [`crate::domain::authorization::PIN_ATTEMPTS_MAX`].
    PinAttempts(u32),
    /// It is on disk, and is the amendment of this number.
    Amended(u64),
    /// So many authorizations were purged.
    Purged(u32),
    /// The first of the status indexes that were counted out.
    Indexes(u64),
}

impl Applied {
    /// Whether a write that somebody decided has changed what it was to change.
    pub(in crate::store) const fn took_place(self) -> bool {
        matches!(self, Self::Done | Self::Amended(_))
    }
}

/// One row handed to the book, at start or as news.
#[derive(Clone, Debug)]
pub enum Row {
    /// A setting.
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
    /// An identity and its terminals are gone: news.
    Erased(FleetId, IdentityId),
    /// A token.
    Token(Token),
    /// An epoch.
    Epoch(Epoch),
    /// The newest trust list.
    TrustList(u32, Arc<[u8]>),
    /// A record, by its number.
    Record(u64, Arc<str>),
    /// An authorization.
    Authorization(Authorization),
    /// What was done to a key that is not valid; one for each reason it is suspended for.
    Status(Mark),
    /// How a key stands, all in all: news.
    Held(ShardId, u32, Held),
    /// When a status list was last signed.
    Listed(Listed),
    /// A status list as it was given out last.
    List(Arc<SignedList>),
    /// Somebody asks for a status list: news.
    Asked(ShardId),
    /// What was over before this time was purged: news.
    Purged(UnixTime),
    /// What a car was sent and has acknowledged.
    Contact(FleetId, VehicleId, Contact),
    /// How many amendments there were.
    Revision(u64),
    /// What a fleet rules.
    Ruled(FleetId, Ruled),
    /// A restore; the last one counts.
    Restore(Restore),
}

/// The names a bundle can be found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BundleKey {
    /// Its own id.
    Id(BundleId),
    /// The authorization it was issued on; an order's has its bundle's id.
    Authorization(AuthorizationId),
}

/// Which authorizations to list.
#[derive(Clone, Debug)]
pub struct AuthorizationFilter {
    /// Of this fleet.
    pub fleet: FleetId,
    /// Only the one of this id.
    pub id: Option<AuthorizationId>,
    /// For this vehicle.
    pub vehicle: Option<VehicleId>,
    /// In this state.
    pub state: Option<AuthorizationState>,
    /// Open ones only if the time to redeem them has passed (`true`) or only if not (`false`),
    /// judged at `now`; the other states pass either way.
    pub expired: Option<bool>,
    /// The time for `expired`.
    pub now: UnixTime,
    /// With an id above this one.
    pub after: Option<AuthorizationId>,
    /// At most so many.
    pub limit: u32,
}

impl AuthorizationFilter {
    /// Whether it lets this one through, apart from `limit`.
    pub fn lets_through(&self, it: &Authorization) -> bool {
        let over = it.redeem_by.min(it.window.not_after) <= self.now;
        it.fleet == self.fleet
            && self.id.is_none_or(|id| it.id == id)
            && self.vehicle.as_ref().is_none_or(|id| it.vehicle == *id)
            && self.state.is_none_or(|state| it.state == state)
            && (it.state != AuthorizationState::Open
                || self.expired.is_none_or(|expired| expired == over))
            && self.after.is_none_or(|after| it.id > after)
    }
}

/// Why the store did not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The store is of another schema version than this program.
    #[error("the store has schema version {found}, this program knows {known}: {advice}")]
    Schema {
        /// What the store says.
        found: u32,
        /// What this program knows.
        known: u32,
        /// What to do.
        advice: &'static str,
    },
    /// What was read cannot be right.
    #[error("the store holds something this program cannot read: {0}")]
    Corrupt(String),
    /// The transaction did not take place.
    #[error("the store refused: {0}")]
    Failed(String),
    /// The transaction may or may not have taken place.
    #[error("the store may or may not have committed: {0}")]
    Unknown(String),
}

impl StoreError {
    /// Whether the same call may succeed later.
    pub fn retryable(&self) -> bool {
        matches!(self, Self::Failed(_) | Self::Unknown(_))
    }

    /// Whether the transaction may be on disk.
    pub fn may_have_happened(&self) -> bool {
        matches!(self, Self::Unknown(_))
    }
}
