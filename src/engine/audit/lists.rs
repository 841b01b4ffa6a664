//! Status lists as they were given out last: signed, by whom, and whether they say what they have
//! to.

use std::collections::HashMap;

use fob_verify::status::{self, Bits, LIST_LEN_MAX, Room};
use fob_verify::trust::TrustList;
use fob_verify::{RustCrypto, Verified};

use super::issuer::Issuer;
use super::{Flaw, Report};
use crate::domain::{EpochState, KeyStatus, ShardId};
use crate::store::whole::Whole;
use crate::store::{SignedList, StoreError};

/// What the lists say.
#[derive(Default)]
pub(super) struct Lists(HashMap<ShardId, Said>);

/// What one of them says.
struct Said {
    /// It says what every amendment up to this one has marked.
    revision: u64,
    octets: Vec<u8>,
}

impl Lists {
    /// Looks at every list that was given out.
    pub(super) fn read(
        store: &dyn Whole,
        issuer: &Issuer,
        trusted: Option<&Verified<TrustList<'_>>>,
        report: &mut Report,
    ) -> Result<Self, StoreError> {
        let mut lists = Self::default();
        store.lists_given_out(&mut |list| {
            report.lists += 1;
            match check(&list, issuer, trusted) {
                Ok(Some(octets)) => {
                    let revision = list.revision;
                    lists.0.insert(list.listed.shard, Said { revision, octets });
                }
                Ok(None) => {}
                Err(why) => {
                    let of = format!("status list {}", list.listed.shard);
                    report.find(Flaw::ListWrong, of, why);
                }
            }
            Ok(())
        })?;
        Ok(lists)
    }

    /// Why what a list says of a key cannot be, if so. The key stands as `now`; by `ended`, where it
    /// is given, an amendment has revoked it.
    pub(super) fn misstates(
        &self,
        list: ShardId,
        index: u32,
        now: KeyStatus,
        newest_revision: u64,
        ended: Option<u64>,
    ) -> Option<String> {
        let said = self.0.get(&list)?;
        let revision = said.revision;
        let status = match Bits::Two.value(&said.octets, index) {
            Some(0) => KeyStatus::Valid,
            Some(1) => KeyStatus::Revoked,
            Some(2) => KeyStatus::Suspended,
            _ => return Some(format!("list {list} has no status for it")),
        };
        // What is revoked stays so; and a list says all that came before it.
        let taken_back = status == KeyStatus::Revoked && now != KeyStatus::Revoked;
        let behind = revision >= newest_revision && status != now;
        let missing = ended.is_some_and(|ended| ended <= revision) && status != KeyStatus::Revoked;
        let (says, is) = (status.name(), now.name());
        (taken_back || behind || missing)
            .then(|| format!("list {list} of amendment {revision} says {says}, and it is {is}"))
    }
}

/// The entries of a list, four to an octet; `None` where who signed it is believed no more, so that
/// it waits to be signed anew.
fn check(
    list: &SignedList,
    issuer: &Issuer,
    trusted: Option<&Verified<TrustList<'_>>>,
) -> Result<Option<Vec<u8>>, String> {
    let epoch = issuer.epochs.get(&list.epoch);
    let epoch = epoch.ok_or_else(|| format!("there is no epoch {}", list.epoch))?;
    let Some(trusted) = trusted.filter(|_| epoch.state != EpochState::Revoked) else {
        return Ok(None);
    };
    let read = status::verify(&list.bytes, trusted, &RustCrypto);
    let read = read.map_err(|why| format!("no car takes it: {why}"))?;
    let listed = &list.listed;
    if ShardId::at(read.uri()) != Some(listed.shard) {
        return Err(format!("it says that it is {}", read.uri()));
    }
    if read.issued_at() != listed.issued_at || read.expires() > listed.expires {
        let (from, to) = (read.issued_at(), read.expires());
        return Err(format!(
            "it is of {from}, to {to}; recorded are {}, to {}",
            listed.issued_at, listed.expires
        ));
    }
    let mut room = Room::<LIST_LEN_MAX>::new();
    let octets = room.inflate(read.compressed());
    let octets = octets.map_err(|why| format!("no car can read it: {why}"))?;
    if octets.len() != LIST_LEN_MAX {
        return Err(format!("it has {} entries", 4 * octets.len()));
    }
    Ok(Some(octets.to_vec()))
}
