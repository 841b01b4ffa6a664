//! `[store]`: the file of a node by itself, or the database that many nodes share.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Wrong, within};
use crate::store::postgres::PostgresConfig;
use crate::store::whole::WITNESS_FILE;

/// The store's settings, checked.
#[derive(Clone, Debug)]
pub enum StoreConfig {
    /// A file of SQLite's.
    Sqlite(PathBuf),
    /// A PostgreSQL database; its password is read when it is opened.
    Postgres {
        /// Where it is and how it is reached.
        at: Box<PostgresConfig>,
        /// The file with the password, where the server asks for one.
        password_file: Option<PathBuf>,
    },
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct StoreSection {
    path: Option<PathBuf>,
    url: Option<String>,
    password_file: Option<PathBuf>,
    tls_ca: Option<PathBuf>,
    readers: Option<usize>,
    statement_timeout_ms: Option<u32>,
    connect_timeout_ms: Option<u32>,
    witness: Option<PathBuf>,
    pub(super) retain_for_days: Option<u64>,
    pub(super) lease_s: Option<u64>,
}

impl StoreSection {
    /// The file that says how far the store has come.
    pub(super) fn witness(&self, dir: &Path) -> PathBuf {
        dir.join(self.witness.as_deref().unwrap_or(Path::new(WITNESS_FILE)))
    }

    pub(super) fn check(&self, dir: &Path) -> Result<StoreConfig, Wrong> {
        let Some(url) = &self.url else {
            let of_url = self.password_file.is_some() || self.tls_ca.is_some();
            if of_url {
                return Err((
                    "store.url",
                    "password_file and tls_ca belong to a url".into(),
                ));
            }
            let path = self.path.clone().unwrap_or_else(|| "fob.db".into());
            return Ok(StoreConfig::Sqlite(dir.join(path)));
        };
        if self.path.is_some() {
            return Err(("store.path", "set path or url, not both".into()));
        }
        let default = PostgresConfig::new(url);
        let timeout = self.statement_timeout_ms;
        let at = PostgresConfig {
            tls_ca: self.tls_ca.as_ref().map(|file| dir.join(file)),
            readers: within("store.readers", self.readers, default.readers, 1..=64)?,
            statement_timeout_ms: within(
                "store.statement_timeout_ms",
                timeout,
                default.statement_timeout_ms,
                100..=600_000,
            )?,
            connect_timeout_ms: within(
                "store.connect_timeout_ms",
                self.connect_timeout_ms,
                default.connect_timeout_ms,
                100..=60_000,
            )?,
            ..default
        };
        at.check().map_err(|why| ("store.url", why.to_owned()))?;
        Ok(StoreConfig::Postgres {
            at: Box::new(at),
            password_file: self.password_file.as_ref().map(|file| dir.join(file)),
        })
    }
}
