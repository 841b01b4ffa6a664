//! The registry: vehicles, identities and terminals of a fleet.

use std::collections::BTreeSet;
use std::sync::Arc;

use fob_verify::HolderKey;

use super::book::FleetBook;
use super::{Engine, Failure};
use crate::domain::function::{BUILT_IN, FUNCTIONS_MAX, FunctionRef};
use crate::domain::identity::{LICENCES_MAX, is_licence_class};
use crate::domain::vehicle::MODEL_LEN_MAX;
use crate::domain::{
    Catalogue, FunctionCode, Hold, Identity, IdentityId, Licence, Refusal, RefusalCode, Status,
    Terminal, TerminalId, Vehicle, VehicleId,
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
pub struct Checked {
    /// The writes, in order.
    pub writes: Vec<Write>,
    /// What is to be done once they are.
    pub then: Option<Then>,
}

/// What follows from an entry, beyond its writes.
#[derive(Clone, Debug)]
pub enum Then {
    /// The keys of an identity that was there before follow it: the entry names its status, or
    /// changes its hold or its licences.
    Follow(IdentityId, Status),
    /// A vehicle that was there before gets another owner, and the rest of its entry with it.
    HandOver(Vehicle),
}

impl Engine {
    /// Puts one entry into a fleet's registry.
    ///
    /// # Errors
    /// What [`check`] refuses; `version_conflict` where another call has given a function code
    /// another meaning meanwhile; as [`Engine::conclude`].
    pub async fn put(&self, fleet: &Arc<FleetBook>, entry: Entry) -> Result<(), Failure> {
        let checked = self.look(|| check(fleet, entry.clone())).await?;
        if !checked.writes.is_empty() {
            outcome(&self.write(checked.writes).await?)?;
        }
        self.conclude(fleet, checked.then).await
    }

    /// Does what follows from an entry. Keys of an identity are suspended with it, and valid again
    /// unless something else suspends them; with another owner, what a vehicle was authorized for
    /// ends and it is reset.
    ///
    /// # Errors
    /// `version_conflict` where another call has changed it meanwhile; `busy`, `hsm_unavailable`,
    /// `store_unavailable`: it may be sent again.
    pub async fn conclude(
        &self,
        fleet: &Arc<FleetBook>,
        then: Option<Then>,
    ) -> Result<(), Failure> {
        match then {
            Some(Then::Follow(id, status)) => self.follow_identity(fleet, &id, status).await,
            Some(Then::HandOver(vehicle)) => self.give_to_owner(fleet, &vehicle).await,
            None => Ok(()),
        }
    }
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

/// Checks an entry against the fleet's book.
///
/// # Errors
/// `malformed`, `unknown_function`, `unknown_identity`.
#[expect(clippy::too_many_lines, reason = "one arm for each kind of entry")]
pub fn check(fleet: &FleetBook, entry: Entry) -> Result<Checked, Refusal> {
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
            let known_owner = |owner| known_identity(fleet, owner, "owner");
            owner.as_ref().map_or(Ok(()), known_owner)?;
            let functions = match functions {
                None => BUILT_IN.iter().map(|(code, _)| *code).collect(),
                Some(asked) => resolve(fleet, asked, &mut writes)?,
            };
            let known = fleet.vehicle(id.as_str());
            let handed_over = known.is_some_and(|known| known.owner != owner);
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
            licences,
        } => {
            check_licences(&licences)?;
            // Left out they stay as they are: no update of licences lifts a suspension or a hold.
            let known = fleet.identity(id.as_str());
            let (was, held) = known
                .as_ref()
                .map_or_else(Default::default, |it| (it.status, it.hold));
            let named = status.is_some();
            let identity = Identity {
                fleet: fleet_id,
                id,
                status: status.unwrap_or(was),
                hold: hold.unwrap_or(held),
                licences,
            };
            if known.is_some_and(|it| named || !it.meets_the_same(&identity)) {
                then = Some(Then::Follow(identity.id.clone(), identity.status));
            }
            Write::Identity(identity)
        }
        Entry::Terminal { id, identity, key } => {
            known_identity(fleet, &identity, "identity")?;
            let status = Status::Active;
            Write::Terminal(Terminal {
                fleet: fleet_id,
                id,
                identity,
                key,
                status,
                attested: None,
            })
        }
    };
    writes.push(entry);
    Ok(Checked { writes, then })
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

fn known_identity(fleet: &FleetBook, id: &IdentityId, field: &'static str) -> Result<(), Refusal> {
    match fleet.identity(id.as_str()) {
        Some(_) => Ok(()),
        None => Err(Refusal::new(RefusalCode::UnknownIdentity).field(field)),
    }
}

/// The codes of a vehicle's functions; functions new to the fleet become writes of their own.
fn resolve(
    fleet: &FleetBook,
    asked: Vec<FunctionSpec>,
    writes: &mut Vec<Write>,
) -> Result<Vec<FunctionCode>, Refusal> {
    if asked.is_empty() || asked.len() > FUNCTIONS_MAX {
        return Err(Refusal::malformed(
            "functions",
            "name 1 to 64 functions, or leave it out for all",
        ));
    }
    let known = fleet.catalogue();
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
    let before: BTreeSet<_> = known.own().map(|(code, _)| code).collect();
    writes.extend(
        catalogue
            .own()
            .filter(|(code, _)| !before.contains(code))
            .map(|(code, name)| Write::Function(fleet.fleet.id, code, name.clone())),
    );
    catalogue.resolve(&refs)
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
