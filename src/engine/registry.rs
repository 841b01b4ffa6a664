//! The registry: vehicles, identities and terminals of a fleet, as entries are checked. What puts
//! them there is in `put` and `import`.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use fob_verify::HolderKey;

use super::book::FleetBook;
use super::erase::is_erased;
use crate::domain::function::{BUILT_IN, FUNCTIONS_MAX, FunctionRef};
use crate::domain::identity::{LICENCES_MAX, is_licence_class};
use crate::domain::vehicle::MODEL_LEN_MAX;
use crate::domain::{
    Catalogue, FunctionCode, Hold, Identity, IdentityId, Licence, Refusal, RefusalCode, Status,
    Terminal, TerminalId, UnixTime, Vehicle, VehicleId,
};
use crate::store::{Applied, Write};

/// A function as a vehicle's entry names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FunctionSpec {
    /// One the fleet knows.
    Known(FunctionRef),
    /// One of the fleet's own, introduced by code and name.
    Own(FunctionCode, String),
}

/// One entry of the registry, as asked for: decoded, not yet checked.
#[derive(Clone, Debug)]
pub enum Entry {
    /// A vehicle.
    Vehicle {
        /// Its id.
        id: VehicleId,
        /// Its model.
        model: String,
        /// Its functions; `None` is all built-in ones.
        functions: Option<Vec<FunctionSpec>>,
        /// Its owner; `None` is the fleet.
        owner: Option<IdentityId>,
        /// Its own public key.
        key: Option<HolderKey>,
    },
    /// An identity.
    Identity {
        /// Its id.
        id: IdentityId,
        /// Its status; `None` leaves it as it is, and makes a new one active.
        status: Option<Status>,
        /// Whether it is held, and why; `None` leaves it as it is.
        hold: Option<Option<Hold>>,
        /// When the fleet last proved who it is; `None` leaves it as it is.
        proved: Option<UnixTime>,
        /// Its licences.
        licences: Vec<Licence>,
    },
    /// A terminal.
    Terminal {
        /// Its id.
        id: TerminalId,
        /// Whose it is.
        identity: IdentityId,
        /// Its public key.
        key: HolderKey,
    },
}

/// What is to be written for one entry, and what follows from it.
#[derive(Clone, Debug)]
pub(super) struct Checked {
    /// The writes, in order.
    pub(super) writes: Vec<Write>,
    /// What is to be done once they are.
    pub(super) then: Option<Then>,
}

/// What follows from an entry, beyond its writes.
#[derive(Clone, Debug)]
pub(super) enum Then {
    /// The keys of an identity that was there before follow it.
    Follow(IdentityId, Status),
    /// The keys on a vehicle that was there before follow its model.
    Model(VehicleId),
    /// A vehicle that was there before gets another owner, and the rest of its entry with it.
    HandOver(Vehicle),
}

/// What the answers to an entry's writes mean.
///
/// # Errors
/// `version_conflict` where one of them was not applied.
pub fn outcome(applied: &[Applied]) -> Result<(), Refusal> {
    if applied.iter().all(|one| *one == Applied::Done) {
        return Ok(());
    }
    Err(Refusal::new(RefusalCode::VersionConflict)
        .detail("another call has changed this at the same moment; look and ask again"))
}

/// What entries are checked against: the fleet's book, the time, and what of the same transaction
/// comes before them.
pub(super) struct Known<'a> {
    pub(super) fleet: &'a FleetBook,
    now: UnixTime,
    pub(super) catalogue: Arc<Catalogue>,
    /// Identities that the transaction makes.
    pub(super) identities: HashSet<IdentityId>,
}

impl<'a> Known<'a> {
    /// Nothing but the book.
    pub(super) fn of(fleet: &'a FleetBook, now: UnixTime) -> Self {
        Self {
            fleet,
            now,
            catalogue: fleet.catalogue(),
            identities: HashSet::new(),
        }
    }

    /// Checks an entry.
    ///
    /// # Errors
    /// `malformed`, `unknown_function`, `unknown_identity`.
    pub(super) fn check(&mut self, entry: Entry) -> Result<Checked, Refusal> {
        check(self, entry)
    }
}

fn check(before: &mut Known<'_>, entry: Entry) -> Result<Checked, Refusal> {
    let (fleet, now) = (before.fleet, before.now);
    let fleet_id = fleet.fleet.id;
    let mut writes = Vec::with_capacity(1);
    let mut then = None;
    let entry = match entry {
        Entry::Vehicle {
            id,
            model,
            functions,
            owner,
            key,
        } => {
            check_model(&model)?;
            let known_owner = |owner| known_identity(before, owner, "owner");
            owner.as_ref().map_or(Ok(()), known_owner)?;
            let functions = resolve(before, functions, &mut writes)?;
            let known = fleet.vehicle(id.as_str());
            let handed_over = known.as_ref().is_some_and(|known| known.owner != owner);
            // Whoever was cut off puts it again, and then they follow.
            then = known.map(|known| Then::Model(known.id.clone()));
            let vehicle = Vehicle {
                fleet: fleet_id,
                id,
                model,
                functions,
                owner,
                key,
                epoch: fleet.first_vehicle_epoch(),
                status: Status::Active,
            };
            if handed_over {
                let then = Some(Then::HandOver(vehicle));
                return Ok(Checked { writes, then });
            }
            Write::Vehicle(vehicle)
        }
        Entry::Identity {
            id,
            status,
            hold,
            proved,
            licences,
        } => {
            check_free(&id)?;
            check_licences(&licences)?;
            if proved.is_some_and(|at| at > now) {
                return Err(Refusal::malformed("proved", "it lies in the future"));
            }
            let known = fleet.identity(id.as_str());
            // Left out they stay as they are: no update of licences lifts a suspension or a hold.
            let was = known.as_deref();
            let identity = Identity {
                fleet: fleet_id,
                id,
                status: status.or(was.map(|it| it.status)).unwrap_or_default(),
                hold: hold.unwrap_or(was.and_then(|it| it.hold)),
                proved: proved.or(was.and_then(|it| it.proved)),
                licences,
            };
            // Whoever was cut off puts it again, and then they follow.
            if known.is_some() {
                then = Some(Then::Follow(identity.id.clone(), identity.status));
            }
            Write::Identity(identity)
        }
        Entry::Terminal { id, identity, key } => {
            Write::Terminal(described(before, (id, identity, key))?)
        }
    };
    writes.push(entry);
    Ok(Checked { writes, then })
}

fn check_free(id: &IdentityId) -> Result<(), Refusal> {
    if is_erased(id) {
        return Err(Refusal::malformed(
            "id",
            "names that begin with erased- stand for identities whose data were erased",
        ));
    }
    Ok(())
}

/// A terminal as it is described. Described anew, the same device is none that was not seen before.
fn described(
    before: &Known<'_>,
    (id, identity, key): (TerminalId, IdentityId, HolderKey),
) -> Result<Terminal, Refusal> {
    known_identity(before, &identity, "identity")?;
    let (fleet, now) = (before.fleet, before.now);
    let known = fleet.terminal(id.as_str());
    let same = known.filter(|it| it.key == key && it.identity == identity);
    Ok(Terminal {
        fleet: fleet.fleet.id,
        id,
        identity,
        key,
        status: Status::Active,
        since: same.map_or(now, |it| it.since),
        attested: None,
    })
}

fn check_model(model: &str) -> Result<(), Refusal> {
    if (1..=MODEL_LEN_MAX).contains(&model.chars().count()) {
        return Ok(());
    }
    Err(Refusal::malformed(
        "model",
        "a model's name is 1 to 64 characters",
    ))
}

fn known_identity(before: &Known<'_>, id: &IdentityId, field: &'static str) -> Result<(), Refusal> {
    if is_erased(id) {
        return Err(Refusal::new(RefusalCode::UnknownIdentity).field(field));
    }
    if before.identities.contains(id) || before.fleet.identity(id.as_str()).is_some() {
        return Ok(());
    }
    Err(Refusal::new(RefusalCode::UnknownIdentity).field(field))
}

/// The codes of a vehicle's functions, all built-in ones where none are said; functions new to the fleet become writes of their own.
fn resolve(
    before: &mut Known<'_>,
    asked: Option<Vec<FunctionSpec>>,
    writes: &mut Vec<Write>,
) -> Result<Vec<FunctionCode>, Refusal> {
    let Some(asked) = asked else {
        return Ok(BUILT_IN.iter().map(|(code, _)| *code).collect());
    };
    if asked.is_empty() || asked.len() > FUNCTIONS_MAX {
        return Err(Refusal::malformed(
            "functions",
            "name 1 to 64 functions, or leave it out for all",
        ));
    }
    let known = Arc::clone(&before.catalogue);
    let mut catalogue = Catalogue::clone(&known);
    let mut refs = Vec::with_capacity(asked.len());
    for function in asked {
        match function {
            FunctionSpec::Known(one) => refs.push(one),
            FunctionSpec::Own(code, name) => {
                catalogue.define(code, &name)?;
                refs.push(FunctionRef::Code(code));
            }
        }
    }
    let resolved = catalogue.resolve(&refs)?;
    let had: BTreeSet<_> = known.own().map(|(code, _)| code).collect();
    let fleet = before.fleet.fleet.id;
    let new = catalogue.own().filter(|(code, _)| !had.contains(code));
    writes.extend(new.map(|(code, name)| Write::Function(fleet, code, name.clone())));
    before.catalogue = Arc::new(catalogue);
    Ok(resolved)
}

fn check_licences(licences: &[Licence]) -> Result<(), Refusal> {
    if licences.len() > LICENCES_MAX
        || !licences
            .iter()
            .all(|licence| is_licence_class(&licence.class))
    {
        return Err(Refusal::malformed(
            "licences",
            "at most 32 licences, each class 1 to 8 letters and digits",
        ));
    }
    Ok(())
}
