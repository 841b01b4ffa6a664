//! `fob hsm status`: what each issuing token says of itself, and how the running server gets on
//! with it.

use anyhow::bail;
use clap::Subcommand;
use serde::Serialize;
use serde_json::Value;

use super::desk::Command;
use super::{Common, operate, place, print, table};
use crate::config::Config;
use crate::engine::{Book, StationStatus};
use crate::hsm::{KeyAttributes, Signer, TokenKey, TokenStatus};

#[derive(Subcommand)]
pub(super) enum HsmCommand {
    /// The issuing tokens: sessions, mechanisms, keys, and whether they sign
    Status,
}

pub(super) fn run(common: &Common, HsmCommand::Status: HsmCommand) -> anyhow::Result<()> {
    operate::run(common, Command::HsmStatus)
}

/// Every token.
#[derive(Serialize)]
pub(super) struct Report {
    /// Whether at least one of them is up.
    up: bool,
    tokens: Vec<TokenReport>,
}

#[derive(Serialize)]
struct TokenReport {
    #[serde(flatten)]
    token: TokenStatus,
    /// `closed`: batches go to it; `open`: it is tried until it signs again. Absent without a
    /// server, as the two below.
    breaker: Option<&'static str>,
    /// Signatures a second, as measured while serving.
    rate_per_s: Option<f64>,
    /// Messages handed to it and not yet signed.
    waiting: Option<usize>,
    keys: Vec<KeyReport>,
}

#[derive(Serialize)]
struct KeyReport {
    id: String,
    label: String,
    kind: crate::hsm::KeyKind,
    /// The epoch it signs under, and how that stands.
    epoch: Option<String>,
    state: Option<&'static str>,
    /// The first thing about it that an issuing key must not have.
    refused_for: Option<&'static str>,
    attributes: KeyAttributes,
}

impl Report {
    /// Of tokens that a server signs with, or that were opened to be asked.
    pub(super) fn of(asked: Vec<(Option<StationStatus>, TokenStatus)>, book: &Book) -> Self {
        let tokens: Vec<_> = asked
            .into_iter()
            .map(|(station, token)| TokenReport::of(station, token, book))
            .collect();
        Self {
            up: tokens.iter().any(TokenReport::signs),
            tokens,
        }
    }

    /// Opens every token and asks it.
    pub(super) fn straight(config: &Config, book: &Book) -> anyhow::Result<Self> {
        let mut asked = Vec::new();
        for one in &config.hsm.tokens {
            let status = match place::open_token(one) {
                Ok(token) => token.status(),
                Err(error) if place::pin_refused(&error) => return Err(error),
                Err(error) => TokenStatus {
                    problem: Some(format!("{error:#}")),
                    module: one.config.module.clone(),
                    label: one.config.label.clone(),
                    serial: one.config.serial.clone().unwrap_or_default(),
                    ..TokenStatus::default()
                },
            };
            asked.push((None, status));
        }
        Ok(Self::of(asked, book))
    }
}

impl TokenReport {
    fn of(station: Option<StationStatus>, mut token: TokenStatus, book: &Book) -> Self {
        let keys = std::mem::take(&mut token.keys);
        let breaker = |station: &StationStatus| if station.up { "closed" } else { "open" };
        Self {
            token,
            breaker: station.as_ref().map(breaker),
            rate_per_s: station.as_ref().map(|station| station.rate_per_s.round()),
            waiting: station.as_ref().map(|station| station.waiting),
            keys: keys.into_iter().map(|key| key_report(key, book)).collect(),
        }
    }

    fn signs(&self) -> bool {
        self.token.up && self.breaker != Some("open")
    }
}

fn key_report(key: TokenKey, book: &Book) -> KeyReport {
    let epochs = book.epochs();
    let hex = |id: &[u8; 16]| {
        id.iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let epoch = epochs.iter().find(|epoch| hex(&epoch.cka_id) == key.id);
    KeyReport {
        epoch: epoch.map(|epoch| epoch.id.to_string()),
        state: epoch.map(|epoch| epoch.state.name()),
        refused_for: key.attributes.offence().map(|(name, _)| name),
        id: key.id,
        label: key.label,
        kind: key.kind,
        attributes: key.attributes,
    }
}

/// Prints it; fails where no token signs.
pub(super) fn print_report(common: &Common, report: &Value) -> anyhow::Result<()> {
    print(common, report, text)?;
    if report["up"] == true {
        return Ok(());
    }
    bail!("no issuing token is up")
}

/// Token by token: a line for each field, then a table of its keys.
fn text(report: &Value) -> String {
    let tokens = report["tokens"].as_array().into_iter().flatten();
    tokens.map(token_text).collect::<Vec<_>>().join("\n\n")
}

fn token_text(token: &Value) -> String {
    let fields = token.as_object().into_iter().flatten();
    let line = |(name, value): (&String, &Value)| {
        let value = match value {
            Value::Null => "-".to_owned(),
            Value::String(text) => text.clone(),
            Value::Array(items) => {
                let items: Vec<_> = items.iter().filter_map(Value::as_str).collect();
                format!("{}: {}", items.len(), items.join(" "))
            }
            other => other.to_string(),
        };
        format!("{name:<20} {value}")
    };
    let mut lines: Vec<_> = fields
        .filter(|(name, _)| *name != "keys")
        .map(line)
        .collect();
    lines.push(keys_text(&token["keys"]));
    lines.join("\n")
}

fn keys_text(keys: &Value) -> String {
    let cell = |key: &Value, name: &str| key[name].as_str().unwrap_or("-").to_owned();
    let row = |key: &Value| {
        let columns = ["id", "label", "kind", "epoch", "state", "refused_for"];
        let mut cells: Vec<_> = columns.map(|name| cell(key, name)).into();
        let attributes = key["attributes"].as_object().into_iter().flatten();
        let held = attributes.filter(|(_, value)| **value == true);
        cells.push(
            held.map(|(name, _)| name.as_str())
                .collect::<Vec<_>>()
                .join(","),
        );
        cells
    };
    let rows: Vec<_> = keys.as_array().into_iter().flatten().map(row).collect();
    if rows.is_empty() {
        return "no keys".to_owned();
    }
    let header = [
        "KEY",
        "LABEL",
        "KIND",
        "EPOCH",
        "STATE",
        "REFUSED FOR",
        "ATTRIBUTES",
    ];
    table(&header, &rows)
}
