//! Status lists, signed: floor 3. One thread signs them, on a schedule and whenever somebody waits
//! for one that says what has just become durable.
//!
//! What a list says comes from [`super::statuses`]; only lists that have changed, or are about to
//! be no longer fresh, are signed. All that wait are signed in one call into the HSM, beside the
//! batches and not among them. When a list was signed is durable before it is given out: the next
//! is later, whatever the clock says.
//!
//! Of several nodes one signs, under a lease, and all give out what is in the store. The others ask
//! it by a write, and wait until the list there says what they want it to. How far a list goes is
//! told by the count of amendments: they are committed in its order.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use super::commit::WriteJob;
use super::nodes::{NotHeld, under};
use super::{Engine, Shared, hsm_unavailable, shutting_down, sign, store_unavailable};
use crate::concurrent::channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use crate::concurrent::{self, oneshot};
use crate::domain::{Epoch, Refusal, RefusalCode, ShardId, UnixTime};
use crate::hsm::Signature;
use crate::store::{Applied, Lease, Listed, SignedList, Task, Write};
use flate2::Compression;
use flate2::write::ZlibEncoder;
use fob_verify::sign1::ToBeSigned;
use fob_verify::status::{Draft, to_be_signed};

mod given_out;
#[cfg(test)]
mod tests;

pub use given_out::StatusList;
use given_out::{Published, behind, due, is_old, newest, sha256};

/// Callers that may wait for lists at once.
const ASKS_MAX: usize = 4096;

/// Lists signed in one call.
const LISTS_MAX: usize = 64;

/// How often the schedule is looked at.
const TICK: Duration = Duration::from_secs(1);

/// How often it is looked whether a list that waits for the clock may be signed.
const SOON: Duration = Duration::from_millis(50);

/// How often that is looked at among several nodes: others are to see what has changed.
const TICK_SHARED: Duration = Duration::from_millis(100);

/// How long a list that was asked for is not asked for again.
const ASKED: Duration = Duration::from_secs(1);

/// Where lists are asked for.
pub(super) struct Desk {
    asks: Sender<Ask>,
    published: Arc<Published>,
}

type Reply = oneshot::Sender<Result<(), Refusal>>;

/// Lists that somebody waits for, and the amendment up to which they have to say everything.
struct Wanted {
    lists: Vec<ShardId>,
    revision: u64,
    reply: Reply,
}

enum Ask {
    Fresh(Wanted),
    Stop,
}

/// The thread that signs lists.
pub(super) struct Lister {
    shared: Arc<Shared>,
    asks: Receiver<Ask>,
    writes: Sender<WriteJob>,
    published: Arc<Published>,
    /// When another node was asked for which.
    asked: BTreeMap<ShardId, Duration>,
}

/// A list that is about to be signed.
struct Drafted {
    shard: ShardId,
    changes: u64,
    issued_at: UnixTime,
    expires: UnixTime,
    revision: u64,
    content: [u8; 32],
    message: ToBeSigned,
}

/// The desk and the thread behind it, which has what it is about to give out written by `writes`.
pub(super) fn desk(shared: Arc<Shared>, writes: Sender<WriteJob>) -> (Desk, Lister) {
    let (asks, asked) = bounded(ASKS_MAX);
    let published = Arc::new(Published::new());
    let lister = Lister {
        shared,
        asks: asked,
        writes,
        published: Arc::clone(&published),
        asked: BTreeMap::new(),
    };
    (Desk { asks, published }, lister)
}

impl Desk {
    /// Lets the thread end.
    pub(super) fn stop(&self) {
        drop(self.asks.send(Ask::Stop));
    }
}

impl Engine {
    /// Waits until each of these lists is signed, says everything that is durable by now, and is
    /// fresh.
    ///
    /// # Errors
    /// `hsm_unavailable` or `store_unavailable`: what is durable is so, and the lists follow.
    pub async fn lists_fresh(&self, mut lists: Vec<ShardId>) -> Result<(), Refusal> {
        let revision = self.book().statuses.latest();
        lists.retain(|id| behind(&self.shared, &self.lists.published, *id, revision));
        if lists.is_empty() {
            return Ok(());
        }
        let (reply, answer) = oneshot::channel();
        let wanted = Wanted {
            lists,
            revision,
            reply,
        };
        match self.lists.asks.try_send(Ask::Fresh(wanted)) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                return Err(self.shared.busy("status lists are behind"));
            }
            Err(TrySendError::Disconnected(_)) => return Err(shutting_down()),
        }
        match concurrent::timeout(self.shared.settings.answer_within, answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(shutting_down()),
            Err(_) => Err(self.shared.too_late()),
        }
    }

    /// The same for every list that was signed or has to say something.
    ///
    /// # Errors
    /// As [`Engine::lists_fresh`].
    pub(super) async fn all_lists_fresh(&self) -> Result<(), Refusal> {
        let mut lists = self.book().statuses.marked();
        lists.extend(self.lists.published.pin().keys());
        lists.extend(self.book().statuses.all_given_out());
        lists.sort_unstable();
        lists.dedup();
        self.lists_fresh(lists).await
    }

    /// A status list, signed and fresh; `None` where there is none of that name.
    ///
    /// # Errors
    /// As [`Engine::lists_fresh`], unless there is one that is still believed.
    pub async fn status_list(&self, id: ShardId) -> Result<Option<Arc<StatusList>>, Refusal> {
        let known = || {
            let fleets = self.book().fleets();
            let fleet = fleets.iter().find(|book| book.fleet.tag == id.tag);
            match fleet.is_some_and(|fleet| fleet.has_list(id.number)) {
                true => Ok(()),
                false => Err(RefusalCode::NotFound.into()),
            }
        };
        match self.look(known).await {
            Ok(()) => {}
            Err(refusal) if refusal.code == RefusalCode::NotFound => return Ok(None),
            Err(refusal) => return Err(refusal),
        }
        let signed = self.lists_fresh(vec![id]).await;
        let list = newest(&self.shared, &self.lists.published, id);
        match (signed, list) {
            (Err(refusal), None) => Err(refusal),
            (_, list) => Ok(list),
        }
    }
}

impl Lister {
    /// Signs until it is told to stop.
    pub(super) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let tick = match shared.nodes {
            None => TICK,
            Some(_) => TICK_SHARED,
        };
        let mut waiting: Vec<Wanted> = Vec::new();
        loop {
            let wait = if waiting.is_empty() { tick } else { SOON };
            let first = self.asks.recv_timeout(wait);
            let scheduled = matches!(first, Err(RecvTimeoutError::Timeout));
            if matches!(first, Err(RecvTimeoutError::Disconnected)) {
                return;
            }
            for ask in first.ok().into_iter().chain(self.asks.try_iter()) {
                match ask {
                    Ask::Fresh(wanted) => waiting.push(wanted),
                    // Whoever waits is told so as the replies drop.
                    Ask::Stop => return,
                }
            }
            waiting.retain(|it| !it.reply.is_closed());
            let lists = waiting.iter().flat_map(|it| &it.lists);
            let mut wanted: BTreeSet<ShardId> = lists.copied().collect();
            let failed = match shared.lease(Task::Lists) {
                Ok(lease) => {
                    if scheduled {
                        wanted.extend(shared.book.statuses.marked());
                        wanted.extend(self.published.pin().keys().copied());
                    }
                    wanted.extend(shared.book.statuses.take_asked());
                    wanted.retain(|id| due(&shared, &self.published, *id));
                    self.sign(lease, wanted).err()
                }
                Err(NotHeld) => {
                    self.ask_for(wanted);
                    None
                }
            };
            for it in std::mem::take(&mut waiting) {
                let behind = |id: &ShardId| behind(&shared, &self.published, *id, it.revision);
                match &failed {
                    _ if !it.lists.iter().any(behind) => drop(it.reply.send(Ok(()))),
                    Some(refusal) => drop(it.reply.send(Err(refusal.clone()))),
                    // It waits for the clock, or for another node.
                    None => waiting.push(it),
                }
            }
        }
    }

    /// Asks whichever node signs lists for those that it does not sign by itself.
    fn ask_for(&mut self, wanted: BTreeSet<ShardId>) {
        let now = self.shared.clock.monotonic();
        self.asked.retain(|_, at| now.saturating_sub(*at) < ASKED);
        let mut lists = Vec::new();
        for id in wanted {
            let list = newest(&self.shared, &self.published, id);
            if list.is_none_or(|list| is_old(&self.shared, &list)) && !self.asked.contains_key(&id)
            {
                self.asked.insert(id, now);
                lists.push(id);
            }
        }
        // Not told, they are asked for again.
        if !lists.is_empty() {
            let _ = self.write(Write::AskLists(lists.into()));
        }
    }

    /// Signs those of the lists whose time has come.
    fn sign(&self, lease: Option<Lease>, wanted: BTreeSet<ShardId>) -> Result<(), Refusal> {
        let now = self.shared.clock.unix();
        // What was given out after a backup was made is not known, but how far it was ahead.
        let unknown = self.shared.book.restore().at + self.shared.settings.list_ahead_max_s;
        let next = |id: ShardId| {
            let last = self.shared.book.statuses.shard(id).issued_at();
            now.max(last.max(unknown) + 1)
        };
        let ready = wanted.into_iter().map(|id| (id, next(id)));
        let ready: Vec<_> = ready
            .filter(|(_, at)| *at <= now + self.shared.settings.list_ahead_max_s)
            .collect();
        for lists in ready.chunks(LISTS_MAX) {
            self.sign_some(lease, lists, now)?;
        }
        Ok(())
    }

    fn sign_some(
        &self,
        lease: Option<Lease>,
        lists: &[(ShardId, UnixTime)],
        now: UnixTime,
    ) -> Result<(), Refusal> {
        let draft = |epoch: &Epoch| {
            let each = lists.iter().map(|(id, at)| self.draft(*id, *at, epoch));
            each.collect::<Result<Vec<_>, Refusal>>()
        };
        let (epoch, drafted, signatures) = sign::few(&self.shared, now, draft, |drafted| {
            drafted.iter().map(|it| it.message.message()).collect()
        })?;
        self.shared.tally.given_up(epoch.id, signatures.len());
        let signed = drafted.into_iter().zip(&signatures);
        let signed: Vec<_> = signed.map(|(it, by)| it.signed(by, &epoch)).collect();
        let write = Write::Lists(signed.iter().map(|(list, _)| list.clone()).collect());
        if self.write(under(lease, write))? != Some(Applied::Done) {
            // The lease was lost on the way: what was signed is nobody's.
            tracing::info!("status lists that were signed too late are not given out");
            return Ok(());
        }
        metrics::counter!("fob_status_lists_signed_total").increment(signed.len() as u64);
        let published = self.published.pin();
        for (list, changes) in signed {
            let SignedList {
                listed,
                epoch,
                revision,
                content,
                bytes,
            } = list;
            let list = StatusList {
                bytes,
                issued_at: listed.issued_at,
                changes: Some(changes),
                epoch,
                revision,
                content,
            };
            published.insert(listed.shard, Arc::new(list));
        }
        Ok(())
    }

    fn draft(&self, id: ShardId, issued_at: UnixTime, epoch: &Epoch) -> Result<Drafted, Refusal> {
        let settings = &self.shared.settings;
        let shard = self.shared.book.statuses.shard(id);
        // Before the copy: what changes meanwhile is signed again.
        let revision = self.shared.book.statuses.revision();
        let changes = shard.changes();
        let octets = self.shared.book.statuses.octets(id, &shard);
        let compressed = compress(&octets);
        let uri = id.uri(&settings.status_url);
        let expires = issued_at + settings.list_lifetime_s;
        let draft = Draft {
            uri: &uri,
            expires,
            issued_at,
            ttl_s: settings.list_ttl_s,
            compressed: &compressed,
        };
        let message = to_be_signed(&draft, epoch.key.algorithm(), &epoch.id.0);
        let message = message.map_err(|why| {
            tracing::error!(list = %id, %why, "a status list that cannot be written");
            hsm_unavailable()
        })?;
        Ok(Drafted {
            shard: id,
            changes,
            issued_at,
            expires,
            revision,
            content: match self.shared.nodes {
                Some(_) => sha256(&octets),
                None => [0; 32],
            },
            message,
        })
    }

    /// Has something written about lists.
    fn write(&self, write: Write) -> Result<Option<Applied>, Refusal> {
        let (reply, answer) = oneshot::channel();
        let writes = vec![write];
        self.writes
            .send(WriteJob::Commit { writes, reply })
            .map_err(|_| shutting_down())?;
        match concurrent::wait(answer) {
            Ok(outcome) => outcome.map(|applied| applied.first().copied()),
            Err(_) => Err(store_unavailable()),
        }
    }
}

impl Drafted {
    /// With its signature; and how often the list had changed.
    fn signed(self, signature: &Signature, epoch: &Epoch) -> (SignedList, u64) {
        let list = SignedList {
            listed: Listed {
                shard: self.shard,
                issued_at: self.issued_at,
                expires: self.expires,
            },
            epoch: epoch.id,
            revision: self.revision,
            content: self.content,
            bytes: self.message.assemble(signature).into(),
        };
        (list, self.changes)
    }
}

/// A zlib stream (RFC 1950), as small as it gets.
fn compress(octets: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    // Writing into memory cannot fail.
    let _ = encoder.write_all(octets);
    encoder.finish().unwrap_or_default()
}
