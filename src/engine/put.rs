//! One entry at a time into a fleet's registry, kept with who put it and why. Floor 3.
//!
//! What stands as it is put is not written again and leaves no act; what follows from it is done all
//! the same, as it may have broken off before.

use std::sync::Arc;

use super::authenticate::BackEnd;
use super::book::FleetBook;
use super::registry::{Entry, Known, Then, outcome};
use super::ruling::check_why;
use super::{Engine, Failure};
use crate::domain::{Identity, Status, UnixTime, Vehicle};
use crate::store::Write;

/// The act that brings something into the registry.
const REGISTER: &str = "register";

/// The act that describes it anew.
const CHANGE: &str = "change";

impl Engine {
    /// Puts one entry into a fleet's registry.
    ///
    /// # Errors
    /// `malformed`, `unknown_function`, `unknown_identity`; `version_conflict` where another call has
    /// changed it, or has given a function code another meaning, meanwhile; `busy`,
    /// `hsm_unavailable`, `store_unavailable`: it may be sent again.
    pub async fn put(&self, caller: &BackEnd, entry: Entry) -> Result<(), Failure> {
        check_why(caller.why.as_deref())?;
        // What other nodes have registered counts here too: what stands so is left as it is.
        self.abreast().await?;
        let at = self.clock().unix();
        let checked = Known::of(&caller.fleet, at).check(entry)?;
        let writes = checked.writes.into_iter();
        let writes: Vec<_> = writes.filter_map(|it| kept(caller, at, it)).collect();
        if !writes.is_empty() {
            outcome(&self.write(writes).await?)?;
        }
        self.conclude(caller, checked.then).await
    }

    /// Does what follows from an entry. Keys of an identity are suspended with it, and valid again
    /// unless something else suspends them; with another owner, what a vehicle was authorized for
    /// ends and it is reset.
    ///
    /// # Errors
    /// `version_conflict` where another call has changed it meanwhile; `busy`, `hsm_unavailable`,
    /// `store_unavailable`: it may be sent again.
    async fn conclude(&self, caller: &BackEnd, then: Option<Then>) -> Result<(), Failure> {
        match then {
            Some(Then::Follow(id, status)) => {
                self.follow_identity(&caller.fleet, &id, status).await
            }
            Some(Then::Model(id)) => self.follow_model(&caller.fleet, &id).await,
            Some(Then::HandOver(vehicle)) => self.give_to_owner(caller, &vehicle).await,
            None => Ok(()),
        }
    }
}

/// A write with the acts it is kept as; `None` where it would change nothing.
pub(super) fn kept(caller: &BackEnd, at: UnixTime, write: Write) -> Option<Write> {
    let (words, object) = said(&caller.fleet, &write)?;
    let act = |write: Write, word| write.as_act(caller.act(at, word, object.clone()));
    Some(words.into_iter().fold(write, act))
}

/// What a write does, in stable words, and to what; `None` where it does nothing.
fn said(fleet: &FleetBook, write: &Write) -> Option<(Vec<&'static str>, String)> {
    let (words, object) = match write {
        Write::Vehicle(new) => {
            let object = format!("vehicle {}", new.id.as_str());
            (vehicle(fleet.vehicle(new.id.as_str()), new), object)
        }
        Write::Identity(new) => {
            let object = format!("identity {}", new.id.as_str());
            (identity(fleet.identity(new.id.as_str()), new), object)
        }
        Write::Terminal(new) => {
            let object = format!("terminal {}", new.id.as_str());
            let word = match fleet.terminal(new.id.as_str()) {
                None => Some(REGISTER),
                Some(known) => {
                    let same = (&known.identity, &known.key) == (&new.identity, &new.key);
                    // That another terminal vouches for it ends with a description of the fleet's.
                    (!same || known.attested.is_some()).then_some(CHANGE)
                }
            };
            (word.into_iter().collect(), object)
        }
        Write::Function(_, code, name) => (vec![REGISTER], format!("function {code}={name}")),
        // Nothing else comes of an entry.
        _ => (vec![CHANGE], String::new()),
    };
    (!words.is_empty()).then_some((words, object))
}

fn vehicle(known: Option<Arc<Vehicle>>, new: &Vehicle) -> Vec<&'static str> {
    let Some(known) = known else {
        return vec![REGISTER];
    };
    // Epoch and status stay as they are, whatever is put.
    let same = (&known.model, &known.functions) == (&new.model, &new.functions)
        && (&known.owner, &known.key) == (&new.owner, &new.key);
    match same {
        true => Vec::new(),
        false => vec![CHANGE],
    }
}

/// What it is suspended by is told from what is merely described otherwise.
fn identity(known: Option<Arc<Identity>>, new: &Identity) -> Vec<&'static str> {
    let Some(known) = known else {
        return vec![REGISTER];
    };
    let status = (known.status != new.status).then_some(match new.status {
        Status::Active => "resume",
        Status::Suspended => "suspend",
    });
    let hold = (known.hold != new.hold).then_some(match new.hold {
        Some(_) => "hold",
        None => "lift_hold",
    });
    let described = (&known.licences, known.proved) != (&new.licences, new.proved);
    let words = [status, hold, described.then_some(CHANGE)];
    words.into_iter().flatten().collect()
}
