//! Lists as they are given out: which is the newest, and whether it will do. Floor 3.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};

use crate::concurrent::Map;
use crate::domain::{EpochId, EpochState, ShardId, UnixTime};
use crate::engine::Shared;
use crate::store::SignedList;

/// A signed status list.
pub struct StatusList {
    /// Its token, as cars get it.
    pub bytes: Arc<[u8]>,
    /// Its `iat`.
    pub issued_at: UnixTime,
    /// How often the list here had changed when it was the same as this; `None` where it never was,
    /// as far as is known.
    pub(super) changes: Option<u64>,
    pub(super) epoch: EpochId,
    /// It says what every amendment up to this one has marked.
    pub(super) revision: u64,
    /// SHA-256 of its entries, where other nodes give it out too.
    pub(super) content: [u8; 32],
}

pub(super) type Published = Map<ShardId, Arc<StatusList>>;

/// A list as it was signed last, here or by another node.
pub(super) fn newest(
    shared: &Shared,
    published: &Published,
    id: ShardId,
) -> Option<Arc<StatusList>> {
    let known = published.pin().get(&id).cloned();
    if shared.nodes.is_none() {
        return known;
    }
    let shard = shared.book.statuses.shard(id);
    // Before the copy: what changes meanwhile is looked at again.
    let changes = shard.changes();
    let is_known = |signed: &SignedList| {
        let known = known.as_ref();
        known.is_some_and(|known| known.issued_at >= signed.listed.issued_at)
    };
    let list = match (shared.book.statuses.signed(id), &known) {
        (Some(signed), _) if !is_known(&signed) => StatusList {
            bytes: Arc::clone(&signed.bytes),
            issued_at: signed.listed.issued_at,
            changes: None,
            epoch: signed.epoch,
            revision: signed.revision,
            content: signed.content,
        },
        (_, Some(known)) if known.changes != Some(changes) => StatusList {
            bytes: Arc::clone(&known.bytes),
            ..**known
        },
        _ => return known,
    };
    let same = list.content == sha256(&shared.book.statuses.octets(id, &shard));
    let list = Arc::new(StatusList {
        changes: same.then_some(changes),
        ..list
    });
    published.pin().insert(id, Arc::clone(&list));
    Some(list)
}

/// Whether a list has to be signed: it was not, has changed since, is not fresh for much longer, or
/// was signed by an epoch that is over.
pub(super) fn due(shared: &Shared, published: &Published, id: ShardId) -> bool {
    let list = newest(shared, published, id);
    list.is_none_or(|list| !says_all(shared, &list, id) || is_old(shared, &list))
}

/// The same, but that a list another node has signed may say no more than is asked.
pub(super) fn behind(shared: &Shared, published: &Published, id: ShardId, revision: u64) -> bool {
    let enough = |list: &StatusList| {
        let from_all = shared.nodes.is_some() && list.revision >= revision;
        from_all || says_all(shared, list, id)
    };
    let list = newest(shared, published, id);
    list.is_none_or(|list| !enough(&list) || is_old(shared, &list))
}

/// Whether it says what is known here.
fn says_all(shared: &Shared, list: &StatusList, id: ShardId) -> bool {
    list.changes == Some(shared.book.statuses.shard(id).changes())
}

pub(super) fn is_old(shared: &Shared, list: &StatusList) -> bool {
    let epochs = shared.book.epochs();
    let mut active = epochs
        .iter()
        .filter(|epoch| epoch.state == EpochState::Active)
        .peekable();
    let over = active.peek().is_some() && active.all(|epoch| epoch.id != list.epoch);
    list.issued_at + u64::from(shared.settings.list_ttl_s / 2) <= shared.clock.unix() || over
}

pub(super) fn sha256(octets: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, octets).as_ref());
    hash
}
