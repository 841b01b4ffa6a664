//! A wrong PIN, over several starts: the token is asked once, as `pkcs11-spy` sees it.

use std::path::PathBuf;
use std::process::Output;

use fob::hsm::softhsm_module;

use crate::support::Issuer;
use crate::support::far::{spy_module, use_module};

/// An issuer whose calls into SoftHSM are written down.
struct Watched {
    issuer: Issuer,
    calls: PathBuf,
}

impl Watched {
    fn new() -> Self {
        let issuer = Issuer::demo();
        use_module(&issuer, &spy_module());
        let calls = issuer.file("calls.log");
        Self { issuer, calls }
    }

    /// Runs `fob` to its end.
    fn run(&self, args: &[&str]) -> Output {
        let mut command = self.issuer.command(args);
        command
            .env("PKCS11SPY", softhsm_module().unwrap())
            .env("PKCS11SPY_OUTPUT", &self.calls);
        command.output().unwrap()
    }

    /// A start of the server that must come to nothing, with this exit code.
    fn fails_to_serve(&self, code: i32) -> String {
        let done = self.run(&["serve", "--listen", "127.0.0.1:0"]);
        let said = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(code), "{said}");
        said
    }

    /// How often a token was asked to log somebody in.
    fn logins(&self) -> usize {
        let calls = std::fs::read_to_string(&self.calls).unwrap_or_default();
        let entered = |line: &&str| line.ends_with(": C_Login");
        calls.lines().filter(entered).count()
    }

    fn set_pin(&self, pin: &str) {
        std::fs::write(self.issuer.file("hsm.pin"), pin).unwrap();
    }
}

#[test]
fn a_wrong_pin_is_tried_once_in_three_starts() {
    let watched = Watched::new();
    let right = std::fs::read_to_string(watched.issuer.file("hsm.pin")).unwrap();
    watched.set_pin("not the pin\n");
    let said = watched.fails_to_serve(77);
    assert!(said.contains("refused the user PIN"), "{said}");
    for _ in 0..2 {
        let said = watched.fails_to_serve(77);
        assert!(said.contains("has refused this user PIN before"), "{said}");
        assert!(said.contains("refused-pins.json"), "{said}");
    }
    // Other commands are as careful.
    let status = watched.run(&["hsm", "status"]);
    assert_eq!(status.status.code(), Some(77));
    assert_eq!(watched.logins(), 1);
    let remembered = std::fs::read_to_string(watched.issuer.file("refused-pins.json")).unwrap();
    assert!(!remembered.contains("not the pin"));

    // Another PIN is tried, and again once only.
    watched.set_pin("another one");
    for _ in 0..2 {
        watched.fails_to_serve(77);
    }
    assert_eq!(watched.logins(), 2);

    watched.set_pin(&right);
    let status = watched.run(&["hsm", "status"]);
    let said = String::from_utf8_lossy(&status.stderr).into_owned();
    assert!(status.status.success(), "{said}");
    assert_eq!(watched.logins(), 3);
}
