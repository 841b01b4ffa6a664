//! The ceremony: what the root signs, and what is believed when it comes back.
//!
//! Whoever has the root at hand gets a [`Draft`], has the root sign the trust list and the record,
//! and brings both back. Nothing is kept here meanwhile: [`Desk::conclude`] checks all of it
//! against how things stand then.

use fob_verify::IssuerKey;
use fob_verify::RustCrypto;
use fob_verify::trust::{Draft as TrustDraft, Entry};
use serde::{Deserialize, Serialize};

use super::rotate::{Desk, refusal};
use super::trust::{self, TrustError};
use super::{Failure, consent, records};
use crate::domain::record::{EpochNote, PublicKey};
use crate::domain::{Epoch, EpochState, Record, RootKey, Step, UnixTime, rotation};
use crate::hsm::{KeyRef, Signer};
use crate::store::RecordedStep;

/// How long a ceremony may take, in seconds: what it was decided on is no older than that.
const CEREMONY_S: u64 = 3_600;

/// What the root is to sign.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Draft {
    /// The record of the step.
    pub record: Record,
    /// The epochs of the new trust list.
    pub entries: Vec<Listed>,
    /// When it ends.
    pub expires: UnixTime,
}

/// An epoch on a trust list.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Listed {
    /// Its public key.
    pub key: PublicKey,
    /// When its window opens.
    pub not_before: UnixTime,
    /// When it closes.
    pub not_after: UnixTime,
}

/// What the root has signed.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Signed {
    /// The record, a compact JWS.
    pub record: String,
    /// The trust list (COSE_Sign1).
    pub trust: Vec<u8>,
}

impl Draft {
    pub(super) fn new(desk: &Desk<'_>, record: Record, touched: &[Epoch]) -> Result<Self, Failure> {
        if record.before.root.is_none() {
            return Err(refusal("this issuer's root is not known").into());
        }
        let lifetime_max_s = desk.settings.key_lifetime_max_s;
        let epochs = desk.after(touched);
        let entries: Vec<_> = trust::listed(&epochs, desk.now, lifetime_max_s)
            .map(|entry| Listed {
                key: PublicKey(entry.key),
                not_before: entry.not_before,
                not_after: entry.not_after,
            })
            .collect();
        let last = entries.iter().map(|entry| entry.not_after).max();
        Ok(Self {
            expires: last.unwrap_or(desk.now).saturating_add(lifetime_max_s),
            record,
            entries,
        })
    }

    /// The root that has to sign it.
    pub fn root(&self) -> Option<&RootKey> {
        // A root that takes over signs that itself.
        self.record.after.root.as_ref()
    }

    /// Has the root sign the trust list and the record.
    ///
    /// # Errors
    /// What the format or the root refuses.
    pub fn sign(
        &self,
        signer: &dyn Signer,
        key: &KeyRef,
        root: &IssuerKey,
    ) -> Result<Signed, TrustError> {
        let entries: Vec<_> = self.entries.iter().map(Listed::entry).collect();
        let draft = TrustDraft {
            issuer: &self.record.iss,
            expires: self.expires,
            issued_at: self.record.iat,
            version: self.record.after.trust_version,
            entries: &entries,
            next_root: self.record.after.next_root.as_ref().map(|next| next.key.0),
        };
        Ok(Signed {
            trust: trust::sign_draft((signer, key, root), &draft)?,
            record: records::sign(&self.record, signer, key, root)?,
        })
    }
}

impl Listed {
    fn entry(&self) -> Entry {
        Entry {
            key: self.key.0,
            not_before: self.not_before,
            not_after: self.not_after,
        }
    }
}

impl Desk<'_> {
    /// What to write for a step that the root has signed.
    ///
    /// Everything is checked as if it came from anywhere: the root's signatures, that the step was
    /// decided on how things stand, consent, that list and record say the same, and the keys of
    /// new epochs.
    ///
    /// # Errors
    /// `malformed` or `forbidden`, saying what does not hold; faults of the HSM.
    pub fn conclude(&self, signed: &Signed) -> Result<RecordedStep, Failure> {
        let record = records::read(&signed.record).map_err(refusal)?;
        let epochs = self.check_record(&record, &signed.record)?;
        self.check_list(&record, &signed.trust, &epochs)?;
        consent::check(self, &record.step, &record.who)?;
        self.check_keys(&epochs)?;
        Ok(RecordedStep {
            number: record.number,
            record: signed.record.as_str().into(),
            epochs,
            trust: Some((record.after.trust_version, signed.trust.as_slice().into())),
        })
    }

    /// The root that signs `record` as things stand.
    fn signing_root(&self, record: &Record) -> Option<RootKey> {
        let standing = self.book.standing();
        match record.step {
            Step::SucceedRoot => standing.next_root.clone(),
            _ => standing.root.clone(),
        }
    }

    /// The epochs that a record changes, having checked that it may.
    fn check_record(&self, record: &Record, text: &str) -> Result<Vec<Epoch>, Failure> {
        let standing = self.book.standing();
        let root = self.signing_root(record);
        let signed = root.as_ref().map(|root| records::holds(text, &root.key.0));
        if signed != Some(true) || record.after.root != root {
            return Err(refusal("the record is not signed by the root").into());
        }
        let notes = record.after.epochs.iter();
        let epochs: Option<Vec<_>> = notes.map(EpochNote::epoch).collect();
        let epochs = epochs.ok_or_else(|| refusal("the record has an epoch that is none"))?;
        let follows = record.number == standing.number + 1 && record.previous == standing.digest;
        let recent = record.iat <= self.now + 60 && self.now <= record.iat + CEREMONY_S;
        if !follows || !recent || record.before != self.facts(&epochs) {
            return Err(
                refusal("things have changed since this step was decided: ask again").into(),
            );
        }
        if !self.does_what_it_says(record, &epochs) {
            return Err(refusal("the record changes what its step does not").into());
        }
        rotation::check(&self.after(&epochs), &epochs, self.now)?;
        Ok(epochs)
    }

    /// Whether a record changes nothing but what its step is there for: consent was given to that.
    fn does_what_it_says(&self, record: &Record, epochs: &[Epoch]) -> bool {
        let (before, after) = (&record.before, &record.after);
        let known = self.epochs();
        let known = |epoch: &Epoch| known.iter().find(|one| one.id == epoch.id).cloned();
        let same_root = after.next_root == before.next_root;
        let only = |fits: &dyn Fn(&Epoch) -> bool| same_root && epochs.iter().all(fits);
        let fits = match &record.step {
            Step::Prepare { .. } => {
                only(&|epoch| known(epoch).is_none() && epoch.state == EpochState::Prepared)
            }
            Step::Revoke { epoch: revoked, .. } => only(&|epoch| {
                epoch.state == EpochState::Active
                    || (epoch.state == EpochState::Revoked && epoch.id == *revoked)
            }),
            Step::Rotate { .. } => only(&|epoch| {
                epoch.state == EpochState::Active || epoch.state == EpochState::Retired
            }),
            Step::NameRoot => epochs.is_empty() && after.next_root.is_some(),
            Step::SucceedRoot => epochs.is_empty() && after.next_root.is_none(),
            _ => false,
        };
        let unbent = |epoch: &Epoch| {
            known(epoch).is_none_or(|known| {
                let changed = Epoch {
                    state: epoch.state,
                    activated_at: epoch.activated_at,
                    ..known
                };
                changed == *epoch
            })
        };
        fits && after.operators == before.operators && epochs.iter().all(unbent)
    }

    /// Whether a trust list is the one that a record speaks of.
    fn check_list(&self, record: &Record, list: &[u8], epochs: &[Epoch]) -> Result<(), Failure> {
        let root = record.after.root.as_ref().map(|root| root.key.0);
        let root = root.ok_or_else(|| refusal("the record names no root"))?;
        let list = fob_verify::trust::verify(list, &[root], self.now, &RustCrypto)
            .map_err(|why| refusal(format!("the trust list: {why}")))?;
        let after = self.after(epochs);
        let lifetime_max_s = self.settings.key_lifetime_max_s;
        let expected = trust::listed(&after, record.iat, lifetime_max_s);
        let next = record.after.next_root.as_ref().map(|next| next.key.0);
        let fits = list.version() == record.after.trust_version
            && record.after.trust_version
                == self.book.restore().trust_after(record.before.trust_version)
            && list.issuer() == record.iss
            && list.issued_at() == record.iat
            && list.next_root().copied() == next
            && list.entries().eq(expected);
        if fits {
            return Ok(());
        }
        Err(refusal("the trust list is not the one the record speaks of").into())
    }
}
