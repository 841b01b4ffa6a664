//! What only PostgreSQL has: a schema that is brought up to date by hand, rounds that are counted,
//! other nodes, and connections that break.

use std::path::PathBuf;
use std::sync::Arc;

use fob::domain::{AuthorizationId, FleetId};
use fob::store::postgres::{Migrated, Postgres, PostgresConfig};
use fob::store::{Applied, BundleKey, SignedBundle, Store as _, StoreError, Write};

use super::conformance::{Place, conformance};
use super::sample::*;
use crate::support::database::{Schema, Server};

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

/// More orders than one statement takes, so that some are sent while others are decided.
fn many_orders() -> Vec<SignedBundle> {
    let each = |high: u8| (0..=255).map(move |low| (high, low));
    let orders = (0..3).flat_map(each).map(|(high, low)| {
        let mut bundle = order(low, None).signed;
        bundle.bundle.id.0[2] = 0xc0 + high;
        bundle.bundle.authorization = AuthorizationId(bundle.bundle.id.0);
        bundle
    });
    orders.collect()
}

fn ordered(signed: &SignedBundle) -> Write {
    let mut ordered = order(0, None);
    ordered.signed = signed.clone();
    Write::Redeem(Arc::new(ordered))
}

#[test]
fn what_was_sent_early_is_taken_back_with_its_transaction() {
    let schema = <Schema as Place>::new();
    let store = schema.open();
    done(&store, &world());
    let orders = many_orders();
    let writes: Vec<_> = orders.iter().map(ordered).collect();
    // Its id is found to be taken when most of the others have been sent.
    done(&schema.open(), &writes[9..10]);
    // What bundles have in common is taken back too, and written once more.
    schema.execute("DELETE FROM contexts");
    let answers = commit(&store, &writes);
    for (at, answer) in answers.iter().enumerate() {
        let expected = match at {
            9 => Applied::Conflict,
            _ => Applied::Done,
        };
        assert_eq!(*answer, expected, "order {at}");
    }
    for signed in &orders {
        let found = store.bundle(BundleKey::Id(signed.bundle.id));
        assert_eq!(found.unwrap().as_ref(), Some(signed));
    }
}

#[test]
fn a_store_whose_last_transaction_is_gone_commits_no_more() {
    let schema = <Schema as Place>::new();
    let store = schema.open();
    done(&store, &world());
    schema.execute("DELETE FROM transactions");
    let writes = [authorize(authorization(1))];
    assert!(store.commit(&writes).is_err());
    let why = store.reopen().unwrap_err().to_string();
    assert!(why.contains("put back from a backup"), "{why}");
    let made = "SELECT count(*) FROM authorizations";
    assert_eq!(schema.execute(made).as_deref(), Some("0"));
}

#[test]
fn the_caller_has_time_while_the_database_works() {
    let schema = <Schema as Place>::new();
    let store = schema.open();
    done(&store, &world());
    let orders = many_orders();
    let writes: Vec<_> = orders.iter().map(ordered).collect();
    let mut called = 0;
    let applied = store.commit_beside(&writes, &mut || called += 1);
    assert!(applied.unwrap().iter().all(|it| *it == Applied::Done));
    assert!(called > 0, "it was not called");
}

#[test]
fn a_password_in_the_url_is_refused() {
    let config = PostgresConfig::new("postgresql://fob:hunter2@127.0.0.1/fob");
    let refused = Postgres::open(config).map(drop).unwrap_err();
    assert!(!refused.to_string().contains("hunter2"), "{refused}");
    assert!(refused.to_string().contains("password"), "{refused}");
}

#[test]
fn over_a_network_the_server_proves_its_name_and_takes_a_password() {
    let (server, port) = Server::with_tls("hunter2");
    let url = |host: &str| format!("postgresql://fob@{host}:{port}/postgres?sslmode=require");
    let config = |host: &str, ca: Option<PathBuf>, password: Option<&str>| PostgresConfig {
        tls_ca: ca,
        password: password.map(Into::into),
        ..PostgresConfig::new(&url(host))
    };
    let ca = || Some(server.certificate());
    let good = || config("127.0.0.1", ca(), Some("hunter2"));
    for (why, refused) in [
        (
            "unknown to the system",
            config("127.0.0.1", None, Some("hunter2")),
        ),
        ("another name", config("localhost", ca(), Some("hunter2"))),
        (
            "another password",
            config("127.0.0.1", ca(), Some("hunter3")),
        ),
        ("no password", config("127.0.0.1", ca(), None)),
        (
            "no certificate",
            config("127.0.0.1", Some("/dev/null".into()), Some("hunter2")),
        ),
    ] {
        let error = Postgres::create(refused).map(drop).unwrap_err();
        assert!(matches!(error, StoreError::Failed(_)), "{why}: {error}");
        assert!(!error.to_string().contains("hunter"), "{why}: {error}");
    }
    done(&Postgres::create(good()).unwrap(), &world());
    let in_the_clear = PostgresConfig {
        url: url("127.0.0.1").replace("require", "disable"),
        ..good()
    };
    assert!(
        Postgres::open(in_the_clear).is_err(),
        "the server asks for TLS"
    );
    Postgres::open(good()).unwrap();
}
