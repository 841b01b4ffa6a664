//! Records as they are kept: compact JWS (RFC 7515) of the records that `domain/record.rs`
//! describes, signed in the HSM by the key that took the step.
//!
//! The root signs what it took to make a trust list; an epoch's key signs what goes on without the
//! root. So the record of an activation is at the same time the proof that the new key signs.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest as hash};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use fob_verify::IssuerKey;
use serde_json::{Value, json};

use crate::domain::record::{Digest, EpochNote, Facts};
use crate::domain::{EpochId, EpochState, Record, Standing, Step};
use crate::hsm::{HsmError, KeyRef, Signer, verify_signature};

/// The `typ` of a record.
pub const RECORD_TYP: &str = "fob-record+jwt";

/// Signs a record with a key in a token.
///
/// # Errors
/// The HSM's.
pub fn sign(
    record: &Record,
    signer: &dyn Signer,
    key: &KeyRef,
    public: &IssuerKey,
) -> Result<String, HsmError> {
    let kid = EpochId(public.kid()).to_string();
    // The algorithms of RFC 7518 and RFC 8037: JWS tells keys apart by their kid and not by it.
    let alg = if public.algorithm().is_p256() {
        "ES256"
    } else {
        "EdDSA"
    };
    let header = json!({ "alg": alg, "kid": kid, "typ": RECORD_TYP });
    let encode = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = serde_json::to_value(record).unwrap_or_default();
    let message = format!("{}.{}", encode(&header), encode(&claims));
    let signatures = signer.sign_all(key, &[message.as_bytes()])?;
    let signature = BASE64_URL_SAFE_NO_PAD.encode(signatures[0]);
    Ok(format!("{message}.{signature}"))
}

/// SHA-256 of a record's text.
pub fn digest(text: &str) -> Digest {
    let mut digest = Digest::default();
    digest
        .0
        .copy_from_slice(hash(&SHA256, text.as_bytes()).as_ref());
    digest
}

/// What a record says; its signature is not looked at.
///
/// # Errors
/// What of the form is wrong.
pub fn read(text: &str) -> Result<Record, &'static str> {
    let claims = text.split('.').nth(1).ok_or("it is not a compact JWS")?;
    let claims = BASE64_URL_SAFE_NO_PAD
        .decode(claims)
        .map_err(|_| "its claims are not base64url")?;
    serde_json::from_slice(&claims).map_err(|_| "its claims are not those of a record")
}

/// Whose signature a record claims to have.
fn signer(text: &str) -> Option<EpochId> {
    let header = BASE64_URL_SAFE_NO_PAD
        .decode(text.split('.').next()?)
        .ok()?;
    let header: Value = serde_json::from_slice(&header).ok()?;
    let typ = header.get("typ").and_then(Value::as_str);
    let kid = header.get("kid").and_then(Value::as_str)?;
    EpochId::parse(kid).filter(|_| typ == Some(RECORD_TYP))
}

/// Whether `key` signed a record.
pub fn holds(text: &str, key: &IssuerKey) -> bool {
    let Some((message, signature)) = text.rsplit_once('.') else {
        return false;
    };
    let signature = BASE64_URL_SAFE_NO_PAD
        .decode(signature)
        .ok()
        .and_then(|bytes| bytes.try_into().ok());
    signer(text) == Some(EpochId(key.kid()))
        && signature.is_some_and(|signature| verify_signature(key, message.as_bytes(), &signature))
}

/// How things stand, which all records together have to lead to.
pub struct Ends<'a> {
    /// All epochs.
    pub epochs: &'a [EpochNote],
    /// Version of the newest trust list.
    pub trust_version: u32,
    /// A root of which it is known that it is or was the issuer's.
    pub root: IssuerKey,
}

/// Checks all records, oldest first: each follows the one before it and begins as that one ended,
/// each is signed by a key that could then sign it, and together they lead to how things stand.
///
/// # Errors
/// The number of the record that does not hold, and why.
pub fn check<'a>(
    texts: impl IntoIterator<Item = &'a str>,
    ends: &Ends<'_>,
) -> Result<Standing, (u64, &'static str)> {
    let mut walk = Walk::default();
    for text in texts {
        let number = walk.standing.number + 1;
        walk.take(text, ends).map_err(|why| (number, why))?;
    }
    walk.end(ends).map_err(|why| (walk.standing.number, why))?;
    Ok(walk.standing)
}

/// Where the records taken so far have led.
#[derive(Default)]
struct Walk {
    standing: Standing,
    trust_version: u32,
    roots: Vec<IssuerKey>,
    epochs: BTreeMap<EpochId, EpochNote>,
    /// The first record founds the issuer: nothing was there before it.
    whole: bool,
}

impl Walk {
    fn take(&mut self, text: &str, ends: &Ends<'_>) -> Result<(), &'static str> {
        let record = read(text)?;
        if record.number != self.standing.number + 1 || record.previous != self.standing.digest {
            return Err("it does not follow the record before it");
        }
        if record.number == 1 {
            self.begin(&record);
        }
        if !self.begins_here(&record.before) {
            return Err("it begins otherwise than the record before it ended");
        }
        if !self
            .signers(&record, ends)
            .iter()
            .any(|key| holds(text, key))
        {
            return Err("no key that could sign it has signed it");
        }
        for note in &record.after.epochs {
            self.epochs.insert(note.id, note.clone());
        }
        self.trust_version = record.after.trust_version;
        self.roots
            .extend(record.after.root.as_ref().map(|root| root.key.0));
        self.standing.apply(&record, digest(text));
        Ok(())
    }

    /// An issuer that is older than records: what was there is taken as the first record has it.
    fn begin(&mut self, first: &Record) {
        self.whole = first.step == Step::Found;
        self.trust_version = first.before.trust_version;
        self.standing.begin_with(first.before.root.as_ref());
        self.standing.root.clone_from(&first.before.root);
        self.roots
            .extend(first.before.root.as_ref().map(|root| root.key.0));
    }

    fn begins_here(&self, before: &Facts) -> bool {
        before.trust_version == self.trust_version
            && before.root == self.standing.root
            && before.next_root == self.standing.next_root
            && before.operators == self.standing.operators
            && before
                .epochs
                .iter()
                .all(|note| match self.epochs.get(&note.id) {
                    Some(known) => known == note,
                    None => !self.whole,
                })
    }

    /// The keys of which one has to have signed a record.
    fn signers(&self, record: &Record, ends: &Ends<'_>) -> Vec<IssuerKey> {
        let root = match record.step {
            Step::Found => &record.after.root,
            Step::SucceedRoot => &self.standing.next_root,
            _ => &self.standing.root,
        };
        let root = root.as_ref().map(|root| root.key.0);
        let active = |note: &&EpochNote| note.state == EpochState::Active.name();
        let epochs = self
            .epochs
            .values()
            .chain(&record.after.epochs)
            .filter(active);
        let epochs = epochs.map(|note| note.key.0);
        let older = ends
            .epochs
            .iter()
            .filter(|_| !self.whole)
            .map(|note| note.key.0);
        match record.step {
            Step::Rotate { .. } => root.into_iter().chain(epochs).chain(older).collect(),
            Step::Found
            | Step::Prepare { .. }
            | Step::Revoke { .. }
            | Step::NameRoot
            | Step::SucceedRoot => root.into_iter().collect(),
            _ => epochs.chain(older).collect(),
        }
    }

    fn end(&self, ends: &Ends<'_>) -> Result<(), &'static str> {
        let stands = |note: &EpochNote| match self.epochs.get(&note.id) {
            Some(known) => known == note,
            None => !self.whole,
        };
        if !ends.epochs.iter().all(stands) || ends.trust_version != self.trust_version {
            return Err("things stand otherwise than the records say: one is missing at the end");
        }
        if self.standing.number > 0 && !self.roots.contains(&ends.root) {
            return Err("no record knows the root in root.cbor");
        }
        Ok(())
    }
}
