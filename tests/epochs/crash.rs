//! A step that is cut off leaves things as they were, or as they are to be.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use super::*;

fn spare(issuer: &Issuer) -> usize {
    let status = json(issuer, &["epoch", "status"]);
    assert_eq!(status.get("problem"), None, "{status}");
    status["spare_keys"].as_array().unwrap().len()
}

#[test]
fn keys_of_a_step_that_was_not_finished_are_named_and_used() {
    for served in [true, false] {
        let issuer = Issuer::demo();
        let before = active(&issuer);
        let _server = served.then(|| issuer.serve());
        // The keys are generated, and then the root turns out not to be the root.
        let pin = issuer.file("root.pin");
        let right = std::fs::read(&pin).unwrap();
        std::fs::write(&pin, "000000").unwrap();
        issuer.fob_fails(&["epoch", "rotate", "--now"]);
        std::fs::write(&pin, right).unwrap();
        assert_eq!((active(&issuer), spare(&issuer)), (before.clone(), 1));
        assert!(
            issuer
                .fob(&["epoch", "status"])
                .contains("a step was not finished")
        );
        issuer.fob(&["epoch", "rotate", "--now"]);
        assert_eq!(spare(&issuer), 0, "the spare key was used");
        assert_ne!(active(&issuer), before);
        issuer.fob(&["epoch", "records"]);
    }
}

/// SoftHSM writes `token.object` anew at every login, and not in one step: a process that is killed
/// in that moment leaves a token of zero bytes, which no HSM would. That is not what is asked here.
struct TokenFiles(Vec<(PathBuf, Vec<u8>)>);

impl TokenFiles {
    fn of(issuer: &Issuer) -> Self {
        let folders = std::fs::read_dir(issuer.file("tokens")).unwrap();
        let files = folders.map(|folder| folder.unwrap().path().join("token.object"));
        Self(
            files
                .map(|file| (file.clone(), std::fs::read(file).unwrap()))
                .collect(),
        )
    }

    fn mend(&self) {
        for (file, whole) in &self.0 {
            if std::fs::metadata(file).unwrap().len() != whole.len() as u64 {
                std::fs::write(file, whole).unwrap();
            }
        }
    }
}

#[test]
fn killed_at_any_moment_a_step_has_happened_or_has_not() {
    for served in [true, false] {
        let issuer = Issuer::demo();
        let server = served.then(|| issuer.serve());
        let tokens = TokenFiles::of(&issuer);
        let mut known = epochs(&issuer, "prepared").len();
        for round in 0..12_u64 {
            let mut child = issuer
                .command(&["epoch", "prepare", "--count", "2"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            std::thread::sleep(Duration::from_millis(round * 13));
            child.kill().unwrap();
            child.wait().unwrap();
            tokens.mend();
            let now_known = epochs(&issuer, "prepared").len();
            assert!(
                [known, known + 2].contains(&now_known),
                "both of them or none"
            );
            known = now_known;
            issuer.fob(&["epoch", "records"]);
        }
        let left = spare(&issuer);
        assert!(left <= 2, "they do not pile up: {left}");
        issuer.fob(&["epoch", "prepare", "--count", "2"]);
        assert_eq!(
            (spare(&issuer), epochs(&issuer, "prepared").len()),
            (0, known + 2)
        );
        if let Some(server) = server {
            assert!(server.stop(), "an orderly end");
        }
        crate::audit::sound(&issuer);
    }
}

#[test]
fn a_server_that_is_killed_finds_its_epochs_again() {
    let issuer = Issuer::demo();
    let server = issuer.serve();
    issuer.fob(&["epoch", "prepare", "--window", WIDE]);
    issuer.fob(&["epoch", "rotate"]);
    let after = active(&issuer);
    server.kill();
    crate::audit::sound(&issuer);
    let server = issuer.serve();
    assert_eq!(active(&issuer), after);
    assert_eq!(server.get("/readyz", &[]).status, 200);
    issuer.fob(&["epoch", "records"]);
}
