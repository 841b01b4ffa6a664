//! `fob epoch revoke --reissue`: every live bundle of a revoked epoch is signed again.
//!
//! The work is done in slices, by the server that holds the directory or, where none does, by an
//! engine in this process. What is left is read from the store at each: whoever is killed, this
//! process or the server, leaves nothing that is not found again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::desk::{Answer, Command};
use super::{Common, place, print, serve, socket};
use crate::config::Config;
use crate::domain::EpochId;
use crate::engine::renew::Slice;
use crate::engine::{Engine, Failure};
use crate::hsm::Tokens;
use crate::store::Cursor;

/// How often a slice that comes to nothing is tried again, and how long after.
const RETRIES_MAX: u32 = 8;
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// One slice, as it crosses the socket.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RenewAsk {
    epoch: EpochId,
    /// Only count what there is to do.
    count: bool,
    /// Where the slice before it left off.
    after: Option<Vec<u8>>,
}

/// What a slice has come to.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RenewTold {
    bundles: u64,
    keys: u64,
    left: u64,
    problem: Option<String>,
    next: Option<Vec<u8>>,
}

impl From<Slice> for RenewTold {
    fn from(slice: Slice) -> Self {
        Self {
            bundles: slice.bundles,
            keys: slice.keys,
            left: slice.left,
            problem: slice.problem.map(|refusal| refusal.to_string()),
            next: slice.next.map(|cursor| cursor.0.into()),
        }
    }
}

/// Has an engine do one slice.
pub(super) async fn slice(engine: &Engine, ask: RenewAsk) -> Result<RenewTold, Failure> {
    let after = ask.after.map(|bytes| Cursor(bytes.into()));
    let slice = if ask.count {
        engine.count_live(ask.epoch, after).await
    } else {
        engine.renew(ask.epoch, after).await
    };
    slice.map(RenewTold::from)
}

/// Who does the work.
enum Hand<'a> {
    /// The server that holds the directory.
    Server(&'a Config),
    /// An engine of this process's own.
    Own(Box<Own>),
}

struct Own {
    engine: Arc<Engine>,
    tokens: Arc<Tokens>,
    runtime: tokio::runtime::Runtime,
    _lock: place::Lock,
}

impl<'a> Hand<'a> {
    fn new(config: &'a Config) -> anyhow::Result<Self> {
        let Some(lock) = place::try_lock(&config.dir)? else {
            return Ok(Self::Server(config));
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()?;
        // Nothing is listened to: the address is that of a server that could be.
        let address: SocketAddr = config.listen;
        let (engine, tokens) = serve::open(config, address)?;
        Ok(Self::Own(Box::new(Own {
            engine: Arc::new(engine),
            tokens,
            runtime,
            _lock: lock,
        })))
    }

    fn ask(&self, ask: RenewAsk) -> anyhow::Result<RenewTold> {
        match self {
            Self::Server(config) => match socket::ask(&config.dir, &Command::Renew { ask })? {
                Answer::Renewed(told) => Ok(told),
                _ => bail!("the server answers another question"),
            },
            Self::Own(own) => {
                let done = own.runtime.block_on(slice(&own.engine, ask));
                done.map_err(|failure| anyhow!("{failure}"))
            }
        }
    }

    fn close(self) {
        if let Self::Own(own) = self {
            own.engine.shutdown();
            drop(own.runtime);
            serve::close(own.engine, &own.tokens);
        }
    }
}

/// What it has come to.
#[derive(Default, Serialize)]
struct Report {
    /// Live bundles when it began.
    live: u64,
    /// Bundles signed again, and keys in them.
    reissued: u64,
    keys: u64,
    /// Live bundles that were changed or ended meanwhile, and had no need of it.
    otherwise: u64,
    /// Live bundles that are left.
    left: u64,
}

/// Signs every live bundle of these revoked epochs again, and checks that none is left.
pub(super) fn run(common: &Common, config: &Config, epochs: &[EpochId]) -> anyhow::Result<()> {
    let hand = Hand::new(config)?;
    let done = work(common, &hand, epochs);
    hand.close();
    let report = done?;
    print(common, &json!({ "reissue": report }), |_| {
        let Report {
            live,
            reissued,
            keys,
            otherwise,
            ..
        } = report;
        let mut text = format!("{reissued} of {live} live bundles are signed again, {keys} keys");
        if otherwise > 0 {
            text += &format!("; {otherwise} were changed or ended meanwhile");
        }
        text
    })
}

fn work(common: &Common, hand: &Hand<'_>, epochs: &[EpochId]) -> anyhow::Result<Report> {
    let mut report = Report {
        live: count(hand, epochs)?,
        ..Report::default()
    };
    let bar = bar(common, report.live)?;
    loop {
        let before = report.reissued;
        for epoch in epochs {
            renew(common, hand, *epoch, &mut report, &bar)?;
        }
        report.left = count(hand, epochs)?;
        if report.left == 0 {
            break;
        }
        // What was in the middle of a change when it was come to is left to another look.
        if report.reissued == before {
            bar.abandon();
            bail!(
                "{} live bundles are left that could not be signed again; the same command goes on",
                report.left
            );
        }
    }
    bar.finish_and_clear();
    report.otherwise = report.live.saturating_sub(report.reissued);
    Ok(report)
}

/// One look through the bundles of an epoch.
fn renew(
    common: &Common,
    hand: &Hand<'_>,
    epoch: EpochId,
    report: &mut Report,
    bar: &ProgressBar,
) -> anyhow::Result<()> {
    let (mut after, mut retries) = (None, 0);
    loop {
        let told = hand.ask(RenewAsk {
            epoch,
            count: false,
            after: after.clone(),
        });
        let told = told.context("the same command goes on where this one was cut off")?;
        report.reissued += told.bundles;
        report.keys += told.keys;
        bar.set_position(report.reissued);
        if common.json {
            print(
                common,
                &json!({ "reissued": report.reissued, "of": report.live }),
                |_| String::new(),
            )?;
        }
        if let Some(problem) = told.problem {
            retries += 1;
            if told.bundles == 0 && retries > RETRIES_MAX {
                bar.abandon();
                bail!("{problem}; the same command goes on where this one was cut off");
            }
            std::thread::sleep(RETRY_AFTER);
            if told.bundles == 0 {
                continue;
            }
        } else {
            retries = 0;
        }
        match told.next {
            Some(next) => after = Some(next),
            None => return Ok(()),
        }
    }
}

fn count(hand: &Hand<'_>, epochs: &[EpochId]) -> anyhow::Result<u64> {
    let mut live = 0;
    for epoch in epochs {
        let mut after = None;
        loop {
            let told = hand.ask(RenewAsk {
                epoch: *epoch,
                count: true,
                after,
            })?;
            live += told.bundles;
            after = told.next;
            if after.is_none() {
                break;
            }
        }
    }
    Ok(live)
}

/// Drawn on a terminal only.
fn bar(common: &Common, bundles: u64) -> anyhow::Result<ProgressBar> {
    if common.json {
        return Ok(ProgressBar::hidden());
    }
    let style =
        ProgressStyle::with_template("{bar:40} {pos}/{len} bundles  {per_sec}  {eta} left")?;
    Ok(ProgressBar::new(bundles).with_style(style))
}
