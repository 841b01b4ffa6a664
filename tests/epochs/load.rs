//! Ten rotations in a row under load, and nobody notices.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use super::*;
use crate::support::{Phone, redemption};

const ROTATIONS: usize = 10;

#[test]
fn ten_rotations_under_load_cost_no_request_and_no_key() {
    let issuer = Issuer::demo();
    let windows = ["--window", WIDE].repeat(ROTATIONS);
    issuer.fob(&[&["epoch", "prepare"], windows.as_slice()].concat());
    let server = issuer.serve();
    let (owner, roots) = (issuer.owner(), [root(&issuer)]);
    let (done, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let all: Mutex<Vec<Vec<u8>>> = Mutex::default();
    let mut seen = vec![active(&issuer)];
    thread::scope(|scope| {
        for renter in 1..=4 {
            let (server, owner, roots) = (&server, &owner, &roots);
            let (done, over, all) = (&done, &over, &all);
            let client = server.client();
            scope.spawn(move || {
                let renter = format!("renter-{renter}");
                while !over.load(Ordering::Relaxed) {
                    let functions = ["doors.unlock", "doors.lock", "engine.start"];
                    let code_set = server.authorize(owner, "DEMO-0001", &functions);
                    let body = redemption(&client.url, &code_set, &renter, &Phone::new());
                    let answer = client.json("POST", "/v1/redemptions", &[], &body).unwrap();
                    let bundle = keys(&answer);
                    // What a car would hold that fetched its list at this moment.
                    let list = server.get("/v1/trust", &[]);
                    assert_eq!(believed(&list.body, roots, &bundle), Ok(()));
                    all.lock().unwrap().extend(bundle);
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // Should anything here fail, the others must not go on for ever.
        let _ends = End(&over);
        for _ in 0..ROTATIONS {
            let before = done.load(Ordering::Relaxed);
            wait_until("more bundles", || {
                done.load(Ordering::Relaxed) >= before + 8
            });
            issuer.fob(&["epoch", "rotate"]);
            seen.push(active(&issuer));
        }
        let before = done.load(Ordering::Relaxed);
        wait_until("more bundles", || {
            done.load(Ordering::Relaxed) >= before + 8
        });
    });
    let all = all.into_inner().unwrap();
    assert_eq!(
        signers(&all),
        seen.iter().cloned().collect(),
        "each epoch signed"
    );
    assert_eq!(seen.len(), ROTATIONS + 1);
    let list = server.get("/v1/trust", &[]).body;
    assert_eq!(
        believed(&list, &roots, &all),
        Ok(()),
        "those of earlier epochs too"
    );
    assert_eq!(epochs(&issuer, "retired").len(), ROTATIONS);
    let metrics = server.get("/metrics", &[]).text();
    assert!(
        !metrics.contains("fob_refusals_total{"),
        "nothing was refused"
    );
}

struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
