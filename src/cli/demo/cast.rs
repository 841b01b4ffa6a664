//! Who takes part: an owner and a borrower with a phone each, a car, and the way they all have to
//! the server. The car has none of its own until it syncs.

use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use aws_lc_rs::signature::EcdsaKeyPair;
use fob_verify::Refusal;
use fob_verify::key::SignedKey;
use serde_json::Value;

use super::house::House;
use crate::cli::link::Server;
use crate::cli::sign::{Owner, proof};
use crate::cli::vehicle::{File, act, carried, sync};
use crate::cli::{jwk, place, sign_use};
use crate::clock::{Clock as _, SystemClock};
use crate::domain::FleetId;

/// The car's vehicle, and who owns and borrows it.
pub(super) const VEHICLE: &str = "DEMO-0001";
pub(super) const OWNER: &str = "owner-1";
pub(super) const BORROWER: &str = "renter-1";

/// The largest answer there is here: a bundle with lists beside it.
const ANSWER_LEN_MAX: usize = 1 << 20;

/// What the server said.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// The body of an answer of this status.
    pub(super) fn of(self, status: u16) -> anyhow::Result<Value> {
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        ensure!(
            self.status == status,
            "the server should have answered {status} and answered {} {body}",
            self.status
        );
        Ok(body)
    }

    /// What must be a refusal of this status and code.
    pub(super) fn refused(self, status: u16, code: &str) -> anyhow::Result<()> {
        let body = self.of(status)?;
        let found = text(&body, "code")?;
        ensure!(found == code, "refused as {found} and not as {code}");
        Ok(())
    }
}

/// The way to the server, for phones.
pub(super) struct Way {
    server: Server,
    pub(super) url: String,
}

impl Way {
    pub(super) fn new(url: String) -> anyhow::Result<Self> {
        let server = Server::new(&url, None)?;
        Ok(Self { server, url })
    }

    pub(super) fn call(
        &self,
        call: (&str, &str),
        headers: &[(&str, &str)],
        body: impl Into<Vec<u8>>,
    ) -> anyhow::Result<Answer> {
        let answer = self.server.call(call, headers, body.into(), ANSWER_LEN_MAX);
        let (status, body) = answer?;
        Ok(Answer { status, body })
    }

    /// A call whose body is the owner's signed command.
    pub(super) fn command(
        &self,
        owner: &Owner,
        call: (&str, &str),
        command: &Value,
    ) -> anyhow::Result<Answer> {
        let jws = owner.command(&self.url, call, command)?;
        self.call(call, &[("content-type", "application/jose")], jws)
    }

    /// A redemption.
    pub(super) fn redeem(&self, phone: &EcdsaKeyPair, code_set: &str) -> anyhow::Result<Answer> {
        let body = serde_json::json!({
            "code_set": code_set,
            "identity": { "id": BORROWER },
            "proof": proof(phone, &self.url, code_set)?,
        });
        let headers = [("content-type", "application/json")];
        self.call(("POST", "/v1/redemptions"), &headers, body.to_string())
    }

    /// A bundle as it stands, with the lists that belong to it, read by its phone.
    pub(super) fn stapled(&self, phone: &EcdsaKeyPair, bundle: &str) -> anyhow::Result<Value> {
        let proof = proof(phone, &self.url, bundle)?;
        let path = format!("/v1/bundles/{bundle}?staple=true");
        let answer = self.call(("GET", &path), &[("fob-proof", &proof)], "")?;
        answer.of(200)
    }
}

/// The owner's phone, which `fob init --demo` has registered.
pub(super) fn owner(house: &House) -> anyhow::Result<Owner> {
    let (pair, kid) = jwk::read(&house.file("demo-owner.jwk"))?;
    Ok(Owner {
        pair,
        kid: kid.context("the owner's terminal")?,
        identity: OWNER.into(),
    })
}

/// The car.
pub(super) struct Car {
    path: PathBuf,
}

impl Car {
    /// A new one, and the public half of its key.
    pub(super) fn new(house: &House, fleet: FleetId) -> anyhow::Result<(Self, Value)> {
        let path = house.file("car.json");
        let root = place::read(&house.file("root.cbor"))?;
        let jwk = act::provision(&path, (VEHICLE, fleet), root, 0)?;
        Ok((Self { path }, jwk))
    }

    /// Lets a phone use a function of a bundle it carries. Lists beside its keys are shown first.
    pub(super) fn asked(
        &self,
        phone: &EcdsaKeyPair,
        bundle: &Value,
        function: &str,
    ) -> anyhow::Result<Result<u16, Refusal>> {
        let now = SystemClock.unix();
        let mut file = File::open(&self.path)?;
        let carried = carried::read(bundle.to_string().as_bytes())?;
        let key = carried.key_of(function)?.to_vec();
        carried::take(&mut file, &carried, now)?;
        act::challenge(&mut file, now)?;
        let challenge = act::spend_challenge(&mut file, now)?;
        let signed = SignedKey::decode(&key).map_err(|why| anyhow::anyhow!("{why}"))?;
        let proof = sign_use::answer(phone, &signed, &challenge)?;
        act::open(&mut file, (&key, &proof), &challenge, None, now)
    }

    /// Answers the car's next challenge with a proof over another one.
    pub(super) fn asked_with_an_old_proof(
        &self,
        phone: &EcdsaKeyPair,
        bundle: &Value,
        function: &str,
    ) -> anyhow::Result<Result<u16, Refusal>> {
        let now = SystemClock.unix();
        let mut file = File::open(&self.path)?;
        let carried = carried::read(bundle.to_string().as_bytes())?;
        let key = carried.key_of(function)?;
        let signed = SignedKey::decode(key).map_err(|why| anyhow::anyhow!("{why}"))?;
        act::challenge(&mut file, now)?;
        let old = act::spend_challenge(&mut file, now)?;
        let proof = sign_use::answer(phone, &signed, &old)?;
        act::challenge(&mut file, now)?;
        let new = act::spend_challenge(&mut file, now)?;
        act::open(&mut file, (key, &proof), &new, None, now)
    }

    /// Connects it.
    pub(super) fn sync(&self, way: &Way) -> anyhow::Result<sync::Applied> {
        sync::run(
            &mut File::open(&self.path)?,
            &way.server,
            SystemClock.unix(),
        )
    }
}

/// A bundle without what was carried beside it.
pub(super) fn bare(bundle: &Value) -> Value {
    let mut bare = bundle.clone();
    if let Some(members) = bare.as_object_mut() {
        members.remove("trust");
        members.remove("status_lists");
    }
    bare
}

/// A member that is text.
pub(super) fn text<'a>(value: &'a Value, name: &str) -> anyhow::Result<&'a str> {
    match value.get(name).and_then(Value::as_str) {
        Some(text) => Ok(text),
        None => bail!("there is no {name} in {value}"),
    }
}

/// How many are in a list.
pub(super) fn count(value: &Value, name: &str) -> usize {
    value
        .get(name)
        .and_then(Value::as_array)
        .map_or(0, Vec::len)
}
