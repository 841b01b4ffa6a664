//! Ids, secrets and jitter: where randomness comes in.

use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::rand;

use crate::domain::id::uuid_v7;
use crate::domain::{AuthorizationId, FleetId, TokenId};

/// Makes ids. Bundle ids count up from a random start, so that no two of one process agree within
/// a millisecond; authorization ids ascend, so that lists come oldest first.
#[derive(Debug)]
pub struct Ids {
    bundles: AtomicU64,
    /// The last authorization's time: milliseconds and, below them, 12 bits that count.
    authorizations: AtomicU64,
}

impl Default for Ids {
    fn default() -> Self {
        Self::new()
    }
}

impl Ids {
    /// With a random start.
    pub fn new() -> Self {
        Self {
            // Far from where the 46 bits that count run over.
            bundles: AtomicU64::new(u64::from_be_bytes(random()) >> 19),
            authorizations: AtomicU64::new(0),
        }
    }

    /// Random bytes.
    pub fn random<const N: usize>(&self) -> [u8; N] {
        random()
    }

    /// What makes the ids of `count` bundles unique: the first of so many numbers in a row.
    pub fn bundles(&self, count: u64) -> u64 {
        self.bundles.fetch_add(count, Ordering::Relaxed)
    }

    /// An authorization's id.
    pub fn authorization(&self, unix_ms: u64) -> AuthorizationId {
        // Where the counter runs over within a millisecond, ids run ahead of the clock a little
        // (RFC 9562 §6.2, method 1).
        let next = |last: u64| last.saturating_add(1).max(unix_ms << 12);
        let last = self
            .authorizations
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| {
                Some(next(last))
            });
        let stamp = next(last.unwrap_or_else(|last| last));
        let mut random: [u8; 10] = random();
        random[..2].copy_from_slice(&((stamp & 0xfff) as u16).to_be_bytes());
        AuthorizationId(uuid_v7(stamp >> 12, random))
    }

    /// A fleet's id.
    pub fn fleet(&self, unix_ms: u64) -> FleetId {
        FleetId(uuid_v7(unix_ms, random()))
    }

    /// A token's public handle.
    pub fn token(&self, unix_ms: u64) -> TokenId {
        TokenId(uuid_v7(unix_ms, random()))
    }
}

/// Random bytes from the operating system's generator, through AWS-LC's.
#[expect(
    clippy::expect_used,
    reason = "AWS-LC's generator does not fail once it is seeded"
)]
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).expect("the random generator works");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::BundleId;

    #[test]
    fn authorization_ids_ascend_even_where_the_clock_stands_or_steps_back() {
        let ids = Ids::new();
        let times = std::iter::repeat_n(1_790_000_000_000, 10_000).chain([1_789_999_999_000]);
        let made: Vec<_> = times.map(|unix_ms| ids.authorization(unix_ms)).collect();
        assert!(made.is_sorted_by(|a, b| a < b));
        assert_eq!(made[0].0[..6], 1_790_000_000_000_u64.to_be_bytes()[2..]);
        assert!(made.iter().all(|id| id.0[6] >> 4 == 7 && id.0[8] >> 6 == 2));
    }

    #[test]
    fn bundle_ids_of_one_millisecond_differ() {
        let ids = Ids::new();
        let mut made: Vec<_> = (0..10_000)
            .map(|_| BundleId::new(1, ids.bundles(1)))
            .collect();
        made.sort_unstable();
        made.dedup();
        assert_eq!(made.len(), 10_000);
    }
}
