//! How a fleet comes to its rules: checked, tried, made durable. Floor 3.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::authenticate::BackEnd;
use super::book::FleetBook;
use super::follow::{Swept, followed};
use super::recent::Replay;
use super::{Engine, Failure};
use crate::concurrent;
use crate::domain::rules::eligible;
use crate::domain::{AuthorizationState, Refusal, RefusalCode, Rules, RulesText};
use crate::store::{Applied, Ruling, Rulings, Write};

/// The most characters of a reason.
pub const WHY_LEN_MAX: usize = 200;

/// What rules would come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trial {
    /// Open authorizations that say who they are for.
    pub looked_at: usize,
    /// How many of them nobody could redeem, by why.
    pub refused: BTreeMap<&'static str, usize>,
    /// What their rules about context would have decided about what was redeemed lately.
    pub context: Option<Replay>,
    /// What would become of keys that are out, where the rules ask otherwise who may keep them.
    pub keys: Option<Swept>,
}

impl Engine {
    /// Sets a fleet's rules, in place of those of `version`.
    ///
    /// # Errors
    /// What [`RulesText::check`] refuses; `version_conflict` where they are at another version.
    pub async fn set_rules(
        &self,
        caller: &BackEnd,
        version: u32,
        text: &RulesText,
        why: Option<String>,
    ) -> Result<u32, Failure> {
        check_why(why.as_deref())?;
        let next = self.look(|| check_version(&caller.fleet, version)).await?;
        let rules = text.check(&caller.fleet.catalogue(), next)?;
        self.check_elsewhere(text)?;
        let before = Arc::clone(&caller.fleet.ruled.rules());
        let body = serde_json::to_string(text)
            .map_err(|error| Failure::Fault(format!("rules that are not written: {error}")))?;
        let ruled = Rulings {
            fleet: caller.fleet.fleet.id,
            at: self.clock().unix(),
            by: caller.token.id.to_string(),
            why,
            what: Ruling::Rules(next, body.into()),
        };
        let mut writes = vec![Write::Rule(Box::new(ruled))];
        if before.version == version && before.keep_as(&rules) {
            let (fleet, at) = (caller.fleet.fleet.id, self.clock().unix());
            writes.push(followed(fleet, at, version, next));
        }
        match self.write(writes).await?.first() {
            Some(Applied::Done) => Ok(next),
            _ => Err(conflict("they have been set meanwhile").into()),
        }
    }

    /// Whether this server can do what they say.
    fn check_elsewhere(&self, text: &RulesText) -> Result<(), Refusal> {
        match &text.hook {
            Some(hook) => self.check_hook(&hook.url),
            None => Ok(()),
        }
    }

    /// What rules would come to, if they were set now: nothing is.
    ///
    /// # Errors
    /// As [`Engine::set_rules`].
    pub async fn try_rules(
        &self,
        fleet: &Arc<FleetBook>,
        version: u32,
        text: &RulesText,
    ) -> Result<Trial, Failure> {
        let next = self.look(|| check_version(fleet, version)).await?;
        let rules = text.check(&fleet.catalogue(), next)?;
        self.check_elsewhere(text)?;
        let rules = Arc::new(rules);
        let ruled = &fleet.ruled;
        let keys = match ruled.followed() == version && ruled.rules().keep_as(&rules) {
            true => None,
            false => Some(self.try_on_keys(fleet, &rules).await?),
        };
        let (shared, fleet) = (Arc::clone(&self.shared), Arc::clone(fleet));
        let now = self.clock().unix();
        // Every authorization is looked at: that may take a while.
        let trial = concurrent::spawn_blocking(move || trial(&shared.book, &fleet, &rules, now));
        let trial = trial
            .await
            .map_err(|error| Failure::Fault(format!("rules that were not tried: {error}")))?;
        Ok(Trial { keys, ..trial })
    }
}

fn trial(book: &super::Book, fleet: &FleetBook, rules: &Rules, now: u64) -> Trial {
    let open = book.authorizations_where(|it| {
        it.fleet == fleet.fleet.id
            && it.state == AuthorizationState::Open
            && !it.expired(now)
            && it.recipient().identity.is_some()
    });
    let mut trial = Trial {
        context: rules.context.as_ref().map(|it| fleet.recent.replay(it)),
        ..Trial::default()
    };
    for authorization in open.into_iter().filter_map(|id| book.authorization(id)) {
        let to = authorization.recipient().identity.as_ref();
        let identity = to.and_then(|id| fleet.identity(id.as_str()));
        let vehicle = fleet.vehicle(authorization.vehicle.as_str());
        let (Some(identity), Some(vehicle)) = (identity, vehicle) else {
            continue;
        };
        trial.looked_at += 1;
        let from = authorization.window.not_before.max(now);
        let functions = &authorization.functions;
        if let Err(refusal) = eligible(rules, &identity, &vehicle, functions, from) {
            *trial.refused.entry(refusal.code.code()).or_default() += 1;
        }
    }
    trial
}

/// Refuses a reason that is too long to keep.
///
/// # Errors
/// `malformed`.
pub fn check_why(why: Option<&str>) -> Result<(), Refusal> {
    if why.is_none_or(|why| (1..=WHY_LEN_MAX).contains(&why.chars().count())) {
        return Ok(());
    }
    Err(Refusal::malformed(
        "why",
        "a reason has 1 to 200 characters",
    ))
}

/// The version after `version`, if that is the fleet's.
fn check_version(fleet: &FleetBook, version: u32) -> Result<u32, Refusal> {
    let at = fleet.ruled.rules().version;
    if version == at {
        return Ok(at.saturating_add(1));
    }
    Err(conflict(format!(
        "they are at version {at}: read them and set them again"
    )))
}

fn conflict(why: impl Into<std::borrow::Cow<'static, str>>) -> Refusal {
    Refusal::new(RefusalCode::VersionConflict).detail(why)
}
