//! One suite for every PKCS#11 module: `make test-hsm` runs it once for each, in the environment
//! that the module's own `run` makes, on the tokens that its `setup` made.
//!
//! Not a test of libtest's: a module is loaded and told where its tokens are once per process. Each
//! test prints a line of JSON. What a module cannot do stands in its `suite.toml`, and the test is
//! made all the same: it has to fail, and in the way that is said there.
#![allow(
    missing_docs,
    unreachable_pub,
    reason = "tests are read by their names"
)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod issuer;
mod keys;
mod manifest;
mod sessions;
mod world;

use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;

use manifest::Manifest;
use world::World;

/// How long one test may take. A module that hangs ends the suite.
const PATIENCE: Duration = Duration::from_secs(120);

type Test = fn(&World);

/// Every test, in the order in which they are made: those that trouble the module are last.
const TESTS: [(&str, Test); 16] = [
    ("status", keys::status),
    ("p256", keys::p256),
    ("ed25519", keys::ed25519),
    ("attributes", keys::attributes),
    ("fixed", keys::fixed),
    ("destroy", keys::destroy),
    ("init-token", keys::init_token),
    ("sessions", sessions::many_callers),
    ("batch", sessions::batch),
    ("copies", sessions::copies),
    ("pin", sessions::wrong_pin),
    ("logout", sessions::logged_out),
    ("loss", sessions::closed),
    ("serve", issuer::serve_p256),
    ("serve-ed25519", issuer::serve_ed25519),
    ("reload", sessions::finalized),
];

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [dir, manifest] = &args[..] else {
        eprintln!("usage: modules DIR SUITE.toml; see scripts/test-hsm");
        return ExitCode::from(2);
    };
    let manifest = Manifest::read(manifest);
    for name in manifest.cannot.keys() {
        let known = TESTS.iter().any(|(test, _)| test == name);
        assert!(known, "there is no test {name}");
    }
    let world = Arc::new(World::read(dir, manifest.batch));
    let mut failed = false;
    for (name, test) in TESTS {
        let (outcome, why) = manifest.judge(name, attempt(&world, test));
        failed |= outcome == "failed";
        println!("{}", json!({"test": name, "outcome": outcome, "why": why}));
    }
    ExitCode::from(u8::from(failed))
}

/// Makes one test. What it panicked with is the error.
fn attempt(world: &Arc<World>, test: Test) -> Result<(), String> {
    let said = Arc::new(Mutex::new(String::new()));
    let hears = Arc::clone(&said);
    // The first to panic says why: others, in threads of their own, follow.
    panic::set_hook(Box::new(move |info| {
        let mut said = hears.lock().unwrap();
        if said.is_empty() {
            let at = info.location().map(ToString::to_string).unwrap_or_default();
            let text = info.payload_as_str().unwrap_or("a panic");
            *said = format!("{text} ({at})");
        }
    }));
    let (done, outcome) = std::sync::mpsc::channel();
    let world = Arc::clone(world);
    let thread = std::thread::spawn(move || {
        let ended = panic::catch_unwind(AssertUnwindSafe(|| test(&world)));
        // Who waited may have given up.
        let _ = done.send(ended.is_ok());
    });
    let ended = outcome.recv_timeout(PATIENCE);
    let why = said.lock().unwrap().clone();
    match ended {
        Ok(true) => {
            thread.join().unwrap();
            Ok(())
        }
        Ok(false) => Err(why),
        Err(_) => {
            println!(
                "{}",
                json!({"test": "", "outcome": "failed", "why": "a test does not end"})
            );
            // There is no other way out of a call that does not return.
            fob::hsm::leave(1)
        }
    }
}
