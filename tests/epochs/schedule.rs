//! What the server does by itself.

use super::*;
use crate::support::time;

const FAST: &str = "[epochs]\nrotate_every = \"1s\"\noverlap = \"1h\"\nwarn_before = \"2h\"";

#[test]
fn the_server_rotates_by_its_schedule_and_says_when_epochs_run_low() {
    let issuer = Issuer::demo();
    configure(&issuer, FAST);
    let first = active(&issuer);
    issuer.fob(&["epoch", "prepare", "--window", WIDE, "--window", WIDE]);
    std::fs::remove_file(issuer.file("root.pin")).unwrap();
    let server = issuer.serve();
    wait_until("both prepared epochs had their turn", || {
        epochs(&issuer, "prepared").is_empty()
    });
    let last = active(&issuer);
    assert_ne!(last, first);
    assert_eq!(epochs(&issuer, "retired").len(), 2);
    // None is left: the last one stays, and there was an alarm.
    let ready = server.get("/readyz", &[]);
    assert_eq!(
        (ready.status, &ready.value()["epochs_low"]),
        (200, &true.into())
    );
    assert!(
        server
            .get("/metrics", &[])
            .text()
            .contains("\nfob_epochs_low 1")
    );
    wait_until("a line in the log", || {
        issuer.log().contains("prepared epochs run low")
    });
    let status = issuer.fob(&["epoch", "status"]);
    assert!(status.contains("prepared epochs run low"), "{status}");
    let records = json(&issuer, &["epoch", "records"]);
    let by_itself = records.as_array().unwrap().iter();
    let by_itself: Vec<_> = by_itself
        .filter(|one| one["record"]["step"]["kind"] == "schedule")
        .collect();
    assert_eq!(by_itself.len(), 2);
    assert!(
        by_itself
            .iter()
            .all(|one| one["record"]["who"]["operator"] == "fob")
    );
}

#[test]
fn an_epoch_hands_over_before_its_window_closes() {
    let issuer = Issuer::demo();
    let from = now();
    let short = format!("{}/{}", time(from), time(from + 6));
    issuer.fob(&["epoch", "prepare", "--window", &short]);
    let short = epochs(&issuer, "prepared").remove(0);
    issuer.fob(&["epoch", "activate", &short]);
    issuer.fob(&["epoch", "prepare", "--window", WIDE]);
    let next = epochs(&issuer, "prepared").remove(0);
    let server = issuer.serve();
    wait_until("the next epoch", || active(&issuer) == next);
    assert_eq!(server.get("/readyz", &[]).status, 200);
    assert!(epochs(&issuer, "retired").contains(&short));
}

#[test]
fn prepared_windows_follow_each_other_as_planned() {
    let issuer = Issuer::demo();
    configure(
        &issuer,
        "[epochs]\nrotate_every = \"30d\"\noverlap = \"7d\"",
    );
    let made = json(&issuer, &["epoch", "prepare", "--count", "3"]);
    let day = 86_400;
    let at = |row: &Value, name: &str| {
        let fob::domain::time::Time(at) = serde_json::from_value(row[name].clone()).unwrap();
        at
    };
    let windows: Vec<_> = made["epochs"].as_array().unwrap().iter().collect();
    let begins: Vec<_> = windows.iter().map(|row| at(row, "not_before")).collect();
    assert_eq!(begins[1] - begins[0], 30 * day);
    assert_eq!(begins[2] - begins[1], 30 * day);
    assert!(
        windows
            .iter()
            .all(|row| at(row, "not_after") - at(row, "not_before") == 37 * day)
    );
    let rows = json(&issuer, &["epoch", "list"]);
    assert_eq!(begins[0], at(&rows[0], "not_before") + 30 * day);
    // Three more follow those.
    let more = json(&issuer, &["epoch", "prepare", "--count", "1"]);
    assert_eq!(at(&more["epochs"][0], "not_before"), begins[2] + 30 * day);
    let status = json(&issuer, &["epoch", "status"]);
    assert_eq!(at(&status, "planned_until"), begins[2] + 60 * day);
    assert_eq!(status["epochs_low"], false);
}
