//! The database killed, its connections cut, a node killed, again and again under load over two
//! nodes: whatever was answered stays answered, once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::pair::{PUBLIC, Pair, body};
use crate::support::database::{Schema, Server as Database};
use crate::support::garage::keys;
use crate::support::{Answer, Client, Phone, Server, authorization};

/// Rounds, of each kind of trouble; `FOB_OUTAGES` says otherwise.
const ROUNDS: usize = 2;

/// Threads that ask each node.
const THREADS: usize = 2;

/// What has become known.
#[derive(Default)]
struct Seen {
    /// Requests that were answered, with their answers.
    answered: Mutex<Vec<(Value, Vec<u8>)>>,
    /// Requests each node has answered, to see it go on.
    of_node: [AtomicUsize; 2],
    /// Refusals, by code.
    refused: Mutex<BTreeMap<String, usize>>,
    over: AtomicBool,
}

/// Sends the same request to a node until it is answered; `None` at the end.
fn insist(client: &Client, seen: &Seen, path: &str, kind: &str, body: &Value) -> Option<Answer> {
    let headers = [("content-type", kind)];
    loop {
        let answer = match body {
            Value::String(text) => client.text("POST", path, &headers, text),
            body => client.json("POST", path, &[], body),
        };
        match answer {
            Some(answer) if answer.status == 503 => {
                let code = answer.refusal();
                assert!(answer.header("retry-after").is_some(), "{}", answer.text());
                *seen.refused.lock().unwrap().entry(code).or_default() += 1;
            }
            Some(answer) => return Some(answer),
            // The node is not there.
            None => {}
        }
        if seen.over.load(Ordering::Relaxed) {
            return None;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Authorizes and redeems on one node until it is over.
fn load(client: &Client, node: usize, owner: &Phone, seen: &Seen) {
    let phone = Phone::new();
    while !seen.over.load(Ordering::Relaxed) {
        let asked = authorization("DEMO-0001", &["doors.unlock", "engine.start"]);
        let command = json!(owner.command(PUBLIC, &asked));
        let path = "/v1/authorizations";
        let Some(made) = insist(client, seen, path, "application/jose", &command) else {
            return;
        };
        assert_eq!(made.status, 201, "{}", made.text());
        let code_set = made.value()["code_set"].as_str().unwrap().to_owned();
        let request = body(&code_set, "renter-1", &phone);
        let path = "/v1/redemptions";
        let Some(redeemed) = insist(client, seen, path, "application/json", &request) else {
            return;
        };
        assert_eq!(redeemed.status, 201, "{}", redeemed.text());
        seen.answered.lock().unwrap().push((request, redeemed.body));
        seen.of_node[node].fetch_add(1, Ordering::Relaxed);
    }
}

/// Waits until these nodes have answered something more; how long that took.
#[expect(clippy::disallowed_methods, reason = "tests use the time of the day")]
fn go_on(seen: &Seen, nodes: &[usize]) -> Duration {
    let began = Instant::now();
    let count = |node: &usize| seen.of_node[*node].load(Ordering::Relaxed);
    let before: Vec<_> = nodes.iter().map(count).collect();
    super::until(|| {
        let now = nodes.iter().map(count).zip(&before);
        // The first may have been on its way before.
        now.into_iter().all(|(now, before)| now > before + 2)
    });
    began.elapsed()
}

fn rounds() -> usize {
    let asked = std::env::var("FOB_OUTAGES").ok();
    asked.map_or(ROUNDS, |rounds| rounds.parse().unwrap())
}

fn cut(schema: &Schema) {
    schema.execute(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
         WHERE application_name = 'fob'",
    );
}

#[test]
fn answered_once_whatever_is_killed() {
    let mut database = Database::start();
    let schema = database.schema();
    let pair = Pair::over(&schema);
    let owner = pair.owner();
    let mut servers = pair.serve_both().map(Some);
    let seen = Seen::default();
    thread::scope(|scope| {
        for (node, server) in servers.iter().flatten().enumerate() {
            for _ in 0..THREADS {
                let client = server.client();
                let (owner, seen) = (&owner, &seen);
                scope.spawn(move || load(&client, node, owner, seen));
            }
        }
        // Whatever fails, the threads end.
        let _over = Over(&seen.over);
        go_on(&seen, &[0, 1]);
        // How long it took until both were there again: after the database was, its connections
        // were cut, and the other after a node was killed.
        let mut back = [Duration::ZERO; 3];
        for round in 0..rounds() {
            database.kill();
            super::until(|| {
                seen.refused
                    .lock()
                    .unwrap()
                    .contains_key("store_unavailable")
            });
            database.start_again();
            back[0] = back[0].max(go_on(&seen, &[0, 1]));
            cut(&schema);
            back[1] = back[1].max(go_on(&seen, &[0, 1]));
            let node = round % 2;
            let server: Server = servers[node].take().unwrap();
            let address = server.url.strip_prefix("http://").unwrap().to_owned();
            server.kill();
            back[2] = back[2].max(go_on(&seen, &[1 - node]));
            servers[node] = Some(pair.serve_on(node, &address));
            go_on(&seen, &[0, 1]);
        }
        println!("back within {back:?}");
    });
    let servers = servers.map(Option::unwrap);
    check(&seen, &servers, &schema);
    for server in servers {
        assert!(server.stop(), "an orderly end");
    }
    let report = super::sound(&pair.issuers[0], &schema);
    let of_epochs = report["epochs"].as_object().unwrap().values();
    let number = |of: &Value, name: &str| of["made"][name].as_u64().unwrap();
    // A node was killed in each round.
    let killed: u64 = of_epochs.map(|of| number(of, "killed")).sum();
    assert_eq!(killed, rounds() as u64, "{report}");
}

struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What was answered is answered again, by both, byte for byte, and nothing was issued twice.
fn check(seen: &Seen, servers: &[Server; 2], schema: &Schema) {
    let answered = seen.answered.lock().unwrap();
    let mut places = BTreeSet::new();
    for (request, body) in answered.iter() {
        for server in servers {
            let again = server.json("POST", "/v1/redemptions", request);
            assert_eq!(&again.body, body, "{}", again.text());
        }
        for key in keys(&serde_json::from_slice(body).unwrap()) {
            assert!(places.insert((key.uri, key.index)), "a status index, twice");
        }
    }
    let twice = "SELECT count(*) - count(DISTINCT authorization_id) FROM bundles";
    assert_eq!(schema.execute(twice).unwrap(), "0");
    println!(
        "answered {}, refused {:?}",
        answered.len(),
        seen.refused.lock().unwrap()
    );
}
