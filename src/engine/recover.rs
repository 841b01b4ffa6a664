//! Recovery: what happens after a commit that failed, or that nobody knows the outcome of.
//!
//! The pipeline stands still meanwhile and the door says `store_unavailable`. The book is loaded
//! by the function that loads it at start; a redemption whose outcome is unknown stays reserved
//! until it has been read back, and is then answered or committed like any other.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Shared;
use super::commit::{Group, Waiter, refuse};
use super::reserve::Outcome;
use crate::concurrent::thread;
use crate::store::{BundleKey, Write};

/// How long to wait before the next attempt, doubling from the first to the last.
const WAIT_MIN: Duration = Duration::from_millis(20);
const WAIT_MAX: Duration = Duration::from_secs(1);

/// Attempts made while the server is shutting down, before what is in doubt is left to the next
/// start.
const DRAINING_ATTEMPTS_MAX: u32 = 8;

/// Reopens the store and loads the book, for as long as it takes. Returns whether it succeeded;
/// it gives up only where the server is shutting down.
pub(super) fn reopen(shared: &Shared) -> bool {
    let mut wait = WAIT_MIN;
    let mut draining_attempts = 0;
    let mut attempts = 0_u64;
    loop {
        let began = shared.clock.monotonic();
        let opened = shared
            .store
            .reopen()
            .and_then(|()| shared.book.load(&*shared.store));
        match opened {
            Ok(()) => {
                if let Some(node) = &shared.nodes {
                    node.heard(began);
                }
                shared.health.store_down.store(false, Ordering::Relaxed);
                tracing::info!("the store is open again");
                return true;
            }
            Err(error) => {
                attempts += 1;
                // Not every attempt is worth a line, but an outage that lasts is.
                if attempts.is_power_of_two() {
                    tracing::warn!(%error, attempts, "the store does not open yet");
                }
            }
        }
        if shared.health.draining.load(Ordering::Relaxed) {
            draining_attempts += 1;
            if draining_attempts >= DRAINING_ATTEMPTS_MAX {
                return false;
            }
        }
        thread::sleep(wait);
        wait = (wait * 2).min(WAIT_MAX);
    }
}

/// Reads back what is in doubt. Returns the redemptions that did not happen, to be committed.
///
/// Other writes are not tried again: whoever asked for them is told, and may ask again. The
/// transaction is there whole or not at all: where one of its redemptions is found, those that are
/// not were refused.
pub(super) fn settle(shared: &Shared, group: Group, may_have_happened: bool) -> Group {
    let Group {
        writes, waiters, ..
    } = group;
    let mut again = Group::default();
    let mut others = Group::default();
    let (mut found, mut absent) = (Vec::new(), Vec::new());
    for waiter in waiters {
        let (ticket, redemption) = match waiter {
            Waiter::Redemption(ticket, redemption) => (ticket, redemption),
            // Whether it happened is read from the store by whoever has bundles signed again.
            Waiter::Renewal(ticket) => {
                ticket.resolve(Outcome::Released);
                continue;
            }
            Waiter::Writes(..) => {
                others.waiters.push(waiter);
                continue;
            }
        };
        let bundle = &redemption.signed.bundle;
        match shared
            .store
            .bundle(BundleKey::Authorization(bundle.authorization))
        {
            Ok(Some(is)) if is.bundle.id == bundle.id => {
                found.push(Write::Redeem(Arc::clone(&redemption)));
                ticket.resolve(Outcome::Issued(redemption));
            }
            Ok(Some(_)) => ticket.resolve(Outcome::Released),
            Ok(None) => absent.push((ticket, redemption)),
            // Not readable is not the same as not there: the commit's conditions will tell.
            Err(_) => {
                again.in_doubt = true;
                again.push_redemption(ticket, redemption);
            }
        }
    }
    for (ticket, redemption) in absent {
        match found.is_empty() {
            true => again.push_redemption(ticket, redemption),
            false => ticket.resolve(Outcome::Released),
        }
    }
    refuse(others);
    let kept = [&found[..], &again.writes].concat();
    if !may_have_happened {
        shared.tally.let_go(&writes, &kept);
    } else if !again.in_doubt {
        // What became of the others is not known, and is said of none of them.
        let redemptions = writes.iter().filter(|it| matches!(it, Write::Redeem(_)));
        let redemptions: Vec<_> = redemptions.cloned().collect();
        shared.tally.let_go(&redemptions, &kept);
    }
    again
}
