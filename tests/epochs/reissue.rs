//! The compromise drill: an epoch is revoked and what is live of it signed again, whoever is killed
//! on the way.

use std::collections::BTreeMap;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use fob::clock::{Clock as _, SystemClock};
use fob_verify::key::{Claims, encode_claims};
use fob_verify::status::Status;
use serde_json::json as object;

use super::*;
use crate::support::garage::{self, Garage};
use crate::support::{Phone, Server, authorization, time};

const TWO: [&str; 2] = ["doors.unlock", "engine.start"];
const ALL: [&str; 8] = [
    "doors.unlock",
    "doors.lock",
    "engine.start",
    "trunk.open",
    "windows.control",
    "climate.control",
    "locate.signal",
    "charge_port.open",
];

/// Orders in a call.
const CALL: usize = 500;

/// Times somebody is killed.
const KILLS: usize = 4;

/// About how many keys are live: 2,000, or as `FOB_DRILL_KEYS` says.
fn live_keys() -> usize {
    let asked = std::env::var("FOB_DRILL_KEYS").ok();
    asked.map_or(2_000, |count| count.parse().unwrap())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// The keys of a bundle as they were handed out.
fn bytes(bundle: &Value) -> Vec<Vec<u8>> {
    let keys = bundle["keys"].as_array().unwrap().iter();
    keys.map(|key| {
        BASE64_URL_SAFE_NO_PAD
            .decode(key["key"].as_str().unwrap())
            .unwrap()
    })
    .collect()
}

/// Bundles by their ids, as they stand.
type Bundles = BTreeMap<String, Value>;

/// What was issued before the epoch is revoked.
struct World {
    garage: Garage,
    /// What is to be signed again, and what is not.
    live: Vec<String>,
    dead: Vec<String>,
    /// A code set that was redeemed, by whom, and its bundle.
    redeemed: (String, Phone, String),
    revoked: String,
}

impl World {
    fn new(keys: usize) -> Self {
        let garage = Garage::new();
        for number in [1, 2] {
            let body =
                object!({ "identity": format!("renter-{number}"), "jwk": Phone::new().jwk() });
            let path = format!("/v1/terminals/phone-{number}");
            let put = garage.server.json_as(&garage.admin, "PUT", &path, &body);
            assert_eq!(put.status, 204);
        }
        let revoked = active(&garage.issuer);
        let phone = Phone::new();
        let (made, bundle) = garage.issue("DEMO-0001", &TWO, "renter-3", &phone);
        let mut world = Self {
            redeemed: (text(&made["code_set"]), phone, text(&bundle["bundle"])),
            live: vec![text(&bundle["bundle"])],
            dead: Vec::new(),
            garage,
            revoked,
        };
        world.redeem();
        world.order(keys);
        world
    }

    /// Redemptions, and what has become of them: changed, suspended, revoked in part or whole,
    /// expired.
    fn redeem(&mut self) {
        let garage = &self.garage;
        let issue = || {
            let (made, bundle) = garage.issue("DEMO-0002", &TWO, "renter-3", &Phone::new());
            (text(&made["authorization"]), bundle)
        };
        let path = |id: &str, what: &str| format!("/v1/authorizations/{id}{what}");
        for changes in 1..4 {
            let (id, bundle) = issue();
            for version in 1..=changes {
                let patch = object!({ "max_uses": { "engine.start": 10 * version } });
                let changed = garage.change(&id, version, &patch);
                assert_eq!(changed.status, 200, "{}", changed.text());
            }
            self.live.push(text(&bundle["bundle"]));
        }
        let (id, bundle) = issue();
        garage.done("POST", &path(&id, "/suspend"), &object!({}));
        self.live.push(text(&bundle["bundle"]));
        let (_, bundle) = issue();
        let key = object!({ "key": bundle["keys"][0]["id"] });
        garage.done("POST", "/v1/revocations", &key);
        self.live.push(text(&bundle["bundle"]));
        let (id, bundle) = issue();
        garage.done("DELETE", &path(&id, ""), &object!({}));
        self.dead.push(text(&bundle["bundle"]));
        let mut short = authorization("DEMO-0003", &TWO);
        let ends = now() + 3;
        short["not_after"] = time(ends).into();
        let made = garage.done("POST", "/v1/authorizations", &short);
        let code_set = text(&made["code_set"]);
        let bundle = garage.server.redeem(&code_set, "renter-3", &Phone::new());
        self.dead.push(text(&bundle.value()["bundle"]));
        wait_until("the short one has expired", || now() > ends);
    }

    /// Orders, most of them left as they are.
    fn order(&mut self, keys: usize) {
        let order = |n: usize| {
            object!({
                "ref": format!("r-{n}"),
                "vehicle": format!("DEMO-{:04}", n % 100 + 1),
                "functions": ALL,
                "not_before": time(now() - 60),
                "not_after": time(now() + 86_400),
                "recipient": { "identity": format!("renter-{}", n % 2 + 1), "terminal": format!("phone-{}", n % 2 + 1) },
            })
        };
        let garage = &self.garage;
        let bearer = format!("Bearer {}", garage.token);
        let headers = [
            ("content-type", "application/x-ndjson"),
            ("authorization", bearer.as_str()),
        ];
        let count = keys.div_ceil(ALL.len());
        let mut bundles = Vec::new();
        for first in (0..count).step_by(CALL) {
            let numbers = first..count.min(first + CALL);
            let body: String = numbers.map(|n| format!("{}\n", order(n))).collect();
            let answer = garage
                .server
                .send("POST", "/v1/batches", &headers, body.as_bytes());
            let lines = String::from_utf8(answer.body).unwrap();
            bundles.extend(lines.lines().map(|line| {
                let value: Value = serde_json::from_str(line).unwrap();
                assert_eq!(value["status"], "issued", "{line}");
                text(&value["bundle"]["bundle"])
            }));
        }
        assert_eq!(bundles.len(), count);
        let cancelled = bundles.pop().unwrap();
        let path = format!("/v1/authorizations/{cancelled}");
        garage.done("DELETE", &path, &object!({}));
        let patch = object!({ "functions": TWO });
        let changed = garage.change(&bundles[0], 1, &patch);
        assert_eq!(changed.status, 200, "{}", changed.text());
        self.dead.push(cancelled);
        self.live.extend(bundles);
    }

    /// Every bundle as it stands.
    fn bundles(&self) -> Bundles {
        let all = self.live.iter().chain(&self.dead);
        all.map(|id| (id.clone(), self.garage.bundle(id))).collect()
    }

    /// Which bundles are under another epoch's signature.
    fn renewed(&self, bundles: &Bundles) -> Bundles {
        let old = |bundle: &&Value| signers(&bytes(bundle)).contains(&self.revoked);
        let new = bundles.iter().filter(|(_, bundle)| !old(bundle));
        new.map(|(id, bundle)| (id.clone(), bundle.clone()))
            .collect()
    }

    fn command(&self) -> [&str; 4] {
        ["epoch", "revoke", &self.revoked, "--reissue"]
    }

    /// Has the store note every bundle that is signed again, in the transaction that does it.
    fn take_notes(&self) {
        let sql = "CREATE TABLE signed_again (bundle BLOB, epoch INTEGER);
                   CREATE TRIGGER note AFTER INSERT ON reissues BEGIN
                   INSERT INTO signed_again VALUES (new.authorization, new.epoch); END";
        self.store().execute_batch(sql).unwrap();
    }

    /// What the store has noted: notes, bundles in them, and notes under a revoked epoch.
    fn notes(&self) -> (i64, i64, i64) {
        // In the store's words 3 is revoked.
        let sql = "SELECT count(*), count(DISTINCT bundle), count(*) FILTER (WHERE epoch IN
                   (SELECT number FROM epochs WHERE state = 3)) FROM signed_again";
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        self.store().query_row(sql, [], read).unwrap()
    }

    fn store(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.garage.issuer.file("fob.db")).unwrap()
    }

    /// Begins the drill, and waits until the epoch is revoked and so many bundles were signed
    /// again, or it has ended.
    fn begin(&self, variables: &[(&str, &str)], until: usize) -> Child {
        let mut command = self.garage.issuer.command(&self.command());
        command.envs(variables.iter().copied());
        let mut child = command.stdout(Stdio::null()).spawn().unwrap();
        let store = self.store();
        let sql = "SELECT count(*) FROM signed_again
                   WHERE EXISTS (SELECT 1 FROM epochs WHERE state = 3)
                   HAVING EXISTS (SELECT 1 FROM epochs WHERE state = 3)";
        let mut notes = store.prepare(sql).unwrap();
        let mut begun = || {
            let mut rows = notes.query([]).unwrap();
            let noted: Option<i64> = rows.next().unwrap().map(|row| row.get(0).unwrap());
            noted.is_some_and(|noted| noted >= until as i64)
        };
        while !begun() && child.try_wait().unwrap().is_none() {
            thread::sleep(Duration::from_millis(1));
        }
        child
    }

    /// The garage's server, started again.
    fn serve(&mut self, variables: &[(&str, &str)]) {
        let address = self.garage.server.url.strip_prefix("http://").unwrap();
        let address = address.to_owned();
        self.garage.server = self.garage.issuer.serve_on(&address, variables);
    }

    /// The garage's server, taken out of it.
    fn server(&mut self) -> Server {
        let url = self.garage.server.url.clone();
        std::mem::replace(&mut self.garage.server, Server::at(url))
    }
}

/// Everything the keys of a bundle say, byte for byte, apart from when that was signed; and how
/// they stand.
fn says(bundle: &Value) -> (Vec<Vec<u8>>, String) {
    let claims = |key: Vec<u8>| {
        let signed = SignedKey::decode(&key).unwrap();
        let claims = Claims {
            issued_at: 0,
            ..*signed.unverified()
        };
        let mut bytes = Vec::new();
        encode_claims(&mut bytes, &claims).unwrap();
        bytes
    };
    let claims = bytes(bundle).into_iter().map(claims).collect();
    let stands = format!("{} {:?}", bundle["version"], garage::statuses(bundle));
    (claims, stands)
}

/// A machine with much else to do may come to the kill only when there is nothing left to sign.
#[test]
fn every_live_bundle_is_signed_again_once_whoever_is_killed() {
    let killed_in_the_middle = (0..10).any(|_| is_signed_again_once_whoever_is_killed());
    assert!(killed_in_the_middle);
}

/// Whether every kill came in the middle; nothing else was looked at where one did not.
fn is_signed_again_once_whoever_is_killed() -> bool {
    let mut world = World::new(live_keys());
    let before = world.bundles();
    let old_list = world.garage.server.get("/v1/trust", &[]).body;
    let live = world.live.len();
    // Batches so small that there is a middle to be killed in.
    let batch = (live / 500).max(1).to_string();
    let small = [("FOB_ENGINE_BATCH_BUNDLES_MAX", batch.as_str())];
    world.server().stop();
    world.take_notes();
    let mut renewed = Bundles::new();
    for kill in 0..KILLS {
        // At first when nothing is signed again yet.
        let until = live * kill * 3 / (KILLS * 4);
        if kill % 2 == 0 {
            // The server is killed, and the command fails.
            world.serve(&small);
            let mut child = world.begin(&[], until);
            world.server().kill();
            if child.wait().unwrap().success() {
                return false;
            }
        } else {
            // The command is, which has the directory to itself.
            let mut child = world.begin(&small, until);
            child.kill().unwrap();
            if child.wait().unwrap().success() {
                return false;
            }
        }
        // As it was left.
        crate::audit::sound(&world.garage.issuer);
        world.serve(&small);
        let now = world.renewed(&world.bundles());
        if now.len() == live {
            return false;
        }
        assert!(now.len() >= until, "{} of {live}", now.len());
        // What had been signed again was not a second time.
        for (id, bundle) in &renewed {
            assert_eq!(bytes(&now[id]), bytes(bundle), "{id}");
        }
        renewed = now;
        if kill + 1 < KILLS {
            world.server().stop();
        }
    }
    let report = finish(&world);
    assert_eq!(report["live"], live - renewed.len());
    assert_eq!(report["reissued"], live - renewed.len());
    assert_eq!(
        (&report["left"], &report["otherwise"]),
        (&0.into(), &0.into())
    );
    let all = live as i64;
    assert_eq!(world.notes(), (all, all, 0), "each once, by the store");
    check(&world, &before, &old_list);
    let after = world.bundles();
    for (id, bundle) in &renewed {
        assert_eq!(bytes(&after[id]), bytes(bundle), "{id}");
    }
    // And now there is nothing to do.
    let again = drill(&world);
    assert_eq!((&again["live"], &again["reissued"]), (&0.into(), &0.into()));
    assert_eq!(world.bundles(), after);
    assert_eq!(world.notes(), (all, all, 0));
    true
}

/// Runs the drill to its end; its report.
fn drill(world: &World) -> Value {
    let said = world
        .garage
        .issuer
        .fob(&[&world.command()[..], &["--json"]].concat());
    let lines = said.lines().map(|line| serde_json::from_str(line).unwrap());
    let mut lines: Vec<Value> = lines.collect();
    let last = lines.pop().unwrap();
    let report = last["reissue"].clone();
    // How far it is, line by line.
    let mut so_far = 0;
    for line in &lines {
        assert_eq!(line["of"], report["live"]);
        let reissued = line["reissued"].as_u64().unwrap();
        assert!(reissued >= so_far, "{line}");
        so_far = reissued;
    }
    assert_eq!(report["reissued"], so_far);
    report
}

/// The same, while others redeem.
fn finish(world: &World) -> Value {
    let clock = SystemClock;
    let began = clock.monotonic();
    let (over, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let phone = Phone::new();
                world.garage.issue("DEMO-0004", &TWO, "renter-4", &phone);
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
        let report = drill(world);
        over.store(true, Ordering::Relaxed);
        let took = clock.monotonic().saturating_sub(began);
        println!("the last part, in {took:?}: {report}");
        assert!(done.load(Ordering::Relaxed) > 0, "others went on meanwhile");
        report
    })
}

/// What a car makes of everything that was issued, before and after.
fn check(world: &World, before: &Bundles, old_list: &[u8]) {
    let after = world.bundles();
    let roots = [root(&world.garage.issuer)];
    let list = world.garage.server.get("/v1/trust", &[]).body;
    let next: BTreeSet<_> = [active(&world.garage.issuer)].into();
    for id in &world.live {
        let (old, new) = (&before[id], &after[id]);
        assert_eq!(says(old), says(new), "{id}");
        assert_eq!(signers(&bytes(new)), next, "{id}");
        assert_eq!(believed(&list, &roots, &bytes(new)), Ok(()), "{id}");
        assert_eq!(believed(old_list, &roots, &bytes(old)), Ok(()), "{id}");
        for key in bytes(old) {
            let refused = believed(&list, &roots, &[key]);
            assert_eq!(refused, Err(Refusal::UnknownIssuer), "{id}");
        }
    }
    for id in &world.dead {
        assert_eq!(before[id], after[id], "{id} is dead");
    }
    // Suspended is suspended, for a car too, by a list that it believes.
    let suspended = world.live.iter().map(|id| &after[id]);
    let suspended = suspended.filter(|bundle| {
        garage::statuses(bundle)
            .values()
            .all(|status| status == "suspended")
    });
    let suspended: Vec<_> = suspended.flat_map(garage::keys).collect();
    assert_eq!(suspended.len(), TWO.len());
    for key in &suspended {
        assert_eq!(world.garage.status(key), Status::Suspended);
    }
    // The record says what was asked for.
    let records = json(&world.garage.issuer, &["epoch", "records"]);
    let step = &records.as_array().unwrap().last().unwrap()["record"]["step"];
    let asked = object!({ "kind": "revoke", "epoch": world.revoked, "reissue": true });
    assert_eq!(step, &asked);
    // The borrower sends the same redemption again and gets what is believed.
    let (code_set, phone, bundle) = &world.redeemed;
    let again = world.garage.server.redeem(code_set, "renter-3", phone);
    assert_eq!(bytes(&again.value()), bytes(&after[bundle]));
}

#[test]
fn under_dual_control_the_approval_begins_it_and_no_server_is_needed() {
    let issuer = Issuer::demo();
    let server = issuer.serve();
    let code_set = server.authorize(&issuer.owner(), "DEMO-0001", &TWO);
    let phone = Phone::new();
    let before = server.redeem(&code_set, "renter-1", &phone);
    server.stop();
    for name in ["anna", "ben"] {
        consent::add(&issuer, name, &[]);
    }
    configure(&issuer, "[epochs]\ndual_control = true");
    let revoked = active(&issuer);
    let step = ["epoch", "revoke", &revoked, "--reissue"];
    let refused = issuer.fob_fails(&step);
    assert!(refused.contains("dual control is on"), "{refused}");
    let number = consent::propose(&issuer, &step);
    assert_eq!(active(&issuer), revoked, "proposed only");
    let ben = consent::key(&issuer, "ben");
    let said = issuer.fob(&[
        "epoch",
        "approve",
        &number,
        "--operator",
        "ben",
        "--key",
        &ben,
    ]);
    assert!(said.contains("1 of 1 live bundles"), "{said}");
    let server = issuer.serve();
    let after = server.redeem(&code_set, "renter-1", &phone);
    let list = server.get("/v1/trust", &[]).body;
    assert_eq!(says(&before.value()), says(&after.value()));
    assert_eq!(believed(&list, &[root(&issuer)], &keys(&after)), Ok(()));
    assert_eq!(signers(&keys(&after)), [active(&issuer)].into());
    // Going on needs nobody's consent: there is nothing to consent to.
    let said = issuer.fob(&step);
    assert!(said.contains("0 of 0 live bundles"), "{said}");
}
