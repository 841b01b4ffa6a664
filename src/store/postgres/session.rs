//! One connection, its prepared statements, and rounds of statements over it: floor 2,
//! `store/postgres`.
//!
//! A *round* is sent at once and answered at once: one way there and back, however many statements
//! it has.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use secrecy::ExposeSecret as _;
use tokio::sync::Mutex;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row, RowStream, Statement};

use super::config::PostgresConfig;
use super::error::{Trouble, words};
use super::tls::Tls;
use crate::store::StoreError;

/// How long a transaction may wait for this process before the database ends it, in milliseconds:
/// one that was stopped, or cut off, in the middle of a transaction keeps nobody waiting for what it
/// has locked.
const IDLE_MS: u32 = 2_000;

/// A statement under way.
type Asking<'a, T, E = Error> = Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'a>>;

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
    client: Client,
    statements: Mutex<HashMap<&'static str, Statement>>,
    answer_within: Duration,
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

    fn count_round(&self) {
        self.rounds.fetch_add(1, Ordering::Relaxed);
        if let Some(rounds) = &self.commit_rounds {
            rounds.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether it is known to be of no use.
    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Sends all of `asks` at once, in their order, and waits for all answers.
    pub(super) async fn round(&self, asks: &[Ask<'_>]) -> Result<Vec<Vec<Row>>, Unanswered> {
        let answering = async {
            let statements = self.prepare(asks).await?;
            self.count_round();
            let sent = asks.iter().zip(&statements);
            let answers: Vec<Asking<'_, Vec<Row>>> = sent
                .map(|(ask, statement)| -> Asking<'_, Vec<Row>> {
                    match (ask, statement) {
                        (Ask::Query(_, values), Some(statement)) => Box::pin(async move {
                            let values: Vec<&(dyn ToSql + Sync)> = values
                                .iter()
                                .map(|value| &**value as &(dyn ToSql + Sync))
                                .collect();
                            self.client.query(statement, &values).await
                        }),
                        (Ask::Query(sql, _) | Ask::Plain(sql), _) => Box::pin(async move {
                            self.client.batch_execute(sql).await.map(|()| Vec::new())
                        }),
                    }
                })
                .collect();
            in_order(answers).await.map_err(|(at, error)| Unanswered {
                at,
                error: Some(error),
            })
        };
        match tokio::time::timeout(self.answer_within, answering).await {
            Ok(answered) => answered,
            Err(_) => Err(Unanswered { at: 0, error: None }),
        }
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

    /// The statements of a round; those not prepared yet are prepared together.
    async fn prepare(&self, asks: &[Ask<'_>]) -> Result<Vec<Option<Statement>>, Unanswered> {
        let mut known = self.statements.lock().await;
        let mut missing: Vec<&'static str> = Vec::new();
        for ask in asks {
            if let Ask::Query(sql, _) = ask
                && !known.contains_key(sql)
                && !missing.contains(sql)
            {
                missing.push(sql);
            }
        }
        if !missing.is_empty() {
            self.count_round();
            let preparing = missing
                .iter()
                .map(|sql| Box::pin(self.client.prepare(sql)) as Asking<'_, Statement>);
            let prepared = in_order(preparing.collect()).await;
            // Nothing of the round has been sent.
            let prepared = prepared.map_err(|(_, error)| Unanswered {
                at: 0,
                error: Some(error),
            })?;
            known.extend(missing.into_iter().zip(prepared));
        }
        Ok(asks
            .iter()
            .map(|ask| match ask {
                Ask::Query(sql, _) => known.get(sql).cloned(),
                Ask::Plain(_) => None,
            })
            .collect())
    }
}

impl Unanswered {
    pub(super) fn trouble(&self) -> Trouble {
        self.error.as_ref().map_or_else(Trouble::late, Trouble::of)
    }
}

/// Polls all of them in their order, so that what they send is sent in it, until each has ended.
/// The first that failed, in their order, is the error.
async fn in_order<T, E>(mut futures: Vec<Asking<'_, T, E>>) -> Result<Vec<T>, (usize, E)> {
    let mut ended: Vec<Option<Result<T, E>>> = futures.iter().map(|_| None).collect();
    poll_fn(|context| {
        let mut waiting = false;
        for (future, ended) in futures.iter_mut().zip(&mut ended) {
            if ended.is_none() {
                match future.as_mut().poll(context) {
                    Poll::Ready(result) => *ended = Some(result),
                    Poll::Pending => waiting = true,
                }
            }
        }
        if waiting {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    })
    .await;
    ended
        .into_iter()
        .flatten()
        .enumerate()
        .map(|(at, result)| result.map_err(|error| (at, error)))
        .collect()
}
