//! What one node does at a time: by whoever holds the lease, and not by one that held it.

use std::thread;
use std::time::Duration;

use super::pair::{PUBLIC, Pair, act, authorize, redeem, signal, text};
use super::until;
use crate::support::database::Schema;
use crate::support::{Phone, Server, authorization};

/// Writes down, with every list that is given out, who holds the lease at that moment.
const WITNESS: &str = "
    CREATE TABLE seen (tag BIGINT, shard BIGINT, issued_at BIGINT, holder UUID, number BIGINT);
    CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO seen SELECT NEW.tag, NEW.shard, NEW.issued_at,
            CASE WHEN l.ends > clock_timestamp() THEN l.holder END, l.number
        FROM leases l WHERE l.name = 'lists';
        RETURN NEW;
    END $$;
    CREATE TRIGGER see AFTER UPDATE OF body ON status_lists
        FOR EACH ROW EXECUTE FUNCTION see();";

/// Lists that were given out by somebody else than who held the lease. A transaction's own row says
/// whose it is.
const BY_OTHERS: &str = "
    SELECT count(*) FROM seen s JOIN transactions t ON t.xmin = s.xmin
    WHERE t.process IS DISTINCT FROM s.holder";

/// Lists that were not later than the one before.
const NOT_LATER: &str = "
    SELECT count(*) FROM seen a JOIN seen b USING (tag, shard)
    WHERE a.number < b.number AND a.issued_at >= b.issued_at";

const TASKS: [&str; 2] = ["lists", "keeping"];

/// Whether a node of this test waits for what it holds: others use the same server.
fn blocked(schema: &Schema) -> bool {
    let sql = "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
               WHERE NOT l.granted AND a.query LIKE '%amendments%FOR UPDATE%'
               AND a.query NOT LIKE '%pg_locks%' AND EXISTS (
                   SELECT 1 FROM pg_locks r
                   WHERE r.pid = l.pid AND r.relation = 'counters'::regclass)";
    schema.execute(sql).unwrap() != "0"
}

fn holder(schema: &Schema, task: &str) -> Option<String> {
    schema.execute(&format!(
        "SELECT holder FROM leases WHERE name = '{task}' AND ends > now() AND holder IS NOT NULL"
    ))
}

/// Revokes something that was redeemed, on one node.
fn revoke(server: &Server, owner: &Phone, token: &str) -> u16 {
    let made = authorize(server, owner, "DEMO-0004");
    let redeemed = redeem(server, &text(&made, "code_set"), "renter-1", &Phone::new());
    assert_eq!(redeemed.status, 201, "{}", redeemed.text());
    let id = text(&made, "authorization");
    act(server, token, "revocations", ("authorization", &id)).status
}

/// How much a node has had signed.
fn signatures(server: &Server) -> u64 {
    let told = server.get("/metrics", &[]).text();
    let name = "fob_hsm_signatures_total ";
    let line = told.lines().find_map(|line| line.strip_prefix(name));
    line.map_or(0, |count| count.parse().unwrap())
}

fn authorized(server: &Server, owner: &Phone) -> bool {
    let command = authorization("DEMO-0004", &["doors.unlock"]);
    server.command(&owner.command(PUBLIC, &command)).status == 201
}

/// A list that was never signed, asked for on one node.
fn ask_for_list(schema: &Schema, server: &Server, round: usize) -> u16 {
    let tag = format!("SELECT tag FROM fleets WHERE name = 'fleet-{round}'");
    let tag: u32 = schema.execute(&tag).unwrap().parse().unwrap();
    server.get(&format!("/v1/status/{tag:08x}-0"), &[]).status
}

/// By turns, `rounds` times, whoever holds the leases is stopped for as long as `asleep_for`, and
/// until the other has taken them: in the middle of a transaction, and with a list that is signed
/// and behind it in the queue. Then it wakes.
fn sleep_past_leases(lease_s: u32, rounds: usize, asleep_for: Duration) {
    let schema = Schema::new();
    let mut pair = Pair::over(&schema);
    pair.lease_s = lease_s;
    let owner = pair.owner();
    let token = pair.issuers[0].token("revoke,read");
    for round in 0..rounds {
        pair.issuers[0].fob(&["fleet", "create", &format!("fleet-{round}")]);
    }
    let mut servers = Vec::from([pair.serve(0)]);
    until(|| TASKS.iter().all(|task| holder(&schema, task).is_some()));
    servers.push(pair.serve(1));
    schema.execute(WITNESS);
    for round in 0..rounds {
        let (asleep, awake) = (&servers[round % 2], &servers[(round + 1) % 2]);
        assert_eq!(revoke(asleep, &owner, &token), 200);
        let before = holder(&schema, "lists").unwrap();
        thread::scope(|scope| {
            // Its next transaction waits, and behind that, signed and to be given out, a list.
            let waits = "SELECT value FROM counters WHERE name = 'amendments' FOR UPDATE";
            let waits = schema.hold(waits);
            let revoking = scope.spawn(|| revoke(asleep, &owner, &token));
            until(|| blocked(&schema));
            let signed = signatures(asleep);
            let asking = scope.spawn(|| ask_for_list(&schema, asleep, round));
            until(|| signatures(asleep) > signed);
            thread::sleep(Duration::from_millis(300));
            signal("STOP", asleep);
            let sleeping = scope.spawn(move || thread::sleep(asleep_for));
            until(|| {
                let now = TASKS.map(|task| holder(&schema, task));
                now.iter()
                    .all(|it| it.as_ref().is_some_and(|it| *it != before))
            });
            drop(waits);
            // The other goes on meanwhile, whatever the one asleep has locked.
            for _ in 0..3 {
                assert_eq!(revoke(awake, &owner, &token), 200);
            }
            let number = || schema.execute("SELECT number FROM leases WHERE name = 'lists'");
            let taken = number();
            sleeping.join().unwrap();
            assert_eq!(revoke(awake, &owner, &token), 200);
            signal("CONT", asleep);
            for status in [revoking.join().unwrap(), asking.join().unwrap()] {
                assert!([200, 503].contains(&status), "{status}");
            }
            assert_eq!(number(), taken, "nobody has taken it back");
        });
        // It refuses everything until it has heard what it has slept through.
        until(|| ask_for_list(&schema, asleep, round) == 200);
        until(|| authorized(asleep, &owner));
        assert_eq!(revoke(asleep, &owner, &token), 200);
    }
    let count = |sql: &str| schema.execute(sql).unwrap();
    assert_ne!(count("SELECT count(*) FROM seen"), "0");
    assert_ne!(count("SELECT count(DISTINCT holder) FROM seen"), "1");
    assert_eq!(count(BY_OTHERS), "0");
    assert_eq!(count(NOT_LATER), "0");
}

#[test]
fn a_node_that_slept_past_its_lease_does_nothing_with_it() {
    sleep_past_leases(2, 3, Duration::ZERO);
}

/// With a lease as long as it is by default.
#[test]
fn a_node_that_was_stopped_for_half_a_minute_does_nothing_with_its_lease() {
    sleep_past_leases(10, 1, Duration::from_secs(30));
}
