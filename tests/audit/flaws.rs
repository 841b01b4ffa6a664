//! Each flaw, in a store that was damaged so that it has it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fob::clock::{Clock, SystemClock};
use fob::domain::{AuthorizationState, BundleId, EpochId, EpochState};
use fob::engine::audit::{Flaw, Known, Report, audit};
use fob::store::sqlite::{Sqlite, SqliteConfig};
use fob::store::whole::{Entry, Kind, Whole};
use fob::store::{Proof, StoreError};
use fob_verify::IssuerKey;

use super::used;
use crate::support::garage::Garage;

/// What a store holds, by kind.
type Held = Vec<(Kind, Vec<Entry>)>;

fn held(store: &Sqlite) -> Held {
    let read = |kind| {
        let mut all = Vec::new();
        let mut each = |entry| {
            all.push(entry);
            Ok::<_, StoreError>(())
        };
        store.export(kind, &mut each).unwrap();
        (kind, all)
    };
    Kind::ALL.into_iter().map(read).collect()
}

fn of(held: &mut Held, kind: Kind) -> &mut Vec<Entry> {
    &mut held.iter_mut().find(|(one, _)| *one == kind).unwrap().1
}

/// What is found in a store that holds this.
fn found(held: &Held, root: IssuerKey) -> Report {
    let dir = tempfile::tempdir().unwrap();
    let store = Sqlite::create(&dir.path().join("fob.db"), SqliteConfig::default()).unwrap();
    for (_, entries) in held {
        store.import(entries, "").unwrap();
    }
    let known = Known {
        root,
        now: SystemClock.unix(),
        hsm_signed: BTreeMap::new(),
    };
    audit(&store, &known, &mut |_| {}).unwrap()
}

/// Does something to the first entry of a kind that lets it.
fn first(held: &mut Held, kind: Kind, with: impl FnMut(&mut Entry) -> bool) {
    assert!(of(held, kind).iter_mut().any(with), "{kind:?}");
}

/// The same for bundles that were redeemed.
fn bundle(held: &mut Held, mut with: impl FnMut(&mut fob::store::SignedBundle)) {
    first(held, Kind::Bundles, |entry| match entry {
        Entry::Bundle(signed, None) => {
            with(signed);
            true
        }
        _ => false,
    });
}

/// What breaks a store, and what is then found at least.
type Case = (Flaw, fn(&mut Held));

const CASES: [Case; 25] = [
    (Flaw::TrustListVoid, |held| {
        first(held, Kind::TrustLists, |entry| {
            let Entry::TrustList(_, bytes) = entry else {
                return false;
            };
            let mut bent = bytes.to_vec();
            *bent.last_mut().unwrap() ^= 1;
            *bytes = bent.into();
            true
        });
    }),
    (Flaw::EpochUnlisted, |held| {
        first(held, Kind::Epochs, |entry| {
            let Entry::Epoch(_, epoch) = entry else {
                return false;
            };
            epoch.id = EpochId([9; 8]);
            true
        });
        of(held, Kind::Bundles).clear();
        of(held, Kind::Orders).clear();
    }),
    (Flaw::EpochsActive, |held| {
        let Some(Entry::Epoch(_, epoch)) = of(held, Kind::Epochs).first().cloned() else {
            return;
        };
        let mut other = epoch;
        (other.id, other.state) = (EpochId([9; 8]), EpochState::Active);
        of(held, Kind::Epochs).push(Entry::Epoch(9, other));
    }),
    (Flaw::RecordWrong, |held| {
        first(held, Kind::Records, |entry| match entry {
            Entry::Record(_, text) => {
                *text = format!("{text}A").into();
                true
            }
            _ => false,
        });
    }),
    (Flaw::OwnerUnknown, |held| {
        of(held, Kind::Identities)
            .retain(|entry| !matches!(entry, Entry::Identity(it) if it.id.as_str() == "owner-1"));
    }),
    (Flaw::TerminalOfNobody, |held| {
        of(held, Kind::Identities)
            .retain(|entry| !matches!(entry, Entry::Identity(it) if it.id.as_str() == "owner-1"));
    }),
    (Flaw::BundleUnreadable, |held| {
        bundle(held, |signed| signed.bundle.issuer = "".into());
    }),
    (Flaw::SignatureWrong, |held| {
        bundle(held, |signed| match &mut signed.proof {
            Proof::Each(signatures) => signatures[0][9] ^= 1,
            Proof::Tree(proof) => proof.signature[9] ^= 1,
        });
    }),
    (Flaw::SignatureWrong, |held| {
        bundle(held, |signed| signed.bundle.window.not_after += 1);
    }),
    (Flaw::IssuerUntrusted, |held| {
        bundle(held, |signed| signed.bundle.issued_at = 1);
    }),
    (Flaw::RedeemedTwice, |held| {
        let mut copy = None;
        bundle(held, |signed| copy = Some(signed.clone()));
        let mut copy = copy.unwrap();
        copy.bundle.id = BundleId([7; 16]);
        of(held, Kind::Bundles).push(Entry::Bundle(Box::new(copy), None));
    }),
    (Flaw::StillOpen, |held| {
        first(held, Kind::Authorizations, |entry| match entry {
            Entry::Authorization(it, _, Some(_)) => {
                it.state = AuthorizationState::Open;
                true
            }
            _ => false,
        });
    }),
    (Flaw::VersionAhead, |held| {
        first(held, Kind::Authorizations, |entry| match entry {
            Entry::Authorization(it, _, Some(_)) if it.version == 2 => {
                it.version = 1;
                true
            }
            _ => false,
        });
    }),
    (Flaw::BundleMissing, |held| {
        of(held, Kind::Bundles).retain(|entry| !matches!(entry, Entry::Bundle(_, None)));
    }),
    (Flaw::RequestOfNothing, |held| {
        first(held, Kind::Orders, |entry| match entry {
            Entry::Order { bundle, .. } => {
                *bundle = BundleId([7; 16]);
                true
            }
            _ => false,
        });
    }),
    (Flaw::IndexTwice, |held| {
        bundle(held, |signed| {
            let keys = &mut signed.bundle.keys;
            keys[0].status_index = keys[1].status_index;
        });
    }),
    (Flaw::IndexAhead, |held| {
        first(held, Kind::Fleets, |entry| match entry {
            Entry::Fleet(fleet) => {
                fleet.status_next = 0;
                true
            }
            _ => false,
        });
    }),
    (Flaw::ListOfAnother, |held| {
        bundle(held, |signed| {
            let mut subjects = signed.bundle.subjects.to_vec();
            subjects[0].status_uri = "http://x/v1/status/99999999-0".into();
            signed.bundle.subjects = Arc::from(subjects);
        });
    }),
    (Flaw::ActMissing, |held| {
        // The last token was made by hand.
        let made = |entry: &Entry| match entry {
            Entry::Act(number, act) if act.act == "token.create" => Some(*number),
            _ => None,
        };
        let last = of(held, Kind::Acts).iter().filter_map(made).max();
        of(held, Kind::Acts).retain(|entry| made(entry).is_none() || made(entry) != last);
        // It came in the same second as the first, or later.
        first(held, Kind::Acts, |entry| match entry {
            Entry::Act(_, act) if act.act == "token.create" => {
                act.at -= 1;
                true
            }
            _ => false,
        });
    }),
    (Flaw::ActMissing, |held| {
        of(held, Kind::Acts)
            .retain(|entry| !matches!(entry, Entry::Act(_, it) if it.act == "fleet.create"));
        first(held, Kind::Acts, |entry| match entry {
            Entry::Act(_, act) if act.act == "token.create" => {
                act.at -= 3600;
                true
            }
            _ => false,
        });
    }),
    (Flaw::NotRevoked, |held| of(held, Kind::Statuses).clear()),
    (Flaw::SignedFewer, |held| {
        counts(held, |count| count.made.signed = 1);
    }),
    (Flaw::VersionsLost, |held| {
        of(held, Kind::Bundles).pop();
    }),
    (Flaw::VersionUncounted, |held| {
        of(held, Kind::Signatures).clear();
    }),
    (Flaw::SignaturesDiffer, |held| {
        counts(held, |count| count.recorded.trees += 1);
    }),
];

/// Does something to what was counted.
fn counts(held: &mut Held, mut with: impl FnMut(&mut fob::store::SignatureCount)) {
    first(held, Kind::Signatures, |entry| match entry {
        Entry::Signatures(count) => {
            with(count);
            true
        }
        _ => false,
    });
}

/// Flaws that no store of this kind can be brought to, since it does not read what would show them;
/// and those that other tests bring it to, since they are not in what is held of it.
const ELSEWHERE: [Flaw; 6] = [
    Flaw::EpochUnknown,
    Flaw::BundleUnclaimed,
    Flaw::HsmSignedFewer,
    Flaw::HsmSignedMore,
    Flaw::ListWrong,
    Flaw::ListMisstates,
];

#[test]
fn each_flaw_is_found() {
    let (garage, ..) = used();
    let Garage { issuer, server, .. } = garage;
    server.stop();
    let root = std::fs::read(issuer.file("root.cbor")).unwrap();
    let root = IssuerKey::decode(&root).unwrap();
    let store = Sqlite::open(&issuer.file("fob.db"), SqliteConfig::default()).unwrap();
    let held = held(&store);
    let whole = found(&held, root);
    assert!(whole.sound, "{:?}", whole.findings);
    for (flaw, damage) in CASES {
        let mut damaged = held.clone();
        damage(&mut damaged);
        let report = found(&damaged, root);
        let flaws = &report.flaws;
        assert!(
            !report.sound && flaws.contains_key(flaw.code()),
            "{flaw:?}: {flaws:?}"
        );
        let named = report.findings.iter().any(|one| one.flaw == flaw);
        assert!(named, "{flaw:?}: {:?}", report.findings);
    }
    let tried: BTreeSet<_> = CASES
        .iter()
        .map(|(flaw, _)| *flaw)
        .chain(ELSEWHERE)
        .collect();
    assert_eq!(tried, Flaw::ALL.iter().copied().collect());
}
