//! The whole of it, as its users have it: `fob init`, `fob serve`, a code set that is redeemed, keys
//! that a car accepts, a restart, an epoch that follows.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::world::World;

pub fn serve_p256(world: &World) {
    served(world, "ESP256");
}

pub fn serve_ed25519(world: &World) {
    served(world, "Ed25519");
}

fn served(world: &World, algorithm: &str) {
    let issuer = Issuer::new(world, algorithm);
    let server = issuer.serve();
    let (body, first) = issuer.redeemed();
    let old = issuer.accepted(&first);
    server.stop();

    // After a restart the same request finds the same bundle.
    let server = issuer.serve();
    assert_eq!(issuer.post("/v1/redemptions", &body), first);

    // Another epoch takes over; keys of the one before are good after it has retired.
    issuer.fob(&["epoch", "rotate"]);
    let (_, second) = issuer.redeemed();
    let new = issuer.accepted(&second);
    assert_ne!(old, new, "the epoch is another");
    issuer.accepted(&first);
    let status: Value = serde_json::from_str(&issuer.fob(&["hsm", "status", "--json"])).unwrap();
    let token = &status["tokens"][0];
    assert_eq!(
        (&token["up"], &token["breaker"]),
        (&true.into(), &"closed".into())
    );
    let states = |state: &str| {
        let keys = token["keys"].as_array().unwrap().iter();
        keys.filter(|key| key["state"] == state).count()
    };
    assert_eq!((states("active"), states("retired")), (1, 1), "{token}");
    server.stop();
}

/// An issuer whose keys are in the tokens under test.
struct Issuer {
    dir: TempDir,
    /// Where it serves, now and after a restart.
    address: String,
}

impl Issuer {
    fn new(world: &World, algorithm: &str) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let issuer = Self {
            dir: tempfile::tempdir().unwrap(),
            address: free.local_addr().unwrap().to_string(),
        };
        let named = world.init_args();
        let named: Vec<_> = named.iter().map(String::as_str).collect();
        issuer.fob(&[&["init", "--demo", "--alg", algorithm], &named[..]].concat());
        issuer
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fob"));
        command.args(args).arg("--dir").arg(self.dir.path());
        command
    }

    /// Runs `fob` to its end and returns what it printed.
    fn fob(&self, args: &[&str]) -> String {
        let done = self.command(args).output().unwrap();
        let complaint = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "fob {args:?}: {complaint}");
        String::from_utf8(done.stdout).unwrap()
    }

    fn serve(&self) -> Server {
        let log = std::fs::File::create(self.file("serve.log")).unwrap();
        let mut child = self
            .command(&["serve", "--listen", &self.address])
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        said.read_line(&mut line).unwrap();
        let server = Server(child);
        let log = || std::fs::read_to_string(self.file("serve.log")).unwrap();
        assert!(line.contains("http"), "it does not serve: {line}{}", log());
        server
    }

    /// A code set, redeemed: the request, and the answer.
    fn redeemed(&self) -> (Vec<u8>, Vec<u8>) {
        let url = self.url();
        let command = self.fob(&["sign", "command", "--url", &url]);
        let authorization = self.post("/v1/authorizations", command.trim().as_bytes());
        let (file, phone) = (self.file("authorization.json"), self.file("phone.jwk"));
        std::fs::write(&file, authorization).unwrap();
        let proof = self.fob(&[
            "sign",
            "proof",
            "--authorization",
            file.to_str().unwrap(),
            "--identity",
            "renter-1",
            "--jwk",
            phone.to_str().unwrap(),
        ]);
        let answer = self.post("/v1/redemptions", proof.as_bytes());
        (proof.into_bytes(), answer)
    }

    /// Posts, and returns the body of the answer, which must be one of success.
    fn post(&self, path: &str, body: &[u8]) -> Vec<u8> {
        let kind = if path == "/v1/authorizations" {
            "application/jose"
        } else {
            "application/json"
        };
        let sent = agent()
            .post(format!("{}{path}", self.url()))
            .header("content-type", kind)
            .send(body);
        let mut answer = sent.unwrap();
        let status = answer.status();
        let body = answer.body_mut().read_to_vec().unwrap();
        let text = String::from_utf8_lossy(&body);
        assert!(status.is_success(), "{path}: {status} {text}");
        body
    }

    /// Checks a bundle as a car would that has the trust list of now. Returns the active epoch.
    fn accepted(&self, bundle: &[u8]) -> String {
        let trust = agent().get(format!("{}/v1/trust", self.url())).call();
        let trust = trust.unwrap().body_mut().read_to_vec().unwrap();
        let (of_bundle, of_trust) = (self.file("bundle.json"), self.file("trust.cbor"));
        std::fs::write(&of_bundle, bundle).unwrap();
        std::fs::write(&of_trust, trust).unwrap();
        let verdict = self.fob(&[
            "verify",
            of_bundle.to_str().unwrap(),
            "--root",
            self.file("root.cbor").to_str().unwrap(),
            "--trust",
            of_trust.to_str().unwrap(),
            "--vehicle",
            "DEMO-0001",
        ]);
        assert_eq!(verdict.matches("accepted").count(), 2, "{verdict}");
        let epochs: Value = serde_json::from_str(&self.fob(&["epoch", "list", "--json"])).unwrap();
        let mut epochs = epochs.as_array().unwrap().iter();
        let active = epochs.find(|epoch| epoch["state"] == "active").unwrap();
        active["id"].as_str().unwrap().to_owned()
    }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .build()
        .into()
}

/// A running server; killed when dropped.
struct Server(Child);

impl Server {
    /// Asks it to end, which it must do well.
    fn stop(mut self) {
        let pid = self.0.id().to_string();
        let asked = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(asked.unwrap().success());
        let ended = self.0.wait().unwrap();
        assert!(ended.success(), "the server did not end well: {ended}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already ended is as good as killed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
