//! `fob migrate`: brings the store to this program's schema version.

use anyhow::Context;
use serde::Serialize;

use super::{Common, place, print};
use crate::config::StoreConfig;
use crate::store::postgres::Postgres;
use crate::store::sqlite::{Sqlite, SqliteConfig};

pub(super) const HELP: &str = "\
A database is never changed by a server: stop the servers of the old version, migrate once, start \
those of the new one. There is no way back but a backup. A file of SQLite's is brought up to date \
by whatever opens it, this command included.";

/// What was done. Versions are a database's.
#[derive(Serialize)]
#[serde(tag = "store", rename_all = "lowercase")]
enum Answer {
    Sqlite,
    Postgres { from: u32, to: u32 },
}

pub(super) fn run(common: &Common) -> anyhow::Result<()> {
    let config = place::configuration(common)?;
    let _lock = place::lock(&config.dir)?;
    let answer = match &config.store {
        StoreConfig::Sqlite(path) => {
            Sqlite::open(path, SqliteConfig::default())
                .with_context(|| path.display().to_string())?;
            Answer::Sqlite
        }
        StoreConfig::Postgres { at, password_file } => {
            let at = place::with_password(at, password_file.as_deref())?;
            let done = Postgres::migrate(at).context("the database ([store] url)")?;
            Answer::Postgres {
                from: done.from,
                to: done.to,
            }
        }
    };
    print(common, &answer, |answer| match answer {
        Answer::Sqlite => "the store is up to date".into(),
        Answer::Postgres { from, to } if from == to => {
            format!("the store is up to date, at version {to}")
        }
        Answer::Postgres { from, to } => format!("the store went from version {from} to {to}"),
    })
}
