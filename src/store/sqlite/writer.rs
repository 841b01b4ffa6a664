//! Transactions: floor 2, `store/sqlite`. The one place that begins, commits and rolls back.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};

use super::calls::{Calls, PendingAnswers};
use super::checkpoint::Checkpoints;
use super::contexts::Contexts;
use super::import::{self, Answers};
use super::packs::{Packs, Pending};
use super::segments::Segments;
use super::standings::Standings;
use super::{
    acts, amend, authorize, calls, erase, error, fences, purge, redeem, registry, renew, rulings,
    signatures, statuses, steps, suspend,
};
use crate::domain::Restore;
use crate::store::whole::{Entry, Fence, FencedOff, Position};
use crate::store::{Act, Applied, Member, StoreError, Write, signed};

/// The connection that writes, and what it remembers from one transaction to the next.
pub(super) struct Writer {
    /// First, so that it ends while the connection that it serves is open.
    checkpoints: Checkpoints,
    connection: Connection,
    memory: Memory,
    /// The last transaction that was committed; its number is 0 before the first.
    position: Position,
}

/// What the writer remembers. Valid while no transaction is rolled back; then it is loaded anew.
struct Memory {
    contexts: Contexts,
    segments: Segments,
    standings: Standings,
    packs: Packs,
    calls: Calls,
    /// Where a bundle is encoded.
    scratch: Vec<u8>,
}

impl Memory {
    fn load(connection: &Connection) -> Result<Self, StoreError> {
        Ok(Self {
            contexts: Contexts::default(),
            segments: Segments::load(connection)?,
            standings: Standings::default(),
            packs: Packs::load(connection)?,
            calls: Calls::load(connection)?,
            scratch: Vec::new(),
        })
    }
}

/// How a transaction ended.
pub(super) enum Outcome {
    /// It is on disk.
    Committed(Vec<Applied>),
    /// It left nothing behind.
    RolledBack(StoreError),
    /// The connection cannot go on; the error says whether the transaction may be on disk.
    Broken(StoreError),
}

/// A transaction under way.
pub(super) struct Transaction<'a> {
    pub(super) connection: &'a Connection,
    pub(super) contexts: &'a mut Contexts,
    pub(super) segments: &'a mut Segments,
    pub(super) standings: &'a mut Standings,
    pub(super) packs: &'a mut Packs,
    pub(super) calls: &'a mut Calls,
    pub(super) scratch: &'a mut Vec<u8>,
    /// Bundles, and answers to orders, that are written at the end, many in a row.
    pub(super) pending: Pending,
    pub(super) answers: PendingAnswers,
    /// Versions of bundles that were purged, by the number of the epoch that signed them.
    pub(super) gone: BTreeMap<i64, u64>,
    /// Fleets' counters of status indexes to raise, by fleet number: written once, at the end.
    pub(super) status_next: BTreeMap<i64, i64>,
}

impl Writer {
    pub(super) fn new(
        connection: Connection,
        checkpoints: Checkpoints,
    ) -> Result<Self, StoreError> {
        let mut process = [0; 16];
        // A generator that fails here fails everywhere.
        let _ = aws_lc_rs::rand::fill(&mut process);
        Ok(Self {
            memory: Memory::load(&connection)?,
            checkpoints,
            connection,
            position: Position { process, number: 0 },
        })
    }

    /// The last transaction that was committed.
    pub(super) fn position(&self) -> Option<Position> {
        Some(self.position).filter(|position| position.number > 0)
    }

    pub(super) fn commit(&mut self, writes: &[Write]) -> Outcome {
        if let Err(why) = self.checkpoints.look(&self.connection) {
            return Outcome::Broken(why);
        }
        if let Err(why) = self.execute("BEGIN IMMEDIATE") {
            return Outcome::RolledBack(why.into());
        }
        let changes = self.connection.total_changes();
        match self.apply_all(writes) {
            Ok(applied) => self.end(applied, changes),
            Err(why) => self.roll_back(why),
        }
    }

    /// Takes in what another store gave out.
    pub(super) fn import(&mut self, entries: &[Entry], reached: &str) -> Outcome {
        // What stands otherwise by it does so behind its back.
        self.memory.standings = Standings::default();
        self.in_one(|transaction| {
            let mut answers = Answers::new();
            for entry in entries {
                import::take(transaction, entry, &mut answers)?;
            }
            transaction.flush()?;
            calls::import(transaction.connection, &answers)?;
            transaction.calls.forget();
            fences::set(transaction.connection, Fence::Unfinished, Some(reached))
        })
    }

    /// Puts up a fence, or takes it down.
    pub(super) fn set_fence(&mut self, fence: Fence, says: Option<&str>) -> Outcome {
        self.in_one(|transaction| fences::set(transaction.connection, fence, says))
    }

    /// Fences off what was before a restore.
    pub(super) fn restore(
        &mut self,
        restore: &Restore,
        acts: &[Act],
        off: &mut FencedOff,
    ) -> Outcome {
        let outcome = self.in_one(|transaction| {
            *off = fences::restore(transaction.connection, restore)?;
            for act in acts {
                acts::keep(transaction.connection, act)?;
            }
            Ok(())
        });
        // How vehicles stand was changed behind its back.
        self.memory.standings = Standings::default();
        outcome
    }

    /// Removes everything that can be taken in.
    pub(super) fn clear(&mut self) -> Outcome {
        let cleared = self.in_one(|transaction| fences::clear(transaction.connection));
        match (cleared, Memory::load(&self.connection)) {
            (Outcome::Committed(_), Err(why)) => Outcome::Broken(why),
            (outcome, Err(_)) => outcome,
            (outcome, Ok(memory)) => {
                self.memory = memory;
                outcome
            }
        }
    }

    /// Does something in a transaction of its own.
    fn in_one(
        &mut self,
        with: impl FnOnce(&mut Transaction<'_>) -> Result<(), StoreError>,
    ) -> Outcome {
        if let Err(why) = self.execute("BEGIN IMMEDIATE") {
            return Outcome::RolledBack(why.into());
        }
        let changes = self.connection.total_changes();
        let done = self
            .begun()
            .and_then(|mut transaction| with(&mut transaction));
        match done {
            Ok(()) => self.end(Vec::new(), changes),
            Err(why) => self.roll_back(why),
        }
    }

    /// The commit point. Before it the log holds nothing that counts: a crash leaves the store as
    /// it was. The log's last frame of a transaction makes it count, and the sync makes it stay;
    /// a crash after that finds all of it.
    fn end(&mut self, applied: Vec<Applied>, changes_before: u64) -> Outcome {
        let changes = self.connection.total_changes() > changes_before;
        let position = Position {
            number: self.position.number + u64::from(changes),
            ..self.position
        };
        if changes && let Err(why) = fences::note(&self.connection, position) {
            return self.roll_back(why);
        }
        match self.execute("COMMIT") {
            Ok(()) => {
                self.position = position;
                Outcome::Committed(applied)
            }
            Err(why) => match error::at_commit(&why) {
                why @ StoreError::Unknown(_) => Outcome::Broken(why),
                why => self.roll_back(why),
            },
        }
    }

    fn roll_back(&mut self, why: StoreError) -> Outcome {
        // Some failures have rolled back already.
        let rolled_back = self.connection.is_autocommit() || self.execute("ROLLBACK").is_ok();
        if !rolled_back {
            return Outcome::Broken(why);
        }
        match Memory::load(&self.connection) {
            Ok(memory) => self.memory = memory,
            Err(_) => return Outcome::Broken(why),
        }
        Outcome::RolledBack(why)
    }

    /// A transaction, begun.
    fn begun(&mut self) -> Result<Transaction<'_>, StoreError> {
        let memory = &mut self.memory;
        memory.standings.begin(&self.connection)?;
        Ok(Transaction {
            connection: &self.connection,
            contexts: &mut memory.contexts,
            segments: &mut memory.segments,
            standings: &mut memory.standings,
            packs: &mut memory.packs,
            calls: &mut memory.calls,
            scratch: &mut memory.scratch,
            pending: Pending::default(),
            answers: PendingAnswers::default(),
            gone: BTreeMap::new(),
            status_next: BTreeMap::new(),
        })
    }

    fn apply_all(&mut self, writes: &[Write]) -> Result<Vec<Applied>, StoreError> {
        let mut transaction = self.begun()?;
        let mut applied = Vec::with_capacity(writes.len());
        for (at, write) in writes.iter().enumerate() {
            let outcome = match write {
                Write::Registered(act, count) => {
                    let told = act.of_registered(*count, &writes[..at], &applied);
                    if let Some(act) = told {
                        acts::keep(transaction.connection, &act)?;
                    }
                    Applied::Done
                }
                write => transaction.apply(write)?,
            };
            applied.push(outcome);
        }
        transaction.flush()?;
        transaction.raise_status_next()?;
        let gone = signatures::named(transaction.connection, &transaction.gone)?;
        let counts = signed::counts(writes, &applied, &gone);
        signatures::put(transaction.connection, &counts)?;
        Ok(applied)
    }

    fn execute(&self, sql: &str) -> rusqlite::Result<()> {
        self.connection.prepare_cached(sql)?.execute([]).map(drop)
    }
}

impl Transaction<'_> {
    /// Checks every condition before the first change, so a write that is refused needs no undoing.
    #[expect(clippy::too_many_lines, reason = "one short arm for each write")]
    fn apply(&mut self, write: &Write) -> Result<Applied, StoreError> {
        let connection = self.connection;
        if let Write::New(member) = write
            && registry::is_there(connection, member)?
        {
            return Ok(Applied::Conflict);
        }
        match write {
            Write::Setting(name, value) => registry::setting(connection, name, value),
            Write::NewFleet(fleet) => registry::new_fleet(connection, fleet),
            Write::Function(fleet, code, name) => {
                registry::function(connection, fleet, *code, name)
            }
            Write::Vehicle(vehicle) | Write::New(Member::Vehicle(vehicle)) => {
                self.standings.forget_vehicle(&vehicle.fleet, &vehicle.id);
                registry::vehicle(connection, vehicle)
            }
            Write::Identity(identity) | Write::New(Member::Identity(identity)) => {
                self.standings
                    .forget_identity(&identity.fleet, &identity.id);
                registry::identity(connection, identity)
            }
            Write::Terminal(terminal) | Write::New(Member::Terminal(terminal)) => {
                self.standings
                    .forget_terminal(&terminal.fleet, &terminal.id);
                registry::terminal(connection, terminal)
            }
            Write::Erase(erasure) => erase::erase(self, erasure),
            Write::Attest(attestation) => {
                let terminal = &attestation.terminal;
                self.standings
                    .forget_terminal(&terminal.fleet, &terminal.id);
                registry::attest(connection, attestation)
            }
            Write::NewToken(token) => registry::new_token(connection, token),
            Write::RotateToken(rotation) => registry::rotate_token(connection, rotation),
            Write::TokensUsed(used) => registry::tokens_used(connection, used),
            Write::RevokeToken(fleet, token, at) => {
                registry::revoke_token(connection, fleet, token, *at)
            }
            Write::Epoch(epoch) => {
                self.standings.forget_epoch(&epoch.id);
                registry::epoch(connection, epoch)
            }
            Write::Step(step) => {
                for epoch in &step.epochs {
                    self.standings.forget_epoch(&epoch.id);
                }
                steps::step(connection, step)
            }
            Write::TrustList(version, body) => registry::trust_list(connection, *version, body),
            Write::Authorize(new) => authorize::authorize(self, new),
            Write::Recall(request) => authorize::recall(connection, request),
            Write::PinAttempt(id, version) => authorize::pin_attempt(connection, id, *version),
            Write::PinRight(id, version) => authorize::pin_right(connection, id, *version),
            Write::Redeem(redemption) => redeem::redeem(self, redemption),
            Write::Amend(amendment) => amend::amend(self, amendment),
            Write::Reset(reset) => amend::reset(self, reset),
            Write::Suspend(suspension) => suspend::suspend(self, suspension),
            Write::Follow(following) => suspend::follow(self, following),
            Write::Renew(renewal) => renew::renew(self, renewal),
            Write::Lists(lists) => statuses::listed(connection, lists),
            // Written at the end, with what became of the others.
            Write::Signed(_) => Ok(Applied::Done),
            // There is nobody else to tell.
            Write::AskLists(_) => Ok(Applied::Done),
            Write::TakeIndexes(fleet, count) => {
                self.raise_status_next()?;
                self.status_next.clear();
                registry::take_indexes(connection, fleet, *count)
            }
            Write::Under(_, write) => self.apply(write),
            Write::Contact(fleet, vehicle, contact) => {
                statuses::contact(connection, fleet, vehicle, contact)
            }
            Write::Rule(ruled) => {
                self.standings.forget_ruled(&ruled.fleet);
                rulings::rule(connection, ruled)
            }
            Write::Act(act, write) => {
                let applied = match write {
                    Some(write) => self.apply(write)?,
                    None => Applied::Done,
                };
                if applied.took_place() && !acts::keep(connection, act)? {
                    return Ok(Applied::Stale);
                }
                Ok(applied)
            }
            Write::Purge(before, at_most) => purge::purge(self, *before, *at_most),
            Write::Registered(..) => Err(StoreError::Failed(
                "what was registered is told of a list of writes".into(),
            )),
        }
    }

    /// Writes what was noted.
    pub(super) fn flush(&mut self) -> Result<(), StoreError> {
        self.packs.flush(self.connection, &mut self.pending)?;
        self.calls.flush(self.connection, &mut self.answers)
    }

    fn raise_status_next(&self) -> Result<(), StoreError> {
        for (fleet, next) in &self.status_next {
            self.connection
                .prepare_cached(
                    "UPDATE fleets SET status_next = max(status_next, ?2) WHERE number = ?1",
                )?
                .execute(params![fleet, next])?;
        }
        Ok(())
    }
}
