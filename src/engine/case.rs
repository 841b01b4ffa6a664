//! The rules about who gets keys of what, each by itself: the one list that redemptions, orders and
//! reissues go through, and that `explain` goes through too. So what is explained is what is done.
//! Floor 3.

use std::sync::Arc;

use fob_verify::HolderKey;

use super::book::FleetBook;
use crate::domain::rules::{check_hold, check_status, licensed_until};
use crate::domain::{
    Authorization, Identity, IdentityId, Refusal, RefusalCode, Status, Terminal, TerminalId,
    UnixTime, Vehicle, Window,
};
use crate::store::ReliedOn;

mod context;

pub(super) use context::Judged;
use context::context_is_not_refused;

/// A rule: its name, and the question it asks.
pub(super) type Rule = (&'static str, fn(&Case<'_>) -> Result<(), Refusal>);

/// What is asked about the vehicle, in this order.
pub(super) const OF_VEHICLE: [Rule; 5] = [
    ("fleet", fleet_is_active),
    ("vehicle", vehicle_is_there),
    ("vehicle_status", vehicle_is_active),
    ("brake", nothing_is_frozen),
    ("functions", vehicle_has_functions),
];

/// What is asked about whoever is to have the keys, in this order; after the vehicle.
pub(super) const OF_BORROWER: [Rule; 7] = [
    ("identity", identity_is_there),
    ("identity_status", identity_is_active),
    ("hold", identity_is_not_held),
    ("licence", identity_is_licensed),
    ("recipient", code_set_is_meant_for_it),
    ("terminal", terminal_may_redeem),
    ("context", context_is_not_refused),
];

/// What is asked about an identity that is named by a back end.
const OF_IDENTITY: [Rule; 3] = [
    ("identity_status", identity_is_active),
    ("hold", identity_is_not_held),
    ("licence", identity_is_licensed),
];

/// What is asked when something is authorized, beside what its draft must be.
const OF_AUTHORIZATION: [Rule; 1] = [("vehicle_status", vehicle_is_active)];

/// What is asked when keys are issued again that say something else. Neither their vehicle nor whoever has them need be
/// active: what suspends the keys there are suspends the new ones.
const OF_KEYS_AGAIN: [Rule; 6] = [
    ("fleet", fleet_is_active),
    ("vehicle", vehicle_is_there),
    ("brake", nothing_is_frozen),
    ("functions", vehicle_has_functions),
    ("hold", identity_is_not_held),
    ("licence", identity_is_licensed),
];

/// What is asked when keys are issued again that say less. Neither a brake nor a hold is for that.
const OF_KEYS_NARROWED: [Rule; 4] = [
    ("fleet", fleet_is_active),
    ("vehicle", vehicle_is_there),
    ("functions", vehicle_has_functions),
    ("licence", identity_is_licensed),
];

/// What is asked when the same keys are issued again: whoever has them is given nothing new.
const OF_SAME_KEYS: [Rule; 3] = [
    ("fleet", fleet_is_active),
    ("vehicle", vehicle_is_there),
    ("functions", vehicle_has_functions),
];

/// Who is to have which keys, looked up once.
pub(super) struct Case<'a> {
    fleet: &'a FleetBook,
    authorization: &'a Authorization,
    vehicle: Option<Arc<Vehicle>>,
    identity: Option<Arc<Identity>>,
    borrower: Option<Borrower<'a>>,
    judged: Option<Judged>,
    now: UnixTime,
    /// The version of the rules when the first question was asked.
    rules: u32,
}

/// Who redeems, and with which key.
pub(super) struct Borrower<'a> {
    pub(super) id: &'a IdentityId,
    /// `None` is a key that no terminal has registered.
    pub(super) holder: Option<&'a HolderKey>,
}

impl<'a> Case<'a> {
    /// Keys of an authorization, for whomever.
    pub(super) fn new(
        fleet: &'a FleetBook,
        authorization: &'a Authorization,
        now: UnixTime,
    ) -> Self {
        Self {
            fleet,
            authorization,
            vehicle: fleet.vehicle(authorization.vehicle.as_str()),
            identity: None,
            borrower: None,
            judged: None,
            now,
            rules: fleet.ruled.rules().version,
        }
    }

    /// The same, for whoever redeems.
    pub(super) fn redeemed_by(mut self, borrower: Borrower<'a>) -> Self {
        self.identity = self.fleet.identity(borrower.id.as_str());
        self.borrower = Some(borrower);
        self
    }

    /// The vehicle, if keys may be issued for it.
    ///
    /// # Errors
    /// What the first of [`OF_VEHICLE`] refuses.
    pub(super) fn check_vehicle(&self) -> Result<Arc<Vehicle>, Refusal> {
        OF_VEHICLE.iter().try_for_each(|(_, rule)| rule(self))?;
        self.vehicle.clone().ok_or_else(unknown_vehicle)
    }

    /// Whether whoever redeems may have the keys.
    ///
    /// # Errors
    /// What the first of [`OF_BORROWER`] refuses.
    pub(super) fn check_borrower(&self) -> Result<(), Refusal> {
        OF_BORROWER.iter().try_for_each(|(_, rule)| rule(self))
    }

    /// Whether `identity` may have the keys, whatever terminal they are bound to.
    ///
    /// # Errors
    /// `identity_suspended`, `identity_held`, `licence_missing`, `licence_expired`.
    pub(super) fn check_identity(&mut self, identity: Arc<Identity>) -> Result<(), Refusal> {
        self.identity = Some(identity);
        OF_IDENTITY.iter().try_for_each(|(_, rule)| rule(self))
    }

    /// Whether it may be authorized.
    ///
    /// # Errors
    /// `authorization_suspended`.
    pub(super) fn check_authorization(&self) -> Result<(), Refusal> {
        OF_AUTHORIZATION.iter().try_for_each(|(_, rule)| rule(self))
    }

    /// The vehicle, if its keys may be issued again to `identity`, which has them already.
    ///
    /// # Errors
    /// What the first of [`OF_KEYS_AGAIN`] refuses.
    pub(super) fn check_again(&mut self, identity: Arc<Identity>) -> Result<Arc<Vehicle>, Refusal> {
        self.identity = Some(identity);
        OF_KEYS_AGAIN.iter().try_for_each(|(_, rule)| rule(self))?;
        self.vehicle.clone().ok_or_else(unknown_vehicle)
    }

    /// The vehicle, if what is left of its keys may be issued again to whoever was asked about last.
    ///
    /// # Errors
    /// What the first of [`OF_KEYS_NARROWED`] refuses.
    pub(super) fn check_narrowed(&self) -> Result<Arc<Vehicle>, Refusal> {
        OF_KEYS_NARROWED
            .iter()
            .try_for_each(|(_, rule)| rule(self))?;
        self.vehicle.clone().ok_or_else(unknown_vehicle)
    }

    /// The vehicle, if the same keys may be issued again to whoever has them.
    ///
    /// # Errors
    /// What the first of [`OF_SAME_KEYS`] refuses.
    pub(super) fn check_same(&self) -> Result<Arc<Vehicle>, Refusal> {
        OF_SAME_KEYS.iter().try_for_each(|(_, rule)| rule(self))?;
        self.vehicle.clone().ok_or_else(unknown_vehicle)
    }

    /// The registered terminal that redeems, where it is one.
    pub(super) fn terminal(&self) -> Option<TerminalId> {
        let borrower = self.borrower.as_ref()?;
        let known = self.fleet.terminals_of(borrower.id.as_str());
        known
            .iter()
            .find(|one| is_active(one, borrower.holder))
            .map(|one| one.id.clone())
    }

    /// When keys may be used: as authorized, from as early as the fleet lets them begin, and until
    /// what their holder needs to have them ends. An order begins when it says.
    pub(super) fn window(&self, is_order: bool) -> Window {
        let Window {
            not_before,
            not_after,
        } = self.authorization.window;
        let early = if is_order {
            0
        } else {
            self.fleet.ruled.rules().early_grace_s
        };
        Window {
            not_before: not_before.saturating_sub(early.into()),
            not_after: not_after.min(self.licensed_until().unwrap_or(UnixTime::MAX)),
        }
    }

    /// What is relied on until the keys are committed: the rules, whoever is to have them where a
    /// licence was asked for, and the vehicle where it may be asked for by its model.
    pub(super) fn relies_on(&self) -> ReliedOn {
        let asked = self.licensed_until().is_ok_and(|it| it < UnixTime::MAX);
        let by_model = self.fleet.ruled.rules().asks_by_model();
        ReliedOn {
            rules: Some(self.rules),
            identity: self.identity.clone().filter(|_| asked),
            vehicle: self.vehicle.clone().filter(|_| by_model),
        }
    }

    fn licensed_until(&self) -> Result<UnixTime, Refusal> {
        let (Some(identity), Some(vehicle)) = (&self.identity, &self.vehicle) else {
            return Ok(UnixTime::MAX);
        };
        let from = self.authorization.window.not_before.max(self.now);
        let functions = &self.authorization.functions;
        licensed_until(
            &self.fleet.ruled.rules(),
            identity,
            vehicle,
            functions,
            from,
        )
    }
}

fn fleet_is_active(case: &Case<'_>) -> Result<(), Refusal> {
    match case.fleet.fleet.status {
        Status::Active => Ok(()),
        Status::Suspended => {
            Err(Refusal::new(RefusalCode::Forbidden).detail("the fleet is suspended"))
        }
    }
}

fn vehicle_is_there(case: &Case<'_>) -> Result<(), Refusal> {
    case.vehicle.as_ref().map(drop).ok_or_else(unknown_vehicle)
}

fn unknown_vehicle() -> Refusal {
    Refusal::new(RefusalCode::UnknownVehicle).field("vehicle")
}

fn vehicle_is_active(case: &Case<'_>) -> Result<(), Refusal> {
    match &case.vehicle {
        Some(vehicle) if vehicle.status != Status::Active => {
            Err(Refusal::new(RefusalCode::AuthorizationSuspended)
                .detail("the vehicle is suspended"))
        }
        _ => Ok(()),
    }
}

fn nothing_is_frozen(case: &Case<'_>) -> Result<(), Refusal> {
    case.fleet.ruled.check_frozen(&case.authorization.vehicle)
}

fn vehicle_has_functions(case: &Case<'_>) -> Result<(), Refusal> {
    match &case.vehicle {
        Some(vehicle) => vehicle.check_functions(&case.authorization.functions),
        None => Ok(()),
    }
}

fn identity_is_there(case: &Case<'_>) -> Result<(), Refusal> {
    let unknown = || Refusal::new(RefusalCode::UnknownIdentity).field("identity.id");
    case.identity.as_ref().map(drop).ok_or_else(unknown)
}

fn identity_is_active(case: &Case<'_>) -> Result<(), Refusal> {
    case.identity.as_deref().map_or(Ok(()), check_status)
}

fn identity_is_not_held(case: &Case<'_>) -> Result<(), Refusal> {
    case.identity.as_deref().map_or(Ok(()), check_hold)
}

fn identity_is_licensed(case: &Case<'_>) -> Result<(), Refusal> {
    case.licensed_until().map(drop)
}

fn code_set_is_meant_for_it(case: &Case<'_>) -> Result<(), Refusal> {
    let only = case.authorization.recipient().identity.as_ref();
    let other = |borrower: &Borrower<'_>| only.is_some_and(|only| only != borrower.id);
    if case.borrower.as_ref().is_some_and(other) {
        return Err(RefusalCode::RecipientMismatch.into());
    }
    Ok(())
}

/// Beside the code set a redemption needs a registered terminal of that identity, an authorization
/// bound to that terminal, or the PIN, unless the fleet has opened redemption. An identity that has
/// terminals redeems with those.
fn terminal_may_redeem(case: &Case<'_>) -> Result<(), Refusal> {
    let Some(borrower) = &case.borrower else {
        return Ok(());
    };
    let mismatch = |why| {
        Err(Refusal::new(RefusalCode::TerminalMismatch)
            .field("proof")
            .detail(why))
    };
    let known = case.fleet.terminals_of(borrower.id.as_str());
    let this = known.iter().find(|one| is_active(one, borrower.holder));
    let bound = case.authorization.recipient();
    if let Some(only) = &bound.terminal {
        return match this {
            Some(this) if this.id == *only => Ok(()),
            _ => mismatch("this code set is bound to another terminal"),
        };
    }
    if bound.key.is_some() && borrower.holder != bound.key.as_ref() {
        return mismatch("this code set is bound to the terminal that asked for it");
    }
    if this.is_some() {
        return Ok(());
    }
    if !known.is_empty() {
        return mismatch("this identity redeems with its registered terminals only");
    }
    if bound.key.is_some() || case.authorization.pin || case.fleet.fleet.settings.open_redemption {
        return Ok(());
    }
    mismatch("register this terminal, bind the authorization to it, or ask for a PIN")
}

fn is_active(terminal: &Terminal, holder: Option<&HolderKey>) -> bool {
    terminal.status == Status::Active && holder == Some(&terminal.key)
}
