//! The registry's rows on their way out: floor 2, `store/sqlite`.

use rusqlite::{Connection, Row as SqlRow};

use super::error::{corrupt, number};
use super::load::{Names, blob, named, rows, text};
use super::{cbor, words};
use crate::domain::{
    Attested, Epoch, EpochId, Fleet, FleetId, FleetName, FleetSettings, Identity, IdentityId,
    Scopes, Terminal, TerminalId, Token, TokenId, UnixTime, Vehicle, VehicleId, Window,
};
use crate::store::{Row, StoreError, encoding};

type Each<'a> = &'a mut dyn FnMut(Row);

pub(super) fn fleets(
    connection: &Connection,
    names: &mut Names,
    each: Each<'_>,
) -> Result<(), StoreError> {
    let sql = "SELECT number, id, name, status, tag, status_key, status_next, open_redemption,
               signing FROM fleets ORDER BY number";
    rows(connection, sql, [], |row| {
        let id = FleetId(row.get(1)?);
        names.fleets.insert(row.get(0)?, id);
        each(Row::Fleet(Fleet {
            id,
            name: named(FleetName::parse(text(row, 2)?))?,
            status: words::read_status(row.get(3)?)?,
            tag: row.get(4)?,
            status_key: row.get(5)?,
            status_next: number(row.get(6)?)?,
            settings: FleetSettings {
                open_redemption: row.get(7)?,
                signing: row
                    .get::<_, Option<u8>>(8)?
                    .map(words::read_signing)
                    .transpose()?,
            },
        }));
        Ok(())
    })
}

pub(super) fn functions(
    connection: &Connection,
    names: &Names,
    each: Each<'_>,
) -> Result<(), StoreError> {
    rows(
        connection,
        "SELECT fleet, code, name FROM functions ORDER BY fleet, code",
        [],
        |row| {
            let name: String = row.get(2)?;
            each(Row::Function(
                names.fleet(row.get(0)?)?,
                row.get(1)?,
                name.into(),
            ));
            Ok(())
        },
    )
}

pub(super) fn vehicles(
    connection: &Connection,
    names: &mut Names,
    each: Each<'_>,
) -> Result<(), StoreError> {
    let sql = "SELECT number, fleet, id, status, epoch, model, functions, owner, key
               FROM vehicles ORDER BY number";
    rows(connection, sql, [], |row| {
        let id = named(VehicleId::parse(text(row, 2)?))?;
        names.vehicles.insert(row.get(0)?, id.clone());
        let owner: Option<String> = row.get(7)?;
        each(Row::Vehicle(Vehicle {
            fleet: names.fleet(row.get(1)?)?,
            id,
            model: row.get(5)?,
            functions: encoding::registry::read_vehicle_functions(blob(row, 6)?)?,
            owner: owner
                .map(|owner| named(IdentityId::parse(&owner)))
                .transpose()?,
            key: row
                .get::<_, Option<Vec<u8>>>(8)?
                .map(|key| public_key(&key))
                .transpose()?,
            epoch: row.get(4)?,
            status: words::read_status(row.get(3)?)?,
        }));
        Ok(())
    })
}

pub(super) fn identities(
    connection: &Connection,
    names: &mut Names,
    each: Each<'_>,
) -> Result<(), StoreError> {
    rows(
        connection,
        "SELECT fleet, id, status, licences, hold, proved FROM identities ORDER BY number",
        [],
        |row| {
            let licences = encoding::registry::read_licences(blob(row, 3)?)?;
            let id = named(IdentityId::parse(text(row, 1)?))?;
            names.identities.insert(id.clone());
            each(Row::Identity(Identity {
                fleet: names.fleet(row.get(0)?)?,
                id,
                status: words::read_status(row.get(2)?)?,
                hold: row
                    .get::<_, Option<i64>>(4)?
                    .map(words::read_hold)
                    .transpose()?,
                proved: time(row, 5)?,
                licences,
            }));
            Ok(())
        },
    )
}

pub(super) fn terminals(
    connection: &Connection,
    names: &mut Names,
    each: Each<'_>,
) -> Result<(), StoreError> {
    let sql = "SELECT fleet, id, status, identity, key, since, attested_by, attested_at
               FROM terminals ORDER BY fleet, id";
    rows(connection, sql, [], |row| {
        let id = named(TerminalId::parse(text(row, 1)?))?;
        names.terminals.insert(id.clone());
        each(Row::Terminal(Terminal {
            fleet: names.fleet(row.get(0)?)?,
            id,
            identity: named(IdentityId::parse(text(row, 3)?))?,
            key: public_key(blob(row, 4)?)?,
            status: words::read_status(row.get(2)?)?,
            since: number(row.get(5)?)?,
            attested: attested(row)?,
        }));
        Ok(())
    })
}

fn attested(row: &SqlRow<'_>) -> Result<Option<Box<Attested>>, StoreError> {
    let by: Option<String> = row.get(6)?;
    let at: Option<i64> = row.get(7)?;
    match (by, at) {
        (Some(by), Some(at)) => Ok(Some(Box::new(Attested {
            by: named(TerminalId::parse(&by))?,
            at: number(at)?,
        }))),
        (None, None) => Ok(None),
        _ => Err(corrupt("a terminal vouched for by nobody")),
    }
}

pub(super) fn tokens(
    connection: &Connection,
    names: &Names,
    each: Each<'_>,
) -> Result<(), StoreError> {
    let sql = "SELECT id, fleet, hash, scopes, created_at, expires_at, revoked_at, used_at
               FROM tokens ORDER BY id";
    rows(connection, sql, [], |row| {
        each(Row::Token(Token {
            id: TokenId(row.get(0)?),
            fleet: names.fleet(row.get(1)?)?,
            hash: row.get(2)?,
            scopes: Scopes::from_bits(row.get(3)?),
            created_at: number(row.get(4)?)?,
            expires_at: time(row, 5)?,
            revoked_at: time(row, 6)?,
            used_at: time(row, 7)?,
        }));
        Ok(())
    })
}

pub(super) fn epochs(connection: &Connection, each: Each<'_>) -> Result<(), StoreError> {
    let sql = "SELECT id, state, key, cka_id, token_serial, not_before, not_after, created_at,
               activated_at FROM epochs ORDER BY number";
    rows(connection, sql, [], |row| {
        let key = fob_verify::IssuerKey::decode(blob(row, 2)?);
        each(Row::Epoch(Epoch {
            id: EpochId(row.get(0)?),
            key: key.map_err(|_| corrupt("an epoch's public key"))?,
            cka_id: row.get(3)?,
            token_serial: row.get(4)?,
            window: Window {
                not_before: number(row.get(5)?)?,
                not_after: number(row.get(6)?)?,
            },
            state: words::read_epoch_state(row.get(1)?)?,
            created_at: number(row.get(7)?)?,
            activated_at: time(row, 8)?,
        }));
        Ok(())
    })
}

pub(super) fn records(connection: &Connection, each: Each<'_>) -> Result<(), StoreError> {
    let sql = "SELECT number, jws FROM records ORDER BY number";
    rows(connection, sql, [], |row| {
        each(Row::Record(number(row.get(0)?)?, text(row, 1)?.into()));
        Ok(())
    })
}

fn public_key(bytes: &[u8]) -> Result<fob_verify::HolderKey, StoreError> {
    cbor::read_key(bytes).map_err(|_| corrupt("a public key"))
}

fn time(row: &SqlRow<'_>, column: usize) -> Result<Option<UnixTime>, StoreError> {
    row.get::<_, Option<i64>>(column)?.map(number).transpose()
}
