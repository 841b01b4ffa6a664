//! The brake and the quota, by hand: freezing, releasing, approving. Floor 3.

use super::authenticate::BackEnd;
use super::ruling::check_why;
use super::{Engine, Failure};
use crate::domain::{Refusal, RefusalCode, VehicleId};
use crate::store::{Applied, Ruling, Rulings, Write};

/// The most keys that may be approved beyond a day's quota.
pub const APPROVED_MAX: u64 = 1_000_000_000_000;

impl Engine {
    /// Freezes issuing for a fleet or one of its vehicles. Keys that were issued go on working.
    /// Where it is frozen already, it stays so.
    ///
    /// # Errors
    /// `unknown_vehicle`, `malformed` for a reason that is too long.
    pub async fn freeze(
        &self,
        caller: &BackEnd,
        vehicle: Option<VehicleId>,
        why: Option<String>,
    ) -> Result<(), Failure> {
        self.look(|| match &vehicle {
            Some(id) if caller.fleet.vehicle(id.as_str()).is_none() => {
                Err(Refusal::new(RefusalCode::UnknownVehicle).field("vehicle"))
            }
            _ => Ok(()),
        })
        .await?;
        self.decide(caller, why, Ruling::Freeze(vehicle)).await?;
        Ok(())
    }

    /// Releases what is frozen; rates begin anew.
    ///
    /// # Errors
    /// `not_found` where it is not frozen; `forbidden` where whoever asks has frozen it: it takes a
    /// second person.
    pub async fn release(
        &self,
        caller: &BackEnd,
        vehicle: Option<VehicleId>,
        why: Option<String>,
    ) -> Result<(), Failure> {
        let frozen = || {
            let frozen = caller.fleet.ruled.frozen();
            frozen.get(&vehicle).cloned().ok_or_else(not_frozen)
        };
        let frozen = self.look(frozen).await?;
        if frozen.by == caller.token.id.to_string() {
            return Err(Refusal::new(RefusalCode::Forbidden)
                .detail("somebody else than who froze it has to release it")
                .into());
        }
        // Before, or the first bundle after would be counted with those that froze it.
        self.shared.limits.forget(caller.fleet.fleet.id);
        match self.decide(caller, why, Ruling::Release(vehicle)).await? {
            Applied::Done => Ok(()),
            _ => Err(not_frozen().into()),
        }
    }

    /// Approves so many keys for today beyond the fleet's quota, in place of what was approved
    /// before.
    ///
    /// # Errors
    /// `malformed` where the fleet has no quota, or for more than [`APPROVED_MAX`];
    /// `version_conflict` where the day ends meanwhile.
    pub async fn approve_keys(
        &self,
        caller: &BackEnd,
        keys: u64,
        why: Option<String>,
    ) -> Result<(), Failure> {
        let refuse = |why| Err(Refusal::malformed("approved", why).into());
        if caller.fleet.ruled.rules().keys_per_day.is_none() {
            return refuse("the fleet's rules have no keys_per_day");
        }
        if keys > APPROVED_MAX {
            return refuse("at most 1000000000000 keys");
        }
        let base = self.counted(&caller.fleet);
        let today = caller.fleet.ruled.used(base, self.clock().unix()).day;
        let approve = Ruling::Approve(today, base, keys);
        match self.decide(caller, why, approve).await? {
            Applied::Done => Ok(()),
            _ => Err(Refusal::new(RefusalCode::VersionConflict)
                .detail("another day has begun meanwhile: approve it for that one")
                .into()),
        }
    }

    async fn decide(
        &self,
        caller: &BackEnd,
        why: Option<String>,
        what: Ruling,
    ) -> Result<Applied, Failure> {
        check_why(why.as_deref())?;
        let ruled = Rulings {
            fleet: caller.fleet.fleet.id,
            at: self.clock().unix(),
            by: caller.token.id.to_string(),
            why,
            what,
        };
        let applied = self.write(vec![Write::Rule(Box::new(ruled))]).await?;
        Ok(applied.first().copied().unwrap_or(Applied::Stale))
    }
}

fn not_frozen() -> Refusal {
    Refusal::new(RefusalCode::NotFound).detail("it is not frozen")
}
