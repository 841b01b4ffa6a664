//! `POST /v1/import` and `fob import`: a registry out of a file, whatever is killed on the way.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{FOB, Issuer, Phone, Server};

/// A server of the demo fleet, and a token to import with.
struct World {
    issuer: Issuer,
    server: Server,
    token: String,
}

impl World {
    fn new() -> Self {
        let issuer = Issuer::demo();
        let server = issuer.serve();
        let token = issuer.token("admin");
        Self {
            issuer,
            server,
            token,
        }
    }

    /// What became of each line, in the order of the answers.
    fn import(&self, body: &str) -> Vec<(u64, Value)> {
        let bearer = format!("Bearer {}", self.token);
        let headers = [
            ("content-type", "application/x-ndjson"),
            ("authorization", bearer.as_str()),
        ];
        let answer = self
            .server
            .send("POST", "/v1/import", &headers, body.as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text());
        let text = String::from_utf8(answer.body).unwrap();
        let value = |line: &str| serde_json::from_str::<Value>(line).unwrap();
        text.lines()
            .map(|line| (value(line)["line"].as_u64().unwrap(), value(line)))
            .collect()
    }

    /// Sends the head of an import whose body comes in chunks.
    fn begin(&self) -> TcpStream {
        let address = self.server.url.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let head = format!(
            "POST /v1/import HTTP/1.1\r\nhost: fob\r\ncontent-type: application/x-ndjson\r\n\
             authorization: Bearer {}\r\ntransfer-encoding: chunked\r\n\r\n",
            self.token
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream
    }

    fn identities(&self) -> u64 {
        let fleets = self.issuer.fob(&["fleet", "list", "--json"]);
        let fleets: Value = serde_json::from_str(&fleets).unwrap();
        fleets[0]["identities"].as_u64().unwrap()
    }

    /// Writes a file and returns its path.
    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        let path = self.issuer.file(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// `fob import` with these arguments, against this server.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.issuer.command(&["import"]);
        command.args(["--url", &self.server.url]).args(args);
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }
}

/// The identities of the demo fleet.
const DEMO: u64 = 101;

fn people(range: std::ops::Range<u64>) -> String {
    let line = |n| format!("{{\"kind\":\"identity\",\"id\":\"person-{n}\"}}\n");
    range.map(line).collect()
}

#[track_caller]
fn summary(done: &Output, code: i32) -> Value {
    let complaint = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(code), "{complaint}");
    serde_json::from_slice(&done.stdout).unwrap()
}

/// The refusals of a side file, by their lines: code and field.
fn refusals(path: &str) -> BTreeMap<u64, (String, String)> {
    let text = std::fs::read_to_string(path).unwrap();
    let one = |line: &str| {
        let refused: Value = serde_json::from_str(line).unwrap();
        let text = |name: &str| refused[name].as_str().unwrap_or_default().to_owned();
        (
            refused["line"].as_u64().unwrap(),
            (text("code"), text("field")),
        )
    };
    let all: Vec<_> = text.lines().map(one).collect();
    let found: BTreeMap<_, _> = all.iter().cloned().collect();
    assert_eq!(found.len(), all.len(), "a line is refused twice: {text}");
    found
}

// ---- over HTTP -----------------------------------------------------------------------------

#[test]
#[expect(clippy::too_many_lines, reason = "a line for each case")]
fn what_is_there_stays_as_it_is_and_the_refusal_names_what_differs() {
    let world = World::new();
    let (jwk, other) = (Phone::new().jwk(), Phone::new().jwk());
    let licence = json!([{ "class": "B", "expires": "2031-06-30T00:00:00Z" }]);
    let identity = json!({ "kind": "identity", "id": "anna", "licences": licence });
    let terminal = json!({ "kind": "terminal", "id": "phone", "identity": "anna", "jwk": jwk });
    let vehicle = json!({ "kind": "vehicle", "id": "VAN-1", "model": "Van", "owner": "anna",
        "functions": [1, { "code": 300, "name": "ramp.lower" }] });
    let with = |of: &Value, member: &str, value: Value| {
        let mut changed = of.clone();
        changed[member] = value;
        changed
    };
    for (of, same, different) in [
        (
            &identity,
            vec![
                with(&identity, "status", json!("active")),
                with(&identity, "hold", json!("none")),
            ],
            vec![
                ("status", json!("suspended")),
                ("hold", json!("payment")),
                ("proved", json!("2026-01-01T00:00:00Z")),
                ("licences", json!([])),
            ],
        ),
        (
            &terminal,
            vec![],
            vec![("identity", json!("renter-1")), ("jwk", json!(other))],
        ),
        (
            &vehicle,
            vec![with(
                &vehicle,
                "functions",
                json!(["ramp.lower", "doors.unlock"]),
            )],
            vec![
                ("model", json!("Car")),
                ("functions", json!([1])),
                ("functions", Value::Null),
                (
                    "functions",
                    json!([1, { "code": 301, "name": "ramp.raise" }]),
                ),
                ("owner", json!("renter-1")),
                ("owner", Value::Null),
                ("jwk", json!(jwk)),
            ],
        ),
    ] {
        let mut lines = vec![of.to_string(), of.to_string()];
        lines.extend(same.iter().map(ToString::to_string));
        let first = lines.len();
        let changed = different
            .iter()
            .map(|(member, value)| with(of, member, value.clone()));
        lines.extend(changed.map(|line| line.to_string()));
        lines.push(of.to_string());
        let answers = world.import(&lines.join("\n"));
        let numbers: Vec<_> = answers.iter().map(|(line, _)| *line).collect();
        assert_eq!(
            numbers,
            (1..=lines.len() as u64).collect::<Vec<_>>(),
            "in their order"
        );
        for (at, (_, answer)) in answers.iter().enumerate() {
            let expected = match at {
                0 => "done",
                at if at < first || at == lines.len() - 1 => "unchanged",
                _ => "registered_otherwise",
            };
            assert_eq!(answer["status"], expected, "{}: {answer}", lines[at]);
            if expected == "registered_otherwise" {
                assert_eq!(
                    answer["problem"]["field"],
                    different[at - first].0,
                    "{answer}"
                );
                assert_eq!(answer["problem"]["status"], 409, "{answer}");
            }
        }
    }
}

#[test]
fn a_line_is_answered_before_the_next_one_is_sent() {
    let world = World::new();
    let mut stream = world.begin();
    let mut answers = BufReader::new(stream.try_clone().unwrap());
    let mut next = || {
        let mut line = String::new();
        while !line.starts_with('{') {
            line.clear();
            assert!(answers.read_line(&mut line).unwrap() > 0, "it has ended");
        }
        serde_json::from_str::<Value>(&line).unwrap()
    };
    for n in 1..=5 {
        let line = people(n..n + 1);
        let chunk = format!("{:x}\r\n{line}\r\n", line.len());
        stream.write_all(chunk.as_bytes()).unwrap();
        assert_eq!(next(), json!({ "line": n, "status": "done" }));
    }
    // It is all there, though the call has not ended and never does in order.
    drop(stream);
    assert_eq!(world.identities(), DEMO + 5);
    let answers = world.import(&people(1..7));
    let words: Vec<_> = answers.iter().map(|(_, one)| &one["status"]).collect();
    assert_eq!(words[..5], vec!["unchanged"; 5]);
    assert_eq!(words[5], "done");
}

#[test]
fn memory_does_not_grow_with_the_body() {
    let world = World::new();
    let peak = || {
        let path = format!("/proc/{}/status", world.server.pid());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:"));
        let digits = line.unwrap().split_whitespace().nth(1).unwrap();
        digits.parse::<u64>().unwrap()
    };
    assert_eq!(world.import(&people(0..1))[0].1["status"], "done");
    let before = peak();
    // 120 MiB in lines as long as they may be, answered or not.
    let line = format!(
        "{{\"kind\":\"identity\",\"id\":\"person-0\"{}}}\n",
        " ".repeat(65_000)
    );
    let mut stream = world.begin();
    let reader = stream.try_clone().unwrap();
    let answered = thread::spawn(move || {
        let lines = BufReader::new(reader).lines();
        lines
            .map_while(Result::ok)
            .take_while(|line| line != "0")
            .filter(|line| line.contains("\"unchanged\""))
            .count()
    });
    let chunk = format!("{:x}\r\n{line}\r\n", line.len());
    for _ in 0..1900 {
        stream.write_all(chunk.as_bytes()).unwrap();
    }
    stream.write_all(b"0\r\n\r\n").unwrap();
    assert_eq!(answered.join().unwrap(), 1900);
    let grown = peak() - before;
    assert!(grown < 48 * 1024, "{grown} KiB");
}

#[test]
fn of_two_that_contradict_each_other_one_is_registered() {
    let world = World::new();
    let rounds = 40;
    let body = |hold: &str| {
        let line = |n| format!("{{\"kind\":\"identity\",\"id\":\"p-{n}\",\"hold\":\"{hold}\"}}\n");
        (0..rounds).map(line).collect::<String>()
    };
    let answers: Vec<_> = thread::scope(|scope| {
        let calls = ["payment", "insurance", "payment"].map(|hold| {
            let (world, body) = (&world, body(hold));
            scope.spawn(move || world.import(&body))
        });
        calls.map(|call| call.join().unwrap()).into()
    });
    for at in 0..rounds {
        let mut words: Vec<_> = answers
            .iter()
            .map(|one| one[at].1["status"].clone())
            .collect();
        words.sort_by_key(ToString::to_string);
        let either = [
            json!(["done", "registered_otherwise", "unchanged"]),
            json!(["done", "registered_otherwise", "registered_otherwise"]),
        ];
        assert!(either.contains(&json!(words)), "{words:?}");
    }
    assert_eq!(world.identities(), DEMO + rounds as u64);
}

#[test]
fn too_many_imports_and_one_that_falls_silent_are_turned_away() {
    let issuer = Issuer::demo();
    let server = issuer.serve_with(&[
        ("FOB_SERVER_BATCHES_MAX", "1"),
        ("FOB_SERVER_BATCH_IDLE_MS", "500"),
    ]);
    let token = issuer.token("admin");
    let world = World {
        issuer,
        server,
        token,
    };
    let mut stream = world.begin();
    let line = people(1..2);
    let chunk = format!("{:x}\r\n{line}\r\n", line.len());
    stream.write_all(chunk.as_bytes()).unwrap();
    let mut answers = BufReader::new(stream).lines().map_while(Result::ok);
    assert!(answers.any(|line| line.contains("\"done\"")));
    let body = json!({ "kind": "identity", "id": "other" });
    let second = world
        .server
        .json_as(&world.token, "POST", "/v1/import", &body);
    second.refused(503, "busy");
    let last = answers.find(|line| line.starts_with('{')).unwrap();
    let last: Value = serde_json::from_str(&last).unwrap();
    assert_eq!(
        (&last["status"], &last["line"]),
        (&json!("malformed"), &Value::Null)
    );
    let third = world
        .server
        .json_as(&world.token, "POST", "/v1/import", &body);
    assert_eq!(third.value()["status"], "done");
}

// ---- `fob import` --------------------------------------------------------------------------

#[test]
fn a_file_of_lines() {
    let world = World::new();
    let text = format!(
        "{}\n{{\"kind\":\"identity\",\"id\":\"person-1\",\"hold\":\"payment\"}}\nnonsense\n{}",
        people(0..3),
        r#"{"kind":"vehicle","id":"VAN-1","model":"Van","owner":"person-2"}"#
    );
    let file = world.write("fleet.ndjson", text);
    let found = summary(&world.run(&[&file, "--json"]), 3);
    for (name, expected) in [
        ("lines", 6),
        ("registered", 4),
        ("unchanged", 0),
        ("refused", 2),
    ] {
        assert_eq!(found[name], expected, "{found}");
    }
    let side = format!("{file}.refused");
    let refused = refusals(&side);
    assert_eq!(refused[&5], ("registered_otherwise".into(), "hold".into()));
    assert_eq!(refused[&6].0, "malformed");
    assert_eq!(world.identities(), DEMO + 3);
    assert!(
        !world.issuer.file("fleet.ndjson.import").exists(),
        "there is nothing to go on with"
    );
    // The same again changes nothing.
    let found = summary(&world.run(&[&file, "--json"]), 3);
    for (name, expected) in [("registered", 0), ("unchanged", 4), ("refused", 2)] {
        assert_eq!(found[name], expected, "{found}");
    }
    assert_eq!(refusals(&side), refused);
    let resumed = world.run(&[&file, "--resume"]);
    assert_eq!(resumed.status.code(), Some(1));
    let said = String::from_utf8(resumed.stderr).unwrap();
    assert!(said.contains("no run to go on with"), "{said}");
}

#[test]
fn tables_of_every_kind() {
    let world = World::new();
    let jwk = serde_json::to_string(&Phone::new().jwk())
        .unwrap()
        .replace('"', "\"\"");
    let people = "id,licences,hold\r\nanna,B=2031-06-30T00:00:00Z;C1=2030-01-01T00:00:00Z,\r\n\
                  ben,,payment\r\ncarl,B,\r\n";
    let file = world.write("people.csv", people);
    let said = String::from_utf8(world.run(&[&file]).stderr).unwrap();
    assert!(
        said.contains("people.csv, line 1, kind") && said.contains("--kind"),
        "{said}"
    );
    let found = summary(&world.run(&[&file, "--kind", "identity", "--json"]), 3);
    assert_eq!(
        (&found["registered"], &found["refused"]),
        (&json!(2), &json!(1)),
        "{found}"
    );
    let refused = refusals(&format!("{file}.refused"));
    assert_eq!(refused[&4], ("malformed".into(), "licences".into()));
    let cars = format!(
        "kind,id,model,functions,owner,identity,jwk\n\
         vehicle,VAN-1,\"Van, big\",doors.unlock;300=ramp.lower,anna,,\n\
         vehicle,VAN-2,Van,ramp.lower,,,\n\
         terminal,phone,,,,anna,\"{jwk}\"\n\
         terminal,pad,Van,,,anna,\"{jwk}\"\n\
         vehicle,VAN-3,Van,,nobody,,\n"
    );
    let file = world.write("cars.csv", cars);
    let found = summary(&world.run(&[&file, "--json"]), 3);
    assert_eq!(found["registered"], 3, "{found}");
    let refused = refusals(&format!("{file}.refused"));
    assert_eq!(refused.keys().copied().collect::<Vec<_>>(), [5, 6]);
    assert_eq!(refused[&5].0, "malformed", "a terminal has no model");
    assert_eq!(refused[&6], ("unknown_identity".into(), "owner".into()));
    // What came out of the tables is what their cells say.
    let expires =
        |class: &str, year| json!({ "class": class, "expires": format!("{year}T00:00:00Z") });
    let anna = [expires("B", "2031-06-30"), expires("C1", "2030-01-01")];
    let lines = [
        json!({ "kind": "identity", "id": "anna", "licences": anna }),
        json!({ "kind": "identity", "id": "ben", "hold": "payment" }),
        json!({ "kind": "vehicle", "id": "VAN-1", "model": "Van, big", "owner": "anna",
            "functions": ["doors.unlock", "ramp.lower"] }),
        json!({ "kind": "vehicle", "id": "VAN-2", "model": "Van", "functions": [300] }),
    ];
    let body: Vec<_> = lines.iter().map(ToString::to_string).collect();
    for (_, answer) in world.import(&body.join("\n")) {
        assert_eq!(answer["status"], "unchanged", "{answer}");
    }
    let lines = world.write("lines.ndjson", "{}");
    let said = String::from_utf8(world.run(&[&lines, "--kind", "vehicle"]).stderr).unwrap();
    assert!(said.contains("leave out --kind"), "{said}");
}

#[test]
fn the_token_must_have_the_scope() {
    let world = World::new();
    let file = world.write("people.ndjson", people(0..2));
    let token = world.write("read.token", world.issuer.token("read"));
    let mut command = Command::new(FOB);
    command.args([
        "import",
        &file,
        "--url",
        &world.server.url,
        "--dir",
        "/nowhere",
    ]);
    let done = command.args(["--token-file", &token]).output().unwrap();
    assert_eq!(done.status.code(), Some(1));
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(said.contains("forbidden"), "{said}");
    assert_eq!(world.identities(), DEMO);
}

/// So many that a run lasts.
const MANY: u64 = 300_000;

/// A file of many lines: every hundredth cannot be read.
fn many(world: &World) -> String {
    let line = |n: u64| match n % 100 {
        0 => format!("{{\"kind\":\"identity\",\"id\":\"bad id {n}\"}}\n"),
        _ => people(n..n + 1),
    };
    world.write("many.ndjson", (1..=MANY).map(line).collect::<String>())
}

/// Waits until a run has written down how far it is, and returns that.
fn begun(world: &World, child: &mut Child) -> u64 {
    loop {
        assert!(
            child.try_wait().unwrap().is_none(),
            "it ended too soon to tell"
        );
        let note = std::fs::read(world.issuer.file("many.ndjson.import"));
        let note: Value = serde_json::from_slice(&note.unwrap_or_default()).unwrap_or_default();
        match note["line"].as_u64() {
            Some(line) if line > 0 => return line,
            _ => thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// Everything is there, and every refusal once.
fn whole(world: &World, file: &str, found: &Value) {
    let refused = refusals(&format!("{file}.refused"));
    let expected: Vec<_> = (1..=MANY).filter(|n| n % 100 == 0).collect();
    assert_eq!(refused.keys().copied().collect::<Vec<_>>(), expected);
    assert_eq!(found["refused"], MANY / 100, "{found}");
    assert_eq!(found["lines"], MANY, "{found}");
    assert_eq!(world.identities(), DEMO + MANY - MANY / 100);
}

#[test]
fn a_killed_client_goes_on_where_it_was() {
    let world = World::new();
    let file = many(&world);
    let mut child = world.command(&[&file, "--quiet"]).spawn().unwrap();
    let line = begun(&world, &mut child);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(line < MANY, "it was killed too late to tell");
    let found = summary(&world.run(&[&file, "--resume", "--json"]), 3);
    whole(&world, &file, &found);
    // Another file is not that of this run.
    let mut child = world.command(&[&file, "--quiet"]).spawn().unwrap();
    begun(&world, &mut child);
    child.kill().unwrap();
    child.wait().unwrap();
    std::fs::write(&file, people(0..9)).unwrap();
    let other = world.run(&[&file, "--resume"]);
    assert_eq!(other.status.code(), Some(1));
    let said = String::from_utf8(other.stderr).unwrap();
    assert!(said.contains("not what it was"), "{said}");
}

#[test]
fn a_server_that_is_killed_and_comes_back_is_called_again() {
    let world = World::new();
    let file = many(&world);
    let mut child = world
        .command(&[&file, "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    begun(&world, &mut child);
    let World {
        issuer,
        server,
        token,
    } = world;
    let address = server.url.strip_prefix("http://").unwrap().to_owned();
    server.kill();
    let server = issuer.serve_at(&address);
    let found = summary(&child.wait_with_output().unwrap(), 3);
    let world = World {
        issuer,
        server,
        token,
    };
    whole(&world, &file, &found);
}
