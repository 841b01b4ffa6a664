//! The file's contents as the car that `fob-verify` asks.

use anyhow::{Context, anyhow};
use fob_verify::status::{self, StatusList};
use fob_verify::trust::{self, TrustList};
use fob_verify::vehicle::{Anchor, Car, Clock, Policy};
use fob_verify::{IssuerKey, Refusal, RustCrypto, Verified};

use super::state::File;

/// The lists a car holds; one whose signer is no longer trusted is none.
type Lists<'a> = [Verified<StatusList<'a>>];

/// Lets the car do something: the inner result is its answer, the outer one says whether the car
/// could be asked at all.
pub(super) fn ask<T>(
    file: &mut File,
    now: u64,
    what: impl FnOnce(&Car<'_, Lists<'_>, RustCrypto>, &mut File) -> Result<T, Refusal>,
) -> anyhow::Result<Result<T, Refusal>> {
    let held = file.state.clone();
    let trust = held
        .trust
        .as_ref()
        .context("the car has no trust list yet: sync it, or show it what a phone carries")?;
    let trust = read_trust(&trust.0, &held.root.0)?;
    let lists = held.lists.values();
    let lists: Vec<_> = lists
        .filter_map(|list| status::verify(&list.0, &trust, &RustCrypto).ok())
        .collect();
    let car = Car {
        vehicle: &held.vehicle,
        fleet: held.fleet()?,
        trust: &trust,
        lists: lists.as_slice(),
        policy: Policy::STANDARD,
        clock: clock(file, now),
        verifier: RustCrypto,
    };
    Ok(what(&car, file))
}

/// Takes a trust list: the car's first by its root, later ones by the list it holds.
pub(super) fn take_trust(
    file: &mut File,
    bytes: &[u8],
    now: u64,
) -> anyhow::Result<Result<u32, Refusal>> {
    use fob_verify::vehicle::take_trust;
    let held = file.state.clone();
    let clock = clock(file, now);
    let taken = match &held.trust {
        None => {
            let anchor = Anchor::Root(root(&held.root.0)?);
            take_trust(bytes, &anchor, clock, &RustCrypto, file)
        }
        Some(list) => {
            let list = read_trust(&list.0, &held.root.0)?;
            take_trust(bytes, &Anchor::List(&list), clock, &RustCrypto, file)
        }
    };
    Ok(taken.map(|list| list.version()))
}

fn clock(file: &File, reading: u64) -> Clock {
    Clock {
        reading,
        uncertainty_s: file.state.uncertainty_s,
    }
}

fn root(bytes: &[u8]) -> anyhow::Result<IssuerKey> {
    IssuerKey::decode(bytes).map_err(|why| anyhow!("the file's root: {why}"))
}

/// The list the car holds. Whether it has expired is asked by the check.
fn read_trust<'a>(bytes: &'a [u8], by: &[u8]) -> anyhow::Result<Verified<TrustList<'a>>> {
    trust::verify(bytes, &[root(by)?], 0, &RustCrypto)
        .map_err(|why| anyhow!("the file's trust list: {why}"))
}
