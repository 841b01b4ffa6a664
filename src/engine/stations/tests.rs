//! Which station a batch goes to, on a clock that is set.

use std::sync::atomic::AtomicU64;

use fob_verify::IssuerKey;

use super::*;
use crate::domain::{EpochId, Window};
use crate::hsm::{HsmError, Signature};
use crate::store::{Applied, Write};

/// A token that is never asked: here it is decided whom to ask.
struct Unasked;

impl Signer for Unasked {
    fn sign_all(&self, _: &KeyRef, _: &[&[u8]]) -> Result<Vec<Signature>, HsmError> {
        Err(HsmError::NoFreeSlot)
    }

    fn status(&self) -> TokenStatus {
        TokenStatus::default()
    }
}

/// Goes on by a tenth of a second with every look.
#[derive(Default)]
struct Ticking(AtomicU64);

impl Clock for Ticking {
    fn unix_ms(&self) -> u64 {
        50_000
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(5_000 + 100 * self.0.fetch_add(1, Ordering::Relaxed))
    }
}

fn epoch(serial: &str, id: u8) -> Epoch {
    // The public key of RFC 8032 §7.1, test 1: nobody looks at it.
    let hex = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    let byte = |at: usize| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("hex");
    Epoch {
        id: EpochId([id; 8]),
        key: IssuerKey::new_ed25519(&std::array::from_fn(byte)).expect("a point"),
        cka_id: [id; 16],
        token_serial: serial.into(),
        window: Window {
            not_before: 0,
            not_after: 100,
        },
        state: EpochState::Active,
        created_at: 0,
        activated_at: Some(0),
    }
}

struct Scene {
    book: Book,
    clock: Ticking,
    stations: Stations,
    to_sign: Vec<Sender<PreparedBatch>>,
    _desks: Vec<Desk>,
}

impl Scene {
    /// Two tokens, `1` and `2`, and these epochs.
    fn new(epochs: &[Epoch]) -> Self {
        let book = Book::default();
        for epoch in epochs {
            book.apply(&Write::Epoch(epoch.clone()), Applied::Done);
        }
        let token = |serial: &str| Issuing {
            name: serial.into(),
            serial: Some(serial.into()),
            alone: false,
            signer: Arc::new(Unasked),
        };
        let (stations, desks) = Stations::new(vec![token("1"), token("2")]);
        Self {
            book,
            clock: Ticking::default(),
            stations,
            to_sign: desks.iter().map(|desk| desk.to_sign.clone()).collect(),
            _desks: desks,
        }
    }

    /// The station's number, and the epoch's.
    fn choose(&self) -> Option<(usize, u8)> {
        let chosen = self
            .stations
            .choose(&self.to_sign, &self.book, &self.clock)?;
        Some((chosen.at, chosen.epoch.id.0[0]))
    }

    fn fail(&self, at: usize) {
        self.stations
            .fail(at, &self.clock, &epoch("1", 1), "a fault made by a test");
    }
}

#[test]
fn the_least_busy_station_that_is_up_is_chosen() {
    let scene = Scene::new(&[epoch("1", 1), epoch("2", 2)]);
    assert_eq!(scene.choose(), Some((0, 1)));
    scene.stations.hand_over(0, 10);
    assert_eq!(scene.choose(), Some((1, 2)));
    scene.stations.hand_over(1, 20);
    assert_eq!(scene.choose(), Some((0, 1)));
    // One that is ten times as fast is done first, with more before it.
    let second = Duration::from_secs(1);
    scene.stations.get(0).pace.learn(500, second);
    scene.stations.get(1).pace.learn(5_000, second);
    assert_eq!(scene.choose(), Some((1, 2)));
    scene.fail(1);
    assert_eq!(scene.choose(), Some((0, 1)));
    scene.stations.recover(1);
    assert_eq!(scene.choose(), Some((1, 2)));
}

#[test]
fn outside_of_batches_the_least_busy_one_is_picked_without_waiting() {
    let scene = Scene::new(&[epoch("1", 1), epoch("2", 2)]);
    let pick = || {
        let (at, epoch) = scene.stations.pick(&scene.book, 50)?;
        Some((at, epoch.id.0[0]))
    };
    assert_eq!(pick(), Some((0, 1)));
    scene.stations.hand_over(0, 10);
    assert_eq!(pick(), Some((1, 2)));
    scene.fail(1);
    assert_eq!(pick(), Some((0, 1)));
    scene.fail(0);
    assert_eq!(pick(), None);
    scene.stations.recover(1);
    assert_eq!(pick(), Some((1, 2)));
    assert!(
        scene.stations.pick(&scene.book, 100).is_none(),
        "it is over"
    );
}

#[test]
fn patience_ends_a_second_after_the_last_failure() {
    let scene = Scene::new(&[epoch("1", 1), epoch("2", 2)]);
    scene.fail(0);
    scene.fail(1);
    assert!(scene.stations.all_down());
    let before = scene.clock.0.load(Ordering::Relaxed);
    assert_eq!(scene.choose(), None);
    let looks = scene.clock.0.load(Ordering::Relaxed) - before;
    assert!((9..=11).contains(&looks), "it has waited: {looks} looks");
    assert_eq!(scene.choose(), None);
    scene.stations.recover(0);
    assert_eq!(scene.choose(), Some((0, 1)));
}

#[test]
fn a_station_without_an_epoch_is_not_chosen_and_not_waited_for() {
    let scene = Scene::new(&[epoch("1", 1)]);
    assert!(scene.stations.any_open(&scene.book, 50));
    assert!(
        !scene.stations.any_open(&scene.book, 100),
        "its window is over"
    );
    scene.fail(0);
    // The other is up, and has nothing to sign under.
    assert!(!scene.stations.any_open(&scene.book, 50));
    assert_eq!(scene.choose(), None);
    assert_eq!(Scene::new(&[]).choose(), None);
}
