//! The car's way to the server: an ack goes, and a sync with everything it names comes back.

use anyhow::{Context, anyhow, bail};
use aws_lc_rs::rand::SystemRandom;
use fob_verify::ack::{self, Ack};
use fob_verify::status;
use fob_verify::sync::{STATUS_URIS_MAX, SYNC_LEN_MAX};
use fob_verify::trust::TRUST_LEN_MAX;
use fob_verify::vehicle::{take_status, take_sync};
use fob_verify::{Algorithm, Refusal, RustCrypto};
use minicbor::Decoder;
use serde_json::Value;

use super::car;
use super::state::File;
use crate::cli::jwk;
use crate::cli::link::Server;

/// The largest answer: a sync, a trust list, and every status list it can name.
const ANSWER_LEN_MAX: usize =
    SYNC_LEN_MAX + TRUST_LEN_MAX + (STATUS_URIS_MAX + 1) * status::STATUS_LEN_MAX;

/// What the car holds now.
pub(in crate::cli) struct Applied {
    pub(in crate::cli) trust_version: u32,
    pub(in crate::cli) lists: usize,
}

/// Two rounds: the first brings the car up to date, and the ack of the second tells the server so.
pub(in crate::cli) fn run(file: &mut File, server: &Server, now: u64) -> anyhow::Result<Applied> {
    let mut applied = None;
    for _ in 0..2 {
        let ack = acknowledge(file, now)?;
        let answer = post(server, &file.state.vehicle, ack)?;
        applied = Some(apply(file, &answer, now)?);
    }
    applied.context("nothing was applied")
}

/// Signs which sync was applied last; each ack is later than the one before.
fn acknowledge(file: &mut File, now: u64) -> anyhow::Result<Vec<u8>> {
    let mut state = file.state.clone();
    state.acked_at = now.max(state.acked_at + 1);
    let digest = |synced: &super::state::Synced| synced.digest.0.as_slice().try_into().ok();
    let applied = state.synced.as_ref().and_then(digest);
    let pair = jwk::from_json(&state.key)?;
    let public = *jwk::public(&pair)?.public();
    let claims = Ack {
        vehicle: &state.vehicle,
        issued_at: state.acked_at,
        applied,
    };
    let message = ack::to_be_signed(&claims, Algorithm::Es256, &public)
        .map_err(|why| anyhow!("the ack: {why}"))?;
    let signature = pair
        .sign(&SystemRandom::new(), message.message())
        .map_err(|_| anyhow!("the ack was not signed"))?;
    let signature = signature.as_ref().try_into()?;
    let bytes = message.assemble(signature);
    file.save(state)?;
    Ok(bytes)
}

fn post(server: &Server, vehicle: &str, ack: Vec<u8>) -> anyhow::Result<Vec<u8>> {
    let path = format!("/v1/vehicles/{vehicle}/sync");
    let headers = [("content-type", "application/cbor")];
    let (status, body) = server.call(("POST", &path), &headers, ack, ANSWER_LEN_MAX)?;
    if status != 200 {
        let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
        let part = |name| {
            problem
                .get(name)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        bail!(
            "the server refuses: {status} {} {}",
            part("code"),
            part("detail")
        );
    }
    Ok(body)
}

/// Takes the trust list, then the status lists, then the sync that names them. What the car holds
/// already is not newer, and no fault.
fn apply(file: &mut File, answer: &[u8], now: u64) -> anyhow::Result<Applied> {
    let parts = parts(answer).context("the server's answer")?;
    let [sync, trust, lists @ ..] = parts.as_slice() else {
        bail!("the server's answer has no sync and trust list");
    };
    held_or(car::take_trust(file, trust, now)?.map(|_| ()), "trust list")?;
    for list in lists {
        let uri = status::uri(list).map_err(|why| anyhow!("a status list: {why}"))?;
        let taken = car::ask(file, now, |car, memory| {
            let sync = fob_verify::sync::verify(sync, car.trust, &RustCrypto)?;
            if !sync.status_uris.iter().any(|named| named == uri) {
                return Err(Refusal::WrongStatusList);
            }
            take_status(list, uri, car, memory).map(|_| ())
        })?;
        held_or(taken, uri)?;
    }
    let applied = car::ask(file, now, |car, memory| {
        take_sync(sync, car, memory).map(|sync| Applied {
            trust_version: car.trust.version(),
            lists: sync.status_uris.len(),
        })
    })?;
    applied.map_err(|why| anyhow!("the car refuses the sync: {why}"))
}

fn held_or(taken: Result<(), Refusal>, what: &str) -> anyhow::Result<()> {
    match taken {
        Ok(()) | Err(Refusal::TrustListNotNewer | Refusal::StatusListNotNewer) => Ok(()),
        Err(why) => bail!("the car refuses {what}: {why}"),
    }
}

fn parts(answer: &[u8]) -> anyhow::Result<Vec<&[u8]>> {
    let mut decoder = Decoder::new(answer);
    let count = decoder.array()?.context("it is an array of known length")?;
    if count > STATUS_URIS_MAX as u64 + 2 {
        bail!("it has too many parts");
    }
    let parts: anyhow::Result<Vec<_>> = (0..count).map(|_| Ok(decoder.bytes()?)).collect();
    if parts.is_ok() && decoder.position() != answer.len() {
        bail!("bytes follow it");
    }
    parts
}
