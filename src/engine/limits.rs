//! What a fleet's rules limit: how fast its callers, borrowers, devices and vehicles ask, how many
//! keys it gets in a day, and the band beyond which issuing freezes. Floor 3.
//!
//! Who rules nothing of it pays for one look at the rules. What is counted here is in memory and
//! begins anew with the process; what was frozen stays so.

use std::sync::Arc;

use super::Engine;
use super::book::FleetBook;
use super::commit::WriteJob;
use super::meter::Meter;
use crate::clock::Clock;
use crate::concurrent::{Map, oneshot};
use crate::domain::rules::{Rate, Rules, day};
use crate::domain::{
    FleetId, IdentityId, Refusal, RefusalCode, TerminalId, TokenId, UnixTime, VehicleId,
};
use crate::store::{Ruling, Rulings, Write};

/// Who froze what nobody froze by hand.
pub(super) const BRAKE: &str = "brake";

/// What all fleets' rules limit.
pub(crate) struct Limits {
    clock: Arc<dyn Clock>,
    fleets: Map<FleetId, Arc<Meters>>,
}

/// The meters of one fleet, as its rules of this version have them.
struct Meters {
    version: u32,
    token: Option<Meter<TokenId>>,
    identity: Option<Meter<IdentityId>>,
    terminal: Option<Meter<TerminalId>>,
    vehicle: Option<Meter<VehicleId>>,
    fleet_band: Option<Meter<()>>,
    vehicle_band: Option<Meter<VehicleId>>,
}

/// Who asks for what; what is `None` is not concerned.
#[derive(Clone, Copy, Default)]
pub(super) struct Asks<'a> {
    pub(super) token: Option<&'a TokenId>,
    pub(super) identity: Option<&'a IdentityId>,
    pub(super) terminal: Option<&'a TerminalId>,
    pub(super) vehicle: Option<&'a VehicleId>,
}

impl Limits {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            fleets: Map::new(),
        }
    }

    /// Lets somebody ask once more.
    ///
    /// # Errors
    /// `rate_limited`, saying when.
    pub(super) fn ask(&self, fleet: &FleetBook, asks: Asks<'_>) -> Result<(), Refusal> {
        let rules = fleet.ruled.rules();
        if rules.limits.is_none() {
            return Ok(());
        }
        let meters = self.of(fleet, &rules);
        take(meters.token.as_ref(), asks.token)?;
        take(meters.identity.as_ref(), asks.identity)?;
        take(meters.terminal.as_ref(), asks.terminal)?;
        take(meters.vehicle.as_ref(), asks.vehicle)
    }

    /// What has left its normal band with one more bundle for this vehicle, and the band.
    fn leaves_band(
        &self,
        fleet: &FleetBook,
        vehicle: &VehicleId,
    ) -> Option<(Option<VehicleId>, Rate)> {
        let rules = fleet.ruled.rules();
        if rules.brake.is_none() {
            return None;
        }
        let meters = self.of(fleet, &rules);
        if take(meters.fleet_band.as_ref(), Some(&())).is_err() {
            return rules.brake.fleet.map(|band| (None, band));
        }
        let of_vehicle = take(meters.vehicle_band.as_ref(), Some(vehicle));
        let band = of_vehicle.err().and(rules.brake.vehicle)?;
        Some((Some(vehicle.clone()), band))
    }

    /// Begins to count anew.
    pub(super) fn forget(&self, fleet: FleetId) {
        self.fleets.pin().retain(|known, _| *known != fleet);
    }

    fn of(&self, fleet: &FleetBook, rules: &Rules) -> Arc<Meters> {
        let fleets = self.fleets.pin();
        // Newer ones were made by somebody who has seen newer rules.
        if let Some(known) = fleets.get(&fleet.fleet.id)
            && known.version >= rules.version
        {
            return Arc::clone(known);
        }
        let meters = Arc::new(Meters::new(rules, &self.clock));
        fleets.insert(fleet.fleet.id, Arc::clone(&meters));
        meters
    }
}

impl Meters {
    fn new(rules: &Rules, clock: &Arc<dyn Clock>) -> Self {
        let (limits, brake) = (&rules.limits, &rules.brake);
        Self {
            version: rules.version,
            token: limits.token.and_then(|it| Meter::new("token", it, clock)),
            identity: limits
                .identity
                .and_then(|it| Meter::new("identity", it, clock)),
            terminal: limits
                .terminal
                .and_then(|it| Meter::new("terminal", it, clock)),
            vehicle: limits
                .vehicle
                .and_then(|it| Meter::new("vehicle", it, clock)),
            fleet_band: brake.fleet.and_then(|it| Meter::new("fleet", it, clock)),
            vehicle_band: brake
                .vehicle
                .and_then(|it| Meter::new("vehicle", it, clock)),
        }
    }
}

fn take<K: Eq + std::hash::Hash + Clone>(
    meter: Option<&Meter<K>>,
    key: Option<&K>,
) -> Result<(), Refusal> {
    match (meter, key) {
        (Some(meter), Some(key)) => meter.take(key),
        _ => Ok(()),
    }
}

impl Engine {
    /// A meter of `what` by this engine's clock. `None` for a rate of nothing or in no time.
    pub fn meter<K: Eq + std::hash::Hash + Clone>(
        &self,
        what: &'static str,
        rate: Rate,
    ) -> Option<Meter<K>> {
        Meter::new(what, rate, &self.shared.clock)
    }

    /// Counts a bundle of `keys` keys that is about to be issued.
    ///
    /// # Errors
    /// `issuing_frozen` where the fleet or the vehicle leaves its normal band with it, and freezes;
    /// `quota_exceeded`.
    pub(super) fn count_issue(
        &self,
        fleet: &FleetBook,
        vehicle: &VehicleId,
        keys: usize,
        now: UnixTime,
    ) -> Result<(), Refusal> {
        if let Some((frozen, band)) = self.shared.limits.leaves_band(fleet, vehicle) {
            let Rate { count, seconds } = band;
            let of = if frozen.is_some() { "vehicle" } else { "fleet" };
            let why = format!("more than {count} bundles of one {of} in {seconds} s");
            self.write_unasked(fleet, now, why, Ruling::Freeze(frozen));
            return Err(frozen_now(of));
        }
        self.count_keys(fleet, keys, now)
    }

    /// The fleet's counter of keys, of which a quota sees how far it has gone. Among several nodes
    /// nobody counts for all: each goes by what it lets in itself.
    pub fn counted(&self, fleet: &FleetBook) -> u64 {
        match self.shared.nodes {
            None => fleet.status_count(),
            Some(_) => 0,
        }
    }

    fn count_keys(&self, fleet: &FleetBook, keys: usize, now: UnixTime) -> Result<(), Refusal> {
        let Some(most) = fleet.ruled.rules().keys_per_day else {
            return Ok(());
        };
        let issued = self.counted(fleet);
        if let Some(today) = fleet.ruled.begins(now) {
            self.write_unasked(fleet, now, String::new(), Ruling::Day(today, issued));
        }
        if fleet.ruled.admit_keys(most, issued, keys as u64, now) {
            return Ok(());
        }
        Err(over_quota(now))
    }

    /// Has the committer write a ruling that nobody waits for. Where there is no room it is not
    /// written; whoever asks next brings it about again.
    fn write_unasked(&self, fleet: &FleetBook, at: UnixTime, why: String, what: Ruling) {
        let ruled = Rulings {
            fleet: fleet.fleet.id,
            at,
            by: BRAKE.into(),
            why: Some(why).filter(|why| !why.is_empty()),
            what,
        };
        let (reply, _) = oneshot::channel();
        let writes = vec![Write::Rule(Box::new(ruled))];
        drop(self.writes.try_send(WriteJob::Commit { writes, reply }));
    }
}

/// Notes what has frozen because it left its normal band, once that is durable.
pub(super) fn note_frozen(ruled: &Rulings) {
    let Ruling::Freeze(what) = &ruled.what else {
        return;
    };
    if ruled.by == BRAKE {
        let of = if what.is_some() { "vehicle" } else { "fleet" };
        tracing::warn!(fleet = %ruled.fleet, of, "issuing freezes: it left its normal band");
        metrics::counter!("fob_brakes_total", "of" => of).increment(1);
    }
}

/// `quota_exceeded`, saying when there is another day.
pub(super) fn over_quota(now: UnixTime) -> Refusal {
    let (_, ends) = day(now);
    Refusal::new(RefusalCode::QuotaExceeded)
        .detail(
            "have more approved for today (PUT /v1/quota, a token with the scope approve), or ask \
             again after midnight UTC",
        )
        .retry_after(u32::try_from(ends.saturating_sub(now)).unwrap_or(u32::MAX))
}

fn frozen_now(of: &str) -> Refusal {
    Refusal::new(RefusalCode::IssuingFrozen).detail(format!(
        "the {of} has more keys issued than is normal: somebody with the scope approve has to \
         release it (POST /v1/brake/release)"
    ))
}
