//! Whether a node serves from the database that is to be fenced: what it does meanwhile would be
//! fenced off or not, as it happens.
//!
//! Nodes say in the database that they are there. One that was killed a moment ago has said so too,
//! and so has one of which the backup says it; so it is waited for whether any says it again. One
//! whose row went with what is missing in the backup makes it anew.

use std::time::Duration;

use anyhow::{Context, bail};
use indicatif::ProgressBar;

use crate::cli::place;
use crate::clock::{Clock as _, SystemClock};
use crate::config::{Config, StoreConfig};
use crate::store::postgres::{Postgres, ThereNode};

/// How long nodes are listened for at most: three times as long as one may be silent.
const LISTEN_MAX: Duration = Duration::from_secs(30);

/// How often it is looked meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Refuses a database that a node serves from. A file has its folder's lock for that.
pub(super) fn check(config: &Config) -> anyhow::Result<()> {
    let StoreConfig::Postgres { at, password_file } = &config.store else {
        return Ok(());
    };
    let store = place::database(at, password_file.as_deref())?;
    let listen = config.engine.lease.min(LISTEN_MAX);
    let bar = ProgressBar::new_spinner().with_message(format!(
        "listening for {} s whether a node serves",
        listen.as_secs()
    ));
    bar.enable_steady_tick(Duration::from_millis(200));
    let there = listen_for(&store, listen);
    bar.finish_and_clear();
    match &there.context("the database ([store] url)")?[..] {
        [] => Ok(()),
        nodes => {
            let nodes: Vec<_> = nodes.iter().map(text).collect();
            bail!(
                "this database is served from: {}. Stop every server, and run this again",
                nodes.join("; ")
            )
        }
    }
}

/// The nodes that say within that time that they are there; at once where there are some.
fn listen_for(store: &Postgres, listen: Duration) -> anyhow::Result<Vec<ThereNode>> {
    let (since, began) = (store.clock_us()?, SystemClock.monotonic());
    loop {
        let over = SystemClock.monotonic().saturating_sub(began) >= listen;
        let there = store.there_since(since)?;
        if over || !there.is_empty() {
            return Ok(there);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn text(node: &ThereNode) -> String {
    let holds = match &node.holds {
        Some(tasks) => format!(", and holds leases ({tasks})"),
        None => String::new(),
    };
    let (number, ago) = (node.number, node.ago_ms);
    format!("node {number} was there {ago} ms ago by the database's clock{holds}")
}
