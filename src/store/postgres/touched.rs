//! What a transaction has changed of what books hold, by name: floor 2, `store/postgres`.
//!
//! Names alone are kept, under the transaction's number: whoever follows reads the rows as they
//! are by then (`news`). What no book holds is not noted: bundles, orders, requests, attempts at
//! PINs that leave an authorization as it was are written far more often than anything else.

use std::collections::BTreeSet;

use minicbor::Decoder;
use minicbor::data::Type;

use super::ground::{Ground, KeyPlace, Written};
use crate::domain::{
    AuthorizationId, FleetId, IdentityId, Refusal, TerminalId, TokenId, UnixTime, VehicleId,
};
use crate::store::StoreError;
use crate::store::encoding::cbor::{self, Into, Read, Written as Done};

/// Names of what has changed.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Touched {
    /// Whether settings, epochs with records and trust lists, or the count of amendments did: all
    /// of each is read again.
    pub(super) settings: bool,
    pub(super) steps: bool,
    pub(super) amended: bool,
    /// Fleets, with their counters.
    pub(super) fleets: BTreeSet<FleetId>,
    /// Fleets with functions of their own.
    pub(super) functions: BTreeSet<FleetId>,
    pub(super) vehicles: BTreeSet<(FleetId, VehicleId)>,
    pub(super) identities: BTreeSet<(FleetId, IdentityId)>,
    pub(super) terminals: BTreeSet<(FleetId, TerminalId)>,
    pub(super) tokens: BTreeSet<TokenId>,
    pub(super) authorizations: BTreeSet<AuthorizationId>,
    pub(super) keys: BTreeSet<KeyPlace>,
    pub(super) lists: BTreeSet<(u32, u64)>,
    pub(super) asked: BTreeSet<(u32, u64)>,
    pub(super) contacts: BTreeSet<(FleetId, VehicleId)>,
    /// Fleets that have ruled.
    pub(super) ruled: BTreeSet<FleetId>,
    /// Identities that are gone, with their terminals.
    pub(super) erased: BTreeSet<(FleetId, IdentityId)>,
    /// Before when everything was purged.
    pub(super) purged: Option<UnixTime>,
}

/// Fields of a body. A list without end would be a mistake.
const FIELDS: u64 = 17;

impl Touched {
    /// Adds what was decided on `ground`.
    pub(super) fn add(&mut self, ground: &Ground) {
        let changes = &ground.changes;
        self.settings |= !changes.settings.is_empty();
        self.steps |=
            !(changes.epochs.is_empty() && changes.trust.is_empty() && changes.records.is_empty());
        self.amended |= changes.amended;
        self.fleets.extend(changes.fleets.iter().map(|it| it.id));
        let taken = changes.status_next.keys();
        self.fleets
            .extend(taken.filter(|id| ground.counters.contains_key(id)));
        self.functions
            .extend(changes.functions.iter().map(|(fleet, ..)| *fleet));
        self.vehicles.extend(changes.vehicles.keys().cloned());
        self.vehicles.extend(changes.vehicles_stand.iter().cloned());
        self.identities.extend(changes.identities.keys().cloned());
        self.identities
            .extend(changes.identities_stand.iter().cloned());
        self.erased.extend(changes.erased.keys().cloned());
        let renamed = changes.erased.iter();
        self.identities
            .extend(renamed.map(|((fleet, _), becomes)| (*fleet, becomes.clone())));
        self.terminals.extend(changes.terminals.keys().cloned());
        self.terminals
            .extend(changes.terminals_stand.iter().cloned());
        self.tokens.extend(changes.tokens.iter().map(|it| it.id));
        self.tokens.extend(&changes.tokens_revoked);
        self.tokens.extend(changes.tokens_end.keys());
        self.tokens.extend(changes.tokens_used.keys());
        let written = ground.authorizations.iter();
        let written = written.filter(|(_, row)| !matches!(row.written, Written::No));
        self.authorizations.extend(written.map(|(id, _)| *id));
        self.keys.extend(&changes.marks);
        self.lists.extend(changes.lists.keys());
        self.asked.extend(&changes.asked_lists);
        self.contacts.extend(changes.contacts.keys().cloned());
        self.ruled
            .extend(changes.rules.iter().map(|(fleet, ..)| *fleet));
        self.ruled.extend(changes.followed.keys());
        self.ruled
            .extend(changes.brakes.keys().map(|(fleet, _)| *fleet));
        self.ruled.extend(&changes.days);
    }

    /// Whether there is nothing to tell.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// As it is kept: CBOR, an array of the fields, ids and names as they are.
    pub(super) fn encode(&self) -> Result<Vec<u8>, StoreError> {
        cbor::written(|e| {
            e.array(FIELDS)?;
            e.bool(self.settings)?
                .bool(self.steps)?
                .bool(self.amended)?;
            write_ids(e, self.fleets.iter().map(|id| &id.0))?;
            write_ids(e, self.functions.iter().map(|id| &id.0))?;
            write_names(e, &self.vehicles, VehicleId::as_str)?;
            write_names(e, &self.identities, IdentityId::as_str)?;
            write_names(e, &self.terminals, TerminalId::as_str)?;
            write_ids(e, self.tokens.iter().map(|id| &id.0))?;
            write_ids(e, self.authorizations.iter().map(|id| &id.0))?;
            e.array(3 * self.keys.len() as u64)?;
            for (tag, shard, place) in &self.keys {
                e.u32(*tag)?.u64(*shard)?.u32(*place)?;
            }
            write_lists(e, &self.lists)?;
            write_lists(e, &self.asked)?;
            write_names(e, &self.contacts, VehicleId::as_str)?;
            write_ids(e, self.ruled.iter().map(|id| &id.0))?;
            write_names(e, &self.erased, IdentityId::as_str)?;
            match self.purged {
                Some(before) => e.u64(before)?,
                None => e.null()?,
            };
            Ok(())
        })
    }

    /// Adds what [`Touched::encode`] has written.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        cbor::read("what a transaction has changed", bytes, |d| {
            cbor::array(d, FIELDS)?;
            self.settings |= d.bool()?;
            self.steps |= d.bool()?;
            self.amended |= d.bool()?;
            read_ids(d, |id| self.fleets.insert(FleetId(id)))?;
            read_ids(d, |id| self.functions.insert(FleetId(id)))?;
            read_names(d, &mut self.vehicles, VehicleId::parse)?;
            read_names(d, &mut self.identities, IdentityId::parse)?;
            read_names(d, &mut self.terminals, TerminalId::parse)?;
            read_ids(d, |id| self.tokens.insert(TokenId(id)))?;
            read_ids(d, |id| self.authorizations.insert(AuthorizationId(id)))?;
            for _ in 0..len(d)? / 3 {
                self.keys.insert((d.u32()?, d.u64()?, d.u32()?));
            }
            read_lists(d, &mut self.lists)?;
            read_lists(d, &mut self.asked)?;
            read_names(d, &mut self.contacts, VehicleId::parse)?;
            read_ids(d, |id| self.ruled.insert(FleetId(id)))?;
            read_names(d, &mut self.erased, IdentityId::parse)?;
            if d.datatype()? == Type::Null {
                d.null()
            } else {
                self.purged = self.purged.max(Some(d.u64()?));
                Ok(())
            }
        })
    }
}

/// Ids, one after the other.
fn write_ids<'a>(e: &mut Into<'_>, ids: impl Iterator<Item = &'a [u8; 16]>) -> Done {
    let bytes: Vec<u8> = ids.flatten().copied().collect();
    e.bytes(&bytes)?;
    Ok(())
}

fn read_ids(d: &mut Decoder<'_>, mut take: impl FnMut([u8; 16]) -> bool) -> Read<()> {
    let (ids, _) = d.bytes()?.as_chunks::<16>();
    for id in ids {
        take(*id);
    }
    Ok(())
}

/// Names of fleets' members: the fleet and the name in turn.
fn write_names<T>(
    e: &mut Into<'_>,
    names: &BTreeSet<(FleetId, T)>,
    as_str: fn(&T) -> &str,
) -> Done {
    e.array(2 * names.len() as u64)?;
    for (fleet, name) in names {
        e.bytes(&fleet.0)?.str(as_str(name))?;
    }
    Ok(())
}

fn read_names<T: Ord>(
    d: &mut Decoder<'_>,
    names: &mut BTreeSet<(FleetId, T)>,
    parse: fn(&str) -> Result<T, Refusal>,
) -> Read<()> {
    for _ in 0..len(d)? / 2 {
        let fleet = d.bytes()?.try_into();
        let fleet = fleet.map_err(|_| minicbor::decode::Error::message("no fleet's id"))?;
        let name = parse(d.str()?);
        let name = name.map_err(|_| minicbor::decode::Error::message("no name"))?;
        names.insert((FleetId(fleet), name));
    }
    Ok(())
}

fn write_lists(e: &mut Into<'_>, lists: &BTreeSet<(u32, u64)>) -> Done {
    e.array(2 * lists.len() as u64)?;
    for (tag, shard) in lists {
        e.u32(*tag)?.u64(*shard)?;
    }
    Ok(())
}

fn read_lists(d: &mut Decoder<'_>, lists: &mut BTreeSet<(u32, u64)>) -> Read<()> {
    for _ in 0..len(d)? / 2 {
        lists.insert((d.u32()?, d.u64()?));
    }
    Ok(())
}

fn len(d: &mut Decoder<'_>) -> Read<u64> {
    let len = d.array()?;
    len.ok_or_else(|| minicbor::decode::Error::message("a list without an end"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back_and_adds_up() {
        let fleet = FleetId([1; 16]);
        let mut first = Touched {
            steps: true,
            amended: true,
            purged: Some(7),
            ..Touched::default()
        };
        first.fleets.insert(fleet);
        first.tokens.insert(TokenId([2; 16]));
        first.ruled.insert(fleet);
        first.keys.insert((1, u64::MAX, 3));
        first
            .vehicles
            .insert((fleet, VehicleId::parse("V-1").unwrap()));
        let mut second = Touched::default();
        second.authorizations.insert(AuthorizationId([3; 16]));
        second.lists.insert((1, 2));
        second.asked.insert((1, 3));
        second
            .identities
            .insert((fleet, IdentityId::parse("ben").unwrap()));
        let (one, other) = (first.encode().unwrap(), second.encode().unwrap());
        let mut both = Touched::default();
        both.read(&one).unwrap();
        assert_eq!(both, first);
        both.read(&other).unwrap();
        first.authorizations = second.authorizations;
        first.lists = second.lists;
        first.asked = second.asked;
        first.identities = second.identities;
        assert_eq!(both, first);
        assert!(Touched::default().read(&one[..one.len() - 1]).is_err());
        assert!(!both.is_empty() && Touched::default().is_empty());
    }
}
