//! Where bundles are kept, up to 64 in a row: floor 2, `store/sqlite`.
//!
//! Inserting a row costs more than the bytes of a bundle. Bundles of one transaction that have
//! fleet, epoch and the millisecond of their ids in common are therefore put into one row, a
//! *pack*: a CBOR sequence (RFC 8742) of byte strings, one for each bundle, null where one was
//! purged. A bundle is named by its *place*, the pack's number and its position in it.
//!
//! A bundle's id leads to its pack without an index of ids: ids of one millisecond stand in few
//! packs, and of those `first` names the right one but for rare neighbours, which are looked into
//! too.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decoder, Encoder};
use rusqlite::{Connection, OptionalExtension, params};

use super::bundle_body::{self, FORMAT};
use super::error::corrupt;
use super::load::blob;
use super::reissues;
use crate::domain::BundleId;
use crate::store::StoreError;

/// Bits of a place that say where in its pack a bundle is.
const POSITION_BITS: u32 = 6;

/// Bundles of a pack.
const PACK_LEN: usize = 1 << POSITION_BITS;

/// Bundles of a segment of the index tables, about: a transaction is not divided.
const SEGMENT_LEN: u32 = 1 << 14;

/// Bytes of an id that hold its milliseconds (RFC 9562 §5.7).
const MILLISECONDS_LEN: usize = 6;

/// Where a bundle is: the number of its pack and its position there.
pub(super) type Place = i64;

/// The place of that position in that pack.
pub(super) const fn place(pack: i64, position: usize) -> Place {
    pack << POSITION_BITS | position as i64
}

/// The number of a place's pack.
pub(super) const fn pack_of(place: Place) -> i64 {
    place >> POSITION_BITS
}

/// A place's position within its pack.
pub(super) const fn position_of(place: Place) -> usize {
    (place & ((1 << POSITION_BITS) - 1)) as usize
}

/// What the writer knows of all packs. Valid while no transaction is rolled back.
pub(super) struct Packs {
    /// The number of the next pack.
    next: i64,
    /// No bundle has a higher id.
    highest: BundleId,
    /// The segment being filled, and how many bundles it has.
    segment: i64,
    in_segment: u32,
}

/// The packs of a transaction under way.
#[derive(Default)]
pub(super) struct Pending {
    packs: Vec<Pack>,
    /// (identity, place) of each bundle.
    identities: Vec<(i64, Place)>,
    /// (vehicle, place) of each order.
    vehicles: Vec<(i64, Place)>,
}

/// A pack that is being filled.
struct Pack {
    number: i64,
    fleet: i64,
    epoch: i64,
    ids: Vec<BundleId>,
    ends: Option<i64>,
    body: Vec<u8>,
}

/// What of a bundle decides where it goes and how it is found.
pub(super) struct Item<'a> {
    pub(super) id: BundleId,
    pub(super) identity: i64,
    /// Vehicle, and the span of time in which it is over, where it is an order.
    pub(super) order: Option<(i64, i64)>,
    pub(super) body: &'a [u8],
}

impl Packs {
    pub(super) fn load(connection: &Connection) -> Result<Self, StoreError> {
        let newest: Option<(i64, i64)> = connection
            .query_row(
                "SELECT number, segment FROM packs ORDER BY number DESC LIMIT 1",
                [],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .optional()?;
        let (number, segment) = newest.unwrap_or((0, 0));
        let in_segment = connection.query_row(
            "SELECT count(*) FROM bundles_by_identity WHERE segment = ?1",
            params![segment],
            |row| row.get(0),
        )?;
        let mut packs = Self {
            next: number + 1,
            highest: BundleId([0; 16]),
            segment,
            in_segment,
        };
        let last = "SELECT body FROM packs WHERE substr(first, 1, 6) =
                    (SELECT substr(max(first), 1, 6) FROM packs) AND first >=
                    (SELECT substr(max(first), 1, 6) FROM packs)";
        super::load::rows(connection, last, [], |row| {
            for body in bodies(blob(row, 0)?)?.into_iter().flatten() {
                packs.highest = packs.highest.max(bundle_body::id_of(body)?);
            }
            Ok(())
        })?;
        Ok(packs)
    }

    /// Whether a bundle of this id is kept already, or waits to be.
    pub(super) fn taken(
        &self,
        connection: &Connection,
        pending: &Pending,
        id: &BundleId,
    ) -> Result<bool, StoreError> {
        if *id > self.highest {
            return Ok(false);
        }
        let waits = pending.packs.iter().any(|pack| pack.ids.contains(id));
        Ok(waits || find(connection, id)?.is_some())
    }

    /// Where the next bundle goes that has this fleet, epoch and id.
    pub(super) fn place(
        &mut self,
        pending: &mut Pending,
        fleet: i64,
        epoch: i64,
        id: &BundleId,
    ) -> Place {
        let open = pending.packs.last();
        if !open.is_some_and(|pack| pack.takes(fleet, epoch, id)) {
            pending.packs.push(Pack {
                number: self.next,
                fleet,
                epoch,
                ids: Vec::with_capacity(PACK_LEN),
                ends: None,
                body: Vec::new(),
            });
            self.next += 1;
        }
        let open = pending.packs.last();
        open.map_or(0, |pack| place(pack.number, pack.ids.len()))
    }

    /// Puts a bundle where [`Packs::place`] said.
    pub(super) fn push(&mut self, pending: &mut Pending, item: &Item<'_>) {
        let Some(pack) = pending.packs.last_mut() else {
            return;
        };
        let place = place(pack.number, pack.ids.len());
        pack.ids.push(item.id);
        append(&mut pack.body, Some(item.body));
        pending.identities.push((item.identity, place));
        if let Some((vehicle, end)) = item.order {
            pending.vehicles.push((vehicle, place));
            pack.ends = Some(pack.ends.map_or(end, |known| known.min(end)));
        }
        self.highest = self.highest.max(item.id);
    }

    /// Writes the packs of a transaction and what finds their bundles.
    pub(super) fn flush(
        &mut self,
        connection: &Connection,
        pending: &mut Pending,
    ) -> Result<(), StoreError> {
        if pending.packs.is_empty() {
            return Ok(());
        }
        let mut insert = connection.prepare_cached(
            "INSERT INTO packs (number, fleet, epoch, segment, first, ends, format, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?;
        for pack in pending.packs.drain(..) {
            let Some(first) = pack.ids.iter().min() else {
                continue;
            };
            insert.execute(params![
                pack.number,
                pack.fleet,
                pack.epoch,
                self.segment,
                first.bytes(),
                pack.ends,
                FORMAT,
                pack.body
            ])?;
        }
        // Neighbours lie in the same pages.
        let bundles = u32::try_from(pending.identities.len()).unwrap_or(SEGMENT_LEN);
        for (sql, rows) in [
            (
                "INSERT INTO bundles_by_identity VALUES (?1, ?2, ?3)",
                &mut pending.identities,
            ),
            (
                "INSERT INTO orders_by_vehicle VALUES (?1, ?2, ?3)",
                &mut pending.vehicles,
            ),
        ] {
            rows.sort_unstable();
            let mut insert = connection.prepare_cached(sql)?;
            for (of, place) in rows.drain(..) {
                insert.execute(params![self.segment, of, place])?;
            }
        }
        self.in_segment = self.in_segment.saturating_add(bundles);
        if self.in_segment >= SEGMENT_LEN {
            (self.segment, self.in_segment) = (self.segment + 1, 0);
        }
        Ok(())
    }
}

impl Pack {
    fn takes(&self, fleet: i64, epoch: i64, id: &BundleId) -> bool {
        let of_one_moment =
            |known: &BundleId| known.0[..MILLISECONDS_LEN] == id.0[..MILLISECONDS_LEN];
        self.fleet == fleet
            && self.epoch == epoch
            && self.ids.len() < PACK_LEN
            && self.ids.first().is_none_or(of_one_moment)
    }
}

/// A bundle as found, where, and of what fleet and epoch.
pub(super) struct Found {
    pub(super) place: Place,
    pub(super) fleet: i64,
    pub(super) epoch: i64,
    pub(super) body: Vec<u8>,
}

/// The bundle of that id.
pub(super) fn find(connection: &Connection, id: &BundleId) -> Result<Option<Found>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT fleet, epoch, format, body, number FROM packs
         WHERE first <= ?1 AND first >= ?2 ORDER BY first DESC",
    )?;
    let mut rows = statement.query(params![id.bytes(), &id.0[..MILLISECONDS_LEN]])?;
    while let Some(row) = rows.next()? {
        check_format(row.get(2)?)?;
        for (position, body) in bodies(blob(row, 3)?)?.into_iter().enumerate() {
            let Some(body) = body else { continue };
            if bundle_body::id_of(body)? == *id {
                return Ok(Some(Found {
                    place: place(row.get(4)?, position),
                    fleet: row.get(0)?,
                    epoch: row.get(1)?,
                    body: body.to_vec(),
                }));
            }
        }
    }
    Ok(None)
}

/// The bundle at that place.
pub(super) fn at(connection: &Connection, place: Place) -> Result<Option<Found>, StoreError> {
    let mut statement = connection
        .prepare_cached("SELECT fleet, epoch, format, body FROM packs WHERE number = ?1")?;
    let mut rows = statement.query(params![pack_of(place)])?;
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    check_format(row.get(2)?)?;
    let bodies = bodies(blob(row, 3)?)?;
    let Some(Some(body)) = bodies.get(position_of(place)) else {
        return Ok(None);
    };
    Ok(Some(Found {
        place,
        fleet: row.get(0)?,
        epoch: row.get(1)?,
        body: body.to_vec(),
    }))
}

/// The bodies of a pack by their positions; `None` where one was purged.
pub(super) fn bodies(pack: &[u8]) -> Result<Vec<Option<&[u8]>>, StoreError> {
    let mut decoder = Decoder::new(pack);
    let mut bodies = Vec::with_capacity(PACK_LEN);
    while decoder.position() < pack.len() {
        let body = super::cbor::optional(&mut decoder, |d| d.bytes());
        bodies.push(body.map_err(|_| corrupt("a pack that is not a list of bundles"))?);
    }
    Ok(bodies)
}

/// Appends a body, or that there is none, to a pack.
fn append(pack: &mut Vec<u8>, body: Option<&[u8]>) {
    let mut encoder = Encoder::new(pack);
    // Writing into memory cannot fail.
    let _ = match body {
        None => encoder.null(),
        Some(body) => encoder.bytes(body),
    };
}

/// Takes bundles out of their packs: where each was, nothing is. Packs that are empty then go.
///
/// The index rows of what is taken out go with it. `removed` is told of each, and of which epoch it
/// was.
pub(super) fn remove(
    connection: &Connection,
    places: &[Place],
    removed: &mut dyn FnMut(Place, i64),
) -> Result<(), StoreError> {
    let mut by_pack = BTreeMap::<i64, Vec<usize>>::new();
    for place in places {
        by_pack
            .entry(pack_of(*place))
            .or_default()
            .push(position_of(*place));
    }
    for (number, positions) in by_pack {
        remove_from(connection, number, &positions, removed)?;
    }
    Ok(())
}

/// Notes anew when the first of the orders of these packs is over.
pub(super) fn settle_ends(connection: &Connection, places: &[Place]) -> Result<(), StoreError> {
    let packs: BTreeSet<i64> = places.iter().map(|place| pack_of(*place)).collect();
    for number in packs {
        remove_from(connection, number, &[], &mut |_, _| {})?;
    }
    Ok(())
}

fn remove_from(
    connection: &Connection,
    number: i64,
    positions: &[usize],
    removed: &mut dyn FnMut(Place, i64),
) -> Result<(), StoreError> {
    let found: Option<(i64, i64, Vec<u8>)> = connection
        .prepare_cached("SELECT segment, epoch, body FROM packs WHERE number = ?1")?
        .query_row(params![number], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?;
    let Some((segment, epoch, pack)) = found else {
        return Ok(());
    };
    let mut left = bodies(&pack)?;
    let mut ends = None;
    for (position, body) in left.iter_mut().enumerate() {
        let Some(bytes) = body else { continue };
        let read = bundle_body::Body::decode(bytes)?;
        if positions.contains(&position) {
            *body = None;
            removed(place(number, position), epoch);
            forget(connection, segment, place(number, position), &read)?;
        } else if let bundle_body::Basis::Order { .. } = read.basis {
            let end = span(reissues::order_ends(connection, &read)?);
            ends = Some(ends.map_or(end, |known: i64| known.min(end)));
        }
    }
    if left.iter().all(Option::is_none) {
        connection
            .prepare_cached("DELETE FROM packs WHERE number = ?1")?
            .execute(params![number])?;
        return Ok(());
    }
    let mut rest = Vec::with_capacity(pack.len());
    for body in left {
        append(&mut rest, body);
    }
    connection
        .prepare_cached("UPDATE packs SET ends = ?2, body = ?3 WHERE number = ?1")?
        .execute(params![number, ends, rest])?;
    Ok(())
}

fn forget(
    connection: &Connection,
    segment: i64,
    place: Place,
    body: &bundle_body::Body,
) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "DELETE FROM bundles_by_identity WHERE segment = ?1 AND identity = ?2 AND bundle = ?3",
        )?
        .execute(params![segment, body.identity, place])?;
    if let bundle_body::Basis::Order { vehicle, .. } = body.basis {
        connection
            .prepare_cached(
                "DELETE FROM orders_by_vehicle WHERE segment = ?1 AND vehicle = ?2 AND bundle = ?3",
            )?
            .execute(params![segment, vehicle, place])?;
    }
    Ok(())
}

/// The span of 2^16 seconds (18 hours) in which something is over: times as they come would be as
/// many places to write to.
pub(super) fn span(end: u64) -> i64 {
    // 48 bits are left.
    i64::try_from(end >> 16).unwrap_or(i64::MAX)
}

pub(super) fn check_format(found: i64) -> Result<(), StoreError> {
    (found == FORMAT)
        .then_some(())
        .ok_or_else(|| corrupt(format!("a pack of format {found}")))
}
