//! Stage 4, sign: one call into the HSM for the whole batch: a signature for each key that is
//! signed by itself, and one for the root of the batch's tree.
//!
//! The root's signature, and a sample of the others, is verified before the commit, so that a token
//! that has begun to sign nonsense is found here and not by a driver in the rain. The committer's
//! thread does that (`verify`), while this one has the next batch signed: an HSM should not wait
//! for it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam::channel::{Receiver, Sender};

use super::prepare::{Prepared, PreparedBatch, PreparedTree, Unsigned};
use super::reserve::Outcome;
use super::ticket::Ticket;
use super::{Shared, hsm_unavailable};
use crate::domain::{Epoch, Refusal};
use crate::hsm::{KeyRef, Signature, Signer, verify_signature};
use crate::store::{Proof, Redemption, SignedBundle, TreeProof};

/// One redemption or order, signed and not yet durable.
pub struct Signed {
    pub(super) ticket: Ticket,
    pub(super) redemption: Arc<Redemption>,
}

/// A batch, signed, and what of it is yet to be verified.
pub(super) struct SignedBatch {
    epoch: Arc<Epoch>,
    items: Vec<Signed>,
    samples: Vec<(Vec<u8>, Signature)>,
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

/// The thread that signs.
pub(super) struct SigningThread {
    shared: Arc<Shared>,
    prepared: Receiver<PreparedBatch>,
    signed: Sender<SignedBatch>,
    sampler: Sampler,
}

impl SigningThread {
    pub(super) fn new(
        shared: Arc<Shared>,
        prepared: Receiver<PreparedBatch>,
        signed: Sender<SignedBatch>,
    ) -> Self {
        let sampler = Sampler::new(shared.settings.verify_one_in);
        Self {
            shared,
            prepared,
            signed,
            sampler,
        }
    }

    /// Signs what is prepared until nothing more can come.
    pub(super) fn run(mut self) {
        while let Ok(batch) = self.prepared.recv() {
            let Some(signed) = sign(&self.shared, &mut self.sampler, batch) else {
                continue;
            };
            // Only a committer that is gone refuses; then the tickets are released as they drop.
            if self.signed.send(signed).is_err() {
                tracing::error!("the committer is gone; a signed batch was not committed");
            }
        }
    }
}

/// Signs a batch. `None` where the HSM does not: then every waiter has been told.
fn sign(shared: &Shared, sampler: &mut Sampler, batch: PreparedBatch) -> Option<SignedBatch> {
    let PreparedBatch { epoch, items, tree } = batch;
    let mut messages: Vec<&[u8]> = Vec::new();
    for item in &items {
        if let Unsigned::Each(own) = &item.unsigned {
            messages.extend(own.each());
        }
    }
    let singles = messages.len();
    messages.extend(tree.as_ref().map(|tree| tree.message.as_slice()));
    let key = KeyRef {
        id: epoch.cka_id,
        algorithm: epoch.key.algorithm(),
    };
    let started = shared.clock.monotonic();
    let answer = shared.signer.sign_all(&key, &messages);
    let took = shared.clock.monotonic().saturating_sub(started);
    let answer = answer.map_err(|error| error.to_string());
    let answer = answer.and_then(|signatures| one_for_each(signatures, messages.len()));
    let signatures = match answer {
        Ok(signatures) => signatures,
        Err(error) => {
            note_health(shared, &epoch, Err(&error));
            for item in items {
                item.ticket.resolve(Outcome::Refused(hsm_unavailable()));
            }
            return None;
        }
    };
    shared.pace.learn(signatures.len(), took);
    metrics::counter!("fob_hsm_signatures_total").increment(signatures.len() as u64);
    let root = tree.is_some().then_some(singles);
    let samples = sampler
        .positions(singles)
        .chain(root)
        .map(|at| (messages[at].to_vec(), signatures[at]))
        .collect();
    Some(SignedBatch {
        items: join(items, tree.as_ref(), &signatures),
        epoch,
        samples,
    })
}

/// Verifies the sample of a batch, and hands out its items if it holds; otherwise every waiter is
/// told, and nothing of the batch goes on.
pub(super) fn verify(shared: &Shared, batch: SignedBatch) -> Vec<Signed> {
    let SignedBatch {
        epoch,
        items,
        samples,
    } = batch;
    let holds = |(message, signature): &(Vec<u8>, Signature)| {
        verify_signature(&epoch.key, message, signature)
    };
    if samples.iter().all(holds) {
        note_health(shared, &epoch, Ok(()));
        return items;
    }
    let error = "a signature it made does not verify";
    note_health(shared, &epoch, Err(error));
    for item in items {
        item.ticket.resolve(Outcome::Refused(hsm_unavailable()));
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

/// One line each way. That it signs is believed once its signatures hold.
fn note_health(shared: &Shared, epoch: &Epoch, signs: Result<(), &str>) {
    let down = signs.is_err();
    if shared.health.hsm_down.swap(down, Ordering::Relaxed) != down {
        metrics::gauge!("fob_hsm_up").set(if down { 0.0 } else { 1.0 });
        match signs {
            Err(error) => tracing::error!(epoch = %epoch.id, error, "the HSM does not sign"),
            Ok(()) => tracing::info!(epoch = %epoch.id, "the HSM signs again"),
        }
    }
}

/// Has the epoch's key sign a few messages outside of any batch, and verifies every signature.
/// Blocks for as long as the HSM takes. What goes through the stages does not wait for it: the HSM
/// shares its sessions out between those who sign.
///
/// # Errors
/// `hsm_unavailable`.
pub(super) fn few(
    shared: &Shared,
    epoch: &Epoch,
    messages: &[&[u8]],
) -> Result<Vec<Signature>, Refusal> {
    let key = KeyRef {
        id: epoch.cka_id,
        algorithm: epoch.key.algorithm(),
    };
    let answer = shared.signer.sign_all(&key, messages);
    let answer = answer.map_err(|error| error.to_string());
    let answer = answer.and_then(|signatures| one_for_each(signatures, messages.len()));
    let answer = answer.and_then(|signatures| {
        let mut signed = messages.iter().zip(&signatures);
        if signed.all(|(message, signature)| verify_signature(&epoch.key, message, signature)) {
            return Ok(signatures);
        }
        Err("a signature it made does not verify".into())
    });
    match answer {
        Ok(signatures) => {
            note_health(shared, epoch, Ok(()));
            metrics::counter!("fob_hsm_signatures_total").increment(signatures.len() as u64);
            Ok(signatures)
        }
        Err(error) => {
            note_health(shared, epoch, Err(&error));
            Err(hsm_unavailable())
        }
    }
}

/// Has the epoch's key sign something that is no key, and verifies it: better no server than keys
/// no car believes.
///
/// # Errors
/// What the HSM says, or that the signature is not the epoch's.
pub fn trial(signer: &dyn Signer, epoch: &Epoch) -> Result<(), String> {
    let key = KeyRef {
        id: epoch.cka_id,
        algorithm: epoch.key.algorithm(),
    };
    let message = b"fob: trial signature";
    let signatures = signer
        .sign_all(&key, &[message])
        .map_err(|error| error.to_string())?;
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
        Signed {
            ticket: item.ticket,
            redemption: Arc::new(Redemption {
                signed,
                terminal: item.terminal,
                status_next: item.status_next,
                order: item.order,
            }),
        }
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
