//! The store on one node: SQLite with a write-ahead log, floor 2.
//!
//! One connection writes, behind a lock; a few others read meanwhile, each from the newest commit.
//! `commit` is one transaction and one sync of the log (`synchronous = FULL`), however many writes
//! it carries: whoever wants speed brings many at once.
//!
//! How the files hang together: `connection` opens, `schema` brings the file to this program's
//! version, `writer` runs transactions and hands each write to `registry`, `steps`, `authorize`,
//! `redeem`, `amend`, `renew`, `statuses`, `rulings`, `acts` or `purge`; `load`, `read` and `orders` answer
//! questions. `bundle_body` is the format of what is kept as one piece, `packs` where bundles lie
//! together, `contexts` what many of them have in common, `segments` what keeps index writes
//! together, `checkpoint` what keeps the log short. `export`, `import` and
//! `fences` are for a store as a whole. `standings` and `calls` are what the writer remembers, so
//! that it need not ask for it. `signatures` counts what was signed.
//!
//! Deliberately not here: conditions other than the ones [`Write`] documents, caches of what could
//! change outside the writer, and backups.

mod acts;
mod amend;
mod authorize;
mod bundle_body;
mod calls;
mod checkpoint;
mod config;
mod connection;
mod contexts;
mod erase;
mod error;
mod export;
mod fences;
mod import;
mod load;
mod orders;
mod packs;
mod purge;
mod read;
mod redeem;
mod registry;
mod registry_rows;
mod reissues;
mod renew;
mod rulings;
mod schema;
mod segments;
mod signatures;
mod standings;
mod statuses;
mod steps;
mod suspend;
mod whole;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

pub use config::SqliteConfig;

use self::checkpoint::Checkpoints;
use self::connection::Readers;
use self::writer::{Outcome, Writer};
use super::encoding::{authorization_body, bundle_parts, cbor, context, words};
use super::{
    ActFilter, Acts, AnsweredOrder, Applied, AuthorizationFilter, BundleKey, Cursor, Row,
    SignedBundle, SignedBy, Store, StoreError, Write,
};
use crate::domain::{
    Authorization, AuthorizationId, BundleId, EpochId, FleetId, IdentityId, UnixTime,
};

/// A store in one SQLite file.
pub struct Sqlite {
    path: PathBuf,
    config: SqliteConfig,
    /// `None` after a failed commit, until `reopen`. Held for the length of a transaction.
    writer: Mutex<Option<Writer>>,
    /// `None` together with `writer`. Held only to clone or to replace.
    readers: RwLock<Option<Arc<Readers>>>,
}

impl Sqlite {
    /// Makes a new store at `path`, readable by its owner alone, and opens it.
    ///
    /// # Errors
    /// [`StoreError::Failed`] where a file of that name exists or none can be made.
    pub fn create(path: &Path, config: SqliteConfig) -> Result<Self, StoreError> {
        let config = config.bounded();
        connection::create_file(path)?;
        schema::create(&mut connection::open_writer(path, &config)?)?;
        Self::open(path, config)
    }

    /// Opens the store at `path` and brings it to this program's schema version.
    ///
    /// # Errors
    /// [`StoreError::Failed`] where there is none; [`StoreError::Schema`] where it is newer than
    /// this program or was never finished; [`StoreError::Corrupt`] where the file is not a store.
    pub fn open(path: &Path, config: SqliteConfig) -> Result<Self, StoreError> {
        let store = Self {
            path: path.to_owned(),
            config: config.bounded(),
            writer: Mutex::new(None),
            readers: RwLock::new(None),
        };
        store.reopen()?;
        Ok(store)
    }

    fn readers(&self) -> Result<Arc<Readers>, StoreError> {
        let readers = self.readers.read().unwrap_or_else(PoisonError::into_inner);
        readers.clone().ok_or_else(closed)
    }

    fn close(&self, writer: &mut MutexGuard<'_, Option<Writer>>) {
        **writer = None;
        *self.readers.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Runs a transaction.
    fn write(&self, with: impl FnOnce(&mut Writer) -> Outcome) -> Result<Vec<Applied>, StoreError> {
        let mut writer = match self.writer.lock() {
            Ok(writer) => writer,
            // A panic in a transaction: what it left open is closed, not continued.
            Err(poisoned) => {
                let mut writer = poisoned.into_inner();
                self.close(&mut writer);
                self.writer.clear_poison();
                writer
            }
        };
        let outcome = with(writer.as_mut().ok_or_else(closed)?);
        match outcome {
            Outcome::Committed(applied) => Ok(applied),
            Outcome::RolledBack(why) => Err(why),
            Outcome::Broken(why) => {
                self.close(&mut writer);
                tracing::error!(%why, "the store is closed until it is opened anew");
                Err(why)
            }
        }
    }
}

impl Store for Sqlite {
    fn commit_beside(
        &self,
        writes: &[Write],
        _beside: &mut dyn FnMut(),
    ) -> Result<Vec<Applied>, StoreError> {
        self.write(|writer| writer.commit(writes))
    }

    fn load(&self, each: &mut dyn FnMut(Row)) -> Result<(), StoreError> {
        self.readers()?
            .lend(|connection| load::load(connection, each))
    }

    fn bundle(&self, by: BundleKey) -> Result<Option<SignedBundle>, StoreError> {
        self.readers()?
            .lend(|connection| read::bundle(connection, by))
    }

    fn versions(&self, bundle: BundleId) -> Result<Vec<SignedBundle>, StoreError> {
        self.readers()?
            .lend(|connection| reissues::versions(connection, &bundle))
    }

    fn signed_by(
        &self,
        epoch: EpochId,
        now: UnixTime,
        after: Option<&Cursor>,
        at_most: u32,
    ) -> Result<SignedBy, StoreError> {
        self.readers()?
            .lend(|connection| renew::signed_by(connection, &epoch, now, after, at_most))
    }

    fn held_by(
        &self,
        fleet: FleetId,
        identity: &IdentityId,
    ) -> Result<Vec<AuthorizationId>, StoreError> {
        self.readers()?
            .lend(|connection| read::held_by(connection, &fleet, identity))
    }

    fn outcome(&self, scope: &[u8; 32]) -> Result<Option<Vec<u8>>, StoreError> {
        self.readers()?
            .lend(|connection| amend::outcome(connection, scope))
    }

    fn answered(&self, call: &[u8; 32]) -> Result<Vec<AnsweredOrder>, StoreError> {
        self.readers()?
            .lend(|connection| calls::answered(connection, call))
    }

    fn authorizations(
        &self,
        filter: &AuthorizationFilter,
    ) -> Result<Vec<Authorization>, StoreError> {
        self.readers()?
            .lend(|connection| read::authorizations(connection, filter))
    }

    fn acts(&self, filter: &ActFilter) -> Result<Acts, StoreError> {
        self.readers()?
            .lend(|connection| acts::read(connection, filter))
    }

    fn reopen(&self) -> Result<(), StoreError> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        self.close(&mut writer);
        let mut connection = connection::open_writer(&self.path, &self.config)?;
        schema::update(&mut connection)?;
        connection::settle(&connection)?;
        let checkpoints = Checkpoints::start(&mut connection, &self.path, &self.config)?;
        let opened = Writer::new(connection, checkpoints)?;
        let readers = Readers::open(&self.path, &self.config)?;
        *self.readers.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(readers));
        *writer = Some(opened);
        self.writer.clear_poison();
        Ok(())
    }
}

fn closed() -> StoreError {
    StoreError::Failed("the store was closed after a failed commit".into())
}
