//! Lists of operations on one vehicle, two at a time: as proptest thinks them up, and those that
//! are kept ([`kept`]).
//!
//! A failure is any of these, looked for after each step over everything that was ever issued:
//! - a key that is valid on its list, not expired and of the vehicle's epoch, that its
//!   authorization does not grant;
//! - a key that is suspended for a reason that does not hold, or is not for one that does: its
//!   function (which a model keeps), its authorization, its identity, its vehicle;
//! - a function that a redeemed authorization grants, for which the bundle as it stands has no
//!   key of the vehicle's epoch, valid unless one of these suspends it;
//! - a book that, loaded from the store, says something else than the one in memory;
//! - a fault where there should be a refusal.
//!
//! What fails is printed as it has to be written into `kept.rs`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::cell::Cell;

use fob::domain::change::Action;
use fob::domain::{IdentityId, VehicleId};
use futures_util::future::join;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::runtime::Runtime;

use Op::{OnIdentity, OnVehicle};

use crate::support::inside::Inside;
use world::World;

mod kept;
mod world;

/// What is done to one of the authorizations there are, by its number.
#[derive(Clone, Debug)]
enum Op {
    Authorize(u8),
    Redeem(usize),
    Change(usize, u8, u64),
    Act(usize, Action),
    /// To every key of a function.
    OnKey(usize, u16, Action),
    OnVehicle(Action),
    OnIdentity(Action),
    Reset(Option<usize>),
    Rebind(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let one = 0..8_usize;
    let functions = 1..32_u8;
    prop_oneof![
        3 => functions.clone().prop_map(Op::Authorize),
        5 => one.clone().prop_map(Op::Redeem),
        5 => (one.clone(), functions, 1..4_u64).prop_map(|(at, mask, hours)| Op::Change(at, mask, hours)),
        2 => one.clone().prop_map(|at| Op::Act(at, Action::Suspend)),
        3 => one.clone().prop_map(|at| Op::Act(at, Action::Resume)),
        1 => one.clone().prop_map(|at| Op::Act(at, Action::Cancel)),
        5 => (one.clone(), 1..6_u16, action()).prop_map(|(at, function, action)| {
            Op::OnKey(at, function, action)
        }),
        4 => action().prop_map(OnVehicle),
        4 => action().prop_map(OnIdentity),
        4 => proptest::option::of(one.clone()).prop_map(Op::Reset),
        3 => one.prop_map(Op::Rebind),
    ]
}

/// Ends are rarer, or nothing would be left.
fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => Just(Action::Suspend),
        5 => Just(Action::Resume),
        1 => Just(Action::Cancel),
    ]
}

/// An issuer, and which of its vehicles and identities the next list is for.
struct Simulation {
    inside: Inside,
    runtime: Runtime,
    case: Cell<u32>,
}

impl Simulation {
    fn new(label: &str) -> Self {
        let inside = Inside::start(label, |settings| {
            // Lists change far more often here than anywhere.
            settings.list_ahead_max_s = 1_000_000;
        });
        Self {
            inside,
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap(),
            case: Cell::new(0),
        }
    }

    /// All that has come of it fits together.
    fn audit(&self) {
        let flaws = self.inside.flaws();
        assert!(flaws.is_empty(), "{} {:#?}", flaws.len(), flaws.first());
    }

    /// Carries a list out, and looks at everything after each step.
    fn run(&self, steps: &[(Op, Op)]) {
        self.case.set(self.case.get() + 1);
        let number = 1 + self.case.get() % 100;
        let back_end = self.inside.back_end();
        let vehicle = VehicleId::parse(&format!("DEMO-{number:04}")).unwrap();
        let identity = IdentityId::parse(&format!("renter-{number}")).unwrap();
        let world = World::new(&self.inside, back_end, vehicle, identity);
        // A case before may have left them suspended.
        for op in [OnVehicle(Action::Resume), OnIdentity(Action::Resume)] {
            self.runtime.block_on(world.run(&op));
        }
        for (one, other) in steps {
            self.runtime
                .block_on(join(world.run(one), world.run(other)));
            world.learn(one, other);
            world.check();
        }
        world.check_loaded();
        self.runtime.block_on(world.run(&OnVehicle(Action::Cancel)));
    }
}

#[test]
fn whatever_is_done_no_key_is_left_that_is_not_granted() {
    let simulation = Simulation::new("simulation");
    let mut config = Config {
        failure_persistence: None,
        ..Config::default()
    };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = 384;
    }
    let mut runner = TestRunner::new(config);
    let steps = proptest::collection::vec((op(), op()), 1..24);
    // What a list that failed is shrunk to is tried as often as what is kept: the two operations of
    // a step do not always meet in the same way.
    let failed = Cell::new(false);
    let run = runner.run(&steps, |steps| {
        let times = if failed.replace(true) { kept::TIMES } else { 1 };
        for _ in 0..times {
            simulation.run(&steps);
        }
        failed.set(times > 1);
        Ok(())
    });
    run.unwrap();
    simulation.audit();
}

#[test]
fn what_is_kept_goes_on_to_hold() {
    let simulation = Simulation::new("simulation-kept");
    for (why, steps) in kept::all() {
        for _ in 0..kept::TIMES {
            println!("{why}");
            simulation.run(&steps);
        }
    }
    simulation.audit();
}
