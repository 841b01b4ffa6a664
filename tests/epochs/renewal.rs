//! Bundles that are signed again while HSM or store fail, and while the epoch that does it is
//! revoked itself.

use std::thread;

use fob::domain::{BundleId, EpochId, RefusalCode};
use fob::engine::renew::Slice;
use fob::store::{Applied, BundleKey, SignedBundle, Store as _};

use super::life::{revoke, take};
use super::*;
use crate::support::Phone;
use crate::support::inside::{Fault, Inside};

/// A server in this process with one bundle, and the epoch that signed it, which is revoked.
struct Drill {
    inside: Inside,
    bundle: BundleId,
    revoked: EpochId,
}

impl Drill {
    fn new(label: &str) -> Self {
        let inside = Inside::start(label, |_| {});
        let code_set = inside
            .server
            .authorize(&inside.owner, "DEMO-0001", &["doors.unlock"]);
        let answer = inside.server.redeem(&code_set, "renter-1", &Phone::new());
        assert_eq!(answer.status, 201, "{}", answer.text());
        let value = answer.value();
        let drill = Self {
            bundle: BundleId::parse(value["bundle"].as_str().unwrap()).unwrap(),
            revoked: active_of(&inside),
            inside,
        };
        assert_eq!(drill.stands().bundle.epoch, drill.revoked);
        assert_eq!(take(&drill.inside, revoke(drill.revoked)), Applied::Done);
        drill
    }

    fn stands(&self) -> SignedBundle {
        let found = self.inside.store.bundle(BundleKey::Id(self.bundle));
        found.unwrap().unwrap()
    }

    /// One look through what the epoch has signed: bundles signed again, and bundles left.
    fn renew(&self) -> (u64, u64, Option<RefusalCode>) {
        let slice = run(self.inside.engine.renew(self.revoked, None));
        assert_eq!(slice.next, None);
        (
            slice.bundles,
            slice.left,
            slice.problem.map(|refusal| refusal.code),
        )
    }

    fn live(&self) -> u64 {
        run(self.inside.engine.count_live(self.revoked, None)).bundles
    }
}

fn active_of(inside: &Inside) -> EpochId {
    inside.engine.book().active_epoch().unwrap().id
}

fn run(work: impl Future<Output = Result<Slice, fob::engine::Failure>>) -> Slice {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    runtime.unwrap().block_on(work).unwrap()
}

#[test]
fn what_fails_is_found_again_and_what_happened_is_not_done_twice() {
    let drill = Drill::new("renewal-faults");
    let before = drill.stands();
    // A batch is tried twice.
    drill.inside.signer.fail(100);
    let unavailable = Some(RefusalCode::HsmUnavailable);
    assert_eq!(drill.renew(), (0, 1, unavailable));
    assert_eq!((drill.stands(), drill.live()), (before.clone(), 1));
    drill.inside.signer.fail(0);
    wait_until("the HSM signs again", || {
        drill.inside.engine.readiness().ready()
    });
    drill.inside.store.fail(&[Fault::UnknownNotApplied]);
    assert_eq!(drill.renew(), (0, 1, None));
    assert_eq!((drill.stands(), drill.live()), (before.clone(), 1));
    drill.inside.store.fail(&[Fault::UnknownApplied]);
    assert_eq!(drill.renew(), (0, 1, None));
    assert!(drill.inside.store.faults_are_over());
    let after = drill.stands();
    assert_eq!(after.bundle.epoch, active_of(&drill.inside));
    assert_eq!((drill.renew(), drill.live()), ((0, 0, None), 0));
    assert_eq!(drill.stands(), after);
    assert_ne!(after.proof, before.proof);
}

#[test]
fn a_renewal_that_drains_under_a_revoked_epoch_is_not_committed() {
    let drill = Drill::new("renewal-drain");
    let second = active_of(&drill.inside);
    drill.inside.signer.hold();
    let told = thread::scope(|scope| {
        let renewed = scope.spawn(|| drill.renew());
        wait_until("the batch is being signed", || {
            drill.inside.signer.waiting() == 1
        });
        assert_eq!(take(&drill.inside, revoke(second)), Applied::Done);
        drill.inside.signer.release();
        renewed.join().unwrap()
    });
    assert_eq!(told, (0, 1, None));
    assert_eq!(drill.stands().bundle.epoch, drill.revoked);
    assert_eq!(drill.renew(), (1, 0, None));
    let third = active_of(&drill.inside);
    assert!(![drill.revoked, second].contains(&third));
    assert_eq!(drill.stands().bundle.epoch, third);
}

#[test]
fn only_what_a_revoked_epoch_has_signed_is_signed_again() {
    let drill = Drill::new("renewal-revoked");
    for other in [active_of(&drill.inside), EpochId([7; 8])] {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let refused = drill.inside.engine.renew(other, None);
        let refused = runtime.unwrap().block_on(refused).unwrap_err().to_string();
        assert!(
            refused.contains("not revoked") || refused.contains("no such epoch"),
            "{refused}"
        );
    }
    assert_eq!(drill.renew(), (1, 0, None));
}
