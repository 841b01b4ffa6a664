//! Who amends, and what makes the call one that may be sent again: floor 3.

use std::sync::Arc;

use super::authenticate::{BackEnd, OwnerCommand, part_of};
use super::book::FleetBook;
use crate::domain::change::Action;
use crate::domain::{
    AuthorizationId, IdentityId, Refusal, RefusalCode, TerminalId, UnixTime, VehicleId,
};
use crate::store::{Act, AmendRequest, Request, Write};

/// Who amends.
#[derive(Clone, Copy)]
pub enum Caller<'a> {
    /// A fleet, by what it puts into its registry, which is the act.
    Registry(&'a Arc<FleetBook>),
    /// A fleet's back end; with what makes its call one that may be sent again.
    BackEnd(&'a BackEnd, Option<Request>),
    /// An owner terminal.
    Owner(&'a OwnerCommand),
    /// An owner terminal, for a part of what it commands.
    OwnerInPart(&'a OwnerCommand, Request),
}

/// What somebody does to what was authorized, as it is kept.
pub(super) struct Doing<'a> {
    /// In a stable word.
    pub(super) act: &'static str,
    /// Of what.
    pub(super) object: String,
    /// Why.
    pub(super) why: Option<&'a str>,
}

/// The stable word for an action.
pub(super) fn word(action: Action) -> &'static str {
    match action {
        Action::Suspend => "suspend",
        Action::Resume => "resume",
        Action::Cancel => "revoke",
    }
}

impl<'a> Caller<'a> {
    /// Its fleet.
    pub fn fleet(self) -> &'a Arc<FleetBook> {
        match self {
            Self::Registry(fleet) => fleet,
            Self::BackEnd(caller, _) => &caller.fleet,
            Self::Owner(caller) | Self::OwnerInPart(caller, _) => &caller.fleet,
        }
    }

    pub(super) fn by(&self) -> Option<TerminalId> {
        match self {
            Self::Registry(_) | Self::BackEnd(..) => None,
            Self::Owner(caller) | Self::OwnerInPart(caller, _) => Some(caller.terminal.id.clone()),
        }
    }

    /// Whose terminal it is, where it is one.
    pub(super) fn identity(&self) -> Option<IdentityId> {
        match self {
            Self::Registry(_) | Self::BackEnd(..) => None,
            Self::Owner(caller) | Self::OwnerInPart(caller, _) => {
                Some(caller.terminal.identity.clone())
            }
        }
    }

    /// Why a back end asks.
    pub(super) fn why(&self) -> Option<&'a str> {
        match self {
            Self::BackEnd(caller, _) => caller.why.as_deref(),
            Self::Registry(_) | Self::Owner(_) | Self::OwnerInPart(..) => None,
        }
    }

    /// A write with the act that it is kept as, where a back end asks for it. An owner's command is
    /// kept itself.
    pub(super) fn acting(&self, at: UnixTime, doing: &Doing<'_>, write: Write) -> Write {
        match self.act(at, doing) {
            Some(act) => write.as_act(act),
            None => write,
        }
    }

    /// What a back end does, as it is kept.
    pub(super) fn act(&self, at: UnixTime, doing: &Doing<'_>) -> Option<Act> {
        let Self::BackEnd(caller, _) = self else {
            return None;
        };
        Some(Act {
            why: doing.why.map(ToOwned::to_owned),
            ..caller.act(at, doing.act, doing.object.clone())
        })
    }

    pub(super) fn request(&self) -> Option<Request> {
        match self {
            Self::Registry(_) => None,
            Self::BackEnd(_, request) => *request,
            Self::Owner(caller) => Some(caller.request),
            Self::OwnerInPart(_, request) => Some(*request),
        }
    }

    /// The same, for one authorization of all that the request is about: each is answered by
    /// itself when the request comes again.
    pub(super) fn in_part(self, id: AuthorizationId) -> Self {
        let part = |request| part_of(request, id.bytes());
        match self {
            Self::Registry(fleet) => Self::Registry(fleet),
            Self::BackEnd(caller, request) => Self::BackEnd(caller, request.map(part)),
            Self::Owner(caller) => Self::OwnerInPart(caller, part(caller.request)),
            Self::OwnerInPart(caller, request) => Self::OwnerInPart(caller, part(request)),
        }
    }

    /// What is kept of the request once it is carried out.
    pub(super) fn keep(&self, made_at: u64, outcome: Vec<u8>) -> Option<AmendRequest> {
        Some(AmendRequest {
            request: self.request()?,
            command: match self {
                Self::Registry(_) | Self::BackEnd(..) => None,
                Self::Owner(caller) | Self::OwnerInPart(caller, _) => Some(caller.evidence.clone()),
            },
            made_at,
            outcome,
        })
    }

    /// An owner terminal commands only what its identity owns.
    pub(super) fn check_owns(&self, vehicle: &VehicleId) -> Result<(), Refusal> {
        let (Self::Owner(caller) | Self::OwnerInPart(caller, _)) = self else {
            return Ok(());
        };
        let owned = caller.fleet.vehicle(vehicle.as_str());
        if owned.is_some_and(|owned| owned.owner.as_ref() == Some(&caller.terminal.identity)) {
            return Ok(());
        }
        Err(Refusal::new(RefusalCode::Forbidden)
            .detail("an owner terminal commands only vehicles its identity owns"))
    }
}
