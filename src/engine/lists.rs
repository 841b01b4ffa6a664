//! Status lists, signed: floor 3. One thread signs them, on a schedule and whenever somebody waits
//! for one that says what has just become durable.
//!
//! What a list says comes from [`super::statuses`]; only lists that have changed, or are about to
//! be no longer fresh, are signed. All that wait are signed in one call into the HSM, beside the
//! batches and not among them. When a list was signed is durable before it is given out: the next
//! is later, whatever the clock says.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use super::commit::WriteJob;
use super::{Engine, Shared, hsm_unavailable, shutting_down, sign, store_unavailable};
use crate::concurrent::channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use crate::concurrent::{self, Map, oneshot};
use crate::domain::{Epoch, EpochId, EpochState, Refusal, ShardId, UnixTime};
use crate::store::{Listed, Write};
use flate2::Compression;
use flate2::write::ZlibEncoder;
use fob_verify::sign1::ToBeSigned;
use fob_verify::status::{Draft, to_be_signed};

/// Callers that may wait for lists at once.
const ASKS_MAX: usize = 4096;

/// Lists signed in one call.
const LISTS_MAX: usize = 64;

/// How often the schedule is looked at.
const TICK: Duration = Duration::from_secs(1);

/// How often it is looked whether a list that waits for the clock may be signed.
const SOON: Duration = Duration::from_millis(50);

/// A signed status list.
pub struct StatusList {
    /// Its token, as cars get it.
    pub bytes: Arc<[u8]>,
    /// Its `iat`.
    pub issued_at: UnixTime,
    /// How often the list had changed by then.
    changes: u64,
    epoch: EpochId,
}

type Published = Map<ShardId, Arc<StatusList>>;

/// Where lists are asked for.
pub(super) struct Desk {
    asks: Sender<Ask>,
    published: Arc<Published>,
}

type Reply = oneshot::Sender<Result<(), Refusal>>;

enum Ask {
    Fresh(Vec<ShardId>, Reply),
    Stop,
}

/// The thread that signs lists.
pub(super) struct Lister {
    shared: Arc<Shared>,
    asks: Receiver<Ask>,
    writes: Sender<WriteJob>,
    published: Arc<Published>,
}

/// A list that is about to be signed.
struct Drafted {
    shard: ShardId,
    changes: u64,
    issued_at: UnixTime,
    expires: UnixTime,
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
        lists.retain(|id| due(&self.shared, &self.lists.published, *id));
        if lists.is_empty() {
            return Ok(());
        }
        let (reply, answer) = oneshot::channel();
        match self.lists.asks.try_send(Ask::Fresh(lists, reply)) {
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
        self.lists_fresh(lists).await
    }

    /// A status list, signed and fresh; `None` where there is none of that name.
    ///
    /// # Errors
    /// As [`Engine::lists_fresh`], unless there is one that is still believed.
    pub async fn status_list(&self, id: ShardId) -> Result<Option<Arc<StatusList>>, Refusal> {
        let fleets = self.book().fleets();
        let fleet = fleets.iter().find(|book| book.fleet.tag == id.tag);
        if !fleet.is_some_and(|fleet| fleet.has_list(id.number)) {
            return Ok(None);
        }
        let signed = self.lists_fresh(vec![id]).await;
        let list = self.lists.published.pin().get(&id).cloned();
        match (signed, list) {
            (Err(refusal), None) => Err(refusal),
            (_, list) => Ok(list),
        }
    }
}

/// Whether a list has to be signed: it was not, has changed since, is not fresh for much longer, or
/// was signed by an epoch that is over.
fn due(shared: &Shared, published: &Published, id: ShardId) -> bool {
    let pinned = published.pin();
    let Some(list) = pinned.get(&id) else {
        return true;
    };
    let epochs = shared.book.epochs();
    let mut active = epochs
        .iter()
        .filter(|epoch| epoch.state == EpochState::Active)
        .peekable();
    let over = active.peek().is_some() && active.all(|epoch| epoch.id != list.epoch);
    list.changes != shared.book.statuses.shard(id).changes()
        || list.issued_at + u64::from(shared.settings.list_ttl_s / 2) <= shared.clock.unix()
        || over
}

impl Lister {
    /// Signs until it is told to stop.
    pub(super) fn run(self) {
        let mut waiting: Vec<(Vec<ShardId>, Reply)> = Vec::new();
        loop {
            let wait = if waiting.is_empty() { TICK } else { SOON };
            let first = self.asks.recv_timeout(wait);
            let scheduled = matches!(first, Err(RecvTimeoutError::Timeout));
            if matches!(first, Err(RecvTimeoutError::Disconnected)) {
                return;
            }
            for ask in first.ok().into_iter().chain(self.asks.try_iter()) {
                match ask {
                    Ask::Fresh(lists, reply) => waiting.push((lists, reply)),
                    // Whoever waits is told so as the replies drop.
                    Ask::Stop => return,
                }
            }
            let mut wanted: BTreeSet<ShardId> = waiting
                .iter()
                .flat_map(|(lists, _)| lists)
                .copied()
                .collect();
            if scheduled {
                wanted.extend(self.shared.book.statuses.marked());
                wanted.extend(self.published.pin().keys().copied());
            }
            wanted.retain(|id| due(&self.shared, &self.published, *id));
            let failed = self.sign(wanted).err();
            for (lists, reply) in std::mem::take(&mut waiting) {
                let behind = |id: &ShardId| due(&self.shared, &self.published, *id);
                match &failed {
                    _ if !lists.iter().any(behind) => drop(reply.send(Ok(()))),
                    Some(refusal) => drop(reply.send(Err(refusal.clone()))),
                    // It waits for the clock.
                    None => waiting.push((lists, reply)),
                }
            }
        }
    }

    /// Signs those of the lists whose time has come.
    fn sign(&self, wanted: BTreeSet<ShardId>) -> Result<(), Refusal> {
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
            self.sign_some(lists, now)?;
        }
        Ok(())
    }

    fn sign_some(&self, lists: &[(ShardId, UnixTime)], now: UnixTime) -> Result<(), Refusal> {
        let draft = |epoch: &Epoch| {
            let each = lists.iter().map(|(id, at)| self.draft(*id, *at, epoch));
            each.collect::<Result<Vec<_>, Refusal>>()
        };
        let (epoch, drafted, signatures) = sign::few(&self.shared, now, draft, |drafted| {
            drafted.iter().map(|it| it.message.message()).collect()
        })?;
        let listed = |it: &Drafted| Listed {
            shard: it.shard,
            issued_at: it.issued_at,
            expires: it.expires,
        };
        self.write(drafted.iter().map(listed).collect())?;
        metrics::counter!("fob_status_lists_signed_total").increment(drafted.len() as u64);
        let published = self.published.pin();
        for (it, signature) in drafted.into_iter().zip(&signatures) {
            let list = StatusList {
                bytes: it.message.assemble(signature).into(),
                issued_at: it.issued_at,
                changes: it.changes,
                epoch: epoch.id,
            };
            published.insert(it.shard, Arc::new(list));
        }
        Ok(())
    }

    fn draft(&self, id: ShardId, issued_at: UnixTime, epoch: &Epoch) -> Result<Drafted, Refusal> {
        let settings = &self.shared.settings;
        let shard = self.shared.book.statuses.shard(id);
        // Before the copy: what changes meanwhile is signed again.
        let changes = shard.changes();
        let compressed = compress(&self.shared.book.statuses.octets(id, &shard));
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
            message,
        })
    }

    /// Has it written when these lists were signed.
    fn write(&self, lists: Vec<Listed>) -> Result<(), Refusal> {
        let (reply, answer) = oneshot::channel();
        let writes = vec![Write::Listed(lists.into())];
        self.writes
            .send(WriteJob::Commit { writes, reply })
            .map_err(|_| shutting_down())?;
        match concurrent::wait(answer) {
            Ok(outcome) => outcome.map(drop),
            Err(_) => Err(store_unavailable()),
        }
    }
}

/// A zlib stream (RFC 1950), as small as it gets.
fn compress(octets: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    // Writing into memory cannot fail.
    let _ = encoder.write_all(octets);
    encoder.finish().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::status::{Permutation, SHARD_LEN};

    /// draft-ietf-oauth-status-list-17, appendix "Size Comparison": entries of one bit, those that
    /// are revoked in ten thousand, and the size of the compressed list in KB of 1024 octets (half
    /// of a hundred thousand entries revoked are 12.2 there, and cannot be compressed).
    const TABLE: [(usize, usize, f64); 6] = [
        (100_000, 100, 1.4),
        (100_000, 500, 4.5),
        (1_000_000, 10, 2.2),
        (1_000_000, 100, 13.7),
        (1_000_000, 200, 23.0),
        (1_000_000, 500, 43.9),
    ];

    /// Whether `len` is no more than 10 % above `kilobytes`.
    fn small(len: usize, kilobytes: f64) -> bool {
        len as f64 / 1024.0 <= kilobytes * 1.1
    }

    /// `count` of so many entries, as a car's indexes are: without any order.
    fn any(entries: usize, count: usize) -> BTreeSet<usize> {
        let mut state = 7_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005);
            state = state.wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % entries
        };
        let mut chosen = BTreeSet::new();
        while chosen.len() < count {
            chosen.insert(next());
        }
        chosen
    }

    #[test]
    fn the_drafts_own_lists_come_out_as_small_as_in_its_table() {
        for (entries, in_10_000, kilobytes) in TABLE {
            let mut octets = vec![0; entries / 8];
            for at in any(entries, entries / 10_000 * in_10_000) {
                octets[at / 8] |= 1 << (at % 8);
            }
            let len = compress(&octets).len();
            assert!(small(len, kilobytes), "{entries}, {in_10_000}: {len}");
        }
    }

    /// Ours has two bits for an entry and not one, and fewer entries: it is held to the table's size
    /// for a million entries, in proportion.
    #[test]
    fn a_list_is_as_small_as_in_the_drafts_table() {
        let permutation = Permutation::new(&[3; 32], 0);
        for (entries, in_10_000, kilobytes) in &TABLE[3..] {
            let mut octets = vec![0; fob_verify::status::LIST_LEN_MAX];
            let revoked = fob_verify::status::Status::Revoked;
            for counter in 0..SHARD_LEN * *in_10_000 as u64 / 10_000 {
                let index = permutation.index(counter);
                assert!(fob_verify::status::set(&mut octets, index, revoked));
            }
            let len = compress(&octets).len();
            let share = SHARD_LEN as f64 / *entries as f64;
            assert!(small(len, kilobytes * share), "{in_10_000}: {len}");
        }
        assert!(compress(&vec![0; fob_verify::status::LIST_LEN_MAX]).len() < 100);
    }
}
