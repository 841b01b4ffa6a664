//! The store for many nodes: PostgreSQL, or an engine that speaks its protocol; floor 2.
//!
//! Only what PostgreSQL, CockroachDB, YugabyteDB and Citus have in common is used: keys that the
//! server or its callers make, row locks, conditional writes; no sequences, no advisory locks, no
//! triggers, no notifications.
//!
//! How the files hang together: `session` is one connection and its rounds, `line` what is under way
//! over it, `tls` what encrypts it; `schema` brings the database to this program's version;
//! `transaction` runs a transaction, and `ended` its end: `needs` says what its writes rest on,
//! `standings` and `calls` what of that is known, `survey` (with `surveyed`) locks and reads the
//! rest into a `ground`, on which `decide`, `issue`, `amend`, `rulings` and `acts` decide each
//! write, and `write` (with `write_bundles`, `write_registry`, `write_issued` and `rulings`) writes
//! what was decided; `purge` ends what is over, `parts` takes a transaction apart for it; `doubt`
//! finds out what became of one whose answer was lost; `touched` is what others have to hear of it.
//! `load` and `read` answer questions over the connections of `readers`, `news` says what others
//! have changed, `nodes` is who does what only one may do. `whole`, `export`, `import` and `fences`
//! are for a store as a whole.
//! `bundle_body` is the format of what is kept as one piece, `contexts` what many bundles have in
//! common, `signatures` counts what was signed.
//!
//! The store has a runtime of its own, with one thread: whoever calls it waits, in a thread that
//! may wait.

mod acts;
mod amend;
mod bundle_body;
mod calls;
mod config;
mod contexts;
mod decide;
mod doubt;
mod ended;
mod error;
mod export;
mod fences;
mod ground;
mod import;
mod import_issued;
mod issue;
mod line;
mod load;
mod needs;
mod news;
mod nodes;
mod parts;
mod purge;
mod read;
mod readers;
mod rows;
mod rulings;
mod schema;
mod session;
mod signatures;
mod standings;
mod survey;
mod surveyed;
mod tls;
mod touched;
mod transaction;
mod turn;
mod whole;
mod write;
mod write_bundles;
mod write_issued;
mod write_registry;

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::runtime::Runtime;
use tokio_postgres::Row as SqlRow;
use uuid::Uuid;

pub use config::PostgresConfig;
pub use nodes::ThereNode;

use self::news::Ear;
use self::readers::Readers;
use self::session::{Address, Ask, Session};
use self::transaction::Writer;
use super::{
    ActFilter, Acts, AnsweredOrder, Applied, AuthorizationFilter, BundleKey, Cursor, Nodes, Row,
    SignedBundle, SignedBy, Store, StoreError, Write,
};
use crate::domain::{
    Authorization, AuthorizationId, BundleId, EpochId, FleetId, IdentityId, UnixTime,
};

/// Connections for what nodes need of each other: one hears, one keeps leases.
const BESIDE: usize = 2;

/// A store in a PostgreSQL database.
pub struct Postgres {
    address: Address,
    /// What this process is called there.
    process: Uuid,
    attempts_max: u32,
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
    /// Held for the length of a transaction.
    writer: Mutex<Writer>,
    readers: Readers,
    /// For what nodes need of each other, which waits for no reader.
    beside: Readers,
    /// What of others has been heard.
    ear: Ear,
    /// After a transaction whose outcome nobody knows, until `reopen`.
    closed: AtomicBool,
}

/// The schema versions a migration has led from and to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migrated {
    /// 0 where there was no store.
    pub from: u32,
    /// This program's.
    pub to: u32,
}

impl Postgres {
    /// Makes a new store in a database that has none, or an empty one, and opens it.
    ///
    /// # Errors
    /// [`StoreError::Failed`] where there is one, or the database is not reached.
    pub fn create(config: PostgresConfig) -> Result<Self, StoreError> {
        let config = config.bounded();
        let (address, runtime) = (Address::new(&config)?, runtime()?);
        runtime.block_on(async {
            let session = Session::open(&address).await?;
            schema::migrate(&session).await?;
            if schema::is_used(&session).await? {
                return Err(StoreError::Failed(
                    "the database has an issuer already".into(),
                ));
            }
            Ok(())
        })?;
        Self::over(config, address, runtime)
    }

    /// Opens the store there is.
    ///
    /// # Errors
    /// [`StoreError::Schema`] where it is of another schema version; [`StoreError::Failed`] where
    /// the database is not reached.
    pub fn open(config: PostgresConfig) -> Result<Self, StoreError> {
        let config = config.bounded();
        let (address, runtime) = (Address::new(&config)?, runtime()?);
        Self::over(config, address, runtime)
    }

    /// Brings a database to this program's schema version, forward only.
    ///
    /// # Errors
    /// [`StoreError::Schema`] where it is newer; [`StoreError::Failed`].
    pub fn migrate(config: PostgresConfig) -> Result<Migrated, StoreError> {
        let (address, runtime) = (Address::new(&config.bounded())?, runtime()?);
        let from = runtime.block_on(async {
            let session = Session::open(&address).await?;
            schema::migrate(&session).await
        })?;
        runtime.shutdown_background();
        let to = schema::VERSION;
        Ok(Migrated { from, to })
    }

    fn over(
        config: PostgresConfig,
        address: Address,
        runtime: Runtime,
    ) -> Result<Self, StoreError> {
        let session = runtime.block_on(checked(&address))?.committing(&address);
        let mut process = [0; 16];
        aws_lc_rs::rand::fill(&mut process)
            .map_err(|_| StoreError::Failed("no random number".into()))?;
        let process = Uuid::from_bytes(process);
        Ok(Self {
            process,
            ear: Ear::default(),
            readers: Readers::new(config.readers, config.answer_within()),
            beside: Readers::new(BESIDE, config.answer_within()),
            attempts_max: config.attempts_max,
            address,
            runtime: Some(runtime),
            writer: Mutex::new(Writer::new(session, process)),
            closed: AtomicBool::new(false),
        })
    }

    /// How long ago a node was there, or anybody wrote, in seconds, by the database's clock; `None`
    /// where it is not known. A node that serves says at least every half minute that it is there.
    ///
    /// # Errors
    /// The database is not reached.
    pub fn quiet_for_s(&self) -> Result<Option<u64>, StoreError> {
        self.read(async |session: &Session| {
            let sql = "SELECT extract(epoch FROM now() - max(at))::bigint
                       FROM (SELECT max(at) AS at FROM transactions
                             UNION ALL SELECT max(seen) FROM nodes) newest";
            let rows = session.query(sql, vec![]).await?;
            let quiet: Option<i64> = match rows.first() {
                Some(row) => rows::get(row, 0)?,
                None => None,
            };
            Ok(quiet.map(|s| u64::try_from(s).unwrap_or_default()))
        })
    }

    /// Round trips to the database so far.
    pub fn round_trips(&self) -> u64 {
        self.address.rounds()
    }

    /// Those of them that were made to commit something; without what is heard and read beside it.
    pub fn commit_round_trips(&self) -> u64 {
        self.address.commit_rounds()
    }

    /// Waits for `asking`, in the caller's thread.
    fn wait<T>(
        &self,
        asking: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        match &self.runtime {
            Some(runtime) => runtime.block_on(asking),
            None => Err(closed()),
        }
    }

    fn read<T>(
        &self,
        ask: impl AsyncFnMut(&Session) -> Result<T, error::Trouble>,
    ) -> Result<T, StoreError> {
        self.check_open()?;
        self.wait(self.readers.lend(&self.address, ask))
    }

    /// The same over a connection that is there for nodes alone.
    fn beside<T>(
        &self,
        ask: impl AsyncFnMut(&Session) -> Result<T, error::Trouble>,
    ) -> Result<T, StoreError> {
        self.check_open()?;
        self.wait(self.beside.lend(&self.address, ask))
    }

    /// Writes something in a transaction of its own, over a connection of its own: nobody serves.
    fn write(&self, asks: Vec<Ask<'_>>) -> Result<Vec<Vec<SqlRow>>, StoreError> {
        self.check_open()?;
        let mut all = vec![Ask::Plain("BEGIN")];
        all.extend(asks);
        all.push(Ask::Plain("COMMIT"));
        let ask = async |session: &Session| {
            let written = session.round(&all).await.map_err(|it| it.trouble());
            if written.is_err() {
                let _ = session.execute("ROLLBACK").await;
            }
            written
        };
        self.read(ask)
    }

    fn forget(&self) {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.forget();
    }

    fn check_open(&self) -> Result<(), StoreError> {
        match self.closed.load(Ordering::Acquire) {
            true => Err(closed()),
            false => Ok(()),
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Wherever it is dropped: a runtime may not wait for its threads within another.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Store for Postgres {
    fn commit_beside(
        &self,
        writes: &[Write],
        beside: &mut dyn FnMut(),
    ) -> Result<Vec<Applied>, StoreError> {
        if writes.is_empty() {
            return Ok(Vec::new());
        }
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_open()?;
        let committing = writer.commit(&self.address, self.attempts_max, writes, beside);
        let committed = self.wait(committing);
        if let Err(why @ StoreError::Unknown(_)) = &committed {
            self.closed.store(true, Ordering::Release);
            tracing::error!(%why, "the store is closed until it is opened anew");
        }
        committed
    }

    fn load(&self, each: &mut dyn FnMut(Row)) -> Result<(), StoreError> {
        self.check_open()?;
        // A connection of its own: rows that were handed on cannot be taken back.
        self.wait(async {
            let session = Session::open(&self.address).await?;
            self.ear.set(load::load(&session, each).await?);
            Ok(())
        })
    }

    fn bundle(&self, by: BundleKey) -> Result<Option<SignedBundle>, StoreError> {
        self.read(async |session: &Session| read::bundle(session, by).await)
    }

    fn versions(&self, bundle: BundleId) -> Result<Vec<SignedBundle>, StoreError> {
        self.read(async |session: &Session| read::versions(session, bundle).await)
    }

    fn signed_by(
        &self,
        epoch: EpochId,
        now: UnixTime,
        after: Option<&Cursor>,
        at_most: u32,
    ) -> Result<SignedBy, StoreError> {
        let ask =
            async |session: &Session| read::signed_by(session, epoch, now, after, at_most).await;
        self.read(ask)
    }

    fn held_by(
        &self,
        fleet: FleetId,
        identity: &IdentityId,
    ) -> Result<Vec<AuthorizationId>, StoreError> {
        self.read(async |session: &Session| read::held_by(session, fleet, identity).await)
    }

    fn outcome(&self, scope: &[u8; 32]) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(async |session: &Session| read::outcome(session, scope).await)
    }

    fn answered(&self, call: &[u8; 32]) -> Result<Vec<AnsweredOrder>, StoreError> {
        self.read(async |session: &Session| read::answered(session, call).await)
    }

    fn authorizations(
        &self,
        filter: &AuthorizationFilter,
    ) -> Result<Vec<Authorization>, StoreError> {
        self.read(async |session: &Session| read::authorizations(session, filter).await)
    }

    fn acts(&self, filter: &ActFilter) -> Result<Acts, StoreError> {
        self.read(async |session: &Session| acts::read(session, filter).await)
    }

    fn nodes(&self) -> Option<&dyn Nodes> {
        Some(self)
    }

    fn reopen(&self) -> Result<(), StoreError> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        self.readers.close();
        self.beside.close();
        self.wait(async {
            let session = checked(&self.address).await?.committing(&self.address);
            writer.resume(session).await
        })?;
        self.closed.store(false, Ordering::Release);
        Ok(())
    }
}

/// A connection to a store of this program's schema version.
async fn checked(address: &Address) -> Result<Session, StoreError> {
    let session = Session::open(address).await?;
    schema::check(&session).await?;
    Ok(session)
}

/// One thread moves the bytes of all connections.
fn runtime() -> Result<Runtime, StoreError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("fob-store")
        .enable_all()
        .build()
        .map_err(|error| StoreError::Failed(format!("no thread for the database: {error}")))
}

fn closed() -> StoreError {
    StoreError::Failed("the store was closed after a commit whose outcome is unknown".into())
}
