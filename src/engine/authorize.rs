//! Authorization commands: checked against the rules, integrated into a code set, made durable.

use std::sync::Arc;

use fob_verify::region::Region;
use fob_verify::window::Recurring;

use super::asked::{least_uses, max_uses, with_preset, within_preset};
use super::authenticate::{BackEnd, OwnerCommand};
use super::book::FleetBook;
use super::case::Case;
use super::limits::Asks;
use super::requests::BorrowRequest;
use super::{Engine, Failure};
use crate::domain::function::FunctionRef;
use crate::domain::{
    Author, Authorization, AuthorizationId, AuthorizationState, Recipient, Refusal, RefusalCode,
    Restrictions, Signing, Status, UnixTime, VehicleId, Window,
};
use crate::store::{AmendRequest, Applied, NewAuthorization, Request, Write};

/// What an owner asks for: decoded, not yet checked.
#[derive(Clone, Debug)]
pub struct AuthorizationSpec {
    /// The vehicle.
    pub vehicle: VehicleId,
    /// Its functions.
    pub functions: Vec<FunctionRef>,
    /// From when the keys may be used.
    pub not_before: UnixTime,
    /// First second in which they may not any more.
    pub not_after: UnixTime,
    /// Where they may be used.
    pub region: Option<Region>,
    /// At which hours of the week they may be used.
    pub recurring: Option<Recurring>,
    /// How often each function may be used.
    pub max_uses: Vec<(FunctionRef, u32)>,
    /// Whom the code set is for.
    pub recipient: Recipient,
    /// Whether redemption asks for a PIN.
    pub pin: bool,
    /// Until when it may be redeemed; `None` is as long as the window.
    pub redeem_by: Option<UnixTime>,
    /// How its keys are signed.
    pub signing: Option<Signing>,
    /// The borrower's request that it answers: whom the code set is for is said there.
    pub answers: Option<Arc<BorrowRequest>>,
}

impl Engine {
    /// Authorizes on a back end's behalf.
    ///
    /// # Errors
    /// What the rules refuse; `command_replayed` where `request` was used for something else.
    pub async fn authorize_for_fleet(
        &self,
        caller: &BackEnd,
        spec: AuthorizationSpec,
        request: Option<Request>,
    ) -> Result<Arc<Authorization>, Failure> {
        let author = Author::Token(caller.token.id);
        self.count_authorization(&caller.fleet, &spec.vehicle)?;
        let draft = || self.draft(&caller.fleet, spec.clone(), author.clone());
        let drafted = self.look(draft).await;
        let basis = Basis {
            request,
            command: None,
            answers: self.kept_of(&caller.fleet, &spec),
        };
        self.commit_authorization(drafted, basis).await
    }

    /// Authorizes on an owner's behalf: only vehicles its identity owns.
    ///
    /// # Errors
    /// As [`Engine::authorize_for_fleet`], and `forbidden` for a vehicle of somebody else.
    pub async fn authorize_for_owner(
        &self,
        caller: &OwnerCommand,
        spec: AuthorizationSpec,
    ) -> Result<Arc<Authorization>, Failure> {
        let author = Author::Terminal(caller.terminal.id.clone());
        self.count_authorization(&caller.fleet, &spec.vehicle)?;
        let draft = || {
            check_owner(caller, &spec)?;
            self.draft(&caller.fleet, spec.clone(), author.clone())
        };
        let drafted = self.look(draft).await;
        let basis = Basis {
            request: Some(caller.request),
            command: Some(caller.evidence.clone()),
            answers: self.kept_of(&caller.fleet, &spec),
        };
        self.commit_authorization(drafted, basis).await
    }

    fn kept_of(&self, fleet: &FleetBook, spec: &AuthorizationSpec) -> Option<AmendRequest> {
        let asked = spec.answers.as_ref()?;
        Some(asked.keep(fleet, self.clock().unix()))
    }

    /// Counts what is asked for a vehicle that is there, as the fleet's rules have it.
    fn count_authorization(&self, fleet: &FleetBook, vehicle: &VehicleId) -> Result<(), Refusal> {
        if fleet.ruled.rules().limits.vehicle.is_none() {
            return Ok(());
        }
        let known = fleet.vehicle(vehicle.as_str());
        let asks = Asks {
            vehicle: known.as_ref().map(|it| &it.id),
            ..Asks::default()
        };
        self.shared.limits.ask(fleet, asks)
    }

    /// The code set of an authorization, as text.
    ///
    /// # Errors
    /// A fault: what was let in can be written.
    pub fn code_set(&self, authorization: &Authorization) -> Result<String, Failure> {
        let Authorization {
            fleet,
            id,
            version,
            functions,
            ..
        } = authorization;
        self.shared
            .code_set_key
            .text(*fleet, *id, *version, functions)
            .map_err(|refusal| Failure::Fault(refusal.to_string()))
    }

    /// The PIN of an authorization, where it asks for one.
    pub fn pin(&self, authorization: &Authorization) -> Option<String> {
        let Authorization {
            fleet, id, version, ..
        } = *authorization;
        authorization
            .pin
            .then(|| self.shared.code_set_key.pin(fleet, id, version))
    }

    fn draft(
        &self,
        fleet: &FleetBook,
        spec: AuthorizationSpec,
        author: Author,
    ) -> Result<Authorization, Refusal> {
        let unix_ms = self.clock().unix_ms();
        let (id, now) = (self.shared.ids.authorization(unix_ms), unix_ms / 1000);
        let draft = self.draft_as(id, fleet, spec, author, now)?;
        let asked = Case::new(fleet, &draft, now).check_authorization();
        asked.map_err(|refusal| refusal.field("vehicle"))?;
        Ok(draft)
    }

    /// An authorization of that id, every rule about what may be authorized checked.
    pub(super) fn draft_as(
        &self,
        id: AuthorizationId,
        fleet: &FleetBook,
        spec: AuthorizationSpec,
        author: Author,
        now: UnixTime,
    ) -> Result<Authorization, Refusal> {
        if let Some(request) = &spec.answers {
            request.check_time(now)?;
            request.check_remembered(now, self.settings().retain_for_s)?;
        }
        let vehicle = fleet
            .vehicle(spec.vehicle.as_str())
            .ok_or_else(|| Refusal::new(RefusalCode::UnknownVehicle).field("vehicle"))?;
        let catalogue = fleet.catalogue();
        let rules = fleet.ruled.rules();
        let (preset, others) = rules.preset_of(&spec.functions)?;
        let functions = match preset {
            None => catalogue.resolve(&others)?,
            Some(preset) => with_preset(&preset.functions, &others, &catalogue)?,
        };
        vehicle.check_functions(&functions)?;
        let window = Window::new(spec.not_before, spec.not_after, now)?;
        let recurring = match preset {
            None => spec.recurring,
            Some(preset) => within_preset(preset, window, spec.recurring)?,
        };
        let redeem_by = spec.redeem_by.unwrap_or(window.not_after);
        self.check_times(window, redeem_by, now)?;
        let mut max_uses = max_uses(&spec.max_uses, &functions, |one| {
            Ok(catalogue.resolve(std::slice::from_ref(one))?[0])
        })?;
        if let Some(preset) = preset {
            max_uses = least_uses(&preset.max_uses, &max_uses);
        }
        let recipient = registered(fleet, &spec.recipient)?;
        let draft = Authorization {
            id,
            fleet: fleet.fleet.id,
            version: 1,
            vehicle: vehicle.id.clone(),
            functions: functions.into(),
            window,
            redeem_by,
            restrictions: Restrictions {
                region: spec.region.map(Box::new),
                recurring: recurring.map(Box::new),
                max_uses,
                recipient,
                amended: None,
                approved_until: None,
            }
            .boxed(),
            pin: spec.pin,
            signing: spec.signing,
            state: AuthorizationState::Open,
            redeemed: false,
            created_at: now,
            author,
        };
        if let Some(request) = &spec.answers {
            request.check_answered_by(fleet, &draft)?;
        }
        Ok(draft)
    }

    fn check_times(
        &self,
        window: Window,
        redeem_by: UnixTime,
        now: UnixTime,
    ) -> Result<(), Refusal> {
        let lifetime_max_s = self.settings().key_lifetime_max_s;
        if window.not_after > now.saturating_add(lifetime_max_s) {
            return Err(Refusal::malformed(
                "not_after",
                format!("keys last {} days at most here", lifetime_max_s / 86_400),
            ));
        }
        if redeem_by <= now || redeem_by > window.not_after {
            return Err(Refusal::malformed(
                "redeem_by",
                "redeem_by lies between now and not_after",
            ));
        }
        Ok(())
    }

    async fn made_before(&self, id: AuthorizationId) -> Result<Arc<Authorization>, Failure> {
        let gone = || {
            Refusal::new(RefusalCode::NotFound).detail("what this request made is over and gone")
        };
        let look = || self.book().authorization(id).ok_or_else(gone);
        Ok(self.look(look).await?)
    }

    /// Commits what was drafted. A request that was answered before is answered so again, even
    /// where the rules would refuse it by now.
    async fn commit_authorization(
        &self,
        drafted: Result<Authorization, Refusal>,
        basis: Basis,
    ) -> Result<Arc<Authorization>, Failure> {
        let Basis {
            request,
            command,
            answers,
        } = basis;
        let made = match (drafted, request) {
            (Ok(authorization), _) => Arc::new(authorization),
            (Err(refusal), None) => return Err(refusal.into()),
            (Err(refusal), Some(request)) => {
                let applied = self.write(vec![Write::Recall(request)]).await?;
                return match applied.first() {
                    Some(Applied::Repeated(id)) => self.made_before(*id).await,
                    _ => Err(refusal.into()),
                };
            }
        };
        let new = NewAuthorization {
            authorization: Arc::clone(&made),
            request,
            command,
            answers,
        };
        let applied = self.write(vec![Write::Authorize(Box::new(new))]).await?;
        match applied.first() {
            Some(Applied::Done) => Ok(made),
            Some(Applied::Repeated(id)) => self.made_before(*id).await,
            Some(Applied::Conflict) => Err(Refusal::new(RefusalCode::CommandReplayed)
                .detail("its jti or Idempotency-Key was used with other content")
                .into()),
            Some(Applied::Spent) => Err(Refusal::new(RefusalCode::RequestAnswered)
                .field("request")
                .detail("what it asks for was authorized once; have the terminal sign a new one")
                .into()),
            _ => Err(Refusal::new(RefusalCode::VersionConflict)
                .detail("fleet, vehicle or terminal has changed meanwhile; look and ask again")
                .into()),
        }
    }
}

/// What an authorization rests on, beside its own content.
struct Basis {
    request: Option<Request>,
    command: Option<String>,
    answers: Option<AmendRequest>,
}

/// An owner terminal authorizes only vehicles its identity owns. One that is not there is refused
/// as that.
fn check_owner(caller: &OwnerCommand, spec: &AuthorizationSpec) -> Result<(), Refusal> {
    let vehicle = caller.fleet.vehicle(spec.vehicle.as_str());
    if vehicle.is_some_and(|vehicle| vehicle.owner.as_ref() != Some(&caller.terminal.identity)) {
        return Err(Refusal::new(RefusalCode::Forbidden)
            .field("vehicle")
            .detail("an owner terminal authorizes only vehicles its identity owns"));
    }
    Ok(())
}

/// The recipient, by the registry's own copies of its names: they are held for long.
fn registered(fleet: &FleetBook, recipient: &Recipient) -> Result<Recipient, Refusal> {
    let mut found = Recipient::default();
    if let Some(id) = &recipient.identity {
        let identity = fleet.identity(id.as_str()).ok_or_else(|| {
            Refusal::new(RefusalCode::UnknownIdentity).field("recipient.identity")
        })?;
        if identity.status != Status::Active {
            return Err(Refusal::new(RefusalCode::IdentitySuspended).field("recipient.identity"));
        }
        found.identity = Some(identity.id.clone());
    }
    found.key = recipient.key;
    let Some(id) = &recipient.terminal else {
        return Ok(found);
    };
    let terminal = fleet.terminal(id.as_str()).ok_or_else(|| {
        Refusal::new(RefusalCode::NotFound)
            .field("recipient.terminal")
            .detail("the fleet has no such terminal")
    })?;
    if recipient
        .identity
        .as_ref()
        .is_some_and(|identity| terminal.identity != *identity)
    {
        return Err(Refusal::new(RefusalCode::TerminalMismatch)
            .field("recipient.terminal")
            .detail("this terminal is another identity's"));
    }
    found.terminal = Some(terminal.id.clone());
    Ok(found)
}
