//! Whatever comes in, what goes out is an answer: broken JSON, wrong types, bodies without end,
//! bytes that are no HTTP, clients that never finish. Never a 5xx, never a wait without end.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Answer, Issuer, Phone, Server, authorization, now, redemption, time};

/// After so long without a byte a server is held to hang.
const PATIENCE: Duration = Duration::from_secs(10);

const JSON: (&str, &str) = ("content-type", "application/json");

// ---- raw connections -----------------------------------------------------------------------

/// What a connection answered: status, head and body.
struct Reply {
    status: u16,
    head: String,
    body: Vec<u8>,
}

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(&server.url["http://".len()..]).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends these bytes, says that no more will come, and reads to the end. `None` where the
/// connection was closed without an answer.
fn exchange(server: &Server, request: &[u8]) -> Option<Reply> {
    let mut stream = connect(server);
    // A server may answer and close before it has read everything.
    if stream.write_all(request).is_ok() {
        let _ = stream.shutdown(Shutdown::Write);
    }
    read(&mut stream)
}

/// Reads one answer, to the end of the connection or of its body.
fn read(stream: &mut TcpStream) -> Option<Reply> {
    let (mut bytes, mut part) = (Vec::new(), [0; 16_384]);
    loop {
        if let Some(reply) = parse(&bytes, false) {
            return Some(reply);
        }
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(n) => bytes.extend_from_slice(&part[..n]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            Err(error) => panic!("the server hangs: {error}"),
        }
    }
    parse(&bytes, true)
}

fn parse(bytes: &[u8], ended: bool) -> Option<Reply> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    if status == 100 {
        return parse(&bytes[end + 4..], ended);
    }
    let head = head.to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map(|length| length.parse::<usize>().unwrap());
    let mut body = bytes[end + 4..].to_vec();
    let complete = length.is_some_and(|length| body.len() >= length);
    // What follows is the answer to another request.
    body.truncate(length.unwrap_or(usize::MAX));
    (ended || complete).then_some(Reply { status, head, body })
}

impl Reply {
    /// The HTTP parser has answered, before there was a request: such an answer has no body and
    /// none of the headers the application gives to every answer.
    fn is_parsers(&self) -> bool {
        !self.head.contains("x-content-type-options: nosniff")
            && self.body.is_empty()
            && matches!(self.status, 400 | 408 | 431)
    }

    /// Asserts that it is no fault, and where it is a refusal, a whole one.
    fn orderly(&self, what: &str) {
        let shown = String::from_utf8_lossy(&self.body);
        assert!(self.status < 500, "{what}: {} {shown}", self.status);
        if self.status < 400 || self.is_parsers() {
            return;
        }
        assert!(
            self.head.contains("content-type: application/problem+json"),
            "{what}: {}\n{shown}",
            self.head
        );
        let body: Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(body["status"], self.status, "{what}");
        assert!(body["code"].is_string(), "{what}: {shown}");
    }

    fn code(&self) -> Value {
        serde_json::from_slice::<Value>(&self.body).map_or(Value::Null, |body| body["code"].clone())
    }
}

/// A request, whole and well-formed as far as HTTP goes.
fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: fob\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    [head.as_bytes(), body].concat()
}

/// The same in chunks of this many bytes.
fn chunked(
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
    size: usize,
) -> Vec<u8> {
    let mut bytes = format!("{method} {path} HTTP/1.1\r\nhost: fob\r\n").into_bytes();
    for (name, value) in headers {
        bytes.extend(format!("{name}: {value}\r\n").bytes());
    }
    bytes.extend(b"transfer-encoding: chunked\r\n\r\n");
    for chunk in body.chunks(size) {
        bytes.extend(format!("{:x}\r\n", chunk.len()).bytes());
        bytes.extend([chunk, b"\r\n"].concat());
    }
    bytes.extend(b"0\r\n\r\n");
    bytes
}

// ---- the world -----------------------------------------------------------------------------

struct World {
    issuer: Issuer,
    server: Server,
    bearer: String,
}

/// A valid request with a JSON body.
struct Valid {
    method: &'static str,
    path: &'static str,
    body: Value,
}

impl World {
    fn new() -> Self {
        Self::with(&[])
    }

    fn with(variables: &[(&str, &str)]) -> Self {
        let issuer = Issuer::demo();
        let bearer = format!(
            "Bearer {}",
            issuer.token("authorize,issue,revoke,read,admin")
        );
        let server = issuer.serve_with(variables);
        Self {
            issuer,
            server,
            bearer,
        }
    }

    fn headers(&self) -> [(&str, &str); 2] {
        [JSON, ("authorization", &self.bearer)]
    }

    fn send(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        self.server.send(method, path, &self.headers(), body)
    }

    /// A valid request for every call that takes JSON, with every field there is.
    fn valid(&self) -> Vec<Valid> {
        let phone = Phone::new();
        let code_set = self
            .server
            .authorize(&self.issuer.owner(), "DEMO-0001", &["doors.unlock"]);
        let redeem = redemption(&self.server.url, &code_set, "renter-1", &phone);
        let mut authorize = authorization("DEMO-0001", &["doors.unlock", "engine.start"]);
        authorize["region"] = json!({ "circle": { "lat": 48.1, "lon": 11.5, "radius_m": 500 } });
        authorize["max_uses"] = json!({ "doors.unlock": 3 });
        authorize["recipient"] = json!({ "identity": "renter-1", "terminal": "their-phone" });
        authorize["pin"] = json!(true);
        authorize["redeem_by"] = json!(time(now() + 3600));
        authorize["signing"] = json!("each");
        let functions = json!(["doors.unlock", { "code": 300, "name": "crane.lift" }]);
        let licences = json!([{ "class": "B", "expires": "2099-12-31T00:00:00Z" }]);
        let of = |method, path, body| Valid { method, path, body };
        // The terminal first: the authorization is bound to it.
        vec![
            of(
                "PUT",
                "/v1/terminals/their-phone",
                json!({ "identity": "renter-1", "jwk": Phone::new().jwk() }),
            ),
            of("POST", "/v1/authorizations", authorize),
            of(
                "PUT",
                "/v1/identities/somebody",
                json!({ "status": "active", "licences": licences }),
            ),
            of(
                "PUT",
                "/v1/vehicles/CAR",
                json!({ "model": "M", "functions": functions, "owner": "owner-1",
                    "jwk": phone.jwk() }),
            ),
            of(
                "POST",
                "/v1/code-sets/preview",
                json!({ "code_set": code_set }),
            ),
            of("POST", "/v1/redemptions", {
                let mut body = redeem;
                body["identity"]["id"] = json!("renter-2");
                body["pin"] = json!("123456");
                body
            }),
        ]
    }

    /// Asserts that the server has taken no harm.
    fn unharmed(&self) {
        let ready = self.server.get("/readyz", &[]);
        assert_eq!(ready.status, 200, "{}", ready.text());
        let (owner, phone) = (self.issuer.owner(), Phone::new());
        let code_set = self
            .server
            .authorize(&owner, "DEMO-0002", &["doors.unlock"]);
        let answer = self.server.redeem(&code_set, "renter-99", &phone);
        assert_eq!(answer.status, 201, "{}", answer.text());
        let log = self.issuer.log();
        for trouble in ["panicked", "met a fault", "ERROR fob"] {
            assert!(!log.contains(trouble), "{log}");
        }
    }

    /// The most memory the server has had, in KiB.
    fn memory_peak_kib(&self) -> u64 {
        let path = format!("/proc/{}/status", self.server.pid());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:"));
        let digits = line.unwrap().split_whitespace().nth(1).unwrap();
        digits.parse().unwrap()
    }
}

/// Every route, with its methods.
const ROUTES: [(&str, &str); 27] = [
    ("/v1/vehicles/x", "PUT"),
    ("/v1/identities/x", "PUT"),
    ("/v1/terminals/x", "PUT"),
    ("/v1/import", "POST"),
    ("/v1/batches", "POST"),
    ("/v1/authorizations", "GET, HEAD, POST"),
    ("/v1/authorizations/x", "DELETE, GET, HEAD, PATCH"),
    ("/v1/authorizations/x/suspend", "POST"),
    ("/v1/authorizations/x/resume", "POST"),
    ("/v1/bundles/x/rebind", "POST"),
    ("/v1/revocations", "POST"),
    ("/v1/suspensions", "POST"),
    ("/v1/resumptions", "POST"),
    ("/v1/identities/x/data", "DELETE"),
    ("/v1/status/x", "GET, HEAD"),
    ("/v1/vehicles/x/reset", "POST"),
    ("/v1/vehicles/x/sync", "GET, HEAD, POST"),
    ("/v1/code-sets/preview", "POST"),
    ("/v1/redemptions", "POST"),
    ("/v1/bundles/x", "GET, HEAD"),
    ("/v1/trust", "GET, HEAD"),
    ("/.well-known/jwks.json", "GET, HEAD"),
    ("/healthz", "GET, HEAD"),
    ("/readyz", "GET, HEAD"),
    ("/metrics", "GET, HEAD"),
    ("/openapi.json", "GET, HEAD"),
    ("/docs", "GET, HEAD"),
];

// ---- methods and addresses -----------------------------------------------------------------

#[test]
fn methods_a_route_does_not_have_are_named_in_allow() {
    let world = World::new();
    for (path, allowed) in ROUTES {
        for method in [
            "GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW",
        ] {
            if allowed.split(", ").any(|one| one == method) {
                continue;
            }
            for headers in [&[][..], &world.headers()] {
                let reply =
                    exchange(&world.server, &request(method, path, headers, b"{}")).unwrap();
                assert_eq!(
                    (reply.status, reply.code()),
                    (405, json!("malformed")),
                    "{method} {path}"
                );
                reply.orderly(path);
                let allow = format!("allow: {}", allowed.to_ascii_lowercase());
                assert!(
                    reply.head.lines().any(|line| line == allow),
                    "{}",
                    reply.head
                );
            }
        }
    }
    world.unharmed();
}

#[test]
fn addresses_that_are_none_are_not_found() {
    let world = World::new();
    let long = format!("/v1/bundles/{}", "x".repeat(30_000));
    for path in [
        "/",
        "/v1",
        "/v1/",
        "/v2/authorizations",
        "/v1/authorizations/",
        "//v1/authorizations",
        "/v1/vehicles",
        "/v1/vehicles/",
        "/v1/vehicles/a/b",
        "/v1/../v1/trust",
        "/v1/./trust",
        "/V1/TRUST",
        "/v1/trust/",
        "/v1/trust%20",
        "/v1%2ftrust",
        "/%00",
        "/v1/bundles/%FF",
        "/v1/status/1",
        "/k",
        "/.well-known/",
        "/v1/bundles/a%2Fb",
        "/v1/bundles/%00",
        "/v1/bundles/%",
        &long,
    ] {
        let reply = exchange(&world.server, &request("GET", path, &world.headers(), b"")).unwrap();
        reply.orderly(path);
        assert_eq!(
            (reply.status, reply.code()),
            (404, json!("not_found")),
            "{path}"
        );
    }
    // Names of the registry have an alphabet, and what is outside it is malformed.
    let long = "x".repeat(65);
    for id in [
        "a%20b", "a%2Fb", "%00", "%FF%FE", "%C3%A4", "%", "%zz", "a,b", &long,
    ] {
        for (path, body) in [
            ("vehicles", json!({ "model": "M" })),
            ("identities", json!({})),
            (
                "terminals",
                json!({ "identity": "renter-1", "jwk": Phone::new().jwk() }),
            ),
        ] {
            let path = format!("/v1/{path}/{id}");
            let body = body.to_string();
            let bytes = request("PUT", &path, &world.headers(), body.as_bytes());
            let reply = exchange(&world.server, &bytes).unwrap();
            reply.orderly(&path);
            assert_eq!(
                (reply.status, reply.code()),
                (400, json!("malformed")),
                "{path}"
            );
        }
    }
    world.unharmed();
}

#[test]
fn pages_that_are_not_there_are_a_problem_like_any_other() {
    let world = World::new();
    for path in [
        "/docs/nothing.html",
        "/docs/../fob.toml",
        "/docs/%2e%2e/fob.toml",
    ] {
        let reply = exchange(&world.server, &request("GET", path, &[], b"")).unwrap();
        reply.orderly(path);
        assert_eq!(
            (reply.status, reply.code()),
            (404, json!("not_found")),
            "{path}"
        );
    }
}

// ---- bodies --------------------------------------------------------------------------------

/// Bodies that are no JSON, or none that anybody wants.
fn broken_bodies() -> Vec<Vec<u8>> {
    let nested = |open: &str, count: usize| open.repeat(count).into_bytes();
    vec![
        b"".to_vec(),
        b" ".to_vec(),
        b"{".to_vec(),
        b"}".to_vec(),
        b"[".to_vec(),
        b"null".to_vec(),
        b"true".to_vec(),
        b"7".to_vec(),
        b"\"text\"".to_vec(),
        b"[1]".to_vec(),
        b"{}{}".to_vec(),
        b"{} x".to_vec(),
        b"{\"a\"".to_vec(),
        b"{\"a\":}".to_vec(),
        b"{'a':1}".to_vec(),
        b"{a:1}".to_vec(),
        b"{\"a\":1,}".to_vec(),
        b"{\"a\":01}".to_vec(),
        b"{\"a\":NaN}".to_vec(),
        b"{\"a\":1e999999}".to_vec(),
        b"{\"a\":\"\\ud800\"}".to_vec(),
        b"{\"a\":\"\\x\"}".to_vec(),
        b"{\"a\":\"\n\"}".to_vec(),
        b"\xff\xfe{\0}\0".to_vec(),
        b"\xef\xbb\xbf{}".to_vec(),
        b"{\"a\":\"\xff\"}".to_vec(),
        b"{\"\xc3\x28\":1}".to_vec(),
        b"\0\0\0\0".to_vec(),
        b"<xml/>".to_vec(),
        b"model=M".to_vec(),
        nested("[", 60_000),
        nested("{\"a\":", 12_000),
        [nested("[", 30_000), nested("]", 30_000)].concat(),
        format!("{{\"a\":{}}}", "9".repeat(60_000)).into_bytes(),
        format!("{{\"{}\":1}}", "a".repeat(60_000)).into_bytes(),
        format!("{{{}\"a\":1}}", "\"a\":1,".repeat(8_000)).into_bytes(),
    ]
}

#[test]
fn bodies_that_are_no_json_are_malformed() {
    let world = World::new();
    for Valid { method, path, .. } in world.valid() {
        for body in broken_bodies() {
            let answer = world.send(method, path, &body);
            assert_eq!(
                answer.status,
                400,
                "{path} {:?}: {}",
                String::from_utf8_lossy(&body[..body.len().min(40)]),
                answer.text()
            );
            answer.refused(400, "malformed");
        }
    }
    // What an owner signs is looked at as closely.
    let jose = [("content-type", "application/jose")];
    let owner = world.issuer.owner();
    for body in broken_bodies() {
        let answer = world
            .server
            .send("POST", "/v1/authorizations", &jose, &body);
        assert!(matches!(answer.status, 400 | 401), "{}", answer.text());
        answer.refusal();
        let small = body.len() < 8_000;
        let Some(command) = serde_json::from_slice::<Value>(&body)
            .ok()
            .filter(|_| small)
        else {
            continue;
        };
        world
            .server
            .command(&owner.command(&world.server.url, &command))
            .refused(400, "malformed");
    }
    world.unharmed();
}

#[test]
fn a_batch_refuses_broken_lines_one_by_one() {
    let world = World::new();
    let headers = [
        ("content-type", "application/x-ndjson"),
        ("authorization", world.bearer.as_str()),
    ];
    let lines: Vec<_> = broken_bodies()
        .into_iter()
        .filter(|line| !line.trim_ascii().is_empty() && !line.contains(&b'\n'))
        .collect();
    let body = lines.join(&b'\n');
    let answer = world.server.send("POST", "/v1/batches", &headers, &body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let mut numbers: Vec<_> = String::from_utf8(answer.body)
        .unwrap()
        .lines()
        .map(|line| {
            let result: Value = serde_json::from_str(line).unwrap();
            assert_eq!(result["problem"]["code"], "malformed", "{result}");
            result["line"].as_u64().unwrap() as usize
        })
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=lines.len()).collect::<Vec<_>>());
    world.unharmed();
}

#[test]
fn an_import_refuses_broken_lines_one_by_one() {
    let world = World::new();
    let headers = [
        ("content-type", "application/x-ndjson"),
        ("authorization", world.bearer.as_str()),
    ];
    let lines: Vec<_> = broken_bodies()
        .into_iter()
        .filter(|line| !line.trim_ascii().is_empty() && !line.contains(&b'\n'))
        .collect();
    let good = br#"{"kind":"identity","id":"good"}"#.to_vec();
    let body = [&lines[..], &[good]].concat().join(&b'\n');
    let answer = world.server.send("POST", "/v1/import", &headers, &body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let results: Vec<Value> = String::from_utf8(answer.body)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(results.len(), lines.len() + 1);
    for (result, number) in results.iter().zip(1..) {
        assert_eq!(result["line"], number);
        if number <= lines.len() {
            assert_eq!(result["problem"]["code"], "malformed", "{result}");
        } else {
            assert_eq!(result["status"], "done", "{result}");
        }
    }
    world.unharmed();
}

/// Every place in `value` by its JSON pointer, the whole of it left out.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    let mut below = |name: &str, inner: &Value| {
        let at = format!("{at}/{name}");
        found.push(at.clone());
        places(inner, &at, found);
    };
    match value {
        Value::Object(members) => members.iter().for_each(|(name, inner)| below(name, inner)),
        Value::Array(items) => (0..)
            .zip(items)
            .for_each(|(n, inner): (usize, _)| below(&n.to_string(), inner)),
        _ => {}
    }
}

/// Values of a type that `value` does not have; lists in place of objects have a test of their own.
fn other_types(value: &Value) -> Vec<Value> {
    let all = [
        json!(true),
        json!(7),
        json!("text"),
        json!(["text"]),
        json!({ "text": 1 }),
    ];
    let same = std::mem::discriminant(value);
    all.into_iter()
        .filter(|other| std::mem::discriminant(other) != same)
        .filter(|other| !(value.is_object() && other.is_array()))
        .collect()
}

#[test]
fn values_of_another_type_are_malformed() {
    let world = World::new();
    let mut wrong = Vec::new();
    for Valid { method, path, body } in world.valid() {
        let answer = world.send(method, path, body.to_string().as_bytes());
        let fine = answer.status < 300 || path == "/v1/redemptions";
        assert!(fine, "{path}: {}", answer.text());
        let mut found = Vec::new();
        places(&body, "", &mut found);
        for place in found {
            // A function goes by name or by code.
            let function = place.starts_with("/functions/") && place.matches('/').count() == 2;
            for other in other_types(body.pointer(&place).unwrap()) {
                if function && (other.is_number() || other.is_string()) {
                    continue;
                }
                let mut changed = body.clone();
                *changed.pointer_mut(&place).unwrap() = other.clone();
                let answer = world.send(method, path, changed.to_string().as_bytes());
                if answer.status != 400 || answer.refusal() != "malformed" {
                    wrong.push(format!("{path}{place} {other}: {}", answer.text()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    world.unharmed();
}

#[test]
fn a_list_is_no_object() {
    let world = World::new();
    let mut wrong = Vec::new();
    for Valid { method, path, body } in world.valid() {
        let mut found = vec![String::new()];
        places(&body, "", &mut found);
        for place in found {
            let Some(members) = body.pointer(&place).unwrap().as_object() else {
                continue;
            };
            for list in [json!([]), members.values().cloned().collect()] {
                let mut changed = body.clone();
                *changed.pointer_mut(&place).unwrap() = list.clone();
                let answer = world.send(method, path, changed.to_string().as_bytes());
                if answer.status != 400 {
                    wrong.push(format!("{path}{place} {list}: {}", answer.status));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn numbers_have_bounds() {
    let world = World::new();
    let numbers = [
        "-1",
        "0.5",
        "1.0",
        "1e2",
        "-0",
        "65536",
        "4294967296",
        "18446744073709551616",
        "1e308",
        "1e999",
        "-9223372036854775809",
    ];
    let body = authorization("DEMO-0001", &["doors.unlock"]);
    for number in numbers {
        for extra in [
            format!("\"max_uses\":{{\"doors.unlock\":{number}}}"),
            format!("\"region\":{{\"circle\":{{\"lat\":0,\"lon\":0,\"radius_m\":{number}}}}}"),
            format!("\"functions\":[{number}]"),
        ] {
            // Inserted as text: the numbers are not to be changed on their way.
            let name = &extra[..extra.find(':').unwrap()];
            let mut rest = body.clone();
            rest.as_object_mut().unwrap().remove(name.trim_matches('"'));
            let text = format!("{{{extra},{}", &rest.to_string()[1..]);
            let answer = world.send("POST", "/v1/authorizations", text.as_bytes());
            // What is within the type may still be unknown, or fine.
            let in_range = matches!(number, "65536") && !extra.contains("functions");
            assert_eq!(answer.status < 400, in_range, "{extra}: {}", answer.text());
            assert!(answer.status < 500, "{extra}: {}", answer.text());
        }
    }
    world.unharmed();
}

#[test]
fn fields_nobody_knows_are_malformed() {
    let world = World::new();
    let mut wrong = Vec::new();
    for Valid { method, path, body } in world.valid() {
        let mut found = vec![String::new()];
        places(&body, "", &mut found);
        for place in found {
            // A JWK may say more than we need (RFC 7517 §4).
            if place.ends_with("/jwk") || !body.pointer(&place).unwrap().is_object() {
                continue;
            }
            let mut changed = body.clone();
            changed.pointer_mut(&place).unwrap()["unexpected"] = json!(1);
            let answer = world.send(method, path, changed.to_string().as_bytes());
            // A use limit of a function that does not exist says so.
            let expected = if place == "/max_uses" { 404 } else { 400 };
            if answer.status != expected {
                wrong.push(format!("{path}{place}: {}", answer.text()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let owner = world.issuer.owner();
    let mut command = authorization("DEMO-0001", &["doors.unlock"]);
    command["unexpected"] = json!(1);
    world
        .server
        .command(&owner.command(&world.server.url, &command))
        .refused(400, "malformed");
}

/// The body with its first member once more, at the end.
fn twice(body: &Value) -> String {
    let (name, value) = body.as_object().unwrap().iter().next().unwrap();
    let text = body.to_string();
    format!("{},{}:{value}}}", &text[..text.len() - 1], json!(name))
}

#[test]
fn a_member_named_twice_is_malformed() {
    let world = World::new();
    for Valid { method, path, body } in world.valid() {
        world
            .send(method, path, twice(&body).as_bytes())
            .refused(400, "malformed");
    }
}

#[test]
fn a_member_named_twice_further_in_is_malformed_too() {
    let world = World::new();
    let body = authorization("DEMO-0001", &["doors.unlock"]).to_string();
    let text = format!(
        r#"{},"max_uses":{{"1":1,"1":9}}}}"#,
        &body[..body.len() - 1]
    );
    world
        .send("POST", "/v1/authorizations", text.as_bytes())
        .refused(400, "malformed");
    let line = r#"{"kind":"identity","id":"x","status":"suspended","status":"active"}"#;
    let answer = world.send("POST", "/v1/import", line.as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(
        answer.value()["problem"]["code"],
        "malformed",
        "{}",
        answer.text()
    );
}

// ---- sizes and kinds -----------------------------------------------------------------------

#[test]
fn bodies_are_bounded() {
    let world = World::with(&[("FOB_SERVER_BODY_BYTES_MAX", "20000")]);
    let headers = world.headers();
    for Valid { method, path, body } in world.valid() {
        let pad = |total: usize| {
            let mut text = body.to_string();
            text.push_str(&" ".repeat(total - text.len()));
            text.into_bytes()
        };
        for bytes in [
            request(method, path, &headers, &pad(20_001)),
            chunked(method, path, &headers, &pad(20_001), 1000),
            chunked(method, path, &headers, &pad(60_000), 59_999),
            // A length that is only claimed is refused before anything is sent.
            request(method, path, &[JSON, headers[1], ("x", "y")], b"")
                .escape_ascii()
                .to_string()
                .replace("\\r\\n", "\r\n")
                .replace("content-length: 0", "content-length: 99999999999")
                .into_bytes(),
        ] {
            let reply = exchange(&world.server, &bytes).unwrap();
            reply.orderly(path);
            assert_eq!(
                (reply.status, reply.code()),
                (413, json!("malformed")),
                "{path}"
            );
        }
        for bytes in [
            request(method, path, &headers, &pad(20_000)),
            chunked(method, path, &headers, &pad(20_000), 7),
        ] {
            let reply = exchange(&world.server, &bytes).unwrap();
            assert!(
                reply.status < 300 || path == "/v1/redemptions",
                "{path}: {}",
                reply.status
            );
        }
    }
    world.unharmed();
}

#[test]
fn a_line_of_an_import_is_bounded() {
    let world = World::new();
    let long = format!(r#"{{"kind":"identity","id":"long"{}}}"#, " ".repeat(65_536));
    let body = format!("{long}\n{{\"kind\":\"identity\",\"id\":\"short\"}}");
    let answer = world.send("POST", "/v1/import", body.as_bytes());
    let results: Vec<Value> = String::from_utf8(answer.body)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(results[0]["problem"]["code"], "malformed");
    assert_eq!(results[1]["status"], "done");
}

#[test]
fn other_kinds_of_bodies_are_unsupported() {
    let world = World::new();
    for Valid { method, path, body } in world.valid() {
        for kind in [
            "text/plain",
            "application/cbor",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "application/jsonx",
            "json",
            "",
            ";",
        ] {
            let headers = [("content-type", kind), ("authorization", &world.bearer)];
            let answer = world
                .server
                .send(method, path, &headers, body.to_string().as_bytes());
            answer.refused(415, "malformed");
        }
        let kind = "Application/JSON ; charset=UTF-8";
        let headers = [("content-type", kind), ("authorization", &world.bearer)];
        let answer = world
            .server
            .send(method, path, &headers, body.to_string().as_bytes());
        assert_ne!(answer.status, 415, "{path}");
    }
    for kind in ["application/jose", "text/plain", "application/cbor"] {
        let headers = [("content-type", kind), ("authorization", &world.bearer)];
        world
            .server
            .send("POST", "/v1/import", &headers, b"{}")
            .refused(415, "malformed");
    }
}

/// A Zstandard frame (RFC 8878) of `blocks` RLE blocks: four bytes each, 128 KiB unpacked.
fn bomb(blocks: usize) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x38];
    for n in 1..=blocks {
        let header = (131_072_u32 << 3) | (1 << 1) | u32::from(n == blocks);
        frame.extend(&header.to_le_bytes()[..3]);
        frame.push(b' ');
    }
    frame
}

#[test]
fn a_packed_body_is_bounded_as_it_unpacks() {
    let world = World::new();
    let before = world.memory_peak_kib();
    // 4 KiB that would be 128 MiB, from anybody.
    let body = bomb(1_024);
    for path in ["/v1/redemptions", "/v1/code-sets/preview", "/v1/import"] {
        let headers = [JSON, ("content-encoding", "zstd")];
        let reply = exchange(&world.server, &request("POST", path, &headers, &body)).unwrap();
        reply.orderly(path);
        assert!(
            matches!(reply.status, 401 | 413 | 415),
            "{path}: {}",
            reply.status
        );
    }
    let grown = world.memory_peak_kib() - before;
    assert!(grown < 64 * 1024, "{grown} KiB for 4 KiB from a stranger");
    for (encoding, body) in [
        ("zstd", &b"\x28\xb5\x2f\xfd garbage"[..]),
        ("gzip", b"{}"),
        ("x", b"{}"),
    ] {
        let headers = [JSON, ("content-encoding", encoding)];
        let bytes = request("POST", "/v1/redemptions", &headers, body);
        let reply = exchange(&world.server, &bytes).unwrap();
        reply.orderly(encoding);
        assert!(
            matches!(reply.status, 400 | 415),
            "{encoding}: {}",
            reply.status
        );
    }
    world.unharmed();
}

#[test]
fn an_encoding_that_cannot_be_had_is_a_problem_like_any_other() {
    let world = World::new();
    for accept in ["identity;q=0", "br, identity;q=0", "*;q=0", "\u{7f}"] {
        let headers = [("accept-encoding", accept)];
        for path in ["/v1/trust", "/v1/nothing"] {
            let bytes = request("GET", path, &headers, b"");
            exchange(&world.server, &bytes).unwrap().orderly(accept);
        }
    }
}

// ---- heads ---------------------------------------------------------------------------------

#[test]
fn headers_may_hold_anything() {
    let world = World::new();
    let get = |name: &str, value: &[u8], path: &str| {
        let mut bytes = format!("GET {path} HTTP/1.1\r\nhost: fob\r\n{name}: ").into_bytes();
        bytes.extend([value, b"\r\n\r\n"].concat());
        exchange(&world.server, &bytes)
    };
    let long = "x".repeat(20_000);
    let bundle = "/v1/bundles/01890000-0000-7000-8000-000000000000";
    for value in [
        &b""[..],
        b"\xff\xfe",
        b"\xc3\xa4",
        b"Bearer \xff",
        b"Bearer",
        b"Bearer a b c",
        b"bearer\tfob_x",
        b"..",
        b"e30.e30.e30",
        long.as_bytes(),
    ] {
        for (name, path, expected) in [
            ("authorization", "/v1/authorizations", &[401][..]),
            ("authorization", bundle, &[401]),
            ("fob-proof", bundle, &[400, 422]),
            ("accept", "/v1/trust", &[200]),
            ("if-none-match", "/v1/trust", &[200]),
            ("cookie", "/v1/trust", &[200]),
        ] {
            let reply = get(name, value, path).unwrap();
            let shown = format!("{name}: {}", value.escape_ascii());
            reply.orderly(&shown);
            assert!(
                expected.contains(&reply.status),
                "{shown}: {}",
                reply.status
            );
        }
    }
    // A NUL in a header is no header.
    assert_eq!(get("x", b"a\0b", "/healthz").unwrap().status, 400);
    for key in [&b"\xff"[..], b"\xc3\xa4", long.as_bytes()] {
        let body = authorization("DEMO-0001", &["doors.unlock"]).to_string();
        let mut bytes =
            b"POST /v1/authorizations HTTP/1.1\r\nhost: fob\r\nidempotency-key: ".to_vec();
        bytes.extend(key);
        let rest = format!(
            "\r\nauthorization: {}\r\ncontent-length: {}\r\n\r\n{body}",
            world.bearer,
            body.len()
        );
        bytes.extend(rest.bytes());
        let reply = exchange(&world.server, &bytes).unwrap();
        assert_eq!((reply.status, reply.code()), (400, json!("malformed")));
    }
    world.unharmed();
}

#[test]
fn bytes_that_are_no_http_end_the_connection_and_nothing_else() {
    let world = World::new();
    let many = format!(
        "GET / HTTP/1.1\r\nhost: fob\r\n{}\r\n",
        "x: y\r\n".repeat(5_000)
    );
    let wide = format!(
        "GET / HTTP/1.1\r\nhost: fob\r\nx: {}\r\n\r\n",
        "y".repeat(300_000)
    );
    let long = format!("GET /{} HTTP/1.1\r\nhost: fob\r\n\r\n", "y".repeat(300_000));
    let post = |rest: &str| format!("POST /v1/redemptions HTTP/1.1\r\nhost: fob\r\n{rest}");
    let texts = [
        many.as_str(),
        &wide,
        &long,
        "\r\n\r\n",
        "\r\n",
        "\n",
        "x",
        "GET",
        "GET /",
        "GET / HTTP/1.1",
        "GET  /healthz HTTP/1.1\r\n\r\n",
        "GET /healthz HTTP/9.9\r\nhost: fob\r\n\r\n",
        "GET /healthz HTTP/0.9\r\n\r\n",
        "GET /healthz\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nhost: fob\r\n\r\n",
        "CONNECT fob:80 HTTP/1.1\r\nhost: fob\r\n\r\n",
        "GET http:// HTTP/1.1\r\nhost: fob\r\n\r\n",
        "GET http://elsewhere/healthz HTTP/1.1\r\nhost: fob\r\n\r\n",
        "GET ? HTTP/1.1\r\nhost: fob\r\n\r\n",
        "GET /healthz HTTP/1.1\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nhost: fob\r\nbad header\r\n\r\n",
        "GET /healthz HTTP/1.1\r\n: x\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nhost: fob\r\n folded: x\r\n\r\n",
        "GET /\0 HTTP/1.1\r\nhost: fob\r\n\r\n",
        "G\0T / HTTP/1.1\r\n\r\n",
        &post("content-length: x\r\n\r\n{}"),
        &post("content-length: -1\r\n\r\n{}"),
        &post("content-length: +2\r\n\r\n{}"),
        &post("content-length: 2, 2\r\n\r\n{}"),
        &post("content-length: 2\r\ncontent-length: 3\r\n\r\n{}"),
        &post("content-length: 99999999999999999999999\r\n\r\n{}"),
        &post("content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        &post("transfer-encoding: gzip\r\n\r\n{}"),
        &post("transfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n"),
        &post("transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n{}"),
        &post("transfer-encoding: chunked\r\n\r\n-1\r\n{}"),
        &post("transfer-encoding: chunked\r\n\r\n5\r\nab"),
        &post("content-length: 10\r\n\r\n{}"),
        &post("expect: 100-continue\r\ncontent-length: 2\r\n\r\n{}"),
        &post("connection: upgrade\r\nupgrade: websocket\r\n\r\n{}"),
        &post("expect: nonsense\r\ncontent-length: 2\r\n\r\n{}"),
    ];
    let tls = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 0, 0, 0, 0];
    for bytes in
        texts
            .iter()
            .map(|text| text.as_bytes())
            .chain([&tls[..], &[0xff; 5_000], &[0; 5_000]])
    {
        let shown = bytes[..bytes.len().min(80)].escape_ascii().to_string();
        if let Some(reply) = exchange(&world.server, bytes) {
            reply.orderly(&shown);
        }
    }
    world.unharmed();
}

// ---- clients that never finish -------------------------------------------------------------

#[test]
fn slow_clients_are_cut_and_hold_up_nobody() {
    let world = World::with(&[("FOB_SERVER_REQUEST_TIMEOUT_MS", "1000")]);
    // Half a head each, none at all, and one byte: more connections than there are workers.
    let begun = |bytes: &[u8]| {
        let mut stream = connect(&world.server);
        stream.write_all(bytes).unwrap();
        stream
    };
    let mut slow: Vec<_> = (0..100)
        .map(|_| begun(b"POST /v1/redemptions HTTP/1.1\r\nhost: fob\r\ncontent-"))
        .collect();
    slow.extend((0..50).map(|_| begun(b"P")));
    let silent: Vec<_> = (0..50).map(|_| begun(b"")).collect();
    world.unharmed();
    for stream in &mut slow {
        let reply = read(stream);
        assert!(reply.is_none_or(|reply| reply.status == 408 && reply.is_parsers()));
    }
    drop(silent);
    world.unharmed();
}

#[test]
fn a_body_that_never_ends_is_not_waited_for() {
    let world = World::with(&[("FOB_SERVER_REQUEST_TIMEOUT_MS", "1000")]);
    let half = "POST /v1/redemptions HTTP/1.1\r\nhost: fob\r\ncontent-length: 100\r\n\r\n{\"code";
    let mut slow: Vec<_> = (0..50)
        .map(|_| {
            let mut stream = connect(&world.server);
            stream.write_all(half.as_bytes()).unwrap();
            stream
        })
        .collect();
    world.unharmed();
    for stream in &mut slow {
        if let Some(reply) = read(stream) {
            reply.orderly(half);
            assert_eq!(reply.status, 408);
        }
    }
}

#[test]
fn a_stranger_is_turned_away_before_its_body_is_read() {
    let world = World::new();
    for (path, method) in &ROUTES[..5] {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: fob\r\ncontent-type: application/json\r\ncontent-length: 60000\r\n\r\n"
        );
        let mut stream = connect(&world.server);
        stream.write_all(head.as_bytes()).unwrap();
        // Sixty thousand bytes are announced; not one is sent.
        let reply = read(&mut stream).unwrap();
        assert_eq!(
            (reply.status, reply.code()),
            (401, json!("unauthenticated")),
            "{path}"
        );
    }
}

#[test]
fn clients_that_leave_at_once_leave_nothing_behind() {
    let world = World::new();
    let valid = world.valid();
    let owner = world.issuer.owner();
    for round in 0..60 {
        let code_set = world
            .server
            .authorize(&owner, "DEMO-0003", &["doors.unlock"]);
        let phone = Phone::new();
        let body = redemption(&world.server.url, &code_set, "renter-1", &phone).to_string();
        let bytes = request("POST", "/v1/redemptions", &[JSON], body.as_bytes());
        let mut stream = connect(&world.server);
        // Some leave in the middle of their request, some just after it.
        let sent = if round % 3 == 0 {
            bytes.len()
        } else {
            bytes.len() * round / 60
        };
        stream.write_all(&bytes[..sent]).unwrap();
        drop(stream);
        if round % 3 == 0 {
            // Gone or not, the same request is answered.
            assert_eq!(
                world.server.redeem(&code_set, "renter-1", &phone).status,
                201
            );
        }
    }
    drop(valid);
    world.unharmed();
}

// ---- chance --------------------------------------------------------------------------------

/// SplitMix64: small, seeded, good enough to break things with.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    /// Changes `bytes` in one to four places.
    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        const PIECES: [&[u8]; 10] = [
            b"\"", b"{", b"]", b"\0", b"\xff", b"null", b"-1", b"1e999", b"\\ud800", b"\r\n",
        ];
        for _ in 0..1 + self.below(4) {
            let at = self.below(bytes.len());
            match self.below(6) {
                0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                1 if !bytes.is_empty() => bytes[at] = self.next() as u8,
                2 => bytes.truncate(at),
                3 => {
                    let end = (at + self.below(30)).min(bytes.len());
                    bytes.drain(at..end);
                }
                4 => {
                    let end = (at + self.below(30)).min(bytes.len());
                    let part = bytes[at..end].to_vec();
                    bytes.splice(at..at, part);
                }
                _ => {
                    let piece = PIECES[self.below(PIECES.len())];
                    bytes.splice(at..at, piece.iter().copied());
                }
            }
        }
    }
}

/// A number from the environment, or this one.
fn setting(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn requests_changed_at_random_are_answered_in_order() {
    let world = World::new();
    let seed = setting("FOB_SEED", 0x0f0b);
    let rounds = setting("PROPTEST_CASES", 500);
    println!("FOB_SEED={seed}, {rounds} rounds");
    let mut chance = Chance(seed);
    let valid = world.valid();
    let owner = world.issuer.owner();
    let command = owner.command(
        &world.server.url,
        &authorization("DEMO-0001", &["doors.unlock"]),
    );
    let jose = ("content-type", "application/jose");
    for round in 0..rounds {
        let pick = chance.below(valid.len() + 2);
        let (method, path, kind, mut body) = match valid.get(pick) {
            Some(one) => (
                one.method,
                one.path,
                JSON,
                one.body.to_string().into_bytes(),
            ),
            None if pick == valid.len() => (
                "POST",
                "/v1/authorizations",
                jose,
                command.clone().into_bytes(),
            ),
            None => (
                "POST",
                "/v1/import",
                JSON,
                br#"{"kind":"identity","id":"x"}"#.to_vec(),
            ),
        };
        let headers = [kind, ("authorization", world.bearer.as_str())];
        let what = format!("FOB_SEED={seed} round {round}");
        if chance.below(4) == 0 {
            // The head too: then the server may well wait for a rest that does not come, until
            // it hears that no more will.
            let mut bytes = request(method, path, &headers, &body);
            chance.mutate(&mut bytes);
            if let Some(reply) = exchange(&world.server, &bytes) {
                reply.orderly(&what);
            }
        } else {
            chance.mutate(&mut body);
            let bytes = request(method, path, &headers, &body);
            let reply = exchange(&world.server, &bytes).expect(&what);
            reply.orderly(&what);
        }
    }
    world.unharmed();
}
