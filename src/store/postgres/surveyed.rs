//! What the rows of a survey say: floor 2, `store/postgres`.

use std::collections::HashMap;

use tokio_postgres::Row;
use uuid::Uuid;

use super::ground::{
    AuthorizationRow, EpochRow, FirstIssue, Ground, IdentityRow, TerminalRow, VehicleRow, Written,
};
use super::rows::{bytes, id, name, number, small, text};
use crate::domain::{
    AuthorizationId, BundleId, EpochId, FleetId, Held, IdentityId, Reasons, TerminalId, TokenId,
    VehicleId,
};
use crate::store::StoreError;
use crate::store::encoding::{corrupt, registry, words};

/// What was done to a key, from the columns `status` and `reasons`, in this order.
pub(super) fn held(row: &Row, column: usize) -> Result<Held, StoreError> {
    let reasons = Reasons::from_bits(small(row, column + 1)?);
    let reasons = reasons.ok_or_else(|| corrupt("an unknown reason"))?;
    Ok(match super::rows::get::<i64>(row, column)? {
        words::KEY_REVOKED => Held::ForGood,
        _ => Held::By(reasons),
    })
}

pub(super) fn row_is_active(row: &Row, column: usize) -> Result<bool, StoreError> {
    let status: i64 = super::rows::get(row, column)?;
    Ok(status == words::ACTIVE)
}

pub(super) fn fleet(ground: &mut Ground, row: &Row) -> Result<(), StoreError> {
    let of = FleetId(id(row, 0)?);
    ground.fleets.insert(of, row_is_active(row, 1)?);
    ground.counts.insert(of, super::rows::get(row, 2)?);
    Ok(())
}

pub(super) fn epoch(ground: &mut Ground, row: &Row) -> Result<(), StoreError> {
    let epoch = EpochRow {
        state: super::rows::get(row, 1)?,
        token_serial: text(row, 2)?.into(),
        place: super::rows::get(row, 3)?,
    };
    ground.epochs.insert(EpochId(bytes(row, 0)?), epoch);
    Ok(())
}

pub(super) fn authorization(ground: &mut Ground, row: &Row) -> Result<(), StoreError> {
    let bundle: Option<Uuid> = super::rows::get(row, 6)?;
    let of = AuthorizationId(id(row, 0)?);
    let row = AuthorizationRow {
        fleet: FleetId(id(row, 1)?),
        vehicle: name(row, 2, VehicleId::parse)?,
        version: small(row, 3)?,
        state: super::rows::get(row, 4)?,
        pin_attempts: small(row, 5)?,
        revision: number(row, 7)?,
        bundle: bundle.map(|bundle| BundleId(bundle.into_bytes())),
        written: Written::No,
    };
    ground.authorizations.insert(of, row);
    Ok(())
}

pub(super) fn vehicle(ground: &mut Ground, row: &Row) -> Result<(), StoreError> {
    let place = (FleetId(id(row, 0)?), name(row, 1, VehicleId::parse)?);
    let owned: Option<&str> = super::rows::get(row, 4)?;
    let row = VehicleRow {
        status: super::rows::get(row, 2)?,
        epoch: small(row, 3)?,
        owner: owned.map(|_| name(row, 4, IdentityId::parse)).transpose()?,
    };
    ground.vehicles.insert(place, row);
    Ok(())
}

/// How an identity of this status stands; its hold is in column `hold`.
pub(super) fn identity_row(row: &Row, status: i64, hold: usize) -> Result<IdentityRow, StoreError> {
    let hold: Option<i64> = super::rows::get(row, hold)?;
    Ok(IdentityRow {
        active: status == words::ACTIVE,
        held: hold.is_some(),
    })
}

/// Hold and licences of an identity.
pub(super) fn conditions(ground: &mut Ground, row: &Row) -> Result<(), StoreError> {
    let place = (FleetId(id(row, 0)?), name(row, 1, IdentityId::parse)?);
    let hold: Option<i64> = super::rows::get(row, 2)?;
    let hold = hold.map(words::read_hold).transpose()?;
    let licences = registry::read_licences(super::rows::get(row, 3)?)?;
    ground.conditions.insert(place, (hold, licences));
    Ok(())
}

/// A terminal, with the identity it belongs to.
pub(super) fn terminal(ground: &mut Ground, row: &Row) -> Result<(), StoreError> {
    let fleet = FleetId(id(row, 0)?);
    let identity = name(row, 3, IdentityId::parse)?;
    let status: Option<i64> = super::rows::get(row, 4)?;
    if let Some(status) = status {
        let of = identity_row(row, status, 5)?;
        ground.identities.insert((fleet, identity.clone()), of);
    }
    let of = TerminalRow {
        status: super::rows::get(row, 2)?,
        identity,
    };
    let place = (fleet, name(row, 1, TerminalId::parse)?);
    ground.terminals.insert(place, of);
    Ok(())
}

/// A version of a bundle; the first of it counts.
pub(super) fn bundle(ground: &mut Ground, row: &Row) -> Result<(), StoreError> {
    let author: Option<Uuid> = super::rows::get(row, 4)?;
    let terminal: Option<&str> = super::rows::get(row, 5)?;
    let first = FirstIssue {
        version: small(row, 1)?,
        fleet: FleetId(id(row, 2)?),
        vehicle: name(row, 3, VehicleId::parse)?,
        author: author.map(|author| TokenId(author.into_bytes())),
        terminal: terminal
            .map(|terminal| super::rows::named(TerminalId::parse(terminal)))
            .transpose()?,
    };
    let known: &mut HashMap<_, _> = &mut ground.bundles;
    known.entry(BundleId(id(row, 0)?)).or_insert(first);
    Ok(())
}
