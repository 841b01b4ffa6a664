//! What becomes of an issuer whose store was put back from a backup.
//!
//! What happened after the backup was made is not known any more: which code sets were redeemed,
//! which keys were issued, changed and revoked. So nothing that was given out before a restore
//! counts after it, and nothing that is counted (status indexes, vehicle epochs, versions) is
//! counted from where the backup left off. Restores are numbered, and each number has a range of
//! its own of everything that is counted: two restores of the same backup have nothing in common.

use super::status::SHARD_LEN;
use super::time::UnixTime;

/// Bits of a vehicle epoch, and of a status list's number, that count within one restore.
const OWN_BITS: u32 = 16;

/// Versions of an authorization between the last one known and the first after a restore: it may
/// have been changed as often as that since the backup.
const VERSIONS: u32 = 256;

/// Trust lists between the last one known and the first after a restore.
const TRUST_VERSIONS: u32 = 256;

/// Status lists that may have been begun after a backup was made, and are signed as void for whoever
/// asks. More of them would be signed for whoever makes up numbers.
const LISTS_UNKNOWN: u64 = 64;

/// The most restores there can be: what is left of the bits of a vehicle epoch.
pub const RESTORES_MAX: u32 = (1 << (32 - OWN_BITS)) - 1;

/// A restore.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restore {
    /// Its number, from 1; 0 stands for an issuer that was never restored.
    pub number: u32,
    /// When it was.
    pub at: UnixTime,
    /// The lowest version of the trust lists after it.
    pub trust_next: u32,
}

impl Restore {
    /// The restore of this number of a store whose last one was `before`, and whose newest trust
    /// list has version `trust`.
    pub fn after(before: Self, number: u32, at: UnixTime, trust: u32) -> Self {
        let jump = TRUST_VERSIONS.saturating_mul(number.saturating_sub(before.number));
        Self {
            number,
            at,
            trust_next: trust.saturating_add(jump).max(before.trust_next),
        }
    }

    /// The lowest vehicle epoch after it.
    pub const fn vehicle_epoch(self) -> u32 {
        self.number << OWN_BITS
    }

    /// The lowest count of status indexes after it. A fleet goes on from there and what it had
    /// counted within the restore before: so it shows for how many lists that is.
    pub const fn status_next(self) -> u64 {
        (self.number as u64) << OWN_BITS << SHARD_LEN.trailing_zeros()
    }

    /// The bits of a count of status indexes that it keeps.
    pub const STATUS_KEPT: u64 = (1 << OWN_BITS << SHARD_LEN.trailing_zeros()) - 1;

    /// Whether the keys on a status list of this number were issued before it: all of them are
    /// revoked.
    pub const fn voids(self, list: u64) -> bool {
        list >> OWN_BITS < self.number as u64
    }

    /// The version of the trust list after one of version `newest`.
    pub fn trust_after(self, newest: u32) -> u32 {
        newest.saturating_add(1).max(self.trust_next)
    }
}

/// Whether there is, or may have been, a status list of this number, where `newest` is being filled.
pub const fn is_list(number: u64, newest: u64) -> bool {
    const OWN: u64 = (1 << OWN_BITS) - 1;
    if number >> OWN_BITS == newest >> OWN_BITS {
        return number <= newest;
    }
    number < newest && number & OWN <= (newest & OWN) + LISTS_UNKNOWN
}

/// The epoch of a new vehicle in a fleet that has counted so many status indexes: the lowest after
/// the last restore, which has a range of both. A vehicle that was registered after the backup was
/// made, and reset, may be registered again.
pub const fn first_vehicle_epoch(status_next: u64) -> u32 {
    let restores = status_next >> OWN_BITS >> SHARD_LEN.trailing_zeros();
    if restores > RESTORES_MAX as u64 {
        return 0;
    }
    (restores as u32) << OWN_BITS
}

/// The version after `version`, of what was issued at one vehicle epoch and is issued again at
/// another.
pub const fn next_version(version: u32, issued_at: u32, now_at: u32) -> u32 {
    let restores = (now_at >> OWN_BITS).saturating_sub(issued_at >> OWN_BITS);
    match restores {
        0 => version.saturating_add(1),
        restores => version.saturating_add(restores.saturating_mul(VERSIONS)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_restore_has_a_range_of_its_own() {
        let first = Restore::after(Restore::default(), 1, 50, 4);
        let again = Restore::after(Restore::default(), 2, 60, 4);
        let then = Restore::after(first, 2, 70, first.trust_next + 3);
        assert_eq!(Restore::default().vehicle_epoch(), 0);
        assert_eq!(Restore::default().trust_after(4), 5);
        for (earlier, later) in [(first, again), (first, then)] {
            assert!(later.vehicle_epoch() - earlier.vehicle_epoch() == 1 << 16);
            assert!(later.status_next() > earlier.status_next() + (1 << 32));
            assert!(later.trust_next >= earlier.trust_next + 256, "{later:?}");
        }
        assert_eq!(first.trust_after(4), 260);
        assert_eq!(first.trust_after(270), 271);
    }

    #[test]
    fn keys_of_before_are_void_and_others_are_not() {
        let restore = Restore::after(Restore::default(), 2, 0, 0);
        let list = restore.status_next() / SHARD_LEN;
        assert!(restore.voids(0) && restore.voids(list - 1));
        assert!(!restore.voids(list) && !Restore::default().voids(0));
    }

    #[test]
    fn lists_are_those_that_may_have_been_used() {
        let restore = Restore::after(Restore::default(), 2, 0, 0);
        let newest = restore.status_next() / SHARD_LEN + 3;
        for (number, there) in [
            (0, true),
            (3 + LISTS_UNKNOWN, true),
            (3 + LISTS_UNKNOWN + 1, false),
            ((1 << OWN_BITS) + 3, true),
            ((1 << OWN_BITS) - 1, false),
            (newest, true),
            (newest - 3, true),
            (newest + 1, false),
            (3 << OWN_BITS, false),
        ] {
            assert_eq!(is_list(number, newest), there, "{number}");
        }
        assert!(is_list(0, 0) && is_list(4, 5) && !is_list(6, 5));
    }

    #[test]
    fn a_new_vehicle_begins_where_others_were_raised_to() {
        let restore = Restore::after(Restore::default(), 3, 0, 0);
        assert_eq!(first_vehicle_epoch(0), 0);
        for counted in [0, 1, u64::from(u32::MAX)] {
            let epoch = first_vehicle_epoch(restore.status_next() + counted);
            assert_eq!(epoch, restore.vehicle_epoch());
        }
    }

    #[test]
    fn versions_jump_once_for_each_restore_in_between() {
        assert_eq!(next_version(3, 7, 8), 4);
        assert_eq!(next_version(3, 7, 1 << 16), 3 + 256);
        assert_eq!(next_version(3, 7, 2 << 16), 3 + 512);
        assert_eq!(next_version(260, 1 << 16, (1 << 16) + 9), 261);
    }
}
