//! What only PostgreSQL has: a schema that is brought up to date by hand, rounds that are counted,
//! other nodes, and connections that break.

use fob::domain::{FleetId, VehicleId};
use fob::store::postgres::{Migrated, Postgres, PostgresConfig};
use fob::store::{Store, StoreError, Write};

use super::conformance::{Place, conformance};
use super::sample::*;
use crate::support::database::Schema;

impl Schema {
    fn config(&self) -> PostgresConfig {
        PostgresConfig::new(&self.url())
    }
}

impl Place for Schema {
    type Store = Postgres;

    fn new() -> Self {
        let schema = Self::new();
        Postgres::create(schema.config()).unwrap();
        schema
    }

    fn open(&self) -> Postgres {
        Postgres::open(self.config()).unwrap()
    }

    fn suspend_vehicle(&self, fleet: FleetId, vehicle: &VehicleId) {
        let vehicle = vehicle.as_str();
        let sql = format!(
            "UPDATE vehicles SET status = 1 WHERE fleet = '{fleet}' AND id = '{vehicle}' RETURNING 1"
        );
        assert!(self.execute(&sql).is_some());
    }

    fn suspend_fleet(&self, fleet: FleetId) {
        let sql = format!("UPDATE fleets SET status = 1 WHERE id = '{fleet}' RETURNING 1");
        assert!(self.execute(&sql).is_some());
    }
}

conformance!(Schema);

#[test]
fn opening_does_not_create_and_creating_does_not_replace() {
    let schema = Schema::new();
    let refused = Postgres::open(schema.config()).map(drop);
    assert!(
        matches!(refused, Err(StoreError::Schema { found: 0, advice, .. }) if advice.contains("fob migrate")),
        "{refused:?}"
    );
    let migrated = Postgres::migrate(schema.config()).unwrap();
    let again = Migrated {
        from: migrated.to,
        ..migrated
    };
    assert_eq!(migrated.from, 0);
    assert_eq!(Postgres::migrate(schema.config()), Ok(again));
    done(&Postgres::create(schema.config()).unwrap(), &world());
    assert!(matches!(
        Postgres::create(schema.config()).map(drop),
        Err(StoreError::Failed(_))
    ));
    Postgres::open(schema.config()).unwrap();
    schema.execute("UPDATE fob_schema SET version = version + 1");
    for refused in [
        Postgres::open(schema.config()).map(drop),
        Postgres::migrate(schema.config()).map(drop),
    ] {
        assert!(
            matches!(refused, Err(StoreError::Schema { advice, .. }) if advice.contains("newer program")),
            "{refused:?}"
        );
    }
}

#[test]
fn a_transaction_is_two_rounds_however_many_writes_it_has() {
    let schema = <Schema as Place>::new();
    let store = schema.open();
    done(&store, &world());
    let writes = |numbers: std::ops::Range<u8>| {
        let each = |n| [authorize(authorization(n)), redeem(&authorization(n))];
        numbers.flat_map(each).collect::<Vec<_>>()
    };
    // The first prepares its statements.
    done(&store, &writes(0..1));
    for some in [1..2, 2..100] {
        let before = store.round_trips();
        done(&store, &writes(some));
        assert_eq!(store.round_trips() - before, 2);
    }
}

#[test]
fn whoever_took_over_is_the_only_one_that_commits() {
    let schema = <Schema as Place>::new();
    let (first, second) = (schema.open(), schema.open());
    first.take_over().unwrap();
    done(&first, &world());
    done(&first, &[authorize(authorization(1))]);
    second.take_over().unwrap();
    for writes in [vec![redeem(&authorization(1))], vec![Write::Purge(1, 1)]] {
        let error = first.commit(&writes).unwrap_err();
        assert!(!error.may_have_happened(), "{error}");
        assert!(error.to_string().contains("taken over"), "{error}");
    }
    assert!(first.reopen().is_err(), "and it does not take it back");
    done(&second, &[redeem(&authorization(1))]);
    // Who does not serve is nobody's rival.
    done(&schema.open(), &[authorize(authorization(2))]);
}

#[test]
fn a_password_in_the_url_is_refused() {
    let config = PostgresConfig::new("postgresql://fob:hunter2@127.0.0.1/fob");
    let refused = Postgres::open(config).map(drop).unwrap_err();
    assert!(!refused.to_string().contains("hunter2"), "{refused}");
    assert!(refused.to_string().contains("password"), "{refused}");
}
