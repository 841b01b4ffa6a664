//! Terminals that vouch for each other: an owner's phone registers the next by its own signed command.
//! Floor 3.
//!
//! A terminal vouches for new ones alone: what is registered already is the fleet's to change, or a
//! single phone could put its own key in place of all others. Who has vouched for whom, and when, is
//! kept: when a phone was lost, what it has registered since is looked at.

use std::sync::Arc;

use fob_verify::HolderKey;

use super::amend::replayed;
use super::authenticate::OwnerCommand;
use super::book::FleetBook;
use super::caller::Caller;
use super::outcome::Outcome;
use super::revoke::Target;
use super::{Engine, Failure};
use crate::concurrent;
use crate::domain::{
    Attested, IdentityId, Refusal, RefusalCode, Status, Terminal, TerminalId, UnixTime,
};
use crate::store::{AmendRequest, Applied, Attestation, Write};

/// The most terminals an identity may have for another to be vouched for.
pub const TERMINALS_OF_IDENTITY_MAX: usize = 32;

/// The most that are told of those a terminal has registered: it can have registered more, if the
/// fleet has moved some to other identities.
const REGISTERED_MAX: usize = 500;

/// Which terminals of a fleet to list.
#[derive(Clone, Debug, Default)]
pub struct TerminalFilter {
    /// Of this identity.
    pub identity: Option<IdentityId>,
    /// Vouched for by this terminal.
    pub attested_by: Option<TerminalId>,
    /// Vouched for at this time or later.
    pub attested_since: Option<UnixTime>,
    /// With an id above this one.
    pub after: Option<TerminalId>,
    /// At most so many.
    pub limit: usize,
}

impl Engine {
    /// Registers a terminal for the identity of the one that commands it.
    ///
    /// # Errors
    /// `forbidden` for a terminal of somebody else, an id that is taken, or one terminal too many;
    /// `command_replayed`; `version_conflict` where the one that vouches was suspended meanwhile.
    pub async fn attest(
        &self,
        caller: &OwnerCommand,
        id: TerminalId,
        identity: Option<IdentityId>,
        key: HolderKey,
    ) -> Result<(), Failure> {
        let checked = self.look(|| check(caller, &id, identity.as_ref())).await;
        if let Err(refusal) = checked {
            // The same command again, most likely.
            let applied = self.write(vec![Write::Recall(caller.request)]).await?;
            return match applied.first() {
                Some(Applied::Repeated(_)) => Ok(()),
                _ => Err(refusal.into()),
            };
        }
        let at = self.clock().unix();
        let attestation = Attestation {
            terminal: Terminal {
                fleet: caller.fleet.fleet.id,
                id,
                identity: caller.terminal.identity.clone(),
                key,
                status: Status::Active,
                since: at,
                attested: Some(Box::new(Attested {
                    by: caller.terminal.id.clone(),
                    at,
                })),
            },
            request: AmendRequest {
                request: caller.request,
                command: Some(caller.evidence.clone()),
                made_at: at,
                outcome: Outcome::nothing().encode(),
            },
        };
        let applied = self
            .write(vec![Write::Attest(Box::new(attestation))])
            .await?;
        match applied.first() {
            Some(Applied::Done | Applied::Repeated(_)) => Ok(()),
            Some(Applied::Conflict) => Err(replayed().into()),
            _ => Err(Refusal::new(RefusalCode::VersionConflict)
                .detail("a terminal or its identity has changed meanwhile; look and ask again")
                .into()),
        }
    }

    /// The terminals that a target has registered, where that is a terminal: if it was lost, they are
    /// to be looked at. An owner terminal is told those of its own identity.
    ///
    /// # Errors
    /// A fault.
    pub async fn registered_by(
        &self,
        caller: Caller<'_>,
        target: &Target,
    ) -> Result<Vec<Arc<Terminal>>, Failure> {
        let Target::Terminal(id) = target else {
            return Ok(Vec::new());
        };
        let filter = TerminalFilter {
            identity: caller.identity(),
            attested_by: Some(id.clone()),
            limit: REGISTERED_MAX,
            ..TerminalFilter::default()
        };
        self.terminals(caller.fleet(), filter).await
    }

    /// The terminals of a fleet that a filter lets through, ascending by id.
    ///
    /// # Errors
    /// A fault.
    pub async fn terminals(
        &self,
        fleet: &Arc<FleetBook>,
        filter: TerminalFilter,
    ) -> Result<Vec<Arc<Terminal>>, Failure> {
        let fleet = Arc::clone(fleet);
        // Every terminal is looked at: that may take a while.
        concurrent::spawn_blocking(move || select(&fleet, &filter))
            .await
            .map_err(|error| Failure::Fault(format!("a look through the terminals: {error}")))
    }
}

fn select(fleet: &FleetBook, filter: &TerminalFilter) -> Vec<Arc<Terminal>> {
    let which = |it: &Terminal| {
        let attested = it.attested.as_deref();
        let by = filter.attested_by.as_ref();
        let since = filter.attested_since;
        filter.identity.as_ref().is_none_or(|id| it.identity == *id)
            && by.is_none_or(|by| attested.is_some_and(|it| it.by == *by))
            && since.is_none_or(|since| attested.is_some_and(|it| it.at >= since))
            && filter.after.as_ref().is_none_or(|after| it.id > *after)
    };
    let mut all = fleet.terminals_where(which);
    all.truncate(filter.limit);
    all
}

fn check(
    caller: &OwnerCommand,
    id: &TerminalId,
    identity: Option<&IdentityId>,
) -> Result<(), Refusal> {
    let own = &caller.terminal.identity;
    let forbidden = |why| Refusal::new(RefusalCode::Forbidden).detail(why);
    if identity.is_some_and(|named| named != own) {
        return Err(
            forbidden("a terminal vouches for terminals of its own identity").field("identity"),
        );
    }
    if caller.fleet.terminal(id.as_str()).is_some() {
        return Err(forbidden(
            "there is a terminal of this id: choose another, or have the fleet replace it",
        ));
    }
    if caller.fleet.terminals_of(own.as_str()).len() >= TERMINALS_OF_IDENTITY_MAX {
        return Err(forbidden(
            "the identity has 32 terminals: that is all it may have",
        ));
    }
    Ok(())
}
