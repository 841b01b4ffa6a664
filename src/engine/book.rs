//! The book: everything a decision needs, in memory, read without a lock.
//!
//! One thread writes it, the committer, and only what is durable; everybody reads it. On one node
//! it is complete; among several it lacks what others have committed since they were heard last. It
//! admits; the store's conditions decide.
//!
//! Deliberately not here: what is in flight (`reserve.rs`), and anything secret.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use crossbeam::channel::bounded;

use crate::concurrent::Map;
use crate::domain::change::{Followed, Registered};
use crate::domain::{
    Amended, Authorization, AuthorizationId, AuthorizationState, Catalogue, Epoch, EpochState,
    Fleet, FleetId, FleetName, FunctionCode, Identity, IdentityId, Restore, RootKey, Standing,
    Status, Terminal, Token, TokenId, UnixTime, Vehicle, VehicleId,
};
use crate::store::{
    Amendment, Applied, Contact, Erasure, Member, RecordedStep, Rotation, Row, Ruled, Store,
    StoreError, Suspension, Write,
};

use super::records;
use super::rulebook::FrozenThings;
use super::statuses::Statuses;

mod fleet;
mod uses;

pub use fleet::FleetBook;
pub use uses::Uses;

/// Everything in memory.
#[derive(Default)]
pub struct Book {
    fleets: Map<FleetId, Arc<FleetBook>>,
    fleet_names: Map<FleetName, FleetId>,
    tokens: Map<[u8; 32], Arc<Token>>,
    /// When each token was used last: here, or as far as it was written down.
    pub uses: Uses,
    /// In the map's own entries: a look-up touches no other memory, and no count that others raise.
    authorizations: Map<AuthorizationId, Authorization>,
    settings: Map<String, String>,
    epochs: ArcSwap<Vec<Arc<Epoch>>>,
    active: ArcSwapOption<Epoch>,
    trust: ArcSwapOption<TrustList>,
    /// How every key stands.
    pub statuses: Statuses,
    records: ArcSwap<Vec<Arc<str>>>,
    standing: ArcSwap<Standing>,
    restore: ArcSwap<Restore>,
    /// Authorizations that were over before this time have been looked for. The writer's own.
    forgotten_before: AtomicU64,
}

/// The newest trust list, as cars get it.
pub struct TrustList {
    /// Its version.
    pub version: u32,
    /// Its bytes.
    pub bytes: Arc<[u8]>,
}

/// Rows that go from the thread that reads them to the one that takes them in at once, and how
/// many such loads may wait.
const LOAD_ROWS: usize = 512;
const LOADS_WAITING: usize = 4;

impl Book {
    /// Takes in everything `store` holds. Reading and taking in go on side by side: each is about
    /// half of the work.
    ///
    /// # Errors
    /// The store's.
    pub fn load(&self, store: &dyn Store) -> Result<(), StoreError> {
        self.forgotten_before.store(0, Ordering::Relaxed);
        let (rows, loads) = bounded::<Vec<Row>>(LOADS_WAITING);
        let loaded = Statuses::default();
        let statuses = &loaded;
        let mut frozen = BTreeMap::<_, FrozenThings>::new();
        let held = &mut frozen;
        std::thread::scope(|scope| {
            let taker = std::thread::Builder::new().name("fob-load".into());
            taker
                .spawn_scoped(scope, move || {
                    loads.into_iter().flatten().for_each(|row| match row {
                        // Some that are held may be marked no more.
                        Row::Status(mark) => statuses.mark(&[mark]),
                        // And some that are frozen may have been released.
                        Row::Ruled(fleet, Ruled::Frozen(what, since)) => {
                            held.entry(fleet).or_default().insert(what, since);
                        }
                        row => self.take(row),
                    });
                })
                .map_err(|error| StoreError::Failed(format!("no thread to load with: {error}")))?;
            let mut load = Vec::with_capacity(LOAD_ROWS);
            let read = store.load(&mut |row| {
                load.push(row);
                if load.len() == LOAD_ROWS {
                    let full = std::mem::replace(&mut load, Vec::with_capacity(LOAD_ROWS));
                    // It takes until this end is dropped, or panics, which the scope passes on.
                    let _ = rows.send(full);
                }
            });
            let _ = rows.send(load);
            drop(rows);
            read
        })?;
        self.statuses.become_as(&loaded);
        for fleet in self.fleets() {
            let frozen = frozen.remove(&fleet.fleet.id).unwrap_or_default();
            fleet.ruled.become_frozen(frozen);
        }
        Ok(())
    }

    /// Takes in one row of the store.
    pub fn take(&self, row: Row) {
        match row {
            Row::Setting(name, value) => drop(self.settings.pin().insert(name, value)),
            Row::Fleet(fleet) => self.put_fleet(fleet),
            Row::Function(fleet, code, name) => self.put_function(fleet, code, &name),
            Row::Vehicle(vehicle) => self.put_vehicle(vehicle),
            Row::Identity(identity) => self.put_identity(identity),
            Row::Terminal(terminal) => self.put_terminal(terminal),
            Row::Erased(fleet, id) => self.erase(fleet, &id),
            Row::Token(token) => self.put_token(token),
            Row::Epoch(epoch) => self.put_epochs([epoch]),
            Row::TrustList(version, bytes) => self.put_trust(version, bytes),
            Row::Record(number, text) => self.put_record(number, text),
            Row::Authorization(authorization) => self.put_authorization(authorization),
            Row::Status(mark) => self.statuses.mark(&[mark]),
            Row::Held(shard, index, held) => self.statuses.put(shard, index, held),
            Row::Listed(list) => self.statuses.listed(&[list]),
            Row::List(list) => self.statuses.given_out(list),
            Row::Asked(shard) => self.statuses.ask(shard),
            Row::Purged(before) => self.forget(before, 1),
            Row::Contact(fleet, vehicle, contact) => self.put_contact(fleet, vehicle, contact),
            Row::Revision(revision) => self.statuses.complete(revision),
            Row::Ruled(fleet, ruled) => self.put_ruled(fleet, ruled),
            Row::Restore(restore) => {
                self.statuses.restored(restore);
                self.restore.store(Arc::new(restore));
            }
        }
    }

    /// Takes in what others have changed, in the order it was told.
    pub fn hear(&self, news: Vec<Row>) {
        let mut epochs = Vec::new();
        for row in news {
            match row {
                Row::Epoch(epoch) => epochs.push(epoch),
                row => {
                    if !epochs.is_empty() {
                        self.put_epochs(std::mem::take(&mut epochs));
                    }
                    self.take(row);
                }
            }
        }
        self.put_epochs(epochs);
    }

    /// Takes in one write that the store has answered.
    pub fn apply(&self, write: &Write, applied: Applied) {
        if let Write::Under(_, write) | Write::Act(_, Some(write)) = write {
            return self.apply(write, applied);
        }
        if let Applied::Amended(revision) = applied {
            return self.amend(write, revision);
        }
        if applied != Applied::Done {
            if let (Write::Purge(before, _), Applied::Purged(count)) = (write, applied) {
                self.forget(*before, count);
            }
            return;
        }
        match write.clone() {
            Write::Setting(name, value) => self.take(Row::Setting(name, value)),
            Write::NewFleet(fleet) => self.take(Row::Fleet(fleet)),
            Write::Function(fleet, code, name) => self.take(Row::Function(fleet, code, name)),
            Write::Vehicle(vehicle) | Write::New(Member::Vehicle(vehicle)) => {
                self.replace_vehicle(vehicle);
            }
            Write::Identity(identity) | Write::New(Member::Identity(identity)) => {
                self.put_identity(identity);
            }
            Write::Terminal(terminal) | Write::New(Member::Terminal(terminal)) => {
                self.replace_terminal(terminal);
            }
            Write::Erase(erasure) => self.rename_erased(erasure),
            Write::Attest(new) => self.take(Row::Terminal(new.terminal)),
            Write::NewToken(token) => self.take(Row::Token(token)),
            Write::RotateToken(rotation) => self.rotate_token(*rotation),
            Write::RevokeToken(fleet, id, at) => self.end_token(fleet, id, at),
            Write::Epoch(epoch) => self.take(Row::Epoch(epoch)),
            Write::TrustList(version, bytes) => self.take(Row::TrustList(version, bytes)),
            Write::Step(step) => self.put_step(*step),
            Write::Authorize(new) => {
                self.put_authorization(Arc::unwrap_or_clone(new.authorization))
            }
            // An order's authorization is never open: the store alone has it.
            Write::Redeem(redemption) if redemption.order.is_some() => {}
            Write::Redeem(redemption) => {
                self.set_state(
                    redemption.signed.bundle.authorization,
                    AuthorizationState::Redeemed,
                );
            }
            Write::Lists(lists) => {
                for list in &*lists {
                    self.statuses.listed(&[list.listed]);
                    self.statuses.given_out(Arc::new(list.clone()));
                }
            }
            Write::Contact(fleet, vehicle, contact) => self.put_contact(fleet, vehicle, contact),
            Write::Rule(ruled) => self.rule(*ruled),
            Write::Suspend(suspension) => self.suspend(&suspension),
            // What the book says of a bundle does not depend on who signed it.
            Write::Renew(_)
            | Write::Recall(_)
            | Write::PinAttempt(..)
            | Write::PinRight(..)
            | Write::Purge(..)
            | Write::AskLists(_)
            | Write::TokensUsed(_)
            | Write::Signed(_)
            | Write::TakeIndexes(..)
            | Write::Under(..)
            | Write::Act(..)
            | Write::Registered(..)
            | Write::Amend(_)
            | Write::Follow(_)
            | Write::Reset(_) => {}
        }
    }

    /// A setting fixed at `init`.
    pub fn setting(&self, name: &str) -> Option<String> {
        self.settings.pin().get(name).cloned()
    }

    /// A fleet, by id.
    pub fn fleet(&self, id: FleetId) -> Option<Arc<FleetBook>> {
        self.fleets.pin().get(&id).cloned()
    }

    /// A fleet, by its name or the text of its id.
    pub fn fleet_named(&self, name: &str) -> Option<Arc<FleetBook>> {
        let by_name = self.fleet_names.pin().get(name).copied();
        self.fleet(by_name.or_else(|| FleetId::parse(name))?)
    }

    /// All fleets, by name.
    pub fn fleets(&self) -> Vec<Arc<FleetBook>> {
        let mut fleets: Vec<_> = self.fleets.pin().values().cloned().collect();
        fleets.sort_by(|a, b| a.fleet.name.cmp(&b.fleet.name));
        fleets
    }

    /// A token, by the SHA-256 of its text.
    pub fn token(&self, hash: &[u8; 32]) -> Option<Arc<Token>> {
        self.tokens.pin().get(hash).cloned()
    }

    /// The tokens of a fleet, oldest first.
    pub fn tokens(&self, fleet: FleetId) -> Vec<Arc<Token>> {
        let pinned = self.tokens.pin();
        let mut tokens: Vec<_> = pinned
            .values()
            .filter(|token| token.fleet == fleet)
            .cloned()
            .collect();
        tokens.sort_by_key(|token| token.id);
        tokens
    }

    /// An authorization, for those who keep it.
    pub fn authorization(&self, id: AuthorizationId) -> Option<Arc<Authorization>> {
        self.look_up(id, |held| Arc::new(held.clone()))
    }

    /// What `look` makes of an authorization.
    pub fn look_up<T>(
        &self,
        id: AuthorizationId,
        look: impl FnOnce(&Authorization) -> T,
    ) -> Option<T> {
        self.authorizations.pin().get(&id).map(look)
    }

    /// The ids of the authorizations that `which` picks. Looks at every one.
    pub fn authorizations_where(
        &self,
        which: impl Fn(&Authorization) -> bool,
    ) -> Vec<AuthorizationId> {
        let pinned = self.authorizations.pin();
        let picked = pinned.values().filter(|held| which(held));
        picked.map(|held| held.id).collect()
    }

    /// How many authorizations are held.
    pub fn authorizations_len(&self) -> usize {
        self.authorizations.len()
    }

    /// All epochs, oldest first.
    pub fn epochs(&self) -> Arc<Vec<Arc<Epoch>>> {
        self.epochs.load_full()
    }

    /// The epoch that signs new keys; where several tokens sign, the active one of them that began
    /// first. It stands for all of them, and is not who signs.
    pub fn active_epoch(&self) -> Option<Arc<Epoch>> {
        self.active.load_full()
    }

    /// The records of all steps so far, oldest first.
    pub fn records(&self) -> Arc<Vec<Arc<str>>> {
        self.records.load_full()
    }

    /// Where they have led: root, operators, open proposals.
    pub fn standing(&self) -> Arc<Standing> {
        self.standing.load_full()
    }

    /// Says what the root is where no record does: the issuer is older than records.
    pub fn adopt_root(&self, root: RootKey) {
        let mut standing = Standing::clone(&self.standing.load());
        standing.begin_with(Some(&root));
        standing.root.get_or_insert(root);
        self.standing.store(Arc::new(standing));
    }

    /// The last time the store was put back from a backup.
    pub fn restore(&self) -> Restore {
        **self.restore.load()
    }

    /// The newest trust list.
    pub fn trust(&self) -> Option<Arc<TrustList>> {
        self.trust.load_full()
    }

    /// Takes in an amendment, a reset with all of its own, or keys that follow.
    fn amend(&self, write: &Write, revision: u64) {
        match write {
            Write::Amend(amendment) => self.put_amended(amendment, revision),
            Write::Reset(reset) => {
                self.raise_epoch(reset.fleet, &reset.vehicle, reset.from.saturating_add(1));
                if let Some(vehicle) = &reset.becomes {
                    self.replace_vehicle(vehicle.clone());
                }
                for amendment in &reset.amendments {
                    self.put_amended(amendment, revision);
                }
            }
            Write::Follow(following) => self.statuses.mark(&following.marks),
            _ => {}
        }
        self.statuses.amended(revision);
    }

    fn suspend(&self, suspension: &Suspension) {
        let Some(book) = self.fleet(suspension.fleet) else {
            return;
        };
        let status = suspension.status;
        match &suspension.of {
            Registered::Followed(Followed::Identity(id)) => {
                if let Some(known) = book.identity(id.as_str()) {
                    self.put_identity(Identity {
                        status,
                        ..Identity::clone(&known)
                    });
                }
            }
            Registered::Followed(Followed::Vehicle(id)) => {
                if let Some(known) = book.vehicle(id.as_str()) {
                    self.put_vehicle(Vehicle {
                        status,
                        ..Vehicle::clone(&known)
                    });
                }
            }
            Registered::Terminal(id) => {
                if let Some(known) = book.terminal(id.as_str()) {
                    self.put_terminal(Terminal {
                        status,
                        ..Terminal::clone(&known)
                    });
                }
            }
        }
    }

    fn put_amended(&self, amendment: &Amendment, revision: u64) {
        self.statuses.mark(&amendment.marks);
        let mut authorization = Authorization::clone(&amendment.authorization);
        let code_set = authorization.amended().and_then(|it| it.code_set.clone());
        authorization.set_amended(Some(Amended { revision, code_set }));
        self.put_authorization(authorization);
    }

    fn raise_epoch(&self, fleet: FleetId, vehicle: &VehicleId, epoch: u32) {
        let Some(book) = self.fleet(fleet) else {
            return;
        };
        if let Some(known) = book.vehicle(vehicle.as_str()) {
            self.put_vehicle(Vehicle {
                epoch,
                ..Vehicle::clone(&known)
            });
        }
    }

    fn put_contact(&self, fleet: FleetId, vehicle: VehicleId, contact: Contact) {
        if let Some(book) = self.fleet(fleet) {
            book.contacts.pin().insert(vehicle, contact);
        }
    }

    fn put_fleet(&self, fleet: Fleet) {
        if let Some(known) = self.fleet(fleet.id) {
            // Read again after a failed commit; counters only ever grow.
            known
                .status_next
                .fetch_max(fleet.status_next, Ordering::Relaxed);
            return;
        }
        self.fleet_names.pin().insert(fleet.name.clone(), fleet.id);
        self.fleets
            .pin()
            .insert(fleet.id, Arc::new(FleetBook::new(fleet)));
    }

    fn put_function(&self, fleet: FleetId, code: FunctionCode, name: &str) {
        let Some(book) = self.fleet(fleet) else {
            return;
        };
        let mut catalogue = Catalogue::clone(&book.catalogue.load());
        if let Err(refusal) = catalogue.define(code, name) {
            tracing::error!(%fleet, code, %refusal, "the store holds a function that cannot be");
            return;
        }
        book.catalogue.store(Arc::new(catalogue));
    }

    fn put_vehicle(&self, vehicle: Vehicle) {
        if let Some(book) = self.fleet(vehicle.fleet) {
            book.vehicles
                .pin()
                .insert(vehicle.id.clone(), Arc::new(vehicle));
        }
    }

    /// As the store does: epoch and status of a known vehicle stay as they are.
    fn replace_vehicle(&self, mut vehicle: Vehicle) {
        let known = self
            .fleet(vehicle.fleet)
            .and_then(|book| book.vehicle(vehicle.id.as_str()));
        if let Some(known) = known {
            (vehicle.epoch, vehicle.status) = (known.epoch, known.status);
        }
        self.put_vehicle(vehicle);
    }

    fn put_identity(&self, identity: Identity) {
        if let Some(book) = self.fleet(identity.fleet) {
            book.identities
                .pin()
                .insert(identity.id.clone(), Arc::new(identity));
        }
    }

    fn put_terminal(&self, terminal: Terminal) {
        let Some(book) = self.fleet(terminal.fleet) else {
            return;
        };
        let terminal = Arc::new(terminal);
        let before = book
            .terminals
            .pin()
            .insert(terminal.id.clone(), Arc::clone(&terminal))
            .cloned();
        if let Some(before) = before {
            book.set_terminals_of(&before.identity, |all| {
                all.retain(|one| one.id != terminal.id)
            });
        }
        book.set_terminals_of(&terminal.identity, |all| all.push(Arc::clone(&terminal)));
    }

    fn rename_erased(&self, erasure: Erasure) {
        self.erase(erasure.fleet, &erasure.id);
        self.put_identity(Identity {
            fleet: erasure.fleet,
            id: erasure.becomes,
            status: Status::Suspended,
            hold: None,
            proved: None,
            licences: Vec::new(),
        });
    }

    fn erase(&self, fleet: FleetId, id: &IdentityId) {
        let Some(book) = self.fleet(fleet) else {
            return;
        };
        for terminal in &*book.terminals_of(id.as_str()) {
            book.terminals.pin().remove(&terminal.id);
        }
        book.terminals_of.pin().remove(id);
        book.identities.pin().remove(id);
    }

    fn replace_terminal(&self, mut terminal: Terminal) {
        let known = self
            .fleet(terminal.fleet)
            .and_then(|book| book.terminal(terminal.id.as_str()));
        if let Some(known) = known {
            terminal.status = known.status;
        }
        self.put_terminal(terminal);
    }

    /// In one swap: whoever looks meanwhile finds one epoch active, before and after.
    fn put_epochs(&self, changed: impl IntoIterator<Item = Epoch>) {
        let mut epochs = Vec::clone(&self.epochs.load());
        for epoch in changed {
            epochs.retain(|known| known.id != epoch.id);
            epochs.push(Arc::new(epoch));
        }
        epochs.sort_by_key(|epoch| (epoch.window.not_before, epoch.created_at, epoch.id));
        self.active.store(
            epochs
                .iter()
                .find(|epoch| epoch.state == EpochState::Active)
                .cloned(),
        );
        self.epochs.store(Arc::new(epochs));
    }

    /// The trust list first: nothing is signed by an epoch that the list does not name yet.
    fn put_step(&self, step: RecordedStep) {
        if let Some((version, bytes)) = step.trust {
            self.put_trust(version, bytes);
        }
        for epoch in &step.epochs {
            let (id, state) = (epoch.id, epoch.state.name());
            tracing::info!(epoch = %id, state, record = step.number, "an epoch changes");
        }
        self.put_epochs(step.epochs);
        self.put_record(step.number, step.record);
    }

    fn put_record(&self, number: u64, text: Arc<str>) {
        let mut standing = Standing::clone(&self.standing.load());
        if number <= standing.number {
            // Read again after a failed commit.
            return;
        }
        match records::read(&text) {
            Ok(record) => standing.apply(&record, records::digest(&text)),
            Err(why) => {
                tracing::error!(number, why, "the store holds a record that cannot be read");
                return;
            }
        }
        let mut all = Vec::clone(&self.records.load());
        all.push(text);
        self.records.store(Arc::new(all));
        self.standing.store(Arc::new(standing));
    }

    fn put_trust(&self, version: u32, bytes: Arc<[u8]>) {
        if self
            .trust
            .load()
            .as_ref()
            .is_none_or(|known| known.version < version)
        {
            self.trust
                .store(Some(Arc::new(TrustList { version, bytes })));
        }
    }

    fn put_authorization(&self, authorization: Authorization) {
        self.authorizations
            .pin()
            .insert(authorization.id, authorization);
    }

    fn set_state(&self, id: AuthorizationId, state: AuthorizationState) {
        self.authorizations.pin().update(id, |known| Authorization {
            state,
            redeemed: known.redeemed || state == AuthorizationState::Redeemed,
            ..known.clone()
        });
    }

    fn put_token(&self, token: Token) {
        if let Some(at) = token.used_at {
            self.uses.learn(token.id, at);
        }
        self.tokens.pin().insert(token.hash, Arc::new(token));
    }

    fn rotate_token(&self, rotation: Rotation) {
        let Rotation {
            before,
            ends,
            token,
        } = rotation;
        let known = self.tokens(token.fleet).into_iter();
        for known in known.filter(|known| known.id == before) {
            let expires_at = known.expires_at.map_or(ends, |at| at.min(ends));
            self.put_token(Token {
                expires_at: Some(expires_at),
                ..Token::clone(&known)
            });
        }
        self.put_token(token);
    }

    fn end_token(&self, fleet: FleetId, id: TokenId, at: UnixTime) {
        let known = self.tokens(fleet).into_iter().find(|token| token.id == id);
        if let Some(known) = known {
            let ended = Token {
                revoked_at: Some(at),
                ..Token::clone(&known)
            };
            self.tokens.pin().insert(ended.hash, Arc::new(ended));
        }
    }

    /// Forgets what the store has purged: `authorizations` of them. It may purge less in one go
    /// than it could; what is forgotten here too early is over either way. Looking through all
    /// authorizations takes long where there are millions, and is left out where none went or
    /// all that could have been forgotten are.
    fn forget(&self, before: UnixTime, authorizations: u32) {
        let forgotten_before = self.forgotten_before.load(Ordering::Relaxed);
        if authorizations > 0 && before > forgotten_before {
            self.forgotten_before.store(before, Ordering::Relaxed);
            self.authorizations
                .pin()
                .retain(|_, known| known.window.not_after.max(known.redeem_by) >= before);
        }
        self.tokens.pin().retain(|_, token| {
            let ends = [token.expires_at, token.revoked_at]
                .into_iter()
                .flatten()
                .min();
            ends.is_none_or(|end| end >= before)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::authorization::tests::sample;

    fn held(number: u8, ends: UnixTime) -> Authorization {
        let mut authorization = sample();
        authorization.id.0[15] = number;
        authorization.window.not_after = ends;
        authorization
    }

    #[test]
    fn what_was_purged_is_forgotten_and_nothing_else() {
        let book = Book::default();
        for (number, ends) in [(1, 200), (2, 300), (3, 300)] {
            book.take(Row::Authorization(held(number, ends)));
        }
        let purge = |before, purged| {
            book.apply(&Write::Purge(before, 1), Applied::Purged(purged));
            book.authorizations_len()
        };
        assert_eq!(purge(200, 0), 3, "it ends at 200, not before");
        assert_eq!(purge(201, 1), 2);
        assert_eq!(purge(201, 0), 2);
        assert_eq!(
            purge(301, 1),
            0,
            "all of them, though one at a time in the store"
        );
        assert_eq!(purge(301, 1), 0);
    }

    #[test]
    fn a_redemption_changes_the_state_alone() {
        let book = Book::default();
        let open = held(1, 200);
        book.take(Row::Authorization(open.clone()));
        book.set_state(open.id, AuthorizationState::Redeemed);
        let redeemed = Authorization {
            state: AuthorizationState::Redeemed,
            redeemed: true,
            ..open
        };
        assert_eq!(book.authorization(redeemed.id).as_deref(), Some(&redeemed));
    }
}
