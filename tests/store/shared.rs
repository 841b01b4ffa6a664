//! What several processes over one database tell each other: what has changed, and who does what
//! only one may do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use fob::domain::{
    AuthorizationState, EpochState, Held, KeyChange, Mark, Reason, Reasons, ShardId, Status,
};
use fob::store::postgres::Postgres;
use fob::store::{
    Applied, Contact, Lease, Listed, News, Nodes, ReliedOn, Row, Sent, SignedList, Store, Task,
    Write,
};

use super::conformance::Place;
use super::sample::*;
use crate::support::database::Schema;

const SHARD: ShardId = ShardId { tag: 1, number: 0 };

/// Longer than any test.
const LONG: Duration = Duration::from_secs(600);

fn place() -> Schema {
    <Schema as Place>::new()
}

fn nodes(store: &Postgres) -> &dyn Nodes {
    store.nodes().unwrap()
}

fn news(store: &Postgres) -> Vec<Row> {
    let mut rows = Vec::new();
    let heard = nodes(store).news(&mut |row| rows.push(row)).unwrap();
    assert_eq!(heard, News::Told);
    rows
}

fn texts(rows: &[Row]) -> BTreeSet<String> {
    rows.iter().map(|row| format!("{row:?}")).collect()
}

fn status_list(issued_at: u64) -> SignedList {
    SignedList {
        listed: Listed {
            shard: SHARD,
            issued_at,
            expires: issued_at + 100,
        },
        epoch: epoch(9, EpochState::Active).id,
        revision: 3,
        content: [7; 32],
        bytes: [1, 2, 3].into(),
    }
}

/// Something of everything that books hold.
fn everything_written() -> Vec<Write> {
    let sent = Sent {
        digest: [4; 32],
        revision: 1,
        at: 5,
    };
    let contact = Contact {
        heard_at: 6,
        sent,
        acked: Some(sent),
    };
    let mut writes = world();
    writes.extend([
        Write::Setting("issuer".into(), "keys.example.org".into()),
        Write::Function(FLEET, 300, "tailgate.lift".into()),
        Write::NewToken(token(1)),
        Write::NewToken(token(2)),
        Write::RevokeToken(FLEET, token(2).id, 77),
        Write::TrustList(1, [9, 9].into()),
        authorize(authorization(1)),
        authorize(authorization(2)),
        redeem(&authorization(2)),
        Write::Lists([status_list(60)].into()),
        Write::Contact(FLEET, vehicle_id("V-1"), contact),
        suspend_vehicle("V-2"),
    ]);
    writes
}

#[test]
fn what_one_has_written_is_news_to_the_other_once() {
    let place = place();
    let (writing, hearing) = (place.open(), place.open());
    assert!(loaded(&hearing).is_empty());
    assert!(news(&hearing).is_empty(), "nothing has happened");
    done(&writing, &everything_written());
    let told = texts(&news(&hearing));
    // Whoever begins now is told the same.
    assert_eq!(told, texts(&loaded(&place.open())));
    assert!(news(&hearing).is_empty(), "it was told");
    // Its own is no news, and nor is what others ask without changing anything.
    assert!(loaded(&writing).len() > 10);
    done(&writing, &[authorize(authorization(3))]);
    assert!(news(&writing).is_empty());
    let order = Write::Redeem(Arc::new(order(1, None)));
    commit(
        &hearing,
        &[Write::PinAttempt(authorization_id(9), 1), order],
    );
    assert!(news(&writing).is_empty(), "no book has what has changed");
    let told = texts(&news(&hearing));
    assert_eq!(told, texts(&[Row::Authorization(authorization(3))]));
}

#[test]
fn a_row_is_told_as_it_is_and_not_as_it_was() {
    let place = place();
    let (writing, hearing) = (place.open(), place.open());
    done(&writing, &world());
    loaded(&hearing);
    let following = |change| {
        let marks = vec![Mark {
            shard: SHARD,
            index: 5,
            change,
            ends: 4_000_000_000,
        }];
        Write::Follow(Arc::new(fob::store::Following {
            fleet: FLEET,
            of: fob::domain::change::Followed::Vehicle(vehicle_id("V-1")),
            status: Status::Active,
            marks,
            relies_on: ReliedOn::default(),
        }))
    };
    let held = |rows: &[Row]| {
        rows.iter().find_map(|row| match row {
            Row::Held(SHARD, 5, held) => Some(*held),
            _ => None,
        })
    };
    let revision = |rows: &[Row]| match rows.last() {
        Some(Row::Revision(revision)) => *revision,
        other => panic!("what it has marked is complete at the end: {other:?}"),
    };
    let suspend = following(KeyChange::Suspend(Reason::Vehicle));
    let suspend = [suspend];
    assert_eq!(commit(&writing, &suspend), [Applied::Amended(1)]);
    let told = news(&hearing);
    let reasons = Reasons::NONE.with(Reason::Vehicle);
    assert_eq!(held(&told), Some(Held::By(reasons)));
    assert_eq!(revision(&told), 1);
    commit(&writing, &[following(KeyChange::Resume(Reason::Vehicle))]);
    commit(&writing, &suspend);
    commit(&writing, &[following(KeyChange::Resume(Reason::Vehicle))]);
    let told = news(&hearing);
    assert_eq!(held(&told), Some(Held::default()), "it has no row any more");
    assert_eq!(revision(&told), 4);
    let ask = Write::AskLists([SHARD].into());
    assert_eq!(commit(&writing, &[ask]), [Applied::Done]);
    assert!(matches!(news(&hearing)[..], [Row::Asked(SHARD)]));
    // What was purged cannot be read any more.
    done(&writing, &[authorize(authorization(1))]);
    commit(&writing, &[Write::Purge(10_000, 10)]);
    assert!(matches!(news(&hearing)[..], [Row::Purged(10_000)]));
    commit(&writing, &[Write::Purge(10_000, 10)]);
    assert!(news(&hearing).is_empty(), "nothing was left to purge");
}

#[test]
fn whoever_was_away_for_too_long_is_told_to_load() {
    let place = place();
    let (writing, hearing) = (place.open(), place.open());
    loaded(&hearing);
    done(&writing, &world());
    place.execute("UPDATE writers SET number = number + 10001");
    let mut rows = Vec::new();
    let heard = nodes(&hearing).news(&mut |row| rows.push(row)).unwrap();
    assert_eq!((heard, rows.len()), (News::TooMuch, 0));
    loaded(&hearing);
    assert!(news(&hearing).is_empty());
}

/// Numbers are seen in the order in which a process commits, whatever others do meanwhile.
#[test]
fn nothing_is_missed_while_several_write() {
    const EACH: u8 = 120;
    let place = place();
    let (reading, first) = (place.open(), place.open());
    done(&first, &world());
    loaded(&reading);
    let writers = [first, place.open()];
    let writing = AtomicBool::new(true);
    let mut heard = BTreeMap::new();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..)
            .zip(&writers)
            .map(|(node, store)| {
                scope.spawn(move || {
                    for n in 0..EACH {
                        done(store, &[authorize(authorization(2 * n + node))]);
                        done(store, &[redeem(&authorization(2 * n + node))]);
                    }
                })
            })
            .collect();
        while writing.load(Ordering::SeqCst) {
            if threads.iter().all(|thread| thread.is_finished()) {
                writing.store(false, Ordering::SeqCst);
            }
            for row in news(&reading) {
                let Row::Authorization(it) = row else {
                    continue;
                };
                let before = heard.insert(it.id, it.state);
                assert_ne!(before, Some(AuthorizationState::Redeemed), "{}", it.id);
            }
        }
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
    });
    assert_eq!(heard.len(), 2 * usize::from(EACH));
    let mut states = heard.values();
    assert!(states.all(|state| *state == AuthorizationState::Redeemed));
}

fn taken(store: &Postgres, term: Duration) -> Option<Lease> {
    nodes(store).hold(Task::Lists, term).unwrap()
}

#[test]
fn a_lease_is_held_by_one_and_its_number_grows() {
    let place = place();
    let (one, other) = (place.open(), place.open());
    let first = taken(&one, LONG).unwrap();
    assert_eq!(taken(&one, LONG), Some(first), "it is kept");
    assert_eq!(taken(&other, LONG), None);
    assert!(nodes(&other).hold(Task::Keeping, LONG).unwrap().is_some());
    taken(&one, Duration::ZERO).unwrap();
    let second = taken(&other, LONG).unwrap();
    assert!(second.number > first.number);
    assert_eq!(taken(&one, LONG), None);
    // One that has run out, taken again by whoever had it: somebody may have had it in between.
    taken(&other, Duration::ZERO).unwrap();
    assert!(taken(&other, LONG).unwrap().number > second.number);
}

#[test]
fn what_is_done_under_a_lease_is_done_while_it_is_held() {
    let place = place();
    let (one, other) = (place.open(), place.open());
    done(&one, &world());
    done(&one, &[authorize(authorization(1))]);
    let under = |lease, write| vec![Write::Under(lease, Box::new(write))];
    let lists = |at| Write::Lists([status_list(at)].into());
    let first = taken(&one, LONG).unwrap();
    done(&one, &under(first, lists(60)));
    // It runs out while its holder sleeps.
    taken(&one, Duration::ZERO).unwrap();
    let late = [lists(70), Write::Purge(10_000, 10)];
    for write in &late {
        assert_eq!(commit(&one, &under(first, write.clone())), [Applied::Stale]);
    }
    let second = taken(&other, LONG).unwrap();
    for write in &late {
        assert_eq!(commit(&one, &under(first, write.clone())), [Applied::Stale]);
        // The others of its transaction stand.
        let beside = [under(first, write.clone()), vec![Write::Lists([].into())]].concat();
        assert_eq!(commit(&one, &beside), [Applied::Stale, Applied::Done]);
    }
    assert!(loaded(&other).iter().any(|row| matches!(
        row,
        Row::List(list) if list.listed.issued_at == 60
    )));
    let purge = under(second, Write::Purge(10_000, 10));
    assert_eq!(commit(&other, &purge), [Applied::Purged(1)]);
}

#[test]
fn nodes_have_numbers_of_their_own() {
    let place = place();
    let stores: Vec<_> = (0..4).map(|_| place.open()).collect();
    let numbers: BTreeSet<u64> = thread::scope(|scope| {
        let asked: Vec<_> = stores
            .iter()
            .map(|store| scope.spawn(|| nodes(store).register().unwrap()))
            .collect();
        asked.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(numbers.len(), 4);
    assert_eq!(nodes(&stores[0]).beat(LONG).unwrap(), 4);
}

/// Ends threads as it is dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Those who hold a fleet shared overlap all the time: whoever is to hold it alone would wait for
/// as long as they go on.
#[test]
fn a_suspension_gets_its_turn_among_those_who_issue() {
    let place = place();
    let stores: Vec<_> = (0..5).map(|_| place.open()).collect();
    done(&stores[0], &world());
    place.execute(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             PERFORM pg_sleep(0.03); RETURN NEW; END $$;
         CREATE TRIGGER slow BEFORE INSERT ON commands FOR EACH ROW EXECUTE FUNCTION slow();",
    );
    let over = AtomicBool::new(false);
    let made = AtomicU32::new(0);
    let commanded = |n: u32| {
        let mut authorization = authorization(1);
        authorization.id.0[8..12].copy_from_slice(&n.to_be_bytes());
        Write::Authorize(Box::new(fob::store::NewAuthorization {
            authorization: Arc::new(authorization),
            request: None,
            command: Some("header.command.signature".into()),
            answers: None,
        }))
    };
    thread::scope(|scope| {
        for store in &stores[1..] {
            let (over, made, commanded) = (&over, &made, &commanded);
            scope.spawn(move || {
                while !over.load(Ordering::SeqCst) {
                    done(store, &[commanded(made.fetch_add(1, Ordering::SeqCst))]);
                }
            });
        }
        // Whatever fails, the threads end.
        let _over = Over(&over);
        while made.load(Ordering::SeqCst) < 10 {
            thread::yield_now();
        }
        for _ in 0..3 {
            let before = made.load(Ordering::SeqCst);
            done(&stores[0], &[suspend_vehicle("V-2")]);
            let passed = made.load(Ordering::SeqCst) - before;
            assert!(passed < 60, "{passed} went before");
        }
    });
    assert_eq!(place.execute("SELECT count(*) FROM turns").unwrap(), "0");
}
