//! Everything the book is made of, row by row: floor 2, `store/postgres`.

use std::collections::HashSet;
use std::hash::Hash;
use std::pin::pin;
use std::sync::Arc;

use futures_util::StreamExt as _;
use tokio_postgres::Row as SqlRow;

use super::error::Trouble;
use super::news::{Heard, heard};
use super::read::{ALL_AUTHORIZATIONS, authorization};
use super::rows::{bytes, get, id, name, named, number, small, text, time};
use super::rulings;
use super::session::Session;
use crate::domain::{
    Attested, Author, Authorization, Epoch, EpochId, Fleet, FleetId, FleetName, FleetSettings,
    Identity, IdentityId, KeyChange, Mark, Reason, Reasons, Restore, Scopes, ShardId, Terminal,
    TerminalId, Token, TokenId, Vehicle, VehicleId, Window,
};
use crate::store::encoding::{cbor, corrupt, registry, words};
use crate::store::{Contact, Listed, Row, Sent, SignedList, StoreError};

/// Names that later rows repeat: there may be millions of them, held for long.
#[derive(Default)]
pub(super) struct Names {
    vehicles: HashSet<VehicleId>,
    identities: HashSet<IdentityId>,
    terminals: HashSet<TerminalId>,
}

/// Makes a row of the book of one of the database's.
pub(super) type Read = fn(&SqlRow, &mut Names) -> Result<Row, StoreError>;

/// Something that is read, and what becomes of its rows.
type Table = (&'static str, Read);

/// The columns [`fleet`] reads, in its order.
macro_rules! fleets {
    ($which:literal) => {
        concat!(
            "SELECT f.id, f.name, f.status, f.tag, f.status_key, c.next, f.open_redemption,
             f.signing FROM fleets f JOIN status_counters c ON c.fleet = f.id ",
            $which,
            " ORDER BY f.id"
        )
    };
}
pub(super) use fleets;

/// The columns [`listed`] and [`signed_list`] read, in their order.
macro_rules! lists {
    ($which:literal) => {
        concat!(
            "SELECT l.tag, l.shard, l.issued_at, l.expires, l.revision, l.epoch, l.body, l.content
             FROM status_lists l ",
            $which
        )
    };
}
pub(super) use lists;

pub(super) const SETTINGS: Table = (
    "SELECT name, value FROM settings ORDER BY name",
    |row, _| Ok(Row::Setting(text(row, 0)?.into(), text(row, 1)?.into())),
);

pub(super) const EPOCHS: Table = (
    "SELECT id, state, key, cka_id, token_serial, not_before, not_after, created_at,
     activated_at FROM epochs ORDER BY place",
    epoch,
);

pub(super) const TRUST: Table = (
    "SELECT version, body FROM trust_lists ORDER BY version DESC LIMIT 1",
    |row, _| Ok(Row::TrustList(small(row, 0)?, get::<&[u8]>(row, 1)?.into())),
);

pub(super) const RECORDS: Table = (
    "SELECT number, jws FROM records ORDER BY number",
    |row, _| Ok(Row::Record(number(row, 0)?, text(row, 1)?.into())),
);

pub(super) const REVISION: Table = (
    "SELECT value FROM counters WHERE name = 'amendments' AND value > 0",
    |row, _| Ok(Row::Revision(number(row, 0)?)),
);

pub(super) const FUNCTIONS: &str = "SELECT fleet, code, name FROM functions ORDER BY fleet, code";

pub(super) const RESTORES: &str = "SELECT number, at, trust_next FROM restores ORDER BY number";

pub(super) const TOKENS: &str = "SELECT id, fleet, hash, scopes, created_at, expires_at, revoked_at, used_at FROM tokens ORDER BY id";

/// What is read, in the order it is handed on.
const TABLES: [Table; 17] = [
    SETTINGS,
    (fleets!(""), fleet),
    (FUNCTIONS, function),
    (
        "SELECT fleet, id, status, epoch, model, functions, owner, key FROM vehicles",
        vehicle,
    ),
    (
        "SELECT fleet, id, status, licences, hold, proved FROM identities",
        identity,
    ),
    (
        "SELECT fleet, id, status, identity, key, since, attested_by, attested_at FROM terminals",
        terminal,
    ),
    (TOKENS, token),
    EPOCHS,
    TRUST,
    RECORDS,
    (ALL_AUTHORIZATIONS, |row, names| {
        let mut authorization = authorization(row)?;
        names.share(&mut authorization);
        Ok(Row::Authorization(authorization))
    }),
    (
        // One for each reason.
        "SELECT s.tag, s.shard, s.place, s.status, s.ends, k.reason FROM statuses s
         LEFT JOIN (VALUES (1), (2), (4), (8), (16)) k (reason)
         ON s.status = 2 AND s.reasons & k.reason <> 0
         ORDER BY s.tag, s.shard, s.place, k.reason",
        status,
    ),
    (lists!(""), listed),
    (lists!("WHERE l.body IS NOT NULL"), |row, _| {
        signed_list(row)?.ok_or_else(|| corrupt("a status list without its time"))
    }),
    (
        "SELECT fleet, vehicle, heard_at, sent, sent_revision, sent_at, acked, acked_revision,
         acked_at FROM contacts",
        contact,
    ),
    REVISION,
    (RESTORES, restore),
];

/// Hands every row to `each`, all of them as of one commit. Says what of others is among them.
pub(super) async fn load(session: &Session, each: &mut dyn FnMut(Row)) -> Result<Heard, Trouble> {
    session
        .execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        .await?;
    let heard = heard(session).await?;
    let loaded = tables(session, each).await;
    let ended = session.execute("COMMIT").await;
    loaded.and(ended).map(|()| heard)
}

async fn tables(session: &Session, each: &mut dyn FnMut(Row)) -> Result<(), Trouble> {
    let mut names = Names::default();
    for (sql, read) in TABLES.into_iter().chain(rulings::TABLES) {
        let mut rows = pin!(session.stream(sql).await?);
        while let Some(row) = rows.next().await {
            let row = row.map_err(|error| Trouble::of(&error))?;
            each(read(&row, &mut names)?);
        }
    }
    Ok(())
}

impl Names {
    /// Puts the registry's copies of names in place of the authorization's own.
    fn share(&self, authorization: &mut Authorization) {
        share(&self.vehicles, &mut authorization.vehicle);
        if let Author::Terminal(id) = &mut authorization.author {
            share(&self.terminals, id);
        }
        if let Some(restrictions) = &mut authorization.restrictions {
            let recipient = &mut restrictions.recipient;
            recipient
                .identity
                .iter_mut()
                .for_each(|id| share(&self.identities, id));
            recipient
                .terminal
                .iter_mut()
                .for_each(|id| share(&self.terminals, id));
        }
    }
}

fn share<T: Clone + Eq + Hash>(known: &HashSet<T>, name: &mut T) {
    if let Some(known) = known.get(name) {
        name.clone_from(known);
    }
}

fn public_key(bytes: &[u8]) -> Result<fob_verify::HolderKey, StoreError> {
    cbor::read_key(bytes).map_err(|_| corrupt("a public key"))
}

pub(super) fn fleet(row: &SqlRow, _: &mut Names) -> Result<Row, StoreError> {
    let signing: Option<i64> = get(row, 7)?;
    let signing = signing.map(|it| words::read_signing(u8::try_from(it).unwrap_or(u8::MAX)));
    Ok(Row::Fleet(Fleet {
        id: FleetId(id(row, 0)?),
        name: name(row, 1, FleetName::parse)?,
        status: words::read_status(get(row, 2)?)?,
        tag: small(row, 3)?,
        status_key: bytes(row, 4)?,
        status_next: number(row, 5)?,
        settings: FleetSettings {
            open_redemption: get(row, 6)?,
            signing: signing.transpose()?,
        },
    }))
}

pub(super) fn function(row: &SqlRow, _: &mut Names) -> Result<Row, StoreError> {
    let fleet = FleetId(id(row, 0)?);
    Ok(Row::Function(fleet, small(row, 1)?, text(row, 2)?.into()))
}

pub(super) fn listed(row: &SqlRow, _: &mut Names) -> Result<Row, StoreError> {
    Ok(Row::Listed(Listed {
        shard: shard(row)?,
        issued_at: number(row, 2)?,
        expires: number(row, 3)?,
    }))
}

/// What was given out of a list, where something was.
pub(super) fn signed_list(row: &SqlRow) -> Result<Option<Row>, StoreError> {
    let Some(body) = get::<Option<&[u8]>>(row, 6)? else {
        return Ok(None);
    };
    let list = SignedList {
        listed: Listed {
            shard: shard(row)?,
            issued_at: number(row, 2)?,
            expires: number(row, 3)?,
        },
        epoch: EpochId(bytes(row, 5)?),
        revision: number(row, 4)?,
        content: bytes(row, 7)?,
        bytes: body.into(),
    };
    Ok(Some(Row::List(Arc::new(list))))
}

pub(super) fn vehicle(row: &SqlRow, names: &mut Names) -> Result<Row, StoreError> {
    let id_of = name(row, 1, VehicleId::parse)?;
    names.vehicles.insert(id_of.clone());
    let owner: Option<&str> = get(row, 6)?;
    Ok(Row::Vehicle(Vehicle {
        fleet: FleetId(id(row, 0)?),
        id: id_of,
        model: text(row, 4)?.into(),
        functions: registry::read_vehicle_functions(get(row, 5)?)?,
        owner: owner.map(|it| named(IdentityId::parse(it))).transpose()?,
        key: get::<Option<&[u8]>>(row, 7)?.map(public_key).transpose()?,
        epoch: small(row, 3)?,
        status: words::read_status(get(row, 2)?)?,
    }))
}

pub(super) fn identity(row: &SqlRow, names: &mut Names) -> Result<Row, StoreError> {
    let id_of = name(row, 1, IdentityId::parse)?;
    names.identities.insert(id_of.clone());
    Ok(Row::Identity(Identity {
        fleet: FleetId(id(row, 0)?),
        id: id_of,
        status: words::read_status(get(row, 2)?)?,
        hold: get::<Option<i64>>(row, 4)?
            .map(words::read_hold)
            .transpose()?,
        proved: time(row, 5)?,
        licences: registry::read_licences(get(row, 3)?)?,
    }))
}

pub(super) fn terminal(row: &SqlRow, names: &mut Names) -> Result<Row, StoreError> {
    let id_of = name(row, 1, TerminalId::parse)?;
    names.terminals.insert(id_of.clone());
    Ok(Row::Terminal(Terminal {
        fleet: FleetId(id(row, 0)?),
        id: id_of,
        identity: name(row, 3, IdentityId::parse)?,
        key: public_key(get(row, 4)?)?,
        status: words::read_status(get(row, 2)?)?,
        since: number(row, 5)?,
        attested: match (get::<Option<&str>>(row, 6)?, time(row, 7)?) {
            (Some(by), Some(at)) => Some(Box::new(Attested {
                by: named(TerminalId::parse(by))?,
                at,
            })),
            (None, None) => None,
            _ => return Err(corrupt("a terminal vouched for by nobody")),
        },
    }))
}

pub(super) fn token(row: &SqlRow, _: &mut Names) -> Result<Row, StoreError> {
    Ok(Row::Token(Token {
        id: TokenId(id(row, 0)?),
        fleet: FleetId(id(row, 1)?),
        hash: bytes(row, 2)?,
        scopes: Scopes::from_bits(small(row, 3)?),
        created_at: number(row, 4)?,
        expires_at: time(row, 5)?,
        revoked_at: time(row, 6)?,
        used_at: time(row, 7)?,
    }))
}

pub(super) fn epoch(row: &SqlRow, _: &mut Names) -> Result<Row, StoreError> {
    let key = fob_verify::IssuerKey::decode(get(row, 2)?);
    Ok(Row::Epoch(Epoch {
        id: EpochId(bytes(row, 0)?),
        key: key.map_err(|_| corrupt("an epoch's public key"))?,
        cka_id: bytes(row, 3)?,
        token_serial: text(row, 4)?.into(),
        window: Window {
            not_before: number(row, 5)?,
            not_after: number(row, 6)?,
        },
        state: words::read_epoch_state(get(row, 1)?)?,
        created_at: number(row, 7)?,
        activated_at: time(row, 8)?,
    }))
}

pub(super) fn restore(row: &SqlRow, _: &mut Names) -> Result<Row, StoreError> {
    Ok(Row::Restore(Restore {
        number: small(row, 0)?,
        at: number(row, 1)?,
        trust_next: small(row, 2)?,
    }))
}

pub(super) fn shard(row: &SqlRow) -> Result<ShardId, StoreError> {
    Ok(ShardId {
        tag: small(row, 0)?,
        number: number(row, 1)?,
    })
}

fn status(row: &SqlRow, _: &mut Names) -> Result<Row, StoreError> {
    Ok(Row::Status(Mark {
        shard: shard(row)?,
        index: small(row, 2)?,
        change: match (get::<i64>(row, 3)?, get::<Option<i32>>(row, 5)?) {
            (words::KEY_REVOKED, None) => KeyChange::Revoke,
            (words::KEY_SUSPENDED, Some(bit)) => KeyChange::Suspend(reason(bit)?),
            _ => return Err(corrupt("an unknown status of a key")),
        },
        ends: number(row, 4)?,
    }))
}

fn reason(bit: i32) -> Result<Reason, StoreError> {
    let reasons = u8::try_from(bit).ok().and_then(Reasons::from_bits);
    let reason = reasons.and_then(|reasons| reasons.each().next());
    reason.ok_or_else(|| corrupt("an unknown reason"))
}

pub(super) fn contact(row: &SqlRow, _: &mut Names) -> Result<Row, StoreError> {
    let acked = match get::<Option<&[u8]>>(row, 6)? {
        None => None,
        Some(_) => Some(Sent {
            digest: bytes(row, 6)?,
            revision: number(row, 7)?,
            at: number(row, 8)?,
        }),
    };
    let contact = Contact {
        heard_at: number(row, 2)?,
        sent: Sent {
            digest: bytes(row, 3)?,
            revision: number(row, 4)?,
            at: number(row, 5)?,
        },
        acked,
    };
    let vehicle = name(row, 1, VehicleId::parse)?;
    Ok(Row::Contact(FleetId(id(row, 0)?), vehicle, contact))
}
