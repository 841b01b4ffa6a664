//! Secrets stay where they belong: the log at its most talkative, the metrics, the refusals and
//! every file of the issuer's directory are searched for every secret a run has used.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use fob_verify::code_set::CodeSet;
use serde_json::{Value, json};

use crate::support::{Answer, Issuer, Phone, Server, authorization, redemption};

// ---- what is looked for --------------------------------------------------------------------

/// A secret: what it is, what it looks like, and the only files that may hold it.
struct Secret {
    what: String,
    forms: Vec<Vec<u8>>,
    at_home_in: Vec<&'static str>,
}

/// Everything a run has used that nobody else may learn.
#[derive(Default)]
struct Secrets(Vec<Secret>);

/// These bytes as text files and databases may show them.
fn forms(bytes: &[u8]) -> Vec<Vec<u8>> {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let list = format!("{bytes:?}");
    vec![
        bytes.to_vec(),
        hex.to_uppercase().into_bytes(),
        hex.into_bytes(),
        list.as_bytes()[1..list.len() - 1].to_vec(),
        BASE64_STANDARD.encode(bytes).into_bytes(),
        BASE64_URL_SAFE_NO_PAD.encode(bytes).into_bytes(),
    ]
}

impl Secrets {
    fn add(&mut self, what: &str, forms: Vec<Vec<u8>>, at_home_in: &[&'static str]) {
        self.0.push(Secret {
            what: what.into(),
            forms,
            at_home_in: at_home_in.into(),
        });
    }

    /// The text of a code set, in part or whole, and the secret inside.
    fn code_set(&mut self, text: &str) {
        let secret = *CodeSet::decode(text).unwrap().secret();
        let mut all = forms(&secret);
        // The secret begins at bit 152 of 5 to a character: it is in everything from the 31st.
        all.push(text.as_bytes()[4 + 31..4 + 31 + 20].to_vec());
        all.push(text.to_lowercase().into_bytes());
        all.push(text.as_bytes()[..36].to_vec());
        self.add("a code set", all, &[]);
    }

    fn token(&mut self, token: &str) {
        let random = BASE64_URL_SAFE_NO_PAD.decode(&token["fob_".len()..]);
        let mut all = forms(&random.unwrap());
        all.push(token.as_bytes()[..20].to_vec());
        self.add("a bearer token", all, &[]);
    }

    /// A JWS: what it claims and its signature. `kept_in` may hold it as evidence.
    fn jws(&mut self, what: &str, jws: &str, kept_in: &[&'static str]) {
        let (rest, signature) = jws.rsplit_once('.').unwrap();
        let claims = rest.split_once('.').unwrap().1;
        let all = [claims, signature].map(|text| text.as_bytes().to_vec());
        self.add(what, all.into(), kept_in);
    }

    /// What an issuer's own files hold.
    fn of(issuer: &Issuer) -> Self {
        let mut secrets = Self::default();
        let key = std::fs::read(issuer.file("code-set.key")).unwrap();
        assert_eq!(key.len(), 32);
        secrets.add("the code set key", forms(&key), &["code-set.key"]);
        for name in ["hsm.pin", "hsm-so.pin", "root.pin", "root-so.pin"] {
            let pin = std::fs::read_to_string(issuer.file(name)).unwrap();
            let pin = pin.trim().as_bytes().to_vec();
            assert!(pin.len() >= 8, "{name} is long enough to be searched for");
            secrets.add(name, vec![pin], &[name]);
        }
        let jwk = std::fs::read(issuer.file("demo-owner.jwk")).unwrap();
        let jwk: Value = serde_json::from_slice(&jwk).unwrap();
        let private = BASE64_URL_SAFE_NO_PAD.decode(jwk["d"].as_str().unwrap());
        let all = forms(&private.unwrap());
        secrets.add("the owner's private key", all, &["demo-owner.jwk"]);
        secrets
    }
}

// ---- where it is looked for ----------------------------------------------------------------

fn holds(place: &[u8], form: &[u8]) -> bool {
    place.windows(form.len()).any(|window| window == form)
}

/// Whether six digits stand in `place` by themselves: not within a longer number.
fn holds_pin(place: &[u8], pin: &[u8]) -> bool {
    let digit = |at: Option<&u8>| at.is_some_and(u8::is_ascii_digit);
    place.windows(pin.len()).enumerate().any(|(at, window)| {
        let before = at.checked_sub(1).and_then(|at| place.get(at));
        window == pin && !digit(before) && !digit(place.get(at + pin.len()))
    })
}

/// The log without what begins each line, the time, and without the durations in it: both are
/// numbers that may look like anything.
fn without_times(log: &str) -> String {
    let line = |line: &str| {
        let rest = line.split_once('Z').map_or(line, |(_, rest)| rest);
        let words = rest.split(' ').filter(|word| !word.starts_with("took_us="));
        words.collect::<Vec<_>>().join(" ")
    };
    log.lines().map(line).collect::<Vec<_>>().join("\n")
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries
        .flat_map(|entry| match entry.file_type().unwrap() {
            kind if kind.is_dir() => files(&entry.path()),
            kind if kind.is_file() => vec![entry.path()],
            _ => Vec::new(),
        })
        .collect()
}

/// A run: its issuer, what it has used, and the PINs it has used.
struct Run {
    issuer: Issuer,
    secrets: Secrets,
    pins: Vec<String>,
}

impl Run {
    /// Fails where a file or the log holds what it should not.
    fn search(&self) {
        let mut searched = 0;
        for path in files(self.issuer.path()) {
            let name = path.strip_prefix(self.issuer.path()).unwrap();
            let name = name.to_str().unwrap().to_owned();
            let mut bytes = std::fs::read(&path).unwrap();
            if name == "serve.log" {
                bytes = without_times(&String::from_utf8(bytes).unwrap()).into_bytes();
            }
            for Secret {
                what,
                forms,
                at_home_in,
            } in &self.secrets.0
            {
                let at_home = at_home_in.iter().any(|home| name.starts_with(home));
                let found = forms.iter().find(|form| holds(&bytes, form));
                if let Some(found) = found.filter(|_| !at_home) {
                    panic!(
                        "{name} holds {what}: {}{}",
                        found.escape_ascii(),
                        around(&bytes, found)
                    );
                }
            }
            for pin in &self.pins {
                let found = holds_pin(&bytes, pin.as_bytes());
                assert!(
                    !found,
                    "{name} holds the PIN {pin}{}",
                    around(&bytes, pin.as_bytes())
                );
            }
            searched += 1;
        }
        assert!(searched > 10, "the store, its log, the tokens and the rest");
    }

    /// The same for what the server has answered to somebody who did not ask for it.
    fn search_answer(&self, answer: &Answer) {
        let head = format!("{:?}", answer.headers);
        let text = [head.as_bytes(), &answer.body].concat();
        for secret in &self.secrets.0 {
            let found = secret.forms.iter().find(|form| holds(&text, form));
            assert!(found.is_none(), "{} in {}", secret.what, answer.text());
        }
        for pin in &self.pins {
            assert!(!holds_pin(&text, pin.as_bytes()), "{}", answer.text());
        }
    }
}

/// The line that holds it, for whoever reads the failure.
fn around(place: &[u8], found: &[u8]) -> String {
    let text = String::from_utf8_lossy(place);
    let found = String::from_utf8_lossy(found);
    let line = text.lines().find(|line| line.contains(&*found));
    line.filter(|line| line.len() < 1_000)
        .map_or_else(String::new, |line| format!("\n{line}"))
}

// ---- the run -------------------------------------------------------------------------------

/// Everything one borrower and one owner do, right and wrong; what the server was left with.
fn ordinary_life(run: &mut Run, server: &Server, token: &str) {
    let owner = run.issuer.owner();
    let mut wanted = authorization("DEMO-0001", &["doors.unlock", "engine.start"]);
    wanted["pin"] = json!(true);
    let command = owner.command(&server.url, &wanted);
    let made = server.command(&command);
    assert_eq!(made.status, 201, "{}", made.text());
    run.secrets.jws("a signed command", &command, &["fob.db"]);
    let by_token = server.json_as(token, "POST", "/v1/authorizations", &wanted);
    assert_eq!(by_token.status, 201, "{}", by_token.text());
    for made in [made.value(), by_token.value()] {
        let (code_set, pin) = (
            made["code_set"].as_str().unwrap(),
            made["pin"].as_str().unwrap(),
        );
        run.secrets.code_set(code_set);
        let wrong = format!("{:06}", (pin.parse::<u32>().unwrap() + 1) % 1_000_000);
        run.pins.extend([pin.to_owned(), wrong.clone()]);
        let phone = Phone::new();
        for (pin, status) in [(&wrong[..], 403), (pin, 201), (pin, 201)] {
            let mut body = redemption(&server.url, code_set, "renter-1", &phone);
            body["pin"] = json!(pin);
            run.secrets
                .jws("a proof", body["proof"].as_str().unwrap(), &[]);
            let answer = server.json("POST", "/v1/redemptions", &body);
            assert_eq!(answer.status, status, "{}", answer.text());
            // A bundle is the borrower's, and holds nothing of all that either.
            run.search_answer(&answer);
            if status == 201 {
                read_bundle(run, server, &phone, &answer);
            }
        }
        let preview = json!({ "code_set": code_set });
        let answer = server.json("POST", "/v1/code-sets/preview", &preview);
        answer.refused(409, "code_set_redeemed");
        run.search_answer(&answer);
        let path = format!(
            "/v1/authorizations/{}",
            made["authorization"].as_str().unwrap()
        );
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str())];
        run.search_answer(&server.get(&path, &headers));
        run.search_answer(&server.get("/v1/authorizations", &headers));
    }
}

fn read_bundle(run: &mut Run, server: &Server, phone: &Phone, bundle: &Answer) {
    let id = bundle.value()["bundle"].as_str().unwrap().to_owned();
    let proof = phone.proof(&server.url, &id);
    run.secrets.jws("a bundle reader's proof", &proof, &[]);
    let path = format!("/v1/bundles/{id}");
    let answer = server.get(&path, &[("fob-proof", &proof)]);
    assert_eq!(answer.body, bundle.body);
    let stranger = Phone::new().proof(&server.url, &id);
    run.secrets.jws("a stranger's proof", &stranger, &[]);
    let answer = server.get(&path, &[("fob-proof", &stranger)]);
    answer.refused(404, "not_found");
    run.search_answer(&answer);
}

/// Requests that hold a secret where none belongs.
fn misplaced(server: &Server, secret: &str) -> Vec<Answer> {
    let json = ("content-type", "application/json");
    let jose = ("content-type", "application/jose");
    let bearer = format!("Bearer {secret}");
    let basic = format!("Basic {secret}");
    let post = |path: &str, body: &str| server.send("POST", path, &[json], body.as_bytes());
    let mut answers: Vec<_> = [
        format!("/{secret}"),
        format!("/k/{secret}"),
        format!("/v1/bundles/{secret}"),
        format!("/v1/authorizations/{secret}"),
        format!("/v1/authorizations?vehicle={secret}"),
        format!("/v1/authorizations?{secret}=1"),
        format!("/v1/trust?code_set={secret}"),
        format!("/docs/{secret}"),
    ]
    .iter()
    .map(|path| server.get(path, &[]))
    .collect();
    for path in ["/v1/redemptions", "/v1/code-sets/preview"] {
        for body in [
            json!(secret),
            json!([secret]),
            json!({ "code_set": [secret] }),
            json!({ "code_set": { secret: secret } }),
            json!({ "code_set": secret, "identity": secret, "proof": secret }),
            json!({ "code_set": "FOB1", "identity": { "id": secret }, "proof": secret, "pin": secret }),
            json!({ "code_set": "FOB1", "identity": { "id": "x" }, "proof": 1, "pin": [secret] }),
            json!({ "code_set": "FOB1", "identity": { "id": "x" }, "proof": { "jws": secret } }),
        ] {
            answers.push(post(path, &body.to_string()));
        }
        answers.push(post(path, secret));
        answers.push(post(path, &format!("{{\"code_set\":\"{secret}\"")));
        answers.push(post(path, &format!("{{\"code_set\":{secret}}}")));
        answers.push(post(path, &format!("{{\"code_set\":\"{secret}\\x\"}}")));
    }
    answers.push(server.send("POST", "/v1/authorizations", &[jose], secret.as_bytes()));
    for (name, value) in [
        ("authorization", bearer.as_str()),
        ("authorization", &basic),
        ("authorization", secret),
        ("fob-proof", secret),
        ("idempotency-key", secret),
        ("cookie", secret),
        ("accept", secret),
        ("accept-encoding", secret),
        ("if-none-match", secret),
        ("content-encoding", secret),
        ("expect", secret),
        ("user-agent", secret),
        ("x-forwarded-for", secret),
        ("content-type", secret),
    ] {
        let bundle = "/v1/bundles/01890000-0000-7000-8000-000000000000";
        for path in ["/v1/trust", "/v1/authorizations", bundle] {
            answers.push(server.get(path, &[(name, value)]));
        }
        answers.push(server.send("POST", "/v1/redemptions", &[(name, value)], b"{}"));
    }
    answers
}

/// The same by somebody who may do everything.
fn misplaced_by_a_back_end(server: &Server, token: &str, secret: &str) -> Vec<Answer> {
    let usual = || authorization("DEMO-0001", &["doors.unlock"]);
    let mut answers = Vec::new();
    for (name, value) in [
        ("vehicle", json!(secret)),
        ("functions", json!([secret])),
        ("functions", json!(secret)),
        ("not_before", json!(secret)),
        ("pin", json!(secret)),
        ("signing", json!(secret)),
        ("recipient", json!({ "identity": secret })),
        ("recipient", json!(secret)),
        ("region", json!({ "circle": secret })),
        ("max_uses", json!({ "doors.unlock": secret })),
    ] {
        let mut body = usual();
        body[name] = value;
        answers.push(server.json_as(token, "POST", "/v1/authorizations", &body));
    }
    for (path, body) in [
        ("vehicles", json!({ "model": "M", "functions": [secret] })),
        ("identities", json!({ "status": secret })),
        (
            "identities",
            json!({ "licences": [{ "class": secret, "expires": secret }] }),
        ),
        ("terminals", json!({ "identity": "nobody", "jwk": secret })),
        (
            "terminals",
            json!({ "identity": "nobody", "jwk": { "kty": secret, "d": secret } }),
        ),
    ] {
        answers.push(server.json_as(token, "PUT", &format!("/v1/{path}/new"), &body));
        answers.push(server.json_as(token, "PUT", &format!("/v1/{path}/{secret}%20"), &body));
        let mut line = body;
        line["kind"] = json!(path.trim_end_matches('s'));
        line["id"] = json!(format!("{secret} "));
        answers.push(server.json_as(token, "POST", "/v1/import", &line));
    }
    let bearer = format!("Bearer {token}");
    for query in ["vehicle", "state", "after", "limit"] {
        let path = format!("/v1/authorizations?{query}={secret}%20");
        answers.push(server.get(&path, &[("authorization", &bearer)]));
    }
    answers
}

#[test]
fn no_secret_leaves_its_place() {
    let issuer = Issuer::demo();
    let mut run = Run {
        secrets: Secrets::of(&issuer),
        pins: Vec::new(),
        issuer,
    };
    let talkative = [("FOB_LOG_FILTER", "trace")];
    let server = run.issuer.serve_with(&talkative);
    // Through the socket, so that the server has seen it.
    let token = run.issuer.token("authorize,issue,revoke,read,admin");
    run.secrets.token(&token);
    ordinary_life(&mut run, &server, &token);

    // One of each kind that is still worth something, in every wrong place.
    let made = server.json_as(
        &token,
        "POST",
        "/v1/authorizations",
        &authorization("DEMO-0002", &["doors.lock"]),
    );
    let code_set = made.value()["code_set"].as_str().unwrap().to_owned();
    let proof = Phone::new().proof(&server.url, &code_set);
    let command = run
        .issuer
        .owner()
        .command(&server.url, &json!({ "vehicle": "x" }));
    let revoked = run.issuer.token("read");
    run.secrets.code_set(&code_set);
    run.secrets.jws("a misplaced proof", &proof, &[]);
    run.secrets.jws("a misplaced command", &command, &[]);
    run.secrets.token(&revoked);
    let secrets = [code_set.as_str(), &proof, &command, &revoked, &token];
    for secret in secrets {
        let mut answers = misplaced(&server, secret);
        answers.extend(misplaced_by_a_back_end(&server, &token, secret));
        for answer in answers {
            run.search_answer(&answer);
        }
    }
    // Six digits may well be what somebody calls a function: only the log must not have them.
    misplaced(&server, &run.pins[0]);
    misplaced_by_a_back_end(&server, &token, &run.pins[0]);
    run.search_answer(&server.get("/metrics", &[]));
    run.search();
    assert!(run.issuer.log().contains("DEBUG"), "it was talkative");
    assert!(
        run.issuer.log().contains("answered"),
        "and did log requests"
    );

    // What a crash leaves on the disk, and what coming back makes of it.
    server.kill();
    run.search();
    let server = run.issuer.serve_with(&talkative);
    ordinary_life(&mut run, &server, &token);
    run.search_answer(&server.get("/metrics", &[]));
    assert!(server.stop());
    run.search();
}

#[test]
fn a_secret_as_the_name_of_a_member_is_not_shown() {
    let issuer = Issuer::demo();
    let server = issuer.serve_with(&[("FOB_LOG_FILTER", "trace")]);
    let token = issuer.token("authorize,admin");
    let code_set = server.authorize(&issuer.owner(), "DEMO-0001", &["doors.unlock"]);
    let mut run = Run {
        secrets: Secrets::of(&issuer),
        pins: Vec::new(),
        issuer,
    };
    run.secrets.code_set(&code_set);
    let mut wanted = authorization("DEMO-0001", &["doors.unlock"]);
    wanted["max_uses"] = json!({ code_set.as_str(): "x" });
    let mut deeper = authorization("DEMO-0001", &["doors.unlock"]);
    deeper["recipient"] = json!({ code_set.as_str(): "x" });
    let line = json!({ "kind": "identity", "id": "x", code_set.as_str(): 1 });
    for answer in [
        server.json("POST", "/v1/redemptions", &json!({ code_set.as_str(): 1 })),
        server.json(
            "POST",
            "/v1/code-sets/preview",
            &json!({ code_set.as_str(): 1 }),
        ),
        server.json_as(&token, "POST", "/v1/authorizations", &wanted),
        server.json_as(&token, "POST", "/v1/authorizations", &deeper),
        server.json_as(&token, "POST", "/v1/import", &line),
    ] {
        run.search_answer(&answer);
    }
    run.search();
}

#[test]
fn a_secret_in_a_header_that_http_itself_reads_is_not_logged() {
    let issuer = Issuer::demo();
    let server = issuer.serve_with(&[("FOB_LOG_FILTER", "trace")]);
    let code_set = server.authorize(&issuer.owner(), "DEMO-0001", &["doors.unlock"]);
    let mut run = Run {
        secrets: Secrets::of(&issuer),
        pins: Vec::new(),
        issuer,
    };
    run.secrets.code_set(&code_set);
    for request in [
        format!("POST /v1/redemptions HTTP/1.1\r\nhost: fob\r\ncontent-length: {code_set}\r\n\r\n"),
        format!(
            "POST /v1/redemptions HTTP/1.1\r\nhost: fob\r\ntransfer-encoding: {code_set}\r\n\r\n"
        ),
        format!("POST /v1/redemptions HTTP/1.1\r\nhost: {code_set}\r\nhost: {code_set}\r\n\r\n"),
        format!("{code_set} / HTTP/1.1\r\nhost: fob\r\n\r\n"),
        format!("GET /\u{7f}{code_set} HTTP/1.1\r\nhost: fob\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nhost: fob\r\n{code_set}\r\n\r\n"),
    ] {
        let mut stream = TcpStream::connect(&server.url["http://".len()..]).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = [0; 1024];
        assert!(stream.read(&mut answer).unwrap() > 0, "{request}");
    }
    run.search();
}

#[test]
fn what_is_searched_for_would_be_found() {
    let issuer = Issuer::demo();
    let server = issuer.serve();
    let code_set = server.authorize(&issuer.owner(), "DEMO-0001", &["doors.unlock"]);
    let mut run = Run {
        secrets: Secrets::of(&issuer),
        pins: vec!["482913".into()],
        issuer,
    };
    run.secrets.code_set(&code_set);
    run.search();
    let shouting = |text: &str| {
        std::fs::write(run.issuer.file("note"), text).unwrap();
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run.search())).is_err()
    };
    let key = std::fs::read(run.issuer.file("code-set.key")).unwrap();
    let secret = *CodeSet::decode(&code_set).unwrap().secret();
    assert!(shouting(&format!("x{code_set}x")));
    assert!(shouting(&format!("x{}x", &code_set[10..])));
    assert!(shouting("pin=482913."));
    assert!(shouting(&BASE64_STANDARD.encode(&key)));
    assert!(shouting(&format!("{secret:?}")));
    assert!(!shouting("1482913 nothing 4829130"));
}
