//! Suspensions at the same moment as redemptions, changes, ends and each other.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use fob_verify::status::Status;
use serde_json::{Value, json};

use super::{ASLEEP, AWAKE, TWO, resume, standing, suspend, text};
use crate::support::garage::{Garage, Handed, keys};
use crate::support::{Answer, Phone, authorization, redemption};

/// Two calls at the same moment; both answers.
fn at_once(
    one: impl FnOnce() -> Answer + Send,
    other: impl FnOnce() -> Answer + Send,
) -> (Answer, Answer) {
    let start = Barrier::new(2);
    thread::scope(|scope| {
        let one = scope.spawn(|| {
            start.wait();
            one()
        });
        let other = scope.spawn(|| {
            start.wait();
            other()
        });
        (one.join().unwrap(), other.join().unwrap())
    })
}

fn none_is_valid(garage: &Garage, handed: &[Handed]) {
    for key in handed {
        assert_ne!(garage.status(key), Status::Valid, "{key:?}");
    }
}

#[test]
fn a_suspension_against_a_redemption() {
    let garage = Garage::new();
    let mut redeemed_before = 0;
    for round in 0..24_u64 {
        let target = match round % 3 {
            0 => json!({"identity": "renter-1"}),
            1 => json!({"vehicle": "DEMO-0001"}),
            _ => Value::Null,
        };
        let made = garage.authorize("DEMO-0001", &TWO);
        let target = match target {
            Value::Null => json!({"authorization": made["authorization"]}),
            target => target,
        };
        let body = redemption(
            &garage.server.url,
            text(&made["code_set"]),
            "renter-1",
            &Phone::new(),
        );
        let (suspended, redeemed) = at_once(
            || {
                // What is asked for first is not always what is committed first.
                thread::sleep(Duration::from_micros(500 * (round / 3)));
                garage.send("POST", "/v1/suspensions", &target)
            },
            || garage.server.json("POST", "/v1/redemptions", &body),
        );
        assert_eq!(suspended.status, 200, "{}", suspended.text());
        if redeemed.status == 201 {
            redeemed_before += 1;
            none_is_valid(&garage, &keys(&redeemed.value()));
        } else {
            assert_eq!(redeemed.status, 403, "{}", redeemed.text());
        }
        resume(&garage, &target);
        if redeemed.status == 201 {
            let bundle = redeemed.value();
            assert_eq!(standing(&garage, &bundle), AWAKE, "round {round}");
        }
    }
    println!("{redeemed_before} of 24 redeemed before");
}

#[test]
fn a_suspension_against_a_change() {
    let garage = Garage::new();
    let phone = Phone::new();
    for round in 0..8 {
        let (made, first) = garage.issue("DEMO-0001", &TWO, "renter-1", &phone);
        let id = text(&made["authorization"]);
        let target = match round % 4 {
            0 => json!({"identity": "renter-1"}),
            1 => json!({"vehicle": "DEMO-0001"}),
            2 => json!({"key": keys(&first)[0].id}),
            _ => json!({"authorization": id}),
        };
        let (suspended, changed) = at_once(
            || garage.send("POST", "/v1/suspensions", &target),
            || garage.change(id, 1, &json!({"functions": ["doors.unlock"]})),
        );
        assert_eq!(suspended.status, 200, "{}", suspended.text());
        assert_eq!(changed.status, 200, "{}", changed.text());
        let second = garage.bundle(text(&first["bundle"]));
        assert_eq!(second["version"], 2);
        none_is_valid(&garage, &[keys(&first), keys(&second)].concat());
        resume(&garage, &target);
        assert_eq!(standing(&garage, &second), [Status::Valid], "{target}");
    }
}

#[test]
fn a_resumption_against_an_end_and_against_a_suspension() {
    let garage = Garage::new();
    let phone = Phone::new();
    for round in 0..6 {
        let (made, bundle) = garage.issue("DEMO-0001", &TWO, "renter-1", &phone);
        let target = match round % 3 {
            0 => json!({"identity": "renter-1"}),
            1 => json!({"vehicle": "DEMO-0001"}),
            _ => json!({"authorization": made["authorization"]}),
        };
        suspend(&garage, &target);
        let (resumed, other) = at_once(
            || garage.send("POST", "/v1/resumptions", &target),
            || garage.send("POST", "/v1/suspensions", &target),
        );
        for answer in [&resumed, &other] {
            if answer.status != 200 {
                answer.refused(412, "version_conflict");
            }
        }
        let stands = standing(&garage, &bundle);
        assert!(stands == AWAKE || stands == ASLEEP, "{stands:?}");
        // It is as the last of them says, for what is new as for what there is.
        let asked = authorization("DEMO-0001", &TWO);
        let open = garage.send("POST", "/v1/authorizations", &asked);
        let awake = open.status == 201 && {
            let code_set = open.value()["code_set"].clone();
            let redeemed = garage.server.redeem(text(&code_set), "renter-1", &phone);
            redeemed.status == 201
        };
        if round % 3 != 2 {
            assert_eq!(awake, stands == AWAKE, "{target}");
        }
        suspend(&garage, &target);
        let (resumed, ended) = at_once(
            || garage.send("POST", "/v1/resumptions", &target),
            || garage.send("POST", "/v1/revocations", &target),
        );
        assert_eq!(ended.status, 200, "{}", ended.text());
        if resumed.status != 200 {
            assert!([410, 412].contains(&resumed.status), "{}", resumed.text());
        }
        for key in keys(&bundle) {
            assert_eq!(garage.status(&key), Status::Revoked, "{target}");
        }
        resume(&garage, &json!({"identity": "renter-1"}));
        resume(&garage, &json!({"vehicle": "DEMO-0001"}));
    }
}
