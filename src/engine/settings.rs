//! What the engine is told: addresses and bounds, checked by the configuration.

use std::time::Duration;

use crate::domain::{Schedule, Signing};

/// Addresses and bounds. Every queue, batch and wait has one.
#[derive(Clone, Debug)]
pub struct EngineSettings {
    /// The server's address as clients see it: `aud`, `htu`, links; no trailing slash.
    pub public_url: String,
    /// Where status lists are; signed into every key. No trailing slash.
    pub status_url: String,
    /// The most redemptions, and the most other writes, that may wait.
    pub queue_len_max: usize,
    /// How long a redemption may wait to be batched: while the one at the head of the queue has
    /// waited longer, and it is not alone, no more are let in.
    pub queue_wait_max: Duration,
    /// The most bundles in one batch.
    pub batch_bundles_max: usize,
    /// How long keys may wait for the HSM: when more wait than it signs one by one within this
    /// time, those that leave it open are signed in a tree.
    pub latency_goal: Duration,
    /// How long the HSM may be busy with one batch: no more keys of a batch are signed one by one
    /// than it signs within this time.
    pub batch_signing_max: Duration,
    /// How keys are signed where neither authorization nor fleet says.
    pub signing: Signing,
    /// How long a batch may wait to become full; zero closes it as soon as the queue is empty.
    pub batch_age: Duration,
    /// The most requests that may wait for one code set.
    pub waiters_max: usize,
    /// One signature of so many is verified before the commit; zero verifies none.
    pub verify_one_in: u64,
    /// The furthest a key may reach beyond its issue, in seconds.
    pub key_lifetime_max_s: u64,
    /// For how long a status list is fresh, in seconds; it is signed anew before half of that.
    pub list_ttl_s: u32,
    /// For how long a status list is believed at all, in seconds.
    pub list_lifetime_s: u64,
    /// By how many seconds a list may be ahead of the clock: one that changes again within a second
    /// is signed at once, so many times, and then waits for the clock.
    pub list_ahead_max_s: u64,
    /// When epochs rotate, and when to say that too few are prepared.
    pub schedule: Schedule,
    /// A step of an operator takes effect only with the signed approval of another.
    pub dual_control: bool,
    /// How long what is over is kept, in seconds.
    pub retain_for_s: u64,
    /// How long a caller waits before it is told to ask again.
    pub answer_within: Duration,
    /// For how long a node takes what only one node does at a time, where several share a store.
    pub lease: Duration,
    /// Threads that prepare batches.
    pub prepare_threads: usize,
}

impl EngineSettings {
    /// The defaults, for a server at `public_url`.
    pub fn new(public_url: &str) -> Self {
        Self {
            public_url: public_url.into(),
            status_url: format!("{public_url}/v1/status"),
            queue_len_max: 16_384,
            queue_wait_max: Duration::from_millis(50),
            batch_bundles_max: 2048,
            latency_goal: Duration::from_millis(2),
            batch_signing_max: Duration::from_millis(50),
            signing: Signing::Auto,
            batch_age: Duration::ZERO,
            waiters_max: 1024,
            verify_one_in: 64,
            key_lifetime_max_s: 731 * 86_400,
            list_ttl_s: 3600,
            list_lifetime_s: 7 * 86_400,
            list_ahead_max_s: 10,
            schedule: Schedule {
                rotate_every_s: None,
                overlap_s: 30 * 86_400,
                warn_before_s: 30 * 86_400,
            },
            dual_control: false,
            retain_for_s: 90 * 86_400,
            answer_within: super::ANSWER_WITHIN,
            lease: Duration::from_secs(10),
            prepare_threads: std::thread::available_parallelism().map_or(2, usize::from),
        }
    }
}
