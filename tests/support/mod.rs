//! A real server to test against: `fob init --demo` in a directory of its own, `fob serve` as a
//! process of its own, and phones with keys of their own.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

pub mod cut;
pub mod database;
pub mod elsewhere;
pub mod far;
pub mod garage;
pub mod inside;
pub mod phone;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

pub use phone::Phone;

/// The binary under test.
pub const FOB: &str = env!("CARGO_BIN_EXE_fob");

/// An issuer's directory, with the demo fleet in it.
pub struct Issuer {
    dir: TempDir,
}

impl Issuer {
    /// `fob init --demo` in a new directory.
    pub fn demo() -> Self {
        Self::with(&["--demo"])
    }

    /// `fob init` with these arguments in a new directory.
    pub fn with(args: &[&str]) -> Self {
        let issuer = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        issuer.fob(&[&["init"], args].concat());
        issuer
    }

    /// A new directory with nothing in it yet.
    pub fn empty() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// A command for `fob` with these arguments and this directory, nothing inherited that could
    /// change what it does.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(FOB);
        command
            .args(args)
            .arg("--dir")
            .arg(self.path())
            .env_remove("SOFTHSM2_CONF");
        command
    }

    /// Runs `fob` to its end and returns what it printed; panics where it fails.
    pub fn fob(&self, args: &[&str]) -> String {
        let done = self.command(args).output().unwrap();
        let complaint = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "fob {args:?}: {complaint}");
        String::from_utf8(done.stdout)
            .unwrap()
            .trim_end()
            .to_owned()
    }

    /// Runs `fob` to its end, which must be a failure, and returns what it complained of.
    pub fn fob_fails(&self, args: &[&str]) -> String {
        let done = self.command(args).output().unwrap();
        assert!(!done.status.success(), "fob {args:?} did not fail");
        String::from_utf8(done.stderr).unwrap()
    }

    /// A bearer token of the demo fleet.
    pub fn token(&self, scopes: &str) -> String {
        self.fob(&["token", "create", "--fleet", "demo", "--scopes", scopes])
    }

    /// The demo owner's phone.
    pub fn owner(&self) -> Phone {
        Phone::read(&self.file("demo-owner.jwk"))
    }

    /// `fob serve` on a free port.
    pub fn serve(&self) -> Server {
        self.serve_with(&[])
    }

    /// `fob serve` on a free port, with these variables set.
    pub fn serve_with(&self, variables: &[(&str, &str)]) -> Server {
        self.serve_on("127.0.0.1:0", variables)
    }

    /// `fob serve` on this address.
    pub fn serve_at(&self, address: &str) -> Server {
        self.serve_on(address, &[])
    }

    /// The same, with these variables set.
    pub fn serve_on(&self, address: &str, variables: &[(&str, &str)]) -> Server {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.file("serve.log"))
            .unwrap();
        let mut child = self
            .command(&["serve", "--listen", address])
            .envs(variables.iter().copied())
            .env("RUST_BACKTRACE", "0")
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let Some(at) = line.find("http") else {
            let log = std::fs::read_to_string(self.file("serve.log")).unwrap();
            panic!("the server does not serve: {line}{log}");
        };
        Server {
            child: Some(child),
            url: line[at..].split_whitespace().next().unwrap().to_owned(),
            agent: agent(),
        }
    }

    /// Everything the servers of this issuer have logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.file("serve.log")).unwrap_or_default()
    }
}

/// A running server; killed when dropped.
pub struct Server {
    child: Option<Child>,
    pub url: String,
    agent: ureq::Agent,
}

/// An answer: status, headers and body.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: ureq::http::HeaderMap,
    pub body: Vec<u8>,
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .allow_non_standard_methods(true)
        // Longer than any test stops a server for.
        .timeout_global(Some(Duration::from_secs(60)))
        .build()
        .into()
}

impl Server {
    /// Kills it with SIGKILL, as a crash would end it.
    pub fn kill(mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// One that runs elsewhere.
    pub fn at(url: String) -> Self {
        Self {
            child: None,
            url,
            agent: agent(),
        }
    }

    /// Asks it to end (SIGTERM) and returns whether it ended well.
    pub fn stop(mut self) -> bool {
        let mut child = self.child.take().unwrap();
        let pid = child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .unwrap()
                .success()
        );
        let ended = child.wait().unwrap();
        assert!(ended.success(), "the server did not end well: {ended}");
        true
    }

    /// Waits until it ends by itself, and returns its exit code.
    pub fn exit_code(mut self) -> Option<i32> {
        self.child.take().unwrap().wait().unwrap().code()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// An agent of its own connections, for a thread of its own.
    pub fn client(&self) -> Client {
        Client {
            url: self.url.clone(),
            agent: agent(),
        }
    }

    /// Sends a request; panics where there is no answer at all.
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        send(&self.agent, &self.url, method, path, headers, body).unwrap()
    }

    pub fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send("GET", path, headers, b"")
    }

    /// Sends JSON, with a bearer token.
    pub fn json_as(&self, token: &str, method: &str, path: &str, body: &Value) -> Answer {
        let bearer = format!("Bearer {token}");
        let headers = [
            ("content-type", "application/json"),
            ("authorization", bearer.as_str()),
        ];
        self.send(method, path, &headers, body.to_string().as_bytes())
    }

    /// Sends JSON, with no credentials.
    pub fn json(&self, method: &str, path: &str, body: &Value) -> Answer {
        self.send(
            method,
            path,
            &[("content-type", "application/json")],
            body.to_string().as_bytes(),
        )
    }

    /// Sends a signed command to `/v1/authorizations`.
    pub fn command(&self, jws: &str) -> Answer {
        let headers = [("content-type", "application/jose")];
        self.send("POST", "/v1/authorizations", &headers, jws.as_bytes())
    }

    /// Redeems.
    pub fn redeem(&self, code_set: &str, identity: &str, phone: &Phone) -> Answer {
        self.json(
            "POST",
            "/v1/redemptions",
            &redemption(&self.url, code_set, identity, phone),
        )
    }

    /// An authorization by the demo owner's phone; its code set.
    pub fn authorize(&self, owner: &Phone, vehicle: &str, functions: &[&str]) -> String {
        let command = authorization(vehicle, functions);
        let answer = self.command(&owner.command(&self.url, &command));
        assert_eq!(answer.status, 201, "{}", answer.text());
        answer.value()["code_set"].as_str().unwrap().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Already ended is as good as killed.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A client in a thread of its own.
pub struct Client {
    pub url: String,
    agent: ureq::Agent,
}

impl Client {
    /// Sends text; `None` where the server went away.
    pub fn text(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Option<Answer> {
        send(
            &self.agent,
            &self.url,
            method,
            path,
            headers,
            body.as_bytes(),
        )
        .ok()
    }

    /// Sends JSON; `None` where the server went away.
    pub fn json(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Option<Answer> {
        let headers = [&[("content-type", "application/json")], headers].concat();
        send(
            &self.agent,
            &self.url,
            method,
            path,
            &headers,
            body.to_string().as_bytes(),
        )
        .ok()
    }
}

fn send(
    agent: &ureq::Agent,
    url: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<Answer, ureq::Error> {
    let request = headers
        .iter()
        .fold(
            ureq::http::Request::builder().method(method),
            |request, (name, value)| request.header(*name, *value),
        )
        .uri(format!("{url}{path}"));
    let mut response = if body.is_empty() {
        agent.run(request.body(()).unwrap())?
    } else {
        agent.run(request.body(body).unwrap())?
    };
    let limit = 64 * 1024 * 1024;
    let body = response
        .body_mut()
        .with_config()
        .limit(limit)
        .read_to_vec()?;
    Ok(Answer {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        body,
    })
}

impl Answer {
    pub fn text(&self) -> String {
        format!("{} {}", self.status, String::from_utf8_lossy(&self.body))
    }

    /// The body as JSON.
    pub fn value(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.text()))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The code of a refusal, having checked that it is a whole problem+json of that status.
    pub fn refusal(&self) -> String {
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{}",
            self.text()
        );
        let body = self.value();
        let code = body["code"]
            .as_str()
            .unwrap_or_else(|| panic!("no code: {}", self.text()));
        assert_eq!(body["type"], format!("urn:fob:refusal:{code}"));
        assert_eq!(body["status"], self.status);
        assert!(body["title"].is_string());
        code.to_owned()
    }

    /// Asserts a refusal of this status and code.
    #[track_caller]
    pub fn refused(&self, status: u16, code: &str) {
        assert_eq!(
            (self.status, self.refusal().as_str()),
            (status, code),
            "{}",
            self.text()
        );
    }
}

/// The body of an authorization: these functions, for two hours from now.
pub fn authorization(vehicle: &str, functions: &[&str]) -> Value {
    json!({
        "vehicle": vehicle,
        "functions": functions,
        "not_before": time(now()),
        "not_after": time(now() + 7200),
    })
}

/// The body of a redemption.
pub fn redemption(url: &str, code_set: &str, identity: &str, phone: &Phone) -> Value {
    json!({ "code_set": code_set, "identity": { "id": identity }, "proof": phone.proof(url, code_set) })
}

/// Seconds since 1970.
#[expect(clippy::disallowed_methods, reason = "tests use the time of the day")]
pub fn now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// A time as the API writes it.
pub fn time(unix: u64) -> String {
    fob::domain::time::Time(unix).to_string()
}
