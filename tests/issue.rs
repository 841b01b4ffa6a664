//! `fob issue`: a file of orders in, a file of bundles out, whatever is killed on the way.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::batches::{World, order, orders};
use crate::support::{FOB, Issuer, Server, now, time};

/// `fob issue` with these arguments, against the server the world has.
fn command(world: &World, server: &Server, args: &[&str]) -> Command {
    let mut command = world.issuer.command(&["issue"]);
    command.args(["--url", &server.url]).args(args);
    command
}

fn issue(world: &World, args: &[&str]) -> Output {
    command(world, &world.server, args).output().unwrap()
}

#[track_caller]
fn code(done: &Output, expected: i32) {
    let complaint = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(expected), "{complaint}");
}

fn file(issuer: &Issuer, name: &str) -> String {
    issuer.file(name).display().to_string()
}

fn write(issuer: &Issuer, name: &str, text: impl AsRef<[u8]>) -> String {
    std::fs::write(issuer.file(name), text).unwrap();
    file(issuer, name)
}

fn lines(path: impl AsRef<Path>) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(
        text.is_empty() || text.ends_with('\n'),
        "a partial line is left"
    );
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// References and bundles of an output; each reference once, each on its line.
fn bundles(path: &str) -> BTreeMap<String, (u64, Value)> {
    let mut found = BTreeMap::new();
    for line in lines(path) {
        assert_eq!(line["status"], "issued");
        let reference = line["ref"].as_str().unwrap().to_owned();
        let one = (line["line"].as_u64().unwrap(), line["bundle"].clone());
        assert!(
            found.insert(reference.clone(), one).is_none(),
            "{reference} came twice"
        );
    }
    found
}

/// A car believes every key of an output.
fn verify(issuer: &Issuer, server: &Server, output: &str, keys: usize) {
    let trust = server.get("/v1/trust", &[]).body;
    let trust = write(issuer, "trust.cbor", trust);
    let root = file(issuer, "root.cbor");
    let verdict = issuer.fob(&[
        "verify", output, "--root", &root, "--trust", &trust, "--json",
    ]);
    let verdict: Value = serde_json::from_str(&verdict).unwrap();
    assert_eq!(verdict["accepted"], true);
    assert_eq!(verdict["keys"].as_array().unwrap().len(), keys);
}

#[test]
fn orders_as_lines() {
    let world = World::new();
    let issuer = &world.issuer;
    let text = format!(
        "{}\n{{\"ref\":\"odd\"}}\nnonsense\n{}",
        orders(3),
        order("last", 9)
    );
    let orders = write(issuer, "orders.ndjson", text);
    let output = file(issuer, "out.ndjson");
    let done = issue(&world, &[&orders, "-o", &output, "--json", "--key", "k-1"]);
    code(&done, 3);
    let summary: Value = serde_json::from_slice(&done.stdout).unwrap();
    for (name, expected) in [("orders", 6), ("issued", 4), ("refused", 2), ("keys", 8)] {
        assert_eq!(summary[name], expected, "{summary}");
    }
    assert_eq!(summary["key"], "k-1");
    let issued = bundles(&output);
    let numbers: BTreeMap<_, _> = issued
        .iter()
        .map(|(reference, (line, _))| (reference.as_str(), *line))
        .collect();
    assert_eq!(
        numbers,
        BTreeMap::from([("r-1", 1), ("r-2", 2), ("r-3", 3), ("last", 7)])
    );
    let refused = lines(format!("{output}.refused"));
    assert_eq!(refused.len(), 2);
    assert_eq!(
        (&refused[0]["line"], &refused[0]["ref"]),
        (&json!(5), &json!("odd"))
    );
    assert_eq!(
        (&refused[0]["code"], &refused[0]["detail"]),
        (&json!("malformed"), &json!("missing field `vehicle`"))
    );
    assert_eq!(
        (&refused[1]["line"], refused[1].get("ref")),
        (&json!(6), None)
    );
    verify(issuer, &world.server, &output, 8);
    // The same again is not what anybody wants by accident.
    let again = issue(&world, &[&orders, "-o", &output]);
    code(&again, 1);
    assert!(
        String::from_utf8(again.stderr)
            .unwrap()
            .contains("--resume")
    );
    // On purpose it asks again for what was refused, and for nothing else.
    let before = std::fs::read(&output).unwrap();
    code(&issue(&world, &[&orders, "-o", &output, "--resume"]), 3);
    assert_eq!(std::fs::read(&output).unwrap(), before);
    assert_eq!(lines(format!("{output}.refused")), refused);
    // Other orders are not those of this run.
    write(issuer, "orders.ndjson", crate::batches::orders(3));
    let other = issue(&world, &[&orders, "-o", &output, "--resume"]);
    code(&other, 1);
    assert!(
        String::from_utf8(other.stderr)
            .unwrap()
            .contains("not what it was")
    );
}

#[test]
fn orders_as_a_table() {
    let world = World::new();
    let issuer = &world.issuer;
    let window = format!("{},{}", time(now() - 60), time(now() + 3600));
    let who = "renter-1,phone-1";
    let text = format!(
        "ref,vehicle,functions,not_before,not_after,identity,terminal,lat,lon,radius_m,max_uses,signing\r\n\
         \"a, 1\",DEMO-0001,doors.unlock;3,{window},{who},48.1,11.5,500,3=10,each\r\n\
         \r\n\
         b,DEMO-0002,1 2,{window},{who},,,,,\r\n\
         c,DEMO-0003,1,{window},{who},48.1,x,500,,\r\n\
         d,DEMO-0004,1,{window},{who}\r\n\
         e,NO-SUCH,1,{window},{who},,,,,\r\n\
         f,DEMO-0005,1,{window},{who},,,,,\r\n"
    );
    let orders = write(issuer, "orders.csv", text);
    let output = file(issuer, "out.ndjson");
    let side = file(issuer, "side.ndjson");
    let args = [
        &orders,
        "-o",
        &output,
        "--refused",
        &side,
        "--signing",
        "auto",
    ];
    let done = issue(&world, &args.map(|arg: &str| arg));
    code(&done, 3);
    let issued = bundles(&output);
    let numbers: Vec<_> = issued
        .iter()
        .map(|(name, (line, _))| (name.as_str(), *line))
        .collect();
    assert_eq!(numbers, [("a, 1", 2), ("b", 4), ("f", 8)]);
    let refused: BTreeMap<u64, Value> = lines(&side)
        .into_iter()
        .map(|refused| (refused["line"].as_u64().unwrap(), refused))
        .collect();
    let fields: Vec<_> = refused
        .iter()
        .map(|(line, one)| {
            (
                *line,
                one["ref"].as_str(),
                one["code"].as_str().unwrap(),
                one["field"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        fields,
        [
            (5, Some("c"), "malformed", "lon"),
            (6, Some("d"), "malformed", "row"),
            (7, Some("e"), "unknown_vehicle", "vehicle"),
        ]
    );
    let detail = refused[&5]["detail"].as_str().unwrap();
    assert!(detail.contains("orders.csv, line 5, lon"), "{detail}");
    verify(issuer, &world.server, &output, 5);
}

#[test]
fn a_table_whose_header_is_wrong_is_not_begun() {
    let world = World::new();
    let issuer = &world.issuer;
    for (header, named) in [("ref,vehicle\n", "functions"), ("a,b\nc,d\n", "\"a\"")] {
        let orders = write(issuer, "wrong.csv", header);
        let done = issue(&world, &[&orders, "-o", &file(issuer, "none")]);
        code(&done, 1);
        let complaint = String::from_utf8(done.stderr).unwrap();
        assert!(
            complaint.contains("wrong.csv, line 1") && complaint.contains(named),
            "{complaint}"
        );
        assert!(!issuer.file("none").exists());
    }
}

#[test]
fn the_token_may_be_made_for_the_run_or_come_from_a_file() {
    let world = World::new();
    let issuer = &world.issuer;
    let orders = write(issuer, "orders.ndjson", orders(2));
    let out = |n: u32| file(issuer, &format!("out-{n}"));
    let token = write(issuer, "issue.token", &world.token);
    // Elsewhere, where there is no D.
    let run = |token: &str, output: &str, url: &str| {
        let mut command = Command::new(FOB);
        command.args(["issue", &orders, "-o", output, "--url", url]);
        let command = command.args(["--token-file", token, "--dir", "/nowhere"]);
        command.output().unwrap()
    };
    code(&run(&token, &out(1), &world.server.url), 0);
    assert!(!issuer.file("out-1.refused").exists());
    let wrong = write(issuer, "wrong.token", issuer.token("read"));
    let done = run(&wrong, &out(2), &world.server.url);
    code(&done, 1);
    let complaint = String::from_utf8(done.stderr).unwrap();
    assert!(
        complaint.contains("forbidden") && complaint.contains("issue"),
        "{complaint}"
    );
    let done = run(&token, &out(3), "http://127.0.0.1:1");
    code(&done, 1);
    assert!(
        String::from_utf8(done.stderr)
            .unwrap()
            .contains("fob serve")
    );
    // One made for the run has ended with it.
    code(&issue(&world, &[&orders, "-o", &out(4)]), 0);
    let listed = issuer.fob(&["token", "list", "--json"]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let states: Vec<_> = listed
        .as_array()
        .unwrap()
        .iter()
        .filter(|token| token["state"] == "revoked")
        .collect();
    assert_eq!(states.len(), 1);
    assert_eq!(states[0]["scopes"], json!(["issue"]));
    issuer.fob(&["fleet", "create", "other"]);
    let done = issue(&world, &[&orders, "-o", &out(5)]);
    code(&done, 1);
    let complaint = String::from_utf8(done.stderr).unwrap();
    assert!(
        complaint.contains("--fleet") && complaint.contains("demo, other"),
        "{complaint}"
    );
    code(
        &issue(&world, &[&orders, "-o", &out(5), "--fleet", "demo"]),
        0,
    );
    assert!(world.server.stop());
    let done = issuer.fob_fails(&["issue", &orders, "-o", &out(6)]);
    assert!(done.contains("fob serve"), "{done}");
}

#[test]
fn orders_may_come_from_standard_input() {
    let world = World::new();
    let output = file(&world.issuer, "out.ndjson");
    let mut child = command(&world, &world.server, &["-", "-o", &output])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(orders(5).as_bytes())
        .unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(bundles(&output).len(), 5);
    assert!(!Path::new(&format!("{output}.orders")).exists());
}

/// Waits until an output has something in it.
fn begun(output: &str) {
    while std::fs::metadata(output).map_or(0, |found| found.len()) == 0 {
        thread::sleep(Duration::from_millis(2));
    }
}

const MANY: u64 = 2_500;

/// The run is whole: every order once, on its line, and a car believes all keys.
fn whole(world: &World, server: &Server, output: &str) {
    let issued = bundles(output);
    assert_eq!(issued.len() as u64, MANY);
    let ids: BTreeSet<_> = issued
        .values()
        .map(|(_, bundle)| bundle["bundle"].to_string())
        .collect();
    assert_eq!(ids.len() as u64, MANY);
    assert!(
        issued
            .iter()
            .all(|(reference, (line, _))| *reference == format!("r-{line}"))
    );
    verify(&world.issuer, server, output, 2 * MANY as usize);
    // One authorization for each order, and not one more.
    let mut held = 0;
    let mut after = String::new();
    loop {
        let page = server.get(
            &format!("/v1/authorizations?limit=500{after}"),
            &[(
                "authorization",
                &format!("Bearer {}", world.issuer.token("read")),
            )],
        );
        let page: Value = serde_json::from_slice(&page.body).unwrap();
        held += page["items"].as_array().unwrap().len() as u64;
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(held, MANY);
}

#[test]
fn a_killed_client_goes_on_where_it_stopped() {
    let world = World::new();
    let orders = write(&world.issuer, "orders.ndjson", orders(MANY));
    let output = file(&world.issuer, "out.ndjson");
    let mut child = command(&world, &world.server, &[&orders, "-o", &output, "--quiet"])
        .spawn()
        .unwrap();
    begun(&output);
    child.kill().unwrap();
    child.wait().unwrap();
    let mut before = std::fs::read(&output).unwrap();
    before.truncate(before.iter().rposition(|byte| *byte == b'\n').unwrap() + 1);
    let kept = before.iter().filter(|byte| **byte == b'\n').count();
    assert!((kept as u64) < MANY, "it was killed too late to tell");
    // As a kill in the middle of a write leaves it.
    std::fs::write(&output, [&before[..], b"{\"line\":9,\"ref\":\"to"].concat()).unwrap();
    code(&issue(&world, &[&orders, "-o", &output, "--resume"]), 0);
    assert!(
        std::fs::read(&output).unwrap().starts_with(&before),
        "what was there is kept"
    );
    whole(&world, &world.server, &output);
}

#[test]
fn a_killed_server_costs_nothing_that_was_issued() {
    let world = World::new();
    let orders = write(&world.issuer, "orders.ndjson", orders(MANY));
    let output = file(&world.issuer, "out.ndjson");
    let token = write(&world.issuer, "issue.token", &world.token);
    let args = [orders.as_str(), "-o", &output, "--token-file", &token];
    let child = command(&world, &world.server, &args)
        .args(["--retries", "1"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    begun(&output);
    let World {
        issuer,
        server,
        token,
    } = world;
    server.kill();
    let done = child.wait_with_output().unwrap();
    code(&done, 1);
    assert!(String::from_utf8(done.stderr).unwrap().contains("--resume"));
    assert!(
        (lines(&output).len() as u64) < MANY,
        "it was killed too late to tell"
    );
    let server = issuer.serve();
    let world = World {
        issuer,
        server,
        token,
    };
    code(
        &command(&world, &world.server, &args)
            .arg("--resume")
            .output()
            .unwrap(),
        0,
    );
    whole(&world, &world.server, &output);
    world.server.kill();
    crate::audit::sound(&world.issuer);
}

#[test]
fn a_server_that_comes_back_is_called_again() {
    let world = World::new();
    let orders = write(&world.issuer, "orders.ndjson", orders(MANY));
    let output = file(&world.issuer, "out.ndjson");
    let child = command(&world, &world.server, &[&orders, "-o", &output])
        .spawn()
        .unwrap();
    begun(&output);
    let World {
        issuer,
        server,
        token,
    } = world;
    let address = server.url.strip_prefix("http://").unwrap().to_owned();
    server.kill();
    let server = issuer.serve_at(&address);
    let done = child.wait_with_output().unwrap();
    code(&done, 0);
    let world = World {
        issuer,
        server,
        token,
    };
    whole(&world, &world.server, &output);
}
