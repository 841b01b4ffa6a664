//! Bundles issued again: after a change, a reset, or a phone that was replaced. Floor 3.
//!
//! They do not go through the stages: they are few, their conditions are another's, and the caller
//! waits for one transaction with everything in it. What their keys say is decided as for a first
//! issue ([`Issue`]).

use std::sync::Arc;

use fob_verify::HolderKey;
use fob_verify::key;

use super::book::FleetBook;
use super::prepare::Issue;
use super::{Shared, sign};
use crate::domain::{Authorization, Bundle, Epoch, Refusal, RefusalCode, UnixTime, Window};
use crate::store::{Proof, SignedBundle};

/// A bundle to issue again.
pub(super) struct Again {
    /// What it is issued on, as it becomes.
    pub(super) authorization: Authorization,
    /// The bundle as it stands.
    pub(super) before: Bundle,
    /// Whom its keys are bound to.
    pub(super) holder: HolderKey,
    /// The vehicle epoch its keys are of.
    pub(super) vehicle_epoch: u32,
    /// When its keys may be used.
    pub(super) window: Window,
}

/// Issues bundles again, every key signed by itself, all in one call into the HSM. Each comes with
/// the fleet's counter of status indexes after it. Blocks.
///
/// # Errors
/// `hsm_unavailable`; `malformed` for keys that cannot be encoded.
pub(super) fn reissue(
    shared: &Shared,
    fleet: &FleetBook,
    all: &[Again],
) -> Result<Vec<(SignedBundle, u64)>, Refusal> {
    if all.is_empty() {
        return Ok(Vec::new());
    }
    let now = shared.clock.unix();
    let issuer: Arc<str> = shared.book.setting("issuer").unwrap_or_default().into();
    let draft = |epoch: &Epoch| draft(shared, fleet, all, (epoch, &issuer), now);
    let (epoch, (bundles, messages), signatures) =
        sign::few(shared, now, draft, |(_, messages)| {
            messages.iter().map(Vec::as_slice).collect()
        })?;
    // The caller may go before it has them written.
    shared.tally.given_up(epoch.id, signatures.len());
    let mut signatures = signatures.into_iter();
    let sign = |(bundle, status_next): (Bundle, u64)| {
        let own = signatures.by_ref().take(bundle.keys.len()).collect();
        let proof = Proof::Each(own);
        (SignedBundle { bundle, proof }, status_next)
    };
    metrics::counter!("fob_keys_issued_total").increment(messages.len() as u64);
    Ok(bundles.into_iter().map(sign).collect())
}

/// Bundles with the fleet's counter after each, and what is to be signed of them, key by key.
type Drafted = (Vec<(Bundle, u64)>, Vec<Vec<u8>>);

/// Spells the bundles out under an epoch.
fn draft(
    shared: &Shared,
    fleet: &FleetBook,
    all: &[Again],
    (epoch, issuer): (&Epoch, &Arc<str>),
    now: UnixTime,
) -> Result<Drafted, Refusal> {
    let protected = key::protected_header(epoch.key.algorithm(), &epoch.id.0);
    let mut messages = Vec::new();
    let mut bundles = Vec::with_capacity(all.len());
    for again in all {
        let issue = Issue {
            id: again.before.id,
            authorization: again.authorization.id,
            vehicle_epoch: again.vehicle_epoch,
            identity: &again.before.identity,
            holder: again.holder,
            window: again.window,
            epoch,
            issuer,
            issued_at: now,
        };
        let (bundle, status_next) = issue.decide(shared, fleet, &again.authorization)?;
        for (subject, record) in bundle.each_key() {
            let mut message = Vec::new();
            key::to_be_signed(&mut message, &protected, &bundle.claims(subject, record)).map_err(
                |why| {
                    tracing::error!(bundle = %bundle.id, %why, "keys that cannot be encoded");
                    Refusal::new(RefusalCode::Malformed).detail("its keys cannot be encoded")
                },
            )?;
            messages.push(message);
        }
        bundles.push((bundle, status_next));
    }
    Ok((bundles, messages))
}
