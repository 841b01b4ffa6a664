//! What the car does. The commands, and the story of `fob demo`, have it done.

use std::path::Path;

use anyhow::{Context, anyhow, bail};
use fob_verify::region::Position;
use fob_verify::status::Room;
use fob_verify::vehicle::{Challenge, Request, check};
use fob_verify::{IssuerKey, Refusal};
use serde_json::Value;

use super::car;
use super::state::{CHALLENGE_LIFETIME_S, File, Pending, State};
use crate::cli::jwk;
use crate::domain::FleetId;
use crate::engine::ids::Ids;

/// Writes the file of a car as it leaves the factory: it knows its vehicle id, its fleet and the
/// root. Returns the public half of its own key, as a JWK.
pub(in crate::cli) fn provision(
    path: &Path,
    (vehicle, fleet): (&str, FleetId),
    root: Vec<u8>,
    uncertainty_s: u32,
) -> anyhow::Result<Value> {
    IssuerKey::decode(&root).map_err(|why| anyhow!("the root: {why}"))?;
    let pair = jwk::generate()?;
    let key = jwk::private_json(&pair, None);
    let state = State::new(vehicle.into(), fleet, root, key, uncertainty_s);
    File::create(path, &state)?;
    Ok(jwk::public_json(&pair))
}

/// A challenge, good for one attempt; it takes the place of one that waits.
pub(in crate::cli) fn challenge(file: &mut File, now: u64) -> anyhow::Result<[u8; 32]> {
    let octets = Ids::new().random::<32>();
    let mut state = file.state.clone();
    state.challenge = Some(Pending::new(octets.to_vec(), now));
    file.save(state)?;
    Ok(octets)
}

/// The car's challenge, which is used up from here on, whatever becomes of the attempt.
pub(in crate::cli) fn spend_challenge(file: &mut File, now: u64) -> anyhow::Result<Vec<u8>> {
    let mut state = file.state.clone();
    let pending = state
        .challenge
        .take()
        .context("the car has given no challenge: ask with `fob vehicle challenge`")?;
    file.save(state)?;
    if now.abs_diff(pending.at) > CHALLENGE_LIFETIME_S {
        bail!("the challenge is older than {CHALLENGE_LIFETIME_S} s; ask for another");
    }
    Ok(pending.octets.0)
}

/// Asks the car to open a function with a key and a use proof over a challenge that is spent: the
/// function's code, or why not.
pub(in crate::cli) fn open(
    file: &mut File,
    (key, proof): (&[u8], &[u8]),
    challenge: &[u8],
    position: Option<Position>,
    now: u64,
) -> anyhow::Result<Result<u16, Refusal>> {
    let challenge = Challenge::new(challenge).map_err(|why| anyhow!("{why}"))?;
    let request = Request {
        key,
        proof,
        challenge,
        position,
    };
    let mut room = Box::new(Room::new());
    car::ask(file, now, |car, memory| {
        check(request, car, &mut room, memory).map(|admitted| admitted.function())
    })
}
