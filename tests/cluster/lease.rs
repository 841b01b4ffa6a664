//! What one node does at a time: by whoever holds the lease, and not by one that held it.

use std::thread;
use std::time::Duration;

use super::pair::{Pair, act, authorize, redeem, signal, text};
use super::until;
use crate::support::database::Schema;
use crate::support::{Phone, Server};

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

#[test]
fn a_node_that_slept_past_its_lease_does_nothing_with_it() {
    let schema = Schema::new();
    let pair = Pair::over(&schema);
    let owner = pair.owner();
    let token = pair.issuers[0].token("revoke,read");
    let mut servers = Vec::from([pair.serve(0)]);
    until(|| holder(&schema, "lists").is_some() && holder(&schema, "keeping").is_some());
    servers.push(pair.serve(1));
    schema.execute(WITNESS);
    for round in 0..3 {
        let (asleep, awake) = (&servers[round % 2], &servers[(round + 1) % 2]);
        assert_eq!(revoke(asleep, &owner, &token), 200);
        let before = holder(&schema, "lists").unwrap();
        thread::scope(|scope| {
            // It is put to sleep while it has lists to sign.
            let under_way = scope.spawn(|| {
                let revoked = (0..3).map(|_| revoke(asleep, &owner, &token));
                revoked.collect::<Vec<_>>()
            });
            thread::sleep(Duration::from_millis(20 + 30 * round as u64));
            signal("STOP", asleep);
            until(|| {
                let tasks = ["lists", "keeping"].map(|task| holder(&schema, task));
                tasks
                    .iter()
                    .all(|now| now.as_ref().is_some_and(|now| *now != before))
            });
            // The other goes on with it meanwhile.
            for _ in 0..3 {
                assert_eq!(revoke(awake, &owner, &token), 200);
            }
            let number = || schema.execute("SELECT number FROM leases WHERE name = 'lists'");
            let taken = number();
            signal("CONT", asleep);
            for status in under_way.join().unwrap() {
                assert_eq!(status, 200, "{}", pair.issuers[round % 2].log());
            }
            assert_eq!(number(), taken, "nobody has taken it back");
        });
    }
    let count = |sql: &str| schema.execute(sql).unwrap();
    assert_ne!(count("SELECT count(*) FROM seen"), "0");
    assert_ne!(count("SELECT count(DISTINCT holder) FROM seen"), "1");
    assert_eq!(count(BY_OTHERS), "0");
    assert_eq!(count(NOT_LATER), "0");
}
