//! Bundles: every signature is verified under its epoch's key, every key read as a car reads it, and
//! what still runs is put to the newest trust list.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use fob_verify::key::{self, SignedKey};
use fob_verify::receipt;
use fob_verify::tree::{Hash, Section};
use fob_verify::trust::TrustList;
use fob_verify::{Refusal, Verified};

use super::Flaw;
use super::issuer::Issuer;
use crate::domain::{Epoch, EpochState, UnixTime};
use crate::engine::rebuild;
use crate::hsm::{Signature, verify_signature};
use crate::store::{Proof, SignedBundle, TreeProof};

/// What is wrong with a bundle, and what exactly.
pub(super) type Wrong = (Flaw, String);

/// What bundles are checked against.
pub(super) struct Checker<'a> {
    pub(super) issuer: &'a Issuer,
    pub(super) trusted: Option<&'a Verified<TrustList<'a>>>,
    pub(super) now: UnixTime,
    /// Roots of trees whose signature holds: many bundles share one. Read and written by every
    /// thread, for one look-up at a time.
    roots: Mutex<HashSet<(Hash, Signature)>>,
}

impl<'a> Checker<'a> {
    pub(super) fn new(
        issuer: &'a Issuer,
        trusted: Option<&'a Verified<TrustList<'a>>>,
        now: UnixTime,
    ) -> Self {
        Self {
            issuer,
            trusted,
            now,
            roots: Mutex::default(),
        }
    }

    /// What is wrong with one version of a bundle.
    pub(super) fn check(&self, signed: &SignedBundle) -> Vec<Wrong> {
        let bundle = &signed.bundle;
        let Some(epoch) = self.issuer.epochs.get(&bundle.epoch) else {
            return vec![(Flaw::EpochUnknown, bundle.epoch.to_string())];
        };
        let mut wrong = Vec::new();
        if let Err(why) = readable(signed) {
            wrong.push((Flaw::BundleUnreadable, why));
        }
        match self.holds(epoch, signed) {
            Ok(true) => {}
            Ok(false) => wrong.push((Flaw::SignatureWrong, format!("epoch {}", epoch.id))),
            Err(why) => wrong.push((Flaw::BundleUnreadable, why.to_string())),
        }
        let runs = bundle.window.not_after > self.now;
        if runs
            && epoch.state != EpochState::Revoked
            && let Some(trusted) = self.trusted
            && let Err(why) = believed(trusted, epoch, signed)
        {
            wrong.push((Flaw::IssuerUntrusted, format!("epoch {}: {why}", epoch.id)));
        }
        wrong
    }

    fn holds(&self, epoch: &Epoch, signed: &SignedBundle) -> Result<bool, Refusal> {
        let bundle = &signed.bundle;
        let protected = key::protected_header(bundle.algorithm, &bundle.epoch.0);
        let signatures = match &signed.proof {
            Proof::Tree(proof) => return self.tree_holds(epoch, signed, proof),
            Proof::Each(signatures) => signatures,
        };
        if signatures.len() != bundle.keys.len() {
            return Ok(false);
        }
        let mut message = Vec::with_capacity(1024);
        for ((subject, record), signature) in bundle.each_key().zip(signatures) {
            message.clear();
            key::to_be_signed(&mut message, &protected, &bundle.claims(subject, record))?;
            if !verify_signature(&epoch.key, &message, signature) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn tree_holds(
        &self,
        epoch: &Epoch,
        signed: &SignedBundle,
        proof: &TreeProof,
    ) -> Result<bool, Refusal> {
        let bundle = &signed.bundle;
        let protected = key::protected_header(bundle.algorithm, &bundle.epoch.0);
        let mut leaves = Vec::with_capacity(bundle.keys.len());
        let mut claims = Vec::with_capacity(512);
        for (subject, record) in bundle.each_key() {
            claims.clear();
            key::encode_claims(&mut claims, &bundle.claims(subject, record))?;
            leaves.push(key::leaf(&protected, &claims));
        }
        let root = Section::new(proof.size, proof.first, leaves, &proof.outside)?.root();
        let known = (root, proof.signature);
        let roots = || self.roots.lock().unwrap_or_else(PoisonError::into_inner);
        if roots().contains(&known) {
            return Ok(true);
        }
        let protected = receipt::protected_header(bundle.algorithm, &bundle.epoch.0);
        let message = receipt::to_be_signed(&protected, &root);
        let holds = verify_signature(&epoch.key, &message, &proof.signature);
        if holds {
            roots().insert(known);
        }
        Ok(holds)
    }
}

/// Whether a car can read every key.
fn readable(signed: &SignedBundle) -> Result<(), String> {
    let mut read = Ok(());
    let made = rebuild::each_key(signed, |key| {
        if let Err(why) = SignedKey::decode(key) {
            read = Err(why.to_string());
        }
    });
    made.map_err(|why| why.to_string())?;
    read
}

/// Whether the list names who signed it, for when it was signed.
fn believed(
    trusted: &Verified<TrustList<'_>>,
    epoch: &Epoch,
    signed: &SignedBundle,
) -> Result<(), &'static str> {
    let bundle = &signed.bundle;
    let Some(entry) = trusted.issuer_for(&epoch.id.0) else {
        return Err("the trust list does not name it");
    };
    if entry.key != epoch.key || entry.key.algorithm() != bundle.algorithm {
        return Err("the trust list has another key of it");
    }
    if !entry.covers(bundle.issued_at) {
        return Err("the trust list does not believe it for that time");
    }
    if trusted.issuer() != &*bundle.issuer {
        return Err("the trust list is of another issuer");
    }
    Ok(())
}
