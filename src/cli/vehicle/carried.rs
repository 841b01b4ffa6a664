//! What a phone brings: keys, and beside them lists that bring a car up to date.

use std::fmt;

use anyhow::{Context, anyhow};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use fob_verify::key::SignedKey;
use fob_verify::status;
use fob_verify::vehicle::take_status;
use fob_verify::{Refusal, trust};
use serde_json::{Value, json};

use super::car;
use super::state::File;

/// What is in a file of the phone's.
#[derive(Default)]
pub(in crate::cli) struct Carried {
    keys: Vec<Vec<u8>>,
    trust: Option<Vec<u8>>,
    lists: Vec<Vec<u8>>,
}

/// What became of a list.
pub(in crate::cli) struct Outcome {
    what: String,
    refusal: Option<Refusal>,
}

impl Outcome {
    pub(super) fn json(&self) -> Value {
        json!({
            "object": self.what,
            "taken": self.refusal.is_none(),
            "refusal": self.refusal.map(Refusal::code),
        })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.refusal {
            None => write!(f, "taken    {}", self.what),
            Some(why) => write!(f, "refused  {}: {why}", self.what),
        }
    }
}

impl Carried {
    /// The key of this function.
    pub(in crate::cli) fn key_of(&self, function: &str) -> anyhow::Result<&[u8]> {
        if let [key] = self.keys.as_slice()
            && SignedKey::decode(key).is_err()
        {
            // The car says what is wrong with it.
            return Ok(key);
        }
        let is_of = |key: &&Vec<u8>| {
            SignedKey::decode(key).is_ok_and(|key| key.unverified().function_name == function)
        };
        let key = self.keys.iter().find(is_of);
        key.map(Vec::as_slice)
            .with_context(|| format!("there is no key for {function}"))
    }
}

/// Reads a bundle's JSON, or one object as CBOR or base64url.
pub(in crate::cli) fn read(bytes: &[u8]) -> anyhow::Result<Carried> {
    if let Ok(bundle) = serde_json::from_slice::<Value>(bytes)
        && bundle.is_object()
    {
        return read_bundle(&bundle);
    }
    let object = octets(bytes)?;
    let mut carried = Carried::default();
    if status::uri(&object).is_ok() {
        carried.lists.push(object);
    } else if trust::verify(&object, &[], 0, &fob_verify::RustCrypto).err()
        == Some(Refusal::UnknownRoot)
    {
        carried.trust = Some(object);
    } else {
        carried.keys.push(object);
    }
    Ok(carried)
}

fn read_bundle(answer: &Value) -> anyhow::Result<Carried> {
    let bundle = answer
        .get("bundle")
        .filter(|inner| inner.is_object())
        .unwrap_or(answer);
    let object = |value: &Value| decode(value.as_str().unwrap_or_default());
    let all = |name: &str, of: &dyn Fn(&Value) -> anyhow::Result<Vec<u8>>| {
        let items = bundle.get(name).and_then(Value::as_array);
        items.map_or(Ok(Vec::new()), |items| items.iter().map(of).collect())
    };
    let key = |value: &Value| object(value.get("key").unwrap_or(&Value::Null));
    Ok(Carried {
        keys: all("keys", &key)?,
        trust: bundle.get("trust").map(object).transpose()?,
        lists: all("status_lists", &object)?,
    })
}

/// Octets that are given as they are, or as base64url.
pub(super) fn octets(bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    match std::str::from_utf8(bytes) {
        Ok(text) => decode(text.trim()),
        Err(_) => Ok(bytes.to_vec()),
    }
}

fn decode(text: &str) -> anyhow::Result<Vec<u8>> {
    BASE64_URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| anyhow!("an object is not base64url"))
}

/// Shows the car the lists: the trust list first, then the status lists.
pub(in crate::cli) fn take(
    file: &mut File,
    carried: &Carried,
    now: u64,
) -> anyhow::Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    if let Some(bytes) = &carried.trust {
        let taken = car::take_trust(file, bytes, now)?;
        outcomes.push(Outcome {
            what: "trust list".into(),
            refusal: taken.err(),
        });
    }
    for bytes in &carried.lists {
        let uri = status::uri(bytes).unwrap_or_default().to_owned();
        let taken = car::ask(file, now, |car, memory| {
            take_status(bytes, &uri, car, memory).map(|_| ())
        })?;
        outcomes.push(Outcome {
            what: format!("status list {uri}"),
            refusal: taken.err(),
        });
    }
    Ok(outcomes)
}
