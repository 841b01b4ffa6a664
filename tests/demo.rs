//! `fob demo`: told to its end, and told that it does not hold.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{FOB, Issuer};

fn demo(temporary: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(FOB);
    command
        .arg("demo")
        .args(args)
        .env("TMPDIR", temporary)
        .env("FOB_CONFIG", "/nowhere/fob.toml")
        .env_remove("SOFTHSM2_CONF");
    command
}

fn lines(bytes: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(bytes).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// What somebody says in a step, in order.
fn said<'a>(step: &'a Value, who: &str) -> Vec<&'a str> {
    let events = step["happened"].as_array().unwrap().iter();
    let own = events.filter(|event| event["who"] == who);
    own.map(|event| event["what"].as_str().unwrap()).collect()
}

#[test]
fn the_story_holds_from_the_issuer_to_the_end() {
    let temporary = tempfile::tempdir().unwrap();
    let done = demo(temporary.path(), &["--json"]).output().unwrap();
    let complaint = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{complaint}");
    let steps = lines(&done.stdout);
    assert_eq!(steps.len(), 13);
    for (number, step) in (1..).zip(&steps) {
        assert_eq!(
            (&step["step"], &step["holds"]),
            (&number.into(), &true.into())
        );
        assert!(step.get("why_not").is_none(), "{step}");
    }
    // What the car says is what the story is about.
    let car: Vec<_> = steps.iter().map(|step| said(step, "car")).collect();
    assert_eq!(car[5].len(), 4, "opened twice, refused twice: {:?}", car[5]);
    assert_eq!(car[6], ["engine.start: done"], "it cannot know");
    assert_eq!(
        car[7],
        [
            "trunk.open: done",
            "engine.start: no, a newer version of this bundle was seen",
            "doors.unlock: no, a newer version of this bundle was seen",
            "doors.unlock: done",
        ]
    );
    assert_eq!(car[9], ["doors.unlock: no, the key was revoked"]);
    assert_eq!(
        car[11],
        [
            "doors.unlock: no, the issuer key is not on the trust list",
            "doors.unlock: done",
            "engine.start: done",
        ]
    );
    let left = std::fs::read_dir(temporary.path()).unwrap().count();
    assert_eq!(left, 0, "nothing is left behind");
}

#[test]
fn a_story_that_does_not_hold_fails_and_says_at_which_step() {
    let temporary = tempfile::tempdir().unwrap();
    let mut child = demo(temporary.path(), &["--json", "--pause"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut keyboard = child.stdin.take().unwrap();
    let mut told = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&told.next().unwrap().unwrap()).unwrap() };
    assert_eq!(next()["title"], "An issuer is founded");
    writeln!(keyboard).unwrap();
    assert_eq!(next()["title"], "It serves");
    // Its server is taken away from under it.
    let id = child.id();
    let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
    let server = children.split_whitespace().next().unwrap();
    let killed = Command::new("kill").args(["-KILL", server]).status();
    assert!(killed.unwrap().success());
    writeln!(keyboard).unwrap();
    let step = next();
    assert_eq!((&step["step"], &step["holds"]), (&3.into(), &false.into()));
    assert!(step["why_not"].is_string(), "{step}");
    assert!(told.next().is_none(), "nothing follows");
    let done = child.wait_with_output().unwrap();
    assert_eq!(done.status.code(), Some(1));
    let complaint = String::from_utf8(done.stderr).unwrap();
    assert!(
        complaint.contains("step 3: the story does not hold"),
        "{complaint}"
    );
    let left = std::fs::read_dir(temporary.path()).unwrap().count();
    assert_eq!(left, 0, "nothing is left behind");
}

#[test]
fn an_issuer_that_is_there_is_not_touched_and_a_named_one_stays() {
    let temporary = tempfile::tempdir().unwrap();
    let issuer = Issuer::demo();
    let before = std::fs::read(issuer.file("fob.db")).unwrap();
    let dir = issuer.path().to_str().unwrap();
    let refused = demo(temporary.path(), &["--dir", dir]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let complaint = String::from_utf8(refused.stderr).unwrap();
    assert!(
        complaint.contains("there is an issuer already"),
        "{complaint}"
    );
    assert_eq!(std::fs::read(issuer.file("fob.db")).unwrap(), before);

    let kept = temporary.path().join("kept");
    let named = ["--dir", kept.to_str().unwrap(), "--pause", "0"];
    let done = demo(temporary.path(), &named).output().unwrap();
    let complaint = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{complaint}");
    let text = String::from_utf8(done.stdout).unwrap();
    assert!(text.contains("13  The end"), "{text}");
    let mut shown = Command::new(FOB);
    shown
        .args(["vehicle", "show", "--state"])
        .arg(kept.join("car.json"));
    let shown: Value = serde_json::from_slice(&shown.output().unwrap().stdout).unwrap();
    assert_eq!(shown["vehicle"], "DEMO-0001");
    assert!(kept.join("fob.toml").exists());
}
