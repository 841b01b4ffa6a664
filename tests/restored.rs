//! Backups that are put back: they are noticed, whenever they were made, and once fenced nothing
//! of what happened after them happens again.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::fs;
use std::path::PathBuf;

use fob_verify::{RustCrypto, status};
use serde_json::{Value, json};

use crate::offline::{START, Street, TRUNK, UNLOCK, VEHICLE};
use crate::support::database::{Schema, Server as Database};
use crate::support::garage::{Garage, keys, statuses};
use crate::support::{Issuer, Phone, Server, authorization, now};

const TWO: [&str; 2] = [UNLOCK, START];

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// Where an issuer's store is, and how it is backed up while the server runs.
enum Store {
    File(PathBuf),
    Database(Schema),
}

enum Backup {
    File(PathBuf),
    Database(Vec<u8>),
}

impl Store {
    fn of(issuer: &Issuer, schema: Option<Schema>) -> Self {
        match schema {
            Some(schema) => Self::Database(schema),
            None => Self::File(issuer.file("fob.db")),
        }
    }

    fn back_up(&self, folder: &std::path::Path) -> Backup {
        match self {
            Self::File(file) => {
                let to = folder.join(format!(
                    "backup-{}.db",
                    fs::read_dir(folder).unwrap().count()
                ));
                let connection = rusqlite::Connection::open(file).unwrap();
                let to_text = to.display().to_string();
                connection.execute("VACUUM INTO ?1", [to_text]).unwrap();
                Backup::File(to)
            }
            Self::Database(schema) => Backup::Database(schema.dump()),
        }
    }

    /// No server runs.
    fn put_back(&self, backup: &Backup) {
        match (self, backup) {
            (Self::File(file), Backup::File(from)) => {
                for end in ["", "-wal", "-shm"] {
                    let _ = fs::remove_file(format!("{}{end}", file.display()));
                }
                fs::copy(from, file).unwrap();
            }
            (Self::Database(schema), Backup::Database(dump)) => schema.put_back(dump),
            _ => panic!("a backup of another store"),
        }
    }
}

fn kill(garage: &mut Garage) -> String {
    let server = std::mem::replace(&mut garage.server, Server::at(String::new()));
    let address = server.url.strip_prefix("http://").unwrap().to_owned();
    server.kill();
    address
}

fn restore(issuer: &Issuer, args: &[&str]) -> Value {
    let mut command = issuer.command(&[&["restore", "--json"], args].concat());
    // How long it listens for nodes of a database.
    let done = command.env("FOB_STORE_LEASE_S", "1").output().unwrap();
    let complaint = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{complaint}");
    serde_json::from_slice(&done.stdout).unwrap()
}

/// What an operator has done, as `fob acts` has it; sorted, for over a database acts of one second
/// have no order.
fn acts_of(issuer: &Issuer, operator: &str) -> Vec<String> {
    let said = issuer.fob(&["acts", "--json"]);
    let acts = said
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let own = acts.filter(|it| it["by"] == operator);
    let told = own.map(|it| {
        let [act, object, why] = ["act", "object", "why"].map(|name| text(&it[name]).to_owned());
        format!("{act} {object}: {why}")
    });
    let mut told: Vec<_> = told.collect();
    told.sort();
    told
}

/// The car connects. A moment after two restores in a row it may have been told something later.
fn sync_soon(street: &Street) -> Value {
    for _ in 0..200 {
        let url = &street.garage.server.url;
        let done = street.vehicle(&["sync", "--server", url, "--json"]);
        if done.status.success() {
            return serde_json::from_slice(&done.stdout).unwrap();
        }
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(said.contains("not newer"), "{said}");
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    panic!("the car is never told anything newer");
}

#[track_caller]
fn is_refused(issuer: &Issuer) {
    // The one that ends first: a server that is not refused does not end.
    for command in [
        &["token", "list"][..],
        &["serve", "--listen", "127.0.0.1:0"],
    ] {
        let said = issuer.fob_fails(command);
        assert!(said.contains("run `fob restore`"), "{said}");
    }
}

#[expect(clippy::too_many_lines, reason = "a story, told in its order")]
fn nothing_of_before_comes_back(schema: Option<Schema>) {
    let url = schema.as_ref().map(Schema::url);
    let init: Vec<&str> = url.iter().flat_map(|url| ["--store", url]).collect();
    let mut street = Street::with(Garage::with(&init));
    let store = Store::of(&street.garage.issuer, schema);
    let car = |name: &str| street.folder.path().join(name);
    let (newer, older, seen) = (car("car.json"), car("older.json"), car("seen.json"));

    // Before the backup: lent, open, and one that will be revoked and one that will be changed.
    let (_, kept) = street.lent();
    let open = street.garage.authorize(VEHICLE, &TWO);
    let still_open = street.garage.authorize(VEHICLE, &TWO);
    let issue = |street: &Street| {
        street
            .garage
            .issue(VEHICLE, &TWO, "renter-1", &street.phone)
    };
    let (revoked_id, revoked) = issue(&street);
    let (changed_id, changed) = issue(&street);
    let (said_id, _) = issue(&street);
    let (revoked_id, changed_id) = (
        text(&revoked_id["authorization"]).to_owned(),
        text(&changed_id["authorization"]).to_owned(),
    );
    let said_id = text(&said_id["authorization"]).to_owned();
    street.sync();
    let backup = store.back_up(street.folder.path());
    fs::copy(&newer, &older).unwrap();

    // After it: everything that must not be undone.
    let redeemed = street
        .garage
        .server
        .redeem(text(&open["code_set"]), "renter-1", &street.phone);
    assert_eq!(redeemed.status, 201, "{}", redeemed.text());
    let redeemed = redeemed.value();
    for id in [&revoked_id, &said_id] {
        street
            .garage
            .send("DELETE", &format!("/v1/authorizations/{id}"), &json!({}));
    }
    for (version, functions) in [(1, &[UNLOCK, START, TRUNK][..]), (2, &[UNLOCK, TRUNK])] {
        let done = street
            .garage
            .change(&changed_id, version, &json!({"functions": functions}));
        assert_eq!(done.status, 200, "{}", done.text());
    }
    let (late_id, late) = issue(&street);
    street.garage.send(
        "DELETE",
        &format!("/v1/authorizations/{}", text(&late_id["authorization"])),
        &json!({}),
    );
    street
        .garage
        .done("POST", &format!("/v1/vehicles/{VEHICLE}/reset"), &json!({}));
    let lost_token = street.garage.issuer.token("read");
    street.sync();
    assert_eq!(street.asked(&revoked, UNLOCK), "vehicle_epoch_superseded");
    let changed_now = street.garage.bundle(text(&changed["bundle"]));
    assert_eq!(
        street.asked(&changed_now, TRUNK),
        "opened",
        "the car knows the newest version"
    );

    fs::copy(&newer, &seen).unwrap();

    let address = kill(&mut street.garage);
    store.put_back(&backup);
    is_refused(&street.garage.issuer);
    let list = street.folder.path().join("lost.csv");
    fs::write(
        &list,
        format!(
            "kind,id,fleet\nauthorization,{said_id},\nauthorization,{},demo\n",
            text(&late_id["authorization"])
        ),
    )
    .unwrap();
    let restored_at = now();
    let told = restore(
        &street.garage.issuer,
        &[
            "--revocations",
            list.to_str().unwrap(),
            "--operator",
            "anna",
            "--why",
            "the disk died",
        ],
    );
    assert_eq!(
        acts_of(&street.garage.issuer, "anna"),
        [
            "restore 1: the disk died".into(),
            format!("revoke authorization {said_id}: the disk died"),
        ]
    );
    assert_eq!(
        (&told["restore"], &told["code_sets_cancelled"]),
        (&json!(1), &json!(2)),
        "{told}"
    );
    if let Store::File(_) = store {
        crate::audit::sound(&street.garage.issuer);
    }
    assert_eq!(
        (&told["revocations"], &told["unknown"]),
        (&json!(1), &json!([3])),
        "{told}"
    );
    assert!(told["transactions_lost"].as_u64().unwrap() >= 8, "{told}");
    let again = street.garage.issuer.fob_fails(&["restore"]);
    assert!(again.contains("nothing to fence"), "{again}");
    street.garage.server = street.garage.issuer.serve_at(&address);

    // No code set of before, redeemed or not.
    for code_set in [&open, &still_open] {
        for phone in [&street.phone, &Phone::new()] {
            let answer =
                street
                    .garage
                    .server
                    .redeem(text(&code_set["code_set"]), "renter-1", phone);
            answer.refused(410, "code_set_cancelled");
        }
    }
    let lost = street
        .garage
        .server
        .json_as(&lost_token, "GET", "/v1/authorizations", &json!({}));
    lost.refused(401, "unauthenticated");
    for bundle in [&kept, &revoked, &changed] {
        let now = street.garage.bundle(text(&bundle["bundle"]));
        assert!(statuses(&now).values().all(|it| it == "revoked"), "{now}");
    }

    // Its list is later than any that can have been given out: a car takes it, whatever it has.
    let key = &keys(&revoked)[0];
    let path = key.uri.strip_prefix(&street.garage.server.url).unwrap();
    let mut list = street.garage.server.get(path, &[]);
    // A node that was killed holds its leases until they end.
    for _ in 0..300 {
        if list.status == 200 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
        list = street.garage.server.get(path, &[]);
    }
    let list = list.body;
    let issued_at = street.garage.believing(|trusted| {
        status::verify(&list, trusted, &RustCrypto)
            .unwrap()
            .issued_at()
    });
    assert!(issued_at > restored_at + 10, "{issued_at}, {restored_at}");

    // A car that has not seen what came after the backup learns it by a list alone, and by a sync.
    for by_sync in [false, true] {
        fs::copy(&older, &newer).unwrap();
        assert_eq!(street.asked(&revoked, UNLOCK), "opened", "it cannot know");
        if by_sync {
            let synced = street.sync();
            assert_eq!(synced["vehicle_epoch"], 1 << 16);
        } else {
            assert_eq!(street.take(&street.stapled(&revoked)), 1);
        }
        for bundle in [&kept, &revoked, &changed, &redeemed, &late] {
            assert_ne!(street.asked(bundle, UNLOCK), "opened");
        }
    }
    // One that has seen it all is shown nothing that makes it forget.
    fs::copy(&seen, &newer).unwrap();
    for bundle in [&revoked, &late, &redeemed, &changed_now] {
        let _ = street.take(&street.stapled(&kept));
        assert_ne!(street.asked(bundle, UNLOCK), "opened");
    }

    // The fleet goes on: what is new, and what is changed, opens both cars.
    let (_, new) = issue(&street);
    assert_eq!(street.asked(&street.stapled(&new), UNLOCK), "opened");
    let fresh = street
        .garage
        .change(&changed_id, 1, &json!({"functions": [UNLOCK]}));
    assert_eq!(fresh.status, 200, "{}", fresh.text());
    assert_eq!(fresh.value()["version"], 257);
    let fresh = street.garage.bundle(text(&changed["bundle"]));
    assert_eq!(
        street.asked(&street.stapled(&fresh), UNLOCK),
        "opened",
        "no version of before is as high"
    );
    street
        .garage
        .change(&said_id, 1, &json!({"functions": [UNLOCK]}))
        .refused(410, "code_set_cancelled");
    let prepared = street.garage.issuer.fob(&["epoch", "prepare", "--json"]);
    let prepared: Value = serde_json::from_str(&prepared).unwrap();
    assert_eq!(prepared["trust_version"], 257, "{prepared}");
    // The car has forgotten that it was here in this very second, if it was.
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    street.sync();

    // The same backup once more: nothing of the first restore counts after the second.
    let address = kill(&mut street.garage);
    store.put_back(&backup);
    is_refused(&street.garage.issuer);
    assert_eq!(
        restore(&street.garage.issuer, &["--end-tokens"])["restore"],
        2
    );
    street.garage.server = street.garage.issuer.serve_at(&address);
    street
        .garage
        .send("GET", "/v1/authorizations", &json!({}))
        .refused(401, "unauthenticated");
    street.garage.token = street.garage.issuer.token("authorize,revoke,read,issue");
    let synced = sync_soon(&street);
    assert_eq!(synced["vehicle_epoch"], 2 << 16);
    for bundle in [&new, &fresh, &kept] {
        assert_ne!(street.asked(bundle, UNLOCK), "opened");
    }
    let (_, newest) = issue(&street);
    assert_eq!(street.asked(&street.stapled(&newest), UNLOCK), "opened");
    let once_more = street
        .garage
        .change(&changed_id, 1, &json!({"functions": [UNLOCK]}));
    assert_eq!(once_more.value()["version"], 513, "{}", once_more.text());
}

#[test]
fn nothing_of_before_comes_back_from_a_file() {
    nothing_of_before_comes_back(None);
}

#[test]
fn nothing_of_before_comes_back_from_a_database() {
    nothing_of_before_comes_back(Some(Schema::new()));
}

/// A backup of any moment, put back after a crash or an end in order, in the same run or a later.
#[expect(clippy::too_many_lines, reason = "a story, told in its order")]
fn every_backup_is_noticed(schema: Option<Schema>) {
    let url = schema.as_ref().map(Schema::url);
    let init: Vec<&str> = url.iter().flat_map(|url| ["--store", url]).collect();
    let mut garage = Garage::with(&init);
    let store = Store::of(&garage.issuer, schema);
    let folder = tempfile::tempdir().unwrap();
    for round in 0..4 {
        let backup = store.back_up(folder.path());
        // One transaction is answered, and nothing else happens.
        garage.authorize("DEMO-0001", &TWO);
        if round % 2 == 0 {
            // It is put back within the run it was made in.
            let address = kill(&mut garage);
            store.put_back(&backup);
            is_refused(&garage.issuer);
            restore(&garage.issuer, &[]);
            garage.server = garage.issuer.serve_at(&address);
        } else {
            // Another run comes in between, which answers nothing.
            garage.crash();
            let address = kill(&mut garage);
            store.put_back(&backup);
            is_refused(&garage.issuer);
            restore(&garage.issuer, &[]);
            garage.server = garage.issuer.serve_at(&address);
        }
    }
    // One that has everything is no backup, for all that matters. A server that has just begun may
    // still sign its lists: it is made when nobody does.
    let address = kill(&mut garage);
    let last = store.back_up(folder.path());
    store.put_back(&last);
    garage.server = garage.issuer.serve_at(&address);
    for _ in 0..5 {
        // A crash at any moment is no alarm.
        let client = garage.server.client();
        let bearer = format!("Bearer {}", garage.token);
        let busy = std::thread::spawn(move || {
            let body = authorization("DEMO-0002", &TWO);
            while client
                .json(
                    "POST",
                    "/v1/authorizations",
                    &[("authorization", &bearer)],
                    &body,
                )
                .is_some()
            {}
        });
        std::thread::sleep(std::time::Duration::from_millis(120));
        garage.crash();
        busy.join().unwrap();
    }
    // Without the file nobody can tell.
    let address = kill(&mut garage);
    let witness = garage.issuer.file("store.witness");
    let kept = fs::read(&witness).unwrap();
    fs::remove_file(&witness).unwrap();
    let said = garage
        .issuer
        .fob_fails(&["serve", "--listen", "127.0.0.1:0"]);
    assert!(said.contains("store.witness is missing"), "{said}");
    garage.issuer.fob(&["restore", "--nothing-lost"]);
    garage.server = garage.issuer.serve_at(&address);
    assert_ne!(fs::read(&witness).unwrap(), kept);
    let open = garage.authorize("DEMO-0003", &TWO);
    let address = kill(&mut garage);
    // It knows better than anybody's word, where it is there.
    garage.issuer.fob_fails(&["restore", "--nothing-lost"]);
    store.put_back(&last);
    is_refused(&garage.issuer);
    garage.issuer.fob_fails(&["restore", "--nothing-lost"]);
    fs::remove_file(&witness).unwrap();
    let before = restore(&garage.issuer, &[])["restore"].as_u64().unwrap();
    assert!(
        before > 8,
        "{before}: nobody knows how often it was restored"
    );
    garage.server = garage.issuer.serve_at(&address);
    let phone = Phone::new();
    let gone = garage
        .server
        .redeem(text(&open["code_set"]), "renter-1", &phone);
    gone.refused(404, "code_set_unknown");
}

#[test]
fn what_is_said_again_is_kept_with_who_and_why() {
    let mut garage = Garage::new();
    let store = Store::of(&garage.issuer, None);
    let folder = tempfile::tempdir().unwrap();
    garage.done(
        "POST",
        "/v1/suspensions",
        &json!({ "vehicle": "DEMO-0002" }),
    );
    let tokens = |issuer: &Issuer| {
        let list = issuer.fob(&["token", "list", "--json"]);
        let list: Value = serde_json::from_str(&list).unwrap();
        let list = list.as_array().unwrap().iter();
        list.map(|it| text(&it["id"]).to_owned())
            .collect::<Vec<_>>()
    };
    let before = tokens(&garage.issuer);
    let backup = store.back_up(folder.path());
    garage.authorize("DEMO-0001", &TWO);
    kill(&mut garage);
    store.put_back(&backup);
    let list = folder.path().join("lost.csv");
    let lines = "identity,renter-1,demo\nidentity,nobody,demo\nvehicle,DEMO-0001,demo\n\
                 vehicle,DEMO-0002,demo\n";
    fs::write(
        &list,
        format!("kind,id,fleet\n{lines}token,{},\n", before[0]),
    )
    .unwrap();
    let by = ["--operator", "ben", "--why", "said again"];
    let args = ["--revocations", list.to_str().unwrap()];
    // What is said of whoever it is is looked at first.
    let wrong = [&["restore"][..], &args, &["--operator", "two words"]].concat();
    let said = garage.issuer.fob_fails(&wrong);
    assert!(said.contains("operator"), "{said}");
    let told = restore(&garage.issuer, &[&args[..], &by].concat());
    assert_eq!(
        (&told["revocations"], &told["unknown"]),
        (&json!(4), &json!([3])),
        "{told}"
    );
    // What stood so already is none of it.
    let mut expected = vec![
        "suspend identity renter-1: said again".to_owned(),
        "suspend vehicle DEMO-0001: said again".into(),
        format!("token.revoke {}: said again", before[0]),
        "restore 1: said again".into(),
    ];
    expected.sort();
    assert_eq!(acts_of(&garage.issuer, "ben"), expected);
    let more = ["--even-so", "--end-tokens"];
    restore(&garage.issuer, &[&more[..], &by].concat());
    let ended = before[1..].iter();
    expected.extend(ended.map(|id| format!("token.revoke {id}: said again")));
    expected.push("restore 2: said again".into());
    expected.sort();
    assert_eq!(acts_of(&garage.issuer, "ben"), expected);
    crate::audit::sound(&garage.issuer);
}

#[test]
fn every_backup_of_a_file_is_noticed() {
    every_backup_is_noticed(None);
}

#[test]
fn every_backup_of_a_database_is_noticed() {
    every_backup_is_noticed(Some(Schema::new()));
}

#[test]
fn a_database_that_is_put_back_beneath_a_server_is_served_no_more() {
    put_back_beneath_a_server(true);
}

#[test]
fn nor_one_that_is_put_back_while_the_server_stays_connected() {
    put_back_beneath_a_server(false);
}

fn put_back_beneath_a_server(restarts: bool) {
    let mut database = Database::start();
    let schema = database.schema();
    let mut garage = Garage::with(&["--store", &schema.url()]);
    let made = garage.authorize("DEMO-0001", &TWO);
    let backup = schema.dump();
    garage.authorize("DEMO-0002", &TWO);
    if restarts {
        database.kill();
        database.start_again();
    }
    schema.put_back(&backup);
    let phone = Phone::new();
    for _ in 0..3 {
        let answer = garage
            .server
            .redeem(text(&made["code_set"]), "renter-1", &phone);
        assert_eq!(answer.status, 503, "{}", answer.text());
    }
    kill(&mut garage);
    is_refused(&garage.issuer);
    let told = restore(&garage.issuer, &[]);
    assert_eq!(told["restore"], 1);
}
