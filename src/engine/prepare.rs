//! Stage 3, prepare: key ids, status indexes, claims, and what is to be signed: the bytes of each
//! key, or one tree over all keys of the batch that share a signature.

use std::sync::Arc;

use fob_verify::HolderKey;
use fob_verify::key::{self, PROTECTED_LEN};
use fob_verify::receipt;
use fob_verify::tree::{Hash, Tree, parents};
use rayon::ThreadPool;
use rayon::prelude::*;

use super::admit::Admitted;
use super::batch::Batch;
use super::book::FleetBook;
use super::reserve::Outcome;
use super::stations::Chosen;
use super::{Failure, Shared};
use crate::domain::{
    Authorization, AuthorizationId, Bundle, BundleId, Epoch, IdentityId, KeyRecord, Refusal,
    RefusalCode, Signing, UnixTime, Window,
};

/// Bundles that one thread prepares before it is worth waking another.
const BUNDLES_PER_TASK_MIN: usize = 16;

/// Nodes of a level of a tree that one thread pairs before it is worth waking another; even, so
/// that no pair is cut.
const NODES_PER_TASK: usize = 1024;

/// Bytes of a key's claims, about.
const CLAIMS_LEN: usize = 512;

/// A batch whose keys are spelled out and not yet signed.
pub(super) struct PreparedBatch {
    pub(super) epoch: Arc<Epoch>,
    pub(super) items: Vec<Prepared>,
    /// Over the leaves of all items that are signed so, in their order.
    pub(super) tree: Option<PreparedTree>,
    /// How often it was signed in vain.
    pub(super) failures: u32,
}

impl PreparedBatch {
    /// How many signatures it takes.
    pub(super) fn messages_len(&self) -> usize {
        let each = |item: &Prepared| match &item.unsigned {
            Unsigned::Each(messages) => messages.len(),
            Unsigned::Leaves(_) => 0,
        };
        self.items.iter().map(each).sum::<usize>() + usize::from(self.tree.is_some())
    }

    /// What is to be signed: each key that is signed by itself, then the tree's root.
    pub(super) fn messages(&self) -> impl Iterator<Item = &[u8]> {
        let each = self.items.iter().filter_map(|item| match &item.unsigned {
            Unsigned::Each(messages) => Some(messages.each()),
            Unsigned::Leaves(_) => None,
        });
        let root = self.tree.iter().map(|tree| tree.message.as_slice());
        each.flatten().chain(root)
    }

    /// What it was made of, to be prepared once more: under another token's epoch, it may be.
    pub(super) fn undo(self) -> Batch {
        let item = |item: Prepared| (item.admitted, item.signing);
        Batch::again(self.items.into_iter().map(item).collect(), self.failures)
    }
}

/// A tree, and its root as it is signed.
pub(super) struct PreparedTree {
    pub(super) tree: Tree,
    pub(super) message: Vec<u8>,
}

/// One redemption, order or renewal, spelled out.
pub(super) struct Prepared {
    pub(super) admitted: Admitted,
    pub(super) signing: Signing,
    pub(super) bundle: Bundle,
    pub(super) status_next: u64,
    pub(super) unsigned: Unsigned,
}

/// What of a bundle is to be signed.
pub(super) enum Unsigned {
    /// The messages of its keys.
    Each(Messages),
    /// So many leaves of the batch's tree.
    Leaves(u64),
}

/// Messages in one piece.
#[derive(Default)]
pub(super) struct Messages {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Messages {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Each of them.
    pub(super) fn each(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts
            .zip(&self.ends)
            .map(|(from, &to)| &self.bytes[from..to])
    }
}

/// The threads that prepare.
pub(super) struct Preparer {
    pool: ThreadPool,
}

/// What all of a batch have in common.
struct Common<'a> {
    shared: &'a Shared,
    epoch: &'a Epoch,
    issuer: Arc<str>,
    protected: [u8; PROTECTED_LEN],
    unix_ms: u64,
    /// Of the id of the batch's first bundle; the others count on from it.
    unique: u64,
}

impl Preparer {
    pub(super) fn new(threads: usize) -> Result<Self, Failure> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|n| format!("fob-prepare-{n}"))
            .build()
            .map_err(|error| Failure::Fault(format!("no threads to prepare batches: {error}")))?;
        Ok(Self { pool })
    }

    /// Prepares a batch for the station that was chosen, under its epoch and as of the time of the
    /// choice; the batch keeps that epoch until it is committed, whatever becomes active meanwhile.
    /// `None` where nothing is left.
    pub(super) fn prepare(
        &self,
        shared: &Shared,
        chosen: Chosen,
        batch: Batch,
    ) -> Option<PreparedBatch> {
        let failures = batch.failures;
        let Chosen { epoch, unix_ms, .. } = chosen;
        let common = Common {
            shared,
            epoch: &epoch,
            issuer: shared.book.setting("issuer").unwrap_or_default().into(),
            protected: key::protected_header(epoch.key.algorithm(), &epoch.id.0),
            unix_ms,
            unique: shared.ids.bundles(batch.items.len() as u64),
        };
        let (items, leaves) = self.spell_out(&common, batch);
        let tree = (!leaves.is_empty()).then(|| self.grow(&epoch, leaves));
        (!items.is_empty()).then_some(PreparedBatch {
            epoch,
            items,
            tree,
            failures,
        })
    }

    /// Spells out every item. The leaves of those that share a signature come beside them, in
    /// their order.
    fn spell_out(&self, common: &Common<'_>, batch: Batch) -> (Vec<Prepared>, Vec<Hash>) {
        let sole = batch.sole_leaf();
        let one = |(at, (admitted, signing)): (usize, (Admitted, Signing))| {
            // A tree of one leaf is no tree: that key is signed itself.
            let signing = if sole { Signing::Each } else { signing };
            common.prepare(admitted, signing, at as u64)
        };
        let items = batch.items;
        let prepared: Vec<_> = if items.len() <= BUNDLES_PER_TASK_MIN {
            items.into_iter().enumerate().filter_map(one).collect()
        } else {
            self.pool.install(|| {
                items
                    .into_par_iter()
                    .enumerate()
                    .with_min_len(BUNDLES_PER_TASK_MIN)
                    .filter_map(one)
                    .collect()
            })
        };
        let count = prepared.iter().map(|(_, leaves)| leaves.len()).sum();
        let mut all = Vec::with_capacity(count);
        let mut items = Vec::with_capacity(prepared.len());
        for (item, leaves) in prepared {
            all.extend_from_slice(&leaves);
            items.push(item);
        }
        (items, all)
    }

    fn grow(&self, epoch: &Epoch, leaves: Vec<Hash>) -> PreparedTree {
        let tree = Tree::with(leaves, |level| self.pair(level));
        let protected = receipt::protected_header(epoch.key.algorithm(), &epoch.id.0);
        let message = receipt::to_be_signed(&protected, tree.root());
        PreparedTree { tree, message }
    }

    /// The level above `level`.
    fn pair(&self, level: &[Hash]) -> Vec<Hash> {
        let mut above = Vec::new();
        if level.len() <= NODES_PER_TASK {
            parents(level, &mut above);
            return above;
        }
        let parts: Vec<Vec<Hash>> = self.pool.install(|| {
            level
                .par_chunks(NODES_PER_TASK)
                .map(|part| {
                    let mut above = Vec::new();
                    parents(part, &mut above);
                    above
                })
                .collect()
        });
        above.reserve(level.len().div_ceil(2));
        for part in parts {
            above.extend_from_slice(&part);
        }
        above
    }
}

/// What of a bundle its authorization does not say.
pub(super) struct Issue<'a> {
    pub(super) id: BundleId,
    /// What it is issued on: an order's authorization has no id of its own yet.
    pub(super) authorization: AuthorizationId,
    pub(super) vehicle_epoch: u32,
    pub(super) identity: &'a IdentityId,
    pub(super) holder: HolderKey,
    /// When its keys may be used.
    pub(super) window: Window,
    pub(super) epoch: &'a Epoch,
    pub(super) issuer: &'a Arc<str>,
    pub(super) issued_at: UnixTime,
}

impl Issue<'_> {
    /// Everything the keys will say, and the fleet's counter of status indexes after them
    /// ([`Shared::count_out`]).
    ///
    /// # Errors
    /// No indexes are to be had.
    pub(super) fn decide(
        self,
        shared: &Shared,
        fleet: &FleetBook,
        authorization: &Authorization,
    ) -> Result<(Bundle, u64), Refusal> {
        let status_url = &shared.settings.status_url;
        let count = authorization.functions.len() as u64;
        let (first, status_next) = shared.count_out(fleet, count)?;
        let indexes = fleet.status_indexes(status_url, first, count);
        let keys = authorization.functions.iter().zip(indexes);
        let bundle = Bundle {
            id: self.id,
            authorization: self.authorization,
            version: authorization.version,
            fleet: authorization.fleet,
            vehicle: authorization.vehicle.clone(),
            vehicle_epoch: self.vehicle_epoch,
            identity: self.identity.clone(),
            holder: self.holder,
            epoch: self.epoch.id,
            algorithm: self.epoch.key.algorithm(),
            issuer: Arc::clone(self.issuer),
            issued_at: self.issued_at,
            window: self.window,
            region: authorization.region().copied().map(Box::new),
            recurring: authorization.recurring().copied().map(Box::new),
            subjects: fleet.subjects(status_url, &authorization.functions, first),
            keys: keys
                .map(|(function, status_index)| KeyRecord {
                    max_uses: authorization.max_uses(*function),
                    status_index,
                })
                .collect(),
        };
        Ok((bundle, status_next))
    }
}

impl Common<'_> {
    /// Decides everything about one item and encodes its keys. Claims that the format cannot hold
    /// were let in by mistake; they cost their own request and no other.
    fn prepare(
        &self,
        admitted: Admitted,
        signing: Signing,
        at: u64,
    ) -> Option<(Prepared, Vec<Hash>)> {
        let decided = match &admitted.renews {
            Some(stands) => Ok((self.renew(stands), 0)),
            None => self.decide(&admitted, at),
        };
        let (bundle, status_next) = match decided {
            Ok(decided) => decided,
            Err(refusal) => {
                admitted.ticket.resolve(Outcome::Refused(refusal));
                return None;
            }
        };
        let encoded = match signing {
            Signing::Tree => self.leaves(&bundle).map(|leaves| {
                let count = leaves.len() as u64;
                (Unsigned::Leaves(count), leaves)
            }),
            Signing::Each | Signing::Auto => self
                .messages(&bundle)
                .map(|messages| (Unsigned::Each(messages), Vec::new())),
        };
        match encoded {
            Ok((unsigned, leaves)) => {
                let prepared = Prepared {
                    admitted,
                    signing,
                    bundle,
                    status_next,
                    unsigned,
                };
                Some((prepared, leaves))
            }
            Err(why) => {
                tracing::error!(bundle = %bundle.id, %why, "keys that cannot be encoded");
                let refusal = Refusal::new(RefusalCode::Malformed);
                let refusal = refusal.detail("its keys cannot be encoded");
                admitted.ticket.resolve(Outcome::Refused(refusal));
                None
            }
        }
    }

    fn decide(&self, admitted: &Admitted, at: u64) -> Result<(Bundle, u64), Refusal> {
        let id = BundleId::new(self.unix_ms, self.unique.wrapping_add(at));
        let issue = Issue {
            id,
            authorization: match admitted.order {
                Some(_) => AuthorizationId(id.0),
                None => admitted.authorization.id,
            },
            vehicle_epoch: admitted.vehicle.epoch,
            identity: &admitted.identity,
            holder: admitted.holder,
            window: admitted.window,
            epoch: self.epoch,
            issuer: &self.issuer,
            issued_at: self.unix_ms / 1000,
        };
        issue.decide(self.shared, &admitted.fleet, &admitted.authorization)
    }

    /// The bundle as it stands, to be signed by this epoch.
    fn renew(&self, stands: &Bundle) -> Bundle {
        Bundle {
            epoch: self.epoch.id,
            algorithm: self.epoch.key.algorithm(),
            issued_at: self.unix_ms / 1000,
            ..stands.clone()
        }
    }

    fn messages(&self, bundle: &Bundle) -> Result<Messages, fob_verify::Refusal> {
        let mut messages = Messages {
            bytes: Vec::with_capacity(CLAIMS_LEN * bundle.keys.len()),
            ends: Vec::with_capacity(bundle.keys.len()),
        };
        for (subject, key) in bundle.each_key() {
            let claims = bundle.claims(subject, key);
            key::to_be_signed(&mut messages.bytes, &self.protected, &claims)?;
            messages.ends.push(messages.bytes.len());
        }
        Ok(messages)
    }

    fn leaves(&self, bundle: &Bundle) -> Result<Vec<Hash>, fob_verify::Refusal> {
        let mut claims = Vec::with_capacity(CLAIMS_LEN);
        let leaf = |(subject, key)| {
            claims.clear();
            key::encode_claims(&mut claims, &bundle.claims(subject, key))?;
            Ok(key::leaf(&self.protected, &claims))
        };
        bundle.each_key().map(leaf).collect()
    }
}
