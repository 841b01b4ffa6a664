//! An HSM in another process that is killed, restarted and stopped while `fob serve` is under
//! load: nothing is lost, nothing is issued twice, and Fob is not restarted.
//!
//! The times it takes are printed and not judged: machines differ.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use fob::clock::{Clock, SystemClock};

use crate::support::far::{Far, client_module, use_module};
use crate::support::{Answer, Client, Issuer, Phone, Server, redemption};

/// Callers at once.
const CALLERS: usize = 6;

/// How often the far end is killed, and how often it is stopped: a few times, more where
/// `FOB_OUTAGES` says so.
fn rounds() -> (usize, usize) {
    let asked = std::env::var("FOB_OUTAGES").ok();
    let kills = asked.and_then(|text| text.parse().ok()).unwrap_or(3);
    (kills, kills.div_ceil(4).min(5))
}

/// One code set, and what was answered to whoever redeemed it.
pub struct Order {
    code_set: String,
    phone: Phone,
    pub answered: Option<Vec<u8>>,
}

/// What callers have seen.
#[derive(Default)]
pub struct Seen {
    pub orders: Mutex<Vec<Order>>,
    pub answered: AtomicUsize,
    pub unavailable: AtomicUsize,
    ended: AtomicBool,
}

impl Seen {
    /// Redeems one code set after the other until told to end. A refusal must say that the HSM is
    /// away, and when to come back.
    fn load(&self, server: &Server, owner: &Phone) {
        let client = server.client();
        while !self.ended.load(Ordering::Relaxed) {
            let code_set = server.authorize(owner, "DEMO-0001", &["doors.unlock", "trunk.open"]);
            let mut order = Order {
                code_set,
                phone: Phone::new(),
                answered: None,
            };
            let answer = order.send(&client);
            if answer.status == 201 {
                self.answered.fetch_add(1, Ordering::Relaxed);
                order.answered = Some(answer.body);
            } else {
                answer.refused(503, "hsm_unavailable");
                assert!(answer.header("retry-after").is_some());
                self.unavailable.fetch_add(1, Ordering::Relaxed);
                // A caller that does not wait would only fill the test's memory.
                thread::sleep(Duration::from_millis(20));
            }
            self.orders.lock().unwrap().push(order);
        }
    }
}

impl Order {
    fn send(&self, client: &Client) -> Answer {
        let body = redemption(&client.url, &self.code_set, "renter-1", &self.phone);
        client
            .json("POST", "/v1/redemptions", &[], &body)
            .expect("Fob answers, whatever the HSM does")
    }
}

/// Callers load the server while `trouble` is made.
pub fn under_load(server: &Server, owner: &Phone, trouble: impl FnOnce(&Seen)) -> Seen {
    let seen = Seen::default();
    thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| seen.load(server, owner));
        }
        // Whatever happens to it, the callers are told to end.
        let made = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| trouble(&seen)));
        seen.ended.store(true, Ordering::Relaxed);
        if let Err(panic) = made {
            std::panic::resume_unwind(panic);
        }
    });
    seen
}

/// Every answered bundle is there byte for byte, every other code set can still be redeemed, and
/// none of them a second time by anybody else. No key has another's id.
pub fn check(server: &Server, seen: &Seen) {
    let client = server.client();
    let mut ids = std::collections::BTreeSet::new();
    for order in seen.orders.lock().unwrap().iter() {
        let answer = order.send(&client);
        assert_eq!(answer.status, 201, "{}", answer.text());
        if let Some(before) = &order.answered {
            assert_eq!(&answer.body, before, "an answered bundle has changed");
        }
        for key in answer.value()["keys"].as_array().unwrap() {
            let id = key["id"].as_str().unwrap().to_owned();
            assert!(ids.insert(id), "a key's id was used twice");
        }
        server
            .redeem(&order.code_set, "renter-1", &Phone::new())
            .refused(409, "code_set_redeemed");
    }
}

/// Waits until something holds. Never fails for time alone, but for a time nobody waits for.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let clock = SystemClock;
    let begin = clock.monotonic();
    while !holds() {
        let waited = clock.monotonic().saturating_sub(begin);
        assert!(waited < Duration::from_secs(60), "never: {what}");
        thread::sleep(Duration::from_millis(2));
    }
    clock.monotonic().saturating_sub(begin)
}

/// The next answer after now.
fn served_again(seen: &Seen) -> Duration {
    let before = seen.answered.load(Ordering::Relaxed);
    until("an answer", || {
        seen.answered.load(Ordering::Relaxed) > before
    })
}

fn ready(server: &Server) -> bool {
    server.get("/readyz", &[]).status == 200
}

#[test]
fn a_far_end_that_is_killed_and_stopped_under_load_costs_no_restart_and_no_key() {
    let issuer = Issuer::demo();
    use_module(&issuer, &client_module());
    let mut far = Far::of(&issuer);
    let (name, address) = far.address();
    let server = issuer.serve_with(&[(name, &address), ("FOB_HSM_CALL_TIMEOUT_MS", "500")]);
    let owner = issuer.owner();
    let (kills, stops) = rounds();
    let seen = under_load(&server, &owner, |seen| {
        served_again(seen);
        for kill in 0..kills {
            far.kill();
            until("the HSM is down", || !ready(&server));
            // Sometimes it is back before anybody has been refused, sometimes not.
            thread::sleep(Duration::from_millis(50 * (kill as u64 % 4)));
            far.start();
            let answered = served_again(seen);
            until("the HSM is up", || ready(&server));
            println!("killed: an answer {answered:?} after it was back");
        }
        for _ in 0..stops {
            far.stop();
            until("the HSM is down", || !ready(&server));
            far.go_on();
            let answered = served_again(seen);
            until("the HSM is up", || ready(&server));
            println!("stopped: an answer {answered:?} after it went on");
        }
    });
    check(&server, &seen);
    let (answered, unavailable) = (seen.answered.into_inner(), seen.unavailable.into_inner());
    println!("{answered} answered, {unavailable} told that the HSM is away");
    let log = issuer.log();
    let lines = |text: &str| log.lines().filter(|line| line.contains(text)).count();
    assert_eq!(lines("the HSM is down"), kills + stops, "{log}");
    assert_eq!(lines("the HSM signs again"), kills + stops, "{log}");
    assert_eq!(lines(" WARN ") + lines("ERROR"), kills + stops, "{log}");
    assert!(server.stop(), "the process of the beginning ends in order");
    crate::audit::sound(&issuer);
}

#[test]
fn a_login_lost_at_the_far_end_is_noticed_by_nobody() {
    let issuer = Issuer::demo();
    use_module(&issuer, &client_module());
    let mut far = Far::of(&issuer);
    let (name, address) = far.address();
    let server = issuer.serve_with(&[(name, &address)]);
    let owner = issuer.owner();
    for _ in 0..3 {
        let code_set = server.authorize(&owner, "DEMO-0001", &["doors.unlock"]);
        // While nobody looks, so that the next batch is the first to find out.
        far.kill();
        far.start();
        let answer = server.redeem(&code_set, "renter-1", &Phone::new());
        assert_eq!(answer.status, 201, "{}", answer.text());
    }
    assert!(
        !issuer.log().contains("the HSM is down"),
        "{}",
        issuer.log()
    );
}

#[test]
fn when_every_thread_hangs_for_good_fob_leaves_with_a_code_of_its_own() {
    let issuer = Issuer::demo();
    use_module(&issuer, &client_module());
    let far = Far::of(&issuer);
    let (name, address) = far.address();
    let variables = [
        (name, address.as_str()),
        ("FOB_HSM_CALL_TIMEOUT_MS", "200"),
        ("FOB_HSM_STUCK_EXIT_S", "1"),
    ];
    let server = issuer.serve_with(&variables);
    let owner = issuer.owner();
    let code_set = server.authorize(&owner, "DEMO-0001", &["doors.unlock"]);
    let phone = Phone::new();
    far.stop();
    // Its caller is answered all the same.
    server
        .redeem(&code_set, "renter-1", &phone)
        .refused(503, "hsm_unavailable");
    assert_eq!(server.exit_code(), Some(75), "{}", issuer.log());
    let log = issuer.log();
    assert!(log.contains("does not return; leaving"), "{log}");
    // Started anew with an HSM that answers, nothing was lost.
    far.go_on();
    let server = issuer.serve_with(&variables);
    let answer = server.redeem(&code_set, "renter-1", &phone);
    assert_eq!(answer.status, 201, "{}", answer.text());
}
