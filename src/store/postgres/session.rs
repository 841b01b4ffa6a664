//! One connection, its prepared statements, and rounds of statements over it: floor 2,
//! `store/postgres`.
//!
//! A *round* is sent at once and answered at once: one way there and back, however many statements
//! it has. What is sent before all of it is known is a [`Line`].

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use secrecy::ExposeSecret as _;
use tokio::sync::Mutex;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row, RowStream, Statement};

use super::config::PostgresConfig;
use super::error::{Trouble, words};
use super::line::Line;
use super::tls::Tls;
use crate::store::StoreError;

/// How long a transaction may wait for this process before the database ends it, in milliseconds:
/// one that was stopped, or cut off, in the middle of a transaction keeps nobody waiting for what it
/// has locked.
const IDLE_MS: u32 = 2_000;

/// A value of a statement.
pub(super) type Value<'a> = Box<dyn ToSql + Sync + Send + 'a>;

/// Values of a statement, in their order.
macro_rules! values {
    ($($value:expr),* $(,)?) => {
        vec![$(Box::new($value) as $crate::store::postgres::session::Value<'_>),*]
    };
}
pub(super) use values;

/// One statement of a round.
pub(super) enum Ask<'a> {
    /// Something without values or answer: `BEGIN`, `COMMIT`.
    Plain(&'static str),
    /// A statement with its values.
    Query(&'static str, Vec<Value<'a>>),
    /// A statement with rows it keeps until it is answered.
    Rows(&'static str, Box<dyn Rows + 'a>),
}

impl Ask<'_> {
    /// The text of a statement that is prepared.
    pub(super) fn prepared(&self) -> Option<&'static str> {
        match self {
            Self::Plain(_) => None,
            Self::Query(sql, _) | Self::Rows(sql, _) => Some(sql),
        }
    }
}

/// Rows of a statement.
pub(super) trait Rows: Send + Sync {
    /// The statement's values, in their order: a column each.
    fn columns(&self) -> Vec<Value<'_>>;
}

/// A statement of a round that was not answered, and which.
pub(super) struct Unanswered {
    pub(super) at: usize,
    pub(super) error: Option<Error>,
}

/// How connections are made.
pub(super) struct Address {
    config: tokio_postgres::Config,
    tls: Tls,
    connect_within: Duration,
    answer_within: Duration,
    /// Rounds over all connections, and over those that commit.
    rounds: Arc<AtomicU64>,
    commit_rounds: Arc<AtomicU64>,
}

impl Address {
    pub(super) fn new(config: &PostgresConfig) -> Result<Self, StoreError> {
        let refused = |why| StoreError::Failed(format!("the database's URL: {why}"));
        let mut to = config.address().map_err(refused)?;
        if let Some(password) = &config.password {
            to.password(password.expose_secret());
        }
        let options = format!(
            "{} -c statement_timeout={} -c idle_in_transaction_session_timeout={IDLE_MS}",
            to.get_options().unwrap_or_default(),
            config.statement_timeout_ms
        );
        let connect_within = Duration::from_millis(config.connect_timeout_ms.into());
        to.options(options.trim())
            .application_name("fob")
            .connect_timeout(connect_within)
            .tcp_user_timeout(config.answer_within())
            .keepalives_idle(Duration::from_secs(30));
        Ok(Self {
            config: to,
            tls: Tls::new(config.tls_ca.as_deref())?,
            connect_within,
            answer_within: config.answer_within(),
            rounds: Arc::default(),
            commit_rounds: Arc::default(),
        })
    }

    /// Rounds that were sent so far.
    pub(super) fn rounds(&self) -> u64 {
        self.rounds.load(Ordering::Relaxed)
    }

    /// Those of them that were sent to commit something.
    pub(super) fn commit_rounds(&self) -> u64 {
        self.commit_rounds.load(Ordering::Relaxed)
    }
}

/// A connection.
pub(super) struct Session {
    pub(super) client: Client,
    pub(super) statements: Mutex<HashMap<&'static str, Statement>>,
    pub(super) answer_within: Duration,
    rounds: Arc<AtomicU64>,
    /// Where it is one that commits.
    commit_rounds: Option<Arc<AtomicU64>>,
}

impl Session {
    /// Connects. Within a runtime: what moves the bytes is a task of its own.
    pub(super) async fn open(address: &Address) -> Result<Self, StoreError> {
        let failed = |why: String| StoreError::Failed(format!("no connection: {why}"));
        let connecting = address.config.connect(address.tls.clone());
        // Several hosts, and a handshake, may take longer than each attempt.
        let connected = tokio::time::timeout(2 * address.connect_within, connecting);
        let (client, connection) = match connected.await {
            Ok(connected) => connected.map_err(|error| failed(words(&error)))?,
            Err(_) => return Err(failed("the database did not answer in time".into())),
        };
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(why = words(&error), "a connection to the database ended");
            }
        });
        Ok(Self {
            client,
            statements: Mutex::default(),
            answer_within: address.answer_within,
            rounds: Arc::clone(&address.rounds),
            commit_rounds: None,
        })
    }

    /// The same, as the one that commits.
    pub(super) fn committing(self, address: &Address) -> Self {
        Self {
            commit_rounds: Some(Arc::clone(&address.commit_rounds)),
            ..self
        }
    }

    /// Counts a way there and back.
    pub(super) fn count_round(&self) {
        self.rounds.fetch_add(1, Ordering::Relaxed);
        if let Some(rounds) = &self.commit_rounds {
            rounds.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether it is known to be of no use.
    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Statements to be sent one after the other and answered together.
    pub(super) fn line(&self) -> Line<'_> {
        Line::over(self)
    }

    /// Sends all of `asks` at once, in their order, and waits for all answers.
    pub(super) async fn round(&self, asks: &[Ask<'_>]) -> Result<Vec<Vec<Row>>, Unanswered> {
        let mut line = self.line();
        line.send(asks).await?;
        line.answers().await
    }

    /// One statement, alone.
    pub(super) async fn query(
        &self,
        sql: &'static str,
        values: Vec<Value<'_>>,
    ) -> Result<Vec<Row>, Trouble> {
        match self.round(&[Ask::Query(sql, values)]).await {
            Ok(mut rows) => Ok(rows.pop().unwrap_or_default()),
            Err(unanswered) => Err(unanswered.trouble()),
        }
    }

    /// Statements that have no values: the schema's.
    pub(super) async fn execute(&self, sql: &str) -> Result<(), Trouble> {
        let executing = self.client.batch_execute(sql);
        match tokio::time::timeout(self.answer_within, executing).await {
            Ok(executed) => executed.map_err(|error| Trouble::of(&error)),
            Err(_) => Err(Trouble::late()),
        }
    }

    /// The rows of a statement, as they come.
    pub(super) async fn stream(&self, sql: &str) -> Result<RowStream, Trouble> {
        let none: [&(dyn ToSql + Sync); 0] = [];
        self.count_round();
        let asked = self.client.query_raw(sql, none).await;
        asked.map_err(|error| Trouble::of(&error))
    }
}

impl Unanswered {
    pub(super) fn trouble(&self) -> Trouble {
        self.error.as_ref().map_or_else(Trouble::late, Trouble::of)
    }
}
