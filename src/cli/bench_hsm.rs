//! `fob bench hsm`: the ceiling, bare `C_SignInit` and `C_Sign` on the kind of key the server uses.

use std::time::Duration;

use anyhow::Context;
use clap::Args;
use serde::Serialize;

use super::{Common, place, print, table};
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::domain::Epoch;
use crate::engine::Book;
use crate::hsm::{Ceiling, KeyRef, Token};

#[derive(Args)]
pub(super) struct HsmArgs {
    /// Numbers of sessions to measure
    #[arg(long, value_delimiter = ',', default_value = "1,2,4")]
    sessions: Vec<usize>,
    /// Seconds for each of them
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
}

#[derive(Serialize)]
struct Report {
    token: String,
    algorithm: &'static str,
    session_key_copies: bool,
    bare_calls: bool,
    ceiling_per_s: f64,
    runs: Vec<Run>,
}

#[derive(Serialize)]
struct Run {
    sessions: usize,
    signatures: u64,
    seconds: f64,
    per_s: f64,
}

pub(super) fn run(common: &Common, args: HsmArgs) -> anyhow::Result<()> {
    anyhow::ensure!(
        (0.01..=600.0).contains(&args.seconds),
        "--seconds is 0.01 to 600"
    );
    let config = place::configuration(common)?;
    let _lock = place::lock(&config.dir)?;
    let book = place::book(&*place::store(&config)?)?;
    let (token, key, epoch) = active_key(&config, &book)?;
    let mut report = Report {
        token: token.label().to_owned(),
        algorithm: epoch.key.algorithm().name(),
        session_key_copies: false,
        bare_calls: false,
        ceiling_per_s: 0.0,
        runs: Vec::new(),
    };
    for sessions in args.sessions {
        let mut ceiling = Ceiling::prepare(&token, &key, sessions)?;
        let run = ceiling.run(Duration::from_secs_f64(args.seconds), &|| {
            SystemClock.monotonic()
        })?;
        report.session_key_copies = run.session_key_copies;
        report.bare_calls = run.bare_calls;
        report.ceiling_per_s = report.ceiling_per_s.max(run.per_s());
        report.runs.push(Run {
            sessions,
            signatures: run.signatures,
            seconds: run.elapsed.as_secs_f64(),
            per_s: run.per_s(),
        });
    }
    print(common, &report, |report| {
        let row = |run: &Run| vec![run.sessions.to_string(), format!("{:.0}", run.per_s)];
        let kind = if report.session_key_copies {
            "session copies"
        } else {
            "token objects"
        };
        let rows = report.runs.iter().map(row).collect::<Vec<_>>();
        format!(
            "{} on {kind} of {}\n{}",
            report.algorithm,
            report.token,
            table(&["SESSIONS", "PER SECOND"], &rows)
        )
    })
}

/// The issuing token, and the key that signs in it now.
pub(super) fn active_key(
    config: &Config,
    book: &Book,
) -> anyhow::Result<(Token, KeyRef, std::sync::Arc<Epoch>)> {
    let epoch = book.active_epoch().context("no epoch is active")?;
    let token = place::issuing_token(config, &epoch)?;
    let key = KeyRef {
        id: epoch.cka_id,
        algorithm: epoch.key.algorithm(),
    };
    token.prepare_key(&key)?;
    Ok((token, key, epoch))
}
