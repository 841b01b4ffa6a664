//! `fob store copy`: an issuer that has seen everything goes from a file into a database and back.
//! What it answered before it answers again, byte by byte, whoever is killed on the way.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::batches::{order, orders};
use crate::support::database::Schema;
use crate::support::garage::Garage;
use crate::support::{Answer, Phone, Server, authorization, now, redemption};

const TWO: [&str; 2] = ["doors.unlock", "engine.start"];

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// A request, and what it must be answered with from now on.
struct Asked {
    method: &'static str,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    answer: Vec<u8>,
}

/// An issuer of which everything has been asked that a store keeps something of.
struct World {
    garage: Garage,
    asked: Vec<Asked>,
    /// A code set that is still open, for the first of the phones.
    open: String,
    phone: Phone,
}

fn batch(garage: &Garage, server: &Server, key: &str, body: &str) -> Answer {
    let bearer = format!("Bearer {}", garage.token);
    let headers = [
        ("content-type", "application/x-ndjson"),
        ("authorization", bearer.as_str()),
        ("idempotency-key", key),
    ];
    server.send("POST", "/v1/batches", &headers, body.as_bytes())
}

/// Lines in the order of their numbers: they come as they are done.
fn sorted(body: &[u8]) -> Vec<u8> {
    let text = String::from_utf8(body.to_vec()).unwrap();
    let number = |line: &&str| {
        let line: Value = serde_json::from_str(line).unwrap();
        line["line"].as_u64()
    };
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_by_key(number);
    lines.join("\n").into_bytes()
}

impl World {
    fn new() -> Self {
        let garage = Garage::new();
        let phone = Phone::new();
        let mut world = Self {
            asked: Vec::new(),
            open: String::new(),
            phone,
            garage,
        };
        world.registry();
        world.rulings();
        world.authorizations();
        world.orders();
        world.epochs();
        world.reads();
        world
    }

    fn registry(&self) {
        let admin = &self.garage.admin;
        let put = |path: &str, body: &Value| {
            let answer = self.garage.server.json_as(admin, "PUT", path, body);
            assert_eq!(answer.status, 204, "{}", answer.text());
        };
        put(
            "/v1/vehicles/VAN-7",
            &json!({"model": "Transporter", "jwk": Phone::new().jwk(),
                    "functions": ["doors.unlock", {"code": 256, "name": "tailgate.lift"}]}),
        );
        put(
            "/v1/identities/anna",
            &json!({"licences": [{"class": "B", "expires": "2031-06-30T00:00:00Z"}]}),
        );
        for (terminal, identity) in [("anna-phone", "anna"), ("phone-1", "renter-1")] {
            let body = json!({"identity": identity, "jwk": self.phone.jwk()});
            put(&format!("/v1/terminals/{terminal}"), &body);
        }
        let issuer = &self.garage.issuer;
        issuer.fob(&["fleet", "create", "second", "--signing", "tree"]);
        let token = issuer.fob(&["token", "list", "--json"]);
        let tokens: Value = serde_json::from_str(&token).unwrap();
        assert!(tokens.as_array().unwrap().len() >= 2);
        let ended = issuer.fob(&[
            "token", "create", "--fleet", "second", "--scopes", "read", "--json",
        ]);
        let ended: Value = serde_json::from_str(&ended).unwrap();
        issuer.fob(&["token", "revoke", text(&ended["id"])]);
    }

    /// A quota, whose day begins with the first redemption; a vehicle that is frozen; a hold.
    fn rulings(&self) {
        let Garage { server, admin, .. } = &self.garage;
        let bearer = format!("Bearer {admin}");
        let headers = [
            ("content-type", "application/json"),
            ("authorization", bearer.as_str()),
            ("if-match", "\"0\""),
        ];
        let rules = json!({"rules": {"keys_per_day": 500_000}, "why": "as agreed"});
        let ruled = server.send("PUT", "/v1/rules", &headers, rules.to_string().as_bytes());
        assert_eq!(ruled.status, 200, "{}", ruled.text());
        let held = json!({"hold": "payment"});
        let held = server.json_as(admin, "PUT", "/v1/identities/renter-8", &held);
        assert_eq!(held.status, 204, "{}", held.text());
        let frozen = json!({"vehicle": "DEMO-0100", "why": "it was seen where it should not be"});
        let frozen = self.garage.send("POST", "/v1/brake", &frozen);
        assert_eq!(frozen.status, 200, "{}", frozen.text());
    }

    #[expect(clippy::too_many_lines, reason = "a story, told in its order")]
    fn authorizations(&mut self) {
        let garage = &self.garage;
        let url = garage.server.url.clone();
        // Open, and by the owner, and with a PIN that was tried in vain.
        self.open = garage.server.authorize(&garage.owner, "DEMO-0001", &TWO);
        let command = garage
            .owner
            .command(&url, &authorization("DEMO-0002", &TWO));
        self.expect(
            "POST",
            "/v1/authorizations",
            &[("content-type", "application/jose")],
            command.as_bytes(),
        );
        let mut with_pin = authorization("DEMO-0003", &TWO);
        with_pin["pin"] = json!(true);
        with_pin["recipient"] = json!({"identity": "renter-9"});
        let garage = &self.garage;
        let pinned = garage.done("POST", "/v1/authorizations", &with_pin);
        let mut tried = redemption(&url, text(&pinned["code_set"]), "renter-9", &Phone::new());
        tried["pin"] = json!(if pinned["pin"] == "000000" {
            "000001"
        } else {
            "000000"
        });
        garage
            .server
            .json("POST", "/v1/redemptions", &tried)
            .refused(403, "pin_wrong");
        // Redeemed, each and in a tree, with a place, changed, suspended, ended.
        for (n, signing) in [
            (4, "each"),
            (5, "tree"),
            (6, "each"),
            (7, "tree"),
            (8, "each"),
        ] {
            let mut body = authorization(
                &format!("DEMO-{n:04}"),
                &["doors.unlock", "engine.start", "trunk.open"],
            );
            body["signing"] = json!(signing);
            body["max_uses"] = json!({"engine.start": 10});
            body["region"] = json!({"circle": {"lat": 52.5, "lon": 13.3, "radius_m": 20000}});
            let made = self.garage.done("POST", "/v1/authorizations", &body);
            let redemption = redemption(&url, text(&made["code_set"]), "renter-2", &self.phone);
            let id = text(&made["authorization"]).to_owned();
            let bundle = self
                .garage
                .server
                .json("POST", "/v1/redemptions", &redemption);
            assert_eq!(bundle.status, 201, "{}", bundle.text());
            let path = format!("/v1/authorizations/{id}");
            match n {
                6 => {
                    let change = json!({"functions": ["doors.unlock"], "max_uses": null});
                    let changed = self.garage.change(&id, 1, &change);
                    assert_eq!(changed.status, 200, "{}", changed.text());
                    let again = self.garage.change(&id, 2, &json!({"functions": TWO}));
                    assert_eq!(again.status, 200, "{}", again.text());
                }
                7 => drop(
                    self.garage
                        .done("POST", &format!("{path}/suspend"), &json!({})),
                ),
                8 => drop(self.garage.send("DELETE", &path, &json!({}))),
                _ => {}
            }
            self.expect_json("POST", "/v1/redemptions", &redemption);
        }
        let gone = self.garage.authorize("DEMO-0009", &TWO);
        let path = format!("/v1/authorizations/{}", text(&gone["authorization"]));
        self.garage.send("DELETE", &path, &json!({}));
        // An owner's commands that amend are answered again as they were.
        let owned = self.garage.server.command(
            &self
                .garage
                .owner
                .command(&url, &authorization("DEMO-0010", &TWO)),
        );
        let path = format!(
            "/v1/authorizations/{}/suspend",
            text(&owned.value()["authorization"])
        );
        let command = self
            .garage
            .owner
            .command_to(&url, "POST", &path, &json!({}));
        self.expect(
            "POST",
            &path,
            &[("content-type", "application/jose")],
            command.as_bytes(),
        );
        self.garage
            .done("POST", "/v1/suspensions", &json!({"identity": "renter-3"}));
        self.garage
            .done("POST", "/v1/vehicles/DEMO-0005/reset", &json!({}));
    }

    fn orders(&mut self) {
        for (key, count) in [("first", 40), ("second", 7)] {
            let body = orders(count);
            let answer = batch(&self.garage, &self.garage.server, key, &body);
            assert_eq!(answer.status, 200, "{}", answer.text());
            let bearer = format!("Bearer {}", self.garage.token);
            self.asked.push(Asked {
                method: "POST",
                path: "/v1/batches".into(),
                headers: vec![
                    ("content-type".into(), "application/x-ndjson".into()),
                    ("authorization".into(), bearer),
                    ("idempotency-key".into(), key.into()),
                ],
                body: body.into_bytes(),
                answer: sorted(&answer.body),
            });
        }
        // One of them is changed, so that it has a row of its own.
        let answer = batch(
            &self.garage,
            &self.garage.server,
            "third",
            &order("a", 90).to_string(),
        );
        let issued: Value = serde_json::from_slice(&answer.body).unwrap();
        let id = text(&issued["bundle"]["authorization"]);
        let changed = self
            .garage
            .change(id, 1, &json!({"functions": ["doors.unlock"]}));
        assert_eq!(changed.status, 200, "{}", changed.text());
    }

    fn epochs(&self) {
        let issuer = &self.garage.issuer;
        issuer.fob(&["epoch", "prepare", "--count", "2"]);
        let before = issuer.fob(&["epoch", "list", "--json"]);
        let epochs: Value = serde_json::from_str(&before).unwrap();
        let epochs = epochs
            .as_array()
            .or_else(|| epochs["epochs"].as_array())
            .unwrap();
        let active = epochs.iter().find(|it| it["state"] == "active").unwrap();
        issuer.fob(&["epoch", "rotate", "--now"]);
        issuer.fob(&["epoch", "revoke", text(&active["id"]), "--reissue"]);
    }

    fn reads(&mut self) {
        let car = Phone::new();
        let body = json!({"model": "Demo", "jwk": car.jwk(), "owner": "owner-1"});
        let put =
            self.garage
                .server
                .json_as(&self.garage.admin, "PUT", "/v1/vehicles/DEMO-0006", &body);
        assert_eq!(put.status, 204, "{}", put.text());
        let told = self.garage.sync(&car, "DEMO-0006", now(), None);
        assert_eq!(told.status, 200, "{}", told.text());
        // What was answered before the epoch was revoked is signed anew since.
        self.settle();
        let bearer = format!("Bearer {}", self.garage.token);
        let list = self
            .garage
            .done("GET", "/v1/authorizations?limit=500", &json!({}));
        let items = list["items"].as_array().unwrap();
        assert!(items.len() > 55, "{}", items.len());
        let mut paths = vec![
            "/v1/authorizations?limit=500".to_owned(),
            "/v1/trust".into(),
        ];
        for item in items {
            let id = text(&item["authorization"]);
            paths.push(format!("/v1/authorizations/{id}"));
        }
        let lines = self.asked.iter().flat_map(|asked| {
            let answer = std::str::from_utf8(&asked.answer).unwrap();
            answer
                .lines()
                .map(|line| serde_json::from_str::<Value>(line).unwrap())
        });
        for line in lines {
            let bundle = line["bundle"]
                .as_str()
                .or_else(|| line["bundle"]["bundle"].as_str());
            paths.extend(bundle.map(|id| format!("/v1/bundles/{id}")));
        }
        let bundles = paths.iter().filter(|it| it.starts_with("/v1/bundles"));
        assert!(bundles.count() > 50);
        for path in paths {
            self.expect("GET", &path, &[("authorization", &bearer)], b"");
        }
    }

    fn expect_json(&mut self, method: &'static str, path: &str, body: &Value) {
        let headers = [("content-type", "application/json")];
        self.expect(method, path, &headers, body.to_string().as_bytes());
    }

    /// Asks now; the same must be answered later.
    fn expect(&mut self, method: &'static str, path: &str, headers: &[(&str, &str)], body: &[u8]) {
        let headers = headers
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()));
        let mut asked = Asked {
            method,
            path: path.into(),
            headers: headers.collect(),
            body: body.to_vec(),
            answer: Vec::new(),
        };
        asked.answer = self.ask(&asked);
        self.asked.push(asked);
    }

    fn ask(&self, asked: &Asked) -> Vec<u8> {
        let headers: Vec<_> = asked
            .headers
            .iter()
            .map(|(name, value)| (&**name, &**value))
            .collect();
        let answer = self
            .garage
            .server
            .send(asked.method, &asked.path, &headers, &asked.body);
        assert!(
            answer.status < 300,
            "{} {}: {}",
            asked.method,
            asked.path,
            answer.text()
        );
        match asked.path.as_str() {
            "/v1/batches" => sorted(&answer.body),
            _ => answer.body,
        }
    }

    /// Asks everything once more: something has changed since.
    fn settle(&mut self) {
        for at in 0..self.asked.len() {
            let answer = self.ask(&self.asked[at]);
            self.asked[at].answer = answer;
        }
    }

    /// Everything that was asked is answered as before.
    fn check(&self) {
        for asked in &self.asked {
            let again = self.ask(asked);
            let same = again == asked.answer;
            assert!(same, "{} {}", asked.method, asked.path);
        }
    }

    /// Keeps every bundle that was answered, for `fob verify`.
    fn keep_bundles(&self) -> PathBuf {
        let answers = self
            .asked
            .iter()
            .filter_map(|asked| std::str::from_utf8(&asked.answer).ok());
        let bundles = answers.flat_map(str::lines).filter(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            line["keys"].is_array() || line["bundle"]["keys"].is_array()
        });
        let bundles: Vec<_> = bundles.collect();
        assert!(bundles.len() > 100, "{}", bundles.len());
        let file = self.garage.issuer.file("answered.ndjson");
        fs::write(&file, bundles.join("\n")).unwrap();
        file
    }

    /// What `fob verify` says of those bundles, by the trust list that is given out now.
    fn verify(&self, bundles: &Path) -> String {
        let trust = self.garage.issuer.file("trust.cbor");
        fs::write(&trust, self.garage.server.get("/v1/trust", &[]).body).unwrap();
        let verified = Command::new(crate::support::FOB)
            .arg("verify")
            .arg(bundles)
            .arg("--root")
            .arg(self.garage.issuer.file("root.cbor"))
            .arg("--trust")
            .arg(trust)
            .output()
            .unwrap();
        let said = String::from_utf8(verified.stdout).unwrap();
        // What had ended before its epoch was revoked was not signed anew.
        let refused = said.lines().filter(|line| !line.starts_with("accepted"));
        assert!(refused.clone().count() <= 6, "{said}");
        assert!(said.lines().count() > 200, "{said}");
        said
    }

    fn stop(&mut self) -> String {
        let server = std::mem::replace(&mut self.garage.server, Server::at(String::new()));
        let address = server.url.strip_prefix("http://").unwrap().to_owned();
        server.stop();
        address
    }

    fn copy(&self, to: &str) -> Value {
        let told = self
            .garage
            .issuer
            .fob(&["store", "copy", "--json", "--to", to]);
        serde_json::from_str(&told).unwrap()
    }

    /// What was done, by whom and why; of a second by fleets in any order.
    fn acts(&self) -> Vec<String> {
        let said = self.garage.issuer.fob(&["acts", "--json"]);
        let mut acts: Vec<_> = said.lines().map(ToOwned::to_owned).collect();
        acts.sort();
        assert!(acts.len() > 3, "{acts:?}");
        acts
    }

    /// `[store]` is what the command says it is to be.
    fn follow(&self, told: &Value) {
        let file = self.garage.issuer.file("fob.toml");
        let config = fs::read_to_string(&file).unwrap();
        let before = config.split("[store]").next().unwrap();
        fs::write(&file, format!("{before}{}", text(&told["store"]))).unwrap();
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a story, told in its order")]
fn a_moved_issuer_answers_as_before_and_the_old_store_is_served_no_more() {
    let mut world = World::new();
    let schema = Schema::new();
    let running = world
        .garage
        .issuer
        .fob_fails(&["store", "copy", "--to", &schema.url()]);
    assert!(running.contains("stop it first"), "{running}");
    let bundles = world.keep_bundles();
    let verified = world.verify(&bundles);
    let address = world.stop();
    let acts = world.acts();
    crate::audit::sound(&world.garage.issuer);
    let there = world.copy(&schema.url());
    let kinds = there["kinds"].as_array().unwrap();
    let empty: Vec<_> = kinds
        .iter()
        .filter(|it| it["count"] == 0)
        .map(|it| &it["kind"])
        .collect();
    assert_eq!(
        empty,
        ["restores"],
        "of every other kind there is something to copy"
    );

    for command in [
        &["serve", "--listen", "127.0.0.1:0"][..],
        &["fleet", "list"],
    ] {
        let said = world.garage.issuer.fob_fails(command);
        assert!(said.contains("was moved to postgresql://"), "{said}");
    }
    let again = world
        .garage
        .issuer
        .fob_fails(&["store", "copy", "--to", &schema.url()]);
    assert!(again.contains("was moved"), "{again}");
    world.follow(&there);
    assert_eq!(world.acts(), acts);
    world.garage.server = world.garage.issuer.serve_at(&address);
    world.check();
    assert_eq!(world.verify(&bundles), verified);
    let bundle = world
        .garage
        .server
        .redeem(&world.open, "renter-1", &world.phone);
    assert_eq!(bundle.status, 201, "{}", bundle.text());
    let rival = world
        .garage
        .server
        .redeem(&world.open, "renter-2", &Phone::new());
    rival.refused(409, "code_set_redeemed");
    world.settle();

    // And back, into another file.
    world.stop();
    let file = world.garage.issuer.file("again.db").display().to_string();
    let soon = world
        .garage
        .issuer
        .fob_fails(&["store", "copy", "--to", &file]);
    assert!(soon.contains("a moment ago"), "{soon}");
    schema.execute("UPDATE transactions SET at = at - interval '1 hour'");
    schema.execute("UPDATE nodes SET seen = seen - interval '1 hour'");
    crate::audit::sound(&world.garage.issuer);
    let back = world.copy(&file);
    world.follow(&back);
    world.garage.server = world.garage.issuer.serve_at(&address);
    world.check();
    assert_eq!(world.verify(&bundles), verified);
    assert_eq!(
        world
            .garage
            .server
            .redeem(&world.open, "renter-1", &world.phone)
            .body,
        bundle.body
    );
}

#[test]
fn a_copy_that_is_killed_is_gone_on_with() {
    let mut world = World::new();
    for call in 0..4 {
        let answer = batch(
            &world.garage,
            &world.garage.server,
            &format!("many-{call}"),
            &orders(2000),
        );
        assert_eq!(answer.status, 200);
    }
    world.settle();
    let address = world.stop();
    let schema = Schema::new();
    let mut kills = 0;
    for patience_ms in [0, 20, 40, 80, 160] {
        let mut child = Command::new(crate::support::FOB)
            .args(["store", "copy", "--to", &schema.url(), "--dir"])
            .arg(world.garage.issuer.path())
            .env_remove("SOFTHSM2_CONF")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        thread::sleep(Duration::from_millis(100 + patience_ms));
        child.kill().unwrap();
        kills += u32::from(!child.wait().unwrap().success());
    }
    assert!(kills > 0, "some are killed before they are done");
    if let Some(says) = schema.execute("SELECT says FROM fences WHERE name = 'unfinished'") {
        // What is there looks like an issuer, and is none yet.
        world.follow(&json!({"store": format!("[store]\nurl = \"{}\"\n", schema.url())}));
        let said = world
            .garage
            .issuer
            .fob_fails(&["serve", "--listen", "127.0.0.1:0"]);
        assert!(said.contains("unfinished copy"), "{said} ({says})");
        world.follow(&json!({"store": ""}));
    }
    let told = world.copy(&schema.url());
    assert!(told["written"].as_u64().unwrap() + told["before"].as_u64().unwrap() > 8000);
    world.follow(&told);
    world.garage.server = world.garage.issuer.serve_at(&address);
    world.check();
}

#[test]
fn a_store_that_holds_something_else_is_left_alone() {
    let (mut world, schema) = (World::new(), Schema::new());
    world.stop();
    let other = tempfile::tempdir().unwrap();
    let made = Command::new(crate::support::FOB)
        .args(["init", "--store", &schema.url(), "--dir"])
        .arg(other.path())
        .env_remove("SOFTHSM2_CONF")
        .output()
        .unwrap();
    assert!(made.status.success());
    let refused = world
        .garage
        .issuer
        .fob_fails(&["store", "copy", "--to", &schema.url()]);
    assert!(
        refused.contains("an issuer in the store already"),
        "{refused}"
    );
    // Nothing has become of the store that was to be copied.
    assert!(world.garage.issuer.fob(&["fleet", "list"]).contains("demo"));
}
