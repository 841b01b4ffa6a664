//! Stage 3, prepare: key ids, status indexes, claims, and the bytes to be signed.

use std::sync::Arc;

use fob_verify::key;
use fob_verify::sign1::ToBeSigned;
use rayon::ThreadPool;
use rayon::prelude::*;

use super::admit::Admitted;
use super::reserve::{Outcome, Reservation};
use super::{Failure, Shared, hsm_unavailable};
use crate::domain::{Bundle, Epoch, KeyRecord, Refusal, RefusalCode, TerminalId};

/// Bundles that one thread prepares before it is worth waking another.
const BUNDLES_PER_TASK_MIN: usize = 16;

/// A batch whose keys are spelled out and not yet signed.
pub(super) struct PreparedBatch {
    pub(super) epoch: Arc<Epoch>,
    pub(super) items: Vec<Prepared>,
}

/// One redemption, spelled out.
pub(super) struct Prepared {
    pub(super) reservation: Reservation,
    pub(super) bundle: Bundle,
    pub(super) terminal: Option<TerminalId>,
    pub(super) status_next: u64,
    pub(super) to_be_signed: Vec<ToBeSigned>,
}

/// The threads that prepare.
pub(super) struct Preparer {
    pool: ThreadPool,
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

    /// Prepares a batch under the epoch that is active now; the batch keeps it until it is
    /// committed, whatever becomes active meanwhile. `None` where there is none.
    pub(super) fn prepare(&self, shared: &Shared, batch: Vec<Admitted>) -> Option<PreparedBatch> {
        // Cars refuse what is issued outside the window.
        let now = shared.clock.unix();
        let active = shared
            .book
            .active_epoch()
            .filter(|epoch| epoch.window.contains(now));
        let Some(epoch) = active else {
            for admitted in batch {
                admitted
                    .reservation
                    .resolve(Outcome::Refused(hsm_unavailable()));
            }
            return None;
        };
        let issuer: Arc<str> = shared.book.setting("issuer").unwrap_or_default().into();
        let protected = key::protected_header(epoch.key.algorithm(), &epoch.id.0);
        let one = |admitted| {
            let (reservation, rest) = spell_out(shared, &epoch, &issuer, admitted);
            encode(reservation, rest, &protected)
        };
        let items = if batch.len() <= BUNDLES_PER_TASK_MIN {
            batch.into_iter().filter_map(one).collect()
        } else {
            self.pool.install(|| {
                batch
                    .into_par_iter()
                    .with_min_len(BUNDLES_PER_TASK_MIN)
                    .filter_map(one)
                    .collect()
            })
        };
        Some(PreparedBatch { epoch, items })
    }
}

/// What is decided about a redemption before anything is encoded.
struct Decided {
    bundle: Bundle,
    terminal: Option<TerminalId>,
    status_next: u64,
}

fn spell_out(
    shared: &Shared,
    epoch: &Epoch,
    issuer: &Arc<str>,
    admitted: Admitted,
) -> (Reservation, Decided) {
    let Admitted {
        reservation,
        authorization,
        fleet,
        vehicle,
        identity,
        holder,
        thumbprint,
        terminal,
    } = admitted;
    let catalogue = fleet.catalogue();
    let count = authorization.functions.len() as u64;
    let first = fleet.next_status(count);
    let keys = (first..)
        .zip(&authorization.functions)
        .map(|(counter, &function)| {
            let (status_uri, status_index) =
                fleet.status_entry(&shared.settings.status_url, counter);
            KeyRecord {
                function,
                // A vehicle has only functions its catalogue knows, and the catalogue only grows.
                name: catalogue.name(function).cloned().unwrap_or_default(),
                max_uses: authorization.max_uses(function),
                status_uri,
                status_index,
            }
        })
        .collect();
    let unix_ms = shared.clock.unix_ms();
    let bundle = Bundle {
        id: shared.ids.bundle(unix_ms),
        authorization: authorization.id,
        version: authorization.version,
        fleet: authorization.fleet,
        vehicle: authorization.vehicle.clone(),
        vehicle_epoch: vehicle.epoch,
        identity,
        holder,
        thumbprint,
        epoch: epoch.id,
        algorithm: epoch.key.algorithm(),
        issuer: Arc::clone(issuer),
        issued_at: unix_ms / 1000,
        window: authorization.window,
        region: authorization.region().cloned().map(Box::new),
        recurring: authorization.recurring().cloned().map(Box::new),
        keys,
    };
    (
        reservation,
        Decided {
            bundle,
            terminal,
            status_next: first + count,
        },
    )
}

/// Encodes the keys of one redemption. Claims that the format cannot hold were let in by mistake;
/// they cost their own request and no other.
fn encode(
    reservation: Reservation,
    decided: Decided,
    protected: &[u8; key::PROTECTED_LEN],
) -> Option<Prepared> {
    let Decided {
        bundle,
        terminal,
        status_next,
    } = decided;
    let encoded: Result<Vec<_>, _> = bundle
        .keys
        .iter()
        .map(|one| key::encode(protected, &bundle.claims(one)))
        .collect();
    match encoded {
        Ok(to_be_signed) => Some(Prepared {
            reservation,
            bundle,
            terminal,
            status_next,
            to_be_signed,
        }),
        Err(why) => {
            tracing::error!(authorization = %bundle.authorization, %why, "keys that cannot be encoded");
            let refusal = Refusal::new(RefusalCode::Malformed).detail("its keys cannot be encoded");
            reservation.resolve(Outcome::Refused(refusal));
            None
        }
    }
}
