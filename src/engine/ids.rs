//! Ids, secrets and jitter: where randomness comes in.

use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::rand;

use crate::domain::id::uuid_v7;
use crate::domain::{AuthorizationId, BundleId, FleetId, TokenId};

/// Makes ids. Bundle ids count up from a random start, so that no two of one process agree within
/// a millisecond.
#[derive(Debug)]
pub struct Ids {
    bundles: AtomicU64,
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
            bundles: AtomicU64::new(u64::from_be_bytes(random())),
        }
    }

    /// Random bytes.
    pub fn random<const N: usize>(&self) -> [u8; N] {
        random()
    }

    /// A bundle's id.
    pub fn bundle(&self, unix_ms: u64) -> BundleId {
        BundleId::new(unix_ms, self.bundles.fetch_add(1, Ordering::Relaxed))
    }

    /// An authorization's id.
    pub fn authorization(&self, unix_ms: u64) -> AuthorizationId {
        AuthorizationId(uuid_v7(unix_ms, random()))
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

    #[test]
    fn bundle_ids_of_one_millisecond_differ() {
        let ids = Ids::new();
        let mut made: Vec<_> = (0..10_000).map(|_| ids.bundle(1)).collect();
        made.sort_unstable();
        made.dedup();
        assert_eq!(made.len(), 10_000);
    }
}
