//! The car of C's structures, as the check wants it.

use crate::border::{Bytes, CarSpec, MemorySpec, NewsSpec, PatienceSpec};
use fob_verify::issuer_key::ISSUER_KEY_LEN_MAX;
use fob_verify::status::{self, StatusList};
use fob_verify::trust::{self, TrustList};
use fob_verify::vehicle::{Car, Clock, Lists, Memory, News, Patience, Policy};
use fob_verify::{DIGEST_LEN, ID_LEN, IssuerKey, Refusal, RustCrypto, Verified};

/// The most functions a policy can name.
const POLICY_MAX: usize = 32;

/// Reads the car's trust list and hands the car over. Whether the list has
/// expired is for whoever asks.
pub(crate) fn with_car(
    spec: &CarSpec,
    ask: impl FnOnce(&Car<'_, Shelf<'_>, RustCrypto>) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let root = IssuerKey::decode(spec.root.as_slice())?;
    let trust = trust::verify(spec.trust.as_slice(), &[root], 0, &RustCrypto)?;
    let vehicle = core::str::from_utf8(spec.vehicle.as_slice());
    let mut functions = [(0, Patience::Valid); POLICY_MAX];
    ask(&Car {
        vehicle: vehicle.map_err(|_| Refusal::InvalidText)?,
        fleet: spec.fleet,
        trust: &trust,
        lists: &Shelf {
            lists: spec.lists(),
            trust: &trust,
        },
        policy: policy(spec.policy(), &mut functions)?,
        clock: Clock {
            reading: spec.clock,
            uncertainty_s: spec.uncertainty_s,
        },
        verifier: RustCrypto,
    })
}

/// The patience of the function 0 is that of all functions without one of
/// their own; without any, the standard policy holds.
fn policy<'a>(
    specs: &[PatienceSpec],
    functions: &'a mut [(u16, Patience); POLICY_MAX],
) -> Result<Policy<'a>, Refusal> {
    if specs.is_empty() {
        return Ok(Policy::STANDARD);
    }
    let named = functions
        .get_mut(..specs.len())
        .ok_or(Refusal::WrongCount)?;
    let mut otherwise = Patience::Valid;
    for (place, spec) in named.iter_mut().zip(specs) {
        let patience = match spec.kind {
            0 => Patience::Fresh,
            1 => Patience::Valid,
            2 => Patience::Expired(spec.grace_s),
            3 => Patience::Offline,
            _ => return Err(Refusal::OutOfBounds),
        };
        *place = (spec.function, patience);
        if spec.function == 0 {
            otherwise = patience;
        }
    }
    Ok(Policy {
        otherwise,
        functions: named,
    })
}

/// The status lists C holds. The one that is asked for is verified anew, so
/// that whatever stores them need not be trusted.
pub(crate) struct Shelf<'a> {
    lists: &'a [Bytes],
    trust: &'a Verified<TrustList<'a>>,
}

impl Lists for Shelf<'_> {
    fn list(&self, uri: &str) -> Option<Verified<StatusList<'_>>> {
        let list = self
            .lists
            .iter()
            .find(|list| status::uri(list.as_slice()) == Ok(uri))?;
        status::verify(list.as_slice(), self.trust, &RustCrypto).ok()
    }
}

/// C's callbacks as a car's memory.
pub(crate) struct Books<'a>(pub(crate) &'a MemorySpec);

impl Memory for Books<'_> {
    fn vehicle_epoch(&self) -> u32 {
        self.0.vehicle_epoch()
    }

    fn version(&self, bundle: &[u8; ID_LEN]) -> u32 {
        self.0.version(bundle)
    }

    fn time(&self) -> u64 {
        self.0.time()
    }

    fn uses(&self, bundle: &[u8; ID_LEN], function: u16) -> u32 {
        self.0.uses(bundle, function)
    }

    fn synced_at(&self) -> u64 {
        self.0.synced_at()
    }

    fn remember(&mut self, news: &News<'_>) -> Result<(), Refusal> {
        let mut told = NewsSpec {
            kind: 0,
            time: news.time(),
            vehicle_epoch: 0,
            version: 0,
            function: 0,
            bundle: [0; ID_LEN],
            object: Bytes::of(&[]),
            uri: Bytes::of(&[]),
            root: Bytes::of(&[]),
            digest: [0; DIGEST_LEN],
        };
        let mut root = [0; ISSUER_KEY_LEN_MAX];
        match news {
            News::Use {
                vehicle_epoch,
                bundle,
                version,
                function,
                ..
            } => {
                told.kind = 1;
                told.vehicle_epoch = *vehicle_epoch;
                told.bundle = *bundle;
                told.version = *version;
                told.function = *function;
            }
            News::Trust { bytes, list } => {
                told.kind = 2;
                told.object = Bytes::of(bytes);
                told.root = Bytes::of(list.root().encode_into(&mut root));
            }
            News::Status { bytes, list } => {
                told.kind = 3;
                told.object = Bytes::of(bytes);
                told.uri = Bytes::of(list.uri().as_bytes());
            }
            News::Sync {
                vehicle_epoch,
                digest,
                ..
            } => {
                told.kind = 4;
                told.vehicle_epoch = *vehicle_epoch;
                told.digest = *digest;
            }
        }
        if self.0.remember(&told) {
            Ok(())
        } else {
            Err(Refusal::MemoryFailed)
        }
    }
}
