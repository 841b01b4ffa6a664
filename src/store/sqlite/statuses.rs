//! Keys that are not valid, when status lists were signed, and what cars know: floor 2,
//! `store/sqlite`.
//!
//! A key has a row only while it is revoked or suspended, so what is written and loaded grows with
//! those alone and not with the keys issued.

use rusqlite::{Connection, params};

use super::error::{column, corrupt, number};
use super::load::{Names, blob, rows};
use super::packs::span;
use super::registry::fleet_number;
use crate::domain::{EpochId, FleetId, KeyChange, Mark, Reasons, ShardId, UnixTime, VehicleId};
use crate::store::{Applied, Contact, Listed, Row, Sent, SignedList, StoreError};

const REVOKED: i64 = 1;
const SUSPENDED: i64 = 2;

/// Writes the marks: what is revoked stays so, and a reason that goes leaves the others.
pub(super) fn mark(connection: &Connection, marks: &[Mark]) -> Result<(), StoreError> {
    for mark in marks {
        let (tag, shard) = (mark.shard.tag, column(mark.shard.number)?);
        let place = params![tag, shard, mark.index];
        let (reasons, sql) = match mark.change {
            KeyChange::Resume(reason) => {
                let reason = Reasons::NONE.with(reason).bits();
                connection
                    .prepare_cached(
                        "UPDATE statuses SET reasons = reasons & ~?4
                         WHERE tag = ?1 AND shard = ?2 AND position = ?3 AND status = 2",
                    )?
                    .execute(params![tag, shard, mark.index, reason])?;
                connection
                    .prepare_cached(
                        "DELETE FROM statuses WHERE tag = ?1 AND shard = ?2 AND position = ?3
                         AND status = 2 AND reasons = 0",
                    )?
                    .execute(place)?;
                continue;
            }
            KeyChange::Suspend(reason) => (
                Reasons::NONE.with(reason),
                "INSERT INTO statuses (tag, shard, position, status, ends, reasons)
                 VALUES (?1, ?2, ?3, 2, ?4, ?5)
                 ON CONFLICT DO UPDATE SET reasons = reasons | excluded.reasons WHERE status = 2",
            ),
            KeyChange::Revoke => (
                Reasons::NONE,
                "INSERT INTO statuses (tag, shard, position, status, ends, reasons)
                 VALUES (?1, ?2, ?3, 1, ?4, ?5)
                 ON CONFLICT DO UPDATE SET status = 1, reasons = 0",
            ),
        };
        let ends = span(mark.ends);
        connection.prepare_cached(sql)?.execute(params![
            tag,
            shard,
            mark.index,
            ends,
            reasons.bits()
        ])?;
    }
    Ok(())
}

/// Keeps lists as they are about to be given out. An older one that comes late leaves the newer.
pub(super) fn listed(connection: &Connection, lists: &[SignedList]) -> Result<Applied, StoreError> {
    let mut statement = connection.prepare_cached(
        "UPDATE status_lists SET revision = ?4, epoch = ?5, body = ?6
         WHERE tag = ?1 AND shard = ?2 AND issued_at = ?3",
    )?;
    for list in lists {
        note_times(connection, &[list.listed])?;
        statement.execute(params![
            list.listed.shard.tag,
            column(list.listed.shard.number)?,
            column(list.listed.issued_at)?,
            column(list.revision)?,
            list.epoch.0,
            list.bytes
        ])?;
    }
    Ok(Applied::Done)
}

/// Hands every list as it was given out last to `each`, where that is known.
pub(super) fn given_out(
    connection: &Connection,
    each: &mut dyn FnMut(SignedList) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let sql = "SELECT tag, shard, issued_at, expires, revision, epoch, body FROM status_lists
               WHERE body IS NOT NULL ORDER BY tag, shard";
    rows(connection, sql, [], |row| {
        each(SignedList {
            listed: Listed {
                shard: ShardId {
                    tag: row.get(0)?,
                    number: number(row.get(1)?)?,
                },
                issued_at: number(row.get(2)?)?,
                expires: number(row.get(3)?)?,
            },
            epoch: EpochId(row.get(5)?),
            revision: number(row.get(4)?)?,
            // There is nobody else who gives it out.
            content: [0; 32],
            bytes: blob(row, 6)?.into(),
        })
    })
}

/// Notes when lists are signed, and when they end. None goes back.
pub(super) fn note_times(connection: &Connection, lists: &[Listed]) -> Result<Applied, StoreError> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO status_lists (tag, shard, issued_at, expires) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT DO UPDATE SET issued_at = max(issued_at, excluded.issued_at),
         expires = max(expires, excluded.expires)",
    )?;
    for list in lists {
        statement.execute(params![
            list.shard.tag,
            column(list.shard.number)?,
            column(list.issued_at)?,
            column(list.expires)?
        ])?;
    }
    Ok(Applied::Done)
}

/// Notes what a car was sent and has acknowledged.
pub(super) fn contact(
    connection: &Connection,
    fleet: &FleetId,
    vehicle: &VehicleId,
    contact: &Contact,
) -> Result<Applied, StoreError> {
    let Some(fleet) = fleet_number(connection, fleet)? else {
        return Ok(Applied::Stale);
    };
    let Contact {
        heard_at,
        sent,
        acked,
    } = contact;
    let written = connection
        .prepare_cached(
            "INSERT OR REPLACE INTO contacts
             SELECT number, ?3, ?4, ?5, ?6, ?7, ?8, ?9 FROM vehicles WHERE fleet = ?1 AND id = ?2",
        )?
        .execute(params![
            fleet,
            vehicle.as_str(),
            column(*heard_at)?,
            sent.digest,
            column(sent.revision)?,
            column(sent.at)?,
            acked.map(|acked| acked.digest),
            acked.map(|acked| column(acked.revision)).transpose()?,
            acked.map(|acked| column(acked.at)).transpose()?,
        ])?;
    Ok(if written == 1 {
        Applied::Done
    } else {
        Applied::Stale
    })
}

/// Deletes marks of keys that expired before `before`.
pub(super) fn purge(connection: &Connection, before: UnixTime) -> Result<(), StoreError> {
    connection
        .prepare_cached("DELETE FROM statuses WHERE ends < ?1")?
        .execute(params![span(before)])?;
    connection
        .prepare_cached("DELETE FROM amendments WHERE authorization IS NULL AND made_at < ?1")?
        .execute(params![column(before)?])?;
    Ok(())
}

/// Hands all of it to `each`.
pub(super) fn load(
    connection: &Connection,
    names: &Names,
    each: &mut dyn FnMut(Row),
) -> Result<(), StoreError> {
    load_marks(connection, each)?;
    load_lists(connection, each)?;
    load_contacts(connection, names, each)?;
    let sql = "SELECT value FROM revisions WHERE value > 0";
    rows(connection, sql, [], |row| {
        each(Row::Revision(number(row.get(0)?)?));
        Ok(())
    })
}

fn load_marks(connection: &Connection, each: &mut dyn FnMut(Row)) -> Result<(), StoreError> {
    let sql = "SELECT tag, shard, position, status, ends, reasons FROM statuses";
    rows(connection, sql, [], |row| {
        let (shard, index) = (
            ShardId {
                tag: row.get(0)?,
                number: number(row.get(1)?)?,
            },
            row.get(2)?,
        );
        let ends = number(row.get::<_, i64>(4)? << 16)?;
        let mut hand = |change| {
            each(Row::Status(Mark {
                shard,
                index,
                change,
                ends,
            }));
        };
        match (row.get(3)?, Reasons::from_bits(row.get(5)?)) {
            (REVOKED, _) => hand(KeyChange::Revoke),
            (SUSPENDED, Some(reasons)) if reasons != Reasons::NONE => {
                reasons
                    .each()
                    .for_each(|reason| hand(KeyChange::Suspend(reason)));
            }
            _ => return Err(corrupt("an unknown status of a key")),
        }
        Ok(())
    })
}

pub(super) fn load_lists(
    connection: &Connection,
    each: &mut dyn FnMut(Row),
) -> Result<(), StoreError> {
    let sql = "SELECT tag, shard, issued_at, expires FROM status_lists";
    rows(connection, sql, [], |row| {
        each(Row::Listed(Listed {
            shard: ShardId {
                tag: row.get(0)?,
                number: number(row.get(1)?)?,
            },
            issued_at: number(row.get(2)?)?,
            expires: number(row.get(3)?)?,
        }));
        Ok(())
    })
}

pub(super) fn load_contacts(
    connection: &Connection,
    names: &Names,
    each: &mut dyn FnMut(Row),
) -> Result<(), StoreError> {
    let sql = "SELECT v.fleet, v.number, c.sent, c.sent_revision, c.sent_at, c.acked,
               c.acked_revision, c.acked_at, c.heard_at
               FROM contacts c CROSS JOIN vehicles v ON v.number = c.vehicle";
    rows(connection, sql, [], |row| {
        let acked = match row.get::<_, Option<[u8; 32]>>(5)? {
            None => None,
            Some(digest) => Some(Sent {
                digest,
                revision: number(row.get(6)?)?,
                at: number(row.get(7)?)?,
            }),
        };
        let sent = Sent {
            digest: row.get(2)?,
            revision: number(row.get(3)?)?,
            at: number(row.get(4)?)?,
        };
        each(Row::Contact(
            names.fleet(row.get(0)?)?,
            names.vehicle(row.get(1)?)?,
            Contact {
                heard_at: number(row.get(8)?)?,
                sent,
                acked,
            },
        ));
        Ok(())
    })
}
