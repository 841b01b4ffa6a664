//! Stage 4, sign: one call into the HSM for the whole batch: a signature for each key that is
//! signed by itself, and one for the root of the batch's tree.
//!
//! The root's signature, and a sample of the others, is verified before the commit, so that a token
//! that has begun to sign nonsense is found here and not by a driver in the rain. The committer's
//! thread does that, and deals the signatures out (`finish`), while this one has the next batch
//! signed: an HSM should not wait for it.

use std::sync::Arc;
use std::time::Duration;

use super::admit::Admitted;
use super::batch::Batch;
use super::prepare::{Prepared, PreparedBatch, PreparedTree, Unsigned};
use super::reserve::Outcome;
use super::stations::{Desk, Station, key_of};
use super::tally::Tally;
use super::ticket::Ticket;
use super::{Shared, hsm_unavailable};
use crate::concurrent::channel::{Receiver, Sender, after, never, select};
use crate::domain::{Epoch, Refusal, UnixTime};
use crate::hsm::{Signature, Signer, verify_signature};
use crate::store::{Proof, Redemption, Renewal, SignedBundle, TreeProof};

/// How often a batch is signed before its waiters are told that the HSM does not.
const ATTEMPTS_MAX: u32 = 2;

/// What is told of a token whose signature is wrong.
const WRONG_SIGNATURE: &str = "a signature it made does not verify";

/// How long a station that is down is left alone before it is tried, doubling from the first to
/// the last.
const PROBE_WAIT_MIN: Duration = Duration::from_millis(10);
const PROBE_WAIT_MAX: Duration = Duration::from_millis(320);

/// One redemption, order or renewal, signed and not yet durable.
pub struct Signed {
    pub(super) ticket: Ticket,
    pub(super) what: What,
}

/// What is to become durable.
pub(super) enum What {
    /// A redemption or an order.
    Redemption(Arc<Redemption>),
    /// A bundle signed again.
    Renewal(Arc<Renewal>),
}

/// A batch and a signature for each of its messages, of which some are yet to be verified.
pub(super) struct SignedBatch {
    /// The station that signed it.
    station: usize,
    batch: PreparedBatch,
    signatures: Vec<Signature>,
    /// The positions of those to verify.
    samples: Vec<usize>,
}

/// Picks the signatures to verify: one in so many, counted across batches.
pub(super) struct Sampler {
    one_in: u64,
    seen: u64,
}

impl Sampler {
    pub(super) fn new(one_in: u64) -> Self {
        Self { one_in, seen: 0 }
    }

    /// The positions to verify among the next `count` signatures.
    fn positions(&mut self, count: usize) -> impl Iterator<Item = usize> + use<> {
        let (one_in, seen) = (self.one_in.max(1), self.seen);
        self.seen = seen.wrapping_add(count as u64);
        let none = self.one_in == 0;
        let first = (one_in - seen % one_in) % one_in;
        (first..count as u64)
            .step_by(usize::try_from(one_in).unwrap_or(usize::MAX))
            .filter(move |_| !none)
            .map(|at| at as usize)
    }
}

/// A station's thread: signs what is handed to it, and tries the station again and again while
/// it is down.
pub(super) struct SigningThread {
    shared: Arc<Shared>,
    at: usize,
    prepared: Receiver<PreparedBatch>,
    alarms: Receiver<()>,
    /// Batches that were not signed. There is always room.
    again: Sender<Batch>,
    signed: Sender<SignedBatch>,
    sampler: Sampler,
    /// How long to leave the station alone while it is down.
    wait: Duration,
}

impl SigningThread {
    pub(super) fn new(
        shared: Arc<Shared>,
        at: usize,
        desk: Desk,
        again: Sender<Batch>,
        signed: Sender<SignedBatch>,
    ) -> Self {
        let sampler = Sampler::new(shared.settings.verify_one_in);
        Self {
            shared,
            at,
            prepared: desk.prepared,
            alarms: desk.alarms,
            again,
            signed,
            sampler,
            wait: PROBE_WAIT_MIN,
        }
    }

    /// Signs what is prepared until nothing more can come.
    pub(super) fn run(mut self) {
        loop {
            let down = self.station().is_down();
            let probe = if down { after(self.wait) } else { never() };
            select! {
                recv(self.prepared) -> batch => match batch {
                    Ok(batch) => self.take(batch),
                    Err(_) => return,
                },
                // Somebody has found it down: look again.
                recv(self.alarms) -> _ => {},
                recv(probe) -> _ => self.probe(),
            }
        }
    }

    fn station(&self) -> &Station {
        self.shared.stations.get(self.at)
    }

    fn take(&mut self, batch: PreparedBatch) {
        let stations = &self.shared.stations;
        stations.taken();
        let messages = batch.messages_len();
        let signed = if self.station().is_down() {
            Err(batch)
        } else {
            sign(&self.shared, self.at, &mut self.sampler, batch).map_err(|mut batch| {
                batch.failures += 1;
                batch
            })
        };
        stations.done(self.at, messages);
        match signed {
            // Only a committer that is gone refuses; then the tickets are released as they drop.
            Ok(signed) => {
                if self.signed.send(signed).is_err() {
                    tracing::error!("the committer is gone; a signed batch was not committed");
                }
            }
            Err(batch) => self.give_back(batch),
        }
    }

    /// Has a batch prepared and signed once more, or tells its waiters.
    fn give_back(&self, batch: PreparedBatch) {
        let batch = batch.undo();
        if batch.failures >= ATTEMPTS_MAX {
            return batch.refuse();
        }
        // The batcher has ended where the server is shutting down.
        if let Err(refused) = self.again.send(batch) {
            refused.0.refuse();
        }
    }

    /// Tries the station, and brings it back if it signs.
    fn probe(&mut self) {
        let (shared, station) = (&self.shared, self.station());
        let epoch = station.trial_epoch(&shared.book, shared.clock.unix());
        let tried = match epoch {
            Some(epoch) => station.try_out(&epoch, shared),
            // There is nothing it could sign.
            None => Ok(()),
        };
        match tried {
            Ok(()) => {
                shared.stations.recover(self.at);
                self.wait = PROBE_WAIT_MIN;
            }
            Err(error) => {
                tracing::debug!(token = station.name(), error, "a trial signature failed");
                self.wait = (self.wait * 2).min(PROBE_WAIT_MAX);
            }
        }
    }
}

/// Signs a batch, or gives it back where the station does not.
fn sign(
    shared: &Shared,
    at: usize,
    sampler: &mut Sampler,
    batch: PreparedBatch,
) -> Result<SignedBatch, PreparedBatch> {
    let messages: Vec<&[u8]> = batch.messages().collect();
    let station = shared.stations.get(at);
    let started = shared.clock.monotonic();
    let answer = station.signer().sign_all(&key_of(&batch.epoch), &messages);
    let took = shared.clock.monotonic().saturating_sub(started);
    let answer = answer.map_err(|error| error.to_string());
    let answer = answer.and_then(|signatures| one_for_each(signatures, messages.len()));
    let signatures = match answer {
        Ok(signatures) => signatures,
        Err(error) => {
            shared.tally.failed(batch.epoch.id, messages.len());
            shared
                .stations
                .fail(at, &*shared.clock, &batch.epoch, &error);
            return Err(batch);
        }
    };
    station.pace.learn(signatures.len(), took);
    shared.pace.learn(signatures.len(), took);
    shared.tally.made(batch.epoch.id, signatures.len());
    let root = batch.tree.iter().len();
    let singles = signatures.len() - root;
    let samples = sampler
        .positions(singles)
        .chain((root > 0).then_some(singles));
    Ok(SignedBatch {
        station: at,
        samples: samples.collect(),
        batch,
        signatures,
    })
}

/// Verifies the sample of a batch, and hands out its items if it holds; otherwise every waiter is
/// told, and nothing of the batch goes on.
pub(super) fn finish(shared: &Shared, signed: SignedBatch) -> Vec<Signed> {
    let SignedBatch {
        station,
        batch,
        signatures,
        samples,
    } = signed;
    let mut samples = samples.into_iter().peekable();
    let all_hold =
        batch
            .messages()
            .zip(&signatures)
            .enumerate()
            .all(|(at, (message, signature))| {
                samples.next_if_eq(&at).is_none()
                    || verify_signature(&batch.epoch.key, message, signature)
            });
    if all_hold {
        return join(batch.items, batch.tree.as_ref(), &signatures);
    }
    shared
        .stations
        .fail(station, &*shared.clock, &batch.epoch, WRONG_SIGNATURE);
    shared.tally.given_up(batch.epoch.id, signatures.len());
    for item in batch.items {
        item.admitted
            .ticket
            .resolve(Outcome::Refused(hsm_unavailable()));
    }
    Vec::new()
}

fn one_for_each(signatures: Vec<Signature>, messages: usize) -> Result<Vec<Signature>, String> {
    if signatures.len() == messages {
        return Ok(signatures);
    }
    let count = signatures.len();
    Err(format!("{count} signatures for {messages} messages"))
}

/// What a few messages are about, signed: the epoch, what was drafted under it, and its signatures.
pub(super) type Few<T> = (Arc<Epoch>, T, Vec<Signature>);

/// Has a few messages signed outside of any batch, and verifies every signature. They are drafted
/// under the epoch of the station that signs them, at most twice: where one station fails, another
/// is asked. Blocks for as long as the HSM takes. What goes through the stages does not wait for
/// it: the HSM shares its sessions out between those who sign.
///
/// # Errors
/// `hsm_unavailable`; what `draft` says.
pub(super) fn few<T, E: From<Refusal>>(
    shared: &Shared,
    now: UnixTime,
    draft: impl Fn(&Epoch) -> Result<T, E>,
    messages: impl Fn(&T) -> Vec<&[u8]>,
) -> Result<Few<T>, E> {
    let stations = &shared.stations;
    for _ in 0..ATTEMPTS_MAX {
        let Some((at, epoch)) = stations.pick(&shared.book, now) else {
            break;
        };
        let drafted = draft(&epoch)?;
        match sign_few(shared, at, &epoch, &messages(&drafted)) {
            Ok(signatures) => return Ok((epoch, drafted, signatures)),
            Err(error) => stations.fail(at, &*shared.clock, &epoch, &error),
        }
    }
    shared.check_signing(now)?;
    Err(hsm_unavailable().into())
}

fn sign_few(
    shared: &Shared,
    at: usize,
    epoch: &Epoch,
    messages: &[&[u8]],
) -> Result<Vec<Signature>, String> {
    let stations = &shared.stations;
    stations.hand_over(at, messages.len());
    let answer = stations.get(at).signer().sign_all(&key_of(epoch), messages);
    stations.done(at, messages.len());
    let answer = answer.map_err(|error| error.to_string());
    let answer = answer.and_then(|signatures| one_for_each(signatures, messages.len()));
    let signatures = answer.inspect_err(|_| shared.tally.failed(epoch.id, messages.len()))?;
    shared.tally.made(epoch.id, signatures.len());
    let mut signed = messages.iter().zip(&signatures);
    if !signed.all(|(message, signature)| verify_signature(&epoch.key, message, signature)) {
        shared.tally.given_up(epoch.id, signatures.len());
        return Err(WRONG_SIGNATURE.into());
    }
    Ok(signatures)
}

/// Has the epoch's key sign something that is no key, and verifies it: better no server than keys
/// no car believes.
///
/// # Errors
/// What the HSM says, or that the signature is not the epoch's.
pub(super) fn trial(signer: &dyn Signer, epoch: &Epoch, tally: &Tally) -> Result<(), String> {
    let message = b"fob: trial signature";
    let signatures = signer
        .sign_all(&key_of(epoch), &[message])
        .inspect_err(|_| tally.failed(epoch.id, 1))
        .map_err(|error| error.to_string())?;
    tally.made(epoch.id, 1);
    tally.tried(epoch.id);
    match signatures.first() {
        Some(signature) if verify_signature(&epoch.key, message, signature) => Ok(()),
        _ => Err(format!(
            "the token's key is not the one of epoch {}",
            epoch.id
        )),
    }
}

/// Deals the signatures out to their bundles, and to those of the tree their part of it.
fn join(
    items: Vec<Prepared>,
    tree: Option<&PreparedTree>,
    signatures: &[Signature],
) -> Vec<Signed> {
    let mut rest = signatures;
    let root = signatures.last().copied().unwrap_or([0; 64]);
    let mut leaf = 0;
    let mut proof = |unsigned: Unsigned| match (unsigned, tree) {
        (Unsigned::Leaves(count), Some(PreparedTree { tree, .. })) => {
            let first = leaf;
            leaf += count;
            Proof::Tree(TreeProof {
                signature: root,
                size: tree.size(),
                first,
                outside: tree.outside(first, count).into(),
            })
        }
        (Unsigned::Each(messages), _) => {
            let (own, others) = rest.split_at(messages.len());
            rest = others;
            Proof::Each(own.to_vec())
        }
        // Leaves without a tree are not made.
        (Unsigned::Leaves(_), None) => Proof::Each(Vec::new()),
    };
    let join = |item: Prepared| {
        let signed = SignedBundle {
            bundle: item.bundle,
            proof: proof(item.unsigned),
        };
        let Admitted {
            ticket,
            terminal,
            order,
            renews,
            relies_on,
            ..
        } = item.admitted;
        let what = match renews {
            Some(stood) => {
                let from = stood.epoch;
                What::Renewal(Arc::new(Renewal { signed, from }))
            }
            None => What::Redemption(Arc::new(Redemption {
                signed,
                terminal,
                status_next: item.status_next,
                order,
                relies_on,
            })),
        };
        Signed { ticket, what }
    };
    items.into_iter().map(join).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_evenly_spread_over_batches() {
        let mut sampler = Sampler::new(4);
        let batches: Vec<Vec<usize>> = [3, 3, 8, 1].map(|n| sampler.positions(n).collect()).into();
        assert_eq!(batches, [vec![0], vec![1], vec![2, 6], vec![]]);
        assert_eq!(Sampler::new(0).positions(100).count(), 0);
        assert_eq!(Sampler::new(1).positions(5).count(), 5);
    }
}
