//! Damaged files and transactions that fail midway: an error each time, and nothing worse.

use std::sync::Arc;

use fob::store::sqlite::Sqlite;
use fob::store::{BundleKey, Store, StoreError, Write};

use super::conformance::Place;
use super::sample::*;
use super::sqlite::Folder;

#[test]
fn what_cannot_be_read_is_corrupt_and_nothing_worse() {
    let key = BundleKey::Authorization(authorization_id(1));
    type Ask = fn(&Sqlite) -> Result<(), StoreError>;
    let damages: [(&str, Ask); 2] = [
        (
            "UPDATE packs SET format = 1
             UPDATE packs SET body = x'80'
             UPDATE packs SET body = x'4180'
             UPDATE packs SET fleet = 77
             UPDATE packs SET epoch = 77
             DELETE FROM contexts",
            |store| {
                store
                    .bundle(BundleKey::Authorization(authorization_id(1)))
                    .map(drop)
            },
        ),
        (
            "UPDATE authorizations SET body = x'8100'
             UPDATE authorizations SET format = 0
             UPDATE authorizations SET state = 4
             UPDATE authorizations SET fleet = 77
             UPDATE authorizations SET vehicle = 77
             UPDATE vehicles SET functions = x'9f01ff'
             UPDATE vehicles SET key = x'00'
             UPDATE fleets SET name = 'a b'
             UPDATE fleets SET status_next = -1
             UPDATE epochs SET key = x'a0'",
            |store| store.load(&mut |_| ()),
        ),
    ];
    for (damages, ask) in damages {
        for damage in damages.lines() {
            let folder = Folder::new();
            let store = folder.open();
            done(&store, &world());
            done(
                &store,
                &[authorize(authorization(1)), redeem(&authorization(1))],
            );
            assert!(ask(&store).is_ok() && store.bundle(key).is_ok());
            folder.connection().execute(damage, []).unwrap();
            assert!(
                matches!(ask(&store), Err(StoreError::Corrupt(_))),
                "{damage}"
            );
        }
    }
}

#[test]
fn a_transaction_that_fails_midway_leaves_nothing_to_trip_over() {
    let folder = Folder::new();
    let store = folder.open();
    done(&store, &world());
    let (good, bad) = (authorization(1), authorization(2));
    let mut impossible = redemption(&bad);
    impossible.status_next = u64::MAX;
    let writes = [
        authorize(good.clone()),
        authorize(bad),
        redeem(&good),
        Write::Redeem(Arc::new(impossible)),
    ];
    let before = rows(&store);
    assert!(matches!(store.commit(&writes), Err(StoreError::Failed(_))));
    assert_eq!(rows(&store), before);
    // What the writer remembered of it would now be wrong.
    done(&store, &writes[..3]);
    let found = store.bundle(BundleKey::Authorization(good.id)).unwrap();
    assert_eq!(found, Some(signed_bundle(&good)));
}
