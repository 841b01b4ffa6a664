//! What fleets rule: floor 2, `store/postgres`. Whoever rules holds the fleet alone, so that
//! decisions follow each other.

use tokio_postgres::Row as SqlRow;

use super::ground::{Ground, RuledRow};
use super::import::all;
use super::load::{Names, Read};
use super::needs::Needs;
use super::rows::{get, id, number, small, text, uuids};
use super::session::values;
use super::survey::Survey;
use super::write::{Writing, each, try_each, uuid};
use super::{acts, export};
use crate::domain::{FleetId, VehicleId};
use crate::store::encoding::column;
use crate::store::encoding::rulings::{act, name, read_name};
use crate::store::whole::{Entry, Kind};
use crate::store::{Act, Applied, Frozen, QuotaDay, Row, Ruled, Ruling, Rulings, StoreError};

/// What stands, in the order it is handed on.
pub(super) const TABLES: [(&str, Read); 4] = [
    (
        "SELECT DISTINCT ON (fleet) fleet, version, body FROM rules ORDER BY fleet, version DESC",
        rules,
    ),
    (
        "SELECT fleet, version FROM followed ORDER BY fleet",
        followed,
    ),
    (
        "SELECT fleet, vehicle, since, by, why FROM brakes ORDER BY fleet, vehicle",
        frozen,
    ),
    (
        "SELECT fleet, day, base, approved FROM quotas ORDER BY fleet",
        of_day,
    ),
];

pub(super) fn of_day(row: &SqlRow, _: &mut Names) -> Result<Row, StoreError> {
    Ok(Row::Ruled(FleetId(id(row, 0)?), Ruled::Day(day(row)?)))
}

pub(super) fn rules(row: &SqlRow, _: &mut Names) -> Result<Row, StoreError> {
    let ruled = Ruled::Rules(small(row, 1)?, text(row, 2)?.into());
    Ok(Row::Ruled(FleetId(id(row, 0)?), ruled))
}

pub(super) fn followed(row: &SqlRow, _: &mut Names) -> Result<Row, StoreError> {
    Ok(Row::Ruled(
        FleetId(id(row, 0)?),
        Ruled::Followed(small(row, 1)?),
    ))
}

fn frozen(row: &SqlRow, _: &mut Names) -> Result<Row, StoreError> {
    let (vehicle, frozen) = of_brake(row)?;
    Ok(Row::Ruled(
        FleetId(id(row, 0)?),
        Ruled::Frozen(vehicle, frozen),
    ))
}

/// Adds to all that is frozen of a fleet, whose rows follow each other; a row without a vehicle says
/// that there is nothing.
pub(super) fn all_frozen(row: &SqlRow, rows: &mut Vec<Row>) -> Result<(), StoreError> {
    let fleet = FleetId(id(row, 0)?);
    if !matches!(rows.last(), Some(Row::Ruled(of, Ruled::AllFrozen(_))) if *of == fleet) {
        rows.push(Row::Ruled(fleet, Ruled::AllFrozen(Vec::new())));
    }
    if get::<Option<&str>>(row, 1)?.is_some()
        && let Some(Row::Ruled(_, Ruled::AllFrozen(all))) = rows.last_mut()
    {
        all.push(of_brake(row)?);
    }
    Ok(())
}

fn of_brake(row: &SqlRow) -> Result<(Option<VehicleId>, Frozen), StoreError> {
    let frozen = Frozen {
        since: number(row, 2)?,
        by: text(row, 3)?.into(),
        why: get(row, 4)?,
    };
    Ok((read_name(text(row, 1)?)?, frozen))
}

fn day(row: &SqlRow) -> Result<QuotaDay, StoreError> {
    Ok(QuotaDay {
        day: number(row, 1)?,
        base: number(row, 2)?,
        approved: number(row, 3)?,
    })
}

/// What gives out a kind of what fleets rule, whole.
pub(super) fn query(kind: Kind) -> (&'static str, export::Read) {
    match kind {
        Kind::Rules => (
            "SELECT fleet, version, body FROM rules ORDER BY fleet, version",
            |row| {
                let fleet = FleetId(id(row, 0)?);
                Ok(Entry::Rules(fleet, small(row, 1)?, text(row, 2)?.into()))
            },
        ),
        Kind::Brakes => (
            "SELECT fleet, vehicle, since, by, why FROM brakes ORDER BY fleet, vehicle",
            |row| {
                let (vehicle, frozen) = of_brake(row)?;
                Ok(Entry::Brake(FleetId(id(row, 0)?), vehicle, frozen))
            },
        ),
        _ => (
            "SELECT fleet, day, base, approved FROM quotas ORDER BY fleet",
            |row| Ok(Entry::Quota(FleetId(id(row, 0)?), day(row)?)),
        ),
    }
}

impl<'a> Survey<'a> {
    /// What stands of fleets that rule, and what is frozen of those that issue.
    pub(super) fn ruled(&mut self, needs: &'a Needs) {
        let frozen = needs.braked.union(&needs.ruled);
        self.ask(
            !(needs.braked.is_empty() && needs.ruled.is_empty()),
            "SELECT fleet, vehicle FROM brakes WHERE fleet = ANY($1)",
            values![uuids(frozen.map(|id| &id.0))],
            |ground, row| {
                of(ground, row)?.frozen.insert(text(row, 1)?.into());
                Ok(())
            },
        );
        let relied = needs.braked.difference(&needs.ruled);
        self.ask(
            !needs.braked.is_subset(&needs.ruled),
            "SELECT fleet, max(version) FROM rules WHERE fleet = ANY($1) GROUP BY fleet",
            values![uuids(relied.map(|id| &id.0))],
            |ground, row| {
                of(ground, row)?.version = small(row, 1)?;
                Ok(())
            },
        );
        let wanted = !needs.ruled.is_empty();
        let fleets = || uuids(needs.ruled.iter().map(|id| &id.0));
        self.ask(
            wanted,
            "SELECT f.id, (SELECT coalesce(max(version), 0) FROM rules WHERE fleet = f.id),
                    (SELECT coalesce(max(number), 0) FROM acts WHERE fleet = f.id),
                    coalesce((SELECT version FROM followed WHERE fleet = f.id), 0)
             FROM unnest($1::uuid[]) f (id)",
            values![fleets()],
            |ground, row| {
                let ruled = of(ground, row)?;
                (ruled.version, ruled.followed) = (small(row, 1)?, small(row, 3)?);
                ground.acts.insert(FleetId(id(row, 0)?), number(row, 2)?);
                Ok(())
            },
        );
        self.ask(
            wanted,
            "SELECT fleet, day, base, approved FROM quotas WHERE fleet = ANY($1)",
            values![fleets()],
            |ground, row| {
                of(ground, row)?.day = Some(day(row)?);
                Ok(())
            },
        );
    }
}

fn of<'a>(ground: &'a mut Ground, row: &SqlRow) -> Result<&'a mut RuledRow, StoreError> {
    Ok(ground.ruled.entry(FleetId(id(row, 0)?)).or_default())
}

/// Decides a ruling, and numbers what is kept of the decision.
pub(super) fn rule(ground: &mut Ground, ruled: &Rulings) -> Result<Applied, StoreError> {
    let fleet = ruled.fleet;
    if !ground.fleets.contains_key(&fleet) || !apply(ground, ruled) {
        return Ok(Applied::Stale);
    }
    if let Some((act, object)) = act(&ruled.what) {
        let act = Act {
            fleet,
            at: ruled.at,
            by: ruled.by.clone(),
            act: act.into(),
            object,
            why: ruled.why.clone(),
        };
        acts::keep(ground, &act)?;
    }
    Ok(Applied::Done)
}

/// Whether a ruling changes what is ruled; it does so then.
fn apply(ground: &mut Ground, ruled: &Rulings) -> bool {
    let fleet = ruled.fleet;
    let known = ground.ruled.entry(fleet).or_default();
    let changes = &mut ground.changes;
    match &ruled.what {
        Ruling::Rules(version, body) => {
            let follows = known.version.checked_add(1) == Some(*version);
            if follows {
                known.version = *version;
                // Whoever relies on it is to ask again.
                changes.standings.insert(fleet);
                changes.rules.push((fleet, *version, body.clone()));
            }
            follows
        }
        Ruling::Followed(from, to) => {
            let right = known.followed == *from && *to <= known.version;
            if right {
                known.followed = *to;
                changes.followed.insert(fleet, *to);
            }
            right
        }
        Ruling::Freeze(vehicle) => {
            let place = name(vehicle.as_ref()).to_owned();
            let frozen = Frozen {
                since: ruled.at,
                by: ruled.by.clone(),
                why: ruled.why.clone(),
            };
            let is_new = known.frozen.insert(place.clone());
            if is_new {
                changes.brake(fleet, place, Some(frozen));
            }
            is_new
        }
        Ruling::Release(vehicle) => {
            let place = name(vehicle.as_ref());
            let was = known.frozen.remove(place);
            if was {
                changes.brake(fleet, place.to_owned(), None);
            }
            was
        }
        Ruling::Day(day, base) => {
            let begins = known.day.is_none_or(|known| known.day < *day);
            if begins {
                known.day = Some(QuotaDay {
                    day: *day,
                    base: *base,
                    approved: 0,
                });
                changes.days.insert(fleet);
            }
            begins
        }
        Ruling::Approve(day, base, approved) => {
            let allowed = known.day.is_none_or(|known| known.day <= *day);
            if allowed {
                let same = known.day.filter(|known| known.day == *day);
                known.day = Some(QuotaDay {
                    day: *day,
                    base: same.map_or(*base, |known| known.base),
                    approved: *approved,
                });
                changes.days.insert(fleet);
            }
            allowed
        }
    }
}

impl<'a> Writing<'a> {
    /// Rulings, and what is kept of the decisions.
    pub(super) fn rulings(&mut self, ground: &'a Ground) -> Result<(), StoreError> {
        let changes = &ground.changes;
        if !changes.rules.is_empty() {
            let rows = &changes.rules;
            self.put(
                "INSERT INTO rules (fleet, version, body)
                 SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::text[])",
                vec![
                    each(rows, |(fleet, ..)| uuid(&fleet.0)),
                    each(rows, |(_, version, _)| i64::from(*version)),
                    each(rows, |(.., body)| &**body),
                ],
            );
        }
        let followed = &changes.followed;
        if !followed.is_empty() {
            self.put(
                "INSERT INTO followed (fleet, version)
                 SELECT * FROM unnest($1::uuid[], $2::bigint[])
                 ON CONFLICT (fleet) DO UPDATE SET version = excluded.version",
                vec![
                    each(followed, |(fleet, _)| uuid(&fleet.0)),
                    each(followed, |(_, version)| i64::from(*version)),
                ],
            );
        }
        self.brakes(ground)?;
        if !changes.days.is_empty() {
            let days = changes.days.iter().filter_map(|fleet| {
                let day = ground.ruled.get(fleet).and_then(|known| known.day);
                day.map(|day| (fleet, day))
            });
            self.put(
                "INSERT INTO quotas (fleet, day, base, approved)
                 SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[])
                 ON CONFLICT (fleet) DO UPDATE SET day = excluded.day, base = excluded.base,
                 approved = excluded.approved",
                vec![
                    each(days.clone(), |(fleet, _)| uuid(&fleet.0)),
                    try_each(days.clone(), |(_, it)| column(it.day))?,
                    try_each(days.clone(), |(_, it)| column(it.base))?,
                    try_each(days, |(_, it)| column(it.approved))?,
                ],
            );
        }
        Ok(())
    }

    fn brakes(&mut self, ground: &'a Ground) -> Result<(), StoreError> {
        let brakes = &ground.changes.brakes;
        let released = brakes.iter().filter(|(_, frozen)| frozen.is_none());
        if released.clone().next().is_some() {
            self.put(
                "DELETE FROM brakes b USING unnest($1::uuid[], $2::text[]) k (fleet, vehicle)
                 WHERE b.fleet = k.fleet AND b.vehicle = k.vehicle",
                vec![
                    each(released.clone(), |((fleet, _), _)| uuid(&fleet.0)),
                    each(released, |((_, vehicle), _)| vehicle.as_str()),
                ],
            );
        }
        let frozen = brakes
            .iter()
            .filter_map(|(place, frozen)| frozen.as_ref().map(|frozen| (place, frozen)));
        if frozen.clone().next().is_some() {
            // One that was released and frozen again within its transaction is there already.
            self.put(
                "INSERT INTO brakes (fleet, vehicle, since, by, why)
                 SELECT * FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::text[], $5::text[])
                 ON CONFLICT (fleet, vehicle) DO UPDATE SET since = excluded.since,
                 by = excluded.by, why = excluded.why",
                vec![
                    each(frozen.clone(), |((fleet, _), _)| uuid(&fleet.0)),
                    each(frozen.clone(), |((_, vehicle), _)| vehicle.as_str()),
                    try_each(frozen.clone(), |(_, it)| column(it.since))?,
                    each(frozen.clone(), |(_, it)| it.by.as_str()),
                    each(frozen, |(_, it)| it.why.as_deref()),
                ],
            );
        }
        Ok(())
    }
}

impl<'a> Writing<'a> {
    /// What another store has given out of what fleets rule.
    pub(super) fn take_rulings(&mut self, entries: &'a [Entry]) -> Result<(), StoreError> {
        let rules = all!(entries, Entry::Rules(fleet, version, text) => (fleet, version, text));
        if !rules.is_empty() {
            self.put(
                "INSERT INTO rules (fleet, version, body)
                 SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::text[])",
                vec![
                    each(&rules, |(fleet, ..)| uuid(&fleet.0)),
                    each(&rules, |(_, version, _)| i64::from(**version)),
                    each(&rules, |(.., text)| &***text),
                ],
            );
        }
        self.take_acts(entries)?;
        let brakes = all!(entries, Entry::Brake(fleet, vehicle, it) => (fleet, vehicle, it));
        if !brakes.is_empty() {
            self.put(
                "INSERT INTO brakes (fleet, vehicle, since, by, why)
                 SELECT * FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::text[],
                 $5::text[])",
                vec![
                    each(&brakes, |(fleet, ..)| uuid(&fleet.0)),
                    each(&brakes, |(_, vehicle, _)| name(vehicle.as_ref())),
                    try_each(&brakes, |(.., it)| column(it.since))?,
                    each(&brakes, |(.., it)| it.by.as_str()),
                    each(&brakes, |(.., it)| it.why.as_deref()),
                ],
            );
        }
        let days = all!(entries, Entry::Quota(fleet, day) => (fleet, day));
        if !days.is_empty() {
            self.put(
                "INSERT INTO quotas (fleet, day, base, approved)
                 SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[])",
                vec![
                    each(&days, |(fleet, _)| uuid(&fleet.0)),
                    try_each(&days, |(_, it)| column(it.day))?,
                    try_each(&days, |(_, it)| column(it.base))?,
                    try_each(&days, |(_, it)| column(it.approved))?,
                ],
            );
        }
        Ok(())
    }
}
