//! `fob audit`: what fits is found sound, and each thing that does not is found and named.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::collections::BTreeSet;
use std::sync::Arc;

use fob::clock::{Clock, SystemClock};
use fob::domain::{AuthorizationState, BundleId, EpochId, EpochState};
use fob::engine::audit::{Flaw, Report, audit};
use fob::store::sqlite::{Sqlite, SqliteConfig};
use fob::store::whole::{Entry, Kind, Whole};
use fob::store::{Proof, StoreError};
use fob_verify::IssuerKey;
use serde_json::{Value, json};

use crate::batches::order;
use crate::support::garage::Garage;
use crate::support::{Issuer, Phone};

const TWO: [&str; 2] = ["doors.unlock", "engine.start"];

/// What the stopped issuer of the garage says of itself.
pub fn sound(issuer: &Issuer) -> Value {
    let report: Value = serde_json::from_str(&issuer.fob(&["audit", "--json"])).unwrap();
    assert_eq!(report["sound"], true, "{report}");
    report
}

fn revoke(garage: &Garage, what: &Value) {
    let answer = garage
        .server
        .json_as(&garage.token, "POST", "/v1/revocations", what);
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// A stopped issuer that has issued each and together, changed, ended and orders; with what it has
/// handed out: bundles and keys, those of all versions.
fn used() -> (Garage, u64, u64) {
    let garage = Garage::new();
    let phone = Phone::new();
    let (changed, _) = garage.issue("DEMO-0001", &TWO, "renter-1", &phone);
    let id = changed["authorization"].as_str().unwrap();
    let answer = garage.change(id, 1, &json!({ "functions": ["doors.unlock"] }));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let (ended, _) = garage.issue("DEMO-0002", &TWO, "renter-2", &phone);
    revoke(&garage, &json!({ "authorization": ended["authorization"] }));
    garage.issue("DEMO-0003", &TWO, "renter-3", &phone);
    garage.server.authorize(&garage.owner, "DEMO-0004", &TWO);
    for (terminal, identity) in [("phone-1", "renter-1"), ("phone-2", "renter-2")] {
        let body = json!({ "identity": identity, "jwk": Phone::new().jwk() });
        let path = format!("/v1/terminals/{terminal}");
        let put = garage.server.json_as(&garage.admin, "PUT", &path, &body);
        assert_eq!(put.status, 204, "{}", put.text());
    }
    let bearer = format!("Bearer {}", garage.token);
    let headers = [
        ("content-type", "application/x-ndjson"),
        ("authorization", bearer.as_str()),
        ("idempotency-key", "a"),
    ];
    let lines = (1..=8).map(|n| {
        let mut line = order(&format!("r-{n}"), n);
        line["signing"] = json!("auto");
        format!("{line}\n")
    });
    let body: String = lines.collect();
    let issued = garage
        .server
        .send("POST", "/v1/batches", &headers, body.as_bytes());
    assert_eq!(issued.text().matches("\"issued\"").count(), 8);
    (garage, 3 + 8, 3 * 2 + 1 + 8 * 2)
}

#[test]
fn an_issuer_that_was_used_is_sound_and_counts_what_it_signed() {
    let (mut garage, bundles, keys) = used();
    garage.crash();
    let said = garage.issuer.fob_fails(&["audit"]);
    assert!(
        said.contains("stop it first") && said.contains("--file"),
        "{said}"
    );
    // A copy can be looked at meanwhile.
    let copy = garage.issuer.file("copy.db").display().to_string();
    let connection = rusqlite::Connection::open(garage.issuer.file("fob.db")).unwrap();
    connection.execute("VACUUM INTO ?1", [&copy]).unwrap();
    drop(connection);
    let of_copy: Value =
        serde_json::from_str(&garage.issuer.fob(&["audit", "--json", "--file", &copy])).unwrap();
    let Garage { issuer, server, .. } = garage;
    server.stop();
    let report = sound(&issuer);
    for counted in ["bundles", "keys", "authorizations", "marks"] {
        assert_eq!(report[counted], of_copy[counted], "{counted}");
    }
    assert_eq!(report["bundles"], bundles, "{report}");
    assert_eq!(report["keys"], keys, "{report}");
    let fleet = report["fleets"]
        .as_object()
        .unwrap()
        .values()
        .next()
        .unwrap();
    assert_eq!(fleet["recorded"], keys);
    // What was counted out and not committed: nothing, for nothing failed.
    assert_eq!(fleet["unrecorded"], 0, "{report}");
    let of_epochs = report["epochs"].as_object().unwrap().values();
    let signed: u64 = of_epochs.map(|of| of["signatures"].as_u64().unwrap()).sum();
    assert_eq!(report["signatures"], signed);
    let text = issuer.fob(&["audit"]);
    assert!(text.contains("everything fits"), "{text}");
}

#[test]
fn what_the_hsm_signed_is_what_was_recorded() {
    let garage = Garage::new();
    let metric = |name: &str| {
        let text = String::from_utf8(garage.server.get("/metrics", &[]).body).unwrap();
        let found = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        found.map_or(0.0, |number| number.parse::<f64>().unwrap())
    };
    let signed = || metric("fob_hsm_signatures_total");
    let before = signed();
    for n in 1..=20 {
        garage.issue(&format!("DEMO-{n:04}"), &TWO, "renter-1", &Phone::new());
    }
    let made = signed() - before;
    let Garage { issuer, server, .. } = garage;
    server.stop();
    let report = sound(&issuer);
    assert_eq!(report["signatures"].as_f64(), Some(made), "{report}");
}

#[test]
fn a_finding_is_told_with_what_to_do_and_fails_the_command() {
    let (garage, ..) = used();
    let Garage { issuer, server, .. } = garage;
    server.stop();
    let connection = rusqlite::Connection::open(issuer.file("fob.db")).unwrap();
    connection.execute("DELETE FROM statuses", []).unwrap();
    drop(connection);
    let done = issuer.command(&["audit", "--json"]).output().unwrap();
    assert_eq!(done.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(report["sound"], false);
    // Both keys of the one that was ended, and the function that was taken off the other.
    assert_eq!(report["flaws"]["not_revoked"], 3, "{report}");
    let finding = &report["findings"][0];
    assert_eq!(finding["flaw"], "not_revoked");
    assert!(
        finding["of"].as_str().unwrap().starts_with("bundle "),
        "{finding}"
    );
    assert!(
        finding["advice"].as_str().unwrap().contains("revocation"),
        "{finding}"
    );
    let done = issuer.command(&["audit"]).output().unwrap();
    let text = String::from_utf8(done.stdout).unwrap();
    assert!(text.contains("send the revocation again"), "{text}");
}

// ---- each flaw -----------------------------------------------------------------------------

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
    audit(&store, root, SystemClock.unix(), &mut |_| {}).unwrap()
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

const CASES: [Case; 21] = [
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
];

/// Flaws that no store of this kind can be brought to: it does not read what would show them.
const ELSEWHERE: [Flaw; 2] = [Flaw::EpochUnknown, Flaw::BundleUnclaimed];

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
