//! What both nodes are asked for at the same moment one of them gives out, once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::Value;

use super::pair::{Pair, authorize, body, text};
use crate::support::database::Schema;
use crate::support::{Answer, Phone};

/// Code sets, and how often each is redeemed.
const CODE_SETS: usize = 50;
const TIMES: usize = 20;

/// Threads on each node.
const THREADS: usize = 4;

/// Sends the requests to both nodes in turn, from many threads; answers by code set.
fn spread(pair: &Pair, requests: &[(usize, Value)]) -> BTreeMap<usize, Vec<(Value, Answer)>> {
    let servers = pair.serve_both();
    let next = AtomicUsize::new(0);
    let answers = Mutex::new(BTreeMap::<usize, Vec<_>>::new());
    thread::scope(|scope| {
        for number in 0..2 * THREADS {
            let client = servers[number % 2].client();
            let (next, answers) = (&next, &answers);
            scope.spawn(move || {
                while let Some((set, body)) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let answer = client.json("POST", "/v1/redemptions", &[], body).unwrap();
                    let mut answers = answers.lock().unwrap();
                    answers
                        .entry(*set)
                        .or_default()
                        .push((body.clone(), answer));
                }
            });
        }
    });
    answers.into_inner().unwrap()
}

/// Open code sets, made on one node alone.
fn code_sets(pair: &Pair) -> Vec<String> {
    let (server, owner) = (pair.serve(0), pair.owner());
    let made = (0..CODE_SETS).map(|n| {
        let vehicle = format!("DEMO-{:04}", n % 10 + 1);
        text(&authorize(&server, &owner, &vehicle), "code_set")
    });
    made.collect()
}

fn bundle(answer: &Answer) -> String {
    text(&answer.value(), "bundle")
}

#[test]
fn a_thousand_identical_redemptions_over_two_nodes() {
    let schema = Schema::new();
    let pair = Pair::over(&schema);
    let phone = Phone::new();
    let mut requests = Vec::new();
    for (n, code_set) in code_sets(&pair).iter().enumerate() {
        requests.extend((0..TIMES).map(|_| (n, body(code_set, "renter-1", &phone))));
    }
    let answers = spread(&pair, &requests);
    assert_eq!(answers.len(), CODE_SETS);
    for answers in answers.values() {
        assert_eq!(answers.len(), TIMES);
        let bodies: BTreeSet<&[u8]> = answers
            .iter()
            .map(|(_, answer)| {
                assert_eq!(answer.status, 201, "{}", answer.text());
                &answer.body[..]
            })
            .collect();
        assert_eq!(bodies.len(), 1, "byte for byte");
    }
    check_bundles(&schema);
}

#[test]
fn a_thousand_conflicting_redemptions_over_two_nodes() {
    let schema = Schema::new();
    let pair = Pair::over(&schema);
    let phones: Vec<_> = (0..TIMES).map(|_| Phone::new()).collect();
    let mut requests = Vec::new();
    for (n, code_set) in code_sets(&pair).iter().enumerate() {
        let each = phones.iter().enumerate();
        requests.extend(each.map(|(at, phone)| {
            let identity = format!("renter-{}", at + 1);
            (n, body(code_set, &identity, phone))
        }));
    }
    for answers in spread(&pair, &requests).values() {
        let (won, lost): (Vec<_>, Vec<_>) =
            answers.iter().partition(|(_, answer)| answer.status == 201);
        assert_eq!(
            (won.len(), lost.len()),
            (1, TIMES - 1),
            "{:?}",
            texts(answers)
        );
        for (_, answer) in lost {
            answer.refused(409, "code_set_redeemed");
        }
        bundle(&won[0].1);
    }
    check_bundles(&schema);
}

fn texts(answers: &[(Value, Answer)]) -> Vec<String> {
    answers.iter().map(|(_, answer)| answer.text()).collect()
}

/// One bundle for each code set, and no status index twice.
fn check_bundles(schema: &Schema) {
    let count = |sql: &str| schema.execute(sql).unwrap();
    assert_eq!(count("SELECT count(*) FROM bundles"), CODE_SETS.to_string());
    assert_eq!(
        count("SELECT count(DISTINCT authorization_id) FROM bundles"),
        CODE_SETS.to_string()
    );
}
