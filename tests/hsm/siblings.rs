//! Sibling epochs, one in each of two tokens, made by command: nothing here is written into the
//! store by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::thread;

use fob_verify::key::SignedKey;
use fob_verify::{IssuerKey, RustCrypto, trust};
use serde_json::Value;

use super::several::{kids, name_both, status};
use crate::support::far::Far;
use crate::support::garage::keys;
use crate::support::{Issuer, Phone, Server, now};

/// A window that is open now and for long.
const WIDE: &str = "now/2099-01-01T00:00:00Z";

/// Many small batches, so that both tokens get some.
const BATCHES: (&str, &str) = ("FOB_ENGINE_BATCH_BUNDLES_MAX", "1");

/// Callers at once.
const CALLERS: usize = 6;

/// An issuer with a second token, behind p11-kit, that has no epoch of it yet.
struct Two {
    near: Issuer,
    far: Far,
    server: Option<Server>,
    /// The serial numbers, its own first.
    serials: [String; 2],
    _other: Issuer,
}

impl Two {
    fn new() -> Self {
        let (near, other) = (Issuer::demo(), Issuer::demo());
        name_both(&near, &other);
        let far = Far::of(&other);
        let (name, address) = far.address();
        let server = near.serve_with(&[(name, &address), BATCHES]);
        let tokens = status(&near);
        let serials = [0, 1].map(|at| tokens[at]["serial"].as_str().unwrap().to_owned());
        Self {
            near,
            far,
            server: Some(server),
            serials,
            _other: other,
        }
    }

    fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    /// Every epoch: its id, its state, its token.
    fn epochs(&self) -> Vec<[String; 3]> {
        let rows = self.near.fob(&["epoch", "list", "--json"]);
        let rows: Vec<Value> = serde_json::from_str(&rows).unwrap();
        let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
        rows.iter()
            .map(|row| ["id", "state", "token_serial"].map(|name| text(row, name)))
            .collect()
    }

    /// For each token its epochs in that state.
    fn each(&self, state: &str) -> [Vec<String>; 2] {
        let epochs = self.epochs();
        self.serials.each_ref().map(|serial| {
            let own = epochs
                .iter()
                .filter(|[_, is, of]| is == state && of == serial);
            own.map(|[id, ..]| id.clone()).collect()
        })
    }

    /// The one active epoch of each token.
    fn active(&self) -> [String; 2] {
        self.each("active").map(|mut own| {
            assert_eq!(own.len(), 1, "exactly one: {own:?}");
            own.remove(0)
        })
    }

    fn trust_list(&self) -> Vec<u8> {
        self.server().get("/v1/trust", &[]).body
    }

    /// The ids on the trust list a car would get now.
    fn listed(&self) -> BTreeSet<String> {
        let (list, root) = (self.trust_list(), self.root());
        let list = trust::verify(&list, &[root], now(), &RustCrypto).unwrap();
        list.entries()
            .map(|entry| fob::domain::EpochId(entry.key.kid()).to_string())
            .collect()
    }

    fn root(&self) -> IssuerKey {
        let root = std::fs::read(self.near.file("root.cbor")).unwrap();
        IssuerKey::decode(&root).unwrap()
    }

    /// Callers redeem until each of these epochs has signed so many bundles; no other does, and
    /// every key is believed. The bundles, by the epoch that signed them.
    fn sign_under(&self, epochs: &[String], each: usize) -> BTreeMap<String, Vec<String>> {
        let (owner, seen) = (self.near.owner(), Mutex::new(BTreeMap::<_, Vec<_>>::new()));
        let enough = || {
            let seen = seen.lock().unwrap();
            let count = |id| seen.get(id).map_or(0, Vec::len);
            epochs.iter().all(|id| count(id) >= each)
        };
        let call = || {
            for _ in 0..500 {
                if enough() {
                    return;
                }
                let code_set = self
                    .server()
                    .authorize(&owner, "DEMO-0001", &["doors.unlock"]);
                let answer = self.server().redeem(&code_set, "renter-1", &Phone::new());
                assert_eq!(answer.status, 201, "{}", answer.text());
                let bundle = answer.value()["bundle"].as_str().unwrap().to_owned();
                for signer in self.believed(&answer.body) {
                    let mut seen = seen.lock().unwrap();
                    seen.entry(signer).or_default().push(bundle.clone());
                }
            }
        };
        // The nearer one is the faster: the other is asked where there are many.
        thread::scope(|scope| (0..CALLERS).for_each(|_| drop(scope.spawn(call))));
        assert!(enough(), "{epochs:?} do not all sign: {seen:?}");
        let seen = seen.into_inner().unwrap();
        let signed: BTreeSet<_> = seen.keys().collect();
        assert_eq!(signed, epochs.iter().collect());
        seen
    }

    /// The epochs that signed a bundle, which a car believes.
    fn believed(&self, bundle: &[u8]) -> BTreeSet<String> {
        let (list, root) = (self.trust_list(), self.root());
        let list = trust::verify(&list, &[root], now(), &RustCrypto).unwrap();
        let value: Value = serde_json::from_slice(bundle).unwrap();
        for key in value["keys"].as_array().unwrap() {
            use base64::Engine as _;
            let text = key["key"].as_str().unwrap();
            let bytes = base64::prelude::BASE64_URL_SAFE_NO_PAD
                .decode(text)
                .unwrap();
            let key = SignedKey::decode(&bytes).unwrap();
            key.verify(&list, &RustCrypto).unwrap();
        }
        assert!(!keys(&value).is_empty());
        let id = |kid: Vec<u8>| fob::domain::EpochId(kid.try_into().unwrap()).to_string();
        kids(bundle).into_iter().map(id).collect()
    }

    /// Runs a command with no server, the far token at hand.
    fn alone(&self, args: &[&str]) {
        let (name, address) = self.far.address();
        let done = self.near.command(args).env(name, address).output().unwrap();
        let complaint = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "fob {args:?}: {complaint}");
    }
}

#[test]
fn each_token_gets_an_epoch_by_command_and_all_are_believed() {
    let mut two = Two::new();
    let [first, none] = two.each("active");
    assert_eq!((first.len(), none.len()), (1, 0));
    two.sign_under(&first, 1);
    // One that is open now would sign before any car knows it; as it is planned they go together.
    let refused = two.near.fob_fails(&["epoch", "prepare", "--window", WIDE]);
    assert!(refused.contains("fob epoch rotate"), "{refused}");
    assert!(two.each("prepared").iter().all(Vec::is_empty));
    two.near.fob(&["epoch", "prepare", "--count", "2"]);
    let rows = two.near.fob(&["epoch", "list", "--json"]);
    let rows: Vec<Value> = serde_json::from_str(&rows).unwrap();
    let windows = two.serials.each_ref().map(|serial| {
        let own = rows
            .iter()
            .filter(|row| row["state"] == "prepared" && row["token_serial"] == serial.as_str());
        own.map(|row| (row["not_before"].clone(), row["not_after"].clone()))
            .collect::<Vec<_>>()
    });
    assert_eq!(windows[0].len(), 2);
    assert_eq!(windows[0], windows[1]);
    let all = two.epochs().into_iter();
    assert_eq!(two.listed(), all.map(|[id, ..]| id).collect());

    // At once, in both.
    two.near.fob(&["epoch", "rotate", "--now"]);
    let before = two.active();
    assert!(!before.contains(&first[0]));
    two.sign_under(&before, 1);
    let planned = two.each("prepared");
    two.near.fob(&["epoch", "prepare", "--window", WIDE]);
    let [of_near, of_far] = [0, 1].map(|at| {
        let mut own = two.each("prepared")[at].clone();
        own.retain(|id| !planned[at].contains(id));
        assert_eq!(own.len(), 1);
        own.remove(0)
    });
    // The far token's begins to sign, the near one's waits.
    two.near.fob(&["epoch", "activate", &of_far]);
    assert_eq!(two.active(), [before[0].clone(), of_far.clone()]);
    two.sign_under(&two.active(), 1);
    two.near.fob(&["epoch", "activate", &of_near]);
    assert_eq!(two.active(), [of_near, of_far]);
    two.sign_under(&two.active(), 1);

    // Each token says which epoch its keys are of.
    for (token, id) in status(&two.near).iter().zip(two.active()) {
        let keys = token["keys"].as_array().unwrap();
        let mut active = keys.iter().filter(|key| key["state"] == "active");
        assert_eq!(active.next().unwrap()["epoch"], id.as_str());
        assert!(active.next().is_none());
    }
    // Without a server the same.
    assert!(two.server.take().unwrap().stop());
    let before = two.active();
    two.alone(&["epoch", "rotate", "--now"]);
    let after = two.active();
    assert!(
        before
            .iter()
            .zip(&after)
            .all(|(before, after)| before != after)
    );
    let (name, address) = two.far.address();
    two.server = Some(two.near.serve_with(&[(name, &address), BATCHES]));
    two.sign_under(&after, 1);
    // The record of a step names every token it was about.
    let records = two.near.fob(&["epoch", "records", "--json"]);
    let records: Vec<Value> = serde_json::from_str(&records).unwrap();
    let tokens = records.last().unwrap()["record"]["tokens"]
        .as_array()
        .unwrap();
    let tokens: Vec<_> = tokens.iter().map(|token| token["serial"].clone()).collect();
    for serial in &two.serials {
        assert!(tokens.contains(&serial.as_str().into()), "{tokens:?}");
    }
}

#[test]
fn a_change_that_one_token_cannot_make_is_made_in_none() {
    let mut two = Two::new();
    two.near.fob(&["epoch", "rotate"]);
    let (before, list) = (two.epochs(), two.trust_list());
    two.far.kill();
    for step in [
        &["epoch", "rotate"][..],
        &["epoch", "prepare", "--window", WIDE],
    ] {
        let refused = two.near.fob_fails(step);
        assert!(refused.contains("HSM"), "{refused}");
        assert_eq!(two.epochs(), before);
        assert_eq!(two.trust_list(), list);
    }
    // The near token, which could have, goes on under the epoch it had.
    two.sign_under(&[two.active()[0].clone()], 1);
    two.far.start();
    super::outage::until("the far token is there again", || {
        let rotated = two.near.command(&["epoch", "rotate"]).output().unwrap();
        rotated.status.success()
    });
    let after = two.active();
    assert!(
        before.iter().all(|[id, ..]| !after.contains(id)),
        "{after:?}"
    );
    let status = two.near.fob(&["epoch", "status", "--json"]);
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(
        status["spare_keys"],
        serde_json::json!([]),
        "none is left over"
    );
}

#[test]
fn an_epoch_whose_token_is_gone_is_revoked_and_its_bundles_go_on_under_the_other() {
    let mut two = Two::new();
    two.near.fob(&["epoch", "rotate"]);
    let [near, far] = two.active();
    let bundles = two.sign_under(&two.active(), 5);
    let bundles: Vec<_> = bundles.into_values().flatten().collect();
    let token = two.near.token("read");
    // It was stolen, say.
    two.far.kill();
    two.near.fob(&["epoch", "revoke", &far, "--reissue"]);
    assert_eq!(two.each("active"), [vec![near.clone()], vec![]]);
    assert!(!two.listed().contains(&far));
    let bearer = format!("Bearer {token}");
    for id in &bundles {
        let path = format!("/v1/bundles/{id}");
        let stands = two.server().get(&path, &[("authorization", &bearer)]);
        let signers = two.believed(&stands.body);
        assert_eq!(signers, [near.clone()].into(), "{id}");
    }
    // Another token takes its place by command: here, the same one found again.
    two.far.start();
    super::outage::until("the far token has an epoch again", || {
        let rotated = two.near.command(&["epoch", "rotate"]).output().unwrap();
        rotated.status.success()
    });
    two.sign_under(&two.active(), 1);
}
