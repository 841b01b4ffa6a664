//! Epochs: the term of one issuing key pair in one token, and the pure rule of how it goes on.

use std::collections::BTreeSet;

use fob_verify::IssuerKey;

use super::id::EpochId;
use super::time::{UnixTime, Window};

/// Where an epoch stands: `prepared → active → retired`, or `revoked` from any of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EpochState {
    /// In the trust list, not yet signing.
    Prepared,
    /// Signs new keys.
    Active,
    /// Signs no more; what it signed still verifies.
    Retired,
    /// Compromised: no trust list names it any more.
    Revoked,
}

impl EpochState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Prepared, Self::Active, Self::Retired, Self::Revoked];

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Prepared => "prepared",
            Self::Active => "active",
            Self::Retired => "retired",
            Self::Revoked => "revoked",
        }
    }

    /// The state of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// One issuing key pair and its term.
#[derive(Clone, Debug, PartialEq)]
pub struct Epoch {
    /// Its id, the key's `kid`.
    pub id: EpochId,
    /// The public key, with its algorithm.
    pub key: IssuerKey,
    /// `CKA_ID` of the key pair in its token.
    pub cka_id: [u8; 16],
    /// Serial number of that token.
    pub token_serial: String,
    /// In which it may sign, as the trust list says.
    pub window: Window,
    /// Where it stands.
    pub state: EpochState,
    /// When the key pair was generated.
    pub created_at: UnixTime,
}

/// A step of an epoch's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which epoch.
    pub id: EpochId,
    /// What it becomes.
    pub to: EpochState,
}

/// What has to happen to `epochs` at `now`, for exactly one of each token's to be active inside
/// its window.
///
/// An active epoch whose window has closed retires, and the prepared epoch of its token whose
/// window is open and closes first takes over. Where none is ready the active epoch retires all the
/// same: no vehicle would believe what it signs. Of several active epochs of a token the one that
/// began last stays. Calling it again after its changes were applied changes nothing more.
pub fn sweep(epochs: &[Epoch], now: UnixTime) -> Vec<Change> {
    let serials: BTreeSet<_> = epochs.iter().map(|epoch| &epoch.token_serial).collect();
    let of_token = |serial: &String| {
        let own = epochs.iter().filter(|epoch| epoch.token_serial == *serial);
        sweep_token(&own.collect::<Vec<_>>(), now)
    };
    serials.into_iter().flat_map(of_token).collect()
}

fn sweep_token(epochs: &[&Epoch], now: UnixTime) -> Vec<Change> {
    let in_state = |state| epochs.iter().filter(move |epoch| epoch.state == state);
    let stays = in_state(EpochState::Active)
        .filter(|epoch| epoch.window.contains(now))
        .max_by_key(|epoch| (epoch.window.not_before, epoch.id));
    let mut changes: Vec<_> = in_state(EpochState::Active)
        .filter(|epoch| stays.is_none_or(|stays| stays.id != epoch.id))
        .map(|epoch| Change {
            id: epoch.id,
            to: EpochState::Retired,
        })
        .collect();
    if stays.is_none() {
        let next = in_state(EpochState::Prepared)
            .filter(|epoch| epoch.window.contains(now))
            .min_by_key(|epoch| (epoch.window.not_after, epoch.id));
        changes.extend(next.map(|epoch| Change {
            id: epoch.id,
            to: EpochState::Active,
        }));
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Any key: the rule does not look at it.
    fn key() -> IssuerKey {
        // The public key of RFC 8032 §7.1, test 1.
        let hex = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        let byte = |at: usize| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("hex");
        IssuerKey::new_ed25519(&std::array::from_fn(byte)).expect("a point")
    }

    fn epoch(id: u8, not_before: UnixTime, not_after: UnixTime, state: EpochState) -> Epoch {
        Epoch {
            id: EpochId([id; 8]),
            key: key(),
            cka_id: [id; 16],
            token_serial: String::new(),
            window: Window {
                not_before,
                not_after,
            },
            state,
            created_at: 0,
        }
    }

    fn apply(epochs: &mut [Epoch], now: UnixTime) -> Vec<Change> {
        let changes = sweep(epochs, now);
        for change in &changes {
            let epoch = epochs
                .iter_mut()
                .find(|epoch| epoch.id == change.id)
                .expect("a known epoch");
            epoch.state = change.to;
        }
        assert!(
            sweep(epochs, now).is_empty(),
            "a second sweep changes nothing"
        );
        assert!(
            epochs
                .iter()
                .filter(|epoch| epoch.state == EpochState::Active)
                .count()
                <= 1
        );
        changes
    }

    #[test]
    fn the_next_takes_over_when_the_window_closes() {
        use EpochState::{Active, Prepared, Retired};
        let mut epochs = [
            epoch(1, 0, 100, Active),
            epoch(2, 50, 200, Prepared),
            epoch(3, 50, 300, Prepared),
        ];
        assert!(apply(&mut epochs, 99).is_empty());
        apply(&mut epochs, 100);
        assert_eq!(
            epochs.each_ref().map(|epoch| epoch.state),
            [Retired, Active, Prepared]
        );
        apply(&mut epochs, 200);
        assert_eq!(
            epochs.each_ref().map(|epoch| epoch.state),
            [Retired, Retired, Active]
        );
        apply(&mut epochs, 300);
        assert_eq!(
            epochs.each_ref().map(|epoch| epoch.state),
            [Retired, Retired, Retired]
        );
    }

    #[test]
    fn each_token_has_an_active_epoch_of_its_own() {
        use EpochState::{Active, Prepared};
        let of = |serial: &str, epoch: Epoch| Epoch {
            token_serial: serial.into(),
            ..epoch
        };
        let epochs = [
            of("1", epoch(1, 0, 100, Active)),
            of("2", epoch(2, 10, 100, Active)),
            of("3", epoch(3, 10, 100, Prepared)),
        ];
        let changes = sweep(&epochs, 20);
        let takes_over = Change {
            id: EpochId([3; 8]),
            to: Active,
        };
        assert_eq!(changes, [takes_over]);
    }

    #[test]
    fn revoked_epochs_stay_revoked_and_two_active_become_one() {
        use EpochState::{Active, Retired, Revoked};
        let mut epochs = [
            epoch(1, 0, 100, Active),
            epoch(2, 10, 100, Active),
            epoch(3, 0, 100, Revoked),
        ];
        apply(&mut epochs, 20);
        assert_eq!(
            epochs.each_ref().map(|epoch| epoch.state),
            [Retired, Active, Revoked]
        );
    }
}
