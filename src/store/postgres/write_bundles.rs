//! New bundles, written while others of their transaction are still decided: floor 2,
//! `store/postgres`.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::bundle_body;
use super::contexts::Contexts;
use super::ground::NewBundle;
use super::session::{Ask, Rows, Value, values};
use super::write::{each, uuid};
use crate::domain::{Bundle, EpochId, FleetId, TokenId};
use crate::store::StoreError;
use crate::store::encoding::column;

/// Bundles of one statement: the database begins with the first while the next are decided.
pub(super) const SENT_AT_ONCE: usize = 256;

/// What bundles of one statement have in common. It is sent once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Common {
    fleet: FleetId,
    epoch: EpochId,
    version: u32,
    author: Option<TokenId>,
    issuer: Uuid,
    subjects: Uuid,
}

/// Bundles that are alike.
struct Alike {
    common: Common,
    rows: Vec<NewBundle>,
    /// When they are over.
    ends: Vec<i64>,
}

/// The statements that write them, the contexts they hang from before.
pub(super) fn bundles(
    rows: Vec<NewBundle>,
    contexts: &mut Contexts,
) -> Result<Vec<Ask<'static>>, StoreError> {
    let mut alike: BTreeMap<Common, Vec<NewBundle>> = BTreeMap::new();
    for row in rows {
        let bundle = of(&row);
        let common = Common {
            fleet: bundle.fleet,
            epoch: bundle.epoch,
            version: bundle.version,
            author: row.author,
            issuer: uuid(&contexts.issuer(&bundle.issuer)?),
            subjects: uuid(&contexts.subjects(&bundle.subjects)?),
        };
        alike.entry(common).or_default().push(row);
    }
    let mut asks = Vec::with_capacity(alike.len() + 1);
    let (ids, bodies): (Vec<_>, Vec<_>) = contexts.take_new().into_iter().unzip();
    if !ids.is_empty() {
        asks.push(Ask::Query(
            "INSERT INTO contexts (id, body) SELECT * FROM unnest($1::uuid[], $2::bytea[])
             ON CONFLICT DO NOTHING",
            values![ids.iter().map(uuid).collect::<Vec<_>>(), bodies],
        ));
    }
    for (common, rows) in alike {
        let mut rows = rows.into_iter().peekable();
        while rows.peek().is_some() {
            let rows: Vec<_> = rows.by_ref().take(SENT_AT_ONCE).collect();
            let end = |row: &NewBundle| column(of(row).window.not_after);
            let ends = rows.iter().map(end).collect::<Result<_, _>>()?;
            let rows = Alike { common, rows, ends };
            // Arrays are taken apart beside each other, in the list of columns: as a table, the
            // database would write each of them down first.
            asks.push(Ask::Rows(
                "INSERT INTO bundles (id, version, fleet, authorization_id, vehicle, identity,
                 epoch, author, terminal, issuer, subjects, ends, format, body)
                 SELECT unnest($8::uuid[]), $1, $2, unnest($9::uuid[]), unnest($10::text[]),
                 unnest($11::text[]), $3, $4, unnest($12::text[]), $5, $6, unnest($13::bigint[]),
                 $7, unnest($14::bytea[])",
                Box::new(rows),
            ));
        }
    }
    Ok(asks)
}

fn of(row: &NewBundle) -> &Bundle {
    &row.signed.bundle().bundle
}

impl Rows for Alike {
    fn columns(&self) -> Vec<Value<'_>> {
        let (all, rows) = (&self.common, || self.rows.iter());
        vec![
            Box::new(i64::from(all.version)),
            Box::new(uuid(&all.fleet.0)),
            Box::new(&all.epoch.0[..]),
            Box::new(all.author.map(|id| uuid(&id.0))),
            Box::new(all.issuer),
            Box::new(all.subjects),
            Box::new(bundle_body::FORMAT),
            each(rows(), |it| uuid(&of(it).id.0)),
            each(rows(), |it| uuid(&of(it).authorization.0)),
            each(rows(), |it| of(it).vehicle.as_str()),
            each(rows(), |it| of(it).identity.as_str()),
            each(rows(), |it| it.terminal.as_ref().map(|id| id.as_str())),
            Box::new(&self.ends),
            each(rows(), |it| bundle_body::Unwritten(it.signed.bundle())),
        ]
    }
}
