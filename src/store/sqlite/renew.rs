//! Bundles signed again as they are, and which of them an epoch has signed: floor 2,
//! `store/sqlite`.
//!
//! What a revoked epoch has left to do is read from what is stored: a bundle that stands under
//! another epoch is no longer found, so there is no list that could go stale.

use rusqlite::{Connection, OptionalExtension, params};

use super::bundle_body::{self, Body};
use super::error::corrupt;
use super::load::blob;
use super::packs::{self, Found};
use super::read::signed_bundle;
use super::reissues;
use super::writer::Transaction;
use crate::domain::{EpochId, UnixTime};
use crate::store::{Applied, Cursor, Proof, Renewal, SignedBy, StoreError};

/// Where a look through bundles goes on: the packs come first, in the order of their numbers, then
/// the bundles that were issued again, in the order of their authorizations.
enum After {
    Pack(i64),
    Reissue([u8; 16]),
}

/// Puts a bundle under the signature of another epoch, where it still stands as it was read.
pub(super) fn renew(
    transaction: &mut Transaction<'_>,
    renewal: &Renewal,
) -> Result<Applied, StoreError> {
    let connection = transaction.connection;
    let (bundle, proof) = (&renewal.signed.bundle, &renewal.signed.proof);
    let Some((epoch, true)) = transaction.standings.epoch(connection, &bundle.epoch)? else {
        return Ok(Applied::Stale);
    };
    let from = number_of(connection, &renewal.from)?;
    let Some(first) = packs::find(connection, &bundle.id)? else {
        return Ok(Applied::Stale);
    };
    let stands = reissues::newest(connection, first)?;
    let mut body = Body::decode(&stands.body)?;
    if Some(stands.epoch) != from || body.version != bundle.version {
        return Ok(Applied::Stale);
    }
    let keys = body.keys.len();
    if matches!(proof, Proof::Each(signatures) if signatures.len() != keys) {
        return Err(StoreError::Failed(
            "a bundle without one signature for each key".into(),
        ));
    }
    (body.algorithm, body.issued_at) = (bundle.algorithm, bundle.issued_at);
    body.proof = proof.clone();
    transaction.scratch.clear();
    body.fields().write(transaction.scratch)?;
    connection
        .prepare_cached("INSERT OR REPLACE INTO reissues VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
        .execute(params![
            body.authorization().bytes(),
            body.version,
            stands.fleet,
            epoch,
            bundle_body::FORMAT,
            *transaction.scratch,
        ])?;
    Ok(Applied::Done)
}

/// Bundles that stand as an epoch signed them, from `after` on.
pub(super) fn signed_by(
    connection: &Connection,
    epoch: &EpochId,
    now: UnixTime,
    after: Option<&Cursor>,
    at_most: u32,
) -> Result<SignedBy, StoreError> {
    let snapshot = connection.unchecked_transaction()?;
    let Some(epoch) = number_of(&snapshot, epoch)? else {
        return Ok(SignedBy::default());
    };
    let mut found = Vec::new();
    let at_most = at_most.max(1) as usize;
    let after = after.map_or(Ok(After::Pack(0)), After::read)?;
    let next = match after {
        After::Pack(number) => in_packs(&snapshot, (epoch, now), number, at_most, &mut found)?,
        After::Reissue(last) => again(&snapshot, (epoch, now), &last, at_most, &mut found)?,
    };
    let signed = found.iter().map(|one| signed_bundle(&snapshot, one));
    Ok(SignedBy {
        bundles: signed.collect::<Result<_, _>>()?,
        next: next.map(|after| after.cursor()),
    })
}

/// Those of packs after this one, which were not issued again since.
fn in_packs(
    connection: &Connection,
    (epoch, now): (i64, UnixTime),
    after: i64,
    at_most: usize,
    all: &mut Vec<Found>,
) -> Result<Option<After>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT number, fleet, format, body FROM packs INDEXED BY packs_by_epoch
         WHERE epoch = ?1 AND number > ?2 ORDER BY number LIMIT ?3",
    )?;
    let mut rows = statement.query(params![epoch, after, at_most as i64])?;
    let (mut looked, mut last) = (0, after);
    while let Some(row) = rows.next()? {
        packs::check_format(row.get(2)?)?;
        last = row.get(0)?;
        for (position, bytes) in packs::bodies(blob(row, 3)?)?.into_iter().enumerate() {
            let Some(bytes) = bytes else { continue };
            let body = Body::decode(bytes)?;
            if body.window.not_after <= now || was_issued_again(connection, &body)? {
                continue;
            }
            all.push(Found {
                place: packs::place(last, position),
                fleet: row.get(1)?,
                epoch,
                body: bytes.to_vec(),
            });
        }
        looked += 1;
        if all.len() >= at_most {
            return Ok(Some(After::Pack(last)));
        }
    }
    Ok(Some(if looked == at_most {
        After::Pack(last)
    } else {
        After::Reissue([0; 16])
    }))
}

/// Those of the bundles that were issued again, on authorizations after this one.
fn again(
    connection: &Connection,
    (epoch, now): (i64, UnixTime),
    after: &[u8; 16],
    at_most: usize,
    all: &mut Vec<Found>,
) -> Result<Option<After>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT fleet, epoch, format, body, authorization
         FROM reissues r INDEXED BY reissues_by_epoch
         WHERE epoch = ?1 AND authorization > ?2 AND version =
               (SELECT max(version) FROM reissues n WHERE n.authorization = r.authorization)
         ORDER BY authorization LIMIT ?3",
    )?;
    let mut rows = statement.query(params![epoch, after, at_most as i64])?;
    let (mut looked, mut last) = (0, *after);
    while let Some(row) = rows.next()? {
        looked += 1;
        last = row.get(4)?;
        // Where it is does not matter: it is read by what is in it.
        let found = reissues::found(row, 0)?;
        if Body::decode(&found.body)?.window.not_after > now {
            all.push(found);
        }
    }
    Ok((looked == at_most).then_some(After::Reissue(last)))
}

fn was_issued_again(connection: &Connection, body: &Body) -> Result<bool, StoreError> {
    Ok(connection
        .prepare_cached("SELECT 1 FROM reissues WHERE authorization = ?1")?
        .exists(params![body.authorization().bytes()])?)
}

fn number_of(connection: &Connection, epoch: &EpochId) -> Result<Option<i64>, StoreError> {
    Ok(connection
        .prepare_cached("SELECT number FROM epochs WHERE id = ?1")?
        .query_row(params![epoch.0], |row| row.get(0))
        .optional()?)
}

impl After {
    fn cursor(&self) -> Cursor {
        let bytes = match self {
            Self::Pack(number) => number.to_be_bytes().into(),
            Self::Reissue(last) => last.as_slice().into(),
        };
        Cursor(bytes)
    }

    /// Told apart by their lengths.
    fn read(cursor: &Cursor) -> Result<Self, StoreError> {
        let bytes = &*cursor.0;
        if let Ok(number) = bytes.try_into() {
            return Ok(Self::Pack(i64::from_be_bytes(number)));
        }
        let last = bytes.try_into().map(Self::Reissue);
        last.map_err(|_| corrupt("a cursor that is none"))
    }
}
