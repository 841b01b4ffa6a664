//! What was signed, as it was counted, against what was recorded, what is there and what the HSM says.

use serde_json::{Value, json};

use super::{TWO, sound, used};
use crate::support::Phone;
use crate::support::garage::{Garage, keys};

/// What an epoch has signed, as the report says; there is one.
fn made(report: &Value) -> &Value {
    let mut epochs = report["epochs"].as_object().unwrap().values();
    let made = &epochs.next().unwrap()["made"];
    assert!(epochs.next().is_none(), "{report}");
    made
}

fn number(of: &Value, name: &str) -> u64 {
    of[name].as_u64().unwrap_or_else(|| panic!("{name}: {of}"))
}

fn metric(garage: &Garage, name: &str) -> u64 {
    let text = String::from_utf8(garage.server.get("/metrics", &[]).body).unwrap();
    let found = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    found.map_or(0, |number| number.parse().unwrap())
}

#[test]
fn what_the_hsm_signed_is_what_was_recorded() {
    let (garage, ..) = used();
    // A car fetches what it needs; its sync is kept nowhere.
    let car = Phone::new();
    let vehicle = json!({
        "model": "demo", "functions": ["doors.unlock"], "jwk": car.jwk(),
    });
    let put = garage
        .server
        .json_as(&garage.admin, "PUT", "/v1/vehicles/C-1", &vehicle);
    assert_eq!(put.status, 204, "{}", put.text());
    let synced = garage.sync(&car, "C-1", crate::support::now(), None);
    assert_eq!(synced.status, 200, "{}", synced.text());
    // A rival is refused before anything is signed for it.
    let signed = metric(&garage, "fob_hsm_signatures_total");
    let Garage { issuer, server, .. } = garage;
    assert!(server.stop());
    let report = sound(&issuer);
    let made = made(&report);
    assert_eq!(number(made, "signed"), signed, "{report}");
    // All that stands in bundles, and the lists on which keys were revoked.
    let lists = number(made, "recorded") - number(&report, "signatures");
    assert!((1..=8).contains(&lists), "{report}");
    assert_eq!(report["lists"], 1);
    assert_eq!(number(made, "synced"), 1);
    // The server had tried its token.
    assert_eq!(number(made, "given_up"), 1, "{report}");
    let settled = ["recorded", "synced", "given_up"].map(|name| number(made, name));
    assert_eq!(settled.iter().sum::<u64>(), signed);
    for none in ["unsettled", "failed", "killed"] {
        assert_eq!(number(made, none), 0, "{none}: {report}");
    }
    assert_eq!(made["complete"], true);
    assert!(made.get("hsm").is_none());
}

#[test]
fn what_was_killed_has_recorded_no_more_than_it_signed() {
    let (mut garage, ..) = used();
    let before = metric(&garage, "fob_hsm_signatures_total");
    garage.crash();
    let Garage { issuer, server, .. } = garage;
    server.kill();
    let report = sound(&issuer);
    let made = made(&report);
    // The second had tried its token, and written nothing.
    let signed = number(made, "signed");
    assert!((before - 8..=before + 1).contains(&signed), "{signed}");
    assert!(number(made, "recorded") >= number(&report, "signatures"));
    assert_eq!(number(made, "killed"), 1);
}

#[test]
fn what_the_hsm_says_is_put_beside_what_was_counted() {
    let (garage, ..) = used();
    let Garage { issuer, server, .. } = garage;
    server.stop();
    let report = sound(&issuer);
    let epoch = report["epochs"].as_object().unwrap().keys().next().unwrap();
    let signed = number(made(&report), "signed");
    let audit = |says: u64| {
        let says = format!("{epoch}={says}");
        let done = issuer
            .command(&["audit", "--json", "--hsm-signed", &says])
            .output()
            .unwrap();
        let report: Value = serde_json::from_slice(&done.stdout).unwrap();
        assert_eq!(done.status.success(), report["sound"] == true);
        report
    };
    let same = audit(signed);
    let hsm = &made(&same)["hsm"];
    assert_eq!((&hsm["says"], &hsm["beyond"]), (&json!(signed), &json!(0)));
    // Trials as the epoch was made, and the records of steps, are not counted.
    let most = number(hsm, "explained_max");
    assert!((1..1_000).contains(&most), "{hsm}");
    assert_eq!(audit(signed + most)["sound"], true);
    let more = audit(signed + most + 1);
    assert_eq!(more["flaws"], json!({ "hsm_signed_more": 1 }));
    let fewer = audit(signed - 1);
    assert_eq!(fewer["flaws"], json!({ "hsm_signed_fewer": 1 }));
    let text = issuer.fob(&["audit", "--hsm-signed", &format!("{epoch}={}", signed + 3)]);
    assert!(text.contains("3 more than were counted"), "{text}");
    for (wrong, why) in [
        ("x", "EPOCH=COUNT"),
        ("0011223344556677=x", "no number"),
        ("abc=1", "no epoch's id"),
        ("0011223344556677=1", "there is no epoch"),
    ] {
        let said = issuer.fob_fails(&["audit", "--hsm-signed", wrong]);
        assert!(said.contains(why), "{wrong}: {said}");
    }
}

#[test]
fn what_is_done_to_the_store_by_hand_is_found() {
    let (garage, ..) = used();
    let (_, valid) = garage.issue("DEMO-0005", &TWO, "renter-4", &Phone::new());
    let valid = keys(&valid)[0].index;
    let Garage { issuer, server, .. } = garage;
    server.stop();
    let flaws = |sql: &str| {
        let dir = tempfile::tempdir().unwrap();
        let copy = dir.path().join("copy.db");
        let connection = rusqlite::Connection::open(issuer.file("fob.db")).unwrap();
        let into = [copy.to_str().unwrap()];
        connection.execute("VACUUM INTO ?1", into).unwrap();
        let connection = rusqlite::Connection::open(&copy).unwrap();
        connection.execute_batch(sql).unwrap();
        drop(connection);
        let args = ["audit", "--json", "--file", copy.to_str().unwrap()];
        let done = issuer.command(&args).output().unwrap();
        let report: Value = serde_json::from_slice(&done.stdout).unwrap();
        report["flaws"].clone()
    };
    // Bundles of orders that were deleted, and what they were answered with.
    let lost = flaws("DELETE FROM packs WHERE ends IS NOT NULL; DELETE FROM answered");
    assert_eq!(lost, json!({ "versions_lost": 1 }));
    // Counts that were turned back.
    let turned = flaws("UPDATE signatures SET keys = keys - 1");
    assert_eq!(turned, json!({ "signatures_differ": 1 }));
    let turned = flaws("UPDATE signatures SET versions = versions - 1");
    assert_eq!(turned, json!({ "version_uncounted": 1 }));
    let turned = flaws("UPDATE signatures SET signed = signed - 1");
    assert_eq!(turned, json!({ "signed_fewer": 1 }));
    // A store that is older than the count says less.
    let older = flaws(
        "INSERT INTO signatures
         SELECT epoch, zeroblob(16), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1 FROM signatures;
         UPDATE signatures SET versions = versions - 1 WHERE versions > 0",
    );
    assert_eq!(older, json!({}));
    // What was given out of lists.
    let bent = flaws(
        "UPDATE status_lists SET body = unhex(substr(hex(body), 1, 2 * length(body) - 2)
         || CASE substr(hex(body), -2) WHEN '00' THEN '01' ELSE '00' END)",
    );
    assert_eq!(bent, json!({ "list_wrong": 1 }));
    let late = flaws("UPDATE status_lists SET issued_at = issued_at + 1");
    assert_eq!(late, json!({ "list_wrong": 1 }));
    let other = flaws("UPDATE status_lists SET shard = shard + 1");
    assert_eq!(other, json!({ "list_wrong": 1 }));
    let nobody = flaws("UPDATE status_lists SET epoch = x'0000000000000000'");
    assert_eq!(nobody, json!({ "list_wrong": 1 }));
    // Marks that were taken back, or set, after the list was given out.
    let back = flaws("DELETE FROM statuses");
    assert_eq!(back["list_misstates"], 3, "{back}");
    let more = flaws(&format!(
        "INSERT INTO statuses (tag, shard, position, status, ends, reasons)
         SELECT tag, shard, {valid}, 1, ends, 0 FROM statuses LIMIT 1"
    ));
    assert_eq!(more, json!({ "list_misstates": 1 }));
    // A list that says less is not one that is wrong, where it is of an earlier amendment.
    let behind = flaws(&format!(
        "INSERT INTO statuses (tag, shard, position, status, ends, reasons)
         SELECT tag, shard, {valid}, 1, ends, 0 FROM statuses LIMIT 1;
         UPDATE revisions SET value = value + 1"
    ));
    assert_eq!(behind, json!({}));
}
