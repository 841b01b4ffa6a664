//! The audit: whether what the store holds fits together. Floor 3.
//!
//! | room | what it looks at |
//! |---|---|
//! | `issuer` | epochs, trust list, records, the registry |
//! | `keys` | bundles: each signature, and what a car would say |
//! | `acts` | fleets and tokens: who has made each |
//! | `counted` | status indexes: counted out, and used once |
//! | `lists` | status lists as they were given out: who signed each, and what it says |
//! | `ledger` | authorizations, bundles, requests and marks against each other |
//! | `signed` | signatures: made, recorded, there, and what the HSM says |
//!
//! It reads the store as a whole, one kind after the other, and nothing is written. Nobody may
//! serve from the store meanwhile: what is committed in between would not fit what was read before.
//!
//! Deliberately not here: the HSM. Most tokens do not say how often they have signed; where one
//! does, an operator puts its count beside what was counted here.

use std::collections::BTreeMap;

use fob_verify::IssuerKey;
use serde::Serialize;

use crate::domain::{EpochId, UnixTime};
use crate::store::StoreError;
use crate::store::whole::{Progress, Whole};

mod acts;
mod counted;
mod issuer;
mod keys;
mod ledger;
mod lists;
mod signed;

use issuer::Issuer;
use keys::Checker;
use ledger::Ledger;
use lists::Lists;
pub use signed::{OfHsm, OfSigned};

/// Findings that are described one by one, at most; the others are counted.
pub const FINDINGS_MAX: usize = 1_000;

macro_rules! flaws {
    ($($variant:ident $code:literal $what:literal $advice:literal)*) => {
        /// What does not fit.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Flaw {
            $(#[doc = concat!("`", $code, "`: ", $what)] $variant,)*
        }

        impl Flaw {
            /// Every one, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// A stable word for it.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// One short sentence for people.
            pub const fn what(self) -> &'static str {
                match self { $(Self::$variant => $what,)* }
            }

            /// What to do about it.
            pub const fn advice(self) -> &'static str {
                match self { $(Self::$variant => $advice,)* }
            }
        }
    };
}

flaws! {
    TrustListVoid "trust_list_void" "no car takes the newest trust list"
        "prepare an epoch with the root (fob epoch prepare): that signs a new list"
    EpochUnlisted "epoch_unlisted" "an active epoch is not on the newest trust list"
        "rotate to an epoch that is (fob epoch rotate); keys it signed have to be issued again"
    EpochsActive "epochs_active" "a token has more than one active epoch"
        "retire all but one of them (fob epoch retire)"
    RecordWrong "record_wrong" "the chain of records is broken"
        "put the last good backup beside this store and compare what fob epoch records says"
    OwnerUnknown "owner_unknown" "a vehicle's owner is not registered"
        "register the identity, or name another owner (PUT /v1/vehicles/ID)"
    TerminalOfNobody "terminal_of_nobody" "a terminal's identity is not registered"
        "register the identity, or put the terminal anew"
    BundleUnreadable "bundle_unreadable" "a bundle's keys cannot be made again"
        "revoke the bundle; the store was damaged or written by another program"
    EpochUnknown "epoch_unknown" "an epoch signed a bundle and is not in the store"
        "revoke the bundle; the store was damaged or written by another program"
    SignatureWrong "signature_wrong" "a signature does not verify under its epoch's key"
        "revoke the bundle and issue it again; if there are many, check the HSM (fob hsm status)"
    IssuerUntrusted "issuer_untrusted" "a car does not believe who signed a bundle that still runs"
        "list the epoch again, or revoke it so that its bundles are signed anew"
    RedeemedTwice "redeemed_twice" "a code set has led to more than one bundle"
        "revoke all bundles of the authorization, and report this: it must never happen"
    StillOpen "still_open" "a code set was redeemed and can be redeemed again"
        "revoke the authorization, and report this: it must never happen"
    VersionAhead "version_ahead" "a bundle is of a later version than its authorization"
        "revoke the bundle; the store was damaged or written by another program"
    BundleMissing "bundle_missing" "an authorization was redeemed and its bundle is not there"
        "revoke the authorization; if there are many, restore a backup (fob restore)"
    BundleUnclaimed "bundle_unclaimed" "a bundle's authorization does not know of it"
        "revoke the bundle; if there are many, restore a backup (fob restore)"
    RequestOfNothing "request_of_nothing" "a request was answered with what is not there"
        "restore a backup (fob restore) if the answer mattered: it would not be repeated"
    IndexTwice "index_twice" "two keys have the same place on a status list"
        "revoke both, and report this: it must never happen"
    IndexAhead "index_ahead" "a key, or what was done to one, is at a place of a status list that was not counted out"
        "raise the counter by fob restore before anything is issued, or places will be used twice"
    ListOfAnother "list_of_another" "a key stands on a status list that is not its fleet's"
        "revoke the bundle; the store was damaged or written by another program"
    ActMissing "act_missing" "a fleet or a token was made, and nobody is recorded for it"
        "revoke the token (fob token revoke); somebody has written into the store by other means"
    NotRevoked "not_revoked" "a key that should be revoked is not on its status list"
        "send the revocation again; until then cars believe the key"
    ListWrong "list_wrong" "a status list that was given out is not what a car would take"
        "start a server: it signs the list anew; if it comes again, check the HSM (fob hsm status)"
    ListMisstates "list_misstates" "a status list that was given out does not say how a key stands"
        "start a server: it signs the list anew; until cars have that, they act on what it says"
    SignedFewer "signed_fewer" "more signatures are accounted for than were made"
        "report this: it must never happen; the store was damaged or written by another program"
    VersionsLost "versions_lost" "bundles are gone that nobody has purged"
        "restore a backup (fob restore); somebody has deleted from the store by other means"
    VersionUncounted "version_uncounted" "a bundle is there that was not counted when it was signed"
        "somebody has written into the store by other means; check who can reach the HSM's key"
    SignaturesDiffer "signatures_differ" "bundles have other signatures than were recorded"
        "restore a backup (fob restore); somebody has written into the store by other means"
    HsmSignedFewer "hsm_signed_fewer" "signatures were counted that the HSM says it did not make"
        "find out whether its count began anew; if not, the key is elsewhere too: revoke the epoch"
    HsmSignedMore "hsm_signed_more" "the HSM has signed more than can be explained"
        "find out who else can reach the key (fob bench signs with it too); if in doubt, revoke the epoch"
}

/// Something that does not fit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is.
    #[serde(serialize_with = "code")]
    pub flaw: Flaw,
    /// Of what: a bundle, an authorization, an epoch, …
    pub of: String,
    /// What exactly.
    pub detail: String,
    /// What to do about it.
    pub advice: &'static str,
}

fn code<S: serde::Serializer>(flaw: &Flaw, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(flaw.code())
}

/// What one epoch has signed, as far as it is recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OfEpoch {
    /// Its state, in a word.
    pub state: &'static str,
    /// Versions of bundles that stand as it signed them.
    pub versions: u64,
    /// Keys in them.
    pub keys: u64,
    /// Signatures in them: one for each key, or one for each tree.
    pub signatures: u64,
    /// Bundles that still run though the epoch was revoked: they wait to be signed anew.
    pub to_renew: u64,
    /// What it has signed, as it was counted.
    pub made: OfSigned,
}

/// What one fleet has counted out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OfFleet {
    /// Its name.
    pub name: String,
    /// Status indexes counted out since the last restore.
    pub counted: u64,
    /// Keys recorded that have one of them.
    pub recorded: u64,
    /// Indexes that no recorded key has: purged with their bundles, counted out for what was
    /// signed and never committed, or in a block that a node has not used up.
    pub unrecorded: u64,
}

/// What an audit has come to.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Whether everything fits.
    pub sound: bool,
    /// Authorizations looked at, those of amended orders included.
    pub authorizations: u64,
    /// Bundles.
    pub bundles: u64,
    /// Versions of them.
    pub versions: u64,
    /// Keys in all versions.
    pub keys: u64,
    /// Signatures recorded.
    pub signatures: u64,
    /// Keys that are revoked or suspended.
    pub marks: u64,
    /// Status lists, as they were given out last.
    pub lists: u64,
    /// By epoch.
    pub epochs: BTreeMap<String, OfEpoch>,
    /// By fleet.
    pub fleets: BTreeMap<String, OfFleet>,
    /// How often each flaw was found.
    pub flaws: BTreeMap<&'static str, u64>,
    /// The first of them, one by one.
    pub findings: Vec<Finding>,
}

impl Report {
    fn find(&mut self, flaw: Flaw, of: impl ToString, detail: impl Into<String>) {
        *self.flaws.entry(flaw.code()).or_default() += 1;
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding {
                flaw,
                of: of.to_string(),
                detail: detail.into(),
                advice: flaw.advice(),
            });
        }
    }
}

/// What is known outside of the store.
#[derive(Clone, Debug)]
pub struct Known {
    /// A key that is or was the issuer's root.
    pub root: IssuerKey,
    /// The time.
    pub now: UnixTime,
    /// How often the HSM says it has signed with the key of an epoch.
    pub hsm_signed: BTreeMap<EpochId, u64>,
}

/// Checks everything `store` holds against everything else in it, and against what is known outside.
///
/// # Errors
/// The store's: then nothing is said about it.
pub fn audit(
    store: &dyn Whole,
    known: &Known,
    tell: &mut dyn FnMut(Progress),
) -> Result<Report, StoreError> {
    let Known {
        root,
        now,
        ref hsm_signed,
    } = *known;
    let mut report = Report::default();
    let about = ledger::KINDS.iter().chain(&issuer::KINDS);
    let about = about.map(|kind| store.about(*kind));
    tell(Progress::Begun(about.sum::<Result<_, _>>()?));
    let issuer = Issuer::read(store, tell)?;
    issuer.check(root, now, &mut report);
    issuer.made.check(&mut report);
    let trusted = issuer.trusted(root, now).ok();
    let checker = Checker::new(&issuer, trusted.as_ref(), now);
    let lists = Lists::read(store, &issuer, trusted.as_ref(), &mut report)?;
    let mut ledger = Ledger::read(store, &issuer, lists, &mut report, tell)?;
    ledger.bundles(store, &checker, &mut report, tell)?;
    ledger.close(store, now, &mut report, tell)?;
    signed::check(&issuer, hsm_signed, &mut report);
    report.sound = report.flaws.is_empty();
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flaws_have_words_of_their_own_and_say_what_to_do() {
        let mut codes: Vec<_> = Flaw::ALL.iter().map(|flaw| flaw.code()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Flaw::ALL.len());
        assert!(Flaw::ALL.iter().all(|flaw| flaw.advice().len() > 20));
    }

    #[test]
    fn findings_are_bounded_and_all_of_them_counted() {
        let mut report = Report::default();
        for _ in 0..=FINDINGS_MAX {
            report.find(Flaw::NotRevoked, "x", "y");
        }
        assert_eq!(report.findings.len(), FINDINGS_MAX);
        assert_eq!(report.flaws["not_revoked"], FINDINGS_MAX as u64 + 1);
    }
}
