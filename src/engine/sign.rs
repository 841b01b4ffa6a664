//! Stage 4, sign: one call into the HSM for the whole batch, one signature for each key.
//!
//! A sample of the signatures is verified before the commit, so that a token that has begun to
//! sign nonsense is found here and not by a driver in the rain.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::prepare::{Prepared, PreparedBatch};
use super::reserve::{Outcome, Reservation};
use super::{Shared, hsm_unavailable};
use crate::domain::Epoch;
use crate::hsm::{KeyRef, Signature, Signer, verify_signature};
use crate::store::{Redemption, SignedBundle};

/// One redemption, signed and not yet durable.
pub struct Signed {
    pub(super) reservation: Reservation,
    pub(super) redemption: Arc<Redemption>,
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

/// Signs a batch. `None` where the HSM does not: then every waiter has been told.
pub(super) fn sign(
    shared: &Shared,
    sampler: &mut Sampler,
    batch: PreparedBatch,
) -> Option<Vec<Signed>> {
    let PreparedBatch { epoch, items } = batch;
    let messages: Vec<&[u8]> = items
        .iter()
        .flat_map(|item| &item.to_be_signed)
        .map(|tbs| tbs.message())
        .collect();
    let key = KeyRef {
        id: epoch.cka_id,
        algorithm: epoch.key.algorithm(),
    };
    let answer = shared
        .signer
        .sign_all(&key, &messages)
        .map_err(|error| error.to_string());
    let checked = answer.and_then(|signatures| {
        check(sampler, &epoch, &messages, &signatures)?;
        Ok(signatures)
    });
    let down = checked.is_err();
    if shared.health.hsm_down.swap(down, Ordering::Relaxed) != down {
        metrics::gauge!("fob_hsm_up").set(if down { 0.0 } else { 1.0 });
        match &checked {
            Err(error) => tracing::error!(epoch = %epoch.id, error, "the HSM does not sign"),
            Ok(_) => tracing::info!(epoch = %epoch.id, "the HSM signs again"),
        }
    }
    match checked {
        Ok(signatures) => {
            metrics::counter!("fob_hsm_signatures_total").increment(signatures.len() as u64);
            Some(join(items, &signatures))
        }
        Err(_) => {
            for item in items {
                item.reservation
                    .resolve(Outcome::Refused(hsm_unavailable()));
            }
            None
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

fn check(
    sampler: &mut Sampler,
    epoch: &Epoch,
    messages: &[&[u8]],
    signatures: &[Signature],
) -> Result<(), String> {
    if signatures.len() != messages.len() {
        return Err(format!(
            "{} signatures for {} messages",
            signatures.len(),
            messages.len()
        ));
    }
    for at in sampler.positions(messages.len()) {
        if !verify_signature(&epoch.key, messages[at], &signatures[at]) {
            return Err("a signature it made does not verify".into());
        }
    }
    Ok(())
}

fn join(items: Vec<Prepared>, signatures: &[Signature]) -> Vec<Signed> {
    let mut rest = signatures;
    items
        .into_iter()
        .map(|item| {
            let Prepared {
                reservation,
                bundle,
                terminal,
                status_next,
                to_be_signed,
            } = item;
            let (own, others) = rest.split_at(to_be_signed.len());
            rest = others;
            let signed = SignedBundle {
                bundle,
                signatures: own.to_vec(),
            };
            let redemption = Arc::new(Redemption {
                signed,
                terminal,
                status_next,
            });
            Signed {
                reservation,
                redemption,
            }
        })
        .collect()
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
