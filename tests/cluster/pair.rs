//! Two nodes over one database, each with a directory and a copy of the token of its own.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::database::Schema;
use crate::support::{Answer, Issuer, Phone, Server, authorization, redemption};

/// What clients call both nodes.
pub(super) const PUBLIC: &str = "http://keys.example.test";

/// The two directories. Leases are short.
pub(super) struct Pair {
    pub(super) issuers: [Issuer; 2],
    /// How long a lease is, in seconds.
    pub(super) lease_s: u32,
}

impl Pair {
    /// Over a schema.
    pub(super) fn over(schema: &Schema) -> Self {
        let first = Issuer::with(&["--demo", "--store", &schema.url()]);
        let second = copy(&first);
        Self {
            issuers: [first, second],
            lease_s: 2,
        }
    }

    /// One of the nodes, serving.
    pub(super) fn serve(&self, at: usize) -> Server {
        self.serve_on(at, "127.0.0.1:0")
    }

    /// The same, on that address.
    pub(super) fn serve_on(&self, at: usize, address: &str) -> Server {
        let lease_s = self.lease_s.to_string();
        let variables = [
            ("FOB_SERVER_PUBLIC_URL", PUBLIC),
            ("FOB_STORE_LEASE_S", &lease_s),
        ];
        self.issuers[at].serve_on(address, &variables)
    }

    /// Both, serving.
    pub(super) fn serve_both(&self) -> [Server; 2] {
        [self.serve(0), self.serve(1)]
    }

    /// The demo owner's phone.
    pub(super) fn owner(&self) -> Phone {
        self.issuers[0].owner()
    }
}

/// A second directory with the same keys.
fn copy(issuer: &Issuer) -> Issuer {
    let second = Issuer::empty();
    copy_all(issuer.path(), second.path());
    let (from, to) = (issuer.path().canonicalize(), second.path().canonicalize());
    let (from, to) = (from.unwrap(), to.unwrap());
    for name in ["softhsm2.conf", "fob.toml"] {
        let text = fs::read_to_string(second.file(name)).unwrap();
        let text = text.replace(from.to_str().unwrap(), to.to_str().unwrap());
        fs::write(second.file(name), text).unwrap();
    }
    second
}

fn copy_all(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&target).unwrap();
            copy_all(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// An authorization by the demo owner's phone, made on one node.
pub(super) fn authorize(server: &Server, owner: &Phone, vehicle: &str) -> Value {
    let command = authorization(vehicle, &["doors.unlock", "engine.start"]);
    let answer = server.command(&owner.command(PUBLIC, &command));
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.value()
}

/// A member's text.
pub(super) fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap().to_owned()
}

/// The body of a redemption.
pub(super) fn body(code_set: &str, identity: &str, phone: &Phone) -> Value {
    redemption(PUBLIC, code_set, identity, phone)
}

/// A redemption.
pub(super) fn redeem(server: &Server, code_set: &str, identity: &str, phone: &Phone) -> Answer {
    let body = body(code_set, identity, phone);
    server.json("POST", "/v1/redemptions", &body)
}

/// Suspends, resumes or revokes something.
pub(super) fn act(server: &Server, token: &str, call: &str, target: (&str, &str)) -> Answer {
    let body = json!({ target.0: target.1 });
    server.json_as(token, "POST", &format!("/v1/{call}"), &body)
}

/// Sends a signal to a node.
pub(super) fn signal(name: &str, server: &Server) {
    let pid = server.pid().to_string();
    let sent = Command::new("kill")
        .args([&format!("-{name}"), &pid])
        .status();
    assert!(sent.unwrap().success(), "SIG{name}");
}
