//! `POST /v1/batches`: orders in, bundles out, a line each.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use minicbor::data::Type;
use serde_json::{Value, json};

use crate::support::{Answer, Issuer, Phone, Server, now, time};

/// A server of the demo fleet with a registered terminal, and a token to issue with.
pub struct World {
    pub issuer: Issuer,
    pub server: Server,
    pub token: String,
}

impl World {
    pub fn new() -> Self {
        Self::with(&[])
    }

    pub fn with(variables: &[(&str, &str)]) -> Self {
        let issuer = Issuer::demo();
        let server = issuer.serve_with(variables);
        let admin = issuer.token("admin");
        for (terminal, identity) in [("phone-1", "renter-1"), ("phone-2", "renter-2")] {
            let body = json!({ "identity": identity, "jwk": Phone::new().jwk() });
            let path = format!("/v1/terminals/{terminal}");
            assert_eq!(server.json_as(&admin, "PUT", &path, &body).status, 204);
        }
        let token = issuer.token("issue");
        Self {
            issuer,
            server,
            token,
        }
    }

    pub fn batch(&self, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let bearer = format!("Bearer {}", self.token);
        let own = [
            ("content-type", "application/x-ndjson"),
            ("authorization", bearer.as_str()),
        ];
        let headers = [&own[..], headers].concat();
        self.server.send("POST", "/v1/batches", &headers, body)
    }

    /// Sends orders and returns what became of each, by its line.
    fn issue(&self, headers: &[(&str, &str)], body: &str) -> BTreeMap<u64, Value> {
        let answer = self.batch(headers, body.as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
        by_line(&answer.body)
    }

    /// A connection on which a batch call has begun, its body in chunks.
    fn begin(&self) -> TcpStream {
        let address = self.server.url.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let head = format!(
            "POST /v1/batches HTTP/1.1\r\nhost: fob\r\ncontent-type: application/x-ndjson\r\n\
             authorization: Bearer {}\r\ntransfer-encoding: chunked\r\n\r\n",
            self.token
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream
    }

    fn metric(&self, name: &str) -> f64 {
        let text = String::from_utf8(self.server.get("/metrics", &[]).body).unwrap();
        let line = text.lines().find(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(' '))
        });
        line.map_or(0.0, |line| {
            line.rsplit(' ').next().unwrap().parse().unwrap()
        })
    }

    fn unharmed(&self) {
        let ready = self.server.get("/readyz", &[]);
        assert_eq!(ready.status, 200, "{}", ready.text());
        let answer = self.issue(&[], &order("still-there", 9).to_string());
        assert_eq!(answer[&1]["status"], "issued");
        let log = self.issuer.log();
        for trouble in ["panicked", "met a fault", "ERROR fob"] {
            assert!(!log.contains(trouble), "{log}");
        }
    }
}

/// What stands in the chunks of an answer.
struct Chunked {
    stream: BufReader<TcpStream>,
    left: usize,
}

impl Chunked {
    /// Past the head of the answer.
    fn new(stream: &TcpStream) -> Self {
        let mut stream = BufReader::new(stream.try_clone().unwrap());
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            assert!(stream.read_line(&mut line).unwrap() > 0);
        }
        Self { stream, left: 0 }
    }
}

impl Read for Chunked {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let mut line = String::new();
        while self.left == 0 {
            line.clear();
            // A chunk ends with an empty line, the next begins with its length.
            if self.stream.read_line(&mut line)? == 0 || line == "0\r\n" {
                return Ok(0);
            }
            self.left = usize::from_str_radix(line.trim_end(), 16).unwrap_or(0);
        }
        let len = buffer.len().min(self.left);
        let read = self.stream.read(&mut buffer[..len])?;
        self.left -= read;
        Ok(read)
    }
}

fn chunk(stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    let chunk = [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
    stream.write_all(&chunk)
}

/// An order of two functions of a demo vehicle for a registered terminal.
pub fn order(reference: &str, vehicle: u64) -> Value {
    json!({
        "ref": reference,
        "vehicle": format!("DEMO-{:04}", vehicle % 100 + 1),
        "functions": ["doors.unlock", 3],
        "not_before": time(now() - 60),
        "not_after": time(now() + 7200),
        "recipient": { "identity": "renter-1", "terminal": "phone-1" },
    })
}

pub fn orders(count: u64) -> String {
    (1..=count)
        .map(|n| format!("{}\n", order(&format!("r-{n}"), n)))
        .collect()
}

fn by_line(body: &[u8]) -> BTreeMap<u64, Value> {
    let text = std::str::from_utf8(body).unwrap();
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        let number = value["line"].as_u64().unwrap_or_else(|| panic!("{line}"));
        assert!(found.insert(number, value).is_none(), "{number} came twice");
    }
    found
}

fn with(mut order: Value, member: &str, value: Value) -> Value {
    order[member] = value;
    order
}

/// Lines that are no order, or one nobody fills; the code of each, and the name it can be read by.
fn bad_lines() -> Vec<(String, &'static str, Option<&'static str>)> {
    let good = order("good", 1).to_string();
    let long = format!("{{\"ref\":\"{}\"}}", "x".repeat(70_000));
    let twice = format!("{},\"ref\":\"again\"}}", &good[..good.len() - 1]);
    let bad = |member: &str, value: Value| with(order("bad", 1), member, value).to_string();
    let nameless = [
        "{".into(),
        "[]".into(),
        "\u{fffd}".into(),
        long,
        twice,
        bad("ref", json!("")),
        bad("ref", json!("r".repeat(129))),
    ];
    let without = ["recipient", "functions", "vehicle", "not_before"].map(|member| {
        let mut order = order("bad", 1);
        order.as_object_mut().unwrap().remove(member);
        order.to_string()
    });
    let who =
        |identity: &str, terminal: &str| json!({ "identity": identity, "terminal": terminal });
    let nowhere = json!({ "circle": { "lat": 91, "lon": 0, "radius_m": 1 } });
    let refused = [
        ("recipient", json!({ "identity": "renter-1" }), "malformed"),
        ("recipient", json!({ "terminal": "phone-1" }), "malformed"),
        ("pin", json!(true), "malformed"),
        ("functions", json!([]), "malformed"),
        ("not_after", json!(time(now() - 10)), "malformed"),
        ("max_uses", json!({ "1": 0 }), "malformed"),
        ("region", nowhere, "malformed"),
        ("functions", json!(["no.such"]), "unknown_function"),
        ("vehicle", json!("NO-SUCH"), "unknown_vehicle"),
        ("recipient", who("nobody", "phone-1"), "unknown_identity"),
        ("recipient", who("renter-1", "no-phone"), "not_found"),
        ("recipient", who("renter-1", "phone-2"), "terminal_mismatch"),
    ];
    let nameless = nameless.map(|text| (text, "malformed", None));
    let without = without.map(|text| (text, "malformed", Some("bad")));
    let refused = refused.map(|(member, value, code)| (bad(member, value), code, Some("bad")));
    nameless.into_iter().chain(without).chain(refused).collect()
}

#[test]
fn a_bad_line_costs_itself_alone() {
    let world = World::new();
    let good = order("good", 1);
    let cases = bad_lines();
    let mut body = String::new();
    for (text, _, _) in &cases {
        body.push_str(&format!("{text}\n\n"));
        body.push_str(&format!("  {good}\r\n"));
    }
    let answers = world.issue(&[], body.trim_end());
    assert_eq!(answers.len(), 2 * cases.len());
    let mut bundles = BTreeSet::new();
    for ((text, code, reference), at) in cases.iter().zip(0..) {
        let refused = &answers[&(3 * at + 1)];
        assert_eq!(
            (&refused["status"], &refused["problem"]["code"]),
            (&json!(code), &json!(code)),
            "{text}: {refused}"
        );
        assert_eq!(refused["ref"].as_str(), *reference, "{text}");
        assert!(refused.get("bundle").is_none());
        let issued = &answers[&(3 * at + 3)];
        assert_eq!(
            (&issued["status"], &issued["ref"]),
            (&json!("issued"), &json!("good")),
            "{issued}"
        );
        assert_eq!(issued["bundle"]["keys"].as_array().unwrap().len(), 2);
        assert!(issued.get("problem").is_none());
        bundles.insert(issued["bundle"]["bundle"].to_string());
    }
    // Without a key, the same order is another each time.
    assert_eq!(bundles.len(), cases.len());
    assert_eq!(
        world.metric("fob_orders_total{outcome=\"issued\"}") as usize,
        cases.len()
    );
    assert_eq!(
        world.metric("fob_orders_total{outcome=\"unknown_vehicle\"}"),
        1.0
    );
    assert_eq!(world.metric("fob_batch_calls"), 0.0);
    world.unharmed();
}

#[test]
fn a_bundle_of_a_batch_is_the_one_everybody_reads() {
    let world = World::new();
    let mut body = order("all", 1);
    body["functions"] = json!([1, 2, 3, 4, 5, 6, 7, 8]);
    body["region"] = json!({ "circle": { "lat": 48.1, "lon": 11.5, "radius_m": 500 } });
    body["max_uses"] = json!({ "engine.start": 3 });
    body["signing"] = json!("each");
    let answer = world.batch(&[], body.to_string().as_bytes());
    let line = String::from_utf8(answer.body).unwrap();
    let value: Value = serde_json::from_str(&line).unwrap();
    let id = value["bundle"]["bundle"].as_str().unwrap();
    let bearer = format!("Bearer {}", world.issuer.token("read"));
    let read = world
        .server
        .get(&format!("/v1/bundles/{id}"), &[("authorization", &bearer)]);
    let text = String::from_utf8(read.body.clone()).unwrap();
    assert_eq!(
        line,
        format!("{{\"line\":1,\"ref\":\"all\",\"status\":\"issued\",\"bundle\":{text}}}\n")
    );
    let trust = world.server.get("/v1/trust", &[]).body;
    std::fs::write(world.issuer.file("trust.cbor"), trust).unwrap();
    std::fs::write(world.issuer.file("bundle.ndjson"), line.repeat(2)).unwrap();
    let file = |name: &str| world.issuer.file(name).display().to_string();
    let verdict = world.issuer.fob(&[
        "verify",
        &file("bundle.ndjson"),
        "--root",
        &file("root.cbor"),
        "--trust",
        &file("trust.cbor"),
        "--vehicle",
        "DEMO-0002",
        "--json",
    ]);
    let verdict: Value = serde_json::from_str(&verdict).unwrap();
    assert_eq!(verdict["keys"].as_array().unwrap().len(), 16);
}

/// CBOR as JSON, byte strings in base64url; maps must be in deterministic order.
fn from_cbor(decoder: &mut minicbor::Decoder<'_>) -> Value {
    match decoder.datatype().unwrap() {
        Type::Map => {
            let (mut map, mut before) = (serde_json::Map::new(), Vec::new());
            for _ in 0..decoder.map().unwrap().unwrap() {
                let key = decoder.str().unwrap().to_owned();
                let encoded = minicbor::to_vec(&key).unwrap();
                assert!(before < encoded, "{key} is out of order");
                before = encoded;
                map.insert(key, from_cbor(decoder));
            }
            map.into()
        }
        Type::Array => {
            let len = decoder.array().unwrap().unwrap();
            (0..len).map(|_| from_cbor(decoder)).collect()
        }
        Type::String => decoder.str().unwrap().into(),
        Type::Bytes => BASE64_URL_SAFE_NO_PAD
            .encode(decoder.bytes().unwrap())
            .into(),
        _ => decoder.u64().unwrap().into(),
    }
}

#[test]
fn the_same_batch_under_one_key_is_the_same_bundles_in_either_form() {
    let world = World::new();
    let body = format!("{}\n{{}}\n{}", orders(20), order("last", 3));
    let key = ("idempotency-key", "run-1");
    let first = world.issue(&[key], &body);
    assert_eq!(first.len(), 22);
    assert_eq!(first[&22]["problem"]["code"], "malformed");
    let signatures = world.metric("fob_hsm_signatures_total");
    assert!(signatures > 0.0);
    assert_eq!(world.issue(&[key], &body), first);
    assert_eq!(world.metric("fob_hsm_signatures_total"), signatures);
    let answer = world.batch(&[key, ("accept", "application/cbor-seq")], body.as_bytes());
    assert_eq!(answer.header("content-type"), Some("application/cbor-seq"));
    let mut decoder = minicbor::Decoder::new(&answer.body);
    let mut sequence = BTreeMap::new();
    while decoder.position() < answer.body.len() {
        let item = from_cbor(&mut decoder);
        sequence.insert(item["line"].as_u64().unwrap(), item);
    }
    assert_eq!(sequence, first);
    // Other content under a name that was used, another key, and no key at all.
    let other = with(order("r-1", 1), "vehicle", json!("DEMO-0050")).to_string();
    assert_eq!(
        world.issue(&[key], &other)[&1]["status"],
        "command_replayed"
    );
    for headers in [&[("idempotency-key", "run-2")][..], &[]] {
        let again = world.issue(headers, &orders(1));
        assert_ne!(again[&1]["bundle"], first[&1]["bundle"]);
    }
    let bad = "k".repeat(129);
    world
        .batch(&[("idempotency-key", &bad)], body.as_bytes())
        .refused(400, "malformed");
}

/// A key as bytes.
fn key_bytes(key: &Value) -> Vec<u8> {
    BASE64_URL_SAFE_NO_PAD
        .decode(key["key"].as_str().unwrap())
        .unwrap()
}

#[test]
fn keys_signed_in_a_tree_share_a_signature_and_each_is_believed() {
    let world = World::new();
    let ways = ["each", "tree"].map(|way| {
        let many = (1..=40).map(|n| with(order(&format!("r-{n}"), n), "signing", json!(way)));
        let lines: Vec<_> = many.map(|one| one.to_string()).collect();
        let before = world.metric("fob_hsm_signatures_total");
        let answers = world.issue(&[], &lines.join("\n"));
        let made = world.metric("fob_hsm_signatures_total") - before;
        (answers, made)
    });
    let trust_list = world.server.get("/v1/trust", &[]).body;
    let root = std::fs::read(world.issuer.path().join("root.cbor")).unwrap();
    let root = fob_verify::IssuerKey::decode(&root).unwrap();
    let verifier = fob_verify::RustCrypto;
    let trusted = fob_verify::trust::verify(&trust_list, &[root], now(), &verifier).unwrap();
    for (at, (answers, made)) in ways.iter().enumerate() {
        let keys: Vec<_> = answers
            .values()
            .flat_map(|answer| answer["bundle"]["keys"].as_array().unwrap())
            .map(key_bytes)
            .collect();
        assert!(keys.len() > 40);
        if at == 0 {
            assert_eq!(*made, keys.len() as f64);
        } else {
            assert!(*made < 40.0, "{made} signatures for {} keys", keys.len());
        }
        for key in &keys {
            let key = fob_verify::key::SignedKey::decode(key).unwrap();
            assert_eq!(key.receipt().is_some(), at == 1);
            key.verify(&trusted, &verifier).unwrap();
        }
    }
}

#[test]
fn a_tree_of_one_leaf_is_a_key_signed_by_itself() {
    let world = World::new();
    let alone = with(order("r-1", 1), "functions", json!(["doors.unlock"]));
    let alone = with(alone, "signing", json!("tree")).to_string();
    let answer = world.issue(&[], &alone);
    let key = key_bytes(&answer[&1]["bundle"]["keys"][0]);
    let key = fob_verify::key::SignedKey::decode(&key).unwrap();
    assert!(key.receipt().is_none());
}

#[test]
fn two_calls_with_one_key_at_once_yield_one_bundle_an_order() {
    let world = World::new();
    let body = orders(150);
    let key = [("idempotency-key", "both")];
    let (one, other) = thread::scope(|scope| {
        let one = scope.spawn(|| world.issue(&key, &body));
        let other = scope.spawn(|| world.issue(&key, &body));
        (one.join().unwrap(), other.join().unwrap())
    });
    // What met a limit of the moment is asked for once more; what was issued is the same.
    let settled = world.issue(&key, &body);
    assert_eq!(settled.len(), 150);
    for (line, answer) in &settled {
        assert_eq!(answer["status"], "issued", "{answer}");
        for call in [&one, &other] {
            assert_eq!(&call[line], answer);
        }
    }
}

#[test]
fn orders_are_answered_while_the_body_still_arrives() {
    let world = World::new();
    let mut stream = world.begin();
    let mut answers = BufReader::new(stream.try_clone().unwrap());
    for n in 1..=3 {
        let text = format!("\n{}\n", order(&format!("r-{n}"), n));
        // In two pieces, to be put together.
        let (head, tail) = text.split_at(40);
        chunk(&mut stream, head.as_bytes()).unwrap();
        chunk(&mut stream, tail.as_bytes()).unwrap();
        let mut line = String::new();
        while !line.starts_with("{\"line\"") {
            line.clear();
            assert!(answers.read_line(&mut line).unwrap() > 0);
        }
        assert!(
            line.starts_with(&format!("{{\"line\":{},\"ref\":\"r-{n}\"", 2 * n)),
            "{line}"
        );
        assert_eq!(world.metric("fob_batch_calls"), 1.0);
    }
    stream.write_all(b"0\r\n\r\n").unwrap();
}

#[test]
fn a_body_that_stalls_ends_with_a_last_line() {
    let world = World::with(&[("FOB_SERVER_BATCH_IDLE_MS", "300")]);
    let mut stream = world.begin();
    let text = format!("{}\n{{\"ref\":\"half", order("whole", 1));
    chunk(&mut stream, text.as_bytes()).unwrap();
    let mut answer = String::new();
    // The connection is closed: the rest of the body is not waited for.
    stream.read_to_string(&mut answer).unwrap();
    let lines: Vec<&str> = answer
        .lines()
        .filter(|line| line.starts_with('{'))
        .collect();
    assert_eq!(lines.len(), 2, "{answer}");
    assert!(lines[0].starts_with("{\"line\":1,\"ref\":\"whole\",\"status\":\"issued\""));
    let last: Value = serde_json::from_str(lines[1]).unwrap();
    assert_eq!(
        (&last["status"], &last["problem"]["field"]),
        (&json!("malformed"), &json!("body"))
    );
    world.unharmed();
}

#[test]
fn a_client_that_leaves_leaves_its_place() {
    let world = World::with(&[("FOB_SERVER_BATCHES_MAX", "2")]);
    let held: Vec<_> = (0..2).map(|_| world.begin()).collect();
    while world.metric("fob_batch_calls") < 2.0 {
        thread::sleep(Duration::from_millis(20));
    }
    let busy = world.batch(&[], orders(1).as_bytes());
    busy.refused(503, "busy");
    let seconds: u64 = busy.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=3).contains(&seconds));
    drop(held);
    while world.metric("fob_batch_calls") > 0.0 {
        thread::sleep(Duration::from_millis(20));
    }
    // One that leaves in the middle of its orders, too.
    let mut stream = world.begin();
    chunk(&mut stream, orders(300).as_bytes()).unwrap();
    drop(stream);
    while world.metric("fob_batch_calls") > 0.0 {
        thread::sleep(Duration::from_millis(20));
    }
    world.unharmed();
}

/// The most memory the server has had, in KiB.
fn memory_peak_kib(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    line.unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap()
}

#[test]
fn lines_and_answers_are_bounded() {
    let world = World::new();
    world.unharmed();
    let before = memory_peak_kib(&world.server);
    // A line of 256 MiB, then one that is an order.
    let mut stream = world.begin();
    let megabyte = vec![b'x'; 1 << 20];
    for _ in 0..256 {
        chunk(&mut stream, &megabyte).unwrap();
    }
    chunk(&mut stream, format!("\n{}\n", order("after", 1)).as_bytes()).unwrap();
    stream.write_all(b"0\r\n\r\n").unwrap();
    let mut answers = BufReader::new(stream).lines().map(Result::unwrap);
    let mut line = |start: &str| {
        answers
            .by_ref()
            .find(|line| line.starts_with(start))
            .unwrap()
    };
    assert!(line("{\"line\":1,").contains("\"status\":\"malformed\""));
    assert!(line("{\"line\":2,").contains("\"status\":\"issued\""));
    // A client that sends and does not read: it is not read from either, at some point.
    let mut deaf = world.begin();
    deaf.set_write_timeout(Some(Duration::from_secs(2)))
        .unwrap();
    let refused = b"{\"ref\":\"no order at all\"}\n".repeat(2_000);
    let mut sent = 0_usize;
    while sent < 512 << 20 && chunk(&mut deaf, &refused).is_ok() {
        sent += refused.len();
    }
    assert!(
        sent < 512 << 20,
        "the server takes orders whose answers nobody reads"
    );
    let grown = memory_peak_kib(&world.server) - before;
    assert!(grown < 128 * 1024, "{grown} KiB more");
    drop(deaf);
    world.unharmed();
}

#[test]
fn twenty_thousand_orders_pass_through_in_bounded_memory() {
    let world = World::new();
    world.unharmed();
    let before = memory_peak_kib(&world.server);
    let mut stream = world.begin();
    let mut reader = BufReader::new(Chunked::new(&stream));
    let sender = thread::spawn(move || {
        for n in 1..=20_000_u64 {
            let order = format!("{}\n", order(&format!("r-{n}"), n));
            chunk(&mut stream, order.as_bytes()).unwrap();
        }
        stream.write_all(b"0\r\n\r\n").unwrap();
        stream
    });
    let (mut seen, mut bytes, mut line) = (BTreeSet::new(), 0, String::new());
    while seen.len() < 20_000 {
        line.clear();
        let read = reader.read_line(&mut line).unwrap();
        assert!(read > 0, "the answer ends after {} lines", seen.len());
        if let Some(rest) = line.strip_prefix("{\"line\":") {
            assert!(rest.contains("\"status\":\"issued\""), "{line}");
            let number: u64 = rest.split(',').next().unwrap().parse().unwrap();
            assert!(seen.insert(number), "{number} came twice");
            bytes += read as u64;
        }
    }
    sender.join().unwrap();
    let grown = memory_peak_kib(&world.server) - before;
    // The book holds every authorization; the answers it does not.
    assert!(
        grown * 1024 < bytes * 3,
        "{grown} KiB more for {bytes} bytes of answers"
    );
    world.unharmed();
}

#[test]
fn what_is_no_batch_is_refused_whole() {
    let world = World::new();
    let body = orders(1);
    let bearer = format!("Bearer {}", world.token);
    for kind in ["application/json", "application/jose", "text/plain", ""] {
        let headers = [("content-type", kind), ("authorization", bearer.as_str())];
        let answer = world
            .server
            .send("POST", "/v1/batches", &headers, body.as_bytes());
        answer.refused(415, "malformed");
    }
    world
        .batch(&[("content-encoding", "gzip")], body.as_bytes())
        .refused(415, "malformed");
    let empty = world.batch(&[], b"\n\n");
    assert_eq!((empty.status, empty.body.len()), (200, 0));
}
