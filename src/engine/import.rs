//! Entries of the registry, many in one transaction.
//!
//! An import makes what is not there. What is there as described is left as it is, and what is
//! there otherwise is refused: a file that is sent twice changes nothing the second time, and an
//! old one takes nothing back.

use std::collections::HashSet;

use super::authenticate::BackEnd;
use super::book::FleetBook;
use super::registry::{Entry, FunctionSpec, Known};
use super::{Engine, Failure};
use crate::domain::function::{BUILT_IN, FunctionRef};
use crate::domain::{
    Catalogue, FunctionCode, Refusal, RefusalCode, TerminalId, UnixTime, Vehicle, VehicleId,
};
use crate::store::{Applied, Member, Write};

/// The act that is kept of each transaction.
const IMPORT: &str = "import";

/// What became of an entry that was not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Imported {
    /// The fleet has it from now on.
    Done,
    /// The fleet has had it, as described.
    Unchanged,
}

impl Imported {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Unchanged => "unchanged",
        }
    }
}

/// What is known of an entry before anything is written.
enum Verdict {
    /// All there is to say.
    Said(Result<Imported, Refusal>),
    /// It is to be written, with so many writes.
    Waits(Entry, usize),
}

impl Engine {
    /// Imports entries into a fleet's registry, in their order and in as few transactions as may
    /// be: one, unless two of them are about the same name. An entry may name what one before it
    /// makes. There is one outcome for each, and of each transaction one act.
    ///
    /// # Errors
    /// For an entry: `malformed`, `unknown_identity`, `unknown_function`; `registered_otherwise`
    /// where the fleet has one of its id that is not as described; `version_conflict` where
    /// another call has given a function code another meaning meanwhile; for those of one
    /// transaction `busy`, `store_unavailable`, `shutting_down`: they may be sent again.
    pub async fn import(
        &self,
        caller: &BackEnd,
        entries: Vec<Entry>,
    ) -> Vec<Result<Imported, Failure>> {
        let fleet = &caller.fleet;
        let mut outcomes = Vec::with_capacity(entries.len());
        let mut entries = entries.into_iter().peekable();
        while entries.peek().is_some() {
            // What other nodes have registered counts here too.
            if let Err(refusal) = self.abreast().await {
                outcomes.extend(entries.map(|_| Err(refusal.clone().into())));
                return outcomes;
            }
            let mut draft = Draft::new(fleet, self.clock().unix());
            while let Some(entry) = entries.next_if(|entry| draft.takes(entry)) {
                draft.add(entry);
            }
            outcomes.extend(
                self.import_draft(caller, draft.verdicts, draft.writes)
                    .await,
            );
        }
        outcomes
    }

    async fn import_draft(
        &self,
        caller: &BackEnd,
        verdicts: Vec<Verdict>,
        mut writes: Vec<Write>,
    ) -> Vec<Result<Imported, Failure>> {
        if !writes.is_empty() {
            // How many of what is said by the store, which knows what is new.
            let act = caller.act(self.clock().unix(), IMPORT, String::new());
            writes.push(Write::Registered(Box::new(act), writes.len()));
        }
        let written = match writes.is_empty() {
            true => Ok(Vec::new()),
            false => self.write(writes).await,
        };
        let mut applied = written.as_deref().unwrap_or_default();
        let mut outcomes = Vec::with_capacity(verdicts.len());
        for verdict in verdicts {
            let (entry, count) = match verdict {
                Verdict::Said(outcome) => {
                    outcomes.push(outcome.map_err(Failure::from));
                    continue;
                }
                Verdict::Waits(entry, count) => (entry, count),
            };
            let outcome = match &written {
                Err(refusal) => Err(refusal.clone()),
                Ok(_) => {
                    let (own, others) = applied.split_at(count.min(applied.len()));
                    applied = others;
                    match own.iter().all(|one| *one == Applied::Done) {
                        true => Ok(Imported::Done),
                        false => self.look_again(&caller.fleet, &entry).await,
                    }
                }
            };
            outcomes.push(outcome.map_err(Failure::from));
        }
        outcomes
    }

    /// What became of an entry that another call was faster with.
    async fn look_again(&self, fleet: &FleetBook, entry: &Entry) -> Result<Imported, Refusal> {
        self.abreast().await?;
        standing(&Known::of(fleet, self.clock().unix()), entry).unwrap_or_else(|| {
            Err(Refusal::new(RefusalCode::VersionConflict)
                .detail("another call has changed this at the same moment; look and ask again"))
        })
    }
}

/// A transaction of an import.
struct Draft<'a> {
    known: Known<'a>,
    vehicles: HashSet<VehicleId>,
    terminals: HashSet<TerminalId>,
    verdicts: Vec<Verdict>,
    writes: Vec<Write>,
}

impl<'a> Draft<'a> {
    fn new(fleet: &'a FleetBook, now: UnixTime) -> Self {
        Self {
            known: Known::of(fleet, now),
            vehicles: HashSet::new(),
            terminals: HashSet::new(),
            verdicts: Vec::new(),
            writes: Vec::new(),
        }
    }

    /// Whether nothing here is about the same name: that has to be in the book first.
    fn takes(&self, entry: &Entry) -> bool {
        !match entry {
            Entry::Vehicle { id, .. } => self.vehicles.contains(id),
            Entry::Identity { id, .. } => self.known.identities.contains(id),
            Entry::Terminal { id, .. } => self.terminals.contains(id),
        }
    }

    fn add(&mut self, entry: Entry) {
        let verdict = match standing(&self.known, &entry) {
            Some(outcome) => Verdict::Said(outcome),
            None => match self.known.check(entry.clone()) {
                Err(refusal) => Verdict::Said(Err(refusal)),
                Ok(checked) => {
                    let count = checked.writes.len();
                    self.writes.extend(checked.writes.into_iter().map(new));
                    self.note(&entry);
                    Verdict::Waits(entry, count)
                }
            },
        };
        self.verdicts.push(verdict);
    }

    fn note(&mut self, entry: &Entry) {
        match entry {
            Entry::Vehicle { id, .. } => drop(self.vehicles.insert(id.clone())),
            Entry::Identity { id, .. } => drop(self.known.identities.insert(id.clone())),
            Entry::Terminal { id, .. } => drop(self.terminals.insert(id.clone())),
        }
    }
}

/// The same write, done only where there is none of that id.
fn new(write: Write) -> Write {
    match write {
        Write::Vehicle(vehicle) => Write::New(Member::Vehicle(vehicle)),
        Write::Identity(identity) => Write::New(Member::Identity(identity)),
        Write::Terminal(terminal) => Write::New(Member::Terminal(terminal)),
        other => other,
    }
}

/// What is to be said of an entry whose name the fleet's book has; `None` where it has none.
fn standing(known: &Known<'_>, entry: &Entry) -> Option<Result<Imported, Refusal>> {
    let (fleet, catalogue) = (known.fleet, &known.catalogue);
    let differs = match entry {
        Entry::Vehicle {
            id,
            model,
            functions,
            owner,
            key,
        } => {
            let it = fleet.vehicle(id.as_str())?;
            first(&[
                ("model", it.model != *model),
                ("functions", !has(&it, functions.as_deref(), catalogue)),
                ("owner", it.owner != *owner),
                ("jwk", it.key != *key),
            ])
        }
        Entry::Identity {
            id,
            status,
            hold,
            proved,
            licences,
        } => {
            let it = fleet.identity(id.as_str())?;
            // What it does not speak of is as it is.
            first(&[
                ("status", status.is_some_and(|status| it.status != status)),
                ("hold", hold.is_some_and(|hold| it.hold != hold)),
                ("proved", proved.is_some() && it.proved != *proved),
                ("licences", it.licences != *licences),
            ])
        }
        Entry::Terminal { id, identity, key } => {
            let it = fleet.terminal(id.as_str())?;
            first(&[
                ("identity", it.identity != *identity),
                ("jwk", it.key != *key),
            ])
        }
    };
    Some(match differs {
        None => Ok(Imported::Unchanged),
        Some(field) => Err(Refusal::new(RefusalCode::RegisteredOtherwise)
            .field(field)
            .detail("an import replaces nothing; PUT does")),
    })
}

fn first(fields: &[(&'static str, bool)]) -> Option<&'static str> {
    let mut differing = fields.iter().filter(|(_, differs)| *differs);
    differing.next().map(|(field, _)| *field)
}

/// Whether a vehicle has just these functions.
fn has(vehicle: &Vehicle, asked: Option<&[FunctionSpec]>, catalogue: &Catalogue) -> bool {
    let Some(asked) = asked else {
        let all: Vec<FunctionCode> = BUILT_IN.iter().map(|(code, _)| *code).collect();
        return vehicle.functions == all;
    };
    let meant = |spec: &FunctionSpec| match spec {
        FunctionSpec::Known(one) => Some(one.clone()),
        FunctionSpec::Own(code, name) => catalogue
            .name(*code)
            .is_some_and(|known| **known == *name.as_str())
            .then_some(FunctionRef::Code(*code)),
    };
    let refs: Option<Vec<_>> = asked.iter().map(meant).collect();
    refs.and_then(|refs| catalogue.resolve(&refs).ok())
        .is_some_and(|codes| codes == vehicle.functions)
}
