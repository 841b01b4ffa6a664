//! Certificates in a token's place, and the listener's own, renewed while it serves.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::rental::text;
use crate::support::{Issuer, Server};

/// Runs openssl.
fn openssl(folder: &Path, args: &[&str]) {
    let done = Command::new("openssl")
        .current_dir(folder)
        .args(args)
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{args:?}: {complaint}");
}

/// A key and a certificate of its own, as `NAME.key` and `NAME.crt`.
fn certificate(folder: &Path, name: &str, more: &[&str]) {
    let (key, crt, subject) = (
        format!("{name}.key"),
        format!("{name}.crt"),
        format!("/CN={name}"),
    );
    let own = [
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
        "-subj",
        &subject,
        "-keyout",
        &key,
        "-out",
        &crt,
    ];
    openssl(folder, &[&own[..], more].concat());
}

const LOOPBACK: [&str; 2] = ["-addext", "subjectAltName=IP:127.0.0.1"];
const LEAF: [&str; 2] = ["-addext", "basicConstraints=critical,CA:FALSE"];

/// A server over TLS, in a fleet of its own, and a folder with certificates.
struct World {
    issuer: Issuer,
    server: Server,
    folder: PathBuf,
}

impl World {
    fn new() -> Self {
        let issuer = Issuer::with(&["--demo"]);
        issuer.fob(&["fleet", "create", "other"]);
        let folder = issuer.file("certificates");
        std::fs::create_dir(&folder).unwrap();
        certificate(&folder, "server", &[&LOOPBACK[..], &LEAF].concat());
        certificate(&folder, "ca", &[]);
        certificate(&folder, "stranger", &LEAF);
        for name in ["one", "two", "three"] {
            let by = ["-CA", "ca.crt", "-CAkey", "ca.key"];
            certificate(&folder, name, &[&by[..], &LEAF].concat());
        }
        let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        let server = issuer.serve_with(&[
            ("FOB_SERVER_TLS_CERTIFICATES", &path("server.crt")),
            ("FOB_SERVER_TLS_KEY", &path("server.key")),
            ("FOB_SERVER_TLS_CLIENT_CA", &path("ca.crt")),
        ]);
        assert!(server.url.starts_with("https://"), "{}", server.url);
        Self {
            issuer,
            server,
            folder,
        }
    }

    /// Calls as curl does: the status, 0 where there is no answer; and the body.
    fn call(&self, path: &str, args: &[&str]) -> (u16, String) {
        let url = format!("{}{path}", self.server.url);
        let own = [
            "-sS",
            "--max-time",
            "20",
            "-w",
            "\n%{http_code}",
            "--cacert",
        ];
        let done = Command::new("curl")
            .current_dir(&self.folder)
            .args(own)
            .arg("server.crt")
            .args(args)
            .arg(url)
            .output()
            .unwrap();
        let said = String::from_utf8(done.stdout).unwrap();
        let (body, status) = said.rsplit_once('\n').unwrap_or_default();
        (status.parse().unwrap_or(0), body.to_owned())
    }

    /// What whoever shows this certificate gets to read.
    fn reads(&self, name: &str) -> (u16, String) {
        let (key, crt) = (format!("{name}.key"), format!("{name}.crt"));
        self.call("/v1/authorizations", &["--cert", &crt, "--key", &key])
    }

    /// A token for a certificate: its id.
    fn token(&self, args: &[&str], name: &str) -> String {
        let file = self.folder.join(format!("{name}.crt"));
        let with = ["--certificate", file.to_str().unwrap(), "--json"];
        let said = self.issuer.fob(&[&["token"], args, &with].concat());
        let said: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(said["token"], json!(null), "it has no text");
        text(&said["id"]).to_owned()
    }
}

#[test]
fn a_certificate_stands_for_a_token_and_ends_with_it() {
    let world = World::new();
    let reader = ["create", "--fleet", "demo", "--scopes", "read"];
    assert_eq!(world.call("/healthz", &[]).0, 200, "no client needs one");
    assert_eq!(world.call("/v1/authorizations", &[]).0, 401);
    assert_eq!(world.reads("one").0, 401, "nobody has it yet");
    let first = world.token(&reader, "one");
    assert_eq!(world.reads("one").0, 200);
    assert_eq!(world.reads("two").0, 401, "of the same authority");
    let stranger = world.reads("stranger");
    assert_eq!(stranger.0, 0, "nobody vouches for it: {}", stranger.1);
    let other = ["create", "--fleet", "other", "--scopes", "admin"];
    let second = world.token(&other, "two");
    let refused = world.reads("two");
    assert_eq!(refused.0, 403, "it lacks the scope: {}", refused.1);
    // A bearer token beside it is what counts.
    let bearer = format!("Authorization: Bearer {}", world.issuer.token("read"));
    let with = ["--cert", "two.crt", "--key", "two.key", "-H", &bearer];
    assert_eq!(world.call("/v1/authorizations", &with).0, 200);
    // One certificate, one token.
    let file = world.folder.join("one.crt");
    let again = ["--certificate", file.to_str().unwrap()];
    world
        .issuer
        .fob_fails(&[&["token"], &other[..], &again].concat());
    // Another in its place, and both for a while.
    world.token(&["rotate", &first], "three");
    assert_eq!((world.reads("one").0, world.reads("three").0), (200, 200));
    world.issuer.fob(&["token", "revoke", &first]);
    assert_eq!((world.reads("one").0, world.reads("three").0), (401, 200));
    world.issuer.fob(&["token", "revoke", &second]);
    // Its end frees the certificate.
    world.token(&reader, "one");
    assert_eq!(world.reads("one").0, 200);
}

#[test]
fn the_listeners_certificate_is_renewed_while_it_serves() {
    let world = World::new();
    assert_eq!(world.call("/healthz", &[]).0, 200);
    let (crt, key) = (
        world.folder.join("server.crt"),
        world.folder.join("server.key"),
    );
    let before = std::fs::read(&crt).unwrap();
    // What cannot be used leaves what was.
    std::fs::write(&crt, "no certificate").unwrap();
    std::thread::sleep(Duration::from_secs(5));
    std::fs::write(world.folder.join("old.crt"), &before).unwrap();
    let old = |world: &World| world.call("/healthz", &["--cacert", "old.crt"]).0;
    assert_eq!(old(&world), 200);
    certificate(&world.folder, "next", &[&LOOPBACK[..], &LEAF].concat());
    std::fs::copy(world.folder.join("next.key"), &key).unwrap();
    std::fs::copy(world.folder.join("next.crt"), &crt).unwrap();
    let renewed = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(200));
        world.call("/healthz", &[]).0 == 200
    });
    assert!(renewed, "{}", world.issuer.log());
    assert_eq!(old(&world), 0, "the one before is not shown any more");
    assert!(world.issuer.log().contains("the files before stay in use"));
}

#[test]
fn another_authority_counts_without_a_restart() {
    let world = World::new();
    let reader = ["create", "--fleet", "demo", "--scopes", "read"];
    world.token(&reader, "one");
    assert_eq!(world.reads("one").0, 200);
    certificate(&world.folder, "other-ca", &[]);
    std::fs::copy(
        world.folder.join("other-ca.crt"),
        world.folder.join("ca.crt"),
    )
    .unwrap();
    let refused = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(200));
        world.reads("one").0 == 0
    });
    assert!(refused, "{}", world.issuer.log());
    assert_eq!(world.call("/healthz", &[]).0, 200);
}
