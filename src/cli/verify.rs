//! `fob verify`: the check a car makes, on a key or on every key of a bundle.

use std::path::PathBuf;

use anyhow::{Context, anyhow, bail};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clap::Args;
use fob_verify::key::{Claims, SignedKey};
use fob_verify::trust::{self, TrustList};
use fob_verify::{IssuerKey, RustCrypto, Verified};
use serde::Serialize;
use serde_json::Value;

use super::{Common, place, print};
use crate::clock::{Clock, SystemClock};
use crate::domain::time::Time;
use crate::domain::{BundleId, EpochId, FleetId, KeyId};

#[derive(Args)]
pub(super) struct VerifyArgs {
    /// A key (CBOR or base64url), a bundle (the JSON of an answer), or the bundles that `fob issue`
    /// wrote; - is standard input
    key: PathBuf,
    /// The root's public key, as `fob init` leaves it in D/root.cbor
    #[arg(long, value_name = "FILE")]
    root: PathBuf,
    /// The trust list, as GET /v1/trust answers it
    #[arg(long, value_name = "FILE")]
    trust: PathBuf,
    /// The vehicle the key must be for
    #[arg(long, value_name = "ID")]
    vehicle: Option<String>,
    /// The time to check at, RFC 3339; now where absent
    #[arg(long, value_name = "T")]
    at: Option<jiff::Timestamp>,
}

#[derive(Serialize)]
struct Verdict {
    accepted: bool,
    keys: Vec<KeyVerdict>,
}

#[derive(Serialize)]
struct KeyVerdict {
    accepted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    function: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vehicle: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fleet: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bundle: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_before: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_after: Option<Time>,
}

pub(super) fn run(common: &Common, args: VerifyArgs) -> anyhow::Result<()> {
    let root = IssuerKey::decode(&place::read(&args.root)?)
        .map_err(|why| anyhow!("{}: {why}", args.root.display()))?;
    let now = match args.at {
        Some(at) => u64::try_from(at.as_second()).context("--at lies before 1970")?,
        None => SystemClock.unix(),
    };
    let list = place::read(&args.trust)?;
    let trusted = trust::verify(&list, &[root], now, &RustCrypto)
        .map_err(|why| anyhow!("{}: {why}", args.trust.display()))?;
    let keys: Vec<_> = keys(&place::read(&args.key)?)
        .with_context(|| args.key.display().to_string())?
        .iter()
        .map(|bytes| judge(bytes, &trusted, args.vehicle.as_deref(), now))
        .collect();
    if keys.is_empty() {
        bail!("{}: there is no key in it", args.key.display());
    }
    let verdict = Verdict {
        accepted: keys.iter().all(|key| key.accepted),
        keys,
    };
    print(common, &verdict, text)?;
    if verdict.accepted {
        Ok(())
    } else {
        bail!("a car would refuse it")
    }
}

fn judge(
    bytes: &[u8],
    trusted: &Verified<TrustList<'_>>,
    vehicle: Option<&str>,
    now: u64,
) -> KeyVerdict {
    let decoded = SignedKey::decode(bytes);
    let claims = decoded
        .as_ref()
        .ok()
        .map(|key| (*key.unverified(), EpochId(*key.kid())));
    let checked = decoded.and_then(|key| {
        let claims = key.verify(trusted, &RustCrypto)?;
        claims.check_time(now)?;
        if let Some(vehicle) = vehicle {
            claims.check_vehicle(vehicle, &claims.fleet)?;
        }
        Ok(())
    });
    let shown =
        |show: &dyn Fn(&Claims<'_>) -> String| claims.as_ref().map(|(claims, _)| show(claims));
    KeyVerdict {
        accepted: checked.is_ok(),
        refusal: checked.err().map(|why| why.code()),
        why: checked.err().map(|why| why.to_string()),
        id: shown(&|claims| KeyId(claims.key_id).to_string()),
        function: shown(&|claims| claims.function_name.into()),
        vehicle: shown(&|claims| claims.vehicle.into()),
        fleet: shown(&|claims| FleetId(claims.fleet).to_string()),
        bundle: shown(&|claims| BundleId(claims.bundle).to_string()),
        version: claims.as_ref().map(|(claims, _)| claims.version),
        epoch: claims.as_ref().map(|(_, epoch)| epoch.to_string()),
        not_before: claims.as_ref().map(|(claims, _)| Time(claims.not_before)),
        not_after: claims.as_ref().map(|(claims, _)| Time(claims.expires)),
    }
}

fn text(verdict: &Verdict) -> String {
    let line = |key: &KeyVerdict| {
        let function = key.function.as_deref().unwrap_or("?");
        let vehicle = key.vehicle.as_deref().unwrap_or("?");
        match &key.why {
            Some(why) => format!("refused   {function:<18} {vehicle}: {why}"),
            None => {
                let ends = key
                    .not_after
                    .map(|time| time.to_string())
                    .unwrap_or_default();
                format!("accepted  {function:<18} {vehicle} until {ends}")
            }
        }
    };
    verdict.keys.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The keys in what was read: a bundle's JSON or many of them, one key's base64url, or one key's
/// CBOR.
pub(super) fn keys(bytes: &[u8]) -> anyhow::Result<Vec<Vec<u8>>> {
    let answers: Result<Vec<Value>, _> = serde_json::Deserializer::from_slice(bytes)
        .into_iter()
        .collect();
    if let Ok(answers) = answers
        && !answers.is_empty()
        && answers.iter().all(Value::is_object)
    {
        let keys = answers.iter().map(keys_of);
        return Ok(keys.collect::<anyhow::Result<Vec<_>>>()?.concat());
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(vec![decode(text.trim())?]),
        Err(_) => Ok(vec![bytes.to_vec()]),
    }
}

/// The keys of a bundle, as a redemption or as a batch answers it.
fn keys_of(answer: &Value) -> anyhow::Result<Vec<Vec<u8>>> {
    let bundle = answer.get("bundle").filter(|inner| inner.is_object());
    let keys = bundle
        .unwrap_or(answer)
        .get("keys")
        .and_then(Value::as_array)
        .ok_or_else(|| {
            let title = answer
                .get("title")
                .and_then(Value::as_str)
                .unwrap_or("it has no keys");
            anyhow!("this JSON is not a bundle: {title}")
        })?;
    keys.iter()
        .map(|key| decode(key.get("key").and_then(Value::as_str).unwrap_or_default()))
        .collect()
}

fn decode(text: &str) -> anyhow::Result<Vec<u8>> {
    BASE64_URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| anyhow!("a key is not base64url"))
}
