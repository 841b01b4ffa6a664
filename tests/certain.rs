//! What an answer says of when a revocation is certain, against the car itself: over functions, the
//! ends of keys, the lifetimes of lists, with and without an acknowledgement.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use fob::domain::change::Action;
use fob::domain::{AuthorizationId, ShardId, VehicleId};
use fob::engine::amend::{Caller, Done};
use fob::engine::authenticate::BackEnd;
use fob::engine::certain::CertainBy;
use fob::engine::revoke::Target;
use fob::store::{Applied, Contact, Sent, Write};
use fob_verify::key::SignedKey;
use fob_verify::status::{self, Room};
use fob_verify::use_proof::{Use, to_be_signed};
use fob_verify::vehicle::{Car, Challenge, Clock, Memory, News, Policy, Request, check};
use fob_verify::{Algorithm, ID_LEN, IssuerKey, Refusal, RustCrypto, trust};
use serde_json::{Value, json};

use crate::support::inside::Inside;
use crate::support::{Phone, authorization, now, time};

/// How much later than the car's last moment an answer may be: for how long a commit may take, and
/// by how much a list may be ahead of the clock, with what passed since the last list was signed.
const SLACK_S: u64 = 10 + 10 + 60;

/// A car that remembers nothing from one question to the next.
struct Forgetful;

impl Memory for Forgetful {
    fn vehicle_epoch(&self) -> u32 {
        0
    }

    fn version(&self, _: &[u8; ID_LEN]) -> u32 {
        0
    }

    fn time(&self) -> u64 {
        0
    }

    fn uses(&self, _: &[u8; ID_LEN], _: u16) -> u32 {
        0
    }

    fn synced_at(&self) -> u64 {
        0
    }

    fn remember(&mut self, _: &News<'_>) -> Result<(), Refusal> {
        Ok(())
    }
}

/// What a car and a phone have when the server is heard of for the last time.
struct Offline {
    root: IssuerKey,
    trust: Vec<u8>,
    list: Vec<u8>,
    key: Vec<u8>,
    phone: Phone,
    vehicle: String,
}

impl Offline {
    /// What the car says at `at`.
    fn asked(&self, at: u64) -> Result<(), Refusal> {
        let trust = trust::verify(&self.trust, &[self.root], 0, &RustCrypto).unwrap();
        let lists = [status::verify(&self.list, &trust, &RustCrypto).unwrap()];
        let key = SignedKey::decode(&self.key).unwrap();
        let claims = key.unverified();
        let nonce = [5; 32];
        let answer = Use {
            key_id: claims.key_id,
            function_name: claims.function_name,
            nonce: &nonce,
        };
        let message = to_be_signed(Algorithm::Es256, &answer).unwrap();
        let proof = message.assemble(&self.phone.sign(message.message()));
        let car = Car {
            vehicle: &self.vehicle,
            fleet: claims.fleet,
            trust: &trust,
            lists: &lists,
            policy: Policy::STANDARD,
            clock: Clock {
                reading: at,
                uncertainty_s: 0,
            },
            verifier: RustCrypto,
        };
        let request = Request {
            key: &self.key,
            proof: &proof,
            challenge: Challenge::new(&nonce).unwrap(),
            position: None,
        };
        check(request, &car, &mut Box::new(Room::new()), &mut Forgetful).map(|_| ())
    }

    /// The first second, after this one, at which the car refuses.
    fn refuses_from(&self, at: u64) -> u64 {
        assert_eq!(self.asked(at), Ok(()), "it opens now");
        let (mut opens, mut refuses) = (at, at + 3 * 86_400);
        assert!(self.asked(refuses).is_err());
        while refuses - opens > 1 {
            let between = opens.midpoint(refuses);
            match self.asked(between) {
                Ok(()) => opens = between,
                Err(_) => refuses = between,
            }
        }
        refuses
    }
}

struct Scene {
    inside: Inside,
    back_end: BackEnd,
    runtime: tokio::runtime::Runtime,
}

impl Scene {
    fn new(label: &str, list_lifetime_s: u64, list_ttl_s: u32) -> Self {
        let inside = Inside::start(label, |settings| {
            settings.list_lifetime_s = list_lifetime_s;
            settings.list_ttl_s = list_ttl_s;
        });
        Self {
            back_end: inside.back_end(),
            inside,
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap(),
        }
    }

    /// Starts the server anew, with lists that live so long.
    fn restart(&mut self, list_lifetime_s: u64) {
        self.inside
            .restart(|settings| settings.list_lifetime_s = list_lifetime_s);
        self.back_end = self.inside.back_end();
    }

    /// Notes that this vehicle's car has acknowledged a sync that includes so many amendments.
    fn acknowledge(&self, vehicle: &str, revision: u64) {
        let sent = Sent {
            digest: [1; 32],
            revision,
            at: now(),
        };
        let contact = Contact {
            heard_at: now(),
            sent,
            acked: Some(sent),
        };
        let vehicle = VehicleId::parse(vehicle).unwrap();
        let write = Write::Contact(self.back_end.fleet.fleet.id, vehicle, contact);
        let applied = self.runtime.block_on(self.inside.engine.write(vec![write]));
        assert_eq!(applied.unwrap(), [Applied::Done]);
    }

    /// One key, issued and met by a car, and its authorization.
    fn lend(&self, vehicle: &str, function: &str, for_s: u64) -> (AuthorizationId, Offline) {
        let Inside {
            server,
            owner,
            engine,
            ..
        } = &self.inside;
        let phone = Phone::new();
        let mut asked = authorization(vehicle, &[function]);
        asked["not_after"] = json!(time(now() + for_s));
        let made = server.command(&owner.command(&server.url, &asked));
        assert_eq!(made.status, 201, "{}", made.text());
        let made = made.value();
        let code_set = made["code_set"].as_str().unwrap();
        let bundle = server.redeem(code_set, "renter-1", &phone);
        assert_eq!(bundle.status, 201, "{}", bundle.text());
        let octets = |value: &Value| BASE64_URL_SAFE_NO_PAD.decode(value.as_str().unwrap());
        let key = octets(&bundle.value()["keys"][0]["key"]).unwrap();
        let uri = SignedKey::decode(&key)
            .unwrap()
            .unverified()
            .status
            .uri
            .to_owned();
        let shard = ShardId::at(&uri).unwrap();
        let list = self
            .runtime
            .block_on(engine.status_list(shard))
            .unwrap()
            .unwrap();
        let root = engine.book().standing().root.clone().unwrap();
        let offline = Offline {
            root: root.key.0,
            trust: engine.book().trust().unwrap().bytes.to_vec(),
            list: list.bytes.to_vec(),
            key,
            phone,
            vehicle: vehicle.into(),
        };
        let id = made["authorization"].as_str().unwrap();
        (AuthorizationId::parse(id).unwrap(), offline)
    }

    fn cancel(&self, id: AuthorizationId) -> Done {
        let caller = Caller::BackEnd(&self.back_end, None);
        let done = self.inside.engine.act(caller, id, Action::Cancel);
        self.runtime
            .block_on(done)
            .unwrap_or_else(|why| panic!("{why}"))
    }
}

fn latest(done: &Done) -> u64 {
    match done.outcome.certain_by {
        CertainBy::Contact(latest) => latest,
        CertainBy::Now => panic!("the car cannot know"),
    }
}

/// Keys that end before and after the lists of this scene.
fn holds(label: &str, list_lifetime_s: u64, list_ttl_s: u32) {
    let scene = Scene::new(label, list_lifetime_s, list_ttl_s);
    scene.acknowledge("DEMO-0001", 0);
    for (vehicle, acked) in [("DEMO-0001", true), ("DEMO-0002", false)] {
        for function in ["doors.unlock", "doors.lock", "engine.start"] {
            for for_s in [200, 5_000, 40 * 3600] {
                let (id, car) = scene.lend(vehicle, function, for_s);
                let ends = SignedKey::decode(&car.key).unwrap().unverified().expires;
                let last = car.refuses_from(now());
                let told = latest(&scene.cancel(id));
                let case = format!("{vehicle} {function} {for_s}: {last}, told {told}");
                assert!(
                    last <= told,
                    "it opens after it is certain that it does not: {case}"
                );
                if !acked || last == ends {
                    assert_eq!(told, ends, "{case}");
                } else {
                    assert!(told - last <= SLACK_S, "{case}");
                }
            }
        }
    }
}

#[test]
fn no_car_opens_after_it_is_certain_that_it_does_not_with_short_lists() {
    holds("certain-short", 900, 120);
}

#[test]
fn no_car_opens_after_it_is_certain_that_it_does_not_with_long_lists() {
    holds("certain-long", 12 * 3600, 3600);
}

#[test]
fn what_is_done_twice_is_no_more_certain_than_what_is_done_once() {
    let scene = Scene::new("certain-twice", 900, 120);
    let (id, car) = scene.lend("DEMO-0003", "doors.unlock", 5_000);
    let first = latest(&scene.cancel(id));
    let again = scene.cancel(id);
    assert_eq!(again.outcome.revoked, []);
    assert_eq!(latest(&again), first);
    assert!(car.refuses_from(now()) <= first);
    // Until the car says that it knows.
    let known = scene.inside.engine.book().statuses.revision();
    scene.acknowledge("DEMO-0003", known);
    assert_eq!(scene.cancel(id).outcome.certain_by, CertainBy::Now);
}

#[test]
fn lists_that_live_shorter_from_now_on_do_not_shorten_those_that_were_signed() {
    let mut scene = Scene::new("certain-shortened", 12 * 3600, 3600);
    scene.acknowledge("DEMO-0001", 0);
    let (id, car) = scene.lend("DEMO-0001", "engine.start", 20 * 3600);
    scene.restart(900);
    let last = car.refuses_from(now());
    let told = latest(&scene.cancel(id));
    assert_eq!(told, last, "as long as the list that the car holds");
    // What comes after them lives as long as is said now.
    assert!(last > now() + 11 * 3600);
    let uri = SignedKey::decode(&car.key).unwrap().unverified().status.uri;
    let list = scene.inside.engine.status_list(ShardId::at(uri).unwrap());
    let list = scene.runtime.block_on(list).unwrap().unwrap();
    let renewed = Offline {
        list: list.bytes.to_vec(),
        ..car
    };
    assert_eq!(renewed.asked(now()), Err(Refusal::Revoked));
}

#[test]
fn what_another_reason_holds_down_is_no_more_certain_for_that() {
    let scene = Scene::new("certain-reasons", 900, 120);
    let (id, car) = scene.lend("DEMO-0003", "doors.unlock", 5_000);
    let suspend = || {
        let caller = Caller::BackEnd(&scene.back_end, None);
        let done = scene.inside.engine.act(caller, id, Action::Suspend);
        scene.runtime.block_on(done).unwrap()
    };
    let target = Target::Vehicle(VehicleId::parse("DEMO-0003").unwrap());
    let caller = Caller::BackEnd(&scene.back_end, None);
    let engine = &scene.inside.engine;
    let parts = engine.parts_of(caller, Action::Suspend, &target);
    let parts = scene.runtime.block_on(parts).unwrap();
    let done = engine.carry_out(caller, Action::Suspend, &parts);
    let done = scene.runtime.block_on(done).unwrap();
    let [Ok(outcome)] = &done[..] else {
        panic!("{done:?}");
    };
    let ends = SignedKey::decode(&car.key).unwrap().unverified().expires;
    assert_eq!(outcome.certain_by, CertainBy::Contact(ends));
    // The car has not heard of the vehicle's suspension, so this one is not certain either.
    let done = suspend();
    assert_eq!(done.outcome.suspended, []);
    assert_eq!(latest(&done), ends);
    let known = engine.book().statuses.revision();
    scene.acknowledge("DEMO-0003", known);
    assert_eq!(suspend().outcome.certain_by, CertainBy::Now);
}
